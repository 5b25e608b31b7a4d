//! The admin page: its routes, the login, and the requests of an operator who is logged in.
//!
//! Owns the sessions and the samples of the load. The page is live by server-sent events of the
//! control plane, not by a channel of the shards: an overloaded node still shows its load, no rule,
//! token or proxy for channels can open the stream to a client, and the stream works where the
//! public port is not reachable. The invariant: a request passes the checks of `guard` first, and
//! except for the files of the page and the login it needs an open session.

mod actions;
mod guard;
mod load;
mod logins;
mod sessions;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use self::guard::Caller;
use self::load::Monitor;
use self::logins::{Logins, Verdict};
use self::sessions::{SessionId, Sessions, id_text, ids_in};
use crate::base::sys;
use crate::config::Config;
use crate::control::api::operator::{CallFailure, Operator};
use crate::control::api::{BODY_TIMEOUT, NodeState};
use crate::control::http::connections::{EndlessResponse, PeerAddress};
use crate::link::Link;

/// Pages that are live at once.
const STREAMS_MAX: usize = 16;
/// Maximum size of a request body in bytes.
const BODY_MAX: usize = 1 << 20;

/// Files of the page. The page loads nothing else, and has no code or style of its own.
const PAGE: &str = include_str!("../pages/admin.html");
const SCRIPT: &str = include_str!("../pages/admin.js");
const CHARTS: &str = include_str!("../pages/admin_charts.js");
const STYLE: &str = concat!(include_str!("../pages/style.css"), include_str!("../pages/admin.css"));
/// Folder of the files and requests in the page's text, replaced by the configured one.
const FOLDER: &str = "/admin/";

/// Headers of every answer. `require-trusted-types-for` makes browsers refuse to turn any text into
/// markup.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

struct Admin {
    link: Arc<Link>,
    operator: Operator,
    monitor: Arc<Monitor>,
    logins: Logins,
    sessions: Sessions,
    streams: Arc<Semaphore>,
    allowed_hosts: Vec<String>,
    /// Path of the page.
    path: String,
    started: Instant,
    /// Its sender is dropped when the process ends.
    stopped: watch::Receiver<()>,
}

/// Routes of the admin page; none if it is disabled. Streams end when the sender of `stopped` is
/// dropped. Call it in the context of the runtime.
pub fn router(
    config: &Arc<Config>,
    link: &Arc<Link>,
    node: &Arc<NodeState>,
    stopped: &watch::Receiver<()>,
) -> Router {
    let Some(hash) = config.admin_password() else { return Router::new() };
    let path = config.admin_path();
    let folder = format!("{}{}", path.trim_end_matches('/'), FOLDER);
    let admin = Arc::new(Admin {
        link: link.clone(),
        operator: Operator::new(config, link, node),
        monitor: Monitor::start(link.clone()),
        logins: Logins::new(hash),
        sessions: Sessions::new(config.admin.session_ttl.0),
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        allowed_hosts: config.admin.allowed_hosts.clone(),
        path: path.clone(),
        started: Instant::now(),
        stopped: stopped.clone(),
    });
    let at = |name: &str| format!("{folder}{name}");
    let open = Router::new()
        .route(&at("session"), get(session))
        .route(&at("stream"), get(stream))
        .route(&at("logout"), post(logout))
        .route(&at("search"), post(search))
        .route(&at("channel"), post(look))
        .route(&at("publish"), post(publish))
        .route(&at("disconnect"), post(disconnect))
        .layer(from_fn_with_state(admin.clone(), need_session));
    // The configuration check admits only paths without quotes and angle brackets.
    let page = PAGE.replace(FOLDER, &folder);
    let router = Router::new()
        .route(&path, file("text/html; charset=utf-8", page))
        .route(&at("style.css"), file("text/css; charset=utf-8", STYLE.to_owned()))
        .route(&at("app.js"), file("text/javascript; charset=utf-8", SCRIPT.to_owned()))
        .route(&at("charts.js"), file("text/javascript; charset=utf-8", CHARTS.to_owned()))
        .route(&at("login"), post(login))
        .merge(open);
    let router = match path.trim_end_matches('/') {
        "" => router,
        bare => {
            let to = path.clone();
            let moved = move || async move { [(header::LOCATION, to)] };
            let moved = move || async move { (StatusCode::PERMANENT_REDIRECT, moved().await) };
            router.route(bare, get(moved))
        }
    };
    router
        .layer(from_fn_with_state(admin.clone(), guarded))
        .layer(from_fn(with_headers))
        .with_state(admin)
}

