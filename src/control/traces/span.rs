//! Spans: what is measured, from its start to its end.
//!
//! Owns the sender's side of the queue. The invariant: a span that is dropped before its work is
//! done ends then, and nothing waits for room in the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use tokio::sync::mpsc;

use super::context::TraceContext;
use super::options::Sampler;
use super::otlp::{self, KeyValue, Kind, Status};

tokio::task_local! {
    /// The tracer of the API request that the task serves, and the context of its caller.
    static REQUEST: (Arc<Tracer>, Option<TraceContext>);
}

/// The side of a request on which a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// The server answers the request.
    Server = 2,
    /// The server sends the request.
    Client = 3,
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Value::Number(number.into())
    }
}

/// Counts of spans.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) exported: AtomicU64,
    pub(super) dropped: AtomicU64,
}

/// Starts spans.
pub struct Tracer {
    queue: mpsc::Sender<otlp::Span>,
    sampler: Sampler,
    counters: Arc<Counters>,
}

impl Tracer {
    pub(super) fn new(
        queue: mpsc::Sender<otlp::Span>,
        sampler: Sampler,
        counters: Arc<Counters>,
    ) -> Self {
        Tracer { queue, sampler, counters }
    }

    /// Starts a span. With a parent, it belongs to the trace of the parent.
    pub fn start(
        self: &Arc<Self>,
        kind: SpanKind,
        name: String,
        parent: Option<TraceContext>,
    ) -> Span {
        let context = TraceContext::child(parent, false);
        let context = TraceContext { sampled: self.samples(&context, parent), ..context };
        let began = (Instant::now(), SystemTime::now());
        let (attributes, error) = (Vec::new(), None);
        Span { tracer: self.clone(), kind, name, context, parent, began, attributes, error }
    }

    fn samples(&self, context: &TraceContext, parent: Option<TraceContext>) -> bool {
        let Sampler { follows_parent, share } = self.sampler;
        match parent {
            Some(parent) if follows_parent => parent.sampled,
            _ if share >= 1.0 => true,
            // The same trace is recorded by every server with the same share.
            _ => {
                let [.., a, b, c, d, e, f, g, h] = context.trace;
                let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
                (number as f64) < share * (1_u64 << 63) as f64
            }
        }
    }
}

/// Work that is measured. Its end is the end of the value.
pub struct Span {
    tracer: Arc<Tracer>,
    kind: SpanKind,
    name: String,
    context: TraceContext,
    parent: Option<TraceContext>,
    began: (Instant, SystemTime),
    attributes: Vec<(&'static str, Value)>,
    error: Option<String>,
}

impl Span {
    /// The context for what the work causes elsewhere.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// Sets an attribute.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if self.context.sampled {
            self.attributes.push((name, value.into()));
        }
    }

    /// Notes that the work failed.
    pub fn fail(&mut self, cause: impl Into<String>) {
        self.error = Some(cause.into());
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if !self.context.sampled {
            return;
        }
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (began, unix) = self.began;
        let start = nanos(unix.duration_since(UNIX_EPOCH).unwrap_or_default());
        let attribute = |(name, value): (&'static str, Value)| {
            let value = match value {
                Value::Text(text) => Kind::Text(text),
                Value::Number(number) => Kind::Number(number),
            };
            KeyValue::new(name, value)
        };
        let failed = |message| Status { message, code: Status::ERROR };
        let span = otlp::Span {
            trace_id: self.context.trace.to_vec(),
            span_id: self.context.span.to_vec(),
            parent_span_id: self.parent.map_or_else(Vec::new, |parent| parent.span.to_vec()),
            name: std::mem::take(&mut self.name),
            kind: self.kind as i32,
            start_time_unix_nano: start,
            end_time_unix_nano: start.saturating_add(nanos(began.elapsed())),
            attributes: self.attributes.drain(..).map(attribute).collect(),
            status: self.error.take().map(failed),
        };
        if self.tracer.queue.try_send(span).is_err() {
            self.tracer.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Traces the API commands of requests to a router. The header `traceparent` names the parent of
/// their spans.
pub fn trace_requests(router: Router, tracer: &Arc<Tracer>) -> Router {
    let tracer = tracer.clone();
    router.layer(from_fn(move |request: Request, next: Next| {
        let parent = request.headers().get("traceparent");
        let parent = parent.and_then(|header| TraceContext::parse(header.as_bytes()));
        REQUEST.scope((tracer.clone(), parent), next.run(request))
    }))
}

/// Starts the span of an API command, if the request that contains it is traced.
pub fn of_api_command(method: &str) -> Option<Span> {
    let start = |(tracer, parent): &(Arc<Tracer>, Option<TraceContext>)| {
        let mut span = tracer.start(SpanKind::Server, format!("api {method}"), *parent);
        span.set("rpc.method", method);
        span
    };
    REQUEST.try_with(start).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(sampler: Sampler, room: usize) -> (Arc<Tracer>, mpsc::Receiver<otlp::Span>) {
        let (sender, receiver) = mpsc::channel(room);
        (Arc::new(Tracer::new(sender, sampler, Arc::default())), receiver)
    }

    fn parent(sampled: bool) -> Option<TraceContext> {
        Some(TraceContext::child(None, sampled))
    }

    #[test]
    fn a_span_ends_with_its_value_and_keeps_parent_and_error() {
        let (tracer, mut queue) = tracer(Sampler { follows_parent: true, share: 1.0 }, 8);
        let caller = parent(true);
        let mut span = tracer.start(SpanKind::Client, "a".to_owned(), caller);
        span.set("code", 7_u32);
        span.fail("no answer");
        assert!(queue.try_recv().is_err(), "it has not ended");
        drop(span);
        let sent = queue.try_recv().unwrap();
        assert_eq!(Some(sent.parent_span_id), caller.map(|caller| caller.span.to_vec()));
        assert_eq!((sent.kind, sent.name.as_str()), (3, "a"));
        assert!(sent.end_time_unix_nano >= sent.start_time_unix_nano);
        assert_eq!(sent.attributes, [KeyValue::new("code", Kind::Number(7))]);
        assert_eq!(sent.status.map(|status| status.code), Some(Status::ERROR));
    }

    #[test]
    fn a_full_queue_drops_spans_and_counts_them() {
        let (tracer, _queue) = tracer(Sampler { follows_parent: true, share: 1.0 }, 3);
        for _ in 0..10 {
            drop(tracer.start(SpanKind::Server, String::new(), None));
        }
        assert_eq!(tracer.counters.dropped.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn the_sampler_follows_the_parent_or_takes_a_share_of_the_traces() {
        let sampled = |follows_parent, share, parent| {
            let (tracer, _queue) = tracer(Sampler { follows_parent, share }, 1);
            let start = || tracer.start(SpanKind::Server, String::new(), parent);
            (0..1000).filter(|_| start().context().sampled).count()
        };
        assert_eq!(
            [sampled(true, 0.0, parent(true)), sampled(true, 1.0, parent(false))],
            [1000, 0]
        );
        assert_eq!(
            [sampled(false, 0.0, parent(true)), sampled(false, 1.0, parent(false))],
            [0, 1000]
        );
        let quarter = sampled(true, 0.25, None);
        assert!((150..350).contains(&quarter), "{quarter}");
    }
}
