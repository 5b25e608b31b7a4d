//! The server of a soak and what all activities share.
//!
//! Owns the addresses, the sizes and the end of the soak. Never counts. Invariant: a request that a
//! full server has no place for is told apart from a wrong answer.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::sizes::Sizes;
use crate::clock::RunClock;
use crate::dense::{Dense, Mode, Plan};
use crate::dialect::Dialect;
use crate::random::Random;
use crate::rows::number;
use crate::scenario::hostile::{answer, api_request};
use crate::server::{API_KEY, Server};
use crate::tls::Client;

/// Status of an answer for which the server has no place.
const UNAVAILABLE: u16 = 503;
const STEP: Duration = Duration::from_millis(20);

/// What the activities share.
pub(super) struct Scene<'a> {
    pub(super) server: &'a Server,
    /// Folder of the server's store.
    pub(super) store: &'a Path,
    /// Address of clients and of the API, without TLS.
    pub(super) public: SocketAddr,
    /// TLS of the clients that [`Scene::dense`] connects; `None`: plain TCP.
    pub(super) tls: Option<Client>,
    pub(super) sizes: Sizes,
    pub(super) clock: RunClock,
    /// Whether publications have idempotency keys, which the server keeps for minutes.
    pub(super) keys: bool,
    /// Number of reloads, which is in the second API key of the configuration.
    pub(super) reloads: AtomicU32,
    /// Connections that each client ring opens at the same time.
    pub(super) in_flight: u32,
    /// No episode begins after this.
    pub(super) ends: Instant,
}

impl Scene<'_> {
    /// Waits. Returns whether the soak goes on after it.
    pub(super) fn pause(&self, milliseconds: u64) -> bool {
        let until = (Instant::now() + Duration::from_millis(milliseconds)).min(self.ends);
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        Instant::now() < self.ends
    }

    /// Begins to connect clients.
    pub(super) fn dense(
        &self,
        dialect: &'static dyn Dialect,
        connections: u64,
        mode: Mode,
    ) -> Result<Dense> {
        let plan = Plan {
            connections,
            port: self.server.address().port(),
            one_address: false,
            dialect,
            in_flight: self.in_flight,
            mode,
            tls: self.tls.clone(),
            quiet: true,
        };
        Dense::start(plan, self.clock)
    }

    /// What the API answers with status 200; `None` if the server has no place for the request.
    pub(super) fn api(&self, method: &str, body: &str) -> Result<Option<String>> {
        match self.status(method, body, API_KEY) {
            None | Some((UNAVAILABLE, _)) => Ok(None),
            Some((200, text)) => Ok(Some(text)),
            Some((_, text)) => bail!("{method} with {body:.200} was answered {text:.300}"),
        }
    }

    /// Status and text of the answer to a request of the API with this key; `None` if the server
    /// closed the connection instead.
    pub(super) fn status(&self, method: &str, body: &str, key: &str) -> Option<(u16, String)> {
        answer(self.public, &api_request(self.public, method, body, key)).ok()
    }

    /// Publishes filling of so many bytes to a channel. Returns whether the server took it.
    pub(super) fn publish(&self, channel: &str, bytes: usize) -> Result<bool> {
        let data = "x".repeat(bytes);
        let body = format!("{{\"channel\":\"{channel}\",\"data\":\"{data}\"}}");
        Ok(self.api("publish", &body)?.is_some())
    }

    /// The clients that are subscribed to a channel with presence; `None` if the server has no
    /// place for the question.
    pub(super) fn present(&self, channel: &str) -> Result<Option<u64>> {
        let text = self.api("presence_stats", &format!("{{\"channel\":\"{channel}\"}}"))?;
        let Some(text) = text else { return Ok(None) };
        let Some((_, rest)) = text.split_once("\"num_clients\":") else {
            bail!("presence_stats was answered {text:.300}");
        };
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        Ok(digits.parse().ok())
    }

    /// Waits until it is so, or for `patience`. Returns whether it is so.
    pub(super) fn until(
        &self,
        patience: Duration,
        mut holds: impl FnMut() -> Result<bool>,
    ) -> Result<bool> {
        let begun = Instant::now();
        loop {
            if holds()? {
                return Ok(true);
            }
            if begun.elapsed() > patience {
                return Ok(false);
            }
            std::thread::sleep(STEP);
        }
    }
}

/// A name that no other episode uses.
pub(super) fn name(kind: &str, random: &mut Random) -> String {
    format!("{kind}-{:x}", random.number())
}

/// So many of so many, for errors.
pub(super) fn part(some: u64, all: u64) -> String {
    format!("{} of {}", number(some as f64), number(all as f64))
}
