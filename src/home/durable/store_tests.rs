//! A home with the real store on a disk in memory, and durability that is turned on and off.
#![cfg(test)]

use std::sync::Arc;

use super::state::WAITING_MAX;
use super::stored::Times;
use super::tests::{ALL, Node, RETENTION, hash, history, names, outcomes};
use crate::home::channels::tests::request;
use crate::model::message::{
    Endpoint, MemberUpdate, Message, Publish, ReplyTo, Subscribe, SubscribeTerms,
};
use crate::model::namespaces::Namespaces;
use crate::model::publication::PublicationKind;
use crate::model::retention::Retention;
use crate::model::storage::{
    StoreAnswer, StoreDue, StoreFound, StoreQuery, StoreRead, StoreRefusal, StoreWrite,
    StoreWritten,
};
use crate::store::batch::tests::{commit, offsets, opened};
use crate::store::disk::{Disk as _, Table};
use crate::store::housekeeping::Housekeeper;
use crate::store::memory_disk::MemoryDisk;
use crate::store::reading;
use crate::wire::protocol::Position;
use crate::wire::protocol::reply::ClientInfo;

/// A node whose store is the real one.
struct StoreNode {
    node: Node,
    disk: MemoryDisk,
}

impl StoreNode {
    fn new() -> Self {
        let mut node = Node::new();
        node.pass(0);
        StoreNode { node, disk: opened() }
    }

    /// A node whose stream has ended. Nothing of its upkeep was sent.
    fn ended() -> Self {
        let mut ended = StoreNode::new();
        ended.node.publish("1", "", 1);
        assert_eq!(outcomes(&ended.serve()), [(1, Ok(1))]);
        ended.node.pass(RETENTION.meta_ttl + 2_000);
        ended
    }

    /// Commits writes as one batch.
    fn commit(&mut self, writes: &[StoreWrite]) {
        let Some(last) = writes.last() else { return };
        let (through, term) = (last.serial, last.term);
        commit(&self.disk, writes);
        let written = StoreWritten { through, term, kept: true, touched: false };
        self.node.send(Message::StoreWritten(written));
    }

