//! WebSocket frames, and the commands in them.

use crate::base::metrics::FrameType;
use crate::base::work_budget::cost;
use crate::hub::command_failure::StopReason;
use crate::hub::commands::frame_type;
use crate::hub::connections::{Inbound, NONE, Phase};
use crate::hub::output::keep_buffer;
use crate::hub::paused_input::PauseReason;
use crate::hub::shard_state::Hub;
use crate::model::message::Post;
use crate::wire::frame::{self, Fragments, FrameEvent, FrameKind, Violation};
use crate::wire::http::Transport;
use crate::wire::lenient_json;
use crate::wire::protocol::command::{Command, ConnectRequest};
use crate::wire::protocol::{Disconnect, Wire, json, protobuf};

/// Maximum commands of a connection per turn.
const COMMANDS_PER_TURN: usize = 64;

impl Hub {
    pub(super) fn read_frame(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        input: &mut [u8],
        inbound: &mut Inbound,
    ) -> Option<usize> {
        let compresses = self.connections[slot].flags.compressing();
        if compresses && self.inflater.is_spent() {
            self.pause(slot, PauseReason::Ready);
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

    /// Closes a connection whose frames violate the protocol.
    fn close_violator(&mut self, slot: u32, violation: Violation) {
        self.write_close(slot, Some(violation.code()), violation.reason());
        self.connections[slot].flags.set_end_when_flushed(true);
    }

    fn event(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        event: FrameEvent<'_>,
        inbound: &mut Inbound,
    ) {
        match event {
            FrameEvent::Message(kind, payload) => {
                self.message(post, slot, (kind, &payload), inbound)
            }
            FrameEvent::Compressed(kind, payload) => {
                let limit = self.settings.inflated_bytes;
                match self.inflater.inflate(kind, &payload, limit) {
                    Ok(message) => {
                        self.message(post, slot, (kind, &message), inbound);
                        self.inflater.recycle(message);
                    }
                    Err(violation) => self.close_violator(slot, violation),
                }
            }
            FrameEvent::Ping(payload) => self.write(slot, |out| frame::write_pong(payload, out)),
            FrameEvent::Close(code) => {
                self.write_close(slot, code, "");
                self.connections[slot].flags.set_end_when_flushed(true);
            }
            FrameEvent::Pong => {
                let connection = &mut self.connections[slot];
                let counts = connection.flags.frame_pings()
                    || connection.transport == Transport::UniWebSocket;
                connection.flags.set_pong_due(connection.flags.pong_due() && !counts);
            }
            FrameEvent::Fragment => {}
        }
    }

    fn message(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        (kind, payload): (FrameKind, &[u8]),
        inbound: &mut Inbound,
    ) {
        let connection = &self.connections[slot];
        match (connection.transport, connection.phase) {
            (Transport::Echo, _) => self.echo(slot, kind, payload),
            (Transport::UniWebSocket, Phase::Open)
                if connection.hold == NONE && inbound.commands.is_empty() =>
            {
                self.read_uni_connect(post, slot, payload, inbound);
            }
            (Transport::WebSocket, _) => self.take_frame(post, slot, payload, inbound),
            _ => {}
        }
    }

    /// Sends a message back, compressed if publications for this connection would be.
    fn echo(&mut self, slot: u32, kind: FrameKind, payload: &[u8]) {
        let mut message = std::mem::take(&mut self.body);
        message.clear();
        frame::write_message(kind, payload, &mut message);
        if self.connections[slot].flags.compressing() {
            self.locals.deflater(false).compress_frame(&mut message, 0);
        }
        self.write(slot, |out| out.extend_from_slice(&message));
        keep_buffer(&mut self.body, message);
    }

    /// After our close frame, only the close frame of the peer is handled.
    pub(super) fn await_close(
        &mut self,
        slot: u32,
        input: &mut [u8],
        fragments: &mut Fragments,
    ) -> Option<usize> {
        let compresses = self.connections[slot].flags.compressing();
        match frame::decode(input, fragments, self.settings.message_bytes, compresses) {
            Ok(None) => None,
            Ok(Some((used, FrameEvent::Close(_)))) => {
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

    /// Handles a frame of commands.
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

    /// Runs the commands of a frame in order. Commands that must wait are kept, and the connection
    /// reads nothing until they have run.
    pub(super) fn run_commands(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        frame: &[u8],
        inbound: &mut Inbound,
    ) {
        let mut commands = FrameCommands::new(self.connections[slot].wire, frame);
        let (mut done, mut count, mut received) = (0, 0, FrameType::Unknown);
        let stop = loop {
            if count == COMMANDS_PER_TURN || self.turn.is_full() || self.is_spent() {
                break Some(StopReason::Turn);
            }
            let is_admitted = self.connections.command_rates.admits(slot, self.micros);
            let result = match commands.next() {
                None => return,
                Some(_) if !is_admitted => Err(StopReason::Rate),
                Some(Err(UnreadableCommand)) => {
                    Err(StopReason::Disconnect(Disconnect::BAD_REQUEST))
                }
                Some(Ok(command)) => {
                    received = frame_type(&command);
                    self.command(post, slot, &command)
                }
            };
            match result {
                Ok(()) => {}
                // The answers to earlier commands come first: the command is run again after them.
                Err(StopReason::Disconnect(_)) if self.awaits_answers(slot) => {
                    break Some(StopReason::Wait);
                }
                Err(stop) => break Some(stop),
            }
            self.serve_own_mid_input(post);
            let connection = &self.connections[slot];
            let (bytes, looks) = (commands.consumed() - done, usize::from(connection.subscribed));
            self.count_received(slot, received, bytes);
            self.budget.charge(cost::COMMAND + bytes + looks);
            self.metrics.commands.add(1);
            self.connections.command_rates.count(slot, self.micros);
            if !self.connections[slot].takes_output() {
                return;
            }
            (done, count) = (commands.consumed(), count + 1);
        };
        let rest = &frame[done..];
        match stop {
            Some(StopReason::Disconnect(disconnect)) => return self.disconnect(slot, disconnect),
            _ if self.is_blank(slot, rest) => return,
            Some(StopReason::Turn) => {
                self.unfinished = true;
                self.pause(slot, PauseReason::Ready);
            }
            Some(StopReason::Room) => self.pause(slot, PauseReason::Blocked),
            Some(StopReason::Rate) => self.pause(slot, PauseReason::Rate),
            Some(StopReason::Wait) | None => self.connections[slot].flags.set_paused(true),
        }
        inbound.commands = rest.to_vec();
    }

    /// Whether homes have not answered all commands of a connection yet.
    fn awaits_answers(&self, slot: u32) -> bool {
        let connection = &self.connections[slot];
        let mut key = connection.subscriptions;
        while key != NONE {
            if self.locals.is_pending(key) {
                return true;
            }
            key = self.locals.next_subscription(key);
        }
        connection.flags.query_pending()
    }

    /// Reads and runs the connect request of a unidirectional client, for the first time or again.
    pub(super) fn read_uni_connect(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        text: &[u8],
        inbound: &mut Inbound,
    ) {
        let Some(request) = parse_uni_connect(text) else {
            // A WebSocket that has not connected gets no push. The HTTP transports have refused it.
            let Disconnect { code, reason } = Disconnect::BAD_REQUEST;
            return self.write_close(slot, Some(code), reason);
        };
        self.run_uni_connect(post, slot, (text, &request), inbound);
    }

    /// Runs a connect request that was read from `text`. While it waits, the text is kept where
    /// other clients have their commands.
    pub(super) fn run_uni_connect(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        (text, request): (&[u8], &ConnectRequest<'_>),
        inbound: &mut Inbound,
    ) {
        self.answering = (FrameType::Connect, self.stamp());
        let result = self.connect_unidirectional(post, slot, request);
        match result {
            Ok(()) => return,
            Err(StopReason::Disconnect(disconnect)) => return self.disconnect(slot, disconnect),
            Err(StopReason::Room | StopReason::Turn | StopReason::Rate) => {
                self.pause(slot, PauseReason::Blocked)
            }
            Err(StopReason::Wait) => self.connections[slot].flags.set_paused(true),
        }
        inbound.commands =
            if text.trim_ascii().is_empty() { b"{}".to_vec() } else { text.to_vec() };
    }
}

/// The commands of a frame in either encoding.
enum FrameCommands<'a> {
    Json(json::Commands<'a>),
    Protobuf(protobuf::Commands<'a>),
}

/// Bytes that are not a command.
struct UnreadableCommand;

impl<'a> FrameCommands<'a> {
    fn new(wire: Wire, frame: &'a [u8]) -> Self {
        match wire {
            Wire::Json => FrameCommands::Json(json::Commands::new(frame)),
            Wire::Protobuf => FrameCommands::Protobuf(protobuf::Commands::new(frame)),
        }
    }

    fn next(&mut self) -> Option<Result<Command<'a>, UnreadableCommand>> {
        match self {
            FrameCommands::Json(commands) => Some(commands.next()?.map_err(|_| UnreadableCommand)),
            FrameCommands::Protobuf(commands) => {
                Some(commands.next()?.map_err(|_| UnreadableCommand))
            }
        }
    }

    fn consumed(&self) -> usize {
        match self {
            FrameCommands::Json(commands) => commands.consumed(),
            FrameCommands::Protobuf(commands) => commands.consumed(),
        }
    }
}

/// Reads the connect request of a unidirectional client; nothing is an empty request. `None`: it is
/// not a JSON object of a connect request.
pub(super) fn parse_uni_connect(text: &[u8]) -> Option<ConnectRequest<'_>> {
    match text.trim_ascii() {
        b"" => Some(ConnectRequest::default()),
        text => lenient_json::read_object(text).ok(),
    }
}
