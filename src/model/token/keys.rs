//! Signature algorithms and the keys that verify signatures.
//!
//! Owns the keys. Never signs a token and never fetches a key. The invariant: a key verifies only
//! algorithms of its own kind, so a public key is never used as a secret, or a secret as a public
//! key.

use std::borrow::Cow;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use jsonwebtoken::{DecodingKey, crypto};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::wire::lenient_json::{self, Text};

/// Minimum length of an RSA modulus in bytes.
const RSA_BYTES_MIN: usize = 2048 / 8;

/// A supported signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Algorithm(jsonwebtoken::Algorithm);

/// Kind of a key. An algorithm requires one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Algorithm {
    /// The algorithm with this name (`alg`). ES512 is missing: the library cannot verify it.
    pub(super) fn named(name: &str) -> Option<Algorithm> {
        use jsonwebtoken::Algorithm as Name;
        let name = match name {
            "HS256" => Name::HS256,
            "HS384" => Name::HS384,
            "HS512" => Name::HS512,
            "RS256" => Name::RS256,
            "RS384" => Name::RS384,
            "RS512" => Name::RS512,
            "ES256" => Name::ES256,
            "ES384" => Name::ES384,
            "EdDSA" => Name::EdDSA,
            _ => return None,
        };
        Some(Algorithm(name))
    }

    /// The kind of key that verifies the algorithm.
    pub(super) fn kind(self) -> KeyKind {
        use jsonwebtoken::Algorithm as Name;
        match self.0 {
            Name::HS256 | Name::HS384 | Name::HS512 => KeyKind::Secret,
            Name::ES256 => KeyKind::P256,
            Name::ES384 => KeyKind::P384,
            Name::EdDSA => KeyKind::Ed25519,
            _ => KeyKind::Rsa,
        }
    }
}

/// A key with its kind.
pub(super) struct Key {
    kind: KeyKind,
    /// The only algorithm of the key, if its key set restricts it.
    only: Option<Algorithm>,
    key: DecodingKey,
}

impl Key {
    /// An HMAC secret.
    pub(super) fn secret(text: &str) -> Key {
        let key = DecodingKey::from_secret(text.as_bytes());
        Key { kind: KeyKind::Secret, only: None, key }
    }

    /// An RSA key in PEM.
    pub(super) fn rsa(pem: &str) -> Result<Key, String> {
        public_bytes(pem)?;
        let key = DecodingKey::from_rsa_pem(pem.as_bytes())
            .map_err(|_| "it is in PEM, but not an RSA key".to_owned())?;
        // The encoded key contains the modulus, so a shorter key has a shorter modulus.
        if key.as_bytes().len() < RSA_BYTES_MIN {
            return Err("it is shorter than 2048 bits".to_owned());
        }
        Ok(Key { kind: KeyKind::Rsa, only: None, key })
    }

    /// An ECDSA key in PEM.
    pub(super) fn ecdsa(pem: &str) -> Result<Key, String> {
        // The DER encoded object identifiers of the curves.
        const P256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
        const P384: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 0x22];
        let bytes = public_bytes(pem)?;
        let key = DecodingKey::from_ec_pem(pem.as_bytes())
            .map_err(|_| "it is in PEM, but not a key of an elliptic curve".to_owned())?;
        let contains = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        let curves = [(P256, KeyKind::P256), (P384, KeyKind::P384)];
        let Some((_, kind)) = curves.into_iter().find(|(curve, _)| contains(curve)) else {
            return Err("its curve is neither P-256 nor P-384".to_owned());
        };
        Ok(Key { kind, only: None, key })
    }

    /// Whether the key is of this kind.
    pub(super) fn is(&self, kind: KeyKind) -> bool {
        self.kind == kind
    }

    /// Whether `signature`, in base64 as in a token, is a signature of `message` for this key.
    pub(super) fn signed(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        self.is(algorithm.kind())
            && self.only.is_none_or(|only| only == algorithm)
            && crypto::verify(signature, message, &self.key, algorithm.0).unwrap_or(false)
    }
}

