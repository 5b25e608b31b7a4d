//! Deadlines, pings and the time of a turn.

use crate::base::metrics::FrameType;
use crate::base::sys::Now;
use crate::base::work_budget::{Stage, cost};
use crate::home::durable::stored::Times;
use crate::hub::connections::{NONE, Phase};
use crate::hub::deadline_share::deadlines_of_turn;
use crate::hub::ping_plans::PingTimes;
use crate::hub::shard_state::Hub;
use crate::hub::time::{SPREAD, TICK};
use crate::wire::framing::Framing;
use crate::wire::http::{Status, Transport};
use crate::wire::protocol::Disconnect;

/// A WebSocket ping frame.
const WEBSOCKET_PING: &[u8] = &[0x89, 0x00];

impl Hub {
    /// Time of the next deadline, in milliseconds.
    pub fn next_due(&self) -> Option<u64> {
        let at = |tick| (u64::from(tick) * TICK).saturating_sub(self.tick_offset());
        let deadline = self.connections.wheel.next_due().map(at);
        let (homes, locals) = (self.home.next_expiry(), self.locals.next_due());
        let rates = self.connections.command_rates.next_due();
        let others = [homes, locals, rates, self.locals.position_checks.next_due()];
        deadline.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// Sets the number of deadlines that this turn handles if none is late.
    pub fn set_deadline_share(&mut self, deadlines: usize) {
        self.deadline_share = deadlines;
    }

    /// Number of deadlines that this turn handled.
    pub fn deadlines_done(&self) -> usize {
        self.deadlines_done
    }

    /// How late the oldest deadline is, in milliseconds.
    pub fn deadline_age(&self) -> u64 {
        // Most turns have swept this tick already, and need no walk over the buckets.
        if self.connections.wheel.is_swept(self.tick() as u32) {
            return 0;
        }
        let first = self.connections.wheel.next_due().map_or(u64::MAX, u64::from);
        self.tick().saturating_sub(first) * TICK
    }

    /// Sets the time of this turn.
    pub fn begin_turn(&mut self, now: Now) {
        (self.now, self.micros, self.unix) = (now.millis, now.micros, now.unix);
        self.awaits_backlog = false;
        self.home.begin_turn(Times { now: now.millis, unix: now.unix });
        self.follow_wall_clock(now);
    }

    /// Handles what is due; returns whether more is due. Input that arrived in time is read first,
    /// so no client is closed for the time during which the process was stopped.
    pub fn expire(&mut self) -> bool {
        let now = self.now;
        self.budget.begin(Stage::Deadlines);
        let more_waits = self.locals.expire(now, &mut self.budget);
        // Each of these walks does at least one piece of work per turn.
        self.budget.begin(Stage::Deadlines);
        let mut due = std::mem::take(&mut self.due);
        let most = deadlines_of_turn(self.deadline_share, self.deadline_age());
        let most = self.budget.pieces(cost::DEADLINE, most);
        let has_all = self.connections.wheel.sweep(self.tick() as u32, most, &mut due);
        let more = !has_all || more_waits;
        self.deadlines_done = due.len();
        due.sort_unstable();
        for slot in due.drain(..) {
            self.budget.charge(cost::DEADLINE);
            self.deadline_reached(slot);
        }
        self.due = due;
        self.budget.begin(Stage::Deadlines);
        self.home.expire(&mut self.budget);
        for walk in [Self::walk_revoked, Self::walk_expiries, Self::end_out_of_sync] {
            self.budget.begin(Stage::Deadlines);
            walk(self);
        }
        more
    }

    /// Whether the input that arrived before the deadline has been read. If not, requests a read,
    /// and the deadline fires once more.
    fn has_read_all(&mut self, slot: u32) -> bool {
        let flags = &mut self.connections[slot].flags;
        // A read in progress can bring the awaited input.
        if flags.listened() && !flags.receiving() {
            return true;
        }
        flags.set_listened(true);
        self.ring_requests.reads.push(slot);
        self.connections.wheel.set(slot, self.tick() as u32 + 1);
        false
    }

    pub(super) fn deadline_reached(&mut self, slot: u32) {
        let connection = &self.connections[slot];
        let silent = match connection.phase {
            Phase::ProxyHeader | Phase::Handshake | Phase::Head => true,
            Phase::Open => !connection.flags.shutting_down(),
            Phase::KeptAlive | Phase::Closing => true,
            _ => false,
        };
        if silent && !self.has_read_all(slot) {
            return;
        }
        let connection = &self.connections[slot];
        match connection.phase {
            Phase::ProxyHeader => self.end(slot),
            Phase::Handshake => self.connection_lost(slot),
            Phase::KeptAlive => self.end(slot),
            Phase::Head if self.draining => self.refuse(slot, Status::ShuttingDown),
            Phase::Head if connection.flags.refusing() => self.refuse(slot, Status::Unavailable),
            Phase::Head => self.refuse(slot, Status::Timeout),
            Phase::Open | Phase::Connected if connection.flags.shutting_down() => {
                self.disconnect(slot, Disconnect::SHUTDOWN);
            }
            Phase::Open => self.disconnect(slot, Disconnect::STALE),
            Phase::Connected => self.ping_or_check(slot),
            Phase::Closing => {
                self.connections[slot].flags.set_reset(true);
                self.end(slot);
            }
            // The answer ends this phase.
            Phase::AwaitingAnswer => {}
            Phase::Reserved | Phase::Leaving | Phase::Ending => {}
        }
    }

    pub(super) fn ping_or_check(&mut self, slot: u32) {
        if self.expire_tokens(slot) || self.resume_ping(slot) {
            return;
        }
        let plan = self.connections[slot].ping_plan;
        let PingTimes { interval: ping_interval, pong: pong_timeout } = self.ping_plans.of(plan);
        let connection = &mut self.connections[slot];
        let unidirectional = connection.transport.is_unidirectional();
        // A unidirectional client sends no pong, but its WebSocket answers ping frames.
        let answers = !unidirectional || connection.transport.is_websocket();
        let pong_timeout = pong_timeout.filter(|_| answers);
        if connection.flags.checking() && connection.flags.pong_due() && connection.flags.paused() {
            // Its input is paused, so the pong or the end of the connection may be unread.
            if connection.flags.peer_ended() {
                return self.connection_lost(slot);
            }
            return self.set_deadline(slot, pong_timeout.unwrap_or(ping_interval));
        }
        if connection.flags.checking() {
            if connection.flags.pong_due() {
                let reading = connection.flags.listened() && connection.flags.receiving();
                if reading {
                    // Input is being read, and the pong may be in it.
                    return self.connections.wheel.set(slot, self.tick() as u32 + 1);
                }
                if self.has_read_all(slot) {
                    self.disconnect(slot, Disconnect::NO_PONG);
                }
                return;
            }
            connection.flags.set_checking(false);
            self.set_deadline(slot, ping_interval - pong_timeout.unwrap_or(0));
            return self.watch_expiry(slot);
        }
        connection.flags.set_pong_due(pong_timeout.is_some());
        connection.flags.set_checking(pong_timeout.is_some());
        connection.stamp = self.micros as u32;
        let ping = if connection.flags.frame_pings() {
            WEBSOCKET_PING
        } else {
            Framing::of(connection.transport).ping(connection.wire, unidirectional)
        };
        if connection.transport == Transport::LongPolling {
            connection.flags.set_end_when_flushed(true);
        }
        if connection.outbox == NONE {
            self.turn.push_static(&mut connection.turn, slot, ping);
        } else {
            self.append_outbox(slot, ping);
        }
        self.metrics.pings.add(1);
        self.count_sent(slot, FrameType::ServerPing, ping.len());
        if self.connections[slot].phase == Phase::Connected {
            self.set_deadline(slot, pong_timeout.unwrap_or(ping_interval));
            self.watch_expiry(slot);
        }
    }

    /// Sets the first ping. Pings follow the order of the slots once per interval. So they are
    /// spread evenly however connections arrived, and sends go to neighbours in memory. The first
    /// ping is in the second half of the interval: a slot whose turn is sooner takes the opposite
    /// point.
    pub(super) fn set_first_ping(&mut self, slot: u32) {
        let ping_interval = self.ping_plans.of(self.connections[slot].ping_plan).interval;
        let slots = self.settings.slots;
        let among_slots = ping_interval * u64::from(slot) / slots.max(1) as u64;
        let among_shards = ping_interval * u64::from(self.shard) / SPREAD;
        let ahead = among_slots + among_shards + ping_interval - self.now % ping_interval;
        let ahead = ahead % ping_interval;
        let half = ping_interval / 2;
        self.set_deadline(slot, if ahead < half { ahead + half } else { ahead });
        self.watch_expiry(slot);
    }
}
