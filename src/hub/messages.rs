//! What each message of the bus does, and what homes do for others.

use std::sync::Arc;

use crate::base::budget::cost;
use crate::base::faults::{Planted, planted};
use crate::hub::Hub;
use crate::hub::backend::BY_CLIENT;
use crate::hub::commands::NoRoom;
use crate::hub::connections::Connection;
use crate::hub::output::keep;
use crate::model::message::{
    About, Answer, Asker, Depart, Guard, Leave, Message, Post, Publish, Published, Rank, Release,
    Subscribe, Subscribed, Told, endpoints,
};
use crate::model::publication::{Draft, Event, Extra, Publication};
use crate::wire::protocol::reply::{self, ClientInfo, Push, Reply};
use crate::wire::protocol::{self, Error, Position};

impl Hub {
    /// Whether a message may be handled in this turn; if so, its cost is charged, apart from that
    /// of what it has written, which is charged when that is written.
    pub fn affords(&mut self, message: &Message) -> bool {
        let bytes = |all: &[Publication]| -> usize {
            all.iter().map(|one| cost::PUBLICATION + one.size() * cost::BYTES).sum()
        };
        let (own, written) = match message {
            Message::Publication(publication) => (publication.size(), 0),
            Message::Publish(request) => (request.data.len(), 0),
            Message::Subscribed(answer) => (cost::JOIN, bytes(&answer.publications)),
            Message::Subscribe(_) | Message::Leave(_) => (cost::JOIN, 0),
            Message::Answer(answer) if !self.is_listening(answer.asker) => (0, 0),
            Message::Answer(answer) => match &answer.told {
                Ok(Told::History(publications, _)) => (0, bytes(publications)),
                Ok(Told::Presence(roll)) => (0, roll.bytes() * cost::BYTES),
                _ => (0, 0),
            },
            Message::Question(question) => match question.about {
                About::History(excerpt) => (excerpt.limit.min(1000) * cost::PUBLICATION, 0),
                _ => (0, 0),
            },
            Message::Adopt(_) | Message::Emulated(_) => (cost::CONNECTION, 0),
            _ => (0, 0),
        };
        let affords = self.budget.affords(cost::MESSAGE + own + written);
        match affords {
            // What is written belongs to the same piece of work.
            true => self.budget.charge(cost::MESSAGE + own),
            false => self.unfinished = true,
        }
        affords
    }

    /// Handles a message. `Err` gives it back: there is no room for what it would cause, so it
    /// must wait, and with it everything behind it in its inbox.
    pub fn handle(&mut self, post: &mut impl Post, message: Message) -> Result<(), Message> {
        match message {
            Message::Publication(publication) => self.locals.append(&publication),
            Message::Subscribed(answer) => self.subscribed(*answer),
            Message::Answer(answer) => self.answered(*answer),
            Message::Release(release) => self.homes.release(&release),
            Message::Survey(survey) => self.begin_survey(*survey),
            Message::Published(published) => self.published(*published),
            Message::Order(order) => {
                return self.obey(post, &order).map_err(|NoRoom| Message::Order(order));
            }
            Message::Revoke(revocations) => self.revoke(revocations),
            Message::Publish(request) => {
                let asker = request.asker;
                let Ok(position) = self.publish_at_home(post, &request) else {
                    return Err(Message::Publish(request));
                };
                if let Asker::Control(_) = asker {
                    let published = Published { asker, position, publication: None };
                    post.send(self.control, Message::Published(Box::new(published)));
                }
            }
            Message::Subscribe(request) => {
                let named = (&*request.channel, request.hash);
                let shard = request.subscriber.shard;
                let announced = request.visibility.announced;
                let Ok(hear) = self.prepare_arrival(post, named, shard, announced) else {
                    return Err(Message::Subscribe(request));
                };
                self.arrive_at_home(post, &request, hear);
            }
            Message::Leave(leave) => {
                return self.depart_at_home(post, &leave).map_err(|NoRoom| Message::Leave(leave));
            }
            Message::Question(question) if matches!(question.about, About::Presence(_)) => {
                let waits = self.await_roll(*question);
                return waits.map_err(|question| Message::Question(Box::new(question)));
            }
            Message::Question(question) => {
                let asker = question.asker;
                // The control plane has kept room for the answer.
                if let Some(shard) = asker.shard()
                    && !post.reserve(shard, Rank::Delivery)
                {
                    return Err(Message::Question(question));
                }
                let told = self.homes.tell(&question, self.now);
                let to = asker.shard().unwrap_or(self.control);
                post.send(to, Message::Answer(Box::new(Answer { asker, told })));
            }
            Message::Consulted(consulted) => self.consulted(*consulted),
            Message::Emulated(emulated) => self.emulated(&emulated),
            Message::Admit(admit) => {
                return self.admit_at_home(post, &admit).map_err(|NoRoom| Message::Admit(admit));
            }
            Message::Admitted(admitted) => self.admitted(admitted),
            Message::Depart(Depart { user, address }) => self.users_at_home.depart(user, address),
            Message::Adopt(_)
            | Message::HandOver(_)
            | Message::Consult(_)
            | Message::Notice(_)
            | Message::Drain(_)
            | Message::Room(_)
            | Message::Place(_)
            | Message::Vacate(_)
            // The shard and the control plane keep these.
            | Message::Surveyed(_) => {}
        }
        Ok(())
    }

