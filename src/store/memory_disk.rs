//! A disk in memory whose faults are chosen: for tests and for the simulation.
//!
//! Owns the contents. Never touches a real disk. It behaves as [`Disk`] allows: a batch that failed
//! is there or not after the next [`Disk::reopen`], as the fault says.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::disk::{Change, Disk, Fault, FaultKind, Order, Table, View, Visitor};
use crate::store::layout::SECRET_KEY;

type Contents = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// What becomes of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFault {
    /// It fails, and nothing of it is on disk.
    Lost(FaultKind),
    /// It fails, and all of it is on disk nevertheless.
    Written(FaultKind),
}

#[derive(Debug, Default)]
struct State {
    contents: Arc<Contents>,
    is_open: bool,
    commits: VecDeque<Option<CommitFault>>,
    probe: Option<FaultKind>,
    opens: VecDeque<FaultKind>,
    limbo: Vec<Change>,
}

/// A disk in memory. Clones share the contents.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

fn fault(kind: FaultKind) -> Fault {
    Fault::new(kind, "a chosen fault")
}

fn apply(contents: &mut Contents, changes: Vec<Change>) {
    for Change { table, key, value } in changes {
        match value {
            Some(value) => contents.insert((table, key), value),
            None => contents.remove(&(table, key)),
        };
    }
}

impl MemoryDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses what becomes of the next commits, in order; `None`: the commit succeeds.
    pub fn plan_commits(&self, faults: impl IntoIterator<Item = Option<CommitFault>>) {
        self.state().commits.extend(faults);
    }

    /// The next attempts to open the disk fail for these causes.
    pub fn plan_opens(&self, faults: impl IntoIterator<Item = FaultKind>) {
        self.state().opens.extend(faults);
    }

    /// The next probe finds a fault.
    pub fn plan_probe(&self, fault: FaultKind) {
        self.state().probe = Some(fault);
    }

    /// Keys and values of a table.
    pub fn entries(&self, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
        let contents = self.state().contents.clone();
        let of_table = contents.iter().filter(|((of, _), _)| *of == table);
        of_table.map(|((_, key), value)| (key.clone(), value.clone())).collect()
    }

    /// Sets a value without a commit.
    pub fn set(&self, table: Table, key: &[u8], value: &[u8]) {
        let contents = &mut self.state().contents;
        Arc::make_mut(contents).insert((table, key.to_vec()), value.to_vec());
    }
}

impl Disk for MemoryDisk {
    type View<'a> = MemoryView;

    fn commit(&self, changes: Vec<Change>) -> Result<(), Fault> {
        let mut state = self.state();
        if !state.is_open {
            return Err(fault(FaultKind::Closed));
        }
        match state.commits.pop_front().flatten() {
            None => {
                apply(Arc::make_mut(&mut state.contents), changes);
                Ok(())
            }
            Some(CommitFault::Lost(kind)) => {
                state.is_open = false;
                Err(fault(kind))
            }
            Some(CommitFault::Written(kind)) => {
                state.is_open = false;
                state.limbo = changes;
                Err(fault(kind))
            }
        }
    }

    fn view(&self) -> Result<MemoryView, Fault> {
        let state = self.state();
        match state.is_open {
            true => Ok(MemoryView(state.contents.clone())),
            false => Err(fault(FaultKind::Closed)),
        }
    }

    fn probe(&self) -> Result<(), Fault> {
        let mut state = self.state();
        match state.probe.take() {
            Some(kind) => {
                state.is_open = false;
                Err(fault(kind))
            }
            None => Ok(()),
        }
    }

    fn reopen(&self) -> Result<(), Fault> {
        let mut state = self.state();
        state.is_open = false;
        if let Some(kind) = state.opens.pop_front() {
            return Err(fault(kind));
        }
        let limbo = std::mem::take(&mut state.limbo);
        let contents = Arc::make_mut(&mut state.contents);
        apply(contents, limbo);
        contents.entry((Table::State, SECRET_KEY.to_vec())).or_insert(vec![7; 16]);
        state.is_open = true;
        Ok(())
    }

    fn close(&self) -> Result<(), Fault> {
        self.state().is_open = false;
        Ok(())
    }
}

/// The contents at one moment.
#[derive(Clone, Debug)]
pub struct MemoryView(Arc<Contents>);

impl View for MemoryView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.0.get(&(table, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        table: Table,
        keys: Range<&[u8]>,
        order: Order,
        visit: &mut Visitor<'_>,
    ) -> Result<(), Fault> {
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
