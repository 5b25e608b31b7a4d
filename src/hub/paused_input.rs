//! Connections with left input: why each is paused, and when it continues.

use crate::hub::shard_state::Hub;
use crate::wire::protocol::Wire;

/// Why a connection is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PauseReason {
    /// It used its share of the turn.
    Ready,
    /// An inbox was full.
    Blocked,
    /// The next record of its TLS handshake waits for the stage of handshakes.
    Handshake,
    /// It ran as many commands as its rate permits.
    Rate,
}

impl Hub {
    pub(super) fn pause(&mut self, slot: u32, pause: PauseReason) {
        let flags = &mut self.connections[slot].flags;
        flags.set_paused(true);
        if !flags.queued() {
            flags.set_queued(true);
            match pause {
                PauseReason::Ready => self.ready.push_back(slot),
                PauseReason::Blocked => self.blocked.push(slot),
                PauseReason::Handshake => self.handshakes.push_back(slot),
                PauseReason::Rate => {
                    self.metrics.rate_pauses.add(1);
                    self.connections.command_rates.wait(slot);
                }
            }
        }
    }

    /// Queues a paused connection, because what it waited for has arrived.
    pub(super) fn resume_later(&mut self, slot: u32) {
        let flags = &mut self.connections[slot].flags;
        if flags.paused() && !flags.queued() {
            flags.set_queued(true);
            self.ready.push_back(slot);
        }
    }

    /// Whether a frame, or the rest of one, contains no command.
    pub(super) fn is_blank(&self, slot: u32, frame: &[u8]) -> bool {
        match self.connections[slot].wire {
            Wire::Json => frame.trim_ascii().is_empty(),
            Wire::Protobuf => frame.is_empty(),
        }
    }
}
