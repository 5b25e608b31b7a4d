//! TLS records that a shard sends: the output of a turn is sealed just before it is transmitted.
//!
//! Owns no bytes: records are in the output of the turn until they are sent, and in an outbox when
//! they must be kept. The invariant: no plain byte of a connection with TLS leaves the shard.

use std::hint::black_box;

use crate::base::planted_faults::{PlantedFault, planted};
use crate::base::work_budget::cost;
use crate::hub::connections::{Connection, NONE, Outbox, Phase};
use crate::hub::shard_state::Hub;
use crate::hub::turn_output::SealedBytes;
use crate::wire::framing::Framing;
use crate::wire::tls::{AlertDescription, Begun, TlsSession};

/// Connections whose keys are read ahead of sealing.
const READ_AHEAD: usize = 8;
/// Milliseconds that a peer has to take the alert that ends its connection.
const ALERT_TIME: u64 = 1000;

impl Hub {
    /// Adds records that are sent before all other output that is left.
    pub(super) fn append_sealed(&mut self, slot: u32, records: Vec<u8>) {
        if records.is_empty() {
            return;
        }
        self.budget.charge(records.len() * cost::BYTES);
        let Connection { outbox, .. } = self.connections[slot];
        if outbox == NONE {
            let outbox = self.unsealed_outbox(slot, &records);
            self.connections.keep_outbox(slot, outbox);
            // The socket may well be writable.
            self.to_flush.push_back(slot);
        } else {
            self.connections.outboxes.change(outbox, |outbox| outbox.append_sealed(&records));
        }
    }

    /// An outbox that begins with `records`. The output of the turn, which is sealed after them,
    /// follows them.
    fn unsealed_outbox(&mut self, slot: u32, records: &[u8]) -> Outbox {
        let Connection { transport, wire, turn, .. } = self.connections[slot];
        let framed = (Framing::of(transport), wire);
        let Some(entry) = self.turn.entries().get(turn as usize).copied() else {
            return Outbox::of_sealed(records.to_vec(), framed);
        };
        let segments = self.turn.segments(&entry, &self.locals);
        let mut outbox = Outbox::new(segments, framed, entry.preface as usize, 0);
        if self.joins_messages(slot) {
            outbox.join_messages();
        }
        outbox.append_sealed(records);
        self.turn.withdraw(&mut self.connections[slot].turn);
        outbox
    }

    /// Removes sealed bytes that the socket took from an outbox that has some; returns whether it
    /// had.
    pub(super) fn advance_sealed(&mut self, slot: u32, sent: usize) -> bool {
        let connection = &mut self.connections.slab[slot as usize];
        let Some(outbox) = self.connections.outboxes.get(connection.outbox) else { return false };
        let left = outbox.sealed().len();
        if left <= sent {
            connection.flags.set_key_update_unsent(false);
        }
        let at = connection.outbox;
        self.connections.outboxes.change(at, |outbox| outbox.advance_sealed(sent));
        left > 0
    }

    /// Ends a connection because of its TLS records. The peer gets `alert`, if it is owed one.
    pub(super) fn end_with_alert(&mut self, slot: u32, alert: Option<AlertDescription>) {
        let session = self.connections.sessions.get_mut(slot);
        if let Some((session, alert)) = session.zip(alert) {
            let mut record = Vec::new();
            session.seal_alert(alert, &mut record);
            self.append_sealed(slot, record);
        }
        if self.connections[slot].outbox == NONE {
            return self.connection_lost(slot);
        }
        // Closing at once, with unread input, would reset the connection before the peer has the
        // alert.
        let flags = &mut self.connections[slot].flags;
        flags.set_lingering(true);
        flags.set_alert_sealed(true);
        self.begin_closing(slot);
        self.set_deadline(slot, ALERT_TIME);
    }

