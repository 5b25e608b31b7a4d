//! Existing subscriptions: how they are found and ended, and what homes are sent about ends.

use std::sync::Arc;

use crate::base::planted_faults::{PlantedFault, planted};
use crate::base::work_budget::cost;
use crate::hub::backend::CLIENT_UNSUBSCRIBED;
use crate::hub::backend::UnsubscribeReason;
use crate::hub::commands::{CommandFailure, StopReason};
use crate::hub::connections::Connection;
use crate::hub::shard_state::Hub;
use crate::model::message::{Grant, Leave, Message, Overrides, Post, Rank, Release, Visibility};
use crate::model::namespaces::{Options, PublicationFormat};
use crate::model::publication::Encoding;
use crate::wire::framing::Framing;
use crate::wire::protocol::reply::{ClientInfo, Push, Reply};
use crate::wire::protocol::{Disconnect, Error, Wire};

impl Hub {
    pub(super) fn shared_name(&self, hash: u64, channel: &str) -> Arc<str> {
        self.locals.shared_name(hash, channel).unwrap_or_else(|| channel.into())
    }

    pub(super) fn find_subscription(
        &self,
        slot: u32,
        hash: u64,
        channel: &str,
    ) -> Result<Option<u32>, StopReason> {
        let head = self.connections[slot].subscriptions;
        match self.locals.find_subscription(head, hash, channel) {
            Some(key) if self.locals.is_pending(key) => Err(StopReason::Wait),
            found => Ok(found),
        }
    }

    /// Whether a client may subscribe without a token and without a subscribe proxy.
    pub(super) fn allows_subscribe(&self, options: &Options, channel: &str, user: &str) -> bool {
        let (rules, namespaces) = (&self.settings.rules, &self.settings.namespaces);
        if namespaces.is_private(channel) {
            return false;
        }
        if rules.insecure {
            return true;
        }
        match namespaces.users(channel) {
            Some(_) => namespaces.is_for(options, channel, user),
            None => options.subscribe.allows(user, false),
        }
    }

    /// The description of a connection for other subscribers of a channel.
    pub(super) fn client_info(&self, slot: u32, grant: Option<&Grant>) -> ClientInfo {
        let identity = self.connections[slot].identity.as_deref();
        ClientInfo {
            user: identity.map(|identity| identity.user.clone()).unwrap_or_default(),
            client: self.client_id(slot).into(),
            connection: identity.and_then(|identity| identity.info.clone()),
            channel: grant.and_then(|grant| grant.info.clone()),
        }
    }

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
            self.leave(slot, key, CLIENT_UNSUBSCRIBED);
        }
        self.reply(slot, command, &Reply::Unsubscribe);
        Ok(())
    }

    /// Ends a subscription, answered or pending.
    pub(super) fn leave(&mut self, slot: u32, key: u32, why: UnsubscribeReason<'_>) {
        let overrides =
            self.connections.grants.remove(&key).map(|grant| grant.overrides).unwrap_or_default();
        let (channel, hash) = self.locals.channel(key);
        if let Ok(options) = self.settings.namespaces.of(channel) {
            let hook = options.unsubscribe_hook.filter(|_| !self.locals.is_pending(key));
            let seen = visibility(options, overrides);
            let (tracked, announced) = (seen.is_any(), seen.announced);
            let told = (hook.is_some() || tracked).then(|| channel.clone());
            if let (Some(upstream), Some(channel)) = (hook, &told) {
                self.queue_unsubscribe_hook(slot, upstream, channel, why);
            }
            if let Some(channel) = told.filter(|_| tracked) {
                let address = self.address(slot);
                self.leaves.push_back(Leave { channel, hash, address, announced });
            }
        }
        let connection = &mut self.connections[slot];
        self.locals.leave(&mut connection.subscriptions, key);
        connection.subscribed -= 1;
    }

    /// Whether the home has not got the leave of this connection yet.
    pub(super) fn is_leaving(&self, slot: u32, hash: u64, channel: &str) -> bool {
        let address = self.address(slot);
        self.leaves.iter().any(|leave| {
            leave.hash == hash && leave.address == address && *leave.channel == *channel
        })
    }

    /// Ends a subscription and sends an unsubscribe push.
    pub(super) fn end_subscription(&mut self, slot: u32, key: u32, code: u32, reason: &str) {
        let channel = self.locals.channel(key).0.clone();
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

    /// Checks that the encoding of a connection can carry all publications of a channel: JSON
    /// cannot carry binary data.
    pub(super) fn check_readable(&self, slot: u32, options: &Options) -> Result<(), Error> {
        let is_json = self.connections[slot].wire == Wire::Json;
        if is_json && options.format == PublicationFormat::Binary {
            return Err(Error::BINARY_CHANNEL);
        }
        Ok(())
    }

    /// The encoding in which a connection gets publications.
    pub(super) fn encoding(&self, slot: u32) -> Encoding {
        let Connection { wire, transport, flags, .. } = self.connections[slot];
        let framing = Framing::of(transport);
        let unidirectional = transport.is_unidirectional();
        let compressed = flags.compressing();
        Encoding { wire, framing, unidirectional, compressed, ..Encoding::default() }
    }

    /// Sends leaves, and releases channels without subscribers at their homes. A channel stays
    /// noted until its home has the release.
    pub(super) fn release_channels(&mut self, post: &mut impl Post) {
        self.send_leaves(post);

        let Hub { locals, names, shard, budget, unfinished, .. } = self;
        locals.release_idle(|name, hash| {
            if budget.is_spent() {
                *unfinished = true;
                return false;
            }
            budget.charge(cost::MESSAGE);
            let release = Release { channel: name.clone(), hash, shard: *shard };
            let home = names.home(hash);
            let room = post.reserve(home, Rank::Request);
            if room {
                post.send(home, Message::Release(release));
            }
            room
        });
    }

    /// Sends leaves to homes while their inboxes have room.
    pub(super) fn send_leaves(&mut self, post: &mut impl Post) {
        while !self.leaves.is_empty() && !self.is_spent() {
            let Some(leave) = self.leaves.pop_front() else { return };
            self.budget.charge(cost::JOIN);
            let home = self.names.home(leave.hash);
            if !post.reserve(home, Rank::Request) {
                if !planted(PlantedFault::LeaveDropped) {
                    self.leaves.push_front(leave);
                }
                return;
            }
            post.send(home, Message::Leave(Box::new(leave)));
        }
    }
}

/// What other subscribers see of a subscriber.
pub(super) fn visibility(options: &Options, overrides: Overrides) -> Visibility {
    Visibility {
        listed: overrides.presence.unwrap_or(options.presence),
        announced: overrides.join_leave.unwrap_or(options.join_leave),
    }
}
