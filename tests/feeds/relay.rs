//! A relay between feed and broker that can stop delivering, as a network that drops packets.
//!
//! Owns the connections through it. The invariant: while it is cut, both ends stay connected and
//! get no byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A relay to the port of a broker.
pub struct Relay {
    pub port: u16,
    cut: watch::Sender<bool>,
    connections: Arc<AtomicUsize>,
}

impl Relay {
    pub async fn start(to: u16) -> Relay {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, is_cut) = watch::channel(false);
        let connections = Arc::new(AtomicUsize::new(0));
        let open = connections.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (is_cut, open) = (is_cut.clone(), open.clone());
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                    open.fetch_add(1, Ordering::Relaxed);
                    let (near_in, near_out) = near.into_split();
                    let (far_in, far_out) = far.into_split();
                    tokio::join!(
                        copy(near_in, far_out, is_cut.clone()),
                        copy(far_in, near_out, is_cut)
                    );
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Relay { port, cut, connections }
    }

    /// Stops or resumes delivering.
    pub fn cut(&self, is_cut: bool) {
        self.cut.send_replace(is_cut);
    }

    /// Number of connections through the relay.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut is_cut: watch::Receiver<bool>) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if is_cut.wait_for(|is_cut| !is_cut).await.is_err() {
            return;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
