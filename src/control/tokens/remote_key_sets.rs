//! The key sets of an address with names: one for each address that tokens lead to.
//!
//! Owns the sets. The invariant: the number of sets is bounded, whatever tokens contain.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::control::backend::client::Client;
use crate::control::tokens::remote_key_set::RemoteKeySet;
use crate::model::token::{self, TokenError};

/// Maximum number of key sets. Tokens that lead to further ones get a temporary error.
const SETS_MAX: usize = 256;

/// Why there is no key set for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySetMissing {
    /// The claims of the token lead to no address.
    Invalid,
    /// There are too many sets.
    Full,
}

/// The key sets at the addresses that a configured address describes.
pub struct RemoteKeySets {
    client: Client,
    address: String,
    /// Whether the address contains names.
    is_template: bool,
    sets: Mutex<HashMap<String, Arc<RemoteKeySet>>>,
}

impl RemoteKeySets {
    /// The sets that `address` describes. A set is fetched when a token needs it.
    pub fn new(client: Client, address: String) -> Self {
        let is_template = token::is_template(&address);
        RemoteKeySets { client, address, is_template, sets: Mutex::default() }
    }

    /// The configured address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The set for a token whose claims have these values.
    pub fn of(
        &self,
        values: impl FnOnce() -> Result<Vec<(String, String)>, TokenError>,
    ) -> Result<Arc<RemoteKeySet>, KeySetMissing> {
        let address = if self.is_template {
            let values = values().map_err(|_| KeySetMissing::Invalid)?;
            token::resolve(&self.address, &values).ok_or(KeySetMissing::Invalid)?
        } else {
            self.address.clone()
        };
        // No code that holds the lock leaves the map half changed.
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = sets.get(&address) {
            return Ok(found.clone());
        }
        if sets.len() >= SETS_MAX {
            return Err(KeySetMissing::Full);
        }
        let set = Arc::new(RemoteKeySet::new(self.client.clone(), &address.clone().into()));
        sets.insert(address, set.clone());
        Ok(set)
    }
}
