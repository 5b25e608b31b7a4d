//! The payload fields that tokens and backend answers share: `info` and `data`, as JSON or base64.
//!
//! Owns the names of the fields. Never interprets a payload.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::wire::lenient_json::{self, Text};

/// A payload field holds text that is not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotBase64(
    /// Name of the field.
    pub(crate) &'static str,
);

/// The payload fields of a JSON object. The base64 form of a payload takes precedence.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct PayloadFields<'a> {
    #[serde(borrow, deserialize_with = "lenient_json::payload")]
    pub(super) info: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) b64info: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "lenient_json::payload")]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) b64data: Option<Text<'a>>,
}

impl PayloadFields<'_> {
    /// The bytes of `b64info`, otherwise the JSON text of `info`.
    pub(crate) fn info(&self) -> Result<Option<Box<[u8]>>, NotBase64> {
        bytes(self.info, "b64info", self.b64info.as_ref())
    }

    /// The bytes of `b64data`, otherwise the JSON text of `data`.
    pub(crate) fn data(&self) -> Result<Option<Box<[u8]>>, NotBase64> {
        bytes(self.data, "b64data", self.b64data.as_ref())
    }

    /// The JSON text of `data`, otherwise the bytes of `b64data`.
    pub(crate) fn data_json_first(&self) -> Result<Option<Box<[u8]>>, NotBase64> {
        bytes(self.data, "b64data", self.b64data.as_ref().filter(|_| self.data.is_none()))
    }
}

/// The bytes of `base64` unless that is empty, otherwise the text of `json`.
fn bytes(
    json: Option<&RawValue>,
    name: &'static str,
    base64: Option<&Text<'_>>,
) -> Result<Option<Box<[u8]>>, NotBase64> {
    match base64 {
        Some(Text(text)) if !text.is_empty() => {
            let bytes = lenient_json::base64(text).ok_or(NotBase64(name))?;
            Ok((!bytes.is_empty()).then(|| bytes.into()))
        }
        _ => Ok(json.map(json_text)),
    }
}

/// The text of a JSON value.
pub(crate) fn json_text(json: &RawValue) -> Box<[u8]> {
    json.get().as_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> PayloadFields<'_> {
        lenient_json::read_object(text.as_bytes()).unwrap()
    }

    fn payload(text: &str) -> Result<Option<Box<[u8]>>, NotBase64> {
        Ok(Some(text.as_bytes().into()))
    }

    #[test]
    fn base64_precedes_json_unless_json_is_asked_for_first() {
        let fields = read(r#"{"info":1,"b64info":"MQ==","data":2,"b64data":"Mw==","other":[]}"#);
        assert_eq!(fields.info(), payload("1"));
        assert_eq!(fields.data(), payload("3"));
        assert_eq!(fields.data_json_first(), payload("2"));
        assert_eq!(read(r#"{"b64data":"Mw=="}"#).data_json_first(), payload("3"));
        assert_eq!(read(r#"{"data":2,"b64data":""}"#).data(), payload("2"));
    }

    #[test]
    fn a_field_that_is_not_base64_is_named() {
        let fields = read(r#"{"b64info":"*","b64data":"?"}"#);
        assert_eq!(fields.info(), Err(NotBase64("b64info")));
        assert_eq!(fields.data(), Err(NotBase64("b64data")));
    }
}
