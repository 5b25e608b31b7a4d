//! From bytes to commands: what a socket brought is cut into a request head, frames and commands,
//! as far as the connection may go on; the rest is kept.

use crate::base::budget::cost;
use crate::base::growth;
use crate::hub::Hub;
use crate::hub::commands::Stop;
use crate::hub::connections::{Inbound, NONE, Phase};
use crate::model::message::Post;
use crate::wire::frame::{self, Event, Fragments, Kind, Violation};
use crate::wire::http::{self, Head, Requester, Status, Transport, Upgrade};
use crate::wire::protocol::Disconnect;
use crate::wire::protocol::command::{Command, ConnectRequest};
use crate::wire::protocol::{Wire, json, protobuf};
use crate::wire::reading;

/// Commands of one connection handled in one turn.
const COMMANDS_MAX: usize = 64;

impl Hub {
    /// Bytes have come for a connection.
    pub fn receive(&mut self, post: &mut impl Post, slot: u32, bytes: &mut [u8]) {
        self.take_input(post, slot, bytes);
        self.serve_own(post);
    }

    fn take_input(&mut self, post: &mut impl Post, slot: u32, bytes: &mut [u8]) {
        self.metrics.received_bytes.add(bytes.len() as u64);
        if let Some(inbound) = self.connections.inbound_mut(slot) {
            growth::append(&mut inbound.bytes, bytes);
            if self.connections[slot].flags.queued() {
                self.settle_inbound(slot);
            } else {
                self.resume(post, slot);
            }
            return;
        }
        let mut inbound = Inbound::default();
        let used = self.consume(post, slot, bytes, &mut inbound);
        growth::append(&mut inbound.bytes, &bytes[used..]);
        self.keep_inbound(slot, inbound);
    }

    /// Goes on with a connection whose input was left where it was.
    pub(super) fn resume(&mut self, post: &mut impl Post, slot: u32) {
        let connection = &mut self.connections[slot];
        connection.flags.set_queued(false);
        connection.flags.set_paused(false);
        if connection.hold != NONE {
            self.ask_homes(post, slot);
        }
        let transport = self.connections[slot].transport;
        if let Some(inbound) = self.connections.inbound_mut(slot) {
            let mut inbound = std::mem::take(inbound);
            let mut bytes = std::mem::take(&mut inbound.bytes);
            let commands = std::mem::take(&mut inbound.commands);
            if !commands.is_empty() && transport.is_unidirectional() {
                self.connect_uni(post, slot, &commands, &mut inbound);
            } else if !commands.is_empty() {
                self.run_commands(post, slot, &commands, &mut inbound);
            }
            let used = self.consume(post, slot, &mut bytes, &mut inbound);
            bytes.drain(..used);
            inbound.bytes = bytes;
            self.keep_inbound(slot, inbound);
        }
        let connection = &self.connections[slot];
        if !connection.flags.paused() && connection.flags.readable() {
            self.wanted.reads.push(slot);
        }
    }

    /// Keeps what could not be used up, or forgets the record where nothing is left.
    fn keep_inbound(&mut self, slot: u32, inbound: Inbound) {
        if inbound.is_empty() || self.connections[slot].phase == Phase::Ending {
            self.connections.take_inbound(slot);
            return;
        }
        if let Some(kept) = self.connections.inbound_or_insert(slot) {
            *kept = inbound;
        }
        self.settle_inbound(slot);
    }

    /// Counts what a connection's input takes, and closes the connection with the most input if
    /// that is too much for the node.
    fn settle_inbound(&mut self, slot: u32) {
        let connection = &self.connections[slot];
        // One that is handed over is out of reach.
        self.connections.unread.settle(connection.inbound, connection.phase != Phase::Leaving);
        self.shed_unread();
    }

    /// Uses up input from the front as far as the connection may go on; returns how many bytes.
    fn consume(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        input: &mut [u8],
        inbound: &mut Inbound,
    ) -> usize {
        let mut used = 0;
        while used < input.len() {
            if self.connections[slot].flags.paused() {
                break;
            }
            if self.is_spent() {
                self.pause(slot, Pause::Ready);
                break;
            }
            let connection = &self.connections[slot];
            let rest = &mut input[used..];
            let step = match connection.phase {
                Phase::Head | Phase::KeptAlive => self.read_head(post, slot, rest, inbound),
                // What comes behind the request of a stream is not for it.
                _ if !connection.transport.is_websocket() => Some(rest.len()),
                Phase::Open | Phase::Connected => self.read_frame(post, slot, rest, inbound),
                Phase::Closing if connection.flags.lingering() => Some(rest.len()),
                Phase::Closing => self.await_close(slot, rest, &mut inbound.fragments),
                Phase::Asking | Phase::Leaving => break,
                Phase::Reserved | Phase::Ending => Some(rest.len()),
            };
            match step {
                Some(step) => {
                    self.budget.charge(cost::LOOK + step);
                    used += step;
                }
                None => break,
            }
        }
        used
    }

