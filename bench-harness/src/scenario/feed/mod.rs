//! The feed from RabbitMQ: a durable queue of persistent messages to one subscriber each of many
//! channels, beside a bare consumer of the same messages and the same publications by HTTP.
//!
//! Owns the flags, the turns and the rows. Never loads two of them at the same time. Invariant: the
//! same publisher sends the same messages to the feed and to the bare consumer, whose prefetch is
//! the same, and waits for the confirm of each.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Bench, Burst, Common, Delivered, PATIENCE};
use crate::account::ProcessDelta;
use crate::dense::{Channels, Dense, Mode};
use crate::grid::{Better, Column, Grid};
use crate::latency::Recorder;
use crate::publish::{Amqp, Api, Post, Published};
use crate::rows::{Row, number, value};
use crate::server::{API_KEY, Server};
use crate::wire::Data;

mod bare;
mod broker;

use bare::Bare;
pub use bare::{Arguments, serve};
use broker::Broker;

const BYTES: usize = 128;
/// Messages without a publisher confirm at most.
const WINDOW: usize = 2_000;
/// Unanswered HTTP publications at most.
const IN_FLIGHT: u64 = 64;
/// Messages of a turn at full speed, per second of `--seconds`.
const PER_SECOND: u64 = 15_000;
/// Messages per second while the latency is measured.
const SLOW: u64 = 1_000;
/// Time between two of them, in ns.
const SLOW_NS: u64 = 1_000_000_000 / SLOW;
/// Targets: messages per second, share of the CPU of an HTTP publication, latency.
const RATE: f64 = 15_000.0;
const HTTP_SHARE: f64 = 1.25;
const LATENCY_SHARE: f64 = 1.5;
const LATENCY_MORE_NS: f64 = 1e6;
/// The types of queues, the judged one first.
const KINDS: [&str; 2] = ["classic", "quorum"];

/// Flags of `feed`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Number of rounds. In each, every measurement has a turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Messages that the broker sends ahead of their acknowledgements, to the feed and to the bare
    /// consumer.
    #[arg(long, default_value_t = 500)]
    prefetch: u16,
}

/// What is measured, without the harness.
struct Scene {
    broker: Broker,
    server: Server,
    dense: Dense,
    /// A bare consumer for each type of queue.
    bare: Vec<Bare>,
}

/// The name of the feed's queue and exchange.
fn feed_queue(kind: &str) -> String {
    format!("feed-{kind}")
}

/// The name of the bare consumer's queue and exchange.
fn bare_queue(kind: &str) -> String {
    format!("bare-{kind}")
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0, "--rounds must be 1 or more");
    ensure!(options.prefetch > 0, "--prefetch must be 1 or more");
    let title = "The feed from RabbitMQ";
    let mut bench = Bench::new(&options.common, "feed", title, (1_000, 5))?;
    bench.parameter("rounds", options.rounds as u64);
    bench.parameter("prefetch", options.prefetch);
    bench.parameter("bytes", BYTES as u64);
    let mut scene = Scene::start(&mut bench, options.prefetch)?;
    let mut speed = speed_table(PER_SECOND * bench.seconds, bench.connections);
    let mut latency = latency_table(bench.seconds);
    let mut lost = 0;
    let mut series = [const { None::<Recorder> }; 2];
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for (nth, kind) in KINDS.into_iter().enumerate() {
            let (rate, missing) = feed_turn(&mut bench, &scene, &mut speed, kind)?;
            lost += missing;
            bare_turn(&mut bench, &mut scene, &mut speed, nth)?;
            if nth == 0 {
                http_turns(&mut bench, &scene, &mut speed, rate)?;
            }
        }
        latency_turn(&mut bench, &mut scene, &mut latency, &mut series)?;
    }
    rows(&speed, &latency, lost)?.into_iter().for_each(|row| bench.row(row));
    for (name, recorder) in [FEED, BARE].into_iter().zip(series) {
        if let Some(recorder) = recorder {
            bench.keep(&format!("{name}, {SLOW} per second"), recorder);
        }
    }
    bench.tables(vec![speed, latency]);
    scene.stop(&mut bench)?;
    bench.finish()
}

