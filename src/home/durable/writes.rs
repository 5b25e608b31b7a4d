//! Writes of a home to the store: publications, removals of histories, and upkeep.
//!
//! Owns no state of its own: it is in [`Durable`]. Never commits a write before the store has it on
//! disk. The invariant: a failed write changes nothing that a client can see.

use std::sync::Arc;

use crate::base::planted_faults::{PlantedFault, planted};
use crate::home::channel_publications::{PreparedPublication, version_of};
use crate::home::durable::sent::{Refusal, SentWrite, What};
use crate::home::durable::state::{Durable, PAUSE, STEPS_MAX};
use crate::home::durable::stored::{ERASED_MAX, FAILED_KEYS_MAX, Span, StoredPart};
use crate::home::history::Stream;
use crate::home::publishing::published;
use crate::home::{Home, NoRoom};
use crate::model::message::{
    ChannelAnswer, HomeAnswer, HomeQuery, Message, Post, Publish, Rank, ReplyTo,
};
use crate::model::storage::{
    StoreWrite, StoreWritten, StoredPublication, StreamChange, StreamRecord,
};
use crate::wire::protocol::{Error, Position};

/// Estimated memory of a write beside its publication: the message, its entry and its key.
pub(super) const WRITE_OVERHEAD: usize = 512;

impl Home {
    /// Reserves what a write of this size needs: a place, memory, and room in the store's inbox.
    pub(super) fn reserve_write(&mut self, post: &mut impl Post, bytes: usize) -> bool {
        if !self.durable.charge(bytes) {
            return false;
        }
        let has_room = self.reserve_place(post);
        if !has_room {
            self.durable.usage.change(bytes, 0);
        }
        has_room
    }

    /// Publishes to a durable channel whose stream is loaded: sends the publication to the store.
    /// `Err` returns the request: there is no room for the answer that it is refused.
    pub(super) fn publish_durable(
        &mut self,
        post: &mut impl Post,
        at: u32,
        request: Box<Publish>,
    ) -> Result<(), Message> {
        if let Some(position) = self.channels.published_before(&request, self.now) {
            return self.answer_publish(post, request, Ok(position));
        }
        let version = self.stream_at(at).and_then(Stream::sent_version);
        let version = version.map_or(0, |(_, epoch)| epoch.len());
        let bytes = WRITE_OVERHEAD + 2 * (request.size() + version);
        if !self.can_publish(at, &request) || !self.reserve_write(post, bytes) {
            return self.answer_publish(post, request, Err(Error::INTERNAL));
        }
        let Some((prepared, change, after)) = self.prepare_durable(at, *request) else {
            // The caller has checked that the stream is there.
            self.durable.usage.change(bytes, 0);
            return Ok(());
        };
        self.send_write(post, (at, bytes), What::Publication(prepared), change, after);
        Ok(())
    }

    /// Whether the stream is durable, and nothing that is not committed must come first.
    fn can_publish(&self, at: u32, request: &Publish) -> bool {
        let Some(stored) = self.stream_at(at).and_then(Stream::stored) else { return false };
        let has_key = request.guard.as_ref().is_some_and(|guard| !guard.key.is_empty());
        let takes_key = !has_key || stored.failed_keys.len() < FAILED_KEYS_MAX;
        takes_key && !(self.has_sent(at) && self.is_sent(request))
    }

    /// Whether writes of the channel are not committed.
    fn has_sent(&self, at: u32) -> bool {
        self.channels.channels.get(at as usize).is_some_and(|channel| channel.pins > 0)
    }

    /// Whether a publication that is not committed decides if the request is a repetition.
    fn is_sent(&self, request: &Publish) -> bool {
        request.guard.is_some()
            && self.durable.writes.iter().any(|write| match &write.what {
                What::Publication(prepared) => prepared.may_repeat(request),
                _ => false,
            })
    }

