//! A million TLS connections on one machine, or as many as `--connections` says.
//!
//! Owns the rows of `tls-million`. Never resumes a session. Invariant: each connection makes a full
//! handshake, connects and subscribes, and receives one broadcast.

use anyhow::Result;

use super::Secured;
use crate::account::{KernelSample, ProcessSample, per_connection};
use crate::dense::Mode;
use crate::namespace;
use crate::rows::Row;
use crate::scenario::{Bench, Burst, Common, SECOND_NS, all, slab_growth};
use crate::tls::Identity;
use crate::wire::Data;

/// Bytes of user memory per connection.
const USER_BYTES: f64 = 400.0;
/// Bytes of data in the broadcast.
const BROADCAST_BYTES: usize = 128;

/// What was measured.
#[derive(Debug, Clone, Copy)]
struct Measured {
    took_ns: f64,
    refused: u64,
    lost: u64,
    user: f64,
    client: f64,
    slab: f64,
    connect_ns: f64,
    broadcast_ns: f64,
    undelivered: u64,
}

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let title = "A million TLS connections";
    let mut bench = Bench::new(common, "tls-million", title, (1_000_000, 1))?;
    bench.note(namespace::enter_if_permitted());
    let identity = Identity::new()?;
    let quiet = KernelSample::now()?;
    let Secured { server, client } = Secured::start(&mut bench, &identity)?;
    let (empty, own) = (server.sample()?, own()?);
    let (port, mode) = (server.address().port(), Mode::Subscribe(all()));
    let (dense, ramp) = bench.connect_over(Some(&client), bench.connections, port, mode)?;
    let slab = per_connection(slab_growth(&quiet)?, ramp.up)?;
    let used = server.sample()?.since(&empty)?;
    let client = per_connection(self::own()?.since(&own)?.rss_anon, ramp.up)?;
    let burst = Burst::to_all(1, Data::Filled(BROADCAST_BYTES), SECOND_NS);
    let delivered = bench.deliver(&server, &dense, burst)?;
    let measured = Measured {
        took_ns: ramp.took.as_nanos() as f64,
        refused: ramp.refused,
        lost: dense.counters().lost(),
        user: per_connection(used.rss_anon, ramp.up)?,
        client,
        slab,
        connect_ns: used.cpu_ns_per(ramp.up)?,
        broadcast_ns: delivered.took.as_nanos() as f64,
        undelivered: delivered.recorder.deliveries.lost(),
    };
    rows(measured).into_iter().for_each(|row| bench.row(row));
    bench.series("broadcast", delivered.recorder);
    bench.check_standing(&dense, "after the broadcast");
    dense.stop()?;
    server.stop()?;
    bench.finish()
}

/// The client's own memory.
fn own() -> Result<ProcessSample> {
    ProcessSample::of_one(std::process::id())
}

fn rows(measured: Measured) -> Vec<Row> {
    let Measured { took_ns, refused, lost, user, client, .. } = measured;
    let note = "handshake, connect and subscribe of each; server and client share the processors";
    vec![
        Row::new("time to all up", took_ns, "ns").note(note),
        Row::new("connections refused", refused as f64, "count").at_most(0.0),
        Row::new("connections lost", lost as f64, "count").at_most(0.0),
        Row::new("user memory per connection", user, "bytes").at_most(USER_BYTES),
        Row::new("the client's user memory per connection", client, "bytes"),
        Row::new("slab per connection, both ends", measured.slab, "bytes"),
        Row::new("server CPU per handshake, connect and subscribe", measured.connect_ns, "ns"),
        Row::new("one broadcast", measured.broadcast_ns, "ns"),
        Row::new("deliveries of the broadcast lost", measured.undelivered as f64, "count")
            .at_most(0.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::missed;

    #[test]
    fn a_refused_or_lost_connection_a_lost_delivery_and_memory_are_misses() {
        let good = Measured {
            took_ns: 3e11,
            refused: 0,
            lost: 0,
            user: 400.0,
            client: 200.0,
            slab: 7_000.0,
            connect_ns: 2e5,
            broadcast_ns: 1e10,
            undelivered: 0,
        };
        assert!(missed(&rows(good)).is_empty());
        for (doctored, what) in [
            (Measured { refused: 1, ..good }, "connections refused"),
            (Measured { lost: 1, ..good }, "connections lost"),
            (Measured { user: 401.0, ..good }, "user memory per connection"),
            (Measured { undelivered: 1, ..good }, "deliveries of the broadcast lost"),
        ] {
            assert_eq!(missed(&rows(doctored)), [what]);
        }
    }
}
