//! Sockets between the planes: requests that a shard does not serve come here, and push requests
//! on a kept-alive connection go back.
//!
//! Owns the HTTP connections while they are here. Never judges what an upgrade is: that is
//! `http::parse`'s alone. The invariant: no byte that was read is lost on the way, whichever way
//! it goes.

use std::io;
use std::net::TcpStream as StdStream;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, Version, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::auth::Rules;
use crate::config::Config;
use crate::control::api::BODY_TIMEOUT;
use crate::control::link::Link;
use crate::gate::Gate;
use crate::http::{self, Head, Routes, Service, Status, Upgrade};
use crate::message::{Adopt, HandOver, Message};
use crate::sys::Clock;

/// How long a connection may take for a request head, or be idle between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// A socket whose first bytes were read by somebody else already.
pub struct Rewound {
    socket: TcpStream,
    bytes: Vec<u8>,
    used: usize,
}

impl Rewound {
    /// The socket, and the bytes that nobody has read yet.
    fn into_parts(mut self) -> (TcpStream, Vec<u8>) {
        self.bytes.drain(..self.used);
        (self.socket, self.bytes)
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = &this.bytes[this.used..];
        if left.is_empty() {
            return Pin::new(&mut this.socket).poll_read(context, buffer);
        }
        let taken = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..taken]);
        this.used += taken;
        if this.used == this.bytes.len() {
            (this.bytes, this.used) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

// ---- in --------------------------------------------------------------------------------------

/// Where HTTP connections come in; each is a task until it ends or the door closes.
#[derive(Clone)]
pub struct Door {
    router: Router,
    stopped: watch::Receiver<()>,
    /// Every connection holds one end; the other sees when none is left.
    inside: watch::Sender<()>,
}

impl Door {
    /// A door to `router` that closes when the other end of `stopped` is dropped.
    pub fn new(router: Router, stopped: watch::Receiver<()>) -> Self {
        let router = router.layer(middleware::from_fn(with_legal_host));
        Door { router, stopped, inside: watch::Sender::new(()) }
    }

    /// Serves a socket that a shard has handed over.
    pub fn let_in(&self, handed: HandOver) {
        let socket = StdStream::from(handed.socket);
        let socket = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket));
        // A socket that cannot be served is closed by being dropped.
        if let Ok(socket) = socket {
            self.serve(socket, handed.bytes);
        }
    }

    /// Serves a socket of which `bytes` were read.
    pub fn serve(&self, socket: TcpStream, bytes: Vec<u8>) {
        let io = TokioIo::new(Rewound { socket, bytes, used: 0 });
        let service = TowerToHyperService::new(self.router.clone());
        let mut stopped = self.stopped.clone();
        let inside = self.inside.subscribe();
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(io, service)
                .with_upgrades();
            let mut connection = pin!(connection);
            // How a connection ends is its peer's matter.
            tokio::select! {
                _ = connection.as_mut() => {}
                _ = stopped.changed() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
            drop(inside);
        });
    }

    /// Waits until no connection is left.
    pub async fn closed(&self) {
        self.inside.closed().await;
    }
}

/// Refuses what a shard would refuse too: a connection that began with a legal request may go on
/// with others.
async fn with_legal_host(request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    match http::is_host_legal(request.version() == Version::HTTP_11, hosts) {
        true => next.run(request).await,
        false => refusal(Status::BadRequest),
    }
}

// ---- and back --------------------------------------------------------------------------------

/// How push connections are let into the node.
pub struct Entry {
    /// How many clients it takes.
    pub gate: Arc<Gate>,
    /// The clock of the shards.
    pub clock: Clock,
}

struct Back {
    entry: Entry,
    link: Arc<Link>,
    routes: Routes,
    rules: Rules,
    kept_headers: Vec<String>,
}

/// Adds the paths of push transports to a router: what is asked for there goes back to a shard.
pub fn with_push_paths(router: Router, config: &Config, link: &Arc<Link>, entry: Entry) -> Router {
    let back = Arc::new(Back {
        entry,
        link: link.clone(),
        routes: config.routes(),
        rules: config.rules(),
        kept_headers: config.upstreams().wants.headers,
    });
    back.routes.iter().fold(router, |router, route| {
        let (back, body_max) = (back.clone(), route.body_max);
        match route.service {
            Service::Publish => router,
            Service::Transport(transport) if transport.is_websocket() => router
                .route(&route.path, any(move |request| async move { give_back(&back, request) })),
            Service::Transport(_) | Service::Emulation => router.route(
                &route.path,
                any(move |request| async move { pass_on(&back.link, request, body_max).await }),
            ),
        }
    })
}

