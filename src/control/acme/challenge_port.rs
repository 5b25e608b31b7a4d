//! The port for http-01 challenges: it shows the answers, and redirects other requests to https.
//!
//! Owns the answers of the moment. Never asks the authority.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use std::io;
use tokio::sync::watch;

use crate::base::connection_limits::ConnectionLimits;
use crate::base::current::Current;
use crate::base::failure::Failure;
use crate::base::sys;
use crate::control::http::connections::{HttpConnections, HttpOptions, IdleTimes};
use crate::wire::http::HeadLimits;

/// Maximum number of connections of the port.
const CONNECTIONS_MAX: u64 = 64;
/// Idle time of a connection between two requests.
const IDLE: Duration = Duration::from_secs(10);
/// Maximum time for a request head to arrive.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// The answers of the moment: each token with its text.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Arc<Mutex<HashMap<String, String>>>);

impl Tokens {
    /// Shows a text for a token.
    pub fn set(&self, token: &str, text: &str) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(token.to_owned(), text.to_owned());
    }

    /// Shows no text any more.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn get(&self, token: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }
}

/// Binds the port. An address without a host means all IPv4 addresses.
///
/// # Errors
/// The text is no address, or the port cannot be bound.
pub fn bind(address: &str) -> Result<TcpListener, Failure> {
    let place = "http_server.tls_autocert.http_addr";
    let invalid = || {
        Failure::new(
            format!("{place}: {address:?} is not an address with a port"),
            "write it as :80 or 192.0.2.1:80",
        )
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    let port = port.parse().map_err(|_| invalid())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address: SocketAddr = sys::listen_address(host, port).map_err(|_| invalid())?;
    let bound = TcpListener::bind(address).and_then(|port| {
        port.set_nonblocking(true)?;
        Ok(port)
    });
    bound.map_err(|refused| {
        Failure::new(
            format!("{place}: cannot bind {address}: {refused}"),
            "end the other process on the port, let the server bind ports below 1024, or set http \
             to false",
        )
    })
}

/// Serves the port as long as the sender of `stopped` exists.
pub fn serve(
    port: TcpListener,
    tokens: Tokens,
    limits: HeadLimits,
    stopped: watch::Receiver<()>,
) -> io::Result<()> {
    let answer = move |Path(token): Path<String>| async move {
        tokens.get(&token).ok_or(StatusCode::NOT_FOUND)
    };
    let router =
        Router::new().route("/.well-known/acme-challenge/{token}", get(answer)).fallback(redirect);
    let options = HttpOptions {
        router: Current::new(router),
        times: IdleTimes { head: HEAD_TIME, idle: IDLE, anonymous: IDLE },
        limits: Current::new(limits),
    };
    let port = tokio::net::TcpListener::from_std(port)?;
    let limits = Arc::new(ConnectionLimits::default().with_control_max(CONNECTIONS_MAX));
    tokio::spawn(HttpConnections::new(options, stopped).listen(port, limits, None));
    Ok(())
}

/// Sends a client to the same path by https, at the standard port.
async fn redirect(headers: HeaderMap, uri: Uri) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_plain) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Redirect::temporary(&format!("https://{host}{path}")).into_response()
}
