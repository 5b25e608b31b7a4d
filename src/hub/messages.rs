//! What each message of the bus does, whether another endpoint sent it or the shard itself.

use std::sync::Arc;

use crate::base::budget::cost;
use crate::base::faults::{Planted, planted};
use crate::hub::Hub;
use crate::hub::backend::CLIENT_UNSUBSCRIBED;
use crate::hub::commands::NoRoom;
use crate::hub::connections::Connection;
use crate::hub::output::keep_buffer;
use crate::model::message::{
    ChannelAnswer, ChannelQuery, Guard, Message, Post, Publish, RANKS, Rank, Release, ReplyTo,
    Subscribe, Subscribed,
};
use crate::model::namespaces::Options;
use crate::model::publication::{Extra, Publication, PublicationKind};
use crate::wire::protocol::reply::{self, Push, Reply};
use crate::wire::protocol::{self, Error, Position};

impl Hub {
    /// Whether a message may be handled in this turn; if so, its cost is charged, apart from that
    /// of what it has written, which is charged when that is written.
    pub fn affords(&mut self, message: &Message) -> bool {
        let (own, written) = self.cost_of(message);
        self.affords_message(cost::MESSAGE + own, written)
    }

    fn affords_message(&mut self, charged: usize, written: usize) -> bool {
        let affords = self.budget.affords(charged + written);
        match affords {
            // What is written belongs to the same piece of work.
            true => self.budget.charge(charged),
            false => self.unfinished = true,
        }
        affords
    }

    /// What a message costs beside its way here, and what the bytes that it has written cost.
    fn cost_of(&mut self, message: &Message) -> (usize, usize) {
        let bytes = |all: &[Publication]| -> usize {
            all.iter().map(|one| cost::PUBLICATION + one.size() * cost::BYTES).sum()
        };
        match message {
            Message::Publication(publication) => (publication.size(), 0),
            Message::Publish(request) => (request.data.len(), 0),
            Message::Subscribed(answer) => (cost::JOIN, bytes(&answer.publications)),
            Message::Subscribe(_) | Message::Leave(_) => (cost::JOIN, 0),
            Message::HomeAnswer(answer) if !self.is_listening(answer.reply_to) => (0, 0),
            Message::HomeAnswer(answer) => match &answer.told {
                Ok(ChannelAnswer::History(publications, _)) => (0, bytes(publications)),
                Ok(ChannelAnswer::Presence(roll)) => (0, roll.bytes() * cost::BYTES),
                _ => (0, 0),
            },
            Message::HomeQuery(question) => match question.about {
                ChannelQuery::History(excerpt) => (excerpt.limit.min(1000) * cost::PUBLICATION, 0),
                _ => (0, 0),
            },
            Message::Adopt(_) | Message::Emulated(_) => (cost::CONNECTION, 0),
            _ => (0, 0),
        }
    }

    /// The same of a message of this shard to itself. Its way here cost next to nothing, and what
    /// it carries was charged to its cause, but a question makes the home look.
    fn cost_of_own(&mut self, message: &Message) -> (usize, usize) {
        let (own, written) = self.cost_of(message);
        let looks = if matches!(message, Message::HomeQuery(_)) { own } else { 0 };
        (cost::LOOK + looks, written)
    }

    /// Handles a message of the bus, and what it has this shard send to itself. `Err` gives it
    /// back: there is no room for what it would cause, so it must wait, and with it everything
    /// behind it in its inbox.
    pub fn handle(&mut self, post: &mut impl Post, message: Message) -> Result<(), Message> {
        let handled = self.handle_one(post, message);
        self.serve_own(post);
        handled
    }

    /// Handles what this shard has sent to itself, as far as the budget and the room of others
    /// allow. What is left is handled in a later turn.
    pub fn serve_own(&mut self, post: &mut impl Post) {
        self.serve_ranks(post, &Rank::SERVED);
    }

