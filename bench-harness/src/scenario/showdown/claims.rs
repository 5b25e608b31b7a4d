//! The article's network overhead beside the measured one: bytes per message, and what they make of
//! a network with the clients of each use case.
//!
//! Owns that table and its row. Never measures. Invariant: what is calculated and what was measured
//! have columns of their own.

use super::article::{FRAME_BYTES, POLL_BYTES, PRINTED, USE_CASES, UseCase, mbps};
use super::cells::{remark, set};
use super::line::Line;
use crate::grid::{Better, Column, Grid, Spread};
use crate::rows::{Row, number};

const BYTES: &str = "header and framing bytes";
/// The article's way of polling, and the one that it compares it with.
const COMPARED: (Line, Line) = (Line::Servlet, Line::UniWebSocket);
/// Smallest ratio of the overhead of the first to that of the second.
pub(super) const RATIO_MIN: f64 = 400.0;

/// What was measured of the overhead.
#[derive(Debug, Default)]
pub(super) struct Overhead {
    /// Bytes per message with the headers that the use cases have.
    bytes: Vec<(Line, f64)>,
    /// Mbps in the use cases that were measured: letter, line and value of each round.
    mbps: Vec<(char, Line, f64)>,
}

impl Overhead {
    /// Notes the bytes per message.
    pub(super) fn bytes(&mut self, line: Line, bytes: f64) {
        self.bytes.push((line, bytes));
    }

    /// Notes a measured throughput.
    pub(super) fn mbps(&mut self, case: char, line: Line, mbps: f64) {
        self.mbps.push((case, line, mbps));
    }

    /// The median of the measured throughput.
    fn measured(&self, case: char, line: Line) -> Option<f64> {
        let rounds = self.mbps.iter().filter(|(one, of, _)| (*one, *of) == (case, line));
        Some(Spread::of(rounds.map(|(.., mbps)| *mbps))?.median)
    }

    /// The table, if bytes were counted.
    pub(super) fn table(&self) -> Option<Grid> {
        let names: Vec<[String; 2]> = USE_CASES.iter().map(columns).collect();
        let mut all = vec![Column::new(BYTES, "bytes", Better::Less)];
        let columns = names.iter().flatten();
        all.extend(columns.map(|name| Column::new(name, "Mbps", Better::Less)));
        let load = "header and framing bytes per message, requests and responses together, and \
                    the network throughput that they take when each client gets a message per \
                    second, in Mbps of 2^20 bits; calculated: bytes per message x clients, an \
                    extrapolation where no measured value stands beside it; measured: counted on \
                    the sockets of so many clients, with pings. Smallest headers, apart from the \
                    line with the article's";
        let mut grid = Grid::new("overhead beside the article's", load, all);
        for (line, bytes) in &self.bytes {
            grid.target(line.name());
            set(&mut grid, line.name(), BYTES, *bytes);
            for (case, [calculated, measured]) in USE_CASES.iter().zip(&names) {
                set(&mut grid, line.name(), calculated, of_case(*bytes, case));
                if let Some(found) = self.measured(case.letter, *line) {
                    set(&mut grid, line.name(), measured, found);
                }
            }
        }
        let printed = |case: &UseCase| [case.printed.0, case.printed.1];
        for (at, bytes) in [POLL_BYTES, FRAME_BYTES].into_iter().enumerate() {
            grid.target(PRINTED[at]);
            set(&mut grid, PRINTED[at], BYTES, bytes as f64);
            for (case, [calculated, _]) in USE_CASES.iter().zip(&names) {
                set(&mut grid, PRINTED[at], calculated, printed(case)[at]);
            }
            remark(&mut grid, PRINTED[at], "as printed; the article measured no throughput");
        }
        (!self.bytes.is_empty()).then_some(grid)
    }

    /// The rows: the ratio of the compared ways in each use case in which both were measured.
    pub(super) fn rows(&self) -> Vec<Row> {
        let (polling, websocket) = COMPARED;
        let row = |case: &UseCase| {
            let ratio =
                self.measured(case.letter, polling)? / self.measured(case.letter, websocket)?;
            let what = format!(
                "use case {}: network overhead, {} to {}",
                case.letter,
                polling.name(),
                websocket.name()
            );
            Some(Row::new(what, ratio, "ratio").at_least(RATIO_MIN))
        };
        USE_CASES.iter().filter_map(row).collect()
    }
}

/// The throughput of so many bytes per second and client.
fn of_case(bytes: f64, case: &UseCase) -> f64 {
    mbps(bytes * case.clients as f64, 1.0)
}

/// Names of the columns of a use case: calculated and measured.
fn columns(case: &UseCase) -> [String; 2] {
    let UseCase { letter, clients, .. } = case;
    let clients = number(*clients as f64);
    ["calculated", "measured"].map(|how| format!("{letter}, {clients} clients, {how}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Verdict;

    /// Three rounds of both ways in use case B.
    fn overhead(polling: f64) -> Overhead {
        let mut overhead = Overhead::default();
        overhead.bytes(Line::UniWebSocket, 2.0);
        overhead.bytes(Line::Servlet, 909.0);
        for part in [0.9, 1.0, 1.2] {
            overhead.mbps('B', Line::UniWebSocket, 0.15 * part);
            overhead.mbps('B', Line::Servlet, polling * part);
        }
        overhead
    }

    #[test]
    fn calculated_and_measured_values_stand_beside_the_printed_ones() {
        let grid = overhead(69.0).table().unwrap();
        grid.check().unwrap();
        let value = |line: &str, column: &str| grid.spread(line, column).map(|one| one.median);
        let calculated = value("polling (article)", "C, 100,000 clients, calculated").unwrap();
        assert!((calculated - 909.0 * 8.0 * 1e5 / 1_048_576.0).abs() < 1e-6, "{calculated}");
        assert_eq!(value("article: polling", "C, 100,000 clients, calculated"), Some(665.0));
        assert_eq!(value("article: WebSocket", "A, 1,000 clients, calculated"), Some(0.015));
        assert_eq!(value("polling (article)", "B, 10,000 clients, measured"), Some(69.0));
        let extrapolated = value("polling (article)", "C, 100,000 clients, measured");
        assert_eq!(extrapolated, None, "calculated alone");
        assert!(Overhead::default().table().is_none());
    }

    #[test]
    fn the_row_misses_below_the_ratio_and_needs_both_ways() {
        let of = |polling| overhead(polling).rows();
        let [met, missed] = [of(61.0), of(59.0)];
        assert_eq!((met.len(), met[0].verdict()), (1, Verdict::Met));
        assert!(matches!(missed[0].verdict(), Verdict::Missed(_)));
        assert_eq!(met[0].what, "use case B: network overhead, polling (article) to uni_websocket");
        let mut alone = overhead(1.0);
        alone.mbps.retain(|(_, line, _)| *line == Line::Servlet);
        assert!(alone.rows().is_empty());
    }
}
