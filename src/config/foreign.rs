//! Keys of Centrifugo without a counterpart: which values change nothing, which are refused.
//!
//! Owns the values of these keys while the sources are read. Never sets a key of the configuration.
//! The invariant: a value that equals Centrifugo's default causes no warning; every other value is
//! refused or named in a warning.

use std::sync::LazyLock;

use figment::value::Value;

use super::duration::parse_duration;
use super::error::{Error, error};
use super::foreign_keys::{FLAGS, GROUPS};
use super::key::variable;

/// A key of Centrifugo that the server does not carry.
#[derive(Debug)]
pub(super) struct ForeignKey {
    /// Path of the key, such as `engine.type`.
    pub(super) path: String,
    /// Centrifugo's default; empty: false, 0 or empty.
    default: &'static str,
}

impl ForeignKey {
    /// Whether a value asks for something other than Centrifugo's default.
    fn asks(&self, text: &str) -> bool {
        let is_time = |text: &str| !text.is_empty() && !text.bytes().all(|at| at.is_ascii_digit());
        let time = |text: &str| is_time(text).then(|| parse_duration(text)).flatten();
        let is_default = text == self.default || (is_nothing(text) && is_nothing(self.default));
        !is_default && (time(text).is_none() || time(text) != time(self.default))
    }
}

/// Whether a text means false, 0 or empty.
fn is_nothing(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    ["", "false", "f", "0", "0s", "[]", "{}", "null"].contains(&lower.as_str())
}

fn all() -> &'static [ForeignKey] {
    static ALL: LazyLock<Vec<ForeignKey>> = LazyLock::new(|| {
        let mut found = Vec::new();
        expand("", "all", &mut found);
        found
    });
    &ALL
}

/// Adds the keys of a group below the section `prefix`, which is empty or ends with a dot.
fn expand(prefix: &str, group: &str, found: &mut Vec<ForeignKey>) {
    let words = GROUPS.iter().find(|(name, _)| *name == group).map_or("", |(_, words)| *words);
    for word in words.split_ascii_whitespace() {
        match word.split_once('@') {
            Some((section, group)) => {
                let section = section.trim_start_matches('.');
                expand(&format!("{prefix}{section}"), group, found);
            }
            None => {
                let (name, default) = word.split_once('=').unwrap_or((word, ""));
                found.push(ForeignKey { path: format!("{prefix}{name}"), default });
            }
        }
    }
}

/// The key at this path.
pub(super) fn find(path: &str) -> Option<&'static ForeignKey> {
    all().iter().find(|key| key.path == path)
}

/// Whether the keys of a section at this path are known.
fn is_section(path: &str) -> bool {
    let below =
        |key: &ForeignKey| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
    all().iter().any(below)
}

/// The key whose environment variable has this name, without the prefix.
pub(super) fn find_variable(rest: &str) -> Option<&'static ForeignKey> {
    all().iter().find(|key| variable(&key.path) == rest)
}

/// Flags of Centrifugo for keys that the server does not carry: the path, and whether the flag may
/// stand without a value.
pub fn foreign_flags() -> impl Iterator<Item = (&'static str, bool)> {
    FLAGS.into_iter().map(|path| {
        let is_switch =
            [".enabled", ".external", ".insecure"].iter().any(|end| path.ends_with(end));
        (path, is_switch)
    })
}

/// A value of a file as the text of an environment variable.
fn text(value: &Value) -> String {
    let plain = |value: &Value| match value {
        Value::String(_, text) => text.clone(),
        other => serde_json::to_string(other).unwrap_or_default(),
    };
    match value {
        Value::Array(_, parts) => parts.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => plain(other),
    }
}

/// The keys of a value of a file: each with its text. Names that Centrifugo does not have go to
/// `unknown`.
pub(super) fn read(
    path: &str,
    value: &Value,
    unknown: &mut Vec<String>,
) -> Vec<(&'static ForeignKey, String)> {
    match (value, find(path)) {
        // A key without a value counts as unset.
        (Value::Empty(..), Some(_)) => Vec::new(),
        (_, Some(key)) => vec![(key, text(value))],
        (Value::Empty(..), None) if is_section(path) => Vec::new(),
        (Value::Dict(_, table), None) if is_section(path) => {
            let below = |(name, value): (&String, &Value)| {
                read(&format!("{path}.{}", name.to_ascii_lowercase()), value, unknown)
            };
            table.iter().flat_map(below).collect()
        }
        _ => {
            unknown.push(path.to_owned());
            Vec::new()
        }
    }
}

/// Whether the value of an option of a table asks for something; `None`: Centrifugo does not have
/// the option. `template` is the section whose options the table has.
pub(super) fn option_asks(template: &str, path: &str, value: &Value) -> Option<bool> {
    let mut unknown = Vec::new();
    let found = read(&format!("{template}.{path}"), value, &mut unknown);
    unknown.is_empty().then(|| found.iter().any(|(key, text)| key.asks(text)))
}

