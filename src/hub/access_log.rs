//! The access log: what it shows of a connection.
//!
//! Owns nothing: addresses and times are in a side table, which is empty while the log is off. The
//! invariant: while the log is off, a connection costs no allocation.

use std::net::IpAddr;
use std::time::Duration;

use crate::base::log::AccessClient;
use crate::hub::connections::{AccessEntry, Connection};
use crate::hub::shard_state::Hub;
use crate::wire::protocol::Wire;

impl Hub {
    /// Keeps the address of a connection's client for the access log.
    pub fn note_address(&mut self, slot: u32, address: Option<IpAddr>) {
        if self.settings.logs_access && address.is_some() {
            self.connections.access.entry(slot).or_default().address = address;
        }
    }

    /// The address of a connection's client, if the access log keeps it.
    pub fn noted_address(&self, slot: u32) -> Option<IpAddr> {
        self.connections.access.get(&slot).and_then(|entry| entry.address)
    }

    /// Logs the connect of a client.
    pub(super) fn log_connect(&mut self, slot: u32) {
        if self.settings.logs_access {
            self.connections.access.entry(slot).or_default().connected = Some(self.now);
            self.with_access_client(slot, |client, _| client.log_connect());
        }
    }

    /// Logs the disconnect of a client.
    pub(super) fn log_disconnect(&self, slot: u32, code: u16, reason: &str) {
        if self.settings.logs_access {
            self.with_access_client(slot, |client, entry| {
                let time = entry.connected.map(|began| self.now.saturating_sub(began));
                client.log_disconnect(code, reason, time.map(Duration::from_millis));
            });
        }
    }

    fn with_access_client(&self, slot: u32, log: impl FnOnce(&AccessClient<'_>, &AccessEntry)) {
        let connection @ Connection { transport, wire, .. } = &self.connections[slot];
        let entry = self.connections.access.get(&slot).copied().unwrap_or_default();
        let protocol = match wire {
            Wire::Json => "json",
            Wire::Protobuf => "protobuf",
        };
        let (client, user, transport) = (self.client_id(slot), connection.user(), transport.name());
        let client =
            AccessClient { client: &client, user, transport, protocol, address: entry.address };
        log(&client, &entry);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::hub::HubSettings;
    use crate::hub::tests::{ROOMY, hub, subscriber};

    #[test]
    fn the_side_table_stays_empty_while_the_log_is_off_and_is_emptied_with_the_connection() {
        let address = "192.0.2.1".parse().ok();
        let mut hub = hub(ROOMY, ROOMY, ROOMY);
        let first = subscriber(&mut hub);
        hub.note_address(first, address);
        assert_eq!(hub.connections.access.capacity(), 0);
        let settings = HubSettings { logs_access: true, ..(*hub.settings).clone() };
        hub.settings = Arc::new(settings);
        let second = subscriber(&mut hub);
        hub.note_address(second, address);
        assert_eq!(hub.noted_address(second), address);
        assert!(hub.connections.access[&second].connected.is_some());
        hub.end(first);
        hub.end(second);
        assert!(hub.connections.access.is_empty());
    }
}