    /// The store handles what was sent, until nothing is left. Returns the other messages.
    fn serve(&mut self) -> Vec<(Endpoint, Message)> {
        let mut others = Vec::new();
        loop {
            let (store, sent) = self.node.sent();
            others.extend(sent);
            if store.is_empty() {
                return others;
            }
            for message in store {
                match message {
                    Message::StoreWrite(write) => self.commit(&[*write]),
                    Message::StoreRead(read) => {
                        let (answer, _) = reading::answer(self.disk.view(), &names(), *read);
                        self.node.send(Message::StoreAnswer(Box::new(answer)));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// The writes that were sent.
    fn writes(&mut self) -> Vec<StoreWrite> {
        let write = |message| match message {
            Message::StoreWrite(write) => *write,
            other => panic!("{other:?}"),
        };
        self.node.sent().0.into_iter().map(write).collect()
    }

    /// The history after a crash.
    fn after_crash(&mut self) -> (Vec<String>, u64) {
        self.node.restart();
        self.node.ask(ALL);
        history(self.serve())
    }

    /// Number of publications that the housekeeping of the store would remove.
    fn remains(&self) -> usize {
        let now = self.node.unix_start + self.node.now;
        let found = Housekeeper::new(0).step(&self.disk.view().unwrap(), now).unwrap();
        found.cleanup.remains.iter().map(|remains| remains.offsets.len()).sum()
    }

    /// The operator turns durability on or off, and starts the server anew.
    fn restart(&mut self, durable: bool) {
        self.node.restart();
        if !durable {
            self.node.home.channels.settings.namespaces = Arc::new(Namespaces::default());
        }
    }

    /// The store tells that something of the channel has expired.
    fn tell_expired(&mut self) {
        let due = StoreDue { channels: vec!["a".into()], trims: Vec::new() };
        self.node.send(Message::StoreDue(Box::new(due)));
    }

    /// The store tells that, and the home of the channel does what is to do.
    fn keep_up(&mut self) {
        self.tell_expired();
        for _ in 0..3 {
            self.serve();
            self.node.pass(1_000);
        }
    }
}

/// Publishes to the channel as one whose history is in memory alone.
fn publish_in_memory(node: &mut Node, tag: u64) {
    node.send(Message::Publish(Box::new(Publish {
        channel: "a".into(),
        hash: hash(),
        data: b"in memory"[..].into(),
        kind: PublicationKind::Data,
        delta: false,
        extra: None,
        retention: Some(Retention { durable: false, ..RETENTION }),
        guard: None,
        reply_to: ReplyTo::Control(tag),
        accepted: 0,
    })));
}

fn position(messages: &[(Endpoint, Message)]) -> Option<Position> {
    messages.iter().find_map(|(_, message)| match message {
        Message::Published(published) => published.outcome.ok().flatten(),
        _ => None,
    })
}

#[test]
fn a_publication_behind_the_end_of_its_stream_is_kept() {
    let mut ended = StoreNode::ended();
    ended.serve();
    ended.node.pass(0);
    ended.node.publish("2", "", 2);
    ended.node.publish("3", "", 3);
    let writes = ended.writes();
    let records: Vec<_> = writes.iter().map(|one| one.change.record.is_some()).collect();
    assert_eq!(records, [false, true, true], "the end comes first");
    ended.commit(&writes);
    assert_eq!(outcomes(&ended.serve()), [(2, Ok(2)), (3, Ok(3))]);
    ended.node.publish("4", "", 4);
    assert_eq!(outcomes(&ended.serve()), [(4, Ok(4))]);
    assert_eq!(ended.remains(), 0);
    assert_eq!(ended.after_crash(), (["2", "3", "4"].map(str::to_owned).to_vec(), 4));
}

#[test]
fn a_stream_with_a_publication_on_its_way_does_not_end() {
    let mut ended = StoreNode::ended();
    // The write that erases the old publications is on its way.
    let upkeep = ended.writes();
    ended.node.publish("2", "", 2);
    ended.commit(&upkeep);
    ended.node.pass(0);
    let writes = ended.writes();
    assert!(writes.iter().all(|write| write.change.record.is_some()), "{writes:?}");
    ended.commit(&writes);
    assert_eq!(outcomes(&ended.serve()), [(2, Ok(2))]);
    assert_eq!(ended.remains(), 0);
    assert_eq!(ended.after_crash(), (vec!["2".to_owned()], 2));
}

#[test]
fn a_publication_that_is_committed_while_expired_ones_are_looked_for_is_kept() {
    let mut store = StoreNode::new();
    store.node.publish("1", "", 1);
    store.serve();
    store.node.shed();
    // The first publication has expired, and the wheel has not turned yet.
    store.node.now += RETENTION.ttl + 500;
    let (now, unix) = (store.node.now, store.node.unix_start + store.node.now);
    store.node.home.begin_turn(Times { now, unix });
    store.node.publish("2", "", 2);
    store.node.pass(1_500);
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for message in store.node.sent().0 {
        match message {
            Message::StoreWrite(one) => writes.push(*one),
            Message::StoreRead(one) => reads.push(*one),
            other => panic!("{other:?}"),
        }
    }
    // A reader looks at the disk before the batch is on it, and answers later.
    let read = reads.pop().expect("the home asks what has expired");
    let (answer, _) = reading::answer(store.disk.view(), &names(), read);
    store.commit(&writes);
    store.node.send(Message::StoreAnswer(Box::new(answer)));
    assert_eq!(outcomes(&store.serve()), [(2, Ok(2))]);
    store.node.publish("3", "", 3);
    assert_eq!(outcomes(&store.serve()), [(3, Ok(3))]);
    assert_eq!(offsets(&store.disk, "a"), [2, 3]);
    assert_eq!(store.after_crash(), (["2", "3"].map(str::to_owned).to_vec(), 3));
}

/// The look for expired publications among these messages, if there is one, and the writes.
fn look_and_writes(messages: Vec<Message>) -> (Option<StoreRead>, Vec<StoreWrite>) {
    let (mut look, mut writes) = (None, Vec::new());
    for message in messages {
        match message {
            Message::StoreWrite(one) => writes.push(*one),
            Message::StoreRead(one) => {
                assert!(matches!(one.query, StoreQuery::OldestAlive { .. }), "{one:?}");
                look = Some(*one);
            }
            other => panic!("{other:?}"),
        }
    }
    (look, writes)
}

/// A node whose first publication, with a key, has expired; the second one has not. Memory has
/// neither, and the home has asked what has expired.
fn looking() -> (StoreNode, StoreRead) {
    let mut store = StoreNode::new();
    store.node.publish("1", "key", 1);
    store.serve();
    store.node.pass(5_000);
    store.node.publish("2", "", 2);
    store.serve();
    store.node.shed();
    store.node.pass(RETENTION.ttl - 3_000);
    let (look, _) = look_and_writes(store.node.sent().0);
    (store, look.expect("the home asks what has expired"))
}

#[test]
fn a_look_for_expired_publications_reads_nothing_else_and_delays_no_request() {
    let (mut store, look) = looking();
    assert_eq!(look.query, StoreQuery::OldestAlive { offsets: 1..3 });
    store.node.publish("3", "", 3);
    assert_eq!(outcomes(&store.serve()), [(3, Ok(3))], "a publication does not wait");
    store.node.ask(ALL);
    assert_eq!(history(store.serve()), (vec!["2".to_owned(), "3".to_owned()], 3));
    let (answer, _) = reading::answer(store.disk.view(), &names(), look);
    assert!(matches!(answer.result, Ok(StoreFound::OldestAlive(Some((2, _))))), "{answer:?}");
    assert_eq!((store.node.home.store_waits(), store.node.home.pins()), (1, 1));
    store.node.send(Message::StoreAnswer(Box::new(answer)));
    assert_eq!((store.node.home.store_waits(), store.node.home.pins()), (0, 0));
    store.node.publish("4", "", 4);
    let (_, writes) = look_and_writes(store.node.sent().0);
    let record = writes[0].change.record.as_ref().unwrap();
    let due = store.node.unix_start + 5_000 + RETENTION.ttl;
    assert_eq!((record.first, record.due), (2, due));
    store.commit(&writes);
    assert_eq!(offsets(&store.disk, "a"), [2, 3, 4]);
}

#[test]
fn a_look_that_the_store_cannot_answer_is_repeated() {
    let (mut store, StoreRead { tag, channel, .. }) = looking();
    let result = Err(StoreRefusal::Unavailable);
    store.node.send(Message::StoreAnswer(Box::new(StoreAnswer {
        tag,
        channel,
        result,
        charge: None,
    })));
    assert!(store.node.sent().0.is_empty(), "not at once");
    store.node.pass(1_200);
    let (look, _) = look_and_writes(store.node.sent().0);
    let (answer, _) = reading::answer(store.disk.view(), &names(), look.expect("another look"));
    store.node.send(Message::StoreAnswer(Box::new(answer)));
    assert_eq!((store.node.home.store_waits(), store.node.home.pins()), (0, 0));
}

#[test]
fn a_publication_that_is_committed_behind_a_look_expires_in_time() {
    let (mut store, look) = looking();
    store.node.pass(RETENTION.ttl);
    store.node.publish("3", "", 3);
    let (_, writes) = look_and_writes(store.node.sent().0);
    let now = store.node.unix_start + store.node.now;
    let (answer, _) = reading::answer(store.disk.view(), &names(), StoreRead { now, ..look });
    assert!(matches!(answer.result, Ok(StoreFound::OldestAlive(None))), "{answer:?}");
    store.node.send(Message::StoreAnswer(Box::new(answer)));
    store.commit(&writes);
    store.node.shed();
    store.node.pass(RETENTION.ttl + 1_000);
    let (look, _) = look_and_writes(store.node.sent().0);
    let query = look.expect("the last publication has expired").query;
    assert_eq!(query, StoreQuery::OldestAlive { offsets: 3..4 });
}

#[test]
fn what_expires_in_memory_is_not_looked_for_on_disk() {
    let mut store = StoreNode::new();
    store.node.publish("1", "", 1);
    store.serve();
    store.node.pass(RETENTION.ttl - 2_000);
    store.node.publish("2", "", 2);
    store.serve();
    // Memory has both when the first one expires, and loses the second one later.
    store.node.pass(4_000);
    store.node.shed();
    let at = store.node.home.channels.find(hash(), "a").unwrap();
    store.node.home.channels.schedule(at);
    store.node.pass(3_500);
    assert!(store.node.sent().0.is_empty(), "memory knows what has expired");
    store.node.pass(5_000);
    let (look, _) = look_and_writes(store.node.sent().0);
    assert_eq!(look.unwrap().query, StoreQuery::OldestAlive { offsets: 2..3 });
}

#[test]
fn what_expires_of_a_channel_that_is_no_longer_durable_is_removed() {
    let mut store = StoreNode::new();
    for nth in 1..=3 {
        store.node.publish("durable", "", nth);
    }
    store.serve();
    store.restart(false);
    store.node.pass(RETENTION.ttl + 1_000);
    store.keep_up();
    assert_eq!(offsets(&store.disk, "a"), [0; 0]);
    assert_eq!(store.disk.entries(Table::Streams).len(), 1, "the stream goes on");
    assert!(store.node.home.is_empty(), "and it is not in memory");
    store.node.pass(RETENTION.meta_ttl);
    store.keep_up();
    assert!(store.disk.entries(Table::Streams).is_empty());
    assert_eq!((store.node.home.store_waits(), store.node.home.store_bytes()), (0, 0));
}

#[test]
fn the_store_can_trim_a_channel_that_is_no_longer_durable() {
    let mut store = StoreNode::new();
    for nth in 1..=4 {
        store.node.publish("durable", "", nth);
    }
    store.serve();
    store.restart(false);
    let due = StoreDue { channels: Vec::new(), trims: vec![("a".into(), 3)] };
    store.node.send(Message::StoreDue(Box::new(due)));
    store.serve();
    assert_eq!(offsets(&store.disk, "a"), [3, 4]);
    store.restart(true);
    assert_eq!(store.after_crash(), (vec!["durable".to_owned(); 2], 4));
}

#[test]
fn no_offset_is_given_twice_when_durability_is_turned_off_and_on() {
    let mut store = StoreNode::new();
    store.node.publish("1", "", 1);
    store.serve();
    store.restart(false);
    store.node.pass(RETENTION.ttl + 1_000);
    store.keep_up();
    publish_in_memory(&mut store.node, 2);
    let in_memory = position(&store.serve()).unwrap();
    assert!(offsets(&store.disk, "a").is_empty(), "it is not on disk");
    store.restart(true);
    store.node.publish("on disk", "", 3);
    let on_disk = position(&store.serve()).unwrap();
    assert_eq!(on_disk.offset, 2);
    assert_ne!(in_memory.epoch, on_disk.epoch);
}

#[test]
fn upkeep_of_a_channel_that_is_no_longer_durable_disturbs_no_publication() {
    let mut store = StoreNode::new();
    store.node.publish("1", "", 1);
    store.serve();
    store.restart(false);
    store.node.pass(RETENTION.ttl + 1_000);
    store.tell_expired();
    publish_in_memory(&mut store.node, 2);
    assert_eq!(outcomes(&store.node.sent().1), [(2, Ok(1))], "no question holds it up");
}

#[test]
fn a_request_of_another_kind_than_its_stream_is_refused() {
    let mut node = Node::new();
    node.pass(0);
    publish_in_memory(&mut node, 1);
    assert_eq!(outcomes(&node.store(true)), [(1, Ok(1))]);
    node.publish("durable", "", 2);
    assert!(matches!(outcomes(&node.store(true))[..], [(2, Err(_))]));
    let mut node = Node::new();
    node.pass(0);
    node.publish("durable", "", 1);
    assert_eq!(outcomes(&node.store(true)), [(1, Ok(1))]);
    node.publish("on its way", "", 2);
    publish_in_memory(&mut node, 3);
    let told = outcomes(&node.store(true));
    assert!(matches!(told[..], [(3, Err(_)), (2, Ok(2))]), "{told:?}");
}

#[test]
fn keys_of_failed_writes_are_bounded_and_charged() {
    let mut node = Node::new();
    node.pass(0);
    node.publish("0", "", 0);
    node.store(true);
    for nth in 1..=3_000 {
        node.publish("x", &format!("key {nth}"), nth);
        node.fail_on_disk();
    }
    let at = node.home.channels.find(hash(), "a").unwrap();
    let stream = node.home.channels.stream_of(at).unwrap();
    let stored = node.home.channels.streams.get(stream).stored().unwrap();
    assert_eq!(stored.failed_keys.len(), 1024, "then keys are refused");
    assert!(node.home.store_bytes() >= 1024 * 32, "{}", node.home.store_bytes());
    // The record is corrected.
    for _ in 0..3 {
        node.pass(1_200);
        node.store(true);
    }
    assert_eq!(node.home.store_bytes(), 0);
    node.publish("y", "key", 4_000);
    assert_eq!(outcomes(&node.store(true)), [(4_000, Ok(2))]);
}

#[test]
fn a_correction_needs_no_room_in_the_budget() {
    let mut node = Node::new();
    node.pass(0);
    node.publish("0", "", 0);
    node.store(true);
    node.publish("x", "key", 1);
    node.fail_on_disk();
    node.home.durable.usage.change(0, 2 << 20);
    node.pass(1_200);
    node.store(true);
    node.home.durable.usage.change(2 << 20, 0);
    assert_eq!(node.home.store_bytes(), 0);
}

fn info(bytes: usize) -> ClientInfo {
    let connection = Some(vec![b'1'; bytes].into_boxed_slice());
    ClientInfo { user: "u".into(), client: "c".into(), connection, channel: None }
}

/// Subscribes with information about the client, without an answer of the store.
fn subscribe_with(node: &mut Node, bytes: usize) {
    let terms = SubscribeTerms { durable: true, ..SubscribeTerms::default() };
    let info = Some(Box::new(info(bytes)));
    let since = Some(Position::default());
    node.send(Message::Subscribe(Box::new(Subscribe {
        terms,
        hash: hash(),
        info,
        ..request(0, since)
    })));
}

#[test]
fn what_a_waiting_subscriber_tells_of_itself_is_charged() {
    let mut node = Node::new();
    node.pass(0);
    for _ in 0..100 {
        subscribe_with(&mut node, 50_000);
    }
    assert!(node.home.durable.waiting < 25, "{}", node.home.durable.waiting);
    node.store(true);
    assert_eq!(node.home.store_bytes(), 0);
}

#[test]
fn an_update_of_a_member_changes_the_subscribe_that_waits() {
    let mut node = Node::new();
    node.pass(0);
    subscribe_with(&mut node, 10);
    let address = request(0, None).subscriber.address();
    for bytes in 0..2 * WAITING_MAX {
        let (channel, hash, info) = ("a".into(), hash(), info(bytes % 100));
        let update = MemberUpdate { channel, hash, address, info };
        node.send(Message::MemberUpdate(Box::new(update)));
    }
    assert_eq!(node.home.durable.waiting, 1);
    let last = (2 * WAITING_MAX - 1) % 100;
    let waiting = node.home.durable.waits.values().flat_map(|wait| &wait.requests);
    let infos = waiting.filter_map(|(message, _)| match message {
        Message::Subscribe(request) => request.info.as_deref(),
        _ => None,
    });
    assert_eq!(infos.collect::<Vec<_>>(), [&info(last)]);
    node.store(true);
    assert_eq!(node.home.store_bytes(), 0);
}
