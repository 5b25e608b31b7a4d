//! JSON Web Tokens: they authenticate clients and authorize subscriptions.
//!
//! Owns the settings and the verification; `token::keys` owns the keys, `token::claims` the claims.
//! Never reads a clock, fetches a key or knows a connection: the caller passes the time and the
//! fetched keys. The invariant: no claim is believed before a key of the algorithm's kind has
//! verified the signature, unless the settings skip signature verification.

pub(crate) mod claims;
mod create;
mod keys;
mod key_address;
pub(crate) mod payload_fields;
mod settings;

use std::borrow::Cow;
use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use regex::Regex;
use serde::Deserialize;

use crate::wire::lenient_json::Text;

use claims::Claims;
pub use claims::{ConnectClaims, SubscribeClaims, SubscribeOptions, TokenError};
pub use create::{make_connection, make_subscription};
pub use key_address::{is_template, resolve};
pub use keys::KeySet;
use keys::{Algorithm, Key, KeyKind};
pub use settings::TokenSettings;

/// Maximum length of a token in bytes. Longer tokens are refused unread.
pub const TOKEN_MAX: usize = 64 * 1024;

/// The place where a token is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyOn {
    /// The shard that received it: the check costs one hash.
    Shard,
    /// The control plane: the check needs public-key cryptography or a fetched key set.
    ControlPlane,
}

/// Verifies tokens. All threads share one verifier.
pub struct Verifier {
    keys: Keys,
    audience: ClaimRule,
    issuer: ClaimRule,
    user_id_claim: String,
    unsigned: bool,
}

impl fmt::Debug for Verifier {
    /// Prints no field, because some are secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl Default for Verifier {
    /// A verifier without keys: it refuses every token.
    fn default() -> Self {
        Verifier {
            keys: Keys::Configured { secrets: Vec::new(), public: Vec::new() },
            audience: ClaimRule::Anything,
            issuer: ClaimRule::Anything,
            user_id_claim: String::new(),
            unsigned: false,
        }
    }
}

enum Keys {
    /// The keys of the settings.
    Configured { secrets: Vec<Secret>, public: Vec<Key> },
    /// The keys of a key set that the caller fetches.
    Fetched,
}

struct Secret {
    key: Key,
    /// Last Unix time in seconds at which the secret is valid.
    until: u64,
}

impl Verifier {
    /// A verifier with `settings`. An error names the invalid setting and the cause.
    pub fn new(settings: &TokenSettings) -> Result<Verifier, String> {
        Ok(Verifier {
            keys: Keys::new(settings)?,
            audience: ClaimRule::new("audience", &settings.audience, &settings.audience_regex)?,
            issuer: ClaimRule::new("issuer", &settings.issuer, &settings.issuer_regex)?,
            user_id_claim: settings.user_id_claim.clone(),
            unsigned: settings.insecure_skip_signature_verify,
        })
    }

    /// The place where `token` must be verified, by its header.
    pub fn verify_on(&self, token: &str) -> Result<VerifyOn, TokenError> {
        let header = Parts::of(token)?.header;
        if self.unsigned {
            return Ok(VerifyOn::Shard);
        }
        match (header.kind()?, &self.keys) {
            (KeyKind::Secret, Keys::Configured { secrets, .. }) if !secrets.is_empty() => {
                Ok(VerifyOn::Shard)
            }
            (kind, Keys::Configured { public, .. }) if public.iter().any(|key| key.is(kind)) => {
                Ok(VerifyOn::ControlPlane)
            }
            (kind, Keys::Fetched) if kind != KeyKind::Secret && !header.kid.is_empty() => {
                Ok(VerifyOn::ControlPlane)
            }
            _ => Err(TokenError::Invalid),
        }
    }

    /// Values for the names in the address of the key set, from the claims of a token that is not
    /// verified. The error is that of a token whose issuer or audience does not match.
    pub fn key_address_values(&self, token: &str) -> Result<Vec<(String, String)>, TokenError> {
        let payload = decoded(Parts::of(token)?.payload)?;
        let claims = self.claims(&payload)?;
        let issuer = self.issuer.groups([claims.issuer()]);
        let audience = self.audience.groups(claims.audiences());
        Ok(issuer.into_iter().chain(audience).collect())
    }

