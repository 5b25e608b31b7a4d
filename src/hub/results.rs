//! The results of connects and subscribes, as the client gets them.

use crate::base::metrics::{Action, FrameType};
use crate::hub::connections::{Connection, Hold, NONE, Phase};
use crate::hub::shard_state::Hub;
use crate::model::message::Subscribed;
use crate::model::publication::Publication;
use crate::wire::http::Transport;
use crate::wire::protocol;
use crate::wire::protocol::reply::{self, ConnectResult, Push, Reply};

impl Hub {
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
        self.write_pending_head(slot);
        let id = self.first_event_id(slot, &hold.answers);
        self.write_event(slot, &body, &id);
        self.count_connected(slot, &hold, body.len());
        if !hold.output.is_empty() {
            self.write(slot, |out| out.extend_from_slice(&hold.output));
            self.write_event_position(slot);
        }
        self.set_connected(slot);
        let has_news = |answer: &Subscribed| {
            answer.tried_recovery() && !(answer.recovered && answer.publications.is_empty())
        };
        let has_news = hold.answers.iter().any(has_news) || !hold.output.is_empty();
        if transport == Transport::LongPolling && has_news {
            self.end_when_flushed(slot);
        }
        self.resume_later(slot);
    }

    /// Counts the answer to a connect, and its recoveries.
    fn count_connected(&mut self, slot: u32, hold: &Hold, bytes: usize) {
        let pushes = self.connections[slot].transport.is_unidirectional();
        let frame_type = if pushes { FrameType::PushConnect } else { FrameType::Connect };
        self.count_sent(slot, frame_type, bytes);
        self.command_answered(FrameType::Connect, hold.began);
        for answer in hold.answers.iter().filter(|answer| answer.tried_recovery()) {
            self.count_recovery(answer.recovered, answer.publications.len());
        }
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
        connection.ping_plan = self.ping_plans.join();
        connection.phase = Phase::Connected;
        connection.flags.set_counted(true);
        let shutting_down = connection.flags.shutting_down();
        self.connection_limits.client_connected();
        self.metrics.clients.add(1);
        self.metrics.connects.add(1);
        self.metrics.by.actions[Action::AddClient as usize].add(1);
        self.clients_of(slot, |by| &by.connections_accepted).add(1);
        self.clients_of(slot, |by| &by.connections_inflight).add(1);
        if !shutting_down {
            self.set_first_ping(slot);
        }
        self.log_connect(slot);
    }

    /// The subscribe result for the client. If its encoding cannot carry the missed publications,
    /// they count as not recovered.
    pub(super) fn subscribe_result<'a>(
        &'a self,
        answer: &'a Subscribed,
    ) -> reply::SubscribeResult<'a> {
        let grant = self.connections.grants.get(&answer.subscriber.subscription);
        // The backend renews this subscription, so the client gets no expiry.
        let ends = |_: &u64| self.sub_refresh_proxy(answer.subscriber.subscription).is_none();
        let expires = grant.and_then(|grant| grant.expires).filter(ends);
        let passes = |missed: &&Publication| {
            answer.filter.as_ref().is_none_or(|filter| filter.matches(missed.tags()))
        };
        let missed = answer.publications.iter().filter(passes);
        let objects = missed.map(|missed| missed.object(answer.encoding));
        let objects: Option<Vec<_>> = objects.collect();
        reply::SubscribeResult {
            expires: self.lease(expires),
            recoverable: answer.stream_access.recoverable,
            positioned: answer.stream_access.positioned,
            was_recovering: answer.was_recovering,
            recovered: answer.recovered && objects.is_some(),
            position: answer.position,
            publications: objects.unwrap_or_default(),
            data: grant.and_then(|grant| grant.data.as_deref()),
            delta: answer.encoding.delta,
            number: match answer.encoding.compact {
                true => self.locals.channel_number(answer.subscriber.subscription),
                false => 0,
            },
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
