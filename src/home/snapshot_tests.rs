//! Homes before and after a restart.
#![cfg(test)]

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::memory::{MemoryBudgets, MemoryKind, MemoryLimits};
use crate::base::work_budget::{Stage, WorkBudget};
use crate::home::channels::tests::request;
use crate::home::durable::stored::Times;
use crate::home::users::UserLimit;
use crate::home::{Home, HomeContext, HomeSettings};
use crate::model::ids::Ids;
use crate::model::message::tests::Recorder;
use crate::model::message::{
    ChannelAnswer, ChannelQuery, DuplicateGuard, Endpoint, HomeQuery, Message, Publish, Release,
    ReplyTo, Subscribe, Subscribed,
};
use crate::model::names::{Names, partition};
use crate::model::publication::{Publication, PublicationKind};
use crate::model::retention::Retention;
use crate::model::snapshot::{
    RestoredHome, RestoredStream, SnapshotAnswer, SnapshotPart, SnapshotQuery, SnapshotRequest,
};
use crate::wire::protocol::{Error, Position};

const CONTROL: Endpoint = 9;
const KEY: [u8; 16] = [7; 16];
const SEED: u64 = 5;
const RETENTION: Retention = Retention { size: 5, ttl: 10_000, meta_ttl: 60_000, durable: false };
const HISTORY_BYTES: usize = 10 << 20;

/// All homes of a node.
struct Node {
    homes: Vec<Home>,
    names: Names,
    bus: Recorder,
    times: Times,
}

impl Node {
    /// A node whose monotonic clock begins at `now`, at 1,000 s of unix time.
    fn new(shards: u8, now: u64, history_bytes: usize) -> Self {
        let names = Names::new(KEY, shards);
        let limits = MemoryLimits::all(1 << 20).with(MemoryKind::History, history_bytes);
        let budgets = MemoryBudgets::new(&limits, usize::from(shards));
        let home = |shard: u8| {
            let share = |kind| budgets.shard_usage(kind, usize::from(shard));
            let context = HomeContext {
                control: CONTROL,
                names,
                ids: Ids::new([0; 16]),
                seed: SEED + now,
                history: share(MemoryKind::History),
                keys: share(MemoryKind::Keys),
                store: None,
                shard,
                stored: share(MemoryKind::Stored),
                metrics: Arc::default(),
            };
            let settings = HomeSettings {
                recovery_limit: 10,
                answer_bytes: 1 << 20,
                streams_max: 10_000,
                namespaces: Arc::default(),
            };
            Home::new(settings, UserLimit::default(), context)
        };
        let times = Times { now, unix: 1_000_000 };
        let homes = (0..shards).map(home).collect();
        let mut node = Node { homes, names, bus: Recorder::default(), times };
        node.pass(0, 1 << 20);
        node
    }

    /// Lets time pass, and gives each home a turn with this budget.
    fn pass(&mut self, millis: u64, work: usize) {
        self.times = Times { now: self.times.now + millis, unix: self.times.unix + millis };
        for home in &mut self.homes {
            home.begin_turn(self.times);
            let mut budget = WorkBudget::new(work, false);
            home.expire(&mut budget);
            budget.begin(Stage::Answers);
            home.continue_work(&mut self.bus, &mut budget);
        }
    }

    fn home(&mut self, channel: &str) -> (&mut Home, &mut Recorder, u64) {
        let hash = self.names.hash(channel);
        (&mut self.homes[usize::from(self.names.home(hash))], &mut self.bus, hash)
    }

    fn publish(&mut self, channel: &str, key: &str, version: u64) -> Result<u64, Error> {
        let (home, bus, hash) = self.home(channel);
        let guard = DuplicateGuard { key: key.into(), version, ..DuplicateGuard::default() };
        let request = Publish {
            channel: channel.into(),
            hash,
            data: br#"{"text":"data"}"#[..].into(),
            kind: PublicationKind::Data,
            delta: false,
            extra: None,
            retention: Some(RETENTION),
            guard: Some(Box::new(guard)),
            reply_to: ReplyTo::Control(1),
            accepted: 0,
        };
        home.handle(Message::Publish(Box::new(request)), bus).unwrap();
        // The others are deliveries to the subscribers.
        let sent = std::mem::take(&mut bus.sent).pop();
        let Some((CONTROL, Message::Published(answer))) = sent else { panic!("{sent:?}") };
        answer.outcome.map(|position| position.unwrap().offset)
    }

    fn subscribe(&mut self, channel: &str, since: Option<Position>) -> Subscribed {
        let (home, bus, hash) = self.home(channel);
        let request = Subscribe { channel: channel.into(), hash, ..request(0, since) };
        home.handle(Message::Subscribe(Box::new(request)), bus).unwrap();
        let Some((_, Message::Subscribed(answer))) = bus.sent.pop() else { panic!("none") };
        *answer
    }

