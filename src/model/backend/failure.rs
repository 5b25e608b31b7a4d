//! Failures of requests to the backend.
//!
//! Owns the type. Never sends a failure to a client.

/// A request to the backend that failed or that the backend refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyFailure {
    /// The backend did not answer, or its answer cannot be read.
    Failed,
    /// The client's data cannot be sent to the backend, because it is not JSON.
    Payload,
    /// The backend refused with an error for the client.
    Error {
        /// Error code.
        code: u32,
        /// Message for people.
        message: Box<str>,
        /// Whether the client may try again.
        temporary: bool,
    },
    /// The backend refused and disconnects the client.
    Disconnect {
        /// Close code.
        code: u16,
        /// Close reason.
        reason: Box<str>,
    },
}