    /// Ends a connection whose peer has sent the alert that closes it: the same alert answers it,
    /// behind the output that is left.
    pub(super) fn answer_close(&mut self, slot: u32) {
        let connection = &self.connections[slot];
        if connection.phase == Phase::KeptAlive || connection.flags.lingering() {
            return self.peer_ended(slot);
        }
        self.metrics.lost.add(u64::from(connection.takes_output()));
        self.connections[slot].flags.set_lingering(true);
        self.begin_closing(slot);
        self.end_when_flushed(slot);
    }

    /// Seals the output of the turn for connections with TLS.
    #[inline]
    pub fn seal_output(&mut self) {
        if !self.connections.sessions.is_empty() {
            self.seal_entries();
            self.seal_flushes();
        }
    }

    fn seal_entries(&mut self) {
        for at in 0..self.turn.entries().len() {
            if at % READ_AHEAD == 0 {
                self.read_keys_ahead(at);
            }
            let slot = self.turn.entries()[at].slot;
            let Some(session) = self.connections.sessions.get_mut(slot) else { continue };
            let Some(connection) = self.connections.slab.get_mut(slot as usize) else { continue };
            let Connection { flags, outbox, phase, .. } = connection;
            let ends = flags.end_when_flushed() && *outbox == NONE || *phase == Phase::Ending;
            let closes = ends && !flags.alert_sealed();
            flags.set_alert_sealed(flags.alert_sealed() || closes);
            self.turn.seal(at, &self.locals, session, closes);
        }
    }

    /// Reads what the next entries are sealed with. Most of it is not in a cache of the processor,
    /// which waits for reads that do not depend on each other at the same time.
    fn read_keys_ahead(&self, at: usize) {
        for entry in self.turn.entries().iter().skip(at).take(READ_AHEAD) {
            if let Some(session) = self.connections.sessions.get(entry.slot) {
                session.read_ahead();
                black_box(self.connections.slab.get(entry.slot as usize).map(|found| found.flags));
            }
        }
    }

    fn seal_flushes(&mut self) {
        for flush in &mut self.flushes {
            let Some(session) = self.connections.sessions.get_mut(flush.slot) else { continue };
            let slot = flush.slot as usize;
            let Some(Connection { flags, outbox, .. }) = self.connections.slab.get_mut(slot) else {
                continue;
            };
            let Some(outbox) = self.connections.outboxes.get(*outbox) else { continue };
            if outbox.sealed().is_empty() {
                let unsent = outbox.unsent();
                flush.bytes = flush.bytes.min(unsent.len());
                let is_last = flags.end_when_flushed() && flush.bytes == unsent.len();
                let closes = is_last && !flags.alert_sealed();
                flags.set_alert_sealed(flags.alert_sealed() || closes);
                flush.sealed = self.turn.seal_flush(&unsent[..flush.bytes], session, closes);
            }
        }
    }

    /// Translates the sealed bytes that a socket took into plain bytes, with the sealed bytes that
    /// are left of the records that were begun. `plain` is what was sealed. Without TLS, both are
    /// the same.
    pub(super) fn begun(
        &mut self,
        slot: u32,
        sealed: SealedBytes,
        plain: usize,
        taken: usize,
    ) -> (usize, Vec<u8>) {
        let Some(session) = self.connections.sessions.get_mut(slot) else {
            return (taken, Vec::new());
        };
        let bytes = self.turn.sealed(sealed);
        let Begun { plain, rest, closes } =
            session.take_back(bytes.len(), plain, sealed.closes, taken);
        if sealed.closes {
            self.connections[slot].flags.set_alert_sealed(closes);
        }
        let rest = bytes.get(rest).filter(|_| !planted(PlantedFault::RestOfRecordLost));
        (plain, rest.unwrap_or_default().to_vec())
    }

    /// Changes the keys of a connection that has sealed nearly as many records as one key may.
    pub(super) fn renew_old_keys(&mut self, slot: u32) {
        if self.connections.sessions.get(slot).is_some_and(TlsSession::needs_key_update) {
            self.renew_keys(slot);
        }
    }

