//! From bytes to commands: input is split into a request head, frames and commands, while the
//! connection may continue; the rest is kept.

use crate::base::buffer;
use crate::base::planted_faults::{PlantedFault, planted};
use crate::base::work_budget::{Stage, cost};
use crate::hub::connections::{Inbound, NONE, Phase};
use crate::hub::paused_input::PauseReason;
use crate::hub::shard_state::Hub;
use crate::hub::unsealing::Step;
use crate::model::message::Post;
use crate::wire::http::Upgrade;

/// Maximum connections per turn that continue because their rate permits a command.
const RATE_RESUMPTIONS: usize = 512;

impl Hub {
    /// Handles bytes that a connection received.
    pub fn receive(&mut self, post: &mut impl Post, slot: u32, bytes: &mut [u8]) {
        self.metrics.received_bytes.add(bytes.len() as u64);
        if self.awaits_proxy_header(slot) {
            let mut rest = self.take_proxy_header(slot, bytes);
            if !rest.is_empty() {
                self.receive_behind_header(post, slot, &mut rest);
            }
        } else {
            self.receive_behind_header(post, slot, bytes);
        }
        self.serve_own(post);
    }

    /// Handles bytes behind the PROXY header, if the connection began with one.
    fn receive_behind_header(&mut self, post: &mut impl Post, slot: u32, bytes: &mut [u8]) {
        if self.connections[slot].flags.sealed() {
            self.take_sealed(post, slot, bytes);
        } else {
            self.take_input(post, slot, bytes);
        }
    }

    /// Handles bytes that the control plane received and, if the connection has TLS, opened.
    pub fn receive_opened(&mut self, post: &mut impl Post, slot: u32, bytes: &mut [u8]) {
        self.take_input(post, slot, bytes);
        self.serve_own(post);
    }

    /// Opens the records of a connection with TLS, and keeps what is left of them.
    fn take_sealed(&mut self, post: &mut impl Post, slot: u32, bytes: &mut [u8]) {
        let inbound = self.connections.inbound_mut(slot);
        let mut kept = inbound.map(|found| std::mem::take(&mut found.sealed)).unwrap_or_default();
        let rest = if kept.is_empty() {
            let used = self.open_records(post, slot, bytes);
            bytes[used..].to_vec()
        } else {
            buffer::append(&mut kept, bytes);
            let used = self.open_records(post, slot, &mut kept);
            kept.drain(..used);
            kept
        };
        if self.connections[slot].phase == Phase::Ending {
            return;
        }
        match self.connections.inbound_mut(slot) {
            None if rest.is_empty() => return,
            None => _ = self.connections.inbound_or_insert(slot).map(|kept| kept.sealed = rest),
            Some(inbound) => inbound.sealed = rest,
        }
        if self.connections.inbound_mut(slot).is_some_and(|inbound| inbound.is_empty()) {
            self.connections.take_inbound(slot);
        } else {
            self.settle_inbound(slot);
        }
    }

    /// Opens records as long as the connection may continue; returns how many bytes are used up.
    fn open_records(&mut self, post: &mut impl Post, slot: u32, bytes: &mut [u8]) -> usize {
        let mut opened = 0;
        while let Some(rest) = bytes.get_mut(opened..).filter(|rest| !rest.is_empty()) {
            match self.unseal(slot, rest) {
                Step::Waits => return opened,
                Step::Used(_) if planted(PlantedFault::InputBehindHandshakeDropped) => break,
                Step::Used(used) => opened += used,
                Step::Data { used, plain } => {
                    if let Some(plain) = rest.get_mut(plain) {
                        self.take_input(post, slot, plain);
                    }
                    opened += used;
                }
                Step::Closed => {
                    self.answer_close(slot);
                    return bytes.len();
                }
                Step::Ignored => return bytes.len(),
            }
        }
        bytes.len()
    }

    fn take_input(&mut self, post: &mut impl Post, slot: u32, bytes: &mut [u8]) {
        if let Some(inbound) = self.connections.inbound_mut(slot) {
            buffer::append(&mut inbound.bytes, bytes);
            let flags = self.connections[slot].flags;
            // One read may bring several records: what it waits for continues it.
            if flags.queued() || flags.paused() {
                self.settle_inbound(slot);
            } else {
                self.resume(post, slot);
            }
            return;
        }
        let mut inbound = Inbound::default();
        let used = self.consume(post, slot, bytes, &mut inbound);
        buffer::append(&mut inbound.bytes, &bytes[used..]);
        self.keep_inbound(slot, inbound);
    }

