//! Storms: many clients connect, are cut at once and return at once, by each transport.
//!
//! Owns the clients of a storm. Never checks what they receive: the established clients do.
//! Invariant: a client counts as returned when the server has answered its connect and its
//! subscribe again.

use anyhow::Result;
use drumline::wire::protocol::Wire;

use super::activity::Tally;
use super::scene::{Scene, name};
use crate::dense::{Channels, Mode, Ramp};
use crate::dialect::{Dialect, Drumline, Identified, Streamed};
use crate::random::Random;

pub(super) const RETURNED: &str = "clients returned";
pub(super) const WITH_MISSED: &str = "clients returned after missed publications";

/// Clients with a user each, and clients of HTTP streams.
const DIALECTS: [&dyn Dialect; 4] = [
    &Identified { wire: Wire::Json },
    &Identified { wire: Wire::Protobuf },
    &Streamed::Sse,
    &Streamed::HttpStream,
];
/// Bytes of a missed publication.
const BYTES: usize = 512;

/// One storm.
pub(super) fn episode(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    match tally.episode % 2 {
        0 => recovering(scene, random, tally),
        _ => plain(scene, random, tally),
    }
}

/// Clients of one channel miss publications while they are cut.
fn recovering(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let channel = name("kept:storm", random);
    tally.add(WITH_MISSED, recover(scene, random, &channel)?);
    Ok(())
}

/// Clients of a channel with recovery miss publications while they are cut. Returns how many came
/// back.
pub(super) fn recover(scene: &Scene<'_>, random: &mut Random, channel: &str) -> Result<u64> {
    let mode = Mode::Subscribe(Channels::Shared(channel.to_owned()));
    let mut dense = scene.dense(&Drumline, scene.sizes.storm, mode)?;
    dense.track()?;
    dense.ramp()?;
    scene.publish(channel, BYTES)?;
    dense.cut()?;
    for _ in 0..random.within(1..=10) {
        scene.publish(channel, BYTES)?;
    }
    let returned = standing(dense.come_back(true)?);
    dense.stop()?;
    Ok(returned)
}

/// Clients of several channels return without a position.
fn plain(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let Some(dialect) = random.pick(&DIALECTS) else { return Ok(()) };
    let channels = match random.within(0..=2) {
        0 => Channels::Distinct,
        1 => Channels::Rooms(scene.sizes.rooms),
        _ => Channels::Shared("kept:plain-storm".to_owned()),
    };
    let mut dense = scene.dense(*dialect, scene.sizes.storm, Mode::Subscribe(channels))?;
    dense.ramp()?;
    for _ in 0..random.within(1..=3) {
        dense.cut()?;
        tally.add(RETURNED, standing(dense.come_back(false)?));
    }
    dense.stop()
}

fn standing(ramp: Ramp) -> u64 {
    ramp.up.saturating_sub(ramp.lost)
}
