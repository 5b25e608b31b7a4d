//! The article's figure 4: latency over a line that takes a fixed time in each direction.
//!
//! Owns that part and its rows. Never compares across rates.

use std::time::Duration;

use anyhow::Result;

use super::line::Line;
use super::measure::{self, Load};
use super::tables::{Tables, remark, set};
use crate::dense::Channels;
use crate::grid::{Better, Column, Grid};
use crate::latency::Percentiles;
use crate::rows::Row;
use crate::scenario::Bench;

/// Prices per second for each client.
const RATES: [f64; 2] = [50.0, 1.0];
/// The lines that are compared.
const LINES: [Line; 6] = [
    Line::UniWebSocket,
    Line::WebSocket,
    Line::Sse,
    Line::HttpStream,
    Line::LongPolling,
    Line::LongPollingNchan,
];
/// Most prices per second for each client that come one per response: one per two round trips.
const ONE_BY_ONE: f64 = 5.0;
/// Smallest ratios of long-polling to WebSocket at the first rate: of the worst case, and of the
/// mean.
const WORST_MIN: f64 = 3.0;
const MEAN_MIN: f64 = 1.7;

/// Measures each line at each rate, with so many clients and so much delay in each direction.
pub(super) fn measure(
    bench: &mut Bench,
    tables: &mut Tables,
    (clients, delay_ms): (u64, u64),
) -> Result<()> {
    for rate in RATES {
        let less = |name| Column::new(name, "ns", Better::Less);
        let columns = vec![less("mean"), less("p50"), less("p99.9"), less("largest")];
        let load = format!(
            "{clients} clients with a channel each, {rate} prices per second for each at random \
             times, {delay_ms} ms each way; the article: 50 ms for WebSocket, 150 ms for polling"
        );
        let mut grid = Grid::new(&format!("latency, {rate} per second"), &load, columns);
        let mut found = Vec::new();
        for line in LINES {
            eprintln!("latency, {}, {rate} per second", line.name());
            grid.target(line.name());
            if line == Line::LongPollingNchan && rate > ONE_BY_ONE {
                let told = "not measured: nchan sends one message per response, too few per second";
                remark(&mut grid, line.name(), told);
                continue;
            }
            let load = Load {
                clients,
                seconds: bench.seconds,
                channels: Channels::Distinct,
                per_channel: rate,
                random: true,
                delay: Duration::from_millis(delay_ms),
                ..Load::of_case(line)
            };
            let measured = measure::line(bench, line, &load)?;
            let latency = measured.readings.latency.percentiles()?;
            for (column, value) in [
                ("mean", latency.mean),
                ("p50", latency.p50 as f64),
                ("p99.9", latency.p99_9 as f64),
                ("largest", latency.max as f64),
            ] {
                set(&mut grid, line.name(), column, value);
            }
            bench.keep(&format!("{} {rate}/s", line.name()), measured.readings.latency);
            found.push((line, latency));
        }
        tables.add(grid);
        rows(bench, rate, &found);
    }
    Ok(())
}

/// The ratios of long-polling to WebSocket. A price that comes just after a response left waits for
/// the response, for the next request, and for its own response: three times the delay.
fn rows(bench: &mut Bench, rate: f64, found: &[(Line, Percentiles)]) {
    let of = |line: Line| found.iter().find(|(one, _)| *one == line).map(|(_, found)| found);
    let (Some(long), Some(websocket)) = (of(Line::LongPolling), of(Line::WebSocket)) else {
        return;
    };
    let judged = rate == RATES[0];
    let worst = long.p99_9 as f64 / websocket.p50 as f64;
    for (what, ratio, least) in [
        ("p99.9 to WebSocket's p50", worst, WORST_MIN),
        ("mean to WebSocket's", long.mean / websocket.mean, MEAN_MIN),
    ] {
        let row = Row::new(format!("long-polling, {rate} per second: {what}"), ratio, "ratio");
        bench.row(if judged { row.at_least(least) } else { row });
    }
}
