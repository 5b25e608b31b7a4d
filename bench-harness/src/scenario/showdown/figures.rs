//! The bytes per message with each set of headers.
//!
//! Owns that part and its row. Never starts more clients than it needs: bytes do not depend on
//! their number.

use anyhow::Result;

use super::article::{POLL_BYTES, REQUEST_HEADERS, SMALLEST, WIRE_BYTES};
use super::line::Line;
use super::measure::{self, Load};
use super::tables::{self, ALL, ARTICLE, LEAST, Tables, set};
use crate::rows::Row;
use crate::scenario::Bench;

/// Clients whose bytes are counted, and the seconds of each count.
const CLIENTS: u64 = 100;
const SECONDS: u64 = 3;
/// Fewest header bytes of a poll for each one of a WebSocket message.
const RATIO_MIN: f64 = 400.0;

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
    let what = "header bytes: article's headers to uni_websocket frames";
    let told = format!("the article: {POLL_BYTES} to 2; with line ends {WIRE_BYTES}");
    bench.row(Row::new(what, polling / websocket, "ratio").at_least(RATIO_MIN).note(told));
    Ok(())
}
