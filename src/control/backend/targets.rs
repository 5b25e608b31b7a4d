//! The addresses of the backend: the headers, the timeout and the encoding of each.
//!
//! Owns the connections to the backend. Never knows why a request is sent. The invariants: a
//! request takes no longer than the timeout of its address, including the wait for a permit. An
//! answer has at most [`ANSWER_BYTES_MAX`] bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request as HttpRequest};
use http_body_util::{BodyExt, Full, Limited};
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::{Config, Proxy, StatusTransform, is_own_header};
use crate::control::backend::client::{Client, client as new_client};
use crate::control::backend::endpoint::{Endpoint, causes};
use crate::control::backend::proxy_calls::ProxyCalls;
use crate::control::traces::{Span, SpanKind, TraceContext, Tracer};
use crate::model::backend::{
    self, AnswerError, BackendContext, ProxyAnswer, ProxyEvent, ProxyFailure, ProxyRequest,
    Upstream,
};
use crate::tls::client::TlsClients;

/// Maximum size of an answer in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Maximum number of concurrent requests to one address.
const REQUESTS_MAX: usize = 256;
/// Header that names the span of the sender.
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
/// Minimum pause between two log lines about one address and method.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// The addresses of the backend, by number.
pub struct Backend {
    addresses: Vec<Option<KnownTarget>>,
    client: Client,
    calls: ProxyCalls,
    /// Traces the requests.
    tracer: Option<Arc<Tracer>>,
}

/// An address and the options that it was made of.
#[derive(Clone)]
struct KnownTarget {
    options: Proxy,
    target: Arc<Target>,
}

impl Backend {
    /// The addresses of a configuration.
    pub fn new(config: &Config, client: &Client, tls: &TlsClients) -> Self {
        let (addresses, calls, tracer) = (Vec::new(), ProxyCalls::default(), None);
        Backend { addresses, client: client.clone(), calls, tracer }.reloaded(config, tls)
    }

    /// Traces the requests to the addresses.
    #[must_use]
    pub fn with_tracer(mut self, tracer: Option<Arc<Tracer>>) -> Self {
        self.tracer = tracer;
        self
    }

    /// The addresses of a new configuration, whose proxies have the same numbers. An unchanged
    /// address keeps its requests in progress. One that was in use stays, because requests may
    /// still wait for it.
    pub fn reloaded(&self, config: &Config, tls: &TlsClients) -> Self {
        let used = config.used_proxies();
        let address = |(at, (section, proxy)): (usize, (String, &Proxy))| {
            let known = self.addresses.get(at).and_then(Option::as_ref);
            let is_used = used.iter().any(|upstream| usize::from(upstream.0) == at);
            let own = |(tls, name): &(ClientConfig, String)| new_client(tls.clone(), name);
            let client = || tls.backend(at).map_or_else(|| self.client.clone(), own);
            // Files with certificates may have changed.
            let is_same = |known: &&KnownTarget| known.options == *proxy && !proxy.http.tls.enabled;
            let target = match known.filter(|known| is_same(known) || !is_used) {
                Some(known) => return Some(known.clone()),
                None if !is_used => return None,
                None => Target::new(proxy, client()),
            };
            let log_failure = |cause| tracing::error!(target: "backend", "{section}: {cause}");
            let target = Arc::new(target.map_err(log_failure).ok()?);
            Some(KnownTarget { options: proxy.clone(), target })
        };
        let proxies = config.all_proxies();
        let without_name = proxies.len().saturating_sub(config.proxies.len());
        let given = config.proxies.iter().map(|proxy| proxy.name.clone());
        let names = vec!["default".to_owned(); without_name].into_iter().chain(given).collect();
        let addresses = proxies.into_iter().enumerate().map(address).collect();
        let (client, tracer) = (self.client.clone(), self.tracer.clone());
        Backend { addresses, client, calls: self.calls.with_names(names), tracer }
    }

    /// The calls of the proxies, with their names: `default`, or the one that the configuration
    /// gives.
    pub fn calls(&self) -> &ProxyCalls {
        &self.calls
    }

