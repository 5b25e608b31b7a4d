//! Reloads of the certificate and of the configuration under load.
//!
//! Owns the rows of `reload`. Never restarts the server. Invariant: every reload has another value,
//! and counts only when a client has observed that value.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::hostile::{PingProbes, post_with};
use super::tls::arguments;
use super::{Bench, Burst, Common, SECOND_NS, all};
use crate::dense::{Dense, Mode};
use crate::rows::Row;
use crate::server::Server;
use crate::tls::{Client, Identity, Stream};
use crate::wire::Data;

/// Reloads under load, of each kind, and reloads after which memory is compared.
const RELOADS: u32 = 100;
const MEMORY_RELOADS: u32 = 2_000;
/// Reloads before the first look at the memory: they grow caches once.
const WARM_RELOADS: u32 = 100;
/// Growth of RssAnon that the many reloads may cause, in bytes.
const GROWTH: f64 = 1_048_576.0;
/// Publications per second to all connections, and bytes of each.
const RATE: u64 = 20;
const BYTES: usize = 128;
/// Established clients that ping.
const PROBES: u64 = 32;
/// Maximum wait for the new value.
const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(5);
/// From one pair of reloads under load to the next.
const EVERY: Duration = Duration::from_millis(250);

/// Flags of `reload`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Reloads of each kind under load.
    #[arg(long, default_value_t = RELOADS)]
    reloads: u32,
    /// Reloads after which memory is compared.
    #[arg(long, default_value_t = MEMORY_RELOADS)]
    memory_reloads: u32,
}

/// What happened.
#[derive(Debug, Clone, Default)]
struct Measured {
    reloads: u32,
    /// New certificates and new values of the configuration that clients have seen.
    certificates: u32,
    values: u32,
    /// Requests and handshakes that failed.
    errors: u64,
    disconnects: u64,
    undelivered: u64,
    memory_reloads: u32,
    growth: f64,
}

struct Scene {
    server: Server,
    identity: Identity,
    /// Number in the second API key of the configuration file.
    value: u32,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let title = "Reloads of certificate and configuration under load";
    let mut bench = Bench::new(&options.common, "reload", title, (1_000, 1))?;
    bench.parameter("reloads", options.reloads);
    bench.parameter("memory_reloads", options.memory_reloads);
    let identity = Identity::new()?;
    let server = bench.server_apart(&arguments(&identity))?;
    let mut scene = Scene { server, identity, value: 0 };
    let client = Client::new(scene.identity.certificate())?;
    let (port, mode) = (scene.server.address().port(), Mode::Subscribe(all()));
    let (dense, _) = bench.connect_over(Some(&client), bench.connections, port, mode)?;
    let mut measured = Measured { reloads: options.reloads, ..Measured::default() };
    under_load(&mut bench, &mut scene, &dense, &client, &mut measured)?;
    memory(&mut scene, options.memory_reloads, &mut measured)?;
    measured.disconnects = dense.counters().lost();
    rows(&measured).into_iter().for_each(|row| bench.row(row));
    dense.stop()?;
    scene.server.stop()?;
    bench.finish()
}

/// Writes the configuration file with this value in it. The file is renamed into its place.
pub(super) fn write(file: &Path, value: u32) -> Result<()> {
    let told = || format!("cannot write {}", file.display());
    let fresh = file.with_extension("new");
    let text = format!("[http_api]\nprevious_key = \"{}\"\n", key(value));
    fs::write(&fresh, text).with_context(told)?;
    fs::rename(&fresh, file).with_context(told)
}

/// The second API key of this number.
pub(super) fn key(value: u32) -> String {
    format!("bench-{value}")
}

/// Reloads certificate and configuration in turn, while publications flow and clients ping.
fn under_load(
    bench: &mut Bench,
    scene: &mut Scene,
    dense: &Dense,
    client: &Client,
    measured: &mut Measured,
) -> Result<()> {
    let (control, public) = (scene.server.control(), scene.server.address());
    let probes = PingProbes::start_over(public, Some(client), PROBES, bench.clock)?;
    let lasts = EVERY * measured.reloads;
    let messages = (lasts.as_millis() as u64 * RATE / 1000).max(1);
    let burst = Burst::to_all(messages, Data::Filled(BYTES), SECOND_NS / RATE);
    let delivered = std::thread::scope(|scope| -> Result<_> {
        let reloads = scope.spawn(|| reloads(scene, measured));
        let delivered = bench.deliver_to(control, dense, burst, PATIENCE)?;
        reloads.join().map_err(|_| anyhow::anyhow!("the thread that reloads panicked"))??;
        Ok(delivered)
    })?;
    if let Some(refusal) = &delivered.published.refusal {
        measured.errors += 1;
        bench.note(format!("a publication was refused: {refusal}"));
    }
    measured.undelivered = delivered.recorder.deliveries.lost();
    bench.series("publications while reloading", delivered.recorder);
    // A probe that the server closed is an error of the run.
    bench.series("pings while reloading", probes.stop()?);
    Ok(())
}