/// A value of a foreign key.
struct ForeignValue {
    key: &'static ForeignKey,
    text: String,
    /// The key or variable as the warning names it.
    shown: String,
    /// The key with its source, as an error names it.
    place: String,
}

/// The values of foreign keys that the sources set; a later source replaces an earlier one.
#[derive(Default)]
pub(super) struct ForeignValues(Vec<ForeignValue>);

impl ForeignValues {
    /// Sets the value of a key. A warning names `shown`, an error names `place`.
    pub(super) fn set(&mut self, key: &'static ForeignKey, text: &str, shown: &str, place: &str) {
        self.0.retain(|old| old.key.path != key.path);
        let (text, shown, place) = (text.trim().to_owned(), shown.to_owned(), place.to_owned());
        self.0.push(ForeignValue { key, text, shown, place });
    }

    fn get(&self, path: &str) -> Option<&ForeignValue> {
        self.0.iter().find(|value| value.key.path == path && value.key.asks(&value.text))
    }

    /// The names for the warning about values without effect.
    pub(super) fn without_effect(&self) -> Vec<String> {
        let asking = self.0.iter().filter(|value| value.key.asks(&value.text));
        let mut names: Vec<String> = Vec::new();
        for value in asking {
            if !names.contains(&value.shown) {
                names.push(value.shown.clone());
            }
        }
        names
    }

    /// Refuses values that a server without them would contradict silently.
    pub(super) fn check(&self) -> Result<(), Error> {
        for (path, gate, cause, cure) in REFUSALS {
            if let Some(value) = self.get(path)
                && (gate.is_empty() || self.get(gate).is_some())
            {
                return Err(error(format!("{}: {cause}", value.place), cure));
            }
        }
        Ok(())
    }
}

/// Causes and cures of refused values.
const MEMORY: &str = "this server keeps all state in its own memory";
const USE_MEMORY: &str = "set it to memory, or remove it";
const NO_PASSWORD: &str = "the admin page always asks for its password";
const USE_PASSWORD: &str = "set it to false, and set admin.password";
const PUBLIC_ADMIN: &str = "the public port does not serve the admin page";
const USE_INTERNAL: &str = "set it to false, and set http_server.internal_port";

