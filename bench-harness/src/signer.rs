//! Signer of ES256 connection tokens, in the role of the application's backend.
//!
//! Owns a key pair for the duration of the run. Never verifies tokens: the server and the control
//! process do. Invariant: all tokens differ, so no verifier can answer from a cache.

use anyhow::{Result, anyhow};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// Signs connection tokens with ES256.
pub struct Signer {
    key: EcdsaKeyPair,
    signed: u64,
}

impl Signer {
    /// A signer with a new key pair.
    pub fn new() -> Result<Self> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Ok(Signer { key: key.map_err(|_| anyhow!("cannot make a key pair"))?, signed: 0 })
    }

    /// The public key in PEM, as in the server's configuration.
    pub fn public_key(&self) -> Result<String> {
        let der = self.key.public_key().as_der().map_err(|_| anyhow!("a key that has no DER"))?;
        let text = STANDARD.encode(der.as_ref());
        Ok(format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"))
    }

    /// The public key as an entry of a JSON Web Key Set.
    pub fn jwk(&self, kid: &str) -> String {
        // An uncompressed point: a format byte and two coordinates.
        let point = &self.key.public_key().as_ref()[1..];
        let [x, y] = [&point[..32], &point[32..]].map(|half| URL_SAFE_NO_PAD.encode(half));
        format!(r#"{{"kty":"EC","crv":"P-256","alg":"ES256","kid":"{kid}","x":"{x}","y":"{y}"}}"#)
    }

    /// A token for a new user. It expires at `expires`, in unix seconds.
    pub fn token(&mut self, expires: u64) -> Result<String> {
        self.token_of(None, expires)
    }

    /// A token for a new user, with the key id `kid` in its header.
    pub fn token_of(&mut self, kid: Option<&str>, expires: u64) -> Result<String> {
        self.signed += 1;
        let kid = kid.map_or(String::new(), |kid| format!(r#","kid":"{kid}""#));
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"ES256","typ":"JWT"{kid}}}"#));
        let claims = format!(r#"{{"sub":"user-{:08}","exp":{expires}}}"#, self.signed);
        let told = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), told.as_bytes());
        let signature = signature.map_err(|_| anyhow!("cannot sign a token"))?;
        Ok(format!("{told}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verifier;

    #[test]
    fn the_servers_verifier_accepts_only_tokens_of_its_key() {
        let mut signer = Signer::new().unwrap();
        let tokens = [signer.token(2_000_000_000).unwrap(), signer.token(2_000_000_000).unwrap()];
        assert_ne!(tokens[0], tokens[1]);
        let verifier = verifier::of(&signer.public_key().unwrap()).unwrap();
        let claims = verifier.connection(&tokens[1], 1_790_000_000, None).unwrap();
        assert_eq!(claims.user, "user-00000002");
        let other = verifier::of(&Signer::new().unwrap().public_key().unwrap()).unwrap();
        assert!(other.connection(&tokens[1], 1_790_000_000, None).is_err());
    }
}
