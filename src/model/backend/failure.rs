//! Why the backend gave no answer that counts.
//!
//! Owns the reasons. Never tells a client.

/// Why a request leads to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyFailure {
    /// There is no answer, or none that can be understood.
    Failed,
    /// What the client sent cannot be passed on.
    Payload,
    /// The client is told this.
    Error {
        /// Error code.
        code: u32,
        /// The same for people.
        message: Box<str>,
        /// Whether it may try again.
        temporary: bool,
    },
    /// The client is disconnected.
    Disconnect {
        /// Close code.
        code: u16,
        /// Its reason.
        reason: Box<str>,
    },
}