    /// Verifies a connection token at `now`, in Unix seconds. `keys` is the last fetched key set,
    /// which is used only if the settings have a `jwks_public_endpoint`.
    pub fn connection(
        &self,
        token: &str,
        now: u64,
        keys: Option<&KeySet>,
    ) -> Result<ConnectClaims, TokenError> {
        let payload = self.payload(token, now, keys)?;
        let claims = self.claims(&payload)?;
        if !claims.channel().is_empty() {
            return Err(TokenError::Invalid);
        }
        claims.check_time(now)?;
        let user = self.user(&claims, &payload)?;
        claims.connect(user)
    }

    /// Verifies a subscription token at `now`, in Unix seconds. The caller must compare user,
    /// client and channel.
    pub fn subscription(
        &self,
        token: &str,
        now: u64,
        keys: Option<&KeySet>,
    ) -> Result<SubscribeClaims, TokenError> {
        let payload = self.payload(token, now, keys)?;
        let claims = self.claims(&payload)?;
        if claims.channel().is_empty() {
            return Err(TokenError::Invalid);
        }
        claims.check_time(now)?;
        let user = self.user(&claims, &payload)?;
        claims.subscribe(user)
    }

    /// Verifies the signature and returns the JSON text of the claims.
    fn payload(&self, token: &str, now: u64, keys: Option<&KeySet>) -> Result<Vec<u8>, TokenError> {
        let parts = Parts::of(token)?;
        if !self.unsigned {
            self.check_signature(&parts, now, keys)?;
        }
        decoded(parts.payload)
    }

    fn check_signature(
        &self,
        parts: &Parts<'_>,
        now: u64,
        fetched: Option<&KeySet>,
    ) -> Result<(), TokenError> {
        let kind = parts.header.kind()?;
        let algorithm = parts.header.algorithm.ok_or(TokenError::Invalid)?;
        let signed = |key: &Key| key.signed(algorithm, parts.message, parts.signature);
        let verified = match &self.keys {
            Keys::Configured { secrets, .. } if kind == KeyKind::Secret => {
                secrets.iter().any(|secret| now <= secret.until && signed(&secret.key))
            }
            Keys::Configured { public, .. } => public.iter().any(signed),
            Keys::Fetched if kind == KeyKind::Secret || parts.header.kid.is_empty() => false,
            Keys::Fetched => match fetched.filter(|keys| keys.has(&parts.header.kid)) {
                Some(keys) => keys.named(&parts.header.kid).any(signed),
                None => return Err(TokenError::NoKey),
            },
        };
        if verified { Ok(()) } else { Err(TokenError::Invalid) }
    }

    /// Parses the claims and checks their audience and issuer.
    fn claims<'a>(&self, payload: &'a [u8]) -> Result<Claims<'a>, TokenError> {
        let claims = Claims::parse(payload)?;
        let audience_matches = match self.audience {
            ClaimRule::Anything => true,
            _ => claims.audiences().any(|audience| self.audience.accepts(audience)),
        };
        if audience_matches && self.issuer.accepts(claims.issuer()) {
            Ok(claims)
        } else {
            Err(TokenError::Invalid)
        }
    }

    fn user(&self, claims: &Claims<'_>, payload: &[u8]) -> Result<String, TokenError> {
        if self.user_id_claim.is_empty() {
            return Ok(claims.subject().to_owned());
        }
        claims::user_of(payload, &self.user_id_claim)
    }
}