    /// Brings a publication to its channel's home, which may be here; does nothing at all where
    /// there is no room.
    pub(super) fn bring_home(
        &mut self,
        post: &mut impl Post,
        (channel, hash): (&str, u64),
        (data, event, extra): (&[u8], Event, Option<Arc<Extra>>),
        terms: Terms,
        asker: Asker,
    ) -> Result<Brought, NoRoom> {
        let home = self.names.home(hash);
        if home != self.shard && !post.reserve(home, Rank::Request) {
            return Err(NoRoom);
        }
        let options = self.settings.namespaces.of(channel);
        let delta = terms.delta || options.is_ok_and(|options| options.delta_publish);
        let channel = self.named(hash, channel);
        let request = Publish {
            channel,
            hash,
            data: data.into(),
            event,
            delta,
            extra,
            skip_history: terms.skip_history,
            guard: terms.guard,
            asker,
        };
        if home == self.shard {
            return self.publish_at_home(post, &request).map(Brought::Published);
        }
        post.send(home, Message::Publish(Box::new(request)));
        Ok(Brought::Sent)
    }

    /// Gives a publication its offset and sends it to every interested shard, and the answer to a
    /// caller's, or does nothing at all where one of them has no room.
    pub(super) fn publish_at_home(
        &mut self,
        post: &mut impl Post,
        request: &Publish,
    ) -> Result<Option<Position>, NoRoom> {
        if let Some(position) = self.homes.published_before(request, self.now) {
            return Ok(position);
        }
        let own = 1u64 << self.shard;
        let interested = self.homes.interested(request.hash, &request.channel);
        let caller = request.asker.shard();
        let asked = caller.map_or(0, |shard| 1 << shard) & !own;
        self.reserve_all(post, interested | asked)?;
        let others = (interested | asked) & !own;
        self.metrics.publications.add(1);
        let (publication, position) = self.homes.publish(request, self.now);
        for shard in endpoints(others) {
            let wanted = interested & (1 << shard) != 0;
            let message = if caller == Some(shard) {
                let publication = wanted.then(|| publication.clone());
                let asker = request.asker;
                Message::Published(Box::new(Published { asker, position, publication }))
            } else {
                Message::Publication(publication.clone())
            };
            post.send(shard, message);
        }
        if interested & own != 0 {
            self.locals.append(&publication);
        }
        Ok(position)
    }

    /// Keeps room for one delivery to each of these shards, this one among them, or for none.
    fn reserve_all(&mut self, post: &mut impl Post, shards: u64) -> Result<(), NoRoom> {
        let own = 1u64 << self.shard;
        if shards & own != 0 && !self.takes_deliveries() {
            self.awaits_backlog = true;
            return Err(NoRoom);
        }
        let others = shards & !own;
        for shard in endpoints(others) {
            if !post.reserve(shard, Rank::Delivery) {
                let reserved = others & ((1 << shard) - 1);
                endpoints(reserved).for_each(|shard| post.cancel(shard, Rank::Delivery));
                return Err(NoRoom);
            }
        }
        Ok(())
    }

    /// Sends to shards for which room was kept.
    fn spread(&mut self, post: &mut impl Post, shards: u64, publication: &Publication) {
        let own = 1u64 << self.shard;
        for shard in endpoints(shards & !own) {
            post.send(shard, Message::Publication(publication.clone()));
        }
        if shards & own != 0 {
            self.locals.append(publication);
        }
    }

    /// Keeps room for what an arrival leads to: the answer, and the news of it to the shards that
    /// it returns, if any is told.
    pub(super) fn prepare_arrival(
        &mut self,
        post: &mut impl Post,
        (channel, hash): (&str, u64),
        subscriber: u8,
        announced: bool,
    ) -> Result<Option<u64>, NoRoom> {
        let answers = subscriber != self.shard;
        if answers && !post.reserve(subscriber, Rank::Delivery) {
            return Err(NoRoom);
        }
        if !announced {
            return Ok(None);
        }
        let mut hear = self.homes.interested(hash, channel) | 1 << subscriber;
        if answers {
            // Its own shard hears of it by the answer.
            hear &= !(1 << subscriber);
        }
        if self.reserve_all(post, hear).is_err() {
            if answers {
                post.cancel(subscriber, Rank::Delivery);
            }
            return Err(NoRoom);
        }
        Ok(Some(hear))
    }

