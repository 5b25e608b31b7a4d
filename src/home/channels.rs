//! The channels of a home: offsets, epochs, history, presence, and which shards are interested.
//!
//! Owns the streams and the members of the channels whose names hash to this shard. Never sends a
//! message. The invariants: a home gives out the offsets of one epoch once and in order, and
//! commits publications in that order; a subscribe answer names exactly the position behind which
//! the next publication to that shard continues.

use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use crate::base::budget::{Budget, cost};
use crate::base::memory::{Relief, Share};
use crate::base::metrics::Metrics;
use crate::base::wheel::Wheel;
use crate::home::epochs::Epochs;
use crate::home::history::{Recovery, Stream};
use crate::home::idempotency_keys::IdempotencyKeys;
use crate::home::members::Members;
use crate::home::presence_queries::PresenceQueries;
use crate::home::streams::{NONE, Streams};
use crate::model::ids::Ids;
use crate::model::message::{
    ChannelAnswer, ChannelQuery, Guard, HistoryRange, HomeQuery, Leave, Publish, Release, ReplyTo,
    Subscribe, Subscribed,
};
use crate::model::names::Names;
use crate::model::namespaces::RecoveryMode;
use crate::model::publication::{Draft, Publication};
use crate::model::retention::Retention;
use crate::wire::protocol::reply::{ClientInfo, Roll};
use crate::wire::protocol::{Epoch, Error, Position};

/// Milliseconds of one tick of the expiry wheel.
const TICK: u64 = 1000;
/// Streams looked at in one sweep.
const SWEEP_MAX: usize = 32;
/// Publications that one of them drops then; the rest is due again at once.
const DROPS_MAX: usize = 256;
/// Streams that drop something for one publication.
const SHEDDERS_MAX: usize = 64;
/// Bytes that a channel takes beside its record and its name: what the allocator adds to it, and
/// its places in tables and the wheel.
const CHANNEL_OVERHEAD: usize = 128;
/// Bytes of the encoding buffer that are kept from one publication to the next.
const BUFFER_MAX: usize = 64 * 1024;

/// What homes keep and give out.
#[derive(Clone, Debug)]
pub struct HomeSettings {
    /// Publications of one recovery at most.
    pub recovery_limit: usize,
    /// Bytes of one recovery, and of any other answer, at most.
    pub answer_bytes: usize,
    /// Streams that one home keeps at most; past it one of a few makes room.
    pub streams_max: usize,
}

struct Channel {
    name: Arc<str>,
    hash: u64,
    /// Bit n: shard n has subscribers, or has asked for some.
    interested: u64,
    /// Number of its stream; [`NONE`]: it has none.
    stream: u32,
    /// Generation of its stream, or of the one that its first publication begins.
    generation: u32,
    /// Publications that have an offset in its stream and are not committed yet. The stream stays
    /// as long as there are any.
    prepared: u32,
    members: Option<Box<Members>>,
}

