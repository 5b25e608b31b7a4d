//! A home with a store in memory that can fail.
#![cfg(test)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::stored::Times;
use crate::base::memory::{MemoryBudgets, MemoryKind, MemoryLimits};
use crate::base::work_budget::WorkBudget;
use crate::home::channels::tests::request;
use crate::home::users::UserLimit;
use crate::home::{Home, HomeContext, HomeSettings};
use crate::model::ids::Ids;
use crate::model::message::tests::Recorder;
use crate::model::message::{
    ChannelAnswer, ChannelQuery, DuplicateGuard, Endpoint, HistoryRange, HomeQuery, Message,
    Publish, ReplyTo, Subscribe, SubscribeTerms, Subscribed,
};
use crate::model::names::Names;
use crate::model::namespaces::{Namespaces, Options};
use crate::model::publication::{Publication, PublicationExtra, PublicationKind};
use crate::model::retention::Retention;
use crate::model::storage::{
    CARRIED_MAX, LoadedStream, StoreAnswer, StoreDue, StoreFound, StoreQuery, StoreRead,
    StoreRefusal, StoreWrite, StoreWritten, StoredKey, StoredPublication, StreamRecord,
};
use crate::wire::protocol::{Epoch, Error, Position};

const CONTROL: Endpoint = 8;
const STORE: Endpoint = 9;
pub(super) const RETENTION: Retention =
    Retention { size: 5, ttl: 10_000, meta_ttl: 60_000, durable: true };

#[derive(Default)]
struct StoredStream {
    record: Option<StreamRecord>,
    /// Top offset of the record in the table of streams.
    recorded: u64,
    publications: BTreeMap<u64, StoredPublication>,
    keys: Vec<StoredKey>,
}

/// A home, its bus, and what is on disk.
pub(super) struct Node {
    pub(super) home: Home,
    bus: Recorder,
    disk: HashMap<Arc<str>, StoredStream>,
    pub(super) now: u64,
    /// Unix time when the monotonic clock began.
    pub(super) unix_start: u64,
    /// The epoch of streams that do not exist yet.
    epoch: Epoch,
}

impl Node {
    pub(super) fn new() -> Self {
        let (bus, disk, epoch) = (Recorder::default(), HashMap::new(), Epoch::parse("aaaaaaaa"));
        // The monotonic clock and the wall clock differ.
        Node { home: home(), bus, disk, now: 0, unix_start: 1_000_000, epoch }
    }

    /// The node after a crash: what is not on disk is gone.
    pub(super) fn restart(&mut self) {
        (self.home, self.bus) = (home(), Recorder::default());
        self.pass(0);
    }

    pub(super) fn pass(&mut self, millis: u64) {
        self.now += millis;
        self.home.begin_turn(Times { now: self.now, unix: self.unix_start + self.now });
        let mut budget = WorkBudget::new(1 << 20, true);
        self.home.expire(&mut budget);
        self.home.continue_work(&mut self.bus, &mut budget);
    }

    pub(super) fn send(&mut self, message: Message) {
        self.home.handle(message, &mut self.bus).unwrap();
    }

    pub(super) fn publish(&mut self, data: &str, key: &str, tag: u64) {
        let guard = DuplicateGuard { key: key.into(), ..DuplicateGuard::default() };
        self.send_publish(data, (!key.is_empty()).then_some(guard), tag);
    }

    fn send_publish(&mut self, data: &str, guard: Option<DuplicateGuard>, tag: u64) {
        self.send_tagged(data, guard, None, tag);
    }

    fn send_tagged(
        &mut self,
        data: &str,
        guard: Option<DuplicateGuard>,
        extra: Option<Arc<PublicationExtra>>,
        tag: u64,
    ) {
        self.send(Message::Publish(Box::new(Publish {
            channel: "a".into(),
            hash: hash(),
            data: data.as_bytes().into(),
            kind: PublicationKind::Data,
            delta: false,
            extra,
            retention: Some(RETENTION),
            guard: guard.map(Box::new),
            reply_to: ReplyTo::Control(tag),
            accepted: 0,
        })));
    }

    fn publish_version(&mut self, version: u64, tag: u64) {
        let guard = DuplicateGuard { version, ..DuplicateGuard::default() };
        self.send_publish("v", Some(guard), tag);
    }

    /// The writes on their way reach the disk, and the store says that they have failed.
    pub(super) fn fail_on_disk(&mut self) {
        for message in self.sent().0 {
            let Message::StoreWrite(write) = message else { panic!("{message:?}") };
            let (through, term) = (write.serial, write.term);
            self.write(*write, true);
            let failed = StoreWritten { through, term, kept: false, touched: true };
            self.send(Message::StoreWritten(failed));
        }
    }

