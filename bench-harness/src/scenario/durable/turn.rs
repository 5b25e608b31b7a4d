//! The outcome of a turn: how much was acknowledged, how fast and at which cost.
//!
//! Owns the arithmetic and the columns of the table. Never measures.

use std::time::Duration;

use anyhow::{Context, Result};
use drumline::base::sys::processors;

use crate::grid::{Better, Column, Grid};
use crate::latency::Recorder;

/// Names and units of the columns.
const COLUMNS: [(&str, &str); 8] = [
    (RATE, "count"),
    ("p50", "ns"),
    ("p99", "ns"),
    ("CPU per acknowledgement", "ns"),
    ("client's CPU per acknowledgement", "ns"),
    ("bytes written to the disk per publication", "bytes"),
    (BATCH, "count"),
    (OTHERS, "percent"),
];
/// Name of the judged column.
pub(super) const RATE: &str = "acknowledged per second";

const BATCH: &str = "publications per batch";
const OTHERS: &str = "other processes, share of all processors";

/// The outcome of a turn.
pub(super) struct Turn {
    /// Publications that were acknowledged.
    pub acknowledged: u64,
    /// How long the turn lasted.
    pub took: Duration,
    /// Time from each request to its acknowledgement.
    pub recorder: Recorder,
    /// Processor time of the server, in ns.
    pub server_ns: u64,
    /// Processor time of the client's thread, in ns.
    pub client_ns: Option<u64>,
    /// Bytes that the server wrote to disks.
    pub disk_bytes: u64,
    /// Publications per batch, on average.
    pub batch: Option<f64>,
    /// Time of all processes on all processors, in ns.
    pub busy_ns: u64,
}

impl Turn {
    /// Acknowledgements per second.
    pub fn rate(&self) -> f64 {
        self.acknowledged as f64 / self.took.as_secs_f64()
    }

    /// Share of all processors that processes outside of the measurement used, in percent.
    fn others(&self) -> f64 {
        let own = self.server_ns + self.client_ns.unwrap_or(0);
        let whole = self.took.as_nanos() as f64 * processors() as f64;
        self.busy_ns.saturating_sub(own) as f64 / whole * 100.0
    }

    /// Adds the turn to the line of a target.
    pub fn note(&self, table: &mut Grid, target: &str) -> Result<()> {
        let each = |sum: u64| sum as f64 / self.acknowledged.max(1) as f64;
        let times = self.recorder.percentiles()?;
        let values = [
            Some(self.rate()),
            Some(times.p50 as f64),
            Some(times.p99 as f64),
            Some(each(self.server_ns)),
            self.client_ns.map(each),
            Some(each(self.disk_bytes)),
            self.batch,
            Some(self.others()),
        ];
        let line = table.line(target).with_context(|| format!("no line {target}"))?;
        line.values.iter_mut().zip(values).for_each(|(all, value)| all.push(value));
        Ok(())
    }
}

/// An empty table with these targets.
pub(super) fn table(name: &str, load: &str, targets: &[&str]) -> Grid {
    let better = |name: &str| match name {
        RATE => Better::More,
        BATCH | OTHERS => Better::Neither,
        _ => Better::Less,
    };
    let columns = COLUMNS.map(|(name, unit)| Column::new(name, unit, better(name)));
    let mut table = Grid::new(name, load, columns.to_vec());
    targets.iter().for_each(|target| table.target(target));
    table
}
