//! Soak: a mix of activities for hours, after which the server must hold what it held before.
//!
//! Owns the order of a run: start, places, activities beside established clients, rest, places.
//! Never restarts the server. Invariant: what the server holds is compared between two moments
//! without a client.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use self::activities::ALL;
use self::activity::{Activity, Tally};
use self::rest::Holding;
use self::rows::Measured;
use self::scene::Scene;
use self::sizes::{KEY_SECONDS, PING_SECONDS, Sizes};
use self::watch::{SIXTHS, Samples};
use super::durable::folder::Folder;
use super::{Bench, Burst, Common, PATIENCE, SECOND_NS};
use crate::account::rss_anon;
use crate::dense::{Channels, Dense, Mode};
use crate::namespace;
use crate::publish::Api;
use crate::tls::{Client, Identity};
use crate::wire::Data;

mod activities;
mod activity;
mod calls;
mod cuts;
mod durable;
mod half_open;
mod operator;
mod places;
mod pressure;
mod publishers;
mod rest;
mod rows;
mod scene;
mod sizes;
mod stalls;
mod stopped;
mod storms;
mod watch;

pub use stopped::{Arguments, serve};

/// Publications per second to the established clients, and bytes of each.
const RATE: u64 = 50;
const BYTES: usize = 128;
/// Time in which everything must be released when the last client has gone.
const REST: Duration = Duration::from_secs(60);
/// Runs from this length on use idempotency keys: they wait until the last key has expired.
const KEYS_FROM_SECONDS: u64 = 600;

/// Flags of `soak`. `--connections` is the number of established clients.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Number that decides the mix: the same number gives the same episodes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Serve the established clients, the storms and the stalled readers over TLS. The other
    /// activities use a listener without TLS.
    #[arg(long)]
    tls: bool,
    /// Folder on a disk. The run makes the server's store in it and removes that at the end.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Names of the activities to run, separated by commas. By default all.
    #[arg(long, value_delimiter = ',')]
    activities: Vec<String>,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let title = "Soak: connects, cuts, storms, stalls and pressure for hours";
    let mut bench = Bench::new(&options.common, "soak", title, (2_000, 3_600))?;
    let chosen = chosen(&options.activities)?;
    ensure!(bench.seconds > SIXTHS as u64, "--seconds must be more than {SIXTHS}");
    bench.parameter("seed", options.seed);
    bench.parameter("tls", options.tls);
    bench.ping_seconds = PING_SECONDS;
    let told = namespace::enter();
    bench.note(told.context("the half-open connections need a network namespace: run as root")?);
    let sizes = Sizes::new(bench.connections, bench.shards);
    let identity = options.tls.then(Identity::new).transpose()?;
    let (internal, plain) = (bench.free_port()?, bench.free_port()?);
    let mut arguments = sizes.arguments(bench.shards);
    let folder = Folder::temporary(&options.folder)?;
    arguments.push(format!("--store.path={}", folder.path().display()));
    if let Some(identity) = &identity {
        arguments.extend(super::tls::arguments(identity));
        let listener = format!("[{{\"name\":\"plain\",\"port\":{plain}}}]");
        arguments.push(format!("--http_server.listeners={listener}"));
    }
    let tls = identity.as_ref().map(|identity| Client::new(identity.certificate())).transpose()?;
    let server = bench.server_on(Some(internal), true, &arguments)?;
    let lasts = Duration::from_secs(bench.seconds);
    let mut scene = Scene {
        server: &server,
        store: folder.path(),
        public: match &tls {
            Some(_) => SocketAddr::new(server.address().ip(), plain),
            None => server.address(),
        },
        tls,
        sizes,
        clock: bench.clock,
        keys: bench.seconds >= KEYS_FROM_SECONDS,
        reloads: Default::default(),
        in_flight: bench.common.in_flight,
        ends: Instant::now(),
    };
    // The public port takes connections before the internal port does.
    let healthy = scene.until(PATIENCE, || Ok(server.get("/health").is_ok()))?;
    ensure!(healthy, "the server is not healthy within {PATIENCE:?}: see its log above");
    let start = Holding::now(&scene)?;
    let mut measured = Measured { seconds: bench.seconds, start, ..Measured::default() };
    measured.rss[0] = rss_anon(server.pid())? as f64;
    [measured.places[0], measured.internal_places[0]] = places(&scene, &measured.start)?;
    let mode = Mode::Subscribe(Channels::Rooms(sizes.rooms));
    let port = server.address().port();
    let (established, _) = bench.connect_over(scene.tls.as_ref(), sizes.established, port, mode)?;
    scene.ends = Instant::now() + lasts;
    let samples = mix(&mut bench, &scene, (options.seed, &chosen), &established, &mut measured)?;
    established.stop()?;
    let patience = REST + Duration::from_secs(if scene.keys { KEY_SECONDS } else { 0 });
    measured.rest = Holding::at_rest(&scene, &measured.start, patience)?;
    measured.rss[1] = rss_anon(server.pid())? as f64;
    [measured.places[1], measured.internal_places[1]] = places(&scene, &measured.start)?;
    tell(&mut bench, measured, &samples)?;
    server.stop()?;
    bench.finish()
}

