//! Unpacks publications that are sent as deltas or compressed.
//!
//! Owns the publications that a lane unpacked last. Never unpacks the same bytes again while they
//! are remembered: all subscribers receive the same bytes, so packed deliveries cost the client
//! hardly more than plain ones. Invariant: the result is the exact publication, or an error.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use drumline::wire::delta;
use flate2::{Decompress, FlushDecompress, Status};
use serde::Deserialize;

use crate::dialect::Packing;

/// Number of publications remembered. Some connections are a few publications behind others.
const KEPT: usize = 32;
/// Bytes that the sender removes from the end of a compressed message (RFC 7692, section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Maximum size of an inflated message, in bytes.
const INFLATED_MAX: usize = 1 << 20;

/// Unpacks the messages that a lane's connections receive.
#[derive(Default)]
pub(super) struct Unpacker {
    known: VecDeque<Known>,
}

struct Known {
    packed: Vec<u8>,
    /// Offset in its channel; 0: unknown.
    offset: u64,
    document: Rc<[u8]>,
}

/// The fields of a push that deltas need.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    push: Push<'a>,
}

#[derive(Deserialize)]
struct Push<'a> {
    #[serde(borrow, rename = "pub")]
    publication: Publication<'a>,
}

#[derive(Deserialize)]
struct Publication<'a> {
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    delta: bool,
}

impl Unpacker {
    /// The unpacked content of these bytes.
    pub(super) fn unpack(&mut self, packing: Packing, packed: &[u8]) -> Result<Rc<[u8]>> {
        if let Some(known) = self.known.iter().rev().find(|known| known.packed == packed) {
            return Ok(known.document.clone());
        }
        let (offset, document) = match packing {
            Packing::Deflate => (0, inflated(packed)?),
            Packing::Delta => self.patched(packed)?,
        };
        if self.known.len() == KEPT {
            self.known.pop_front();
        }
        let document: Rc<[u8]> = document.into();
        let known = Known { packed: packed.to_vec(), offset, document: document.clone() };
        self.known.push_back(known);
        Ok(document)
    }

    /// The offset and document of a push. The push holds the document or a delta to the previous
    /// document.
    fn patched(&self, push: &[u8]) -> Result<(u64, Vec<u8>)> {
        let told = || format!("cannot unpack the push `{}`", String::from_utf8_lossy(push));
        let message: Message<'_> = serde_json::from_slice(push).with_context(told)?;
        let Publication { data, offset, delta } = message.push.publication;
        if !delta {
            return Ok((offset, data.into_owned().into_bytes()));
        }
        let before = self.known.iter().find(|known| known.offset + 1 == offset);
        let before = before
            .context("received a delta without the publication before it")
            .with_context(told)?;
        let document = delta::apply(&before.document, data.as_bytes());
        let document = document
            .map_err(|cause| anyhow!("cannot apply a delta: {}", cause.0))
            .with_context(told)?;
        Ok((offset, document))
    }
}

/// Whether a push holds a delta.
pub(super) fn is_delta(push: &[u8]) -> bool {
    push.ends_with(b"\"delta\":true}}}")
}

fn inflated(packed: &[u8]) -> Result<Vec<u8>> {
    let bytes = [packed, &TAIL].concat();
    let (mut inflate, mut out) = (Decompress::new(false), Vec::with_capacity(packed.len() * 8));
    loop {
        let rest = &bytes[inflate.total_in() as usize..];
        let status = inflate.decompress_vec(rest, &mut out, FlushDecompress::Sync);
        let status = status.context("cannot inflate a compressed message")?;
        if out.len() < out.capacity() {
            ensure!(status == Status::Ok, "inflating a compressed message ended with {status:?}");
            return Ok(out);
        }
        if out.len() > INFLATED_MAX {
            bail!("a compressed message inflates to more than {INFLATED_MAX} bytes");
        }
        out.reserve(out.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compress, Compression, FlushCompress};

    fn push(offset: u64, data: &str, delta: bool) -> Vec<u8> {
        let data = serde_json::to_string(data).unwrap();
        let delta = if delta { ",\"delta\":true" } else { "" };
        format!(
            "{{\"push\":{{\"channel\":\"c\",\"pub\":{{\"data\":{data},\"offset\":{offset}{delta}}}}}}}"
        )
        .into_bytes()
    }

    fn patch(source: &str, target: &str) -> String {
        let mut out = Vec::new();
        delta::create(source.as_bytes(), target.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn deltas_are_applied_to_the_publication_before() {
        let [one, two, three] = ["a quote of 1.00, at noon", "a quote of 1.01, at noon", "none"];
        let mut unpacker = Unpacker::default();
        let mut unpack = |push: &[u8]| {
            unpacker.unpack(Packing::Delta, push).map(|text| String::from_utf8_lossy(&text).into())
        };
        let heard: Result<String> = unpack(&push(1, one, false));
        assert_eq!(heard.unwrap(), one);
        let second = push(2, &patch(one, two), true);
        assert!(is_delta(&second) && !is_delta(&push(1, one, false)));
        assert_eq!(unpack(&second).unwrap(), two);
        assert_eq!(unpack(&push(3, &patch(two, three), true)).unwrap(), three);
        assert_eq!(
            unpack(&second).unwrap(),
            two,
            "a connection that is behind another receives it later"
        );
        let gap = unpack(&push(9, &patch(one, two), true)).unwrap_err();
        assert!(format!("{gap:#}").contains("without the publication before it"), "{gap:#}");
        assert!(unpack(&push(4, &patch(one, two), true)).is_err(), "a delta to another document");
    }

    #[test]
    fn compressed_messages_are_inflated() {
        for text in [&b"{}"[..], &[b'x'; 20_000], b""] {
            let mut packed = Vec::with_capacity(40_000);
            let mut deflate = Compress::new(Compression::fast(), false);
            deflate.compress_vec(text, &mut packed, FlushCompress::Sync).unwrap();
            let packed = packed.strip_suffix(&TAIL).unwrap();
            let mut unpacker = Unpacker::default();
            for _ in 0..2 {
                assert_eq!(&unpacker.unpack(Packing::Deflate, packed).unwrap()[..], text);
            }
            assert_eq!(unpacker.known.len(), 1);
        }
        assert!(inflated(b"\xff\xff").is_err());
    }
}
