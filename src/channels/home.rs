//! The home side of channels: offsets, epochs, history, presence, and which shards are interested.
//!
//! Owns every stream and everybody's presence in the channels whose names hash here. Never knows
//! a connection but by where it lives. The invariant: offsets of one epoch are given out once and
//! in order, and a subscribe answer names exactly the position behind which the next publication
//! to that shard continues.

use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use crate::channels::Names;
use crate::channels::members::Members;
use crate::channels::repeats::Repeats;
use crate::history::{Recovery, Retention, Stream};
use crate::ids::Ids;
use crate::message::{
    About, Excerpt, Leave, Publish, Question, Release, Subscribe, Subscribed, Told,
};
use crate::namespaces::{Namespaces, RecoveryMode};
use crate::protocol::reply::ClientInfo;
use crate::protocol::{Epoch, Error, Position};
use crate::publication::{Draft, Publication};
use crate::wheel::Wheel;

/// Milliseconds of one tick of the expiry wheel.
const TICK: u64 = 1000;
/// Streams looked at in one sweep.
const SWEEP_MAX: usize = 256;
/// Bytes of one member in an answer, at least.
const MEMBER_BYTES: usize = 100;

/// What homes keep and give out.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Options of the channels.
    pub namespaces: Arc<Namespaces>,
    /// Publications of one recovery at most.
    pub recovery_limit: usize,
    /// Bytes of one recovery, and of any other answer, at most.
    pub answer_bytes: usize,
    /// Streams that one shard keeps at most; past it the one that expires first makes room.
    pub streams_max: usize,
}

struct Channel {
    name: Arc<str>,
    hash: u64,
    /// Bit n: shard n has subscribers, or has asked for some.
    interested: u64,
    stream: Option<Box<Stream>>,
    members: Option<Box<Members>>,
}

/// All channels at home on one shard.
pub struct Homes {
    settings: Settings,
    names: Names,
    ids: Ids,
    table: HashTable<u32>,
    channels: Slab<Channel>,
    expiry: Wheel,
    streams: usize,
    repeats: Repeats,
    /// State of the epoch generator, seeded from randomness.
    seed: u64,
    due: Vec<u32>,
}

