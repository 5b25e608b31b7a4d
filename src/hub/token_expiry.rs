//! When the tokens of connections and subscriptions expire.
//!
//! A connection has one deadline: its next ping, or the first expiry if that is sooner. So no
//! expiry needs a timer of its own.

use crate::base::sys::Now;
use crate::base::work_budget::cost;
use crate::hub::bounded_walks::LOOKS_PER_TURN;
use crate::hub::connections::{NONE, Phase};
use crate::hub::shard_state::Hub;

/// Change of the wall clock, in milliseconds, from which expirations are computed again.
pub const CLOCK_STEP: u64 = 500;

impl Hub {
    /// Whether the wall clock was changed since expirations were turned into deadlines.
    pub fn clock_stepped(&self, now: Now) -> bool {
        self.clock_lead.is_some_and(|ahead| now.ahead().abs_diff(ahead) >= CLOCK_STEP)
    }

    /// Begins a walk over all expirations if the wall clock was changed. A step back needs none,
    /// because a deadline that fires too early is set again.
    pub(super) fn follow_wall_clock(&mut self, now: Now) {
        if self.clock_stepped(now) {
            self.expiry_walk.begin(self.connections.slot_end());
            self.clock_lead = None;
        }
        self.clock_lead.get_or_insert(now.ahead());
    }

    /// Continues the walk over expirations.
    pub(super) fn walk_expiries(&mut self) {
        let mut looks = 0;
        while looks < LOOKS_PER_TURN
            && !self.is_spent()
            && let Some(slot) = self.expiry_walk.step(self.connections.slot_end())
        {
            let mut looked = 1;
            if let Some(connection) = self.connections.get(slot) {
                looked += usize::from(connection.subscribed);
                self.watch_expiry(slot);
            }
            self.budget.charge(looked * cost::LOOK);
            looks += looked;
        }
    }

    /// When the first token of a connection or its subscriptions ends, in milliseconds, including
    /// the grace period.
    fn next_token_expiry(&self, slot: u32) -> Option<u64> {
        let connection = &self.connections[slot];
        let settings = &self.settings;
        // What the backend renews has no grace period: it is renewed when it expires.
        let delay = settings.proxies.refresh.map_or(settings.expired_close_delay, |_| 0);
        let own = connection.expires().map(|end| end.saturating_add(delay));
        let mut first = own.unwrap_or(u64::MAX);
        let mut key =
            if self.connections.grants.is_empty() { NONE } else { connection.subscriptions };
        while key != NONE {
            let expires = self.connections.grants.get(&key).and_then(|grant| grant.expires);
            let end = expires.map(|end| {
                let renewed = self.sub_refresh_proxy(key).is_some();
                end.saturating_add(if renewed { 0 } else { settings.expired_sub_close_delay })
            });
            first = first.min(end.unwrap_or(u64::MAX));
            key = self.locals.next_subscription(key);
        }
        let end = Some(first).filter(|first| *first != u64::MAX)?;
        let left = end.saturating_mul(1000).saturating_sub(self.unix);
        Some(self.now.saturating_add(left))
    }

    /// Moves the deadline of a connection before its ping if something of it expires sooner. Called
    /// when its tokens or its deadline have changed.
    pub(super) fn watch_expiry(&mut self, slot: u32) {
        let connection = &self.connections[slot];
        if connection.phase != Phase::Connected || connection.flags.shutting_down() {
            return;
        }
        let Some(end) = self.next_token_expiry(slot) else { return };
        let Some(ping) = self.connections.wheel.deadline(slot) else { return };
        let tick = self.tick_at(end.max(self.now));
        if tick < u64::from(ping) {
            self.connections.postponed_pings.entry(slot).or_insert(ping);
            self.connections.wheel.set(slot, tick as u32);
        }
    }