    /// Assigns the offset, and describes the write.
    fn prepare_durable(
        &mut self,
        at: u32,
        request: Publish,
    ) -> Option<(PreparedPublication, StreamChange, Span)> {
        let (retention, times) = (request.retention?, self.durable.times);
        let stream = self.channels.stream_of(at)?;
        let stream = self.channels.streams.get_mut(stream);
        let (epoch, stored) = (stream.epoch(), stream.stored()?);
        let top = stored.sent.top + 1;
        let is_carried = stored.can_carry(top);
        let size = retention.size as u64;
        let first = stored.sent.first.max(stored.first).max((top + 1).saturating_sub(size));
        // Only what is no longer part of the committed history is erased.
        let old = Span { first: stored.first, ..stored.sent }.remains(ERASED_MAX);
        let oldest = old.end.max(stored.sent.oldest);
        let due = match first == top {
            true => times.now.saturating_add(retention.ttl),
            false => stream.sent_due(first),
        };
        let bytes = stored.sent.bytes_from(first);
        let mut after = Span { top, first, oldest, due, bytes };
        let stored = stream.stored_mut()?;
        let (beyond, erased_keys) = stored.begin_correction(self.durable.serial + 1, top);
        if planted(PlantedFault::TrimmedBeforeCommit) {
            stored.first = first;
        }
        let guard = request.guard.as_deref();
        stored.sent_version = guard.and_then(version_of).or(stored.sent_version.take());
        let position = Position { offset: top, epoch };
        let expires = times.unix.saturating_add(retention.ttl);
        let ends = times.unix.saturating_add(retention.meta_ttl);
        stored.ends = stored.ends.max(ends);
        let record = stream.record(after, Some(ends), times);
        let prepared = self.channels.encode(request, Some(position));
        let publication = prepared.publication().clone();
        after.bytes = bytes.saturating_add(publication.size() as u64);
        self.stored_at(at)?.sent = after;
        let change = StreamChange {
            record: Some(StreamRecord { bytes: after.bytes, ..record }),
            publication: Some(StoredPublication { publication, expires }),
            is_carried,
            erased: [old, beyond],
            key: prepared.stored_key(times.unix),
            erased_keys,
        };
        Some((prepared, change, after))
    }

    /// Sends a write for which everything is reserved; `estimate` bytes are charged for it.
    fn send_write(
        &mut self,
        post: &mut impl Post,
        (at, estimate): (u32, usize),
        what: What,
        change: StreamChange,
        after: Span,
    ) {
        let Some(channel) = self.channels.channels.get(at as usize) else { return };
        let channel = channel.name.clone();
        self.pin(at);
        self.post_write(post, (at, channel), estimate, (what, after), change);
    }

    /// Sends a write of a channel at the index `at`. Everything is reserved; `estimate` bytes are
    /// charged for it.
    pub(super) fn post_write(
        &mut self,
        post: &mut impl Post,
        (at, channel): (u32, Arc<str>),
        estimate: usize,
        (what, after): (What, Span),
        change: StreamChange,
    ) {
        let Some(store) = self.durable.store else { return };
        // The change is in memory, and once more in a batch of the store.
        let bytes = WRITE_OVERHEAD + 2 * (channel.len() + change.size());
        let bytes = self.durable.recharge(estimate, bytes);
        self.durable.serial += 1;
        let Durable { serial, term, shard, times, .. } = self.durable;
        let (unix, is_carried) = (times.unix, change.is_carried);
        let sent = SentWrite { serial, unix, at, after, is_carried, bytes, what };
        self.durable.writes.push_back(sent);
        let write = StoreWrite { shard, serial, term, channel, change };
        post.send(store, Message::StoreWrite(Box::new(write)));
        if planted(PlantedFault::CommittedBeforeStored) {
            self.durable.kept = self.durable.serial;
        }
    }

    /// Removes the history of a durable channel whose stream is loaded. `Err` returns the query:
    /// there is no room for the answer that it is refused.
    pub(super) fn remove_durable(
        &mut self,
        post: &mut impl Post,
        at: u32,
        question: Box<HomeQuery>,
    ) -> Result<(), Message> {
        let recorded = self
            .stream_at(at)
            .and_then(Stream::stored)
            .is_some_and(|stored| stored.is_recorded || stored.sent.top > 0);
        if !recorded {
            // Nothing was ever published.
            return self.answer_query(post, question, Ok(ChannelAnswer::HistoryRemoved));
        }
        if !self.reserve_write(post, WRITE_OVERHEAD) {
            return self.answer_query(post, question, Err(Error::INTERNAL));
        }
        let removed = |span: Span| Span { first: span.top + 1, ..span };
        if planted(PlantedFault::RemovalBeforeStored) {
            self.send_correction(post, at, removed, What::Upkeep);
            return self.answer_query(post, question, Ok(ChannelAnswer::HistoryRemoved));
        }
        self.send_correction(post, at, removed, What::Removal(question.reply_to));
        Ok(())
    }

