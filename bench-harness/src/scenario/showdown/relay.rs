//! A relay that delays every byte by a fixed time in both directions, like a long line.
//!
//! Owns its sockets. Never reorders or limits: bytes leave in order, each as long after its
//! arrival as every other. On a real line, the opening of a connection takes a round trip before
//! the first byte can leave. Here the kernel opens the client's connection at once, so the relay
//! reads the first bytes of a client one round trip late: they reach the server at the same time.
//! Invariant: with [`Opening::Free`] a new connection is as fast as one that was kept.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::service::Service;

const READ_BYTES: usize = 16_384;

/// What the opening of a connection costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// A round trip, as on a real line.
    RoundTrip,
    /// Nothing, as if the client had kept its last connection.
    Free,
}

/// The line that a relay is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Distance {
    /// Delay in each direction.
    pub(super) delay: Duration,
    pub(super) opening: Opening,
}

/// Starts a relay to `server` on a port of its own.
pub(super) fn start(server: SocketAddr, distance: Distance) -> Result<Service> {
    Service::start("relay", async move || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("the relay cannot listen")?;
        let address = listener.local_addr().context("the relay has no address")?;
        Ok((address, serve(listener, server, distance)))
    })
}

async fn serve(listener: TcpListener, server: SocketAddr, distance: Distance) {
    let Distance { delay, opening } = distance;
    while let Ok((near, _)) = listener.accept().await {
        tokio::spawn(async move {
            if opening == Opening::RoundTrip {
                sleep(2 * delay).await;
            }
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
    use std::net::TcpStream;

    use super::*;

    const DELAY: Duration = Duration::from_millis(40);

    /// A connection to a server that returns every byte, over a relay.
    fn echoed(opening: Opening) -> (Service, TcpStream, std::thread::JoinHandle<()>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let distance = Distance { delay: DELAY, opening };
        let relay = start(listener.local_addr().unwrap(), distance).unwrap();
        let echo = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            while stream.read(&mut byte).unwrap() > 0 {
                stream.write_all(&byte).unwrap();
            }
        });
        let stream = TcpStream::connect(relay.address()).unwrap();
        (relay, stream, echo)
    }

    /// Sends a byte and waits until it comes back.
    fn exchange(stream: &mut TcpStream, letter: u8) -> Duration {
        let begun = std::time::Instant::now();
        stream.write_all(&[letter]).unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [letter]);
        begun.elapsed()
    }

    #[test]
    fn bytes_and_ends_are_delayed_in_both_directions() {
        let (_relay, mut stream, echo) = echoed(Opening::Free);
        for letter in *b"abc" {
            assert!(exchange(&mut stream, letter) >= 2 * DELAY);
        }
        let begun = std::time::Instant::now();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        assert!(begun.elapsed() >= 2 * DELAY);
        echo.join().unwrap();
    }

    #[test]
    fn the_first_byte_of_a_connection_waits_a_round_trip_longer() {
        let (_relay, mut stream, echo) = echoed(Opening::RoundTrip);
        let begun = std::time::Instant::now();
        exchange(&mut stream, b'a');
        // The connection was opened before `begun`, so the wait may have begun a little earlier.
        assert!(begun.elapsed() >= 4 * DELAY - Duration::from_millis(20));
        assert!(exchange(&mut stream, b'b') >= 2 * DELAY);
        drop(stream);
        echo.join().unwrap();
    }
}
