//! Memory of an idle TLS connection, above a plain one.
//!
//! Owns the rows of `tls-memory`. Never publishes. Invariant: both servers have the same options
//! but TLS, and the same clients.

use anyhow::Result;

use super::Secured;
use crate::account::{KernelSample, per_connection};
use crate::dense::Mode;
use crate::rows::Row;
use crate::scenario::{Bench, Common, all, slab_growth};
use crate::server::Server;
use crate::tls::{Client, Identity};

/// Bytes of user memory that TLS may add to a connection.
const ABOVE_PLAIN: f64 = 256.0;
/// Highest ratio of the slab memory with TLS to that without. Slab is counted in pages of the whole
/// machine, so two runs of the same differ a little.
const KERNEL_RATIO: f64 = 1.02;

/// Bytes per connection.
#[derive(Debug, Clone, Copy)]
struct Memory {
    user: f64,
    /// Slab, both ends.
    slab: f64,
}

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let title = "Memory per TLS connection, above a plain one";
    let mut bench = Bench::new(common, "tls-memory", title, (100_000, 1))?;
    let identity = Identity::new()?;
    let quiet = KernelSample::now()?;
    let server = bench.server_apart(&[])?;
    let plain = measure(&mut bench, server, None, &quiet)?;
    bench.settle(&quiet)?;
    let Secured { server, client } = Secured::start(&mut bench, &identity)?;
    let tls = measure(&mut bench, server, Some(&client), &quiet)?;
    rows(plain, tls).into_iter().for_each(|row| bench.row(row));
    bench.finish()
}

fn measure(
    bench: &mut Bench,
    server: Server,
    tls: Option<&Client>,
    quiet: &KernelSample,
) -> Result<Memory> {
    let empty = server.sample()?;
    let (port, mode) = (server.address().port(), Mode::Subscribe(all()));
    let (dense, ramp) = bench.connect_over(tls, bench.connections, port, mode)?;
    let slab = per_connection(slab_growth(quiet)?, ramp.up)?;
    let user = per_connection(server.sample()?.since(&empty)?.rss_anon, ramp.up)?;
    bench.check_standing(&dense, "while idle");
    server.stop()?;
    dense.stop()?;
    Ok(Memory { user, slab })
}

fn rows(plain: Memory, tls: Memory) -> Vec<Row> {
    let user = "user memory per connection";
    let slab = "slab per connection, both ends";
    let note = "subscribed to one channel; growth of RssAnon divided by connections";
    vec![
        Row::new(format!("plain: {user}"), plain.user, "bytes"),
        Row::new(format!("TLS 1.3: {user}"), tls.user, "bytes"),
        Row::new("TLS 1.3 above plain: user memory per connection", tls.user - plain.user, "bytes")
            .at_most(ABOVE_PLAIN)
            .note(note),
        Row::new(format!("plain: {slab}"), plain.slab, "bytes"),
        Row::new(format!("TLS 1.3: {slab}"), tls.slab, "bytes"),
        Row::new("TLS 1.3 against plain: slab", tls.slab / plain.slab, "ratio")
            .at_most(KERNEL_RATIO),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::missed;

    #[test]
    fn each_kind_of_memory_has_its_verdict() {
        let plain = Memory { user: 190.0, slab: 7_000.0 };
        let tls = Memory { user: 190.0 + 256.0, slab: 7_100.0 };
        assert!(missed(&rows(plain, tls)).is_empty());
        let more = missed(&rows(plain, Memory { user: 447.0, ..tls }));
        assert_eq!(more, ["TLS 1.3 above plain: user memory per connection"]);
        let more = missed(&rows(plain, Memory { slab: 7_200.0, ..tls }));
        assert_eq!(more, ["TLS 1.3 against plain: slab"]);
    }
}
