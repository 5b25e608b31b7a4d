//! Sections about transports: WebSocket, and its emulation by HTTP.
//!
//! Owns the keys of each endpoint of clients. Never parses a request.

use super::section::section;

section! {
    /// The bidirectional WebSocket.
    WebSocket {
        /// Turn the WebSocket endpoint off.
        disabled: bool = false,
        /// Path of the WebSocket endpoint.
        handler_prefix: String = "/connection/websocket".to_owned(),
        /// Bytes of one message of a client.
        message_size_limit: usize = 65_536,
        /// Messages may be compressed (permessage-deflate, without context takeover).
        compression: bool = false,
        /// How well publications are compressed: from 1, the quickest, to 9.
        compression_level: u16 = 1,
        /// Bytes below which a publication is not compressed.
        compression_min_size: usize = 0,
        /// Bytes that one compressed message of a client may be when it is read; 0: as
        /// message_size_limit. The same holds for the unidirectional WebSocket.
        decompressed_message_size_limit: usize = 0,
    }
}

section! {
    /// The unidirectional WebSocket.
    UniWebSocket {
        /// Serve the unidirectional WebSocket.
        enabled: bool = false,
        /// Path of the unidirectional WebSocket endpoint.
        handler_prefix: String = "/connection/uni_websocket".to_owned(),
        /// Messages may be compressed (permessage-deflate, without context takeover).
        compression: bool = false,
        /// How well publications are compressed: from 1, the quickest, to 9.
        compression_level: u16 = 1,
        /// Bytes below which a publication is not compressed.
        compression_min_size: usize = 0,
    }
}

/// Sections of streams, which differ in their paths and in whether they are on by default.
macro_rules! streams {
    ($($(#[$meta:meta])* $name:ident $path:literal $enabled:literal;)*) => {
        $(section! {
            $(#[$meta])*
            $name {
                /// Serve this transport.
                enabled: bool = $enabled,
                /// Path of this transport's endpoint.
                handler_prefix: String = $path.to_owned(),
                /// Maximum size of a request body in bytes.
                max_request_body_size: usize = 65_536,
            }
        })*
    };
}

streams! {
    /// Replies as an answer that does not end.
    HttpStream "/connection/http_stream" true;
    /// Replies as server-sent events.
    Sse "/connection/sse" true;
    /// Pushes alone as an answer that does not end.
    UniHttpStream "/connection/uni_http_stream" false;
    /// Pushes alone as server-sent events.
    UniSse "/connection/uni_sse" false;
    /// Pushes alone, an answer for each batch.
    LongPolling "/connection/long_polling" false;
}

section! {
    /// What clients of http_stream and sse say.
    Emulation {
        /// Its path.
        handler_prefix: String = "/emulation".to_owned(),
        /// Bytes of a request's body at most.
        max_request_body_size: usize = 65_536,
    }
}