    /// Changes the keys that seal the output of a connection. A change that the peer has not got
    /// answers all its requests.
    pub(super) fn renew_keys(&mut self, slot: u32) {
        let flags = self.connections[slot].flags;
        // Nothing follows the alert that ends the output.
        if flags.key_update_unsent() || flags.alert_sealed() {
            return;
        }
        if let Some(session) = self.connections.sessions.get_mut(slot) {
            let mut record = Vec::new();
            session.seal_key_update(&mut record);
            self.append_sealed(slot, record);
            self.connections[slot].flags.set_key_update_unsent(true);
            self.metrics.tls_key_updates.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read, Write};
    use std::sync::Arc;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::version::{TLS12, TLS13};
    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion,
    };

    use super::*;
    use crate::hub::settings::HubSettings;
    use crate::hub::shard_state::WORK;
    use crate::hub::tests::{LoneShardBus, ROOMY, hub};
    use crate::hub::turn_output::Segments;
    use crate::model::entrance::Entrance;

    /// A hub with TLS, and the certificate of its server as the only root.
    fn hub_with_tls() -> (Hub, Arc<RootCertStore>) {
        hub_with_protocols(&[])
    }

    fn hub_with_protocols(protocols: &[&[u8]]) -> (Hub, Arc<RootCertStore>) {
        let pair = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["a".into()]).unwrap().self_signed(&pair).unwrap();
        let key = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let mut hub = hub(ROOMY, ROOMY, ROOMY);
        let tls = Some(Arc::new(config));
        let entrances = Arc::new([Entrance { tls: true, ..Entrance::default() }]);
        hub.settings = Arc::new(HubSettings { tls, entrances, ..(*hub.settings).clone() });
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        (hub, Arc::new(roots))
    }

    /// Versions, and how many bytes a socket takes at most of one send.
    const VERSIONS_AND_SENDS: [(&SupportedProtocolVersion, usize); 4] =
        [(&TLS13, usize::MAX), (&TLS13, 1), (&TLS12, usize::MAX), (&TLS12, 1)];

    /// A socket of the hub, and the client at its other end.
    struct Client {
        slot: u32,
        generation: u32,
        tls: ClientConnection,
        /// Plain bytes that the client got.
        got: Vec<u8>,
    }

    impl Client {
        fn new(
            hub: &mut Hub,
            roots: &Arc<RootCertStore>,
            version: &'static SupportedProtocolVersion,
        ) -> Self {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            config.alpn_protocols = hub.settings.tls.as_ref().unwrap().alpn_protocols.clone();
            let tls = ClientConnection::new(Arc::new(config), "a".try_into().unwrap()).unwrap();
            let (slot, generation) = hub.reserve().unwrap();
            hub.socket_opened(slot);
            Client { slot, generation, tls, got: Vec::new() }
        }

        /// What the client's socket would send now.
        fn records(&mut self) -> Vec<u8> {
            let mut records = Vec::new();
            while self.tls.wants_write() {
                self.tls.write_tls(&mut records).unwrap();
            }
            records
        }

        fn take(&mut self, mut bytes: &[u8]) {
            while !bytes.is_empty() {
                assert!(self.tls.read_tls(&mut bytes).unwrap() > 0, "bytes behind the last alert");
                self.tls.process_new_packets().unwrap();
                let mut plain = Vec::new();
                let _ = self.tls.reader().read_to_end(&mut plain);
                self.got.extend_from_slice(&plain);
            }
        }

        /// Exchanges everything, in pieces of `piece` bytes; the socket takes at most `most` at once.
        fn exchange(&mut self, hub: &mut Hub, piece: usize, most: usize) {
            for _ in 0..100_000 {
                let records = self.records();
                for part in records.chunks(piece) {
                    let mut part = part.to_vec();
                    hub.receive(&mut LoneShardBus::default(), self.slot, &mut part);
                }
                let sent = turn(hub, most);
                let bytes = sent.get(&self.slot).cloned().unwrap_or_default();
                self.take(&bytes);
                if records.is_empty() && bytes.is_empty() && !self.tls.wants_write() {
                    return;
                }
            }
            panic!("the exchange does not end");
        }

        fn say(&mut self, text: &str) {
            let mut frame = vec![0x81, 0xfe];
            frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
            frame.extend_from_slice(&[0; 4]);
            frame.extend_from_slice(text.as_bytes());
            self.tls.writer().write_all(&frame).unwrap();
        }

        fn upgrade(&mut self) {
            let head = "GET /w HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
            self.tls.writer().write_all(head.as_bytes()).unwrap();
        }

        fn has_closed(&mut self) -> bool {
            self.tls.process_new_packets().unwrap().peer_has_closed()
        }

        fn phase(&self, hub: &mut Hub) -> Option<Phase> {
            hub.connection(self.slot, self.generation).map(|connection| connection.phase)
        }
    }

    /// One turn in which each socket takes at most `most` bytes; returns what each took.
    fn turn(hub: &mut Hub, most: usize) -> BTreeMap<u32, Vec<u8>> {
        hub.set_share(WORK, true);
        hub.resume_paused(&mut LoneShardBus::default());
        hub.fan_out();
        hub.choose_flushes();
        hub.seal_output();
        let mut sent = BTreeMap::new();
        hub.for_each_send(|generation, slot, segments| {
            let bytes: Vec<u8> = match segments {
                Segments::Whole(bytes) => bytes.to_vec(),
                Segments::Turn(pieces) => pieces.flatten().copied().collect(),
            };
            let earlier = sent.insert(slot, (generation, bytes));
            assert!(earlier.is_none(), "one send per socket");
        });
        let mut taken = BTreeMap::new();
        let mut short = Vec::new();
        for (slot, (generation, mut bytes)) in sent {
            if bytes.len() > most {
                bytes.truncate(most);
                short.push((slot, generation, most));
            }
            taken.insert(slot, bytes);
        }
        for (slot, generation, most) in short {
            hub.send_fell_short(slot, generation, Some(most));
            hub.writable(slot);
        }
        hub.end_turn();
        taken
    }

    fn publications(got: &[u8]) -> usize {
        got.windows(7).filter(|window| window == b"\"pub\":{").count()
    }

    #[test]
    fn a_client_connects_and_gets_publications_however_records_are_cut() {
        for version in [&TLS13, &TLS12] {
            for (piece, most) in
                [(usize::MAX, usize::MAX), (1, usize::MAX), (usize::MAX, 1), (7, 23)]
            {
                let (mut hub, roots) = hub_with_tls();
                let mut client = Client::new(&mut hub, &roots, version);
                client.upgrade();
                client.say(r#"{"id":1,"connect":{}} {"id":2,"subscribe":{"channel":"c"}}"#);
                client.exchange(&mut hub, piece, most);
                assert_eq!(client.phase(&mut hub), Some(Phase::Connected), "{piece} {most}");
                for bytes in [1, 100, 20_000, 40_000] {
                    let data = "x".repeat(bytes);
                    client
                        .say(&format!(r#"{{"id":3,"publish":{{"channel":"c","data":"{data}"}}}}"#));
                    client.exchange(&mut hub, piece, most);
                }
                assert_eq!(publications(&client.got), 4, "{piece} {most}");
                assert_eq!(hub.resource_counts().outboxes, 0);
            }
        }
    }

    #[test]
    fn the_last_response_is_followed_by_the_closing_alert() {
        for (version, most) in VERSIONS_AND_SENDS {
            let (mut hub, roots) = hub_with_tls();
            let mut client = Client::new(&mut hub, &roots, version);
            client.tls.writer().write_all(b"GET /health HTTP/1.0\r\n\r\n").unwrap();
            client.exchange(&mut hub, usize::MAX, most);
            client.tls.send_close_notify();
            client.exchange(&mut hub, usize::MAX, most);
            assert_eq!(client.phase(&mut hub), Some(Phase::Ending));
        }
    }

    #[test]
    fn a_close_is_answered_behind_records_that_are_unsent() {
        for (version, most) in VERSIONS_AND_SENDS {
            // The close arrives with the end of the handshake, before the tickets are sent.
            let (mut hub, roots) = hub_with_tls();
            let mut client = Client::new(&mut hub, &roots, version);
            while client.tls.is_handshaking() {
                let mut records = client.records();
                hub.receive(&mut LoneShardBus::default(), client.slot, &mut records);
                let sent = turn(&mut hub, usize::MAX);
                client.take(&sent[&client.slot]);
            }
            client.tls.send_close_notify();
            client.exchange(&mut hub, usize::MAX, most);
            assert!(client.has_closed(), "{version:?} {most}");
            assert_eq!(client.phase(&mut hub), Some(Phase::Ending));
            // It arrives with a request for new keys.
            let mut client = Client::new(&mut hub, &roots, version);
            client.exchange(&mut hub, usize::MAX, usize::MAX);
            let _ = client.tls.refresh_traffic_keys();
            client.tls.send_close_notify();
            client.exchange(&mut hub, usize::MAX, most);
            assert!(client.has_closed(), "{version:?} {most}");
        }
    }

    #[test]
    fn the_handshake_of_a_challenge_is_followed_by_the_closing_alert_alone() {
        for (version, most) in [(&TLS13, usize::MAX), (&TLS13, 1), (&TLS12, usize::MAX)] {
            let (mut hub, roots) = hub_with_protocols(&[b"acme-tls/1"]);
            let mut client = Client::new(&mut hub, &roots, version);
            client.tls.writer().write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
            client.exchange(&mut hub, usize::MAX, most);
            assert!(client.has_closed() && client.got.is_empty(), "{version:?} {most}");
            assert_eq!(client.phase(&mut hub), Some(Phase::Ending));
        }
    }

    #[test]
    fn nothing_follows_an_alert_that_tells_of_a_fault() {
        use rustls::AlertDescription::{BadRecordMac, DecodeError, RecordOverflow};

        let (mut hub, roots) = hub_with_tls();
        let sealed = b"\x17\x03\x03\x00\x20................................";
        let overlong = b"\x17\x03\x03\xff\xff";
        for (version, fault, alert) in [
            (&TLS13, &sealed[..], BadRecordMac),
            (&TLS12, sealed, BadRecordMac),
            (&TLS13, overlong, RecordOverflow),
            (&TLS12, overlong, DecodeError),
        ] {
            let mut client = Client::new(&mut hub, &roots, version);
            client.tls.writer().write_all(b"GET /health HTTP/1.0\r\n").unwrap();
            client.exchange(&mut hub, usize::MAX, usize::MAX);
            hub.receive(&mut LoneShardBus::default(), client.slot, &mut fault.to_vec());
            let sent = turn(&mut hub, usize::MAX);
            client.tls.read_tls(&mut &sent[&client.slot][..]).unwrap();
            let expected = rustls::Error::AlertReceived(alert);
            assert_eq!(client.tls.process_new_packets().unwrap_err(), expected, "{version:?}");
            hub.peer_ended(client.slot);
            for _ in 0..3 {
                assert!(turn(&mut hub, usize::MAX).is_empty(), "{version:?}");
            }
            assert_eq!(client.phase(&mut hub), Some(Phase::Ending));
        }
    }

    #[test]
    fn requested_key_updates_are_answered_once_while_the_answer_is_unsent() {
        let (mut hub, roots) = hub_with_tls();
        let mut client = Client::new(&mut hub, &roots, &TLS13);
        client.upgrade();
        client.say(r#"{"id":1,"connect":{}} {"id":2,"subscribe":{"channel":"c"}}"#);
        client.exchange(&mut hub, usize::MAX, usize::MAX);
        for round in 0..300 {
            client.tls.refresh_traffic_keys().unwrap();
            client.say(r#"{"id":3,"publish":{"channel":"c","data":1}}"#);
            let piece = if round % 2 == 0 { usize::MAX } else { 5 };
            client.exchange(&mut hub, piece, if round % 3 == 0 { 3 } else { usize::MAX });
        }
        assert_eq!(publications(&client.got), 300);
        let mut updates = Vec::new();
        for _ in 0..10 {
            client.tls.refresh_traffic_keys().unwrap();
            updates.extend(client.records());
        }
        hub.receive(&mut LoneShardBus::default(), client.slot, &mut updates);
        let sent = turn(&mut hub, usize::MAX);
        assert_eq!(sent[&client.slot].len(), 5 + 5 + 1 + 16, "one key update");
        client.take(&sent[&client.slot]);
        client.say(r#"{"id":3,"publish":{"channel":"c","data":1}}"#);
        client.exchange(&mut hub, usize::MAX, usize::MAX);
        assert_eq!(publications(&client.got), 301);
    }

    #[test]
    fn a_handshake_that_fails_ends_with_an_alert_and_frees_its_memory() {
        let (mut hub, roots) = hub_with_tls();
        let before = hub.resource_counts();
        for input in [
            &b"\x16\x03\x01\x00\x05h\0\0\x01x"[..],
            b"\x17\x03\x03\x00\x01x",
            b"\x16\x03\x01\xff\xff\0",
        ] {
            let client = Client::new(&mut hub, &roots, &TLS13);
            hub.receive(&mut LoneShardBus::default(), client.slot, &mut input.to_vec());
            let sent = turn(&mut hub, usize::MAX);
            let bytes = sent.get(&client.slot).map(Vec::as_slice).unwrap_or_default();
            assert_eq!(bytes.first(), Some(&21), "an alert to {input:?}: {bytes:?}");
            hub.peer_ended(client.slot);
            hub.ring_requests.ends.clear();
            hub.free(client.slot);
            assert_eq!(hub.resource_counts(), before);
        }
    }

    #[test]
    fn many_handshakes_at_once_delay_no_established_client() {
        let (mut hub, roots) = hub_with_tls();
        let mut established = Client::new(&mut hub, &roots, &TLS13);
        established.upgrade();
        established.say(r#"{"id":1,"connect":{}} {"id":2,"subscribe":{"channel":"c"}}"#);
        established.exchange(&mut hub, usize::MAX, usize::MAX);
        let mut newcomers: Vec<Client> =
            (0..40).map(|_| Client::new(&mut hub, &roots, &TLS13)).collect();
        hub.set_share(WORK, true);
        for newcomer in &mut newcomers {
            let mut hello = newcomer.records();
            hub.receive(&mut LoneShardBus::default(), newcomer.slot, &mut hello);
        }
        established.say(r#"{"id":3,"publish":{"channel":"c","data":1}}"#);
        let mut command = established.records();
        hub.receive(&mut LoneShardBus::default(), established.slot, &mut command);
        let mut answered = Vec::new();
        for nth in 0..40 {
            let sent = turn(&mut hub, usize::MAX);
            if nth == 0 {
                established.take(&sent[&established.slot]);
                assert_eq!(publications(&established.got), 1, "in the first turn");
            }
            let of_turn = sent.into_keys().filter(|slot| *slot != established.slot);
            let before = answered.len();
            answered.extend(of_turn);
            assert!(answered.len() - before <= WORK / cost::HANDSHAKE, "{answered:?}");
        }
        let all: Vec<u32> = newcomers.iter().map(|newcomer| newcomer.slot).collect();
        assert_eq!(answered, all, "in the order of their arrival");
    }

    #[test]
    fn an_http_request_without_tls_is_told_so() {
        let (mut hub, roots) = hub_with_tls();
        let client = Client::new(&mut hub, &roots, &TLS13);
        let mut request = b"GET / HTTP/1.1\r\n".to_vec();
        hub.receive(&mut LoneShardBus::default(), client.slot, &mut request);
        let sent = turn(&mut hub, usize::MAX);
        let text = String::from_utf8(sent[&client.slot].clone()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
    }
}
