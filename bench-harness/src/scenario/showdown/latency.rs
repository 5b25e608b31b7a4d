//! The article's figure 4: latency over a line that takes a fixed time in each direction.
//!
//! Owns that part and its rows. Never compares across rates.

use std::time::Duration;

use anyhow::Result;

use super::cells::{remark, set};
use super::line::Line;
use super::measure::{self, Load};
use super::relay::{Distance, Opening};
use super::tables::Tables;
use crate::dense::Channels;
use crate::grid::{Better, Column, Grid};
use crate::latency::Percentiles;
use crate::rows::Row;
use crate::scenario::Bench;

/// Prices per second for each client.
const RATES: [f64; 2] = [50.0, 1.0];
/// The line that the others are compared with.
const WEBSOCKET: &str = "WebSocket";
/// Long-polling over a real line.
const RECONNECTING: &str = "long-polling";
/// Long-polling at its best.
const KEPT: &str = "long-polling (kept)";
/// The lines that are compared.
const LINES: [(&str, Line, Opening); 7] = [
    ("uni_websocket", Line::UniWebSocket, Opening::RoundTrip),
    (WEBSOCKET, Line::WebSocket, Opening::RoundTrip),
    ("SSE", Line::Sse, Opening::RoundTrip),
    ("HTTP streaming", Line::HttpStream, Opening::RoundTrip),
    (KEPT, Line::LongPolling, Opening::Free),
    (RECONNECTING, Line::LongPolling, Opening::RoundTrip),
    ("long-polling nchan", Line::LongPollingNchan, Opening::RoundTrip),
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
        let mut grid = table(rate, (clients, delay_ms));
        let mut found = Vec::new();
        for (name, line, opening) in LINES {
            eprintln!("latency, {name}, {rate} per second");
            if line == Line::LongPollingNchan && rate > ONE_BY_ONE {
                let told = "not measured: nchan sends one message per response, too few per second";
                remark(&mut grid, name, told);
                continue;
            }
            let load = Load {
                clients,
                seconds: bench.seconds,
                channels: Channels::Distinct,
                per_channel: rate,
                random: true,
                distance: Some(Distance { delay: Duration::from_millis(delay_ms), opening }),
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
                set(&mut grid, name, column, value);
            }
            bench.keep(&format!("{name} {rate}/s"), measured.readings.latency);
            found.push((name, latency));
        }
        tables.add(grid);
        rows(rate, &found).into_iter().for_each(|row| bench.row(row));
    }
    Ok(())
}

/// The table of a rate, without values.
fn table(rate: f64, (clients, delay_ms): (u64, u64)) -> Grid {
    let less = |name| Column::new(name, "ns", Better::Less);
    let columns = vec![less("mean"), less("p50"), less("p99.9"), less("largest")];
    let load = format!(
        "{clients} clients with a channel each, prices at random times, {rate} per second for \
         each, {delay_ms} ms each way, and a round trip to open a connection; the article: 50 ms \
         for WebSocket, 150 ms for polling"
    );
    let mut grid = Grid::new(&format!("latency, {rate} per second"), &load, columns);
    LINES.iter().for_each(|(name, ..)| grid.target(name));
    let told = "without the round trip that opens a connection, as if each client kept its \
                connection, as the article assumes";
    remark(&mut grid, KEPT, told);
    remark(&mut grid, RECONNECTING, "each response ends its connection, so each request opens one");
    grid
}

/// The ratios of long-polling to WebSocket. A price that comes just after a response left waits for
/// the response, for the next request, and for its own response: three times the delay. If each
/// request opens a connection, it waits for that too: five times the delay. The targets are for the
/// first case, where long-polling is at its best.
fn rows(rate: f64, found: &[(&str, Percentiles)]) -> Vec<Row> {
    let of = |line| found.iter().find(|(one, _)| *one == line).map(|(_, found)| found);
    let mut rows = Vec::new();
    for name in [KEPT, RECONNECTING] {
        let (Some(long), Some(websocket)) = (of(name), of(WEBSOCKET)) else { continue };
        let judged = rate == RATES[0] && name == KEPT;
        let worst = long.p99_9 as f64 / websocket.p50 as f64;
        for (what, ratio, least) in [
            ("p99.9 to WebSocket's p50", worst, WORST_MIN),
            ("mean to WebSocket's", long.mean / websocket.mean, MEAN_MIN),
        ] {
            let row = Row::new(format!("{name}, {rate} per second: {what}"), ratio, "ratio");
            rows.push(if judged { row.at_least(least) } else { row });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Verdict;

    const MS: u64 = 1_000_000;

    /// A line with this mean and, as all percentiles, this latency.
    fn percentiles(mean: u64, latency: u64) -> Percentiles {
        Percentiles {
            mean: (mean * MS) as f64,
            p50: latency * MS,
            p99: latency * MS,
            p99_9: latency * MS,
            max: latency * MS,
            ..Percentiles::default()
        }
    }

    /// Verdicts of the two rows about kept connections at the first rate.
    fn verdicts(long: Percentiles) -> Vec<Verdict> {
        let found = [(WEBSOCKET, percentiles(50, 50)), (KEPT, long)];
        rows(RATES[0], &found).iter().map(Row::verdict).collect()
    }

    #[test]
    fn long_polling_that_is_too_good_misses_the_targets() {
        use Verdict::{Met, Missed};
        assert_eq!(verdicts(percentiles(100, 150)), [Met, Met]);
        assert!(matches!(verdicts(percentiles(100, 149))[..], [Missed(_), Met]));
        assert!(matches!(verdicts(percentiles(84, 150))[..], [Met, Missed(_)]));
    }

    #[test]
    fn only_kept_connections_at_the_first_rate_have_targets() {
        let found = [KEPT, RECONNECTING, WEBSOCKET].map(|name| (name, percentiles(1, 1)));
        let judged = |rate| -> Vec<String> {
            let all = rows(rate, &found);
            assert_eq!(all.len(), 4);
            all.into_iter().filter(|row| row.target.is_some()).map(|row| row.what).collect()
        };
        assert_eq!(
            judged(RATES[0]),
            [
                "long-polling (kept), 50 per second: p99.9 to WebSocket's p50",
                "long-polling (kept), 50 per second: mean to WebSocket's",
            ]
        );
        assert!(judged(RATES[1]).is_empty());
        assert!(rows(RATES[0], &found[..2]).is_empty(), "nothing to compare with");
    }
}