    fn position(&mut self, channel: &str) -> Position {
        self.subscribe(channel, None).position.unwrap()
    }

    fn release(&mut self, channel: &str) {
        let (home, bus, hash) = self.home(channel);
        let release = Release { channel: channel.into(), hash, shard: 0 };
        home.handle(Message::Release(release), bus).unwrap();
    }

    fn remove_history(&mut self, channel: &str) -> Result<ChannelAnswer, Error> {
        let (home, bus, hash) = self.home(channel);
        let question = HomeQuery {
            channel: channel.into(),
            hash,
            reply_to: ReplyTo::Control(1),
            durable: false,
            query: ChannelQuery::RemoveHistory,
        };
        home.handle(Message::HomeQuery(Box::new(question)), bus).unwrap();
        let Some((CONTROL, Message::HomeAnswer(answer))) = bus.sent.pop() else { panic!("none") };
        answer.result
    }

    /// Asks a home, whose turns have this budget, until the answer is complete. Returns the parts,
    /// and the number of turns.
    fn ask(&mut self, home: usize, query: SnapshotQuery, work: usize) -> (Vec<SnapshotPart>, u32) {
        let (mut parts, mut turns, mut next) = (Vec::new(), 0, Some(query));
        while let Some(query) = next {
            let request = Box::new(SnapshotRequest { tag: 3, query });
            self.homes[home].handle(Message::SnapshotRequest(request), &mut self.bus).unwrap();
            while self.bus.sent.is_empty() {
                self.pass(0, work);
                turns += 1;
            }
            let Some((CONTROL, Message::SnapshotAnswer(answer))) = self.bus.sent.pop() else {
                panic!("an answer")
            };
            let SnapshotAnswer { tag: 3, part, next: rest } = *answer else { panic!("the tag") };
            (parts, next) = ([parts, vec![part]].into_iter().flatten().collect(), rest);
        }
        (parts, turns)
    }

    /// Everything that the snapshot has of a home.
    fn save(&mut self, home: usize) -> RestoredHome {
        let mut saved = RestoredHome { epochs: SEED + 1, ..RestoredHome::default() };
        let mut channels = Vec::new();
        for part in self.ask(home, SnapshotQuery::Streams { from: 0 }, 1 << 20).0 {
            let SnapshotPart::Streams(streams) = part else { panic!("streams") };
            for (at, stream) in streams {
                channels.push(at);
                saved.streams.push(RestoredStream { stream, publications: Vec::new() });
            }
        }
        let channels: Arc<[u32]> = channels.into();
        let query = SnapshotQuery::Publications { channels, nth: 0, below: u64::MAX };
        for part in self.ask(home, query, 1 << 20).0 {
            let SnapshotPart::Publications(publications) = part else { panic!("publications") };
            for (nth, publication) in publications {
                saved.streams[nth].publications.insert(0, publication);
            }
        }
        for part in self.ask(home, SnapshotQuery::Keys { from: (0, 0) }, 1 << 20).0 {
            let SnapshotPart::Keys(keys) = part else { panic!("keys") };
            saved.keys.extend(keys);
        }
        for part in self.ask(home, SnapshotQuery::Generations { from: 0 }, 1 << 20).0 {
            let SnapshotPart::Generations(generations) = part else { panic!("generations") };
            saved.generations.extend(generations);
        }
        saved
    }

    /// The node after a restart that takes `pause` milliseconds by the wall clock, with other homes.
    fn restart(&mut self, shards: u8, pause: i64, history_bytes: usize) -> Node {
        let saved: Vec<RestoredHome> = (0..self.homes.len()).map(|home| self.save(home)).collect();
        let mut next = Node::new(shards, 77, history_bytes);
        next.times.unix = self.times.unix.saturating_add_signed(pause);
        let mut parts: Vec<_> =
            (0..shards).map(|_| RestoredHome { epochs: SEED, ..RestoredHome::default() }).collect();
        for RestoredHome { generations, streams, keys, .. } in saved {
            for one in generations {
                let home = next.names.home_of_partition(one.0 as usize);
                parts[usize::from(home)].generations.push(one);
            }
            for one in streams {
                parts[usize::from(next.names.home(one.stream.hash))].streams.push(one);
            }
            for one in keys {
                parts[usize::from(next.names.home(one.hash))].keys.push(one);
            }
        }
        for (home, part) in next.homes.iter_mut().zip(parts) {
            home.restore(part, next.times);
        }
        next.pass(0, 1 << 20);
        next
    }
}

/// A node of so many homes whose epochs have the common seed.
fn node(shards: u8) -> Node {
    Node::new(shards, 0, HISTORY_BYTES)
}