    /// Memory loses all publications.
    pub(super) fn shed(&mut self) {
        let channels = &mut self.home.channels;
        let stream = channels.find(hash(), "a").and_then(|at| channels.stream_of(at)).unwrap();
        channels.streams.change(stream, |stream| stream.shed(usize::MAX));
    }

    pub(super) fn ask(&mut self, query: ChannelQuery) {
        let (channel, reply_to) = ("a".into(), ReplyTo::Control(0));
        let question = HomeQuery { channel, hash: hash(), reply_to, durable: true, query };
        self.send(Message::HomeQuery(Box::new(question)));
    }

    fn subscribe(&mut self, since: Option<Position>) {
        let terms = SubscribeTerms { durable: true, ..SubscribeTerms::default() };
        self.send(Message::Subscribe(Box::new(Subscribe {
            terms,
            hash: hash(),
            ..request(0, since)
        })));
    }

    /// Messages to the store, and the others with their receivers.
    pub(super) fn sent(&mut self) -> (Vec<Message>, Vec<(Endpoint, Message)>) {
        let sent = std::mem::take(&mut self.bus.sent);
        let (store, others): (Vec<_>, Vec<_>) = sent.into_iter().partition(|(to, _)| *to == STORE);
        (store.into_iter().map(|(_, message)| message).collect(), others)
    }

    /// The store handles its messages, and `works` says whether it keeps the writes. Returns the
    /// other messages.
    pub(super) fn store(&mut self, works: bool) -> Vec<(Endpoint, Message)> {
        let mut others = Vec::new();
        loop {
            let (store, sent) = self.sent();
            others.extend(sent);
            if store.is_empty() {
                return others;
            }
            for message in store {
                let answer = match message {
                    Message::StoreWrite(write) => self.write(*write, works),
                    Message::StoreRead(read) => self.read(*read, works),
                    other => panic!("{other:?}"),
                };
                self.send(answer);
            }
        }
    }

    fn write(&mut self, write: StoreWrite, works: bool) -> Message {
        let StoreWrite { serial: through, term, channel, change, .. } = write;
        if works {
            let stream = self.disk.entry(channel).or_default();
            for offset in change.erased.into_iter().flatten() {
                stream.publications.remove(&offset);
            }
            stream.keys.retain(|key| !change.erased_keys.contains(&key.place()));
            stream.keys.extend(change.key);
            if let (Some(record), Some(publication)) = (&change.record, change.publication) {
                stream.publications.insert(record.top, publication);
            }
            if change.is_carried {
                assert!(stream.record.is_some(), "a carried record continues one of the table");
            } else {
                stream.recorded = change.record.as_ref().map_or(0, |record| record.top);
            }
            stream.record = change.record;
        }
        Message::StoreWritten(StoreWritten { through, term, kept: works, touched: !works })
    }

    fn read(&mut self, read: StoreRead, works: bool) -> Message {
        let StoreRead { tag, channel, query, now, .. } = read;
        let empty = StoredStream::default();
        let stream = self.disk.get(&channel).unwrap_or(&empty);
        let first = stream.record.as_ref().map_or(1, |record| record.first);
        let top = stream.record.as_ref().map_or(0, |record| record.top);
        let live = stream.publications.range(first..top + 1).filter(|(_, one)| one.expires > now);
        let found = match query {
            StoreQuery::OldestAlive { offsets } => {
                let mut among = stream.publications.range(offsets);
                let alive = among.find(|(_, one)| one.expires > now);
                StoreFound::OldestAlive(alive.map(|(offset, one)| (*offset, one.expires)))
            }
            StoreQuery::Load { limit, .. } => {
                let newest = live.clone().rev().take(limit).map(|(_, one)| one.clone());
                let mut newest: Vec<StoredPublication> = newest.collect();
                newest.reverse();
                let has_ended = stream.record.as_ref().is_some_and(|record| record.ends <= now);
                let record = stream.record.clone().filter(|_| !has_ended);
                StoreFound::Stream(LoadedStream {
                    epoch: record.as_ref().map_or(self.epoch, |record| record.epoch),
                    record,
                    recorded: stream.recorded,
                    has_ended,
                    oldest: stream.publications.keys().next().copied(),
                    alive: live.clone().next().map(|(offset, one)| (*offset, one.expires)),
                    newest,
                    keys: stream.keys.clone(),
                })
            }
            StoreQuery::Range { offsets, limit, reverse, .. } => {
                let within = live.filter(|(offset, _)| offsets.contains(offset));
                let found = within.map(|(_, one)| one.clone());
                StoreFound::Publications(match reverse {
                    true => found.rev().take(limit).collect(),
                    false => found.take(limit).collect(),
                })
            }
        };
        let result = if works { Ok(found) } else { Err(StoreRefusal::Unavailable) };
        Message::StoreAnswer(Box::new(StoreAnswer { tag, channel, result, charge: None }))
    }
}

