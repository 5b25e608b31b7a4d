//! Certificates from an ACME authority: requested, kept in a folder, renewed.
//!
//! Owns the account and the schedule. Never ends the process after the start. The invariants: a
//! folder that cannot be written is refused before any order; a failed attempt is counted, logged
//! and repeated, and the certificate of before stays in use.

mod authority;
mod cache;
mod challenge_port;

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use self::authority::Authority;
use self::cache::Cache;
use self::challenge_port::Tokens;
use crate::base::failure::Failure;
use crate::base::metrics::MetricKind;
use crate::config::Config;
use crate::control::metrics::Metric;
use crate::tls::issued::Issued;
use crate::tls::{Tls, Validity};

/// Pause between two looks at the lifetimes.
const PAUSE: Duration = Duration::from_secs(5);
/// Pause after the first failed attempt. It doubles with each one.
const FIRST_RETRY: Duration = Duration::from_secs(60);
/// Maximum pause after a failed attempt.
const LAST_RETRY: Duration = Duration::from_secs(60 * 60);
/// Maximum pause as a part of the certificate's lifetime.
const RETRY_PART: u64 = 30;

/// How often certificates were issued, and how often not.
#[derive(Debug, Default)]
pub struct AcmeCounters {
    issued: AtomicU64,
    failures: AtomicU64,
}

impl AcmeCounters {
    /// The metrics.
    pub fn metrics(&self) -> Vec<Metric> {
        let metric = |name, help, value: &AtomicU64| Metric {
            name,
            help,
            kind: MetricKind::Total,
            value: value.load(Ordering::Relaxed),
        };
        vec![
            metric("acme_issued", "Certificates that the ACME authority issued.", &self.issued),
            metric(
                "acme_failures",
                "Failed attempts to get a certificate from the ACME authority.",
                &self.failures,
            ),
        ]
    }
}

/// Requests certificates.
pub struct Acme {
    hosts: Vec<String>,
    issued: Arc<Issued>,
    cache: Cache,
    authority: Authority,
    /// The port for http-01; `None`: challenges are answered at the public port.
    port: Option<TcpListener>,
    tokens: Tokens,
    counters: Arc<AcmeCounters>,
}

/// Failed attempts for a host.
#[derive(Default)]
struct Attempts {
    failed: u32,
    next: Option<Instant>,
}

impl Acme {
    /// Reads the folder and binds the port for challenges; `None`: it is not enabled.
    ///
    /// # Errors
    /// The folder cannot be written, or the port cannot be bound.
    pub fn prepare(config: &Config, tls: &Tls) -> Result<Option<Self>, Failure> {
        let options = &config.http_server.tls_autocert;
        let Some(issued) = tls.ports.issued.clone() else { return Ok(None) };
        let cache = Cache::open(&options.cache_dir)?;
        let hosts: Vec<String> =
            options.host_whitelist.iter().map(|host| host.to_ascii_lowercase()).collect();
        for host in &hosts {
            let path = cache.certificate(host);
            if path.exists()
                && let Err(refused) = issued.load(host, &path)
            {
                tracing::warn!(target: "acme", "{refused}; a new certificate is requested");
            }
        }
        let port = options.http.then(|| challenge_port::bind(&options.http_addr)).transpose()?;
        let authority = Authority::new(options)?;
        let (tokens, counters) = (Tokens::default(), Arc::default());
        Ok(Some(Acme { hosts, issued, cache, authority, port, tokens, counters }))
    }

    /// The counters.
    pub fn counters(&self) -> Arc<AcmeCounters> {
        self.counters.clone()
    }

    /// Requests and renews certificates as long as the process runs. `stopped` ends the port for
    /// challenges.
    ///
    /// # Errors
    /// The runtime cannot take the port.
    pub fn start(mut self, config: &Config, stopped: watch::Receiver<()>) -> io::Result<()> {
        if let Some(port) = self.port.take() {
            challenge_port::serve(port, self.tokens.clone(), config.head_limits(), stopped)?;
        }
        tokio::spawn(self.run());
        Ok(())
    }

    async fn run(mut self) {
        let mut attempts: HashMap<String, Attempts> = HashMap::new();
        loop {
            for host in self.hosts.clone() {
                let attempt = attempts.entry(host.clone()).or_default();
                let is_early = attempt.next.is_some_and(|next| Instant::now() < next);
                if !is_early && self.issued.is_due(&host) {
                    self.attempt(&host, attempt).await;
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn attempt(&mut self, host: &str, attempt: &mut Attempts) {
        let Acme { issued, cache, authority, tokens, .. } = self;
        let answer = authority::Challenges { issued, tokens, by_http: authority.uses_http() };
        let got = authority.order(host, cache, &answer).await;
        let kept = match got {
            Ok(pem) => cache
                .keep(host, &pem)
                .and_then(|path| issued.load(host, &path).map_err(|refused| refused.to_string())),
            Err(cause) => Err(cause),
        };
        match kept {
            Ok(()) => {
                self.counters.issued.fetch_add(1, Ordering::Relaxed);
                *attempt = Attempts::default();
                tracing::info!(target: "acme", "the authority issued a certificate for {host}");
            }
            Err(cause) => {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                attempt.failed += 1;
                let pause = pause(attempt.failed, self.issued.validity(host));
                attempt.next = Some(Instant::now() + pause);
                tracing::warn!(target: "acme", "cannot get a certificate for {host}: {cause} (attempt {}, the next one in \
                         {} s); the certificate of before, if there is one, stays in use",
                        attempt.failed,
                        pause.as_secs(),
                );
            }
        }
    }
}

/// Pause after the attempt number `failed`. It is a small part of a short lifetime.
fn pause(failed: u32, validity: Option<Validity>) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << failed.saturating_sub(1).min(10));
    let lifetime = validity.map(|found| found.lifetime().max(0).cast_unsigned());
    let part = lifetime.map_or(LAST_RETRY, |lifetime| Duration::from_secs(lifetime / RETRY_PART));
    doubled.min(LAST_RETRY).min(part.max(PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_attempts_are_repeated_with_growing_pauses_within_the_lifetime() {
        let pauses = [1, 2, 3, 6, 7, 100].map(|failed| pause(failed, None).as_secs());
        assert_eq!(pauses, [60, 120, 240, 1920, 3600, 3600]);
        let ten_minutes = Some(Validity { not_before: 1000, not_after: 1600 });
        let short = [1, 2, 9].map(|failed| pause(failed, ten_minutes).as_secs());
        assert_eq!(short, [20, 20, 20], "ten attempts in the last third of ten minutes");
        let long = Validity { not_before: 0, not_after: 90 * 86_400 };
        let long = pause(9, Some(long)).as_secs();
        assert_eq!(long, 3600);
    }
}
