//! Whether subscribers stand where their channels' streams do: held against the homes' streams from
//! time to time, and against every publication that comes.

use crate::base::budget::cost;
use crate::hub::Hub;
use crate::local::OutOfSyncSubscriber;
use crate::model::message::{ChannelQuery, HomeQuery, Message, Post, Rank, ReplyTo};
use crate::wire::protocol::{Disconnect, Position};

/// Channels whose check is begun in one turn.
const CHECKS_PER_TURN: usize = 16;
/// Subscribers that are told in one turn that they have lost their place.
const OUT_OF_SYNC_PER_TURN: usize = 64;

/// Unsubscribe code: the client is to subscribe again, and gets what it missed if it can be had.
const INSUFFICIENT_STATE: u32 = 2500;

impl Hub {
    /// Asks homes of channels that are due where their streams stand, as far as there is room.
    pub(super) fn check_positions(&mut self, post: &mut impl Post) {
        let times = (self.now, self.settings.position_check_delay);
        let mut due = std::mem::take(&mut self.checks);
        self.locals.position_checks.sweep(CHECKS_PER_TURN, times, &mut due);
        for (channel, serial) in due.drain(..) {
            let Some((name, hash)) = self.locals.channel_name(channel) else { continue };
            let reply_to = ReplyTo::Watcher { shard: self.shard, channel, serial };
            let question =
                HomeQuery { channel: name.clone(), hash, reply_to, about: ChannelQuery::Position };
            let home = self.names.home(hash);
            if post.reserve(home, Rank::Request) {
                post.send(home, Message::HomeQuery(Box::new(question)));
            } else {
                self.locals.position_checks.retry_soon(channel, self.now);
            }
        }
        self.checks = due;
    }

    /// A home has said where a channel's stream stands.
    pub(super) fn position_answered(&mut self, (channel, serial): (u32, u32), top: Position) {
        if !self.locals.position_checks.agrees(channel, serial, top) {
            self.locals.mark_out_of_sync(channel);
        }
    }

    /// Tells subscribers that have lost their place, some in each turn. Those that the server
    /// subscribed can only come back with their connection.
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
