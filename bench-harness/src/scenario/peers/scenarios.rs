//! The scenarios as data: loads, channels, texts and columns.
//!
//! Owns the definition of every scenario. Never runs one. Invariant: the text of a scenario states
//! the load that it applies.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::quantities::{
    BACK, BUSY, CLIENT_CPU, CONNECTS, CPU, CPU_BOTH, CPU_PINGS, CPU_UNHEARD, FIXED, KERNEL, LATE,
    LOST, P50, P99, P999, PINGS, SLOPE, SPEED, USER, WHOLE,
};
use crate::dense::Channels;
use crate::grid::{Better, Column};
use crate::publish::Api;
use crate::rows::number;
use crate::scenario::{Burst, SECOND_NS, all};
use crate::wire::Data;

/// Bytes of data in every message.
pub(super) const BYTES: usize = 128;
/// Time per delivery in the schedule of fan-outs, in ns: each ends before the next is due.
const ROOM_NS: u64 = 60_000;
/// Members of a room, and publications per second in all rooms together.
const ROOM: u64 = 100;
const ROOMS_PER_SECOND: u64 = 50;
/// Kept-alive connections that publish at a rate.
const PUBLISHERS: u64 = 8;
/// Fan-outs of a turn, one after the other.
pub(super) const FANOUTS: u64 = 8;
/// Publications of a burst.
const BURST: u64 = 100;
/// Keep-alive interval where pings are measured, in seconds.
pub(super) const PING_SECONDS: u64 = 5;
/// Time over which pings are counted.
pub(super) const PING_WINDOW: Duration = Duration::from_secs(10);
/// Publications that all connections of a storm miss.
pub(super) const MISSED: u64 = 10;

/// The scenarios, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// All connections idle on one channel: memory, connects per second, and cost of pings.
    Idle,
    /// Repeated publications to all connections.
    Fanout,
    /// A hundred publications at once to all.
    Burst,
    /// Rooms of a hundred at a rate.
    Rooms,
    /// A channel each, at a rate.
    Unicast,
    /// All connections are cut and reconnect at once, without and with missed publications.
    Storm,
}

/// The channels of the connections. Scenarios of the same stage share their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// All to one channel.
    Shared,
    /// The same where the server pings.
    Pinged,
    /// Rooms.
    Rooms,
    /// A channel each.
    Distinct,
    /// All connections on one channel, with recovery after a reconnect.
    Storm,
}

