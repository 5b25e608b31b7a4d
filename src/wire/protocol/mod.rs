//! The Centrifuge client protocol: what a client may say, what it is answered, and the numbers
//! that both sides know by heart.
//!
//! Owns no state. Never does I/O. Source of every name and number: the protocol's public
//! documentation and definitions (centrifugal/protocol).

pub mod command;
pub mod json;
pub mod protobuf;
pub mod reply;

use bytemuck::{Pod, Zeroable};

use self::reply::{ClientInfo, Push, Reply};

/// What a connected client is told it is connected to.
pub const VERSION: &str = concat!("drumline ", env!("CARGO_PKG_VERSION"));

/// How what is said is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Wire {
    /// JSON text.
    #[default]
    Json,
    /// Protocol buffers, each message behind its length.
    Protobuf,
}

/// Appends a reply.
pub fn write_reply(wire: Wire, id: u32, reply: &Reply<'_>, out: &mut Vec<u8>) {
    match wire {
        Wire::Json => json::write_reply(id, reply, out),
        Wire::Protobuf => protobuf::write_reply(id, reply, out),
    }
}

/// Appends a member of a channel to a part of a [`reply::Roll`].
pub fn write_member(wire: Wire, info: &ClientInfo, out: &mut Vec<u8>) {
    match wire {
        Wire::Json => json::write_member(info, out),
        Wire::Protobuf => protobuf::write_member(info, out),
    }
}

/// Appends a push: alone for a unidirectional client, else within a reply.
pub fn write_push(wire: Wire, unidirectional: bool, push: &Push<'_>, out: &mut Vec<u8>) {
    match wire {
        Wire::Json if unidirectional => json::write_push(push, out),
        Wire::Json => {
            out.extend_from_slice(json::PUSH_OPEN);
            json::write_push(push, out);
            out.extend_from_slice(json::PUSH_CLOSE);
        }
        Wire::Protobuf => protobuf::write_push(push, out),
    }
}

/// An error reply: the command failed, the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// The number that clients act on.
    pub code: u32,
    /// The same for people.
    pub message: &'static str,
    /// Whether trying again may help.
    pub temporary: bool,
}

macro_rules! errors {
    ($($name:ident = $code:literal, $message:literal, $temporary:literal;)*) => {
        impl Error {
            $(
                #[doc = concat!("Error ", stringify!($code), ": ", $message, ".")]
                pub const $name: Error =
                    Error { code: $code, message: $message, temporary: $temporary };
            )*
        }
    };
}

errors! {
    INTERNAL = 100, "internal server error", true;
    UNKNOWN_CHANNEL = 102, "unknown channel", false;
    PERMISSION_DENIED = 103, "permission denied", false;
    METHOD_NOT_FOUND = 104, "method not found", false;
    ALREADY_SUBSCRIBED = 105, "already subscribed", false;
    LIMIT_EXCEEDED = 106, "limit exceeded", false;
    BAD_REQUEST = 107, "bad request", false;
    NOT_JSON = 107,
        "bad request: data is not JSON; set publication_data_format to binary to allow it", false;
    BINARY_CHANNEL = 107,
        "bad request: the channel carries binary data; connect with the protobuf protocol", false;
    NOT_AVAILABLE = 108, "not available", false;
    TOKEN_EXPIRED = 109, "token expired", false;
    EXPIRED = 110, "expired", false;
    UNRECOVERABLE_POSITION = 112, "unrecoverable position", false;
}

/// Why the server ends a connection: a WebSocket close code with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// 3000-3499 and 4000-4499 ask the client to come back, 3500-3999 and 4500-4999 not to.
    pub code: u16,
    /// Never valid JSON: clients would read advice in it.
    pub reason: &'static str,
}

macro_rules! disconnects {
    ($($name:ident = $code:literal, $reason:literal;)*) => {
        impl Disconnect {
            $(
                #[doc = concat!("Close code ", stringify!($code), ": ", $reason, ".")]
                pub const $name: Disconnect = Disconnect { code: $code, reason: $reason };
            )*
        }
    };
}

disconnects! {
    CONNECTION_CLOSED = 3000, "connection closed";
    SHUTDOWN = 3001, "shutdown";
    INTERNAL = 3004, "internal server error";
    EXPIRED = 3005, "connection expired";
    SUBSCRIPTION_EXPIRED = 3006, "subscription expired";
    SLOW = 3008, "slow";
    INSUFFICIENT_STATE = 3010, "insufficient state";
    FORCE_RECONNECT = 3011, "force reconnect";
    NO_PONG = 3012, "no pong";
    TOO_MANY_REQUESTS = 3013, "too many requests";
    INVALID_TOKEN = 3500, "invalid token";
    BAD_REQUEST = 3501, "bad request";
    STALE = 3502, "stale";
    FORCE_DISCONNECT = 3503, "force disconnect";
    CONNECTION_LIMIT = 3504, "connection limit";
    CHANNEL_LIMIT = 3505, "channel limit";
    INAPPROPRIATE_PROTOCOL = 3506, "inappropriate protocol";
    PERMISSION_DENIED = 3507, "permission denied";
    NOT_AVAILABLE = 3508, "not available";
}

/// Where a client stands in a channel's stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Offset of the last publication seen; 0 before the first.
    pub offset: u64,
    /// Which life of the stream the offset counts in.
    pub epoch: Epoch,
}

/// Names one life of a stream: eight letters, all zero where the client gave none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Epoch([u8; 8]);

impl Epoch {
    /// An epoch drawn from randomness.
    pub fn from_random(random: u64) -> Self {
        let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        Epoch(random.to_le_bytes().map(|byte| letters[usize::from(byte) % letters.len()]))
    }

    /// The epoch that a client names. One that this server cannot have given out equals none of
    /// its own.
    pub fn parse(text: &str) -> Self {
        match text.as_bytes().try_into() {
            Ok(letters) if letters != [0; 8] => Epoch(letters),
            Err(_) if text.is_empty() => Epoch::default(),
            _ => Epoch([b'?'; 8]),
        }
    }

    /// Whether the client named none.
    pub fn is_unset(&self) -> bool {
        self.0 == [0; 8]
    }

    /// The letters as they are; zeroes where unset.
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }

    /// The letters; empty where unset.
    pub fn as_str(&self) -> &str {
        if self.is_unset() { "" } else { std::str::from_utf8(&self.0).unwrap_or("") }
    }
}
