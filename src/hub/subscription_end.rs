//! How a subscription ends before its connection does.

use crate::hub::command_failure::CommandFailure;
use crate::hub::hook_events::CLIENT_UNSUBSCRIBED;
use crate::hub::shard_state::Hub;
use crate::wire::protocol::Disconnect;
use crate::wire::protocol::reply::{Push, Reply};

impl Hub {
    pub(super) fn unsubscribe(
        &mut self,
        slot: u32,
        command: u32,
        channel: &str,
    ) -> Result<(), CommandFailure> {
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let hash = self.names.hash(channel);
        if let Some(key) = self.find_subscription(slot, hash, channel)? {
            if !self.write_owed(slot, key) {
                return Ok(());
            }
            self.leave(slot, key, CLIENT_UNSUBSCRIBED);
        }
        self.reply(slot, command, &Reply::Unsubscribe);
        Ok(())
    }

    /// Ends a subscription and sends an unsubscribe push.
    pub(super) fn end_subscription(&mut self, slot: u32, key: u32, code: u32, reason: &str) {
        let channel = self.locals.channel(key).0.clone();
        if !self.write_owed(slot, key) {
            return;
        }
        self.metrics.by.unsubscribes.add(code.into());
        self.leave(slot, key, (code, reason));
        self.push(slot, &Push::Unsubscribe { channel: &channel, code, reason });
    }

    /// Ends an expired subscription; a server-side one ends the connection.
    pub(super) fn expire_subscription(&mut self, slot: u32, key: u32) {
        if self.connections.grants.get(&key).is_some_and(|grant| grant.server_side) {
            self.disconnect(slot, Disconnect::SUBSCRIPTION_EXPIRED);
        } else {
            self.end_subscription(slot, key, 2501, "subscription expired");
        }
    }
}