fn home() -> Home {
    let budgets = MemoryBudgets::new(&MemoryLimits::all(1 << 20), 1);
    let share = |kind| budgets.shard_usage(kind, 0);
    let context = HomeContext {
        control: CONTROL,
        names: names(),
        ids: Ids::new([0; 16]),
        seed: 1,
        history: share(MemoryKind::History),
        keys: share(MemoryKind::Keys),
        store: Some(STORE),
        shard: 0,
        stored: share(MemoryKind::Stored),
        metrics: Arc::default(),
    };
    let retention = Some(RETENTION);
    let without = Options { retention, ..Options::default() };
    let namespaces = Arc::new(Namespaces { without, ..Namespaces::default() });
    let settings =
        HomeSettings { recovery_limit: 100, answer_bytes: 1 << 20, streams_max: 2, namespaces };
    Home::new(settings, UserLimit::default(), context)
}

pub(super) fn names() -> Names {
    Names::new([0; 16], 1)
}

/// The hash of the channel `a`.
pub(super) fn hash() -> u64 {
    names().hash("a")
}

/// The answers to publishes: tag, and offset or error.
pub(super) fn outcomes(messages: &[(Endpoint, Message)]) -> Vec<(u64, Result<u64, Error>)> {
    let outcome = |(_, message): &(Endpoint, Message)| match message {
        Message::Published(published) => match published.reply_to {
            ReplyTo::Control(tag) => {
                Some((tag, published.outcome.map(|at| at.map_or(0, |at| at.offset))))
            }
            _ => None,
        },
        _ => None,
    };
    messages.iter().filter_map(outcome).collect()
}

/// The answer to a history query: the data of the publications, and the position.
pub(super) fn history(messages: Vec<(Endpoint, Message)>) -> (Vec<String>, u64) {
    let answer = messages.into_iter().find_map(|(_, message)| match message {
        Message::HomeAnswer(answer) => Some(answer.result),
        _ => None,
    });
    match answer {
        Some(Ok(ChannelAnswer::History(found, position))) => (texts(&found), position.offset),
        other => panic!("{other:?}"),
    }
}

fn texts(publications: &[Publication]) -> Vec<String> {
    let text = |one: &Publication| String::from_utf8(one.data().to_vec()).unwrap();
    publications.iter().map(text).collect()
}

fn subscribed(messages: Vec<(Endpoint, Message)>) -> Subscribed {
    let answer = messages.into_iter().find_map(|(_, message)| match message {
        Message::Subscribed(answer) => Some(*answer),
        _ => None,
    });
    answer.unwrap()
}

pub(super) const ALL: ChannelQuery =
    ChannelQuery::History(HistoryRange { limit: 100, since: None, reverse: false });

#[test]
fn a_publication_is_acknowledged_and_delivered_when_it_is_on_disk() {
    let mut node = Node::new();
    node.pass(0);
    node.subscribe(None);
    assert_eq!(subscribed(node.store(true)).position.map(|at| at.offset), Some(0));
    node.publish("1", "", 1);
    let (write, others) = node.sent();
    assert!(others.is_empty(), "nothing is told before the store answers");
    let Some(Message::StoreWrite(write)) = write.into_iter().next() else { panic!("a write") };
    node.ask(ALL);
    assert_eq!(history(node.store(true)), (vec![], 0), "it is not visible either");
    let answer = node.write(*write, true);
    node.send(answer);
    let (_, others) = node.sent();
    assert_eq!(outcomes(&others), [(1, Ok(1))]);
    assert!(others.iter().any(|(to, one)| *to == 0 && matches!(one, Message::Publication(_))));
    node.ask(ALL);
    assert_eq!(history(node.store(true)), (vec!["1".to_owned()], 1));
}

#[test]
fn streams_survive_a_restart_with_epoch_offsets_and_keys() {
    let mut node = Node::new();
    node.pass(0);
    for nth in 1..=7 {
        node.publish(&nth.to_string(), if nth == 7 { "k" } else { "" }, nth);
    }
    assert_eq!(outcomes(&node.store(true)).last(), Some(&(7, Ok(7))));
    node.restart();
    node.epoch = Epoch::parse("bbbbbbbb");
    node.subscribe(Some(Position { offset: 4, epoch: Epoch::parse("aaaaaaaa") }));
    let answer = subscribed(node.store(true));
    assert!(answer.recovered);
    assert_eq!(texts(&answer.publications), ["5", "6", "7"]);
    node.publish("again", "k", 8);
    node.publish("8", "", 9);
    assert_eq!(outcomes(&node.store(true)), [(8, Ok(7)), (9, Ok(8))]);
    node.ask(ALL);
    let last = ["4", "5", "6", "7", "8"].map(str::to_owned);
    assert_eq!(history(node.store(true)), (last.to_vec(), 8), "five are kept");
    let stream = &node.disk["a"];
    assert_eq!(stream.record.as_ref().map(|record| (record.first, record.top)), Some((4, 8)));
    assert!(stream.publications.keys().all(|offset| (3..=8).contains(offset)), "old ones go");
}