    /// The same in the middle of a connection's input: nothing is given to connections from
    /// outside.
    pub(super) fn serve_own_mid_input(&mut self, post: &mut impl Post) {
        self.serve_ranks(post, &[Rank::Delivery, Rank::Store, Rank::Request]);
    }

    fn serve_ranks(&mut self, post: &mut impl Post, ranks: &[Rank]) {
        let mut stalled = [false; RANKS];
        let mut served = false;
        // What the first message costs is found out once: an answer is long to look through.
        let waits = self.own_cost.is_some_and(|cost| !self.budget.affords(cost));
        self.unfinished |= waits;
        while !waits
            && let Some(message) = ranks.iter().find_map(|rank| {
                let open = *rank != Rank::Delivery || self.takes_deliveries();
                if stalled[*rank as usize] || !open { None } else { post.take_own(*rank) }
            })
        {
            self.own_cost = None;
            let (charged, written) = self.cost_of_own(&message);
            if !self.affords_message(charged, written) {
                self.own_cost = Some(charged + written);
                post.put_back(message);
                break;
            }
            let rank = message.rank() as usize;
            match self.handle_one(post, message) {
                Ok(()) => served = true,
                Err(message) => {
                    stalled[rank] = true;
                    if !planted(Planted::OwnMessageLost) {
                        post.put_back(message);
                    }
                }
            }
        }
        if !self.takes_deliveries()
            && let Some(message) = post.take_own(Rank::Delivery)
        {
            // No other shard says when it can go on.
            self.awaits_backlog = true;
            post.put_back(message);
        }
        if served && post.was_full() {
            // There is room again for what found none.
            self.unfinished = true;
        }
    }

    fn handle_one(&mut self, post: &mut impl Post, message: Message) -> Result<(), Message> {
        match message {
            Message::Publication(publication) => self.locals.append(&publication),
            Message::Subscribed(answer) => self.subscribed(*answer),
            Message::HomeAnswer(answer) => self.home_answered(*answer),
            Message::Survey(survey) => self.begin_survey(*survey),
            Message::Published(published) => self.publish_answered(*published),
            Message::Order(order) => {
                return self.apply_order(post, &order).map_err(|NoRoom| Message::Order(order));
            }
            Message::Revoke(revocations) => self.set_revocations(revocations),
            Message::Publish(_)
            | Message::Subscribe(_)
            | Message::Leave(_)
            | Message::HomeQuery(_)
            | Message::Release(_)
            | Message::Admit(_)
            | Message::Depart(_) => {
                let handled = self.home.handle(message, post);
                // Answers that take many turns begin in this one.
                self.unfinished |= self.home.has_presence_queries();
                return handled;
            }
            Message::LookupReply(reply) => self.lookup_answered(*reply),
            Message::Emulated(emulated) => self.take_emulation_commands(&emulated),
            Message::Admitted(admitted) => self.admission_answered(admitted),
            Message::Adopt(_)
            | Message::HandOver(_)
            | Message::LookupRequest(_)
            | Message::HookEvent(_)
            | Message::Drain(_)
            | Message::SlotRequest(_)
            | Message::SlotOffer(_)
            | Message::SlotRelease(_)
            // The shard and the control plane keep these.
            | Message::Surveyed(_) => {}
        }
        Ok(())
    }

    /// Sends a publication to its channel's home; does nothing at all where there is no room.
    pub(super) fn send_home(
        &mut self,
        post: &mut impl Post,
        (channel, hash): (&str, u64),
        options: &Options,
        (data, event, extra): (&[u8], PublicationKind, Option<Arc<Extra>>),
        terms: PublishOptions,
        reply_to: ReplyTo,
    ) -> Result<(), NoRoom> {
        let home = self.names.home(hash);
        if !post.reserve(home, Rank::Request) {
            return Err(NoRoom);
        }
        let request = Publish {
            channel: self.shared_name(hash, channel),
            hash,
            data: data.into(),
            event,
            delta: terms.delta || options.delta_publish,
            extra,
            retention: options.retention.filter(|_| !terms.skip_history),
            guard: terms.guard,
            reply_to,
        };
        post.send(home, Message::Publish(Box::new(request)));
        Ok(())
    }