/// The activities with these names; all of them if there are no names.
fn chosen(names: &[String]) -> Result<Vec<&'static Activity>> {
    static ACTIVITIES: [Activity; ALL.len()] = ALL;
    for name in names {
        let all = || ALL.iter().map(|one| one.name).collect::<Vec<_>>().join(", ");
        ensure!(
            ALL.iter().any(|one| one.name == name),
            "no activity is called {name}: there are {}",
            all()
        );
    }
    let is_chosen = |one: &&Activity| names.is_empty() || names.iter().any(|name| name == one.name);
    Ok(ACTIVITIES.iter().filter(is_chosen).collect())
}

/// The places of an empty server for clients and for HTTP connections of the internal port. Waits
/// until it is empty again.
fn places(scene: &Scene<'_>, start: &Holding) -> Result<[u64; 2]> {
    let places = [places::count(scene)?, places::internal(scene)?];
    Holding::at_rest(scene, start, REST)?;
    Ok(places)
}

/// Runs the activities beside the established clients, which account for every delivery.
fn mix(
    bench: &mut Bench,
    scene: &Scene<'_>,
    (seed, chosen): (u64, &[&'static Activity]),
    established: &Dense,
    measured: &mut Measured,
) -> Result<Samples> {
    let burst = Burst {
        api: Api::WebSocket,
        publishers: 1,
        channels: Channels::Rooms(scene.sizes.rooms),
        data: Data::Filled(BYTES),
        messages: bench.seconds * RATE,
        interval_ns: SECOND_NS / RATE,
        per_frame: 1,
    };
    let samples = std::thread::scope(|scope| -> Result<Samples> {
        let watch = scope.spawn(|| Samples::collect(scene));
        let running: Vec<_> =
            chosen.iter().map(|one| (one.name, scope.spawn(|| one.repeat(scene, seed)))).collect();
        let delivered = bench.deliver_to(scene.public, established, burst, PATIENCE)?;
        for (name, activity) in running {
            let tally: Tally =
                activity.join().map_err(|_| anyhow!("the thread of {name} panicked"))?;
            measured.tallies.push((name, tally));
        }
        if let Some(refusal) = delivered.published.refusal {
            bench.fault(format!("a publication to established clients was refused: {refusal}"));
        }
        bench.account("established clients", &delivered.recorder);
        measured.missed = delivered.recorder.deliveries.lost();
        bench.percentiles("established clients", &delivered.recorder, [0.0; 3])?;
        watch.join().map_err(|_| anyhow!("the thread that samples the server panicked"))?
    })?;
    measured.closed = established.counters().lost();
    if measured.closed > 0 {
        let codes = established.counters().codes();
        bench.note(format!("established clients closed, by close code: {codes:?}"));
    }
    Ok(samples)
}

/// Adds the rows, the faults and the values over time.
fn tell(bench: &mut Bench, mut measured: Measured, samples: &Samples) -> Result<()> {
    (measured.windows, measured.peak) = (samples.windows()?, samples.peak());
    for (name, tally) in &measured.tallies {
        for fault in &tally.faults {
            bench.fault(format!("{name}: {fault}"));
        }
        if tally.faulty > tally.faults.len() as u64 {
            bench.note(format!("{name}: {} faults in all", tally.faulty));
        }
    }
    let rows = rows::rows(&measured);
    rows::faults(&rows, measured.seconds).into_iter().for_each(|fault| bench.fault(fault));
    rows.into_iter().for_each(|row| bench.row(row));
    bench.timelines(samples.timelines()?);
    Ok(())
}
