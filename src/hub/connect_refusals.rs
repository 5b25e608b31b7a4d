//! Connects of unidirectional HTTP transports that are refused with an HTTP status.
//!
//! The head of such a response waits until the connect is answered: with the result, the stream
//! begins, and a refusal is the whole response.

use crate::hub::shard_state::Hub;
use crate::wire::http::{self, Cors};

impl Hub {
    /// Writes the head of a stream, or keeps it until the connect is answered.
    pub(super) fn begin_stream(&mut self, slot: u32, origin: Option<&str>) {
        let transport = self.connections[slot].transport;
        if self.settings.connect_refusals.of(transport).is_some() {
            self.connections.pending_heads.insert(slot, origin.map(Box::from));
        } else {
            self.write_stream_head(slot, origin);
        }
    }

    /// Writes the head of a stream whose connect succeeded, if it is still to be written.
    pub(super) fn write_pending_head(&mut self, slot: u32) {
        if self.connections.pending_heads.is_empty() {
            return;
        }
        if let Some(origin) = self.connections.pending_heads.remove(&slot) {
            self.write_stream_head(slot, origin.as_deref());
        }
    }

    fn write_stream_head(&mut self, slot: u32, origin: Option<&str>) {
        let connection = &mut self.connections[slot];
        let (transport, wire) = (connection.transport, connection.wire);
        self.turn.write_head(&mut connection.turn, slot, |out| {
            http::write_stream_head(transport, wire, Cors { origin }, out);
        });
    }

    /// Writes the HTTP response to a connect that is refused with this code, if the head of the
    /// stream is not written; returns whether it did. The connection must be closed then.
    pub(super) fn write_refusal(&mut self, slot: u32, code: u32, message: &str) -> bool {
        let Some(origin) = self.connections.pending_heads.remove(&slot) else { return false };
        let cors = Cors { origin: origin.as_deref() };
        let connection = &mut self.connections[slot];
        let responses = self.settings.connect_refusals.of(connection.transport);
        let response = responses.into_iter().flatten().find(|response| response.code == code);
        let (status, body) = match response {
            Some(response) if response.body.is_empty() => (response.status, message),
            Some(response) => (response.status, &*response.body),
            None => (500, "Internal Server Error"),
        };
        self.turn.write_head(&mut connection.turn, slot, |out| {
            http::write_refused_connect(status, body, cors, out);
        });
        true
    }
}
