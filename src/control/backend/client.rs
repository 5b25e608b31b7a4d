//! The HTTP client that sends requests to backends and fetches key sets.
//!
//! Owns the choice of the HTTP version. Never knows what a request is for.

use axum::body::Bytes;
use http_body_util::Full;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

/// An HTTP/1.1 client for `http` and `https` addresses.
pub type Client = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client with a connection pool of its own. Certificates of `https` addresses must have the name
/// `server_name`, or that of the host if it is empty.
pub fn client(tls: ClientConfig, server_name: &str) -> Client {
    let mut sockets = HttpConnector::new();
    sockets.enforce_http(false);
    sockets.set_nodelay(true);
    let mut connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Ok(name) = ServerName::try_from(server_name.to_owned()) {
        connector = connector.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    legacy::Client::builder(TokioExecutor::new())
        .build(connector.enable_http1().wrap_connector(sockets))
}