impl Scene {
    fn start(bench: &mut Bench, prefetch: u16) -> Result<Self> {
        eprintln!("starting RabbitMQ");
        let broker = Broker::start()?;
        let url = broker.url();
        let consumer = |kind: &str| {
            json!({
                "name": kind,
                "enabled": true,
                "type": "rabbitmq",
                "rabbitmq": {
                    "url": url,
                    "queue": feed_queue(kind),
                    "queue_type": kind,
                    "exchange": feed_queue(kind),
                    "exchange_type": "fanout",
                    "prefetch": prefetch,
                    "publication_data_mode": {
                        "enabled": true,
                        "channel_template": "{routing_key}",
                    },
                },
            })
        };
        let consumers = json!(KINDS.map(consumer)).to_string();
        let server = bench.server_with(true, &["--consumers".to_owned(), consumers])?;
        let port = server.address().port();
        let (dense, _) =
            bench.connect(bench.connections, port, Mode::Subscribe(Channels::Distinct))?;
        let bare =
            KINDS.map(|kind| Bare::start((&url, &bare_queue(kind), kind), prefetch, &bench.clock));
        let bare = bare.into_iter().collect::<Result<_>>()?;
        Ok(Scene { broker, server, dense, bare })
    }

    fn stop(self, bench: &mut Bench) -> Result<()> {
        bench.check_standing(&self.dense, "during the run");
        self.bare.into_iter().try_for_each(Bare::stop)?;
        self.server.stop()?;
        self.dense.stop()
    }
}

/// Messages to the broker.
fn amqp_burst(scene: &Scene, exchange: String, messages: u64, interval_ns: u64) -> Burst {
    let amqp = Amqp { url: scene.broker.url(), exchange, window: WINDOW };
    burst(Api::Amqp(amqp), messages, interval_ns)
}

/// Messages of one publisher, each to the channel of a subscriber.
fn burst(api: Api, messages: u64, interval_ns: u64) -> Burst {
    Burst {
        api,
        publishers: 1,
        channels: Channels::Distinct,
        data: Data::Filled(BYTES),
        messages,
        interval_ns,
        per_frame: 1,
    }
}

/// The outcome of a turn at full speed.
struct Turn {
    messages: u64,
    took: Duration,
    lost: u64,
    doubled: u64,
    /// The consumer's processor time, and the broker's.
    consumer: ProcessDelta,
    broker: Option<ProcessDelta>,
}

impl Turn {
    fn rate(&self) -> f64 {
        self.messages as f64 / self.took.as_secs_f64()
    }

    /// Adds the turn to the table.
    fn note(&self, table: &mut Grid, target: &str) -> Result<()> {
        let broker = self.broker.map(|broker| broker.cpu_ns_per(self.messages)).transpose()?;
        let values = [
            Some(self.rate()),
            Some(self.consumer.cpu_ns_per(self.messages)?),
            broker,
            Some(self.lost as f64),
            Some(self.doubled as f64),
        ];
        note(table, target, &values)
    }
}

fn note(table: &mut Grid, target: &str, values: &[Option<f64>]) -> Result<()> {
    let line = table.line(target).with_context(|| format!("the table has no line {target}"))?;
    line.values.iter_mut().zip(values).for_each(|(all, value)| all.push(*value));
    Ok(())
}

/// Every message must be confirmed and delivered once.
fn check(bench: &mut Bench, name: &str, published: &Published, recorder: &Recorder) {
    let Published { sent, confirmed, refusal, .. } = published;
    if confirmed != sent {
        bench.fault(format!("{name}: {confirmed} of {sent} messages confirmed: {refusal:?}"));
    }
    bench.account(name, recorder);
}

/// The feed at full speed. Returns its messages per second and the lost ones.
fn feed_turn(bench: &mut Bench, scene: &Scene, table: &mut Grid, kind: &str) -> Result<(f64, u64)> {
    let messages = PER_SECOND * bench.seconds;
    let burst = amqp_burst(scene, feed_queue(kind), messages, 0);
    let (server, broker) = (scene.server.sample()?, scene.broker.sample()?);
    let delivered = bench.deliver(&scene.server, &scene.dense, burst)?;
    let consumer = scene.server.sample()?.since(&server)?;
    let broker = scene.broker.sample()?.since(&broker)?;
    let Delivered { recorder, published, took } = delivered;
    let name = line(FEED, kind);
    check(bench, &name, &published, &recorder);
    let (lost, doubled) = (recorder.deliveries.lost(), recorder.deliveries.duplicates);
    let turn = Turn { messages, took, lost, doubled, consumer, broker: Some(broker) };
    turn.note(table, &name)?;
    Ok((turn.rate(), lost))
}

