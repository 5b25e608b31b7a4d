//! Tokens that take long to look at: asymmetric signatures and keys that must be fetched, on
//! threads of their own.
//!
//! Owns the queue of them. Never delays a shard. The invariant: at most so many are looked at at a
//! time. The shards bound the bytes of those that wait.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::config::Config;
use crate::control::backend::Client;
use crate::control::keys::KeySets;
use crate::control::link::Link;
use crate::hub::Tokens;
use crate::ids::Address;
use crate::memory::Charge;
use crate::message::{Consulted, Message, Purpose, Verdict};
use crate::sys;
use crate::token::{KeySet, Refusal};

/// A token and what it is for.
struct Verify {
    token: Box<str>,
    purpose: Purpose,
}

/// Looks at tokens.
#[derive(Clone)]
pub struct Keeper {
    link: Arc<Link>,
    tokens: Tokens,
    connection_keys: Option<Arc<KeySets>>,
    subscription_keys: Option<Arc<KeySets>>,
    /// One token is looked at on as many threads.
    hands: Arc<Semaphore>,
}

impl Keeper {
    /// Answers by `link`.
    pub fn new(link: Arc<Link>, config: &Config, client: &Client) -> Self {
        let keys = |purpose| {
            let address = config.token_settings(purpose).jwks_public_endpoint;
            (!address.is_empty()).then(|| Arc::new(KeySets::new(client.clone(), address.into())))
        };
        // Half the processors, so that the shards keep the others.
        let hands = (sys::processors() / 2).max(1);
        Keeper {
            link,
            tokens: config.tokens(),
            connection_keys: keys(Purpose::Connection),
            subscription_keys: keys(Purpose::Subscription),
            hands: Arc::new(Semaphore::new(hands)),
        }
    }

    /// Looks at a token some time soon, and answers the shard that asked.
    /// The charge counts the token until then.
    pub fn look_at(&self, address: Address, token: Box<str>, purpose: Purpose, charge: Charge) {
        let keeper = self.clone();
        tokio::spawn(async move {
            let _charge = charge;
            let verdict = keeper.verdict(Verify { token, purpose }).await;
            let answer = Message::Consulted(Box::new(Consulted { address, verdict }));
            keeper.link.tell_at_last(address.shard, answer).await;
        });
    }

    async fn verdict(&self, verify: Verify) -> Verdict {
        let sets = match verify.purpose {
            Purpose::Connection => self.connection_keys.as_ref(),
            Purpose::Subscription => self.subscription_keys.as_ref(),
        };
        let Some(sets) = sets else { return self.look(&Arc::new(verify), None).await };
        let Some(keys) = sets.get().await else { return Verdict::Busy };
        let verify = Arc::new(verify);
        let verdict = self.look(&verify, Some(keys.clone())).await;
        if !lacks_key(&verdict) {
            return verdict;
        }
        // A key that is not there may be a new one.
        match sets.newer_than(Some(&keys)).await {
            Some(newer) => self.look(&verify, Some(newer)).await,
            None => verdict,
        }
    }

    async fn look(&self, verify: &Arc<Verify>, keys: Option<Arc<KeySet>>) -> Verdict {
        let Ok(_hand) = self.hands.acquire().await else { return Verdict::Busy };
        let (tokens, verify) = (self.tokens.clone(), verify.clone());
        let work = tokio::task::spawn_blocking(move || {
            let (now, keys) = (sys::unix_millis() / 1000, keys.as_deref());
            match verify.purpose {
                Purpose::Connection => {
                    Verdict::Connection(tokens.connection.connection(&verify.token, now, keys))
                }
                Purpose::Subscription => {
                    let verifier = &tokens.subscription;
                    Verdict::Subscription(verifier.subscription(&verify.token, now, keys))
                }
            }
        });
        work.await.unwrap_or(Verdict::Busy)
    }
}

fn lacks_key(verdict: &Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Connection(Err(Refusal::NoKey)) | Verdict::Subscription(Err(Refusal::NoKey))
    )
}
