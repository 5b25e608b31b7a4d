//! TLS records that a connection receives: its handshake, and the data of its records.
//!
//! Takes one record at a time from the input. Never keeps input: what is left is the caller's. The
//! invariants: what one record costs is charged before the next one is opened; the records of
//! handshakes have a stage of their own, so established connections never wait for more of them
//! than a turn affords.

use std::ops::Range;

use crate::base::work_budget::{Stage, cost};
use crate::hub::connections::Phase;
use crate::hub::paused_input::PauseReason;
use crate::hub::shard_state::Hub;
use crate::wire::tls::{self, Handshake, HandshakeFault, Unsealed};

/// Answer to an HTTP request without TLS on a port with TLS.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 47\r\nConnection: close\r\n\r\n\
    this port serves HTTPS: use https:// or wss://\n";

/// What became of the first bytes of a connection's sealed input.
pub(super) enum Step {
    /// The rest waits for more input or for another turn.
    Waits,
    /// A record of this many bytes was used up.
    Used(usize),
    /// A record of `used` bytes was opened; its data is at `plain`.
    Data {
        /// Bytes of the record.
        used: usize,
        /// The data within them.
        plain: Range<usize>,
    },
    /// The peer sends nothing more.
    Closed,
    /// Input is ignored: the connection ends.
    Ignored,
}

impl Hub {
    /// Opens the first record of the input of a connection.
    pub(super) fn unseal(&mut self, slot: u32, input: &mut [u8]) -> Step {
        let connection = &self.connections[slot];
        match connection.phase {
            Phase::Handshake => return self.shake_hands(slot, input),
            // The control plane opens what is left.
            Phase::Leaving => return Step::Waits,
            Phase::Ending | Phase::Reserved | Phase::ProxyHeader => return Step::Ignored,
            Phase::Closing if connection.flags.lingering() => return Step::Ignored,
            // A part of a record may have been dropped with the rest of the input.
            _ if connection.is_plain_http() && connection.flags.end_when_flushed() => {
                return Step::Ignored;
            }
            Phase::AwaitingAnswer if connection.flags.shutting_down() => return Step::Ignored,
            _ => {}
        }
        let Some(session) = self.connections.sessions.get_mut(slot) else { return Step::Ignored };
        let mut answer = Vec::new();
        let unsealed = session.open(input, &mut answer);
        self.append_sealed(slot, answer);
        match unsealed {
            Unsealed::Partial => Step::Waits,
            Unsealed::Data { used, plain } => {
                self.budget.charge(cost::RECORD + used);
                if plain.is_empty() { Step::Used(used) } else { Step::Data { used, plain } }
            }
            Unsealed::KeyUpdate { used, answer } => {
                self.budget.charge(cost::KEY_UPDATE);
                self.metrics.tls_key_updates.add(1);
                if answer {
                    self.renew_keys(slot);
                }
                Step::Used(used)
            }
            Unsealed::Closed => Step::Closed,
            Unsealed::Fault(alert) => {
                self.metrics.tls_faults.add(1);
                self.end_with_alert(slot, alert);
                Step::Ignored
            }
        }
    }

    /// Gives one record to the handshake of a connection.
    fn shake_hands(&mut self, slot: u32, input: &[u8]) -> Step {
        if input.first().is_some_and(u8::is_ascii_uppercase) {
            // No TLS record begins so, but every HTTP request does.
            self.append_sealed(slot, PLAIN_HTTP.to_vec());
            self.end_with_alert(slot, None);
            return Step::Ignored;
        }
        let Some(used) = tls::record_bytes(input) else { return Step::Waits };
        let Some(record) = input.get(..used) else { return Step::Waits };
        let is_spent = !self.budget.affords_or_begins(cost::HANDSHAKE);
        if is_spent || !self.budget.is_in(Stage::Handshakes) {
            self.pause(slot, PauseReason::Handshake);
            return Step::Waits;
        }
        // The record behind it pays for it.
        if !tls::is_change_cipher_spec(record) {
            self.budget.charge(cost::HANDSHAKE);
        }
        let mut output = Vec::new();
        let taken = self.take_handshake(slot).and_then(|mut handshake| {
            let is_complete = handshake.take_record(record, &mut output)?;
            Ok((handshake, is_complete))
        });
        self.append_sealed(slot, output);
        let finished = match taken {
            Ok((handshake, true)) => self.finish_handshake(slot, handshake),
            Ok((handshake, false)) => {
                self.keep_handshake(slot, handshake);
                Ok(())
            }
            Err(fault) => Err(fault),
        };
        if finished.is_err() {
            self.end_with_alert(slot, None);
            return Step::Ignored;
        }
        Step::Used(used)
    }

    fn finish_handshake(
        &mut self,
        slot: u32,
        handshake: Box<Handshake>,
    ) -> Result<(), HandshakeFault> {
        self.metrics.tls_resumptions.add(u64::from(handshake.is_resumed()));
        let is_challenge = handshake.is_challenge();
        let session = handshake.finish()?;
        self.metrics.tls_handshakes.add(1);
        self.metrics.tls_handshakes_open.subtract(1);
        self.connections.sessions.insert(slot, session);
        self.connections[slot].phase = Phase::Head;
        if is_challenge {
            self.end_when_flushed(slot);
        }
        Ok(())
    }

    /// The handshake of a connection; the first record begins it.
    fn take_handshake(&mut self, slot: u32) -> Result<Box<Handshake>, HandshakeFault> {
        let at = self.connections[slot].inbound;
        let kept = self.connections.unread.get_mut(at).and_then(|found| found.handshake.take());
        match (kept, &self.settings.tls) {
            (Some(handshake), _) => Ok(handshake),
            (None, Some(config)) => Handshake::new(config).map(Box::new),
            (None, None) => Err(HandshakeFault::KeysDiffer),
        }
    }

    fn keep_handshake(&mut self, slot: u32, handshake: Box<Handshake>) {
        if let Some(inbound) = self.connections.inbound_or_insert(slot) {
            inbound.handshake = Some(handshake);
        }
        self.connections.unread.settle(self.connections[slot].inbound, true);
    }
}
