//! The showdown: the same prices by polling, long-polling, HTTP streaming, server-sent events and
//! WebSocket, measured on real sockets beside the numbers of an article that compares them.
//!
//! Owns the flags and the order of the parts. Never reckons what it can measure: an extrapolation
//! has a remark that says so. Invariant: every way serves the same prices to the same clients at
//! the same rate.

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::{Bench, Common};
use crate::rows::Row;

mod article;
mod cells;
mod claims;
mod crowd;
mod feed;
mod figures;
mod latency;
mod line;
mod measure;
mod prices;
mod relay;
mod service;
pub mod servlet;
mod tables;

use article::USE_CASES;
use line::Line;
use measure::{Load, Measured};
use prices::{BYTES, SYMBOLS};
use tables::Tables;

/// The fast feed: clients, and prices per second on each channel.
const FAST: (u64, f64) = (1_000, 10.0);

/// Flags of `showdown`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Most clients that are measured in every way. With more, only the ways that keep a connection
    /// open are measured, by denser clients, and the others are extrapolated.
    #[arg(long, default_value_t = 10_000)]
    clients_max: u64,
    /// Leave out everything but the use cases with so few clients, and measure those with this
    /// number instead. For tests.
    #[arg(long)]
    only: Option<u64>,
    /// The parts to measure.
    #[arg(long, value_enum, value_delimiter = ',')]
    #[arg(default_values_t = Part::value_variants().to_vec())]
    parts: Vec<Part>,
    /// Lines of the use cases, by their names; by default all.
    #[arg(long, value_delimiter = ',')]
    lines: Vec<String>,
    /// Number of rounds of the use cases that are measured in every way. In each, every way has a
    /// turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Clients whose latency is measured over the relay.
    #[arg(long, default_value_t = 100)]
    relayed: u64,
    /// Delay of the relay in each direction, in ms.
    #[arg(long, default_value_t = 50)]
    delay: u64,
}

/// A part of the showdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Header bytes per message.
    Headers,
    /// The use cases.
    Cases,
    /// A feed with more prices per second.
    Fast,
    /// Latency over a relay.
    Latency,
}

impl Options {
    fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// The lines of the use cases.
    fn lines(&self) -> Result<Vec<Line>> {
        if self.lines.is_empty() {
            return Ok(Line::ALL.to_vec());
        }
        let find = |name: &String| {
            let found = Line::ALL.iter().copied().find(|line| line.name() == name);
            found.with_context(|| format!("no line \"{name}\"; see the names in RESULTS.md"))
        };
        self.lines.iter().map(find).collect()
    }
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.relayed > 0 && options.delay > 0, "--relayed and --delay must be 1 or more");
    ensure!(options.rounds > 0, "--rounds must be 1 or more");
    let title = "The showdown: polling, Comet and WebSocket";
    let mut bench = Bench::new(&options.common, "showdown", title, (options.clients_max, 10))?;
    bench.parameter("bytes", BYTES as u64);
    bench.parameter("symbols", SYMBOLS);
    for line in Line::ALL {
        bench.note(format!("{}: {}", line.name(), line.about()));
    }
    let mut tables = Tables::default();
    if options.has(Part::Headers) {
        figures::headers(&mut bench, &mut tables)?;
    }
    if options.has(Part::Cases) {
        cases(&mut bench, &mut tables, options)?;
        rows(&tables).into_iter().for_each(|row| bench.row(row));
    }
    if options.has(Part::Fast) {
        fast(&mut bench, &mut tables, options)?;
    }
    if options.has(Part::Latency) {
        latency::measure(&mut bench, &mut tables, (options.relayed, options.delay))?;
    }
    tables.finish(&mut bench);
    bench.finish()
}

