//! The time of a turn: expirations by the wall clock, and the ticks of the deadline wheel.

use crate::base::limits::SHARDS_MAX;
use crate::hub::shard_state::Hub;
use crate::wire::protocol::reply::Ttl;

/// Milliseconds per tick of the deadline wheel.
pub(super) const TICK: u64 = 128;
/// The ticks of this many shards are spread over one tick.
pub(super) const SPREAD: u64 = SHARDS_MAX as u64;

/// Maximum seconds until an expiry that a client is told, as in Centrifugo: a year.
const TTL_MAX: u32 = 365 * 24 * 3600;

impl Hub {
    /// Unix time of this turn, in seconds.
    pub(super) fn unix_time(&self) -> u64 {
        self.unix / 1000
    }

    /// Whether an expiry, as unix time in seconds, has passed; `None` never does.
    pub(super) fn is_expired(&self, expires: Option<u64>) -> bool {
        expires.is_some_and(|end| end <= self.unix_time())
    }

    /// The remaining time until an expiry, at most [`TTL_MAX`].
    pub(super) fn lease(&self, expires: Option<u64>) -> Option<Ttl> {
        let left = |end: u64| end.saturating_sub(self.unix_time()).min(u64::from(TTL_MAX));
        expires.map(|end| Ttl(left(end) as u32))
    }

    /// Offset of the ticks of this shard, in milliseconds: if all shards ticked at once, a million
    /// pings would be sent in bursts.
    pub(super) fn tick_offset(&self) -> u64 {
        TICK * u64::from(self.shard) / SPREAD
    }

    pub(super) fn set_deadline(&mut self, slot: u32, after: u64) {
        self.connections[slot].flags.set_listened(false);
        self.connections.wheel.set(slot, self.tick_at(self.now + after) as u32);
    }

    /// The tick of a time in milliseconds.
    pub(super) fn tick_at(&self, time: u64) -> u64 {
        time.saturating_add(self.tick_offset()).div_ceil(TICK)
    }

    /// The current tick.
    pub(super) fn tick(&self) -> u64 {
        (self.now + self.tick_offset()) / TICK
    }
}
