//! The tables of the showdown while they fill.
//!
//! Owns the columns and the lines of the article beside the measured ones. Never measures.
//! Invariant: a value that is not measured has a remark that says where it comes from.

use super::article::{FRAME_BYTES, POLL_BYTES, PRINTED, UseCase, mbps};
use super::cells::{remark, remark_once, set};
use super::claims::Overhead;
use super::line::Line;
use super::measure::Measured;
use super::prices::SYMBOLS;
use crate::grid::{Better, Column, Grid, Spread};
use crate::rows::number;
use crate::scenario::Bench;

/// Name of the table of header bytes.
const HEADERS: &str = "header bytes";
/// Columns of the table of header bytes.
pub(super) const ARTICLE: &str = "headers and framing, article's request headers";
pub(super) const LEAST: &str = "headers and framing, smallest headers";
pub(super) const ALL: &str = "everything but the price, smallest headers";
/// Columns of the use cases.
const OVERHEAD: &str = "headers and framing";
const CPU: &str = "server CPU per message";
const AGE_99: &str = "age of the shown price, p99";
const AGE_50: &str = "age of the shown price, p50";
const MEMORY: &str = "server memory per client";
const P50: &str = "publication to client, p50";
const P99: &str = "publication to client, p99";
const CLIENT_CPU: &str = "clients' CPU per message";

#[derive(Default)]
pub(super) struct Tables {
    grids: Vec<Grid>,
    /// What was measured of the network overhead.
    pub(super) overhead: Overhead,
    /// Letter of the use case whose table was begun last; `None`: another part's table.
    case: Option<char>,
    /// Place of the largest use case that was measured in every way.
    judged: Option<usize>,
    /// Prices that did not come in ways that deliver every price.
    lost: u64,
}

/// The table of header bytes, without values but the printed ones.
pub(super) fn headers() -> Grid {
    let columns = [ARTICLE, LEAST, ALL].map(|name| Column::new(name, "bytes", Better::Less));
    let load = "bytes per delivered message, requests and responses together, counted on the \
                sockets of the clients after they are up";
    let mut headers = Grid::new(HEADERS, load, columns.into());
    Line::ALL.iter().for_each(|line| headers.target(line.name()));
    for (name, bytes) in PRINTED.into_iter().zip([POLL_BYTES, FRAME_BYTES]) {
        headers.target(name);
        set(&mut headers, name, ARTICLE, bytes as f64);
    }
    remark(&mut headers, PRINTED[0], "as printed: characters without the line ends");
    remark(&mut headers, PRINTED[1], "as printed: the frames of a draft of WebSocket");
    headers
}

impl Tables {
    /// Begins the table of a use case.
    pub(super) fn begin_case(&mut self, case: &UseCase, clients: u64, lines: &[Line]) {
        let name = format!("use case {}", case.letter);
        let mut grid = loaded(&name, "a price per second", clients, lines);
        for (name, value) in PRINTED.into_iter().zip([case.printed.0, case.printed.1]) {
            grid.target(name);
            set(&mut grid, name, OVERHEAD, value);
            remark(&mut grid, name, "as printed");
        }
        self.grids.push(grid);
        self.case = Some(case.letter);
    }

    /// Begins the table of a feed with so many prices per second on each channel.
    pub(super) fn begin_fast(&mut self, per_channel: f64, clients: u64, lines: &[Line]) {
        let rate = format!("{per_channel} prices per second, or the latest one per poll");
        self.grids.push(loaded("fast feed", &rate, clients, lines));
        self.case = None;
    }

    /// Judges by the table that was begun last.
    pub(super) fn judge_last(&mut self) {
        self.judged = self.grids.len().checked_sub(1);
    }

    /// The median of the rounds' ratios of the server's processor time per message.
    pub(super) fn cpu_ratio(&self, line: Line, to: Line) -> Option<f64> {
        let grid = self.grids.get(self.judged?)?;
        Some(Spread::of(grid.ratios(line.name(), to.name(), CPU))?.median)
    }

    /// Prices that did not come in ways that deliver every price.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Sets the values of a line in the table that was begun last.
    pub(super) fn measured(&mut self, line: Line, measured: &Measured) {
        self.lost += measured.lost(line);
        let Some(grid) = self.grids.last_mut() else { return };
        let mut set = |column, value| set(grid, line.name(), column, value);
        let overhead = mbps(measured.readings.counts.framing as f64, measured.seconds);
        set(OVERHEAD, overhead);
        if let Some(letter) = self.case {
            self.overhead.mbps(letter, line, overhead);
        }
        set(CPU, measured.cpu_ns);
        set(MEMORY, measured.memory);
        set(CLIENT_CPU, measured.client_cpu_ns);
        if !line.is_live() {
            return;
        }
        if let Ok(ages) = measured.readings.ages.percentiles() {
            set(AGE_50, ages.p50 as f64);
            set(AGE_99, ages.p99 as f64);
        }
        if let Ok(latency) = measured.readings.latency.percentiles() {
            set(P50, latency.p50 as f64);
            set(P99, latency.p99 as f64);
        }
    }

