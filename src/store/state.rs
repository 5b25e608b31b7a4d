//! The store as an endpoint of the bus: batches, terms, refusals, and answers.
//!
//! Owns what is between the bus and the disk. Never blocks, and never touches the disk: it hands
//! out batches and questions, and is told what became of them. The invariants: the answers to the
//! writes of a home are in the order of their serials; after a batch failed, no write of the same
//! term of its homes is kept; an answer that finds no room waits and keeps nothing else from being
//! answered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::base::planted_faults::{PlantedFault, planted};
use crate::base::store_metrics::StoreMetrics;
use crate::model::message::{Endpoint, Message, Post, Rank};
use crate::model::names::Names;
use crate::model::storage::{
    StoreAnswer, StoreDue, StoreRead, StoreRefusal, StoreWrite, StoreWritten,
};
use crate::store::batch::Batch;
use crate::store::disk::{Fault, View};
use crate::store::housekeeping::{Cleanup, Findings, Remains};
use crate::store::{reading, weight};

/// Maximum number of writes that wait for a batch; further ones wait in the inbox.
const WRITES_MAX: usize = 8192;
/// Maximum bytes of these writes.
const BYTES_MAX: usize = 4 << 20;
/// Maximum number of questions that wait for a reader, or for room for their answers; further
/// messages wait in the inbox.
const READS_MAX: usize = 4096;

/// What the store owes one shard.
#[derive(Debug, Default)]
struct ShardDebts {
    /// Writes of this term and of earlier ones are refused.
    failed_term: Option<u32>,
    /// Serial and term of the last write in the batch that is being committed.
    committing: Option<(u64, u32)>,
    /// Answers to writes that wait for room.
    written: VecDeque<StoreWritten>,
    /// Questions that wait for room for their answers.
    reads: VecDeque<StoreRead>,
}

impl ShardDebts {
    /// Notes the answer to all writes up to one.
    fn answer(&mut self, answer: StoreWritten) {
        if let Some(last) = self.written.back_mut() {
            let same = |of: &StoreWritten| (of.term, of.kept, of.touched);
            if same(last) == same(&answer) || planted(PlantedFault::AnswersMerged) {
                last.through = last.through.max(answer.through);
                return;
            }
        }
        self.written.push_back(answer);
    }

    fn refuse(&mut self, serial: u64, term: u32) {
        self.failed_term = self.failed_term.max(Some(term));
        self.answer(StoreWritten { through: serial, term, kept: false, touched: false });
    }
}

/// The contents of a batch.
#[derive(Debug)]
pub struct Work {
    /// Changes of streams.
    pub writes: Vec<StoreWrite>,
    /// What is removed beside.
    pub cleanup: Cleanup,
}

impl Work {
    /// The changes, on top of what is on disk.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn batch<'a, V: View>(&self, view: &'a V) -> Result<Batch<'a, V>, Fault> {
        let mut batch = Batch::new(view, reading::epochs(view)?);
        for write in &self.writes {
            batch.add(write)?;
        }
        for Remains { channel, offsets } in &self.cleanup.remains {
            batch.remove_remains(channel, offsets)?;
        }
        for key in &self.cleanup.keys {
            batch.remove_expired_key(key.clone());
        }
        Ok(batch)
    }
}

/// The state of the store.
pub struct StoreState {
    shards: Vec<ShardDebts>,
    names: Names,
    metrics: Arc<StoreMetrics>,
    /// Whether the disk is usable.
    is_open: bool,
    /// Writes for the next batch.
    pending: Vec<StoreWrite>,
    pending_bytes: usize,
    /// What the next batch removes beside.
    cleanup: Cleanup,
    /// Whether a batch is being committed.
    is_committing: bool,
    /// Questions for the readers. Room for their answers is reserved.
    reads: VecDeque<StoreRead>,
    /// Questions of all shards that wait for room.
    waiting_reads: usize,
}

