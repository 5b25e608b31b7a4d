//! The two steps of publishing to a channel: prepare and commit.
//!
//! Owns nothing: the channels are in [`Channels`]. Never sends a message.

use crate::home::channels::Channels;
use crate::home::durable::stored::Version;
use crate::home::history::Stream;
use crate::home::idempotency_keys::HOLD_TIME;
use crate::model::message::{DuplicateGuard, Publish, ReplyTo};
use crate::model::publication::{NewPublication, Publication};
use crate::model::retention::Retention;
use crate::model::storage::StoredKey;
use crate::wire::protocol::Position;

/// Maximum capacity of the encoding buffer that is kept for the next publication.
const BUFFER_MAX: usize = 64 * 1024;

/// A publication that is encoded and has an offset, but is not visible yet.
pub struct PreparedPublication {
    publication: Publication,
    /// Retention of its stream; `None`: the publication does not enter the history.
    retention: Option<Retention>,
    guard: Option<Box<DuplicateGuard>>,
    /// Where the answer goes.
    pub reply_to: ReplyTo,
}

impl PreparedPublication {
    /// Hash of the channel's name.
    pub fn hash(&self) -> u64 {
        self.publication.hash()
    }

    /// The channel's name.
    pub fn channel(&self) -> &str {
        self.publication.channel()
    }

    /// The publication.
    pub fn publication(&self) -> &Publication {
        &self.publication
    }

    /// The version that the application gave the publication, if any.
    pub fn version(&self) -> Version {
        self.guard.as_deref().and_then(version_of)
    }

    /// The idempotency key as the store has it, if there is one. `unix` is the time.
    pub fn stored_key(&self, unix: u64) -> Option<StoredKey> {
        let (guard, position) = (self.guard.as_ref()?, self.publication.position()?);
        let until = unix.saturating_add(HOLD_TIME);
        (!guard.key.is_empty()).then(|| StoredKey { key: guard.key.clone(), position, until })
    }

    /// Whether the outcome of this publication decides if the request is a repetition.
    pub fn may_repeat(&self, request: &Publish) -> bool {
        let (Some(earlier), Some(guard)) = (&self.guard, &request.guard) else { return false };
        let same_key = !guard.key.is_empty() && guard.key == earlier.key;
        let both_versions = guard.version > 0 && earlier.version > 0;
        self.hash() == request.hash
            && self.channel() == &*request.channel
            && (same_key || both_versions)
    }
}

/// The version of a guard and its epoch, if there is one.
pub fn version_of(guard: &DuplicateGuard) -> Version {
    (guard.version > 0).then(|| Box::new((guard.version, guard.version_epoch.clone())))
}

impl Channels {
    /// The position of the earlier publication that this request repeats; `None`: the request is
    /// new.
    pub fn published_before(&self, request: &Publish, now: u64) -> Option<Option<Position>> {
        let guard = request.guard.as_deref()?;
        if !guard.key.is_empty()
            && let Some(position) = self.idempotency_keys.find(request.hash, &guard.key, now)
        {
            return Some(position);
        }
        let at = self.find(request.hash, &request.channel)?;
        let stream = self.streams.get(self.stream_of(at)?);
        let old = request.retention.is_some() && stream.is_old(guard.version, &guard.version_epoch);
        old.then(|| Some(stream.position()))
    }

    /// First step of publishing: encodes a publication and assigns its offset. The publication
    /// stays invisible until it is committed, which can be much later. `Err` returns the request:
    /// the stream is durable, so the store assigns its offsets.
    pub fn prepare(
        &mut self,
        request: Box<Publish>,
        now: u64,
    ) -> Result<PreparedPublication, Box<Publish>> {
        let mut position = None;
        if let Some(retention) = &request.retention {
            let at = self.find_or_insert(request.hash, &request.channel);
            let stream = self.stream(at, retention, now);
            let stream = self.streams.get(stream);
            let Position { offset, epoch } = stream.position();
            let prepared = &mut self.channels[at as usize].prepared;
            if stream.stored().is_some() || *prepared == u8::MAX {
                return Err(request);
            }
            *prepared += 1;
            position = Some(Position { offset: offset + u64::from(*prepared), epoch });
        }
        Ok(self.encode(*request, position))
    }

    /// Encodes a publication at this position.
    pub fn encode(&mut self, request: Publish, position: Option<Position>) -> PreparedPublication {
        let Publish { channel, hash, data, kind, delta, extra, .. } = request;
        let Publish { retention, guard, reply_to, accepted, .. } = request;
        let (channel, data) = (&*channel, &*data);
        let draft = NewPublication { channel, hash, kind, data, extra, position, delta, accepted };
        let publication = Publication::encode(draft, &mut self.buffer);
        if self.buffer.capacity() > BUFFER_MAX {
            self.buffer = Vec::new();
        }
        PreparedPublication { publication, retention, guard, reply_to }
    }

    /// Second step of publishing: adds the publication to the history and stores its key and
    /// version.
    pub fn commit(&mut self, prepared: PreparedPublication, now: u64) -> Publication {
        let PreparedPublication { publication, retention, guard, .. } = prepared;
        let (hash, position) = (publication.hash(), publication.position());
        let found = match retention {
            Some(retention) => self.find(hash, publication.channel()).zip(Some(retention)),
            None => None,
        };
        let mut grown = None;
        if let Some((at, retention)) = found
            && let Some(stream) = self.stream_of(at)
        {
            let channel = &mut self.channels[at as usize];
            match retention.durable {
                true => channel.pins = channel.pins.saturating_sub(1),
                false => channel.prepared = channel.prepared.saturating_sub(1),
            }
            let push = |stream: &mut Stream| stream.push(publication.clone(), &retention, now);
            self.streams.change(stream, push);
            self.schedule(at);
            self.make_room(Some(at));
            self.show_latest(at);
            grown = self.stream_of(at);
        }
        if let Some(guard) = guard {
            if !guard.key.is_empty() {
                self.idempotency_keys.note(hash, &guard.key, position, now);
            }
            if guard.version > 0
                && let Some(stream) = grown
            {
                let version =
                    |stream: &mut Stream| stream.set_version(guard.version, &guard.version_epoch);
                self.streams.change(stream, version);
            }
        }
        publication
    }
}