#[test]
fn after_a_failed_write_all_later_ones_fail_and_their_offsets_are_assigned_again() {
    let mut node = Node::new();
    node.pass(0);
    node.publish("1", "", 1);
    node.store(true);
    node.publish("2", "lost", 2);
    node.publish("3", "", 3);
    node.fail_on_disk();
    node.pass(0);
    let (_, others) = node.sent();
    let failed = Err(Error::INTERNAL);
    assert_eq!(outcomes(&others), [(2, failed), (3, failed)]);
    node.publish("4", "", 4);
    assert_eq!(outcomes(&node.store(true)), [(4, Ok(2))]);
    node.ask(ALL);
    assert_eq!(history(node.store(true)), (vec!["1".into(), "4".into()], 2));
    node.restart();
    node.publish("2", "lost", 5);
    assert_eq!(outcomes(&node.store(true)), [(5, Ok(3))], "the key of a failed write is erased");
    assert_eq!(node.disk["a"].publications.len(), 3);
}

#[test]
fn a_key_that_is_written_again_is_not_erased_by_the_writes_behind_it() {
    let mut node = Node::new();
    node.pass(0);
    node.subscribe(None);
    node.store(true);
    node.publish("1", "k", 1);
    node.fail_on_disk();
    node.publish("1", "k", 2);
    node.publish("2", "", 3);
    node.store(true);
    node.restart();
    node.publish("1", "k", 4);
    assert_eq!(outcomes(&node.store(true)), [(4, Ok(1))]);
}

#[test]
fn a_failed_key_is_erased_although_the_failure_is_told_much_later() {
    let mut node = Node::new();
    node.pass(0);
    node.subscribe(None);
    node.store(true);
    node.publish("1", "k", 1);
    node.pass(30_000);
    node.fail_on_disk();
    node.pass(super::state::PAUSE);
    node.store(true);
    assert!(node.disk["a"].keys.is_empty());
}

#[test]
fn a_commit_that_waited_for_room_does_not_count_as_the_correction_of_a_later_write() {
    let mut node = Node::new();
    node.pass(0);
    node.subscribe(None);
    node.store(true);
    node.publish("1", "", 1);
    node.bus.full = true;
    node.store(true);
    node.bus.full = false;
    node.publish("2", "k", 2);
    node.fail_on_disk();
    node.pass(0);
    assert_eq!(outcomes(&node.sent().1), [(1, Ok(1)), (2, Err(Error::INTERNAL))]);
    assert_eq!(node.disk["a"].record.as_ref().map(|record| record.top), Some(2));
    node.pass(super::state::PAUSE);
    node.store(true);
    let stream = &node.disk["a"];
    assert_eq!(stream.record.as_ref().map(|record| record.top), Some(1), "corrected");
    assert!(stream.publications.len() == 1 && stream.keys.is_empty());
}

#[test]
fn a_version_that_waits_for_room_stays_in_the_record_when_a_later_write_fails() {
    let mut node = Node::new();
    node.pass(0);
    node.subscribe(None);
    node.store(true);
    node.publish_version(7, 1);
    node.bus.full = true;
    node.store(true);
    node.publish("2", "", 2);
    node.store(false);
    node.publish("3", "", 3);
    node.store(true);
    let version = |node: &Node| node.disk["a"].record.as_ref().and_then(|one| one.version.clone());
    assert_eq!(version(&node).map(|version| version.0), Some(7));
}

#[test]
fn without_upkeep_a_failed_write_is_corrected_by_itself() {
    let mut node = Node::new();
    node.pass(0);
    node.publish("1", "", 1);
    node.store(true);
    node.publish("2", "", 2);
    node.store(false);
    node.pass(0);
    node.store(true);
    assert_eq!(node.disk["a"].record.as_ref().map(|record| record.top), Some(1));
    node.disk.get_mut("a").unwrap().record.as_mut().unwrap().top = 2;
    node.pass(super::state::PAUSE);
    node.store(true);
    assert_eq!(node.disk["a"].record.as_ref().map(|record| record.top), Some(1), "corrected");
    assert_eq!(node.home.durable.unanswered(), 0);
}

#[test]
fn requests_of_a_channel_wait_for_its_stream_in_order_and_fail_together() {
    let mut node = Node::new();
    node.pass(0);
    node.publish("1", "", 1);
    node.ask(ALL);
    node.publish("2", "", 2);
    let others = node.store(false);
    assert_eq!(outcomes(&others), [(1, Err(Error::INTERNAL)), (2, Err(Error::INTERNAL))]);
    node.subscribe(None);
    let refused = subscribed(node.store(false));
    assert_eq!((refused.error, refused.is_refused()), (Some(Error::INTERNAL), true));
    node.publish("1", "", 3);
    node.ask(ALL);
    let others = node.store(true);
    assert_eq!(outcomes(&others), [(3, Ok(1))]);
    assert_eq!(node.home.durable.unanswered(), 0);
}

