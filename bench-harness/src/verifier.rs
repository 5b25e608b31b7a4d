//! A child process that only verifies tokens, with the server's verifier: the control of `flood`.
//!
//! Owns the child's tokens, threads and orders. Never opens a socket. Invariant: the child exits
//! with an error on the first refused token, so every counted token was verified.

use std::io::BufRead;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use drumline::model::token::{TokenSettings, Verifier};
use rustix::process::setpriority_process;

use crate::subprocess::{QUIT, Subprocess, answer, ready};

/// Orders to the child: `load TOKEN ...`, then `verify`.
const LOAD: &str = "load";
const VERIFY: &str = "verify";

/// Options of the child.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Public key of the tokens, in PEM.
    #[arg(long)]
    key: String,
    /// Number of threads that verify.
    #[arg(long)]
    threads: usize,
    /// Niceness of the threads.
    #[arg(long, allow_negative_numbers = true)]
    nice: i32,
}

/// The running child.
pub struct Control {
    process: Subprocess,
}

impl Control {
    /// Starts a child that verifies with `key` on `threads` threads of niceness `nice`.
    pub fn start(key: &str, threads: usize, nice: i32) -> Result<Self> {
        let arguments =
            [format!("--key={key}"), format!("--threads={threads}"), format!("--nice={nice}")];
        Ok(Control { process: Subprocess::start("verifier", &arguments)? })
    }

    /// Sends the child the tokens that it verifies next.
    pub fn load(&mut self, tokens: &[String]) -> Result<()> {
        self.process.order(&format!("{LOAD} {}", tokens.join(" ")))?;
        let answer = self.process.answer()?;
        ensure!(answer == tokens.len().to_string(), "the verifier loaded `{answer}` tokens");
        Ok(())
    }

    /// Starts the verification. [`Control::finish`] waits for its end.
    pub fn begin(&mut self) -> Result<()> {
        self.process.order(VERIFY)
    }

    /// Waits until all tokens are verified. Returns the duration.
    pub fn finish(&mut self) -> Result<Duration> {
        let line = self.process.answer()?;
        let nanoseconds = line.parse().with_context(|| format!("the verifier said `{line}`"))?;
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Ends the child.
    pub fn stop(self) -> Result<()> {
        self.process.stop()
    }
}

/// The server's verifier with this public key of an elliptic curve, in PEM.
pub fn of(key: &str) -> Result<Verifier> {
    let settings = TokenSettings { ecdsa_public_key: key.to_owned(), ..TokenSettings::default() };
    Verifier::new(&settings).map_err(|cause| anyhow!(cause))
}

/// Runs the child: reads orders from standard input, answers on standard output.
pub fn serve(options: &Options) -> Result<()> {
    let verifier = of(&options.key)?;
    let told = || format!("cannot take a niceness of {}", options.nice);
    setpriority_process(None, options.nice).with_context(told)?;
    let mut tokens: Vec<String> = Vec::new();
    ready()?;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read an order")?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            (LOAD, rest) => {
                tokens = rest.split(' ').map(str::to_owned).collect();
                answer(&tokens.len().to_string())?;
            }
            (VERIFY, "") => answer(&verify(&verifier, &tokens, options.threads)?.to_string())?,
            (QUIT, "") => return Ok(()),
            (order, _) => bail!("`{order}` is no command; use `{LOAD} TOKEN ...` or `{VERIFY}`"),
        }
    }
    Ok(())
}

/// Verifies all tokens, split evenly over the threads. Returns the duration in ns.
fn verify(verifier: &Verifier, tokens: &[String], threads: usize) -> Result<u128> {
    let begun = Instant::now();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let share = tokens.len().div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            tokens.chunks(share).map(|part| scope.spawn(|| all(verifier, part, now))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| anyhow!("a thread of the verifier panicked"))?
        })
    })?;
    Ok(begun.elapsed().as_nanos())
}

fn all(verifier: &Verifier, tokens: &[String], now: u64) -> Result<()> {
    for token in tokens {
        let claims = verifier.connection(token, now, None);
        ensure!(claims.is_ok(), "a token of our own was refused: {claims:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signer::Signer;

    #[test]
    fn one_invalid_token_fails_the_verification() {
        let mut signer = Signer::new().unwrap();
        let verifier = of(&signer.public_key().unwrap()).unwrap();
        let mut tokens: Vec<String> =
            (0..5).map(|_| signer.token(4_000_000_000).unwrap()).collect();
        for threads in [1, 2, 9] {
            assert!(verify(&verifier, &tokens, threads).unwrap() > 0);
        }
        tokens[3].pop();
        assert!(verify(&verifier, &tokens, 2).is_err());
    }
}
