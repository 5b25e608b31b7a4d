//! Holds: connects whose reply waits for the homes of the server-side subscriptions.

use crate::hub::connections::{Connection, Hold, NONE, Phase, ServerSubscription};
use crate::hub::paused_input::PauseReason;
use crate::hub::shard_state::Hub;
use crate::model::message::{Post, Subscribed};
use crate::model::publication::Publication;
use crate::wire::event_id::LastEventId;
use crate::wire::http::Transport;
use crate::wire::protocol::reply::{ConnectResult, Push, Reply};
use crate::wire::protocol::{self};

/// An accepted connect that is not answered yet.
pub(super) struct AcceptedConnect {
    /// Server-side subscriptions to request.
    pub(super) server_subs: Vec<ServerSubscription>,
    /// Data of the backend for the client.
    pub(super) data: Option<Box<[u8]>>,
    /// The last event id of the client if it is invalid; otherwise empty.
    pub(super) unknown_event_id: Box<str>,
}

impl AcceptedConnect {
    /// Sets the positions from the last event id, for channels that are subscribed anyway.
    pub(super) fn recover_from(&mut self, last_event: Result<LastEventId, Box<str>>) {
        match last_event {
            Ok(last) => {
                for server_sub in &mut self.server_subs {
                    server_sub.since = last.place(&server_sub.channel).or(server_sub.since);
                }
            }
            Err(text) => self.unknown_event_id = text,
        }
    }
}

impl Hub {
    /// Creates the hold of an accepted connect and requests its subscriptions.
    pub(super) fn hold(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        newcomer: AcceptedConnect,
    ) {
        let AcceptedConnect { server_subs: to_request, data, unknown_event_id } = newcomer;
        self.begin_event_positions(slot, &to_request);
        let pending = to_request.len();
        let admission = self.initial_admission(slot);
        let hold = Hold {
            slot,
            command,
            admission,
            to_request,
            pending,
            data,
            unknown_event_id,
            ..Hold::default()
        };
        self.connections.keep_hold(slot, hold);
        self.ask_homes(post, slot);
    }

    /// Requests the subscriptions of a hold, while inboxes have room.
    pub(super) fn ask_homes(&mut self, post: &mut impl Post, slot: u32) {
        if !self.is_admitted(post, slot) {
            return;
        }
        let at = self.connections[slot].hold as usize;
        while let Some(server_sub) =
            self.connections.holds.get_mut(at).and_then(|hold| hold.to_request.pop())
        {
            if let Err(server_sub) = self.join_unasked(post, slot, server_sub) {
                if let Some(hold) = self.connections.holds.get_mut(at) {
                    hold.to_request.push(server_sub);
                }
                return self.pause(slot, PauseReason::Blocked);
            }
            if self.connections[slot].hold == NONE {
                return;
            }
        }
        self.finish_hold(slot);
    }

    /// Answers the connect once all homes have answered.
    pub(super) fn finish_hold(&mut self, slot: u32) {
        let at = self.connections[slot].hold as usize;
        if self.connections.holds.get(at).is_none_or(|hold| hold.pending > 0) {
            return;
        }
        let mut hold = self.connections.holds.remove(at);
        let connection = &mut self.connections[slot];
        connection.hold = NONE;
        let transport = connection.transport;
        let room = self.room_for_answer(slot).saturating_sub(hold.output.len());
        give_up_recoveries(&mut hold.answers, room);
        let mut body = Vec::new();
        self.write_connected(slot, &hold, &mut body);
        if body.len() > room {
            give_up_recoveries(&mut hold.answers, 0);
            body.clear();
            self.write_connected(slot, &hold, &mut body);
        }
        let id = self.first_event_id(slot, &hold.answers);
        self.write_event(slot, &body, &id);
        if !hold.output.is_empty() {
            self.write(slot, |out| out.extend_from_slice(&hold.output));
            self.write_event_position(slot);
        }
        self.set_connected(slot);
        let has_news = |answer: &Subscribed| {
            answer.was_recovering && !(answer.recovered && answer.publications.is_empty())
        };
        let has_news = hold.answers.iter().any(has_news) || !hold.output.is_empty();
        if transport == Transport::LongPolling && has_news {
            self.end_when_flushed(slot);
        }
        self.resume_later(slot);
    }

    /// Appends the connect result of a hold.
    fn write_connected(&self, slot: u32, hold: &Hold, body: &mut Vec<u8>) {
        let Connection { transport, flags, wire, .. } = self.connections[slot];
        let unidirectional = transport.is_unidirectional();
        let frame_pings = flags.frame_pings();
        let expires = self.connections[slot].expires();
        let client = self.client_id(slot);
        // Only these transports get the session and the node.
        let is_emulated = transport.is_emulated();
        let has_session = is_emulated || unidirectional;
        let session =
            if has_session { self.ids.session(self.address(slot)) } else { String::new() };
        let node = if is_emulated { &*self.node } else { "" };
        let subs = hold.answers.iter();
        let subs = subs.map(|answer| (&*answer.channel, self.subscribe_result(answer)));
        let connected = ConnectResult {
            client: &client,
            expires: self.lease(expires.filter(|_| self.settings.proxies.refresh.is_none())),
            data: hold.data.as_deref(),
            subs: subs.collect(),
            ping: if frame_pings { 0 } else { (self.settings.ping_interval / 1000) as u32 },
            pong: self.settings.pong_timeout.is_some() && !unidirectional && !frame_pings,
            session: &session,
            node,
            time: self.settings.tells_time.then_some(self.unix as i64),
            unknown_event_id: &hold.unknown_event_id,
        };
        if unidirectional {
            protocol::write_push(wire, true, &Push::Connect(&connected), body);
        } else {
            protocol::write_reply(wire, hold.command, &Reply::Connect(&connected), body);
        }
    }

    fn set_connected(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        if !connection.takes_output() {
            return;
        }
        connection.phase = Phase::Connected;
        connection.flags.set_counted(true);
        let shutting_down = connection.flags.shutting_down();
        self.connection_limits.client_connected();
        self.metrics.clients.add(1);
        self.metrics.connects.add(1);
        if !shutting_down {
            self.set_first_ping(slot);
        }
    }
}

/// Keeps the recoveries that fit `room` bytes together, and gives up the others.
fn give_up_recoveries(answers: &mut [Subscribed], room: usize) {
    let mut left = room;
    for answer in answers {
        let bytes = Publication::total_size(&answer.publications);
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => answer.give_up_recovery(),
        }
    }
}
