//! The page at `/`: a first look at what the server does, without anything to install.
//!
//! Owns the page's text, and what all pages look like. Never loads anything from elsewhere.

use axum::Router;
use axum::http::header;
use axum::routing::{MethodRouter, get};

use crate::config::Config;

const PAGE: &str = include_str!("page.html");
/// What all pages look like, in front of what each adds.
const STYLE: &str = include_str!("page.css");
/// Stands in the page for the path of the WebSocket.
const PATH: &str = "/connection/websocket";
/// The page needs nothing but itself and its socket.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self' ws: wss:; img-src data:; frame-ancestors 'none'";

/// The page's route.
pub fn router(config: &Config) -> Router {
    if !config.page.enabled {
        return Router::new();
    }
    // A configured path has no quotes or angle brackets to speak of: it is checked to be plain.
    let page = PAGE.replace(PATH, &config.websocket.handler_prefix);
    Router::new().route("/", served(&page, POLICY))
}

/// Serves a page that may load what `policy` says. It is made once and lives as long as the
/// process.
pub fn served(text: &str, policy: &'static str) -> MethodRouter {
    let page: &'static str = text.replacen("<style>\n", &format!("<style>\n{STYLE}"), 1).leak();
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    get(move || async move { (headers, page) })
}
