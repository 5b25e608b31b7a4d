//! Kinds of values that a key may have, and how a value of each kind is read.
//!
//! Owns the kinds. Never knows a key. A value that was read or taken is of that kind.

use figment::value::{Dict, Num, Value};

use super::span::parse_duration;

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
    pub(super) fn is_hidden(self) -> bool {
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
}
