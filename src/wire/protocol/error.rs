//! Error codes of replies and close codes of connections.
//!
//! Owns the codes and their texts. Never closes a connection.

/// An error reply: the command failed, the connection stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// The code, which clients act on.
    pub code: u32,
    /// The message for humans.
    pub message: &'static str,
    /// Whether a retry may succeed.
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
    NAME_TOO_LONG = 107, "bad request: the channel name is longer than 4096 bytes", false;
    NOT_AVAILABLE = 108, "not available", false;
    TOKEN_EXPIRED = 109, "token expired", false;
    EXPIRED = 110, "expired", false;
    UNRECOVERABLE_POSITION = 112, "unrecoverable position", false;
}

/// Why the server closes a connection: a WebSocket close code with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// Clients reconnect after codes 3000-3499 and 4000-4499, and stop after 3500-3999 and
    /// 4500-4999.
    pub code: u16,
    /// The reason. Never valid JSON: clients would parse it as reconnect advice.
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
