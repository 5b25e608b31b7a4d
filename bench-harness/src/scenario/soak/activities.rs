//! The activities of a soak, which run side by side.
//!
//! Owns their pauses. Never runs one. Invariant: every activity names at least one count that must
//! grow.

use super::activity::Activity;
use super::{
    calls, cuts, durable, half_open, operator, places, pressure, publishers, stalls, stopped,
    storms,
};

/// All of them.
pub(super) const ALL: [Activity; 16] = [
    Activity {
        name: "cuts",
        pause_ms: 200..=1_500,
        counts: &[
            cuts::CLEAN,
            cuts::RESET,
            cuts::HALF,
            cuts::IN_MESSAGE,
            cuts::IN_HEAD,
            cuts::AFTER_HTTP,
            cuts::SILENT,
        ],
        episode: cuts::episode,
    },
    Activity {
        name: "storms",
        pause_ms: 500..=2_500,
        counts: &[storms::RETURNED, storms::WITH_MISSED],
        episode: storms::episode,
    },
    Activity {
        name: "stalled readers",
        pause_ms: 200..=1_500,
        counts: &[stalls::BY_LIMIT, stalls::BY_BUDGET],
        episode: stalls::episode,
    },
    Activity {
        name: "publishers",
        pause_ms: 100..=1_000,
        counts: &[publishers::BY_WEBSOCKET, publishers::BY_HTTP],
        episode: publishers::episode,
    },
    Activity {
        name: "calls",
        pause_ms: 100..=500,
        counts: &[calls::ANSWERED, calls::REFUSED],
        episode: calls::episode,
    },
    Activity {
        name: "durable channels",
        pause_ms: 200..=2_000,
        counts: &[durable::STORED, durable::READ, durable::REMOVED, durable::RECOVERED],
        episode: durable::episode,
    },
    Activity {
        name: "half-open heads",
        pause_ms: 500..=3_000,
        counts: &[half_open::HEADS],
        episode: half_open::heads,
    },
    Activity {
        name: "vanished peers",
        pause_ms: 500..=3_000,
        counts: &[half_open::VANISHED],
        episode: half_open::vanishing,
    },
    Activity {
        name: "stopped process",
        pause_ms: 500..=2_000,
        counts: &[stopped::STOPS, stopped::LOST],
        episode: stopped::episode,
    },
    Activity {
        name: "unread input",
        pause_ms: 500..=3_000,
        counts: &[pressure::INCOMPLETE],
        episode: pressure::unread,
    },
    Activity {
        name: "history",
        pause_ms: 500..=3_000,
        counts: &[pressure::KEPT],
        episode: pressure::history,
    },
    Activity {
        name: "filters",
        pause_ms: 500..=3_000,
        counts: &[pressure::ACCEPTED, pressure::REFUSED],
        episode: pressure::filters,
    },
    Activity {
        name: "slots",
        pause_ms: 3_000..=12_000,
        counts: &[places::FULL],
        episode: places::slots,
    },
    Activity {
        name: "HTTP connections",
        pause_ms: 1_000..=4_000,
        counts: &[places::MADE_ROOM],
        episode: places::http,
    },
    Activity {
        name: "reloads",
        pause_ms: 1_000..=4_000,
        counts: &[operator::RELOADS],
        episode: operator::reload,
    },
    Activity {
        name: "scrapes",
        pause_ms: 500..=3_000,
        counts: &[operator::SCRAPES],
        episode: operator::scrape,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_activity_has_a_name_of_its_own_and_a_count_that_must_grow() {
        for (nth, one) in ALL.iter().enumerate() {
            assert!(!one.counts.is_empty(), "{}", one.name);
            assert!(ALL[..nth].iter().all(|other| other.name != one.name), "{}", one.name);
        }
    }
}
