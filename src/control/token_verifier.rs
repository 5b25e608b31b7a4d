//! Tokens that take long to look at: asymmetric signatures and keys that must be fetched, on
//! threads of their own.
//!
//! Owns the queue of them. Never delays a shard. The invariant: at most so many are looked at at a
//! time. The shards bound the bytes of those that wait.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::base::memory::Charge;
use crate::base::sys;
use crate::config::Config;
use crate::control::backend::Client;
use crate::control::keys::{Found, KeySets};
use crate::hub::TokenVerifiers;
use crate::link::Link;
use crate::model::ids::Address;
use crate::model::message::{LookupOutcome, LookupReply, Message, Purpose};
use crate::model::token::{self, KeySet};

/// Part of the bytes of all questions that tokens which wait for a key set may take, so that they
/// keep no others from being looked at.
const FETCHING_PART: usize = 8;
/// What it takes for one to wait, beside its own bytes.
const WAITING_EACH: usize = 1024;

/// A token and what it is for.
struct Verify {
    token: Box<str>,
    purpose: Purpose,
}

/// Looks at tokens.
#[derive(Clone)]
pub struct TokenVerifier {
    link: Arc<Link>,
    tokens: TokenVerifiers,
    connection_keys: Option<Arc<KeySets>>,
    subscription_keys: Option<Arc<KeySets>>,
    fetching: Arc<Semaphore>,
    /// One token is looked at on as many threads.
    hands: Arc<Semaphore>,
}

impl TokenVerifier {
    /// Answers by `link`.
    pub fn new(link: Arc<Link>, config: &Config, client: &Client) -> Self {
        let keys = |purpose| {
            let address = config.token_settings(purpose).jwks_public_endpoint;
            (!address.is_empty()).then(|| Arc::new(KeySets::new(client.clone(), &address.into())))
        };
        // Half the processors, so that the shards keep the others.
        let hands = (sys::processors() / 2).max(1);
        let fetching = config.engine.question_budget / FETCHING_PART;
        TokenVerifier {
            link,
            tokens: config.tokens(),
            connection_keys: keys(Purpose::Connection),
            subscription_keys: keys(Purpose::Subscription),
            fetching: Arc::new(Semaphore::new(fetching)),
            hands: Arc::new(Semaphore::new(hands)),
        }
    }

    /// Looks at a token some time soon, and answers the shard that asked.
    /// The charge counts the token until then.
    pub fn look_at(&self, address: Address, token: Box<str>, purpose: Purpose, charge: Charge) {
        let keeper = self.clone();
        tokio::spawn(async move {
            let _charge = charge;
            let outcome = keeper.outcome(Verify { token, purpose }).await;
            let answer = Message::LookupReply(Box::new(LookupReply { address, outcome }));
            keeper.link.tell_at_last(address.shard, answer).await;
        });
    }

    async fn outcome(&self, verify: Verify) -> LookupOutcome {
        let sets = match verify.purpose {
            Purpose::Connection => self.connection_keys.as_ref(),
            Purpose::Subscription => self.subscription_keys.as_ref(),
        };
        let Some(sets) = sets else { return self.look(verify, None).await };
        // A shard lets no token without a key's name come here.
        let kid = token::key_name(&verify.token).unwrap_or_default();
        let found = match sets.known(&kid) {
            Some(found) => found,
            None => {
                let bytes = (verify.token.len() + WAITING_EACH) as u32;
                let Ok(_place) = self.fetching.try_acquire_many(bytes) else {
                    return LookupOutcome::Busy;
                };
                sets.get(&kid).await
            }
        };
        match found {
            Found::Key(keys) | Found::NoKey(keys) => self.look(verify, Some(keys)).await,
            Found::Unavailable => LookupOutcome::Busy,
        }
    }

    async fn look(&self, verify: Verify, keys: Option<Arc<KeySet>>) -> LookupOutcome {
        let Ok(_hand) = self.hands.acquire().await else { return LookupOutcome::Busy };
        let tokens = self.tokens.clone();
        let work = tokio::task::spawn_blocking(move || {
            let (now, keys) = (sys::unix_millis() / 1000, keys.as_deref());
            match verify.purpose {
                Purpose::Connection => LookupOutcome::Connection(tokens.connection.connection(
                    &verify.token,
                    now,
                    keys,
                )),
                Purpose::Subscription => {
                    let verifier = &tokens.subscription;
                    LookupOutcome::Subscription(verifier.subscription(&verify.token, now, keys))
                }
            }
        });
        work.await.unwrap_or(LookupOutcome::Busy)
    }
}