    fn read_head(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        input: &[u8],
        inbound: &mut Inbound,
    ) -> Option<usize> {
        if self.awaits_flush(slot) {
            return None;
        }
        let settings = self.settings.clone();
        let flags = self.connections[slot].flags;
        match http::parse(input, &settings.routes, settings.head_limits) {
            Head::Partial => {
                self.begin_request(slot);
                None
            }
            _ if settings.rules.local && http::is_foreign(input) => self.hand_over(slot, input),
            Head::Refused(status) => {
                self.refuse_to(slot, status, Requester::of(input));
                Some(input.len())
            }
            Head::Control if flags.passed_on() => {
                self.refuse_to(slot, Status::BadRequest, Requester::of(input));
                Some(input.len())
            }
            // The control plane needs no slot, and so has a place where this shard has none.
            Head::Call(..) if flags.refusing() => self.hand_over(slot, input),
            Head::Control => self.hand_over(slot, input),
            Head::Health(health, used) => {
                self.answer_health(slot, health);
                Some(used)
            }
            Head::Call(call, used) => self.call(post, slot, (&call, used), input),
            Head::Stream(stream, used) => {
                self.note_headers(slot, http::kept_headers(input, &settings.proxies.wants.headers));
                self.begin_stream(post, slot, &stream, inbound);
                Some(used)
            }
            Head::Emulation(emulation, used) => {
                self.speak_for(post, slot, &emulation).then_some(used)
            }
            Head::Preflight(asked, used) => {
                self.answer_preflight(slot, &asked);
                Some(used)
            }
            Head::Upgrade(mut upgrade, used) => {
                upgrade.kept = http::kept_headers(input, &settings.proxies.wants.headers);
                self.upgrade(post, slot, &upgrade, inbound);
                Some(used)
            }
        }
    }

    /// A request has begun on a connection that was idle: it has as long as the first one had.
    fn begin_request(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        if connection.phase == Phase::KeptAlive && !connection.flags.shutting_down() {
            connection.phase = Phase::Head;
            self.set_deadline(slot, self.settings.head_timeout);
        }
    }

    /// The control plane serves the request that `input` begins with, and every later one of the
    /// connection, if it has a place for it; returns how many bytes are used up.
    pub(super) fn hand_over(&mut self, slot: u32, input: &[u8]) -> Option<usize> {
        if !self.gate.take_place() {
            self.refuse_to(slot, Status::Unavailable, Requester::of(input));
            return Some(input.len());
        }
        self.connections.wheel.clear(slot);
        self.connections[slot].phase = Phase::Leaving;
        self.wanted.hand_overs.push(slot);
        None
    }

    fn upgrade(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        upgrade: &Upgrade,
        inbound: &mut Inbound,
    ) {
        let (origin, host) = (upgrade.origin.as_deref(), upgrade.host.as_deref());
        if !self.settings.rules.allows_origin(origin, host) {
            return self.refuse(slot, Status::Forbidden);
        }
        let full = self.connections[slot].flags.refusing();
        if full || !self.gate.admits(self.now) {
            let requester = Requester { origin, host, bodiless: false };
            return self.refuse_to(slot, Status::Unavailable, requester);
        }
        let connection = &mut self.connections[slot];
        self.turn.preface(&mut connection.turn, slot, |out| {
            http::write_switching(upgrade, out);
        });
        self.open(post, slot, upgrade, inbound);
    }

    /// A socket from the control plane, which has asked the gate and answered the switch if there
    /// was one; else the request is still to come.
    pub fn adopt(&mut self, post: &mut impl Post, slot: u32, upgrade: Option<&Upgrade>) {
        let Some(upgrade) = upgrade else {
            return self.connections[slot].flags.set_passed_on(true);
        };
        let mut inbound = Inbound::default();
        self.open(post, slot, upgrade, &mut inbound);
        self.keep_inbound(slot, inbound);
        self.serve_own(post);
    }

