//! The page at `/`: a first look at what the server does, without anything to install.
//!
//! Owns the page's text, and what all pages look like. Never loads anything from elsewhere.

use axum::Router;

use crate::config::Config;
use crate::control::pages::served;

const PAGE: &str = include_str!("page.html");
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