fn give_back(back: &Arc<Back>, mut request: Request) -> Response {
    let head = head_of(&request);
    let mut upgrade = match http::parse(&head, &back.routes) {
        Head::Upgrade(upgrade, _) => *upgrade,
        Head::Refused(status) => return refusal(status),
        _ => {
            let text = "a WebSocket is served here: the request must ask for an upgrade\n";
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
    };
    if !back.rules.allows_origin(upgrade.origin.as_deref(), upgrade.host.as_deref()) {
        return refusal(Status::Forbidden);
    }
    if !back.entry.gate.admits(back.entry.clock.millis()) {
        return refusal(Status::Unavailable);
    }
    upgrade.kept = http::kept_headers(&head, &back.kept_headers);
    let Ok(response) = switching(&upgrade) else { return refusal(Status::BadRequest) };
    let upgraded = hyper::upgrade::on(&mut request);
    let back = back.clone();
    tokio::spawn(async move {
        // A peer that is gone before its answer needs nothing more.
        if let Ok(upgraded) = upgraded.await {
            adopt(&back.link, upgraded, upgrade).await;
        }
    });
    response
}

/// Has a shard answer a request that came here: on a connection that began with another one, or
/// in a form that a shard does not read. The connection stays, its answer comes by way of here.
async fn pass_on(link: &Link, request: Request, body_max: usize) -> Response {
    let (mut head, body) = request.into_parts();
    let body = match timeout(BODY_TIMEOUT, axum::body::to_bytes(body, body_max)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return refusal(Status::TooLarge),
        Err(_) => return refusal(Status::Timeout),
    };
    // A target with scheme and host is none that a shard knows.
    if let Some(target) = head.uri.path_and_query().cloned() {
        head.uri = Uri::from(target);
    }
    for name in [header::TRANSFER_ENCODING, header::EXPECT, header::UPGRADE, header::CONNECTION] {
        head.headers.remove(name);
    }
    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    head.version = Version::HTTP_11;
    match answer_of(link, Request::from_parts(head, Body::from(body))).await {
        Some(mut response) => {
            response.headers_mut().remove(header::CONNECTION);
            response
        }
        None => refusal(Status::Unavailable),
    }
}

/// What the shard with most room answers, which may have no end.
async fn answer_of(link: &Link, request: Request) -> Option<Response> {
    let (near, far) = UnixStream::pair().ok()?;
    let far = OwnedFd::from(far.into_std().ok()?);
    let adopt = Adopt { socket: far, upgrade: None, bytes: Vec::new() };
    link.tell(link.emptiest(), Message::Adopt(Box::new(adopt))).await.ok()?;
    let (mut sender, connection) = client::handshake(TokioIo::new(near)).await.ok()?;
    // It ends with the answer, or with whoever reads that.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.ok()?;
    Some(response.map(Body::new))
}

/// The request's head as text, for the one judge of what an upgrade is.
fn head_of(request: &Request) -> Vec<u8> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let version = request.version();
    let mut head = format!("{} {target} {version:?}\r\n", request.method()).into_bytes();
    for (name, value) in request.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

fn switching(upgrade: &Upgrade) -> Result<Response, axum::http::Error> {
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header(header::SEC_WEBSOCKET_ACCEPT, &upgrade.accept);
    if let Some(subprotocol) = upgrade.subprotocol {
        response = response.header(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    if let Some(compression) = upgrade.compression {
        response = response.header(header::SEC_WEBSOCKET_EXTENSIONS, compression);
    }
    response.body(Body::empty())
}

/// The answer that a shard would give in its own words.
fn refusal(status: Status) -> Response {
    let bytes = status.response();
    let mut headers = [httparse::EMPTY_HEADER; 8];
    let mut parsed = httparse::Response::new(&mut headers);
    let body = match parsed.parse(&bytes) {
        Ok(httparse::Status::Complete(used)) => bytes[used..].to_vec(),
        _ => Vec::new(),
    };
    let code = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let mut response = (code.unwrap_or(StatusCode::BAD_REQUEST), body).into_response();
    for found in parsed.headers.iter() {
        let name = HeaderName::from_bytes(found.name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(found.value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Takes the raw socket back from hyper and sends it to the shard with most room.
async fn adopt(link: &Link, upgraded: Upgraded, upgrade: Upgrade) {
    let Ok(parts) = upgraded.downcast::<TokioIo<Rewound>>() else { return };
    let (socket, unread) = parts.io.into_inner().into_parts();
    let mut bytes = parts.read_buf.to_vec();
    bytes.extend_from_slice(&unread);
    let Ok(socket) = socket.into_std() else { return };
    let adopt = Adopt { socket: OwnedFd::from(socket), upgrade: Some(upgrade), bytes };
    // Without room the socket is closed, and the client comes again.
    let _ = link.tell(link.emptiest(), Message::Adopt(Box::new(adopt))).await;
}
