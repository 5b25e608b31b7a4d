//! What an operator does: reloads of the configuration, and scrapes of the metrics.
//!
//! Owns the values that are written. Never writes the same value twice in a row. Invariant: a
//! reload counts when a client has observed the new value.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::activity::Tally;
use super::scene::Scene;
use crate::random::Random;
use crate::scenario::hostile::HostileClient;
use crate::scenario::reload::{key, write};

pub(super) const RELOADS: &str = "reloads observed";
pub(super) const SCRAPES: &str = "scrapes";

/// Maximum wait for a new value, and for a place: while all slots are in use, the API answers 503.
const PATIENCE: Duration = Duration::from_secs(30);
const SCRAPED: Duration = Duration::from_secs(5);
const PROTOBUF: &str = "application/vnd.google.protobuf;\
    proto=io.prometheus.client.MetricFamily;encoding=delimited";

/// A reload with another value.
pub(super) fn reload(scene: &Scene<'_>, _: &mut Random, tally: &mut Tally) -> Result<()> {
    let value = scene.reloads.fetch_add(1, Ordering::Relaxed) + 1;
    write(scene.server.config(), value)?;
    scene.server.signal(Signal::HUP)?;
    let seen = scene.until(PATIENCE, || {
        Ok(accepts(scene, &key(value))? && !accepts(scene, &key(value - 1))?)
    })?;
    ensure!(seen, "value {value} of the configuration was not observed within {PATIENCE:?}");
    tally.add(RELOADS, 1);
    Ok(())
}

/// Whether the API accepts this key. A server that has no place says neither.
fn accepts(scene: &Scene<'_>, key: &str) -> Result<bool> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match scene.status("info", "{}", key) {
            Some((200, _)) => return Ok(true),
            Some((401, _)) => return Ok(false),
            None | Some((503, _)) => std::thread::sleep(Duration::from_millis(50)),
            Some((_, text)) => bail!("info was answered {text:.300}"),
        }
    }
    bail!("the API has answered only 503 for {PATIENCE:?}")
}

/// A scrape in one of both formats.
pub(super) fn scrape(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let accept = if random.one_in(2) { PROTOBUF } else { "text/plain" };
    let mut client = HostileClient::dial(scene.server.control())?;
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    );
    client.write(request.as_bytes())?;
    let head = client.head().context("a scrape")?;
    ensure!(head.starts_with(b"HTTP/1.1 200"), "a scrape was answered {:.300}", text(&head));
    client.drain(Instant::now() + SCRAPED);
    tally.add(SCRAPES, 1);
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