/// A publication that has its bytes and its place in the stream, and that nobody can see yet.
pub struct PreparedPublication {
    publication: Publication,
    /// How much history its stream keeps; `None`: the publication stays out of the history.
    retention: Option<Retention>,
    guard: Option<Box<Guard>>,
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

/// All channels at home on one shard.
pub struct Channels {
    settings: HomeSettings,
    names: Names,
    ids: Ids,
    table: HashTable<u32>,
    channels: Slab<Channel>,
    expiry: Wheel,
    streams: Streams,
    /// Streams that made room for others.
    evicted: u64,
    /// Publications that made room for newer ones.
    shed: u64,
    idempotency_keys: IdempotencyKeys,
    presence_queries: PresenceQueries,
    epochs: Epochs,
    /// What the streams use of the node's budget.
    history: Share,
    due: Vec<u32>,
    /// Where publications are encoded.
    buffer: Vec<u8>,
}

impl Channels {
    /// No channels yet. `seed` makes the epochs; the shares count history and idempotency keys.
    pub fn new(
        settings: HomeSettings,
        (names, ids): (Names, Ids),
        seed: u64,
        (history, keys): (Share, Share),
    ) -> Self {
        Channels {
            settings,
            names,
            ids,
            table: HashTable::new(),
            channels: Slab::new(),
            expiry: Wheel::new(1024),
            streams: Streams::new(),
            evicted: 0,
            shed: 0,
            idempotency_keys: IdempotencyKeys::new(keys),
            presence_queries: PresenceQueries::default(),
            epochs: Epochs::new(seed),
            history,
            due: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Number of channels that a shard is interested in or that keep history.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    fn find(&self, hash: u64, name: &str) -> Option<u32> {
        let channels = &self.channels;
        self.table.find(hash, |at| *channels[*at as usize].name == *name).copied()
    }

    fn find_or_insert(&mut self, hash: u64, name: &Arc<str>) -> u32 {
        if let Some(at) = self.find(hash, name) {
            return at;
        }
        let channel = Channel {
            name: name.clone(),
            hash,
            interested: 0,
            stream: NONE,
            generation: self.epochs.generation(hash),
            prepared: 0,
            members: None,
        };
        let at = self.channels.insert(channel) as u32;
        let channels = &self.channels;
        self.table.insert_unique(hash, at, |at| channels[*at as usize].hash);
        at
    }

    fn remove_if_unused(&mut self, at: u32) {
        let channel = &self.channels[at as usize];
        if channel.interested != 0 || channel.stream != NONE || channel.members.is_some() {
            return;
        }
        let hash = channel.hash;
        if let Ok(entry) = self.table.find_entry(hash, |other| *other == at) {
            entry.remove();
        }
        self.channels.remove(at as usize);
    }

    /// Which shards a publication into the channel goes to: bit n for shard n.
    pub fn interested(&self, hash: u64, name: &str) -> u64 {
        self.find(hash, name).map_or(0, |at| self.channels[at as usize].interested)
    }

    /// The number of a channel's stream, if it has one.
    fn stream_of(&self, at: u32) -> Option<u32> {
        Some(self.channels[at as usize].stream).filter(|stream| *stream != NONE)
    }

    /// The number of a channel's stream, which begins if there is none.
    fn stream(&mut self, at: u32, retention: &Retention, now: u64) -> u32 {
        if let Some(stream) = self.stream_of(at) {
            return stream;
        }
        if self.streams.len() >= self.settings.streams_max {
            self.evict();
        }
        let Channel { hash, generation, ref name, .. } = self.channels[at as usize];
        let overhead = size_of::<Channel>() + CHANNEL_OVERHEAD + name.len();
        let epoch = self.epochs.epoch(hash, generation);
        let stream = self.streams.insert(Stream::new(epoch, retention, now), at, overhead);
        self.channels[at as usize].stream = stream;
        self.schedule(at);
        stream
    }

    /// Drops one of a few streams: rather one that keeps nothing and has no subscribers, and of
    /// these the one that expires first.
    fn evict(&mut self) {
        let channels = &self.channels;
        let rank = |stream: &Stream, channel: u32| {
            let channel = channels.get(channel as usize).filter(|one| one.prepared == 0)?;
            Some((channel.interested != 0 || stream.bytes() > 0, stream.next_expiry()))
        };
        if let Some(channel) = self.streams.lowest_ranked(rank) {
            self.evicted += 1;
            self.drop_stream(channel);
        }
    }

    /// The epoch of a channel's stream, or of the one that its first publication begins.
    fn epoch(&self, found: Option<u32>, hash: u64) -> Epoch {
        let generation = match found {
            Some(at) => self.channels[at as usize].generation,
            None => self.epochs.generation(hash),
        };
        self.epochs.epoch(hash, generation)
    }

    /// A channel's stream as it is at this time. A channel that nothing was published to has an
    /// empty one, which is not kept.
    fn stream_now(&mut self, found: Option<u32>, hash: u64, now: u64) -> CurrentStream<'_> {
        match found.and_then(|at| self.stream_of(at)) {
            Some(stream) => {
                self.streams.change(stream, |stream| stream.expire(now));
                CurrentStream::Kept(self.streams.get(stream))
            }
            None => CurrentStream::Unpublished(Stream::empty(self.epoch(found, hash))),
        }
    }

    fn schedule(&mut self, at: u32) {
        if let Some(stream) = self.stream_of(at) {
            let due = self.streams.get(stream).next_expiry() / TICK;
            self.expiry.set(at, due as u32 + 1);
        }
    }

    /// Has streams drop their oldest publications while the node keeps too much history and this
    /// home keeps most of it: of any few streams the one whose oldest expires first, and at last
    /// the one that has grown. Where no publication is left, streams go.
    fn make_room(&mut self, grown: Option<u32>) {
        for turn in 0..=SHEDDERS_MAX {
            self.history.set(self.streams.bytes());
            if self.history.relief() != Relief::Here {
                return;
            }
            if self.streams.kept_bytes() == 0 {
                self.evict();
                continue;
            }
            let oldest = |stream: &Stream, _| (stream.bytes() > 0).then(|| stream.next_expiry());
            let any = (turn < SHEDDERS_MAX)
                .then(|| self.streams.lowest_ranked(oldest))
                .flatten()
                .or(grown);
            if let Some(channel) = any
                && let Some(stream) = self.stream_of(channel)
            {
                let over = self.history.excess();
                self.shed += self.streams.change(stream, |stream| stream.shed(over)) as u64;
                self.schedule(channel);
            }
        }
        self.history.set(self.streams.bytes());
    }

    /// Gives up what the node's budgets ask of this home, some at a time.
    pub fn relieve(&mut self) {
        if self.history.relief() == Relief::Here {
            self.make_room(None);
        }
        self.idempotency_keys.relieve();
    }

    /// Who gives up history, and who idempotency keys, if somebody must.
    pub fn reliefs(&self) -> [Relief; 2] {
        [self.history.relief(), self.idempotency_keys.share().relief()]
    }

    fn drop_stream(&mut self, at: u32) {
        if let Some(stream) = self.stream_of(at) {
            self.expiry.clear(at);
            self.streams.remove(stream);
            self.history.set(self.streams.bytes());
            let channel = &mut self.channels[at as usize];
            channel.stream = NONE;
            channel.generation = self.epochs.renew(channel.hash);
            self.remove_if_unused(at);
        }
    }

    /// Reports what is kept, and what made room.
    pub fn measure(&self, metrics: &Metrics) {
        metrics.channels.set(self.len() as u64);
        metrics.streams.set(self.streams.len() as u64);
        metrics.history_bytes.set(self.history.used() as u64);
        metrics.streams_evicted.set(self.evicted);
        metrics.history_shed.set(self.shed);
    }

    /// Where a publication went that is not to be published again; `None`: it is a new one.
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

    /// First step of publishing: encodes a publication and gives it its offset. It stays invisible
    /// until it is committed, however much later that is.
    pub fn prepare(&mut self, request: Publish, now: u64) -> PreparedPublication {
        let Publish { channel, hash, data, event, delta, extra, retention, guard, reply_to } =
            request;
        let position = retention.map(|retention| {
            let at = self.find_or_insert(hash, &channel);
            let stream = self.stream(at, &retention, now);
            let Position { offset, epoch } = self.streams.get(stream).position();
            let prepared = &mut self.channels[at as usize].prepared;
            *prepared += 1;
            Position { offset: offset + u64::from(*prepared), epoch }
        });
        let (channel, data) = (&*channel, &*data);
        let draft = Draft { channel, hash, event, data, extra, position, delta };
        let publication = Publication::encode(draft, &mut self.buffer);
        if self.buffer.capacity() > BUFFER_MAX {
            self.buffer = Vec::new();
        }
        PreparedPublication { publication, retention, guard, reply_to }
    }

    /// Second step of publishing: the publication enters the history and counts as published.
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
            let prepared = &mut self.channels[at as usize].prepared;
            *prepared = prepared.saturating_sub(1);
            let push = |stream: &mut Stream| stream.push(publication.clone(), &retention, now);
            self.streams.change(stream, push);
            self.schedule(at);
            self.make_room(Some(at));
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

    /// Notes the shard's interest and answers where the stream stands and what was missed.
    pub fn subscribe(&mut self, request: &Subscribe, now: u64) -> Subscribed {
        let at = self.find_or_insert(request.hash, &request.channel);
        self.channels[at as usize].interested |= 1 << request.subscriber.shard;
        let mut recovery = Recovery::default();
        let mode = request.terms.recovery_mode;
        // A cache has no gap to speak of.
        let strict = request.strict && mode == RecoveryMode::Stream;
        let position = request.granted.needs_stream().then(|| {
            let HomeSettings { recovery_limit, answer_bytes, .. } = self.settings;
            let stream = self.stream_now(Some(at), request.hash, now);
            match (request.since, mode) {
                (Some(since), RecoveryMode::Stream) => {
                    recovery = stream.recover(since, recovery_limit, answer_bytes);
                }
                (Some(since), RecoveryMode::Cache) => recovery = stream.recover_latest(since),
                (None, _) => {}
            }
            stream.position()
        });
        Subscribed {
            channel: request.channel.clone(),
            hash: request.hash,
            subscriber: request.subscriber,
            encoding: request.encoding,
            filter: request.filter.clone(),
            granted: request.granted,
            was_recovering: position.is_some() && request.since.is_some(),
            recovered: recovery.recovered,
            strict,
            position: match request.since {
                Some(since) if recovery.recovered => {
                    position.map(|top| Position { offset: since.offset.min(top.offset), ..top })
                }
                _ => position,
            },
            publications: recovery.publications,
            news: None,
        }
    }

    /// Notes that a subscriber is there.
    pub fn add_member(&mut self, request: &Subscribe, info: &ClientInfo) {
        // Where nobody may ask who is there, nothing is kept of who is not listed.
        let at = self.find_or_insert(request.hash, &request.channel);
        let user_hash = self.names.hash(&info.user);
        let members = self.channels[at as usize].members.get_or_insert_default();
        let listed = request.visibility.listed;
        members.insert(
            request.subscriber.address(),
            info,
            user_hash,
            listed || !request.terms.presence,
        );
    }

    /// Notes that a subscriber is gone; who it was.
    pub fn remove_member(&mut self, leave: &Leave) -> Option<ClientInfo> {
        let at = self.find(leave.hash, &leave.channel)?;
        let members = self.channels[at as usize].members.as_mut()?;
        let info = members.remove(leave.address, &self.ids);
        if members.is_empty() {
            self.channels[at as usize].members = None;
            self.remove_if_unused(at);
        }
        info
    }

    /// Answers a question about a channel.
    pub fn answer_query(&mut self, question: &HomeQuery, now: u64) -> Result<ChannelAnswer, Error> {
        let found = self.find(question.hash, &question.channel);
        match &question.about {
            ChannelQuery::Stats => {
                let channel = found.and_then(|at| self.channels.get(at as usize));
                let members = channel.and_then(|channel| channel.members.as_deref());
                Ok(ChannelAnswer::Stats(members.map(Members::stats).unwrap_or_default()))
            }
            // It may take many turns: see `Channels::queue_presence_query`.
            ChannelQuery::Presence(_) => Err(Error::INTERNAL),
            ChannelQuery::Position => {
                Ok(ChannelAnswer::Position(self.stream_now(found, question.hash, now).position()))
            }
            ChannelQuery::History(range) => self.read_history(question, range, now),
            ChannelQuery::RemoveHistory => {
                if let Some(at) = found
                    && let Some(stream) = self.stream_of(at)
                {
                    self.streams.change(stream, Stream::clear);
                    self.history.set(self.streams.bytes());
                    self.schedule(at);
                }
                Ok(ChannelAnswer::HistoryRemoved)
            }
        }
    }

    /// Looks a part of the history up.
    fn read_history(
        &mut self,
        question: &HomeQuery,
        range: &HistoryRange,
        now: u64,
    ) -> Result<ChannelAnswer, Error> {
        let answer_bytes = self.settings.answer_bytes;
        let found = self.find(question.hash, &question.channel);
        let stream = self.stream_now(found, question.hash, now);
        let same_life = |since: Position| since.epoch.is_unset() || since.epoch == stream.epoch();
        if !range.since.is_none_or(same_life) {
            return Err(Error::UNRECOVERABLE_POSITION);
        }
        let Some(publications) = stream.read_range(range, answer_bytes) else {
            return Err(Error::LIMIT_EXCEEDED);
        };
        Ok(ChannelAnswer::History(publications, stream.position()))
    }

    /// A question about who is in a channel waits for its answer. `Err` gives it back: too many
    /// wait.
    pub fn queue_presence_query(&mut self, question: HomeQuery) -> Result<(), HomeQuery> {
        self.presence_queries.wait(question)
    }

    /// Number of questions that wait.
    pub fn presence_queries(&self) -> usize {
        self.presence_queries.waiting()
    }

    /// Who asked the question that is answered next.
    pub fn first_reply_to(&self) -> Option<ReplyTo> {
        self.presence_queries.first_reply_to()
    }

    /// The first question is answered.
    pub fn drop_first(&mut self) {
        self.presence_queries.drop_first();
    }

    /// The other questions come first: the asker's shard has no room.
    pub fn postpone_first(&mut self) {
        self.presence_queries.postpone_first();
    }

    /// Goes on with the answer to the first question; `None`: there is more to do.
    pub fn encode_first_presence(
        &mut self,
        budget: &mut Budget,
    ) -> Option<Result<ChannelAnswer, Error>> {
        let (question, wire) = self.presence_queries.first()?;
        let found = self.find(question.hash, &question.channel);
        let found = found.and_then(|at| Some((at, self.channels.get_mut(at as usize)?)));
        let Some((at, Some(members))) = found.map(|(at, found)| (at, found.members.as_mut()))
        else {
            return Some(Ok(ChannelAnswer::Presence(Roll::default())));
        };
        let most = self.settings.answer_bytes;
        if members.bytes() > most {
            return Some(Err(Error::LIMIT_EXCEEDED));
        }
        let roll = members.encode_presence(wire, &self.ids, budget);
        if members.encoded(wire) > most {
            members.drop_encoded(wire);
            return Some(Err(Error::LIMIT_EXCEEDED));
        }
        if let Some((old, wire)) = self.presence_queries.keep(at, wire)
            && let Some(channel) = self.channels.get_mut(old as usize)
            && let Some(members) = channel.members.as_mut()
        {
            members.drop_encoded(wire);
        }
        roll.map(|roll| Ok(ChannelAnswer::Presence(roll)))
    }

    /// Forgets the shard's interest.
    pub fn release(&mut self, release: &Release) {
        if let Some(at) = self.find(release.hash, &release.channel) {
            self.channels[at as usize].interested &= !(1 << release.shard);
            self.remove_if_unused(at);
        }
    }

    /// Drops what has expired by `now`, a bounded number at a time.
    pub fn expire(&mut self, now: u64, budget: &mut Budget) {
        let mut due = std::mem::take(&mut self.due);
        let most = if budget.is_spent() { 0 } else { SWEEP_MAX };
        self.expiry.sweep((now / TICK) as u32, most, &mut due);
        for at in due.drain(..) {
            let Some(stream) = self.stream_of(at) else { continue };
            let before = self.streams.get(stream).len();
            let is_over = self.streams.change(stream, |stream| stream.expire_some(now, DROPS_MAX));
            let dropped = before - self.streams.get(stream).len();
            budget.charge(cost::LOOK + dropped * cost::PUBLICATION);
            if is_over && self.channels[at as usize].prepared == 0 {
                self.drop_stream(at);
            } else {
                self.schedule(at);
            }
        }
        self.history.set(self.streams.bytes());
        self.due = due;
    }

    /// When [`Channels::expire`] has something to do next, in milliseconds.
    pub fn next_expiry(&self) -> Option<u64> {
        self.expiry.next_due().map(|tick| u64::from(tick) * TICK)
    }
}

/// A channel's stream as it is now.
enum CurrentStream<'a> {
    /// Something was published to it.
    Kept(&'a Stream),
    /// Nothing was: an empty one, in the epoch that the first publication begins in.
    Unpublished(Stream),
}

impl std::ops::Deref for CurrentStream<'_> {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        match self {
            CurrentStream::Kept(stream) => stream,
            CurrentStream::Unpublished(stream) => stream,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::memory::{Budgets, Kind, Limits};
    use crate::model::ids::Address;
    use crate::model::message::{Granted, Guard, ReplyTo, SubscribeTerms, Subscriber, Visibility};
    use crate::model::publication::{Encoding, PublicationKind};
    use crate::wire::protocol::reply::Stats;

