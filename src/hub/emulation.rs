//! Emulation: transports whose response does not end, and the requests that carry the commands of
//! their clients.
//!
//! A request with commands can arrive at any shard. The commands are sent to the shard of the
//! response, where they queue after earlier commands.

use crate::base::buffer;
use crate::base::planted_faults::{PlantedFault, planted};
use crate::hub::connections::{Inbound, Phase};
use crate::hub::paused_input::PauseReason;
use crate::hub::shard_state::Hub;
use crate::model::message::{EmulationFrame, Message, Post, Rank};
use crate::wire::event_id::LastEventId;
use crate::wire::http::{
    self, Cors, EmulationCommands, OpenEmulation, Preflight, Requester, Status,
};
use crate::wire::protocol::command::{EmulationRequest, Request};
use crate::wire::protocol::{Disconnect, Wire, json, protobuf};

/// Maximum characters of an invalid event id in the answer.
const SHOWN_MAX: usize = 64;

/// Maximum unprocessed commands of an emulation client, in messages of the largest size.
const FRAMES_MAX: usize = 4;

impl Hub {
    /// Begins an emulation transport: writes the response head and runs the first commands.
    pub(super) fn begin_emulation(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        opening: &OpenEmulation<'_>,
        inbound: &mut Inbound,
    ) {
        let &OpenEmulation { transport, origin, host, .. } = opening;
        if !self.settings.rules.allows_origin(origin, host) {
            return self.refuse(slot, Status::Forbidden);
        }
        let requester = Requester { origin, host, bodiless: false };
        if opening.by_url && !transport.is_unidirectional() && !is_only_connect(&opening.opening) {
            return self.refuse_to(slot, Status::NotConnect, requester);
        }
        let full = self.connections[slot].flags.refusing();
        if full || !self.connection_limits.admit_connection(self.now) {
            return self.refuse_to(slot, Status::Unavailable, requester);
        }
        let wire = if opening.protobuf { Wire::Protobuf } else { Wire::Json };
        let connection = &mut self.connections[slot];
        (connection.transport, connection.wire) = (transport, wire);
        connection.phase = Phase::Open;
        let shutting_down = connection.flags.shutting_down();
        self.turn.write_head(&mut connection.turn, slot, |out| {
            http::write_stream_head(transport, wire, Cors { origin }, out);
        });
        if shutting_down {
            return self.disconnect(slot, Disconnect::SHUTDOWN);
        }
        self.set_deadline(slot, self.settings.stale_close_delay);
        if !transport.is_unidirectional() {
            return self.take_frame(post, slot, &opening.opening, inbound);
        }
        if let Some(text) = opening.last_event {
            let shown = || text.chars().take(SHOWN_MAX).collect::<Box<str>>();
            self.connections.last_events.insert(slot, LastEventId::parse(text).ok_or_else(shown));
        }
        self.read_uni_connect(post, slot, &opening.opening, inbound);
    }

    /// Forwards the commands of an emulation request to the shard of the client; returns whether
    /// the bytes of the request are used up.
    pub(super) fn forward_emulation_commands(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        emulation: &EmulationCommands<'_>,
    ) -> bool {
        let &EmulationCommands { origin, host, last, .. } = emulation;
        if !self.settings.rules.allows_origin(origin, host) {
            self.refuse(slot, Status::Forbidden);
            return true;
        }
        let requester = Requester { origin, host, bodiless: false };
        let request = if emulation.protobuf {
            protobuf::read_emulation(emulation.body).ok()
        } else {
            json::read_emulation(emulation.body).ok()
        };
        let Some(EmulationRequest { node, session, data }) = request else {
            self.refuse_to(slot, Status::BadRequest, requester);
            return true;
        };
        if node != *self.node {
            self.refuse_to(slot, Status::NotFound, requester);
            return true;
        }
        // The answer is the same whether the session exists or not.
        if let Some(address) = self.ids.find(&session) {
            let emulated = EmulationFrame { address, frame: data.into() };
            if post.reserve(address.shard, Rank::Ingress) {
                post.send(address.shard, Message::EmulationFrame(Box::new(emulated)));
            } else if !planted(PlantedFault::EmulationFrameDropped) {
                self.pause(slot, PauseReason::Blocked);
                return false;
            }
        }
        self.answer_without_content(slot, Cors { origin }, None, last);
        true
    }

