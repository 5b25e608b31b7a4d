//! HTTP requests as text, and the answers to them.

use super::{API_KEY, Client, KEY};

/// A request; a POST names the length of its body.
pub fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = match method {
        "POST" => format!("Content-Length: {}\r\n", body.len()),
        _ => String::new(),
    };
    format!("{method} {path} HTTP/1.1\r\n{headers}{length}\r\n{body}")
}

/// A call of the API with [`API_KEY`] and more headers.
pub fn api_request(method: &str, more: &str, body: &str) -> String {
    let headers = format!("Host: test\r\nX-API-Key: {API_KEY}\r\n{more}");
    request("POST", &format!("/api/{method}"), &headers, body)
}

/// A request head for an upgrade of `path`.
pub fn upgrade_request(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

impl Client {
    /// Sends a request and reads its answer: the status, and the body if the head names its length.
    pub fn exchange(&mut self, request: &str) -> (u16, String) {
        self.send_raw(request.as_bytes());
        self.answer()
    }

    /// The status of an answer, and its body if the head names its length.
    pub fn answer(&mut self) -> (u16, String) {
        let head = self.read_head();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let has_length = head.to_ascii_lowercase().contains("\r\ncontent-length:");
        (status, if has_length { self.read_body(&head) } else { String::new() })
    }

    /// A response head, its empty line included.
    pub fn read_head(&mut self) -> String {
        loop {
            if let Some(at) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.bytes.split_off(at + 4);
                let head = std::mem::replace(&mut self.bytes, rest);
                return String::from_utf8(head).expect("a head is text");
            }
            let count = self.fill().expect("a response head in time");
            assert!(count > 0, "closed within a head: {:?}", String::from_utf8_lossy(&self.bytes));
        }
    }

    /// A response's body of a known length.
    pub fn read_body(&mut self, head: &str) -> String {
        let length: usize = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
            })
            .unwrap_or_else(|| panic!("no content-length in {head}"));
        while self.bytes.len() < length {
            assert!(self.fill().expect("a body in time") > 0, "closed within a body");
        }
        let rest = self.bytes.split_off(length);
        String::from_utf8(std::mem::replace(&mut self.bytes, rest)).expect("a body of text")
    }
}
