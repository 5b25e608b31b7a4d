//! Publishers that come and go, by WebSocket and by HTTP.
//!
//! Owns their loads. Never publishes in the phase that the established clients account for.
//! Invariant: a publication counts when the server has confirmed it.

use anyhow::Result;

use super::activity::Tally;
use super::scene::Scene;
use crate::dense::Channels;
use crate::publish::{Api, Load, Post};
use crate::random::Random;
use crate::server::API_KEY;
use crate::wire::Data;

pub(super) const BY_WEBSOCKET: &str = "publications by WebSocket";
pub(super) const BY_HTTP: &str = "publications by HTTP";

/// Phase number of the publications.
const PHASE: u16 = 902;
/// Time between the start of the publishers and their first message, in ns.
const LEAD_NS: u64 = 200_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Some publishers publish to the channels of the established clients for a while.
pub(super) fn episode(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let post = Post::drumline(API_KEY);
    let (api, what) = match tally.episode % 3 {
        0 => (Api::Http(post), BY_HTTP),
        1 => (Api::Http(post.pipelined(random.within(2..=64))), BY_HTTP),
        _ => (Api::WebSocket, BY_WEBSOCKET),
    };
    let per_second = random.within(50..=300);
    let load = Load {
        server: scene.public,
        api,
        publishers: random.within(1..=4),
        channels: Channels::Rooms(scene.sizes.rooms),
        channel_count: scene.sizes.rooms,
        phase: PHASE,
        data: Data::Filled(random.within(64..=2_048) as usize),
        first_ns: scene.clock.now_ns() + LEAD_NS,
        interval_ns: SECOND_NS / per_second,
        messages: per_second * random.within(1..=3),
        per_frame: random.within(1..=8),
    };
    match load.start(scene.clock)?.join() {
        Ok(published) => tally.add(what, published.confirmed),
        // The slots may all be in use, and a node that is nearly full closes HTTP connections.
        Err(_) => tally.add("publishers refused or closed", 1),
    }
    Ok(())
}
