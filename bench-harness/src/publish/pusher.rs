//! Requests of Pusher's HTTP API: their body and their signature.
//!
//! Owns the format. Never sends. Invariant: the signature covers the method, the path, and all
//! other parameters of the query in alphabetical order, one of which is the MD5 of the body.

use std::fmt::Write as _;

use aws_lc_rs::hmac;

/// Name of the event of every publication.
const EVENT: &str = "message";

/// An application of a server with Pusher's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PusherApp {
    /// The identifier, in the path of the HTTP API.
    pub id: &'static str,
    /// The key, in the path of the WebSocket.
    pub key: &'static str,
    /// The secret that signs requests.
    pub secret: &'static str,
}

impl PusherApp {
    /// The path that publications are posted to.
    pub(super) fn path(&self) -> String {
        format!("/apps/{}/events", self.id)
    }

    /// The path and the signed query of a POST with this body at this Unix time.
    pub(super) fn signed(&self, body: &[u8], seconds: u64) -> String {
        let PusherApp { key, secret, .. } = self;
        let (path, sum) = (self.path(), md5::compute(body));
        let query =
            format!("auth_key={key}&auth_timestamp={seconds}&auth_version=1.0&body_md5={sum:x}");
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&secret, format!("POST\n{path}\n{query}").as_bytes());
        let mut out = format!("{path}?{query}&auth_signature=");
        for byte in tag.as_ref() {
            // Writing to a string cannot fail.
            let _ = write!(out, "{byte:02x}");
        }
        out
    }
}

/// The body that publishes a payload to a channel. The data of an event is a string.
pub(super) fn event(channel: &str, payload: &[u8]) -> Vec<u8> {
    let data = serde_json::Value::from(String::from_utf8_lossy(payload));
    format!("{{\"name\":\"{EVENT}\",\"channel\":\"{channel}\",\"data\":{data}}}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_example_in_the_documentation_of_pusher() {
        let app =
            PusherApp { id: "3", key: "278d425bdf160c739803", secret: "7ad3773142a6692b25b8" };
        let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let wanted = "/apps/3/events?auth_key=278d425bdf160c739803&auth_timestamp=1353088179\
                      &auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f\
                      &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
        assert_eq!(app.signed(body, 1_353_088_179), wanted);
    }

    #[test]
    fn the_data_of_an_event_is_a_string() {
        let wanted = br#"{"name":"message","channel":"all","data":"{\"t\":1}"}"#;
        assert_eq!(event("all", b"{\"t\":1}"), wanted);
    }
}
