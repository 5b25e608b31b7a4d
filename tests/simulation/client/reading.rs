//! What a model client reads: heads, frames and lines, answers to API calls, the end.

use serde_json::Value;

use super::{Asked, Client, Outstanding, UNAVAILABLE};
use crate::ledger::Ledger;

impl Client {
    /// Reads what the shard sent, at most `limit` bytes of it.
    pub fn read(&mut self, limit: usize, ledger: &mut Ledger) -> Result<(), String> {
        let bytes = limit.min(self.socket.output.len());
        let bytes: Vec<u8> = self.socket.output.drain(..bytes).collect();
        self.take(&bytes)?;
        while self.read_one(ledger)? {}
        if self.socket.output.is_empty() && self.socket.shut {
            self.done = true;
            if !self.socket.reset && !self.socket.cut {
                self.check_end()?;
            }
        }
        Ok(())
    }

    fn check_end(&mut self) -> Result<(), String> {
        if !self.has_heard_end() {
            return Err("the stream ends without an alert".into());
        }
        // HTTP clients get no message when they are slow or close first.
        let cut_off = self.manners.broken
            || self.tls.is_some() && self.manners.may_be_slow && !self.head_seen
            || self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
            || self.backend && self.manners.may_be_slow
            || self.voice.is_some() && self.manners.said_close;
        if cut_off {
            return Ok(());
        }
        if !self.received.is_empty() {
            return Err(format!("the stream ends inside a frame: {:?}", self.received));
        }
        match self.closed {
            _ if self.backend => Ok(()),
            Some(_) => Ok(()),
            None => Err("the stream ends without a close frame".into()),
        }
    }

    fn read_one(&mut self, ledger: &mut Ledger) -> Result<bool, String> {
        if self.received.is_empty() {
            return Ok(false);
        }
        if self.backend {
            return self.answer(ledger);
        }
        if !self.head_seen {
            // The rest of a refusal may come later than its head.
            if self.is_refused() {
                return Ok(false);
            }
            let end = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            let Some(end) = end else { return Ok(false) };
            let status: &[u8] =
                if self.voice.is_some() { b"HTTP/1.1 200 " } else { b"HTTP/1.1 101 " };
            if !self.received.starts_with(status) {
                return Err("it was refused".into());
            }
            self.received.drain(..end + 4);
            self.head_seen = true;
            return Ok(true);
        }
        if self.closed.is_some() {
            return Err(format!("bytes behind the close frame: {:?}", self.received));
        }
        if self.voice.is_some() {
            let Some(end) = self.received.iter().position(|byte| *byte == b'\n') else {
                return Ok(false);
            };
            let line: Vec<u8> = self.received.drain(..=end).collect();
            self.text(&line, ledger)?;
            return Ok(true);
        }
        let Some((opcode, payload)) = self.take_frame()? else { return Ok(false) };
        match opcode {
            1 => self.text(&payload, ledger)?,
            8 => self.close(&payload)?,
            9 | 10 => {}
            other => return Err(format!("a frame with opcode {other}")),
        }
        Ok(true)
    }

    /// Reads the answer to the oldest call, if it is complete.
    fn answer(&mut self, ledger: &mut Ledger) -> Result<bool, String> {
        if self.is_refused() {
            return Ok(false);
        }
        let text = String::from_utf8_lossy(&self.received).into_owned();
        let Some((head, rest)) = text.split_once("\r\n\r\n") else { return Ok(false) };
        if self.outstanding.front().is_some_and(|asked| asked.asked == Asked::Speak) {
            self.outstanding.pop_front();
            self.received.drain(..head.len() + 4);
            let heard = head.starts_with("HTTP/1.1 204 ");
            return heard.then_some(true).ok_or(format!("not heard: {text}"));
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.and_then(|digits| digits.parse().ok()).ok_or("no length")?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(format!("a call was refused: {text}"));
        }
        if rest.len() < length {
            return Ok(false);
        }
        let value: Value =
            serde_json::from_str(&rest[..length]).map_err(|error| error.to_string())?;
        self.received.drain(..head.len() + 4 + length);
        let Some(Outstanding { channel, asked: Asked::Publish(n), .. }) =
            self.outstanding.pop_front()
        else {
            return Err("an answer to nothing".into());
        };
        let what = (self.number, n);
        if value["error"]["code"] == UNAVAILABLE && ledger.terms.durable {
            ledger.refused(channel, what)?;
            return Ok(true);
        }
        ledger.acknowledged(channel, what)?;
        let result = value["result"].as_object().ok_or("no result")?;
        match (result.get("offset").and_then(Value::as_u64), ledger.terms.history) {
            (Some(offset), true) => {
                let epoch = result["epoch"].as_str().unwrap_or("");
                ledger.located(channel, (epoch, offset), (what, false))?;
            }
            (None, false) if result.is_empty() => {}
            _ => return Err(format!("not where it was published: {value}")),
        }
        Ok(true)
    }

    /// Whether the node refused its request for lack of memory.
    fn is_refused(&mut self) -> bool {
        let full = self.manners.may_be_slow && self.received.starts_with(b"HTTP/1.1 503 ");
        let refused = full || self.closed == Some(503);
        if refused {
            self.received.clear();
            self.closed = Some(503);
        }
        refused
    }

    fn take_frame(&mut self) -> Result<Option<(u8, Vec<u8>)>, String> {
        let bytes = &self.received;
        let (Some(&first), Some(&second)) = (bytes.first(), bytes.get(1)) else { return Ok(None) };
        if first & 0xf0 != 0x80 || second & 0x80 != 0 {
            return Err(format!("a malformed frame header: {first:#x} {second:#x}"));
        }
        let (start, length) = match second {
            126 if bytes.len() < 4 => return Ok(None),
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            127 => return Err("no frame here is that long".into()),
            short => (2, usize::from(short)),
        };
        if bytes.len() < start + length {
            return Ok(None);
        }
        let payload = self.received.drain(..start + length).skip(start).collect();
        Ok(Some((first & 0x0f, payload)))
    }

    pub(super) fn close(&mut self, payload: &[u8]) -> Result<(), String> {
        let code = payload.first_chunk::<2>().map_or(0, |code| u16::from_be_bytes(*code));
        let expected = match code {
            3008 => self.manners.may_be_slow,
            3501 => self.manners.rude,
            3504 => self.manners.may_be_refused,
            // The store could not be asked about a channel of the connect.
            3004 => self.uni && self.manners.may_fail,
            1000 | 0 => self.manners.said_close,
            _ => false,
        };
        trace!("  client {} is closed with {code}", self.number);
        self.closed = Some(code);
        expected.then_some(()).ok_or(format!("closed with {code}"))
    }
}
