//! Key sets that tokens are checked by (JWKS): fetched over HTTP, kept for an hour.
//!
//! Owns what was fetched last. Never judges a token. The invariants: a key that is known is given
//! at once, whether a fetch is under way or not; one fetch at a time, outside the lock, and none
//! sooner than some seconds after the one before, whatever keys tokens name. Until then a key that
//! the set lacks is told as unavailable, since the set may be older than the key. What tokens name
//! takes no memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::Request;
use http_body_util::{BodyExt, Full, Limited};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::base::log;
use crate::base::secret::Address;
use crate::control::backend::Client;
use crate::control::endpoint::{Endpoint, causes};
use crate::model::token::KeySet;

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

/// What is known of a key.
#[derive(Clone)]
pub enum Found {
    /// The set has it.
    Key(Arc<KeySet>),
    /// A set that was fetched after the question has no such key.
    NoKey(Arc<KeySet>),
    /// No set has the key, and none could be fetched since the question.
    Unavailable,
}

#[derive(Default)]
struct State {
    /// What was fetched last, and until when it holds.
    keys: Option<(Arc<KeySet>, Instant)>,
    /// When the next fetch may begin; `None`: at once.
    next: Option<Instant>,
    /// Whether the last fetch failed.
    failed: bool,
    /// Whether a fetch is under way.
    fetching: bool,
}

/// The key set at one address.
pub struct KeySets {
    client: Client,
    endpoint: Result<Endpoint, String>,
    shown: String,
    state: Mutex<State>,
    /// The number of fetches that have ended.
    fetches: watch::Sender<u64>,
}

impl KeySets {
    /// The set at `address`, which is fetched when it is needed.
    pub fn new(client: Client, address: &Address) -> Self {
        KeySets {
            client,
            endpoint: Endpoint::new(address),
            shown: address.to_string(),
            state: Mutex::default(),
            fetches: watch::Sender::new(0),
        }
    }

    /// What is known of the key `kid` without waiting; a fetch is started where one is due. `None`:
    /// the fetch that is under way will tell.
    pub fn known(self: &Arc<Self>, kid: &str) -> Option<Found> {
        let (mut state, now) = (self.state(), Instant::now());
        let may_fetch = !state.fetching && state.next.is_none_or(|next| next <= now);
        let keys = state.keys.clone();
        if let Some((keys, until)) = keys.filter(|(keys, _)| keys.has(kid)) {
            // An old set serves until a new one is there.
            if may_fetch && until <= now {
                self.begin(&mut state);
            }
            return Some(Found::Key(keys));
        }
        if may_fetch {
            self.begin(&mut state);
        }
        // The set may be older than the key: only a fetch that ends after the question tells.
        (!state.fetching).then_some(Found::Unavailable)
    }

