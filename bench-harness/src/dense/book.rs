//! State of a lane's connections, and the parser of the bytes that they receive.
//!
//! Owns the state of each connection and the bytes of incomplete frames. Never touches the ring.
//! Invariant: a connection has at most one outcome: up, refused, or up and lost.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::Ordering;

use super::counters::Counters;
use super::options::{Channels, GREETING_BYTES, Mode, Plan};
use super::pings::Pings;
use super::state::{Socket, State};
use super::unpack::{Unpacker, is_delta};
use crate::dialect::{CONNECTED, Dialect, Heard, Packing, Part, SUBSCRIBED, Subscriber};
use crate::latency::Recorder;
use crate::wire::{self, Position, Stamp};
use anyhow::{Result, ensure};

/// Bits of [`Socket::flags`], in addition to [`CONNECTED`] and [`SUBSCRIBED`].
const PONG: u8 = 1;
const STALLED: u8 = 8;
/// The bit RSV1 in the first byte of a frame: the message is compressed.
const COMPRESSED: u8 = 0x40;
const _: () = assert!((CONNECTED | SUBSCRIBED) & (PONG | STALLED) == 0, "bits of their own");
/// A request head without its end, and a line that prolongs it.
const HALF_HEAD: &[u8] = b"GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\n";
const DRIP: &[u8] = b"X: y\r\n";
/// Close code recorded for a close frame without a code.
const NO_CODE: u16 = 1005;
/// Maximum number of empty buffers that are kept for later input.
const SPARE_BUFFERS: usize = 64;

/// A message to send.
pub(super) enum Send {
    Pong,
    /// A range of [`Book::text`].
    Text(Range<usize>),
}

#[derive(Default)]
struct Tally {
    up: u64,
    delivered: u64,
    packed: u64,
    out_of_order: u64,
    duplicates: u64,
    stray: u64,
    framing: u64,
    answers: u64,
    items: u64,
    pings: u64,
    pongs: u64,
}

/// Whether the connections subscribe, and so get pings.
fn channels_are_used(plan: &Plan) -> bool {
    matches!(plan.mode, Mode::Subscribe(_) | Mode::Stall(_))
}

pub(super) struct Book {
    sockets: Vec<Socket>,
    partial: HashMap<u32, Vec<u8>>,
    /// Empty buffers for the next ones.
    spare: Vec<Vec<u8>>,
    channels: Option<Channels>,
    dialect: &'static dyn Dialect,
    port: u16,
    raw: bool,
    /// What each connection sends when it is open, instead of a dialect's words.
    opening: Option<&'static [u8]>,
    stall: bool,
    unpacker: Unpacker,
    /// Position from which reconnecting clients recover; `None`: not tracked.
    position: Option<Position>,
    /// Reconnecting clients request recovery.
    recovers: bool,
    phase: u16,
    /// Counts not yet added to the shared counters.
    tally: Tally,
    /// Counts of the current phase, not yet added to a recorder.
    out_of_order: u64,
    duplicates: u64,
    raw_bytes: u64,
    closed: Option<u16>,
    /// Pings by connection.
    pub(super) pings: Pings,
    /// Connections being established.
    pub(super) in_flight: u32,
    /// Requests for items without an answer.
    pub(super) asked: u32,
    /// Messages to send, with their slots.
    pub(super) sends: Vec<(u32, Send)>,
    pub(super) text: Vec<u8>,
    /// The frame that answers a protocol ping.
    pub(super) pong: Vec<u8>,
}

impl Book {
    pub(super) fn new(plan: &Plan, count: u32) -> Self {
        let blank = Socket { last: 0, seen: 0, state: State::Opening, flags: 0 };
        let mut pong = Vec::new();
        plan.dialect.pong(&mut pong);
        let (channels, stall) = match &plan.mode {
            Mode::Raw | Mode::Handshake | Mode::HalfHead => (None, false),
            Mode::Subscribe(channels) => (Some(channels.clone()), false),
            Mode::Stall(channels) => (Some(channels.clone()), true),
        };
        let raw = plan.mode == Mode::Raw;
        let opening = match plan.mode {
            Mode::Handshake => Some(&b""[..]),
            Mode::HalfHead => Some(HALF_HEAD),
            _ => None,
        };
        Book {
            sockets: vec![blank; count as usize],
            partial: HashMap::new(),
            spare: Vec::new(),
            channels,
            dialect: plan.dialect,
            port: plan.port,
            raw,
            opening,
            stall,
            unpacker: Unpacker::default(),
            position: None,
            recovers: false,
            phase: 0,
            tally: Tally::default(),
            out_of_order: 0,
            duplicates: 0,
            raw_bytes: 0,
            closed: None,
            pings: Pings::new(if channels_are_used(plan) { count } else { 0 }),
            in_flight: 0,
            asked: 0,
            sends: Vec::new(),
            text: Vec::new(),
            pong,
        }
    }