/// A file of the page. The text is built once and lives as long as the process.
fn file(kind: &'static str, text: String) -> MethodRouter<Arc<Admin>> {
    let text: &'static str = text.leak();
    get(move || async move { ([(header::CONTENT_TYPE, kind)], text) })
}

async fn with_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Refuses requests of other pages and for unknown host names.
async fn guarded(State(admin): State<Arc<Admin>>, mut request: Request, next: Next) -> Response {
    let navigation = request.uri().path() == admin.path;
    match guard::check(&request, &admin.allowed_hosts, navigation) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refused) => failure(StatusCode::FORBIDDEN, &format!("request refused: {refused}")),
    }
}

/// Refuses requests without a session.
async fn need_session(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    mut request: Request,
    next: Next,
) -> Response {
    match admin.session_in(request.headers(), &caller) {
        Some(id) => {
            request.extensions_mut().insert(id);
            next.run(request).await
        }
        None => failure(StatusCode::UNAUTHORIZED, "log in first"),
    }
}

fn failure(status: StatusCode, text: &str) -> Response {
    (status, axum::Json(json!({ "error": text }))).into_response()
}

impl Admin {
    /// The open session that a cookie of the request names.
    fn session_in(&self, headers: &HeaderMap, caller: &Caller) -> Option<SessionId> {
        let cookies = headers.get_all(header::COOKIE).iter();
        let name = caller.cookie_name();
        let mut ids = ids_in(cookies.filter_map(|value| value.to_str().ok()), &name);
        ids.find(|id| self.sessions.is_open(id))
    }

    /// The Set-Cookie header for a session, or without one for its end.
    fn cookie(&self, caller: &Caller, id: Option<&SessionId>) -> String {
        let (name, secure) = (caller.cookie_name(), if caller.is_secure { "; Secure" } else { "" });
        let (value, age) = match id {
            Some(id) => (id_text(id), self.sessions.ttl().as_secs()),
            None => (String::new(), 0),
        };
        let path = format!("{}{}", self.path.trim_end_matches('/'), FOLDER);
        let path = path.trim_end_matches('/');
        format!("{name}={value}; Path={path}; Max-Age={age}; HttpOnly; SameSite=Strict{secure}")
    }

    /// What the page shows of the node itself.
    fn node(&self) -> Value {
        json!({
            "name": self.operator.node_name(),
            "version": env!("CARGO_PKG_VERSION"),
            "uptime": self.started.elapsed().as_secs(),
            "shards": self.link.shards().len(),
        })
    }
}

