//! The way back to the data plane: push requests that came to the control plane, on a connection
//! that began with another request or in a form that a shard does not read.
//!
//! Never judges what an upgrade is: that is `http::parse`'s alone. The invariant: no byte that was
//! read is lost on the way.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::client::conn::http1 as client;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::base::connection_limits::ConnectionLimits;
use crate::base::sys::Clock;
use crate::config::Config;
use crate::control::api::BODY_TIMEOUT;
use crate::control::http_connections::{EndlessResponse, PrefixedSocket};
use crate::control::refusal::refusal;
use crate::link::Link;
use crate::model::auth::Rules;
use crate::model::message::{Adopt, Message};
use crate::wire::http::origin::origin;
use crate::wire::http::{self, Head, HeadLimits, Routes, Service, Status, Upgrade};

/// How push connections are let into the node.
pub struct Entry {
    /// How many clients it takes.
    pub gate: Arc<ConnectionLimits>,
    /// The clock of the shards.
    pub clock: Clock,
}

struct ReturnPath {
    entry: Entry,
    link: Arc<Link>,
    routes: Routes,
    limits: HeadLimits,
    rules: Rules,
    kept_headers: Vec<String>,
    /// One for each stream that passes through here: they leave places for other requests.
    streams: Arc<Semaphore>,
}

/// Adds the paths of push transports to a router: what is asked for there goes back to a shard.
pub fn with_push_paths(router: Router, config: &Config, link: &Arc<Link>, entry: Entry) -> Router {
    let back = Arc::new(ReturnPath {
        entry,
        link: link.clone(),
        routes: config.routes(),
        limits: config.head_limits(),
        rules: config.rules(),
        kept_headers: config.upstreams().wants.headers,
        streams: Arc::new(Semaphore::new(config.http_server.connections_max.div_ceil(2))),
    });
    let router = back.routes.iter().fold(router, |router, route| {
        let (back, body_max) = (back.clone(), route.body_max);
        match route.service {
            Service::Publish | Service::Health => router,
            Service::Transport(transport) if transport.is_websocket() => router
                .route(&route.path, any(move |request| async move { give_back(&back, request) })),
            Service::Transport(_) => router.route(
                &route.path,
                any(move |request| async move { pass_on_stream(&back, request, body_max).await }),
            ),
            Service::Emulation => router.route(
                &route.path,
                any(move |request| async move { pass_on(&back.link, request, body_max).await }),
            ),
        }
    });
    let rules = config.rules();
    router.layer(from_fn(move |request: Request, next: Next| {
        let rules = rules.clone();
        async move { let_read(&rules, request, next).await }
    }))
}

/// Lets a page of a permitted origin read why its request was refused.
async fn let_read(rules: &Rules, request: Request, next: Next) -> Response {
    let text = |headers: &HeaderMap, name| {
        headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let origins = request.headers().get_all(header::ORIGIN).iter().map(HeaderValue::as_bytes);
    let Ok(Some(origin)) = origin(origins).map(|found| found.map(str::to_owned)) else {
        return next.run(request).await;
    };
    let host = text(request.headers(), header::HOST);
    let mut response = next.run(request).await;
    let refused = response.status().is_client_error() || response.status().is_server_error();
    let said = response.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    if !refused || said || !rules.allows_origin(Some(&origin), host.as_deref()) {
        return response;
    }
    let headers = response.headers_mut();
    if let Ok(origin) = HeaderValue::try_from(origin) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let yes = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

fn give_back(back: &Arc<ReturnPath>, mut request: Request) -> Response {
    if request.method() != Method::GET {
        return refusal(Status::MethodNotAllowed("GET"));
    }
    let head = head_of(&request);
    let mut upgrade = match http::parse(&head, &back.routes, back.limits) {
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

/// The same for a request whose answer may have no end.
async fn pass_on_stream(back: &ReturnPath, request: Request, body_max: usize) -> Response {
    let Ok(permit) = back.streams.clone().try_acquire_owned() else {
        return refusal(Status::Unavailable);
    };
    let mut response = pass_on(&back.link, request, body_max).await;
    if response.status() == StatusCode::OK {
        response.extensions_mut().insert(EndlessResponse(Arc::new(permit)));
    }
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
    let adopt = Adopt { socket: far, upgrade: None, bytes: Vec::new(), pass: None };
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

/// Takes the raw socket back from hyper and sends it to the shard with most room.
async fn adopt(link: &Link, upgraded: Upgraded, upgrade: Upgrade) {
    let Ok(parts) = upgraded.downcast::<TokioIo<PrefixedSocket>>() else { return };
    let (socket, unread, pass) = parts.io.into_inner().into_parts();
    let mut bytes = parts.read_buf.to_vec();
    bytes.extend_from_slice(&unread);
    let socket = match Arc::try_unwrap(socket) {
        Ok(socket) => socket.into_std().map(OwnedFd::from),
        Err(shared) => shared.as_fd().try_clone_to_owned(),
    };
    let Ok(socket) = socket else { return };
    let adopt = Adopt { socket, upgrade: Some(upgrade), bytes, pass: Some(pass) };
    // Without room the socket is closed, and the client comes again.
    let _ = link.tell(link.emptiest(), Message::Adopt(Box::new(adopt))).await;
}
