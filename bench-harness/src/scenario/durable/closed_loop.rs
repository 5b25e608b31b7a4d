//! Publishers in a closed loop: each has a channel of its own and one publication outstanding.
//!
//! Owns the turn: connect, warm up, measure. Never sends a publication before the previous one of
//! the connection is acknowledged. Invariant: all servers get the same data from the same client.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use drumline::base::sys::thread_micros;

use super::data::Records;
use super::folder::written_bytes;
use super::node::Batches;
use super::redis::Redis;
use super::talk::{Heard, Interface, Load, Talk};
use super::turn::Turn;
use crate::account::{ProcessSample, busy_ns};
use crate::clock::RunClock;
use crate::latency::Recorder;
use crate::server::Server;

/// Time before the measured part of a turn, in which the connections are opened.
const WARM_UP: Duration = Duration::from_millis(500);

/// A server in its turn.
#[derive(Clone, Copy)]
pub(super) enum Side<'a> {
    /// Redis.
    Redis(&'a Redis),
    /// Drumline.
    Drumline(&'a Server),
}

impl Side<'_> {
    fn address(self) -> SocketAddr {
        match self {
            Side::Redis(redis) => redis.address(),
            Side::Drumline(server) => server.address(),
        }
    }

    fn pid(self) -> u32 {
        match self {
            Side::Redis(redis) => redis.pid(),
            Side::Drumline(server) => server.pid(),
        }
    }

    fn sample(self) -> Result<ProcessSample> {
        match self {
            Side::Redis(redis) => redis.sample(),
            Side::Drumline(server) => server.sample(),
        }
    }

    fn batches(self) -> Result<Option<Batches>> {
        match self {
            Side::Redis(_) => Ok(None),
            Side::Drumline(server) => Batches::of(server),
        }
    }
}

/// The publications of a turn.
struct Publishers {
    interface: Interface,
    channels: Vec<String>,
    records: Records,
    recorder: Recorder,
    acknowledged: u64,
}

impl Load for Publishers {
    fn next(&mut self, nth: usize, _now_ns: u64, out: &mut Vec<u8>) -> bool {
        self.interface.publish(&self.channels[nth], self.records.next_record(), out);
        true
    }

    fn hear(&mut self, _: usize, heard: Heard<'_>, sent_ns: u64, now_ns: u64) -> Result<()> {
        match heard {
            Heard::Confirmed(_) => {
                self.acknowledged += 1;
                self.recorder.expect(1);
                self.recorder.record(now_ns, now_ns.saturating_sub(sent_ns))
            }
            Heard::Refused(answer) | Heard::Push(answer) => {
                bail!("a publication was refused: {}", String::from_utf8_lossy(answer))
            }
        }
    }
}

/// Publishes over `connections` connections for so long.
pub(super) fn turn(
    side: Side<'_>,
    interface: Interface,
    connections: u64,
    lasts: Duration,
    clock: RunClock,
) -> Result<Turn> {
    let publishers = Publishers {
        interface,
        channels: (0..connections).map(|nth| format!("c{nth}")).collect(),
        records: Records::new(clock.now_ns()),
        recorder: Recorder::new(clock.started())?,
        acknowledged: 0,
    };
    let interfaces = vec![interface; connections as usize];
    let mut talk = Talk::open(side.address(), &interfaces, publishers, clock)?;
    talk.run_until(clock.now_ns() + WARM_UP.as_nanos() as u64)?;
    talk.load.acknowledged = 0;
    talk.load.recorder = Recorder::new(clock.started())?;
    let (batches, written) = (side.batches()?, written_bytes(side.pid())?);
    let (busy, server) = (busy_ns()?, side.sample()?);
    let (client, begun_ns) = (thread_micros(), clock.now_ns());
    talk.run_until(begun_ns + lasts.as_nanos() as u64)?;
    let took = Duration::from_nanos(clock.now_ns() - begun_ns);
    let client_ns = (thread_micros() - client) * 1_000;
    let busy_ns = busy_ns()? - busy;
    let server_ns = side.sample()?.since(&server)?.cpu_ns;
    let disk_bytes = written_bytes(side.pid())?.saturating_sub(written);
    let batch = batches.zip(side.batches()?).and_then(|(then, now)| now.mean_since(&then));
    let Publishers { recorder, acknowledged, .. } = talk.load;
    Ok(Turn {
        acknowledged,
        took,
        recorder,
        server_ns,
        client_ns: Some(client_ns),
        disk_bytes,
        batch,
        busy_ns,
    })
}
