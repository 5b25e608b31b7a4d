//! When what a connection holds by a token ends: its one deadline is the sooner of that and its
//! next ping, so that no connection has a timer of its own for either.

use crate::connection::{NONE, Phase};
use crate::hub::Hub;

impl Hub {
    /// When the first of what a connection holds by tokens ends for good, in milliseconds.
    fn next_end(&self, slot: u32) -> Option<u64> {
        let connection = &self.connections[slot as usize];
        let settings = &self.settings;
        // What the backend renews is looked at when its time is over.
        let delay = settings.proxies.refresh.map_or(settings.expired_close_delay, |_| 0);
        let own = connection.expires().map(|end| end.saturating_add(delay));
        let mut first = own.unwrap_or(u64::MAX);
        let mut key = if self.grants.is_empty() { NONE } else { connection.subscriptions };
        while key != NONE {
            let expires = self.grants.get(&key).and_then(|grant| grant.expires);
            let end = expires.map(|end| {
                let renewed = self.sub_refresh_proxy(key).is_some();
                end.saturating_add(if renewed { 0 } else { settings.expired_sub_close_delay })
            });
            first = first.min(end.unwrap_or(u64::MAX));
            key = self.locals.next_subscription(key);
        }
        let end = Some(first).filter(|first| *first != u64::MAX)?;
        Some(end.saturating_mul(1000).saturating_sub(self.unix_start))
    }

    /// Sees to it that a connection is looked at when something of its ends, though its ping is
    /// not due yet. What it has, or its deadline, has changed.
    pub(super) fn watch_ends(&mut self, slot: u32) {
        let connection = &self.connections[slot as usize];
        if connection.phase != Phase::Connected || connection.flags.shutting_down() {
            return;
        }
        let Some(end) = self.next_end(slot) else { return };
        let Some(ping) = self.wheel.deadline(slot) else { return };
        let tick = self.tick_at(end.max(self.now));
        if tick < u64::from(ping) {
            self.put_off.entry(slot).or_insert(ping);
            self.wheel.set(slot, tick as u32);
        }
    }

    /// Sets the deadline of a connection that was looked at for an end back to its ping; returns
    /// whether that is still to come.
    pub(super) fn resume_ping(&mut self, slot: u32) -> bool {
        if self.put_off.is_empty() {
            return false;
        }
        let Some(ping) = self.put_off.remove(&slot) else { return false };
        let early = u64::from(ping) > self.tick();
        if early && self.connections[slot as usize].phase == Phase::Connected {
            self.wheel.set(slot, ping);
            self.watch_ends(slot);
        }
        early
    }
}
