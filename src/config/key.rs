//! The keys as a list, what their values look like, and which of them a wrong name resembles.
//!
//! Owns the list, which is read off the table. Never keeps a value. The invariant: a value that was
//! read or taken is of its key's kind.

use std::sync::LazyLock;

use figment::value::{Dict, Num, Value};

use super::span::parse_duration;
use super::table::{Config, NamedProxy, Namespace, Node, RpcNamespace};
use super::{Error, error};

/// What environment variables begin with.
pub const PREFIX: &str = "DRUMLINE_";
/// What Centrifugo's environment variables begin with; they are read too, and ours win.
pub const CENTRIFUGO_PREFIX: &str = "CENTRIFUGO_";

/// What a key's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Number,
    /// Text.
    Text,
    /// Text that is never shown: a key or a password.
    Secret,
    /// A URL, of which user, password and query are never shown.
    Address,
    /// Texts; in a flag or the environment separated by spaces or commas.
    List,
    /// Texts by their names; in a flag or the environment a JSON object.
    Map,
    /// A duration such as `25s`.
    Duration,
    /// Tables with names; in a flag or the environment JSON, or names alone.
    Tables,
}

impl Kind {
    /// What to write.
    pub fn expected(self) -> &'static str {
        match self {
            Kind::Switch => "true or false",
            Kind::Number => "a whole number",
            Kind::Text | Kind::Secret | Kind::Address => "text in quotes",
            Kind::List => "a list of texts",
            Kind::Map => "a table of texts",
            Kind::Duration => "a duration such as \"25s\", \"300ms\" or \"720h\"",
            Kind::Tables => "a list of tables, each with a name",
        }
    }

    /// Whether a value of it may hold a secret, so that no error shows it.
    fn is_hidden(self) -> bool {
        matches!(self, Kind::Secret | Kind::Address | Kind::Map | Kind::Tables)
    }

    /// Reads a value that came as text.
    pub(super) fn read(self, text: &str) -> Option<Value> {
        let text = text.trim();
        let between = |at: char| at == ',' || at.is_whitespace();
        let parts = || text.split(between).filter(|part| !part.is_empty());
        Some(match self {
            Kind::Switch => match text {
                "true" | "1" => true.into(),
                "false" | "0" => false.into(),
                _ => return None,
            },
            Kind::Number => text.parse::<u64>().ok()?.into(),
            Kind::Text | Kind::Secret | Kind::Address => text.into(),
            Kind::Duration => {
                parse_duration(text)?;
                text.into()
            }
            Kind::Map if text.is_empty() => Dict::new().into(),
            Kind::Map => return self.take(&serde_json::from_str(text).ok()?),
            Kind::List => parts().map(Value::from).collect::<Vec<_>>().into(),
            Kind::Tables if text.starts_with(['[', '{']) => {
                serde_json::from_str::<Vec<Value>>(text).ok()?.into()
            }
            Kind::Tables => {
                let named = |name: &str| Value::from(Dict::from([("name".into(), name.into())]));
                parts().map(named).collect::<Vec<_>>().into()
            }
        })
    }

    /// Takes a value of a file. What Centrifugo takes there is taken too: numbers and switches in
    /// quotes, empty quotes for 0, a whole number for a text, one text for a list, 0 for no time.
    pub(super) fn take(self, value: &Value) -> Option<Value> {
        let whole = value.to_num().and_then(Num::to_u128_lossy);
        let whole = whole.and_then(|number| u64::try_from(number).ok());
        match (self, value, whole) {
            (Kind::Switch, Value::Bool(..), _)
            | (Kind::Text | Kind::Secret | Kind::Address, Value::String(..), _)
            | (Kind::Tables, Value::Array(..), _) => Some(value.clone()),
            (Kind::Number, _, Some(number)) => Some(number.into()),
            (Kind::Text | Kind::Secret, _, Some(number)) => Some(number.to_string().into()),
            (Kind::Duration, _, Some(0)) => Some("0s".into()),
            (Kind::Number, Value::String(_, text), _) if text.is_empty() => Some(0_u64.into()),
            (Kind::List, Value::Array(_, parts), _) => {
                parts.iter().all(|part| part.as_str().is_some()).then(|| value.clone())
            }
            (Kind::Map, Value::Dict(_, table), _) => {
                let taken = |value: &Value| Kind::Text.take(value);
                let texts = table.iter().map(|(name, value)| Some((name.clone(), taken(value)?)));
                Some(texts.collect::<Option<Dict>>()?.into())
            }
            (_, Value::String(_, text), _) => self.read(text),
            _ => None,
        }
    }
}