    /// Moves the deadline of a connection back to its ping after an expiry was handled; returns
    /// whether the ping is not due yet.
    pub(super) fn resume_ping(&mut self, slot: u32) -> bool {
        if self.connections.postponed_pings.is_empty() {
            return false;
        }
        let Some(ping) = self.connections.postponed_pings.remove(&slot) else { return false };
        let early = u64::from(ping) > self.tick();
        if early && self.connections[slot].phase == Phase::Connected {
            self.connections.wheel.set(slot, ping);
            self.watch_expiry(slot);
        }
        early
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::hub::connections::Identity;
    use crate::hub::tests::{LoneShardBus, hub, say, subscriber, transmit};

    const START: u64 = 1_700_000_000;

    /// A hub at a time, with a client whose token ends an hour later.
    fn with_token() -> (Hub, u32) {
        let mut hub = hub(1 << 20, 1 << 20, 1 << 20);
        hub.begin_turn(Now { millis: 5_000, micros: 5_000 * 1000, unix: START * 1000 });
        let slot = subscriber(&mut hub);
        let expires = NonZeroU64::new(START + 3600);
        let identity = Identity { expires, ..Identity::default() };
        hub.connections[slot].identity = Some(Box::new(identity));
        hub.watch_expiry(slot);
        transmit(&mut hub, &[]);
        (hub, slot)
    }

    /// What time brings: turns until nothing more is due.
    fn at(hub: &mut Hub, millis: u64, unix: u64) -> Phase {
        hub.begin_turn(Now { millis, micros: millis * 1000, unix });
        while hub.expire() || hub.expiry_walk.goes_on() {
            hub.resume_paused(&mut LoneShardBus::default());
        }
        transmit(hub, &[]);
        hub.connections[0].phase
    }

    #[test]
    fn a_step_of_the_wall_clock_expires_tokens_soon() {
        let (mut hub, _) = with_token();
        let later = Now { millis: 6_000, micros: 6_000 * 1000, unix: START * 1000 + 7_200_000 };
        assert!(hub.clock_stepped(later));
        at(&mut hub, later.millis, later.unix);
        assert_eq!(at(&mut hub, later.millis + 200, later.unix + 200), Phase::Closing);
    }

    #[test]
    fn a_step_back_of_the_wall_clock_expires_no_token_early() {
        let (mut hub, _) = with_token();
        let back = START * 1000 - 7_200_000;
        assert_eq!(at(&mut hub, 6_000, back), Phase::Connected);
        let mut millis = 6_000;
        while millis < 3 * 3600 * 1000 + 5_000 {
            millis += 1_000;
            assert_eq!(at(&mut hub, millis, back + millis - 6_000), Phase::Connected, "{millis}");
        }
        let end = (START + 3600 + hub.settings.expired_close_delay) * 1000;
        let millis = 6_000 + end - back + 200;
        assert_eq!(at(&mut hub, millis, end + 200), Phase::Closing);
    }

    #[test]
    fn a_pong_that_arrived_before_the_deadline_is_handled_counts() {
        let (mut hub, slot) = with_token();
        let settings = std::sync::Arc::make_mut(&mut hub.settings);
        settings.pong_timeout = Some(1_000);
        hub.ping_plans.change(hub.settings.ping_times());
        hub.connections[slot].ping_plan = hub.ping_plans.join();
        let unix = START * 1000;
        at(&mut hub, 31_000, unix);
        assert!(hub.connections[slot].flags.pong_due());
        assert_eq!(at(&mut hub, 41_000, unix), Phase::Connected);
        assert_eq!(hub.ring_requests.reads, [slot], "its socket is read first");
        say(&mut hub, slot, "{}");
        assert_eq!(at(&mut hub, 51_000, unix), Phase::Connected);
        // The next one is not answered.
        let mut millis = 51_000;
        while hub.connections[slot].phase == Phase::Connected && millis < 200_000 {
            millis += 128;
            at(&mut hub, millis, unix);
        }
        assert!(millis < 80_000, "silence is found out: {millis}");
    }

    #[test]
    fn input_is_read_before_a_late_client_is_closed() {
        let mut hub = hub(1 << 20, 1 << 20, 1 << 20);
        hub.begin_turn(Now { millis: 5_000, micros: 5_000 * 1000, unix: 0 });
        let (slot, _) = hub.reserve().unwrap();
        hub.socket_opened(slot);
        assert_eq!(at(&mut hub, 60_000, 0), Phase::Head);
        assert_eq!(hub.ring_requests.reads, [slot]);
        assert_eq!(at(&mut hub, 60_200, 0), Phase::Closing, "it said nothing");
        assert_eq!(at(&mut hub, 120_000, 0), Phase::Closing);
        assert_eq!(hub.ring_requests.reads, [slot, slot]);
        assert_eq!(at(&mut hub, 120_200, 0), Phase::Ending);
    }
}
