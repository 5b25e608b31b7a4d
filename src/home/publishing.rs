//! Publishing in two steps: a publication is prepared, then committed.
//!
//! `prepare` rejects repetitions, encodes the publication and assigns its offset. `commit` makes
//! the offset visible: the publication goes to the history, to the interested shards and to the
//! requester that waits for the answer. Nothing depends on the steps being adjacent: until the
//! commit, the home handles other messages as if the publication did not exist. The invariant:
//! publications are committed in the order in which they were prepared.

use crate::base::planted_faults::{PlantedFault, planted};
use crate::home::channel_publications::PreparedPublication;
use crate::home::{Home, NoRoom, reserve_all};
use crate::model::message::{Message, Post, Publish, Published, ReplyTo, endpoints};
use crate::model::publication::Publication;
use crate::wire::protocol::{Error, Position};

/// Maximum number of prepared publications that wait for room; at the maximum, publish requests
/// wait in the inbox.
const PREPARED_MAX: usize = 16;

/// Why a publication is not prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PublishRefusal {
    /// The publication is a repetition of the one at this position.
    Before(Option<Position>),
    /// The channel cannot decide this request now; the requester may retry.
    Unavailable,
}

impl Home {
    /// Handles a publish request.
    pub(super) fn publish(
        &mut self,
        post: &mut impl Post,
        request: Box<Publish>,
    ) -> Result<(), Message> {
        self.commit_prepared(post);
        if self.prepared.len() >= PREPARED_MAX {
            return Err(Message::Publish(request));
        }
        let (request, refused) = match self.check(&request) {
            Ok(()) => match self.channels.prepare(request, self.now) {
                Ok(prepared) => {
                    self.commit_or_wait(post, prepared);
                    return Ok(());
                }
                Err(request) => (request, Err(Error::INTERNAL)),
            },
            Err(PublishRefusal::Before(position)) => (request, Ok(position)),
            Err(PublishRefusal::Unavailable) => (request, Err(Error::INTERNAL)),
        };
        self.answer_publish(post, request, refused)
    }

    /// Answers a request that publishes nothing. `Err` returns it: there is no room.
    pub(super) fn answer_publish(
        &mut self,
        post: &mut impl Post,
        request: Box<Publish>,
        outcome: Result<Option<Position>, Error>,
    ) -> Result<(), Message> {
        let reply_to = request.reply_to;
        let answer = || published(reply_to, outcome, None);
        self.send_answer(post, reply_to, answer).map_err(|NoRoom| Message::Publish(request))
    }

    /// Checks that a request is no repetition.
    fn check(&self, request: &Publish) -> Result<(), PublishRefusal> {
        if let Some(position) = self.channels.published_before(request, self.now) {
            return Err(PublishRefusal::Before(position));
        }
        if self.saves.is_frozen() {
            return Err(PublishRefusal::Unavailable);
        }
        // A prepared publication that would decide this has not been committed.
        match self.prepared.iter().any(|prepared| prepared.may_repeat(request)) {
            true => Err(PublishRefusal::Unavailable),
            false => Ok(()),
        }
    }

    /// Commits a publication after all earlier ones: now, or when the inboxes have room.
    fn commit_or_wait(&mut self, post: &mut impl Post, prepared: PreparedPublication) {
        let waiting = if self.prepared.is_empty() {
            self.commit(post, prepared).err()
        } else {
            Some(prepared)
        };
        if !planted(PlantedFault::PreparedPublicationDropped) {
            self.prepared.extend(waiting);
        }
    }

    /// Commits prepared publications in order, while the inboxes have room.
    pub(super) fn commit_prepared(&mut self, post: &mut impl Post) {
        while let Some(prepared) = self.prepared.pop_front() {
            if let Err(prepared) = self.commit(post, prepared) {
                return self.prepared.push_front(prepared);
            }
        }
    }

