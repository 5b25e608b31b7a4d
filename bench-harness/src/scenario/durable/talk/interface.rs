//! The interfaces by which a connection publishes, as bytes.
//!
//! Owns requests and the split of the input into messages. Never does I/O. Invariant: an answer is
//! a confirmation only if the server reports no error in it.

use std::io::Write as _;

use anyhow::{Context, Result, ensure};
use drumline::wire::frame::server_frame_bytes;
use drumline::wire::protocol::Wire;

use crate::protobuf::{command, field, fields, varint};
use crate::publish::whole_answer;
use crate::server::API_KEY;
use crate::wire::{self, Line};

/// First byte of a close frame.
const CLOSE: u8 = 0x88;
/// First byte of a ping frame.
const PING: u8 = 0x89;
/// Number of the connect command.
const CONNECT: u32 = 1;
/// Number of all publish commands of a connection: only one is outstanding.
const PUBLISH: u32 = 2;

/// How a connection publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scenario::durable) enum Interface {
    /// `XADD` to a stream of Redis that keeps about so many entries.
    Redis {
        /// Entries that a stream keeps.
        kept: u64,
    },
    /// Publish commands over a WebSocket, in this encoding.
    WebSocket(Wire),
    /// `POST /api/publish` over a kept-alive connection.
    Http,
}

