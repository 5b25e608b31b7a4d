//! The relay: passes a request of the page on to Drumline, and counts every byte.
//!
//! Owns no counter. Never changes a byte but the target of a request. The invariant: bytes are
//! passed on as they come, so a stream is not delayed until it ends.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::counters::Traffic;
use crate::framing::Framing;
use crate::heads::{self, Body, HEAD_MAX, Request, Response};
use crate::peer::Peer;

/// Where requests go, and the connection that earlier ones left.
pub struct Server {
    address: SocketAddr,
    idle: Option<Peer>,
}

impl Server {
    /// The server at an address.
    pub fn new(address: SocketAddr) -> Server {
        Server { address, idle: None }
    }

    /// Sends a request and reads the head of its response. The server may have closed an idle
    /// connection meanwhile: then over a new one.
    async fn ask(&mut self, request: &[u8]) -> io::Result<(Peer, Response)> {
        if let Some(mut peer) = self.idle.take()
            && let Ok(response) = exchange(&mut peer, request).await
        {
            return Ok((peer, response));
        }
        let mut peer = Peer::connect(self.address).await?;
        let response = exchange(&mut peer, request).await?;
        Ok((peer, response))
    }
}

async fn exchange(peer: &mut Peer, request: &[u8]) -> io::Result<Response> {
    peer.send(request).await?;
    let response = peer.until(heads::response).await?;
    response.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// A head with another target.
fn with_target(head: &[u8], request: &Request, target: &str) -> Vec<u8> {
    let line = head.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let mut changed = format!("{} {target} HTTP/1.1\r\n", request.method).into_bytes();
    changed.extend_from_slice(head.get(line + 1..).unwrap_or_default());
    changed
}

/// Passes a request on, and its response back. Returns whether the connection of the browser can
/// carry another request.
///
/// # Errors
/// The browser or the server ended in the middle, or the server cannot be reached
/// ([`io::ErrorKind::NotConnected`]; nothing was sent to the browser).
pub async fn relay(
    browser: &mut Peer,
    server: &mut Server,
    request: &Request,
    target: &str,
    traffic: &Traffic,
) -> io::Result<bool> {
    while browser.unread.len() < request.head + request.body {
        if browser.fill().await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut message = with_target(&browser.take(request.head), request, target);
    traffic.request();
    traffic.up(message.len() as u64, request.body as u64);
    message.append(&mut browser.take(request.body));
    let asked = server.ask(&message).await;
    let (mut peer, response) = asked.map_err(|cause| {
        let cause = format!("Drumline at {} does not answer: {cause}", server.address);
        io::Error::new(io::ErrorKind::NotConnected, cause)
    })?;
    traffic.down(response.head as u64, 0);
    browser.send(&peer.take(response.head)).await?;
    match response.body {
        Body::Length(length) => {
            copy(&mut peer, browser, length, traffic).await?;
            server.idle = Some(peer);
            Ok(true)
        }
        Body::UntilClose(framing) => stream(&mut peer, browser, framing, traffic).await,
        Body::Upgraded => tunnel(peer, browser, traffic).await,
    }
}

/// Passes a body of a known length on.
async fn copy(from: &mut Peer, to: &mut Peer, length: u64, traffic: &Traffic) -> io::Result<()> {
    let mut left = usize::try_from(length).unwrap_or(usize::MAX);
    while left > 0 {
        if from.unread.is_empty() && from.fill().await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = from.take(left);
        left -= bytes.len();
        traffic.down(0, bytes.len() as u64);
        to.send(&bytes).await?;
    }
    Ok(())
}

/// Passes a body on until one end closes.
async fn stream(
    from: &mut Peer,
    to: &mut Peer,
    mut framing: Framing,
    traffic: &Traffic,
) -> io::Result<bool> {
    loop {
        let bytes = from.take(usize::MAX);
        let overhead = framing.overhead(&bytes);
        traffic.down(overhead, bytes.len() as u64 - overhead);
        to.send(&bytes).await?;
        let read = tokio::select! {
            read = from.fill() => read?,
            // The browser sends nothing during a response, except that it closes.
            read = to.fill() => if to.unread.len() > HEAD_MAX { 0 } else { read? },
        };
        if read == 0 {
            return Ok(false);
        }
    }
}

/// Passes frames on, both ways, until one end closes.
async fn tunnel(mut server: Peer, browser: &mut Peer, traffic: &Traffic) -> io::Result<bool> {
    let (sent, received) = (browser.take(usize::MAX), server.take(usize::MAX));
    let (mut from_browser, mut to_browser) = browser.stream.split();
    let (mut from_server, mut to_server) = server.stream.split();
    let up = pump(&mut from_browser, &mut to_server, sent, |overhead, body| {
        traffic.up(overhead, body);
    });
    let down = pump(&mut from_server, &mut to_browser, received, |overhead, body| {
        traffic.down(overhead, body);
    });
    tokio::select! {
        ended = up => ended?,
        ended = down => ended?,
    }
    Ok(false)
}

/// Passes frames on in one direction, beginning with bytes that are read already.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut bytes: Vec<u8>,
    count: impl Fn(u64, u64),
) -> io::Result<()> {
    let mut framing = Framing::frames();
    loop {
        let overhead = framing.overhead(&bytes);
        count(overhead, bytes.len() as u64 - overhead);
        to.write_all(&bytes).await?;
        bytes.clear();
        bytes.reserve(16 * 1024);
        if from.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
}
