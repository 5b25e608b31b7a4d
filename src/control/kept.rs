//! What the control plane keeps in the folder of the store: revocations and hook events.
//!
//! Owns the logs until the parts of the control plane get them, and the counters of what could not
//! be written. The invariant: the logs are read before the first connection is accepted.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::metrics::MetricKind;
use crate::base::sys;
use crate::config::Config;
use crate::control::backend::hook_log::{HookLog, RestoredEvent};
use crate::control::metrics::Metric;
use crate::control::revocation_log::RevocationLog;
use crate::model::names::Names;
use crate::model::revocation::Revocations;

/// Numbers of what is not on disk although there is a store.
#[derive(Debug, Default)]
pub struct KeptCounters {
    /// Revocations.
    pub revocations: AtomicU64,
    /// Hook events.
    pub hook_events: Arc<AtomicU64>,
}

impl KeptCounters {
    /// The metrics.
    pub fn metrics(&self) -> Vec<Metric> {
        let total = |name, help, count: &AtomicU64| Metric {
            name,
            help,
            kind: MetricKind::Total,
            value: count.load(Ordering::Relaxed),
        };
        vec![
            total(
                "revocations_not_kept",
                "Revocations that could not be written to the folder of the store.",
                &self.revocations,
            ),
            total(
                "hooks_not_kept",
                "Hook events that could not be written to the folder of the store.",
                &self.hook_events,
            ),
        ]
    }
}

/// What a start has found in the folder of the store.
#[derive(Default)]
pub struct Kept {
    /// The log of revocations; `None`: there is no store.
    pub revocation_log: Option<RevocationLog>,
    /// The revocations in force.
    pub revocations: Arc<Revocations>,
    /// The log of hook events, and those that are not delivered; `None`: there is no store.
    pub hooks: Option<(HookLog, Vec<RestoredEvent>)>,
    /// What could not be written.
    pub counters: Arc<KeptCounters>,
}

impl Kept {
    /// Reads the logs in the folder of the store, if there is one. The folder must be locked.
    pub fn open(config: &Config, names: &Names) -> Self {
        let path = &config.store.path;
        if path.is_empty() {
            return Kept::default();
        }
        let (folder, bytes_max) = (Path::new(path), config.store.log_max_bytes as u64);
        let counters = Arc::<KeptCounters>::default();
        let now = sys::unix_millis() / 1000;
        let (log, revocations) = RevocationLog::open(folder, names, bytes_max, now);
        let hooks = HookLog::open(folder, config, counters.hook_events.clone());
        let events = hooks.as_ref().map_or(0, |(_, events)| events.len());
        if !revocations.is_empty() || events > 0 {
            let count = revocations.len();
            tracing::info!(
                target: "store",
                "took over {count} revocations and {events} hook events of the last run"
            );
        }
        let (revocation_log, revocations) = (Some(log), Arc::new(revocations));
        Kept { revocation_log, revocations, hooks, counters }
    }
}