    fn target(&self, request: &ProxyRequest) -> Result<&Target, ProxyFailure> {
        let Upstream(number) = request.upstream;
        let found = self.addresses.get(usize::from(number)).and_then(Option::as_ref);
        found.map(|found| &*found.target).ok_or(ProxyFailure::Failed)
    }

    /// Sends a request and reads the answer.
    pub async fn ask(&self, request: &ProxyRequest) -> Result<ProxyAnswer, ProxyFailure> {
        let is_refresh =
            matches!(request.event, ProxyEvent::Refresh | ProxyEvent::SubRefresh { .. });
        let body = match self.post(request).await {
            // As in Centrifugo, only the result of a refresh counts, and a transform has none.
            Err(ProxyFailure::Error { .. } | ProxyFailure::Disconnect { .. }) if is_refresh => {
                return Ok(ProxyAnswer::Refresh(None));
            }
            answer => answer?,
        };
        backend::answer(&request.event, &body).map_err(|problem| match problem {
            AnswerError::Rejected(refused) => refused,
            AnswerError::Unreadable(cause) => {
                if let Ok(target) = self.target(request) {
                    target.log_failure(request.event.name(), &cause);
                }
                ProxyFailure::Failed
            }
        })
    }

    /// Sends a request and returns the body of the answer.
    pub async fn post(&self, request: &ProxyRequest) -> Result<Bytes, ProxyFailure> {
        let target = self.target(request)?;
        let body = request.body(target.binary, target.sends_meta)?;
        let mut headers = target.headers(request.context.as_deref());
        let mut span = self.span(request, target);
        if let Some(span) = &span
            && let Ok(context) = HeaderValue::try_from(span.context().to_string())
        {
            headers.insert(TRACE_PARENT, context);
        }
        let answer = target.post(headers, body, &mut span).await;
        answer.map_err(|problem| match problem {
            PostError::Transformed(failure) => failure,
            PostError::Failed(cause) => {
                if let Some(span) = &mut span {
                    span.fail(&*cause);
                }
                target.log_failure(request.event.name(), &cause);
                ProxyFailure::Failed
            }
        })
    }
}

impl Backend {
    /// The span of a request, if requests are traced. Its parent is the one that a header of the
    /// client names, if the header is passed on to the backend.
    fn span(&self, request: &ProxyRequest, target: &Target) -> Option<Span> {
        let tracer = self.tracer.as_ref()?;
        let context = request.context.as_deref();
        let headers = context.into_iter().flat_map(|context| context.headers.iter());
        let mut parents = headers.filter(|(name, _)| **name == *TRACE_PARENT.as_str());
        let passes = target.http_headers.contains(&TRACE_PARENT);
        let parent = parents.next().filter(|_| passes);
        let parent = parent.and_then(|(_, value)| TraceContext::parse(value));
        let name = request.event.name();
        let mut span = tracer.start(SpanKind::Client, format!("backend {name}"), parent);
        span.set("http.request.method", "POST");
        span.set("url.full", &*target.endpoint.to_string());
        Some(span)
    }
}

/// A request without an answer of status 200.
enum PostError {
    /// The status of the answer means this.
    Transformed(ProxyFailure),
    /// The request failed for this cause.
    Failed(String),
}

impl From<String> for PostError {
    fn from(cause: String) -> Self {
        PostError::Failed(cause)
    }
}

/// One address of the backend.
struct Target {
    client: Client,
    endpoint: Endpoint,
    timeout: Duration,
    binary: bool,
    sends_meta: bool,
    static_headers: HeaderMap,
    transforms: Vec<StatusTransform>,
    http_headers: Vec<HeaderName>,
    emulated_headers: Vec<HeaderName>,
    permits: Semaphore,
    /// Time of the last log line, by method.
    last_logged: Mutex<HashMap<&'static str, Instant>>,
}