/// One key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its path, such as `http_server.port`.
    pub path: String,
    /// What it means.
    pub doc: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// Its value where nobody gives one.
    pub default: toml::Value,
    /// The largest value of a number.
    pub most: u64,
}

impl Key {
    /// What to write, with its bounds.
    fn expected(&self) -> String {
        match self.kind {
            Kind::Number => format!("{} of at most {}", self.kind.expected(), self.most),
            Kind::Duration => format!("{}, of at most 876000h", self.kind.expected()),
            kind => kind.expected().to_owned(),
        }
    }

    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        self.variable_of(PREFIX)
    }

    /// The environment variable with that beginning that sets it.
    pub(super) fn variable_of(&self, prefix: &str) -> String {
        format!("{prefix}{}", variable(&self.path))
    }

    /// Its section, and its path without the section.
    pub(super) fn split(&self) -> (&str, &str) {
        split(&self.path)
    }

    /// A value of it, as it is written in a flag or the environment.
    pub(super) fn example(&self) -> String {
        match &self.default {
            _ if self.kind == Kind::Tables => {
                let option = &table_keys(&self.path)[1];
                format!(r#"[{{"name":"chat","{}":{}}}]"#, option.path, option.default)
            }
            _ if self.kind == Kind::Map => r#"{"X-Key":"some text"}"#.to_owned(),
            toml::Value::String(text) if text.is_empty() => "some text".to_owned(),
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// Why a text at `place` is no value of it.
    pub(super) fn refuse_text(&self, place: &str, text: &str) -> Error {
        let what = if self.kind.is_hidden() { "the value".into() } else { format!("`{text}`") };
        error(
            format!("{place}: {what} is not {}", self.kind.expected()),
            format!("write {}, for example {}", self.expected(), self.example()),
        )
    }

    /// Why what stands at `place` in a file is no value of it.
    pub(super) fn refuse(&self, place: &str, what: &str) -> Error {
        let value = match self.kind {
            Kind::Tables => {
                let option = &table_keys(&self.path)[1];
                format!("[{{ name = \"chat\", {} = {} }}]", option.path, option.default)
            }
            _ => self.default.to_string(),
        };
        let (expected, name) = (self.expected(), self.split().1);
        let cure = format!("write {expected}, for example {name} = {value}");
        error(format!("{place}: {what}"), cure)
    }

    /// Takes a value of a file, or says why not.
    pub(super) fn take(&self, place: &str, value: &Value) -> Result<Value, Error> {
        self.kind.take(value).ok_or_else(|| {
            let hidden = self.kind.is_hidden();
            let shown = if hidden { kind_of(value).to_owned() } else { shown(value) };
            let what = format!("{shown} is not {}", self.kind.expected());
            self.refuse(place, &what)
        })
    }
}

/// All keys, in the order of their sections.
pub fn keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| describe(&Config::default()));
    &KEYS
}

/// The keys of one table of a list.
pub(super) fn table_keys(list: &str) -> &'static [Key] {
    static CHANNELS: LazyLock<Vec<Key>> = LazyLock::new(|| describe(&Namespace::default()));
    static METHODS: LazyLock<Vec<Key>> = LazyLock::new(|| describe(&RpcNamespace::default()));
    static PROXIES: LazyLock<Vec<Key>> = LazyLock::new(|| describe(&NamedProxy::default()));
    match list {
        "proxies" => &PROXIES,
        "rpc.namespaces" => &METHODS,
        _ => &CHANNELS,
    }
}

fn describe(node: &impl Node) -> Vec<Key> {
    let mut keys = Vec::new();
    node.describe("", "", &mut keys);
    keys
}

/// The path of a key in a section.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The section of a path, and the rest.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// How a part of a variable's name is written: `a-b.c` as `A_B_C`.
pub(super) fn variable(name: &str) -> String {
    name.replace(['.', '-'], "_").to_ascii_uppercase()
}

/// Whether keys stand in a section of that path.
pub(super) fn is_section(path: &str) -> bool {
    keys().iter().any(|key| is_below(&key.path, path))
}

fn is_below(path: &str, section: &str) -> bool {
    section.is_empty()
        || path.strip_prefix(section).is_some_and(|rest| rest.len() > 1 && rest.starts_with('.'))
}

/// A value as an error shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::Dict(..) | Value::Array(..) => kind_of(value).to_owned(),
        _ => serde_json::to_string(value).unwrap_or_default(),
    }
}

/// What a value is, as an error says it that must not show the value.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
        Value::String(..) | Value::Char(..) => "a text",
        Value::Bool(..) => "true or false",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
    }
}

/// An unknown name, with the known one that it may have been meant for.
pub(super) fn unknown(name: &str, meant: Option<String>) -> String {
    match meant {
        Some(meant) => format!("{name} (did you mean {meant}?)"),
        None => name.to_owned(),
    }
}

