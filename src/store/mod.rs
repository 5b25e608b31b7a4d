//! The embedded store: keeps durable streams on disk.
//!
//! Owns the start of the store. Never decides about a stream: the home of its channel does. The
//! invariant: what was answered as kept is on disk, whatever happens afterwards.

pub mod batch;
pub mod disk;
pub mod entry_log;
pub mod fjall_disk;
mod fjall_log;
pub mod folder;
pub mod housekeeping;
mod journal_mark;
mod journal_room;
pub mod journals;
pub mod layout;
pub mod manifests;
#[cfg(any(test, feature = "planted-faults"))]
pub mod memory_disk;
pub mod reading;
pub mod records;
pub mod retention;
pub mod service;
pub mod snapshot;
pub mod state;
mod table_ages;
mod table_files;
pub mod thread;
pub mod tools;
mod weight;

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::failure::Failure;
use crate::base::store_metrics::StoreMetrics;
use crate::engine::bus::Bus;
use crate::model::names::Names;
use crate::store::disk::Disk as _;
use crate::store::fjall_disk::FjallDisk;
use crate::store::folder::Folder;
use crate::store::service::Service;
use crate::store::thread::StoreThread;

/// What the operator decides about the store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Folder of the store.
    pub path: PathBuf,
    /// Maximum bytes of publications; 0: any number.
    pub bytes_max: u64,
}

/// A store whose folder is checked, and whose threads do not run yet.
pub struct Store {
    disk: FjallDisk,
    options: StoreOptions,
    is_open: bool,
    metrics: Arc<StoreMetrics>,
}

impl Store {
    /// Opens the store, or creates it in a missing or empty folder. If the disk is full, read-only
    /// or faulty, nothing is deleted and the store begins unavailable: its threads open it when the
    /// cause is gone.
    ///
    /// # Errors
    /// The folder has a newer format or other files, another process has the store open, or a file
    /// is damaged.
    pub fn open(options: &StoreOptions) -> Result<Self, Failure> {
        let folder = Folder::new(options.path.clone());
        if !folder.has_store()? {
            folder.announce();
        }
        let disk = FjallDisk::new(folder);
        let is_open = match disk.reopen() {
            Ok(()) => {
                let path = options.path.display();
                tracing::info!(target: "store", "opened the store in {path}");
                true
            }
            Err(fault) if fault.kind.is_permanent() => {
                return Err(folder::failure(&fault));
            }
            Err(fault) => {
                tracing::error!(
                    target: "store",
                    "the store begins unavailable, durable publishing answers error 100: {fault}; \
                     {}", fault.cure()
                );
                false
            }
        };
        let metrics = Arc::new(StoreMetrics::default());
        Ok(Store { disk, options: options.clone(), is_open, metrics })
    }

    /// Metrics of the store.
    pub fn metrics(&self) -> &Arc<StoreMetrics> {
        &self.metrics
    }

    /// Starts the threads on the store's endpoint of `bus`. `names` finds the homes of channels.
    ///
    /// # Errors
    /// The kernel starts no thread.
    pub fn run(self, bus: Arc<Bus>, names: Names) -> Result<StoreThread, Failure> {
        let Store { disk, options: StoreOptions { path, bytes_max }, is_open, metrics } = self;
        let disk = Arc::new(disk);
        let thread = thread::start(disk.clone(), (is_open, bytes_max), (bus, names), metrics)?;
        let service = Service::start(&path, disk).map_err(|error| {
            tracing::warn!(
                target: "store",
                "`drumline store` cannot ask this server: cannot open a socket in {}: {error}; \
                 let the server write to the folder and restart it",
                path.display()
            );
        });
        Ok(thread.with_service(service.ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::Message;
    use crate::model::storage::{StoreWrite, StoreWritten};
    use crate::store::batch::tests::publish;
    use crate::store::fjall_disk::tests::folder;
    use crate::store::thread::tests::{Fixture, bus};

    /// A running store in a folder.
    fn running(options: &StoreOptions) -> Fixture {
        let (store, bus) = (Store::open(options).unwrap(), bus());
        let metrics = store.metrics().clone();
        let thread = store.run(bus.clone(), Names::new([0; 16], 2)).unwrap();
        Fixture { bus, thread: Some(thread), metrics }
    }

    #[test]
    fn what_is_kept_is_read_after_a_restart() {
        let folder = folder();
        let options = StoreOptions { path: folder.path().join("store"), bytes_max: 0 };
        for round in 0..3u64 {
            let store = running(&options);
            assert_eq!(store.top(), round * 100);
            for serial in 1..=100 {
                let write = StoreWrite { serial, ..publish("a", round * 100 + serial, 1) };
                store.send(0, Message::StoreWrite(Box::new(write)));
            }
            let written = store.wait(0, 100);
            assert_eq!(written, StoreWritten { through: 100, term: 0, kept: true, touched: false });
            assert_eq!(store.top(), round * 100 + 100);
            assert_eq!(store.metrics.publications.get(), 100);
            assert!(store.metrics.batches.get() < 100, "writes share commits");
        }
    }
}
