//! What a start takes over of the snapshot that the last stop wrote.
//!
//! Owns the snapshot between reading and removing. The invariant: nothing of a snapshot that is
//! still on disk is given to the homes, because after a crash the next start would give it again.

use std::path::{Path, PathBuf};

use crate::base::failure::Failure;
use crate::base::sys;
use crate::config::Config;
use crate::control::snapshot::SnapshotPlan;
use crate::model::snapshot::{NodeSecrets, RestoredHome};
use crate::store::snapshot::reader::{Limits, Snapshot};
use crate::store::snapshot::{self, Found, files};

/// What a start has found.
pub struct Restart {
    /// Folder of the store.
    folder: Option<PathBuf>,
    found: Found,
    secrets: NodeSecrets,
}

impl Restart {
    /// Reads the snapshot in the folder of the store, if there is one. The folder must be locked.
    ///
    /// # Errors
    /// The kernel has no random numbers.
    pub fn read(config: &Config, shards: usize) -> Result<Self, Failure> {
        let no_random = |error| {
            let cause = format!("cannot read random bytes from the kernel: {error}");
            Failure::new(cause, "allow the system call getrandom")
        };
        let names = sys::random().map_err(no_random)?;
        let epochs = u64::from_ne_bytes(sys::random().map_err(no_random)?);
        let path = &config.store.path;
        let folder = (!path.is_empty()).then(|| PathBuf::from(path));
        let found = folder.as_ref().map_or(Found::Nothing, |folder| read(folder, config, shards));
        Ok(Restart { folder, found, secrets: NodeSecrets { names, epochs } })
    }

    /// The secrets of the node until [`Restart::take`]. The hashes of names are those of the
    /// snapshot; the epochs are not, because it may not be used.
    pub fn secrets(&self) -> NodeSecrets {
        match &self.found {
            Found::Snapshot(found) => NodeSecrets { names: found.secrets.names, ..self.secrets },
            Found::Nothing | Found::Stuck => self.secrets,
        }
    }

    /// Removes the snapshot. Returns what the homes get, and the plan for the next snapshot.
    pub fn take(self) -> (Vec<RestoredHome>, SnapshotPlan) {
        let secrets = self.secrets();
        let Restart { folder, found, .. } = self;
        let Some(folder) = folder else { return (Vec::new(), SnapshotPlan::default()) };
        let plan =
            |secrets, is_stuck| SnapshotPlan { target: Some((folder.clone(), secrets)), is_stuck };
        let snapshot = match found {
            Found::Snapshot(snapshot) => snapshot,
            Found::Nothing => {
                // A half snapshot of a drain that was cut off is of no use, and of no harm.
                let _ = files::remove(&folder);
                return (Vec::new(), plan(secrets, false));
            }
            Found::Stuck => return (Vec::new(), plan(secrets, true)),
        };
        if let Err(error) = files::remove(&folder) {
            tracing::error!(
                target: "store",
                "the snapshot {} is not used, so clients get `recovered: false`: it cannot be \
                 removed: {error}; let the server write to store.path",
                folder.join(files::FILE).display()
            );
            return (Vec::new(), plan(secrets, true));
        }
        tell(&snapshot);
        let secrets = snapshot.secrets;
        (snapshot.into_homes(), plan(secrets, false))
    }
}

fn read(folder: &Path, config: &Config, shards: usize) -> Found {
    let namespaces = config.namespaces();
    let keeps = |channel: &str| {
        let retention = namespaces.of(channel).map(|options| options.retention);
        retention.is_ok_and(|retention| retention.is_some_and(|retention| !retention.durable))
    };
    let limits = Limits {
        shards: shards as u8,
        now: sys::unix_millis(),
        history_bytes: config.engine.history_bytes,
        keeps: &keeps,
    };
    snapshot::read(folder, &limits)
}

/// Logs what is taken over.
fn tell(snapshot: &Snapshot) {
    let (entries, left_out) = (snapshot.entries(), snapshot.left_out());
    let age = sys::unix_millis().saturating_sub(snapshot.begun) / 1000;
    tracing::info!(target: "store", "took over {entries} of the snapshot of {age} s ago");
    if !left_out.is_empty() {
        tracing::warn!(
            target: "store",
            "left out {left_out} of the snapshot: their channels have no history in memory any \
             more, or engine.history_bytes is smaller"
        );
    }
}