impl Homes {
    /// No channels yet. `seed` makes the epochs.
    pub fn new(settings: Settings, names: Names, ids: Ids, seed: u64) -> Self {
        Homes {
            settings,
            names,
            ids,
            table: HashTable::new(),
            channels: Slab::new(),
            expiry: Wheel::new(1024),
            streams: 0,
            repeats: Repeats::default(),
            seed,
            due: Vec::new(),
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
        let channel =
            Channel { name: name.clone(), hash, interested: 0, stream: None, members: None };
        let at = self.channels.insert(channel) as u32;
        let channels = &self.channels;
        self.table.insert_unique(hash, at, |at| channels[*at as usize].hash);
        at
    }

    fn remove_if_unused(&mut self, at: u32) {
        let channel = &self.channels[at as usize];
        if channel.interested != 0 || channel.stream.is_some() || channel.members.is_some() {
            return;
        }
        let hash = channel.hash;
        self.table
            .find_entry(hash, |other| *other == at)
            .expect("every channel is in the table")
            .remove();
        self.channels.remove(at as usize);
    }

    /// Which shards a publication into the channel goes to: bit n for shard n.
    pub fn interested(&self, hash: u64, name: &str) -> u64 {
        self.find(hash, name).map_or(0, |at| self.channels[at as usize].interested)
    }

    /// How much history a channel of this name keeps.
    fn retention(&self, name: &str) -> Option<Retention> {
        self.settings.namespaces.of(name).ok()?.retention
    }

    fn stream(&mut self, at: u32, retention: &Retention, now: u64) -> &mut Stream {
        if self.channels[at as usize].stream.is_none() {
            if self.streams >= self.settings.streams_max {
                self.evict();
            }
            // SplitMix64's step: epochs need to differ, not to be secret.
            self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.seed;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let epoch = Epoch::from_random(mixed ^ (mixed >> 31));
            let stream = Stream::new(epoch, retention, now);
            self.channels[at as usize].stream = Some(Box::new(stream));
            self.streams += 1;
            self.schedule(at);
        }
        self.channels[at as usize].stream.as_deref_mut().expect("made if it was not there")
    }

    fn schedule(&mut self, at: u32) {
        if let Some(stream) = &self.channels[at as usize].stream {
            self.expiry.set(at, (stream.next_expiry() / TICK) as u32 + 1);
        }
    }

    /// Drops the stream that expires first among a few, so that endless new channels replace
    /// each other instead of filling the memory.
    fn evict(&mut self) {
        let victim = self
            .channels
            .iter()
            .filter_map(|(at, channel)| Some((channel.stream.as_ref()?.next_expiry(), at as u32)))
            .take(SWEEP_MAX)
            .min();
        if let Some((_, at)) = victim {
            self.drop_stream(at);
        }
    }

    fn drop_stream(&mut self, at: u32) {
        self.expiry.clear(at);
        self.channels[at as usize].stream = None;
        self.streams -= 1;
        self.remove_if_unused(at);
    }

    /// Where a publication went that is not to be published again; `None`: it is a new one.
    pub fn published_before(&self, request: &Publish, now: u64) -> Option<Option<Position>> {
        let guard = request.guard.as_deref()?;
        if !guard.key.is_empty()
            && let Some(position) = self.repeats.find(request.hash, &guard.key, now)
        {
            return Some(position);
        }
        let at = self.find(request.hash, &request.channel)?;
        let stream = self.channels[at as usize].stream.as_deref()?;
        let old = !request.skip_history && stream.is_old(guard.version, &guard.version_epoch);
        old.then(|| Some(stream.position()))
    }

    /// Notes that a publication was published.
    fn note(&mut self, request: &Publish, position: Option<Position>, now: u64) {
        let Some(guard) = request.guard.as_deref() else { return };
        if !guard.key.is_empty() {
            self.repeats.note(request.hash, &guard.key, position, now);
        }
        if guard.version > 0
            && position.is_some()
            && let Some(at) = self.find(request.hash, &request.channel)
            && let Some(stream) = self.channels[at as usize].stream.as_deref_mut()
        {
            stream.set_version(guard.version, &guard.version_epoch);
        }
    }

    /// Encodes a publication, gives it its offset and keeps it where the channel keeps history.
    pub fn publish(&mut self, request: &Publish, now: u64) -> (Publication, Option<Position>) {
        let draft = Draft {
            channel: &request.channel,
            hash: request.hash,
            event: request.event,
            data: &request.data,
            extra: request.extra.clone(),
            position: None,
            delta: request.delta,
        };
        let Some(retention) = self.retention(&request.channel).filter(|_| !request.skip_history)
        else {
            self.note(request, None, now);
            return (Publication::new(draft), None);
        };
        let at = self.find_or_insert(request.hash, &request.channel);
        let stream = self.stream(at, &retention, now);
        let position = Some(Position { offset: stream.next_offset(), epoch: stream.epoch() });
        let publication = Publication::new(Draft { position, ..draft });
        stream.push(publication.clone(), &retention, now);
        self.schedule(at);
        self.note(request, position, now);
        (publication, position)
    }

    /// Notes the shard's interest and answers where the stream stands and what was missed.
    pub fn subscribe(&mut self, request: &Subscribe, now: u64) -> Subscribed {
        let at = self.find_or_insert(request.hash, &request.channel);
        self.channels[at as usize].interested |= 1 << request.subscriber.shard;
        let retention = self.retention(&request.channel).filter(|_| request.granted.needs_stream());
        let mut recovery = Recovery::default();
        let position = retention.map(|retention| {
            let mode = self.recovery_mode(&request.channel);
            let Settings { recovery_limit, answer_bytes, .. } = self.settings;
            let stream = self.stream(at, &retention, now);
            stream.expire(now);
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

    fn recovery_mode(&self, name: &str) -> RecoveryMode {
        self.settings.namespaces.of(name).map_or(RecoveryMode::Stream, |found| found.recovery_mode)
    }

    /// Notes that a subscriber is there.
    pub fn arrive(&mut self, request: &Subscribe, info: &ClientInfo) {
        let at = self.find_or_insert(request.hash, &request.channel);
        let user_hash = self.names.hash(&info.user);
        let members = self.channels[at as usize].members.get_or_insert_default();
        members.insert(request.subscriber.address(), info, user_hash);
    }

    /// Notes that a subscriber is gone; who it was.
    pub fn depart(&mut self, leave: &Leave) -> Option<ClientInfo> {
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
    pub fn tell(&mut self, question: &Question, now: u64) -> Result<Told, Error> {
        let found = self.find(question.hash, &question.channel);
        let members = |homes: &Self| {
            let at = found? as usize;
            homes.channels[at].members.as_deref().map(|members| (members.stats(), at))
        };
        match &question.about {
            About::Stats => {
                Ok(Told::Stats(members(self).map(|(stats, _)| stats).unwrap_or_default()))
            }
            About::Presence => {
                let Some((stats, at)) = members(self) else { return Ok(Told::Presence(vec![])) };
                if stats.clients as usize * MEMBER_BYTES > self.settings.answer_bytes {
                    return Err(Error::LIMIT_EXCEEDED);
                }
                let members = self.channels[at].members.as_deref();
                Ok(Told::Presence(members.map(|all| all.list(&self.ids)).unwrap_or_default()))
            }
            About::Position => {
                let stream = found.and_then(|at| self.channels[at as usize].stream.as_deref());
                Ok(Told::Position(stream.map(Stream::position)))
            }
            About::History(excerpt) => self.recall(question, excerpt, now),
            About::Oblivion => {
                if let Some(at) = found {
                    let stream = self.channels[at as usize].stream.as_deref_mut();
                    stream.into_iter().for_each(Stream::forget);
                    self.schedule(at);
                }
                Ok(Told::Oblivion)
            }
        }
    }

    /// Looks a part of the history up; a stream that was not there begins.
    fn recall(&mut self, question: &Question, excerpt: &Excerpt, now: u64) -> Result<Told, Error> {
        let retention = self.retention(&question.channel).ok_or(Error::NOT_AVAILABLE)?;
        let at = self.find_or_insert(question.hash, &question.channel);
        let answer_bytes = self.settings.answer_bytes;
        let stream = self.stream(at, &retention, now);
        stream.expire(now);
        let same_life = |since: Position| since.epoch.is_unset() || since.epoch == stream.epoch();
        if !excerpt.since.is_none_or(same_life) {
            return Err(Error::UNRECOVERABLE_POSITION);
        }
        let publications = stream.excerpt(excerpt);
        let bytes: usize = publications.iter().map(Publication::size).sum();
        if bytes > answer_bytes {
            return Err(Error::LIMIT_EXCEEDED);
        }
        Ok(Told::History(publications, stream.position()))
    }

    /// Forgets the shard's interest.
    pub fn release(&mut self, release: &Release) {
        if let Some(at) = self.find(release.hash, &release.channel) {
            self.channels[at as usize].interested &= !(1 << release.shard);
            self.remove_if_unused(at);
        }
    }

    /// Drops what has expired by `now`, a bounded number at a time.
    pub fn expire(&mut self, now: u64) {
        let mut due = std::mem::take(&mut self.due);
        self.expiry.sweep((now / TICK) as u32, SWEEP_MAX, &mut due);
        for at in due.drain(..) {
            let Some(stream) = &mut self.channels[at as usize].stream else { continue };
            if stream.expire(now) {
                self.drop_stream(at);
            } else {
                self.schedule(at);
            }
        }
        self.due = due;
    }

    /// When [`Homes::expire`] has something to do next, in milliseconds.
    pub fn next_expiry(&self) -> Option<u64> {
        self.expiry.next_due().map(|tick| u64::from(tick) * TICK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Address;
    use crate::message::{Asker, Granted, Guard, Subscriber};
    use crate::namespaces::Options;
    use crate::protocol::reply::Stats;
    use crate::publication::{Encoding, Event};

    fn homes(retention: Option<Retention>, streams_max: usize) -> Homes {
        let without = Options { retention, ..Options::default() };
        let namespaces = Arc::new(Namespaces { without, ..Namespaces::default() });
        let settings =
            Settings { namespaces, recovery_limit: 10, answer_bytes: 1 << 20, streams_max };
        Homes::new(settings, Names::new([0; 16], 1), Ids::new([0; 16]), 1)
    }

    fn publish(homes: &mut Homes, channel: &str, now: u64) -> Option<Position> {
        let request = Publish {
            channel: channel.into(),
            hash: 7,
            data: b"1"[..].into(),
            event: Event::Data,
            delta: false,
            extra: None,
            skip_history: false,
            guard: None,
            asker: Asker::Nobody,
        };
        homes.publish(&request, now).1
    }

    fn request(shard: u8, since: Option<Position>) -> Subscribe {
        let subscriber =
            Subscriber { shard, slot: 0, generation: 0, subscription: 0, serial: 0, command: 1 };
        Subscribe {
            channel: "a".into(),
            hash: 7,
            subscriber,
            encoding: Encoding::default(),
            filter: None,
            since,
            granted: Granted { positioned: true, recoverable: true },
            info: None,
        }
    }

    fn subscribe(homes: &mut Homes, shard: u8, since: Option<Position>) -> Subscribed {
        homes.subscribe(&request(shard, since), 0)
    }

    fn ask(homes: &mut Homes, about: About) -> Result<Told, Error> {
        let question = Question { channel: "a".into(), hash: 7, asker: Asker::Nobody, about };
        homes.tell(&question, 0)
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
                event: Event::Data,
                delta: false,
                extra: None,
                skip_history: false,
                guard: Some(Box::new(guard)),
                asker: Asker::Nobody,
            };
            let before = homes.published_before(&request, 0);
            let at = before.unwrap_or_else(|| homes.publish(&request, 0).1);
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
        let stats = |homes: &mut Homes| match ask(homes, About::Stats) {
            Ok(Told::Stats(stats)) => stats,
            other => panic!("{other:?}"),
        };
        assert_eq!(stats(&mut homes), Stats::default());
        let info = ClientInfo { user: "u".into(), ..ClientInfo::default() };
        for shard in [1, 2] {
            homes.arrive(&request(shard, None), &info);
        }
        assert_eq!(stats(&mut homes), Stats { clients: 2, users: 1 });
        assert!(
            matches!(ask(&mut homes, About::Presence), Ok(Told::Presence(all)) if all.len() == 2)
        );
        for shard in [1, 2] {
            let address = Address { shard, slot: 0, generation: 0 };
            let leave = Leave { channel: "a".into(), hash: 7, address };
            assert_eq!(&*homes.depart(&leave).unwrap().user, "u");
            assert!(homes.depart(&leave).is_none());
        }
        assert!(homes.is_empty());
    }

    #[test]
    fn history_is_told_and_forgotten() {
        let mut homes = homes(Some(RETENTION), 10);
        (0..3).for_each(|_| _ = publish(&mut homes, "a", 0));
        let told = |homes: &mut Homes, since| {
            let excerpt = Excerpt { limit: 10, since, reverse: false };
            match ask(homes, About::History(excerpt)) {
                Ok(Told::History(publications, at)) => Ok((publications.len(), at.offset)),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error),
            }
        };
        assert_eq!(told(&mut homes, None), Ok((2, 3)));
        let elsewhere = Position { offset: 1, epoch: Epoch::parse("aaaaaaaa") };
        assert_eq!(told(&mut homes, Some(elsewhere)), Err(Error::UNRECOVERABLE_POSITION));
        ask(&mut homes, About::Oblivion).unwrap();
        assert_eq!(told(&mut homes, None), Ok((0, 3)));
        let mut without = super::tests::homes(None, 10);
        assert_eq!(told(&mut without, None), Err(Error::NOT_AVAILABLE));
    }

    #[test]
    fn history_expires_and_is_bounded() {
        let mut homes = homes(Some(RETENTION), 2);
        for channel in ["a", "b", "c", "d"] {
            publish(&mut homes, channel, 0);
        }
        assert_eq!(homes.len(), 2, "endless channels replace each other");
        homes.expire(7_000);
        assert_eq!(homes.len(), 2);
        homes.expire(62_000);
        assert!(homes.is_empty());
        assert_eq!(homes.next_expiry(), None);
    }
}
