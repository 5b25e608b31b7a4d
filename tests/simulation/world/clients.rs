//! The actions of the clients of a simulated node.

use super::World;
use crate::client::{Asked, Client, View};
use crate::shard::Event;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

impl World {
    /// A client connects, perhaps with the positions of an earlier one.
    pub(super) fn come(&mut self) {
        let shard = self.random.below(self.node.shards.len());
        let number = self.clients.len();
        let uni = self.random.one_in(4);
        let capacity = self.random.pick(&[150, 600, 5000, 100_000]);
        let mut client = Client::new(number, uni, self.channels, capacity);
        let entrance = self.enter(&mut client);
        let Some((slot, generation)) = self.node.shards[shard].accept(number, entrance) else {
            return;
        };
        (client.shard, client.slot, client.generation) = (shard, slot, generation);
        client.manners.may_be_slow = self.may_be_slow;
        client.manners.may_be_refused = self.limit.counts();
        client.manners.may_fail = self.ledger.terms.durable;
        client.user = self.random.below(self.tokens.len());
        if !uni && self.random.one_in(4) {
            (client.backend, client.sent_connect) = (true, true);
            return self.clients.push(client);
        }
        if self.random.one_in(2) && !self.clients.is_empty() {
            let before = &self.clients[self.random.below(self.clients.len())].views;
            for (view, before) in client.views.iter_mut().zip(before) {
                *view =
                    View { epoch: before.epoch.clone(), offset: before.offset, ..View::default() };
            }
        }
        if !uni && self.random.one_in(8) {
            self.clients.push(client);
            return self.come_as_stream(number);
        }
        let path = if uni { "uni_websocket" } else { "websocket" };
        let head = format!(
            "GET /connection/{path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\n{KEY}\r\n"
        );
        client.put(head.as_bytes());
        self.clients.push(client);
        if self.random.one_in(2) {
            self.connect(number);
        }
        self.tell(number, Event::Readable);
    }

    /// Gives some clients TLS, of both versions; returns the entrance of the client.
    fn enter(&mut self, client: &mut Client) -> u8 {
        let has_tls = self.random.one_in(3);
        client.tls = has_tls.then(|| self.trust.client(self.random.one_in(4)));
        u8::from(has_tls)
    }

    /// A client opens a stream, and another client sends its emulation requests.
    fn come_as_stream(&mut self, number: usize) {
        let shard = self.random.below(self.node.shards.len());
        let voice = self.clients.len();
        let mut other = Client::new(voice, false, self.channels, 100_000);
        let entrance = self.enter(&mut other);
        let Some((slot, generation)) = self.node.shards[shard].accept(voice, entrance) else {
            return self.vanish(number);
        };
        (other.shard, other.slot, other.generation) = (shard, slot, generation);
        (other.backend, other.sent_connect) = (true, true);
        other.manners.may_be_slow = self.may_be_slow;
        self.clients.push(other);
        let client = &mut self.clients[number];
        (client.voice, client.sent_connect) = (Some(voice), true);
        let asked = Asked::Connect(self.tokens[client.user].clone());
        let mut lines = vec![client.command(asked, usize::MAX, 0, &mut self.ledger)];
        lines.extend((0..self.random.between(0, 3)).map(|_| self.any_command(number)));
        self.clients[number].open_stream(&lines.join("\n"));
        self.tell(number, Event::Readable);
    }

    /// Sends commands of a client, by a frame or by an emulation request.
    pub(super) fn say(&mut self, at: usize, text: &str) {
        match (self.clients[at].voice, self.clients[at].session.clone()) {
            (None, _) => {
                self.clients[at].send_frame(1, text.as_bytes(), &mut self.random);
                self.tell(at, Event::Readable);
            }
            (Some(voice), Some(session)) => {
                self.clients[voice].speak(&session, text);
                self.tell(voice, Event::Readable);
            }
            (Some(_), None) => unreachable!("a stream without a session sends nothing"),
        }
    }

    /// Whether a client sends emulation requests for another: it stays until the end.
    fn is_voice(&self, at: usize) -> bool {
        self.clients.iter().any(|client| client.voice == Some(at))
    }

    /// Queues a completion of a client's socket for its shard.
    fn tell(&mut self, client: usize, event: Event) {
        let Client { shard, slot, generation, .. } = self.clients[client];
        self.node.shards[shard].events.push_back((event, slot, generation));
        self.node.bus.asleep[shard] = false;
    }