/// The decoded bytes of a public key in PEM.
fn public_bytes(pem: &str) -> Result<Vec<u8>, String> {
    let parts = || {
        let (_, rest) = pem.split_once("-----BEGIN ")?;
        let (label, rest) = rest.split_once("-----")?;
        let (body, _) = rest.split_once("-----END ")?;
        Some((label, body.split_whitespace().collect::<String>()))
    };
    let (label, body) = parts().ok_or_else(|| "it is not in PEM".to_owned())?;
    if label.contains("PRIVATE") {
        return Err("it is a private key; the public one belongs here".to_owned());
    }
    BASE64.decode(body.as_bytes()).map_err(|_| "its PEM is not base64".to_owned())
}

/// A JSON Web Key Set: the public keys of a token issuer.
pub struct KeySet {
    keys: Vec<(String, Key)>,
}

#[derive(Deserialize)]
struct SetText<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct KeyText<'a> {
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    kty: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    kid: Cow<'a, str>,
    #[serde(borrow)]
    alg: Option<Text<'a>>,
    #[serde(borrow, rename = "use")]
    purpose: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient_json::text")]
    crv: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "lenient_json::text")]
    n: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "lenient_json::text")]
    e: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "lenient_json::text")]
    x: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "lenient_json::text")]
    y: Cow<'a, str>,
}

impl KeySet {
    /// Parses the JSON text of a key set. Skips keys that cannot verify tokens, as the standard
    /// requires: other kinds, other purposes, no ID, invalid numbers.
    pub fn parse(text: &[u8]) -> Result<KeySet, String> {
        let set: SetText<'_> = lenient_json::read_object(text).map_err(|error| {
            let cause = lenient_json::cause(&error);
            format!("the key set is not JSON with a list of keys: {cause}")
        })?;
        let read = |text: &&RawValue| {
            let text: KeyText<'_> = lenient_json::read_object(text.get().as_bytes()).ok()?;
            let key = text.key().filter(|_| !text.kid.is_empty())?;
            Some((text.kid.into_owned(), key))
        };
        Ok(KeySet { keys: set.keys.iter().filter_map(read).collect() })
    }

    /// Whether the set has no key that can verify tokens.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the set has a key with the ID `kid`.
    pub fn has(&self, kid: &str) -> bool {
        self.named(kid).next().is_some()
    }

    /// The keys with the ID `kid`. Key sets rarely have more than one.
    pub(super) fn named(&self, kid: &str) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |(name, _)| name == kid).map(|(_, key)| key)
    }
}

impl KeyText<'_> {
    fn key(&self) -> Option<Key> {
        if self.purpose.as_ref().is_some_and(|Text(purpose)| purpose != "sig") {
            return None;
        }
        let kind = match (&*self.kty, &*self.crv) {
            ("RSA", _) if length(&self.n)? >= RSA_BYTES_MIN => KeyKind::Rsa,
            ("EC", "P-256") if self.is_point(32)? => KeyKind::P256,
            ("EC", "P-384") if self.is_point(48)? => KeyKind::P384,
            ("OKP", "Ed25519") if length(&self.x)? == 32 => KeyKind::Ed25519,
            _ => return None,
        };
        let only = match &self.alg {
            Some(Text(name)) => Some(Algorithm::named(name).filter(|only| only.kind() == kind)?),
            None => None,
        };
        let key = match kind {
            KeyKind::Rsa => DecodingKey::from_rsa_components(&self.n, &self.e),
            KeyKind::Ed25519 => DecodingKey::from_ed_components(&self.x),
            _ => DecodingKey::from_ec_components(&self.x, &self.y),
        };
        Some(Key { kind, only, key: key.ok()? })
    }

    fn is_point(&self, bytes: usize) -> Option<bool> {
        Some(length(&self.x)? == bytes && length(&self.y)? == bytes)
    }
}