    /// Removes the publications before `first` from the history, if there is room for the write:
    /// otherwise the store asks again.
    pub(super) fn trim_durable(&mut self, post: &mut impl Post, at: u32, first: u64) {
        let stored = self.stream_at(at).and_then(Stream::stored);
        let is_older = stored.is_some_and(|stored| stored.sent.first < first);
        if is_older && self.reserve_write(post, WRITE_OVERHEAD) {
            let trimmed = |span: Span| Span { first: first.min(span.top + 1), ..span };
            self.send_correction(post, at, trimmed, What::Trim);
        }
    }

    /// Sends a write without a publication. Everything is reserved.
    fn send_correction(
        &mut self,
        post: &mut impl Post,
        at: u32,
        change: impl FnOnce(Span) -> Span,
        what: What,
    ) {
        let times = self.durable.times;
        let Some(stream) = self.channels.stream_of(at) else { return };
        let stream = self.channels.streams.get_mut(stream);
        let Some(stored) = stream.stored() else { return };
        let old = Span { first: stored.first, ..stored.sent }.remains(ERASED_MAX);
        let oldest = old.end.max(stored.sent.oldest);
        let first = stored.sent.first.max(stored.first);
        let changed = change(Span { oldest, first, ..stored.sent });
        let (due, bytes) = (stream.sent_due(changed.first), stored.sent.bytes_from(changed.first));
        let after = Span { due, bytes, ..changed };
        let Some(stored) = stream.stored_mut() else { return };
        stored.sent = after;
        stored.is_ending = matches!(what, What::End);
        let (beyond, erased_keys) = stored.begin_correction(self.durable.serial + 1, after.top);
        let record = stream.record(after, None, times);
        let change = StreamChange {
            record: (!matches!(what, What::End)).then_some(record),
            erased: [old, beyond],
            erased_keys,
            ..StreamChange::default()
        };
        self.send_write(post, (at, WRITE_OVERHEAD), what, change, after);
    }

    /// Removes the record of a stream that has ended and that is not in memory, if there is room;
    /// otherwise the store finds it again.
    pub(super) fn end_stored(&mut self, post: &mut impl Post, at: u32) {
        if self.reserve_write(post, WRITE_OVERHEAD) {
            let change = StreamChange::default();
            // The stream that follows begins so.
            let after = Span { first: 1, oldest: 1, ..Span::default() };
            self.send_write(post, (at, WRITE_OVERHEAD), What::End, change, after);
        }
    }

    /// Tells the store what no publication has told it. Everything is reserved.
    pub(super) fn send_upkeep(&mut self, post: &mut impl Post, at: u32, ends: bool) {
        let what = if ends { What::End } else { What::Upkeep };
        self.send_correction(post, at, |span| span, what);
    }

    /// Reserves what an upkeep needs. It needs no room in the memory budget, because it frees some.
    pub(super) fn reserve_upkeep(&mut self, post: &mut impl Post) -> bool {
        let has_room = self.reserve_place(post);
        if has_room {
            self.durable.usage.change(0, WRITE_OVERHEAD);
        }
        has_room
    }

    /// Reserves a place, and room in the store's inbox.
    fn reserve_place(&self, post: &mut impl Post) -> bool {
        let Some(store) = self.durable.store else { return false };
        self.durable.admits() && post.reserve(store, Rank::Store)
    }

    pub(super) fn stream_at(&self, at: u32) -> Option<&Stream> {
        Some(self.channels.streams.get(self.channels.stream_of(at)?))
    }

    /// Handles the answer of the store to writes.
    pub(in crate::home) fn written(&mut self, post: &mut impl Post, written: StoreWritten) {
        if written.kept {
            self.durable.kept = self.durable.kept.max(written.through.min(self.durable.serial));
        } else if written.term == self.durable.term || planted(PlantedFault::TermIgnored) {
            self.fail_writes(written);
        }
        self.commit_written(post);
    }

