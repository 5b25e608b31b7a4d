//! A JSON Web Key Set: fetched over HTTP when a token needs it, and kept for an hour.
//!
//! Owns the last set that was fetched. Never verifies a token. The invariants: a key of the set is
//! available at once, also during a fetch. At most one fetch runs, outside the lock, and it begins
//! at least 5 seconds after the end of the previous one, whatever keys tokens name. Until a later
//! fetch shows that the set lacks a key, the key counts as unavailable, because the set may be
//! older than the key. Names of unknown keys take no memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::Request;
use http_body_util::{BodyExt, Full, Limited};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::base::secret::Address;
use crate::control::backend::client::Client;
use crate::control::backend::endpoint::{Endpoint, causes};
use crate::model::token::KeySet;

/// Time after which a set is fetched again.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Minimum pause between two fetches.
const FETCH_PAUSE: Duration = Duration::from_secs(5);
/// Timeout of one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of attempts per fetch.
const ATTEMPTS: usize = 3;
/// Maximum size of a set in bytes.
const BYTES_MAX: usize = 1 << 20;

/// Result of looking a key up.
#[derive(Clone)]
pub enum KeyLookup {
    /// The set has the key.
    Found(Arc<KeySet>),
    /// A set that was fetched after the lookup began lacks the key.
    Missing(Arc<KeySet>),
    /// The last set lacks the key, and no newer set could be fetched.
    Unavailable,
}

#[derive(Default)]
struct FetchState {
    /// The last set, and when it is to be fetched again.
    keys: Option<(Arc<KeySet>, Instant)>,
    /// Earliest time of the next fetch; `None`: at once.
    next: Option<Instant>,
    /// The last fetch failed.
    failed: bool,
    /// A fetch is in progress.
    fetching: bool,
}

/// The key set at one address.
pub struct RemoteKeySet {
    client: Client,
    endpoint: Result<Endpoint, String>,
    address: Address,
    state: Mutex<FetchState>,
    /// Number of fetches that have ended.
    fetches: watch::Sender<u64>,
}

impl RemoteKeySet {
    /// The set at `address`. It is fetched when a token needs it.
    pub fn new(client: Client, address: &Address) -> Self {
        RemoteKeySet {
            client,
            endpoint: Endpoint::new(address),
            address: address.clone(),
            state: Mutex::default(),
            fetches: watch::Sender::new(0),
        }
    }

    /// Looks the key `kid` up without waiting, and starts a fetch if one is due. `None`: the fetch
    /// in progress decides.
    pub fn look_up(self: &Arc<Self>, kid: &str) -> Option<KeyLookup> {
        let (mut state, now) = (self.state(), Instant::now());
        let may_fetch = !state.fetching && state.next.is_none_or(|next| next <= now);
        let keys = state.keys.clone();
        if let Some((keys, until)) = keys.filter(|(keys, _)| keys.has(kid)) {
            // An old set is used until a new one arrives.
            if may_fetch && until <= now {
                self.start_fetch(&mut state);
            }
            return Some(KeyLookup::Found(keys));
        }
        if may_fetch {
            self.start_fetch(&mut state);
        }
        // The set may be older than the key: only a fetch that ends later shows it.
        (!state.fetching).then_some(KeyLookup::Unavailable)
    }

    /// Looks the key `kid` up; if the set lacks it, after the fetch in progress.
    pub async fn look_up_after_fetch(self: &Arc<Self>, kid: &str) -> KeyLookup {
        let mut fetches = self.fetches.subscribe();
        if let Some(found) = self.look_up(kid) {
            return found;
        }
        // The sender lives as long as `self`.
        let _ = fetches.changed().await;
        let state = self.state();
        match &state.keys {
            Some((keys, _)) if keys.has(kid) => KeyLookup::Found(keys.clone()),
            _ => state.lookup_of_missing_key(),
        }
    }

