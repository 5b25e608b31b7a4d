//! Publishers over HTTP: one POST per publication, on kept-alive connections.
//!
//! Owns one connection per publisher. Never pipelines, except requests that are due together: any
//! other request waits for the answer before it, and the delay shows in lateness and latency.
//! Invariant: an answer confirms a publication only with a status of success and, from Drumline,
//! without an error in its body.

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
use crate::wire::{self, Data};

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
        let mut requests = Vec::new();
        client.request(post, &first, load.data, &mut requests);
        published.note(&clock, due_ns)?;
        let mut count = 1;
        while let Some(message) =
            messages.next_if(|next| load.per_frame > 1 && next.stamp.due_ns == due_ns)
        {
            client.request(post, &message, load.data, &mut requests);
            published.note(&clock, due_ns)?;
            count += 1;
        }
        client.write(requests).await?;
        for _ in 0..count {
            let (status, body) = client.answer().await?;
            let error = post.envelope && wire::find(&body, b"\"error\"").is_some();
            if (200..300).contains(&status) && !error {
                published.confirmed += 1;
            } else {
                let told = || format!("{status} {}", String::from_utf8_lossy(&body));
                published.refusal.get_or_insert_with(told);
            }
        }
    }
    Ok(published)
}

fn body(post: &Post, message: &Message, data: Data) -> Vec<u8> {
    let mut body = Vec::new();
    if post.envelope {
        body.extend(format!("{{\"channel\":\"{}\",\"data\":", message.channel).into_bytes());
    }
    data.write(&message.stamp, &mut body);
    if post.envelope {
        body.push(b'}');
    }
    body
}

struct ApiClient {
    stream: TcpStream,
    server: SocketAddr,
    /// Read beyond the last answer.
    rest: Vec<u8>,
    /// What is read into.
    buffer: Vec<u8>,
}

impl ApiClient {
    async fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_addr(server)
            .await
            .with_context(|| format!("cannot connect to {server}"))?;
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        Ok(ApiClient { stream, server, rest: Vec::new(), buffer: vec![0; READ_BYTES] })
    }

    /// Appends the request of a publication.
    fn request(&self, post: &Post, message: &Message, data: Data, out: &mut Vec<u8>) {
        let body = body(post, message, data);
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\n{}Content-Length: {}\r\n\r\n",
            post.path.replace("{}", &message.channel),
            self.server,
            post.headers,
            body.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&body);
    }

    async fn write(&mut self, requests: Vec<u8>) -> Result<()> {
        let (written, _) = self.stream.write_all(requests).await;
        written.context("cannot write to the HTTP API")?;
        Ok(())
    }

    async fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
        let mut bytes = std::mem::take(&mut self.rest);
        loop {
            if let Some((end, status, body)) = whole(&bytes)? {
                let body = bytes[body..end].to_vec();
                self.rest = bytes.split_off(end);
                return Ok((status, body));
            }
            let (read, buffer) = self.stream.read(std::mem::take(&mut self.buffer)).await;
            let read = read.context("cannot read from the HTTP API")?;
            ensure!(read > 0, "the HTTP API closed a kept-alive connection");
            bytes.extend_from_slice(&buffer[..read]);
            self.buffer = buffer;
        }
    }
}

/// End of the answer at the front, its status, and where its body starts; `None`: not whole yet.
fn whole(bytes: &[u8]) -> Result<Option<(usize, u16, usize)>> {
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
        assert_eq!(whole(text).unwrap(), Some((text.len() - 4, 200, text.len() - 6)));
        assert_eq!(whole(&text[..20]).unwrap(), None);
        assert!(whole(b"x\r\n\r\n").is_err());
    }
}