    /// Room for some dozens of small publications.
    const HISTORY_BYTES: usize = 16_000;

    /// Channels, and how much history each of them keeps.
    struct Homes {
        channels: Channels,
        retention: Option<Retention>,
    }

    impl std::ops::Deref for Homes {
        type Target = Channels;

        fn deref(&self) -> &Channels {
            &self.channels
        }
    }

    impl std::ops::DerefMut for Homes {
        fn deref_mut(&mut self) -> &mut Channels {
            &mut self.channels
        }
    }

    impl Homes {
        fn publish(&mut self, request: Publish, now: u64) -> Option<Position> {
            let prepared = self.prepare(request, now);
            self.commit(prepared, now).position()
        }
    }

    fn homes(retention: Option<Retention>, streams_max: usize) -> Homes {
        let settings = HomeSettings { recovery_limit: 10, answer_bytes: 1 << 20, streams_max };
        let budgets = Budgets::new(&Limits::all(HISTORY_BYTES), 1);
        let shares = (budgets.share(Kind::History, 0), budgets.share(Kind::Keys, 0));
        let names = (Names::new([0; 16], 1), Ids::new([0; 16]));
        Homes { channels: Channels::new(settings, names, 1, shares), retention }
    }

    fn publish(homes: &mut Homes, channel: &str, now: u64) -> Option<Position> {
        publish_data(homes, channel, b"1", now)
    }

