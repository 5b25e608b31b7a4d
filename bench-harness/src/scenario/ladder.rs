//! Kafkorama's published ladder: clients and deliveries in proportion to the processors, and
//! latency from the publish call to the client's receive.
//!
//! Owns the rows of `ladder` and the published figures. Never measures Kafkorama. Invariant: the
//! number of clients stays the same in all steps, and only the rate rises.

use anyhow::{Result, ensure};

use super::{Bench, Burst, Common, SECOND_NS};
use crate::account::ProcessSample;
use crate::dense::{Channels, Dense, Mode};
use crate::grid::{Better, Column, Grid};
use crate::latency::Recorder;
use crate::publish::{Api, Post};
use crate::rows::{Row, number};
use crate::server::{API_KEY, Server};
use crate::wire::Data;

/// Clients, and deliveries per second at 1x, for each processor.
const CLIENTS_PER_CPU: u64 = 31_250;
/// Subscribers of a channel.
const SUBSCRIBERS: u64 = 100;
const BYTES: usize = 512;
/// Steps in hundredths of the published rate.
const STEPS: [u64; 4] = [50, 100, 150, 200];
/// Unanswered requests of the publisher.
const IN_FLIGHT: u64 = 1024;
/// Target of p99 at 1x, and the highest p99 of a step that counts as carried, in ns. The second is
/// the highest p99 of the published ladder.
const TARGET_NS: f64 = 25e6;
const CARRIED_NS: u64 = 44_000_000;
const MS: f64 = 1e6;

/// Quantiles of the rows and of the table.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p75", 0.75), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)];

/// Flags of `ladder`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Processors that the load is in proportion to: 31,250 clients and as many deliveries per
    /// second for each. By default the processors of the machine. --connections overrides the
    /// number of clients, and each client still receives one message per second at 1x.
    #[arg(long)]
    vcpus: Option<u64>,
}

/// A published result of Kafkorama.
struct Published {
    machine: &'static str,
    clients: u64,
    mean_ms: f64,
    /// Published for one of the runs only.
    p50_ms: Option<f64>,
    p99_ms: f64,
    max_ms: f64,
}

/// Source of [`PUBLISHED`].
const SOURCE: &str = "this and the other lines of Kafkorama were published in \
    github.com/kafkorama/kafkorama-fanout-1-million-clients-benchmark (README.md, sections 3 and \
    4; the median of 3 ms in kafkorama.com/blog/benchmarking-kafkorama-confluent.html), not \
    measured here: the gateway alone on the named machine, its CPU below 75%; clients, Kafka and \
    the publisher on other machines, and the time through Kafka is part of the latency; 512 random \
    bytes, 10,000 subjects, 10,000 publications per second, about 30 to 50 minutes";

const PUBLISHED: [Published; 4] = [
    Published {
        machine: "Kafkorama, c5n.xlarge, 4 vCPU",
        clients: 125_000,
        mean_ms: 3.68,
        p50_ms: None,
        p99_ms: 34.0,
        max_ms: 314.0,
    },
    Published {
        machine: "Kafkorama, c5n.2xlarge, 8 vCPU",
        clients: 250_000,
        mean_ms: 3.75,
        p50_ms: None,
        p99_ms: 28.0,
        max_ms: 409.0,
    },
    Published {
        machine: "Kafkorama, c5n.4xlarge, 16 vCPU",
        clients: 500_000,
        mean_ms: 3.69,
        p50_ms: None,
        p99_ms: 25.0,
        max_ms: 452.0,
    },
    Published {
        machine: "Kafkorama, c5n.9xlarge, 36 vCPU",
        clients: 1_000_000,
        mean_ms: 4.09,
        p50_ms: Some(3.0),
        p99_ms: 44.0,
        max_ms: 208.0,
    },
];

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let processors = drumline::base::sys::processors() as u64;
    let cpus = options.vcpus.unwrap_or(processors);
    ensure!(cpus > 0, "--vcpus must be above 0");
    let clients = CLIENTS_PER_CPU * cpus;
    let title = "Kafkorama's ladder: 100 subscribers per channel at rising rates";
    let mut bench = Bench::new(&options.common, "ladder", title, (clients, 60))?;
    bench.parameter("subscribers per channel", SUBSCRIBERS);
    bench.note(format!(
        "The load generator runs on the same {processors} processors as the server, and its CPU \
         stands beside the server's. One pipelined HTTP publisher; latency counts from the \
         scheduled time of the publish call to the client's receive."
    ));
    let rooms = (bench.connections / SUBSCRIBERS).max(1);
    let channels = Channels::Rooms(rooms);
    let server = bench.server(false)?;
    let mode = Mode::Subscribe(channels.clone());
    let (dense, _) = bench.connect(bench.connections, server.address().port(), mode)?;
    let warm = bench.deliver(&server, &dense, burst(&channels, rooms, 50, 2))?;
    bench.account("warm-up", &warm.recorder);
    let mut table = table(&bench);
    let mut highest = 0;
    for step in STEPS {
        let p99 = measure(&mut bench, &server, &dense, (&channels, rooms, step), &mut table)?;
        if p99 <= CARRIED_NS {
            highest = highest.max(step);
        }
    }
    let note = format!(
        "of {} deliveries per second; p99 is at most 44 ms, the highest of the published ladder",
        number(bench.connections as f64)
    );
    let row = Row::new("highest step with p99 within 44 ms", highest as f64 / 100.0, "ratio");
    bench.row(row.note(note));
    published(&mut table);
    bench.tables(vec![table]);
    bench.check_standing(&dense, "on the ladder");
    server.stop()?;
    dense.stop()?;
    bench.finish()
}