    /// Sets the overhead of a line for more clients than were measured.
    pub(super) fn extrapolate(&mut self, line: Line, from: &Measured, (few, many): (u64, u64)) {
        let Some(grid) = self.grids.last_mut() else { return };
        let measured = mbps(from.readings.counts.framing as f64, from.seconds);
        set(grid, line.name(), OVERHEAD, measured * many as f64 / few as f64);
        let told = format!("extrapolated from {} clients, not measured", number(few as f64));
        remark_once(grid, line.name(), &told);
        // A chart shows no remarks.
        let told = format!("; headers and framing of ways that poll are {told}");
        if !grid.load.contains(&told) {
            grid.load.push_str(&told);
        }
    }

    /// Adds a table.
    pub(super) fn add(&mut self, grid: Grid) {
        self.grids.push(grid);
    }

    /// Adds all tables to the run.
    pub(super) fn finish(self, bench: &mut Bench) {
        bench.tables(self.overhead.table().into_iter().collect());
        bench.tables(self.grids);
    }
}

/// A table of clients under load, without values.
fn loaded(name: &str, rate: &str, clients: u64, lines: &[Line]) -> Grid {
    let less = |name, unit| Column::new(name, unit, Better::Less);
    let columns = vec![
        less(OVERHEAD, "Mbps"),
        less(CPU, "ns"),
        less(AGE_99, "ns"),
        less(AGE_50, "ns"),
        less(MEMORY, "bytes"),
        less(P50, "ns"),
        less(P99, "ns"),
        Column::new(CLIENT_CPU, "ns", Better::Neither),
    ];
    let load = format!(
        "{} clients that get {rate} each, {SYMBOLS} symbols; polls once per second; Mbps of 2^20 \
         bits as in the article; smallest headers, apart from the line with the article's",
        number(clients as f64)
    );
    let mut grid = Grid::new(name, &load, columns);
    lines.iter().for_each(|line| grid.target(line.name()));
    grid
}

#[cfg(test)]
mod tests {
    use super::super::article::USE_CASES;
    use super::*;

    fn measured(framing: u64, cpu_ns: f64) -> Measured {
        Measured::of(framing, cpu_ns, 2).unwrap()
    }

    #[test]
    fn an_extrapolated_value_is_scaled_and_says_so() {
        let mut tables = Tables::default();
        tables.begin_case(&USE_CASES[2], 100_000, &[Line::UniWebSocket, Line::Polling]);
        let one = measured(131_072, 5.0);
        tables.measured(Line::UniWebSocket, &one);
        tables.extrapolate(Line::Polling, &one, (10_000, 100_000));
        let grid = tables.grids.last().unwrap();
        grid.check().unwrap();
        let value = |target| grid.spread(target, OVERHEAD).unwrap().median;
        assert_eq!((value("uni_websocket"), value("polling")), (1.0, 10.0));
        assert_eq!(value("article: polling"), 665.0);
        let text = grid.text();
        assert!(text.contains("polling: extrapolated from 10,000 clients, not measured"), "{text}");
        let told = "; headers and framing of ways that poll are extrapolated from 10,000 clients";
        assert_eq!(grid.load.matches(told).count(), 1, "charts show it too");
    }

    #[test]
    fn ratios_are_those_of_the_judged_table_round_by_round() {
        let mut tables = Tables::default();
        assert_eq!(tables.cpu_ratio(Line::Polling, Line::Nginx), None);
        tables.begin_case(&USE_CASES[0], 1_000, &[Line::Polling, Line::Nginx]);
        for (ours, nginx) in [(10.0, 20.0), (10.0, 10.0), (10.0, 40.0)] {
            tables.measured(Line::Polling, &measured(1, ours));
            tables.measured(Line::Nginx, &measured(1, nginx));
        }
        tables.judge_last();
        tables.begin_fast(10.0, 1_000, &[Line::UniWebSocket]);
        assert_eq!(tables.cpu_ratio(Line::Polling, Line::Nginx), Some(0.5));
        assert_eq!(tables.lost(), 0, "polls skip prices");
        tables.measured(Line::UniWebSocket, &measured(1, 1.0));
        assert_eq!(tables.lost(), 2);
    }
}
