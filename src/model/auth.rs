//! Who may come: origins, and who may use the API.
//!
//! Owns the rules as data. Never asks anybody. The invariant: what no rule allows is refused.

use std::hint::black_box;

use crate::base::secret::Secret;
use crate::wire::http::origin::is_own_page;

/// Rules of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Origins that browsers may come from: globs, `*` for any. The server's own host always may.
    pub allowed_origins: Vec<String>,
    /// Connect without a token.
    pub anonymous: bool,
    /// A token must name a user.
    pub no_anonymous_tokens: bool,
    /// Everybody may do everything.
    pub insecure: bool,
    /// The server is open to its own machine alone: requests of others are refused.
    pub local: bool,
}

impl Rules {
    /// Whether a browser page of `origin` may connect to a server that it calls `host`. Letters
    /// count the same in both cases. The server's own page may, by whichever scheme: a proxy may
    /// end TLS.
    pub fn allows_origin(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if host.is_some_and(|host| is_own_page(origin, host)) {
            return true;
        }
        let origin = origin.to_ascii_lowercase();
        self.allowed_origins.iter().any(|glob| glob_matches(&glob.to_ascii_lowercase(), &origin))
    }
}

/// Who may use the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiKey {
    /// The key to give; empty: nobody has it.
    pub key: Secret,
    /// Whether everybody may without a key.
    pub insecure: bool,
}

impl ApiKey {
    /// Whether a request that gives this key may go on.
    pub fn opens_for(&self, given: Option<&str>) -> bool {
        let key = self.key.reveal();
        let right = |given: &str| !key.is_empty() && same(key.as_bytes(), given.as_bytes());
        self.insecure || given.is_some_and(right)
    }
}

/// Whether two texts are the same, in a time that tells nothing but their lengths.
fn same(one: &[u8], other: &[u8]) -> bool {
    let differences =
        one.iter().zip(other).fold(0, |found, (one, other)| black_box(found | (one ^ other)));
    one.len() == other.len() && differences == 0
}

/// Whether `text` matches `glob`, in which `*` stands for any run of characters.
pub fn glob_matches(glob: &str, text: &str) -> bool {
    let Some((first, rest)) = glob.split_once('*') else { return glob == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_opens() {
        let key = |key: &str, insecure| ApiKey { key: key.into(), insecure };
        assert!(key("secret", false).opens_for(Some("secret")));
        for given in [None, Some(""), Some("secre"), Some("secret!"), Some("Secret")] {
            assert!(!key("secret", false).opens_for(given), "{given:?}");
            assert!(!key("", false).opens_for(given), "{given:?}");
            assert!(key("", true).opens_for(given), "{given:?}");
        }
    }

    #[test]
    fn globs() {
        let check = |glob, text, expected| assert_eq!(glob_matches(glob, text), expected, "{glob}");
        check("*", "anything", true);
        check("https://*.example.com", "https://a.example.com", true);
        check("https://*.example.com", "https://example.org", false);
        check("a*b*c", "aXbYc", true);
        check("a*b*c", "ac", false);
        check("ab*b", "ab", false);
        check("plain", "plain", true);
    }

    #[test]
    fn origins() {
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