impl StoreState {
    /// The state of a store that serves `shards`. It is closed until [`StoreState::opened`].
    pub fn new(shards: usize, names: Names, metrics: Arc<StoreMetrics>) -> Self {
        StoreState {
            shards: (0..shards).map(|_| ShardDebts::default()).collect(),
            names,
            metrics,
            is_open: false,
            pending: Vec::new(),
            pending_bytes: 0,
            cleanup: Cleanup::default(),
            is_committing: false,
            reads: VecDeque::new(),
            waiting_reads: 0,
        }
    }

    /// Whether the store takes another message.
    pub fn has_room(&self) -> bool {
        self.pending.len() < WRITES_MAX
            && self.pending_bytes < BYTES_MAX
            && self.reads.len() + self.waiting_reads < READS_MAX
    }

    /// Takes a message from the inbox.
    pub fn take(&mut self, message: Message, post: &mut impl Post) {
        match message {
            Message::StoreWrite(write) => self.take_write(*write),
            Message::StoreRead(read) => self.take_read(*read, post),
            _ => {}
        }
    }

    fn take_write(&mut self, write: StoreWrite) {
        let Some(debts) = self.shards.get_mut(usize::from(write.shard)) else { return };
        let has_failed =
            debts.failed_term >= Some(write.term) && !planted(PlantedFault::WriteBehindFailureKept);
        if !self.is_open || has_failed {
            self.metrics.refused_writes.add(1);
            return debts.refuse(write.serial, write.term);
        }
        self.pending_bytes += weight::of(&write);
        self.pending.push(write);
    }

    fn take_read(&mut self, read: StoreRead, post: &mut impl Post) {
        let Some(debts) = self.shards.get_mut(usize::from(read.shard)) else { return };
        if debts.reads.is_empty() && post.reserve(read.shard, Rank::Store) {
            return self.begin_read(read, post);
        }
        debts.reads.push_back(read);
        self.waiting_reads += 1;
    }

    /// Hands a question with room for its answer to the readers, or refuses it.
    fn begin_read(&mut self, read: StoreRead, post: &mut impl Post) {
        if self.is_open {
            return self.reads.push_back(read);
        }
        self.refuse_read(read, post);
    }

    fn refuse_read(&mut self, read: StoreRead, post: &mut impl Post) {
        let StoreRead { shard, tag, channel, .. } = read;
        let result = Err(StoreRefusal::Unavailable);
        post.send(
            shard,
            Message::StoreAnswer(Box::new(StoreAnswer { tag, channel, result, charge: None })),
        );
        self.metrics.refused_reads.add_shared(1);
    }

    /// The next question for a reader, which sends the answer into the room reserved for it.
    pub fn next_read(&mut self) -> Option<StoreRead> {
        self.reads.pop_front()
    }

    /// Whether a question waits for a reader.
    pub fn has_read(&self) -> bool {
        !self.reads.is_empty()
    }

    /// Whether a batch of writes can begin.
    pub fn has_batch(&self) -> bool {
        self.can_commit() && !self.pending.is_empty()
    }

    fn can_commit(&self) -> bool {
        self.is_open && !self.is_committing
    }

    /// Begins the next batch, if there are writes. [`StoreState::committed`] or
    /// [`StoreState::closed`] ends it.
    pub fn next_batch(&mut self) -> Option<Work> {
        self.has_batch().then(|| self.begin_batch())
    }

    /// Begins a batch that only removes, if there is something to remove.
    pub fn next_cleanup(&mut self) -> Option<Work> {
        let has_work = self.can_commit() && !self.cleanup.is_empty();
        has_work.then(|| self.begin_batch())
    }

    fn begin_batch(&mut self) -> Work {
        self.is_committing = true;
        self.pending_bytes = 0;
        let writes = std::mem::take(&mut self.pending);
        for write in &writes {
            if let Some(debts) = self.shards.get_mut(usize::from(write.shard)) {
                debts.committing = Some((write.serial, write.term));
            }
        }
        Work { writes, cleanup: std::mem::take(&mut self.cleanup) }
    }