/// Reads a body as JSON, within the limits on size and time.
async fn read<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Response> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    // A form of another page cannot send this type.
    if kind.is_none_or(|kind| !kind.trim().eq_ignore_ascii_case("application/json")) {
        let text = "the body must be application/json";
        return Err(failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let bytes: Bytes = match timeout(BODY_TIMEOUT, to_bytes(body, BODY_MAX)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let text = "the body exceeds 1 MiB or is incomplete";
            return Err(failure(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        Err(_) => return Err(failure(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| failure(StatusCode::BAD_REQUEST, &format!("invalid request: {error}")))
}

#[derive(Deserialize)]
struct Password {
    password: String,
}

async fn login(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    peer: Option<Extension<PeerAddress>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let address = peer.and_then(|peer| peer.0.0).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let Password { password } = match read(&headers, body).await {
        Ok(given) => given,
        Err(refused) => return refused,
    };
    match admin.logins.check(address, password.into_bytes()).await {
        Verdict::Right => begin_session(&admin, &caller, address),
        Verdict::Wrong => {
            tracing::warn!(target: "admin", "wrong password from {address}");
            failure(StatusCode::FORBIDDEN, "wrong password")
        }
        Verdict::LockedOut(seconds) => {
            let text =
                format!("too many wrong passwords from this address; try again in {seconds} s");
            let after = [(header::RETRY_AFTER, seconds.to_string())];
            (after, failure(StatusCode::TOO_MANY_REQUESTS, &text)).into_response()
        }
        Verdict::Busy => {
            let after = [(header::RETRY_AFTER, "1")];
            let text = "too many logins at once; try again in a second";
            (after, failure(StatusCode::SERVICE_UNAVAILABLE, text)).into_response()
        }
    }
}

fn begin_session(admin: &Admin, caller: &Caller, address: IpAddr) -> Response {
    let Ok(id) = sys::random() else {
        return failure(StatusCode::SERVICE_UNAVAILABLE, "the system has no random bytes");
    };
    admin.sessions.begin(id);
    tracing::info!(target: "admin", "login from {address}");
    let cookie = [(header::SET_COOKIE, admin.cookie(caller, Some(&id)))];
    (cookie, axum::Json(admin.node())).into_response()
}

async fn logout(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Extension(id): Extension<SessionId>,
) -> Response {
    admin.sessions.end(&id);
    let cookie = [(header::SET_COOKIE, admin.cookie(&caller, None))];
    (cookie, axum::Json(json!({}))).into_response()
}

async fn session(State(admin): State<Arc<Admin>>) -> Response {
    axum::Json(admin.node()).into_response()
}

/// The load of the node as server-sent events: the node and its history first, then a sample each
/// second until the session ends.
async fn stream(State(admin): State<Arc<Admin>>, Extension(id): Extension<SessionId>) -> Response {
    let Ok(permit) = admin.streams.clone().try_acquire_owned() else {
        let text = format!("{STREAMS_MAX} pages are live already; close one");
        return failure(StatusCode::SERVICE_UNAVAILABLE, &text);
    };
    let samples = admin.monitor.subscribe();
    let hello = json!({ "node": admin.node(), "history": admin.monitor.history() });
    let first = format!("retry: 2000\nevent: hello\ndata: {hello}\n\n");
    let state = Some((Some(first), samples, admin.stopped.clone(), admin.clone()));
    let events = futures_util::stream::unfold(state, move |state| async move {
        let (first, mut samples, mut stopped, admin) = state?;
        if let Some(first) = first {
            return Some((event(first), Some((None, samples, stopped, admin))));
        }
        let goes_on = tokio::select! {
            changed = samples.changed() => changed.is_ok(),
            _ = stopped.changed() => false,
        };
        if !goes_on {
            return None;
        }
        if !admin.sessions.is_open(&id) {
            return Some((event("event: end\ndata: {}\n\n".into()), None));
        }
        let sample = samples.borrow_and_update().clone();
        let text = format!("event: load\ndata: {sample}\n\n");
        Some((event(text), Some((None, samples, stopped, admin))))
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    let mut response = (kind, Body::from_stream(events)).into_response();
    response.extensions_mut().insert(EndlessResponse(Arc::new(permit)));
    response
}

fn event(text: String) -> Result<Bytes, std::convert::Infallible> {
    Ok(text.into())
}

fn told(result: Result<Value, CallFailure>) -> Response {
    match result {
        Ok(result) => axum::Json(result).into_response(),
        Err((code, text)) => {
            let status = match code {
                100 => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_REQUEST,
            };
            (status, axum::Json(json!({ "error": text, "code": code }))).into_response()
        }
    }
}

async fn search(State(admin): State<Arc<Admin>>, headers: HeaderMap, body: Body) -> Response {
    match read(&headers, body).await {
        Ok(asked) => told(actions::search(&admin.link, asked).await),
        Err(refused) => refused,
    }
}

async fn look(State(admin): State<Arc<Admin>>, headers: HeaderMap, body: Body) -> Response {
    match read(&headers, body).await {
        Ok(asked) => told(actions::look(&admin.link, &admin.operator, asked).await),
        Err(refused) => refused,
    }
}

async fn publish(State(admin): State<Arc<Admin>>, headers: HeaderMap, body: Body) -> Response {
    match read(&headers, body).await {
        Ok(asked) => told(actions::publish(&admin.operator, asked).await),
        Err(refused) => refused,
    }
}

async fn disconnect(State(admin): State<Arc<Admin>>, headers: HeaderMap, body: Body) -> Response {
    match read(&headers, body).await {
        Ok(asked) => told(actions::disconnect(&admin.operator, asked).await),
        Err(refused) => refused,
    }
}