/// The bare consumer of the queue of this type at full speed.
fn bare_turn(bench: &mut Bench, scene: &mut Scene, table: &mut Grid, nth: usize) -> Result<()> {
    let kind = KINDS.get(nth).context("no such type of queue")?;
    let messages = PER_SECOND * bench.seconds;
    let burst = amqp_burst(scene, bare_queue(kind), messages, 0);
    let broker = scene.broker.sample()?;
    let bare = scene.bare.get_mut(nth).context("no such bare consumer")?;
    let before = bare.sample()?;
    let (published, recorder, took) = to_bare(bench, bare, burst)?;
    let consumer = bare.sample()?.since(&before)?;
    let broker = scene.broker.sample()?.since(&broker)?;
    let name = line(BARE, kind);
    check(bench, &name, &published, &recorder);
    let (lost, doubled) = (recorder.deliveries.lost(), recorder.deliveries.duplicates);
    let turn = Turn { messages, took, lost, doubled, consumer, broker: Some(broker) };
    turn.note(table, &name)
}

/// Publishes to the bare consumer and waits for all messages. Returns the time from the first due
/// message to the last received one too.
fn to_bare(
    bench: &mut Bench,
    bare: &mut Bare,
    burst: Burst,
) -> Result<(Published, Recorder, Duration)> {
    let messages = burst.messages;
    let load = bench.load(([127, 0, 0, 1], 0).into(), bench.connections, burst);
    let first_ns = load.first_ns;
    bare.begin(bench.phase)?;
    let published = load.start(bench.clock)?.join()?;
    let (recorder, last_ns) = bare.finish(messages, &bench.clock)?;
    Ok((published, recorder, Duration::from_nanos(last_ns.saturating_sub(first_ns))))
}

/// The same publications by HTTP: at the feed's rate, and as fast as the answers come.
fn http_turns(bench: &mut Bench, scene: &Scene, table: &mut Grid, rate: f64) -> Result<()> {
    let messages = PER_SECOND * bench.seconds;
    for (name, interval_ns) in [(HTTP, (1e9 / rate) as u64), (HTTP_FAST, 0)] {
        let api = Api::Http(Post::drumline(API_KEY).pipelined(IN_FLIGHT));
        let burst = burst(api, messages, interval_ns);
        let before = scene.server.sample()?;
        let delivered = bench.deliver_to(scene.server.address(), &scene.dense, burst, PATIENCE)?;
        let consumer = scene.server.sample()?.since(&before)?;
        let Delivered { recorder, published, took } = delivered;
        check(bench, name, &published, &recorder);
        let (lost, doubled) = (recorder.deliveries.lost(), recorder.deliveries.duplicates);
        Turn { messages, took, lost, doubled, consumer, broker: None }.note(table, name)?;
    }
    Ok(())
}

/// The latency of both at a slow rate.
fn latency_turn(
    bench: &mut Bench,
    scene: &mut Scene,
    table: &mut Grid,
    series: &mut [Option<Recorder>; 2],
) -> Result<()> {
    let messages = SLOW * bench.seconds;
    let kind = KINDS[0];
    let burst = amqp_burst(scene, feed_queue(kind), messages, SLOW_NS);
    let feed = bench.deliver(&scene.server, &scene.dense, burst)?;
    let burst = amqp_burst(scene, bare_queue(kind), messages, SLOW_NS);
    let bare = scene.bare.first_mut().context("no bare consumer")?;
    let (published, recorder, _) = to_bare(bench, bare, burst)?;
    let both = [(FEED, feed.published, feed.recorder), (BARE, published, recorder)];
    for ((name, published, recorder), sum) in both.into_iter().zip(series) {
        check(bench, &format!("{name}, {SLOW} per second"), &published, &recorder);
        let all = recorder.percentiles()?;
        let late = published.lateness.percentiles()?.p99;
        let values = [all.p50, all.p99, all.p99_9, late].map(|value| Some(value as f64));
        note(table, name, &values)?;
        match sum {
            Some(sum) => sum.merge(recorder)?,
            None => *sum = Some(recorder),
        }
    }
    Ok(())
}

const FEED: &str = "Drumline's feed";
const BARE: &str = "bare lapin consumer";
const HTTP: &str = "HTTP publications at the feed's rate";
const HTTP_FAST: &str = "HTTP publications at full speed";
const PER_S: &str = "messages per second";
const CPU: &str = "CPU per message";
const P50: &str = "p50";
const P99: &str = "p99";

fn line(name: &str, kind: &str) -> String {
    format!("{name}, {kind} queue")
}

fn speed_table(messages: u64, channels: u64) -> Grid {
    let columns = vec![
        Column::new(PER_S, "count", Better::Neither),
        Column::new(CPU, "ns", Better::Less),
        Column::new("broker's CPU per message", "ns", Better::Neither),
        Column::new("lost", "count", Better::Neither),
        Column::new("doubled", "count", Better::Neither),
    ];
    let load = format!(
        "{} persistent messages of {BYTES} bytes through a durable queue and one connection, \
         at most {WINDOW} without a confirm, to one subscriber each of {} channels; HTTP: one \
         connection, at most {IN_FLIGHT} requests without an answer",
        number(messages as f64),
        number(channels as f64),
    );
    let mut table = Grid::new("full speed", &load, columns);
    for kind in KINDS {
        table.target(&line(FEED, kind));
        table.target(&line(BARE, kind));
    }
    table.target(HTTP);
    table.target(HTTP_FAST);
    table
}

