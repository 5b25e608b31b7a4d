//! HTTP connections of the control plane: sockets that shards hand over, and sockets of the
//! internal port.
//!
//! Owns each connection from its hand-over to its end. The invariants: no byte that was read is
//! lost. A connection that is idle too long, or whose request head does not end, is closed. When
//! the places run out, the connection that has been idle longest is closed. A client that shuts
//! down its sending side after its request still gets the answer.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Shutdown, TcpStream as StdStream};
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response, Version, header};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::base::connection_limits::ControlPermit;
use crate::base::current::Current;
use crate::config::Config;
pub use crate::control::http::idle_connections::IdleTimes;
use crate::control::http::idle_connections::{HttpConnection, IdleConnections};
use crate::control::http::refusal::refusal;
use crate::control::http::sealed_stream::SealedStream;
use crate::model::message::HandOver;
use crate::wire::http::{self, HEADERS_MOST, HeadLimits, Status};
use crate::wire::tls::SealedConnection;

/// Pause between two checks whether a client that sent bytes after its request has closed.
const PEER_CHECK_PAUSE: Duration = Duration::from_secs(1);
/// Bytes that are received at once from a socket with TLS.
const RECEIVED_MAX: usize = 4096;
/// Size of the read buffer beyond the limit on request heads, in bytes. A head slightly over the
/// limit is read and refused with its cause; hyper alone would name no cause.
const BUFFER_MORE: usize = 16 * 1024;

/// A socket, and the bytes that the shard or hyper read from it before.
pub struct PrefixedSocket {
    socket: Arc<TcpStream>,
    bytes: Vec<u8>,
    used: usize,
    /// TLS of the socket, which then has its bytes.
    sealed: Option<Box<SealedStream>>,
    permit: ControlPermit,
    entrance: u8,
    connection: Arc<HttpConnection>,
}

/// What is left of a [`PrefixedSocket`].
pub struct PrefixedParts {
    /// The socket.
    pub socket: Arc<TcpStream>,
    /// The listener that the client connected to.
    pub entrance: u8,
    /// The bytes that are left to read.
    pub unread: Vec<u8>,
    /// TLS of the socket, if it has it.
    pub sealed: Option<SealedConnection>,
    /// The permit of the connection.
    pub permit: ControlPermit,
}

impl PrefixedSocket {
    /// The socket and what belongs to it. All output must be flushed.
    pub fn into_parts(mut self) -> PrefixedParts {
        self.bytes.drain(..self.used);
        let PrefixedSocket { socket, entrance, bytes, sealed, permit, .. } = self;
        let (sealed, unread) = match sealed {
            Some(stream) => {
                let (connection, unread) = stream.into_parts();
                (Some(connection), unread)
            }
            None => (None, bytes),
        };
        PrefixedParts { socket, entrance, unread, sealed, permit }
    }