    /// A home has answered: the subscriber joins, if it is still there and still wants to.
    pub(super) fn subscribed(&mut self, mut answer: Subscribed) {
        let news = answer.news.take();
        let subscriber = answer.subscriber;
        let (hash, channel) = (answer.hash, answer.channel.clone());
        let still_wanted = self
            .connections
            .get(subscriber.slot)
            .is_some_and(|found| found.generation == subscriber.generation)
            && self.locals.is_awaiting(subscriber.subscription, subscriber.serial);
        let refused = answer.is_refused();
        if still_wanted && refused {
            self.leave(subscriber.slot, subscriber.subscription, CLIENT_UNSUBSCRIBED);
        } else if still_wanted {
            let Subscribed { encoding, filter, .. } = &answer;
            let (key, slot) = (subscriber.subscription, subscriber.slot);
            if let Some(top) = top(&answer)
                && self.settings.position_check_delay > 0
            {
                let times = (self.now, self.settings.position_check_delay);
                self.locals.check_position(key, top, times);
            }
            self.locals.join(key, slot, *encoding, filter.as_ref());
        }
        self.locals.subscribe_answered(hash, &channel);
        if still_wanted && refused {
            self.reply_error(subscriber.slot, subscriber.command, Error::UNRECOVERABLE_POSITION);
            self.resume_later(subscriber.slot);
        } else if still_wanted {
            self.reply_subscribed(answer);
        } else if self.connection(subscriber.slot, subscriber.generation).is_some() {
            self.subscribe_abandoned(subscriber.slot, subscriber.command);
        }
        if let Some(news) = news {
            self.locals.append(&news);
        }
    }

    /// The server ended a subscription that was still to be answered: whoever waits for it goes on.
    fn subscribe_abandoned(&mut self, slot: u32, command: u32) {
        if let Some(hold) = self.connections.hold_mut(slot) {
            hold.pending -= 1;
            if hold.to_request.is_empty() {
                self.finish_hold(slot);
            }
        } else if self.connections[slot].takes_output() {
            if command > 0 {
                self.reply_error(slot, command, Error::PERMISSION_DENIED);
            }
            self.resume_later(slot);
        }
    }

    fn reply_subscribed(&mut self, mut answer: Subscribed) {
        let slot = answer.subscriber.slot;
        self.note_event_position(&answer);
        if let Some(hold) = self.connections.hold_mut(slot) {
            hold.pending -= 1;
            hold.answers.push(answer);
            if hold.to_request.is_empty() {
                self.finish_hold(slot);
            }
            return;
        }
        let Connection { wire, transport, .. } = self.connections[slot];
        let mut body = std::mem::take(&mut self.body);
        loop {
            body.clear();
            let command = answer.subscriber.command;
            let told = self.subscribe_result(&answer);
            if command == 0 {
                let push = Push::Subscribe { channel: &answer.channel, subscribed: &told };
                protocol::write_push(wire, transport.is_unidirectional(), &push, &mut body);
            } else {
                protocol::write_reply(wire, command, &Reply::Subscribe(&told), &mut body);
            }
            if answer.publications.is_empty() || body.len() <= self.room_for_answer(slot) {
                break;
            }
            self.budget.charge(body.len() * cost::BYTES);
            answer.give_up_recovery();
            if answer.is_refused() {
                keep_buffer(&mut self.body, body);
                self.leave(slot, answer.subscriber.subscription, CLIENT_UNSUBSCRIBED);
                self.reply_error(slot, answer.subscriber.command, Error::UNRECOVERABLE_POSITION);
                return self.resume_later(slot);
            }
        }
        self.write_body(slot, &body);
        keep_buffer(&mut self.body, body);
        // A connection that waits for this answer goes on behind it.
        self.resume_later(slot);
    }

