//! Proxy requests: questions of shards to the backend, and its answers.
//!
//! Owns the queue of requests. Never delays a shard. The invariant: at most [`WAITING_MAX`]
//! requests wait or are in progress. Beyond that a client gets a temporary error.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::base::current::Current;
use crate::control::backend::targets::Backend;
use crate::control::metrics::family::Family;
use crate::control::metrics::names::Names;
use crate::link::Link;
use crate::model::backend::{ProxyAnswer, ProxyEvent, ProxyFailure, ProxyRequest};
use crate::model::ids::Address;
use crate::model::message::{LookupOutcome, LookupReply, Message};

/// Maximum number of requests that wait or are in progress, each of at most 64 KiB.
const WAITING_MAX: usize = 4096;

/// Sends proxy requests to the backend.
#[derive(Clone)]
pub struct Proxies {
    link: Arc<Link>,
    backend: Arc<Current<Backend>>,
    waiting: Arc<Semaphore>,
}

impl Proxies {
    /// Sends requests to `backend`, and the answers to shards by `link`.
    pub fn new(link: Arc<Link>, backend: Arc<Current<Backend>>) -> Self {
        Proxies { link, backend, waiting: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    /// Asks the backend about a client's command, and sends the answer to the shard.
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

    /// Asks the backend to renew a connection or subscription, and sends the answer to the shard.
    pub fn renew(&self, address: Address, request: ProxyRequest) {
        let proxies = self.clone();
        tokio::spawn(async move {
            // If the shard gets no answer, it asks again later.
            let Ok(_place) = proxies.waiting.try_acquire() else { return };
            let answer = proxies.answer(&request).await;
            let channel = match request.event {
                ProxyEvent::SubRefresh { channel } => Some(channel),
                _ => None,
            };
            proxies.reply(address, LookupOutcome::Renewal(channel, answer)).await;
        });
    }

    async fn answer(&self, request: &ProxyRequest) -> Result<ProxyAnswer, ProxyFailure> {
        let backend = self.backend.get();
        let call = backend.calls().begin(request);
        let answer = backend.ask(request).await;
        call.end(answer == Err(ProxyFailure::Failed));
        answer
    }

    async fn reply(&self, address: Address, outcome: LookupOutcome) {
        let answer = Message::LookupReply(Box::new(LookupReply { address, outcome }));
        self.link.send_persistently(address.shard, answer).await;
    }

    /// Metrics of the proxies.
    pub fn families(&self, names: &Names) -> Vec<Family> {
        let in_progress = WAITING_MAX - self.waiting.available_permits();
        self.backend.get().calls().families(in_progress, names)
    }
}