    fn publish_data(homes: &mut Homes, channel: &str, data: &[u8], now: u64) -> Option<Position> {
        let request = Publish {
            channel: channel.into(),
            hash: 7,
            data: data.into(),
            event: PublicationKind::Data,
            delta: false,
            extra: None,
            retention: homes.retention,
            guard: None,
            reply_to: ReplyTo::Nobody,
        };
        homes.publish(request, now)
    }

    /// A subscribe of a shard to channel "a".
    pub(crate) fn request(shard: u8, since: Option<Position>) -> Subscribe {
        let subscriber =
            Subscriber { shard, slot: 0, generation: 0, subscription: 0, serial: 0, command: 1 };
        Subscribe {
            channel: "a".into(),
            hash: 7,
            subscriber,
            encoding: Encoding::default(),
            filter: None,
            since,
            strict: false,
            granted: Granted { positioned: true, recoverable: true },
            terms: SubscribeTerms { presence: true, ..SubscribeTerms::default() },
            visibility: Visibility { listed: true, announced: true },
            info: None,
        }
    }

    fn subscribe(homes: &mut Homes, shard: u8, since: Option<Position>) -> Subscribed {
        let keeps = homes.retention.is_some();
        let granted = Granted { positioned: keeps, recoverable: keeps };
        homes.subscribe(&Subscribe { granted, ..request(shard, since) }, 0)
    }

