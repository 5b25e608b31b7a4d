//! One key of the configuration: its path, environment variable, kind and default, and the errors
//! about its values.
//!
//! Owns the type [`Key`]. Never keeps a configured value. The invariant: [`Key::take`] returns only
//! values of the key's kind.

use figment::value::Value;

use super::error::{Error, error};
use super::value_kind::{ValueKind, kind_of};

/// Prefix of the environment variables.
pub const PREFIX: &str = "DRUMLINE_";
/// Prefix of Centrifugo's environment variables. The server reads them too; a variable that starts
/// with [`PREFIX`] overrides them.
pub const CENTRIFUGO_PREFIX: &str = "CENTRIFUGO_";

/// A key of the configuration.
#[derive(Clone, Debug)]
pub struct Key {
    /// Path of the key, such as `http_server.port`.
    pub path: String,
    /// Description of the key.
    pub doc: &'static str,
    /// Kind of the key's values.
    pub kind: ValueKind,
    /// Value of the key when no source sets it.
    pub default: toml::Value,
    /// Largest value of a number.
    pub most: u64,
    /// Keys of each table, for a list of tables; empty for every other kind.
    pub(super) options: Vec<Key>,
}

impl Key {
    /// Describes a valid value and its upper bound, for error messages.
    fn expected(&self) -> String {
        match self.kind {
            ValueKind::Number => format!("{} of at most {}", self.kind.expected(), self.most),
            ValueKind::Duration => format!("{}, of at most 876000h", self.kind.expected()),
            kind => kind.expected().to_owned(),
        }
    }

    /// Name of the environment variable that sets the key.
    pub fn variable(&self) -> String {
        self.variable_of(PREFIX)
    }

    /// Name of the environment variable with this prefix that sets the key.
    pub(super) fn variable_of(&self, prefix: &str) -> String {
        format!("{prefix}{}", variable(&self.path))
    }

    /// The key's section, and its name within the section.
    pub(super) fn split(&self) -> (&str, &str) {
        split(&self.path)
    }

    /// An example key of a table in this list, other than `name`, and its default.
    fn option(&self) -> (&str, String) {
        let option = self.options.iter().find(|key| key.path != "name");
        option.map_or(("name", String::new()), |key| (&key.path, key.default.to_string()))
    }

    /// An example value, as written in a flag or an environment variable.
    pub(super) fn example(&self) -> String {
        match &self.default {
            _ if self.kind == ValueKind::Tables => {
                let (path, value) = self.option();
                format!(r#"[{{"name":"chat","{path}":{value}}}]"#)
            }
            _ if self.path == "log.levels" => r#"{"tls":"debug"}"#.to_owned(),
            _ if self.kind == ValueKind::Map => r#"{"X-Key":"some text"}"#.to_owned(),
            toml::Value::String(text) if text.is_empty() => "some text".to_owned(),
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// The error for a flag or environment variable (`place`) whose text is not a valid value.
    pub(super) fn refuse_text(&self, place: &str, text: &str) -> Error {
        let what = if self.kind.is_hidden() { "the value".into() } else { format!("`{text}`") };
        error(
            format!("{place}: {what} is not {}", self.kind.expected()),
            format!("write {}, for example {}", self.expected(), self.example()),
        )
    }

    /// The error for an invalid value at `place` in a file; `what` says what is wrong.
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

    /// Converts a value from a file to the key's kind. The error names the place and shows no
    /// secret.
    pub(super) fn take(&self, place: &str, value: &Value) -> Result<Value, Error> {
        self.kind.take(value).ok_or_else(|| {
            let hidden = self.kind.is_hidden();
            let shown = if hidden { kind_of(value).to_owned() } else { shown(value) };
            let what = format!("{shown} is not {}", self.kind.expected());
            self.refuse(place, &what)
        })
    }
}

/// The path of the key `name` in the section `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Splits a path into its section and the name within the section.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// Converts a name to the form used in environment variables: `a-b.c` becomes `A_B_C`.
pub(super) fn variable(name: &str) -> String {
    name.replace(['.', '-'], "_").to_ascii_uppercase()
}

/// The value as error messages show it. Of a table or list they show only the kind.
fn shown(value: &Value) -> String {
    match value {
        Value::Dict(..) | Value::Array(..) => kind_of(value).to_owned(),
        _ => serde_json::to_string(value).unwrap_or_default(),
    }
}
