//! Returns push requests to a shard: requests that reached the control plane because their
//! connection began with another request, or because a shard does not read their form.
//!
//! Never decides itself what an upgrade is: `wire::http::parse` does. The invariant: no byte that
//! was read is lost.

use std::future::poll_fn;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

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
use tokio::io::AsyncWrite;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::base::address_limits::AddressRefused;
use crate::base::connection_limits::{AddressPermit, ConnectionLimits};
use crate::base::sys::Clock;
use crate::base::vitals::{LifeStage, Vitals};
use crate::config::Config;
use crate::control::api::BODY_TIMEOUT;
use crate::control::http::connections::{
    EndlessResponse, ForwardedClient, NotedClient, PrefixedParts, PrefixedSocket,
};
use crate::control::http::refusal::refusal;
use crate::link::Link;
use crate::model::auth::Rules;
use crate::model::message::{Adopt, Message};
use crate::wire::client_address::{TrustedNetworks, group};
use crate::wire::http::origin::origin;
use crate::wire::http::{self, Head, HeadLimits, Routes, Service, Status, Upgrade};

/// Time for a client to take what was written before its connection returns to a shard.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Limits of push connections that return from the control plane.
#[derive(Clone)]
pub struct PushAdmission {
    /// Connection limits of the node.
    pub limits: Arc<ConnectionLimits>,
    /// The life of the node.
    pub vitals: Arc<Vitals>,
    /// The clock of the shards.
    pub clock: Clock,
    /// A permit for each answer without end that the control plane forwards: at most half of its
    /// connections, so that places are left for other requests.
    pub endless_permits: Arc<Semaphore>,
}

struct PushForwarder {
    admission: PushAdmission,
    link: Arc<Link>,
    routes: Routes,
    limits: HeadLimits,
    rules: Rules,
    kept_headers: Vec<String>,
    trusted_proxies: TrustedNetworks,
}

/// Adds the paths of push transports to a router. Requests for them return to a shard.
pub fn with_push_routes(
    router: Router,
    config: &Config,
    link: &Arc<Link>,
    admission: PushAdmission,
) -> Router {
    let forwarder = Arc::new(PushForwarder {
        admission,
        link: link.clone(),
        routes: config.routes(),
        limits: config.head_limits(),
        rules: config.rules(),
        kept_headers: config.upstreams().wants.headers,
        trusted_proxies: config.trusted_proxies(),
    });
    let router = forwarder.routes.iter().fold(router, |router, route| {
        let (forwarder, body_max) = (forwarder.clone(), route.body_max);
        match route.service {
            Service::Publish | Service::Health | Service::Readiness => router,
            Service::Transport(transport) if transport.is_websocket() => router.route(
                &route.path,
                any(move |request| async move { return_websocket(&forwarder, request) }),
            ),
            Service::Transport(_) => router.route(
                &route.path,
                any(move |request| async move {
                    forward_transport(&forwarder, request, body_max).await
                }),
            ),
            Service::Emulation | Service::Polling => router.route(
                &route.path,
                any(
                    move |request| async move { forward(&forwarder.link, request, body_max).await },
                ),
            ),
        }
    });
    let rules = config.rules();
    router.layer(from_fn(move |request: Request, next: Next| {
        let rules = rules.clone();
        async move { expose_errors_to_pages(&rules, request, next).await }
    }))
}

/// Adds CORS headers to error answers, so that a page of a permitted origin can read the cause.
async fn expose_errors_to_pages(rules: &Rules, request: Request, next: Next) -> Response {
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
    let has_cors = response.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    if !refused || has_cors || !rules.allows_origin(Some(&origin), host.as_deref()) {
        return response;
    }
    let headers = response.headers_mut();
    if let Ok(origin) = HeaderValue::try_from(origin) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let allowed = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, allowed);
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

impl PushForwarder {
    /// Counts the client that a trusted peer names; `Err`: its address has reached a limit.
    fn admit_address(
        &self,
        request: &Request,
        head: &[u8],
    ) -> Result<Option<AddressPermit>, AddressRefused> {
        if request.extensions().get::<ForwardedClient>().is_none() {
            return Ok(None);
        }
        let values = http::kept_headers(head, &["x-forwarded-for".to_owned()]);
        let client = self.trusted_proxies.client(values.iter().map(|(_, value)| &**value));
        let PushAdmission { limits, clock, .. } = &self.admission;
        let admit = |client| AddressPermit::admit(limits, client, group(client), clock.millis());
        client.map(admit).transpose()
    }
}