#[test]
fn publications_that_left_memory_are_read_from_the_store() {
    let mut node = Node::new();
    node.pass(0);
    for nth in 1..=5 {
        node.publish(&nth.to_string(), "", nth);
    }
    node.store(true);
    let at = node.home.channels.find(hash(), "a").unwrap();
    let stream = node.home.channels.stream_of(at).unwrap();
    node.home.channels.streams.change(stream, |stream| stream.shed(400));
    let kept = node.home.channels.streams.get(stream).len();
    assert!((1..5).contains(&kept), "{kept}");
    let since = |offset| Position { offset, epoch: Epoch::default() };
    let ranges: [(HistoryRange, &[&str]); 6] = [
        (HistoryRange { limit: 100, since: None, reverse: false }, &["1", "2", "3", "4", "5"]),
        (HistoryRange { limit: 2, since: None, reverse: false }, &["1", "2"]),
        (HistoryRange { limit: 3, since: Some(since(1)), reverse: false }, &["2", "3", "4"]),
        (HistoryRange { limit: 100, since: None, reverse: true }, &["5", "4", "3", "2", "1"]),
        (HistoryRange { limit: 2, since: Some(since(3)), reverse: true }, &["2", "1"]),
        (HistoryRange { limit: 4, since: None, reverse: true }, &["5", "4", "3", "2"]),
    ];
    for (range, expected) in ranges {
        node.ask(ChannelQuery::History(range));
        assert_eq!(history(node.store(true)).0, expected, "{range:?}");
    }
    node.subscribe(Some(since(1)));
    // One more is committed while the store is asked.
    node.publish("6", "", 6);
    let answer = subscribed(node.store(true));
    assert!(answer.recovered);
    assert_eq!(texts(&answer.publications), ["2", "3", "4", "5"]);
    node.subscribe(Some(since(0)));
    assert!(!subscribed(node.store(true)).recovered, "the first is no longer kept");
}

#[test]
fn a_range_that_left_the_history_while_the_store_was_asked_is_asked_for_again() {
    let mut node = Node::new();
    node.pass(0);
    for nth in 1..=5 {
        node.publish(&nth.to_string(), "", nth);
    }
    node.store(true);
    node.publish("6", "", 6);
    let Some(Message::StoreWrite(write)) = node.sent().0.pop() else { panic!("a write") };
    node.shed();
    node.ask(ChannelQuery::History(HistoryRange { limit: 1, since: None, reverse: false }));
    let Some(Message::StoreRead(read)) = node.sent().0.pop() else { panic!("a question") };
    let found = node.read(*read, true);
    let written = node.write(*write, true);
    node.send(written);
    node.shed();
    // It has the publication at offset 1, which the write has moved out of the history.
    node.send(found);
    assert_eq!(history(node.store(true)), (vec!["2".to_owned()], 6));
}

#[test]
fn a_removed_history_stays_removed() {
    let mut node = Node::new();
    node.pass(0);
    for nth in 1..=3 {
        node.publish("x", "", nth);
    }
    node.store(true);
    node.ask(ChannelQuery::RemoveHistory);
    let (write, others) = node.sent();
    assert!(others.is_empty(), "the answer waits for the disk");
    let Some(Message::StoreWrite(write)) = write.into_iter().next() else { panic!("a write") };
    let answer = node.write(*write, true);
    node.send(answer);
    let (_, others) = node.sent();
    assert!(matches!(&others[..], [(_, Message::HomeAnswer(_))]));
    node.restart();
    node.ask(ALL);
    assert_eq!(history(node.store(true)), (vec![], 3));
    node.publish("4", "", 4);
    node.store(true);
    node.ask(ALL);
    assert_eq!(history(node.store(true)), (vec!["4".into()], 4));
    assert_eq!(node.disk["a"].publications.keys().copied().collect::<Vec<_>>(), [4]);
}

#[test]
fn a_publication_behind_a_removal_expires_by_its_own_ttl() {
    let mut node = Node::new();
    node.pass(0);
    node.publish("1", "", 1);
    node.store(true);
    node.ask(ChannelQuery::RemoveHistory);
    node.publish("2", "", 2);
    let Some(Message::StoreWrite(removal)) = node.sent().0.into_iter().next() else {
        panic!("a write");
    };
    let removed = node.write(*removal, true);
    node.send(removed);
    node.pass(1_000);
    node.publish("3", "", 3);
    let Some(Message::StoreWrite(write)) = node.sent().0.pop() else { panic!("a write") };
    let record = write.change.record.unwrap();
    assert_eq!((record.first, record.top, record.due), (2, 3, 1_000_000 + RETENTION.ttl));
}

