//! The exporter: sends finished spans to the receiver, in batches by OTLP over HTTP.
//!
//! Owns the receiving side of the queue. Never delays a span's work. The invariants: one request is
//! in progress at a time, with a time limit; spans that the receiver does not take are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use prost::Message as _;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::options::TraceOptions;
use super::otlp::{
    ExportTraceServiceRequest, KeyValue, Kind, Resource, ResourceSpans, Scope, ScopeSpans, Span,
};
use super::span::{Counters, Tracer};
use crate::base::backoff::Backoff;
use crate::base::metrics::MetricKind;
use crate::control::backend::client::Client;
use crate::control::backend::endpoint::causes;
use crate::control::metrics::Metric;

/// Pauses between two attempts to send a batch.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(4));
/// Most attempts to send a batch.
const ATTEMPTS: usize = 4;
/// Maximum size of an answer in bytes.
const ANSWER_MAX: usize = 64 << 10;

/// The task that sends spans.
pub struct ExportTask {
    task: JoinHandle<()>,
    ends: Arc<Notify>,
    counters: Arc<Counters>,
}

impl ExportTask {
    /// Sends the spans that wait, for at most `within`, and ends the task.
    pub async fn finish(self, within: Duration) {
        self.ends.notify_one();
        let abort = self.task.abort_handle();
        if timeout(within, self.task).await.is_err() {
            abort.abort();
        }
    }

    /// Makes the metrics of the exporter.
    pub fn metrics(&self) -> impl Fn() -> Vec<Metric> + Send + Sync + use<> {
        let counters = self.counters.clone();
        let total = |name, help, count: &AtomicU64| Metric {
            name,
            help,
            kind: MetricKind::Total,
            value: count.load(Ordering::Relaxed),
        };
        move || {
            vec![
                total("trace_spans_exported", "Spans that the receiver took.", &counters.exported),
                total(
                    "trace_spans_dropped",
                    "Spans dropped because too many waited or the receiver did not take them.",
                    &counters.dropped,
                ),
            ]
        }
    }
}

/// Starts the exporter, and the tracer whose spans it sends. Call it in the context of the runtime.
pub fn start(options: TraceOptions, client: Client) -> (Arc<Tracer>, ExportTask) {
    let (sender, queue) = mpsc::channel(options.queue);
    let (counters, ends) = (Arc::new(Counters::default()), Arc::new(Notify::new()));
    let tracer = Arc::new(Tracer::new(sender, options.sampler, counters.clone()));
    let exporter = Exporter {
        options,
        client,
        queue,
        counters: counters.clone(),
        ends: ends.clone(),
        is_ending: false,
        fails: false,
    };
    (tracer, ExportTask { task: tokio::spawn(exporter.run()), ends, counters })
}

struct Exporter {
    options: TraceOptions,
    client: Client,
    queue: mpsc::Receiver<Span>,
    counters: Arc<Counters>,
    ends: Arc<Notify>,
    /// The last spans are being sent.
    is_ending: bool,
    /// The last batch was not taken.
    fails: bool,
}

/// Why a request was not answered with success.
struct ExportError {
    cause: String,
    /// Whether another attempt may succeed.
    is_temporary: bool,
}

impl Exporter {
    async fn run(mut self) {
        loop {
            let spans = self.collect().await;
            if spans.is_empty() {
                return;
            }
            self.export(spans).await;
        }
    }

    /// The next batch. It is empty at the end.
    async fn collect(&mut self) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut due = None;
        while spans.len() < self.options.batch {
            let room = self.options.batch - spans.len();
            tokio::select! {
                () = self.ends.notified(), if !self.is_ending => {
                    self.is_ending = true;
                    self.queue.close();
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => break,
                count = self.queue.recv_many(&mut spans, room) => {
                    if count == 0 {
                        break;
                    }
                    due = due.or_else(|| Some(Instant::now() + self.options.delay));
                }
            }
        }
        spans
    }

    async fn export(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let body = Bytes::from(self.request(spans).encode_to_vec());
        let mut pauses = PAUSES;
        let mut outcome = self.send(body.clone()).await;
        for _ in 1..ATTEMPTS {
            if self.is_ending || !outcome.as_ref().is_err_and(|error| error.is_temporary) {
                break;
            }
            self.pause(pauses.pause()).await;
            outcome = self.send(body.clone()).await;
        }
        let address = &self.options.endpoint;
        match &outcome {
            Ok(()) if self.fails => {
                tracing::info!(target: "traces", "the receiver at {address} takes spans again");
            }
            Err(ExportError { cause, .. }) if !self.fails => {
                tracing::warn!(
                    target: "traces",
                    "cannot send spans to {address}: {cause}; spans are dropped until it works"
                );
            }
            _ => {}
        }
        self.fails = outcome.is_err();
        let counter = if self.fails { &self.counters.dropped } else { &self.counters.exported };
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Waits, unless the process ends meanwhile.
    async fn pause(&mut self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.ends.notified() => {
                self.is_ending = true;
                self.queue.close();
            }
        }
    }

    fn request(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let resource = self.options.resource.iter();
        let attributes =
            resource.map(|(key, value)| KeyValue::new(key, Kind::Text(value.clone()))).collect();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let scope = Some(Scope { name: "drumline".to_owned(), version });
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource { attributes }),
                scope_spans: vec![ScopeSpans { scope, spans }],
            }],
        }
    }

    /// Sends one request.
    async fn send(&self, body: Bytes) -> Result<(), ExportError> {
        let TraceOptions { endpoint, headers, timeout: limit, .. } = &self.options;
        let mut request = Request::new(Full::new(body));
        (*request.method_mut(), *request.uri_mut()) = (Method::POST, endpoint.uri());
        *request.headers_mut() = headers.clone();
        let kind = HeaderValue::from_static("application/x-protobuf");
        request.headers_mut().insert(CONTENT_TYPE, kind);
        endpoint.authorize(request.headers_mut());
        let temporary = |cause: String| ExportError { cause, is_temporary: true };
        let exchange = async {
            let answer = self.client.request(request).await;
            let answer = answer.map_err(|error| temporary(causes(&error)))?;
            let status = answer.status();
            // The connection is used again only if the answer was read.
            let _ = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            if status.is_success() {
                return Ok(());
            }
            let cause = format!("the receiver answered {status}");
            Err(ExportError { cause, is_temporary: is_temporary(status) })
        };
        let ended = timeout(*limit, exchange).await;
        ended.unwrap_or_else(|_| Err(temporary(format!("no answer within {limit:?}"))))
    }
}

/// Statuses after which OTLP allows another attempt.
fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502..=504)
}