    fn socket(&mut self, slot: u32) -> &mut Socket {
        &mut self.sockets[slot as usize]
    }

    /// Whether the slot's connection is neither down nor being cut.
    pub(super) fn is_live(&self, slot: u32) -> bool {
        !matches!(self.sockets[slot as usize].state, State::Down | State::Cut)
    }

    /// Whether the slot's connection has ended, or never came up.
    pub(super) fn is_down(&self, slot: u32) -> bool {
        self.sockets[slot as usize].state == State::Down
    }

    /// Whether the slot reads when its socket becomes readable. A stalled slot does not.
    pub(super) fn wants_read(&self, slot: u32) -> bool {
        let socket = &self.sockets[slot as usize];
        socket.state != State::Down && socket.flags & STALLED == 0
    }

    /// The TLS handshake has begun.
    pub(super) fn securing(&mut self, slot: u32) {
        self.socket(slot).state = State::Securing;
    }

    /// The transport is open: send the upgrade, or wait for the greeting in raw mode.
    pub(super) fn connected(&mut self, slot: u32, index: u64) {
        if self.raw {
            self.socket(slot).state = State::Greeting;
            return;
        }
        if let Some(opening) = self.opening {
            self.socket(slot).state = State::Raw;
            self.tally.up += 1;
            self.in_flight -= 1;
            self.put(slot, opening);
            return;
        }
        self.socket(slot).state = State::Upgrading;
        let port = self.port;
        self.say(slot, index, |dialect, who, out| dialect.upgrade(port, who, out));
    }