#[test]
fn a_failed_publication_does_not_delay_the_expiry_of_the_one_that_it_would_have_replaced() {
    let mut node = Node::new();
    node.pass(0);
    node.publish("1", "", 1);
    node.store(true);
    let expires = 1_000_000 + RETENTION.ttl;
    node.pass(8_000);
    // The second publication would be the only one of its history.
    node.ask(ChannelQuery::RemoveHistory);
    node.publish("2", "", 2);
    node.store(false);
    node.shed();
    // The correction tells the disk when the first publication expires.
    node.pass(1_500);
    assert_eq!(outcomes(&node.store(true)), [(2, Err(Error::INTERNAL))]);
    let record = node.disk["a"].record.clone().unwrap();
    assert_eq!((record.first, record.top, record.due), (1, 1, expires));
    // Memory knows it, too.
    node.pass(500);
    let channels = &node.home.channels;
    let stream = channels.find(hash(), "a").and_then(|at| channels.stream_of(at)).unwrap();
    assert!(channels.streams.get(stream).is_due(node.now));
}

#[test]
fn the_record_counts_the_bytes_of_the_history() {
    let mut node = Node::new();
    node.pass(0);
    let bytes = |node: &Node| node.disk["a"].record.as_ref().unwrap().bytes;
    node.publish("1", "", 1);
    node.store(true);
    // Data and something for each publication.
    let is_near = |node: &Node, data: u64, publications: u64| {
        let found = bytes(node);
        let expected = data + 50 * publications..data + 150 * publications + 1;
        assert!(expected.contains(&found), "{found} of {expected:?}");
    };
    is_near(&node, 1, 1);
    node.publish(&"2".repeat(500), "", 2);
    node.store(true);
    is_near(&node, 501, 2);
    // A write that fails counts for nothing.
    node.publish(&"3".repeat(5_000), "", 3);
    node.store(false);
    node.pass(1_500);
    node.publish("3", "", 3);
    node.store(true);
    is_near(&node, 502, 3);
    node.restart();
    node.publish("4", "", 4);
    node.store(true);
    is_near(&node, 503, 4);
    node.ask(ChannelQuery::RemoveHistory);
    node.store(true);
    assert_eq!(bytes(&node), 0);
}

#[test]
fn publications_and_streams_end_on_disk_too() {
    let mut node = Node::new();
    node.pass(0);
    for nth in 1..=3 {
        node.publish("x", "", nth);
    }
    node.store(true);
    node.pass(RETENTION.ttl + 2_000);
    node.ask(ALL);
    assert_eq!(history(node.store(true)), (vec![], 3));
    node.pass(RETENTION.meta_ttl);
    for _ in 0..4 {
        node.store(true);
        node.pass(1_000);
    }
    let stream = &node.disk["a"];
    assert!(stream.record.is_none() && stream.publications.is_empty(), "{:?}", stream.record);
    assert!(node.home.is_empty(), "nothing is left in memory");
    node.epoch = Epoch::parse("cccccccc");
    node.subscribe(Some(Position { offset: 3, epoch: Epoch::parse("aaaaaaaa") }));
    assert!(!subscribed(node.store(true)).recovered);
}

#[test]
fn a_start_with_a_slow_clock_ends_no_stream_early() {
    let mut node = Node::new();
    node.pass(0);
    for nth in 1..=3 {
        node.publish(&nth.to_string(), "", nth);
    }
    node.store(true);
    let ends = node.disk["a"].record.as_ref().unwrap().ends;
    node.unix_start -= 2 * RETENTION.meta_ttl;
    node.restart();
    node.publish("slow", "", 4);
    assert_eq!(outcomes(&node.store(true)), [(4, Ok(4))]);
    assert_eq!(node.disk["a"].record.as_ref().unwrap().ends, ends);
    let channels = &node.home.channels;
    let stream = channels.find(hash(), "a").and_then(|at| channels.stream_of(at)).unwrap();
    let in_memory = node.home.durable.times().unix_of(channels.streams.get(stream).ends());
    assert_eq!(in_memory, ends, "memory and disk agree");
    node.unix_start += 2 * RETENTION.meta_ttl;
    node.restart();
    node.epoch = Epoch::parse("bbbbbbbb");
    node.ask(ALL);
    assert_eq!(history(node.store(true)), (["1", "2", "3"].map(str::to_owned).to_vec(), 4));
    node.subscribe(Some(Position { offset: 4, epoch: Epoch::parse("aaaaaaaa") }));
    assert!(subscribed(node.store(true)).recovered, "the epoch is the same");
}

