//! Drumline JSON clients that receive publications as deltas or compressed.
//!
//! Owns the negotiation of the packing. Never unpacks: the dense client does, because it remembers
//! the earlier publications that a delta needs. Invariant: a client whose server does not agree to
//! the packing counts as refused.

use drumline::wire::protocol::Wire;

use super::identified::Identified;
use super::interface::{Dialect, Heard, Packing, Subscriber, upgrade_refusal};
use crate::wire;

/// The dialect of these clients without the packing.
const PLAIN: Identified = Identified { wire: Wire::Json };
/// The extension that clients offer, and the parameter that the server must agree to (RFC 7692,
/// section 7.1).
const EXTENSION: &str = "permessage-deflate";
const NO_CONTEXT: &str = "server_no_context_takeover";

/// Clients with a user of their own that receive packed publications.
#[derive(Debug, Clone, Copy)]
pub struct Packed {
    /// Packing of the publications.
    pub packing: Packing,
}

impl Dialect for Packed {
    fn path(&self, who: &Subscriber<'_>) -> String {
        PLAIN.path(who)
    }

    fn headers(&self) -> &'static str {
        match self.packing {
            Packing::Delta => "",
            Packing::Deflate => {
                "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
                 client_no_context_takeover\r\n"
            }
        }
    }

    fn refusal(&self, head: &[u8]) -> Option<String> {
        let refusal = upgrade_refusal(head);
        if refusal.is_some() || self.packing == Packing::Delta {
            return refusal;
        }
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        let answer = |line: &str| line.strip_prefix("sec-websocket-extensions:").map(str::to_owned);
        let agreed = head.lines().find_map(answer).unwrap_or_default();
        let fits = agreed.trim().starts_with(EXTENSION) && agreed.contains(NO_CONTEXT);
        (!fits).then(|| {
            let agreed = agreed.trim();
            format!("the server did not agree to {EXTENSION}; {NO_CONTEXT}: answered `{agreed}`")
        })
    }

    fn hello(&self, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        let asks = match self.packing {
            Packing::Delta => ",\"delta\":\"fossil\"",
            Packing::Deflate => "",
        };
        let commands = Identified::commands(who, asks);
        wire::client_frame(wire::TEXT, commands.as_bytes(), out);
    }

    fn awaited(&self) -> u8 {
        PLAIN.awaited()
    }

    fn hear<'a>(&self, message: &'a [u8]) -> (usize, Heard<'a>) {
        let (used, heard) = PLAIN.hear(message);
        match (self.packing, heard) {
            (Packing::Delta, Heard::Subscribed(answer))
                if wire::find(answer, b"\"delta\":true").is_none() =>
            {
                (used, Heard::Refused(answer))
            }
            _ => (used, heard),
        }
    }

    fn pong(&self, out: &mut Vec<u8>) {
        PLAIN.pong(out);
    }

    fn packing(&self) -> Option<Packing> {
        Some(self.packing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_agree_to_the_packing_is_refused() {
        let head = |more: &str| {
            format!(
                "HTTP/1.1 101 x\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
                 {more}\r\n"
            )
        };
        let deflate = Packed { packing: Packing::Deflate };
        let refusal = |more: &str| deflate.refusal(head(more).as_bytes());
        assert_eq!(
            refusal(&format!("Sec-WebSocket-Extensions: {EXTENSION}; {NO_CONTEXT}\r\n")),
            None
        );
        assert!(refusal("").unwrap().contains("did not agree to permessage-deflate"));
        assert!(refusal("sec-websocket-extensions: permessage-deflate\r\n").is_some());
        let delta = Packed { packing: Packing::Delta };
        assert_eq!(delta.refusal(head("").as_bytes()), None);
        let plain = b"{\"id\":2,\"subscribe\":{}}";
        assert_eq!(delta.hear(plain).1, Heard::Refused(plain));
        let agreed = b"{\"id\":2,\"subscribe\":{\"delta\":true}}";
        assert_eq!(delta.hear(agreed).1, Heard::Subscribed(agreed));
    }
}
