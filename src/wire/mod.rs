//! Bytes on the wire: WebSocket frames, HTTP request heads, compression, deltas, records of TLS and
//! the Centrifuge protocol.
//!
//! Owns the parsers and the writers. Never does I/O and never decides what a client may do.

pub mod client_address;
pub mod deflate;
pub mod delta;
pub mod event_id;
pub mod filter;
pub mod frame;
pub mod framing;
pub mod http;
pub mod joined_frames;
pub mod protocol;
pub mod proxy_protocol;
pub mod tls;
pub mod lenient_json;
