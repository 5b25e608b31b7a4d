//! The access log: a line for each connect and disconnect of a client.
//!
//! Owns the fields of these lines. Never decides which connection is logged.

use std::net::IpAddr;
use std::time::Duration;

use tracing::field::display;

use super::level::ACCESS;

/// A client of the access log.
#[derive(Clone, Copy, Debug)]
pub struct AccessClient<'a> {
    /// Client id.
    pub client: &'a str,
    /// User id; empty: anonymous.
    pub user: &'a str,
    /// Name of its transport.
    pub transport: &'static str,
    /// Name of its encoding.
    pub protocol: &'static str,
    /// Its address, if it is known.
    pub address: Option<IpAddr>,
}

impl AccessClient<'_> {
    /// Logs that the client has connected.
    pub fn log_connect(&self) {
        let AccessClient { client, user, transport, protocol, address } = *self;
        let address = address.map(display);
        tracing::info!(target: ACCESS, client, user, transport, protocol, address, "connect");
    }

    /// Logs that the client is disconnected with this code. `after`: the time since its connect;
    /// `None`: it was not connected, or it connected before the access log was enabled.
    pub fn log_disconnect(&self, code: u16, reason: &str, after: Option<Duration>) {
        let AccessClient { client, user, transport, protocol, address } = *self;
        let (address, duration_ms) = (address.map(display), after.map(|time| time.as_millis()));
        let duration_ms = duration_ms.map(|time| time as u64);
        tracing::info!(
            target: ACCESS, client, user, transport, protocol, address, code, reason, duration_ms,
            "disconnect"
        );
    }
}
