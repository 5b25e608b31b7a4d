//! Environment variables: selects those of the configuration and recognises those that Kubernetes
//! adds.
//!
//! Owns no state. Never sets a key. The invariant: no variable with one of the two prefixes gets
//! lost here, so that `load` can read it, warn about it or reject it.

use std::ffi::OsString;

use super::error::{Error, error};
use super::key::{CENTRIFUGO_PREFIX, PREFIX};

/// Prefix of the variables of scripts/tune.sh, which an operator may have exported.
const SCRIPT_PREFIX: &str = "DRUMLINE_TUNE_";

/// Selects the variables with the prefix `DRUMLINE_` or `CENTRIFUGO_`.
///
/// # Errors
/// The value of such a variable is not UTF-8. Ignoring the variable could open the server to
/// everyone on the machine.
pub fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, Error> {
    let mut selected = Vec::new();
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with(PREFIX) && !name.starts_with(CENTRIFUGO_PREFIX) {
            continue;
        }
        let value = value.into_string().map_err(|_| {
            error(format!("{name} in the environment is not UTF-8"), "set it to UTF-8 text")
        })?;
        selected.push((name, value));
    }
    Ok(selected)
}

/// Whether a variable belongs to a script of this project instead of the configuration.
pub(super) fn is_of_scripts(name: &str) -> bool {
    name.starts_with(SCRIPT_PREFIX)
}

/// Whether a variable is one that Kubernetes sets for a service: `..._SERVICE_HOST`,
/// `..._SERVICE_PORT_HTTP`, `..._PORT` with an address, `..._PORT_8000_TCP_ADDR`.
pub(super) fn is_of_kubernetes(name: &str, text: &str) -> bool {
    let has_address = ["tcp://", "udp://", "sctp://"].iter().any(|kind| text.starts_with(kind));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && has_address)
        || name.match_indices("_PORT_").any(|(at, part)| is_port(&name[at + part.len()..]))
}

/// Whether a text has one of the forms `8000_TCP`, `8000_TCP_ADDR`, `8000_TCP_PORT` and
/// `8000_TCP_PROTO`.
fn is_port(text: &str) -> bool {
    let mut parts = text.split('_');
    let number = parts.next().unwrap_or_default();
    let protocol = parts.next().unwrap_or_default();
    !number.is_empty()
        && number.bytes().all(|digit| digit.is_ascii_digit())
        && ["TCP", "UDP", "SCTP"].contains(&protocol)
        && matches!(parts.next(), None | Some("ADDR" | "PORT" | "PROTO"))
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn variables_that_kubernetes_injects_are_recognised() {
        let check = |name: &str, text: &str, expected: bool| {
            assert_eq!(is_of_kubernetes(name, text), expected, "{name}={text}");
        };
        check("DRUMLINE_PORT", "tcp://10.0.0.1:8000", true);
        check("DRUMLINE_PORT", "8000", false);
        check("DRUMLINE_HTTP_SERVER_PORT", "tcp://10.0.0.1:8000", true);
        check("DRUMLINE_HTTP_SERVER_PORT", "8000", false);
        check("DRUMLINE_SERVICE_HOST", "10.0.0.1", true);
        check("DRUMLINE_SERVICE_PORT", "8000", true);
        check("DRUMLINE_SERVICE_PORT_HTTP", "8000", true);
        check("DRUMLINE_METRICS_SERVICE_HOST", "10.0.0.1", true);
        check("DRUMLINE_PORT_8000_TCP", "tcp://10.0.0.1:8000", true);
        for end in ["ADDR", "PORT", "PROTO"] {
            check(&format!("DRUMLINE_PORT_8000_TCP_{end}"), "tcp", true);
        }
        check("DRUMLINE_PORT_X_TCP_ADDR", "10.0.0.1", false);
        check("DRUMLINE_PORT_8000_TCP_MORE", "10.0.0.1", false);
        check("DRUMLINE_CLIENT_INSECUR", "true", false);
        check("DRUMLINE_TOKEN_TCP_SECRET", "a", false);
    }

    #[test]
    fn a_variable_with_our_prefix_that_is_not_utf8_is_an_error() {
        let check = |name: &str, value: &[u8]| {
            let value = OsString::from_vec(value.to_vec());
            environment([(OsString::from(name), value)])
        };
        assert_eq!(check("HOME", b"/\xff"), Ok(Vec::new()));
        let set = vec![("DRUMLINE_SHARDS".to_owned(), "2".to_owned())];
        assert_eq!(check("DRUMLINE_SHARDS", b"2"), Ok(set));
        for name in ["DRUMLINE_HTTP_API_KEY", "CENTRIFUGO_HTTP_API_KEY"] {
            let refused = check(name, b"a\xff").unwrap_err();
            assert!(refused.cause.contains(name), "{refused}");
        }
    }
}