    /// Reads the data of a socket with TLS.
    fn poll_read_sealed(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut received = [0; RECEIVED_MAX];
        loop {
            let Some(stream) = &mut self.sealed else { return Poll::Ready(Ok(())) };
            let read = stream.read().map(|data| {
                data.map(|data| {
                    let taken = data.len().min(buffer.remaining());
                    buffer.put_slice(&data[..taken]);
                    taken
                })
            });
            if let Ok(Some(taken)) = read {
                stream.advance_read(taken);
                return Poll::Ready(Ok(()));
            }
            // An alert, or the answer to a key update, goes out as far as the socket takes it.
            let _ = self.poll_unsent(context);
            read?;
            ready!(self.socket.poll_read_ready(context))?;
            match self.socket.try_read(&mut received) {
                Ok(count) => {
                    if count > 0 {
                        self.connection.note_input();
                    }
                    if let Some(stream) = &mut self.sealed {
                        stream.receive(&received[..count]);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Sends sealed bytes until none is left.
    fn poll_unsent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let unsent = self.sealed.as_ref().map(|stream| stream.unsent()).unwrap_or_default();
            if unsent.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let sent = ready!(self.poll_send(context, |socket| socket.try_write(unsent)))?;
            if let Some(stream) = &mut self.sealed {
                stream.advance_sent(sent);
            }
        }
    }
}

impl AsyncRead for PrefixedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.sealed.is_some() {
            return this.poll_read_sealed(context, buffer);
        }
        let left = &this.bytes[this.used..];
        if !left.is_empty() {
            let taken = left.len().min(buffer.remaining());
            buffer.put_slice(&left[..taken]);
            this.used += taken;
            if this.used == this.bytes.len() {
                (this.bytes, this.used) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(this.socket.poll_read_ready(context))?;
            match this.socket.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    if count > 0 {
                        this.connection.note_input();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl PrefixedSocket {
    fn poll_send(
        &self,
        context: &mut Context<'_>,
        send: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.connection.note_output_pending();
        loop {
            ready!(self.socket.poll_write_ready(context))?;
            match send(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => {
                    self.connection.note_output_taken();
                    return Poll::Ready(sent);
                }
            }
        }
    }
}

impl AsyncWrite for PrefixedSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.sealed.is_some() {
            ready!(self.poll_unsent(context))?;
            let written = self.sealed.as_mut().map_or(0, |stream| stream.write(bytes));
            // The rest goes out with the next write or flush.
            let _ = self.poll_unsent(context)?;
            return Poll::Ready(Ok(written));
        }
        self.poll_send(context, |socket| socket.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, |socket| socket.try_write_vectored(pieces))
    }

    fn is_write_vectored(&self) -> bool {
        self.sealed.is_none()
    }

    /// Hyper calls this after the kernel has taken all output.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(context))?;
        self.connection.note_output_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(stream) = &mut self.sealed {
            stream.close();
        }
        ready!(self.poll_unsent(context))?;
        Poll::Ready(socket2::SockRef::from(&*self.socket).shutdown(Shutdown::Write))
    }
}

/// Body of an answer. The connection is busy until the body is dropped.
struct TrackedBody {
    body: Body,
    connection: Arc<HttpConnection>,
    endless: Option<EndlessResponse>,
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.connection.end_request();
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Marks an answer that lasts as long as its client is connected, and holds its permit.
#[derive(Clone)]
pub struct EndlessResponse(pub Arc<OwnedSemaphorePermit>);

/// Address of the peer of a request's connection; `None`: it has no IP address.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub Option<IpAddr>);

/// Marks an answer to a request that contained a right API key.
#[derive(Clone)]
pub struct AuthorizedResponse;

/// Marks a request of a trusted peer, which names its client in X-Forwarded-For.
#[derive(Clone, Copy)]
pub struct ForwardedClient;

/// The address of a connection's client, which a shard has noted for the access log.
#[derive(Clone, Copy)]
pub struct NotedClient(pub IpAddr);

/// Options of HTTP connections.
pub struct HttpOptions {
    /// Router that answers the requests. A reload replaces it.
    pub router: Current<Router>,
    /// Idle times of connections. A reload replaces them.
    pub times: IdleTimes,
    /// Limits on request heads. A reload replaces them.
    pub limits: Current<HeadLimits>,
}

impl HttpOptions {
    /// Options of the connections of the internal or of the public port.
    pub fn new(config: &Config, router: Router, internal: bool) -> Self {
        let (times, limits) = limits(config, internal);
        HttpOptions { router: Current::new(router), times, limits: Current::new(limits) }
    }
}

/// Idle times, and limits on request heads, of the internal or of the public port.
fn limits(config: &Config, internal: bool) -> (IdleTimes, HeadLimits) {
    let server = &config.http_server;
    let anonymous = if internal { server.idle_timeout } else { server.anonymous_idle_timeout };
    let times = IdleTimes {
        head: server.head_timeout.0,
        idle: server.idle_timeout.0,
        anonymous: anonymous.0,
    };
    (times, config.head_limits())
}

/// The HTTP connections of a port. Each connection is a task.
#[derive(Clone)]
pub struct HttpConnections {
    options: Arc<HttpOptions>,
    pub(super) idle: Arc<IdleConnections>,
    stopped: watch::Receiver<()>,
    /// Every connection holds a receiver, so the sender sees when none is left.
    open: watch::Sender<()>,
}

impl HttpConnections {
    /// Connections that end after their current request when the sender of `stopped` is dropped.
    /// Call it in the context of the runtime.
    pub fn new(options: HttpOptions, stopped: watch::Receiver<()>) -> Self {
        let idle = Arc::new(IdleConnections::new(options.times));
        tokio::spawn(idle.clone().close_late_connections());
        HttpConnections { options: Arc::new(options), idle, stopped, open: watch::Sender::new(()) }
    }

    /// Replaces the router. Requests in progress keep the earlier one.
    pub fn set_router(&self, router: Router) {
        self.options.router.set(router);
    }

    /// Takes the idle times and limits of a configuration, as those of the internal or of the
    /// public port. Requests in progress keep the earlier limits.
    pub fn set_limits(&self, config: &Config, internal: bool) {
        let (times, limits) = limits(config, internal);
        self.idle.set_times(times);
        self.options.limits.set(limits);
    }

    /// Serves a socket that a shard has handed over.
    pub fn serve_handed_over(&self, handed: HandOver) {
        let socket = StdStream::from(handed.socket);
        let socket = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket));
        // Dropping a socket that cannot be served closes it.
        if let Ok(socket) = socket {
            self.serve(socket, handed.entrance, handed.bytes, handed.sealed, handed.permit);
        }
    }

    /// Serves a socket from which `bytes` were already read, and opened if it has TLS.
    pub(super) fn serve(
        &self,
        socket: TcpStream,
        entrance: u8,
        bytes: Vec<u8>,
        sealed: Option<SealedConnection>,
        permit: ControlPermit,
    ) {
        let (io, serving) = self.prepare(socket, entrance, bytes, sealed, permit);
        tokio::spawn(serving.serve(io));
    }

    /// Serves a socket after its TLS handshake. A client that is late with it is closed as one that
    /// is late with a request head.
    pub(super) fn serve_tls(&self, socket: TcpStream, permit: ControlPermit, tls: TlsAcceptor) {
        let (io, mut serving) = self.prepare(socket, 0, Vec::new(), None, permit);
        tokio::spawn(async move {
            let handshake = tls.accept(io);
            let io = tokio::select! {
                io = handshake => io,
                _ = serving.stopped.changed() => return,
                () = serving.connection.close_requested() => return,
            };
            // Errors of a connection concern its peer alone and are not logged.
            if let Ok(io) = io {
                serving.serve(io).await;
            }
        });
    }

    fn prepare(
        &self,
        socket: TcpStream,
        entrance: u8,
        mut bytes: Vec<u8>,
        sealed: Option<SealedConnection>,
        permit: ControlPermit,
    ) -> (PrefixedSocket, Serving) {
        if permit.limits().control_is_nearly_full() {
            self.idle.close_longest_idle();
        }
        // A socket from a shard comes with a complete request head.
        let connection = self.idle.add(permit.limits().clone(), bytes.is_empty());
        let peer = PeerAddress(socket.peer_addr().ok().map(|address| address.ip()));
        let socket = Arc::new(socket);
        let serving = Serving {
            options: self.options.clone(),
            connection: connection.clone(),
            peer,
            socket: Arc::downgrade(&socket),
            is_forwarded: permit.is_forwarded(),
            noted: permit.client().map(NotedClient),
            stopped: self.stopped.clone(),
            _open: self.open.subscribe(),
        };
        let sealed =
            sealed.map(|sealed| Box::new(SealedStream::new(sealed, std::mem::take(&mut bytes))));
        (PrefixedSocket { socket, bytes, used: 0, sealed, permit, entrance, connection }, serving)
    }

    /// Waits until no connection is left.
    pub async fn closed(&self) {
        self.open.closed().await;
    }
}

/// What serving a connection needs beside its bytes.
struct Serving {
    options: Arc<HttpOptions>,
    connection: Arc<HttpConnection>,
    peer: PeerAddress,
    socket: Weak<TcpStream>,
    /// Whether a trusted peer names the client of each request.
    is_forwarded: bool,
    noted: Option<NotedClient>,
    stopped: watch::Receiver<()>,
    _open: watch::Receiver<()>,
}

impl Serving {
    /// Serves the requests of a connection.
    async fn serve(self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Serving { options, connection, peer, socket, is_forwarded, noted, mut stopped, _open } =
            self;
        let peer_closed = peer_closed(socket, connection.clone());
        let buffer = options.limits.get().bytes + BUFFER_MORE;
        let served = connection.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            if is_forwarded {
                request.extensions_mut().insert(ForwardedClient);
            }
            if let Some(noted) = noted {
                request.extensions_mut().insert(noted);
            }
            answer(options.clone(), served.clone(), peer, request)
        });
        let serving = http1::Builder::new()
            .half_close(true)
            .max_buf_size(buffer)
            .max_headers(2 * HEADERS_MOST)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        let mut serving = pin!(serving);
        // Errors of a connection concern its peer alone and are not logged.
        tokio::select! {
            _ = serving.as_mut() => {}
            () = peer_closed => {}
            _ = stopped.changed() => {
                serving.as_mut().graceful_shutdown();
                let _ = serving.await;
            }
            () = connection.close_requested() => if connection.is_busy() {
                // A request has arrived meanwhile. It is answered as the last one.
                serving.as_mut().graceful_shutdown();
                let _ = serving.await;
            }
        }
    }
}

