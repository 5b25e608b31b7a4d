//! The tables of `peers` while they fill.
//!
//! Owns the values by scenario, target and round, the failed targets, and the latencies of all
//! rounds together. Never decides how to measure. Invariant: a value belongs to the round in which
//! it was measured, so pairs are of one round.

use std::collections::BTreeMap;

use anyhow::Result;

use super::quantities::LOST;
use super::scenarios::{Numbers, Scenario, Stage};
use crate::grid::Grid;
use crate::latency::Recorder;
use crate::rows::Row;
use crate::scenario::Bench;
use crate::target::Target;

pub(super) struct Tables {
    scenarios: Vec<Scenario>,
    grids: Vec<Grid>,
    failed: Vec<String>,
    /// Of unicast, by target.
    latencies: BTreeMap<String, Recorder>,
    /// The target whose turn it is, and the round.
    target: String,
    round: usize,
}

impl Tables {
    pub(super) fn new(scenarios: &[Scenario], targets: &[Target], plan: &Numbers) -> Self {
        let grid = |scenario: &Scenario| {
            let load = scenario.load_text(plan);
            let mut grid = Grid::new(scenario.name(), &load, scenario.columns());
            targets.iter().for_each(|target| grid.target(target.name()));
            grid
        };
        Tables {
            scenarios: scenarios.to_vec(),
            grids: scenarios.iter().map(grid).collect(),
            failed: Vec::new(),
            latencies: BTreeMap::new(),
            target: String::new(),
            round: 0,
        }
    }

    /// The scenarios of a stage.
    pub(super) fn scenarios(&self, stage: Stage) -> Vec<Scenario> {
        let is_of = |scenario: &Scenario| scenario.stage() == stage;
        self.scenarios.iter().copied().filter(is_of).collect()
    }

    /// The next values belong to this target and this round, counted from 0.
    pub(super) fn turn(&mut self, target: &str, round: usize) {
        (self.target, self.round) = (target.to_owned(), round);
    }

    /// Records a value.
    pub(super) fn set(&mut self, scenario: Scenario, column: &str, value: f64) {
        let (target, round) = (self.target.clone(), self.round);
        let Some(grid) = self.grid_mut(scenario) else { return };
        let Some(at) = grid.columns.iter().position(|one| one.name == column) else { return };
        let Some(line) = grid.line(&target) else { return };
        let values = &mut line.values[at];
        values.resize(values.len().max(round + 1), None);
        values[round] = Some(value);
    }

    /// Adds a remark on the target in a scenario, each remark once.
    pub(super) fn remark(&mut self, scenario: Scenario, remark: &str) {
        let target = self.target.clone();
        let Some(line) = self.grid_mut(scenario).and_then(|grid| grid.line(&target)) else {
            return;
        };
        if !line.remarks.iter().any(|one| one == remark) {
            line.remarks.push(remark.to_owned());
        }
    }

    /// Adds latencies of a scenario at a rate.
    pub(super) fn latencies(&mut self, recorder: Recorder) -> Result<()> {
        match self.latencies.get_mut(&self.target) {
            Some(sum) => sum.merge(recorder),
            None => {
                self.latencies.insert(self.target.clone(), recorder);
                Ok(())
            }
        }
    }

    pub(super) fn round(&self) -> usize {
        self.round
    }

    /// Removes a failed target. Every table gets the reason.
    pub(super) fn fail(&mut self, target: &str, told: String) {
        for grid in &mut self.grids {
            if let Some(line) = grid.line(target) {
                line.remarks.push(told.clone());
            }
        }
        self.failed.push(target.to_owned());
    }

    pub(super) fn has_failed(&self, target: &str) -> bool {
        self.failed.iter().any(|one| one == target)
    }

    fn grid_mut(&mut self, scenario: Scenario) -> Option<&mut Grid> {
        self.grids.iter_mut().find(|grid| grid.name == scenario.name())
    }

    pub(super) fn grid(&self, scenario: Scenario) -> Option<&Grid> {
        self.grids.iter().find(|grid| grid.name == scenario.name())
    }

    /// Messages lost in all tables, by any target.
    fn lost(&self) -> f64 {
        let lost_of = |grid: &Grid| {
            let at = grid.columns.iter().position(|column| column.name == LOST)?;
            Some(grid.lines.iter().flat_map(|line| line.values[at].iter().flatten()).sum::<f64>())
        };
        self.grids.iter().filter_map(lost_of).sum()
    }

    /// Adds the rows about all targets to the run.
    pub(super) fn sum_up(&self, bench: &mut Bench) {
        let failed = Row::new("targets that failed", self.failed.len() as f64, "count");
        let failed = failed.at_most(0.0);
        bench.row(match self.failed.is_empty() {
            true => failed,
            false => failed.note(self.failed.join(", ")),
        });
        bench.row(Row::new("messages lost, all targets", self.lost(), "count").at_most(0.0));
    }

    /// Adds tables and series to the run and ends it.
    pub(super) fn finish(self, bench: &mut Bench) -> Result<()> {
        for (target, recorder) in self.latencies {
            if recorder.deliveries.delivered > 0 {
                bench.keep(&format!("unicast {target}"), recorder);
            }
        }
        bench.tables(self.grids);
        Ok(())
    }
}
