//! The state of one connection of the dense client.
//!
//! Owns no connection. Never decides a change: the book does.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Opening,
    /// The TLS handshake has begun.
    Securing,
    Upgrading,
    Joining,
    Up,
    /// Raw mode: the greeting of the kernel baseline has not arrived yet.
    Greeting,
    Raw,
    /// Being closed by the client; it may reconnect.
    Cut,
    Down,
}

impl State {
    /// What a connection that is not up yet waits for.
    pub(super) fn waits_for(self) -> Option<&'static str> {
        match self {
            State::Opening => Some("the TCP connection"),
            State::Securing => Some("the TLS handshake"),
            State::Upgrading => Some("the answer to the upgrade"),
            State::Joining => Some("the answer to connect or subscribe"),
            State::Greeting => Some("the kernel baseline's greeting"),
            State::Up | State::Raw | State::Cut | State::Down => None,
        }
    }
}

/// One connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Socket {
    /// The highest sequence number seen in this phase.
    pub(super) last: u32,
    /// Bit set of the 32 sequence numbers before `last` that were seen.
    pub(super) seen: u32,
    pub(super) state: State,
    pub(super) flags: u8,
}

const _: () = assert!(size_of::<Socket>() <= 32, "a million of them must stay small");
