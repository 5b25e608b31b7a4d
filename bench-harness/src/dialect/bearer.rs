//! Drumline clients that connect with prepared tokens and do not subscribe.
//!
//! Owns the connect command with its token. Never makes a token. Invariant: a client with tokens
//! counts as connected only if the server accepted its token, even if the server admits anonymous
//! clients.

use super::drumline::Drumline;
use super::interface::{CONNECTED, Dialect, Heard, Subscriber};
use crate::wire;

/// Clients that use the token with their index. A client whose index has no token sends none.
#[derive(Debug)]
pub struct Bearer {
    /// The tokens. Each has an expiry: the time to live in the connect reply shows that the server
    /// accepted the token.
    pub tokens: Vec<String>,
}

impl Dialect for Bearer {
    fn path(&self, who: &Subscriber<'_>) -> String {
        Drumline.path(who)
    }

    fn hello(&self, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        let token = self.tokens.get(who.index as usize).map_or("", String::as_str);
        let text = format!("{{\"id\":1,\"connect\":{{\"token\":\"{token}\"}}}}");
        wire::client_frame(wire::TEXT, text.as_bytes(), out);
    }

    fn awaited(&self) -> u8 {
        CONNECTED
    }

    fn hear<'a>(&self, message: &'a [u8]) -> (usize, Heard<'a>) {
        let (used, heard) = Drumline.hear(message);
        let known = || wire::find(&message[..used.min(message.len())], b"\"ttl\":").is_some();
        match heard {
            Heard::Connected { .. } if !self.tokens.is_empty() && !known() => {
                (used, Heard::Refused(b"connected, but the server ignored the token"))
            }
            heard => (used, heard),
        }
    }

    fn pong(&self, out: &mut Vec<u8>) {
        Drumline.pong(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_whose_token_was_ignored_has_not_connected() {
        let anybody = b"{\"id\":1,\"connect\":{\"client\":\"c\"}}";
        let known = b"{\"id\":1,\"connect\":{\"client\":\"c\",\"expires\":true,\"ttl\":3600}}";
        let bearer = Bearer { tokens: vec!["t".to_owned()] };
        assert!(matches!(bearer.hear(anybody).1, Heard::Refused(_)));
        assert_eq!(bearer.hear(known).1, Heard::Connected { pong: false });
        let nobody = Bearer { tokens: Vec::new() };
        assert_eq!(nobody.hear(anybody).1, Heard::Connected { pong: false });
    }
}