#[test]
fn a_removal_behind_the_first_publication_does_not_delay_the_end_of_the_stream() {
    let mut node = Node::new();
    node.pass(0);
    node.publish("1", "", 1);
    node.ask(ChannelQuery::RemoveHistory);
    node.store(true);
    let record = node.disk["a"].record.as_ref().unwrap();
    assert_eq!((record.top, record.first), (1, 2));
    assert_eq!(record.ends, 1_000_000 + RETENTION.meta_ttl);
}

#[test]
fn a_clock_that_is_set_back_ends_no_stream_early() {
    let mut node = Node::new();
    node.pass(0);
    (1..=2).for_each(|nth| node.publish("x", "", nth));
    node.store(true);
    let ends = node.disk["a"].record.as_ref().unwrap().ends;
    node.unix_start -= 2 * RETENTION.meta_ttl;
    node.pass(0);
    node.publish("3", "", 3);
    node.store(true);
    assert_eq!(node.disk["a"].record.as_ref().unwrap().ends, ends, "after a publication");
    node.send(Message::StoreDue(Box::new(StoreDue {
        channels: Vec::new(),
        trims: vec![("a".into(), 2)],
    })));
    node.store(true);
    let record = node.disk["a"].record.as_ref().unwrap();
    assert_eq!((record.first, record.ends), (2, ends), "after a write without a publication");
}

#[test]
fn the_first_publication_sets_the_end_of_a_stream() {
    let mut node = Node::new();
    node.pass(0);
    // The empty stream would be kept for an hour.
    node.subscribe(None);
    node.store(true);
    node.publish("1", "", 1);
    node.store(true);
    let times = node.home.durable.times();
    assert_eq!(node.disk["a"].record.as_ref().unwrap().ends, times.unix + RETENTION.meta_ttl);
    let channels = &node.home.channels;
    let stream = channels.find(hash(), "a").and_then(|at| channels.stream_of(at)).unwrap();
    assert_eq!(channels.streams.get(stream).ends(), times.now + RETENTION.meta_ttl);
}

#[test]
fn a_stream_that_ended_while_it_was_not_in_memory_ends_on_disk_too() {
    let mut node = Node::new();
    node.pass(0);
    node.publish("1", "", 1);
    node.store(true);
    node.restart();
    node.pass(RETENTION.meta_ttl);
    node.send(Message::StoreDue(Box::new(StoreDue {
        channels: vec!["a".into()],
        trims: Vec::new(),
    })));
    node.store(true);
    assert!(node.disk["a"].record.is_none());
    assert!(node.home.is_empty() && node.home.pins() == 0, "nothing is left in memory");
}

#[test]
fn an_evicted_stream_is_loaded_again() {
    let mut node = Node::new();
    node.pass(0);
    node.publish("1", "", 1);
    node.store(true);
    let at = node.home.channels.find(hash(), "a").unwrap();
    node.home.channels.drop_stream(at);
    assert!(node.home.is_empty());
    node.publish("2", "", 2);
    assert_eq!(outcomes(&node.store(true)), [(2, Ok(2))]);
    node.ask(ALL);
    assert_eq!(history(node.store(true)), (vec!["1".into(), "2".into()], 2));
}

#[test]
fn a_turn_commits_a_bounded_number_of_writes() {
    let mut node = Node::new();
    node.pass(0);
    node.publish("0", "", 0);
    node.store(true);
    for nth in 1..=300 {
        node.publish("x", "", nth);
    }
    let (writes, _) = node.sent();
    assert_eq!(writes.len(), 300);
    let last = writes.into_iter().map(|message| match message {
        Message::StoreWrite(write) => node.write(*write, true),
        other => panic!("{other:?}"),
    });
    let last = last.last().unwrap();
    node.send(last);
    let (mut committed, mut upkeep) = (Vec::new(), Vec::new());
    loop {
        let (writes, answers) = node.sent();
        upkeep.extend(writes);
        committed.push(outcomes(&answers).len());
        if !node.home.is_unfinished() {
            break;
        }
        node.pass(0);
    }
    assert_eq!(committed, [128, 128, 44]);
    node.bus.sent.extend(upkeep.into_iter().map(|message| (STORE, message)));
    for _ in 0..8 {
        node.pass(0);
        node.store(true);
    }
    assert_eq!(node.home.durable.unanswered(), 0, "upkeep ends");
    let count = node.disk["a"].publications.len() as u64;
    assert!((5..5 + super::stored::ERASED_MAX).contains(&count), "{count}");
}

