//! The rows of a soak, and which of them are faults of the run.
//!
//! Owns the targets. Never measures. Invariant: an activity that has not run, and anything that is
//! left over, is a fault.

use super::activities::ALL;
use super::activity::Tally;
use super::rest::{Holding, RESOURCES};
use super::watch::Sample;
use crate::rows::{Row, Verdict, value};
use crate::server::metric;

/// Growth of the mean RssAnon from the first window to the last that is no leak.
const GROWTH: f64 = 1.02;
/// Shorter runs have windows of too few episodes for a verdict about growth.
const GROWTH_SECONDS: u64 = 3_600;

/// What the load caused in the server: name of the row, metric, and label of the metric.
const EFFECTS: [(&str, &str, &str); 12] = [
    ("server: connects answered", "drumline_connects_total", ""),
    ("server: deliveries", "drumline_deliveries_total", ""),
    ("server: slow consumers closed", "drumline_slow_total", ""),
    (
        "server: clients closed without a pong",
        "drumline_client_num_server_disconnects",
        "code=\"3012\"",
    ),
    ("server: connections closed for unread input", "drumline_unread_closed_total", ""),
    ("server: publications removed by the history's budget", "drumline_history_shed_total", ""),
    ("server: streams evicted", "drumline_streams_evicted_total", ""),
    ("server: connections answered with 503", "drumline_refused_total", ""),
    ("server: recoveries", "drumline_client_recover", "recovered=\"yes\""),
    ("server: durable publications synced", "drumline_store_publications_total", ""),
    ("server: durable streams read from disk", "drumline_store_reads_total", ""),
    ("server: sockets handed to the control plane", "drumline_handed_over_total", ""),
];

/// What was measured.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured {
    /// Duration of the load.
    pub(super) seconds: u64,
    /// Names and counts of the activities that ran.
    pub(super) tallies: Vec<(&'static str, Tally)>,
    /// What the server held before the first client, and at rest after the last.
    pub(super) start: Holding,
    pub(super) rest: Holding,
    /// Places for clients and for HTTP connections of the internal port, before and after.
    pub(super) places: [u64; 2],
    pub(super) internal_places: [u64; 2],
    /// Mean RssAnon of the first and of the last window, in bytes.
    pub(super) windows: [f64; 2],
    pub(super) peak: Sample,
    /// RssAnon before the first client and at rest, in bytes.
    pub(super) rss: [f64; 2],
    /// Established clients that were closed, and deliveries that they missed.
    pub(super) closed: u64,
    pub(super) missed: u64,
}

/// The fewest that a count must reach: one for each minute.
fn minimum(seconds: u64) -> f64 {
    (seconds / 60).max(1) as f64
}

/// All rows.
pub(super) fn rows(measured: &Measured) -> Vec<Row> {
    [leaks(measured), growth(measured), exercised(measured)].concat()
}

/// What is left over when the server rests.
fn leaks(measured: &Measured) -> Vec<Row> {
    let Measured { start, rest, places, internal_places, .. } = measured;
    let nothing = |what: &str, left: f64, unit: &str| Row::new(what, left, unit).at_most(0.0);
    let more = |rest: f64, start: f64| (rest - start).max(0.0);
    let fewer = |[before, after]: [u64; 2]| before.saturating_sub(after) as f64;
    let counts =
        |before: f64, after: f64| format!("{before} before the first client, {after} at rest");
    let mut rows: Vec<Row> = RESOURCES
        .iter()
        .map(|resource| nothing(resource.what, rest.left(resource, start), resource.unit))
        .collect();
    rows.push(
        nothing("descriptors leaked", more(rest.descriptors, start.descriptors), "count")
            .note(counts(start.descriptors, rest.descriptors)),
    );
    rows.push(
        nothing("TCP sockets leaked", more(rest.sockets, start.sockets), "count")
            .note(counts(start.sockets, rest.sockets)),
    );
    let note = |[before, after]: [u64; 2]| counts(before as f64, after as f64);
    rows.push(nothing("places for clients lost", fewer(*places), "count").note(note(*places)));
    rows.push(
        nothing("places for HTTP connections lost", fewer(*internal_places), "count")
            .note(note(*internal_places)),
    );
    rows.push(nothing("established clients closed", measured.closed as f64, "count"));
    rows.push(nothing("deliveries to established clients lost", measured.missed as f64, "count"));
    rows
}

/// Memory over time, and the peaks.
fn growth(measured: &Measured) -> Vec<Row> {
    let Measured { seconds, windows: [first, last], peak, rss: [before, after], .. } = measured;
    let told = |sixth: u64| format!("from second {}", seconds * sixth / 6);
    let note = format!(
        "{} {}, {} {}; each window lasts a sixth of the run",
        value(*first, "bytes"),
        told(1),
        value(*last, "bytes"),
        told(5)
    );
    let peak_of = |what: &str, peak: f64| Row::new(format!("peak: {what}"), peak, "count");
    vec![
        Row::new("mean RssAnon, last window against the first", last / first, "ratio")
            .at_most(GROWTH)
            .note(note),
        Row::new("RssAnon before the first client", *before, "bytes"),
        Row::new("RssAnon at rest", *after, "bytes"),
        Row::new("peak: RssAnon", peak.rss_anon, "bytes"),
        peak_of("descriptors", peak.descriptors),
        peak_of("slots in use", peak.slots),
        peak_of("messages in inboxes", peak.inboxes),
    ]
}

