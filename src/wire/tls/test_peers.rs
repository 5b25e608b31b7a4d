//! Connections of tests and of the fuzzer: both ends, and records that no honest peer seals.
#![cfg(any(test, fuzzing))]

use crate::wire::tls::keys::{Direction, IV, RecordKeys, TrafficKeys};
use crate::wire::tls::record::{HEADER, TAG};
use crate::wire::tls::seal::seal_record;
use crate::wire::tls::suite::Suite;

/// Both ends of a connection, the server's first, with secrets that are made of a seed.
pub fn pair(suite: Suite, seed: u8, sequence: u64) -> (RecordKeys, RecordKeys) {
    let (secret_bytes, key_bytes) = match suite {
        Suite::Aes128Gcm => (32, 16),
        Suite::Aes256Gcm => (48, 32),
        Suite::ChaCha20Poly1305 => (32, 32),
    };
    let material = |first: u8| {
        let secret: Vec<u8> = (first..).take(secret_bytes).collect();
        let (mut key, mut iv) = (vec![0; key_bytes], [0; IV]);
        suite.derive(&secret, "key", &mut key);
        suite.derive(&secret, "iv", &mut iv);
        (secret, key, iv)
    };
    let (server, client) = (material(seed & 63), material(seed & 63 | 64));
    let [server, client] =
        [&server, &client].map(|(secret, key, iv)| TrafficKeys { secret, key, iv: *iv, sequence });
    let on_server = RecordKeys::new(suite, &server, &client);
    let on_client = RecordKeys::of_client(suite, &client, &server);
    (on_server.expect("derived"), on_client.expect("derived"))
}

/// Seals what stands inside a record, type and padding included.
pub fn seal_inner(keys: &mut RecordKeys, inner: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HEADER + inner.len() + TAG];
    out[HEADER..HEADER + inner.len()].copy_from_slice(inner);
    let mut side = keys.side(Direction::Send);
    let key = side.expanded();
    seal_record(&mut side, &key, inner.last().copied().unwrap_or_default(), &mut out);
    out
}
