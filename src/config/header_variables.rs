//! Environment variables in the headers of requests to the backend: `${DRUMLINE_VAR_NAME}` and
//! `${CENTRIFUGO_VAR_NAME}`.
//!
//! Owns no state. Never shows a value. The invariant: a loaded configuration has no such reference
//! left in `static_headers`.

use std::collections::BTreeMap;

use crate::base::secret::Secret;

use super::error::{Error, error};
use super::sections::Config;

/// Prefixes of the variables that headers may refer to.
const PREFIXES: [&str; 2] = ["DRUMLINE_VAR_", "CENTRIFUGO_VAR_"];

/// Whether a variable is for headers instead of a key.
pub(super) fn is_for_headers(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

impl Config {
    /// Replaces the references in all `static_headers` by the values of the variables.
    ///
    /// # Errors
    /// A variable is not set, or is empty: a header without its secret would reach the backend.
    pub(super) fn fill_in_headers(&mut self, variables: &[(String, String)]) -> Result<(), Error> {
        let (client, channel) = (&mut self.client, &mut self.channel);
        let own = [
            ("client.proxy.connect", &mut client.proxy.connect.proxy),
            ("client.proxy.refresh", &mut client.proxy.refresh.proxy),
            ("channel.proxy.subscribe", &mut channel.proxy.subscribe),
            ("channel.proxy.publish", &mut channel.proxy.publish),
            ("channel.proxy.sub_refresh", &mut channel.proxy.sub_refresh),
            ("rpc.proxy", &mut self.rpc.proxy),
            ("client.hook.disconnect", &mut client.hook.disconnect.proxy),
            ("channel.hook.unsubscribe", &mut channel.hook.unsubscribe),
        ];
        for (place, proxy) in own {
            fill_in(place, &mut proxy.http.static_headers, variables)?;
        }
        for one in &mut self.proxies {
            let place = format!("proxies {:?}", one.name);
            fill_in(&place, &mut one.proxy.http.static_headers, variables)?;
        }
        Ok(())
    }
}

fn fill_in(
    place: &str,
    headers: &mut BTreeMap<String, Secret>,
    variables: &[(String, String)],
) -> Result<(), Error> {
    for (header, value) in headers {
        if value.reveal().contains("${") {
            let filled = filled(value.reveal(), variables).map_err(|name| {
                error(
                    format!(
                        "{place}: http.static_headers: {header} needs {name}, which is not set"
                    ),
                    "set the environment variable, or write the value without a reference",
                )
            })?;
            *value = Secret::from(filled.as_str());
        }
    }
    Ok(())
}

/// The text with its references replaced; `Err`: the name of a variable that is not set.
fn filled(text: &str, variables: &[(String, String)]) -> Result<String, String> {
    let (mut found, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        found.push_str(before);
        match after.split_once('}').filter(|(name, _)| is_for_headers(name)) {
            Some((name, after)) => {
                let value = variables.iter().find(|(known, _)| known == name);
                let value = value.map(|(_, value)| value.as_str()).filter(|text| !text.is_empty());
                found.push_str(value.ok_or(name)?);
                rest = after;
            }
            None => {
                found.push_str("${");
                rest = after;
            }
        }
    }
    found.push_str(rest);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::config::{Error, Loaded, Sources, load};

    fn load_headers(json: &str, variables: &[(&str, &str)]) -> Result<Loaded, Error> {
        let own = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let flags = own(&[("rpc.proxy.http.static_headers", json), ("http_api.insecure", "true")]);
        let file = Some(PathBuf::from("/dev/null"));
        load(&Sources { file, environment: own(variables), flags })
    }

    #[test]
    fn static_headers_refer_to_variables_of_the_environment() {
        let variables =
            [("CENTRIFUGO_VAR_KEY", "hunter2"), ("DRUMLINE_VAR_ID", "7"), ("DRUMLINE_VAR_E", "")];
        for (text, expected) in [
            ("Bearer ${CENTRIFUGO_VAR_KEY}", "Bearer hunter2"),
            ("${DRUMLINE_VAR_ID}-${DRUMLINE_VAR_ID}${CENTRIFUGO_VAR_KEY}", "7-7hunter2"),
            ("${HOME} ${X ${DRUMLINE_VAR_ID}", "${HOME} ${X 7"),
            ("$DRUMLINE_VAR_ID ${DRUMLINE_VAR_ID", "$DRUMLINE_VAR_ID ${DRUMLINE_VAR_ID"),
        ] {
            let loaded = load_headers(&format!(r#"{{"X-A": "{text}"}}"#), &variables).unwrap();
            let headers = &loaded.config.rpc.proxy.http.static_headers;
            assert_eq!(headers["X-A"].reveal(), expected);
            assert_eq!(loaded.warnings, [""; 0], "the variables are known");
        }
        for name in ["CENTRIFUGO_VAR_OTHER", "DRUMLINE_VAR_E"] {
            let refused = load_headers(&format!(r#"{{"X-A": "${{{name}}}"}}"#), &variables);
            let told = refused.unwrap_err().to_string();
            let cause = format!("rpc.proxy: http.static_headers: X-A needs {name}, which is not");
            assert!(told.contains(&cause) && !told.contains("hunter2"), "{told}");
        }
        let list = r#"[{"key": "X-A", "value": "${DRUMLINE_VAR_ID}"}]"#;
        let loaded = load_headers(list, &variables).unwrap();
        assert_eq!(loaded.config.rpc.proxy.http.static_headers["X-A"].reveal(), "7");
        let twice = r#"[{"key": "X-A", "value": ""}, {"key": "X-A", "value": ""}]"#;
        assert!(load_headers(twice, &variables).is_err());
    }
}
