//! A publication as it travels: one shared allocation with a plain-data header, the channel's
//! name and the push, encoded once.
//!
//! Owns its bytes. Never changes after it is made; every shard and every history entry shares it.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use crate::frame;
use crate::protocol::json;

/// How a group of subscribers wants its publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// `{"push":{...}}` in a text frame.
    Json,
    /// The push alone in a text frame.
    UniJson,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    /// Hash of the channel's name.
    hash: u64,
    /// 0 where the channel keeps no history.
    offset: u64,
    /// The publication object within the push, in bytes from its start.
    object_start: u32,
    object_end: u32,
    channel_bytes: u32,
    reserved: u32,
}

const HEADER_BYTES: usize = size_of::<Header>();

/// One publication, encoded.
#[derive(Clone, Debug)]
pub struct Publication(Arc<[u8]>);

impl Publication {
    /// Encodes a publication. `offset` is `None` where the channel keeps no history.
    pub fn new(channel: &str, hash: u64, data: &[u8], offset: Option<u64>) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 2 * channel.len() + data.len() + 64);
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend_from_slice(channel.as_bytes());
        let push = bytes.len();
        let object = json::write_publication(channel, data, offset, &mut bytes);
        let header = Header {
            hash,
            offset: offset.unwrap_or(0),
            object_start: (object.start - push) as u32,
            object_end: (object.end - push) as u32,
            channel_bytes: channel.len() as u32,
            reserved: 0,
        };
        bytes[..HEADER_BYTES].copy_from_slice(bytemuck::bytes_of(&header));
        Publication(bytes.into())
    }

    fn header(&self) -> Header {
        bytemuck::pod_read_unaligned(&self.0[..HEADER_BYTES])
    }

    /// Hash of the channel's name.
    pub fn hash(&self) -> u64 {
        self.header().hash
    }

    /// The offset; `None` where the channel keeps no history.
    pub fn offset(&self) -> Option<u64> {
        Some(self.header().offset).filter(|offset| *offset > 0)
    }

    /// The channel's name.
    pub fn channel(&self) -> &str {
        let name = &self.0[HEADER_BYTES..HEADER_BYTES + self.header().channel_bytes as usize];
        std::str::from_utf8(name).expect("made from a str")
    }

    fn push(&self) -> &[u8] {
        &self.0[HEADER_BYTES + self.header().channel_bytes as usize..]
    }

    /// The publication object alone, as history and recovery give it.
    pub fn object(&self) -> &[u8] {
        let header = self.header();
        &self.push()[header.object_start as usize..header.object_end as usize]
    }

    /// Bytes that it takes in memory.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// Appends the push as a WebSocket frame.
    pub fn write_frame(&self, encoding: Encoding, out: &mut Vec<u8>) {
        let push = self.push();
        match encoding {
            Encoding::UniJson => frame::write_text(push, out),
            Encoding::Json => {
                let around = json::PUSH_OPEN.len() + json::PUSH_CLOSE.len();
                frame::write_text_header(push.len() + around, out);
                out.extend_from_slice(json::PUSH_OPEN);
                out.extend_from_slice(push);
                out.extend_from_slice(json::PUSH_CLOSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_gives_back_what_it_was_made_of() {
        let publication = Publication::new("news", 42, b"{\"a\":1}", Some(7));
        assert_eq!(publication.hash(), 42);
        assert_eq!(publication.offset(), Some(7));
        assert_eq!(publication.channel(), "news");
        assert_eq!(publication.object(), b"{\"data\":{\"a\":1},\"offset\":7}");
        let mut out = Vec::new();
        publication.write_frame(Encoding::Json, &mut out);
        let expected = br#"{"push":{"channel":"news","pub":{"data":{"a":1},"offset":7}}}"#;
        assert_eq!(&out[2..], expected);
        assert_eq!(usize::from(out[1]), expected.len());
        out.clear();
        publication.write_frame(Encoding::UniJson, &mut out);
        assert_eq!(&out[2..], br#"{"channel":"news","pub":{"data":{"a":1},"offset":7}}"#);
    }
}