    /// Commits what is on disk, in order, while the inboxes have room; the rest in a later turn.
    pub(super) fn commit_written(&mut self, post: &mut impl Post) {
        for _ in 0..STEPS_MAX {
            if !self.durable.has_kept() {
                return;
            }
            let Some(write) = self.durable.writes.pop_front() else { return };
            let bytes = write.bytes;
            if let Err(write) = self.commit_write(post, write) {
                return self.durable.writes.push_front(*write);
            }
            self.durable.usage.change(bytes, 0);
        }
        self.durable.goes_on |= self.durable.has_kept();
    }

    /// Commits one write. `Err` returns it: an inbox is full.
    fn commit_write(
        &mut self,
        post: &mut impl Post,
        write: SentWrite,
    ) -> Result<(), Box<SentWrite>> {
        let SentWrite { serial, unix, at, after, is_carried, bytes, what } = write;
        let full = |what| Box::new(SentWrite { serial, unix, at, after, is_carried, bytes, what });
        let (mut versioned, is_recorded) = (false, !matches!(what, What::End));
        let removes = matches!(what, What::Removal(_) | What::Trim);
        self.end_correction(at, serial);
        match what {
            What::Publication(prepared) => {
                versioned = prepared.version().is_some();
                self.commit(post, prepared)
                    .map_err(|prepared| full(What::Publication(prepared)))?;
            }
            What::Removal(reply_to) => {
                let answer = || removed(reply_to);
                self.send_answer(post, reply_to, answer)
                    .map_err(|NoRoom| full(What::Removal(reply_to)))?;
                self.channels.clear_history(at);
                self.unpin(at);
            }
            What::Trim => {
                self.channels.trim_history(at, after.first);
                self.unpin(at);
            }
            What::Upkeep => self.unpin(at),
            What::End => {
                self.unpin(at);
                self.channels.forget_stream(at, self.now);
            }
            What::Leftover => return Ok(()),
        }
        self.note_stored(at, after, (versioned, is_recorded));
        if !is_carried {
            self.note_recorded(at, after.top);
        }
        if removes {
            self.note_removed(at, after.first);
        }
        self.want_upkeep(at);
        self.channels.remove_if_unused(at);
        Ok(())
    }

    /// Keeps a channel and its stream in memory, once more.
    pub(super) fn pin(&mut self, at: u32) {
        if let Some(channel) = self.channels.channels.get_mut(at as usize) {
            channel.pins += 1;
        }
    }

    /// Takes one [`Home::pin`] back.
    pub(super) fn unpin(&mut self, at: u32) {
        if let Some(channel) = self.channels.channels.get_mut(at as usize) {
            channel.pins = channel.pins.saturating_sub(1);
        }
    }

    /// Notes what the store has after a write: whether the write had a version, and whether the
    /// stream has a record.
    fn note_stored(&mut self, at: u32, after: Span, (versioned, is_recorded): (bool, bool)) {
        let Some(stream) = self.channels.stream_of(at) else { return };
        let stream = self.channels.streams.get_mut(stream);
        let due = stream.first_expires();
        let (first_kept, ends) = (stream.first_kept(), stream.ends());
        let Some(stored) = stream.stored_mut() else { return };
        stored.first = stored.first.max(after.first);
        // A look may have found that the history begins later than when the write was sent.
        let has_all = first_kept <= stored.first;
        stored.oldest = after.oldest;
        stored.bytes = after.bytes;
        stored.is_recorded = is_recorded;
        stored.is_ending &= is_recorded;
        if versioned {
            stored.sent_version = None;
        }
        if after.first > after.top {
            stored.due = ends;
        } else if has_all {
            stored.due = due.unwrap_or(ends);
        } else if after.first == after.top {
            stored.due = after.due;
        }
    }

    /// Notes that a write is on disk, and with it the correction that it was.
    fn end_correction(&mut self, at: u32, serial: u64) {
        let Some(stored) = self.stored_at(at) else { return };
        if stored.correction == serial || planted(PlantedFault::CorrectedByEarlierWrite) {
            let freed = stored.end_correction();
            self.durable.usage.change(freed, 0);
        }
    }

    /// Notes that the table of streams has a record with this top.
    fn note_recorded(&mut self, at: u32, top: u64) {
        if let Some(stored) = self.stored_at(at) {
            stored.recorded = top;
        }
    }

    /// Notes that what is older than `first` was removed.
    fn note_removed(&mut self, at: u32, first: u64) {
        if let Some(stored) = self.stored_at(at) {
            stored.removed_before = first;
        }
    }

