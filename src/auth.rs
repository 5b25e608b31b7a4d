//! Who may do what: origins, and what a client may do in a channel.
//!
//! Owns the rules as data. Never asks anybody. The invariant: what no rule allows is refused.

use std::hint::black_box;

/// Rules of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Origins that browsers may come from: globs, `*` for any. The server's own host always may.
    pub allowed_origins: Vec<String>,
    /// Connect without a token.
    pub anonymous: bool,
    /// Everybody may do everything.
    pub insecure: bool,
    /// Clients with a user may subscribe.
    pub subscribe_for_client: bool,
    /// Clients without a user may subscribe.
    pub subscribe_for_anonymous: bool,
    /// Clients with a user may publish.
    pub publish_for_client: bool,
    /// Clients without a user may publish.
    pub publish_for_anonymous: bool,
    /// Subscribers may publish into their channel.
    pub publish_for_subscriber: bool,
}

impl Rules {
    /// Whether a browser page of `origin` may connect to a server that it calls `host`.
    pub fn allows_origin(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        let own = origin.split_once("://").map(|(_, rest)| rest);
        if own.is_some() && own == host {
            return true;
        }
        let origin = origin.to_ascii_lowercase();
        self.allowed_origins.iter().any(|glob| glob_matches(&glob.to_ascii_lowercase(), &origin))
    }

    /// Whether a client without a token may connect.
    pub fn allows_connect(&self) -> bool {
        self.insecure || self.anonymous
    }

    /// Whether a client without a user may subscribe. A private channel needs a token, which
    /// such a client cannot have.
    pub fn allows_subscribe(&self, channel: &str) -> bool {
        let open = self.subscribe_for_client && self.subscribe_for_anonymous;
        self.insecure || (open && !channel.starts_with('$') && !channel.contains('#'))
    }

    /// Whether a client without a user may publish.
    pub fn allows_publish(&self, subscribed: bool) -> bool {
        self.insecure
            || (self.publish_for_client && self.publish_for_anonymous)
            || (self.publish_for_subscriber && subscribed)
    }
}

/// Who may use the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiKey {
    /// The key to give; empty: nobody has it.
    pub key: String,
    /// Whether everybody may without a key.
    pub insecure: bool,
}

impl ApiKey {
    /// Whether a request that gives this key may go on.
    pub fn opens_for(&self, given: Option<&str>) -> bool {
        let right =
            |given: &str| !self.key.is_empty() && same(self.key.as_bytes(), given.as_bytes());
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
    }

    #[test]
    fn what_no_rule_allows_is_refused() {
        let none = Rules::default();
        assert!(
            !none.allows_connect() && !none.allows_subscribe("a") && !none.allows_publish(true)
        );
        let open = Rules {
            subscribe_for_client: true,
            subscribe_for_anonymous: true,
            publish_for_subscriber: true,
            ..Rules::default()
        };
        assert!(open.allows_subscribe("a") && !open.allows_subscribe("$a"));
        assert!(open.allows_publish(true) && !open.allows_publish(false));
    }
}
