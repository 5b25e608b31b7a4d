//! Settings of token verification.
//!
//! Owns the type. Never reads a configuration file.

use std::fmt;

/// Settings of token verification, with the names of Centrifugo. An empty string: not set.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TokenSettings {
    /// Secret that verifies HS256, HS384 and HS512, and signs generated tokens.
    pub hmac_secret_key: String,
    /// Previous secret, for tokens that were signed before a change of the secret.
    pub hmac_previous_secret_key: String,
    /// Last Unix time in seconds at which the previous secret is valid; 0: no limit.
    pub hmac_previous_secret_key_valid_until: u64,
    /// RSA public key in PEM. Verifies RS256, RS384 and RS512.
    pub rsa_public_key: String,
    /// ECDSA public key in PEM. Its curve decides whether it verifies ES256 or ES384.
    pub ecdsa_public_key: String,
    /// URL of the JSON Web Key Set. If it is set, the keys above are ignored.
    pub jwks_public_endpoint: String,
    /// Required audience: `aud` must equal or contain it.
    pub audience: String,
    /// Pattern that `aud` or one of its strings must match, at any place.
    pub audience_regex: String,
    /// Required issuer (`iss`).
    pub issuer: String,
    /// Pattern that `iss` must match, at any place.
    pub issuer_regex: String,
    /// Name of the claim that contains the user ID; empty: `sub`.
    pub user_id_claim: String,
    /// Permit names in `jwks_public_endpoint` whose groups are not lists of fixed values.
    pub insecure_skip_jwks_endpoint_safety_check: bool,
    /// Skip signature verification. Expiry is still checked.
    pub insecure_skip_signature_verify: bool,
}

impl fmt::Debug for TokenSettings {
    /// Prints no field, because some are secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TokenSettings").finish_non_exhaustive()
    }
}