fn return_websocket(forwarder: &Arc<PushForwarder>, mut request: Request) -> Response {
    if request.method() != Method::GET {
        return refusal(Status::MethodNotAllowed("GET"));
    }
    let head = request_head(&request);
    let mut upgrade = match http::parse(&head, &forwarder.routes, forwarder.limits) {
        Head::Upgrade(upgrade, _) => *upgrade,
        Head::Refused(status) => return refusal(status),
        _ => {
            let text = "this path serves WebSocket: send an upgrade request\n";
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
    };
    if !forwarder.rules.allows_origin(upgrade.origin.as_deref(), upgrade.host.as_deref()) {
        return refusal(Status::Forbidden);
    }
    let Ok(address) = forwarder.admit_address(&request, &head) else {
        return refusal(Status::TooManyConnections);
    };
    if forwarder.admission.vitals.stage() >= LifeStage::Draining {
        return refusal(Status::ShuttingDown);
    }
    if !forwarder.admission.limits.admit_connection(forwarder.admission.clock.millis()) {
        return refusal(Status::Unavailable);
    }
    upgrade.kept = http::kept_headers(&head, &forwarder.kept_headers);
    let Ok(response) = switching_protocols(&upgrade) else { return refusal(Status::BadRequest) };
    let upgraded = hyper::upgrade::on(&mut request);
    let forwarder = forwarder.clone();
    tokio::spawn(async move {
        // If the peer has closed the connection, nothing is left to do.
        if let Ok(upgraded) = upgraded.await {
            adopt(&forwarder.link, upgraded, upgrade, address).await;
        }
    });
    response
}

/// Forwards a request whose answer may have no end (an HTTP stream or server-sent events).
async fn forward_transport(
    forwarder: &PushForwarder,
    request: Request,
    body_max: usize,
) -> Response {
    let Ok(permit) = forwarder.admission.endless_permits.clone().try_acquire_owned() else {
        return refusal(Status::Unavailable);
    };
    let mut response = forward(&forwarder.link, request, body_max).await;
    if response.status() == StatusCode::OK {
        response.extensions_mut().insert(EndlessResponse(Arc::new(permit)));
    }
    response
}

/// Forwards a request to a shard and its answer to the client. The connection stays with the
/// control plane.
async fn forward(link: &Link, request: Request, body_max: usize) -> Response {
    let (mut head, body) = request.into_parts();
    let body = match timeout(BODY_TIMEOUT, axum::body::to_bytes(body, body_max)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return refusal(Status::TooLarge),
        Err(_) => return refusal(Status::Timeout),
    };
    // Shards read targets without scheme and host only.
    if let Some(target) = head.uri.path_and_query().cloned() {
        head.uri = Uri::from(target);
    }
    for name in [header::TRANSFER_ENCODING, header::EXPECT, header::UPGRADE, header::CONNECTION] {
        head.headers.remove(name);
    }
    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    head.version = Version::HTTP_11;
    match shard_answer(link, Request::from_parts(head, Body::from(body))).await {
        Some(mut response) => {
            response.headers_mut().remove(header::CONNECTION);
            response
        }
        None => refusal(Status::Unavailable),
    }
}

/// Answer of the shard with the fewest sockets; it may have no end. `None`: the shard is too busy.
async fn shard_answer(link: &Link, request: Request) -> Option<Response> {
    let (near, far) = UnixStream::pair().ok()?;
    let far = OwnedFd::from(far.into_std().ok()?);
    let adopt = Adopt {
        socket: far,
        entrance: 0,
        upgrade: None,
        bytes: Vec::new(),
        sealed: None,
        permit: None,
        forwarded: request.extensions().get::<ForwardedClient>().is_some(),
        client: request.extensions().get::<NotedClient>().map(|client| client.0),
    };
    link.send(link.least_loaded_shard(), Message::Adopt(Box::new(adopt))).await.ok()?;
    let (mut sender, connection) = client::handshake(TokioIo::new(near)).await.ok()?;
    // The task ends with the answer, or when the client closes its connection.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.ok()?;
    Some(response.map(Body::new))
}

/// The request's head as bytes, which `wire::http::parse` reads again.
fn request_head(request: &Request) -> Vec<u8> {
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

fn switching_protocols(upgrade: &Upgrade) -> Result<Response, axum::http::Error> {
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

/// Takes the raw socket from hyper and sends it to the shard with the fewest sockets.
async fn adopt(link: &Link, upgraded: Upgraded, upgrade: Upgrade, address: Option<AddressPermit>) {
    let Ok(parts) = upgraded.downcast::<TokioIo<PrefixedSocket>>() else { return };
    let mut io = parts.io.into_inner();
    let flush = poll_fn(|context| Pin::new(&mut io).poll_flush(context));
    if !matches!(timeout(FLUSH_TIMEOUT, flush).await, Ok(Ok(()))) {
        return;
    }
    let PrefixedParts { socket, entrance, unread, sealed, mut permit } = io.into_parts();
    let mut bytes = parts.read_buf.to_vec();
    bytes.extend_from_slice(&unread);
    let socket = match Arc::try_unwrap(socket) {
        Ok(socket) => socket.into_std().map(OwnedFd::from),
        Err(shared) => shared.as_fd().try_clone_to_owned(),
    };
    let Ok(socket) = socket else { return };
    let upgrade = Some(upgrade);
    if let Some(address) = address {
        permit.set_address(address);
    }
    let adopt = Adopt {
        socket,
        entrance,
        upgrade,
        bytes,
        sealed,
        forwarded: permit.is_forwarded(),
        client: permit.client(),
        permit: Some(permit),
    };
    // If the shard has no room, the socket is closed and the client connects again.
    let _ = link.send(link.least_loaded_shard(), Message::Adopt(Box::new(adopt))).await;
}
