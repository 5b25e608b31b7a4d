//! The keys of an established connection, in as few bytes as they take.
//!
//! Owns secrets, keys and sequence numbers of both directions, and erases them on drop. Never
//! seals or opens: `seal` and `open` do.

use std::fmt;
use std::hint::black_box;

use aws_lc_rs::aead::{LessSafeKey, Nonce};
use zeroize::Zeroize;

use crate::wire::tls::suite::Suite;

/// Bytes of the value that a nonce is made of.
pub const IV: usize = 12;
/// Bits of the sequence number in the word of the receiving direction. 2^48 records take years.
const SEQUENCE_BITS: u32 = 48;
const SEQUENCE: u64 = (1 << SEQUENCE_BITS) - 1;
const ONE_WITHOUT_DATA: u64 = 1 << SEQUENCE_BITS;
const CLIENT: u64 = 1 << 63;

/// What a handshake yields for one direction.
pub struct TrafficKeys<'a> {
    /// The traffic secret: 32 bytes, with SHA-384 48.
    pub secret: &'a [u8],
    /// The key: 16 or 32 bytes.
    pub key: &'a [u8],
    /// The value that nonces are made of.
    pub iv: [u8; IV],
    /// Sequence number of the next record.
    pub sequence: u64,
}

/// The keys do not derive from the secret: a handshake that processed a KeyUpdate, or keys of
/// another suite. The connection must be refused, because its next KeyUpdate would fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleSecret;

impl fmt::Display for StaleSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the keys of the connection do not derive from its traffic secret")
    }
}

impl std::error::Error for StaleSecret {}

/// Secret, key and iv of one direction.
struct Material<const SECRET: usize, const KEY: usize> {
    secret: [u8; SECRET],
    key: [u8; KEY],
    iv: [u8; IV],
}

impl<const SECRET: usize, const KEY: usize> Drop for Material<SECRET, KEY> {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.key.zeroize();
        self.iv.zeroize();
    }
}

/// Both directions. The sequence numbers are apart, so that no byte is lost to alignment.
struct Pair<const SECRET: usize, const KEY: usize> {
    /// Sequence number of the next record to send.
    sent: u64,
    /// Sequence number of the next record to open, the number of records without data before it,
    /// and the side.
    received: u64,
    send: Material<SECRET, KEY>,
    receive: Material<SECRET, KEY>,
}

enum Keys {
    Aes128Gcm(Box<Pair<32, 16>>),
    Aes256Gcm(Box<Pair<48, 32>>),
    ChaCha20Poly1305(Box<Pair<32, 32>>),
}

/// Keys of an established TLS 1.3 connection: one allocation of 136 bytes (AES-128), 168 (ChaCha20)
/// or 200 (AES-256).
pub struct RecordKeys(Keys);

const _: () = assert!(size_of::<RecordKeys>() == 16);
const _: () = assert!(size_of::<Pair<32, 16>>() == 136);
const _: () = assert!(size_of::<Pair<32, 32>>() == 168);
const _: () = assert!(size_of::<Pair<48, 32>>() == 200);

/// The two directions of a connection.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    Send,
    Receive,
}

/// One direction of a connection.
pub(super) struct Side<'a> {
    pub(super) suite: Suite,
    pub(super) word: &'a mut u64,
    secret: &'a mut [u8],
    key: &'a mut [u8],
    iv: &'a mut [u8; IV],
}

impl<const SECRET: usize, const KEY: usize> Pair<SECRET, KEY> {
    fn boxed() -> Box<Self> {
        let empty = || Material { secret: [0; SECRET], key: [0; KEY], iv: [0; IV] };
        Box::new(Pair { sent: 0, received: 0, send: empty(), receive: empty() })
    }

    /// Reads the first and the last byte that seals a record.
    fn read_ahead(&self) {
        black_box((self.sent, self.send.iv[IV - 1]));
    }

    fn side(&mut self, suite: Suite, direction: Direction) -> Side<'_> {
        let (word, material) = match direction {
            Direction::Send => (&mut self.sent, &mut self.send),
            Direction::Receive => (&mut self.received, &mut self.receive),
        };
        let Material { secret, key, iv } = material;
        Side { suite, word, secret, key, iv }
    }
}

