//! The socket to a broker, for lapin: TCP or TLS, with the time of the last byte and a switch that
//! ends it.
//!
//! Owns the socket. Never knows AMQP. The invariants: a socket that is hung up ends lapin's thread,
//! whatever state its connection is in. Bytes from the broker are noticed here, so that a silent
//! broker is noticed without lapin.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::gate::Gate;
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The runtime of lapin: tasks and timers of tokio, and our sockets.
pub type BrokerRuntime = Runtime<RuntimeParts<Tokio, BrokerReactor>>;

/// The runtime that the caller runs in.
pub fn runtime() -> BrokerRuntime {
    Runtime::new(RuntimeParts::new(Tokio::current(), BrokerReactor(Tokio::current())))
}

/// Timers of tokio. Sockets come from [`Wire::connect`] alone.
#[derive(Clone, Debug)]
pub struct BrokerReactor(Tokio);

impl Reactor for BrokerReactor {
    type TcpStream = Transport;
    type Sleep = tokio::time::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin + 'static>
    {
        self.0.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(
        &self,
        time: Duration,
    ) -> impl futures_util::Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        _: SocketAddr,
    ) -> impl Future<Output = io::Result<Transport>> + Send + 'static {
        std::future::ready(Err(io::Error::from(io::ErrorKind::Unsupported)))
    }
}

/// A stream of bytes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A socket to a broker, as lapin reads and writes it.
pub struct Transport {
    stream: Box<dyn Stream>,
    wire: Arc<Wire>,
}

impl futures_io::AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let admitted = self.wire.gate.admits(context.waker()).min(bytes.len());
        if admitted == 0 && !bytes.is_empty() {
            return Poll::Pending;
        }
        let mut room = ReadBuf::new(&mut bytes[..admitted]);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut room))?;
        self.wire.note_bytes();
        self.wire.gate.note_read(room.filled().len());
        Poll::Ready(Ok(room.filled().len()))
    }
}

impl futures_io::AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// What outlives lapin's hold of a socket.
pub struct Wire {
    began: Instant,
    /// Stops reading while too many bytes of messages wait.
    pub gate: Gate,
    /// Milliseconds from `began` to the last byte of the broker.
    heard: AtomicU64,
    /// A second descriptor of the socket.
    socket: Mutex<Option<std::net::TcpStream>>,
}

impl Wire {
    /// A wire without a socket.
    pub fn new() -> Arc<Self> {
        let (began, heard) = (Instant::now(), AtomicU64::new(0));
        Arc::new(Wire { began, gate: Gate::default(), heard, socket: Mutex::new(None) })
    }

    /// Connects to a broker, without TLS.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let second = stream.as_fd().try_clone_to_owned()?;
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(second.into());
        Ok(stream)
    }

    /// The transport over a stream of this wire.
    pub fn transport(self: &Arc<Self>, stream: impl Stream + 'static) -> Transport {
        self.note_bytes();
        Transport { stream: Box::new(stream), wire: self.clone() }
    }

    fn note_bytes(&self) {
        self.heard.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// How long the broker has been silent.
    pub fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.heard.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(heard)
    }

    /// Ends the socket, if there is one: reads and writes of it fail from now on.
    pub fn hang_up(&self) {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = socket.take() {
            // A socket that the broker has reset is ended already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.gate.open();
    }
}