    /// What a subscriber is told by its home's answer. Publications that its encoding cannot
    /// carry count as not recovered.
    pub(super) fn subscribe_result<'a>(&'a self, answer: &'a Subscribed) -> reply::Subscribed<'a> {
        let grant = self.connections.grants.get(&answer.subscriber.subscription);
        // What the server renews by itself ends for nobody.
        let ends = |_: &u64| self.sub_refresh_proxy(answer.subscriber.subscription).is_none();
        let expires = grant.and_then(|grant| grant.expires).filter(ends);
        let passes = |missed: &&Publication| {
            answer.filter.as_ref().is_none_or(|filter| filter.matches(missed.tags()))
        };
        let missed = answer.publications.iter().filter(passes);
        let objects = missed.map(|missed| missed.object(answer.encoding));
        let objects: Option<Vec<_>> = objects.collect();
        reply::Subscribed {
            expires: self.lease(expires),
            recoverable: answer.granted.recoverable,
            positioned: answer.granted.positioned,
            was_recovering: answer.was_recovering,
            recovered: answer.recovered && objects.is_some(),
            position: answer.position,
            publications: objects.unwrap_or_default(),
            data: grant.and_then(|grant| grant.data.as_deref()),
            delta: answer.encoding.delta,
            number: match answer.encoding.compact {
                true => self.locals.channel_number(answer.subscriber.subscription),
                false => 0,
            },
        }
    }

    /// Tells homes who has left their channels and which of them nobody here wants any more. A
    /// channel stays noted until its home has taken the news.
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

    /// Tells homes who has left their channels, as far as there is room.
    pub(super) fn send_leaves(&mut self, post: &mut impl Post) {
        while !self.leaves.is_empty() && !self.is_spent() {
            let Some(leave) = self.leaves.pop_front() else { return };
            self.budget.charge(cost::JOIN);
            let home = self.names.home(leave.hash);
            if !post.reserve(home, Rank::Request) {
                if !planted(Planted::LeaveForgotten) {
                    self.leaves.push_front(leave);
                }
                return;
            }
            post.send(home, Message::Leave(Box::new(leave)));
        }
    }
}

/// What few publications ask of their channel's home.
#[derive(Debug, Default)]
pub(super) struct PublishOptions {
    /// To be kept out of the history.
    pub(super) skip_history: bool,
    /// To go out as a difference where that can be.
    pub(super) delta: bool,
    /// To be told from an earlier one.
    pub(super) guard: Option<Box<Guard>>,
}

/// Where the stream of a subscriber's channel stands, if its position is to be checked.
fn top(answer: &Subscribed) -> Option<Position> {
    let position = answer.position.filter(|_| answer.granted.positioned)?;
    let last = answer.publications.last().and_then(Publication::offset);
    Some(Position { offset: last.unwrap_or(position.offset), ..position })
}

impl Subscribed {
    /// Tells the subscriber that it did not recover, and where the stream stands instead: what it
    /// missed does not fit its outbox.
    pub(super) fn give_up_recovery(&mut self) {
        let top = self.publications.last().and_then(Publication::offset);
        if let (Some(position), Some(top)) = (&mut self.position, top) {
            position.offset = top;
        }
        self.publications = Vec::new();
        self.recovered = false;
    }
}

impl Subscribe {
    /// The answer that the home would give, where the shard is known to be interested and nothing
    /// is asked for beside what is to come.
    pub(super) fn confirmed(self) -> Subscribed {
        Subscribed {
            channel: self.channel,
            hash: self.hash,
            subscriber: self.subscriber,
            encoding: self.encoding,
            filter: self.filter,
            granted: self.granted,
            was_recovering: false,
            recovered: false,
            strict: false,
            position: None,
            publications: Vec::new(),
            news: None,
        }
    }
}
