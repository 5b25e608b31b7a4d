//! Values that must not be shown: keys, passwords, and URLs that may contain them.
//!
//! Owns the text. Never prints it: `Debug`, `Display` and serialisation redact it, so a value can
//! reach a log, an error or the startup banner only by a call of `reveal`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text shown instead of a secret.
const REDACTED: &str = "***";

/// A key or a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

/// The URL of a backend. Shown without user, password, query and fragment.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Address(String);

macro_rules! hidden {
    ($($name:ident),*) => {
        $(
            impl $name {
                /// The text itself. Callers must never show it to an operator or a client.
                pub fn reveal(&self) -> &str {
                    &self.0
                }

                /// Whether the value is not set.
                pub fn is_empty(&self) -> bool {
                    self.0.is_empty()
                }
            }

            impl From<String> for $name {
                fn from(text: String) -> Self {
                    $name(text)
                }
            }

            impl From<&str> for $name {
                fn from(text: &str) -> Self {
                    $name(text.to_owned())
                }
            }

            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    write!(f, "{:?}", self.to_string())
                }
            }

            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    String::deserialize(deserializer).map($name)
                }
            }
        )*
    };
}

hidden!(Secret, Address);

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "" } else { REDACTED })
    }
}

impl fmt::Display for Address {
    /// A password may contain any character, so everything up to the last `@` is hidden.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = match self.0.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                (Some(scheme), rest)
            }
            _ => (None, &*self.0),
        };
        if let Some(scheme) = scheme {
            write!(f, "{scheme}://")?;
        }
        let (before, shown) =
            rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        // An `@` after a `?` or `#` may belong to the query. The whole rest is then hidden.
        if before.is_some_and(|before| before.contains(['?', '#'])) {
            return f.write_str(REDACTED);
        }
        if before.is_some() {
            write!(f, "{REDACTED}@")?;
        }
        match shown.find(['?', '#']) {
            Some(at) => write!(f, "{}{REDACTED}", &shown[..=at]),
            None => f.write_str(shown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::from("hunter2");
        for shown in [
            secret.to_string(),
            format!("{secret:?}"),
            format!("{:?}", Some(vec![secret.clone()])),
            serde_json::to_string(&secret).unwrap(),
        ] {
            assert!(!shown.contains("hunter2") && shown.contains("***"), "{shown}");
        }
        assert_eq!(Secret::default().to_string(), "");
        assert_eq!(serde_json::from_str::<Secret>("\"hunter2\"").unwrap().reveal(), "hunter2");
    }

    #[test]
    fn an_address_is_shown_without_user_password_query_and_fragment() {
        for (address, shown) in [
            ("", ""),
            ("http://a:3000/b/c", "http://a:3000/b/c"),
            ("https://user:pass@a/b", "https://***@a/b"),
            ("https://user@a/b", "https://***@a/b"),
            ("https://user:p@ss@a/b", "https://***@a/b"),
            ("https://user:p/ss@a/b", "https://***@a/b"),
            ("https://user:p?ss@a/b", "https://***"),
            ("https://a/b?token=t&c=d", "https://a/b?***"),
            ("https://u:p@a/b?token=t", "https://***@a/b?***"),
            ("https://a/b#t", "https://a/b#***"),
            ("https://a/b?mail=x@y&token=t", "https://***"),
            ("user:pass@a/b?t", "***@a/b?***"),
            ("htt p://user:pass@a", "***@a"),
        ] {
            assert_eq!(Address::from(address).to_string(), shown);
            assert_eq!(format!("{:?}", Address::from(address)), format!("{shown:?}"));
        }
    }
}