    /// Continues a connection with left input.
    pub(super) fn resume(&mut self, post: &mut impl Post, slot: u32) {
        let connection = &mut self.connections[slot];
        connection.flags.set_queued(false);
        connection.flags.set_paused(false);
        if connection.hold != NONE {
            self.ask_homes(post, slot);
        }
        if self.connections[slot].phase == Phase::Handshake {
            self.take_sealed(post, slot, &mut []);
        }
        let transport = self.connections[slot].transport;
        if let Some(inbound) = self.connections.inbound_mut(slot) {
            let mut inbound = std::mem::take(inbound);
            let mut bytes = std::mem::take(&mut inbound.bytes);
            let commands = std::mem::take(&mut inbound.commands);
            if !commands.is_empty() && transport.is_unidirectional() {
                self.read_uni_connect(post, slot, &commands, &mut inbound);
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
            self.ring_requests.reads.push(slot);
        }
    }

    /// Keeps unprocessed input, or removes the entry if nothing is left.
    pub(super) fn keep_inbound(&mut self, slot: u32, inbound: Inbound) {
        if inbound.is_empty() || self.connections[slot].phase == Phase::Ending {
            self.connections.take_inbound(slot);
            return;
        }
        if let Some(kept) = self.connections.inbound_or_insert(slot) {
            *kept = inbound;
        }
        self.settle_inbound(slot);
    }

    /// Counts the memory of the input of a connection, and closes the connection with the most
    /// input if the budget demands it.
    fn settle_inbound(&mut self, slot: u32) {
        let connection = &self.connections[slot];
        // A connection that is handed over cannot be closed.
        self.connections.unread.settle(connection.inbound, connection.phase != Phase::Leaving);
        self.close_largest_unread();
    }

    /// Processes input while the connection may continue; returns the number of bytes that were
    /// used.
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
                self.pause(slot, PauseReason::Ready);
                break;
            }
            let connection = &self.connections[slot];
            let rest = &mut input[used..];
            let step = match connection.phase {
                Phase::Head | Phase::KeptAlive => self.read_head(post, slot, rest, inbound),
                // Input after the request of an emulation transport is ignored.
                _ if !connection.transport.is_websocket() => Some(rest.len()),
                Phase::Open | Phase::Connected => self.read_frame(post, slot, rest, inbound),
                Phase::Closing if connection.flags.lingering() => Some(rest.len()),
                Phase::Closing => self.await_close(slot, rest, &mut inbound.fragments),
                Phase::AwaitingAnswer | Phase::Leaving => break,
                Phase::ProxyHeader | Phase::Handshake => Some(rest.len()),
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

    /// Continues connections with left input: those that used their share, those that found an
    /// inbox full, and then those in a TLS handshake.
    pub fn resume_paused(&mut self, post: &mut impl Post) {
        self.inflater.renew();
        self.budget.begin(Stage::Input);
        if !self.blocked.is_empty() {
            self.ready.extend(self.blocked.drain(..));
        }
        self.ready_within_rate();
        for _ in 0..self.ready.len() {
            if self.is_spent() {
                break;
            }
            let Some(slot) = self.ready.pop_front() else { break };
            if self.connections.get(slot).is_some_and(|found| found.flags.queued()) {
                // Charged afterwards, so that the first connection of a turn can always run a
                // command.
                self.resume(post, slot);
                self.serve_own(post);
                self.budget.charge(cost::CONNECTION);
            }
        }
        if !self.handshakes.is_empty() {
            self.continue_handshakes(post);
        }
    }

    /// Continues TLS handshakes in the order of their records: one record, and more as far as the
    /// turn affords them.
    fn continue_handshakes(&mut self, post: &mut impl Post) {
        self.budget.begin(Stage::Handshakes);
        while self.budget.affords_or_begins(cost::HANDSHAKE)
            && let Some(slot) = self.handshakes.pop_front()
        {
            if self.connections.get(slot).is_some_and(|found| found.flags.queued()) {
                self.resume(post, slot);
                self.serve_own(post);
            } else {
                self.budget.charge(cost::LOOK);
            }
        }
    }

    /// Queues the connections that may run a command by now. Those that are left are due in the
    /// next turn.
    fn ready_within_rate(&mut self) {
        for _ in 0..RATE_RESUMPTIONS {
            let Some(slot) = self.connections.command_rates.take_due(self.now) else { return };
            self.ready.push_back(slot);
        }
    }

    /// Takes over a socket from the control plane. With `upgrade`, the control plane has checked
    /// the connection limits and answered the upgrade; without, the request is still to come.
    pub fn adopt(&mut self, post: &mut impl Post, slot: u32, upgrade: Option<&Upgrade>) {
        let Some(upgrade) = upgrade else {
            return self.connections[slot].flags.set_came_back(true);
        };
        let mut inbound = Inbound::default();
        self.open(post, slot, upgrade, &mut inbound);
        self.keep_inbound(slot, inbound);
        self.serve_own(post);
    }
}
