//! Tokens of the tests, signed with HMAC.

use drumline::base::sys;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::Value;

pub const SECRET: &str = "a-secret-for-tests";

/// The time in unix seconds.
pub fn now() -> u64 {
    sys::unix_millis() / 1000
}

/// A token with these claims.
pub fn signed(claims: &Value, secret: &str) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}
