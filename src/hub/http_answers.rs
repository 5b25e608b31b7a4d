//! Plain answers of HTTP that a shard gives by itself: health, refusals, and how a connection goes
//! on behind an answer.

use crate::hub::connections::Phase;
use crate::hub::{Hub, REFUSAL_TIME};
use crate::wire::http::{self, Cors, Health, Requester, Status};

impl Hub {
    /// Answers a request with a status and ends the connection. Nothing is known of who sent it.
    pub fn refuse(&mut self, slot: u32, status: Status) {
        self.refuse_to(slot, status, Requester::default());
    }

    /// Answers a request with a status and ends the connection. A page of a permitted origin may
    /// read why.
    pub(super) fn refuse_to(&mut self, slot: u32, status: Status, requester: Requester<'_>) {
        let Requester { origin, host, bodiless } = requester;
        let origin = origin.filter(|_| self.settings.rules.allows_origin(origin, host));
        if status == Status::Unavailable {
            self.metrics.refused.add(1);
        }
        let connection = &mut self.connections[slot];
        self.turn.write_head(&mut connection.turn, slot, |out| {
            out.extend_from_slice(&status.response(Cors { origin }, bodiless));
        });
        // Closing at once, with input unread, would reset the answer away.
        connection.flags.set_lingering(true);
        self.begin_closing(slot);
        self.set_deadline(slot, REFUSAL_TIME);
    }

    /// Says that the server is there.
    pub(super) fn answer_health(&mut self, slot: u32, health: Health) {
        let last = health.last || self.is_last(slot) || self.is_crowded();
        let connection = &mut self.connections[slot];
        self.turn.write_head(&mut connection.turn, slot, |out| {
            http::write_health(health.bodiless, last, out);
        });
        self.keep_alive(slot, last, self.settings.anonymous_idle_timeout);
    }

    /// Whether a connection ends behind its next answer, whatever its peer would like: the node
    /// shuts down, or there is no place for it.
    pub(super) fn is_last(&self, slot: u32) -> bool {
        let flags = self.connections[slot].flags;
        flags.shutting_down() || flags.refusing()
    }

    /// Whether so few slots are free that none is kept for an idle connection of anybody.
    pub(super) fn is_crowded(&self) -> bool {
        self.room() <= self.settings.slots / 16
    }

    /// A request was answered: the next one may come within `idle` milliseconds, unless the answer
    /// was the `last` one.
    pub(super) fn keep_alive(&mut self, slot: u32, last: bool, idle: u64) {
        let connection = &mut self.connections[slot];
        connection.phase = Phase::KeptAlive;
        connection.flags.set_end_when_flushed(last);
        self.set_deadline(slot, if last { self.settings.close_timeout } else { idle });
    }
}