/// Keys whose values other than the default are refused: path, the key that must be set too (empty:
/// none), cause and cure.
const REFUSALS: [(&str, &str, &str, &str); 6] = [
    ("engine.type", "", MEMORY, USE_MEMORY),
    ("broker.type", "broker.enabled", MEMORY, USE_MEMORY),
    ("presence_manager.type", "presence_manager.enabled", MEMORY, USE_MEMORY),
    ("controller.enabled", "", "this server does not join a cluster", "set it to false"),
    ("admin.insecure", "", NO_PASSWORD, USE_PASSWORD),
    ("admin.external", "", PUBLIC_ADMIN, USE_INTERNAL),
];

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::Value;

    use super::super::sections::Config;
    use super::super::{Loaded, Sources, load};
    use super::*;

    /// The output of `centrifugo defaultconfig`.
    const DEFAULTS: &str = include_str!("testdata/centrifugo-6.9.1-defaults.json");

    fn load_file(name: &str, text: &str) -> Result<Loaded, Error> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        load(&Sources { file: Some(file), ..Sources::default() })
    }

    /// Loads an empty file with these variables and flags.
    fn load_with(environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded, Error> {
        let own = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let file = Some(PathBuf::from("/dev/null"));
        load(&Sources { file, environment: own(environment), flags: own(flags) })
    }

    /// The values of a table with the paths of their keys.
    fn flat(path: &str, value: &Value, found: &mut Vec<(String, Value)>) {
        match value.as_object().filter(|table| !table.is_empty()) {
            Some(table) => {
                for (name, value) in table {
                    let path =
                        if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    flat(&path, value, found);
                }
            }
            None => found.push((path.to_owned(), value.clone())),
        }
    }

    fn without_null(value: &Value) -> Value {
        match value {
            Value::Object(table) => {
                let kept = table.iter().filter(|(_, value)| !value.is_null());
                kept.map(|(name, value)| (name.clone(), without_null(value))).collect()
            }
            other => other.clone(),
        }
    }

    /// Centrifugo's defaults that this server has in another form.
    fn check_defaults(loaded: &Loaded) {
        let mut config = loaded.config.clone();
        assert!(!config.health.enabled && !config.sse.enabled && !config.http_stream.enabled);
        (config.health.enabled, config.sse.enabled, config.http_stream.enabled) =
            (true, true, true);
        let options = &mut config.channel.without_namespace;
        for name in [
            &mut options.subscribe_proxy_name,
            &mut options.publish_proxy_name,
            &mut options.sub_refresh_proxy_name,
            &mut config.rpc.without_namespace.proxy_name,
        ] {
            assert_eq!(std::mem::take(name), "default");
        }
        assert_eq!(std::mem::take(&mut config.prometheus.namespace), "centrifugo");
        assert_eq!(config, Config::default());
        let [warning] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
        assert!(warning.starts_with("http_api.key is not set"), "{warning}");
    }

    #[test]
    fn the_default_configuration_of_centrifugo_loads_without_a_warning_about_its_keys() {
        let json: Value = serde_json::from_str(DEFAULTS).unwrap();
        let toml = toml::to_string(&without_null(&json)).unwrap();
        for (name, text) in
            [("config.json", DEFAULTS), ("config.yaml", DEFAULTS), ("config.toml", &toml)]
        {
            check_defaults(&load_file(name, text).unwrap_or_else(|told| panic!("{name}: {told}")));
        }
        let mut found = Vec::new();
        flat("", &json, &mut found);
        let named = |(path, value): &(String, Value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                Value::Array(parts) => {
                    parts.iter().map(|part| part.as_str().unwrap()).collect::<Vec<_>>().join(" ")
                }
                other => other.to_string(),
            };
            (format!("CENTRIFUGO_{}", variable(path)), text)
        };
        let environment: Vec<(String, String)> = found.iter().map(named).collect();
        assert!(environment.len() > 700, "{}", environment.len());
        let file = Some(PathBuf::from("/dev/null"));
        check_defaults(&load(&Sources { file, environment, flags: Vec::new() }).unwrap());
    }

    #[test]
    fn flags_of_centrifugo_that_change_nothing_do_not_stop_the_start() {
        for (path, text) in [
            ("engine.type", "memory"),
            ("broker.enabled", "false"),
            ("broker.type", "redis"),
            ("presence_manager.type", "memory"),
            ("map_broker.type", "memory"),
            ("admin.insecure", "F"),
            ("grpc_api.enabled", "false"),
            ("grpc_api.port", "10000"),
            ("uni_grpc.port", "11000"),
        ] {
            let loaded = load_with(&[], &[(path, text)]).unwrap();
            let expected = usize::from(path == "broker.type");
            let unused = loaded.warnings.iter().filter(|told| told.contains("no effect"));
            assert_eq!(unused.count(), expected, "--{path} {text}: {:?}", loaded.warnings);
        }
        for (path, text) in [
            ("init.enabled", "true"),
            ("grpc_api.port", "1"),
            ("init.enabled", "1"),
            ("debug.enabled", "t"),
        ] {
            let warnings = load_with(&[], &[(path, text)]).unwrap().warnings;
            assert!(warnings[0].contains(&format!("no effect: --{path};")), "{warnings:?}");
        }
        assert!(load_with(&[], &[("bogus.key", "1")]).is_err());
    }

    #[test]
    fn a_value_that_the_server_would_contradict_silently_is_refused() {
        let refused = load_with(&[], &[("engine.type", "redis")]).unwrap_err();
        assert_eq!(refused.cause, "--engine.type: this server keeps all state in its own memory");
        assert!(refused.cure.contains("memory"), "{refused}");
        let variables = [("CENTRIFUGO_BROKER_ENABLED", "True"), ("CENTRIFUGO_BROKER_TYPE", "nats")];
        let refused = load_with(&variables, &[]).unwrap_err();
        assert!(refused.cause.starts_with("CENTRIFUGO_BROKER_TYPE: "), "{refused}");
        assert!(load_with(&variables, &[("broker.enabled", "false")]).is_ok(), "a flag wins");
    }

    #[test]
    fn warnings_name_only_values_that_ask_for_something() {
        let namespace = r#"{"name":"chat","subscription_type":"","map":{"mode":""}}"#;
        let asks = r#"{"name":"news","map":{"mode":"ephemeral"}}"#;
        let text = format!(
            r#"{{"http_api":{{"key":"k"}},"graphite":{{"interval":"10s","port":2003}},
                "broker":{{"redis":{{"address":["redis://127.0.0.1:6379"],"tls":{{"a":0}}}}}},
                "admin":{{"secret":"hunter2"}},"CLIENT":{{"Channel_Limit":3,"concurrency":8}},
                "channel":{{"namespaces":[{namespace},{asks}]}}}}"#
        );
        let loaded = load_file("config.json", &text).unwrap();
        assert_eq!(loaded.config.client.channel_limit, 3, "the case of a name does not matter");
        let [warning] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
        let names = warning.split(": ").nth(1).unwrap().split(';').next().unwrap();
        let mut names: Vec<&str> = names.split(", ").collect();
        names.sort_unstable();
        let expected = [
            "admin.secret",
            "broker.redis.tls.a",
            "channel.namespaces.news.map",
            "client.concurrency",
        ];
        assert_eq!(names, expected, "{warning}");
        assert!(!warning.contains("hunter2"));
    }

    #[test]
    fn every_flag_and_every_group_is_known() {
        for (path, _) in foreign_flags() {
            assert!(find(path).is_some(), "{path}");
        }
        let named = GROUPS.iter().flat_map(|(_, words)| words.split_ascii_whitespace());
        for (_, group) in named.filter_map(|word| word.split_once('@')) {
            assert!(GROUPS.iter().any(|(name, _)| *name == group), "{group}");
        }
    }
}