/// Length in bytes of a number in base64; `None`: the text is not base64.
fn length(number: &str) -> Option<usize> {
    BASE64URL_NOPAD.decode(number.as_bytes()).ok().map(|bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use serde_json::{Value, json};

    use crate::model::token::tests::signed;
    use crate::model::token::{TokenError, TokenSettings, Verifier, VerifyOn};

    use super::*;

    /// Public keys, tokens of `ann` with a `kid` each, and the keys as a set. OpenSSL 3 created the
    /// keys and signed the tokens; the private keys no longer exist.
    static SAMPLES: LazyLock<Value> =
        LazyLock::new(|| serde_json::from_str(include_str!("samples.json")).unwrap());
    const NOW: u64 = 1_000;
    const ALGORITHMS: [(&str, &str); 6] = [
        ("RS256", "rsa"),
        ("RS384", "rsa"),
        ("RS512", "rsa"),
        ("ES256", "p256"),
        ("ES384", "p384"),
        ("EdDSA", "ed25519"),
    ];

    fn pem(name: &str) -> String {
        SAMPLES["pem"][name].as_str().unwrap().to_owned()
    }

    fn token(algorithm: &str) -> String {
        SAMPLES["tokens"][algorithm].as_str().unwrap().to_owned()
    }

    fn with_keys(rsa: &str, ecdsa: &str) -> Verifier {
        let key = |name: &str| if name.is_empty() { String::new() } else { pem(name) };
        let settings = TokenSettings {
            rsa_public_key: key(rsa),
            ecdsa_public_key: key(ecdsa),
            ..TokenSettings::default()
        };
        Verifier::new(&settings).unwrap_or_else(|error| panic!("{error}"))
    }

    fn with_set() -> Verifier {
        let settings = TokenSettings {
            jwks_public_endpoint: "https://a/keys".into(),
            hmac_secret_key: "secret".into(),
            rsa_public_key: pem("rsa"),
            ..TokenSettings::default()
        };
        Verifier::new(&settings).unwrap_or_else(|error| panic!("{error}"))
    }

    fn set() -> KeySet {
        KeySet::parse(SAMPLES["set"].to_string().as_bytes()).unwrap()
    }

    fn user(verifier: &Verifier, token: &str, keys: Option<&KeySet>) -> Result<String, TokenError> {
        verifier.connection(token, NOW, keys).map(|claims| claims.user)
    }

    fn ann() -> Result<String, TokenError> {
        Ok("ann".to_owned())
    }

    /// The same token with a letter in the middle of a part changed.
    fn tampered(token: &str, index: usize) -> String {
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let middle = parts[index].len() / 2;
        let letter = if &parts[index][middle..=middle] == "A" { "B" } else { "A" };
        parts[index].replace_range(middle..=middle, letter);
        parts.join(".")
    }

    #[test]
    fn a_signature_is_valid_only_for_its_own_key() {
        let keys = ["rsa", "p256", "p384"];
        for (algorithm, own) in ALGORITHMS {
            for key in keys {
                let verifier = if key == "rsa" { with_keys(key, "") } else { with_keys("", key) };
                let (right, work) = match key == own {
                    true => (ann(), Ok(VerifyOn::ControlPlane)),
                    false => (Err(TokenError::Invalid), Err(TokenError::Invalid)),
                };
                let token = token(algorithm);
                assert_eq!(verifier.verify_on(&token), work, "{algorithm} {key}");
                assert_eq!(user(&verifier, &token, None), right, "{algorithm} {key}");
                for index in 0..3 {
                    let token = tampered(&token, index);
                    assert_eq!(
                        user(&verifier, &token, None),
                        Err(TokenError::Invalid),
                        "{algorithm}"
                    );
                }
            }
        }
        let both = with_keys("rsa", "p256");
        for (algorithm, expected) in
            [("RS256", ann()), ("ES256", ann()), ("ES384", Err(TokenError::Invalid))]
        {
            assert_eq!(user(&both, &token(algorithm), None), expected, "{algorithm}");
        }
        assert_eq!(both.verify_on(&token("ES512")), Err(TokenError::Invalid));
        assert_eq!(user(&both, &token("ES512"), None), Err(TokenError::Invalid));
        let compressed = with_keys("", "p256_compressed");
        assert_eq!(user(&compressed, &token("ES256"), None), ann());
        let expired = both.connection(&token("RS256"), u64::MAX, None);
        assert_eq!(expired, Err(TokenError::Expired));
    }

    #[test]
    fn a_key_set_verifies_all_public_key_algorithms() {
        let (verifier, set) = (with_set(), set());
        for (algorithm, kid) in ALGORITHMS {
            assert!(set.has(kid), "{kid}");
            let token = token(algorithm);
            assert_eq!(verifier.verify_on(&token), Ok(VerifyOn::ControlPlane), "{algorithm}");
            assert_eq!(user(&verifier, &token, Some(&set)), ann(), "{algorithm}");
            assert_eq!(user(&verifier, &token, None), Err(TokenError::NoKey), "{algorithm}");
            let empty = KeySet::parse(br#"{"keys":[]}"#).unwrap();
            assert_eq!(
                user(&verifier, &token, Some(&empty)),
                Err(TokenError::NoKey),
                "{algorithm}"
            );
            for index in 1..3 {
                let token = tampered(&token, index);
                assert_eq!(user(&verifier, &token, Some(&set)), Err(TokenError::Invalid));
            }
        }
    }

    #[test]
    fn a_verifier_with_a_key_set_accepts_no_other_key() {
        let (verifier, set) = (with_set(), set());
        for header in [
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"HS256","kid":"rsa"}"#,
            r#"{"alg":"HS256","kid":"secret"}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"RS256","kid":""}"#,
            r#"{"alg":"PS256","kid":"rsa"}"#,
        ] {
            let token = signed(header, r#"{"sub":"ann"}"#, "secret");
            assert_eq!(verifier.verify_on(&token), Err(TokenError::Invalid), "{header}");
            for keys in [None, Some(&set)] {
                assert_eq!(user(&verifier, &token, keys), Err(TokenError::Invalid), "{header}");
            }
        }
        // A verifier with configured keys ignores key sets.
        let own = with_keys("", "p256");
        assert_eq!(user(&own, &token("RS256"), Some(&set)), Err(TokenError::Invalid));
    }

    #[test]
    fn public_keys_and_secrets_are_not_interchangeable() {
        let public = pem("rsa");
        let modulus = SAMPLES["set"]["keys"][0]["n"].as_str().unwrap().to_owned();
        for secret in [public.as_str(), public.trim(), &modulus, ""] {
            let token = signed(r#"{"alg":"HS256","kid":"rsa"}"#, r#"{"sub":"ann"}"#, secret);
            let invalid = Err(TokenError::Invalid);
            assert_eq!(user(&with_keys("rsa", "p256"), &token, None), invalid);
            assert_eq!(user(&with_set(), &token, Some(&set())), invalid);
            assert_eq!(user(&with_set(), &token, None), invalid);
        }
        let secret = TokenSettings { hmac_secret_key: pem("rsa"), ..TokenSettings::default() };
        let secret = Verifier::new(&secret).unwrap_or_else(|error| panic!("{error}"));
        for (algorithm, _) in ALGORITHMS {
            assert_eq!(user(&secret, &token(algorithm), None), Err(TokenError::Invalid));
            assert_eq!(secret.verify_on(&token(algorithm)), Err(TokenError::Invalid));
            let header = format!(r#"{{"alg":"{algorithm}"}}"#);
            let token = signed(&header, r#"{"sub":"ann"}"#, &pem("rsa"));
            assert_eq!(user(&secret, &token, None), Err(TokenError::Invalid));
            assert_eq!(user(&with_keys("rsa", "p256"), &token, None), Err(TokenError::Invalid));
        }
    }

    #[test]
    fn a_key_restricted_to_an_algorithm_verifies_no_other() {
        let mut keys = SAMPLES["set"]["keys"].as_array().unwrap().clone();
        keys.retain(|key| key["kid"] == "rsa");
        keys[0]["alg"] = json!("RS256");
        let set = KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
        assert_eq!(user(&with_set(), &token("RS256"), Some(&set)), ann());
        assert_eq!(user(&with_set(), &token("RS384"), Some(&set)), Err(TokenError::Invalid));
    }

    #[test]
    fn all_keys_with_the_id_of_the_token_are_tried() {
        let mut keys = SAMPLES["set"]["keys"].as_array().unwrap().clone();
        keys.iter_mut().for_each(|key| key["kid"] = json!("rsa"));
        keys.reverse();
        let set = KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
        assert_eq!(user(&with_set(), &token("RS256"), Some(&set)), ann());
    }

    #[test]
    fn unusable_keys_of_a_set_are_skipped() {
        let mut set = SAMPLES["set"].clone();
        let keys = set["keys"].as_array_mut().unwrap();
        let sample = |kid: &str, name: &str, value: Value| {
            let all = SAMPLES["set"]["keys"].as_array().unwrap();
            let mut key = all.iter().find(|key| key["kid"] == kid).unwrap().clone();
            key["kid"] = json!("bad");
            key[name] = value;
            key
        };
        keys.splice(
            0..0,
            [
                sample("rsa", "use", json!("enc")),
                sample("rsa", "alg", json!("RSA-OAEP")),
                sample("rsa", "alg", json!("HS256")),
                sample("rsa", "alg", json!("PS256")),
                sample("rsa", "n", json!("AQAB")),
                sample("rsa", "n", json!("*")),
                sample("rsa", "e", json!("*")),
                sample("rsa", "kty", json!("oct")),
                sample("p256", "x", json!("AQAB")),
                sample("p256", "crv", json!("P-384")),
                sample("p256", "crv", json!("P-521")),
                sample("p256", "alg", json!("ES384")),
                sample("p384", "kty", json!("RSA")),
                sample("ed25519", "crv", json!("X25519")),
                sample("ed25519", "x", json!("AQAB")),
                json!({"kty": "oct", "kid": "bad", "k": "c2VjcmV0"}),
                json!({"kty": "RSA", "kid": "bad"}),
                json!({"kty": "new", "kid": "bad"}),
                json!({"kty": "RSA"}),
                json!({"kid": 5}),
                json!(5),
            ],
        );
        let set = KeySet::parse(set.to_string().as_bytes()).unwrap();
        for (kid, expected) in [
            ("bad", false),
            ("", false),
            ("p521", false),
            ("secp256k1", false),
            ("x25519", false),
            ("rsa", true),
            ("p256", true),
            ("p384", true),
            ("ed25519", true),
        ] {
            assert_eq!(set.has(kid), expected, "{kid}");
        }
    }

    #[test]
    fn an_invalid_key_set_is_an_error() {
        for text in ["", "[]", "{}", r#"{"keys":5}"#, r#"{"keys":{}}"#, "<html>"] {
            let error = KeySet::parse(text.as_bytes()).err().unwrap_or_default();
            assert!(error.starts_with("the key set is not JSON with a list of keys"), "{error}");
        }
    }

    #[test]
    fn errors_name_the_problem_of_an_invalid_key() {
        let rsa = |key: &str| Key::rsa(key).err().unwrap_or_default();
        let ecdsa = |key: &str| Key::ecdsa(key).err().unwrap_or_default();
        let broken = pem("rsa").replacen("MII", "AII", 1);
        let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (found, expected) in [
            (rsa(&pem("rsa")), ""),
            (rsa(pem("rsa").trim()), ""),
            (rsa(&pem("rsa_pkcs1")), ""),
            (rsa("key"), "it is not in PEM"),
            (rsa(&pem("p256")), "it is in PEM, but not an RSA key"),
            (rsa(&broken), "it is in PEM, but not an RSA key"),
            (rsa(&pem("rsa").replacen("MII", "*II", 1)), "its PEM is not base64"),
            (rsa(&pem("rsa1024")), "it is shorter than 2048 bits"),
            (rsa(private), "it is a private key; the public one belongs here"),
            (ecdsa(&pem("p256")), ""),
            (ecdsa(&pem("p384")), ""),
            (ecdsa(&pem("p521")), "its curve is neither P-256 nor P-384"),
            (ecdsa(&pem("secp256k1")), "its curve is neither P-256 nor P-384"),
            (ecdsa(&pem("rsa")), "it is in PEM, but not a key of an elliptic curve"),
            (ecdsa(private), "it is a private key; the public one belongs here"),
        ] {
            assert_eq!(found, expected);
        }
    }
}