    /// Queues forwarded commands of an emulation client after its earlier commands.
    pub(super) fn take_emulation_commands(&mut self, emulated: &EmulationFrame) {
        let EmulationFrame { address, frame } = emulated;
        let slot = address.slot;
        let Some(connection) = self.connection(slot, address.generation) else { return };
        let open = matches!(connection.phase, Phase::Open | Phase::Connected);
        if !open || !connection.transport.is_emulated() {
            return;
        }
        if self.is_blank(slot, frame) {
            return self.disconnect(slot, Disconnect::BAD_REQUEST);
        }
        let wire = self.connections[slot].wire;
        let inbound = self.connections.inbound_or_insert(slot);
        let Some(Inbound { commands, .. }) = inbound else { return };
        if wire == Wire::Json && !commands.is_empty() {
            buffer::append(commands, b"\n");
        }
        buffer::append(commands, frame);
        let waiting = commands.len();
        let connection = &mut self.connections[slot];
        connection.flags.set_paused(true);
        let at = connection.inbound;
        self.connections.unread.settle(at, true);
        if waiting > FRAMES_MAX * self.settings.message_bytes {
            return self.disconnect(slot, Disconnect::TOO_MANY_REQUESTS);
        }
        self.resume_later(slot);
        self.close_largest_unread();
    }

    /// Answers a CORS preflight request.
    pub(super) fn answer_preflight(&mut self, slot: u32, asked: &Preflight<'_>) {
        let &Preflight { headers, origin, host, last } = asked;
        if !self.settings.rules.allows_origin(origin, host) {
            return self.refuse(slot, Status::Forbidden);
        }
        self.answer_without_content(slot, Cors { origin }, Some(headers), last);
    }

    fn answer_without_content(
        &mut self,
        slot: u32,
        cors: Cors<'_>,
        asked: Option<&str>,
        last: bool,
    ) {
        let last = last || self.is_last(slot) || self.is_crowded();
        let connection = &mut self.connections[slot];
        self.turn.write_head(&mut connection.turn, slot, |out| {
            http::write_no_content(cors, asked, last, out);
        });
        self.keep_alive(slot, last, self.settings.anonymous_idle_timeout);
    }
}

/// Whether `commands` is exactly one connect.
fn is_only_connect(commands: &[u8]) -> bool {
    let mut commands = json::Commands::new(commands);
    let first = commands.next().and_then(Result::ok);
    let connects = first.is_some_and(|first| matches!(first.request, Some(Request::Connect(_))));
    connects && commands.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::tests::{LoneShardBus, hub, transmit};

    #[test]
    fn a_url_may_contain_only_a_connect_command() {
        let check = |commands: &str, expected| {
            assert_eq!(is_only_connect(commands.as_bytes()), expected, "{commands}");
        };
        let connect = "{\"id\":1,\"connect\":{\"token\":\"x\"}}";
        check(connect, true);
        check(&format!(" {connect}\n"), true);
        for other in ["", "{}", "[]", "{\"id\":1,\"rpc\":{\"data\":1}}", "{\"id\":1"] {
            check(other, false);
            check(&format!("{other}\n{connect}"), other.is_empty());
            check(&format!("{connect}\n{other}"), other.is_empty());
        }
    }

    #[test]
    fn an_emulation_client_with_too_many_waiting_commands_is_disconnected() {
        let mut hub = hub(1 << 20, 1 << 20, 1 << 20);
        let (slot, _) = hub.reserve().unwrap();
        hub.socket_opened(slot);
        let body = r#"{"id":1,"connect":{}}"#;
        let head = format!("POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        hub.receive(
            &mut LoneShardBus::default(),
            slot,
            &mut [head.as_bytes(), body.as_bytes()].concat(),
        );
        transmit(&mut hub, &[]);
        let address = hub.address(slot);
        let text = format!("{{\"id\":2,\"rpc\":{{\"data\":\"{}\"}}}}", "x".repeat(65_000));
        let said = EmulationFrame { address, frame: text.into_bytes().into() };
        for _ in 0..FRAMES_MAX {
            hub.take_emulation_commands(&said);
        }
        assert_eq!(hub.connections[slot].phase, Phase::Connected, "so much may wait");
        hub.take_emulation_commands(&said);
        let sent = transmit(&mut hub, &[]);
        let last = br#"{"push":{"disconnect":{"code":3013,"reason":"too many requests"}}}"#;
        assert!(sent[0].1.starts_with(last), "{sent:?}");
        assert_eq!(hub.resource_counts().inbound, 0);
    }
}
