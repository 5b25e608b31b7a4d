//! The scenarios as data: loads, channels, texts and columns.
//!
//! Owns the definition of every scenario. Never runs one. Invariant: the text of a scenario states
//! the load that it applies.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::quantities::{
    BACK, BUSY, CLIENT_CPU, CLIENT_CPU_ANSWER, CLIENT_CPU_CLIENT, CLIENT_CPU_PUBLISH, CONNECTS,
    CPU, CPU_ANSWER, CPU_BOTH, CPU_CLIENT, CPU_MEMBER, CPU_PINGS, CPU_PUBLISH, CPU_UNHEARD, FIXED,
    KERNEL, LATE, LOST, P50, P99, P999, PINGS, PUBLISHES, SLOPE, SPEED, TOLD, TOOK, USER, WHOLE,
};
use crate::dense::Channels;
use crate::grid::{Better, Column};
use crate::publish::Api;
use crate::scenario::{Burst, SECOND_NS, all};
use crate::wire::Data;

/// Bytes of data in every message.
pub(super) const BYTES: usize = 128;
/// Time per delivery in the schedule of fan-outs, in ns: each ends before the next is due.
const ROOM_NS: u64 = 60_000;
/// Members of a room, and publications per second in all rooms together.
pub(super) const ROOM: u64 = 100;
pub(super) const ROOMS_PER_SECOND: u64 = 50;
/// Kept-alive connections that publish at a rate.
const PUBLISHERS: u64 = 8;
/// Fan-outs of a turn, one after the other.
pub(super) const FANOUTS: u64 = 8;
/// Publications of a burst.
pub(super) const BURST: u64 = 100;
/// Keep-alive interval where pings are measured, in seconds.
pub(super) const PING_SECONDS: u64 = 5;
/// Time over which pings are counted.
pub(super) const PING_WINDOW: Duration = Duration::from_secs(10);
/// Publications that all connections of a storm miss.
pub(super) const MISSED: u64 = 10;
/// Publications that all connections of `recovery` miss, their bytes, and the connections at most.
pub(super) const LARGE: (u64, usize) = (50, 4096);
const LARGE_CLIENTS: u64 = 1_000;
/// Kept publications that are asked for, their bytes, and the connections that ask at most.
pub(super) const KEPT: (u32, usize) = (100, 1024);
const READERS: u64 = 5_000;
/// Members that all ask for the members, and members that join and leave, at most.
const ASKING_MEMBERS: u64 = 1_000;
const MEMBERS: u64 = 5_000;
/// Kept-alive connections that publish as fast as they are answered.
pub(super) const FAST_PUBLISHERS: u64 = 64;

/// The scenarios, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// All connections idle on one channel: memory and connects per second.
    Idle,
    /// All connections idle on a channel each: memory and connects per second.
    IdleDistinct,
    /// Cost of pings to idle connections.
    Pings,
    /// Repeated publications to all connections.
    Fanout,
    /// A hundred publications at once to all.
    Burst,
    /// Rooms of a hundred at a rate.
    Rooms,
    /// A channel each, at a rate.
    Unicast,
    /// Publications by HTTP without subscribers, as fast as they are answered.
    Publish,
    /// All connections are cut and reconnect at once, without and with missed publications.
    Storm,
    /// A thousand clients recover fifty publications of 4 KB each.
    Recovery,
    /// Five thousand clients read a history of a hundred publications.
    History,
    /// A thousand members ask for the members of their channel.
    Presence,
    /// Five thousand members join and leave, and one client is told.
    Members,
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
    /// One connection, which hears nothing.
    Publish,
    /// All connections on one channel, with recovery after a reconnect.
    Storm,
    /// The same with fewer connections.
    Recovery,
    /// Connections that ask for history.
    History,
    /// Members that ask for presence.
    Presence,
    /// Members that join and leave.
    Members,
}

