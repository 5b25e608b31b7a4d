//! Creation of tokens for tests and development.
//!
//! Owns nothing. Never creates a token that the server with the same settings would refuse.

use jsonwebtoken::{EncodingKey, encode};
use serde_json::{Map, Value};

use super::settings::TokenSettings;

/// Creates a connection token for `user`, signed with HS256. `ttl` is in seconds; `None`: the token
/// does not expire. An error names the setting with which the server would refuse the token.
pub fn make_connection(
    settings: &TokenSettings,
    user: &str,
    ttl: Option<u64>,
    now: u64,
) -> Result<String, String> {
    make(settings, user, None, ttl, now)
}

/// Creates a subscription token for `user` and `channel`; see [`make_connection`].
pub fn make_subscription(
    settings: &TokenSettings,
    user: &str,
    channel: &str,
    ttl: Option<u64>,
    now: u64,
) -> Result<String, String> {
    make(settings, user, Some(channel), ttl, now)
}

fn make(
    settings: &TokenSettings,
    user: &str,
    channel: Option<&str>,
    ttl: Option<u64>,
    now: u64,
) -> Result<String, String> {
    for (name, set) in [
        ("jwks_public_endpoint", &settings.jwks_public_endpoint),
        ("audience_regex", &settings.audience_regex),
        ("issuer_regex", &settings.issuer_regex),
    ] {
        if !set.is_empty() {
            return Err(format!(
                "{name} is set: the server would refuse this token; sign it elsewhere"
            ));
        }
    }
    if settings.hmac_secret_key.is_empty() {
        return Err("hmac_secret_key is not set: no secret can sign the token".to_owned());
    }
    let user_claim = match settings.user_id_claim.as_str() {
        "" => "sub",
        claim => claim,
    };
    let mut claims = Map::new();
    claims.insert(user_claim.to_owned(), user.into());
    claims.insert("iat".to_owned(), now.into());
    let texts = [
        ("aud", Some(settings.audience.as_str()).filter(|text| !text.is_empty())),
        ("iss", Some(settings.issuer.as_str()).filter(|text| !text.is_empty())),
        ("channel", channel),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            claims.insert(name.to_owned(), text.into());
        }
    }
    if let Some(ttl) = ttl {
        claims.insert("exp".to_owned(), now.saturating_add(ttl).into());
    }
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    let key = EncodingKey::from_secret(settings.hmac_secret_key.as_bytes());
    encode(&header, &Value::Object(claims), &key).map_err(|error| error.to_string())
}