    /// Takes what a step of the housekeeping has found.
    pub fn take_findings(&mut self, findings: Findings, post: &mut impl Post) {
        if let Some(bytes) = findings.stored_bytes {
            self.metrics.stored_bytes.set(bytes);
        }
        self.send_due(findings.due, findings.trims, post);
        self.cleanup = findings.cleanup;
    }

    /// Whether the findings of the last step were taken up.
    pub fn is_clean(&self) -> bool {
        self.cleanup.is_empty()
    }

    /// The batch is on disk.
    pub fn committed(&mut self, post: &mut impl Post) {
        self.end_batch(true);
        self.send_answers(post);
    }

    fn end_batch(&mut self, kept: bool) {
        self.is_committing = false;
        for debts in &mut self.shards {
            let Some((through, term)) = debts.committing.take() else { continue };
            if !kept {
                debts.failed_term = debts.failed_term.max(Some(term));
            }
            debts.answer(StoreWritten { through, term, kept, touched: !kept });
        }
    }

    /// The disk failed. The batch that was being committed, every write that waits for a batch, and
    /// every question that waits for a reader is refused, and so are later ones until
    /// [`StoreState::opened`].
    pub fn closed(&mut self, post: &mut impl Post) {
        self.is_open = false;
        self.metrics.accepts.set(0);
        self.end_batch(false);
        self.cleanup = Cleanup::default();
        self.pending_bytes = 0;
        self.metrics.refused_writes.add(self.pending.len() as u64);
        for write in std::mem::take(&mut self.pending) {
            if let Some(debts) = self.shards.get_mut(usize::from(write.shard)) {
                debts.refuse(write.serial, write.term);
            }
        }
        for read in std::mem::take(&mut self.reads) {
            self.refuse_read(read, post);
        }
        self.send_answers(post);
    }

    /// The disk is open.
    pub fn opened(&mut self) {
        self.is_open = true;
        self.metrics.accepts.set(1);
    }

    /// Whether the disk is open.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Sends the answers that have room, and begins the questions whose answers have room.
    pub fn send_answers(&mut self, post: &mut impl Post) {
        for shard in 0..self.shards.len() {
            let to = shard as Endpoint;
            while let Some(debts) = self.shards.get_mut(shard)
                && !debts.written.is_empty()
                && post.reserve(to, Rank::Store)
            {
                if let Some(answer) = debts.written.pop_front() {
                    post.send(to, Message::StoreWritten(answer));
                }
            }
            while let Some(debts) = self.shards.get_mut(shard)
                && !debts.reads.is_empty()
                && post.reserve(to, Rank::Store)
            {
                if let Some(read) = debts.reads.pop_front() {
                    self.waiting_reads -= 1;
                    self.begin_read(read, post);
                }
            }
        }
    }