impl Scenario {
    pub(super) fn name(self) -> &'static str {
        match self {
            Scenario::Idle => "idle",
            Scenario::Fanout => "fanout",
            Scenario::Burst => "burst",
            Scenario::Rooms => "rooms",
            Scenario::Unicast => "unicast",
            Scenario::Storm => "storm",
        }
    }

    pub(super) fn stages(self) -> &'static [Stage] {
        match self {
            Scenario::Idle => &[Stage::Shared, Stage::Pinged],
            Scenario::Fanout | Scenario::Burst => &[Stage::Shared],
            Scenario::Rooms => &[Stage::Rooms],
            Scenario::Unicast => &[Stage::Distinct],
            Scenario::Storm => &[Stage::Storm],
        }
    }

    /// Whether messages come at a steady rate. Only then is latency meaningful.
    pub(super) fn is_rated(self) -> bool {
        matches!(self, Scenario::Rooms | Scenario::Unicast)
    }

    /// The bursts of the warm-up and of the measurement; `None` if nothing is published.
    pub(super) fn loads(self, api: &Api, plan: &Numbers) -> Option<(Burst, Burst)> {
        let of = |publishers, channels, messages, interval_ns, per_frame| Burst {
            api: api.clone(),
            publishers,
            channels,
            data: Data::Filled(BYTES),
            messages,
            interval_ns,
            per_frame,
        };
        let fanout_ns = plan.connections * ROOM_NS;
        let (warm, measured) = match self {
            Scenario::Idle | Scenario::Storm => return None,
            Scenario::Fanout => {
                (of(1, all(), 2, fanout_ns, 1), of(1, all(), FANOUTS, fanout_ns, 1))
            }
            Scenario::Burst => {
                (of(1, all(), 10, fanout_ns, 10), of(1, all(), BURST, fanout_ns, BURST))
            }
            Scenario::Rooms => {
                let at = |seconds| {
                    let rooms = Stage::Rooms.channels(plan.connections);
                    let interval_ns = SECOND_NS / ROOMS_PER_SECOND;
                    of(PUBLISHERS, rooms, ROOMS_PER_SECOND * seconds, interval_ns, 1)
                };
                (at(1), at(plan.seconds))
            }
            Scenario::Unicast => {
                let at = |seconds| {
                    let interval_ns = SECOND_NS / plan.rate;
                    of(PUBLISHERS, Channels::Distinct, plan.rate * seconds, interval_ns, 1)
                };
                (at(1), at(plan.seconds))
            }
        };
        Some((warm, measured))
    }

    pub(super) fn load_text(self, plan: &Numbers) -> String {
        let n = number(plan.connections as f64);
        let (rate, seconds) = (number(plan.rate as f64), plan.seconds);
        match self {
            Scenario::Idle => format!(
                "{n} connections subscribed to one channel, nothing sent; slope: growth from a \
                 third of the connections to all of them, which leaves out memory that is \
                 allocated once; {CPU_PINGS}: processor time of the server per ping and answer, \
                 in a separate launch with a ping about every {PING_SECONDS} s: all processor \
                 time of {} s divided by the pings received",
                PING_WINDOW.as_secs()
            ),
            Scenario::Fanout => {
                format!(
                    "one publication of {BYTES} bytes to {n} subscribers, {FANOUTS} times per round"
                )
            }
            Scenario::Burst => {
                format!(
                    "{BURST} publications of {BYTES} bytes at once to {n} subscribers, so the \
                     server is busy from the first to the last: {SPEED} are those at saturation"
                )
            }
            Scenario::Rooms => format!(
                "{n} connections in rooms of {ROOM}, {ROOMS_PER_SECOND} publications per second of \
                 {BYTES} bytes, {seconds} s per round"
            ),
            Scenario::Unicast => format!(
                "{n} connections with a channel each, {rate} publications per second of {BYTES} \
                 bytes, {seconds} s per round"
            ),
            Scenario::Storm => format!(
                "{n} connections of one channel are cut and reconnect at once; {BACK}: time until \
                 all are subscribed again; {WHOLE}: time until all also have the {} publications \
                 of {BYTES} bytes that they missed",
                MISSED
            ),
        }
    }

    pub(super) fn columns(self) -> Vec<Column> {
        use Better::{Less, More, Neither};
        let list: &[(&str, &str, Better)] = match self {
            Scenario::Idle => &[
                (USER, "bytes", Less),
                (SLOPE, "bytes", Less),
                (KERNEL, "bytes", Less),
                (CONNECTS, "count", More),
                (FIXED, "bytes", Neither),
                (CPU_PINGS, "ns", Less),
                (PINGS, "count", Neither),
            ],
            Scenario::Fanout => {
                &[(CPU, "ns", Less), (CLIENT_CPU, "ns", Neither), (LOST, "count", Neither)]
            }
            Scenario::Burst => &[
                (CPU, "ns", Less),
                (SPEED, "count", More),
                (BUSY, "count", Neither),
                (CLIENT_CPU, "ns", Neither),
                (LOST, "count", Neither),
            ],
            Scenario::Rooms => &[
                (CPU, "ns", Less),
                (P50, "ns", Less),
                (P99, "ns", Less),
                (P999, "ns", Less),
                (LATE, "ns", Neither),
                (LOST, "count", Neither),
            ],
            Scenario::Unicast => &[
                (CPU_BOTH, "ns", Less),
                (CPU_UNHEARD, "ns", Less),
                (P50, "ns", Less),
                (P99, "ns", Less),
                (P999, "ns", Less),
                (LATE, "ns", Neither),
                (LOST, "count", Neither),
            ],
            Scenario::Storm => &[(BACK, "ns", Less), (WHOLE, "ns", Less), (LOST, "count", Neither)],
        };
        list.iter().map(|(name, unit, better)| Column::new(name, unit, *better)).collect()
    }
}

impl Stage {
    pub(super) const ALL: [Stage; 5] =
        [Stage::Shared, Stage::Pinged, Stage::Rooms, Stage::Distinct, Stage::Storm];

    pub(super) fn channels(self, connections: u64) -> Channels {
        match self {
            Stage::Shared | Stage::Pinged | Stage::Storm => all(),
            Stage::Rooms => Channels::Rooms((connections / ROOM).max(1)),
            Stage::Distinct => Channels::Distinct,
        }
    }
}

/// The numbers of the run.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    pub(super) connections: u64,
    pub(super) seconds: u64,
    pub(super) rate: u64,
    pub(super) peers: PathBuf,
    /// Sockets on the machine before the run.
    pub(super) sockets: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_scenario_matches_its_load() {
        let peers = PathBuf::from("/nowhere");
        let plan = Numbers { connections: 1_000, seconds: 3, rate: 50, peers, sockets: 0 };
        let of = |scenario: Scenario| scenario.loads(&Api::WebSocket, &plan);
        assert!(of(Scenario::Idle).is_none());
        let (_, burst) = of(Scenario::Burst).unwrap();
        assert_eq!((burst.messages, burst.per_frame), (100, 100));
        let (warm, unicast) = of(Scenario::Unicast).unwrap();
        assert_eq!((warm.messages, unicast.messages, unicast.interval_ns), (50, 150, 20_000_000));
        assert!(Scenario::Rooms.load_text(&plan).contains("1,000 connections in rooms of 100"));
        assert!(of(Scenario::Storm).is_none());
        assert!(Scenario::Storm.load_text(&plan).contains("the 10 publications of 128 bytes"));
        for scenario in Scenario::value_variants() {
            assert!(!scenario.columns().is_empty());
            assert!(scenario.stages().iter().all(|stage| Stage::ALL.contains(stage)));
        }
    }
}
