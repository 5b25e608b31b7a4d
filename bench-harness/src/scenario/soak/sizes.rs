//! The sizes of a soak, and the arguments of the server that make its bounds small enough to be
//! reached.
//!
//! Owns the proportions between the load and the bounds. Never starts a server. Invariant: each
//! bound is below what the activity that aims at it brings, and above what the others bring.

use crate::dialect::{Identified, Streamed};

/// Seconds between two pings of a connection. The pong timeout is a second shorter.
pub(super) const PING_SECONDS: u64 = 4;
/// Seconds for a request head, for the connect command, and until unacknowledged data ends a
/// connection.
pub(super) const HEAD_SECONDS: u64 = 3;
pub(super) const STALE_SECONDS: u64 = 3;
const USER_TIMEOUT_SECONDS: u64 = 5;
/// Seconds for which history and stream positions are kept.
pub(super) const HISTORY_SECONDS: u64 = 4;
/// Seconds for which the server keeps an idempotency key.
pub(super) const KEY_SECONDS: u64 = 300;
/// Unsent bytes of one client past which it is closed, and bytes of a socket's send buffer.
pub(super) const QUEUE_BYTES: u64 = 256 << 10;
const SEND_BUFFER_BYTES: u64 = 16 << 10;
/// Bytes of one incomplete message.
const MESSAGE_BYTES: u64 = 64 << 10;
/// Bytes of one publication that fills the history.
pub(super) const KEPT_BYTES: usize = 4 << 10;
/// Publications that a channel keeps.
pub(super) const KEPT_EACH: u64 = 16;
/// HTTP connections that the public and the internal port may have.
pub(super) const HTTP_PLACES: u64 = 64;
pub(super) const INTERNAL_PLACES: u64 = 24;
/// Bytes of the budgets of tags filters and of idempotency keys.
const FILTER_BYTES: u64 = 256 << 10;
const KEY_BYTES: u64 = 64 << 10;
/// The fewest places for clients beside the established ones.
const SPARE_PLACES_MIN: u64 = 600;

/// How many connections each activity has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Established clients, and the channels that they are spread over.
    pub(super) established: u64,
    pub(super) rooms: u64,
    /// Clients of a storm.
    pub(super) storm: u64,
    /// Clients that stop reading.
    pub(super) stalled: u64,
    /// Clients in the process that is stopped.
    pub(super) frozen: u64,
    /// Heads that do not end, incomplete messages, and peers that vanish.
    pub(super) heads: u64,
    pub(super) fragments: u64,
    pub(super) vanishing: u64,
    /// Channels with history, more than the server keeps streams.
    pub(super) kept_channels: u64,
    /// Slots of the server: clients that it has room for.
    pub(super) places: u64,
}

impl Sizes {
    /// The sizes beside so many established clients, on a server with so many shards.
    pub(super) fn new(established: u64, shards: u32) -> Self {
        let shards = u64::from(shards);
        let spare = established.max(SPARE_PLACES_MIN);
        Sizes {
            established,
            rooms: (established / 20).max(1),
            storm: (established / 4).max(20),
            stalled: (established / 20).max(20),
            frozen: (established / 20).max(10),
            heads: (established / 8).max(20),
            fragments: (established / 40).max(20),
            vanishing: (established / 40).clamp(10, 100),
            kept_channels: (established / 4).clamp(100, 500),
            places: (established + spare).div_ceil(shards) * shards,
        }
    }

    /// Channels into which more is published than the history has room for, and which are few
    /// enough to keep their streams.
    pub(super) fn few_channels(&self) -> u64 {
        self.kept_channels / 8
    }

    /// The arguments of the server.
    pub(super) fn arguments(&self, shards: u32) -> Vec<String> {
        let outboxes = self.stalled * QUEUE_BYTES / 4;
        let unread = self.fragments * MESSAGE_BYTES / 2;
        let history = self.few_channels() * KEPT_BYTES as u64 * KEPT_EACH / 2;
        let pairs = [
            ("log.level", "warn".to_owned()),
            ("http_api.external", "true".to_owned()),
            ("http_server.head_timeout", format!("{HEAD_SECONDS}s")),
            ("http_server.connections_max", HTTP_PLACES.to_string()),
            ("http_server.internal_connections_max", INTERNAL_PLACES.to_string()),
            ("client.stale_close_delay", format!("{STALE_SECONDS}s")),
            ("client.queue_max_size", QUEUE_BYTES.to_string()),
            ("engine.user_timeout", format!("{USER_TIMEOUT_SECONDS}s")),
            ("engine.send_buffer", SEND_BUFFER_BYTES.to_string()),
            ("engine.slots_per_shard", (self.places / u64::from(shards)).to_string()),
            ("engine.outbox_budget", outboxes.to_string()),
            ("engine.unread_budget", unread.to_string()),
            ("engine.history_bytes", history.to_string()),
            ("engine.streams_max", (self.kept_channels * 3 / 4).to_string()),
            ("engine.filter_budget", FILTER_BYTES.to_string()),
            ("engine.idempotency_budget", KEY_BYTES.to_string()),
            ("channel.history_meta_ttl", format!("{HISTORY_SECONDS}s")),
            ("channel.namespaces", namespaces()),
        ];
        let mut arguments: Vec<String> =
            pairs.into_iter().map(|(name, value)| format!("--{name}={value}")).collect();
        arguments.push(Identified::server_argument());
        let streams = [Streamed::Sse, Streamed::HttpStream];
        arguments.extend(streams.map(Streamed::server_argument));
        arguments
    }
}

/// `kept`: history, recovery, presence, joins and leaves; `durable`: the same with its history on
/// disk; `filtered`: tags filters.
fn namespaces() -> String {
    let kept = format!(
        "\"history_size\":{KEPT_EACH},\"history_ttl\":\"{HISTORY_SECONDS}s\",\
         \"force_recovery\":true,\"presence\":true,\"join_leave\":true,\
         \"force_push_join_leave\":true"
    );
    format!(
        "[{{\"name\":\"kept\",{kept}}},\
         {{\"name\":\"durable\",\"history_durable\":true,{kept}}},\
         {{\"name\":\"filtered\",\"allow_tags_filter\":true}}]"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_below_what_its_activity_brings() {
        for (established, shards) in [(100, 2), (2_000, 2), (20_000, 60)] {
            let sizes = Sizes::new(established, shards);
            let arguments = sizes.arguments(shards);
            let value = |name: &str| -> u64 {
                let prefix = format!("--{name}=");
                let found = arguments.iter().find_map(|one| one.strip_prefix(&prefix));
                found.unwrap().parse().unwrap()
            };
            assert!(value("engine.outbox_budget") < sizes.stalled * QUEUE_BYTES / 2);
            assert!(value("engine.outbox_budget") > 4 * QUEUE_BYTES, "one client alone fits");
            assert!(value("engine.unread_budget") < sizes.fragments * MESSAGE_BYTES);
            assert!(value("engine.streams_max") < sizes.kept_channels);
            assert_eq!(value("engine.slots_per_shard") * u64::from(shards), sizes.places);
            let together = sizes.storm + sizes.stalled + sizes.frozen + sizes.heads;
            assert!(sizes.places >= established + together + 100, "{sizes:?}");
        }
    }
}
