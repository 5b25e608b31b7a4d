//! Records against the vectors of RFC 8448, in pieces, cut at every position, and malformed.
#![cfg(test)]

use proptest::prelude::*;

use crate::wire::tls::keys::{RecordKeys, StaleSecret, TrafficKeys};
use crate::wire::tls::open::{Content, Opened};
use crate::wire::tls::record::{CONTENT_MAX, FULL_RECORD, HEADER, OVERHEAD, RECORD_MAX, TAG};
use crate::wire::tls::test_peers::{pair, seal_inner};
use crate::wire::tls::{AlertDescription, Begun, Suite};

const SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
const DATA: u8 = 23;

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap()
}

fn seal(keys: &mut RecordKeys, pieces: &[&[u8]]) -> Vec<u8> {
    let plain = pieces.iter().map(|piece| piece.len()).sum();
    // The buffer of a shard holds what an earlier call left.
    let mut out = vec![0xee; RecordKeys::sealed_len(plain)];
    keys.seal(pieces.iter().copied(), &mut out);
    out
}

/// The data of all records of the input.
fn open_all(keys: &mut RecordKeys, mut input: &mut [u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while !input.is_empty() {
        let used = match keys.open(input).unwrap() {
            Opened::Record { used, content: Content::Data(content) } => {
                data.extend_from_slice(content);
                used
            }
            other => panic!("{other:?}"),
        };
        input = &mut input[used..];
    }
    data
}

/// What a server answers to one record with this inside.
fn on_server(inner: &[u8]) -> Result<String, AlertDescription> {
    let (mut server, mut client) = pair(Suite::Aes128Gcm, 1, 0);
    let mut record = seal_inner(&mut client, inner);
    server.open(&mut record).map(|opened| format!("{opened:?}"))
}

/// The simple 1-RTT handshake of RFC 8448, section 3, after its end.
fn rfc_8448() -> (RecordKeys, RecordKeys) {
    let client_secret = hex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5");
    let server_secret = hex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643");
    let client_key = hex("17422dda596ed5d9acd890e3c63f5051");
    let server_key = hex("9f02283b6c9c07efc26bb9f2ac92e356");
    let client_iv = hex("5b78923dee08579033e523d9").try_into().unwrap();
    let server_iv = hex("cf782b88dd83549aadf1e984").try_into().unwrap();
    let client =
        TrafficKeys { secret: &client_secret, key: &client_key, iv: client_iv, sequence: 0 };
    // The server's first record was a ticket.
    let server =
        TrafficKeys { secret: &server_secret, key: &server_key, iv: server_iv, sequence: 1 };
    let suite = Suite::Aes128Gcm;
    (
        RecordKeys::new(suite, &server, &client).unwrap(),
        RecordKeys::of_client(suite, &client, &server).unwrap(),
    )
}

#[test]
fn records_agree_with_rfc_8448() {
    let (mut server, mut client) = rfc_8448();
    let data: Vec<u8> = (0..50).collect();
    let from_client = hex("17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea
        42 f9 14 aa 66 bc ab 3f 2b 98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62
        92 a2 97 70 14 bd 1e 3d ea e6 3a ee bb 21 69 49 15 e4");
    let from_server = hex("17 03 03 00 43 2e 93 7e 11 ef 4a c7 40 e5 38 ad 36 00 5f c4 a4 69 32 fc
        32 25 d0 5f 82 aa 1b 36 e3 0e fa f9 7d 90 e6 df fc 60 2d cb 50 1a 59 a8 fc c4 9c 4b f2 e5
        f0 a2 1c 00 47 c2 ab f3 32 54 0d d0 32 e1 67 c2 95 5d");
    let client_closes = hex("17 03 03 00 13 c9 87 27 60 65 56 66 b7 4d 7f f1 15 3e fd 6d b6 d0 b0
        e3");
    let server_closes = hex("17 03 03 00 13 b5 8f d6 71 66 eb f5 99 d2 47 20 cf be 7e fa 7a 88 64
        a9");
    let closed = |used| Opened::Record { used, content: Content::Closed };

    assert_eq!(seal(&mut client, &[&data]), from_client);
    assert_eq!(open_all(&mut server, &mut from_client.clone()), data);
    assert_eq!(seal(&mut server, &[&data]), from_server);
    assert_eq!(open_all(&mut client, &mut from_server.clone()), data);
    let mut out = Vec::new();
    client.seal_alert(AlertDescription::CloseNotify, &mut out);
    assert_eq!(out, client_closes);
    assert_eq!(server.open(&mut out), Ok(closed(client_closes.len())));
    out.clear();
    server.seal_alert(AlertDescription::CloseNotify, &mut out);
    assert_eq!(out, server_closes);
    assert_eq!(client.open(&mut out), Ok(closed(server_closes.len())));
}

#[test]
fn keys_that_do_not_derive_from_their_secret_are_refused() {
    let secret = [7; 32];
    let mut key = [0; 16];
    let mut iv = [0; 12];
    Suite::Aes128Gcm.derive(&secret, "key", &mut key);
    Suite::Aes128Gcm.derive(&secret, "iv", &mut iv);
    let good = || TrafficKeys { secret: &secret, key: &key, iv, sequence: 0 };
    let new = |send, receive| RecordKeys::new(Suite::Aes128Gcm, &send, &receive).map(|_| ());
    assert_eq!(new(good(), good()), Ok(()));
    for bad in [
        TrafficKeys { secret: &[8; 32], ..good() },
        TrafficKeys { key: &[0; 16], ..good() },
        TrafficKeys { iv: [0; 12], ..good() },
        TrafficKeys { secret: &[7; 48], ..good() },
        TrafficKeys { key: &[0; 32], ..good() },
    ] {
        let TrafficKeys { secret, key, iv, sequence } = bad;
        let bad = || TrafficKeys { secret, key, iv, sequence };
        assert_eq!(new(bad(), good()), Err(StaleSecret));
        assert_eq!(new(good(), bad()), Err(StaleSecret));
    }
}

#[test]
fn no_secret_is_shown() {
    let (server, _) = pair(Suite::Aes128Gcm, 1, 5);
    assert_eq!(format!("{server:?}"), "RecordKeys { suite: Aes128Gcm, sent: 5, .. }");
}

#[test]
fn a_record_opens_only_when_its_last_byte_is_there() {
    for suite in SUITES {
        let (mut server, mut client) = pair(suite, 3, 0);
        let record = seal(&mut client, &[b"first", b"", b" frame"]);
        for cut in 0..record.len() {
            let mut partial = record[..cut].to_vec();
            assert_eq!(server.open(&mut partial), Ok(Opened::Partial));
            assert_eq!(partial, record[..cut]);
        }
        // What follows is left alone.
        let mut input = [&record[..], &record[..9]].concat();
        match server.open(&mut input).unwrap() {
            Opened::Record { used, content: Content::Data(data) } => {
                assert_eq!((used, &*data), (record.len(), &b"first frame"[..]));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(input[record.len()..], record[..9]);
        // A record opens once.
        assert_eq!(server.open(&mut record.clone()), Err(AlertDescription::BadRecordMac));
    }
}

#[test]
fn every_changed_bit_of_a_record_is_refused() {
    let (_, mut client) = pair(Suite::Aes128Gcm, 3, 0);
    let record = seal(&mut client, &[b"data"]);
    for bit in 0..record.len() * 8 {
        let (mut server, _) = pair(Suite::Aes128Gcm, 3, 0);
        let mut changed = record.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        match server.open(&mut changed) {
            Err(AlertDescription::UnexpectedMessage) => assert_eq!(bit / 8, 0),
            Err(AlertDescription::RecordOverflow) | Ok(Opened::Partial) => {
                assert!((3..HEADER).contains(&(bit / 8)));
            }
            other => assert_eq!(other, Err(AlertDescription::BadRecordMac)),
        }
    }
}

#[test]
fn a_header_that_no_record_may_have_is_refused_before_its_body_arrives() {
    let (mut server, _) = pair(Suite::Aes128Gcm, 3, 0);
    for outer in (0..=u8::MAX).filter(|&outer| outer != DATA) {
        assert_eq!(server.open(&mut [outer]), Err(AlertDescription::UnexpectedMessage));
    }
    let mut with_length = |length: usize| {
        let [high, low] = (length as u16).to_be_bytes();
        server.open(&mut [DATA, 3, 3, high, low]).map(|opened| format!("{opened:?}"))
    };
    for short in 0..=TAG {
        assert_eq!(with_length(short), Err(AlertDescription::BadRecordMac));
    }
    assert_eq!(with_length(TAG + 1).unwrap(), "Partial");
    assert_eq!(with_length(RECORD_MAX - HEADER).unwrap(), "Partial");
    assert_eq!(with_length(RECORD_MAX - HEADER + 1), Err(AlertDescription::RecordOverflow));
    assert_eq!(with_length(0xffff), Err(AlertDescription::RecordOverflow));
}

#[test]
fn the_content_of_a_record_is_bounded_with_its_padding() {
    let full = |padding: usize| {
        let mut inner = vec![b'x'; CONTENT_MAX - padding];
        inner.push(DATA);
        inner.extend(vec![0; padding]);
        inner
    };
    for padding in [0, 1, 300, CONTENT_MAX - 1] {
        let opened = on_server(&full(padding)).unwrap();
        assert_eq!(opened.matches("120").count(), CONTENT_MAX - padding);
    }
    let mut above = full(0);
    above.insert(0, b'x');
    assert_eq!(on_server(&above), Err(AlertDescription::RecordOverflow));
    let mut padded_above = full(5);
    padded_above.push(0);
    assert_eq!(on_server(&padded_above), Err(AlertDescription::RecordOverflow));
    assert_eq!(on_server(&[0; 40]), Err(AlertDescription::UnexpectedMessage));
}

#[test]
fn only_data_alerts_and_whole_key_updates_are_taken_from_a_client() {
    use AlertDescription::{DecodeError, IllegalParameter, UnexpectedMessage};
    let record = |inner: &[u8], content: &str| {
        let used = HEADER + inner.len() + TAG;
        Ok(format!("Record {{ used: {used}, content: {content} }}"))
    };
    let good: &[(&[u8], &str)] = &[
        (&[1, 2, DATA], "Data([1, 2])"),
        (&[1, 0, DATA, 0, 0], "Data([1, 0])"),
        (&[DATA], "Data([])"),
        (&[24, 0, 0, 1, 0, 22], "KeyUpdate { answer: false }"),
        (&[24, 0, 0, 1, 1, 22, 0], "KeyUpdate { answer: true }"),
        (&[1, 0, 21], "Closed"),
        (&[2, 0, 21], "Closed"),
        (&[1, 90, 21], "Nothing"),
        (&[1, 50, 21], "Alert(50)"),
        (&[2, 20, 21], "Alert(20)"),
    ];
    for (inner, content) in good {
        assert_eq!(on_server(inner), record(inner, content));
    }
    let bad: &[(&[u8], AlertDescription)] = &[
        (&[20], UnexpectedMessage),
        (&[1, 20], UnexpectedMessage),
        (&[1, 24], UnexpectedMessage),
        (&[1, 255], UnexpectedMessage),
        (&[21], UnexpectedMessage),
        (&[1, 21], DecodeError),
        (&[1, 0, 0, 21], DecodeError),
        (&[22], UnexpectedMessage),
        // In pieces, and followed by another message.
        (&[24, 22], UnexpectedMessage),
        (&[24, 0, 0, 1, 22], UnexpectedMessage),
        (&[24, 0, 0, 1, 0, 24, 0, 0, 1, 0, 22], UnexpectedMessage),
        (&[24, 0, 0, 1, 2, 22], IllegalParameter),
        (&[24, 0, 0, 2, 0, 0, 22], DecodeError),
        (&[24, 0, 0, 0, 22], DecodeError),
        // A ticket, a ClientHello, a certificate, a Finished.
        (&[4, 0, 0, 1, 0, 22], UnexpectedMessage),
        (&[1, 0, 0, 1, 0, 22], UnexpectedMessage),
        (&[11, 0, 0, 1, 0, 22], UnexpectedMessage),
        (&[20, 0, 0, 1, 0, 22], UnexpectedMessage),
    ];
    for (inner, alert) in bad {
        assert_eq!(on_server(inner), Err(*alert), "{inner:?}");
    }
}

#[test]
fn a_client_takes_whole_tickets() {
    let open = |inner: &[u8]| {
        let (mut server, mut client) = pair(Suite::Aes128Gcm, 1, 0);
        let mut record = seal_inner(&mut server, inner);
        client.open(&mut record).map(|opened| format!("{opened:?}"))
    };
    for good in [&[4, 0, 0, 2, 8, 8, 22][..], &[4, 0, 0, 1, 8, 4, 0, 0, 0, 22]] {
        assert!(open(good).unwrap().contains("Nothing"));
    }
    for bad in
        [&[4, 0, 0, 2, 8, 22][..], &[4, 0, 0, 1, 8, 4, 22], &[4, 0, 0, 0, 24, 0, 0, 1, 0, 22]]
    {
        assert_eq!(open(bad), Err(AlertDescription::UnexpectedMessage));
    }
}

#[test]
fn key_updates_are_limited_in_a_row_and_never_per_connection() {
    let (mut server, mut client) = pair(Suite::ChaCha20Poly1305, 9, 77);
    let update = |server: &mut RecordKeys, client: &mut RecordKeys| {
        let mut out = Vec::new();
        client.seal_key_update(false, &mut out);
        server.open(&mut out).map(|opened| format!("{opened:?}"))
    };
    for _ in 0..10_000 {
        assert!(update(&mut server, &mut client).unwrap().contains("KeyUpdate"));
        let mut message = seal(&mut client, &[b"data"]);
        assert_eq!(open_all(&mut server, &mut message), b"data");
    }
    // Empty records are no data.
    for nth in 0..32 {
        if nth % 2 == 0 {
            assert!(update(&mut server, &mut client).is_ok());
        } else {
            assert_eq!(open_all(&mut server, &mut seal_inner(&mut client, &[DATA])), b"");
        }
    }
    assert_eq!(update(&mut server, &mut client), Err(AlertDescription::UnexpectedMessage));
}

#[test]
fn both_sides_change_their_keys() {
    for suite in SUITES {
        let (mut server, mut client) = pair(suite, 5, 3);
        for round in 0..3 {
            let mut to_client = seal(&mut server, &[b"old"]);
            server.seal_key_update(true, &mut to_client);
            to_client.extend(seal(&mut server, &[b"new"]));
            let (old, rest) = to_client.split_at_mut(RecordKeys::sealed_len(3));
            assert_eq!(open_all(&mut client, old), b"old");
            let Ok(Opened::Record { used, content }) = client.open(rest) else { panic!() };
            assert_eq!(content, Content::KeyUpdate { answer: true });
            assert_eq!(open_all(&mut client, &mut rest[used..]), b"new");
            let mut to_server = Vec::new();
            client.seal_key_update(false, &mut to_server);
            let Ok(Opened::Record { content, .. }) = server.open(&mut to_server) else { panic!() };
            assert_eq!(content, Content::KeyUpdate { answer: false }, "{suite:?} {round}");
            let mut message = seal(&mut client, &[b"answered"]);
            assert_eq!(open_all(&mut server, &mut message), b"answered");
        }
    }
}

#[test]
fn a_sending_key_of_gcm_is_used_for_less_than_2_24_records() {
    for (suite, needs) in [(Suite::Aes128Gcm, true), (Suite::ChaCha20Poly1305, false)] {
        let (mut server, _) = pair(suite, 5, (1 << 24) - (1 << 16) - 1);
        assert!(!server.needs_key_update());
        seal(&mut server, &[b"x"]);
        assert_eq!(server.needs_key_update(), needs);
        server.seal_key_update(false, &mut Vec::new());
        assert!(!server.needs_key_update());
    }
}

#[test]
fn lengths_of_sealed_data() {
    for (plain, sealed) in [
        (0, 0),
        (1, 1 + OVERHEAD),
        (CONTENT_MAX, FULL_RECORD),
        (CONTENT_MAX + 1, FULL_RECORD + 1 + OVERHEAD),
        (2 * CONTENT_MAX, 2 * FULL_RECORD),
    ] {
        assert_eq!(RecordKeys::sealed_len(plain), sealed);
    }
}

#[test]
fn nothing_to_seal_uses_no_sequence_number() {
    let (mut server, mut client) = pair(Suite::Aes128Gcm, 5, 0);
    server.seal([&b""[..], b""].into_iter(), &mut []);
    assert_eq!(server.take_back(0, 0), Begun { plain: 0, rest: 0..0, closes: false });
    assert_eq!(open_all(&mut client, &mut seal(&mut server, &[b"x"])), b"x");
}

#[test]
fn a_short_record_is_taken_back_only_while_none_of_it_was_taken() {
    let plain = b"a message";
    for taken in 0..=RecordKeys::sealed_len(plain.len()) {
        let (mut server, mut client) = pair(Suite::Aes128Gcm, 5, 0);
        let out = seal(&mut server, &[plain]);
        let begun = server.take_back(out.len(), taken);
        if taken == 0 {
            assert_eq!(begun, Begun { plain: 0, rest: 0..0, closes: false });
            assert_eq!(open_all(&mut client, &mut seal(&mut server, &[b"other"])), b"other");
        } else {
            assert_eq!(begun, Begun { plain: plain.len(), rest: taken..out.len(), closes: false });
            let mut wire = [&out[..taken], &out[begun.rest], &seal(&mut server, &[b"!"])].concat();
            assert_eq!(open_all(&mut client, &mut wire), b"a message!");
        }
    }
}

fn suites() -> impl Strategy<Value = Suite> {
    proptest::sample::select(&SUITES[..])
}

/// Mostly short pieces, and some that fill records.
fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let length = prop_oneof![4 => 0..40usize, 1 => 0..1_000usize, 1 => 16_000..34_000usize];
    let piece = (length, any::<u8>()).prop_map(|(length, first)| {
        (0..length).map(|at| first.wrapping_add(at as u8)).collect::<Vec<u8>>()
    });
    proptest::collection::vec(piece, 0..12)
}

proptest! {
    /// The pieces arrive joined, however they are split, and in reads of any length.
    #[test]
    fn pieces_arrive_joined(
        suite in suites(), pieces in pieces(), read in 1usize..40_000, sequence in 0u64..1 << 40,
    ) {
        let (mut server, mut client) = pair(suite, 11, sequence);
        let slices: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
        let wire = seal(&mut server, &slices);
        let (mut buffer, mut data) = (Vec::new(), Vec::new());
        for part in wire.chunks(read) {
            buffer.extend_from_slice(part);
            let mut at = 0;
            while let Opened::Record { used, content } = client.open(&mut buffer[at..]).unwrap() {
                let Content::Data(content) = content else { panic!("{content:?}") };
                data.extend_from_slice(content);
                at += used;
            }
            buffer.drain(..at);
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(data, pieces.concat());
    }

    /// A socket takes any number of bytes each time; what was not begun is sealed again.
    #[test]
    fn a_slow_socket_gets_every_byte_once(
        suite in suites(),
        plain in pieces().prop_map(|pieces| pieces.concat()),
        room in proptest::collection::vec(
            prop_oneof![2 => 0..30usize, 1 => 0..40_000usize, 1 => 16_404..16_409usize], 1..40,
        ),
    ) {
        let (mut server, mut client) = pair(suite, 13, 0);
        let (mut wire, mut rest, mut sent) = (Vec::new(), Vec::new(), 0);
        let mut room = room.into_iter().chain(std::iter::repeat(usize::MAX));
        while sent < plain.len() || !rest.is_empty() {
            let room = room.next().unwrap();
            if !rest.is_empty() {
                wire.extend(rest.drain(..room.min(rest.len())));
                continue;
            }
            let out = seal(&mut server, &[&plain[sent..]]);
            let taken = room.min(out.len());
            wire.extend_from_slice(&out[..taken]);
            let begun = server.take_back(out.len(), taken);
            sent += begun.plain;
            rest.extend_from_slice(&out[begun.rest]);
        }
        prop_assert_eq!(open_all(&mut client, &mut wire), plain);
    }

    /// Bytes that no peer sealed open nothing.
    #[test]
    fn foreign_bytes_open_nothing(
        suite in suites(), mut input in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        if let Some([outer, _, _, high, low]) = input.first_chunk_mut::<HEADER>() {
            (*outer, *high, *low) = (DATA, 0, (*low).max(17));
        }
        let (mut server, _) = pair(suite, 17, 0);
        let opened = matches!(server.open(&mut input), Ok(Opened::Record { .. }));
        prop_assert!(!opened);
    }
}
