//! The bytes per message with each set of headers.
//!
//! Owns that part and its row. Never starts more clients than it needs: bytes do not depend on
//! their number.

use anyhow::Result;

use super::article::{POLL_BYTES, REQUEST_HEADERS, SMALLEST, WIRE_BYTES};
use super::cells::set;
use super::claims::RATIO_MIN;
use super::line::Line;
use super::measure::{self, Load};
use super::tables::{self, ALL, ARTICLE, LEAST, Tables};
use crate::rows::Row;
use crate::scenario::Bench;

/// Clients whose bytes are counted, and the seconds of each count.
const CLIENTS: u64 = 100;
const SECONDS: u64 = 3;

/// Counts the bytes of every line.
pub(super) fn headers(bench: &mut Bench, tables: &mut Tables) -> Result<()> {
    let mut grid = tables::headers();
    let (mut polling, mut websocket) = (f64::NAN, f64::NAN);
    for line in Line::ALL {
        for (headers, column) in [(REQUEST_HEADERS, ARTICLE), (SMALLEST, LEAST)] {
            if *line == Line::Servlet && column == LEAST {
                continue;
            }
            eprintln!("{column}, {}", line.name());
            let seconds = SECONDS.min(bench.seconds);
            let load = Load { clients: CLIENTS, seconds, headers, ..Load::of_case(*line) };
            let counts = measure::line(bench, *line, &load)?.readings.counts;
            let bytes = counts.framing_per_price();
            set(&mut grid, line.name(), column, bytes);
            if headers == line.headers() {
                tables.overhead.bytes(*line, bytes);
            }
            match (line, column) {
                (Line::Servlet, ARTICLE) => polling = bytes,
                (Line::UniWebSocket, ARTICLE) => websocket = bytes,
                _ => {}
            }
            if column == LEAST {
                set(&mut grid, line.name(), ALL, counts.overhead_per_price());
            }
        }
    }
    tables.add(grid);
    bench.row(row(polling, websocket));
    Ok(())
}

/// The ratio of the bytes of a poll with the article's headers to those of a WebSocket message.
fn row(polling: f64, websocket: f64) -> Row {
    let what = "header bytes: article's headers to uni_websocket frames";
    let told = format!("the article: {POLL_BYTES} to 2; with line ends {WIRE_BYTES}");
    Row::new(what, polling / websocket, "ratio").at_least(RATIO_MIN).note(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Verdict;

    #[test]
    fn a_websocket_message_with_a_longer_header_misses_the_target() {
        let poll = POLL_BYTES as f64;
        assert_eq!(row(poll, 2.0).verdict(), Verdict::Met);
        assert!(matches!(row(poll, 4.0).verdict(), Verdict::Missed(_)), "a message over 125 bytes");
        assert!(matches!(row(152.0, 2.0).verdict(), Verdict::Missed(_)), "smallest headers");
        assert!(row(f64::NAN, 2.0).check().is_err(), "a line was not measured");
    }
}
