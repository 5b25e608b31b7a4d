//! Values and remarks of the tables' lines.
//!
//! Owns no state. Never adds a line.

use crate::grid::{Grid, Line};

/// Adds the value of a round to a line.
pub(super) fn set(grid: &mut Grid, target: &str, column: &str, value: f64) {
    let Some(at) = grid.columns.iter().position(|one| one.name == column) else { return };
    if let Some(line) = grid.line(target) {
        line.values[at].push(Some(value));
    }
}

/// Adds a remark that other rounds may have added.
pub(super) fn remark_once(grid: &mut Grid, target: &str, text: &str) {
    let told = |line: &Line| line.remarks.iter().any(|one| one == text);
    if !grid.line(target).is_some_and(|line| told(line)) {
        remark(grid, target, text);
    }
}

/// Adds a remark to a line.
pub(super) fn remark(grid: &mut Grid, target: &str, text: &str) {
    if let Some(line) = grid.line(target) {
        line.remarks.push(text.to_owned());
    }
}
