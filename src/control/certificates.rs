//! Watches the certificates of the ports while the process runs, and shows when they expire.
//!
//! Owns the clock of the looks. Never reads a certificate itself. The invariant: one log line for
//! each change of the files.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::base::failure::Failure;
use crate::control::metrics::family::{Family, FamilyKind};
use crate::control::metrics::names::Names;
use crate::tls::Validity;
use crate::tls::store::CertificateStore;

/// Pause between two looks at the files.
const PAUSE: Duration = Duration::from_secs(2);

/// Looks for changed files as long as the process runs.
pub async fn watch(stores: Vec<Arc<CertificateStore>>) {
    if stores.is_empty() {
        return;
    }
    for store in stores.iter().filter(|store| store.early() > 0) {
        let (place, served) = (store.place(), store.describe());
        tracing::warn!(
            target: "tls",
            "{place}: clients refuse {served}; if it is valid, correct the clock of this machine"
        );
    }
    loop {
        sleep(PAUSE).await;
        let looked = stores.clone();
        // A file may be on a slow disk.
        let look = move || looked.iter().for_each(|store| report(store, store.poll()));
        if tokio::task::spawn_blocking(look).await.is_err() {
            return;
        }
    }
}

/// Logs what a look found.
fn report(store: &CertificateStore, found: Option<Result<(), Failure>>) {
    let place = store.place();
    match found {
        None => {}
        Some(Ok(())) => {
            tracing::info!(target: "tls", "{place}: now serving {}", store.describe());
        }
        Some(Err(refused)) => {
            tracing::warn!(target: "tls", "{refused}; until then the certificates read before stay in use")
        }
    }
}

/// Metrics of the certificates.
pub fn families(stores: &[Arc<CertificateStore>], names: &Names) -> Vec<Family> {
    let labels = &["section"];
    let gauge = |name, help| Family::new(names.full(name), help, FamilyKind::Gauge, labels);
    let section = |store: &CertificateStore| vec![store.place().to_owned()];
    let first = |of: fn(Validity) -> i64| {
        let of_store = move |store: &Arc<CertificateStore>| {
            Some((section(store), of(store.first_to_expire()?) as f64))
        };
        stores.iter().filter_map(of_store)
    };
    let failing = stores.iter().map(|store| (section(store), f64::from(store.is_failing())));
    vec![
        gauge(
            "tls_certificate_expiry_timestamp_seconds",
            "When the first certificate of a section expires, in seconds since 1970.",
        )
        .with_numbers(first(|validity| validity.not_after)),
        gauge(
            "tls_certificate_lifetime_seconds",
            "Lifetime of the first certificate of a section that expires, in seconds.",
        )
        .with_numbers(first(Validity::lifetime)),
        gauge(
            "tls_certificate_unusable",
            "1 while the files of a section cannot be used and older certificates are served.",
        )
        .with_numbers(failing),
    ]
}
