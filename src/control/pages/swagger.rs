//! The description of the API: the document in OpenAPI, and a page that shows it and calls what it
//! describes.
//!
//! Owns the page's text. Never loads anything from elsewhere.

use axum::Router;
use axum::routing::get;

use crate::config::Config;
use crate::control::api;
use crate::control::pages::served;

const PAGE: &str = include_str!("swagger.html");
/// Stands in the page for the path of the document.
const PATH: &str = "/swagger/openapi.json";
/// The page needs nothing but itself, the document and the API.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; frame-ancestors 'none'";

/// The routes of page and document, where there is an API to describe.
pub fn router(config: &Config) -> Router {
    if !config.swagger.enabled || config.http_api.disabled {
        return Router::new();
    }
    let prefix = &config.swagger.handler_prefix;
    let path = format!("{prefix}/openapi.json");
    // A configured path is checked to be plain.
    let page = served(&PAGE.replace(PATH, &path), POLICY);
    let document = api::document(&config.http_api.handler_prefix);
    Router::new()
        .route(prefix, page.clone())
        .route(&format!("{prefix}/"), page)
        .route(&path, get(move || async move { axum::Json(document) }))
}