    fn stored_at(&mut self, at: u32) -> Option<&mut StoredPart> {
        self.channels.streams.get_mut(self.channels.stream_of(at)?).stored_mut()
    }

    /// A write failed: it and all writes behind it have failed. Nothing of them is visible, and
    /// their offsets are assigned again. Those that were touched may be on disk in part.
    fn fail_writes(&mut self, written: StoreWritten) {
        self.durable.term += 1;
        let kept = self.durable.kept;
        let touched = if written.touched { written.through } else { 0 };
        let first = self.durable.writes.partition_point(|write| write.serial <= kept);
        let end = match planted(PlantedFault::LaterWritesNotFailed) {
            true => self.durable.writes.partition_point(|write| write.serial <= written.through),
            false => self.durable.writes.len(),
        };
        let failed: Vec<SentWrite> = self.durable.writes.drain(first..end.max(first)).collect();
        for write in failed {
            if !planted(PlantedFault::ChargeKept) {
                self.durable.usage.change(write.bytes, 0);
            }
            self.metrics.durable_refused.add(1);
            self.fail_write(write, touched);
        }
        // What is on disk and waits for room counts as sent.
        for SentWrite { at, after, what, .. } in &self.durable.writes {
            if let Some(stream) = self.channels.stream_of(*at)
                && let Some(stored) = self.channels.streams.get_mut(stream).stored_mut()
            {
                stored.sent = *after;
                stored.sent_version = what.version().or(stored.sent_version.take());
            }
        }
        self.durable.upkeep_after = self.durable.times.now + PAUSE;
    }

    /// Takes one failed write back.
    fn fail_write(&mut self, write: SentWrite, touched: u64) {
        let SentWrite { serial, unix, at, after, what, .. } = write;
        let kept = self.durable.kept;
        self.unpin(at);
        let (mut freed, mut noted) = (0, 0);
        if let Some(stream) = self.channels.stream_of(at) {
            let stream = self.channels.streams.get_mut(stream);
            let span = stream.span();
            if let Some(stored) = stream.stored_mut() {
                freed = stored.take_back_correction(kept);
                stored.is_ending = false;
                if !planted(PlantedFault::OffsetNotTakenBack) {
                    stored.sent = span;
                }
                stored.sent_version = None;
                // The record may be on disk.
                stored.is_uncertain |= serial <= touched;
                stored.is_recorded |= serial <= touched;
                if let What::Publication(prepared) = &what
                    && serial <= touched
                {
                    stored.remains = stored.remains.max(after.top);
                    let key = prepared.stored_key(unix);
                    let key = key.filter(|_| !planted(PlantedFault::FailedKeyNotErased));
                    noted = stored.note_failed(key.map(|key| key.place()));
                }
            }
        }
        self.durable.usage.change(freed, noted);
        match what {
            What::Publication(_) if planted(PlantedFault::RefusalDropped) => {}
            What::Publication(prepared) => {
                self.durable.refusals.push_back(Refusal::Publish(prepared.reply_to));
            }
            What::Removal(reply_to) => self.durable.refusals.push_back(Refusal::Query(reply_to)),
            What::Trim | What::Upkeep | What::End | What::Leftover => {}
        }
        self.want_upkeep(at);
        self.channels.remove_if_unused(at);
    }

    /// Answers requests whose writes failed, while the inboxes have room.
    pub(super) fn send_refusals(&mut self, post: &mut impl Post) {
        for _ in 0..STEPS_MAX {
            let Some(refusal) = self.durable.refusals.pop_front() else { return };
            let sent = match refusal {
                Refusal::Publish(reply_to) => self.send_answer(post, reply_to, || {
                    published(reply_to, Err(Error::INTERNAL), None)
                }),
                Refusal::Query(reply_to) => self.send_answer(post, reply_to, || refused(reply_to)),
            };
            if sent == Err(NoRoom) {
                return self.durable.refusals.push_front(refusal);
            }
        }
        self.durable.goes_on |= !self.durable.refusals.is_empty();
    }
}

fn removed(reply_to: ReplyTo) -> Message {
    let result = Ok(ChannelAnswer::HistoryRemoved);
    Message::HomeAnswer(Box::new(HomeAnswer { reply_to, result }))
}

fn refused(reply_to: ReplyTo) -> Message {
    Message::HomeAnswer(Box::new(HomeAnswer { reply_to, result: Err(Error::INTERNAL) }))
}
