//! Who sent a request, as far as the answer that refuses it depends on that.
//!
//! Owns nothing. Refusals are rare, so the head is read once more instead of carried along.

use super::headers::{header, no_headers, origin};

/// The parts of a request that shape a refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requester<'a> {
    /// The Origin header.
    pub origin: Option<&'a str>,
    /// The Host header.
    pub host: Option<&'a str>,
    /// Whether the answer has no body (HEAD).
    pub bodiless: bool,
}

impl<'a> Requester<'a> {
    /// Who sent this request, of which the whole head is there; nobody in particular where it
    /// cannot be read.
    pub fn of(bytes: &'a [u8]) -> Self {
        let mut headers = no_headers();
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, &mut headers) {
            Ok(httparse::Status::Complete(_)) => Requester {
                origin: origin(&request).ok().flatten(),
                host: header(&request, "host"),
                bodiless: request.method == Some("HEAD"),
            },
            _ => Requester::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_who_asks() {
        let request = b"HEAD / HTTP/1.1\r\nHost: a\r\nOrigin: https://b\r\n\r\n";
        let (origin, host) = (Some("https://b"), Some("a"));
        assert_eq!(Requester::of(request), Requester { origin, host, bodiless: true });
        assert_eq!(Requester::of(&request[..30]), Requester::default());
        assert_eq!(Requester::of(b"nonsense\r\n\r\n"), Requester::default());
    }
}
