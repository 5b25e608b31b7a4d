//! A seeded simulation of whole nodes: shards, a bus whose inboxes mostly hold one message, a store
//! whose disk is slow and fails, sockets that take a random part of each send, crashes and power
//! cuts with restarts, and model clients, some with TLS, that check all input.
//!
//! `DRUMLINE_SIMULATION_SEEDS=n` runs n seeds instead of the default. `DRUMLINE_SIMULATION_SEED=s`
//! runs only seed s, which a failure names; with `DRUMLINE_SIMULATION_TRACE=1` it prints what
//! happens. Planted faults prove that the checks work. Those inside the hub, the homes and the
//! store need a feature: `cargo test --test simulation --features planted-faults`.

/// Prints what happens, if the trace is on.
macro_rules! trace {
    ($($text:tt)*) => {
        if *crate::TRACE {
            println!($($text)*);
        }
    };
}

mod backend;
mod bus;
mod client;
mod clock;
mod control;
mod disk;
mod faults;
mod ledger;
mod random;
mod shard;
mod store;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Instant;

use faults::Fault;
use world::{Account, STEPS_MIN, World};

/// Seeds of an ordinary run.
const SEEDS: u64 = 200;
/// What repeats a run, behind the variable with its seed.
const REPLAY: &str =
    "cargo test --features planted-faults --test simulation every_seed -- --nocapture";
/// Seeds that are run twice.
const REPEATED: u64 = 8;

static TRACE: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("DRUMLINE_SIMULATION_TRACE").is_some());

fn run(seed: u64, fault: Option<Fault>) -> Result<Account, String> {
    let ran = catch_unwind(AssertUnwindSafe(|| World::new(seed, fault).run()));
    let account = ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })?;
    let is_long = account.steps >= STEPS_MIN;
    is_long.then_some(account).ok_or(format!("only {} steps", account.steps))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Runs all seeds, as many at a time as there are processors. Returns the events of each, and the
/// errors of those that failed.
fn run_all(seeds: Range<u64>) -> (Vec<usize>, Vec<(u64, String)>) {
    let next = AtomicU64::new(seeds.start);
    let (events, failures) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            match run(seed, None) {
                Ok(account) => events.lock().expect("no thread panics").push(account.steps),
                Err(error) => failures.lock().expect("no thread panics").push((seed, error)),
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| _ = scope.spawn(work));
    });
    let mut failures = failures.into_inner().expect("no thread panics");
    failures.sort();
    (events.into_inner().expect("no thread panics"), failures)
}

#[test]
fn every_seed_runs_without_a_violation() {
    let seeds = match number("DRUMLINE_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DRUMLINE_SIMULATION_SEEDS").unwrap_or(SEEDS),
    };
    let begin = Instant::now();
    let (events, failures) = run_all(seeds);
    let (count, seconds) = (events.len(), begin.elapsed().as_secs_f64());
    let least = events.iter().min().copied().unwrap_or_default();
    let mean = events.iter().sum::<usize>() / count.max(1);
    let failed = failures.len();
    println!(
        "simulation: {count} seeds passed, {failed} failed; events per seed: \
         minimum {least}, mean {mean}; {seconds:.1} s"
    );
    let lines = failures.iter().take(20);
    let lines =
        lines.map(|(seed, error)| format!("{error}\n  DRUMLINE_SIMULATION_SEED={seed} {REPLAY}"));
    let lines: Vec<String> = lines.collect();
    assert!(
        lines.is_empty(),
        "{failed} failed; each line names its command:\n{}",
        lines.join("\n")
    );
}

/// What clients read and where publications are is part of the account, as a hash. Hash tables of
/// the standard library have other keys in every thread.
#[test]
fn the_same_seed_gives_the_same_trace() {
    let all = || (0..REPEATED).map(|seed| run(seed, None)).collect::<Vec<_>>();
    let other = std::thread::spawn(all);
    assert_eq!(all(), other.join().expect("no seed panics"));
}
