//! Tokens verified per second of one processor.
//!
//! Owns the rows of `tokens`. Never starts a server: the engine's verifier runs on this thread.
//! Invariant: all tokens differ, and the verifier accepts each one.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use drumline::model::token::{TokenSettings, Verifier, make_connection};
use rustix::time::{ClockId, clock_gettime};

use super::{Bench, Common};
use crate::rows::Row;

/// Tokens that are verified in turn.
const TOKENS: u64 = 10_000;
/// Target: tokens per second on one processor.
const HMAC_RATE: f64 = 200_000.0;
/// Some day in 2026, in unix seconds: verifying reads no clock.
const NOW: u64 = 1_790_000_000;

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let mut bench = Bench::new(common, "tokens", "Tokens verified", (TOKENS, 3))?;
    let secret = "a-secret-of-thirty-two-characters".to_owned();
    let settings = TokenSettings { hmac_secret_key: secret, ..TokenSettings::default() };
    let verifier = Verifier::new(&settings).map_err(|cause| anyhow!(cause))?;
    let tokens: Vec<String> = (0..bench.connections)
        .map(|user| make_connection(&settings, &format!("user-{user}"), Some(3600), NOW))
        .collect::<Result<_, _>>()
        .map_err(|cause| anyhow!(cause))?;
    let (begun, cpu) = (Instant::now(), thread_time());
    let mut verified = 0u64;
    while begun.elapsed() < Duration::from_secs(bench.seconds) {
        for token in &tokens {
            let claims = verifier.connection(token, NOW, None);
            ensure!(claims.is_ok(), "a token of our own was refused: {claims:?}");
        }
        verified += tokens.len() as u64;
    }
    let took = (thread_time() - cpu).as_secs_f64();
    let row = Row::new("HS256, per second of one processor", verified as f64 / took, "count");
    bench.row(row.at_least(HMAC_RATE));
    bench.row(Row::new("HS256, one token", took * 1e9 / verified as f64, "ns"));
    bench.finish()
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
