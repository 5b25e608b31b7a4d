//! The cells in which a home shows the latest publications of the channels that are polled.
//!
//! Owns the cells. Never changes what a cell shows. The invariant: their number is bounded.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::latest::LatestCell;

/// Maximum number of cells. Polls for further channels ask the home each time.
const CELLS_MAX: usize = 4096;

/// Cells by the index of their channel.
#[derive(Debug, Default)]
pub(super) struct LatestCells {
    cells: HashMap<u32, Arc<LatestCell>>,
}

impl LatestCells {
    /// Whether no channel has a cell.
    pub(super) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The cell of a channel, if it has one.
    pub(super) fn get(&self, at: u32) -> Option<&Arc<LatestCell>> {
        if self.is_empty() { None } else { self.cells.get(&at) }
    }

    /// The cell of a channel; `None`: all cells are in use by others.
    pub(super) fn get_or_insert(&mut self, at: u32) -> Option<Arc<LatestCell>> {
        if self.cells.len() >= CELLS_MAX && !self.cells.contains_key(&at) {
            self.cells.retain(|_, cell| Arc::strong_count(cell) > 1);
            if self.cells.len() >= CELLS_MAX {
                return None;
            }
        }
        Some(self.cells.entry(at).or_default().clone())
    }

    /// Removes the cell of a channel.
    pub(super) fn remove(&mut self, at: u32) -> Option<Arc<LatestCell>> {
        if self.is_empty() { None } else { self.cells.remove(&at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_in_use_are_bounded_and_unused_ones_make_room() {
        let mut cells = LatestCells::default();
        let used: Vec<_> = (0..CELLS_MAX as u32).map(|at| cells.get_or_insert(at)).collect();
        assert!(used.iter().all(Option::is_some));
        assert!(cells.get_or_insert(CELLS_MAX as u32).is_none());
        assert!(cells.get_or_insert(0).is_some(), "a cell that exists");
        drop(used);
        assert!(cells.get_or_insert(CELLS_MAX as u32).is_some());
        assert_eq!(cells.cells.len(), 1);
    }
}
