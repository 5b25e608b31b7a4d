//! A relay that delays every byte by a fixed time in both directions, like a long line.
//!
//! Owns its sockets. Never reorders or limits: bytes leave in order, each as long after its
//! arrival as every other. Invariant: the relay delays bytes and ends, but not the opening of a
//! connection, so a way that opens a connection per message looks faster than on a real line.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::service::Service;

const READ_BYTES: usize = 16_384;

/// Starts a relay to `server` on a port of its own.
pub(super) fn start(server: SocketAddr, delay: Duration) -> Result<Service> {
    Service::start("relay", async move || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("the relay cannot listen")?;
        let address = listener.local_addr().context("the relay has no address")?;
        Ok((address, serve(listener, server, delay)))
    })
}

async fn serve(listener: TcpListener, server: SocketAddr, delay: Duration) {
    while let Ok((near, _)) = listener.accept().await {
        tokio::spawn(async move {
            // A client whose server does not listen sees its connection end.
            let Ok(far) = TcpStream::connect(server).await else { return };
            if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
                return;
            }
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::join!(carry(near_in, far_out, delay), carry(far_in, near_out, delay));
        });
    }
}

/// Carries bytes in one direction until it ends.
async fn carry(mut input: OwnedReadHalf, mut output: OwnedWriteHalf, delay: Duration) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        loop {
            let mut bytes = Vec::with_capacity(READ_BYTES);
            let read = input.read_buf(&mut bytes).await.unwrap_or(0);
            // No bytes are the end, which is delayed too.
            let ended = read == 0;
            if sender.send((Instant::now() + delay, bytes)).is_err() || ended {
                return;
            }
        }
    };
    let write = async move {
        while let Some((at, bytes)) = receiver.recv().await {
            sleep_until(at).await;
            if bytes.is_empty() || output.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // The peer may have closed already.
        let _ = output.shutdown().await;
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn bytes_and_ends_are_delayed_in_both_directions() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let delay = Duration::from_millis(40);
        let relay = start(listener.local_addr().unwrap(), delay).unwrap();
        let echo = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            while stream.read(&mut byte).unwrap() > 0 {
                stream.write_all(&byte).unwrap();
            }
        });
        let mut stream = std::net::TcpStream::connect(relay.address()).unwrap();
        for letter in *b"abc" {
            let begun = std::time::Instant::now();
            stream.write_all(&[letter]).unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [letter]);
            assert!(begun.elapsed() >= 2 * delay);
        }
        let begun = std::time::Instant::now();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        assert!(begun.elapsed() >= 2 * delay);
        echo.join().unwrap();
    }
}
