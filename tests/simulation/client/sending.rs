//! What a model client sends: frames, commands, API calls, emulation requests.

use super::{Asked, Client, Outstanding};
use crate::ledger::{Known, Ledger};
use crate::random::Random;

impl Client {
    pub fn send_frame(&mut self, opcode: u8, payload: &[u8], random: &mut Random) {
        let mask = (random.next() as u32).to_ne_bytes();
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            short @ 0..=125 => frame.push(0x80 | short as u8),
            medium => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(medium as u16).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        self.put(&frame);
    }

    /// The text of a command, whose reply is then outstanding.
    pub fn command(
        &mut self,
        asked: Asked,
        channel: usize,
        pad: usize,
        ledger: &mut Ledger,
    ) -> String {
        self.next_id += 1;
        let id = self.next_id;
        // Bit 0 asks for channel compaction; no command asks for strict recovery.
        let flag = id & 1;
        let text = match &asked {
            Asked::Connect(token) => {
                format!(r#"{{"id":{id},"connect":{{"token":"{token}"}}}}"#)
            }
            Asked::Subscribe(None) => {
                format!(r#"{{"id":{id},"subscribe":{{"channel":"c{channel}","flag":1}}}}"#)
            }
            Asked::Subscribe(Some((epoch, offset))) => format!(
                r#"{{"id":{id},"subscribe":{{"channel":"c{channel}","recover":true,"flag":{flag},"epoch":"{epoch}","offset":{offset}}}}}"#
            ),
            Asked::Unsubscribe => {
                format!(r#"{{"id":{id},"unsubscribe":{{"channel":"c{channel}"}}}}"#)
            }
            Asked::Stats => {
                format!(r#"{{"id":{id},"presence_stats":{{"channel":"c{channel}"}}}}"#)
            }
            Asked::Publish(_) | Asked::Speak => String::new(),
        };
        let (asked, text) = if let Asked::Publish(_) = asked {
            let (n, request) = self.publish_request(channel, pad, ledger);
            (Asked::Publish(n), format!(r#"{{"id":{id},"publish":{request}}}"#))
        } else {
            (asked, text)
        };
        let known = match channel {
            usize::MAX => Known::default(),
            channel => ledger.known(channel),
        };
        self.outstanding.push_back(Outstanding { id, channel, asked, known });
        text
    }

    fn publish_request(
        &mut self,
        channel: usize,
        pad: usize,
        ledger: &mut Ledger,
    ) -> (u64, String) {
        self.next_number[channel] += 1;
        let n = self.next_number[channel];
        ledger.published(channel, (self.number, n), false);
        let (number, pad) = (self.number, "x".repeat(pad));
        let data = format!(r#"{{"p":{number},"n":{n},"x":"{pad}"}}"#);
        (n, format!(r#"{{"channel":"c{channel}","data":{data}}}"#))
    }

    /// Opens an HTTP stream with its first commands.
    pub fn open_stream(&mut self, commands: &str) {
        self.post("/connection/http_stream", commands);
    }

    /// Sends an emulation request for the client of a stream.
    pub fn speak(&mut self, (session, node): &(String, String), frame: &str) {
        let data = serde_json::json!({"session": session, "node": node, "data": frame});
        self.post("/emulation", &data.to_string());
        self.next_id += 1;
        let (asked, known) = (Asked::Speak, Known::default());
        let (id, channel) = (self.next_id, usize::MAX);
        self.outstanding.push_back(Outstanding { id, channel, asked, known });
    }

    fn post(&mut self, path: &str, body: &str) {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        self.put((head + body).as_bytes());
    }

    /// Calls the API's publish method; the answer is then outstanding.
    pub fn call(&mut self, channel: usize, pad: usize, ledger: &mut Ledger) {
        let (n, body) = self.publish_request(channel, pad, ledger);
        let head = format!(
            "POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: secret\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.put((head + &body).as_bytes());
        self.next_id += 1;
        let id = self.next_id;
        let (asked, known) = (Asked::Publish(n), ledger.known(channel));
        self.outstanding.push_back(Outstanding { id, channel, asked, known });
    }
}
