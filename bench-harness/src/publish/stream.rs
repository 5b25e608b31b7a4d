//! Publishers over TCP in a protocol of the server's own.
//!
//! Owns one connection per publisher. Never waits for an answer between messages: such protocols do
//! not confirm a publication. Invariant: a publisher succeeds only when the server has answered the
//! flush behind its last message, so the server has taken every message.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;

use super::api::{Api, Feed};
use super::load::{Load, Message};
use super::pace::Pace;
use super::published::Published;
use crate::clock::RunClock;
use crate::wire::Data;

const READ_BYTES: usize = 4096;
/// Maximum wait for the answer to a flush. A server that delivers before it reads on answers only
/// after the last delivery of a burst.
const PATIENCE: Duration = Duration::from_secs(180);

pub(super) async fn one(load: Rc<Load>, publisher: u64, clock: RunClock) -> Result<Published> {
    let mut published = Published::new(&clock)?;
    let Api::Stream(feed) = load.api else { return Ok(published) };
    let mut messages = load.of(publisher).peekable();
    if messages.peek().is_none() {
        return Ok(published);
    }
    let mut stream = TcpStream::connect_addr(load.server)
        .await
        .with_context(|| format!("cannot connect to {}", load.server))?;
    stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    let mut hello = Vec::new();
    feed.hello(&mut hello);
    flush(&mut stream, feed, hello).await?;
    let pace = Pace::new(clock)?;
    while let Some(first) = messages.next() {
        let due_ns = first.stamp.due_ns;
        pace.until(due_ns).await?;
        let mut bytes = Vec::new();
        append(feed, &first, load.data, &mut bytes);
        published.note(&clock, due_ns)?;
        while let Some(message) =
            messages.next_if(|next| load.per_frame > 1 && next.stamp.due_ns == due_ns)
        {
            append(feed, &message, load.data, &mut bytes);
            published.note(&clock, due_ns)?;
        }
        let (written, _) = stream.write_all(bytes).await;
        written.context("cannot publish")?;
    }
    match flush(&mut stream, feed, Vec::new()).await {
        Ok(()) => published.confirmed = published.sent,
        Err(error) => published.refusal = Some(format!("{error:#}")),
    }
    Ok(published)
}

fn append(feed: &dyn Feed, message: &Message, data: Data, out: &mut Vec<u8>) {
    let mut payload = Vec::new();
    data.write(&message.stamp, &mut payload);
    feed.publish(&message.channel, &payload, out);
}

/// Sends `bytes` and a flush, and waits for its answer.
async fn flush(stream: &mut TcpStream, feed: &dyn Feed, mut bytes: Vec<u8>) -> Result<()> {
    feed.flush(&mut bytes);
    let (written, _) = stream.write_all(bytes).await;
    written.context("cannot write to the server")?;
    let mut heard = Vec::new();
    while !feed.flushed(&heard)? {
        let read = monoio::time::timeout(PATIENCE, stream.read(vec![0; READ_BYTES])).await;
        let (read, buffer) = read.context("the server does not answer a publisher")?;
        let read = read.context("cannot read from the server")?;
        ensure!(read > 0, "the server closed a publisher's connection");
        heard.extend_from_slice(&buffer[..read]);
    }
    Ok(())
}