fn latency_table(seconds: u64) -> Grid {
    let names = [P50, P99, "p99.9", "publisher's lateness, p99"];
    let columns = names.map(|name| Column::new(name, "ns", Better::Neither));
    let load = format!(
        "from the time at which a message is due to its receipt by the subscriber, {SLOW} per \
         second for {seconds} s, classic queue"
    );
    let mut table = Grid::new("latency", &load, columns.to_vec());
    table.target(FEED);
    table.target(BARE);
    table
}

/// The rows of the tables.
fn rows(speed: &Grid, latency: &Grid, lost: u64) -> Result<Vec<Row>> {
    let median = |table: &Grid, target: &str, column: &str| {
        let spread = table.spread(target, column);
        spread.map(|spread| spread.median).with_context(|| format!("{target} was not measured"))
    };
    let [feed, bare] = [FEED, BARE].map(|name| line(name, KINDS[0]));
    let bare_rate = median(speed, &bare, PER_S)?;
    let rate = Row::new(
        "messages per second through one connection",
        median(speed, &feed, PER_S)?,
        "count",
    );
    let (bare_cpu, http) = (median(speed, &bare, CPU)?, median(speed, HTTP_FAST, CPU)?);
    let cpu = Row::new("server CPU per message", median(speed, &feed, CPU)?, "ns");
    let bare_p99 = median(latency, BARE, P99)?;
    let p99 = Row::new("1,000 per second: p99", median(latency, FEED, P99)?, "ns");
    let p50 = Row::new("1,000 per second: p50", median(latency, FEED, P50)?, "ns");
    Ok(vec![
        rate.at_least(RATE).note(format!("the bare consumer takes {bare_rate:.0} per second")),
        cpu.at_most(bare_cpu + HTTP_SHARE * http).note(format!(
            "the target is the CPU of the bare consumer, {}, and {HTTP_SHARE} x the CPU of the \
             same publication by HTTP at full speed, {}",
            value(bare_cpu, "ns"),
            value(http, "ns")
        )),
        Row::new("confirmed messages lost", lost as f64, "count").at_most(0.0),
        p99.at_most(LATENCY_SHARE * bare_p99 + LATENCY_MORE_NS).note(format!(
            "the target is {LATENCY_SHARE} x the p99 of the bare consumer, {}, and 1 ms",
            value(bare_p99, "ns")
        )),
        p50,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables with these values: CPU of feed, bare consumer and HTTP in us, p99 of both in ms.
    fn tables(rate: f64, cpu: [f64; 3], p99: [f64; 2]) -> (Grid, Grid) {
        let mut speed = speed_table(75_000, 1_000);
        let [feed, bare] = [FEED, BARE].map(|name| line(name, KINDS[0]));
        for (target, cpu) in [feed.as_str(), &bare, HTTP_FAST].into_iter().zip(cpu) {
            note(&mut speed, target, &[Some(rate), Some(cpu * 1e3), None, Some(0.0)]).unwrap();
        }
        let mut latency = latency_table(5);
        for (target, p99) in [FEED, BARE].into_iter().zip(p99) {
            note(&mut latency, target, &[Some(1e5), Some(p99 * 1e6)]).unwrap();
        }
        (speed, latency)
    }

    fn verdicts(rate: f64, cpu: [f64; 3], p99: [f64; 2], lost: u64) -> Vec<bool> {
        let (speed, latency) = tables(rate, cpu, p99);
        let rows = rows(&speed, &latency, lost).unwrap();
        let judged = rows.iter().filter(|row| row.target.is_some());
        judged.map(|row| row.verdict() == crate::rows::Verdict::Met).collect()
    }

    #[test]
    fn the_feed_is_judged_by_the_bare_consumer_and_http_of_the_same_run() {
        assert_eq!(verdicts(15_000.0, [22.4, 10.0, 10.0], [2.4, 1.0], 0), [true; 4]);
        assert_eq!(verdicts(14_999.0, [22.6, 10.0, 10.0], [2.6, 1.0], 1), [false; 4]);
    }

    #[test]
    fn a_missing_measurement_is_an_error() {
        let (speed, _) = tables(15_000.0, [1.0; 3], [1.0; 2]);
        assert!(rows(&speed, &latency_table(5), 0).is_err());
    }
}
