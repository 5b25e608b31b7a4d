//! Routes of the API: checks the key, reads the body and runs the method.
//!
//! Owns no state. An authorized, well-formed request gets HTTP 200 with `result` or `error`, unless
//! `http_api.error_mode` or a header of the request selects HTTP status codes for errors.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::batch::BATCH_MAX;
use super::methods::{Command, METHODS};
use super::node::{Api, NodeState};
use super::reading::raw_text;
use super::reply::{ApiError, MethodReply, RequestError};
use crate::config::Config;
use crate::control::http::connections::AuthorizedResponse;
use crate::link::Link;
use crate::wire::http::query_value;

/// Maximum size of a request body in bytes.
const BODY_MAX: usize = 16 << 20;

/// Maximum time for a request body to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Routes of the API.
pub fn router(config: &Arc<Config>, link: &Arc<Link>, node: &Arc<NodeState>) -> Router {
    if config.http_api.disabled {
        return Router::new();
    }
    let api = Arc::new(Api::new(config, link, node, node.calls.clone()));
    let prefix = config.http_api.handler_prefix.trim_end_matches('/');
    let named = if prefix.is_empty() { post(call_named) } else { any(call_named) };
    Router::new()
        // At `/`, other methods are left to the page.
        .route(&config.http_api.handler_prefix, named)
        .route(&format!("{prefix}/{{method}}"), any(call))
        .with_state(api)
}

async fn call(
    State(api): State<Arc<Api>>,
    verb: Method,
    Path(method): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if method != "batch" && !METHODS.contains(&method.as_str()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    match api.refusal(&verb, query.as_deref(), &headers) {
        Some(refused) => refused,
        None => authorized(answer(&api, &method, &headers, body).await),
    }
}

/// Marks the answer to a request with a right key.
fn authorized(answer: Result<Response, Response>) -> Response {
    let mut response = answer.unwrap_or_else(|refused| refused);
    response.extensions_mut().insert(AuthorizedResponse);
    response
}

async fn answer(
    api: &Api,
    method: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let body = read(body).await?;
    if method == "batch" {
        let result = api.batch(&body).await.map_err(IntoResponse::into_response)?;
        return Ok(axum::Json(result).into_response());
    }
    let command = Command::read(method, &body).map_err(IntoResponse::into_response)?;
    Ok(match api.run(command).await {
        Err(error) if api.answers_by_status(headers) => {
            (error.status(), axum::Json(error)).into_response()
        }
        result => axum::Json(MethodReply::from(result)).into_response(),
    })
}

/// A command that names its method in the body. Older libraries send one or more per request.
#[derive(Debug, Deserialize)]
struct NamedCommand {
    /// Number that the reply repeats.
    #[serde(default)]
    id: u32,
    #[serde(default)]
    method: String,
    #[serde(default)]
    params: Option<Box<RawValue>>,
}

/// The reply to a command that names its method.
#[derive(Serialize)]
struct NamedReply {
    #[serde(skip_serializing_if = "is_zero")]
    id: u32,
    #[serde(flatten)]
    reply: MethodReply<Box<RawValue>>,
}

fn is_zero(id: &u32) -> bool {
    *id == 0
}

async fn call_named(
    State(api): State<Arc<Api>>,
    verb: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match api.refusal(&verb, query.as_deref(), &headers) {
        Some(refused) => refused,
        None => authorized(answer_named(&api, body).await),
    }
}

async fn answer_named(api: &Api, body: Body) -> Result<Response, Response> {
    let body = read(body).await?;
    let mut lines = Vec::new();
    for command in serde_json::Deserializer::from_slice(&body).into_iter::<NamedCommand>() {
        let NamedCommand { id, method, params } = match command {
            Ok(command) if lines.len() < BATCH_MAX => command,
            Ok(_) => {
                let text = format!("more than {BATCH_MAX} commands; split the request\n");
                return Err((StatusCode::BAD_REQUEST, text).into_response());
            }
            Err(error) => {
                let text = format!("invalid list of commands: {error}\n");
                return Err((StatusCode::BAD_REQUEST, text).into_response());
            }
        };
        let params = params.as_ref().map_or("{}", |params| params.get());
        let result = match Command::read(&method, params.as_bytes()) {
            Ok(command) => api.run(command).await,
            Err(RequestError::Unknown) if !method.is_empty() => {
                let text = "a command names an unknown method\n";
                return Err((StatusCode::BAD_REQUEST, text).into_response());
            }
            Err(_) => Err(ApiError::bad_request()),
        };
        let reply = NamedReply { id, reply: MethodReply::from(result) };
        lines.push(raw_text(&reply).get().to_owned());
    }
    if lines.is_empty() {
        let text = "the request has no command; send an object with method and params\n";
        return Err((StatusCode::BAD_REQUEST, text).into_response());
    }
    Ok(([(header::CONTENT_TYPE, "application/json")], lines.join("\n")).into_response())
}

/// Reads a body within the limits on size and time.
async fn read(body: Body) -> Result<Bytes, Response> {
    match timeout(BODY_TIMEOUT, to_bytes(body, BODY_MAX)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => {
            let text = "the body exceeds 16 MiB or is incomplete; split the request\n";
            Err((StatusCode::PAYLOAD_TOO_LARGE, text).into_response())
        }
        Err(_) => {
            let text = "the body did not arrive within 30 s; send it without a pause\n";
            Err((StatusCode::REQUEST_TIMEOUT, text).into_response())
        }
    }
}

impl Api {
    /// The refusal of a request with another method than POST or without a right key.
    fn refusal(&self, verb: &Method, query: Option<&str>, headers: &HeaderMap) -> Option<Response> {
        if verb != Method::POST {
            let allow = [(header::ALLOW, "POST")];
            return Some((StatusCode::METHOD_NOT_ALLOWED, allow).into_response());
        }
        if !self.accepts_key(headers, query.unwrap_or_default()) {
            let text = "X-API-Key is missing or wrong; send http_api.key of the configuration\n";
            return Some((StatusCode::UNAUTHORIZED, text).into_response());
        }
        None
    }

    /// Whether errors of this request use HTTP status codes.
    fn answers_by_status(&self, headers: &HeaderMap) -> bool {
        let asked = headers.get("x-centrifugo-error-mode").and_then(|mode| mode.to_str().ok());
        asked.unwrap_or(&self.config.http_api.error_mode) == "transport"
    }

    /// Whether the request contains the right key. As in Centrifugo, wrong keys beside it do no
    /// harm.
    fn accepts_key(&self, headers: &HeaderMap, query: &str) -> bool {
        self.key.opens_for(None)
            || given_keys(headers, query).any(|key| self.key.opens_for(Some(&key)))
    }
}

/// All keys of a request: in the header `X-API-Key`, after `apikey` in the header `Authorization`,
/// and in the query parameter `api_key`.
fn given_keys<'a>(headers: &'a HeaderMap, query: &str) -> impl Iterator<Item = Cow<'a, str>> {
    let own = headers.get_all("x-api-key").iter().filter_map(|key| key.to_str().ok());
    let authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let authorizations = authorizations.filter_map(|value| {
        let (scheme, key) = value.to_str().ok()?.trim_start().split_once([' ', '\t'])?;
        scheme.eq_ignore_ascii_case("apikey").then_some(key.trim())
    });
    let asked = query_value(query, "api_key").map(Cow::Owned);
    own.chain(authorizations).map(Cow::Borrowed).chain(asked)
}
