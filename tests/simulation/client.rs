//! A model client: its end of a socket, an independent reader of frames, and what it knows.
//!
//! Knows nothing of the server's state. The invariant: whatever it reads is checked at once
//! against what it sent and saw before.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use crate::ledger::Ledger;
use crate::random::Random;

/// What a send came to.
pub enum Taken {
    Whole,
    Part(usize),
    Refused,
}

/// The socket between a client and its shard.
#[derive(Default)]
pub struct Socket {
    /// Sent by the client, unread by the shard.
    pub input: VecDeque<u8>,
    /// The client sends nothing more.
    pub ended: bool,
    /// The client is gone: sends fail.
    pub vanished: bool,
    /// Sent by the shard, unread by the client.
    pub output: VecDeque<u8>,
    /// Bytes that `output` holds at most.
    pub capacity: usize,
    /// The shard wants to be told when there is room.
    pub awaited: bool,
    /// The shard has shut its side down.
    pub shut: bool,
    /// Its output was cut off, since the client had its time.
    pub reset: bool,
    /// A send was short, which the shard does not know yet: bytes are missing.
    pub cut: bool,
}

impl Socket {
    /// A send of the shard's.
    pub fn take(&mut self, bytes: &[u8], random: &mut Random) -> Taken {
        if self.vanished {
            return Taken::Refused;
        }
        if self.cut {
            // Nobody can read what follows missing bytes.
            return Taken::Whole;
        }
        let mut room = self.capacity.saturating_sub(self.output.len());
        if random.one_in(6) {
            room = room.min(random.below(bytes.len() + 1));
        }
        let taken = room.min(bytes.len());
        self.output.extend(&bytes[..taken]);
        if taken == bytes.len() { Taken::Whole } else { Taken::Part(taken) }
    }
}

/// A command that waits for its reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    Connect(String),
    Subscribe(Option<u64>),
    Unsubscribe,
    Publish(u64),
    Stats,
    /// Something for the client of a stream.
    Speak,
}

struct Outstanding {
    id: u64,
    channel: usize,
    asked: Asked,
}

/// What a client knows of a channel.
#[derive(Clone, Default)]
pub struct View {
    pub subscribed: bool,
    /// When it saw that it is subscribed.
    pub since: usize,
    /// What stands for the channel's name in pushes; 0: the name does.
    pub number: u64,
    pub epoch: String,
    /// Last offset seen.
    pub offset: u64,
    /// Last number of each publisher in this life of the subscription.
    pub seen: BTreeMap<usize, u64>,
}

/// How a client's stream must end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manners {
    pub said_close: bool,
    pub rude: bool,
    /// Being closed as slow would be no surprise.
    pub may_be_slow: bool,
    /// Nor would being closed since its user has too many connections.
    pub may_be_refused: bool,
}

pub struct Client {
    pub number: usize,
    pub uni: bool,
    /// Calls the API, or speaks for a stream, instead of switching to WebSocket.
    pub backend: bool,
    /// Gets its replies as a stream of lines; who speaks for it, by number.
    pub voice: Option<usize>,
    /// What its connect reply says that others show who speak for it: session and node.
    pub session: Option<(String, String)>,
    /// Whose it is.
    pub user: usize,
    pub shard: usize,
    pub slot: u32,
    pub generation: u32,
    pub socket: Socket,
    pub stalled: bool,
    pub views: Vec<View>,
    /// The channels that a unidirectional client asked for, with the offset it had.
    pub wanted: Vec<(usize, Option<u64>)>,
    pub manners: Manners,
    /// The code of the close frame that came, 0 for none in it; or the status that refused it.
    pub closed: Option<u16>,
    pub connected: bool,
    pub sent_connect: bool,
    /// How many are in the channel that it last asked about.
    pub counted: Option<u64>,
    /// Saw the end of the stream, or went away.
    pub done: bool,
    history: bool,
    head_seen: bool,
    received: Vec<u8>,
    outstanding: VecDeque<Outstanding>,
    next_id: u64,
    next_number: Vec<u64>,
}

impl Client {
    pub fn new(number: usize, uni: bool, channels: usize, history: bool, capacity: usize) -> Self {
        Client {
            number,
            uni,
            backend: false,
            voice: None,
            session: None,
            user: 0,
            shard: 0,
            slot: 0,
            generation: 0,
            socket: Socket { capacity, ..Socket::default() },
            stalled: false,
            views: vec![View::default(); channels],
            wanted: Vec::new(),
            manners: Manners::default(),
            closed: None,
            connected: false,
            sent_connect: false,
            counted: None,
            done: false,
            history,
            head_seen: false,
            received: Vec::new(),
            outstanding: VecDeque::new(),
            next_id: 0,
            next_number: vec![0; channels],
        }
    }

