//! Publishers over HTTP: one POST per publication, on kept-alive connections.
//!
//! Owns one connection per publisher. Without pipelining, a request waits for the answer before it,
//! except requests that are due together, and the delay shows in lateness and latency.
//! Invariant: an answer confirms a publication only with a status of success and, from Drumline,
//! without an error in its body.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;

use super::api::{Api, Post};
use super::load::{Load, Message};
use super::pace::Pace;
use super::published::Published;
use crate::clock::RunClock;
use crate::wire;

const READ_BYTES: usize = 4096;

pub(super) async fn one(load: Rc<Load>, publisher: u64, clock: RunClock) -> Result<Published> {
    let mut published = Published::new(&clock)?;
    let Api::Http(post) = &load.api else { return Ok(published) };
    let mut client = ApiClient::open(load.server).await?;
    let pace = Pace::new(clock)?;
    let mut messages = load.of(publisher).peekable();
    while let Some(first) = messages.next() {
        let due_ns = first.stamp.due_ns;
        pace.until(due_ns).await?;
        let framed = |message: &Message| {
            let mut bytes = Vec::new();
            request(&load, post, message, &mut bytes);
            bytes
        };
        let mut requests = VecDeque::from([framed(&first)]);
        published.note(&clock, due_ns)?;
        while let Some(message) =
            messages.next_if(|next| load.per_frame > 1 && next.stamp.due_ns == due_ns)
        {
            requests.push_back(framed(&message));
            published.note(&clock, due_ns)?;
        }
        while !requests.is_empty() {
            client.exchange(post, &mut requests, &mut published).await?;
        }
    }
    Ok(published)
}

/// Connects a publisher.
pub(super) async fn connect(server: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_addr(server)
        .await
        .with_context(|| format!("cannot connect to {server}"))?;
    stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    Ok(stream)
}

/// Appends the request of a publication.
pub(super) fn request(load: &Load, post: &Post, message: &Message, out: &mut Vec<u8>) {
    let mut payload = Vec::new();
    load.data.write(&message.stamp, &mut payload);
    let body = post.body(&message.channel, &payload);
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\n{}Content-Length: {}\r\n\r\n",
        post.target(&message.channel, &body),
        load.server,
        post.headers,
        body.len()
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(&body);
}

struct ApiClient {
    stream: TcpStream,
    server: SocketAddr,
    /// Read beyond the last answer.
    rest: Vec<u8>,
    /// What is read into.
    buffer: Vec<u8>,
    /// Whether the server closes this connection behind the last answer, and whether it has done
    /// so before: requests then go out one at a time.
    closed: bool,
    closes: bool,
}

impl ApiClient {
    async fn open(server: SocketAddr) -> Result<Self> {
        let stream = connect(server).await?;
        let (rest, buffer) = (Vec::new(), vec![0; READ_BYTES]);
        Ok(ApiClient { stream, server, rest, buffer, closed: false, closes: false })
    }

    /// Sends requests and removes those that are answered. The others remain to be sent again,
    /// on a new connection, where the server closes behind an answer.
    async fn exchange(
        &mut self,
        post: &Post,
        requests: &mut VecDeque<Vec<u8>>,
        published: &mut Published,
    ) -> Result<()> {
        if self.closed {
            let fresh = Self::open(self.server).await?;
            *self = ApiClient { closes: true, ..fresh };
        }
        let together = if self.closes { 1 } else { requests.len() };
        let bytes: Vec<u8> = requests.iter().take(together).flatten().copied().collect();
        self.write(bytes).await?;
        for _ in 0..together {
            let refusal = self.answer(post.has_envelope()).await?;
            requests.pop_front();
            match refusal {
                None => published.confirmed += 1,
                Some(refusal) => {
                    published.refusal.get_or_insert(refusal);
                }
            }
            if self.closed {
                break;
            }
        }
        Ok(())
    }

    async fn write(&mut self, requests: Vec<u8>) -> Result<()> {
        let (written, _) = self.stream.write_all(requests).await;
        written.context("cannot write to the HTTP API")?;
        Ok(())
    }

    /// Waits for the next answer. Returns the refusal, if it is one.
    async fn answer(&mut self, envelope: bool) -> Result<Option<String>> {
        let mut bytes = std::mem::take(&mut self.rest);
        loop {
            if let Some((end, refusal)) = next_answer(&bytes, envelope)? {
                let head = bytes[..end].to_ascii_lowercase();
                self.closed = wire::find(&head, b"\r\nconnection: close\r\n").is_some();
                self.rest = bytes.split_off(end);
                return Ok(refusal);
            }
            let (read, buffer) = self.stream.read(std::mem::take(&mut self.buffer)).await;
            let read = read.context("cannot read from the HTTP API")?;
            ensure!(read > 0, "the HTTP API closed a kept-alive connection");
            bytes.extend_from_slice(&buffer[..read]);
            self.buffer = buffer;
        }
    }
}

/// Length of the complete answer at the front of `bytes`, and the refusal that it states, if any.
/// `None`: the answer is not complete.
pub(super) fn next_answer(bytes: &[u8], envelope: bool) -> Result<Option<(usize, Option<String>)>> {
    let Some((end, status, body)) = whole_answer(bytes)? else { return Ok(None) };
    let body = bytes.get(body..end).unwrap_or_default();
    let error = envelope && wire::find(body, b"\"error\"").is_some();
    let confirmed = (200..300).contains(&status) && !error;
    let refusal = || format!("{status} {}", String::from_utf8_lossy(body));
    Ok(Some((end, (!confirmed).then(refusal))))
}

/// End of the answer at the front, its status, and where its body starts; `None`: not whole yet.
pub(crate) fn whole_answer(bytes: &[u8]) -> Result<Option<(usize, u16, usize)>> {
    let Some(start) = wire::head_bytes(bytes) else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..start]);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, length)| length.trim().parse::<usize>().ok())
        .or((status == Some(204)).then_some(0));
    let (Some(status), Some(length)) = (status, length) else {
        anyhow::bail!("the HTTP API answered without status or Content-Length: {head}");
    };
    Ok((bytes.len() >= start + length).then_some((start + length, status, start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_has_come() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}rest";
        assert_eq!(whole_answer(text).unwrap(), Some((text.len() - 4, 200, text.len() - 6)));
        assert_eq!(whole_answer(&text[..20]).unwrap(), None);
        assert!(whole_answer(b"x\r\n\r\n").is_err());
    }
}