    fn state(&self) -> MutexGuard<'_, FetchState> {
        // No code that holds the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a fetch.
    fn start_fetch(self: &Arc<Self>, state: &mut FetchState) {
        state.fetching = true;
        let remote = self.clone();
        tokio::spawn(async move {
            let fetched = remote.fetch().await;
            if let Err(cause) = &fetched {
                let address = &remote.address;
                tracing::warn!(target: "tokens", "cannot use the key set at {address}: {cause}");
            }
            let mut state = remote.state();
            state.fetching = false;
            state.failed = fetched.is_err();
            state.next = Some(Instant::now() + FETCH_PAUSE);
            if let Ok(keys) = fetched {
                state.keys = Some((Arc::new(keys), Instant::now() + LIFETIME));
            }
            drop(state);
            remote.fetches.send_modify(|fetches| *fetches += 1);
        });
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let endpoint = self.endpoint.as_ref()?;
        let mut cause = String::new();
        for _ in 0..ATTEMPTS {
            match timeout(ATTEMPT_TIMEOUT, self.attempt(endpoint)).await {
                // A set without keys does not replace a set with keys.
                Ok(Ok(bytes)) => match KeySet::parse(&bytes)? {
                    keys if keys.is_empty() => return Err("the set has no usable key".into()),
                    keys => return Ok(keys),
                },
                Ok(Err(error)) => cause = error,
                Err(_) => cause = format!("no answer within {ATTEMPT_TIMEOUT:?}"),
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
            return Err(format!("the server answered {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
        Ok(body.map_err(|error| format!("cannot read the answer: {error}"))?.to_bytes())
    }
}

impl FetchState {
    /// Result for a key that the last set lacks.
    fn lookup_of_missing_key(&self) -> KeyLookup {
        match &self.keys {
            Some((keys, _)) if !self.failed => KeyLookup::Missing(keys.clone()),
            _ => KeyLookup::Unavailable,
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
    use crate::tls::client::default_client;

    /// A server of a key set that answers as many requests as `allowed` has permits.
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

        fn remote(&self) -> Arc<RemoteKeySet> {
            Arc::new(RemoteKeySet::new(plain_client(), &self.address))
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    fn plain_client() -> Client {
        client::client(default_client().unwrap(), "")
    }

    fn set() -> String {
        let samples: serde_json::Value =
            serde_json::from_str(include_str!("../../model/token/samples.json")).unwrap();
        samples["set"].to_string()
    }

    fn is_key(found: &KeyLookup) -> bool {
        matches!(found, KeyLookup::Found(_))
    }

    #[tokio::test]
    async fn known_keys_are_available_while_a_fetch_runs() {
        let origin = Origin::start(set()).await;
        let remote = origin.remote();
        origin.allowed.add_permits(1);
        assert!(is_key(&remote.look_up_after_fetch("rsa").await));
        assert!(
            matches!(remote.look_up_after_fetch("new").await, KeyLookup::Unavailable),
            "the set may be older"
        );
        assert_eq!(origin.asked(), 1);
        // The next fetch is due, and the server does not answer it yet.
        remote.state().next = None;
        let waiting: Vec<_> = (0..50)
            .map(|number| {
                let remote = remote.clone();
                tokio::spawn(
                    async move { remote.look_up_after_fetch(&format!("new-{number}")).await },
                )
            })
            .collect();
        while origin.asked() < 2 {
            tokio::task::yield_now().await;
        }
        assert!(remote.look_up("rsa").as_ref().is_some_and(is_key), "without waiting");
        assert!(is_key(&remote.look_up_after_fetch("p256").await));
        assert!(remote.look_up("another").is_none() && remote.state().fetching);
        assert_eq!(origin.asked(), 2, "one fetch for all");
        origin.allowed.add_permits(ATTEMPTS);
        for one in waiting {
            assert!(matches!(one.await.unwrap(), KeyLookup::Missing(_)));
        }
        for number in 0..50 {
            assert!(matches!(
                remote.look_up_after_fetch(&format!("late-{number}")).await,
                KeyLookup::Unavailable
            ));
        }
        assert!(origin.asked() <= 1 + ATTEMPTS, "{}", origin.asked());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_fetch_is_repeated_after_a_pause() {
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let remote =
            Arc::new(RemoteKeySet::new(plain_client(), &format!("http://{unused}/").into()));
        for round in 1..4 {
            for _ in 0..10 {
                assert!(matches!(remote.look_up_after_fetch("rsa").await, KeyLookup::Unavailable));
            }
            assert_eq!(*remote.fetches.borrow(), round);
            advance(FETCH_PAUSE).await;
        }
    }

    #[tokio::test]
    async fn an_old_set_is_used_until_a_new_one_arrives() {
        let origin = Origin::start(set()).await;
        let remote = origin.remote();
        origin.allowed.add_permits(1);
        assert!(is_key(&remote.look_up_after_fetch("rsa").await));
        remote.state().keys.as_mut().unwrap().1 = Instant::now();
        assert!(remote.look_up("rsa").as_ref().is_some_and(is_key));
        assert!(!remote.state().fetching, "the pause is not over");
        remote.state().next = None;
        assert!(remote.look_up("rsa").as_ref().is_some_and(is_key), "an old set is still used");
        assert!(remote.state().fetching, "a fetch has begun");
        assert!(remote.look_up("rsa").as_ref().is_some_and(is_key));
    }
}
