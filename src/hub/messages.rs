//! What each message of the bus does, and what homes do for others.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::auth::glob_matches;
use crate::hub::commands::NoRoom;
use crate::hub::{Hub, json};
use crate::message::{
    Asker, Message, Post, Publish, Published, Rank, Release, Subscribe, Subscribed, Survey,
    Surveyed, endpoints,
};
use crate::protocol::Position;
use crate::protocol::json::Subscribed as Answer;

impl Hub {
    /// Handles a message. `Err` gives it back: there is no room for what it would cause, so it
    /// must wait, and with it everything behind it in its inbox.
    pub fn handle(&mut self, post: &mut impl Post, message: Message) -> Result<(), Message> {
        match message {
            Message::Publication(publication) => self.locals.append(&publication),
            Message::Subscribed(answer) => self.subscribed(*answer),
            Message::Release(release) => self.homes.release(&release),
            Message::Survey(survey) => self.survey(post, &survey),
            Message::Published(published) => self.published(*published),
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
                let shard = request.subscriber.shard;
                if !post.reserve(shard, Rank::Delivery) {
                    return Err(Message::Subscribe(request));
                }
                let answer = self.homes.subscribe(&request, self.now);
                post.send(shard, Message::Subscribed(Box::new(answer)));
            }
            Message::Adopt(_)
            | Message::HandOver(_)
            | Message::Drain(_)
            | Message::Room(_)
            | Message::Place(_)
            | Message::Vacate(_)
            | Message::Surveyed(_) => unreachable!("the shard and the control plane keep these"),
        }
        Ok(())
    }

    /// Brings a publication to its channel's home, which may be here; does nothing at all where
    /// there is no room.
    pub(super) fn bring_home(
        &mut self,
        post: &mut impl Post,
        (channel, hash): (&str, u64),
        data: &RawValue,
        skip_history: bool,
        asker: Asker,
    ) -> Result<Brought, NoRoom> {
        let home = self.names.home(hash);
        if home != self.shard && !post.reserve(home, Rank::Request) {
            return Err(NoRoom);
        }
        let channel = self.named(hash, channel);
        let data = data.get().as_bytes().into();
        let request = Publish { channel, hash, data, skip_history, asker };
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
        let own = 1u64 << self.shard;
        let interested = self.homes.interested(request.hash, &request.channel);
        if interested & own != 0 && !self.takes_deliveries() {
            self.awaits_backlog = true;
            return Err(NoRoom);
        }
        let caller = request.asker.shard();
        let others = (interested | caller.map_or(0, |shard| 1 << shard)) & !own;
        for shard in endpoints(others) {
            if !post.reserve(shard, Rank::Delivery) {
                let reserved = others & ((1 << shard) - 1);
                endpoints(reserved).for_each(|shard| post.cancel(shard, Rank::Delivery));
                return Err(NoRoom);
            }
        }
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

    /// A home has answered: the subscriber joins, if it is still there and still wants to.
    pub(super) fn subscribed(&mut self, answer: Subscribed) {
        let subscriber = answer.subscriber;
        let (hash, channel) = (answer.hash, answer.channel.clone());
        let wanted = self
            .connections
            .get(subscriber.slot as usize)
            .is_some_and(|found| found.generation == subscriber.generation)
            && self.locals.awaits(subscriber.subscription, subscriber.serial);
        if wanted {
            self.locals.join(subscriber.subscription, subscriber.slot, answer.encoding);
        }
        self.locals.answered(hash, &channel);
        if wanted {
            self.tell_subscriber(answer);
        }
    }

    fn tell_subscriber(&mut self, answer: Subscribed) {
        let slot = answer.subscriber.slot;
        let connection = &mut self.connections[slot as usize];
        if let Some(hold) = self.holds.get_mut(connection.hold as usize) {
            hold.pending -= 1;
            hold.answers.push(answer);
            if hold.wanted.is_empty() {
                self.finish_hold(slot);
            }
            return;
        }
        // A connection that waits for this answer goes on behind it.
        self.go_on_later(slot);
        let command = answer.subscriber.command;
        self.write_json(slot, |out| json::write_subscribed(command, &answer.result(), out));
    }

    /// Tells homes which channels nobody here wants any more. A channel stays noted until its
    /// home has taken the news.
    pub(super) fn tell_homes(&mut self, post: &mut impl Post) {
        let Hub { locals, homes, names, shard, .. } = self;
        locals.release_idle(|name, hash| {
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

    /// The control plane has kept room for the answer.
    fn survey(&mut self, post: &mut impl Post, survey: &Survey) {
        let matches = |name: &str| match &survey.pattern {
            Some(pattern) => glob_matches(pattern, name),
            None => true,
        };
        let channels: Vec<(Arc<str>, u32)> = self
            .locals
            .iter()
            .filter(|(name, _)| matches(name))
            .map(|(name, subscribers)| (name.clone(), subscribers))
            .collect();
        let surveyed = Surveyed { tag: survey.tag, channels };
        post.send(self.control, Message::Surveyed(Box::new(surveyed)));
    }
}

/// How far a publication has come on its way home.
pub(super) enum Brought {
    /// Its home is here and has published it, at this place if the channel keeps history.
    Published(Option<Position>),
    /// Its home is on another shard, which answers who asked to be.
    Sent,
}

impl Subscribe {
    /// The answer that the home would give, where the shard is known to be interested and the
    /// channel keeps no history.
    pub(super) fn confirmed(self) -> Subscribed {
        Subscribed {
            channel: self.channel,
            hash: self.hash,
            subscriber: self.subscriber,
            encoding: self.encoding,
            was_recovering: false,
            recovered: false,
            position: None,
            publications: Vec::new(),
        }
    }
}

impl Subscribed {
    /// What the client is told.
    pub(super) fn result(&self) -> Answer<'_> {
        Answer {
            recoverable: self.position.is_some(),
            positioned: self.position.is_some(),
            was_recovering: self.was_recovering,
            recovered: self.recovered,
            position: self.position,
            publications: self.publications.iter().map(|missed| missed.object()).collect(),
        }
    }
}