    /// A subscriber arrives at its channel's home. Those shards for which room was kept hear the
    /// news of it, the subscriber's own behind its answer.
    pub(super) fn arrive_at_home(
        &mut self,
        post: &mut impl Post,
        request: &Subscribe,
        hear: Option<u64>,
    ) {
        let mut answer = self.homes.subscribe(request, self.now);
        let mut hear = hear;
        if answer.is_refused() {
            let others = hear.take().unwrap_or(0) & !(1 << self.shard);
            endpoints(others).for_each(|shard| post.cancel(shard, Rank::Delivery));
        } else if let Some(info) = &request.info {
            self.homes.arrive(request, info);
        }
        let news = hear.zip(request.info.as_ref()).map(|(hear, info)| {
            let named = (&*request.channel, request.hash);
            (hear, news(Event::Join, named, (**info).clone()))
        });
        let shard = request.subscriber.shard;
        if shard == self.shard {
            self.subscribed(answer);
        } else {
            answer.news = news.as_ref().map(|(_, news)| news.clone());
            post.send(shard, Message::Subscribed(Box::new(answer)));
        }
        if let Some((hear, news)) = news {
            self.spread(post, hear, &news);
        }
    }

    /// A subscriber has left a channel at home here.
    fn depart_at_home(&mut self, post: &mut impl Post, leave: &Leave) -> Result<(), NoRoom> {
        let mut hear = 0;
        if leave.announced {
            hear = self.homes.interested(leave.hash, &leave.channel);
            self.reserve_all(post, hear)?;
        }
        match self.homes.depart(leave) {
            Some(info) if hear != 0 => {
                let news = news(Event::Leave, (&leave.channel, leave.hash), info);
                self.spread(post, hear, &news);
            }
            _ => {
                let others = hear & !(1 << self.shard);
                endpoints(others).for_each(|shard| post.cancel(shard, Rank::Delivery));
            }
        }
        Ok(())
    }

    /// A home has answered: the subscriber joins, if it is still there and still wants to.
    pub(super) fn subscribed(&mut self, mut answer: Subscribed) {
        let news = answer.news.take();
        let subscriber = answer.subscriber;
        let (hash, channel) = (answer.hash, answer.channel.clone());
        let wanted = self
            .connections
            .get(subscriber.slot)
            .is_some_and(|found| found.generation == subscriber.generation)
            && self.locals.awaits(subscriber.subscription, subscriber.serial);
        let refused = answer.is_refused();
        if wanted && refused {
            self.leave(subscriber.slot, subscriber.subscription, BY_CLIENT);
        } else if wanted {
            let Subscribed { encoding, filter, .. } = &answer;
            let (key, slot) = (subscriber.subscription, subscriber.slot);
            if let Some(top) = top(&answer)
                && self.settings.position_check_delay > 0
            {
                let times = (self.now, self.settings.position_check_delay);
                self.locals.watch(key, top, times);
            }
            self.locals.join(key, slot, *encoding, filter.as_ref());
        }
        self.locals.answered(hash, &channel);
        if wanted && refused {
            self.reply_error(subscriber.slot, subscriber.command, Error::UNRECOVERABLE_POSITION);
            self.go_on_later(subscriber.slot);
        } else if wanted {
            self.tell_subscriber(answer);
        } else if self.connection(subscriber.slot, subscriber.generation).is_some() {
            self.give_up(subscriber.slot, subscriber.command);
        }
        if let Some(news) = news {
            self.locals.append(&news);
        }
    }

    /// The server ended a subscription that was still to be answered: whoever waits for it goes on.
    fn give_up(&mut self, slot: u32, command: u32) {
        if let Some(hold) = self.connections.hold_mut(slot) {
            hold.pending -= 1;
            if hold.wanted.is_empty() {
                self.finish_hold(slot);
            }
        } else if self.connections[slot].takes_output() {
            if command > 0 {
                self.reply_error(slot, command, Error::PERMISSION_DENIED);
            }
            self.go_on_later(slot);
        }
    }

