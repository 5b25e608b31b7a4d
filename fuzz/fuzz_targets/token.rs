//! Tokens and key sets: never a panic, and no token is of both kinds.
#![no_main]

use std::sync::LazyLock;

use data_encoding::BASE64URL_NOPAD;
use drumline::model::token::{KeySet, TokenSettings, Verifier};
use libfuzzer_sys::fuzz_target;

const NOW: u64 = 1_700_000_000;
const HEADERS: [&str; 4] = [
    r#"{"alg":"none"}"#,
    r#"{"alg":"HS256","typ":"JWT"}"#,
    r#"{"alg":"RS256","kid":"a"}"#,
    r#"{"alg":"ES256","kid":"a"}"#,
];

/// Whoever believes every signature, and whoever has a set of keys.
static VERIFIERS: LazyLock<[Verifier; 3]> = LazyLock::new(|| {
    let made =
        |settings: TokenSettings| Verifier::new(&settings).expect("these settings are right");
    let secret = || "secret".to_owned();
    [
        made(TokenSettings { insecure_skip_signature_verify: true, ..TokenSettings::default() }),
        made(TokenSettings {
            hmac_secret_key: secret(),
            user_id_claim: "user".into(),
            ..TokenSettings::default()
        }),
        made(TokenSettings { jwks_public_endpoint: "http://a".into(), ..TokenSettings::default() }),
    ]
});

fn verify(token: &str, keys: Option<&KeySet>) {
    for (nth, verifier) in VERIFIERS.iter().enumerate() {
        let _ = verifier.verify_on(token);
        let connection = verifier.connection(token, NOW, keys);
        let subscription = verifier.subscription(token, NOW, keys);
        assert!(connection.is_err() || subscription.is_err(), "{token}");
        assert!(nth == 0 || (connection.is_err() && subscription.is_err()), "signed by nobody");
        if let Ok(claims) = connection {
            assert!(claims.subs.len() <= 10_000);
        }
        if let Ok(claims) = subscription {
            assert!(!claims.channel.is_empty());
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, input)) = input.split_first() else { return };
    match kind % 3 {
        0 => {
            if let Ok(keys) = KeySet::parse(input) {
                let _ = keys.has("");
                let parts = HEADERS.map(|header| BASE64URL_NOPAD.encode(header.as_bytes()));
                for header in parts {
                    verify(&format!("{header}.e30.AAAA"), Some(&keys));
                }
            }
        }
        1 => {
            let header = HEADERS[usize::from(kind / 3) % HEADERS.len()];
            let [header, payload] =
                [header.as_bytes(), input].map(|part| BASE64URL_NOPAD.encode(part));
            verify(&format!("{header}.{payload}."), None);
        }
        _ => {
            if let Ok(token) = std::str::from_utf8(input) {
                verify(token, None);
            }
        }
    }
});
