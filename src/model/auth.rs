//! Access rules: origins of browsers, anonymous clients, and API keys.
//!
//! Owns the rules as data. The invariant: access that no rule allows is refused.

use crate::model::glob::glob_matches;
use std::hint::black_box;

use crate::base::secret::Secret;
use crate::wire::http::origin::is_own_page;

/// Access rules of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Globs of allowed browser origins; `*`: all. The server's own origin is always allowed.
    pub allowed_origins: Vec<String>,
    /// Allow clients to connect without a token.
    pub anonymous: bool,
    /// Refuse tokens without a user ID.
    pub no_anonymous_tokens: bool,
    /// Allow every client every operation. For development only.
    pub insecure: bool,
    /// Refuse requests that do not come from this machine.
    pub local: bool,
}

impl Rules {
    /// Whether a browser page of `origin` may connect to the server as `host`. Ignores case.
    /// Pages of the server itself may connect with any scheme, because a proxy may terminate TLS.
    pub fn allows_origin(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if host.is_some_and(|host| is_own_page(origin, host)) {
            return true;
        }
        let origin = origin.to_ascii_lowercase();
        self.allowed_origins.iter().any(|glob| glob_matches(&glob.to_ascii_lowercase(), &origin))
    }
}

/// Access rule of the HTTP API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiKey {
    /// The API key; empty: no key is valid.
    pub key: Secret,
    /// Another key that is valid too, while clients change from one key to the next; empty: none.
    pub previous: Secret,
    /// Allow requests without a key.
    pub insecure: bool,
}

impl ApiKey {
    /// Whether a request with this key is allowed.
    pub fn opens_for(&self, given: Option<&str>) -> bool {
        let keys = [self.key.reveal(), self.previous.reveal()];
        let matches = |given: &str| {
            keys.iter().any(|key| !key.is_empty() && equal(key.as_bytes(), given.as_bytes()))
        };
        self.insecure || given.is_some_and(matches)
    }
}

/// Compares in constant time: the duration depends only on the lengths.
fn equal(one: &[u8], other: &[u8]) -> bool {
    let differences =
        one.iter().zip(other).fold(0, |found, (one, other)| black_box(found | (one ^ other)));
    one.len() == other.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_configured_api_key_is_valid() {
        let key = |key: &str, insecure| ApiKey { key: key.into(), insecure, ..ApiKey::default() };
        assert!(key("secret", false).opens_for(Some("secret")));
        for given in [None, Some(""), Some("secre"), Some("secret!"), Some("Secret")] {
            assert!(!key("secret", false).opens_for(given), "{given:?}");
            assert!(!key("", false).opens_for(given), "{given:?}");
            assert!(key("", true).opens_for(given), "{given:?}");
        }
        let two = ApiKey { previous: "old".into(), ..key("new", false) };
        assert!(two.opens_for(Some("new")) && two.opens_for(Some("old")));
        assert!(!two.opens_for(Some("newold")) && !two.opens_for(Some("")));
    }

    #[test]
    fn the_own_origin_and_allowed_origins_may_connect() {
        let rules = Rules { allowed_origins: vec!["https://*.a.com".into()], ..Rules::default() };
        let check = |origin, host, expected| {
            assert_eq!(rules.allows_origin(origin, host), expected, "{origin:?}");
        };
        check(None, None, true);
        check(Some("http://localhost:8000"), Some("localhost:8000"), true);
        check(Some("http://localhost:8000"), Some("localhost:9000"), false);
        check(Some("https://x.A.com"), Some("b"), true);
        check(Some("null"), None, false);
        check(Some("https://LocalHost:8000"), Some("localHOST:8000"), true);
        check(Some("localhost:8000"), Some("localhost:8000"), false);
        check(Some("https://"), Some(""), true);
        check(Some("https://b"), None, false);
    }
}