impl Keys {
    fn new(settings: &TokenSettings) -> Result<Keys, String> {
        key_address::check(settings)?;
        if !settings.jwks_public_endpoint.is_empty() {
            return Ok(Keys::Fetched);
        }
        let until = match settings.hmac_previous_secret_key_valid_until {
            0 => u64::MAX,
            until => until,
        };
        let secrets =
            [(&settings.hmac_secret_key, u64::MAX), (&settings.hmac_previous_secret_key, until)];
        let secrets = secrets.into_iter().filter(|(secret, _)| !secret.is_empty());
        let read = |name, pem: &str, key: fn(&str) -> Result<Key, String>| match pem {
            "" => Ok(None),
            pem => key(pem).map(Some).map_err(|cause| format!("{name}: {cause}")),
        };
        let rsa = read("rsa_public_key", &settings.rsa_public_key, Key::rsa)?;
        let ecdsa = read("ecdsa_public_key", &settings.ecdsa_public_key, Key::ecdsa)?;
        Ok(Keys::Configured {
            secrets: secrets.map(|(key, until)| Secret { key: Key::secret(key), until }).collect(),
            public: rsa.into_iter().chain(ecdsa).collect(),
        })
    }
}

/// Requirement for a claim.
enum ClaimRule {
    Anything,
    Exactly(String),
    Matching(Regex),
}

impl ClaimRule {
    fn new(name: &str, exact: &str, pattern: &str) -> Result<ClaimRule, String> {
        match (exact, pattern) {
            ("", "") => Ok(ClaimRule::Anything),
            (exact, "") => Ok(ClaimRule::Exactly(exact.to_owned())),
            ("", pattern) => Regex::new(pattern).map(ClaimRule::Matching).map_err(|error| {
                let text = error.to_string();
                let cause = text.lines().last().unwrap_or_default();
                format!("{name}_regex: {}", cause.trim_start_matches("error: "))
            }),
            _ => Err(format!("{name}_regex: {name} is set, too; set only one of them")),
        }
    }

    /// The named groups of the pattern in the first text that it matches.
    fn groups<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Vec<(String, String)> {
        let ClaimRule::Matching(pattern) = self else { return Vec::new() };
        let Some(found) = texts.into_iter().find_map(|text| pattern.captures(text)) else {
            return Vec::new();
        };
        let value = |name: &str| found.name(name).map_or("", |value| value.as_str()).to_owned();
        pattern.capture_names().flatten().map(|name| (name.to_owned(), value(name))).collect()
    }

    fn accepts(&self, text: &str) -> bool {
        match self {
            ClaimRule::Anything => true,
            ClaimRule::Exactly(exact) => exact == text,
            ClaimRule::Matching(pattern) => pattern.is_match(text),
        }
    }
}

/// The parts of a token: the parsed header, and payload and signature in base64.
struct Parts<'a> {
    header: Header,
    /// The signed text: header and payload in base64.
    message: &'a [u8],
    payload: &'a str,
    signature: &'a str,
}

struct Header {
    /// `None`: an unsupported algorithm.
    algorithm: Option<Algorithm>,
    /// ID of a key in a key set; empty: none.
    kid: String,
}

#[derive(Deserialize)]
struct HeaderText<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Text<'a>>,
    /// Extensions that a verifier must support. This verifier supports none.
    crit: Option<serde::de::IgnoredAny>,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Parts<'a>, TokenError> {
        if token.len() > TOKEN_MAX {
            return Err(TokenError::Invalid);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Invalid)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Invalid)?;
        Ok(Parts {
            header: Header::parse(&decoded(header)?)?,
            message: message.as_bytes(),
            payload,
            signature,
        })
    }
}

impl Header {
    fn parse(text: &[u8]) -> Result<Header, TokenError> {
        let text: HeaderText<'_> = claims::object(text)?;
        if text.crit.is_some() || text.alg.eq_ignore_ascii_case("none") {
            return Err(TokenError::Invalid);
        }
        let kid = text.kid.map(|Text(kid)| kid.into_owned()).unwrap_or_default();
        Ok(Header { algorithm: Algorithm::named(&text.alg), kid })
    }

    fn kind(&self) -> Result<KeyKind, TokenError> {
        self.algorithm.map(Algorithm::kind).ok_or(TokenError::Invalid)
    }
}

/// The ID of the key that signed a token, from its header (`kid`); empty: none.
pub fn key_name(token: &str) -> Result<String, TokenError> {
    Ok(Parts::of(token)?.header.kid)
}

