//! Polls: requests for the latest publication of a channel, one per response.
//!
//! A poll has no session: it reads the history of the channel as an anonymous client. A connection
//! has one poll at a time: the next request is read when the previous answer was sent.

use crate::hub::connections::Phase;
use crate::hub::paused_input::PauseReason;
use crate::hub::shard_state::Hub;
use crate::model::message::{ChannelQuery, HomeQuery, Message, Post, Rank, ReplyTo};
use crate::model::namespaces::Options;
use crate::wire::http::{Cors, Poll, Requester, Status};

impl Hub {
    /// Answers with the latest publication of the channel, if its home shows it to this shard, or
    /// asks the home. Returns whether the bytes of the request are used up.
    pub(super) fn poll(&mut self, post: &mut impl Post, slot: u32, poll: &Poll<'_>) -> bool {
        let &Poll { origin, host, last, .. } = poll;
        if !self.settings.rules.allows_origin(origin, host) {
            self.refuse(slot, Status::Forbidden);
            return true;
        }
        let requester = Requester { origin, host, bodiless: false };
        if self.connections[slot].flags.refusing() {
            self.refuse_to(slot, Status::Unavailable, requester);
            return true;
        }
        let Some(durable) = self.may_poll(slot, &poll.channel) else {
            self.refuse_to(slot, Status::Unreadable, requester);
            return true;
        };
        let hash = self.names.hash(&poll.channel);
        if let Some(latest) = self.polled.read(hash, &poll.channel, self.now) {
            self.answer_poll(slot, latest.as_ref(), Cors { origin }, last);
            return true;
        }
        let home = self.names.home(hash);
        if !post.reserve(home, Rank::Request) {
            self.pause(slot, PauseReason::Blocked);
            return false;
        }
        let question = HomeQuery {
            channel: self.shared_name(hash, &poll.channel),
            hash,
            reply_to: ReplyTo::ApiCaller(self.address(slot)),
            durable,
            query: ChannelQuery::Latest,
        };
        if let Some(origin) = origin {
            self.connections.pending_heads.insert(slot, Some(origin.into()));
        }
        let connection = &mut self.connections[slot];
        connection.phase = Phase::AwaitingAnswer;
        connection.flags.set_last_request(last);
        post.send(home, Message::HomeQuery(Box::new(question)));
        self.serve_own_mid_input(post);
        let connection = &mut self.connections[slot];
        // A home on this shard has usually answered by now.
        if connection.phase == Phase::AwaitingAnswer {
            connection.flags.set_paused(true);
        }
        true
    }

    /// Whether the channel is durable, if an anonymous client may read its history.
    fn may_poll(&self, slot: u32, channel: &str) -> Option<bool> {
        let settings = self.settings.clone();
        let offers = |options: &Options| options.retention.is_some();
        let permit = |options: &Options| options.read_history;
        if !settings.rules.anonymous && !settings.rules.insecure {
            return None;
        }
        let options = self.permit(&settings, (slot, channel), permit, offers).ok()?;
        Some(options.is_durable())
    }
}
