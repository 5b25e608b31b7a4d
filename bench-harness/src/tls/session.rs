//! One connection of the client's side, from its first flight on.
//!
//! Owns the handshake while it lasts, then the record keys. Never does I/O. Invariant: an
//! established connection has no allocation but its keys and a record that has not come whole.

use drumline::wire::tls::{Content, Opened, RecordKeys};

use super::client::Client;
use super::handshake::Handshake;

enum State {
    Handshake(Box<Handshake>),
    Open(RecordKeys),
    /// Failed, or closed by the peer.
    Closed,
}

/// One connection.
pub struct Session {
    state: State,
    /// The beginning of a record.
    partial: Box<[u8]>,
}

const _: () = assert!(size_of::<Session>() <= 48, "a million of them must stay small");

impl Session {
    /// Begins a handshake. Appends its first flight to `out`.
    pub fn start(client: &Client, out: &mut Vec<u8>) -> Result<Self, String> {
        let handshake = Box::new(Handshake::start(client, out)?);
        Ok(Session { state: State::Handshake(handshake), partial: Box::default() })
    }

    /// Whether the handshake is complete and application data may be sealed.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Takes received bytes. Appends application data to `plain`, and bytes to send to `out`. An
    /// error ends the connection.
    pub fn receive(
        &mut self,
        client: &Client,
        input: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let mut bytes = std::mem::take(&mut self.partial).into_vec();
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Handshake(mut handshake) => {
                if !handshake.receive(input, plain, out)? {
                    self.state = State::Handshake(handshake);
                    return Ok(());
                }
                let finished = handshake.finish()?;
                if let Some(tickets) = client.tickets.as_ref().filter(|_| finished.resumed) {
                    tickets.count();
                }
                self.state = State::Open(finished.keys);
                bytes = finished.rest;
            }
            State::Open(keys) => {
                self.state = State::Open(keys);
                bytes.extend_from_slice(input);
            }
            State::Closed => return Ok(()),
        }
        let used = self.open(&mut bytes, plain, out)?;
        self.partial = bytes.split_off(used).into_boxed_slice();
        Ok(())
    }

    /// Opens the complete records at the front. Returns their length.
    fn open(
        &mut self,
        bytes: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<usize, String> {
        let State::Open(keys) = &mut self.state else { return Ok(bytes.len()) };
        let mut at = 0;
        loop {
            let opened = keys.open(&mut bytes[at..]);
            let opened =
                opened.map_err(|alert| format!("a TLS record cannot be opened: {alert:?}"))?;
            let Opened::Record { used, content } = opened else { return Ok(at) };
            at += used;
            match content {
                Content::Data(data) => plain.extend_from_slice(data),
                Content::KeyUpdate { answer: true } => keys.seal_key_update(false, out),
                Content::KeyUpdate { answer: false } | Content::Nothing => {}
                Content::Closed => {
                    self.state = State::Closed;
                    return Ok(bytes.len());
                }
                Content::Alert(alert) => return Err(format!("the server sent TLS alert {alert}")),
            }
        }
    }

    /// Appends the records that carry these bytes; none before the connection is open.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let State::Open(keys) = &mut self.state else { return };
        let start = out.len();
        out.resize(start + RecordKeys::sealed_len(plain.len()), 0);
        keys.seal(std::iter::once(plain), &mut out[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Identity;
    use rustls::ServerConnection;
    use std::io::{Read, Write};
    use std::sync::Arc;

    /// A rustls server and a client, with the bytes between them.
    struct Ends {
        server: ServerConnection,
        client: Client,
        session: Session,
        to_server: Vec<u8>,
        heard: Vec<u8>,
    }

    impl Ends {
        fn new(config: &Arc<rustls::ServerConfig>, client: &Client) -> Self {
            let mut to_server = Vec::new();
            let session = Session::start(client, &mut to_server).unwrap();
            let server = ServerConnection::new(config.clone()).unwrap();
            Ends { server, client: client.clone(), session, to_server, heard: Vec::new() }
        }

        /// Carries bytes both ways until both ends are silent; to the client in pieces of `piece`.
        fn exchange(&mut self, piece: usize) -> Result<(), String> {
            loop {
                let mut sent = std::mem::take(&mut self.to_server);
                while !sent.is_empty() {
                    let taken = self.server.read_tls(&mut &sent[..]).unwrap();
                    self.server.process_new_packets().map_err(|error| error.to_string())?;
                    sent.drain(..taken);
                }
                let mut answer = Vec::new();
                while self.server.wants_write() {
                    self.server.write_tls(&mut answer).unwrap();
                }
                for part in answer.chunks(piece) {
                    self.session.receive(
                        &self.client,
                        part,
                        &mut self.heard,
                        &mut self.to_server,
                    )?;
                }
                if self.to_server.is_empty() && answer.is_empty() {
                    return Ok(());
                }
            }
        }

        fn say(&mut self, text: &[u8]) {
            self.session.seal(text, &mut self.to_server);
        }

        fn server_hears(&mut self, bytes: usize) -> Vec<u8> {
            let mut heard = vec![0; bytes];
            self.server.reader().read_exact(&mut heard).unwrap();
            heard
        }
    }

    #[test]
    fn data_passes_both_ways_whatever_the_pieces() {
        let identity = Identity::new().unwrap();
        let config = identity.server_config().unwrap();
        let client = Client::new(identity.certificate()).unwrap();
        for piece in [1, 7, 100, 100_000] {
            let mut ends = Ends::new(&config, &client);
            // What a server may send at once with the end of its handshake.
            ends.server.writer().write_all(b"early").unwrap();
            ends.exchange(piece).unwrap();
            assert!(ends.session.is_open() && ends.heard == b"early", "{piece}");
            let long = vec![b'x'; 10_000];
            ends.say(b"hello");
            ends.say(&long);
            ends.server.writer().write_all(&long).unwrap();
            ends.exchange(piece).unwrap();
            assert_eq!(ends.server_hears(5), b"hello");
            assert_eq!(ends.server_hears(long.len()), long);
            assert_eq!(ends.heard.len(), 5 + long.len(), "{piece}");
            assert!(ends.session.partial.is_empty());
        }
    }

    #[test]
    fn a_key_update_that_asks_for_an_answer_gets_it() {
        let identity = Identity::new().unwrap();
        let client = Client::new(identity.certificate()).unwrap();
        let mut ends = Ends::new(&identity.server_config().unwrap(), &client);
        ends.exchange(100).unwrap();
        for _ in 0..3 {
            ends.server.refresh_traffic_keys().unwrap();
            ends.server.writer().write_all(b"new keys").unwrap();
            ends.exchange(100).unwrap();
            ends.say(b"answered");
            ends.exchange(100).unwrap();
            assert_eq!(ends.server_hears(8), b"answered");
            assert_eq!(std::mem::take(&mut ends.heard), b"new keys");
        }
    }

    #[test]
    fn sessions_resume_with_a_ticket_of_the_one_before_and_are_counted() {
        let identity = Identity::new().unwrap();
        let config = identity.server_config().unwrap();
        let client = Client::resuming(identity.certificate()).unwrap();
        for nth in 0..4 {
            let mut ends = Ends::new(&config, &client);
            ends.exchange(1_000).unwrap();
            assert!(ends.session.is_open());
            let kind = ends.server.handshake_kind().unwrap();
            assert_eq!(kind == rustls::HandshakeKind::Resumed, nth > 0);
            ends.say(b"x");
            ends.exchange(1_000).unwrap();
            assert_eq!(ends.server_hears(1), b"x");
        }
        assert_eq!(client.resumed(), 3);
        let full = Client::new(identity.certificate()).unwrap();
        Ends::new(&config, &full).exchange(1_000).unwrap();
        assert_eq!(full.resumed(), 0);
    }

    #[test]
    fn another_certificate_a_broken_record_and_an_alert_end_a_connection() {
        let mut identity = Identity::new().unwrap();
        let config = identity.server_config().unwrap();
        let client = Client::new(identity.certificate()).unwrap();
        let mut ends = Ends::new(&config, &client);
        ends.exchange(100).unwrap();
        ends.server.writer().write_all(b"data").unwrap();
        let mut record = Vec::new();
        ends.server.write_tls(&mut record).unwrap();
        *record.last_mut().unwrap() ^= 1;
        let taken = ends.session.receive(&client, &record, &mut ends.heard, &mut ends.to_server);
        assert!(taken.unwrap_err().contains("cannot be opened"));
        let mut ends = Ends::new(&config, &client);
        ends.exchange(100).unwrap();
        ends.server.send_close_notify();
        ends.exchange(100).unwrap();
        assert!(!ends.session.is_open());
        identity.replace().unwrap();
        let other = Client::new(identity.certificate()).unwrap();
        let refused = Ends::new(&config, &other).exchange(100).unwrap_err();
        assert!(refused.contains("another certificate"), "{refused}");
    }
}