    /// Asks the homes of these channels to remove what has expired or is too much. Channels of a
    /// home without room are left out: a later walk finds them again.
    fn send_due(
        &mut self,
        channels: Vec<Arc<str>>,
        trims: Vec<(Arc<str>, u64)>,
        post: &mut impl Post,
    ) {
        let home_of = |channel: &str| self.names.home(self.names.hash(channel));
        let mut by_home: BTreeMap<Endpoint, StoreDue> = BTreeMap::new();
        for channel in channels {
            by_home.entry(home_of(&channel)).or_default().channels.push(channel);
        }
        for trim in trims {
            by_home.entry(home_of(&trim.0)).or_default().trims.push(trim);
        }
        for (home, due) in by_home {
            if usize::from(home) < self.shards.len() && post.reserve(home, Rank::Store) {
                post.send(home, Message::StoreDue(Box::new(due)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::tests::Recorder;
    use crate::model::storage::StoreQuery;
    use crate::store::batch::tests::publish;

    fn state() -> StoreState {
        let mut state = StoreState::new(3, Names::new([0; 16], 3), Arc::default());
        state.opened();
        state
    }

    fn write(shard: Endpoint, serial: u64, term: u32) -> Message {
        Message::StoreWrite(Box::new(StoreWrite { shard, serial, term, ..publish("a", serial, 1) }))
    }

    fn read(shard: Endpoint, tag: u64) -> Message {
        let query = StoreQuery::Load { limit: 1, bytes: 1 };
        Message::StoreRead(Box::new(StoreRead { shard, tag, channel: "a".into(), now: 0, query }))
    }

    fn written(through: u64, term: u32, kept: bool, touched: bool) -> StoreWritten {
        StoreWritten { through, term, kept, touched }
    }

    /// The answers to writes that were sent since the last call.
    fn answers(bus: &mut Recorder) -> Vec<(Endpoint, StoreWritten)> {
        let answer = |(to, message)| match message {
            Message::StoreWritten(written) => Some((to, written)),
            _ => None,
        };
        std::mem::take(&mut bus.sent).into_iter().filter_map(answer).collect()
    }

    fn serials(batch: Option<Work>) -> Vec<(Endpoint, u64)> {
        let writes = batch.map(|batch| batch.writes).unwrap_or_default();
        writes.iter().map(|write| (write.shard, write.serial)).collect()
    }

    #[test]
    fn what_arrives_during_a_commit_is_the_next_batch_and_each_shard_gets_one_answer() {
        let (mut state, mut bus) = (state(), Recorder::default());
        state.take(write(0, 1, 0), &mut bus);
        assert_eq!(serials(state.next_batch()), [(0, 1)]);
        for message in [write(0, 2, 0), write(1, 1, 5), write(0, 3, 0)] {
            state.take(message, &mut bus);
        }
        assert!(!state.has_batch() && state.next_batch().is_none(), "one at a time");
        state.committed(&mut bus);
        assert_eq!(answers(&mut bus), [(0, written(1, 0, true, false))]);
        assert_eq!(serials(state.next_batch()), [(0, 2), (1, 1), (0, 3)]);
        state.committed(&mut bus);
        let expected = [(0, written(3, 0, true, false)), (1, written(1, 5, true, false))];
        assert_eq!(answers(&mut bus), expected);
        assert!(state.next_batch().is_none());
    }

    #[test]
    fn after_a_failure_every_write_of_the_term_is_refused_and_the_next_term_is_kept() {
        let (mut state, mut bus) = (state(), Recorder::default());
        state.take(write(0, 1, 0), &mut bus);
        state.next_batch();
        state.take(write(0, 2, 0), &mut bus);
        state.take(write(1, 1, 0), &mut bus);
        state.closed(&mut bus);
        // The write of the second batch did not touch the disk.
        let expected = [
            (0, written(1, 0, false, true)),
            (0, written(2, 0, false, false)),
            (1, written(1, 0, false, false)),
        ];
        assert_eq!(answers(&mut bus), expected);
        state.take(write(0, 3, 1), &mut bus);
        state.send_answers(&mut bus);
        assert_eq!(answers(&mut bus), [(0, written(3, 1, false, false))], "the disk is closed");
        state.opened();
        // Decided before the home knew of the failure.
        state.take(write(0, 4, 1), &mut bus);
        state.take(write(0, 5, 2), &mut bus);
        state.send_answers(&mut bus);
        assert_eq!(answers(&mut bus), [(0, written(4, 1, false, false))]);
        assert_eq!(serials(state.next_batch()), [(0, 5)]);
        state.committed(&mut bus);
        assert_eq!(answers(&mut bus), [(0, written(5, 2, true, false))]);
        // A home that had no write then keeps its term.
        state.take(write(2, 1, 0), &mut bus);
        assert_eq!(serials(state.next_batch()), [(2, 1)]);
    }

    #[test]
    fn answers_wait_for_room_per_shard_and_become_one() {
        let (mut state, mut bus) = (state(), Recorder::default());
        bus.full = true;
        for serial in 1..4 {
            state.take(write(0, serial, 0), &mut bus);
            state.next_batch();
            state.committed(&mut bus);
        }
        state.take(write(0, 4, 0), &mut bus);
        state.next_batch();
        state.closed(&mut bus);
        assert!(bus.sent.is_empty());
        bus.full = false;
        state.send_answers(&mut bus);
        let expected = [(0, written(3, 0, true, false)), (0, written(4, 0, false, true))];
        assert_eq!(answers(&mut bus), expected);
    }

    #[test]
    fn a_question_begins_when_its_answer_has_room() {
        let (mut state, mut bus) = (state(), Recorder::default());
        bus.full = true;
        state.take(read(0, 1), &mut bus);
        assert!(state.next_read().is_none());
        bus.full = false;
        state.take(read(0, 2), &mut bus);
        assert!(!state.has_read(), "it waits behind the first one");
        state.send_answers(&mut bus);
        let tags: Vec<u64> =
            std::iter::from_fn(|| state.next_read()).map(|read| read.tag).collect();
        assert_eq!(tags, [1, 2]);
    }

    #[test]
    fn questions_are_refused_at_once_while_the_disk_is_closed() {
        let (mut state, mut bus) = (state(), Recorder::default());
        state.take(read(0, 1), &mut bus);
        state.closed(&mut bus);
        state.take(read(1, 2), &mut bus);
        let refused = bus.sent.iter().map(|(to, message)| match message {
            Message::StoreAnswer(answer) => {
                assert_eq!(answer.result.as_ref().err(), Some(&StoreRefusal::Unavailable));
                (*to, answer.tag)
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(refused.collect::<Vec<_>>(), [(0, 1), (1, 2)]);
        assert!(state.next_read().is_none());
    }

    #[test]
    fn the_inbox_is_not_read_past_the_bounds() {
        let (mut state, mut bus) = (state(), Recorder::default());
        for serial in 0..WRITES_MAX as u64 {
            assert!(state.has_room());
            state.take(write(0, serial + 1, 0), &mut bus);
        }
        assert!(!state.has_room());
        assert_eq!(state.next_batch().map(|batch| batch.writes.len()), Some(WRITES_MAX));
        assert!(state.has_room());
        for tag in 0..READS_MAX as u64 {
            assert!(state.has_room());
            state.take(read(0, tag), &mut bus);
        }
        assert!(!state.has_room());
        state.next_read();
        assert!(state.has_room());
    }

    #[test]
    fn homes_are_asked_to_remove_what_has_expired() {
        let (mut state, mut bus) = (state(), Recorder::default());
        let names = Names::new([0; 16], 3);
        let channels: Vec<Arc<str>> = (0..20).map(|nth| format!("c{nth}").into()).collect();
        let due = |due| Findings { due, ..Findings::default() };
        state.take_findings(due(channels.clone()), &mut bus);
        let mut found = 0;
        for (to, message) in &bus.sent {
            let Message::StoreDue(due) = message else { panic!("{message:?}") };
            found += due.channels.len();
            assert!(due.channels.iter().all(|name| names.home(names.hash(name)) == *to));
        }
        assert_eq!((found, bus.sent.len()), (20, 3));
        bus.full = true;
        state.take_findings(due(channels), &mut bus);
        assert_eq!(bus.sent.len(), 3, "a later walk finds them again");
    }

    #[test]
    fn what_the_housekeeping_found_goes_into_the_next_batch_or_into_one_of_its_own() {
        let (mut state, mut bus) = (state(), Recorder::default());
        let findings = || {
            let cleanup = Cleanup { keys: vec![b"k".to_vec()], remains: Vec::new() };
            Findings { cleanup, ..Findings::default() }
        };
        assert!(state.next_cleanup().is_none());
        state.take_findings(findings(), &mut bus);
        assert!(!state.is_clean() && !state.has_batch(), "it does not hurry");
        state.take(write(0, 1, 0), &mut bus);
        let work = state.next_batch().unwrap();
        assert_eq!((work.writes.len(), work.cleanup), (1, findings().cleanup));
        assert!(state.is_clean());
        state.committed(&mut bus);
        state.take_findings(findings(), &mut bus);
        let work = state.next_cleanup().unwrap();
        assert_eq!((work.writes.len(), work.cleanup), (0, findings().cleanup));
        assert!(state.next_cleanup().is_none());
        state.take_findings(findings(), &mut bus);
        state.closed(&mut bus);
        assert!(state.is_clean(), "a later walk finds it again");
    }
}
