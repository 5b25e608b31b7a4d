//! Position checks: the positions of subscribers are compared with the homes from time to time, and
//! with every publication.

use crate::base::work_budget::cost;
use crate::hub::shard_state::Hub;
use crate::local::OutOfSyncSubscriber;
use crate::model::message::{ChannelQuery, HomeQuery, Message, Post, Rank, ReplyTo};
use crate::model::namespaces::Options;
use crate::wire::protocol::{Disconnect, Position};

/// Maximum checks begun per turn.
const CHECKS_PER_TURN: usize = 16;
/// Maximum out-of-sync subscribers ended per turn.
const OUT_OF_SYNC_PER_TURN: usize = 64;

/// Milliseconds between two checks of channels whose checks were switched off by a reload.
const UNCHECKED: u64 = 3_600_000;

/// Unsubscribe code: the client resubscribes and recovers if possible.
const INSUFFICIENT_STATE: u32 = 2500;

impl Hub {
    /// Asks the homes of due channels for their positions, while inboxes have room.
    pub(super) fn check_positions(&mut self, post: &mut impl Post) {
        let delay = match self.settings.position_check_delay {
            // Checks were switched off while subscribers had them.
            0 => UNCHECKED,
            delay => delay,
        };
        let times = (self.now, delay);
        let mut due = std::mem::take(&mut self.checks);
        self.locals.position_checks.sweep(CHECKS_PER_TURN, times, &mut due);
        for (channel, serial) in due.drain(..) {
            let Some((name, hash)) = self.locals.channel_name(channel) else { continue };
            let reply_to = ReplyTo::PositionCheck { shard: self.shard, channel, serial };
            let options = self.settings.namespaces.of(name);
            let durable = options.is_ok_and(Options::is_durable);
            let (name, query) = (name.clone(), ChannelQuery::Position);
            let question = HomeQuery { channel: name, hash, reply_to, durable, query };
            let home = self.names.home(hash);
            if post.reserve(home, Rank::Request) {
                post.send(home, Message::HomeQuery(Box::new(question)));
            } else {
                self.locals.position_checks.retry_soon(channel, self.now);
            }
        }
        self.checks = due;
    }

    /// Handles the position that a home reports.
    pub(super) fn position_answered(&mut self, (channel, serial): (u32, u32), top: Position) {
        if !self.locals.position_checks.agrees(channel, serial, top) {
            self.locals.mark_out_of_sync(channel);
        }
    }

    /// Ends out-of-sync subscriptions, some per turn. A server-side subscription ends the
    /// connection, because only a new connect can restore it.
    pub(super) fn end_out_of_sync(&mut self) {
        for _ in 0..OUT_OF_SYNC_PER_TURN {
            if self.is_spent() {
                return;
            }
            self.budget.charge(cost::JOIN);
            let Some(OutOfSyncSubscriber { slot, subscription }) = self.locals.next_out_of_sync()
            else {
                return;
            };
            if self.connections.grants.get(&subscription).is_some_and(|grant| grant.server_side) {
                self.disconnect(slot, Disconnect::INSUFFICIENT_STATE);
            } else {
                let reason = "insufficient state";
                self.end_subscription(slot, subscription, INSUFFICIENT_STATE, reason);
            }
        }
    }
}
