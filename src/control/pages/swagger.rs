//! The description of the HTTP API: the OpenAPI document, and a page that shows it and can call the
//! methods.
//!
//! Owns the text of the page.

use axum::Router;
use axum::routing::get;

use crate::config::Config;
use crate::control::api;
use crate::control::pages::served;

const PAGE: &str = include_str!("swagger.html");
/// Path of the document in the page's text, replaced by the configured path.
const PATH: &str = "/swagger/openapi.json";
/// The page loads the document and calls the API of its own server only.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; frame-ancestors 'none'";

/// Routes of the page and the document. There are none if the API is disabled.
pub fn router(config: &Config) -> Router {
    if !config.swagger.enabled || config.http_api.disabled {
        return Router::new();
    }
    let prefix = config.swagger.handler_prefix.trim_end_matches('/');
    let path = format!("{prefix}/openapi.json");
    // The configuration check admits only paths without quotes and angle brackets.
    let page = served(&PAGE.replace(PATH, &path), POLICY);
    let document = api::document(config.http_api.handler_prefix.trim_end_matches('/'));
    let router = Router::new().route(&format!("{prefix}/"), page.clone());
    let router = if prefix.is_empty() { router } else { router.route(prefix, page) };
    router.route(&path, get(move || async move { axum::Json(document) }))
}