/// A message of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scenario::durable) enum Heard<'a> {
    /// The server confirmed the outstanding request with this answer.
    Confirmed(&'a [u8]),
    /// The server refused the outstanding request with this answer.
    Refused(&'a [u8]),
    /// A publication.
    Push(&'a [u8]),
}

impl Interface {
    /// Whether the server must accept an upgrade and a connect command first.
    pub(super) fn is_websocket(self) -> bool {
        matches!(self, Interface::WebSocket(_))
    }

    /// The request of the upgrade.
    pub(super) fn upgrade(self, port: u16) -> Vec<u8> {
        let mut out = Vec::new();
        let query = match self {
            Interface::WebSocket(Wire::Protobuf) => "?format=protobuf",
            _ => "",
        };
        wire::upgrade(&format!("{}{query}", wire::PATH), port, "", &mut out);
        out
    }

    /// The connect command.
    pub(super) fn connect(self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Interface::WebSocket(Wire::Protobuf) => {
                let mut commands = Vec::new();
                command(CONNECT, 4, &[], &mut commands);
                wire::client_frame(wire::BINARY, &commands, &mut out);
            }
            _ => {
                let text = format!("{{\"id\":{CONNECT},\"connect\":{{}}}}");
                wire::client_frame(wire::TEXT, text.as_bytes(), &mut out);
            }
        }
        out
    }

    /// Appends the request that publishes `data`, which is JSON, to a channel.
    pub(in crate::scenario::durable) fn publish(
        self,
        channel: &str,
        data: &[u8],
        out: &mut Vec<u8>,
    ) {
        match self {
            Interface::Redis { kept } => {
                let written = write!(
                    out,
                    "*8\r\n$4\r\nXADD\r\n${}\r\n{channel}\r\n$6\r\nMAXLEN\r\n$1\r\n~\r\n${}\r\n\
                     {kept}\r\n$1\r\n*\r\n$1\r\nd\r\n${}\r\n",
                    channel.len(),
                    kept.checked_ilog10().unwrap_or(0) + 1,
                    data.len()
                );
                debug_assert!(written.is_ok(), "writing to a Vec cannot fail");
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
            Interface::WebSocket(Wire::Json) => {
                let head =
                    format!("{{\"id\":{PUBLISH},\"publish\":{{\"channel\":\"{channel}\",\"data\":");
                wire::client_frame(wire::TEXT, &[head.as_bytes(), data, b"}}"].concat(), out);
            }
            Interface::WebSocket(Wire::Protobuf) => {
                let request = [field(1, channel.as_bytes()), field(2, data)].concat();
                let mut commands = Vec::new();
                command(PUBLISH, 7, &request, &mut commands);
                wire::client_frame(wire::BINARY, &commands, out);
            }
            Interface::Http => {
                let head = format!("{{\"channel\":\"{channel}\",\"data\":");
                api_request("publish", &[head.as_bytes(), data, b"}"].concat(), out);
            }
        }
    }

    /// Gives each message of the first whole part of `input` to `each`. Returns the bytes of the
    /// part; `None`: no part is whole.
    pub(super) fn hear(
        self,
        input: &[u8],
        each: &mut dyn FnMut(Heard<'_>) -> Result<()>,
    ) -> Result<Option<usize>> {
        match self {
            Interface::Redis { .. } => redis_reply(input, each),
            Interface::WebSocket(encoding) => frame(encoding, input, each),
            Interface::Http => {
                let Some((end, status, start)) = whole_answer(input)? else { return Ok(None) };
                let body = &input[start..end];
                let confirmed = status == 200 && wire::find(body, b"\"error\"").is_none();
                each(if confirmed { Heard::Confirmed(body) } else { Heard::Refused(body) })?;
                Ok(Some(end))
            }
        }
    }
}

/// Appends a request of the HTTP API.
pub(in crate::scenario::durable) fn api_request(method: &str, body: &[u8], out: &mut Vec<u8>) {
    let written = write!(
        out,
        "POST /api/{method} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {API_KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    debug_assert!(written.is_ok(), "writing to a Vec cannot fail");
    out.extend_from_slice(body);
}

/// A bulk string confirms, an error refuses.
fn redis_reply(
    input: &[u8],
    each: &mut dyn FnMut(Heard<'_>) -> Result<()>,
) -> Result<Option<usize>> {
    let Some(line_end) = wire::find(input, b"\r\n") else { return Ok(None) };
    let line = &input[..line_end];
    let told = || format!("Redis answered `{}`", String::from_utf8_lossy(line));
    if line.starts_with(b"-") {
        each(Heard::Refused(line))?;
        return Ok(Some(line_end + 2));
    }
    let length = line.strip_prefix(b"$").and_then(|digits| std::str::from_utf8(digits).ok());
    let length: usize = length.and_then(|digits| digits.parse().ok()).with_context(told)?;
    let end = line_end + 2 + length + 2;
    let Some(reply) = input.get(line_end + 2..end) else { return Ok(None) };
    each(Heard::Confirmed(reply))?;
    Ok(Some(end))
}

/// The messages of a WebSocket frame.
fn frame(
    encoding: Wire,
    input: &[u8],
    each: &mut dyn FnMut(Heard<'_>) -> Result<()>,
) -> Result<Option<usize>> {
    let Some(length) = server_frame_bytes(input) else { return Ok(None) };
    let Some(bytes) = input.get(..length) else { return Ok(None) };
    let (start, _) = wire::server_header(bytes).context("a frame without a header")?;
    let payload = &bytes[start..];
    ensure!(bytes[0] != CLOSE, "closed by the server: {}", String::from_utf8_lossy(payload));
    if bytes[0] != PING {
        match encoding {
            Wire::Json => lines(payload, each)?,
            Wire::Protobuf => replies(payload, each)?,
        }
    }
    Ok(Some(length))
}

fn lines(payload: &[u8], each: &mut dyn FnMut(Heard<'_>) -> Result<()>) -> Result<()> {
    for line in payload.split(|byte| *byte == b'\n') {
        match wire::line(line) {
            Line::Push(push) => each(Heard::Push(push))?,
            Line::Reply(_, reply) => each(Heard::Confirmed(reply))?,
            Line::Error(reply) => each(Heard::Refused(reply))?,
            Line::Ping | Line::Other(_) => {}
        }
    }
    Ok(())
}

fn replies(mut payload: &[u8], each: &mut dyn FnMut(Heard<'_>) -> Result<()>) -> Result<()> {
    while let Some((length, start)) = varint(payload) {
        let end = start.saturating_add(length as usize);
        let reply = payload.get(start..end).context("a frame that ends within a reply")?;
        match fields(reply).find(|(number, _)| *number != 1) {
            Some((2, error)) => each(Heard::Refused(error))?,
            Some((4, push)) => each(Heard::Push(push))?,
            Some((_, result)) => each(Heard::Confirmed(result))?,
            // An empty reply is a ping.
            None => {}
        }
        payload = &payload[end..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use drumline::wire::protocol::protobuf;
    use drumline::wire::protocol::reply::Reply;

    fn all(interface: Interface, input: &[u8]) -> (Option<usize>, Vec<String>) {
        let mut heard = Vec::new();
        let used = interface.hear(input, &mut |one| {
            heard.push(match one {
                Heard::Confirmed(answer) => format!("+{}", String::from_utf8_lossy(answer)),
                Heard::Refused(answer) => format!("-{}", String::from_utf8_lossy(answer)),
                Heard::Push(push) => format!(">{}", String::from_utf8_lossy(push)),
            });
            Ok(())
        });
        (used.unwrap(), heard)
    }

    #[test]
    fn replies_of_redis_are_split() {
        let redis = Interface::Redis { kept: 100 };
        let reply = b"$15\r\n1526919030474-0\r\n";
        assert_eq!(all(redis, reply), (Some(22), vec!["+1526919030474-0\r\n".to_owned()]));
        assert_eq!(all(redis, &reply[..21]), (None, vec![]));
        assert_eq!(all(redis, b"-ERR no\r\n$"), (Some(9), vec!["--ERR no".to_owned()]));
        assert!(redis.hear(b"+OK\r\n", &mut |_| Ok(())).is_err());
        let mut out = Vec::new();
        redis.publish("c7", b"\"abc\"", &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("*8\r\n$4\r\nXADD\r\n$2\r\nc7\r\n$6\r\nMAXLEN\r\n$1\r\n~\r\n"));
        assert!(text.ends_with("$3\r\n100\r\n$1\r\n*\r\n$1\r\nd\r\n$5\r\n\"abc\"\r\n"), "{text}");
    }

    #[test]
    fn replies_in_both_encodings_are_told_apart() {
        let framed = |text: &[u8]| {
            let mut out = Vec::new();
            drumline::wire::frame::write_text(text, &mut out);
            out
        };
        let text = "{\"id\":2,\"publish\":{}}\n{}\n{\"push\":{}}\n{\"id\":2,\"error\":{}}";
        let json = Interface::WebSocket(Wire::Json);
        let frame = framed(text.as_bytes());
        let (used, heard) = all(json, &frame);
        assert_eq!(used, Some(frame.len()));
        let wanted = ["+{\"id\":2,\"publish\":{}}", ">{\"push\":{}}", "-{\"id\":2,\"error\":{}}"];
        assert_eq!(heard, wanted);
        let mut replies = Vec::new();
        protobuf::write_reply(2, &Reply::Publish, &mut replies);
        replies.push(0);
        let error = drumline::wire::protocol::Error::INTERNAL;
        protobuf::write_reply(2, &Reply::Error(error), &mut replies);
        let (_, heard) = all(Interface::WebSocket(Wire::Protobuf), &framed(&replies));
        assert_eq!(heard.len(), 2);
        assert!(heard[0] == "+" && heard[1].starts_with('-'), "{heard:?}");
    }

    #[test]
    fn an_answer_of_the_api_with_an_error_is_a_refusal() {
        let answer = |body: &str| {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        };
        let good = answer("{\"result\":{\"offset\":7}}");
        let wanted = "+{\"result\":{\"offset\":7}}".to_owned();
        assert_eq!(all(Interface::Http, &good), (Some(good.len()), vec![wanted]));
        let bad = answer("{\"error\":{\"code\":100}}");
        assert!(all(Interface::Http, &bad).1[0].starts_with('-'));
        let mut request = Vec::new();
        Interface::Http.publish("c7", b"\"abc\"", &mut request);
        let request = String::from_utf8(request).unwrap();
        assert!(request.ends_with("\r\n\r\n{\"channel\":\"c7\",\"data\":\"abc\"}"), "{request}");
    }
}
