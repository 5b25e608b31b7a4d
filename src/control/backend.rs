//! The backend as an HTTP client sees it: its addresses, the headers that each is sent, and how
//! long each may take.
//!
//! Owns the connections to it. Never knows why it is asked. The invariants: no request takes longer
//! than its address may, waiting for its turn included, and an answer has so many bytes at most.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request as HttpRequest, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::{Config, Proxy};
use crate::log;
use crate::proxy::{Baggage, Refused, Request, Upstream};

/// Bytes of an answer at most.
const BYTES_MAX: usize = 1 << 20;
/// Requests to one address at a time.
const REQUESTS_MAX: usize = 256;
/// Between two complaints about one address.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

/// What speaks HTTP and HTTPS to others.
pub type Client = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client with connections of its own.
pub fn client() -> Client {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    legacy::Client::builder(TokioExecutor::new()).build(connector)
}

/// Every address of the backend, by its number.
pub struct Backend {
    addresses: Vec<Option<Target>>,
}

impl Backend {
    /// The backend of a configuration.
    pub fn new(config: &Config, client: &Client) -> Self {
        let used = config.used_proxies();
        let address = |(at, (_, proxy)): (usize, (String, &Proxy))| {
            let used = used.iter().any(|upstream| usize::from(upstream.0) == at);
            if used { Target::new(proxy, client.clone()) } else { None }
        };
        Backend { addresses: config.all_proxies().into_iter().enumerate().map(address).collect() }
    }

    /// What is answered to a request.
    pub async fn post(&self, request: &Request) -> Result<Bytes, Refused> {
        let Upstream(number) = request.upstream;
        let address = self.addresses.get(usize::from(number)).and_then(Option::as_ref);
        let address = address.ok_or(Refused::Failed)?;
        let body = request.body(address.binary, address.tells_meta)?;
        let headers = address.headers(request.baggage.as_deref());
        address.post(headers, body).await.map_err(|cause| {
            address.complain(&cause);
            Refused::Failed
        })
    }
}

/// One address of the backend.
struct Target {
    client: Client,
    uri: Uri,
    /// The same as a log line shows it, without secrets.
    shown: String,
    patience: Duration,
    binary: bool,
    tells_meta: bool,
    static_headers: HeaderMap,
    http_headers: Vec<HeaderName>,
    emulated_headers: Vec<HeaderName>,
    hands: Semaphore,
    complained: Mutex<Option<Instant>>,
}

impl Target {
    fn new(proxy: &Proxy, client: Client) -> Option<Self> {
        let names = |names: &[String]| {
            names.iter().filter_map(|name| HeaderName::try_from(name).ok()).collect()
        };
        let static_headers = proxy.http.static_headers.iter();
        Some(Target {
            client,
            uri: proxy.endpoint.reveal().parse().ok()?,
            shown: proxy.endpoint.to_string(),
            patience: proxy.timeout.0,
            binary: proxy.binary_encoding,
            tells_meta: proxy.include_connection_meta,
            static_headers: static_headers
                .filter_map(|(name, value)| {
                    Some((
                        HeaderName::try_from(name).ok()?,
                        HeaderValue::try_from(value.reveal()).ok()?,
                    ))
                })
                .collect(),
            http_headers: names(&proxy.http_headers),
            emulated_headers: names(&proxy.emulated_headers),
            hands: Semaphore::new(REQUESTS_MAX),
            complained: Mutex::default(),
        })
    }

    /// The headers of a request: those of the client's own request win over those that it gave
    /// with its connect, and both over those of the configuration.
    fn headers(&self, baggage: Option<&Baggage>) -> HeaderMap {
        let mut headers = self.static_headers.clone();
        if let Some(baggage) = baggage {
            for name in &self.emulated_headers {
                let given = baggage.emulated.iter().find(|(given, _)| **given == *name.as_str());
                if let Some(value) = given.and_then(|(_, value)| HeaderValue::from_str(value).ok())
                {
                    headers.insert(name, value);
                }
            }
            for name in &self.http_headers {
                let given = baggage.headers.iter().filter(|(given, _)| **given == *name.as_str());
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
        headers
    }

    async fn post(&self, headers: HeaderMap, body: Vec<u8>) -> Result<Bytes, String> {
        match timeout(self.patience, self.attempt(headers, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {:?}", self.patience)),
        }
    }

    async fn attempt(&self, headers: HeaderMap, body: Vec<u8>) -> Result<Bytes, String> {
        let _hand = self.hands.acquire().await.map_err(|error| error.to_string())?;
        let mut request = HttpRequest::new(Full::from(body));
        (*request.method_mut(), *request.uri_mut()) = (Method::POST, self.uri.clone());
        *request.headers_mut() = headers;
        let answer = self.client.request(request).await.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("the answer is {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes())
    }

    /// Says why a request has failed, now and then.
    fn complain(&self, cause: &str) {
        // A panic elsewhere leaves a time that is as good as any.
        let mut last = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= COMPLAINT_PAUSE) {
            *last = Some(Instant::now());
            log::warn("backend", format_args!("request to {} failed: {cause}", self.shown));
        }
    }
}
