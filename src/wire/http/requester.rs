//! The parts of a request that its refusal depends on.
//!
//! Owns no state. Refusals are rare, so the shard parses the head again instead of keeping the
//! parts.

use super::headers::{header, no_headers, origin};

/// The parts of a request that its refusal depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requester<'a> {
    /// The Origin header.
    pub origin: Option<&'a str>,
    /// The Host header.
    pub host: Option<&'a str>,
    /// Whether the response has no body (HEAD).
    pub bodiless: bool,
}

impl<'a> Requester<'a> {
    /// Reads a request whose head is complete. A head that does not parse gives the default: no
    /// origin, no host, with a body.
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
    fn origin_host_and_method_are_read_from_a_complete_head() {
        let request = b"HEAD / HTTP/1.1\r\nHost: a\r\nOrigin: https://b\r\n\r\n";
        let (origin, host) = (Some("https://b"), Some("a"));
        assert_eq!(Requester::of(request), Requester { origin, host, bodiless: true });
        assert_eq!(Requester::of(&request[..30]), Requester::default());
        assert_eq!(Requester::of(b"nonsense\r\n\r\n"), Requester::default());
    }
}
