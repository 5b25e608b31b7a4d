//! Kinds of values that a key may have, and the conversion to each kind.
//!
//! Owns the kinds. Never knows a key. The invariant: [`ValueKind::read`] and [`ValueKind::take`]
//! return only values of their kind.

use figment::value::{Dict, Num, Value};

use super::duration::parse_duration;
use super::response_transforms::ResponseTransform;
use super::status_transforms::StatusTransform;

/// Kind of a key's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Number,
    /// A string.
    Text,
    /// A string that is never shown: a key or a password.
    Secret,
    /// A URL, whose user, password and query are never shown.
    Address,
    /// A list of strings. In a flag or variable they are separated by spaces or commas.
    List,
    /// A map of names to strings. In a flag or variable it is a JSON object.
    Map,
    /// A list of statuses with an error or a disconnect each. In a flag or variable it is JSON.
    Transforms,
    /// A list of codes with an HTTP response each. In a flag or variable it is JSON.
    Responses,
    /// A duration such as `25s`.
    Duration,
    /// A list of named tables. In a flag or variable it is JSON, or names separated by spaces.
    Tables,
}

impl ValueKind {
    /// Describes a valid value, for error messages.
    pub fn expected(self) -> &'static str {
        match self {
            ValueKind::Switch => "true or false",
            ValueKind::Number => "a whole number",
            ValueKind::Text | ValueKind::Secret | ValueKind::Address => "a string in quotes",
            ValueKind::List => "a list of strings",
            ValueKind::Map => "a table of strings",
            ValueKind::Transforms => {
                "a list of {status_code, to_error: {code, message}} or {status_code, \
                 to_disconnect: {code, reason}}, with ASCII texts of at most 123 bytes and close \
                 codes from 3000 to 4999"
            }
            ValueKind::Responses => {
                "a list of {code, to: {status_code, body}}, with statuses from 200 to 599"
            }
            ValueKind::Duration => "a duration such as \"25s\", \"300ms\" or \"720h\"",
            ValueKind::Tables => "a list of tables, each with a name",
        }
    }

    /// Whether a value of this kind may contain a secret. Errors never show such a value.
    pub(super) fn is_hidden(self) -> bool {
        matches!(self, ValueKind::Secret | ValueKind::Address | ValueKind::Map | ValueKind::Tables)
    }

    /// Parses the text of a flag or an environment variable. `None`: not a value of this kind.
    pub(super) fn read(self, text: &str) -> Option<Value> {
        let text = text.trim();
        let is_separator = |at: char| at == ',' || at.is_whitespace();
        let parts = || text.split(is_separator).filter(|part| !part.is_empty());
        Some(match self {
            ValueKind::Switch => match text {
                "true" | "True" | "TRUE" | "t" | "T" | "1" => true.into(),
                "false" | "False" | "FALSE" | "f" | "F" | "0" => false.into(),
                _ => return None,
            },
            ValueKind::Number => text.parse::<u64>().ok()?.into(),
            ValueKind::Text | ValueKind::Secret | ValueKind::Address => text.into(),
            ValueKind::Duration => {
                parse_duration(text)?;
                text.into()
            }
            ValueKind::Map if text.is_empty() => Dict::new().into(),
            ValueKind::Map | ValueKind::Transforms | ValueKind::Responses => {
                return self.take(&serde_json::from_str(text).ok()?);
            }
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

    /// Converts a value of a file to this kind. `None`: not a value of this kind.
    ///
    /// Like Centrifugo, it accepts numbers and booleans in quotes, 0 and 1 for a boolean, an empty
    /// string for 0 or false, a whole number for a string, one string for a list, and 0 for
    /// a duration.
    pub(super) fn take(self, value: &Value) -> Option<Value> {
        let whole = value.to_num().and_then(Num::to_u128_lossy);
        let whole = whole.and_then(|number| u64::try_from(number).ok());
        match (self, value, whole) {
            (ValueKind::Switch, Value::Bool(..), _)
            | (ValueKind::Text | ValueKind::Secret | ValueKind::Address, Value::String(..), _)
            | (ValueKind::Tables, Value::Array(..), _) => Some(value.clone()),
            (ValueKind::Switch, _, Some(number @ 0..=1)) => Some((number == 1).into()),
            (ValueKind::Number, _, Some(number)) => Some(number.into()),
            (ValueKind::Text | ValueKind::Secret, _, Some(number)) => {
                Some(number.to_string().into())
            }
            (ValueKind::Duration, _, Some(0)) => Some("0s".into()),
            (ValueKind::Number, Value::String(_, text), _) if text.is_empty() => Some(0_u64.into()),
            (ValueKind::Switch, Value::String(_, text), _) if text.is_empty() => Some(false.into()),
            (ValueKind::List, Value::Array(_, parts), _) => {
                parts.iter().all(|part| part.as_str().is_some()).then(|| value.clone())
            }
            (ValueKind::Transforms, Value::Array(..), _) => {
                let read: Vec<StatusTransform> = value.deserialize().ok()?;
                read.iter().all(StatusTransform::is_valid).then(|| value.clone())
            }
            (ValueKind::Responses, Value::Array(..), _) => {
                let read: Vec<ResponseTransform> = value.deserialize().ok()?;
                read.iter().all(ResponseTransform::is_valid).then(|| value.clone())
            }
            // Centrifugo also takes a list of `{key, value}`.
            (ValueKind::Map, Value::Array(_, entries), _) => {
                let field = |entry: &Value, name: &str| {
                    Some(entry.as_dict()?.get(name)?.as_str()?.to_owned())
                };
                let mut table = Dict::new();
                for entry in entries {
                    let (name, value) = (field(entry, "key")?, field(entry, "value")?);
                    if table.insert(name, value.into()).is_some() {
                        return None;
                    }
                }
                Some(table.into())
            }
            (ValueKind::Map, Value::Dict(_, table), _) => {
                let string = |value: &Value| ValueKind::Text.take(value);
                let entries =
                    table.iter().map(|(name, value)| Some((name.clone(), string(value)?)));
                Some(entries.collect::<Option<Dict>>()?.into())
            }
            (_, Value::String(_, text), _) => self.read(text),
            _ => None,
        }
    }
}

/// The type of a value, for errors that must not show the value.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
        Value::String(..) | Value::Char(..) => "a string",
        Value::Bool(..) => "a boolean",
        Value::Num(..) => "a number",
        Value::Empty(..) => "no value",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_file_convert_to_the_kind_of_their_key() {
        let check = |kind: ValueKind, json: &str, expected: Option<&str>| {
            let value: Value = serde_json::from_str(json).unwrap();
            let taken = kind.take(&value).map(|taken| serde_json::to_string(&taken).unwrap());
            assert_eq!(taken.as_deref(), expected, "{kind:?} {json}");
        };
        for (kind, json, expected) in [
            (ValueKind::Switch, "true", Some("true")),
            (ValueKind::Switch, "\"true\"", Some("true")),
            (ValueKind::Switch, "\"yes\"", None),
            (ValueKind::Switch, "\"\"", Some("false")),
            (ValueKind::Switch, "1", Some("true")),
            (ValueKind::Switch, "0", Some("false")),
            (ValueKind::Switch, "2", None),
            (ValueKind::Switch, "\"True\"", Some("true")),
            (ValueKind::Switch, "\"TRUE\"", Some("true")),
            (ValueKind::Switch, "\"t\"", Some("true")),
            (ValueKind::Switch, "\"F\"", Some("false")),
            (ValueKind::Switch, "\"0\"", Some("false")),
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
            (ValueKind::Transforms, "\"[]\"", Some("[]")),
            (ValueKind::Transforms, "[{\"status_code\":404}]", None),
            (ValueKind::Transforms, "[{\"to_error\":{\"code\":4}}]", None),
            (ValueKind::Transforms, "[{\"status_code\":404,\"to_disconnect\":{\"code\":4}}]", None),
            (ValueKind::Transforms, "[{\"status_code\":404,\"to_error\":{\"code\":\"x\"}}]", None),
            (ValueKind::Responses, "\"[]\"", Some("[]")),
            (ValueKind::Responses, "[{\"code\":109}]", None),
            (ValueKind::Responses, "[{\"to\":{\"status_code\":401}}]", None),
            (ValueKind::Responses, "[{\"code\":109,\"to\":{\"status_code\":101}}]", None),
            (ValueKind::Tables, "\"{\"", None),
        ] {
            check(kind, json, expected);
        }
    }
}