/// The use cases.
fn cases(bench: &mut Bench, tables: &mut Tables, options: &Options) -> Result<()> {
    let lines = options.lines()?;
    let mut largest: Vec<(Line, u64, Measured)> = Vec::new();
    for case in USE_CASES {
        let clients = options.only.unwrap_or(case.clients);
        tables.begin_case(&case, clients, &lines);
        let told = |line: Line| {
            eprintln!("use case {}, {}, {clients} clients", case.letter, line.name());
        };
        if clients > options.clients_max {
            for (line, few, one) in &largest {
                told(*line);
                match line.dialect() {
                    Some(dialect) => {
                        tables.measured(*line, &crowd::measure(bench, dialect, clients)?);
                    }
                    None => tables.extrapolate(*line, one, (*few, clients)),
                }
            }
            continue;
        }
        for _ in 0..options.rounds {
            for line in &lines {
                let known = largest.iter().position(|(one, ..)| one == line);
                told(*line);
                let load = Load { clients, seconds: bench.seconds, ..Load::of_case(*line) };
                let one = measure::line(bench, *line, &load)?;
                tables.measured(*line, &one);
                match known.and_then(|at| largest.get_mut(at)) {
                    Some(place) => *place = (*line, clients, one),
                    None => largest.push((*line, clients, one)),
                }
            }
        }
        tables.judge_last();
        if options.only.is_some() {
            break;
        }
    }
    Ok(())
}

/// A feed that publishes faster than clients poll.
fn fast(bench: &mut Bench, tables: &mut Tables, options: &Options) -> Result<()> {
    let lines: Vec<Line> = options.lines()?.into_iter().filter(|line| line.is_live()).collect();
    let clients = options.only.unwrap_or(FAST.0);
    tables.begin_fast(FAST.1, clients, &lines);
    for line in lines {
        eprintln!("fast feed, {}, {clients} clients", line.name());
        let (seconds, per_channel) = (bench.seconds, FAST.1);
        let load = Load { clients, seconds, per_channel, ..Load::of_case(line) };
        tables.measured(line, &measure::line(bench, line, &load)?);
    }
    Ok(())
}

/// The rows about the use cases.
fn rows(tables: &Tables) -> Vec<Row> {
    let mut rows = tables.overhead.rows();
    let ratio = |what: String, line, to| {
        let ratio = tables.cpu_ratio(line, to);
        ratio.map(|ratio| Row::new(what, ratio, "ratio"))
    };
    let ours = "CPU per poll: Drumline's endpoint to nginx";
    rows.extend(ratio(ours.to_owned(), Line::Polling, Line::Nginx).map(|row| row.at_most(1.0)));
    let fixed = format!("{ours} with a fixed answer");
    rows.extend(ratio(fixed, Line::Polling, Line::NginxFixed));
    for websocket in [Line::WebSocket, Line::UniWebSocket] {
        for line in [Line::Polling, Line::Nginx] {
            let (line_name, to) = (line.name(), websocket.name());
            let what = format!("CPU per delivered message: {line_name} to {to}");
            rows.extend(ratio(what, line, websocket));
        }
    }
    let lost = Row::new("prices lost, all ways but polling", tables.lost() as f64, "count");
    rows.push(lost.at_most(0.0));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Verdict;

    /// Rows of a use case in which polls take so much processor time and so many prices are lost.
    fn judged(polling_ns: f64, nginx_ns: f64, lost: u64) -> Vec<Row> {
        let lines = [Line::WebSocket, Line::Polling, Line::Nginx];
        let mut tables = Tables::default();
        tables.begin_case(&USE_CASES[1], 10_000, &lines);
        for (line, cpu_ns) in lines.into_iter().zip([1_000.0, polling_ns, nginx_ns]) {
            tables.measured(line, &Measured::of(1, cpu_ns, lost).unwrap());
        }
        tables.judge_last();
        rows(&tables)
    }

    fn verdict(rows: &[Row], what: &str) -> Verdict {
        rows.iter().find(|row| row.what.starts_with(what)).unwrap().verdict()
    }

    #[test]
    fn an_endpoint_slower_than_nginx_and_lost_prices_miss_their_targets() {
        let good = judged(9_000.0, 9_000.0, 0);
        let bad = judged(9_001.0, 9_000.0, 1);
        for what in ["CPU per poll: Drumline's endpoint to nginx", "prices lost"] {
            assert_eq!(verdict(&good, what), Verdict::Met, "{what}");
            assert!(matches!(verdict(&bad, what), Verdict::Missed(_)), "{what}");
        }
        let reported: Vec<(&str, f64)> = good
            .iter()
            .filter(|row| row.verdict() == Verdict::NoTarget)
            .map(|row| (row.what.as_str(), row.measured))
            .collect();
        let to = |line| format!("CPU per delivered message: {line} to WebSocket");
        assert_eq!(reported, [(&*to("polling"), 9.0), (&*to("polling nginx"), 9.0)]);
    }
}