fn burst(channels: &Channels, rooms: u64, step: u64, seconds: u64) -> Burst {
    // At 1x each channel gets one publication per second.
    let interval_ns = SECOND_NS * 100 / (rooms * step);
    Burst {
        api: Api::Http(Post::drumline(API_KEY).pipelined(IN_FLIGHT)),
        publishers: 1,
        channels: channels.clone(),
        data: Data::Filled(BYTES),
        messages: (seconds * SECOND_NS / interval_ns).max(1),
        interval_ns,
        per_frame: 1,
    }
}

/// One step. Returns its p99 in ns.
fn measure(
    bench: &mut Bench,
    server: &Server,
    dense: &Dense,
    (channels, rooms, step): (&Channels, u64, u64),
    table: &mut Grid,
) -> Result<u64> {
    let name = format!("{}x", step as f64 / 100.0);
    let (own, seconds) = (std::process::id(), bench.seconds);
    let before = (server.sample()?, ProcessSample::of_one(own)?);
    let delivered = bench.deliver(server, dense, burst(channels, rooms, step, seconds))?;
    let server_cpu = server.sample()?.since(&before.0)?;
    let client_cpu = ProcessSample::of_one(own)?.since(&before.1)?;
    let recorder = delivered.recorder;
    for (quantile, at) in QUANTILES {
        let value = recorder.total()?.value_at_quantile(at) as f64;
        let row = Row::new(format!("{name}: {quantile}"), value, "ns");
        let has_target = step == 100 && quantile == "p99";
        bench.row(if has_target { row.at_most(TARGET_NS) } else { row });
    }
    let wall_ns = delivered.took.as_nanos() as u64;
    let count = recorder.deliveries.delivered;
    for (whose, cpu) in [("server", server_cpu), ("load generator", client_cpu)] {
        bench.row(Row::new(format!("{name}: cores of the {whose}"), cpu.cores(wall_ns)?, "cores"));
        let cost = cpu.cpu_ns_per(count)?;
        bench.row(Row::new(format!("{name}: CPU per delivery of the {whose}"), cost, "ns"));
    }
    bench.lateness(&name, &delivered.published)?;
    let rate = count as f64 * SECOND_NS as f64 / wall_ns as f64;
    line(table, &format!("Drumline, {name}"), bench.connections, rate, &recorder)?;
    let p99 = recorder.percentiles()?.p99;
    bench.series(&name, recorder);
    Ok(p99)
}

/// The table without lines.
fn table(bench: &Bench) -> Grid {
    let mut columns = vec![
        Column::new("clients", "count", Better::Neither),
        Column::new("deliveries per second", "count", Better::Neither),
        Column::new("mean", "ns", Better::Neither),
    ];
    columns.extend(QUANTILES.iter().map(|(name, _)| Column::new(name, "ns", Better::Neither)));
    columns.push(Column::new("max", "ns", Better::Neither));
    let load = format!(
        "512 bytes per message; {} clients of Drumline, {SUBSCRIBERS} subscribers per channel, \
         load generator on the same machine",
        number(bench.connections as f64)
    );
    Grid::new("ladder, beside the published figures", &load, columns)
}

fn line(table: &mut Grid, name: &str, clients: u64, rate: f64, recorder: &Recorder) -> Result<()> {
    let all = recorder.percentiles()?;
    let total = recorder.total()?;
    let mut values = vec![clients as f64, rate, all.mean];
    values.extend(QUANTILES.iter().map(|(_, at)| total.value_at_quantile(*at) as f64));
    values.push(all.max as f64);
    push(table, name, values.into_iter().map(Some));
    Ok(())
}

fn published(table: &mut Grid) {
    for one in &PUBLISHED {
        let clients = Some(one.clients as f64);
        let ms = |value: f64| Some(value * MS);
        let quantiles = [one.p50_ms.and_then(ms), None, None, ms(one.p99_ms), None];
        let values = [clients, clients, ms(one.mean_ms)].into_iter().chain(quantiles);
        push(table, one.machine, values.chain([ms(one.max_ms)]));
    }
    if let Some(first) = table.lines.iter_mut().find(|line| line.target.starts_with("Kafkorama")) {
        first.remarks.push(SOURCE.to_owned());
    }
}

/// Adds a line with one value per column.
fn push(table: &mut Grid, name: &str, values: impl Iterator<Item = Option<f64>>) {
    table.target(name);
    if let Some(line) = table.lines.last_mut() {
        line.values = values.map(|value| vec![value]).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_1x_each_channel_gets_one_message_per_second() {
        let channels = Channels::Rooms(625);
        for (step, messages) in [(50, 312), (100, 625), (150, 937), (200, 1250)] {
            let burst = burst(&channels, 625, step, 1);
            assert!(burst.messages.abs_diff(messages) <= 1, "{step}: {}", burst.messages);
        }
    }

    #[test]
    fn the_published_lines_fit_the_table_and_name_their_source() {
        let columns = 3 + QUANTILES.len() + 1;
        let columns = (0..columns).map(|nth| Column::new(&nth.to_string(), "ns", Better::Neither));
        let mut table = Grid::new("a", "b", columns.collect());
        published(&mut table);
        table.check().unwrap();
        assert_eq!(table.lines.len(), PUBLISHED.len());
        assert!(table.text().contains("kafkorama-fanout-1-million-clients-benchmark"));
        assert!(!table.compares());
    }
}