    fn ask(homes: &mut Homes, about: ChannelQuery) -> Result<ChannelAnswer, Error> {
        let question = HomeQuery { channel: "a".into(), hash: 7, reply_to: ReplyTo::Nobody, about };
        homes.answer_query(&question, 0)
    }

    const RETENTION: Retention = Retention { size: 2, ttl: 5_000, meta_ttl: 60_000 };

    #[test]
    fn channels_without_history_live_as_long_as_their_interest() {
        let mut homes = homes(None, 10);
        assert_eq!(publish(&mut homes, "a", 0), None);
        assert!(homes.is_empty());
        assert_eq!(subscribe(&mut homes, 3, None).position, None);
        subscribe(&mut homes, 5, None);
        assert_eq!(homes.interested(7, "a"), 1 << 3 | 1 << 5);
        assert_eq!(homes.interested(7, "other"), 0);
        for shard in [3, 5, 5] {
            homes.release(&Release { channel: "a".into(), hash: 7, shard });
        }
        assert!(homes.is_empty());
    }

    #[test]
    fn offsets_go_on_and_recovery_echoes_the_request() {
        let mut homes = homes(Some(RETENTION), 10);
        for offset in 1..=3 {
            assert_eq!(publish(&mut homes, "a", 0).unwrap().offset, offset);
        }
        let top = subscribe(&mut homes, 0, None).position.unwrap();
        assert_eq!(top.offset, 3);
        let answer = subscribe(&mut homes, 0, Some(Position { offset: 2, epoch: top.epoch }));
        assert!(answer.recovered && answer.was_recovering);
        assert_eq!((answer.publications.len(), answer.position.unwrap().offset), (1, 2));
        let answer = subscribe(&mut homes, 0, Some(Position { offset: 0, epoch: top.epoch }));
        assert!(!answer.recovered && answer.was_recovering);
        assert_eq!(answer.position.unwrap().offset, 3);
    }