#[test]
fn publications_carry_the_record_for_a_while_and_not_after_a_failure() {
    let mut node = Node::new();
    node.pass(0);
    let mut recorded = Vec::new();
    for nth in 1..=CARRIED_MAX + 2 {
        node.publish("x", "", nth);
        node.store(true);
        recorded.push(node.disk["a"].recorded);
    }
    let last = CARRIED_MAX as usize + 1;
    assert!(recorded[..last].iter().all(|top| *top == 1), "{recorded:?}");
    assert_eq!(recorded[last], CARRIED_MAX + 2);
    node.restart();
    node.publish("x", "", 100);
    node.store(true);
    assert_eq!(node.disk["a"].recorded, CARRIED_MAX + 2, "the load tells which one it has");
    node.publish("fails", "", 101);
    node.fail_on_disk();
    node.pass(0);
    node.sent();
    node.publish("x", "", 102);
    node.store(true);
    assert_eq!(node.disk["a"].recorded, CARRIED_MAX + 4);
}

#[test]
fn the_store_can_ask_for_a_shorter_history_also_of_a_stream_that_is_not_loaded() {
    let mut node = Node::new();
    node.pass(0);
    for nth in 1..=5 {
        node.publish(&nth.to_string(), "", nth);
    }
    node.store(true);
    let trim = |node: &mut Node, first| {
        let trims = vec![("a".into(), first)];
        node.send(Message::StoreDue(Box::new(StoreDue { channels: Vec::new(), trims })));
        assert!(node.store(true).is_empty(), "nobody is answered");
        // Then the remains are erased.
        node.pass(0);
        node.store(true);
        node.ask(ALL);
        history(node.store(true))
    };
    assert_eq!(trim(&mut node, 3), (["3", "4", "5"].map(str::to_owned).to_vec(), 5));
    assert_eq!(node.disk["a"].publications.keys().copied().collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!(trim(&mut node, 2).0.len(), 3, "an older question changes nothing");
    node.restart();
    assert_eq!(trim(&mut node, 5), (vec!["5".to_owned()], 5));
    assert_eq!(trim(&mut node, 100), (vec![], 5));
    assert!(node.disk["a"].publications.is_empty());
}

/// A guard and tags of so many bytes each.
fn large(bytes: usize) -> (Option<DuplicateGuard>, Option<Arc<PublicationExtra>>) {
    let text = || Box::<str>::from("x".repeat(bytes));
    let guard = DuplicateGuard { key: text(), version: 1, version_epoch: text() };
    let tags = [("t".into(), text())].into();
    (Some(guard), Some(Arc::new(PublicationExtra { info: None, tags, version: 1 })))
}

#[test]
fn the_store_budget_counts_tags_keys_and_versions_of_requests_and_writes() {
    for works in [true, false] {
        let mut node = Node::new();
        node.pass(0);
        let (guard, extra) = large(10_000);
        node.send_tagged("1", guard, extra, 1);
        let waiting = node.home.durable.bytes();
        assert!(waiting > 30_000, "the request waits for the stream: {waiting}");
        let (load, _) = node.sent();
        let Some(Message::StoreRead(load)) = load.into_iter().next() else { panic!("a load") };
        let loaded = node.read(*load, true);
        node.send(loaded);
        let written = node.home.durable.bytes();
        // Tags are part of the publication twice: encoded, and for filters.
        assert!((80_000..100_000).contains(&written), "key, version and tags: {written}");
        node.store(works);
        assert_eq!(node.home.durable.waits(), usize::from(!works), "the answer or its refusal");
        // The key of a failed write is charged until it is erased.
        node.pass(1_200);
        node.store(true);
        assert_eq!(node.home.durable.bytes(), 0, "the whole charge is given back");
    }
}

#[test]
fn the_store_budget_counts_the_version_that_every_later_write_carries() {
    let charge = |version: &str| {
        let mut node = Node::new();
        node.pass(0);
        let guard = DuplicateGuard { version: 1, version_epoch: version.into(), key: "".into() };
        node.send_publish("1", Some(guard), 1);
        node.store(true);
        node.publish("2", "", 2);
        let publication = node.home.durable.bytes();
        node.store(true);
        node.ask(ChannelQuery::RemoveHistory);
        let removal = node.home.durable.bytes();
        node.store(true);
        assert_eq!(node.home.durable.bytes(), 0);
        (publication, removal)
    };
    let (plain, versioned) = (charge(""), charge(&"v".repeat(200)));
    assert_eq!(versioned, (plain.0 + 400, plain.1 + 400));
}

#[test]
fn versions_and_tags_beyond_the_store_budget_are_refused() {
    let mut node = Node::new();
    node.pass(0);
    node.publish("1", "", 1);
    node.store(true);
    for tag in 2..50 {
        let (_, extra) = large(50_000);
        node.send_tagged("x", None, extra, tag);
    }
    let refused = |(_, outcome): &(u64, Result<u64, Error>)| *outcome == Err(Error::INTERNAL);
    let (writes, answers) = node.sent();
    assert!(writes.len() < 12 && outcomes(&answers).iter().all(refused), "{}", writes.len());
    assert!(node.home.durable.bytes() <= 1 << 20, "the budget is kept");
}
