//! Trace contexts: the header `traceparent` of W3C Trace Context, and identifiers of spans.
//!
//! Owns no state. The invariant: an identifier that is all zeros is never used.

use std::fmt;

use data_encoding::HEXLOWER;

use crate::base::sys;

/// Bit of the flags: the caller records its spans.
const SAMPLED: u8 = 1;
/// Length of a header of version 00.
const LENGTH: usize = 55;

/// The place of a span in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Identifier of the trace.
    pub trace: [u8; 16],
    /// Identifier of the span.
    pub span: [u8; 8],
    /// Whether spans of the trace are recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// Parses the header. `None`: it is invalid, which counts as absent.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (version, rest) = (hex::<1>(header.get(..2)?)?[0], header.get(2..)?);
        // Later versions may append fields.
        let ends = if version == 0 { header.len() == LENGTH } else { has_end(header) };
        let separators = [rest.first()?, rest.get(33)?, rest.get(50)?];
        if version == 0xff || !ends || separators != [&b'-'; 3] {
            return None;
        }
        let (trace, span) = (hex::<16>(rest.get(1..33)?)?, hex::<8>(rest.get(34..50)?)?);
        let [flags] = hex::<1>(rest.get(51..53)?)?;
        let is_valid = trace != [0; 16] && span != [0; 8];
        is_valid.then_some(TraceContext { trace, span, sampled: flags & SAMPLED != 0 })
    }

    /// A new span in this trace; without a parent, in a trace of its own.
    pub fn child(parent: Option<TraceContext>, sampled: bool) -> Self {
        let trace = parent.map_or_else(random, |parent| parent.trace);
        TraceContext { trace, span: random(), sampled }
    }
}

/// The header.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (HEXLOWER.encode(&self.trace), HEXLOWER.encode(&self.span));
        write!(f, "00-{trace}-{span}-{:02x}", if self.sampled { SAMPLED } else { 0 })
    }
}

/// Whether a header of a later version ends after the flags, or has a further field there.
fn has_end(header: &[u8]) -> bool {
    header.len() == LENGTH || header.get(LENGTH) == Some(&b'-')
}

/// Bytes of lower-case hexadecimal digits.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let bytes = HEXLOWER.decode(text).ok()?;
    bytes.try_into().ok()
}

/// Random bytes, not all of them zero.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = sys::random::<N>().unwrap_or([0; N]);
    if bytes == [0; N] {
        bytes[N - 1] = 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_header_is_read_and_written_as_the_specification_says() {
        let context = TraceContext::parse(HEADER.as_bytes()).unwrap();
        assert_eq!((context.trace[0], context.span[7], context.sampled), (0x0a, 0x31, true));
        assert_eq!(context.to_string(), HEADER);
        let child = TraceContext::child(Some(context), true);
        assert!(child.trace == context.trace && child.span != context.span);
        let root = TraceContext::child(None, false);
        assert!(root.trace != context.trace && root.to_string().ends_with("-00"));
    }

    #[test]
    fn invalid_headers_count_as_absent() {
        for (header, valid) in [
            (HEADER.to_owned(), true),
            (HEADER.replacen("00-", "01-", 1), true),
            (HEADER.replacen("00-", "01-", 1) + "-more", true),
            (HEADER.replacen("00-", "01-", 1) + "more", false),
            (HEADER.replacen("00-", "ff-", 1), false),
            (HEADER.to_owned() + "-more", false),
            (HEADER.to_uppercase(), false),
            (HEADER.replace('-', "_"), false),
            (HEADER.replace("b7ad6b7169203331", "0000000000000000"), false),
            (HEADER.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)), false),
            (HEADER[..54].to_owned(), false),
            (String::new(), false),
            ("\u{e4}".repeat(28), false),
        ] {
            assert_eq!(TraceContext::parse(header.as_bytes()).is_some(), valid, "{header}");
        }
    }
}
