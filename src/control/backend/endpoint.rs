//! The URL of an HTTP server: the target of requests, and the user and password in it.
//!
//! Owns user and password, if the URL has them. The invariant: neither appears in a request line,
//! an error or a log line. Both are sent as Basic authorization.

use std::error::Error;
use std::fmt;

use axum::http::header::AUTHORIZATION;
use axum::http::uri::{Authority, Parts};
use axum::http::{HeaderMap, HeaderValue, Uri};
use data_encoding::BASE64;
use percent_encoding::percent_decode_str;

use crate::base::secret::Address;

/// The URL of an HTTP server. Displayed without secrets.
pub struct Endpoint {
    uri: Uri,
    authorization: Option<HeaderValue>,
    shown: String,
}

impl Endpoint {
    /// Parses an address. The error contains no part of it.
    pub fn new(address: &Address) -> Result<Self, String> {
        let invalid = || "the address is not a valid URL".to_owned();
        let uri: Uri = address.reveal().parse().map_err(|_| invalid())?;
        let mut parts = uri.into_parts();
        let user = take_user(&mut parts).ok_or_else(invalid)?;
        Ok(Endpoint {
            uri: Uri::from_parts(parts).map_err(|_| invalid())?,
            authorization: user.map(|user| basic(&user)),
            shown: address.to_string(),
        })
    }

    /// Target of a request, without user and password.
    pub fn uri(&self) -> Uri {
        self.uri.clone()
    }

    /// Adds the authorization of the address, unless the request already has one.
    pub fn authorize(&self, headers: &mut HeaderMap) {
        if let Some(authorization) = &self.authorization {
            headers.entry(AUTHORIZATION).or_insert_with(|| authorization.clone());
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Removes `user:password` from an address; `None`: the rest is not a valid host.
fn take_user(parts: &mut Parts) -> Option<Option<String>> {
    let Some(authority) = &parts.authority else { return Some(None) };
    let Some((user, host)) = authority.as_str().rsplit_once('@') else { return Some(None) };
    let (user, host) = (user.to_owned(), host.parse::<Authority>().ok()?);
    parts.authority = Some(host);
    Some(Some(user))
}

/// The header for percent-encoded `user:password`. A missing password is empty.
fn basic(user: &str) -> HeaderValue {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let mut plain: Vec<u8> = percent_decode_str(name).collect();
    plain.push(b':');
    plain.extend(percent_decode_str(password));
    let text = format!("Basic {}", BASE64.encode(&plain));
    let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Basic Og=="));
    value.set_sensitive(true);
    value
}

/// An error with all its causes.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_are_sent_as_basic_authorization_and_never_shown() {
        for (address, uri, expected) in [
            ("http://a:3000/b?c=d", "http://a:3000/b?c=d", None),
            ("http://bob:secret@a:3000/b", "http://a:3000/b", Some("bob:secret")),
            ("https://bob@a/", "https://a/", Some("bob:")),
            ("https://:secret@a/", "https://a/", Some(":secret")),
            ("https://b%40b:p%3Aw%2F%C3%A4@[::1]:1/", "https://[::1]:1/", Some("b@b:p:w/\u{e4}")),
        ] {
            let endpoint = Endpoint::new(&Address::from(address)).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(endpoint.uri().to_string(), uri);
            let mut headers = HeaderMap::new();
            endpoint.authorize(&mut headers);
            let basic = headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
            let basic = basic.map(|value| value.strip_prefix("Basic ").unwrap().to_owned());
            let plain = basic.map(|value| BASE64.decode(value.as_bytes()).unwrap());
            assert_eq!(plain.as_deref(), expected.map(str::as_bytes), "{address}");
            let shown = endpoint.to_string();
            assert!(!shown.contains("bob") && !shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn an_authorization_of_the_request_is_kept() {
        let endpoint =
            Endpoint::new(&"http://bob:secret@a/".into()).unwrap_or_else(|e| panic!("{e}"));
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        endpoint.authorize(&mut headers);
        assert_eq!(headers.get(AUTHORIZATION).unwrap(), "Bearer x");
    }

    #[test]
    fn an_error_contains_no_part_of_the_address() {
        for address in ["http://bob:secret@", "http:// bob:secret@a/", "http://bob:secret@a b/"] {
            let error = Endpoint::new(&address.into()).err().unwrap_or_default();
            assert_eq!(error, "the address is not a valid URL", "{address}");
        }
    }
}