    fn tell_subscriber(&mut self, mut answer: Subscribed) {
        let slot = answer.subscriber.slot;
        self.note_place(&answer);
        if let Some(hold) = self.connections.hold_mut(slot) {
            hold.pending -= 1;
            hold.answers.push(answer);
            if hold.wanted.is_empty() {
                self.finish_hold(slot);
            }
            return;
        }
        let Connection { wire, transport, .. } = self.connections[slot];
        let mut body = std::mem::take(&mut self.body);
        loop {
            body.clear();
            let command = answer.subscriber.command;
            let told = self.told(&answer);
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
                keep(&mut self.body, body);
                self.leave(slot, answer.subscriber.subscription, BY_CLIENT);
                self.reply_error(slot, answer.subscriber.command, Error::UNRECOVERABLE_POSITION);
                return self.go_on_later(slot);
            }
        }
        self.write_body(slot, &body);
        keep(&mut self.body, body);
        // A connection that waits for this answer goes on behind it.
        self.go_on_later(slot);
    }

    /// What a subscriber is told by its home's answer. Publications that its encoding cannot
    /// carry count as not recovered.
    pub(super) fn told<'a>(&'a self, answer: &'a Subscribed) -> reply::Subscribed<'a> {
        let grant = self.connections.grants.get(&answer.subscriber.subscription);
        // What the server renews by itself ends for nobody.
        let ends = |_: &u64| self.sub_refresh_proxy(answer.subscriber.subscription).is_none();
        let expires = grant.and_then(|grant| grant.expires).filter(ends);
        let wanted = |missed: &&Publication| {
            answer.filter.as_ref().is_none_or(|filter| filter.matches(missed.tags()))
        };
        let wanted = answer.publications.iter().filter(wanted);
        let objects = wanted.map(|missed| missed.object(answer.encoding));
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
                true => self.locals.number(answer.subscriber.subscription),
                false => 0,
            },
        }
    }

    /// Tells homes who has left their channels and which of them nobody here wants any more. A
    /// channel stays noted until its home has taken the news.
    pub(super) fn tell_homes(&mut self, post: &mut impl Post) {
        self.tell_leaves(post);

        let Hub { locals, homes, names, shard, budget, unfinished, .. } = self;
        locals.release_idle(|name, hash| {
            if budget.is_spent() {
                *unfinished = true;
                return false;
            }
            budget.charge(cost::MESSAGE);
            let release = Release { channel: name.clone(), hash, shard: *shard };
            let home = names.home(hash);
            if home == *shard {
                homes.release(&release);
            } else if post.reserve(home, Rank::Request) {
                post.send(home, Message::Release(release));
            } else {
                return false;
            }
            true
        });
    }

    /// Tells homes who has left their channels, as far as there is room.
    pub(super) fn tell_leaves(&mut self, post: &mut impl Post) {
        while !self.leaves.is_empty() && !self.is_spent() {
            let Some(leave) = self.leaves.pop_front() else { return };
            self.budget.charge(cost::JOIN);
            let home = self.names.home(leave.hash);
            let told = if home == self.shard {
                self.depart_at_home(post, &leave).is_ok()
            } else {
                post.reserve(home, Rank::Request)
            };
            if !told {
                if !planted(Planted::LeaveForgotten) {
                    self.leaves.push_front(leave);
                }
                return;
            }
            if home != self.shard {
                post.send(home, Message::Leave(Box::new(leave)));
            }
        }
    }
}

/// What few publications ask of their channel's home.
#[derive(Debug, Default)]
pub(super) struct Terms {
    /// To be kept out of the history.
    pub(super) skip_history: bool,
    /// To go out as a difference where that can be.
    pub(super) delta: bool,
    /// To be told from an earlier one.
    pub(super) guard: Option<Box<Guard>>,
}

/// How far a publication has come on its way home.
pub(super) enum Brought {
    /// Its home is here and has published it, at this place if the channel keeps history.
    Published(Option<Position>),
    /// Its home is on another shard, which answers who asked to be.
    Sent,
}

/// Where the stream of a subscriber's channel stands, if its position is to be checked.
fn top(answer: &Subscribed) -> Option<Position> {
    let position = answer.position.filter(|_| answer.granted.positioned)?;
    let last = answer.publications.last().and_then(Publication::offset);
    Some(Position { offset: last.unwrap_or(position.offset), ..position })
}

/// The news of somebody's coming or going.
fn news(event: Event, (channel, hash): (&str, u64), info: ClientInfo) -> Publication {
    let extra = Some(Arc::new(Extra { info: Some(info), ..Extra::default() }));
    Publication::new(Draft { channel, hash, event, extra, ..Draft::default() })
}

impl Subscribed {
    /// Whether there is to be no subscription: not everything that was missed is there.
    fn is_refused(&self) -> bool {
        self.strict && self.was_recovering && !self.recovered
    }

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
