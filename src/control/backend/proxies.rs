//! Questions of the shards to the backend, and its answers.
//!
//! Owns the queue of them. Never delays a shard. The invariant: at most so many wait or are under
//! way; past that a client is told to try again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;

use crate::base::metrics::MetricKind;
use crate::control::backend::targets::Backend;
use crate::control::metrics::Metric;
use crate::link::Link;
use crate::model::backend::{ProxyAnswer, ProxyEvent, ProxyFailure, ProxyRequest};
use crate::model::ids::Address;
use crate::model::message::{LookupOutcome, LookupReply, Message};

/// Questions that wait or are under way, at most: of 64 KiB each at the worst.
const WAITING_MAX: usize = 4096;

/// Asks the backend.
#[derive(Clone)]
pub struct Proxies {
    link: Arc<Link>,
    backend: Arc<Backend>,
    waiting: Arc<Semaphore>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    failures: AtomicU64,
}

impl Proxies {
    /// Answers by `link`.
    pub fn new(link: Arc<Link>, backend: Arc<Backend>) -> Self {
        let waiting = Arc::new(Semaphore::new(WAITING_MAX));
        Proxies { link, backend, waiting, counts: Arc::default() }
    }

    /// Asks what a client's command waits for, and answers the shard.
    pub fn ask(&self, address: Address, request: ProxyRequest) {
        let proxies = self.clone();
        tokio::spawn(async move {
            let outcome = match proxies.waiting.try_acquire() {
                Ok(_place) => LookupOutcome::Command(proxies.answer(&request).await),
                Err(_) => LookupOutcome::Busy,
            };
            proxies.reply(address, outcome).await;
        });
    }

    /// Asks how much longer something holds, and answers the shard.
    pub fn renew(&self, address: Address, request: ProxyRequest) {
        let proxies = self.clone();
        tokio::spawn(async move {
            // Without an answer the shard asks again later.
            let Ok(_place) = proxies.waiting.try_acquire() else { return };
            let told = proxies.answer(&request).await;
            let channel = match request.event {
                ProxyEvent::SubRefresh { channel } => Some(channel),
                _ => None,
            };
            proxies.reply(address, LookupOutcome::Renewal(channel, told)).await;
        });
    }

    async fn answer(&self, request: &ProxyRequest) -> Result<ProxyAnswer, ProxyFailure> {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let answer = self.backend.ask(request).await;
        if answer == Err(ProxyFailure::Failed) {
            self.counts.failures.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    async fn reply(&self, address: Address, outcome: LookupOutcome) {
        let answer = Message::LookupReply(Box::new(LookupReply { address, outcome }));
        self.link.send_persistently(address.shard, answer).await;
    }

    /// How it goes.
    pub fn metrics(&self) -> Vec<Metric> {
        let under_way = WAITING_MAX - self.waiting.available_permits();
        let Counts { requests, failures } = &*self.counts;
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        vec![
            Metric {
                name: "proxy_requests",
                meaning: "Questions to the backend.",
                kind: MetricKind::Total,
                value: number(requests),
            },
            Metric {
                name: "proxy_failures",
                meaning: "Questions to the backend without an answer that can be understood.",
                kind: MetricKind::Total,
                value: number(failures),
            },
            Metric {
                name: "proxy_waiting",
                meaning: "Questions to the backend that wait or are under way.",
                kind: MetricKind::Gauge,
                value: under_way as u64,
            },
        ]
    }
}