impl Target {
    fn new(proxy: &Proxy, client: Client) -> Result<Self, String> {
        let names = |names: &[String]| {
            let passed = names.iter().filter(|name| !is_own_header(name));
            passed.filter_map(|name| HeaderName::try_from(name).ok()).collect()
        };
        let static_headers = proxy.http.static_headers.iter();
        Ok(Target {
            client,
            endpoint: Endpoint::new(&proxy.endpoint)?,
            timeout: proxy.timeout.0,
            binary: proxy.binary_encoding,
            sends_meta: proxy.include_connection_meta,
            static_headers: static_headers
                .filter(|(name, _)| !is_own_header(name))
                .filter_map(|(name, value)| {
                    Some((
                        HeaderName::try_from(name).ok()?,
                        HeaderValue::try_from(value.reveal()).ok()?,
                    ))
                })
                .collect(),
            transforms: proxy.http.status_to_code_transforms.clone(),
            http_headers: names(&proxy.http_headers),
            emulated_headers: names(&proxy.emulated_headers),
            permits: Semaphore::new(REQUESTS_MAX),
            last_logged: Mutex::default(),
        })
    }

    /// Headers of a request. Headers of the client's HTTP request replace emulated headers of its
    /// connect command, and both replace headers of the configuration.
    fn headers(&self, context: Option<&BackendContext>) -> HeaderMap {
        let mut headers = self.static_headers.clone();
        if let Some(context) = context {
            for name in &self.emulated_headers {
                let given = context.emulated.iter().find(|(given, _)| **given == *name.as_str());
                if let Some(value) = given.and_then(|(_, value)| HeaderValue::from_str(value).ok())
                {
                    headers.insert(name, value);
                }
            }
            for name in &self.http_headers {
                let given = context.headers.iter().filter(|(given, _)| **given == *name.as_str());
                let values = given.filter_map(|(_, value)| HeaderValue::from_bytes(value).ok());
                for (nth, value) in values.enumerate() {
                    if nth == 0 {
                        headers.insert(name, value);
                    } else {
                        headers.append(name, value);
                    }
                }
            }
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.endpoint.authorize(&mut headers);
        headers
    }

    async fn post(
        &self,
        headers: HeaderMap,
        body: Vec<u8>,
        span: &mut Option<Span>,
    ) -> Result<Bytes, PostError> {
        match timeout(self.timeout, self.attempt(headers, body, span)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {:?}", self.timeout).into()),
        }
    }

    async fn attempt(
        &self,
        headers: HeaderMap,
        body: Vec<u8>,
        span: &mut Option<Span>,
    ) -> Result<Bytes, PostError> {
        let _permit = self.permits.acquire().await.map_err(|error| error.to_string())?;
        let mut request = HttpRequest::new(Full::from(body));
        (*request.method_mut(), *request.uri_mut()) = (Method::POST, self.endpoint.uri());
        *request.headers_mut() = headers;
        let answer = self.client.request(request).await.map_err(|error| causes(&error))?;
        let status = answer.status();
        if let Some(span) = span {
            span.set("http.response.status_code", u32::from(status.as_u16()));
        }
        let known = |transform: &&StatusTransform| transform.status_code == status.as_u16();
        if let Some(transform) = self.transforms.iter().find(known).filter(|_| status != 200) {
            return Err(PostError::Transformed(transform.failure()));
        }
        if status.is_redirection() {
            // The place of a redirect may contain a secret, so the log does not show it.
            return Err(format!(
                "the backend answered with a redirect ({}), which is not followed; set endpoint to \
                 the address that the redirect leads to",
                status
            )
            .into());
        }
        if !status.is_success() {
            return Err(format!("the backend answered {status}").into());
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok(body.map_err(|error| format!("cannot read the answer: {error}"))?.to_bytes())
    }

    /// Logs the cause of a failed request, at most once per [`LOG_PAUSE`] and method.
    fn log_failure(&self, method: &'static str, cause: &str) {
        // After a panic elsewhere the times are still valid.
        let mut last = self.last_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if last.get(method).is_none_or(|last| last.elapsed() >= LOG_PAUSE) {
            last.insert(method, Instant::now());
            let address = &self.endpoint;
            tracing::warn!(target: "backend", "{method} request to {address} failed: {cause}");
        }
    }
}
