//! One key of the configuration: its path, its variable, and the errors about its values.
//!
//! Owns the type. Never keeps a value. A value that was taken is of its key's kind.

use figment::value::Value;

use super::error::{Error, error};
use super::value_kind::{ValueKind, kind_of};

/// What environment variables begin with.
pub const PREFIX: &str = "DRUMLINE_";
/// What Centrifugo's environment variables begin with; they are read too, and ours win.
pub const CENTRIFUGO_PREFIX: &str = "CENTRIFUGO_";

/// One key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its path, such as `http_server.port`.
    pub path: String,
    /// What it means.
    pub doc: &'static str,
    /// What its value looks like.
    pub kind: ValueKind,
    /// Its value where nobody gives one.
    pub default: toml::Value,
    /// The largest value of a number.
    pub most: u64,
    /// The keys of one table of a list of tables; empty for every other kind.
    pub(super) options: Vec<Key>,
}

impl Key {
    /// What to write, with its bounds.
    fn expected(&self) -> String {
        match self.kind {
            ValueKind::Number => format!("{} of at most {}", self.kind.expected(), self.most),
            ValueKind::Duration => format!("{}, of at most 876000h", self.kind.expected()),
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

    /// An option of one table of a list, and its default.
    fn option(&self) -> (&str, String) {
        let option = self.options.iter().find(|key| key.path != "name");
        option.map_or(("name", String::new()), |key| (&key.path, key.default.to_string()))
    }

    /// A value of it, as it is written in a flag or the environment.
    pub(super) fn example(&self) -> String {
        match &self.default {
            _ if self.kind == ValueKind::Tables => {
                let (path, value) = self.option();
                format!(r#"[{{"name":"chat","{path}":{value}}}]"#)
            }
            _ if self.kind == ValueKind::Map => r#"{"X-Key":"some text"}"#.to_owned(),
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
            ValueKind::Tables => {
                let (path, value) = self.option();
                format!("[{{ name = \"chat\", {path} = {value} }}]")
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

/// The path of a key in a section.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The section of a path, and the rest.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// How a part of a variable's name is written: `a-b.c` as `A_B_C`.
pub(super) fn variable(name: &str) -> String {
    name.replace(['.', '-'], "_").to_ascii_uppercase()
}

/// A value as an error shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::Dict(..) | Value::Array(..) => kind_of(value).to_owned(),
        _ => serde_json::to_string(value).unwrap_or_default(),
    }
}
