//! The page at `/`: subscribe, publish and see messages arrive, without installing anything.
//!
//! Owns the text of the page.

use axum::Router;

use crate::config::Config;
use crate::control::pages::served;

const PAGE: &str = include_str!("page.html");
/// Path of the WebSocket in the page's text, replaced by the configured path.
const PATH: &str = "/connection/websocket";
/// The page loads nothing, and connects to its own server only.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self' ws: wss:; img-src data:; frame-ancestors 'none'";

/// Route of the page.
pub fn router(config: &Config) -> Router {
    if !config.page.enabled {
        return Router::new();
    }
    // The configuration check admits only paths without quotes and angle brackets.
    let page = PAGE.replace(PATH, &config.websocket.handler_prefix);
    Router::new().route("/", served(&page, POLICY))
}
