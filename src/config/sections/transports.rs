//! Sections about client transports: WebSocket and its emulation over HTTP.
//!
//! Owns the keys of every client endpoint. Never parses a request.

use super::section::section;
use crate::config::response_transforms::ResponseTransform;

section! {
    /// Bidirectional WebSocket transport.
    WebSocket {
        /// Disable the WebSocket endpoint.
        disabled: bool = false,
        /// Path of the WebSocket endpoint.
        handler_prefix: String = "/connection/websocket".to_owned(),
        /// Maximum size of a client's WebSocket message in bytes.
        message_size_limit: usize = 65_536,
        /// Compress messages with permessage-deflate (without context takeover) for clients that
        /// offer it. It saves bandwidth and costs CPU.
        compression: bool = false,
        /// Compression level of publications, from 1 (fastest) to 9 (smallest).
        compression_level: u16 = 1,
        /// Minimum size in bytes of a publication that is compressed. 0: all publications are
        /// compressed.
        compression_min_size: usize = 0,
        /// Maximum size in bytes of a client's message after decompression, for both WebSocket
        /// transports. 0: the same as `message_size_limit`.
        decompressed_message_size_limit: usize = 0,
    }
}

section! {
    /// Unidirectional WebSocket transport.
    UniWebSocket {
        /// Enable the unidirectional WebSocket endpoint.
        enabled: bool = false,
        /// Path of the unidirectional WebSocket endpoint.
        handler_prefix: String = "/connection/uni_websocket".to_owned(),
        /// Compress messages with permessage-deflate (without context takeover) for clients that
        /// offer it. It saves bandwidth and costs CPU.
        compression: bool = false,
        /// Compression level of publications, from 1 (fastest) to 9 (smallest).
        compression_level: u16 = 1,
        /// Minimum size in bytes of a publication that is compressed. 0: all publications are
        /// compressed.
        compression_min_size: usize = 0,
        /// Close connections without a disconnect push: only the close frame has the code and the
        /// reason.
        disable_disconnect_push: bool = false,
        /// Join messages that are sent at the same time into one WebSocket frame, at most 16 per
        /// frame. The client must split each frame at newlines.
        join_push_messages: bool = false,
    }
}

section! {
    /// HTTP responses to refused connects of a unidirectional transport.
    ConnectCodeToHttpResponse {
        /// Answer a refused connect with an HTTP status (500 for a code that is not in
        /// `transforms`). Disabled: status 200 and a disconnect push.
        enabled: bool = false,
        /// HTTP responses by the code of the error or the disconnect, as a list of `{code, to:
        /// {status_code, body}}`. An empty body is replaced by the message of the error or the
        /// reason of the disconnect.
        transforms: Vec<ResponseTransform> = Vec::new(),
    }
}

/// Declares the sections of the HTTP transports. They differ in path, in whether they are enabled
/// by default, and in keys of their own.
macro_rules! http_transports {
    ($(
        $(#[$meta:meta])* $name:ident $path:literal $enabled:literal
        $($(#[doc = $doc:literal])+ $field:ident: $type:ty)?;
    )*) => {
        $(section! {
            $(#[$meta])*
            $name {
                /// Enable this transport.
                enabled: bool = $enabled,
                /// Path of this transport's endpoint.
                handler_prefix: String = $path.to_owned(),
                /// Maximum size of a request body in bytes.
                max_request_body_size: usize = 65_536,
                $($(#[doc = $doc])+ $field: $type = <$type>::default(),)?
            }
        })*
    };
}

http_transports! {
    /// Bidirectional HTTP streaming transport.
    HttpStream "/connection/http_stream" true;
    /// Bidirectional transport over server-sent events.
    Sse "/connection/sse" true;
    /// Unidirectional HTTP streaming transport.
    UniHttpStream "/connection/uni_http_stream" false
        /// HTTP responses to refused connects.
        connect_code_to_http_response: ConnectCodeToHttpResponse;
    /// Unidirectional transport over server-sent events.
    UniSse "/connection/uni_sse" false
        /// HTTP responses to refused connects.
        connect_code_to_http_response: ConnectCodeToHttpResponse;
    /// Unidirectional long-polling transport.
    LongPolling "/connection/long_polling" false;
}

section! {
    /// Endpoint that answers with the latest publication of a channel.
    Polling {
        /// Enable polling: `GET PATH?channel=NAME` returns the data of the latest publication, or
        /// status 204 without one. The channel needs a history that anonymous clients may read
        /// (`history_size`, `history_ttl`, `allow_history_for_client`,
        /// `allow_history_for_anonymous`), and clients must be allowed to connect without a token.
        enabled: bool = false,
        /// Path of the polling endpoint.
        handler_prefix: String = "/connection/polling".to_owned(),
    }
}

section! {
    /// Endpoint that takes the commands of http_stream and sse clients.
    Emulation {
        /// Path of the emulation endpoint, which receives the commands of http_stream and sse
        /// clients.
        handler_prefix: String = "/emulation".to_owned(),
        /// Maximum size of an emulation request body in bytes.
        max_request_body_size: usize = 65_536,
    }
}
