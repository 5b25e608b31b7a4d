//! Clients that connect and leave, each in one of several ways.
//!
//! Owns the ways. Never holds a connection beyond its episode. Invariant: a way counts only when
//! the client has come as far as the way demands.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::activity::Tally;
use super::scene::{Scene, name};
use super::sizes::STALE_SECONDS;
use crate::random::Random;
use crate::scenario::hostile::{HostileClient, short_frame};
use crate::wire;

pub(super) const CLEAN: &str = "clean closes";
pub(super) const RESET: &str = "resets";
pub(super) const HALF: &str = "half-closes";
pub(super) const IN_MESSAGE: &str = "cuts within a message";
pub(super) const IN_HEAD: &str = "cuts within a head";
pub(super) const AFTER_HTTP: &str = "upgrades on a kept-alive connection";
pub(super) const SILENT: &str = "silent clients closed by the server";

/// Where clients subscribe: channels with and without history and presence.
const KINDS: [&str; 2] = ["kept:cut", "cut"];
/// First byte of a close frame, and the code 1000.
const CLOSE: u8 = 0x88;
const NORMAL: &[u8] = b"\x03\xe8";
/// How long the answer to a close may take, and a close beyond the time that the server gives.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a subscribed client does to leave.
type Way = fn(&mut HostileClient) -> Result<()>;
const WAYS: [(&str, Way); 4] =
    [(CLEAN, close), (RESET, |_| Ok(())), (HALF, end_output), (IN_MESSAGE, begin_message)];

/// Some clients come and leave, one after the other.
pub(super) fn episode(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let mut silent = Vec::new();
    for _ in 0..random.within(8..=32) {
        let done = match random.within(0..=6) {
            4 => within_head(scene).map(|()| IN_HEAD),
            5 => after_http(scene, random).map(|()| AFTER_HTTP),
            6 => HostileClient::open(scene.public, "").map(|client| {
                silent.push(client);
                "silent clients"
            }),
            way => subscribed(scene, random, way),
        };
        match done {
            Ok(what) => tally.add(what, 1),
            // The slots may all be in use, or the client's input may be too much for the budget.
            Err(_) => tally.add("refused or closed before", 1),
        }
    }
    for mut client in silent {
        let late = Duration::from_secs(STALE_SECONDS) + PATIENCE;
        match client.frame(late) {
            Ok(None) => tally.add(SILENT, 1),
            Ok(Some(frame)) => {
                bail!("a client that never connected got {:?}", String::from_utf8_lossy(&frame))
            }
            Err(error) => return Err(error.context("a client that never connected")),
        }
    }
    Ok(())
}

/// A client subscribes and leaves in one of [`WAYS`].
fn subscribed(scene: &Scene<'_>, random: &mut Random, way: u64) -> Result<&'static str> {
    let kind = random.pick(&KINDS).copied().unwrap_or_default();
    // Some channels are shared with other clients, others are new.
    let channel = if random.one_in(2) { kind.to_owned() } else { name(kind, random) };
    let request = format!("{{\"channel\":\"{channel}\"}}");
    let mut client = HostileClient::subscribed(scene.public, &request)?;
    let (what, leave) = WAYS[way as usize % WAYS.len()];
    leave(&mut client)?;
    if what == RESET {
        client.reset()?
    }
    Ok(what)
}

fn close(client: &mut HostileClient) -> Result<()> {
    client.send_frame(CLOSE, NORMAL)?;
    until_closed(client)
}

fn end_output(client: &mut HostileClient) -> Result<()> {
    client.end_output()?;
    until_closed(client)
}

fn begin_message(client: &mut HostileClient) -> Result<()> {
    client.write(&short_frame())
}

/// Waits for the close. Pushes may come before it.
fn until_closed(client: &mut HostileClient) -> Result<()> {
    let begun = Instant::now();
    while client.frame(PATIENCE)?.is_some() {
        ensure!(begun.elapsed() < PATIENCE, "pushes instead of a close");
    }
    Ok(())
}

/// A client leaves before the end of its request head.
fn within_head(scene: &Scene<'_>) -> Result<()> {
    let mut upgrade = Vec::new();
    wire::upgrade(wire::PATH, scene.public.port(), "", &mut upgrade);
    HostileClient::dial(scene.public)?.write(&upgrade[..upgrade.len() / 2])
}

/// The control plane answers a request, then the connection becomes a WebSocket.
fn after_http(scene: &Scene<'_>, random: &mut Random) -> Result<()> {
    let mut client = HostileClient::dial(scene.public)?;
    client.write(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n")?;
    client.response()?;
    let mut client = client.upgraded(scene.public, "")?;
    let answer = client.ask("{\"id\":1,\"connect\":{}}")?;
    ensure!(answer.contains("\"connect\":{"), "a connect was answered `{answer}`");
    if random.one_in(2) { client.reset() } else { close(&mut client) }
}