fn channels() -> impl Iterator<Item = String> {
    (0..100).map(|nth| format!("channel {nth}"))
}

#[test]
fn clients_recover_after_a_restart_with_another_number_of_homes() {
    for shards in [1, 3, 7] {
        let mut before = node(3);
        let mut seen = HashMap::new();
        for (nth, channel) in channels().enumerate() {
            (0..nth % 8).for_each(|_| _ = before.publish(&channel, "", 0).unwrap());
            seen.insert(channel.clone(), before.position(&channel));
        }
        for (nth, channel) in channels().enumerate().filter(|(nth, _)| nth % 2 == 0) {
            (0..nth % 6).for_each(|_| _ = before.publish(&channel, "", 0).unwrap());
        }
        let mut after = before.restart(shards, 1_000, HISTORY_BYTES);
        for channel in channels() {
            let since = Some(seen[&channel]);
            let (old, new) = (before.subscribe(&channel, since), after.subscribe(&channel, since));
            assert!(old.recovered && new.recovered, "{channel} {old:?} {new:?}");
            assert_eq!((old.position, old.top), (new.position, new.top));
            let data = |of: &Subscribed| -> Vec<_> {
                let one = |one: &Publication| (one.position(), one.data().to_vec(), one.hash());
                of.publications.iter().map(one).collect()
            };
            assert_eq!(data(&old), data(&new));
            assert_eq!(after.publish(&channel, "", 0), Ok(old.top.unwrap().offset + 1));
        }
    }
}

#[test]
fn keys_and_versions_are_known_after_a_restart() {
    let mut before = node(2);
    assert_eq!(before.publish("a", "key", 7), Ok(1));
    before.pass(200_000, 1 << 20);
    assert_eq!(before.publish("b", "key", 0), Ok(1));
    let mut after = before.restart(3, 99_999, HISTORY_BYTES);
    assert_eq!((after.publish("a", "key", 0), after.publish("b", "key", 0)), (Ok(1), Ok(1)));
    after.pass(1, 1 << 20);
    // The key of "a" is kept for five minutes, and its stream for one.
    assert_eq!((after.publish("a", "key", 0), after.publish("b", "key", 0)), (Ok(1), Ok(1)));
    assert_eq!(after.publish("a", "", 0), Ok(2), "the key was forgotten and published again");
    let mut before = node(2);
    assert_eq!(before.publish("a", "", 7), Ok(1));
    let mut after = before.restart(2, 0, HISTORY_BYTES);
    assert_eq!((after.publish("a", "", 7), after.publish("a", "", 8)), (Ok(1), Ok(2)));
}

#[test]
fn what_expired_during_the_restart_is_gone_and_an_ended_stream_has_another_epoch() {
    let mut before = node(2);
    for channel in ["a", "b"] {
        (0..3).for_each(|_| _ = before.publish(channel, "", 0).unwrap());
    }
    let seen = before.position("a");
    let mut after = before.restart(2, 10_001, HISTORY_BYTES);
    let at = |offset| Some(Position { offset, ..seen });
    assert!(after.subscribe("a", at(3)).recovered && !after.subscribe("a", at(2)).recovered);
    assert_eq!(after.publish("b", "", 0), Ok(4), "the position is kept longer");
    let mut after = before.restart(2, 60_001, HISTORY_BYTES);
    after.pass(2_000, 1 << 20);
    let anew = after.position("a");
    assert!(anew.offset == 0 && anew.epoch != seen.epoch, "{anew:?} {seen:?}");
}

#[test]
fn a_start_with_a_slow_clock_ends_no_stream_of_the_snapshot_early() {
    let mut before = node(1);
    (0..3).for_each(|_| _ = before.publish("a", "", 0).unwrap());
    let seen = before.position("a");
    let mut slow = before.restart(1, -120_000, HISTORY_BYTES);
    assert_eq!(slow.publish("a", "", 0), Ok(4));
    let mut after = slow.restart(1, 120_000, HISTORY_BYTES);
    after.pass(2_000, 1 << 20);
    assert_eq!(after.position("a"), Position { offset: 4, ..seen });
}

#[test]
fn an_unpublished_channel_keeps_its_epoch_when_its_partition_was_renewed() {
    let mut before = node(1);
    // Two channels of a partition: the stream of the second one ends.
    let hash = |channel: &str| before.names.hash(channel);
    let mut by_partition = HashMap::new();
    let (quiet, ended) = (0..)
        .map(|nth: u32| nth.to_string())
        .find_map(|name| {
            let earlier = by_partition.insert(partition(hash(&name)), name.clone())?;
            Some((earlier, name))
        })
        .unwrap();
    let seen = before.position(&quiet);
    before.publish(&ended, "", 0).unwrap();
    before.pass(70_000, 1 << 20);
    before.homes[0].begin_drain();
    before.release(&quiet);
    let mut after = before.restart(3, 0, HISTORY_BYTES);
    assert_eq!(after.publish(&quiet, "", 0), Ok(1));
    let answer = after.subscribe(&quiet, Some(seen));
    assert!(answer.recovered && answer.publications.len() == 1, "{answer:?}");
}