    /// The switch has been answered: the transport begins.
    fn open(&mut self, post: &mut impl Post, slot: u32, upgrade: &Upgrade, inbound: &mut Inbound) {
        let connection = &mut self.connections[slot];
        connection.transport = upgrade.transport;
        connection.flags.set_compressing(upgrade.compression.is_some());
        if upgrade.protobuf && !upgrade.transport.is_unidirectional() {
            connection.wire = Wire::Protobuf;
        }
        let bidirectional = upgrade.transport == Transport::WebSocket;
        connection.flags.set_frame_pings(upgrade.frame_pings && bidirectional);
        connection.phase = Phase::Open;
        self.note_headers(slot, upgrade.kept.clone());
        if self.connections[slot].flags.shutting_down() {
            return self.disconnect(slot, Disconnect::SHUTDOWN);
        }
        self.set_deadline(slot, self.settings.stale_close_delay);
        match (upgrade.transport, &upgrade.connect) {
            (Transport::Echo, _) => self.connections.wheel.clear(slot),
            (Transport::UniWebSocket, _) if upgrade.protobuf => {
                self.disconnect(slot, Disconnect::NOT_AVAILABLE);
            }
            (Transport::UniWebSocket, Some(connect)) => {
                self.connect_uni(post, slot, connect.as_bytes(), inbound);
            }
            _ => {}
        }
    }

    fn read_frame(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        input: &mut [u8],
        inbound: &mut Inbound,
    ) -> Option<usize> {
        let compresses = self.connections[slot].flags.compressing();
        if compresses && self.inflater.is_spent() {
            self.pause(slot, Pause::Ready);
            return None;
        }
        let (bytes, limit) = (input.len(), self.settings.message_bytes);
        match frame::decode(input, &mut inbound.fragments, limit, compresses) {
            Ok(None) => None,
            Ok(Some((used, event))) => {
                self.event(post, slot, event, inbound);
                Some(used)
            }
            Err(violation) => {
                self.close_violator(slot, violation);
                Some(bytes)
            }
        }
    }

    /// Ends a connection whose frames are against the rules.
    fn close_violator(&mut self, slot: u32, violation: Violation) {
        self.write_close(slot, Some(violation.code()), violation.reason());
        self.connections[slot].flags.set_end_when_flushed(true);
    }

    fn event(&mut self, post: &mut impl Post, slot: u32, event: Event<'_>, inbound: &mut Inbound) {
        match event {
            Event::Message(kind, payload) => self.message(post, slot, (kind, &payload), inbound),
            Event::Compressed(kind, payload) => {
                let limit = self.settings.inflated_bytes;
                match self.inflater.inflate(kind, &payload, limit) {
                    Ok(message) => {
                        self.message(post, slot, (kind, &message), inbound);
                        self.inflater.recycle(message);
                    }
                    Err(violation) => self.close_violator(slot, violation),
                }
            }
            Event::Ping(payload) => self.write(slot, |out| frame::write_pong(payload, out)),
            Event::Close(code) => {
                self.write_close(slot, code, "");
                self.connections[slot].flags.set_end_when_flushed(true);
            }
            Event::Pong => {
                let connection = &mut self.connections[slot];
                let counts = connection.flags.frame_pings()
                    || connection.transport == Transport::UniWebSocket;
                connection.flags.set_pong_due(connection.flags.pong_due() && !counts);
            }
            Event::Fragment => {}
        }
    }

    fn message(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        (kind, payload): (Kind, &[u8]),
        inbound: &mut Inbound,
    ) {
        let connection = &self.connections[slot];
        match (connection.transport, connection.phase) {
            (Transport::Echo, _) => self.echo(slot, kind, payload),
            (Transport::UniWebSocket, Phase::Open)
                if connection.hold == NONE && inbound.commands.is_empty() =>
            {
                self.connect_uni(post, slot, payload, inbound);
            }
            (Transport::WebSocket, _) => self.take_frame(post, slot, payload, inbound),
            _ => {}
        }
    }

    /// A message goes back as it came, compressed where what is published would be.
    fn echo(&mut self, slot: u32, kind: Kind, payload: &[u8]) {
        let mut message = std::mem::take(&mut self.body);
        message.clear();
        frame::write_message(kind, payload, &mut message);
        if self.connections[slot].flags.compressing() {
            self.locals.deflater(false).compress_frame(&mut message, 0);
        }
        self.write(slot, |out| out.extend_from_slice(&message));
        self.body = message;
    }

    /// After our close frame only the peer's counts.
    fn await_close(
        &mut self,
        slot: u32,
        input: &mut [u8],
        fragments: &mut Fragments,
    ) -> Option<usize> {
        let compresses = self.connections[slot].flags.compressing();
        match frame::decode(input, fragments, self.settings.message_bytes, compresses) {
            Ok(None) => None,
            Ok(Some((used, Event::Close(_)))) => {
                self.end_when_flushed(slot);
                Some(used)
            }
            Ok(Some((used, _))) => Some(used),
            Err(_) => {
                self.end_when_flushed(slot);
                Some(input.len())
            }
        }
    }

    /// Ends a connection as soon as nothing is left to be sent on it.
    pub(super) fn end_when_flushed(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        connection.flags.set_end_when_flushed(true);
        if connection.turn == NONE && connection.outbox == NONE {
            self.end(slot);
        }
    }

