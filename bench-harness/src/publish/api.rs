//! How publishers reach a server: WebSocket, HTTP, or a protocol over TCP.
//!
//! Owns the choice and its options. Never opens a connection.

use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::pusher::{self, PusherApp};

/// How messages reach the server; each publisher has its own connection.
#[derive(Debug, Clone)]
pub enum Api {
    /// Drumline's `publish` commands.
    WebSocket,
    /// Requests on a kept-alive connection.
    Http(Post),
    /// A protocol of its own over TCP.
    Stream(&'static dyn Feed),
    /// Messages to an exchange of a broker, by one publisher.
    Amqp(Amqp),
}

/// How a message is published to a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amqp {
    /// URL of the broker.
    pub url: String,
    /// The exchange. The routing key of a message is its channel.
    pub exchange: String,
    /// Maximum number of messages without a confirm.
    pub window: usize,
}

/// How a publication is posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// The path; `{}` in it stands for the channel.
    pub path: String,
    /// More header lines, each with its CRLF.
    pub headers: String,
    /// The body.
    pub body: Body,
    /// Maximum number of unanswered requests of a publisher. With 1, a publisher waits for each
    /// answer; with more, it sends each request when it is due.
    pub in_flight: u64,
}

/// The body of a publication's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// The payload.
    Bare,
    /// JSON with channel and data, of Drumline and Centrifugo. An answer of status 200 may hold an
    /// error.
    Centrifuge,
    /// JSON of Pusher's HTTP API, in a request that is signed.
    Pusher(PusherApp),
}

impl Post {
    /// To Drumline or Centrifugo, with this key of its API.
    pub fn drumline(key: &str) -> Self {
        let headers = format!("X-API-Key: {key}\r\nContent-Type: application/json\r\n");
        Post { path: "/api/publish".to_owned(), headers, body: Body::Centrifuge, in_flight: 1 }
    }

    /// To a server with Pusher's HTTP API.
    pub fn pusher(app: PusherApp) -> Self {
        let headers = "Content-Type: application/json\r\n".to_owned();
        Post { path: app.path(), headers, body: Body::Pusher(app), in_flight: 1 }
    }

    /// The bare payload to a path that names the channel.
    pub fn bare(path: &str) -> Self {
        Post { path: path.to_owned(), headers: String::new(), body: Body::Bare, in_flight: 1 }
    }

    /// The same with pipelining: up to `in_flight` requests of a publisher are unanswered.
    pub fn pipelined(self, in_flight: u64) -> Self {
        Post { in_flight, ..self }
    }

    /// Whether an answer of status 200 may hold an error.
    pub(super) fn has_envelope(&self) -> bool {
        self.body == Body::Centrifuge
    }

    /// The path with the query of the request that publishes this body to the channel.
    pub(super) fn target(&self, channel: &str, body: &[u8]) -> String {
        match self.body {
            Body::Pusher(app) => app.signed(body, unix_seconds()),
            Body::Bare | Body::Centrifuge => self.path.replace("{}", channel),
        }
    }

    /// The body that publishes the payload to the channel.
    pub(super) fn body(&self, channel: &str, payload: &[u8]) -> Vec<u8> {
        match self.body {
            Body::Bare => payload.to_vec(),
            Body::Centrifuge => {
                [format!("{{\"channel\":\"{channel}\",\"data\":").as_bytes(), payload, b"}"]
                    .concat()
            }
            Body::Pusher(_) => pusher::event(channel, payload),
        }
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

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}
