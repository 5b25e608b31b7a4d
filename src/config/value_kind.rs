//! Kinds of values that a key may have, and how a value of each kind is read.
//!
//! Owns the kinds. Never knows a key. A value that was read or taken is of that kind.

use figment::value::{Dict, Num, Value};

use super::duration::parse_duration;

/// What a key's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
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

impl ValueKind {
    /// What to write.
    pub fn expected(self) -> &'static str {
        match self {
            ValueKind::Switch => "true or false",
            ValueKind::Number => "a whole number",
            ValueKind::Text | ValueKind::Secret | ValueKind::Address => "text in quotes",
            ValueKind::List => "a list of texts",
            ValueKind::Map => "a table of texts",
            ValueKind::Duration => "a duration such as \"25s\", \"300ms\" or \"720h\"",
            ValueKind::Tables => "a list of tables, each with a name",
        }
    }

    /// Whether a value of it may hold a secret, so that no error shows it.
    pub(super) fn is_hidden(self) -> bool {
        matches!(self, ValueKind::Secret | ValueKind::Address | ValueKind::Map | ValueKind::Tables)
    }

    /// Reads a value that came as text.
    pub(super) fn read(self, text: &str) -> Option<Value> {
        let text = text.trim();
        let between = |at: char| at == ',' || at.is_whitespace();
        let parts = || text.split(between).filter(|part| !part.is_empty());
        Some(match self {
            ValueKind::Switch => match text {
                "true" | "1" => true.into(),
                "false" | "0" => false.into(),
                _ => return None,
            },
            ValueKind::Number => text.parse::<u64>().ok()?.into(),
            ValueKind::Text | ValueKind::Secret | ValueKind::Address => text.into(),
            ValueKind::Duration => {
                parse_duration(text)?;
                text.into()
            }
            ValueKind::Map if text.is_empty() => Dict::new().into(),
            ValueKind::Map => return self.take(&serde_json::from_str(text).ok()?),
            ValueKind::List => parts().map(Value::from).collect::<Vec<_>>().into(),
            ValueKind::Tables if text.starts_with(['[', '{']) => {
                serde_json::from_str::<Vec<Value>>(text).ok()?.into()
            }
            ValueKind::Tables => {
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
            (ValueKind::Switch, Value::Bool(..), _)
            | (ValueKind::Text | ValueKind::Secret | ValueKind::Address, Value::String(..), _)
            | (ValueKind::Tables, Value::Array(..), _) => Some(value.clone()),
            (ValueKind::Number, _, Some(number)) => Some(number.into()),
            (ValueKind::Text | ValueKind::Secret, _, Some(number)) => {
                Some(number.to_string().into())
            }
            (ValueKind::Duration, _, Some(0)) => Some("0s".into()),
            (ValueKind::Number, Value::String(_, text), _) if text.is_empty() => Some(0_u64.into()),
            (ValueKind::List, Value::Array(_, parts), _) => {
                parts.iter().all(|part| part.as_str().is_some()).then(|| value.clone())
            }
            (ValueKind::Map, Value::Dict(_, table), _) => {
                let taken = |value: &Value| ValueKind::Text.take(value);
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
        let check = |kind: ValueKind, json: &str, expected: Option<&str>| {
            let value: Value = serde_json::from_str(json).unwrap();
            let taken = kind.take(&value).map(|taken| serde_json::to_string(&taken).unwrap());
            assert_eq!(taken.as_deref(), expected, "{kind:?} {json}");
        };
        for (kind, json, expected) in [
            (ValueKind::Switch, "true", Some("true")),
            (ValueKind::Switch, "\"true\"", Some("true")),
            (ValueKind::Switch, "\"yes\"", None),
            (ValueKind::Switch, "1", None),
            (ValueKind::Number, "8000", Some("8000")),
            (ValueKind::Number, "\"8000\"", Some("8000")),
            (ValueKind::Number, "\"\"", Some("0")),
            (ValueKind::Number, "-1", None),
            (ValueKind::Number, "1.5", None),
            (ValueKind::Number, "true", None),
            (ValueKind::Text, "\" a \"", Some("\" a \"")),
            (ValueKind::Text, "12", Some("\"12\"")),
            (ValueKind::Secret, "12", Some("\"12\"")),
            (ValueKind::Address, "12", None),
            (ValueKind::Text, "true", None),
            (ValueKind::Text, "[]", None),
            (ValueKind::List, "[\"a\",\"b\"]", Some("[\"a\",\"b\"]")),
            (ValueKind::List, "\"a b,c\"", Some("[\"a\",\"b\",\"c\"]")),
            (ValueKind::List, "[1]", None),
            (ValueKind::Duration, "\"25s\"", Some("\"25s\"")),
            (ValueKind::Duration, "0", Some("\"0s\"")),
            (ValueKind::Duration, "25", None),
            (ValueKind::Duration, "\"25\"", None),
            (ValueKind::Tables, "[{\"name\":\"a\"}]", Some("[{\"name\":\"a\"}]")),
            (ValueKind::Tables, "\"a b\"", Some("[{\"name\":\"a\"},{\"name\":\"b\"}]")),
            (ValueKind::Tables, "{\"name\":\"a\"}", None),
            (ValueKind::Tables, "\"{\"", None),
        ] {
            check(kind, json, expected);
        }
    }
}