    #[test]
    fn what_was_published_once_is_known() {
        let mut homes = homes(Some(RETENTION), 10);
        let mut publish = |key: &str, version, version_epoch: &str| {
            let guard = Guard { key: key.into(), version, version_epoch: version_epoch.into() };
            let request = Publish {
                channel: "a".into(),
                hash: 7,
                data: b"1"[..].into(),
                event: PublicationKind::Data,
                delta: false,
                extra: None,
                retention: homes.retention,
                guard: Some(Box::new(guard)),
                reply_to: ReplyTo::Nobody,
            };
            let before = homes.published_before(&request, 0);
            let at = before.unwrap_or_else(|| homes.publish(request, 0));
            (before.is_some(), at.map(|at| at.offset))
        };
        assert_eq!(publish("k", 0, ""), (false, Some(1)));
        assert_eq!(publish("l", 0, ""), (false, Some(2)));
        assert_eq!(publish("k", 0, ""), (true, Some(1)));
        assert_eq!(publish("", 5, "e"), (false, Some(3)));
        assert_eq!(publish("", 5, "e"), (true, Some(3)));
        assert_eq!(publish("", 4, "e"), (true, Some(3)));
        assert_eq!(publish("", 6, "e"), (false, Some(4)));
        assert_eq!(publish("", 1, "f"), (false, Some(5)));
    }

    #[test]
    fn presence_is_known_until_the_last_has_left() {
        let mut homes = homes(None, 10);
        let stats = |homes: &mut Homes| match ask(homes, ChannelQuery::Stats) {
            Ok(ChannelAnswer::Stats(stats)) => stats,
            other => panic!("{other:?}"),
        };
        assert_eq!(stats(&mut homes), Stats::default());
        let info = ClientInfo { user: "u".into(), ..ClientInfo::default() };
        for shard in [1, 2] {
            homes.add_member(&request(shard, None), &info);
        }
        assert_eq!(stats(&mut homes), Stats { clients: 2, users: 1 });
        let (about, reply_to) =
            (ChannelQuery::Presence(crate::wire::protocol::Wire::Json), ReplyTo::Nobody);
        for _ in 0..2 {
            homes
                .queue_presence_query(HomeQuery { channel: "a".into(), hash: 7, reply_to, about })
                .unwrap();
        }
        let told = homes.encode_first_presence(&mut Budget::new(1_000_000, true)).unwrap();
        assert!(matches!(told, Ok(ChannelAnswer::Presence(roll)) if roll.parts().len() == 1));
        homes.drop_first();
        homes.settings.answer_bytes = 100;
        let told = homes.encode_first_presence(&mut Budget::new(1_000_000, true)).unwrap();
        assert_eq!(told.unwrap_err(), Error::LIMIT_EXCEEDED, "two members take more");
        homes.drop_first();
        assert_eq!(homes.presence_queries(), 0);
        for shard in [1, 2] {
            let address = Address { shard, slot: 0, generation: 0 };
            let leave = Leave { channel: "a".into(), hash: 7, address, announced: true };
            assert_eq!(&*homes.remove_member(&leave).unwrap().user, "u");
            assert!(homes.remove_member(&leave).is_none());
        }
        assert!(homes.is_empty());
    }

    #[test]
    fn a_presence_answer_counts_what_is_said_about_members() {
        let mut homes = homes(None, 10);
        let mut ask = |members: u32, told: usize| {
            let connection = Some(format!("\"{}\"", "i".repeat(told)).into_bytes().into());
            let info = ClientInfo { connection, ..ClientInfo::default() };
            for slot in 0..members {
                let request = request(0, None);
                let subscriber = Subscriber { slot, ..request.subscriber };
                homes.add_member(&Subscribe { subscriber, ..request }, &info);
            }
            let about = ChannelQuery::Presence(crate::wire::protocol::Wire::Protobuf);
            let question =
                HomeQuery { channel: "a".into(), hash: 7, reply_to: ReplyTo::Nobody, about };
            homes.queue_presence_query(question).unwrap();
            let told = homes.encode_first_presence(&mut Budget::new(100_000_000, true)).unwrap();
            homes.drop_first();
            for slot in 0..members {
                let address = Address { shard: 0, slot, generation: 0 };
                homes.remove_member(&Leave {
                    channel: "a".into(),
                    hash: 7,
                    address,
                    announced: true,
                });
            }
            told.map(
                |told| matches!(told, ChannelAnswer::Presence(roll) if roll.bytes() <= 1 << 20),
            )
        };
        assert_eq!(ask(600, 4096), Err(Error::LIMIT_EXCEEDED));
        assert_eq!(ask(600, 1000), Ok(true));
        assert_eq!(ask(9000, 0), Ok(true));
        assert_eq!(ask(13_000, 0), Err(Error::LIMIT_EXCEEDED), "exactly, once it is encoded");
    }