fn reloads(scene: &mut Scene, measured: &mut Measured) -> Result<()> {
    let begun = Instant::now();
    for nth in 1..=measured.reloads {
        measured.certificates += u32::from(scene.reload_certificate(&mut measured.errors)?);
        measured.values += u32::from(scene.reload_configuration(&mut measured.errors)?);
        std::thread::sleep((EVERY * nth).saturating_sub(begun.elapsed()));
    }
    Ok(())
}

/// Reloads many certificates and compares the memory with that after the first of them.
fn memory(scene: &mut Scene, reloads: u32, measured: &mut Measured) -> Result<()> {
    let mut unseen = 0;
    for _ in 0..WARM_RELOADS.min(reloads) {
        unseen += u32::from(!scene.reload_certificate(&mut measured.errors)?);
    }
    let before = scene.server.sample()?;
    for _ in 0..reloads {
        unseen += u32::from(!scene.reload_certificate(&mut measured.errors)?);
    }
    measured.growth = scene.server.sample()?.since(&before)?.rss_anon as f64;
    measured.memory_reloads = reloads;
    measured.errors += u64::from(unseen);
    Ok(())
}

impl Scene {
    /// Replaces the certificate and reloads. Returns whether a client has seen the new one.
    fn reload_certificate(&mut self, errors: &mut u64) -> Result<bool> {
        self.identity.replace()?;
        let client = Client::new(self.identity.certificate())?;
        self.server.signal(Signal::HUP)?;
        let server = self.server.address();
        Ok(until(errors, || shows(server, &client)))
    }

    /// Writes another value and reloads. Returns whether the API accepts the new key, and the one
    /// before no longer.
    fn reload_configuration(&mut self, errors: &mut u64) -> Result<bool> {
        self.value += 1;
        write(self.server.config(), self.value)?;
        self.server.signal(Signal::HUP)?;
        let (control, new, old) = (self.server.control(), key(self.value), key(self.value - 1));
        Ok(until(errors, || Ok(accepts(control, &new)? && !accepts(control, &old)?)))
    }
}

/// Asks until the answer is yes, or for so long. Failures count as errors.
fn until(errors: &mut u64, seen: impl Fn() -> Result<bool, String>) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match seen() {
            Ok(true) => return true,
            Ok(false) => {}
            Err(cause) => {
                eprintln!("  while reloading: {cause}");
                *errors += 1;
            }
        }
        std::thread::sleep(STEP);
    }
    false
}

/// Whether the server shows the certificate of this client.
fn shows(server: SocketAddr, client: &Client) -> Result<bool, String> {
    match Stream::connect(server, Some(client), PATIENCE) {
        Ok(_) => Ok(true),
        Err(error) if error.to_string().contains(crate::tls::ANOTHER) => Ok(false),
        Err(error) => Err(format!("a TLS handshake failed: {error}")),
    }
}

/// Whether the API accepts this key.
fn accepts(control: SocketAddr, key: &str) -> Result<bool, String> {
    match post_with(control, "info", "{}", key) {
        Ok(_) => Ok(true),
        Err(error) if format!("{error:#}").contains("HTTP/1.1 401") => Ok(false),
        Err(error) => Err(format!("an API request failed: {error:#}")),
    }
}

fn rows(measured: &Measured) -> Vec<Row> {
    let reloads = f64::from(measured.reloads);
    let count = |what: &str, value: f64| Row::new(what, value, "count");
    let growth = format!("growth of RssAnon in {} reloads", measured.memory_reloads);
    vec![
        count("new certificates observed", f64::from(measured.certificates)).at_least(reloads),
        count("new values of the configuration observed", f64::from(measured.values))
            .at_least(reloads),
        count("errors", measured.errors as f64).at_most(0.0),
        count("disconnects", measured.disconnects as f64).at_most(0.0),
        count("deliveries lost", measured.undelivered as f64).at_most(0.0),
        Row::new(growth, measured.growth, "bytes").at_most(GROWTH),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::missed;

    #[test]
    fn an_unseen_value_an_error_a_disconnect_a_loss_and_growth_are_misses() {
        let good = Measured {
            reloads: 100,
            certificates: 100,
            values: 100,
            memory_reloads: 2_000,
            growth: GROWTH,
            ..Measured::default()
        };
        assert!(missed(&rows(&good)).is_empty());
        for (doctored, what) in [
            (Measured { certificates: 99, ..good.clone() }, "new certificates observed"),
            (Measured { values: 99, ..good.clone() }, "new values of the configuration observed"),
            (Measured { errors: 1, ..good.clone() }, "errors"),
            (Measured { disconnects: 1, ..good.clone() }, "disconnects"),
            (Measured { undelivered: 1, ..good.clone() }, "deliveries lost"),
            (
                Measured { growth: GROWTH + 1.0, ..good.clone() },
                "growth of RssAnon in 2000 reloads",
            ),
        ] {
            assert_eq!(missed(&rows(&doctored)), [what]);
        }
    }

    #[test]
    fn a_value_that_never_comes_is_not_observed_and_failures_count() {
        let answers = std::cell::Cell::new(0);
        let mut errors = 0;
        let seen = until(&mut errors, || {
            answers.set(answers.get() + 1);
            match answers.get() {
                1 => Ok(false),
                2 => Err("refused".to_owned()),
                _ => Ok(true),
            }
        });
        assert!(seen && errors == 1 && answers.get() == 3);
    }
}
