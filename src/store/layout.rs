//! Keys of the tables.
//!
//! Owns the layout of keys. Never reads a disk. The invariants: a channel is written as its length
//! and its bytes, so no channel is a prefix of another one; the publications of a channel are
//! neighbours in the order of their offsets; idempotency keys that expire in the same minute are
//! neighbours, so that they are removed together.

use std::ops::Range;

use siphasher::sip::SipHasher13;
use std::hash::Hasher;

use crate::model::storage::KeyPlace;
use crate::wire::protocol::{Epoch, Position};

/// Milliseconds of a minute.
const MINUTE: u64 = 60_000;
/// Number of counters of generations.
pub const GENERATIONS: u64 = 1 << 14;
/// Longest name of a channel in bytes. The bus carries no longer one.
pub const CHANNEL_MAX: usize = u16::MAX as usize - 64;

/// First byte of the keys in the table of small values that belong to the store itself.
const OWN: u8 = 0;
/// Key of the secret of the store.
pub const SECRET_KEY: &[u8] = &[OWN, b's'];
/// Key of the value that tries out whether the disk can be written.
pub const TRIAL_KEY: &[u8] = &[OWN, b't'];
/// Key of the mark of an import that is not complete.
pub const IMPORT_KEY: &[u8] = &[OWN, b'i'];
/// Key of the mark that ends each batch.
pub const MARK_KEY: &[u8] = &[OWN, b'm'];

/// The last bucket of idempotency keys.
const BUCKET_MAX: u32 = u32::MAX - 1;
/// A key behind all keys: names of channels are shorter, and buckets are before it.
pub const LAST_KEY: [u8; 4] = [u8::MAX; 4];

/// The key of a stream, and the first part of the keys of its publications.
pub fn stream_key(channel: &str) -> Vec<u8> {
    with_channel(Vec::with_capacity(channel.len() + 10), channel)
}

fn with_channel(mut key: Vec<u8>, channel: &str) -> Vec<u8> {
    key.extend_from_slice(&(channel.len() as u16).to_be_bytes());
    key.extend_from_slice(channel.as_bytes());
    key
}

/// The key of a publication.
pub fn publication_key(channel: &str, offset: u64) -> Vec<u8> {
    let mut key = stream_key(channel);
    key.extend_from_slice(&offset.to_be_bytes());
    key
}

/// The keys of publications of these offsets.
pub fn publication_keys(channel: &str, offsets: &Range<u64>) -> Range<Vec<u8>> {
    publication_key(channel, offsets.start)..publication_key(channel, offsets.end)
}

/// The first key behind all publications of a channel.
pub fn publications_end(channel: &str) -> Vec<u8> {
    next_key(publication_key(channel, u64::MAX))
}

/// The channel at the begin of a key, and the rest of the key.
pub fn split_channel(key: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = key.split_first_chunk::<2>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(name).ok()?, rest))
}

/// The channel and the offset of a publication's key.
pub fn split_publication_key(key: &[u8]) -> Option<(&str, u64)> {
    let (channel, offset) = split_channel(key)?;
    Some((channel, u64::from_be_bytes(offset.try_into().ok()?)))
}

/// The minute at whose begin all idempotency keys of a bucket have expired.
pub fn bucket_of(until: u64) -> u32 {
    u32::try_from(until.div_ceil(MINUTE)).unwrap_or(u32::MAX).min(BUCKET_MAX)
}

/// The first key of a bucket of idempotency keys.
pub fn bucket_key(bucket: u32) -> Vec<u8> {
    bucket.to_be_bytes().to_vec()
}

/// The bucket of an idempotency key's key on disk.
pub fn split_bucket(key: &[u8]) -> Option<u32> {
    key.first_chunk().map(|bucket| u32::from_be_bytes(*bucket))
}

/// The begin of the keys on disk of a channel's idempotency keys in a bucket.
pub fn channel_bucket(bucket: u32, channel: &str) -> Vec<u8> {
    with_channel(bucket_key(bucket), channel)
}

/// The key on disk of an idempotency key. The position tells the keys of a channel apart, so the
/// text of the key, which may be long, is part of the value.
pub fn idempotency_key(channel: &str, key: KeyPlace) -> Vec<u8> {
    let Position { epoch, offset } = key.position;
    let mut place = channel_bucket(bucket_of(key.until), channel);
    place.extend_from_slice(epoch.as_bytes());
    place.extend_from_slice(&offset.to_be_bytes());
    place
}

/// The first key behind all keys that begin with `prefix`.
pub fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // No key is behind a prefix of the highest bytes alone: keys are shorter.
    vec![u8::MAX; usize::from(u16::MAX)]
}

