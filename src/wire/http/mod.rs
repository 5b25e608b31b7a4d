//! HTTP on the public port: parses request heads, decides whether the shard serves a request or
//! hands its socket to the control plane, and writes the responses of the shard.
//!
//! Owns no state. Never does I/O.

mod answer;
mod headers;
pub mod loopback;
pub mod origin;
mod parse;
mod request;
mod requester;
mod status;

pub use self::answer::{
    error_status, health_body, write_answer, write_health, write_latest, write_no_content,
    write_refused_connect, write_stream_head, write_switching,
};
pub use self::headers::query_value;
pub use self::parse::{is_foreign, is_host_legal, kept_headers, parse};
pub use self::request::{
    EmulationCommands, HEADERS_MOST, Head, HeadLimits, Header, Health, OpenEmulation, Poll,
    Preflight, PublishCall, Route, Routes, Service, Transport, Upgrade,
};
pub use self::requester::Requester;
pub use self::status::{Cors, Status};
