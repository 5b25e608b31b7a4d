//! Writes fields of messages in the protobuf wire format, after its public specification
//! (protobuf.dev, "Encoding").
//!
//! Owns no state. Never allocates anything besides the output. Invariant: the same code computes
//! the length of a message, with a [`Length`], and writes its bytes, so they cannot disagree.
//! Fields with the default value of their type are left out, as proto3 requires.

use prost::encoding::{WireType, encode_varint, encoded_len_varint};

/// A message whose fields can be written.
pub(super) trait Body {
    /// Writes all fields.
    fn write(&self, fields: &mut impl Fields);
}

impl<B: Body> Body for &B {
    fn write(&self, fields: &mut impl Fields) {
        (*self).write(fields);
    }
}

/// A message without fields.
impl Body for () {
    fn write(&self, _fields: &mut impl Fields) {}
}

/// The destination of fields: the output, or a counter of their length.
pub(super) trait Fields: Sized {
    /// Writes a number as a varint.
    fn varint(&mut self, number: u64);

    /// Writes bytes unchanged.
    fn raw(&mut self, bytes: &[u8]);

    /// Writes a message preceded by its length.
    fn delimited(&mut self, body: &impl Body);

    /// Writes an integer field that is not zigzag-encoded; 0 is left out.
    fn number(&mut self, field: u32, number: u64) {
        if number != 0 {
            self.varint(key(field, WireType::Varint));
            self.varint(number);
        }
    }

    /// Writes a boolean field; false is left out.
    fn flag(&mut self, field: u32, flag: bool) {
        self.number(field, u64::from(flag));
    }

    /// Writes a bytes field; empty bytes are left out.
    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.present(field, bytes);
        }
    }

    /// Writes a string field; an empty string is left out.
    fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    /// Writes bytes, a string or an encoded message, even if it is empty.
    fn present(&mut self, field: u32, bytes: &[u8]) {
        self.varint(key(field, WireType::LengthDelimited));
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    /// Writes a message field, even if it is empty.
    fn message(&mut self, field: u32, body: &impl Body) {
        self.varint(key(field, WireType::LengthDelimited));
        self.delimited(body);
    }
}

fn key(field: u32, wire_type: WireType) -> u64 {
    u64::from((field << 3) | wire_type as u32)
}

/// Counts the bytes that would be written.
#[derive(Default)]
struct Length(usize);

impl Fields for Length {
    fn varint(&mut self, number: u64) {
        self.0 += encoded_len_varint(number);
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn delimited(&mut self, body: &impl Body) {
        let inner = length(body);
        self.varint(inner as u64);
        self.0 += inner;
    }
}

impl Fields for Vec<u8> {
    fn varint(&mut self, number: u64) {
        encode_varint(number, self);
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn delimited(&mut self, body: &impl Body) {
        let inner = length(body);
        self.reserve(encoded_len_varint(inner as u64) + inner);
        self.varint(inner as u64);
        body.write(self);
    }
}

fn length(body: &impl Body) -> usize {
    let mut length = Length::default();
    body.write(&mut length);
    length.0
}