    /// What is known of the key `kid`, once the fetch that is under way has ended.
    pub async fn get(self: &Arc<Self>, kid: &str) -> Found {
        let mut fetches = self.fetches.subscribe();
        if let Some(found) = self.known(kid) {
            return found;
        }
        // The sender lives as long as `self`.
        let _ = fetches.changed().await;
        let state = self.state();
        match &state.keys {
            Some((keys, _)) if keys.has(kid) => Found::Key(keys.clone()),
            _ => state.without(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a fetch.
    fn begin(self: &Arc<Self>, state: &mut State) {
        state.fetching = true;
        let sets = self.clone();
        tokio::spawn(async move {
            let fetched = sets.fetch().await;
            if let Err(cause) = &fetched {
                let what = format_args!("cannot use the key set at {}: {cause}", sets.shown);
                log::warn("tokens", what);
            }
            let mut state = sets.state();
            state.fetching = false;
            state.failed = fetched.is_err();
            state.next = Some(Instant::now() + PAUSE);
            if let Ok(keys) = fetched {
                state.keys = Some((Arc::new(keys), Instant::now() + HOLDS));
            }
            drop(state);
            sets.fetches.send_modify(|fetches| *fetches += 1);
        });
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let endpoint = self.endpoint.as_ref()?;
        let mut cause = String::new();
        for _ in 0..ATTEMPTS {
            match timeout(PATIENCE, self.attempt(endpoint)).await {
                // Keys that verify tokens are not given up for a set without any.
                Ok(Ok(bytes)) => match KeySet::parse(&bytes)? {
                    keys if keys.is_empty() => return Err("it has no key that can be used".into()),
                    keys => return Ok(keys),
                },
                Ok(Err(error)) => cause = error,
                Err(_) => cause = format!("no answer within {PATIENCE:?}"),
            }
        }
        Err(cause)
    }

    async fn attempt(&self, endpoint: &Endpoint) -> Result<Bytes, String> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = endpoint.uri();
        endpoint.authorize(request.headers_mut());
        let answer = self.client.request(request).await.map_err(|error| causes(&error))?;
        if !answer.status().is_success() {
            return Err(format!("the answer is {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
        Ok(body.map_err(|error| format!("the body of the answer: {error}"))?.to_bytes())
    }
}

impl State {
    /// What is known of a key that the set does not have.
    fn without(&self) -> Found {
        match &self.keys {
            Some((keys, _)) if !self.failed => Found::NoKey(keys.clone()),
            _ => Found::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;
    use tokio::time::advance;

    use crate::control::backend::client;

    /// A server of a key set that answers as many requests as it is allowed to.
    struct Origin {
        address: Address,
        allowed: Arc<Semaphore>,
        asked: Arc<AtomicUsize>,
    }

    impl Origin {
        /// `set` is the body of each answer.
        async fn start(set: String) -> Origin {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (allowed, asked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
            let (allow, count) = (allowed.clone(), asked.clone());
            tokio::spawn(async move {
                while let Ok((mut socket, _)) = listener.accept().await {
                    let (allow, count, set) = (allow.clone(), count.clone(), set.clone());
                    tokio::spawn(async move {
                        let mut request = [0; 4096];
                        assert!(socket.read(&mut request).await.unwrap() > 0);
                        count.fetch_add(1, Ordering::SeqCst);
                        allow.acquire().await.unwrap().forget();
                        let length = set.len();
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n");
                        let answer = format!("{head}Connection: close\r\n\r\n{set}");
                        let _ = socket.write_all(answer.as_bytes()).await;
                    });
                }
            });
            Origin { address: format!("http://127.0.0.1:{port}/keys").into(), allowed, asked }
        }

        fn sets(&self) -> Arc<KeySets> {
            Arc::new(KeySets::new(client(), &self.address))
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    fn set() -> String {
        let samples: serde_json::Value =
            serde_json::from_str(include_str!("../model/token/samples.json")).unwrap();
        samples["set"].to_string()
    }

    fn is_key(found: &Found) -> bool {
        matches!(found, Found::Key(_))
    }

    #[tokio::test]
    async fn known_keys_are_given_at_once_while_a_fetch_runs() {
        let origin = Origin::start(set()).await;
        let sets = origin.sets();
        origin.allowed.add_permits(1);
        assert!(is_key(&sets.get("rsa").await));
        assert!(matches!(sets.get("new").await, Found::Unavailable), "the set may be older");
        assert_eq!(origin.asked(), 1);
        // The time of the next fetch has come, and its answer is held back.
        sets.state().next = None;
        let waiting: Vec<_> = (0..50)
            .map(|number| {
                let sets = sets.clone();
                tokio::spawn(async move { sets.get(&format!("new-{number}")).await })
            })
            .collect();
        while origin.asked() < 2 {
            tokio::task::yield_now().await;
        }
        assert!(sets.known("rsa").as_ref().is_some_and(is_key), "without waiting");
        assert!(is_key(&sets.get("p256").await));
        assert!(sets.known("another").is_none() && sets.state().fetching);
        assert_eq!(origin.asked(), 2, "one fetch for all");
        origin.allowed.add_permits(ATTEMPTS);
        for one in waiting {
            assert!(matches!(one.await.unwrap(), Found::NoKey(_)));
        }
        for number in 0..50 {
            assert!(matches!(sets.get(&format!("late-{number}")).await, Found::Unavailable));
        }
        assert!(origin.asked() <= 1 + ATTEMPTS, "{}", origin.asked());
    }

    #[tokio::test(start_paused = true)]
    async fn a_set_that_cannot_be_fetched_is_asked_for_again_after_a_pause() {
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let sets = Arc::new(KeySets::new(client(), &format!("http://{unused}/").into()));
        for round in 1..4 {
            for _ in 0..10 {
                assert!(matches!(sets.get("rsa").await, Found::Unavailable));
            }
            assert_eq!(*sets.fetches.borrow(), round);
            advance(PAUSE).await;
        }
    }

    #[tokio::test]
    async fn old_keys_serve_until_new_ones_are_there() {
        let origin = Origin::start(set()).await;
        let sets = origin.sets();
        origin.allowed.add_permits(1);
        assert!(is_key(&sets.get("rsa").await));
        sets.state().keys.as_mut().unwrap().1 = Instant::now();
        assert!(sets.known("rsa").as_ref().is_some_and(is_key));
        assert!(!sets.state().fetching, "not before the pause is over");
        sets.state().next = None;
        assert!(sets.known("rsa").as_ref().is_some_and(is_key), "old as it is");
        assert!(sets.state().fetching, "and a fetch has begun");
        assert!(sets.known("rsa").as_ref().is_some_and(is_key));
    }
}
