//! Emulation: transports whose response does not end, and the requests that carry the commands of
//! their clients.
//!
//! A request with commands can arrive at any shard. The commands are sent to the shard of the
//! response, where they queue after earlier commands.

use crate::base::planted_faults::{PlantedFault, planted};
use crate::hub::connections::{Inbound, Phase};
use crate::hub::frames::parse_uni_connect;
use crate::hub::paused_input::PauseReason;
use crate::hub::shard_state::Hub;
use crate::model::message::{EmulationFrame, Message, Post, Rank};
use crate::wire::event_id::LastEventId;
use crate::wire::http::{
    self, Cors, EmulationCommands, OpenEmulation, Preflight, Requester, Status,
};
use crate::wire::protocol::command::{EmulationRequest, Request};
use crate::wire::protocol::{Wire, json, protobuf};

/// Maximum characters of an invalid event id in the answer.
const SHOWN_MAX: usize = 64;

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
        let uni_connect =
            transport.is_unidirectional().then(|| parse_uni_connect(&opening.opening));
        if uni_connect.as_ref().is_some_and(Option::is_none) {
            return self.refuse_to(slot, Status::BadRequest, requester);
        }
        let full = self.connections[slot].flags.refusing();
        if full || !self.connection_limits.admit_connection(self.now) {
            return self.refuse_to(slot, Status::Unavailable, requester);
        }
        let wire = if opening.protobuf { Wire::Protobuf } else { Wire::Json };
        let connection = &mut self.connections[slot];
        (connection.transport, connection.wire) = (transport, wire);
        connection.phase = Phase::Open;
        self.begin_stream(slot, origin);
        self.set_deadline(slot, self.settings.stale_close_delay);
        let Some(request) = uni_connect.flatten() else {
            return self.take_frame(post, slot, &opening.opening, inbound);
        };
        if let Some(text) = opening.last_event {
            let shown = || text.chars().take(SHOWN_MAX).collect::<Box<str>>();
            self.connections.last_events.insert(slot, LastEventId::parse(text).ok_or_else(shown));
        }
        self.run_uni_connect(post, slot, (&opening.opening, &request), inbound);
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

    /// Answers a CORS preflight request.
    pub(super) fn answer_preflight(&mut self, slot: u32, preflight: &Preflight<'_>) {
        let &Preflight { headers, origin, host, last } = preflight;
        if !self.settings.rules.allows_origin(origin, host) {
            return self.refuse(slot, Status::Forbidden);
        }
        self.answer_without_content(slot, Cors { origin }, Some(headers), last);
    }

    fn answer_without_content(
        &mut self,
        slot: u32,
        cors: Cors<'_>,
        allowed_headers: Option<&str>,
        last: bool,
    ) {
        let last = last || self.is_last(slot) || self.is_crowded();
        let connection = &mut self.connections[slot];
        self.turn.write_head(&mut connection.turn, slot, |out| {
            http::write_no_content(cors, allowed_headers, last, out);
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
}
