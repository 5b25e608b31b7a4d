//! The simulated disk of a store. A batch is on disk as a whole or not at all, as the journal of
//! the real disk keeps it: also when writing it fails, and when a crash comes in the middle.
//!
//! Owns the contents. Never knows what they mean. Planted faults break the promise.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use drumline::store::disk::{Change, Fault as DiskFault, FaultKind, Order, Table, View, Visitor};
use drumline::store::layout::SECRET_KEY;

use crate::faults::Fault;
use crate::random::Random;

type Contents = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The kernel lives on, and writes what the process has written.
    Killed,
    /// What is not synced is on disk or not.
    PowerCut,
    /// The store has committed what it got, and has closed the disk.
    Stopped,
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Kept,
    /// It fails, and is not on disk.
    Lost,
    /// It fails, and is on disk when the disk is opened again.
    Written,
}

pub struct Disk {
    contents: Arc<Contents>,
    /// The contents before the batches that were acknowledged and not synced.
    synced: Option<Arc<Contents>>,
    /// The batch that failed and is on disk nevertheless.
    failed: Option<Vec<Change>>,
    /// The contents with the batch that is being written.
    unwritten: Option<Arc<Contents>>,
    is_open: bool,
    pub fault: Option<Fault>,
    /// Batches so far.
    batches: usize,
}

fn apply(contents: &mut Contents, changes: &[Change]) {
    for Change { table, key, value } in changes {
        match value {
            Some(value) => contents.insert((*table, key.clone()), value.clone()),
            None => contents.remove(&(*table, key.clone())),
        };
    }
}

impl Disk {
    pub fn new(fault: Option<Fault>) -> Self {
        let secret = ((Table::State, SECRET_KEY.to_vec()), vec![7; 16]);
        Disk {
            contents: Arc::new(Contents::from([secret])),
            synced: None,
            failed: None,
            unwritten: None,
            is_open: false,
            fault,
            batches: 0,
        }
    }

    /// A consistent state for reading.
    pub fn view(&self) -> Result<DiskView, DiskFault> {
        let contents = self.unwritten.as_ref().unwrap_or(&self.contents);
        match self.is_open {
            true => Ok(DiskView(contents.clone())),
            false => Err(fault(FaultKind::Closed)),
        }
    }

    /// The writing of a batch begins.
    pub fn begin_commit(&mut self, changes: &[Change]) {
        if self.fault == Some(Fault::UnwrittenBatchSeen) {
            let mut contents = (*self.contents).clone();
            apply(&mut contents, changes);
            self.unwritten = Some(Arc::new(contents));
        }
    }

    /// The writing of a batch ends.
    pub fn commit(&mut self, changes: Vec<Change>, outcome: Outcome) -> Result<(), DiskFault> {
        self.batches += 1;
        self.unwritten = None;
        if self.fault == Some(Fault::FailedBatchComesLate) {
            self.apply_failed();
        }
        if outcome == Outcome::Kept {
            let before = self.synced.take();
            self.synced = match self.fault {
                Some(Fault::SyncLost) if self.batches.is_multiple_of(3) => {
                    Some(self.contents.clone())
                }
                Some(Fault::SyncDoesNothing) => before.or_else(|| Some(self.contents.clone())),
                _ => None,
            };
            apply(Arc::make_mut(&mut self.contents), &changes);
            return Ok(());
        }
        self.is_open = false;
        self.failed = (outcome == Outcome::Written).then_some(changes);
        Err(fault(FaultKind::Io))
    }

    /// Opens the disk. The batch that failed is on disk, or it is gone for good.
    pub fn reopen(&mut self) {
        if self.fault != Some(Fault::FailedBatchComesLate) {
            self.apply_failed();
        }
        self.is_open = true;
    }

    fn apply_failed(&mut self) {
        if let Some(changes) = self.failed.take() {
            apply(Arc::make_mut(&mut self.contents), &changes);
        }
    }

    /// The process ends while it writes a batch, or none.
    pub fn crash(&mut self, crash: Crash, writing: Option<Vec<Change>>, random: &mut Random) {
        (self.is_open, self.unwritten) = (false, None);
        let is_cut = crash == Crash::PowerCut;
        if let Some(synced) = self.synced.take().filter(|_| is_cut) {
            self.contents = synced;
            self.failed = None;
        }
        if is_cut && random.one_in(2) {
            self.failed = None;
        }
        let Some(changes) = writing else { return };
        let contents = Arc::make_mut(&mut self.contents);
        if random.one_in(2) {
            apply(contents, &changes);
        } else if self.fault == Some(Fault::TornBatchApplied) {
            apply(contents, &changes[..changes.len() / 2]);
        }
    }

    /// The contents of a table.
    pub fn table(&self, table: Table) -> impl Iterator<Item = (&[u8], &[u8])> {
        let first = (table, Vec::new());
        let found = self.contents.range(first..).take_while(move |((of, _), _)| *of == table);
        found.map(|((_, key), value)| (&key[..], &value[..]))
    }
}

fn fault(kind: FaultKind) -> DiskFault {
    DiskFault::new(kind, "a chosen fault")
}

/// The contents at one moment.
pub struct DiskView(Arc<Contents>);

impl View for DiskView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, DiskFault> {
        Ok(self.0.get(&(table, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        table: Table,
        keys: Range<&[u8]>,
        order: Order,
        visit: &mut Visitor<'_>,
    ) -> Result<(), DiskFault> {
        let mut found = self.0.range((table, keys.start.to_vec())..(table, keys.end.to_vec()));
        let mut next = || match order {
            Order::Ascending => found.next(),
            Order::Descending => found.next_back(),
        };
        while let Some(((_, key), value)) = next() {
            if !visit(key, value)? {
                break;
            }
        }
        Ok(())
    }
}
