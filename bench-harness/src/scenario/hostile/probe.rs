//! Established clients that measure the latency of WebSocket pings while the server is under load.
//!
//! Owns its sockets and one thread. Never waits for a pong before the next ping is due (open
//! loop). Invariant: the latency of a pong counts from the moment when its ping was due, and a ping
//! without a pong is lost, never forgotten.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::client::HostileClient;
use crate::clock::RunClock;
use crate::latency::Recorder;
use crate::tls::{Client, Stream};
use crate::wire;

/// From one ping of a probe to the next, in ns.
const INTERVAL_NS: u64 = 25_000_000;
/// How long the last pongs are waited for, in ns.
const PATIENCE_NS: u64 = 10_000_000_000;
/// First byte of a ping frame.
const PING: u8 = 0x89;

/// The probes, until they are stopped.
pub struct PingProbes {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Recorder>>,
}

struct Probe {
    stream: Stream,
    input: Vec<u8>,
    /// When its next ping is due, in ns since the start of the run.
    due_ns: u64,
    waiting: u64,
}

impl PingProbes {
    /// Connects so many and starts to ping.
    pub fn start(server: SocketAddr, count: u64, clock: RunClock) -> Result<Self> {
        Self::start_over(server, None, count, clock)
    }

    /// The same, over TLS if there is TLS.
    pub fn start_over(
        server: SocketAddr,
        tls: Option<&Client>,
        count: u64,
        clock: RunClock,
    ) -> Result<Self> {
        let streams: Vec<Stream> = (0..count)
            .map(|_| Ok(HostileClient::connected_over(server, tls)?.into_stream()))
            .collect::<Result<_>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::Builder::new()
            .name("probes".to_owned())
            .spawn(move || run(streams, &told, clock))?;
        Ok(PingProbes { stop, thread })
    }

    /// Waits for the last pongs; what was measured.
    pub fn stop(self) -> Result<Recorder> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the probes panicked"))?
    }
}

fn run(streams: Vec<Stream>, stop: &AtomicBool, clock: RunClock) -> Result<Recorder> {
    let mut recorder = Recorder::new(clock.started())?;
    let (first_ns, count) = (clock.now_ns(), streams.len() as u64);
    let mut probes = Vec::new();
    for (nth, stream) in (0..).zip(streams) {
        stream.socket().set_nonblocking(true)?;
        let due_ns = first_ns + INTERVAL_NS * nth / count.max(1);
        probes.push(Probe { stream, input: Vec::new(), due_ns, waiting: 0 });
    }
    let mut ends_ns = u64::MAX;
    while clock.now_ns() < ends_ns {
        let stopped = stop.load(Ordering::Relaxed);
        if stopped {
            ends_ns = ends_ns.min(clock.now_ns() + PATIENCE_NS);
            if probes.iter().all(|probe| probe.waiting == 0) {
                break;
            }
        }
        for probe in probes.iter_mut().filter(|_| !stopped) {
            probe.ping(&clock, &mut recorder)?;
        }
        let next = probes.iter().map(|probe| probe.due_ns).min().unwrap_or_default();
        for at in readable(&probes, clock.until(next).as_nanos() as u64)? {
            probes[at].pongs(&clock, &mut recorder)?;
        }
    }
    Ok(recorder)
}

/// Which probes have something to read, waiting for `wait_ns` at most.
fn readable(probes: &[Probe], wait_ns: u64) -> Result<Vec<usize>> {
    let watched = |probe| PollFd::new(probe, PollFlags::IN);
    let mut watched: Vec<_> = probes.iter().map(|probe| watched(probe.stream.socket())).collect();
    // One that is stopped pings no more: it looks for pongs once in a while.
    let wait = Timespec { tv_sec: 0, tv_nsec: wait_ns.clamp(1, 5_000_000) as i64 };
    match poll(&mut watched, Some(&wait)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => bail!("poll: {error}"),
    }
    let some = |(at, one): (usize, &PollFd<'_>)| (!one.revents().is_empty()).then_some(at);
    Ok(watched.iter().enumerate().filter_map(some).collect())
}

impl Probe {
    /// Sends the pings that are due.
    fn ping(&mut self, clock: &RunClock, recorder: &mut Recorder) -> Result<()> {
        while self.due_ns <= clock.now_ns() {
            let mut frame = Vec::new();
            wire::client_frame(PING, &self.due_ns.to_be_bytes(), &mut frame);
            self.stream.write_all(&frame).context("a probe cannot send a ping")?;
            recorder.expect(1);
            self.waiting += 1;
            self.due_ns += INTERVAL_NS;
        }
        Ok(())
    }

    /// Takes the pongs that have come.
    fn pongs(&mut self, clock: &RunClock, recorder: &mut Recorder) -> Result<()> {
        match self.stream.read(&mut self.input) {
            Ok(0) => bail!("the server closed a probe"),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("a probe cannot read"),
        }
        while let Some((start, length)) = wire::server_header(&self.input) {
            if self.input.len() < start + length {
                break;
            }
            let payload = &self.input[start..start + length];
            match (self.input[0], payload.first_chunk::<8>()) {
                (wire::PONG, Some(due_ns)) => {
                    let now_ns = clock.now_ns();
                    let due_ns = u64::from_be_bytes(*due_ns);
                    recorder.record(now_ns, now_ns.saturating_sub(due_ns))?;
                    self.waiting = self.waiting.saturating_sub(1);
                }
                (0x88, _) => bail!("the server closed a probe: {payload:?}"),
                _ => {}
            }
            self.input.drain(..start + length);
        }
        Ok(())
    }
}
