//! Error responses of the control plane: the same bytes as a shard sends.
//!
//! Owns no state. Never decides that a request is refused.

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::wire::http::{Cors, Status};

/// The response of a shard for a status, as a response of axum.
pub(super) fn refusal(status: Status) -> Response {
    let bytes = status.response(Cors::default(), false);
    let mut headers = [httparse::EMPTY_HEADER; 8];
    let mut parsed = httparse::Response::new(&mut headers);
    let body = match parsed.parse(&bytes) {
        Ok(httparse::Status::Complete(used)) => bytes[used..].to_vec(),
        _ => Vec::new(),
    };
    let code = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let mut response = (code.unwrap_or(StatusCode::BAD_REQUEST), body).into_response();
    for found in parsed.headers.iter() {
        let name = HeaderName::from_bytes(found.name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(found.value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