    /// A frame of commands has come.
    pub(super) fn take_frame(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        frame: &[u8],
        inbound: &mut Inbound,
    ) {
        if self.is_blank(slot, frame) {
            return self.disconnect(slot, Disconnect::BAD_REQUEST);
        }
        self.run_commands(post, slot, frame, inbound);
    }

    /// Runs the commands of a frame in order. What cannot be run yet is kept, and the connection
    /// reads nothing until it has been.
    fn run_commands(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        frame: &[u8],
        inbound: &mut Inbound,
    ) {
        let mut commands = Commands::new(self.connections[slot].wire, frame);
        let (mut done, mut count) = (0, 0);
        let stop = loop {
            if count == COMMANDS_MAX || self.turn.is_full() || self.is_spent() {
                break Some(Stop::Turn);
            }
            let result = match commands.next() {
                None => return,
                Some(Err(Malformed)) => Err(Stop::Disconnect(Disconnect::BAD_REQUEST)),
                Some(Ok(command)) => self.command(post, slot, &command),
            };
            if let Err(stop) = result {
                break Some(stop);
            }
            self.serve_home(post);
            let connection = &self.connections[slot];
            let (bytes, looks) = (commands.consumed() - done, usize::from(connection.subscribed));
            self.budget.charge(cost::COMMAND + bytes + looks);
            self.metrics.commands.add(1);
            if !self.connections[slot].takes_output() {
                return;
            }
            (done, count) = (commands.consumed(), count + 1);
        };
        let rest = &frame[done..];
        match stop {
            Some(Stop::Disconnect(disconnect)) => return self.disconnect(slot, disconnect),
            _ if self.is_blank(slot, rest) => return,
            Some(Stop::Turn) => {
                self.unfinished = true;
                self.pause(slot, Pause::Ready);
            }
            Some(Stop::Room) => self.pause(slot, Pause::Blocked),
            Some(Stop::Wait) | None => self.connections[slot].flags.set_paused(true),
        }
        inbound.commands = rest.to_vec();
    }

    /// Whether a frame, or the rest of one, holds no command.
    pub(super) fn is_blank(&self, slot: u32, frame: &[u8]) -> bool {
        match self.connections[slot].wire {
            Wire::Json => frame.trim_ascii().is_empty(),
            Wire::Protobuf => frame.is_empty(),
        }
    }

    pub(super) fn pause(&mut self, slot: u32, pause: Pause) {
        let flags = &mut self.connections[slot].flags;
        flags.set_paused(true);
        if !flags.queued() {
            flags.set_queued(true);
            match pause {
                Pause::Ready => self.ready.push_back(slot),
                Pause::Blocked => self.blocked.push(slot),
            }
        }
    }

    /// A unidirectional client's connect request has come, or is run again. While it waits, it is
    /// kept where other clients' commands are.
    pub(super) fn connect_uni(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        text: &[u8],
        inbound: &mut Inbound,
    ) {
        let request = match text.trim_ascii() {
            b"" => Ok(ConnectRequest::default()),
            text => reading::read_object(text),
        };
        let result = match request {
            Ok(request) => self.begin_uni(post, slot, &request),
            Err(_) => Err(Stop::Disconnect(Disconnect::BAD_REQUEST)),
        };
        match result {
            Ok(()) => return,
            Err(Stop::Disconnect(disconnect)) => return self.disconnect(slot, disconnect),
            Err(Stop::Room | Stop::Turn) => self.pause(slot, Pause::Blocked),
            Err(Stop::Wait) => self.connections[slot].flags.set_paused(true),
        }
        inbound.commands =
            if text.trim_ascii().is_empty() { b"{}".to_vec() } else { text.to_vec() };
    }
}

/// The commands of a frame, in whichever encoding.
enum Commands<'a> {
    Json(json::Commands<'a>),
    Protobuf(protobuf::Commands<'a>),
}

/// What no command can be read from.
struct Malformed;

impl<'a> Commands<'a> {
    fn new(wire: Wire, frame: &'a [u8]) -> Self {
        match wire {
            Wire::Json => Commands::Json(json::Commands::new(frame)),
            Wire::Protobuf => Commands::Protobuf(protobuf::Commands::new(frame)),
        }
    }

    fn next(&mut self) -> Option<Result<Command<'a>, Malformed>> {
        match self {
            Commands::Json(commands) => Some(commands.next()?.map_err(|_| Malformed)),
            Commands::Protobuf(commands) => Some(commands.next()?.map_err(|_| Malformed)),
        }
    }

    fn consumed(&self) -> usize {
        match self {
            Commands::Json(commands) => commands.consumed(),
            Commands::Protobuf(commands) => commands.consumed(),
        }
    }
}

/// Why a connection is left with input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// It had its share of the turn.
    Ready,
    /// There was no room on the bus.
    Blocked,
}
