//! The scenarios in words.
//!
//! Owns the text of every scenario. Invariant: it states the load that the scenario applies.

use super::quantities::{BACK, CPU_PINGS, SPEED, WHOLE};
use super::scenarios::{
    BURST, BYTES, FANOUTS, FAST_PUBLISHERS, KEPT, LARGE, MISSED, Numbers, PING_SECONDS,
    PING_WINDOW, ROOM, ROOMS_PER_SECOND, Scenario,
};
use crate::rows::number;

impl Scenario {
    pub(super) fn load_text(self, plan: &Numbers) -> String {
        let n = number(self.stage().connections(plan.connections) as f64);
        let (rate, seconds) = (number(plan.rate as f64), plan.seconds);
        match self {
            Scenario::Idle => format!(
                "{n} connections subscribed to one channel, nothing sent; slope: growth from a \
                 third of the connections to all of them, which leaves out memory that is \
                 allocated once"
            ),
            Scenario::IdleDistinct => {
                format!("{n} connections subscribed to a channel each, nothing sent")
            }
            Scenario::Pings => format!(
                "{n} idle connections with a ping about every {PING_SECONDS} s; {CPU_PINGS}: all \
                 processor time of the server in {} s divided by the pings received",
                PING_WINDOW.as_secs()
            ),
            Scenario::Fanout => {
                format!(
                    "one publication of {BYTES} bytes to {n} subscribers, {FANOUTS} times per round"
                )
            }
            Scenario::Burst => format!(
                "{BURST} publications of {BYTES} bytes at once to {n} subscribers, so the server is \
                 busy from the first to the last: {SPEED} are those at saturation"
            ),
            Scenario::Rooms => format!(
                "{n} connections in rooms of {ROOM}, {ROOMS_PER_SECOND} publications per second of \
                 {BYTES} bytes, {seconds} s per round"
            ),
            Scenario::Unicast => format!(
                "{n} connections with a channel each, {rate} publications per second of {BYTES} \
                 bytes, by HTTP to every target that has an HTTP API, {seconds} s per round"
            ),
            Scenario::Publish => format!(
                "publications of {BYTES} bytes by HTTP to a channel without subscribers, \
                 {FAST_PUBLISHERS} kept-alive connections that send the next request when the one \
                 before it is answered, {seconds} s per round; server and client share the \
                 processors"
            ),
            Scenario::Storm => format!(
                "{n} connections of one channel are cut and reconnect at once; {WHOLE}: time until \
                 all are subscribed again and have the {MISSED} publications of {BYTES} bytes that \
                 they missed; {BACK}: time until all are subscribed again where nothing was missed"
            ),
            Scenario::Recovery => format!(
                "{n} connections of one channel are cut and reconnect at once; {WHOLE}: time until \
                 all are subscribed again and have the {} publications of {} bytes that they \
                 missed",
                LARGE.0, LARGE.1
            ),
            Scenario::History => format!(
                "{n} clients each read the history of a channel once: {} publications of {} bytes",
                KEPT.0, KEPT.1
            ),
            Scenario::Presence => {
                format!("each of the {n} members of a channel asks for all its members once")
            }
            Scenario::Members => format!(
                "{n} clients connect, join a channel and are cut; one more client is told of every \
                 join and leave"
            ),
        }
    }

    /// Why a target that cannot do it has no values.
    pub(super) fn absence(self) -> &'static str {
        match self {
            Scenario::Publish => "does not apply: no HTTP API",
            Scenario::Recovery => "does not apply: recovers no messages in this harness",
            Scenario::Pings => "does not apply: the target sends no pings",
            _ => "not measured: this harness asks only in the Centrifuge protocol",
        }
    }
}
