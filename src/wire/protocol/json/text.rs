//! Writes JSON values directly into the output.
//!
//! Owns no state. Never parses a payload: client data passes through as JSON text. Newlines are
//! removed, because a newline ends a reply.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

pub(super) fn is_false(value: &bool) -> bool {
    !value
}

pub(super) fn is_zero(value: &u64) -> bool {
    *value == 0
}

pub(super) fn write_json(value: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a Vec takes everything, and the keys are strings");
}

/// Appends a number in decimal digits.
pub fn write_number(number: u64, out: &mut Vec<u8>) {
    use std::io::Write;
    write!(out, "{number}").expect("a Vec takes everything");
}

/// Appends a payload without newlines, which JSON allows only between tokens.
pub(super) fn write_payload(payload: &[u8], out: &mut Vec<u8>) {
    let mut start = 0;
    for newline in memchr::memchr2_iter(b'\n', b'\r', payload) {
        out.extend_from_slice(&payload[start..newline]);
        start = newline + 1;
    }
    out.extend_from_slice(&payload[start..]);
}

/// Text of a JSON value inside another value. Text that is not JSON, such as base64 data of a
/// token, is written as `null`.
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = Vec::new();
        let bytes = if memchr::memchr2(b'\n', b'\r', self.0).is_some() {
            write_payload(self.0, &mut text);
            &text
        } else {
            self.0
        };
        serde_json::from_slice::<&RawValue>(bytes).unwrap_or(RawValue::NULL).serialize(serializer)
    }
}

/// Appends the fields of `value`, which serializes to an object, to the open object at the end of
/// `out`.
pub(super) fn write_fields(value: &impl Serialize, out: &mut Vec<u8>) {
    let (is_first, start) = (out.ends_with(b"{"), out.len());
    write_json(value, out);
    out.pop();
    match (out.len() - start, is_first) {
        (0 | 1, _) => out.truncate(start),
        (_, true) => _ = out.remove(start),
        (_, false) => out[start] = b',',
    }
}
