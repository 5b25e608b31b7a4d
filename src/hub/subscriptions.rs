//! Existing subscriptions: what they may read, how they are found, and how a home gets their leave.

use std::sync::Arc;

use crate::base::metrics::Action;
use crate::base::planted_faults::{PlantedFault, planted};
use crate::base::work_budget::cost;
use crate::hub::command_failure::{InboxFull, StopReason};
use crate::hub::connections::Connection;
use crate::hub::hook_events::UnsubscribeReason;
use crate::hub::shard_state::Hub;
use crate::model::backend::Upstream;
use crate::model::message::{
    Grant, Leave, Message, Overrides, Post, Rank, Release, StreamAccess, Subscribed, Visibility,
};
use crate::model::namespaces::{Options, PublicationFormat};
use crate::model::publication::Encoding;
use crate::wire::filter::Filter;
use crate::wire::framing::Framing;
use crate::wire::protocol::reply::ClientInfo;
use crate::wire::protocol::{Error, Position, Wire};

/// Options that a subscriber requests.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestedOptions {
    pub(super) since: Option<Position>,
    pub(super) strict: bool,
    pub(super) stream_access: StreamAccess,
    pub(super) joins: bool,
    pub(super) delta: bool,
    pub(super) compact: bool,
    pub(super) filter: Option<Filter>,
}

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
        match namespaces.is_user_limited(options, channel) {
            true => namespaces.lists(channel, user),
            false => options.subscribe.allows(user, false),
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

    /// Ends a subscription, answered or pending.
    pub(super) fn leave(&mut self, slot: u32, key: u32, why: UnsubscribeReason<'_>) {
        self.connections.grants.remove(&key);
        let (channel, hash) = self.locals.channel(key);
        let options = self.settings.namespaces.of(channel).ok();
        let hook = options.and_then(|options| options.unsubscribe_hook);
        let hook = hook.filter(|_| !self.locals.is_pending(key));
        // The options may have changed since: the home has what the subscribe told it.
        let seen = match options {
            Some(options) if planted(PlantedFault::LeaveByPresentOptions) => {
                visibility(options, Overrides::default())
            }
            _ => self.locals.visibility(key),
        };
        let (tracked, announced) = (seen.is_any(), seen.announced);
        let name = (hook.is_some() || tracked).then(|| channel.clone());
        if let (Some(upstream), Some(channel)) = (hook, &name) {
            self.queue_unsubscribe_hook(slot, upstream, channel, why);
        }
        if let Some(channel) = name.filter(|_| tracked) {
            let address = self.address(slot);
            self.leaves.push_back(Leave { channel, hash, address, announced });
        }
        if !self.locals.is_pending(key) {
            let by = &self.metrics.by;
            let named = usize::from(self.connections[slot].flags.named());
            by.actions[Action::RemoveSubscription as usize].add(1);
            by.subscriptions_inflight[named].subtract(1);
        }
        let connection = &mut self.connections[slot];
        self.locals.leave(&mut connection.subscriptions, key);
        connection.subscribed -= 1;
        self.queued_since_send = true;
    }

    /// Whether the home has not got the leave of this connection yet.
    pub(super) fn is_leaving(&self, slot: u32, hash: u64, channel: &str) -> bool {
        let address = self.address(slot);
        self.leaves.iter().any(|leave| {
            leave.hash == hash && leave.address == address && *leave.channel == *channel
        })
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

    /// Sends the leave of a connection before its return to the same channel, and before
    /// its query of the members.
    pub(super) fn send_leave_first(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        (channel, hash): (&str, u64),
    ) -> Result<(), InboxFull> {
        if planted(PlantedFault::JoinBeforeLeave) || !self.is_leaving(slot, hash, channel) {
            return Ok(());
        }
        self.send_leaves(post);
        if self.is_leaving(slot, hash, channel) { Err(InboxFull) } else { Ok(()) }
    }

    /// The proxy that renews a subscription; `None`: the client renews it.
    pub(super) fn sub_refresh_proxy(&self, key: u32) -> Option<Upstream> {
        let options = self.settings.namespaces.of(self.locals.channel(key).0);
        options.ok().and_then(|options| options.sub_refresh_proxy)
    }

    /// The options granted of those requested, and whether joins and leaves are pushed.
    pub(super) fn granted_options(
        &self,
        slot: u32,
        options: &Options,
        requested: &RequestedOptions,
        overrides: Overrides,
    ) -> (StreamAccess, bool) {
        let user = self.connections[slot].user();
        let insecure = self.settings.rules.insecure;
        let history = insecure || options.read_history.allows(user, true);
        let seen = insecure || options.see_presence.allows(user, true);
        let force_recovery = overrides.force_recovery.unwrap_or(options.force_recovery);
        let force_positioning = overrides.force_positioning.unwrap_or(options.force_positioning);
        let may_recover = options.allow_recovery || history;
        let recoverable = force_recovery || (requested.stream_access.recoverable && may_recover);
        let may_position = options.allow_positioning || history;
        let positioned = recoverable
            || force_positioning
            || (requested.stream_access.positioned && may_position);
        // A channel without history has a position too, at offset 0.
        let stream_access = StreamAccess { positioned, recoverable };
        let pushed = overrides.force_push_join_leave.unwrap_or(options.force_push_join_leave);
        (stream_access, pushed || (requested.joins && options.join_leave && seen))
    }
}

/// What other subscribers see of a subscriber.
pub(super) fn visibility(options: &Options, overrides: Overrides) -> Visibility {
    Visibility {
        listed: overrides.presence.unwrap_or(options.presence),
        announced: overrides.join_leave.unwrap_or(options.join_leave),
    }
}

impl Subscribed {
    /// Turns the answer into one without recovery, at the current position: the missed publications
    /// do not fit the outbox.
    pub(super) fn give_up_recovery(&mut self) {
        self.position = self.top;
        self.publications = Vec::new();
        self.recovered = false;
    }
}
