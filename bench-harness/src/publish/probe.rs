//! Probes: one publisher and one subscriber each, on a channel of their own, through tungstenite.
//!
//! Owns their sockets and recorders. Never shares a channel with the load. Invariant: every
//! delivery is compared byte by byte, in order, with the publication.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::api::Api;
use super::load::Load;
use super::published::Published;
use super::running::{Running, each, spawn};
use super::socket::{Receiver, open};
use super::websocket;
use crate::clock::RunClock;
use crate::dense::Channels;
use crate::latency::Recorder;
use crate::wire::{self, Data, Line, Stamp};

/// Maximum wait for the last deliveries.
const PATIENCE: Duration = Duration::from_secs(10);
/// Phase number of probes.
const PHASE: u16 = 900;

/// The outcome of the probes.
#[derive(Debug, Clone)]
pub struct Probed {
    /// Latency and account of the deliveries.
    pub recorder: Recorder,
    /// The publishers' side.
    pub published: Published,
}

/// How many probes, and their load.
#[derive(Debug, Clone, Copy)]
pub struct ProbePlan {
    /// The server.
    pub server: SocketAddr,
    /// Pairs of publisher and subscriber.
    pub pairs: u64,
    /// The first message is due so long after the start of the run, in ns.
    pub first_ns: u64,
    /// Messages per second of all pairs together.
    pub per_second: u64,
    /// Duration, in ns.
    pub for_ns: u64,
    /// Bytes of data in a message.
    pub bytes: usize,
}

/// Starts the probes on a thread of their own.
pub fn probe(probes: ProbePlan, clock: RunClock) -> Result<Running<Probed>> {
    let interval_ns = 1_000_000_000 / probes.per_second.max(1);
    let load = Load {
        server: probes.server,
        api: Api::WebSocket,
        publishers: probes.pairs,
        channels: Channels::Rooms(probes.pairs),
        channel_count: probes.pairs,
        phase: PHASE,
        data: Data::Filled(probes.bytes),
        first_ns: probes.first_ns,
        interval_ns,
        messages: probes.for_ns / interval_ns,
        per_frame: 1,
    };
    spawn("probes", move || run(load, probes.bytes, clock))
}

async fn run(load: Load, bytes: usize, clock: RunClock) -> Result<Probed> {
    let shared = Rc::new(load.clone());
    let mut readers = Vec::new();
    for pair in 0..load.publishers {
        let channel = load.channels.nth(pair);
        let (_, mut receiver) = open(load.server, &wire::hello_text(&channel)).await?;
        receiver.replies(2).await.context("a probe cannot subscribe")?;
        let expected: Vec<Stamp> = shared
            .of(load.channel_publisher(pair))
            .filter(|message| message.channel == channel)
            .map(|message| message.stamp)
            .collect();
        readers.push(monoio::spawn(read(receiver, expected, bytes, clock)));
    }
    let published = each(load, clock, websocket::one).await?;
    let mut recorder = Recorder::new(clock.started())?;
    for reader in readers {
        recorder.merge(reader.await?)?;
    }
    Ok(Probed { recorder, published })
}

impl Load {
    /// The publisher that sends to this channel.
    fn channel_publisher(&self, channel: u64) -> u64 {
        channel % self.publishers
    }
}

/// Reads until the last expected message has come, or none for a while.
async fn read(
    mut receiver: Receiver,
    expected: Vec<Stamp>,
    bytes: usize,
    clock: RunClock,
) -> Result<Recorder> {
    let mut recorder = Recorder::new(clock.started())?;
    recorder.expect(expected.len() as u64);
    let mut next = 0;
    while next < expected.len() {
        let left = clock.until(expected[expected.len() - 1].due_ns) + PATIENCE;
        let Ok(line) = monoio::time::timeout(left, receiver.line()).await else { break };
        let Some(line) = line? else { break };
        let Line::Push(push) = wire::line(&line) else { continue };
        let now_ns = clock.now_ns();
        let Some(at) = matching(push, &expected, next, bytes)? else {
            recorder.deliveries.duplicates += 1;
            continue;
        };
        recorder.record(now_ns, now_ns.saturating_sub(expected[at].due_ns))?;
        next = at + 1;
    }
    Ok(recorder)
}

/// Which expected message a push is, from `next` on; `None`: one of those before.
fn matching(push: &[u8], expected: &[Stamp], next: usize, bytes: usize) -> Result<Option<usize>> {
    let told = || String::from_utf8_lossy(push).into_owned();
    let stamp = Stamp::find(push).with_context(|| format!("a probe got `{}`", told()))?;
    let mut wanted = Vec::with_capacity(bytes);
    stamp.write(bytes, &mut wanted);
    ensure!(wire::data(push) == Some(&wanted[..]), "a probe's content was changed: `{}`", told());
    Ok(expected[next..].iter().position(|one| *one == stamp).map(|at| next + at))
}
