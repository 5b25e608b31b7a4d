//! Positions of a shard's subscribers in the streams of their channels, and when each is checked.
//!
//! Owns one position per channel, because all subscribers of a channel on a shard got the same
//! publications. Never asks a home: it returns the channels that are due. The invariant: a position
//! equals the position of the home at the moment when the home sent the last message, because
//! messages and answers share one queue.

use std::collections::HashMap;

use crate::base::wheel::Wheel;
use crate::wire::protocol::Position;

/// Milliseconds per tick of the wheel.
const TICK: u64 = 1000;

struct PositionCheck {
    position: Position,
    /// Distinguishes successive channels with the same index.
    serial: u32,
    /// Whether a publication with the expected offset arrived since the last check.
    confirmed: bool,
}

/// The checked channels of a shard, by index.
pub struct PositionChecks {
    by_channel: HashMap<u32, PositionCheck>,
    due: Wheel,
    serial: u32,
    swept: Vec<u32>,
}

impl Default for PositionChecks {
    fn default() -> Self {
        PositionChecks {
            by_channel: HashMap::new(),
            due: Wheel::new(128),
            serial: 0,
            swept: Vec::new(),
        }
    }
}

impl PositionChecks {
    /// Number of checked channels.
    pub fn len(&self) -> usize {
        self.by_channel.len()
    }

    /// Whether no channel is checked.
    pub fn is_empty(&self) -> bool {
        self.by_channel.is_empty()
    }

    /// Starts or continues to check a channel that a subscriber joins at `top`. Returns whether the
    /// earlier subscribers have the same position. First checks are spread over half a delay.
    pub fn join(&mut self, channel: u32, top: Position, (now, delay): (u64, u64)) -> bool {
        if let Some(watch) = self.by_channel.get_mut(&channel) {
            let same = watch.position == top;
            watch.position = top;
            return same;
        }
        self.serial = self.serial.wrapping_add(1);
        let watch = PositionCheck { position: top, serial: self.serial, confirmed: false };
        self.by_channel.insert(channel, watch);
        let spread = (u64::from(channel.wrapping_mul(0x9e37_79b9)) * (delay / 2)) >> 32;
        self.set_due(channel, now + delay - spread);
        true
    }

    fn set_due(&mut self, channel: u32, at: u64) {
        self.due.set(channel, at.div_ceil(TICK) as u32);
    }

    /// Follows a publication; returns whether its position is the next one.
    pub fn follow(&mut self, channel: u32, position: Position) -> bool {
        let Some(watch) = self.by_channel.get_mut(&channel) else { return true };
        let offset = watch.position.offset + 1;
        let next = position == Position { offset, ..watch.position };
        (watch.position, watch.confirmed) = (position, true);
        next
    }

    /// Stops checking a channel.
    pub fn end(&mut self, channel: u32) {
        if self.by_channel.remove(&channel).is_some() {
            self.due.clear(channel);
        }
    }

    /// Appends the channels whose homes must be asked, with their serials; handles at most `most`
    /// due channels. Each is due again after the delay. A channel with a recent publication needs
    /// no check.
    pub fn sweep(&mut self, most: usize, (now, delay): (u64, u64), to_check: &mut Vec<(u32, u32)>) {
        let mut swept = std::mem::take(&mut self.swept);
        self.due.sweep((now / TICK) as u32, most, &mut swept);
        for channel in swept.drain(..) {
            let Some(watch) = self.by_channel.get_mut(&channel) else { continue };
            if !std::mem::take(&mut watch.confirmed) {
                to_check.push((channel, watch.serial));
            }
            self.set_due(channel, now + delay);
        }
        self.swept = swept;
    }

    /// Schedules a check again soon, because the inbox of the home was full.
    pub fn retry_soon(&mut self, channel: u32, now: u64) {
        self.set_due(channel, now + TICK);
    }

    /// Returns whether the subscribers have the same position as the home, or are gone.
    pub fn agrees(&self, channel: u32, serial: u32, top: Position) -> bool {
        let watch = self.by_channel.get(&channel).filter(|watch| watch.serial == serial);
        watch.is_none_or(|watch| top == watch.position)
    }

    /// Time of the next check, in milliseconds.
    pub fn next_due(&self) -> Option<u64> {
        self.due.next_due().map(|tick| u64::from(tick) * TICK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::protocol::Epoch;

    const DELAY: u64 = 40_000;

    fn at(offset: u64) -> Position {
        Position { offset, epoch: Epoch::parse("abcdefgh") }
    }

    fn due(position_checks: &mut PositionChecks, now: u64) -> Vec<u32> {
        let mut to_check = Vec::new();
        position_checks.sweep(100, (now, DELAY), &mut to_check);
        to_check.into_iter().map(|(channel, _)| channel).collect()
    }

    #[test]
    fn a_channel_without_publications_is_due_once_per_delay() {
        let mut position_checks = PositionChecks::default();
        for channel in 0..10 {
            assert!(position_checks.join(channel, at(5), (0, DELAY)));
        }
        assert_eq!(due(&mut position_checks, DELAY / 2 - 1).len(), 0);
        let early = due(&mut position_checks, DELAY * 3 / 4);
        assert!((2..=8).contains(&early.len()), "{early:?} in the first half of the spread");
        let lively = (0..10).find(|channel| !early.contains(channel)).unwrap();
        assert!(position_checks.follow(lively, at(6)));
        let late = due(&mut position_checks, DELAY + 1_000);
        assert_eq!(early.len() + late.len(), 9, "all but {lively}: {early:?} {late:?}");
        position_checks.end(early[0]);
        let all = due(&mut position_checks, 3 * DELAY);
        assert!(all.contains(&lively) && !all.contains(&early[0]) && all.len() == 9, "{all:?}");
        (0..10).for_each(|channel| position_checks.end(channel));
        assert!(position_checks.is_empty() && position_checks.next_due().is_none());
    }

    #[test]
    fn a_differing_position_is_detected() {
        let mut position_checks = PositionChecks::default();
        position_checks.join(1, at(5), (0, DELAY));
        let (_, serial) = {
            let mut to_check = Vec::new();
            position_checks.sweep(1, (2 * DELAY, DELAY), &mut to_check);
            to_check[0]
        };
        assert!(position_checks.follow(1, at(6)) && position_checks.agrees(1, serial, at(6)));
        assert!(
            !position_checks.agrees(1, serial, at(7)) && !position_checks.agrees(1, serial, at(0))
        );
        let another = Position { epoch: Epoch::parse("zzzzzzzz"), ..at(6) };
        assert!(!position_checks.agrees(1, serial, another));
        assert!(position_checks.agrees(1, serial + 1, at(0)), "another life of the index");
        assert!(
            !position_checks.follow(1, at(6)) && !position_checks.follow(1, at(8)),
            "again, and a gap"
        );
        assert!(!position_checks.follow(1, Position { offset: 9, ..another }), "another stream");
        position_checks.follow(1, at(8));
        assert!(
            position_checks.join(1, at(8), (0, DELAY))
                && !position_checks.join(1, another, (0, DELAY))
        );
    }
}