impl Scenario {
    pub(super) fn name(self) -> &'static str {
        match self {
            Scenario::Idle => "idle",
            Scenario::IdleDistinct => "idle-distinct",
            Scenario::Pings => "pings",
            Scenario::Fanout => "fanout",
            Scenario::Burst => "burst",
            Scenario::Rooms => "rooms",
            Scenario::Unicast => "unicast",
            Scenario::Publish => "publish",
            Scenario::Storm => "storm",
            Scenario::Recovery => "recovery",
            Scenario::History => "history",
            Scenario::Presence => "presence",
            Scenario::Members => "members",
        }
    }

    pub(super) fn stage(self) -> Stage {
        match self {
            Scenario::Idle | Scenario::Fanout | Scenario::Burst => Stage::Shared,
            Scenario::Pings => Stage::Pinged,
            Scenario::Rooms => Stage::Rooms,
            Scenario::IdleDistinct | Scenario::Unicast => Stage::Distinct,
            Scenario::Publish => Stage::Publish,
            Scenario::Storm => Stage::Storm,
            Scenario::Recovery => Stage::Recovery,
            Scenario::History => Stage::History,
            Scenario::Presence => Stage::Presence,
            Scenario::Members => Stage::Members,
        }
    }

    /// Whether the scenario is about what a server keeps, and not about what it delivers. Runs of
    /// only such scenarios have a result of their own.
    pub(super) fn is_stateful(self) -> bool {
        use Scenario::{History, Members, Presence, Recovery, Storm};
        matches!(self, Storm | Recovery | History | Presence | Members)
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
            _ => return None,
        };
        Some((warm, measured))
    }

    pub(super) fn columns(self) -> Vec<Column> {
        use Better::{Less, More, Neither};
        let list: &[(&str, &str, Better)] = match self {
            Scenario::Idle => &[
                (USER, "bytes", Less),
                (CONNECTS, "count", More),
                (KERNEL, "bytes", Less),
                (SLOPE, "bytes", Less),
                (FIXED, "bytes", Neither),
            ],
            Scenario::IdleDistinct => {
                &[(USER, "bytes", Less), (KERNEL, "bytes", Less), (CONNECTS, "count", More)]
            }
            Scenario::Pings => &[(CPU_PINGS, "ns", Less), (PINGS, "count", Neither)],
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
                (P50, "ns", Less),
                (P99, "ns", Less),
                (P999, "ns", Less),
                (CPU_UNHEARD, "ns", Less),
                (LATE, "ns", Neither),
                (LOST, "count", Neither),
            ],
            Scenario::Publish => &[
                (CPU_PUBLISH, "ns", Less),
                (PUBLISHES, "count", More),
                (CLIENT_CPU_PUBLISH, "ns", Neither),
            ],
            Scenario::Storm => &[
                (WHOLE, "ns", Less),
                (CPU_CLIENT, "ns", Less),
                (BACK, "ns", Less),
                (CLIENT_CPU_CLIENT, "ns", Neither),
                (LOST, "count", Neither),
            ],
            Scenario::Recovery => &[
                (WHOLE, "ns", Less),
                (CPU_CLIENT, "ns", Less),
                (CLIENT_CPU_CLIENT, "ns", Neither),
                (LOST, "count", Neither),
            ],
            Scenario::History | Scenario::Presence => &[
                (CPU_ANSWER, "ns", Less),
                (TOOK, "ns", Less),
                (CLIENT_CPU_ANSWER, "ns", Neither),
                (LOST, "count", Neither),
            ],
            Scenario::Members => {
                &[(CPU_MEMBER, "ns", Less), (TOLD, "ns", Less), (LOST, "count", Neither)]
            }
        };
        list.iter().map(|(name, unit, better)| Column::new(name, unit, *better)).collect()
    }
}

impl Stage {
    pub(super) const ALL: [Stage; 10] = [
        Stage::Shared,
        Stage::Pinged,
        Stage::Rooms,
        Stage::Distinct,
        Stage::Publish,
        Stage::Storm,
        Stage::Recovery,
        Stage::History,
        Stage::Presence,
        Stage::Members,
    ];

    pub(super) fn channels(self, connections: u64) -> Channels {
        match self {
            Stage::Rooms => Channels::Rooms((connections / ROOM).max(1)),
            Stage::Distinct => Channels::Distinct,
            _ => all(),
        }
    }

    /// Connections of the stage, where the run has `most`.
    pub(super) fn connections(self, most: u64) -> u64 {
        match self {
            Stage::Publish => 1,
            Stage::Recovery => most.min(LARGE_CLIENTS),
            Stage::History => most.min(READERS),
            Stage::Presence => most.min(ASKING_MEMBERS),
            Stage::Members => most.min(MEMBERS),
            _ => most,
        }
    }

    /// Whether the target keeps publications.
    pub(super) fn keeps(self) -> bool {
        matches!(self, Stage::Storm | Stage::Recovery | Stage::History)
    }

    /// Whether the target knows members.
    pub(super) fn knows_members(self) -> bool {
        matches!(self, Stage::Presence | Stage::Members)
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
        let large = Scenario::Recovery.load_text(&Numbers { connections: 15_000, ..plan.clone() });
        assert!(
            large.contains("1,000 connections") && large.contains("50 publications"),
            "{large}"
        );
        for scenario in Scenario::value_variants() {
            assert!(!scenario.columns().is_empty());
            assert!(Stage::ALL.contains(&scenario.stage()));
        }
    }
}