#[test]
fn channels_that_lose_their_subscribers_in_the_drain_are_marked() {
    let mut node = node(1);
    for channel in ["a", "b", "c"] {
        node.publish(channel, "", 0).unwrap();
    }
    for channel in ["a", "b"] {
        node.position(channel);
    }
    node.release("a");
    node.homes[0].begin_drain();
    node.release("b");
    let streams = node.save(0).streams.into_iter().map(|one| one.stream);
    let marks: HashMap<_, _> = streams.map(|one| (one.channel, one.was_subscribed)).collect();
    assert_eq!((marks["a"], marks["b"], marks["c"]), (false, true, false));
}

#[test]
fn from_the_first_question_on_nothing_in_memory_is_published_or_removed() {
    let mut node = node(1);
    assert_eq!(node.publish("a", "key", 0), Ok(1));
    node.ask(0, SnapshotQuery::Streams { from: 0 }, 1 << 20);
    assert_eq!(node.publish("a", "", 0), Err(Error::INTERNAL));
    assert_eq!(node.publish("new", "", 0), Err(Error::INTERNAL));
    assert_eq!(node.remove_history("a").unwrap_err(), Error::INTERNAL);
    assert_eq!(node.publish("a", "key", 0), Ok(1), "a repetition");
    assert_eq!(node.save(0).streams[0].publications.len(), 1);
}

#[test]
fn a_question_waits_until_no_publication_is_prepared() {
    let mut node = node(1);
    node.position("a");
    node.bus.full = true;
    let (home, bus, hash) = node.home("a");
    let request = Publish {
        channel: "a".into(),
        hash,
        data: b"1"[..].into(),
        kind: PublicationKind::Data,
        delta: false,
        extra: None,
        retention: Some(RETENTION),
        guard: None,
        reply_to: ReplyTo::Control(1),
        accepted: 0,
    };
    home.handle(Message::Publish(Box::new(request)), bus).unwrap();
    let query = SnapshotQuery::Streams { from: 0 };
    let request = Box::new(SnapshotRequest { tag: 3, query });
    home.handle(Message::SnapshotRequest(request), bus).unwrap();
    node.pass(0, 1 << 20);
    assert!(node.bus.sent.is_empty() && node.homes[0].waits());
    node.bus.full = false;
    node.pass(0, 1 << 20);
    let Some((_, Message::SnapshotAnswer(answer))) = node.bus.sent.pop() else { panic!("none") };
    let SnapshotPart::Streams(streams) = answer.part else { panic!("streams") };
    assert_eq!(streams[0].1.record.top, 1);
}

#[test]
fn an_answer_takes_as_many_turns_as_the_budget_demands() {
    let mut node = node(1);
    for channel in channels() {
        node.publish(&channel, "", 0).unwrap();
    }
    let (parts, turns) = node.ask(0, SnapshotQuery::Streams { from: 0 }, 4_000);
    assert_eq!(parts.iter().map(SnapshotPart::len).sum::<usize>(), 100);
    assert!(turns > 3, "{turns}");
    let (parts, turns) = node.ask(0, SnapshotQuery::Generations { from: 0 }, 100_000);
    assert!(turns > 3 && parts.iter().all(SnapshotPart::is_empty), "{turns}");
}

#[test]
fn parts_are_bounded() {
    let mut node = node(1);
    (0..3_000).for_each(|nth| _ = node.publish(&nth.to_string(), &nth.to_string(), 0).unwrap());
    for query in [SnapshotQuery::Streams { from: 0 }, SnapshotQuery::Keys { from: (0, 0) }] {
        let (parts, _) = node.ask(0, query, 10 << 20);
        assert_eq!(parts.iter().map(SnapshotPart::len).sum::<usize>(), 3_000);
        assert!(parts.iter().all(|part| part.len() <= 1024));
    }
}

#[test]
fn a_smaller_budget_keeps_positions_and_fewer_publications() {
    let mut before = node(2);
    for channel in channels() {
        (0..5).for_each(|_| _ = before.publish(&channel, "", 0).unwrap());
    }
    let mut after = before.restart(2, 0, 100_000);
    let mut whole = 0;
    for channel in channels() {
        let seen = before.position(&channel);
        assert!(after.subscribe(&channel, Some(seen)).recovered, "{channel}");
        let first = Position { offset: 0, ..seen };
        whole += usize::from(after.subscribe(&channel, Some(first)).recovered);
    }
    assert!((1..100).contains(&whole), "{whole}");
}
