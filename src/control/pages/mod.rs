//! The HTML pages of the server: the start page and the description of the API.
//!
//! Owns the style and the response headers of every page. A page never loads anything from another
//! server.

pub mod page;
pub mod swagger;

use axum::http::header;
use axum::routing::{MethodRouter, get};

/// Style sheet of all pages. The style of one page follows it.
const STYLE: &str = include_str!("style.css");

/// Serves a page with the content security policy `policy`. The text is built once and lives as
/// long as the process.
pub fn served(text: &str, policy: &'static str) -> MethodRouter {
    let page: &'static str = text.replacen("<style>\n", &format!("<style>\n{STYLE}"), 1).leak();
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    get(move || async move { (headers, page) })
}