    fn connect(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.sent_connect = true;
        let text = if client.uni {
            for channel in 0..self.channels {
                if !self.proxied && self.random.one_in(2) {
                    let view = &client.views[channel];
                    let since = (!view.epoch.is_empty()).then(|| (view.epoch.clone(), view.offset));
                    client.wanted.push((channel, since, self.ledger.known(channel)));
                }
            }
            let subs: Vec<String> = client
                .wanted
                .iter()
                .map(|(channel, since, _)| match since {
                    None => format!(r#""c{channel}":{{}}"#),
                    Some((epoch, offset)) => format!(
                        r#""c{channel}":{{"recover":true,"epoch":"{epoch}","offset":{offset}}}"#
                    ),
                })
                .collect();
            let token = &self.tokens[client.user];
            format!(r#"{{"token":"{token}","subs":{{{}}}}}"#, subs.join(","))
        } else {
            let token = self.tokens[client.user].clone();
            client.command(Asked::Connect(token), usize::MAX, 0, &mut self.ledger)
        };
        client.send_frame(1, text.as_bytes(), &mut self.random);
    }

    pub(super) fn act(&mut self, at: usize) -> Result<(), String> {
        match self.random.below(24) {
            0..=8 => self.send(at),
            9..=17 if !self.clients[at].stalled => {
                let limit = self.random.pick(&[10, 100, 100_000]);
                self.read(at, limit)?;
            }
            18 if self.random.one_in(4) => {
                let client = &mut self.clients[at];
                client.stalled = !client.stalled;
            }
            19 if self.random.one_in(4) && !self.is_voice(at) => self.close(at),
            20 if self.random.one_in(4) && !self.is_voice(at) => self.vanish(at),
            21 if self.random.one_in(8) => self.be_rude(at),
            22 if !self.clients[at].backend && self.clients[at].voice.is_none() => {
                let client = &mut self.clients[at];
                client.renew_keys();
                client.send_frame(9, b"p", &mut self.random);
                self.tell(at, Event::Readable);
            }
            23 if self.random.one_in(8) && self.clients[at].tls.is_some() && !self.is_voice(at) => {
                let filling = self.random.next() as u8;
                self.clients[at].break_records(filling);
                self.tell(at, Event::Readable);
            }
            _ => {}
        }
        Ok(())
    }

    /// A frame with some commands.
    fn send(&mut self, at: usize) {
        if self.clients[at].manners.said_close || self.clients[at].closed.is_some() {
            return;
        }
        if !self.clients[at].sent_connect {
            self.connect(at);
        } else if self.is_voice(at) || self.awaits_session(at) {
            return;
        } else if self.clients[at].backend {
            self.call(at);
        } else if !self.clients[at].uni {
            let many = self.random.one_in(40) && self.clients[at].voice.is_none();
            let count = if many { 100 } else { self.random.between(1, 4) };
            let lines: Vec<String> = (0..count).map(|_| self.any_command(at)).collect();
            let text = lines.join("\n");
            return self.say(at, &text);
        }
        self.tell(at, Event::Readable);
    }

    fn awaits_session(&self, at: usize) -> bool {
        self.clients[at].voice.is_some() && self.clients[at].session.is_none()
    }

    /// Sends some pipelined API calls.
    fn call(&mut self, at: usize) {
        for _ in 0..self.random.between(1, 4) {
            let channel = self.random.below(self.channels);
            let pad = self.random.pick(&[0, 10, 100]);
            self.clients[at].call(channel, pad, &mut self.ledger);
        }
    }

    fn any_command(&mut self, at: usize) -> String {
        let channel = self.random.below(self.channels);
        let client = &mut self.clients[at];
        let view = &client.views[channel];
        let asked = match self.random.below(8) {
            0..=3 => Asked::Publish(0),
            4 => Asked::Unsubscribe,
            _ if self.random.one_in(2) && !view.epoch.is_empty() => {
                Asked::Subscribe(Some((view.epoch.clone(), view.offset)))
            }
            _ => Asked::Subscribe(None),
        };
        let pad = self.random.pick(&[0, 0, 10, 100, 400]);
        client.command(asked, channel, pad, &mut self.ledger)
    }

    pub(super) fn read(&mut self, at: usize, limit: usize) -> Result<(), String> {
        let client = &mut self.clients[at];
        let result = client.read(limit, &mut self.ledger);
        result.map_err(|error| self.of(at, &error))?;
        if self.clients[at].put_records() {
            self.tell(at, Event::Readable);
        }
        let socket = &mut self.clients[at].socket;
        if socket.awaited && socket.output.len() * 3 <= socket.capacity * 2 {
            socket.awaited = false;
            self.tell(at, Event::Writable);
        }
        let client = &self.clients[at];
        if client.closed.is_some() && !client.manners.said_close && self.random.one_in(3) {
            self.close(at);
        }
        Ok(())
    }

    pub(super) fn close(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if !std::mem::replace(&mut client.manners.said_close, true) {
            if client.backend || client.voice.is_some() || client.manners.broken {
                let announces = self.random.one_in(2);
                client.end_input(announces);
            } else {
                client.send_frame(8, &1000u16.to_be_bytes(), &mut self.random);
            }
            self.tell(at, Event::Readable);
        }
    }

    pub(super) fn vanish(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let socket = &mut client.socket;
        (socket.vanished, socket.ended, client.done) = (true, true, true);
        let awaited = std::mem::take(&mut socket.awaited);
        let writable_first = self.random.one_in(2);
        if awaited && writable_first {
            self.tell(at, Event::Writable);
        }
        self.tell(at, Event::Readable);
        if awaited && !writable_first {
            self.tell(at, Event::Writable);
        }
    }

    fn be_rude(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let is_client = !client.uni && !client.backend;
        if is_client && client.sent_connect && !client.manners.said_close {
            if self.awaits_session(at) {
                return;
            }
            self.clients[at].manners.rude = true;
            self.say(at, r#"{"id":9999,"subscribe":{}}"#);
        }
    }
}
