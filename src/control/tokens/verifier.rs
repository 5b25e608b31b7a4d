//! Verifies tokens that would take a shard too long: tokens with asymmetric signatures, and tokens
//! whose key must be fetched.
//!
//! Owns the threads that verify. Never delays a shard. The invariant: at most half as many tokens
//! as processors are verified at a time. The shards bound the bytes of the tokens that wait.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::base::memory::Charge;
use crate::base::sys;
use crate::config::Config;
use crate::control::backend::client::Client;
use crate::control::tokens::remote_key_set::KeyLookup;
use crate::control::tokens::remote_key_sets::{KeySetMissing, RemoteKeySets};
use crate::hub::TokenVerifiers;
use crate::link::Link;
use crate::model::ids::Address;
use crate::model::message::{LookupOutcome, LookupReply, Message, TokenPurpose};
use crate::model::token::{self, KeySet};

/// Divisor of `engine.question_budget`: tokens that wait for a key set may use this fraction of it,
/// so that room is left for other tokens.
const FETCHING_PART: usize = 8;
/// Memory of a waiting token beside its own bytes.
const WAITING_EACH: usize = 1024;

/// A token and its purpose.
struct UnverifiedToken {
    token: Box<str>,
    purpose: TokenPurpose,
}

/// Verifies tokens.
#[derive(Clone)]
pub struct TokenVerifier {
    link: Arc<Link>,
    tokens: TokenVerifiers,
    connection_keys: Option<Arc<RemoteKeySets>>,
    subscription_keys: Option<Arc<RemoteKeySets>>,
    waiting_bytes: Arc<Semaphore>,
    /// Permits to verify, one per concurrent token.
    threads: Arc<Semaphore>,
}

impl TokenVerifier {
    /// Sends outcomes by `link`.
    pub fn new(link: Arc<Link>, config: &Config, client: &Client) -> Self {
        let keys = |purpose| {
            let address = config.token_settings(purpose).jwks_public_endpoint;
            (!address.is_empty()).then(|| Arc::new(RemoteKeySets::new(client.clone(), address)))
        };
        // Half of the processors; the others are left for the shards.
        let threads = (sys::processors() / 2).max(1);
        let waiting_bytes = config.engine.question_budget / FETCHING_PART;
        TokenVerifier {
            link,
            tokens: config.tokens(),
            connection_keys: keys(TokenPurpose::Connection),
            subscription_keys: keys(TokenPurpose::Subscription),
            waiting_bytes: Arc::new(Semaphore::new(waiting_bytes)),
            threads: Arc::new(Semaphore::new(threads)),
        }
    }

    /// A verifier of a new configuration. A key set whose address is the same stays.
    pub fn reloaded(&self, config: &Config, client: &Client) -> Self {
        let new = TokenVerifier::new(self.link.clone(), config, client);
        let kept = |old: &Option<Arc<RemoteKeySets>>, new: Option<Arc<RemoteKeySets>>| {
            let same = old
                .clone()
                .filter(|old| new.as_ref().is_some_and(|new| new.address() == old.address()));
            same.or(new)
        };
        TokenVerifier {
            connection_keys: kept(&self.connection_keys, new.connection_keys),
            subscription_keys: kept(&self.subscription_keys, new.subscription_keys),
            waiting_bytes: self.waiting_bytes.clone(),
            threads: self.threads.clone(),
            ..new
        }
    }

    /// Verifies a token in a task of its own, and sends the outcome to the shard that asked. The
    /// charge counts the token's memory until then.
    pub fn verify(&self, address: Address, token: Box<str>, purpose: TokenPurpose, charge: Charge) {
        let verifier = self.clone();
        tokio::spawn(async move {
            let _charge = charge;
            let outcome = verifier.outcome(UnverifiedToken { token, purpose }).await;
            let reply = Message::LookupReply(Box::new(LookupReply { address, outcome }));
            verifier.link.send_persistently(address.shard, reply).await;
        });
    }

    async fn outcome(&self, token: UnverifiedToken) -> LookupOutcome {
        let remote = match token.purpose {
            TokenPurpose::Connection => self.connection_keys.as_ref(),
            TokenPurpose::Subscription => self.subscription_keys.as_ref(),
        };
        let Some(remote) = remote else { return self.verify_with(token, None).await };
        let verifier = match token.purpose {
            TokenPurpose::Connection => &self.tokens.connection,
            TokenPurpose::Subscription => &self.tokens.subscription,
        };
        let remote = match remote.of(|| verifier.key_address_values(&token.token)) {
            Ok(remote) => remote,
            Err(KeySetMissing::Full) => return LookupOutcome::Busy,
            // No key verifies it.
            Err(KeySetMissing::Invalid) => return self.verify_with(token, None).await,
        };
        // Shards send no token without a key ID.
        let kid = token::key_name(&token.token).unwrap_or_default();
        let found = match remote.look_up(&kid) {
            Some(found) => found,
            None => {
                let bytes = (token.token.len() + WAITING_EACH) as u32;
                let Ok(_place) = self.waiting_bytes.try_acquire_many(bytes) else {
                    return LookupOutcome::Busy;
                };
                remote.look_up_after_fetch(&kid).await
            }
        };
        match found {
            KeyLookup::Found(keys) | KeyLookup::Missing(keys) => {
                self.verify_with(token, Some(keys)).await
            }
            KeyLookup::Unavailable => LookupOutcome::Busy,
        }
    }

    async fn verify_with(
        &self,
        token: UnverifiedToken,
        keys: Option<Arc<KeySet>>,
    ) -> LookupOutcome {
        let Ok(_thread) = self.threads.acquire().await else { return LookupOutcome::Busy };
        let tokens = self.tokens.clone();
        let work = tokio::task::spawn_blocking(move || {
            let (now, keys) = (sys::unix_millis() / 1000, keys.as_deref());
            match token.purpose {
                TokenPurpose::Connection => {
                    LookupOutcome::Connection(tokens.connection.connection(&token.token, now, keys))
                }
                TokenPurpose::Subscription => {
                    let verifier = &tokens.subscription;
                    LookupOutcome::Subscription(verifier.subscription(&token.token, now, keys))
                }
            }
        });
        work.await.unwrap_or(LookupOutcome::Busy)
    }
}