    #[test]
    fn history_is_told_and_forgotten() {
        let mut homes = homes(Some(RETENTION), 10);
        (0..3).for_each(|_| _ = publish(&mut homes, "a", 0));
        let told = |homes: &mut Homes, since| {
            let range = HistoryRange { limit: 10, since, reverse: false };
            match ask(homes, ChannelQuery::History(range)) {
                Ok(ChannelAnswer::History(publications, at)) => Ok((publications.len(), at.offset)),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error),
            }
        };
        assert_eq!(told(&mut homes, None), Ok((2, 3)));
        let elsewhere = Position { offset: 1, epoch: Epoch::parse("aaaaaaaa") };
        assert_eq!(told(&mut homes, Some(elsewhere)), Err(Error::UNRECOVERABLE_POSITION));
        ask(&mut homes, ChannelQuery::RemoveHistory).unwrap();
        assert_eq!(told(&mut homes, None), Ok((0, 3)));
    }

    #[test]
    fn history_expires_and_is_bounded() {
        let mut homes = homes(Some(RETENTION), 2);
        for channel in ["a", "b", "c", "d"] {
            publish(&mut homes, channel, 0);
        }
        assert_eq!(homes.len(), 2, "endless channels replace each other");
        homes.expire(7_000, &mut Budget::new(1_000_000, true));
        assert_eq!(homes.len(), 2);
        homes.expire(62_000, &mut Budget::new(1_000_000, true));
        assert!(homes.is_empty());
        assert_eq!(homes.next_expiry(), None);
    }

    /// What is kept of a channel, and up to where it has come.
    fn kept(homes: &Channels, channel: &str) -> Option<(usize, u64)> {
        let stream = homes.streams.get(homes.stream_of(homes.find(7, channel)?)?);
        let range = HistoryRange { limit: usize::MAX, ..HistoryRange::default() };
        Some((stream.read_range(&range, usize::MAX)?.len(), stream.position().offset))
    }

    #[test]
    fn channels_without_publications_cost_no_stream_and_keep_their_position() {
        let mut homes = homes(Some(RETENTION), 2);
        publish(&mut homes, "real", 0);
        let empty = |homes: &mut Homes, name: &str, since| {
            let answer =
                homes.subscribe(&Subscribe { channel: name.into(), ..request(0, since) }, 0);
            homes.release(&Release { channel: name.into(), hash: 7, shard: 0 });
            answer
        };
        let position = empty(&mut homes, "quiet", None).position.unwrap();
        assert_eq!(position.offset, 0);
        for nth in 0..1000 {
            empty(&mut homes, &format!("other-{nth}"), None);
        }
        assert_eq!((homes.streams.len(), homes.evicted, homes.len()), (1, 0, 1));
        assert_eq!(kept(&homes, "real"), Some((1, 1)));
        let answer = empty(&mut homes, "quiet", Some(position));
        assert!(answer.recovered && answer.publications.is_empty());
        assert_eq!(answer.position, Some(position));
        assert!(!empty(&mut homes, "quiet", Some(Position { offset: 1, ..position })).recovered);
        let begun = publish(&mut homes, "quiet", 0).unwrap();
        assert_eq!(begun, Position { offset: 1, ..position }, "in the epoch that was promised");
        let answer = empty(&mut homes, "quiet", Some(position));
        assert!(answer.recovered && answer.publications.len() == 1, "{answer:?}");
    }

    #[test]
    fn history_and_positions_of_unpublished_channels_keep_no_stream() {
        let mut homes = homes(Some(RETENTION), 2);
        let range = HistoryRange { limit: 10, ..HistoryRange::default() };
        let Ok(ChannelAnswer::History(publications, history)) =
            ask(&mut homes, ChannelQuery::History(range))
        else {
            panic!("no history")
        };
        let Ok(ChannelAnswer::Position(position)) = ask(&mut homes, ChannelQuery::Position) else {
            panic!("no position")
        };
        assert!(publications.is_empty() && history.offset == 0 && homes.is_empty());
        let subscribed = subscribe(&mut homes, 0, None).position.unwrap();
        assert_eq!((history, position), (subscribed, subscribed));
        assert_eq!(homes.streams.len(), 0);
    }

