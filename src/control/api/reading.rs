//! Reads JSON of requests and writes JSON of replies.
//!
//! Owns no state. Never knows a method.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// Reads a JSON object; null is an empty one. Serde alone would also accept an array of the field
/// values.
pub(super) fn read_object<Q: DeserializeOwned>(text: &[u8]) -> Result<Q, serde_json::Error> {
    if text.trim_ascii() == b"null" {
        return serde_json::from_slice(b"{}");
    }
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err(serde_json::Error::custom("an object is expected"));
    }
    serde_json::from_slice(text)
}

/// Writes a value as JSON.
pub(super) fn raw_text(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("answers have only keys that are texts")
}

/// Deserializes an optional field that must be an object, never an array of field values.
pub(super) fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let Some(text) = Option::<Box<RawValue>>::deserialize(deserializer)? else { return Ok(None) };
    read_object(text.get().as_bytes()).map(Some).map_err(D::Error::custom)
}

/// Deserializes a field in which `null` is a value, not an absent field.
pub(super) fn raw<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}
