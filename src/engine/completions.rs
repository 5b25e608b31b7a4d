//! Completions of a shard's ring, and the operations that the hub requests of the ring.
//!
//! Owns nothing: the ring and the hub are the shard's. The invariants: a slot is given back only
//! after every operation on it has completed for the last time; a read is in progress only where
//! its result can be taken.

use crate::base::work_budget::{Stage, cost};
use crate::engine::ring::{Completion, Op, Token};
use crate::engine::shard::Shard;
use crate::hub::connections::Phase;
use crate::model::message::{HandOver, Message, Post, Rank};

/// Maximum reads per turn that begin before the messages are taken.
const READS_AHEAD: usize = 16;

impl Shard {
    /// Reads the sockets whose input was announced first, so that this turn can handle the input.
    /// It begins before the messages are taken, as every completion of the turn must.
    pub(super) fn read_ahead(&mut self) {
        self.hub.begin(Stage::Completions);
        let mut polls = 0;
        while polls < READS_AHEAD
            && let Some(completion) = self.ring.next_reaped_of(Op::Poll)
        {
            self.hub.charge(cost::COMPLETION);
            self.complete(completion);
            polls += 1;
        }
        if polls > 0 {
            self.ring.poll();
            self.ring.reap();
        }
    }

    pub(super) fn take_completions(&mut self) {
        self.hub.begin(Stage::Completions);
        while self.ring.has_reaped() && !self.hub.is_spent() {
            let Some(completion) = self.ring.next_reaped() else { break };
            self.hub.charge(cost::COMPLETION);
            self.complete(completion);
        }
        for slot in std::mem::take(&mut self.awaiting_buffer) {
            self.read(slot);
        }
    }

    fn complete(&mut self, completion: Completion) {
        let Token { op, generation, slot } = completion.token;
        let Some(connection) = self.hub.connection(slot, generation) else {
            // The slot was reused or is free. Dropping the completion returns its buffer or
            // descriptor.
            return self.metrics.stale_completions.add(1);
        };
        if !completion.more() && !matches!(op, Op::SocketArrived | Op::Send) {
            connection.operations = connection.operations.saturating_sub(1);
        }
        match op {
            Op::Accept => self.accepted(&completion),
            Op::SocketArrived => self.socket_arrived(slot, generation),
            Op::Poll => self.polled(&completion),
            Op::Receive => self.received(completion),
            Op::Writable => {
                connection.flags.set_awaiting_writable(false);
                if connection.phase != Phase::Ending {
                    self.hub.writable(slot);
                }
            }
            Op::Shutdown | Op::Reset => self.cancel_watches(slot),
            Op::Install => self.installed(completion),
            Op::SendSocket => self.socket_sent(&completion),
            Op::Close => return self.hub.free(slot),
            // The bytes were counted as sent, and later bytes may follow them: the connection
            // cannot continue.
            Op::Send => self.hub.connection_lost(slot),
            // A shard does not use these operations.
            Op::Cancel | Op::Doorbell | Op::Socket | Op::LimitReceiveBuffer | Op::Connect => {}
        }
        self.close_if_done(slot, generation);
    }

    fn polled(&mut self, completion: &Completion) {
        let Token { generation, slot, .. } = completion.token;
        let Some(connection) = self.hub.connection(slot, generation) else { return };
        if !completion.more() {
            connection.flags.set_watched(false);
        }
        if matches!(connection.phase, Phase::Ending | Phase::Leaving) {
            return;
        }
        let ended = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as i32;
        let is_cancelled = completion.errno() == Some(libc::ECANCELED);
        if !is_cancelled && (completion.result < 0 || completion.result & ended != 0) {
            connection.flags.set_peer_ended(true);
        }
        if !completion.more() {
            self.watch(slot);
        }
        self.read(slot);
    }

