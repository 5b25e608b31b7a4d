//! How JSON of a request is read, and JSON of an answer written.
//!
//! Owns nothing. Never knows a method.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// Reads an object; by itself serde would take an array of its fields as well.
pub(super) fn read_object<Q: DeserializeOwned>(text: &[u8]) -> Result<Q, serde_json::Error> {
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err(serde_json::Error::custom("an object was expected"));
    }
    serde_json::from_slice(text)
}

pub(super) fn raw_text(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("answers have only keys that are texts")
}

/// An object, and no array of its fields.
pub(super) fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let Some(text) = Option::<Box<RawValue>>::deserialize(deserializer)? else { return Ok(None) };
    read_object(text.get().as_bytes()).map(Some).map_err(D::Error::custom)
}

/// `null` is a value too.
pub(super) fn raw<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}
