//! Clients that stop reading while publications flow to them.
//!
//! Owns the clients and what is published to them. Never lets a client read before publishing has
//! ended. Invariant: what is published is either more than a client may leave unread, or less than
//! that and more than the budget of all clients together, so it is known which bound closes a
//! client.

use std::time::Duration;

use anyhow::Result;

use super::activity::Tally;
use super::scene::{Scene, name};
use super::sizes::QUEUE_BYTES;
use crate::dense::{Channels, Mode};
use crate::dialect::Drumline;
use crate::publish::{Api, Load};
use crate::random::Random;
use crate::wire::Data;

pub(super) const BY_LIMIT: &str = "clients closed at their own limit";
pub(super) const BY_BUDGET: &str = "clients closed at the budget of all";

/// Close code of a slow consumer.
const SLOW: u16 = 3008;
/// Clients of an episode that aims at the limit of one client. The budget has room for all.
const FEW: u64 = 4;
/// Bytes of a publication, and the time from one to the next in ns.
const BYTES: u64 = 8 << 10;
const INTERVAL_NS: u64 = 2_000_000;
/// Phase number of the publications, which are not counted.
const PHASE: u16 = 901;
/// Time between the start of the publisher and its first message, in ns.
const LEAD_NS: u64 = 200_000_000;
/// Time in which the clients read what is left and learn that they are closed.
const READING: Duration = Duration::from_millis(700);

/// One group of clients stalls, then reads again.
pub(super) fn episode(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let by_limit = tally.episode.is_multiple_of(2);
    let (clients, bytes) = match by_limit {
        true => (FEW, QUEUE_BYTES * 2),
        false => (scene.sizes.stalled, QUEUE_BYTES * 3 / 4),
    };
    let channels = Channels::Shared(name("stall", random));
    let dense = scene.dense(&Drumline, clients, Mode::Stall(channels.clone()))?;
    dense.ramp()?;
    let load = Load {
        server: scene.public,
        api: Api::WebSocket,
        publishers: 1,
        channels,
        channel_count: 1,
        phase: PHASE,
        data: Data::Filled(BYTES as usize),
        first_ns: scene.clock.now_ns() + LEAD_NS,
        interval_ns: INTERVAL_NS,
        messages: bytes / BYTES,
        per_frame: 1,
    };
    // A server whose slots are all in use refuses the publisher.
    if load.start(scene.clock)?.join().is_err() {
        tally.add("publishers refused", 1);
    }
    std::thread::sleep(Duration::from_millis(random.within(100..=1_500)));
    dense.resume()?;
    std::thread::sleep(READING);
    let closed = dense.counters().codes().get(&SLOW).copied().unwrap_or_default();
    tally.add(if by_limit { BY_LIMIT } else { BY_BUDGET }, closed);
    dense.stop()
}