    // ---- sending -------------------------------------------------------------------------

    pub fn send_frame(&mut self, opcode: u8, payload: &[u8], random: &mut Random) {
        let mask = (random.next() as u32).to_ne_bytes();
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            short @ 0..=125 => frame.push(0x80 | short as u8),
            medium => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(medium as u16).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        self.socket.input.extend(frame);
    }

    /// The text of a command, which is noted as asked.
    pub fn command(
        &mut self,
        asked: Asked,
        channel: usize,
        pad: usize,
        ledger: &mut Ledger,
        now: usize,
    ) -> String {
        self.next_id += 1;
        let id = self.next_id;
        // Channels by numbers or not; never strict about recovery.
        let flag = id & 1;
        let text = match &asked {
            Asked::Connect(token) => {
                format!(r#"{{"id":{id},"connect":{{"token":"{token}"}}}}"#)
            }
            Asked::Subscribe(None) => {
                format!(r#"{{"id":{id},"subscribe":{{"channel":"c{channel}","flag":1}}}}"#)
            }
            Asked::Subscribe(Some(offset)) => format!(
                r#"{{"id":{id},"subscribe":{{"channel":"c{channel}","recover":true,"flag":{flag},"epoch":"{}","offset":{offset}}}}}"#,
                self.views[channel].epoch
            ),
            Asked::Unsubscribe => {
                format!(r#"{{"id":{id},"unsubscribe":{{"channel":"c{channel}"}}}}"#)
            }
            Asked::Stats => {
                format!(r#"{{"id":{id},"presence_stats":{{"channel":"c{channel}"}}}}"#)
            }
            Asked::Publish(_) | Asked::Speak => String::new(),
        };
        let (asked, text) = if let Asked::Publish(_) = asked {
            let (n, request) = self.publish_request(channel, pad, ledger, now);
            (Asked::Publish(n), format!(r#"{{"id":{id},"publish":{request}}}"#))
        } else {
            (asked, text)
        };
        self.outstanding.push_back(Outstanding { id, channel, asked });
        text
    }

    fn publish_request(
        &mut self,
        channel: usize,
        pad: usize,
        ledger: &mut Ledger,
        now: usize,
    ) -> (u64, String) {
        self.next_number[channel] += 1;
        let n = self.next_number[channel];
        ledger.published(channel, self.number, n, now);
        let (number, pad) = (self.number, "x".repeat(pad));
        let data = format!(r#"{{"p":{number},"n":{n},"x":"{pad}"}}"#);
        (n, format!(r#"{{"channel":"c{channel}","data":{data}}}"#))
    }

    /// Asks for a stream, with its first commands.
    pub fn open_stream(&mut self, commands: &str) {
        self.post("/connection/http_stream", commands);
    }

    /// Says something for the client of a stream.
    pub fn speak(&mut self, (session, node): &(String, String), frame: &str) {
        let data = serde_json::json!({"session": session, "node": node, "data": frame});
        self.post("/emulation", &data.to_string());
        self.next_id += 1;
        let asked = Asked::Speak;
        self.outstanding.push_back(Outstanding { id: self.next_id, channel: usize::MAX, asked });
    }

    fn post(&mut self, path: &str, body: &str) {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        self.socket.input.extend(head.bytes().chain(body.bytes()));
    }

    /// Whether it is connected and stays so.
    pub fn is_there(&self) -> bool {
        self.connected && !self.done && self.closed.is_none() && !self.manners.said_close
    }

    /// Sends a call of the API's publish method, which is noted as asked.
    pub fn call(&mut self, channel: usize, pad: usize, ledger: &mut Ledger, now: usize) {
        let (n, body) = self.publish_request(channel, pad, ledger, now);
        let head = format!(
            "POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: secret\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.socket.input.extend(head.bytes().chain(body.bytes()));
        self.next_id += 1;
        let id = self.next_id;
        self.outstanding.push_back(Outstanding { id, channel, asked: Asked::Publish(n) });
    }

    // ---- receiving -----------------------------------------------------------------------

    /// Reads what the shard sent, at most `limit` bytes of it.
    pub fn read(&mut self, limit: usize, ledger: &mut Ledger, now: usize) -> Result<(), String> {
        let bytes = limit.min(self.socket.output.len());
        self.received.extend(self.socket.output.drain(..bytes));
        while self.read_one(ledger, now)? {}
        if self.socket.output.is_empty() && self.socket.shut {
            self.done = true;
            if !self.socket.reset && !self.socket.cut {
                self.check_end()?;
            }
        }
        Ok(())
    }

    fn check_end(&self) -> Result<(), String> {
        // Who speaks HTTP is told nothing when it is slow, or was the first to go.
        let cut_off = self.backend && self.manners.may_be_slow
            || self.voice.is_some() && self.manners.said_close;
        if cut_off {
            return Ok(());
        }
        if !self.received.is_empty() {
            return Err(format!("the stream ends inside a frame: {:?}", self.received));
        }
        match self.closed {
            _ if self.backend => Ok(()),
            Some(_) => Ok(()),
            None => Err("the stream ends without a close frame".into()),
        }
    }

    fn read_one(&mut self, ledger: &mut Ledger, now: usize) -> Result<bool, String> {
        if self.received.is_empty() {
            return Ok(false);
        }
        if self.backend {
            return self.answer(ledger);
        }
        if !self.head_seen {
            let end = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            let Some(end) = end else { return Ok(false) };
            let status: &[u8] =
                if self.voice.is_some() { b"HTTP/1.1 200 " } else { b"HTTP/1.1 101 " };
            if self.is_refused() {
                return Ok(false);
            }
            if !self.received.starts_with(status) {
                return Err("it was refused".into());
            }
            self.received.drain(..end + 4);
            self.head_seen = true;
            return Ok(true);
        }
        if self.closed.is_some() {
            return Err(format!("bytes behind the close frame: {:?}", self.received));
        }
        if self.voice.is_some() {
            let Some(end) = self.received.iter().position(|byte| *byte == b'\n') else {
                return Ok(false);
            };
            let line: Vec<u8> = self.received.drain(..=end).collect();
            self.text(&line, ledger, now)?;
            return Ok(true);
        }
        let Some((opcode, payload)) = self.take_frame()? else { return Ok(false) };
        match opcode {
            1 => self.text(&payload, ledger, now)?,
            8 => self.close(&payload)?,
            9 | 10 => {}
            other => return Err(format!("a frame with opcode {other}")),
        }
        Ok(true)
    }

    /// The answer to the oldest call, if it is all there.
    fn answer(&mut self, ledger: &mut Ledger) -> Result<bool, String> {
        if self.is_refused() {
            return Ok(false);
        }
        let text = String::from_utf8_lossy(&self.received).into_owned();
        let Some((head, rest)) = text.split_once("\r\n\r\n") else { return Ok(false) };
        if self.outstanding.front().is_some_and(|asked| asked.asked == Asked::Speak) {
            self.outstanding.pop_front();
            self.received.drain(..head.len() + 4);
            let heard = head.starts_with("HTTP/1.1 204 ");
            return heard.then_some(true).ok_or(format!("not heard: {text}"));
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.and_then(|digits| digits.parse().ok()).ok_or("no length")?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(format!("a call was refused: {text}"));
        }
        if rest.len() < length {
            return Ok(false);
        }
        let value: Value =
            serde_json::from_str(&rest[..length]).map_err(|error| error.to_string())?;
        self.received.drain(..head.len() + 4 + length);
        let Some(Outstanding { channel, asked: Asked::Publish(n), .. }) =
            self.outstanding.pop_front()
        else {
            return Err("an answer to nothing".into());
        };
        ledger.acknowledged(channel, self.number, n);
        let result = value["result"].as_object().ok_or("no result")?;
        match (result.get("offset").and_then(Value::as_u64), self.history) {
            (Some(offset), true) => {
                ledger.epoch(channel, result["epoch"].as_str().unwrap_or(""))?;
                ledger.placed(channel, offset, (self.number, n))?;
            }
            (None, false) if result.is_empty() => {}
            _ => return Err(format!("not where it was published: {value}")),
        }
        Ok(true)
    }

    /// Whether its request was refused, since the node had no memory left for it.
    fn is_refused(&mut self) -> bool {
        let full = self.manners.may_be_slow && self.received.starts_with(b"HTTP/1.1 503 ");
        let refused = full || self.closed == Some(503);
        if refused {
            self.received.clear();
            self.closed = Some(503);
        }
        refused
    }

    fn take_frame(&mut self) -> Result<Option<(u8, Vec<u8>)>, String> {
        let bytes = &self.received;
        let (Some(&first), Some(&second)) = (bytes.first(), bytes.get(1)) else { return Ok(None) };
        if first & 0xf0 != 0x80 || second & 0x80 != 0 {
            return Err(format!("a malformed frame header: {first:#x} {second:#x}"));
        }
        let (start, length) = match second {
            126 if bytes.len() < 4 => return Ok(None),
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            127 => return Err("no frame here is that long".into()),
            short => (2, usize::from(short)),
        };
        if bytes.len() < start + length {
            return Ok(None);
        }
        let payload = self.received.drain(..start + length).skip(start).collect();
        Ok(Some((first & 0x0f, payload)))
    }

    fn close(&mut self, payload: &[u8]) -> Result<(), String> {
        let code = payload.first_chunk::<2>().map_or(0, |code| u16::from_be_bytes(*code));
        let expected = match code {
            3008 => self.manners.may_be_slow,
            3501 => self.manners.rude,
            3504 => self.manners.may_be_refused,
            1000 | 0 => self.manners.said_close,
            _ => false,
        };
        self.closed = Some(code);
        expected.then_some(()).ok_or(format!("closed with {code}"))
    }

    fn text(&mut self, payload: &[u8], ledger: &mut Ledger, now: usize) -> Result<(), String> {
        let value: Value = serde_json::from_slice(payload)
            .map_err(|error| format!("{error} in {}", String::from_utf8_lossy(payload)))?;
        let checked = if value.as_object().is_some_and(|object| object.is_empty()) {
            Ok(())
        } else if let Some(id) = value["id"].as_u64() {
            self.reply(id, &value, ledger, now)
        } else if value["connect"].is_object() {
            self.connect_push(&value["connect"], ledger, now)
        } else if self.uni {
            match value["disconnect"].is_object() {
                true => Ok(()),
                false => self.push(&value, ledger),
            }
        } else if let Some(code) = value["push"]["disconnect"]["code"].as_u64() {
            self.close(&(code as u16).to_be_bytes())
        } else {
            self.push(&value["push"], ledger)
        };
        checked.map_err(|error| format!("{error}; got {value}"))
    }

    fn reply(
        &mut self,
        id: u64,
        value: &Value,
        ledger: &mut Ledger,
        now: usize,
    ) -> Result<(), String> {
        let at = self.outstanding.iter().position(|asked| asked.id == id);
        let Some(asked) = at.and_then(|at| self.outstanding.remove(at)) else {
            return Err("a reply to nothing".into());
        };
        let Outstanding { channel, asked, .. } = asked;
        let before = self.outstanding.iter().any(|other| other.id < id && other.channel == channel);
        if before {
            return Err("a reply out of order".into());
        }
        match asked {
            Asked::Connect(_) if value["connect"].is_object() => {
                self.connected = true;
                let told = |name: &str| value["connect"][name].as_str().map(str::to_owned);
                self.session = told("session").zip(told("node"));
            }
            Asked::Subscribe(_) if self.views[channel].subscribed => {
                if value["error"]["code"] != 105 {
                    return Err("subscribed twice".into());
                }
            }
            Asked::Subscribe(since) if value["subscribe"].is_object() => {
                self.subscribed(channel, since, &value["subscribe"], ledger, now)?;
            }
            Asked::Unsubscribe if value["unsubscribe"].is_object() => {
                self.views[channel].subscribed = false;
            }
            Asked::Publish(n) if value["publish"].is_object() => {
                ledger.acknowledged(channel, self.number, n);
            }
            Asked::Stats if value["presence_stats"].is_object() => {
                self.counted = value["presence_stats"]["num_clients"].as_u64();
            }
            other => return Err(format!("a reply that does not fit {other:?}")),
        }
        Ok(())
    }

    fn connect_push(
        &mut self,
        value: &Value,
        ledger: &mut Ledger,
        now: usize,
    ) -> Result<(), String> {
        if !self.uni || std::mem::replace(&mut self.connected, true) {
            return Err("a connect push too many".into());
        }
        let told = value["subs"].as_object().map_or(0, |subs| subs.len());
        if told != self.wanted.len() {
            return Err(format!("not the wanted channels {:?}", self.wanted));
        }
        for (channel, since) in self.wanted.clone() {
            let answer = &value["subs"][format!("c{channel}")];
            if !answer.is_object() {
                return Err(format!("no c{channel}"));
            }
            self.subscribed(channel, since, answer, ledger, now)?;
        }
        Ok(())
    }

    fn subscribed(
        &mut self,
        channel: usize,
        since: Option<u64>,
        answer: &Value,
        ledger: &mut Ledger,
        now: usize,
    ) -> Result<(), String> {
        let recovered = answer["recovered"] == true;
        let offset = answer["offset"].as_u64().unwrap_or(0);
        let epoch = answer["epoch"].as_str().unwrap_or("").to_owned();
        let missed = answer["publications"].as_array().cloned().unwrap_or_default();
        if !recovered && !missed.is_empty() {
            return Err("publications though not recovered".into());
        }
        if recovered && since != Some(offset) {
            return Err("recovered from another offset".into());
        }
        if self.history == epoch.is_empty()
            || (answer["was_recovering"] == true) != (self.history && since.is_some())
        {
            return Err("not what was asked for".into());
        }
        ledger.epoch(channel, &epoch)?;
        let view = &mut self.views[channel];
        let number = answer["id"].as_u64().unwrap_or(0);
        *view = View { subscribed: true, since: now, number, epoch, offset, seen: BTreeMap::new() };
        missed.iter().try_for_each(|publication| self.publication(channel, publication, ledger))
    }

    /// The channel of a push, which says it by the number where there is one, or by the name.
    fn named(&self, push: &Value) -> Result<Option<usize>, String> {
        let name = push["channel"].as_str().unwrap_or("");
        let Some(number) = push["id"].as_u64() else {
            let channel = name.strip_prefix('c').and_then(|digits| digits.parse().ok());
            let view = channel.and_then(|channel: usize| self.views.get(channel));
            let numbered = view.is_some_and(|view| view.subscribed && view.number != 0);
            return if numbered { Err("not by its number".into()) } else { Ok(channel) };
        };
        let has_it = |view: &View| view.subscribed && view.number == number && number != 0;
        let mut channels = (0..self.views.len()).filter(|channel| has_it(&self.views[*channel]));
        match (channels.next(), channels.next()) {
            (Some(channel), None) if name.is_empty() => Ok(Some(channel)),
            _ => Err("a number of no channel, or of two".into()),
        }
    }

    fn push(&mut self, push: &Value, ledger: &mut Ledger) -> Result<(), String> {
        let channel = self.named(push)?;
        match channel {
            Some(channel) if channel < self.views.len() && push["pub"].is_object() => {
                self.publication(channel, &push["pub"], ledger)
            }
            Some(_) if push["join"].is_object() || push["leave"].is_object() => Ok(()),
            _ => Err("an unknown push".into()),
        }
    }

    fn publication(
        &mut self,
        channel: usize,
        publication: &Value,
        ledger: &mut Ledger,
    ) -> Result<(), String> {
        let view = &mut self.views[channel];
        if !view.subscribed {
            return Err(format!("a publication of c{channel}, which is not subscribed"));
        }
        let data = &publication["data"];
        let (Some(publisher), Some(n)) = (data["p"].as_u64(), data["n"].as_u64()) else {
            return Err("a publication that nobody sent".into());
        };
        let publisher = publisher as usize;
        if let Some(offset) = publication["offset"].as_u64() {
            if offset != view.offset + 1 {
                return Err(format!("offset {offset} behind {}", view.offset));
            }
            view.offset = offset;
            ledger.placed(channel, offset, (publisher, n))?;
        } else if self.history {
            return Err("a publication without offset".into());
        }
        if let Some(before) = view.seen.insert(publisher, n)
            && n != before + 1
        {
            return Err(format!("number {n} of publisher {publisher} behind {before}"));
        }
        ledger.sent(channel, publisher, n)
    }

    // ---- at rest -------------------------------------------------------------------------

    /// Whether the server owes it answers and publications.
    pub fn is_owed(&self) -> bool {
        !self.done
            && self.manners
                == Manners {
                    may_be_slow: self.manners.may_be_slow,
                    may_be_refused: self.manners.may_be_refused,
                    ..Manners::default()
                }
            && self.closed.is_none()
            && !self.socket.vanished
    }

    /// Everything has settled: nothing may be missing.
    pub fn check_settled(&self, ledger: &Ledger) -> Result<(), String> {
        if self.socket.cut && !self.done {
            return Err("bytes are missing, and it was not closed".into());
        }
        if !self.received.is_empty() && !self.done {
            return Err(format!("a frame was only begun: {:?}", self.received));
        }
        if !self.is_owed() {
            return Ok(());
        }
        if let Some(asked) = self.outstanding.front() {
            return Err(format!(
                "no reply to {} {:?} on c{}",
                asked.id, asked.asked, asked.channel
            ));
        }
        if self.uni && self.sent_connect && !self.connected {
            return Err("no connect push".into());
        }
        for (channel, view) in self.views.iter().enumerate().filter(|(_, view)| view.subscribed) {
            ledger.check_complete(channel, view)?;
        }
        Ok(())
    }
}