/// The key or section that an unknown path may have been meant for. It stands in the same section,
/// or in one below.
pub(super) fn meant(path: &str) -> Option<String> {
    let (section, name) = split(path);
    let near = keys().iter().filter(|key| is_below(&key.path, section));
    let near: Vec<&'static str> = near.map(|key| key.path.as_str()).collect();
    let parents = |path: &'static str| path.match_indices('.').map(move |(at, _)| &path[..at]);
    let sections = near.iter().copied().flat_map(parents);
    let sections = sections.filter(|found| split(found).0 == section);
    let last = |path: &str| split(path).1.to_owned();
    // A section has few letters to tell it by: http_stream is no http_server.
    let found = nearest(name, sections.map(|path| (last(path), path)), 0.75);
    let found = found.or_else(|| nearest(name, near.iter().map(|path| (last(path), *path)), 0.6));
    found.map(str::to_owned)
}

/// The known name that an unknown one resembles most and more than `least`, by what it stands for.
pub(super) fn nearest<T>(
    unknown: &str,
    known: impl IntoIterator<Item = (String, T)>,
    least: f64,
) -> Option<T> {
    let (mut likeness, mut best) = (least, None);
    for (name, stands_for) in known {
        let found = strsim::normalized_damerau_levenshtein(unknown, &name);
        if found > likeness {
            (likeness, best) = (found, Some(stands_for));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_from_a_file() {
        let check = |kind: Kind, json: &str, expected: Option<&str>| {
            let value: Value = serde_json::from_str(json).unwrap();
            let taken = kind.take(&value).map(|taken| serde_json::to_string(&taken).unwrap());
            assert_eq!(taken.as_deref(), expected, "{kind:?} {json}");
        };
        for (kind, json, expected) in [
            (Kind::Switch, "true", Some("true")),
            (Kind::Switch, "\"true\"", Some("true")),
            (Kind::Switch, "\"yes\"", None),
            (Kind::Switch, "1", None),
            (Kind::Number, "8000", Some("8000")),
            (Kind::Number, "\"8000\"", Some("8000")),
            (Kind::Number, "\"\"", Some("0")),
            (Kind::Number, "-1", None),
            (Kind::Number, "1.5", None),
            (Kind::Number, "true", None),
            (Kind::Text, "\" a \"", Some("\" a \"")),
            (Kind::Text, "12", Some("\"12\"")),
            (Kind::Secret, "12", Some("\"12\"")),
            (Kind::Address, "12", None),
            (Kind::Text, "true", None),
            (Kind::Text, "[]", None),
            (Kind::List, "[\"a\",\"b\"]", Some("[\"a\",\"b\"]")),
            (Kind::List, "\"a b,c\"", Some("[\"a\",\"b\",\"c\"]")),
            (Kind::List, "[1]", None),
            (Kind::Duration, "\"25s\"", Some("\"25s\"")),
            (Kind::Duration, "0", Some("\"0s\"")),
            (Kind::Duration, "25", None),
            (Kind::Duration, "\"25\"", None),
            (Kind::Tables, "[{\"name\":\"a\"}]", Some("[{\"name\":\"a\"}]")),
            (Kind::Tables, "\"a b\"", Some("[{\"name\":\"a\"},{\"name\":\"b\"}]")),
            (Kind::Tables, "{\"name\":\"a\"}", None),
            (Kind::Tables, "\"{\"", None),
        ] {
            check(kind, json, expected);
        }
    }

    #[test]
    fn what_a_wrong_name_was_meant_for() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(meant(path).as_deref(), expected, "{path}");
        };
        check("http_server.prot", Some("http_server.port"));
        check("http_sever", Some("http_server"));
        check("client.tokens", Some("client.token"));
        check("client.hmac_secret_key", Some("client.token.hmac_secret_key"));
        check("namespaces", Some("channel.namespaces"));
        check("token_hmac_secret_key", Some("client.token.hmac_secret_key"));
        check("presence", Some("channel.without_namespace.presence"));
        // What Centrifugo has and we have not resembles nothing of ours.
        for path in [
            "admin",
            "broker",
            "client.concurrency",
            "client.presence_update_interval",
            "consumers",
            "debug",
            "dev",
            "engine.redis",
            "engine.type",
            "graphite",
            "grpc_api",
            "http_api.external",
            "http_server.tls",
            "init",
            "log",
            "map_broker",
            "node",
            "opentelemetry",
            "pid_file",
            "presence_manager",
            "uni_grpc",
            "uni_websocket.message_size_limit",
            "usage_stats",
            "websocket.write_timeout",
            "webtransport",
        ] {
            check(path, None);
        }
    }
}
