//! Replies of the methods: a result, an error, or a request that cannot be run.
//!
//! Owns the types of replies and their HTTP statuses. Never runs a request.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::link::LinkBusy;
use crate::model::duplicate_guard;
use crate::wire::{http, protocol};

/// Error of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Error", deny_unknown_fields)]
pub struct ApiError {
    /// 100 internal server error, 102 unknown channel, 104 not found, 106 limit exceeded, 107 bad
    /// request, 108 not available, 112 unrecoverable position.
    code: u32,
    /// Description of the error.
    message: &'static str,
}

impl From<protocol::Error> for ApiError {
    fn from(error: protocol::Error) -> Self {
        ApiError { code: error.code, message: error.message }
    }
}

impl From<LinkBusy> for ApiError {
    fn from(_: LinkBusy) -> Self {
        protocol::Error::INTERNAL.into()
    }
}

impl ApiError {
    /// The method does not exist.
    pub(super) const NOT_FOUND: ApiError = ApiError { code: 104, message: "not found" };

    /// The request is invalid.
    pub(super) fn bad_request() -> Self {
        protocol::Error::BAD_REQUEST.into()
    }

    /// The data is larger than a client's queue.
    pub(super) const TOO_LARGE: ApiError = ApiError {
        code: 107,
        message: "bad request: data is larger than client.queue_max_size, so no client could \
                  receive it; raise the key or split the data",
    };

    /// The version epoch is too long to be kept with every stream.
    pub(super) const VERSION_EPOCH_TOO_LONG: ApiError =
        ApiError { code: 107, message: duplicate_guard::VERSION_EPOCH_TOO_LONG };

    /// Code and message.
    pub(super) fn parts(self) -> (u32, &'static str) {
        (self.code, self.message)
    }

    /// HTTP status for `http_api.error_mode: transport`.
    pub(super) fn status(self) -> StatusCode {
        http::error_status(self.code)
    }
}

/// Reply of a method: a result or an error.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "{T}OrError")]
pub(super) enum MethodReply<T> {
    Result(T),
    Error(ApiError),
}

impl<T> From<Result<T, ApiError>> for MethodReply<T> {
    fn from(result: Result<T, ApiError>) -> Self {
        match result {
            Ok(result) => MethodReply::Result(result),
            Err(error) => MethodReply::Error(error),
        }
    }
}

/// A request that cannot be run.
#[derive(Debug)]
pub(super) enum RequestError {
    /// The method does not exist.
    Unknown,
    /// The body is not a valid request.
    Malformed(serde_json::Error),
}

impl From<serde_json::Error> for RequestError {
    fn from(error: serde_json::Error) -> Self {
        RequestError::Malformed(error)
    }
}

impl From<RequestError> for ApiError {
    fn from(refused: RequestError) -> Self {
        match refused {
            RequestError::Unknown => ApiError::NOT_FOUND,
            RequestError::Malformed(_) => ApiError::bad_request(),
        }
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        match self {
            RequestError::Unknown => StatusCode::NOT_FOUND.into_response(),
            RequestError::Malformed(error) => {
                let text = format!("invalid request body for this method: {error}\n");
                (StatusCode::BAD_REQUEST, text).into_response()
            }
        }
    }
}

/// An empty object: the method has no result.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct EmptyResult {}