    #[test]
    fn a_position_in_a_stream_that_ended_matches_no_later_one() {
        let ends: [fn(&mut Homes); 2] = [
            |homes| (0..2).for_each(|nth| _ = publish(homes, &format!("other-{nth}"), 1)),
            |homes| homes.expire(70_000, &mut Budget::new(1_000_000, true)),
        ];
        for (nth, end) in ends.into_iter().enumerate() {
            for subscribed in [false, true] {
                let mut homes = homes(Some(RETENTION), 1);
                let before = subscribe(&mut homes, 0, None).position.unwrap();
                if !subscribed {
                    homes.release(&Release { channel: "a".into(), hash: 7, shard: 0 });
                }
                publish(&mut homes, "a", 0);
                end(&mut homes);
                assert_eq!(kept(&homes, "a"), None, "end {nth}");
                let Ok(ChannelAnswer::Position(now)) = ask(&mut homes, ChannelQuery::Position)
                else {
                    panic!("no position")
                };
                assert_ne!(now.epoch, before.epoch, "end {nth}, subscribed {subscribed}");
                let answer = subscribe(&mut homes, 0, Some(before));
                assert!(!answer.recovered && answer.position == Some(now), "{answer:?}");
                let after = publish(&mut homes, "a", 80_000).unwrap();
                assert_eq!(after, Position { offset: 1, ..now });
                let answer = subscribe(&mut homes, 0, Some(Position { offset: 1, ..before }));
                assert!(!answer.recovered);
            }
        }
    }

    #[test]
    fn subscribers_of_an_unpublished_channel_keep_their_epoch_while_others_end() {
        let mut homes = homes(Some(RETENTION), 1);
        let before = subscribe(&mut homes, 0, None).position.unwrap();
        // All channels of this test share one counter.
        (0..5).for_each(|nth| _ = publish(&mut homes, &format!("other-{nth}"), 0));
        assert_eq!(homes.evicted, 4);
        let Ok(ChannelAnswer::Position(now)) = ask(&mut homes, ChannelQuery::Position) else {
            panic!("no position")
        };
        assert_eq!(now, before);
        assert_eq!(publish(&mut homes, "a", 0), Some(Position { offset: 1, ..before }));
    }

    #[test]
    fn streams_that_keep_nothing_and_have_no_subscribers_make_room_first() {
        let mut homes = homes(Some(RETENTION), 12);
        for nth in 0..4 {
            publish(&mut homes, &format!("old-{nth}"), 0);
        }
        // Nothing is left of what was published; the streams themselves last longer than others.
        homes.expire(7_000, &mut Budget::new(1_000_000, true));
        subscribe(&mut homes, 0, None);
        publish(&mut homes, "a", 0);
        homes.expire(14_000, &mut Budget::new(1_000_000, true));
        for nth in 0..7 {
            publish(&mut homes, &format!("live-{nth}"), 14_000);
        }
        assert_eq!((homes.streams.len(), homes.evicted), (12, 0));
        for nth in 0..4 {
            publish(&mut homes, &format!("new-{nth}"), 15_000);
        }
        assert!((0..4).all(|nth| kept(&homes, &format!("old-{nth}")).is_none()));
        assert!((0..7).all(|nth| kept(&homes, &format!("live-{nth}")).is_some()));
        assert_eq!(kept(&homes, "a"), Some((0, 1)), "it has a subscriber");
    }

    #[test]
    fn endless_channels_replace_each_other_whichever_they_are() {
        let mut homes = homes(Some(RETENTION), 40);
        for nth in 0..400u64 {
            publish(&mut homes, &nth.to_string(), nth * 10);
            assert!(homes.len() <= 40);
        }
        assert_eq!(homes.evicted, 360);
        assert!((0..300).all(|nth: u32| kept(&homes, &nth.to_string()).is_none()), "the old go");
        let metrics = Metrics::default();
        homes.measure(&metrics);
        assert_eq!((metrics.streams.get(), metrics.streams_evicted.get()), (40, 360));
    }

    #[test]
    fn endless_bytes_push_the_oldest_out_and_no_position_is_lost() {
        let retention = Retention { size: 1000, ..RETENTION };
        let mut homes = homes(Some(retention), 1000);
        for nth in 0..300u64 {
            publish(&mut homes, "old", nth);
        }
        let (most, top) = kept(&homes, "old").unwrap();
        assert!(most < 200 && top == 300, "{most}");
        assert_eq!(homes.shed, 300 - most as u64);
        for nth in 0..300u64 {
            publish(&mut homes, &format!("new{}", nth % 3), 1000 + nth);
            assert!(homes.streams.bytes() <= HISTORY_BYTES);
        }
        assert_eq!(kept(&homes, "old"), Some((0, 300)), "what is older goes first");
        let (some, top) = kept(&homes, "new2").unwrap();
        assert!(some > 10 && top == 100, "{some}");
        ask(&mut homes, ChannelQuery::RemoveHistory).unwrap();
        homes.expire(62_000, &mut Budget::new(1_000_000, true));
        assert_eq!((homes.streams.bytes(), homes.len()), (0, 0));
    }

    #[test]
    fn what_is_larger_than_all_room_is_not_kept() {
        let mut homes = homes(Some(RETENTION), 10);
        publish(&mut homes, "a", 0);
        let large = [b'1'; HISTORY_BYTES];
        assert_eq!(publish_data(&mut homes, "b", &large, 1).unwrap().offset, 1);
        assert_eq!((kept(&homes, "a"), kept(&homes, "b")), (Some((0, 1)), Some((0, 1))));
        assert_eq!(publish(&mut homes, "b", 2).unwrap().offset, 2);
        assert_eq!(kept(&homes, "b"), Some((1, 2)));
    }
}
