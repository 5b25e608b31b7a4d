//! How publishers reach a server: WebSocket, HTTP, or a protocol over TCP.
//!
//! Owns the choice and its options. Never opens a connection.

use std::fmt::Debug;

use anyhow::Result;

/// How messages reach the server; each publisher has its own connection.
#[derive(Debug, Clone)]
pub enum Api {
    /// Drumline's `publish` commands.
    WebSocket,
    /// Requests on a kept-alive connection.
    Http(Post),
    /// A protocol of its own over TCP.
    Stream(&'static dyn Feed),
}

/// How a publication is posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// The path; `{}` in it stands for the channel.
    pub path: String,
    /// More header lines, each with its CRLF.
    pub headers: String,
    /// Whether the body is Drumline's JSON around channel and data, and not the bare payload.
    pub envelope: bool,
    /// Maximum number of unanswered requests of a publisher. With 1, a publisher waits for each
    /// answer; with more, it sends each request when it is due.
    pub in_flight: u64,
}

impl Post {
    /// To Drumline, with this key of its API.
    pub fn drumline(key: &str) -> Self {
        let headers = format!("X-API-Key: {key}\r\nContent-Type: application/json\r\n");
        Post { path: "/api/publish".to_owned(), headers, envelope: true, in_flight: 1 }
    }

    /// The bare payload to a path that names the channel.
    pub fn bare(path: &str) -> Self {
        Post { path: path.to_owned(), headers: String::new(), envelope: false, in_flight: 1 }
    }

    /// The same with pipelining: up to `in_flight` requests of a publisher are unanswered.
    pub fn pipelined(self, in_flight: u64) -> Self {
        Post { in_flight, ..self }
    }
}

/// The protocol of a publisher.
pub trait Feed: Debug + Send + Sync {
    /// Appends the first bytes of a publisher.
    fn hello(&self, out: &mut Vec<u8>);

    /// Appends a publication.
    fn publish(&self, channel: &str, payload: &[u8], out: &mut Vec<u8>);

    /// Appends a request that the server answers when it has taken everything before it.
    fn flush(&self, out: &mut Vec<u8>);

    /// Whether the answer is at the end of what was heard since; an error if a refusal is there.
    fn flushed(&self, heard: &[u8]) -> Result<bool>;
}
