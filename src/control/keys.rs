//! Key sets that tokens are checked by (JWKS): fetched over HTTP, kept for an hour.
//!
//! Owns what was fetched last. Never judges a token. The invariants: one fetch at a time, and none
//! sooner than some seconds after the one before, whatever keys tokens name.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::Uri;
use http_body_util::{BodyExt, Limited};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::control::backend::Client;
use crate::log;
use crate::secret::Address;
use crate::token::KeySet;

/// How long a set holds.
const HOLDS: Duration = Duration::from_secs(3600);
/// Between two fetches, at least.
const PAUSE: Duration = Duration::from_secs(5);
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Attempts of a fetch.
const ATTEMPTS: usize = 3;
/// Bytes of a set at most.
const BYTES_MAX: usize = 1 << 20;

struct Cached {
    keys: Option<Arc<KeySet>>,
    fetched: Instant,
}

/// The key set at one address.
pub struct KeySets {
    client: Client,
    address: Address,
    cached: Mutex<Option<Cached>>,
}

impl KeySets {
    /// The set at `address`, which is fetched when it is needed.
    pub fn new(client: Client, address: Address) -> Self {
        KeySets { client, address, cached: Mutex::new(None) }
    }

    /// The set; `None`: it cannot be had now.
    pub async fn get(&self) -> Option<Arc<KeySet>> {
        self.newer_than(None).await
    }

    /// A set that was fetched after this one, or any without one; `None`: there is none yet.
    pub async fn newer_than(&self, known: Option<&Arc<KeySet>>) -> Option<Arc<KeySet>> {
        let mut cached = self.cached.lock().await;
        let is_newer = |keys: &Arc<KeySet>| known.is_none_or(|known| !Arc::ptr_eq(keys, known));
        if let Some(Cached { keys, fetched }) = &*cached {
            if let Some(keys) = keys.as_ref().filter(|keys| is_newer(keys))
                && fetched.elapsed() < HOLDS
            {
                return Some(keys.clone());
            }
            if fetched.elapsed() < PAUSE {
                return None;
            }
        }
        let fetched = self.fetch().await.map(Arc::new);
        if let Err(cause) = &fetched {
            log::warn(
                "tokens",
                format_args!("cannot use the key set at {}: {cause}", self.address),
            );
        }
        // One that cannot be had again is better than none.
        let kept = cached.take().and_then(|cached| cached.keys);
        let keys = fetched.ok().or(kept);
        *cached = Some(Cached { keys: keys.clone(), fetched: Instant::now() });
        keys.filter(is_newer)
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let mut cause = String::new();
        for _ in 0..ATTEMPTS {
            match timeout(PATIENCE, self.attempt()).await {
                Ok(Ok(bytes)) => return KeySet::parse(&bytes),
                Ok(Err(error)) => cause = error,
                Err(_) => cause = format!("no answer within {PATIENCE:?}"),
            }
        }
        Err(cause)
    }

    async fn attempt(&self) -> Result<Bytes, String> {
        let address: Uri = self.address.reveal().parse().map_err(|error| format!("{error}"))?;
        let answer = self.client.get(address).await.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("the answer is {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes())
    }
}