    /// Queues the bytes that `words` appends for this subscriber.
    fn say(
        &mut self,
        slot: u32,
        index: u64,
        words: impl FnOnce(&dyn Dialect, &Subscriber<'_>, &mut Vec<u8>),
    ) {
        let Some(channels) = &self.channels else { return };
        let channel = channels.of(index);
        let position = self.position.as_ref().filter(|_| self.recovers);
        let start = self.text.len();
        words(self.dialect, &Subscriber { index, channel: &channel, position }, &mut self.text);
        self.queue(slot, start);
    }

    /// Queues these bytes.
    fn put(&mut self, slot: u32, bytes: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        self.queue(slot, start);
    }

    /// The bytes of a queued message.
    pub(super) fn bytes(&self, send: &Send) -> &[u8] {
        match send {
            Send::Pong => &self.pong,
            Send::Text(range) => &self.text[range.clone()],
        }
    }

    /// Queues one more line of the head for every connection whose head does not end.
    pub(super) fn drip(&mut self) {
        for slot in 0..self.sockets.len() as u32 {
            if self.sockets[slot as usize].state == State::Raw {
                self.put(slot, DRIP);
            }
        }
    }

    /// Queues the text from `start` on. It is merged with directly preceding text of the same slot.
    fn queue(&mut self, slot: u32, start: usize) {
        let end = self.text.len();
        match self.sends.last_mut() {
            _ if start == end => {}
            Some((last, Send::Text(range))) if *last == slot && range.end == start => {
                range.end = end;
            }
            _ => self.sends.push((slot, Send::Text(start..end))),
        }
    }

    /// Counts a connection that did not come up.
    pub(super) fn refuse(&mut self, slot: u32, cause: String, counters: &Counters) {
        let socket = self.socket(slot);
        if socket.state.waits_for().is_some() {
            socket.state = State::Down;
            self.in_flight -= 1;
            counters.refuse(cause);
        } else if socket.state == State::Up {
            counters.note(cause);
            self.answered(0);
        }
    }

    /// Counts those of these connections that are not up yet as refused. The cause names what each
    /// connection waited for.
    pub(super) fn give_up(&mut self, slots: Range<u32>, counters: &Counters) {
        for slot in slots {
            let socket = self.socket(slot);
            if let Some(what) = socket.state.waits_for() {
                socket.state = State::Down;
                counters.refuse(format!("waited for {what}"));
            }
        }
        self.in_flight = 0;
    }

    /// Counts a connection that ended: lost if it was up, refused if not.
    pub(super) fn lose(&mut self, slot: u32, code: u16, counters: &Counters) {
        self.partial.remove(&slot);
        match self.socket(slot).state {
            State::Down => {}
            State::Up | State::Raw => {
                self.socket(slot).state = State::Down;
                counters.lose(code);
            }
            _ => self.refuse(slot, format!("closed before it was up, code {code}"), counters),
        }
    }

    /// The close code in the last consumed bytes.
    pub(super) fn take_closed(&mut self) -> Option<u16> {
        self.closed.take()
    }

    /// Raw bytes consumed since the last call.
    pub(super) fn take_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.raw_bytes)
    }

    /// Begins a phase.
    pub(super) fn begin(&mut self, phase: u16) {
        self.phase = phase;
        (self.out_of_order, self.duplicates) = (0, 0);
        for socket in &mut self.sockets {
            (socket.last, socket.seen) = (0, 0);
        }
    }

    /// Ends the phase and adds its late and duplicate deliveries to the recorder.
    pub(super) fn finish(&mut self, recorder: &mut Recorder) {
        recorder.deliveries.out_of_order += std::mem::take(&mut self.out_of_order);
        recorder.deliveries.duplicates += std::mem::take(&mut self.duplicates);
        self.phase = 0;
    }

    /// Starts to track the position of the shared channel.
    pub(super) fn track(&mut self) {
        self.position = Some(Position::default());
    }

    /// The slots of the connections that are up.
    pub(super) fn standing(&self) -> Vec<u32> {
        let up = |slot: &u32| self.sockets[*slot as usize].state == State::Up;
        (0..self.sockets.len() as u32).filter(up).collect()
    }

    /// Queues the request of a connection for the items of its channel.
    pub(super) fn ask(&mut self, slot: u32, index: u64) {
        self.asked += 1;
        self.say(slot, index, |dialect, who, out| dialect.ask(who, out));
    }

    /// Counts an answer or a push with so many items.
    fn answered(&mut self, items: u64) {
        self.tally.items += items;
        if self.asked > 0 {
            self.asked -= 1;
            self.tally.answers += 1;
        }
    }

    /// Marks every connection that is up as cut. Returns their slots.
    pub(super) fn cut(&mut self) -> Vec<u32> {
        let slots = self.standing();
        for slot in &slots {
            let socket = self.socket(*slot);
            (socket.state, socket.flags) = (State::Cut, 0);
            self.partial.remove(slot);
        }
        slots
    }

    pub(super) fn is_cut(&self, slot: u32) -> bool {
        self.sockets[slot as usize].state == State::Cut
    }

    /// Marks every cut connection as opening. Returns their slots.
    pub(super) fn come_back(&mut self, recovers: bool) -> Vec<u32> {
        self.recovers = recovers;
        let slots: Vec<u32> =
            (0..self.sockets.len() as u32).filter(|slot| self.is_cut(*slot)).collect();
        for slot in &slots {
            self.socket(*slot).state = State::Opening;
        }
        slots
    }

    /// Lets stalled slots read again. Returns the slots.
    pub(super) fn resume(&mut self) -> Vec<u32> {
        self.stall = false;
        let stalled = |socket: &Socket| socket.flags & STALLED != 0 && socket.state == State::Up;
        let slots = (0..self.sockets.len() as u32)
            .filter(|slot| stalled(&self.sockets[*slot as usize]))
            .collect::<Vec<_>>();
        for slot in &slots {
            self.socket(*slot).flags &= !STALLED;
        }
        slots
    }

    /// Adds the counts since the last call to the shared counters.
    pub(super) fn publish(&mut self, counters: &Counters) {
        let tally = std::mem::take(&mut self.tally);
        self.out_of_order += tally.out_of_order;
        self.duplicates += tally.duplicates;
        for (counter, by) in [
            (&counters.up, tally.up),
            (&counters.delivered, tally.delivered),
            (&counters.packed, tally.packed),
            (&counters.stray, tally.stray),
            (&counters.framing, tally.framing),
            (&counters.items, tally.items),
            (&counters.answers, tally.answers),
            (&counters.pings, tally.pings),
            (&counters.pongs, tally.pongs),
        ] {
            if by > 0 {
                counter.fetch_add(by, Ordering::Relaxed);
            }
        }
    }

    /// Consumes received bytes. The inner error is the cause to refuse the connection.
    pub(super) fn consume(
        &mut self,
        slot: u32,
        index: u64,
        input: &[u8],
        now_ns: u64,
        recorder: &mut Option<Recorder>,
    ) -> Result<Result<(), String>> {
        match self.sockets[slot as usize].state {
            State::Raw => {
                self.raw_bytes += input.len() as u64;
                return Ok(Ok(()));
            }
            State::Greeting => {
                self.socket(slot).state = State::Raw;
                self.tally.up += 1;
                self.in_flight -= 1;
                self.raw_bytes += input.len() as u64 - GREETING_BYTES;
                return Ok(Ok(()));
            }
            _ => {}
        }
        let Some(mut kept) = self.partial.remove(&slot) else {
            let (used, outcome) = self.parse(slot, index, input, now_ns, recorder)?;
            if used < input.len() {
                let mut kept = self.spare.pop().unwrap_or_default();
                kept.extend_from_slice(&input[used..]);
                self.partial.insert(slot, kept);
            }
            return Ok(outcome);
        };
        kept.extend_from_slice(input);
        let (used, outcome) = self.parse(slot, index, &kept, now_ns, recorder)?;
        if used < kept.len() {
            kept.drain(..used);
            self.partial.insert(slot, kept);
        } else if self.spare.len() < SPARE_BUFFERS {
            kept.clear();
            self.spare.push(kept);
        }
        Ok(outcome)
    }

    /// Parses complete heads and frames from the front. Returns the number of bytes used, and the
    /// cause if the connection is refused.
    fn parse(
        &mut self,
        slot: u32,
        index: u64,
        bytes: &[u8],
        now_ns: u64,
        recorder: &mut Option<Recorder>,
    ) -> Result<(usize, Result<(), String>)> {
        let mut used = 0;
        if self.socket(slot).state == State::Upgrading {
            let Some(head) = wire::head_bytes(bytes) else { return Ok((0, Ok(()))) };
            if let Some(cause) = self.dialect.refusal(&bytes[..head]) {
                return Ok((bytes.len(), Err(cause)));
            }
            used = head;
            self.say_hello(slot, index);
        }
        let framing = self.dialect.framing();
        while let Some((length, part)) = framing.part(&bytes[used..]) {
            used += length;
            let taken = match part {
                Part::Frame(frame) => self.frame(slot, frame, now_ns, recorder)?,
                Part::Message(message) => {
                    self.tally.framing += (length - message.len()) as u64;
                    self.message(slot, message, now_ns, recorder)?
                }
            };
            if let Err(cause) = taken {
                return Ok((bytes.len(), Err(cause)));
            }
        }
        Ok((used, Ok(())))
    }

    fn say_hello(&mut self, slot: u32, index: u64) {
        self.socket(slot).state = State::Joining;
        self.say(slot, index, |dialect, who, out| dialect.hello(who, out));
        self.step(slot, 0);
    }

    fn frame(
        &mut self,
        slot: u32,
        frame: &[u8],
        now_ns: u64,
        recorder: &mut Option<Recorder>,
    ) -> Result<Result<(), String>> {
        let header = match frame[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let payload = &frame[header..];
        self.tally.framing += header as u64;
        match frame[0] & 0x0f {
            // Only unfragmented messages: no measured server sends fragments.
            0x1 | 0x2 if frame[0] & COMPRESSED != 0 => {
                let agreed = self.dialect.packing() == Some(Packing::Deflate);
                ensure!(
                    agreed,
                    "the server compressed a message, but compression was not negotiated"
                );
                let before = self.tally.delivered;
                let message = self.unpacker.unpack(Packing::Deflate, payload)?;
                let taken = self.message(slot, &message, now_ns, recorder)?;
                self.tally.packed += self.tally.delivered - before;
                return Ok(taken);
            }
            0x1 | 0x2 => return self.message(slot, payload, now_ns, recorder),
            0x8 => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                self.closed = Some(code.unwrap_or(NO_CODE));
            }
            0x9 => {
                self.tally.pings += 1;
                self.pings.note(slot, now_ns);
                self.tally.pongs += 1;
                let start = self.text.len();
                wire::client_frame(wire::PONG, payload, &mut self.text);
                self.queue(slot, start);
            }
            _ => {}
        }
        Ok(Ok(()))
    }

    /// Handles all parts of a message.
    fn message(
        &mut self,
        slot: u32,
        message: &[u8],
        now_ns: u64,
        recorder: &mut Option<Recorder>,
    ) -> Result<Result<(), String>> {
        let mut rest = message;
        while !rest.is_empty() {
            let (used, heard) = self.dialect.hear(rest);
            if let Err(cause) = self.heard(slot, heard, now_ns, recorder)? {
                return Ok(Err(cause));
            }
            rest = rest.get(used.max(1)..).unwrap_or_default();
        }
        Ok(Ok(()))
    }

    fn heard(
        &mut self,
        slot: u32,
        heard: Heard<'_>,
        now_ns: u64,
        recorder: &mut Option<Recorder>,
    ) -> Result<Result<(), String>> {
        match heard {
            Heard::Delivery(push) => {
                self.push(slot, push, now_ns, recorder)?;
                let start = self.text.len();
                self.dialect.acknowledge(push, &mut self.text);
                self.queue(slot, start);
            }
            Heard::Ping => {
                self.tally.pings += 1;
                self.pings.note(slot, now_ns);
                if self.socket(slot).flags & PONG != 0 {
                    self.tally.pongs += 1;
                    self.sends.push((slot, Send::Pong));
                }
            }
            Heard::Connected { pong } => {
                self.step(slot, CONNECTED | if pong { PONG } else { 0 });
            }
            Heard::Subscribed(reply) => {
                if self.position.is_some()
                    && let Err(cause) = self.recovered(slot, reply, now_ns, recorder)?
                {
                    return Ok(Err(cause));
                }
                self.step(slot, SUBSCRIBED);
            }
            Heard::Refused(answer) => {
                return Ok(Err(format!("answered `{}`", String::from_utf8_lossy(answer))));
            }
            Heard::Items(items) => self.answered(items),
            Heard::Other => {}
        }
        Ok(Ok(()))
    }

    /// Updates the position of the shared channel. Once clients recover, it no longer changes: all
    /// of them recover from the position at the cut.
    fn note_position(&mut self, text: &[u8]) {
        if let Some(position) = self.position.as_mut().filter(|_| !self.recovers) {
            self.dialect.note(text, position);
        }
    }

    /// Handles the reply to a subscribe while the position is tracked. The publications that it
    /// recovers count as deliveries.
    fn recovered(
        &mut self,
        slot: u32,
        reply: &[u8],
        now_ns: u64,
        recorder: &mut Option<Recorder>,
    ) -> Result<Result<(), String>> {
        if self.recovers && !self.dialect.has_recovered(reply) {
            return Ok(Err(format!("not recovered: `{}`", String::from_utf8_lossy(reply))));
        }
        self.note_position(reply);
        if self.recovers {
            for stamp in Stamp::all(reply) {
                self.delivered(slot, stamp, now_ns, recorder)?;
            }
        }
        Ok(Ok(()))
    }

    /// Marks steps as done. The connection is up when all steps that its dialect awaits are done.
    fn step(&mut self, slot: u32, done: u8) {
        let (stall, awaited) = (self.stall, self.dialect.awaited());
        let socket = self.socket(slot);
        socket.flags |= done;
        if socket.state == State::Joining && socket.flags & awaited == awaited {
            socket.state = State::Up;
            if stall {
                socket.flags |= STALLED;
            }
            self.tally.up += 1;
            self.in_flight -= 1;
        }
    }

    fn push(
        &mut self,
        slot: u32,
        push: &[u8],
        now_ns: u64,
        recorder: &mut Option<Recorder>,
    ) -> Result<()> {
        self.note_position(push);
        let stamp = match self.dialect.packing() {
            Some(Packing::Delta) => {
                self.tally.packed += u64::from(is_delta(push));
                Stamp::find(&self.unpacker.unpack(Packing::Delta, push)?)
            }
            Some(Packing::Deflate) | None => Stamp::find(push),
        };
        match stamp {
            Some(stamp) => self.delivered(slot, stamp, now_ns, recorder),
            None => {
                self.tally.stray += 1;
                Ok(())
            }
        }
    }

    fn delivered(
        &mut self,
        slot: u32,
        stamp: Stamp,
        now_ns: u64,
        recorder: &mut Option<Recorder>,
    ) -> Result<()> {
        let Some(recorder) = recorder.as_mut().filter(|_| stamp.phase == self.phase) else {
            self.tally.stray += 1;
            return Ok(());
        };
        match self.socket(slot).see(stamp.sequence) {
            Seen::Again => self.tally.duplicates += 1,
            Seen::New { late } => {
                self.tally.delivered += 1;
                self.tally.out_of_order += u64::from(late);
                recorder.record(now_ns, now_ns.saturating_sub(stamp.due_ns))?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Again,
    New { late: bool },
}

impl Socket {
    /// Records a sequence number. A number more than 32 behind the highest counts as late, never
    /// as a duplicate.
    fn see(&mut self, sequence: u32) -> Seen {
        if sequence > self.last {
            let ahead = sequence - self.last;
            self.seen = match ahead {
                1..=31 => self.seen << ahead | 1 << (ahead - 1),
                32 => 1 << 31,
                _ => 0,
            };
            self.last = sequence;
            return Seen::New { late: false };
        }
        let behind = self.last - sequence;
        if behind == 0 {
            return Seen::Again;
        }
        let bit = if behind <= 32 { 1 << (behind - 1) } else { 0 };
        if self.seen & bit != 0 {
            return Seen::Again;
        }
        self.seen |= bit;
        Seen::New { late: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Streamed;

    fn book(mode: Mode) -> Book {
        book_of(&crate::dialect::Drumline, mode)
    }

    fn book_of(dialect: &'static dyn Dialect, mode: Mode) -> Book {
        let plan = Plan {
            connections: 1,
            port: 1,
            one_address: false,
            dialect,
            in_flight: 1,
            mode,
            tls: None,
            quiet: false,
        };
        let mut book = Book::new(&plan, 1);
        book.in_flight = 1;
        book.connected(0, 9);
        book
    }

    const HEAD: &[u8] =
        b"HTTP/1.1 101 x\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    fn stream() -> Vec<u8> {
        let mut bytes = HEAD.to_vec();
        for text in
            [&b"{\"id\":1,\"connect\":{\"pong\":true}}\n{\"id\":2,\"subscribe\":{}}"[..], b"{}"]
        {
            drumline::wire::frame::write_text(text, &mut bytes);
        }
        for sequence in [1, 2, 2, 4, 3] {
            let mut push = b"{\"push\":{\"channel\":\"c\",\"pub\":{\"data\":".to_vec();
            Stamp { due_ns: 5, phase: 3, sequence }.write(300, &mut push);
            push.extend(b"}}}");
            drumline::wire::frame::write_text(&push, &mut bytes);
        }
        drumline::wire::frame::write_close(Some(3008), "slow", &mut bytes);
        bytes
    }

    #[test]
    fn the_size_of_reads_does_not_change_what_is_counted() {
        for cut in [1, 2, 3, 7, 100, 10_000] {
            let counters = Counters::default();
            let mut book = book(Mode::Subscribe(Channels::Distinct));
            book.begin(3);
            let mut recorder = Some(Recorder::new(std::time::SystemTime::now()).unwrap());
            for piece in stream().chunks(cut) {
                book.consume(0, 9, piece, 105, &mut recorder).unwrap().unwrap();
            }
            book.publish(&counters);
            let mut recorder = recorder.unwrap();
            book.finish(&mut recorder);
            assert_eq!(book.take_closed(), Some(3008));
            assert_eq!(recorder.deliveries.delivered, 4);
            assert_eq!(recorder.deliveries.out_of_order, 1);
            assert_eq!(recorder.deliveries.duplicates, 1);
            assert_eq!(counters.standing(), 1);
            assert_eq!(counters.pongs.load(Ordering::Relaxed), 1);
            let headers = 2 + 2 + 5 * 4 + 2;
            assert_eq!(counters.framing(), headers, "two texts, five long ones, a close");
            assert_eq!(book.in_flight, 0);
            assert_eq!(book.sends.len(), 2, "one text with upgrade and hello, one pong");
            book.lose(0, 3008, &counters);
            assert_eq!(counters.codes()[&3008], 1);
        }
    }

    #[test]
    fn ping_frames_are_counted_and_answered() {
        let counters = Counters::default();
        let mut book = book(Mode::Subscribe(Channels::Distinct));
        let mut bytes = HEAD.to_vec();
        bytes.extend([0x89, 2, b'h', b'i']);
        book.consume(0, 9, &bytes, 0, &mut None).unwrap().unwrap();
        book.publish(&counters);
        assert_eq!((counters.pings(), counters.pongs.load(Ordering::Relaxed)), (1, 1));
        let mut pong = Vec::new();
        wire::client_frame(wire::PONG, b"hi", &mut pong);
        assert!(book.text.ends_with(&pong));
    }

    #[test]
    fn streamed_responses_are_parsed_for_any_size_of_reads() {
        let replies = ["{\"id\":1,\"connect\":{}}", "{\"id\":2,\"subscribe\":{}}", "{}"];
        for (dialect, before, after, around) in
            [(&Streamed::HttpStream, "", "\n", 1), (&Streamed::Sse, "data: ", "\n\n", 8)]
        {
            let body: String = replies.map(|reply| [before, reply, after].concat()).concat();
            let stream = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\r\n{body}");
            for cut in [1, 7, 1000] {
                let counters = Counters::default();
                let mut book = book_of(dialect, Mode::Subscribe(Channels::Distinct));
                for piece in stream.as_bytes().chunks(cut) {
                    book.consume(0, 9, piece, 0, &mut None).unwrap().unwrap();
                }
                book.publish(&counters);
                assert_eq!((counters.standing(), counters.pings()), (1, 1), "{dialect:?} by {cut}");
                let empty_line = 2;
                assert_eq!(counters.framing(), empty_line + 3 * around, "{dialect:?} by {cut}");
                assert_eq!((book.sends.len(), book.in_flight), (1, 0), "only the request is sent");
            }
        }
    }

    #[test]
    fn a_compressed_message_without_negotiation_is_an_error() {
        let mut book = book(Mode::Subscribe(Channels::Distinct));
        let bytes = [HEAD, &[0xc1, 2, b'{', b'}']].concat();
        let error = book.consume(0, 9, &bytes, 0, &mut None).unwrap_err();
        assert!(error.to_string().contains("was not negotiated"), "{error}");
    }

    #[test]
    fn an_aborted_ramp_up_names_what_each_connection_waited_for() {
        for (mode, what) in [
            (Mode::Raw, "waited for the kernel baseline's greeting"),
            (Mode::Subscribe(Channels::Distinct), "waited for the answer to the upgrade"),
        ] {
            let counters = Counters::default();
            let mut book = book(mode);
            book.give_up(0..1, &counters);
            book.give_up(0..1, &counters);
            book.lose(0, 1006, &counters);
            assert_eq!(counters.causes(), [(what.to_owned(), 1)].into());
            assert_eq!((book.in_flight, counters.lost()), (0, 0));
        }
    }

    #[test]
    fn refusals_name_their_cause() {
        let counters = Counters::default();
        let mut book = book(Mode::Subscribe(Channels::Distinct));
        let mut none = None;
        let cause =
            book.consume(0, 0, b"HTTP/1.1 503 busy\r\n\r\n", 0, &mut none).unwrap().unwrap_err();
        book.refuse(0, cause, &counters);
        book.lose(0, 1006, &counters);
        assert_eq!(counters.causes()["upgrade answered `HTTP/1.1 503 busy`"], 1);
        assert_eq!(counters.lost(), 0);
    }

    #[test]
    fn late_and_duplicate_sequence_numbers_are_told_apart() {
        let mut socket = Socket { last: 0, seen: 0, state: State::Up, flags: 0 };
        let mut see = |sequence| socket.see(sequence);
        assert_eq!(see(1), Seen::New { late: false });
        assert_eq!(see(1), Seen::Again);
        assert_eq!(see(40), Seen::New { late: false });
        assert_eq!(see(39), Seen::New { late: true });
        assert_eq!(see(39), Seen::Again);
        assert_eq!(see(40), Seen::Again);
        assert_eq!(see(72), Seen::New { late: false });
        assert_eq!(see(40), Seen::Again);
    }
}
