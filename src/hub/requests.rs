//! Request heads: their dispatch, and the begin of a transport.

use crate::hub::connections::{Inbound, Phase};
use crate::hub::shard_state::Hub;
use crate::model::message::Post;
use crate::wire::http::{self, Head, Requester, Status, Transport, Upgrade};
use crate::wire::protocol::{Disconnect, Wire};

impl Hub {
    pub(super) fn read_head(
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
        let head = http::parse(input, &settings.routes, settings.head_limits);
        if self.refuses_to_drain(slot, &head) {
            self.refuse_to(slot, Status::ShuttingDown, Requester::of(input));
            return Some(input.len());
        }
        match head {
            Head::Partial => {
                self.begin_request(slot);
                None
            }
            _ if settings.rules.local && http::is_foreign(input) => self.hand_over(slot, input),
            Head::Refused(status) => {
                self.refuse_to(slot, status, Requester::of(input));
                Some(input.len())
            }
            Head::Control if flags.came_back() => {
                self.refuse_to(slot, Status::BadRequest, Requester::of(input));
                Some(input.len())
            }
            // The control plane needs no slot, so it can serve the call although this shard has no
            // room.
            Head::PublishCall(..) if flags.refusing() => self.hand_over(slot, input),
            Head::Control => self.hand_over(slot, input),
            Head::Health(health, used) => {
                self.answer_health(slot, health);
                Some(used)
            }
            Head::PublishCall(call, used) => self.publish_call(post, slot, (&call, used), input),
            Head::Poll(poll, used) => self.poll(post, slot, &poll).then_some(used),
            Head::OpenEmulation(_, used) | Head::Upgrade(_, used)
                if self.admit_forwarded(slot, input).is_err() =>
            {
                let requester = Requester::of(input);
                self.refuse_to(slot, Status::TooManyConnections, requester);
                Some(used)
            }
            Head::OpenEmulation(stream, used) => {
                self.keep_headers(slot, http::kept_headers(input, &settings.proxies.wants.headers));
                self.begin_emulation(post, slot, &stream, inbound);
                Some(used)
            }
            Head::EmulationCommands(emulation, used) => {
                self.forward_emulation_commands(post, slot, &emulation).then_some(used)
            }
            Head::Preflight(preflight, used) => {
                self.answer_preflight(slot, &preflight);
                Some(used)
            }
            Head::Upgrade(mut upgrade, used) => {
                upgrade.kept = http::kept_headers(input, &settings.proxies.wants.headers);
                self.upgrade(post, slot, &upgrade, inbound);
                Some(used)
            }
        }
    }

    /// Gives a new request on an idle connection the time limit of a request head.
    fn begin_request(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        if connection.phase == Phase::KeptAlive && !connection.flags.shutting_down() {
            connection.phase = Phase::Head;
            self.set_deadline(slot, self.settings.head_timeout);
        }
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
        if full || !self.connection_limits.admit_connection(self.now) {
            let requester = Requester { origin, host, bodiless: false };
            return self.refuse_to(slot, Status::Unavailable, requester);
        }
        let connection = &mut self.connections[slot];
        self.turn.write_head(&mut connection.turn, slot, |out| {
            http::write_switching(upgrade, out);
        });
        self.open(post, slot, upgrade, inbound);
    }

    /// Begins the transport after the upgrade was answered.
    pub(super) fn open(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        upgrade: &Upgrade,
        inbound: &mut Inbound,
    ) {
        let connection = &mut self.connections[slot];
        connection.transport = upgrade.transport;
        connection.flags.set_compressing(upgrade.compression.is_some());
        if upgrade.protobuf && !upgrade.transport.is_unidirectional() {
            connection.wire = Wire::Protobuf;
        }
        let bidirectional = upgrade.transport == Transport::WebSocket;
        connection.flags.set_frame_pings(upgrade.frame_pings && bidirectional);
        connection.phase = Phase::Open;
        self.keep_headers(slot, upgrade.kept.clone());
        // The control plane had answered the upgrade before it learned of the drain.
        if self.draining {
            return self.disconnect(slot, Disconnect::SHUTDOWN);
        }
        self.set_deadline(slot, self.settings.stale_close_delay);
        match (upgrade.transport, &upgrade.connect) {
            (Transport::Echo, _) => self.connections.wheel.clear(slot),
            (Transport::UniWebSocket, _) if upgrade.protobuf => {
                self.disconnect(slot, Disconnect::NOT_AVAILABLE);
            }
            (Transport::UniWebSocket, Some(connect)) => {
                self.read_uni_connect(post, slot, connect.as_bytes(), inbound);
            }
            _ => {}
        }
    }
}