fn decoded(part: &str) -> Result<Vec<u8>, TokenError> {
    BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| TokenError::Invalid)
}

#[cfg(test)]
pub(crate) mod tests {
    use jsonwebtoken::EncodingKey;

    use super::*;

    const NOW: u64 = 1_000;
    const SECRET: &str = "secret";
    const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

    /// A token signed with HMAC, whatever its header says.
    pub(crate) fn signed(header: &str, payload: &str, secret: &str) -> String {
        let algorithm = match header {
            header if header.contains("HS384") => jsonwebtoken::Algorithm::HS384,
            header if header.contains("HS512") => jsonwebtoken::Algorithm::HS512,
            _ => jsonwebtoken::Algorithm::HS256,
        };
        let encoded = |part: &str| BASE64URL_NOPAD.encode(part.as_bytes());
        let message = format!("{}.{}", encoded(header), encoded(payload));
        let key = EncodingKey::from_secret(secret.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
        format!("{message}.{signature}")
    }

    fn token(payload: &str) -> String {
        signed(HEADER, payload, SECRET)
    }

    fn settings() -> TokenSettings {
        TokenSettings { hmac_secret_key: SECRET.into(), ..TokenSettings::default() }
    }

    fn verifier(settings: &TokenSettings) -> Verifier {
        Verifier::new(settings).unwrap_or_else(|error| panic!("{error}"))
    }

    fn connect(settings: &TokenSettings, token: &str) -> Result<ConnectClaims, TokenError> {
        verifier(settings).connection(token, NOW, None)
    }

    fn subscribe(settings: &TokenSettings, token: &str) -> Result<SubscribeClaims, TokenError> {
        verifier(settings).subscription(token, NOW, None)
    }

    fn user(settings: &TokenSettings, payload: &str) -> Result<String, TokenError> {
        connect(settings, &token(payload)).map(|claims| claims.user)
    }

    fn ann() -> Result<String, TokenError> {
        Ok("ann".to_owned())
    }

    /// `token` with one of its three parts replaced.
    fn with_part(token: &str, index: usize, part: &str) -> String {
        let mut parts: Vec<&str> = token.split('.').collect();
        parts[index] = part;
        parts.join(".")
    }

    #[test]
    fn debug_output_contains_no_secret() {
        let printed = format!("{:?} {:?}", settings(), verifier(&settings()));
        assert!(!printed.contains(SECRET), "{printed}");
    }

    #[test]
    fn only_tokens_signed_with_the_secret_are_valid() {
        let right = token(r#"{"sub":"ann"}"#);
        let other = token(r#"{"sub":"bob"}"#);
        let payload = other.split('.').nth(1).unwrap();
        let header = BASE64URL_NOPAD.encode(HEADER.replace("JWT", "jwt").as_bytes());
        let check = |name, token: &str, expected| {
            let found = connect(&settings(), token).map(|claims| claims.user);
            assert_eq!(found, expected, "{name}");
        };
        check("right", &right, ann());
        for algorithm in ["HS256", "HS384", "HS512"] {
            let header = format!(r#"{{"alg":"{algorithm}"}}"#);
            check(algorithm, &signed(&header, r#"{"sub":"ann"}"#, SECRET), ann());
        }
        let invalid = Err(TokenError::Invalid);
        for (name, token) in [
            ("other secret", signed(HEADER, r#"{"sub":"ann"}"#, "other")),
            ("other payload", with_part(&right, 1, payload)),
            ("other header", with_part(&right, 0, &header)),
            ("no signature", with_part(&right, 2, "")),
            ("short signature", right[..right.len() - 2].to_owned()),
            ("padded signature", format!("{right}=")),
            ("two parts", right.rsplit_once('.').unwrap().0.to_owned()),
            ("four parts", format!("{right}.")),
            ("nothing", String::new()),
            ("dots", "..".to_owned()),
            ("not base64", with_part(&right, 0, "{}")),
            ("too long", token(&format!(r#"{{"sub":"{}"}}"#, "a".repeat(TOKEN_MAX)))),
            ("a list", token(r#"["ann"]"#)),
            ("no JSON", token("ann")),
            ("more than one", token(r#"{"sub":"ann"}{}"#)),
            ("given twice", token(r#"{"sub":"ann","sub":"bob"}"#)),
            ("half a letter", token(r#"{"sub":"\ud800"}"#)),
        ] {
            check(name, &token, invalid.clone());
        }
    }

    #[test]
    fn tokens_with_unsupported_headers_are_invalid() {
        let insecure = TokenSettings { insecure_skip_signature_verify: true, ..settings() };
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":"NONE","typ":"JWT"}"#,
            r#"{"typ":"JWT"}"#,
            r#"{"alg":null}"#,
            r#"{"alg":1}"#,
            r#"{"alg":"HS256","alg":"none"}"#,
            r#"{"alg":"HS256","crit":["exp"]}"#,
            r#"{"alg":"HS256","kid":1}"#,
            r#"["HS256",null,null]"#,
        ] {
            let whole = signed(header, r#"{"sub":"ann"}"#, SECRET);
            for token in [&whole, &with_part(&whole, 2, "")] {
                for settings in [&settings(), &insecure] {
                    assert_eq!(connect(settings, token), Err(TokenError::Invalid), "{header}");
                    assert_eq!(
                        verifier(settings).verify_on(token),
                        Err(TokenError::Invalid),
                        "{header}"
                    );
                }
            }
        }
        for header in [r#"{"alg":"hs256"}"#, r#"{"alg":"PS256"}"#, r#"{"alg":"ES512"}"#] {
            let token = signed(header, r#"{"sub":"ann"}"#, SECRET);
            assert_eq!(connect(&settings(), &token), Err(TokenError::Invalid), "{header}");
            assert_eq!(
                verifier(&settings()).verify_on(&token),
                Err(TokenError::Invalid),
                "{header}"
            );
        }
        let longest = "a".repeat(TOKEN_MAX + 1);
        assert_eq!(verifier(&settings()).verify_on(&longest), Err(TokenError::Invalid));
    }

    #[test]
    fn a_token_of_the_maximum_length_is_valid() {
        let without = token(r#"{"sub":"ann","info":""}"#).len();
        let info = "i".repeat((TOKEN_MAX - without) / 4 * 3 - 3);
        let longest = token(&format!(r#"{{"sub":"ann","info":"{info}"}}"#));
        assert!((TOKEN_MAX - 8..=TOKEN_MAX).contains(&longest.len()), "{}", longest.len());
        assert!(connect(&settings(), &longest).is_ok());
    }

    #[test]
    fn the_previous_secret_is_valid_until_its_last_second() {
        let check = |until, now, expected: Result<(), TokenError>| {
            let settings = TokenSettings {
                hmac_previous_secret_key: "previous".into(),
                hmac_previous_secret_key_valid_until: until,
                ..settings()
            };
            let verifier = verifier(&settings);
            let old = signed(HEADER, "{}", "previous");
            assert_eq!(verifier.connection(&old, now, None).map(drop), expected, "{until} {now}");
            assert_eq!(verifier.connection(&token("{}"), now, None).map(drop), Ok(()));
            let other = signed(HEADER, "{}", "other");
            assert_eq!(verifier.connection(&other, now, None), Err(TokenError::Invalid));
        };
        check(0, NOW, Ok(()));
        check(0, u64::MAX, Ok(()));
        check(NOW + 1, NOW, Ok(()));
        check(NOW, NOW, Ok(()));
        check(NOW - 1, NOW, Err(TokenError::Invalid));
        check(1, NOW, Err(TokenError::Invalid));
    }

    #[test]
    fn tokens_are_valid_from_nbf_until_exp() {
        use TokenError::{Expired, Invalid};
        for (claims, expected) in [
            (r#""exp":1001"#, Ok(())),
            (r#""exp":1000.5"#, Ok(())),
            (r#""exp":1e9"#, Ok(())),
            (r#""exp":18446744073709551615"#, Ok(())),
            (r#""exp":null"#, Ok(())),
            (r#""exp":1000"#, Err(Expired)),
            (r#""exp":999.9"#, Err(Expired)),
            (r#""exp":0"#, Err(Expired)),
            (r#""exp":-1"#, Err(Expired)),
            (r#""exp":"1001""#, Ok(())),
            (r#""exp":"1000""#, Err(Expired)),
            (r#""exp":"soon""#, Err(Invalid)),
            (r#""exp":"inf""#, Err(Invalid)),
            (r#""exp":null,"nbf":null,"iat":null,"expire_at":null"#, Ok(())),
            (r#""jti":null,"iss":null,"aud":null"#, Ok(())),
            (r#""exp":true"#, Err(Invalid)),
            (r#""exp":[1001]"#, Err(Invalid)),
            (r#""exp":1e999"#, Err(Invalid)),
            (r#""nbf":1000"#, Ok(())),
            (r#""nbf":1"#, Ok(())),
            (r#""nbf":-5"#, Ok(())),
            (r#""nbf":1000.5"#, Err(Expired)),
            (r#""nbf":1001"#, Err(Expired)),
            (r#""nbf":"1""#, Ok(())),
            (r#""nbf":"1001""#, Err(Expired)),
            (r#""nbf":{}"#, Err(Invalid)),
            (r#""iat":5000"#, Ok(())),
            (r#""iat":"1""#, Ok(())),
            (r#""iat":"x""#, Err(Invalid)),
            (r#""iat":false"#, Err(Invalid)),
            (r#""expire_at":"1""#, Err(Invalid)),
            (r#""exp":1001,"nbf":1001"#, Err(Expired)),
            (r#""exp":1000,"expire_at":0"#, Err(Expired)),
            (r#""exp":1000,"aud":5"#, Err(Invalid)),
        ] {
            let insecure = TokenSettings { insecure_skip_signature_verify: true, ..settings() };
            for settings in [settings(), insecure] {
                let found = connect(&settings, &token(&format!("{{{claims}}}"))).map(drop);
                assert_eq!(found, expected, "{claims}");
                let payload = format!(r#"{{"channel":"a",{claims}}}"#);
                assert_eq!(subscribe(&settings, &token(&payload)).map(drop), expected, "{claims}");
            }
        }
    }

    #[test]
    fn expire_at_overrides_exp() {
        for (claims, issued_at, expires) in [
            (r#""jti":"a""#, None, None),
            (r#""exp":2000"#, None, Some(2000)),
            (r#""exp":2000.9,"iat":500.5"#, Some(500), Some(2000)),
            (r#""exp":2000,"expire_at":3000"#, None, Some(3000)),
            (r#""exp":2000,"expire_at":1500.5"#, None, Some(1500)),
            (r#""exp":2000,"expire_at":0"#, None, None),
            (r#""exp":2000,"expire_at":-1,"iat":-1"#, Some(0), None),
            (r#""exp":2000,"expire_at":null"#, None, Some(2000)),
            (r#""expire_at":3000,"iat":900"#, Some(900), Some(3000)),
            (r#""expire_at":1"#, None, Some(1)),
        ] {
            let found = connect(&settings(), &token(&format!("{{{claims}}}"))).unwrap();
            assert_eq!((found.issued_at, found.expires), (issued_at, expires), "{claims}");
            let payload = format!(r#"{{"channel":"a",{claims}}}"#);
            let found = subscribe(&settings(), &token(&payload)).unwrap();
            assert_eq!((found.issued_at, found.expires), (issued_at, expires), "{claims}");
        }
    }

    #[test]
    fn audience_and_issuer_must_match_the_settings() {
        let ok = |settings: &TokenSettings, claims: &str, expected: bool| {
            let expected = if expected { Ok(()) } else { Err(TokenError::Invalid) };
            let payload = format!(r#"{{"jti":"b"{claims}}}"#);
            assert_eq!(connect(settings, &token(&payload)).map(drop), expected, "{claims}");
            let payload = format!(r#"{{"channel":"a","jti":"b"{claims}}}"#);
            assert_eq!(subscribe(settings, &token(&payload)).map(drop), expected, "{claims}");
        };
        let any = settings();
        let exact = TokenSettings { audience: "push".into(), issuer: "us".into(), ..settings() };
        let regex = TokenSettings {
            audience_regex: "^(push|pull)$".into(),
            issuer_regex: r"\.example$".into(),
            ..settings()
        };
        ok(&any, r#","aud":"x","iss":"y""#, true);
        ok(&any, r#","aud":["x",""],"iss":null"#, true);
        ok(&any, r#","aud":5"#, false);
        ok(&any, r#","aud":[5]"#, false);
        ok(&any, r#","iss":["us"]"#, false);
        ok(&exact, r#","aud":"push","iss":"us""#, true);
        ok(&exact, r#","aud":["pull","push"],"iss":"us""#, true);
        ok(&exact, r#","aud":"p\u0075sh","iss":"us""#, true);
        ok(&exact, r#","aud":"pushes","iss":"us""#, false);
        ok(&exact, r#","aud":[],"iss":"us""#, false);
        ok(&exact, r#","iss":"us""#, false);
        ok(&exact, r#","aud":"push","iss":"them""#, false);
        ok(&exact, r#","aud":"push""#, false);
        ok(&exact, "", false);
        ok(&regex, r#","aud":"pull","iss":"a.example""#, true);
        ok(&regex, r#","aud":["x","push"],"iss":"a.example""#, true);
        ok(&regex, r#","aud":["x","pushes"],"iss":"a.example""#, false);
        ok(&regex, r#","iss":"a.example""#, false);
        ok(&regex, r#","aud":"push","iss":"example.org""#, false);
        ok(&regex, r#","aud":"push""#, false);
    }

    #[test]
    fn the_user_is_read_from_the_configured_claim() {
        use TokenError::Invalid;
        let check = |claim: &str, payload, expected: Result<&str, TokenError>| {
            let settings = TokenSettings { user_id_claim: claim.into(), ..settings() };
            assert_eq!(user(&settings, payload), expected.map(str::to_owned), "{payload}");
        };
        check("", r#"{"sub":"ann"}"#, Ok("ann"));
        check("", r#"{"sub":"a\u006en"}"#, Ok("ann"));
        check("", r#" {"sub":"","name":"bob"} "#, Ok(""));
        check("", "{}", Ok(""));
        check("", r#"{"sub":5}"#, Err(Invalid));
        check("", r#"{"sub":null}"#, Ok(""));
        check("", r#"{"sub":["ann"]}"#, Err(Invalid));
        check("name", r#"{"sub":"ann","name":"bob"}"#, Ok("bob"));
        check("name", r#"{"n\u0061me":"b\u006fb"}"#, Ok("bob"));
        check("name", r#"{"sub":"ann"}"#, Ok(""));
        check("name", r#"{"name":42}"#, Ok("42"));
        check("name", r#"{"name":-42}"#, Ok("-42"));
        check("name", r#"{"name":4.2}"#, Err(Invalid));
        check("name", r#"{"name":null}"#, Ok(""));
        check("name", r#"{"name":true}"#, Err(Invalid));
        check("name", r#"{"name":{"id":"bob"}}"#, Err(Invalid));
        check("name", r#"{"sub":5,"name":"bob"}"#, Err(Invalid));
        let settings = TokenSettings { user_id_claim: "name".into(), ..settings() };
        let found = subscribe(&settings, &token(r#"{"name":"bob","channel":"a"}"#)).unwrap();
        assert_eq!((found.user.as_str(), found.channel.as_str()), ("bob", "a"));
    }

    #[test]
    fn signature_verification_can_be_skipped() {
        let insecure =
            TokenSettings { insecure_skip_signature_verify: true, ..TokenSettings::default() };
        let fetched =
            TokenSettings { jwks_public_endpoint: "https://a/keys".into(), ..insecure.clone() };
        for settings in [insecure, fetched] {
            for header in [HEADER, r#"{"alg":"RS256"}"#, r#"{"alg":"ES512","kid":"a"}"#] {
                let token = signed(header, r#"{"sub":"ann","exp":1001}"#, "whose");
                for token in [&token, &with_part(&token, 2, "")] {
                    assert_eq!(connect(&settings, token).map(|claims| claims.user), ann());
                    assert_eq!(verifier(&settings).verify_on(token), Ok(VerifyOn::Shard));
                }
                let over = signed(header, r#"{"sub":"ann","exp":1000}"#, "whose");
                assert_eq!(connect(&settings, &over), Err(TokenError::Expired));
            }
        }
    }

    #[test]
    fn errors_name_the_invalid_setting() {
        let check = |settings: TokenSettings, expected: &str| {
            let error = Verifier::new(&settings).err().unwrap_or_default();
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains('\n'), "{error}");
        };
        let text = |text: &str| text.to_owned();
        let none = TokenSettings::default;
        check(TokenSettings { issuer_regex: text("("), ..none() }, "issuer_regex: unclosed group");
        check(TokenSettings { audience_regex: text("[z-a]"), ..none() }, "audience_regex: invalid");
        let both = TokenSettings { issuer: text("a"), issuer_regex: text("a"), ..none() };
        check(both, "issuer_regex: issuer is set, too");
        let both = TokenSettings { audience: text("a"), audience_regex: text("a"), ..none() };
        check(both, "audience_regex: audience is set, too");
        let template = TokenSettings { jwks_public_endpoint: text("https://a/{{b}}"), ..none() };
        check(template, "jwks_public_endpoint: no group of");
        check(
            TokenSettings { rsa_public_key: text("key"), ..none() },
            "rsa_public_key: it is not in",
        );
        check(
            TokenSettings { ecdsa_public_key: text("key"), ..none() },
            "ecdsa_public_key: it is not",
        );
        assert!(Verifier::new(&none()).is_ok());
    }

    #[test]
    fn verifiers_can_be_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Verifier>();
        shared::<KeySet>();
    }

    #[test]
    fn created_tokens_are_valid() {
        let full = TokenSettings {
            audience: "push".into(),
            issuer: "us".into(),
            user_id_claim: "name".into(),
            ..settings()
        };
        for settings in [settings(), full] {
            let verifier = verifier(&settings);
            for (ttl, expires) in [(None, None), (Some(60), Some(NOW + 60))] {
                let token = make_connection(&settings, "ann", ttl, NOW).unwrap();
                let expected = ConnectClaims {
                    user: "ann".into(),
                    issued_at: Some(NOW),
                    expires,
                    ..ConnectClaims::default()
                };
                assert_eq!(verifier.verify_on(&token), Ok(VerifyOn::Shard));
                assert_eq!(verifier.connection(&token, NOW, None), Ok(expected));
                assert_eq!(verifier.subscription(&token, NOW, None), Err(TokenError::Invalid));
                let token = make_subscription(&settings, "ann", "news", ttl, NOW).unwrap();
                let found = verifier.subscription(&token, NOW, None).unwrap();
                assert_eq!((&*found.user, &*found.channel), ("ann", "news"));
                assert_eq!((found.issued_at, found.expires), (Some(NOW), expires));
                assert_eq!(verifier.connection(&token, NOW, None), Err(TokenError::Invalid));
            }
            let token = make_connection(&settings, "ann", Some(60), NOW).unwrap();
            assert_eq!(verifier.connection(&token, NOW + 60, None), Err(TokenError::Expired));
        }
    }

    #[test]
    fn tokens_that_the_server_would_refuse_are_not_created() {
        let some = || "a".to_owned();
        for (name, settings) in [
            ("hmac_secret_key", TokenSettings::default()),
            ("jwks_public_endpoint", TokenSettings { jwks_public_endpoint: some(), ..settings() }),
            ("audience_regex", TokenSettings { audience_regex: some(), ..settings() }),
            ("issuer_regex", TokenSettings { issuer_regex: some(), ..settings() }),
        ] {
            let error = make_connection(&settings, "ann", None, NOW).unwrap_err();
            assert!(error.starts_with(name), "{error}");
            let error = make_subscription(&settings, "ann", "news", None, NOW).unwrap_err();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