    /// Makes a prepared publication visible. `Err` returns it: an inbox of a receiving shard is
    /// full.
    pub(super) fn commit(
        &mut self,
        post: &mut impl Post,
        prepared: PreparedPublication,
    ) -> Result<(), PreparedPublication> {
        let reply_to = prepared.reply_to;
        let interested = self.channels.interested(prepared.hash(), prepared.channel());
        let caller = reply_to.shard();
        let recipients = interested | caller.map_or(0, |shard| 1 << shard);
        if reserve_all(post, recipients).is_err() {
            return Err(prepared);
        }
        self.metrics.publications.add(1);
        self.busiest.note(prepared.hash(), prepared.channel(), 1);
        let publication = self.channels.commit(prepared, self.now);
        let position = publication.position();
        for shard in endpoints(recipients) {
            let message = if caller == Some(shard) {
                let wanted = interested & (1 << shard) != 0;
                published(reply_to, Ok(position), wanted.then(|| publication.clone()))
            } else {
                Message::Publication(publication.clone())
            };
            post.send(shard, message);
        }
        if let ReplyTo::Control(_) = reply_to {
            post.send(self.control, published(reply_to, Ok(position), None));
        }
        Ok(())
    }
}

/// The answer to a publish request. It carries the publication if the shard of the requester has
/// subscribers.
pub(super) fn published(
    reply_to: ReplyTo,
    outcome: Result<Option<Position>, Error>,
    publication: Option<Publication>,
) -> Message {
    Message::Published(Box::new(Published { reply_to, outcome, publication }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::memory::{MemoryBudgets, MemoryKind, MemoryLimits};
    use crate::home::channels::tests::request;
    use crate::home::users::UserLimit;
    use crate::home::{HomeContext, HomeSettings};
    use crate::model::ids::Ids;
    use crate::model::message::tests::Recorder;
    use crate::model::message::{DuplicateGuard, Endpoint, Subscribe, SubscribeTerms, Visibility};
    use crate::model::names::Names;
    use crate::model::publication::PublicationKind;
    use crate::model::retention::Retention;

    const CONTROL: Endpoint = 9;
    const RETENTION: Retention =
        Retention { size: 10, ttl: 5_000, meta_ttl: 60_000, durable: false };

    fn home() -> Home {
        let budgets = MemoryBudgets::new(&MemoryLimits::all(1 << 20), 1);
        let context = HomeContext {
            control: CONTROL,
            names: Names::new([0; 16], 2),
            ids: Ids::new([0; 16]),
            seed: 1,
            history: budgets.shard_usage(MemoryKind::History, 0),
            keys: budgets.shard_usage(MemoryKind::Keys, 0),
            store: None,
            shard: 0,
            stored: budgets.shard_usage(MemoryKind::Stored, 0),
            metrics: Arc::default(),
        };
        let settings = HomeSettings {
            recovery_limit: 10,
            answer_bytes: 1 << 20,
            streams_max: 1,
            namespaces: Arc::default(),
        };
        Home::new(settings, UserLimit::default(), context)
    }

    fn publish(channel: &str, key: &str, tag: u64) -> Message {
        let guard = DuplicateGuard { key: key.into(), ..DuplicateGuard::default() };
        Message::Publish(Box::new(Publish {
            channel: channel.into(),
            hash: 7,
            data: b"1"[..].into(),
            kind: PublicationKind::Data,
            delta: false,
            extra: None,
            retention: Some(RETENTION),
            guard: (!key.is_empty()).then(|| Box::new(guard)),
            reply_to: ReplyTo::Control(tag),
            accepted: 0,
        }))
    }

    fn subscribe(shard: Endpoint) -> Message {
        let terms = SubscribeTerms::default();
        let visibility = Visibility::default();
        Message::Subscribe(Box::new(Subscribe { terms, visibility, ..request(shard, None) }))
    }

    /// The offset that an answer to a publish tells, or its error.
    fn answer_of((to, message): &(Endpoint, Message)) -> (Endpoint, u64, Result<u64, Error>) {
        let Message::Published(published) = message else { panic!("{message:?}") };
        let ReplyTo::Control(tag) = published.reply_to else { panic!("{published:?}") };
        (*to, tag, published.outcome.map(|position| position.map_or(0, |at| at.offset)))
    }

    #[test]
    fn a_prepared_publication_is_invisible_until_it_is_committed() {
        let (mut home, mut bus) = (home(), Recorder::default());
        home.handle(subscribe(0), &mut bus).unwrap();
        home.handle(publish("a", "", 1), &mut bus).unwrap();
        bus.sent.clear();
        bus.full = true;
        for tag in [2, 3] {
            home.handle(publish("a", "", tag), &mut bus).unwrap();
        }
        assert!(home.waits() && bus.sent.is_empty(), "no shard has room");
        bus.full = false;
        // The answer to a subscribe in between has the position before both publications.
        home.handle(subscribe(1), &mut bus).unwrap();
        let Some((1, Message::Subscribed(answer))) = bus.sent.pop() else { panic!("an answer") };
        assert_eq!(answer.position.map(|at| at.offset), Some(1));
        home.commit_prepared(&mut bus);
        assert!(!home.waits());
        let sent = bus.sent.iter().filter_map(|(to, message)| match message {
            Message::Publication(publication) => Some((*to, publication.offset())),
            _ => None,
        });
        let expected = [(0, Some(2)), (1, Some(2)), (0, Some(3)), (1, Some(3))];
        assert_eq!(sent.collect::<Vec<_>>(), expected);
        let answers = bus.sent.iter().filter(|(to, _)| *to == CONTROL).map(answer_of);
        assert_eq!(answers.collect::<Vec<_>>(), [(CONTROL, 2, Ok(2)), (CONTROL, 3, Ok(3))]);
    }

    #[test]
    fn a_repetition_of_a_prepared_publication_gets_a_temporary_error() {
        let (mut home, mut bus) = (home(), Recorder::default());
        home.handle(subscribe(0), &mut bus).unwrap();
        (bus.full, bus.sent) = (true, Vec::new());
        home.handle(publish("a", "k", 1), &mut bus).unwrap();
        home.handle(publish("a", "k", 2), &mut bus).unwrap();
        home.handle(publish("a", "l", 3), &mut bus).unwrap();
        assert_eq!(answer_of(&bus.sent[0]), (CONTROL, 2, Err(Error::INTERNAL)));
        (bus.full, bus.sent) = (false, Vec::new());
        home.commit_prepared(&mut bus);
        home.handle(publish("a", "k", 4), &mut bus).unwrap();
        let answers = bus.sent.iter().filter(|(to, _)| *to == CONTROL).map(answer_of);
        let expected = [(CONTROL, 1, Ok(1)), (CONTROL, 3, Ok(2)), (CONTROL, 4, Ok(1))];
        assert_eq!(answers.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_stream_with_a_prepared_publication_is_not_evicted() {
        let (mut home, mut bus) = (home(), Recorder::default());
        home.handle(subscribe(0), &mut bus).unwrap();
        bus.full = true;
        home.handle(publish("a", "", 1), &mut bus).unwrap();
        // At most one stream is kept, and another channel begins one.
        home.handle(publish("b", "", 2), &mut bus).unwrap();
        (bus.full, bus.sent) = (false, Vec::new());
        home.commit_prepared(&mut bus);
        let answers = bus.sent.iter().filter(|(to, _)| *to == CONTROL).map(answer_of);
        assert_eq!(answers.collect::<Vec<_>>(), [(CONTROL, 1, Ok(1)), (CONTROL, 2, Ok(1))]);
    }

    #[test]
    fn with_sixteen_prepared_publications_requests_wait_in_the_inbox() {
        let (mut home, mut bus) = (home(), Recorder::default());
        home.handle(subscribe(0), &mut bus).unwrap();
        bus.full = true;
        for tag in 0..PREPARED_MAX as u64 {
            home.handle(publish("a", "", tag), &mut bus).unwrap();
        }
        let waits = home.handle(publish("a", "", 16), &mut bus);
        assert!(matches!(waits, Err(Message::Publish(_))));
        bus.full = false;
        home.handle(publish("a", "", 16), &mut bus).unwrap();
        assert_eq!(bus.sent.iter().filter(|(to, _)| *to == CONTROL).count(), 17);
    }
}
