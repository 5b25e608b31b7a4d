//! Parses JSON of clients, backends and tokens, and tolerates the differences between its writers.
//!
//! Owns no state. Never knows the meaning of a field. The invariants: a field that is `null` counts
//! as absent, except for payloads, where `null` is a value. An array never counts as an object.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use data_encoding::BASE64;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A string that is borrowed if it has no escapes, also inside an `Option`.
#[derive(Debug, Deserialize, PartialEq, Eq, Hash)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// A field that counts as absent if it is `null`. For strings use [`text`], which borrows.
pub fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A string that counts as absent if it is `null`.
pub fn text<'de: 'a, 'a, D>(deserializer: D) -> Result<Cow<'a, str>, D::Error>
where
    D: Deserializer<'de>,
{
    let text = Option::<Text<'a>>::deserialize(deserializer)?;
    Ok(text.map(|Text(text)| text).unwrap_or_default())
}

/// A payload: the text of any JSON value, `null` included.
pub fn payload<'de: 'a, 'a, D>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error>
where
    D: Deserializer<'de>,
{
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// An object, or `None` for `null`. Unlike a derived parser, it refuses an array of the fields.
pub fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(Object(PhantomData))
}

/// Parses the text of an object.
pub fn read_object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> serde_json::Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = object(&mut reader)?;
    reader.end()?;
    read.ok_or_else(|| serde_json::Error::custom("invalid type: null, expected an object"))
}

struct Object<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
    type Value = Option<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Option<T>, M::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }
}

/// Decodes base64 with padding. Line ends anywhere are ignored, because MIME, Ruby and Python's
/// `encodebytes` write them.
pub fn base64(text: &str) -> Option<Vec<u8>> {
    let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    if text.as_bytes().iter().any(is_line_end) {
        let joined: Vec<u8> = text.bytes().filter(|byte| !is_line_end(byte)).collect();
        return BASE64.decode(&joined).ok();
    }
    BASE64.decode(text.as_bytes()).ok()
}

/// Why JSON could not be parsed, without its values, because values may be secrets.
pub fn cause(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // The expectation comes last. It is a text of the server, so it holds no value.
    match text.rsplit_once(", expected ") {
        Some((found, expected)) => {
            let kind = found.split(['"', '`']).next().unwrap_or_default().trim_end();
            format!("{kind}, expected {expected}")
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Inner {
        #[serde(deserialize_with = "nullable")]
        number: u64,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Outer<'a> {
        #[serde(borrow, deserialize_with = "text")]
        name: Cow<'a, str>,
        #[serde(borrow, deserialize_with = "payload")]
        data: Option<&'a RawValue>,
        #[serde(deserialize_with = "object")]
        inner: Option<Inner>,
    }

    #[test]
    fn a_null_field_is_absent_and_a_null_payload_is_a_value() {
        let read = |text| serde_json::from_str::<Outer<'_>>(text).unwrap();
        let outer = read(r#"{"name":null,"data":null,"inner":null}"#);
        assert_eq!((&*outer.name, outer.inner), ("", None));
        assert_eq!(outer.data.map(RawValue::get), Some("null"));
        let outer = read(r#"{"inner":{"number":null}}"#);
        assert_eq!(outer.inner, Some(Inner { number: 0 }));
        assert!(outer.data.is_none());
        let outer = read(r#"{"name":"a","data":[1, 2],"inner":{"number":5}}"#);
        assert!(matches!(outer.name, Cow::Borrowed("a")), "strings are not copied");
        assert_eq!(outer.data.map(RawValue::get), Some("[1, 2]"));
        assert_eq!(outer.inner, Some(Inner { number: 5 }));
    }

    #[test]
    fn an_array_is_refused_as_an_object() {
        for inner in ["[]", "[5]", "5", "\"\"", "true"] {
            let text = format!("{{\"inner\":{inner}}}");
            assert!(serde_json::from_str::<Outer<'_>>(&text).is_err(), "{inner}");
        }
    }

    #[test]
    fn base64_may_contain_line_ends_but_no_other_white_space() {
        for (text, expected) in [
            ("", Some("")),
            ("\n", Some("")),
            ("eyJhIjoxfQ==", Some("{\"a\":1}")),
            ("eyJhIjoxfQ==\n", Some("{\"a\":1}")),
            ("eyJh\nIjox\nfQ==\n", Some("{\"a\":1}")),
            ("eyJh\r\nIjox\r\nfQ=\r\n=\r\n", Some("{\"a\":1}")),
            ("eyJh IjoxfQ==", None),
            (" eyJhIjoxfQ==", None),
            ("eyJhIjoxfQ", None),
            ("eyJhIjoxfQ=\n", None),
            ("-_-_", None),
        ] {
            let found = base64(text);
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{text:?}");
        }
    }

    #[test]
    fn a_parse_error_contains_no_value() {
        for (text, expected) in [
            (r#"{"name":{"secret":1}}"#, "invalid type: map, expected a string at line 1 column 8"),
            (
                r#"{"inner":{"number":"secret, expected b"}}"#,
                "invalid type: string, expected u64 at line 1 column 39",
            ),
            (
                r#"{"inner":{"number":-77}}"#,
                "invalid value: integer, expected u64 at line 1 column 22",
            ),
            (r#"{"inner":"secret"}"#, "invalid type: string, expected an object"),
            ("secret", "expected value at line 1 column 1"),
        ] {
            let found = cause(&serde_json::from_str::<Outer<'_>>(text).unwrap_err());
            assert!(found.starts_with(expected), "{found}");
            assert!(!found.contains("secret") && !found.contains("77"), "{found}");
        }
    }
}
