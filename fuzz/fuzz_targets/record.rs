//! Records of TLS: never a panic, whatever stands in a record or is sent as one; what one end seals
//! the other end opens, however much of it a socket takes at a time.
#![no_main]

use drumline::wire::tls::record::RECORD_MAX;
use drumline::wire::tls::test_peers::{pair, seal_inner};
use drumline::wire::tls::{Content, Opened, RecordKeys, Suite};
use libfuzzer_sys::fuzz_target;

/// Opens records until there is no whole one left. Returns their data; none after a refusal.
fn open(keys: &mut RecordKeys, mut input: &mut [u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        match keys.open(input).ok()? {
            Opened::Partial => {
                assert!(input.len() < RECORD_MAX, "a record has a greatest length");
                return Some(data);
            }
            Opened::Record { used, content } => {
                if let Content::Data(content) = content {
                    data.extend_from_slice(content);
                }
                input = &mut input[used..];
            }
        }
    }
}

/// Sends the data through a socket that takes `taken` bytes first, then the rest.
fn send(from: &mut RecordKeys, data: &[u8], pieces: usize, taken: usize) -> Vec<u8> {
    let mut out = vec![0; RecordKeys::sealed_len(data.len())];
    from.seal(data.chunks(pieces), &mut out);
    let begun = from.take_back(out.len(), taken);
    let mut wire = out[..taken.min(out.len())].to_vec();
    wire.extend_from_slice(&out[begun.rest]);
    let rest = &data[begun.plain..];
    let mut out = vec![0; RecordKeys::sealed_len(rest.len())];
    from.seal(rest.chunks(pieces), &mut out);
    wire.extend_from_slice(&out);
    wire
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, mut input)) = input.split_first() else { return };
    let suites = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    let (mut server, mut client) = pair(suites[usize::from(first) % suites.len()], first, 0);
    // Steps: what is done, two bytes of numbers, a length, and that many bytes.
    while let Some((&[step, one, other, length], rest)) = input.split_first_chunk() {
        let (bytes, later) = rest.split_at(rest.len().min(usize::from(length)));
        input = later;
        let (from, to) =
            if step & 1 == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
        match step >> 1 & 3 {
            // Data, long where the step says so.
            0 => {
                let data = if step & 8 == 0 { bytes.to_vec() } else { bytes.repeat(200) };
                let taken = usize::from(u16::from_be_bytes([one, other]));
                let mut wire = send(from, &data, usize::from(one) + 1, taken);
                assert_eq!(open(to, &mut wire), Some(data));
            }
            1 => {
                let mut wire = Vec::new();
                from.seal_key_update(one & 1 == 1, &mut wire);
                if open(to, &mut wire).is_none() {
                    return;
                }
            }
            // Anything inside a record, except a KeyUpdate by which the sender does not abide.
            2 if bytes.first() != Some(&24) => {
                let mut inner = bytes.to_vec();
                inner.push(one);
                inner.resize(inner.len() + usize::from(other) * usize::from(step >> 3), 0);
                if open(to, &mut seal_inner(from, &inner)).is_none() {
                    return;
                }
            }
            // Anything as a record: the sender does not know the keys.
            3 => {
                let mut wire = bytes.to_vec();
                if let Some(outer) = wire.first_mut().filter(|_| one & 1 == 1) {
                    *outer = 23;
                }
                if open(to, &mut wire) != Some(Vec::new()) {
                    return;
                }
            }
            _ => return,
        }
    }
});
