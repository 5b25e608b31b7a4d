//! The home side of channels: offsets, epochs, history, and which shards are interested.
//!
//! Owns every stream whose name hashes here. Never knows a connection. The invariant: offsets of
//! one epoch are given out once and in order, and a subscribe answer names exactly the position
//! behind which the next publication to that shard continues.

use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use crate::history::{Recovery, Retention, Stream};
use crate::message::{Publish, Release, Subscribe, Subscribed};
use crate::protocol::{Epoch, Position};
use crate::publication::Publication;
use crate::wheel::Wheel;

/// Milliseconds of one tick of the expiry wheel.
const TICK: u64 = 1000;
/// Streams looked at in one sweep.
const SWEEP_MAX: usize = 256;

/// What homes keep and give out.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How much history a channel keeps; `None`: none.
    pub retention: Option<Retention>,
    /// Publications of one recovery at most.
    pub recovery_limit: usize,
    /// Bytes of one recovery at most.
    pub recovery_bytes: usize,
    /// Streams that one shard keeps at most; past it the one that expires first makes room.
    pub streams_max: usize,
}

struct Channel {
    name: Arc<str>,
    hash: u64,
    /// Bit n: shard n has subscribers, or has asked for some.
    interested: u64,
    stream: Option<Box<Stream>>,
}

/// All channels at home on one shard.
pub struct Homes {
    settings: Settings,
    table: HashTable<u32>,
    channels: Slab<Channel>,
    expiry: Wheel,
    streams: usize,
    /// State of the epoch generator, seeded from randomness.
    seed: u64,
    due: Vec<u32>,
}

impl Homes {
    /// No channels yet. `seed` makes the epochs.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Homes {
            settings,
            table: HashTable::new(),
            channels: Slab::new(),
            expiry: Wheel::new(1024),
            streams: 0,
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
        let channel = Channel { name: name.clone(), hash, interested: 0, stream: None };
        let at = self.channels.insert(channel) as u32;
        let channels = &self.channels;
        self.table.insert_unique(hash, at, |at| channels[*at as usize].hash);
        at
    }

    fn remove_if_unused(&mut self, at: u32) {
        let channel = &self.channels[at as usize];
        if channel.interested != 0 || channel.stream.is_some() {
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

    fn stream(&mut self, at: u32, now: u64) -> Option<&mut Stream> {
        let retention = self.settings.retention?;
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
            let stream = Stream::new(epoch, &retention, now);
            self.channels[at as usize].stream = Some(Box::new(stream));
            self.streams += 1;
            self.schedule(at);
        }
        self.channels[at as usize].stream.as_deref_mut()
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

    /// Encodes a publication, gives it its offset and keeps it where the channel keeps history.
    pub fn publish(&mut self, request: &Publish, now: u64) -> (Publication, Option<Position>) {
        let plain = || Publication::new(&request.channel, request.hash, &request.data, None);
        let Some(retention) = self.settings.retention.filter(|_| !request.skip_history) else {
            return (plain(), None);
        };
        let at = self.find_or_insert(request.hash, &request.channel);
        let Some(stream) = self.stream(at, now) else { return (plain(), None) };
        let offset = Some(stream.next_offset());
        let publication = Publication::new(&request.channel, request.hash, &request.data, offset);
        stream.push(publication.clone(), &retention, now);
        let position = stream.position();
        self.schedule(at);
        (publication, Some(position))
    }

    /// Notes the shard's interest and answers where the stream stands and what was missed.
    pub fn subscribe(&mut self, request: &Subscribe, now: u64) -> Subscribed {
        let at = self.find_or_insert(request.hash, &request.channel);
        self.channels[at as usize].interested |= 1 << request.subscriber.shard;
        let Settings { recovery_limit, recovery_bytes, .. } = self.settings;
        let mut recovery = Recovery::default();
        let position = self.stream(at, now).map(|stream| {
            stream.expire(now);
            if let Some(since) = request.since {
                recovery = stream.recover(since, recovery_limit, recovery_bytes);
            }
            stream.position()
        });
        Subscribed {
            channel: request.channel.clone(),
            hash: request.hash,
            subscriber: request.subscriber,
            encoding: request.encoding,
            was_recovering: position.is_some() && request.since.is_some(),
            recovered: recovery.recovered,
            position: match request.since {
                Some(since) if recovery.recovered => {
                    position.map(|top| Position { offset: since.offset, ..top })
                }
                _ => position,
            },
            publications: recovery.publications,
        }
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
    use crate::message::{Asker, Subscriber};
    use crate::publication::Encoding;

    fn homes(retention: Option<Retention>, streams_max: usize) -> Homes {
        let settings =
            Settings { retention, recovery_limit: 10, recovery_bytes: 1 << 20, streams_max };
        Homes::new(settings, 1)
    }

    fn publish(homes: &mut Homes, channel: &str, now: u64) -> Option<Position> {
        let request = Publish {
            channel: channel.into(),
            hash: 7,
            data: b"1"[..].into(),
            skip_history: false,
            asker: Asker::Nobody,
        };
        homes.publish(&request, now).1
    }

    fn subscribe(homes: &mut Homes, shard: u8, since: Option<Position>) -> Subscribed {
        let subscriber =
            Subscriber { shard, slot: 0, generation: 0, subscription: 0, serial: 0, command: 1 };
        let (channel, encoding) = ("a".into(), Encoding::Json);
        homes.subscribe(&Subscribe { channel, hash: 7, subscriber, encoding, since }, 0)
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