/// The key behind a key.
pub fn next_key(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// Whether a key of the table of small values belongs to the store itself.
pub fn is_own(key: &[u8]) -> bool {
    key.first() == Some(&OWN)
}

/// A key of the table of small values. `section` names the owner, never the store itself.
pub fn state_key(section: &str, key: &[u8]) -> Vec<u8> {
    let mut place = with_channel(vec![OWN + 1], section);
    place.extend_from_slice(key);
    place
}

/// Reads the value of a generation. Without one, it is the first.
pub fn read_generation(value: Option<Vec<u8>>) -> u64 {
    value.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// Makes the epochs of channels without a record.
#[derive(Clone, Copy, Debug)]
pub struct Epochs {
    secret: [u8; 16],
}

impl Epochs {
    /// Epochs under the secret of the store.
    pub fn new(secret: [u8; 16]) -> Self {
        Epochs { secret }
    }

    fn hasher(&self, channel: &str) -> SipHasher13 {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        hasher.write(channel.as_bytes());
        // UTF-8 never contains this byte.
        hasher.write_u8(0xff);
        hasher
    }

    /// The key of the generation of a channel. Channels share counters.
    pub fn generation_key(&self, channel: &str) -> Vec<u8> {
        let counter = (self.hasher(channel).finish() % GENERATIONS) as u16;
        let [high, low] = counter.to_be_bytes();
        vec![OWN, b'g', high, low]
    }

    /// The epoch of the stream that begins in a generation.
    pub fn of_generation(&self, channel: &str, generation: u64) -> Epoch {
        let mut hasher = self.hasher(channel);
        hasher.write_u8(1);
        hasher.write_u64(generation);
        Epoch::from_random(hasher.finish())
    }

    /// The generation that begins when the record of a stream is removed.
    pub fn generation_after(&self, channel: &str, ended: Epoch) -> u64 {
        let mut hasher = self.hasher(channel);
        hasher.write_u8(2);
        hasher.write(ended.as_bytes());
        hasher.finish()
    }

    /// The generation that begins when a record is removed whose epoch is unknown. No sequence of
    /// [`Epochs::after`] leads to its epoch.
    pub fn generation_after_damage(&self, channel: &str, generation: u64) -> u64 {
        let mut hasher = self.hasher(channel);
        hasher.write_u8(3);
        hasher.write_u64(generation);
        hasher.finish()
    }

    /// The epoch of the stream that follows one that has ended, whether its record is still there
    /// or not: subscribers may know the epoch before the record is removed.
    pub fn after(&self, channel: &str, ended: Epoch) -> Epoch {
        self.of_generation(channel, self.generation_after(channel, ended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_publications_of_a_channel_are_neighbours_in_the_order_of_their_offsets() {
        let names = ["a", "b", "aa", "a\0", "\u{10ffff}", ""];
        let mut keys = Vec::new();
        for name in names {
            for offset in [0, 1, 255, 256, u64::MAX] {
                let key = publication_key(name, offset);
                assert_eq!(split_publication_key(&key), Some((name, offset)));
                assert!(key < publications_end(name) && key >= stream_key(name));
                keys.push(key);
            }
        }
        keys.sort();
        let found: Vec<_> = keys.iter().filter_map(|key| split_publication_key(key)).collect();
        for (one, next) in found.iter().zip(found.iter().skip(1)) {
            assert!(one.0 != next.0 || one.1 < next.1, "{one:?} {next:?}");
        }
        let mut channels: Vec<_> = found.iter().map(|(channel, _)| *channel).collect();
        channels.dedup();
        assert_eq!(channels.len(), names.len(), "each channel appears once: {channels:?}");
    }

    #[test]
    fn keys_that_are_none_are_not_split() {
        for key in [&b""[..], b"\0", b"\0\x05abc", b"\0\x01a\0", b"\0\x01\xff12345678"] {
            assert_eq!(split_publication_key(key), None, "{key:?}");
        }
        assert_eq!(split_bucket(b"abc"), None);
    }

    #[test]
    fn idempotency_keys_are_ordered_by_the_minute_in_which_they_expire() {
        let key = |until, offset| {
            let position = Position { offset, epoch: Epoch::from_random(1) };
            KeyPlace { position, until }
        };
        assert_eq!([0, 1, 60_000, 60_001].map(bucket_of), [0, 1, 1, 2]);
        let (one, two) = (key(60_000, 9), key(60_001, 1));
        assert!(idempotency_key("z", one) < idempotency_key("a", two));
        assert!(idempotency_key("a", two).starts_with(&channel_bucket(2, "a")));
        assert_eq!(split_bucket(&idempotency_key("a", two)), Some(2));
        assert_ne!(idempotency_key("a", one), idempotency_key("a", key(60_000, 8)));
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_all_its_keys() {
        for prefix in [&b"a"[..], b"a\xff", b"\xff\xfe", b"\xff"] {
            let end = end_of(prefix);
            assert!([prefix, &[0xff; 100]].concat() < end, "{prefix:?} {end:?}");
        }
        assert_eq!(end_of(b"a\xff"), b"b");
    }

    #[test]
    fn epochs_differ_by_secret_channel_generation_and_predecessor() {
        let epochs = Epochs::new([1; 16]);
        let first = epochs.of_generation("a", 0);
        assert_eq!(first, epochs.of_generation("a", 0));
        let others = [
            epochs.of_generation("a", 1),
            epochs.of_generation("b", 0),
            Epochs::new([2; 16]).of_generation("a", 0),
            epochs.after("a", first),
            epochs.after("b", first),
        ];
        let mut all: Vec<_> = others.iter().chain([&first]).map(|epoch| epoch.as_str()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
        assert_eq!(epochs.generation_key("a"), epochs.generation_key("a"));
        assert_ne!(state_key("hooks", b""), SECRET_KEY);
    }
}