    fn received(&mut self, mut completion: Completion) {
        let Token { generation, slot, .. } = completion.token;
        let Some(connection) = self.hub.connection(slot, generation) else { return };
        connection.flags.set_receiving(false);
        let live = !matches!(connection.phase, Phase::Ending | Phase::Leaving);
        if let Some(mut bytes) = completion.take_received()
            && live
            && !bytes.is_empty()
        {
            self.hub.receive(&mut self.bus, slot, &mut bytes);
        }
        if !live {
            return;
        }
        match completion.errno() {
            Some(libc::EAGAIN | libc::EINTR) => {}
            Some(libc::ENOBUFS) => return self.awaiting_buffer.push(slot),
            Some(_) => return self.hub.connection_lost(slot),
            None if completion.result == 0 => return self.hub.peer_ended(slot),
            None => {}
        }
        let flags = self.hub.connection(slot, generation).map(|found| found.flags);
        // A Unix socket does not tell in every kernel whether it has more.
        let more = completion.socket_nonempty()
            || u32::try_from(completion.result).is_ok_and(|read| read >= self.ring.buffer_bytes())
            || flags.is_some_and(|flags| flags.readable() || flags.peer_ended());
        if more {
            self.read(slot);
        }
    }

    pub(super) fn start_ring_requests(&mut self) {
        let mut ring_requests = std::mem::take(&mut self.hub.ring_requests);
        for slot in ring_requests.reads.drain(..) {
            self.read(slot);
        }
        for slot in ring_requests.writable.drain(..) {
            self.await_writable(slot);
        }
        for slot in ring_requests.hand_overs.drain(..) {
            let generation = self.hub.generation(slot);
            if self.begin(slot, generation) {
                self.ring.install(generation, slot);
                self.cancel_watches(slot);
            }
        }
        for slot in ring_requests.ends.drain(..) {
            let generation = self.hub.generation(slot);
            let Some(connection) = self.hub.connection(slot, generation) else { continue };
            connection.operations = connection.operations.saturating_add(1);
            if connection.flags.reset() {
                self.ring.reset(generation, slot);
            } else {
                self.ring.shutdown(generation, slot);
            }
        }
        self.hub.ring_requests = ring_requests;
    }

    fn await_writable(&mut self, slot: u32) {
        let generation = self.hub.generation(slot);
        let Some(connection) = self.hub.connection(slot, generation) else { return };
        let gone = matches!(connection.phase, Phase::Ending | Phase::Leaving);
        if !gone && !connection.flags.awaiting_writable() {
            connection.flags.set_awaiting_writable(true);
            connection.operations = connection.operations.saturating_add(1);
            self.ring.watch_writable(generation, slot);
        }
    }

    fn cancel_watches(&mut self, slot: u32) {
        let generation = self.hub.generation(slot);
        let Some(connection) = self.hub.connection(slot, generation) else { return };
        let armed = [
            (connection.flags.watched(), Op::Poll),
            (connection.flags.awaiting_writable(), Op::Writable),
        ];
        for (_, op) in armed.into_iter().filter(|(armed, _)| *armed) {
            if self.begin(slot, generation) {
                self.ring.cancel(Token::new(op, generation, slot));
            }
        }
        if let Some(connection) = self.hub.connection(slot, generation) {
            connection.flags.set_unwatched(true);
        }
    }

    /// Closes a slot whose socket is shut down or moved, once no operation is in progress.
    fn close_if_done(&mut self, slot: u32, generation: u32) {
        let Some(connection) = self.hub.connection(slot, generation) else { return };
        let gone = matches!(connection.phase, Phase::Ending | Phase::Leaving);
        if gone && connection.flags.unwatched() && connection.operations == 0 {
            connection.operations = 1;
            self.ring.close(generation, slot);
        }
    }

    /// Sends a socket with its new ordinary descriptor to the control plane.
    fn installed(&mut self, mut completion: Completion) {
        let Token { slot, .. } = completion.token;
        let control = self.hub.control();
        let socket = completion.take_descriptor();
        let Some(socket) = socket.filter(|_| self.bus.reserve(control, Rank::Ingress)) else {
            // Without a descriptor or room in the inbox, the hub answers 503.
            return self.hub.refuse_hand_over(slot);
        };
        let (bytes, sealed, permit) = self.hub.take_for_hand_over(slot);
        let entrance = self.hub.entrance(slot);
        self.metrics.handed_over.add(1);
        let hand_over = HandOver { socket, entrance, bytes, sealed, permit };
        self.bus.send(control, Message::HandOver(Box::new(hand_over)));
    }
}