impl Side<'_> {
    /// The key, expanded.
    pub(super) fn expanded(&self) -> LessSafeKey {
        self.suite.expand(self.key)
    }

    /// The nonce of the record with this sequence number.
    pub(super) fn nonce(&self, sequence: u64) -> Nonce {
        let mut nonce = *self.iv;
        let (_, low) = nonce.split_at_mut(IV - size_of::<u64>());
        low.iter_mut().zip(sequence.to_be_bytes()).for_each(|(byte, bits)| *byte ^= bits);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Replaces secret, key and iv by the next ones. The caller resets the sequence number.
    pub(super) fn next_keys(&mut self) {
        let mut secret = [0; 48];
        let (next, _) = secret.split_at_mut(self.secret.len());
        self.suite.derive(self.secret, "traffic upd", next);
        self.secret.copy_from_slice(next);
        secret.zeroize();
        self.suite.derive(self.secret, "key", self.key);
        self.suite.derive(self.secret, "iv", self.iv);
    }

    /// Takes over what a handshake yields; an error if the key is not the secret's.
    fn load(&mut self, from: &TrafficKeys<'_>) -> Result<(), StaleSecret> {
        if from.secret.len() != self.secret.len() || from.key.len() != self.key.len() {
            return Err(StaleSecret);
        }
        self.secret.copy_from_slice(from.secret);
        self.suite.derive(self.secret, "key", self.key);
        self.suite.derive(self.secret, "iv", self.iv);
        if *self.key != *from.key || *self.iv != from.iv {
            return Err(StaleSecret);
        }
        *self.word = from.sequence & SEQUENCE;
        Ok(())
    }
}

/// What the word of the receiving direction counts.
impl Side<'_> {
    /// Sequence number of the next record to open.
    pub(super) fn sequence(&self) -> u64 {
        *self.word & SEQUENCE
    }

    /// Whether this is the client's side, which takes tickets.
    pub(super) fn is_client(&self) -> bool {
        *self.word & CLIENT != 0
    }

    /// Moves to the next record, or to the first one under new keys.
    pub(super) fn set_sequence(&mut self, sequence: u64) {
        *self.word = *self.word & !SEQUENCE | sequence & SEQUENCE;
    }

    /// Counts a record without data; false if there were `most` in a row before it.
    pub(super) fn count_without_data(&mut self, most: u64) -> bool {
        let before = (*self.word & !CLIENT) >> SEQUENCE_BITS;
        if before < most {
            *self.word += ONE_WITHOUT_DATA;
        }
        before < most
    }

    /// Notes a record with data.
    pub(super) fn reset_without_data(&mut self) {
        *self.word &= SEQUENCE | CLIENT;
    }
}

impl RecordKeys {
    /// The keys of a connection on the server's side.
    pub fn new(
        suite: Suite,
        send: &TrafficKeys<'_>,
        receive: &TrafficKeys<'_>,
    ) -> Result<Self, StaleSecret> {
        let mut keys = RecordKeys(match suite {
            Suite::Aes128Gcm => Keys::Aes128Gcm(Pair::boxed()),
            Suite::Aes256Gcm => Keys::Aes256Gcm(Pair::boxed()),
            Suite::ChaCha20Poly1305 => Keys::ChaCha20Poly1305(Pair::boxed()),
        });
        keys.side(Direction::Send).load(send)?;
        keys.side(Direction::Receive).load(receive)?;
        Ok(keys)
    }

    /// The keys of a connection on the client's side, which takes session tickets and drops them.
    pub fn of_client(
        suite: Suite,
        send: &TrafficKeys<'_>,
        receive: &TrafficKeys<'_>,
    ) -> Result<Self, StaleSecret> {
        let mut keys = RecordKeys::new(suite, send, receive)?;
        *keys.side(Direction::Receive).word |= CLIENT;
        Ok(keys)
    }

    /// The suite of the connection.
    pub fn suite(&self) -> Suite {
        match self.0 {
            Keys::Aes128Gcm(_) => Suite::Aes128Gcm,
            Keys::Aes256Gcm(_) => Suite::Aes256Gcm,
            Keys::ChaCha20Poly1305(_) => Suite::ChaCha20Poly1305,
        }
    }

    /// Sequence number of the next record to send.
    pub(super) fn sent(&self) -> u64 {
        match &self.0 {
            Keys::Aes128Gcm(pair) => pair.sent,
            Keys::Aes256Gcm(pair) => pair.sent,
            Keys::ChaCha20Poly1305(pair) => pair.sent,
        }
    }

    pub(super) fn read_ahead(&self) {
        match &self.0 {
            Keys::Aes128Gcm(pair) => pair.read_ahead(),
            Keys::Aes256Gcm(pair) => pair.read_ahead(),
            Keys::ChaCha20Poly1305(pair) => pair.read_ahead(),
        }
    }

    pub(super) fn side(&mut self, direction: Direction) -> Side<'_> {
        let suite = self.suite();
        match &mut self.0 {
            Keys::Aes128Gcm(pair) => pair.side(suite, direction),
            Keys::Aes256Gcm(pair) => pair.side(suite, direction),
            Keys::ChaCha20Poly1305(pair) => pair.side(suite, direction),
        }
    }
}

impl fmt::Debug for RecordKeys {
    /// Without a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordKeys")
            .field("suite", &self.suite())
            .field("sent", &self.sent())
            .finish_non_exhaustive()
    }
}