/// How often each activity did what it is there for, and what the server did about it.
fn exercised(measured: &Measured) -> Vec<Row> {
    let least = minimum(measured.seconds);
    let mut rows = Vec::new();
    for (name, tally) in &measured.tallies {
        let required = ALL.iter().find(|one| one.name == *name).map(|one| one.counts);
        let required = required.unwrap_or_default();
        for what in required {
            let row = Row::new(format!("{name}: {what}"), tally.of(what) as f64, "count");
            rows.push(row.at_least(least));
        }
        for (what, count) in tally.counts.iter().filter(|(what, _)| !required.contains(what)) {
            rows.push(Row::new(format!("{name}: {what}"), *count as f64, "count"));
        }
    }
    let is_whole = measured.tallies.len() == ALL.len();
    for (what, name, label) in EFFECTS {
        let of = |text: &str| metric(text, name, label).unwrap_or_default();
        let row = Row::new(what, of(&measured.rest.metrics) - of(&measured.start.metrics), "count");
        rows.push(if is_whole { row.at_least(least) } else { row });
    }
    rows
}

/// The rows that make the run fail.
pub(super) fn faults(rows: &[Row], seconds: u64) -> Vec<String> {
    let counts = |row: &&Row| seconds >= GROWTH_SECONDS || !row.what.starts_with("mean RssAnon");
    let missed = |row: &&Row| matches!(row.verdict(), Verdict::Missed(_));
    let told = |row: &Row| {
        format!("{}: {}, the target is {}", row.what, row.measured_text(), row.target_text())
    };
    rows.iter().filter(missed).filter(counts).map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::missed;

    fn metrics(values: &[(&str, f64)]) -> String {
        let effects = EFFECTS.map(|(_, name, label)| format!("{name}{{{label}}} 60\n")).concat();
        values.iter().fold(effects, |text, (name, value)| text + &format!("{name} {value}\n"))
    }

    fn good() -> Measured {
        let full = |one: &super::super::activity::Activity| {
            let mut tally = Tally::default();
            one.counts.iter().for_each(|what| tally.add(what, 60));
            (one.name, tally)
        };
        let rest = Holding { metrics: metrics(&[]), descriptors: 40.0, sockets: 3.0 };
        let mib = 1_048_576.0;
        Measured {
            seconds: 3_600,
            tallies: ALL.iter().map(full).collect(),
            start: Holding { metrics: String::new(), ..rest.clone() },
            rest,
            places: [4_000, 4_000],
            internal_places: [16, 16],
            windows: [100.0 * mib, 102.0 * mib],
            ..Measured::default()
        }
    }

    #[test]
    fn everything_that_is_left_is_a_miss_and_a_fault() {
        let good = good();
        assert!(missed(&rows(&good)).is_empty(), "{:?}", missed(&rows(&good)));
        let with = |gauge: &str| Measured {
            rest: Holding { metrics: metrics(&[(gauge, 1.0)]), ..good.rest.clone() },
            ..good.clone()
        };
        let held = |descriptors, sockets| Measured {
            rest: Holding { descriptors, sockets, ..good.rest.clone() },
            ..good.clone()
        };
        for (doctored, what) in [
            (with("drumline_sockets"), "slots leaked"),
            (with("drumline_users"), "clients, users and subscriptions left"),
            (with("drumline_streams"), "channels and streams left"),
            (with("drumline_memory_used_bytes{kind=\"keys\"}"), "memory of budgets left"),
            (with("drumline_unread"), "outboxes, unread input and TLS handshakes left"),
            (with("drumline_inbox_messages{rank=\"request\"}"), "messages left in inboxes"),
            (held(41.0, 3.0), "descriptors leaked"),
            (held(40.0, 4.0), "TCP sockets leaked"),
            (Measured { places: [4_000, 3_999], ..good.clone() }, "places for clients lost"),
            (
                Measured { internal_places: [16, 15], ..good.clone() },
                "places for HTTP connections lost",
            ),
            (Measured { closed: 1, ..good.clone() }, "established clients closed"),
            (Measured { missed: 1, ..good.clone() }, "deliveries to established clients lost"),
        ] {
            let rows = rows(&doctored);
            assert_eq!(missed(&rows), [what]);
            assert_eq!(faults(&rows, 20).len(), 1, "{what}, in a short run too");
        }
    }

    #[test]
    fn growth_is_a_miss_and_in_a_long_run_a_fault() {
        let windows = [100e6, 102.1e6];
        let rows = rows(&Measured { windows, ..good() });
        assert_eq!(missed(&rows), ["mean RssAnon, last window against the first"]);
        assert_eq!((faults(&rows, 3_599).len(), faults(&rows, 3_600).len()), (0, 1));
    }

    #[test]
    fn an_activity_or_effect_that_is_too_rare_is_a_fault() {
        for (nth, one) in ALL.iter().enumerate() {
            for what in one.counts {
                let mut doctored = good();
                doctored.tallies[nth].1.counts.insert(what, 59);
                assert_eq!(missed(&rows(&doctored)), [format!("{}: {what}", one.name)]);
            }
        }
        for (what, name, label) in EFFECTS {
            let mut doctored = good();
            let line = format!("{name}{{{label}}} 60\n");
            doctored.rest.metrics = doctored.rest.metrics.replace(&line, "");
            assert_eq!(missed(&rows(&doctored)), [what]);
        }
        let mut some = good();
        (some.tallies, some.rest.metrics) = (Vec::new(), String::new());
        assert!(missed(&rows(&some)).is_empty(), "a part of the mix needs no effect");
    }
}
