//! Connections whose other end is half there: request heads that do not end, and peers that vanish
//! without a word.
//!
//! Owns the address whose packets are dropped. Never lets a vanished peer close. Invariant: an
//! episode ends well only when the server has closed every one of its connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::activity::Tally;
use super::scene::{Scene, name, part};
use super::sizes::{HEAD_SECONDS, PING_SECONDS};
use crate::blackhole::Blackhole;
use crate::dense::Mode;
use crate::dialect::Drumline;
use crate::random::Random;
use crate::scenario::hostile::HostileClient;

pub(super) const HEADS: &str = "half-open heads closed";
pub(super) const VANISHED: &str = "vanished peers closed";

/// Address of the server at which peers vanish. No other client uses it.
const HOLE: Ipv4Addr = Ipv4Addr::new(127, 0, 77, 77);
/// Time beyond the server's own within which it must have closed all. While its slots are all in
/// use, it refuses the connections that the kernel has accepted few at a time.
const SPREAD: Duration = Duration::from_secs(30);
/// From one line of a head to the next.
const DRIP: Duration = Duration::from_millis(500);

/// Request heads that get one more line now and then.
pub(super) fn heads(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let dense = scene.dense(&Drumline, random.within(1..=scene.sizes.heads), Mode::HalfHead)?;
    let up = dense.ramp()?.up;
    let patience = Duration::from_secs(HEAD_SECONDS) + SPREAD;
    let mut dripped = Instant::now();
    let closed = scene.until(patience, || {
        if dripped.elapsed() >= DRIP {
            dripped = Instant::now();
            dense.drip()?;
        }
        Ok(dense.counters().standing() == 0)
    })?;
    let lost = dense.counters().lost();
    tally.add(HEADS, lost);
    dense.stop()?;
    ensure!(closed, "the server has closed {} half-open heads in time", part(lost, up));
    Ok(())
}

/// Peers whose packets no longer arrive, in either direction.
pub(super) fn vanishing(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let address = SocketAddr::from((HOLE, scene.public.port()));
    let channel = name("kept:vanished", random);
    let request = format!("{{\"channel\":\"{channel}\"}}");
    let mut peers = Vec::new();
    for _ in 0..random.within(2..=scene.sizes.vanishing) {
        // The slots may all be in use.
        peers.extend(HostileClient::subscribed(address, &request).ok());
    }
    let (hole, count) = (Blackhole::open(HOLE)?, peers.len() as u64);
    // The resets are dropped too: the peers are gone, and the server cannot know.
    peers.into_iter().try_for_each(HostileClient::reset)?;
    let patience = Duration::from_secs(2 * PING_SECONDS) + SPREAD;
    let gone = scene.until(patience, || Ok(scene.present(&channel)? == Some(0)))?;
    hole.close()?;
    ensure!(gone, "the server still has some of {count} vanished peers");
    tally.add(VANISHED, count);
    Ok(())
}
