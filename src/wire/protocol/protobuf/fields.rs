//! Fields of a message as they are written: the wire format of protocol buffers, after its public
//! specification (protobuf.dev, "Encoding").
//!
//! Owns nothing. Never allocates anything beside the output. Invariant: a message's length and its
//! bytes come of the same code, walked once with a [`Length`] and once with the output, so they
//! cannot disagree. A field that holds its type's default is left out, as proto3 asks.

use prost::encoding::{WireType, encode_varint, encoded_len_varint};

/// What can be written as the fields of a message.
pub(super) trait Body {
    /// Writes every field.
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

/// Where the fields of a message go.
pub(super) trait Fields: Sized {
    /// Takes a number of variable length.
    fn varint(&mut self, number: u64);

    /// Takes bytes as they are.
    fn raw(&mut self, bytes: &[u8]);

    /// Takes a message behind its length.
    fn delimited(&mut self, body: &impl Body);

    /// A field of any of the integer types that are not zigzag-coded; 0 is left out.
    fn number(&mut self, field: u32, number: u64) {
        if number != 0 {
            self.varint(key(field, WireType::Varint));
            self.varint(number);
        }
    }

    /// A field that is true or left out.
    fn flag(&mut self, field: u32, flag: bool) {
        self.number(field, u64::from(flag));
    }

    /// A field of bytes; none are left out.
    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.present(field, bytes);
        }
    }

    /// A field of text; an empty one is left out.
    fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    /// A field of bytes, of text or of an encoded message that is there even if it is empty.
    fn present(&mut self, field: u32, bytes: &[u8]) {
        self.varint(key(field, WireType::LengthDelimited));
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    /// A field that is a message; it is there even if it is empty.
    fn message(&mut self, field: u32, body: &impl Body) {
        self.varint(key(field, WireType::LengthDelimited));
        self.delimited(body);
    }
}

fn key(field: u32, wire_type: WireType) -> u64 {
    u64::from((field << 3) | wire_type as u32)
}

/// Counts what would be written.
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
