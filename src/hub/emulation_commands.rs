//! Commands of emulation clients that arrived in requests of their own.

use crate::base::buffer;
use crate::hub::connections::{Inbound, Phase};
use crate::hub::shard_state::Hub;
use crate::model::message::EmulationFrame;
use crate::wire::protocol::{Disconnect, Wire};

/// Maximum unprocessed commands of an emulation client, in messages of the largest size.
const FRAMES_MAX: usize = 4;

impl Hub {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::tests::{LoneShardBus, hub, transmit};

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