async fn answer(
    options: Arc<HttpOptions>,
    connection: Arc<HttpConnection>,
    peer: PeerAddress,
    mut request: Request<Incoming>,
) -> Result<Response<TrackedBody>, Infallible> {
    connection.begin_request();
    // Dropping the body ends the request, whatever happens to the answer.
    let body = Body::empty();
    let mut answer_body = TrackedBody { body, connection: connection.clone(), endless: None };
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let legal = http::is_host_legal(request.version() == Version::HTTP_11, hosts);
    let illegal = (!legal).then_some(Status::BadRequest);
    if let Some(status) = illegal.or_else(|| over_limits(&request, *options.limits.get())) {
        let (parts, body) = refusal(status).into_parts();
        answer_body.body = body;
        return Ok(Response::from_parts(parts, answer_body));
    }
    request.extensions_mut().insert(peer);
    let Ok(response) = Router::clone(&options.router.get()).oneshot(request.map(Body::new)).await;
    let (mut parts, body) = response.into_parts();
    if parts.extensions.remove::<AuthorizedResponse>().is_some() {
        connection.set_authenticated();
    }
    answer_body.body = body;
    answer_body.endless = parts.extensions.remove::<EndlessResponse>();
    if answer_body.endless.is_some() {
        connection.set_endless();
    }
    Ok(Response::from_parts(parts, answer_body))
}

/// Status for a request whose head exceeds a limit.
fn over_limits(request: &Request<Incoming>, limits: HeadLimits) -> Option<Status> {
    /// Separators of the request line, and of each header.
    const LINE: usize = " HTTP/1.1\r\n".len() + 1;
    const HEADER: usize = ": \r\n".len();
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let line = request.method().as_str().len() + target + LINE;
    let headers = request.headers();
    let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER);
    if headers.len() > limits.headers {
        Some(Status::TooManyHeaders(limits.headers))
    } else if line + bytes.sum::<usize>() > limits.bytes {
        Some(Status::HeadTooLarge(limits.bytes))
    } else {
        None
    }
}

/// Waits until a client that gets an answer without end closes its sending side, which means that
/// the client is gone.
async fn peer_closed(socket: Weak<TcpStream>, connection: Arc<HttpConnection>) {
    connection.became_endless().await;
    let Some(socket) = socket.upgrade() else { return };
    while let Ok(ready) = socket.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        sleep(PEER_CHECK_PAUSE).await;
    }
}
