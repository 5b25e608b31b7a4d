//! More clients than the readers hold: the dense client, for ways that keep a connection open.
//!
//! Owns that measurement. Never samples the age of shown prices: the dense client keeps no price.

use anyhow::Result;

use super::measure::{ARGUMENTS, Measured, SETTLE, own};
use super::prices::{BYTES, SYMBOLS};
use crate::account::per_connection;
use crate::dense::{Channels, Dense, Mode};
use crate::dialect::Dialect;
use crate::latency::Recorder;
use crate::publish::{Api, Post};
use crate::reader::{Counts, Readings};
use crate::scenario::{Bench, Burst, SECOND_NS, enough_shards};
use crate::server::{API_KEY, Server};
use crate::wire::Data;

/// Measures so many clients of a dialect, on as many shards as they need.
pub(super) fn measure(
    bench: &mut Bench,
    dialect: &'static dyn Dialect,
    clients: u64,
) -> Result<Measured> {
    let few = bench.shards;
    bench.shards = few.max(enough_shards(clients)?);
    let measured = on_shards(bench, dialect, clients);
    bench.shards = few;
    measured
}

fn on_shards(bench: &mut Bench, dialect: &'static dyn Dialect, clients: u64) -> Result<Measured> {
    let server = bench.server_with(false, &ARGUMENTS.map(str::to_owned))?;
    let empty = server.sample()?;
    let mode = Mode::Subscribe(Channels::Rooms(SYMBOLS));
    let (dense, ramp) = bench.connect_as(dialect, clients, server.address().port(), mode)?;
    std::thread::sleep(SETTLE);
    let memory = per_connection(server.sample()?.since(&empty)?.rss_anon, ramp.up)?;
    let measured = loaded(bench, &server, &dense, memory);
    bench.check_standing(&dense, "under load");
    server.stop()?;
    dense.stop()?;
    measured
}

fn loaded(bench: &mut Bench, server: &Server, dense: &Dense, memory: f64) -> Result<Measured> {
    let seconds = bench.seconds;
    // The first sends grow the buffers of the sockets.
    bench.deliver(server, dense, prices(1))?;
    let before = (server.sample()?, own()?, dense.counters().framing());
    let delivered = bench.deliver(server, dense, prices(seconds))?;
    let after = (server.sample()?, own()?, dense.counters().framing());
    bench.account("prices", &delivered.recorder);
    let deliveries = delivered.recorder.deliveries;
    let counts = Counts {
        prices: deliveries.delivered,
        fresh: deliveries.delivered,
        skipped: deliveries.lost(),
        framing: after.2 - before.2,
        ..Counts::default()
    };
    let ages = Recorder::new(bench.clock.started())?;
    Ok(Measured {
        readings: Readings { counts, latency: delivered.recorder, ages },
        seconds: seconds as f64,
        cpu_ns: after.0.since(&before.0)?.cpu_ns_per(counts.prices)?,
        client_cpu_ns: after.1.since(&before.1)?.cpu_ns_per(counts.prices)?,
        memory,
    })
}

/// A price per second on each channel.
fn prices(seconds: u64) -> Burst {
    Burst {
        api: Api::Http(Post::drumline(API_KEY)),
        publishers: 1,
        channels: Channels::Rooms(SYMBOLS),
        data: Data::Filled(BYTES),
        messages: SYMBOLS * seconds,
        interval_ns: SECOND_NS / SYMBOLS,
        per_frame: 1,
    }
}
