//! OpenTelemetry traces: spans of API calls and of requests to the backend, sent to an OTLP
//! receiver.
//!
//! Owns the queue of finished spans. Never delays what it measures: a span that finds no room in
//! the queue is dropped and counted. The invariant: a span contains no key, token, payload or
//! header.

mod context;
mod exporter;
mod options;
mod otlp;
mod span;

use std::sync::Arc;
use std::time::Duration;

pub use self::context::TraceContext;
pub use self::options::TraceOptions;
pub use self::span::{Span, SpanKind, Tracer, of_api_command, trace_requests};

use self::exporter::ExportTask;
use super::backend::client::Client;
use super::metrics::Source;

/// The traces of a node; without options, none.
#[derive(Default)]
pub struct Traces(Option<(Arc<Tracer>, ExportTask)>);

impl Traces {
    /// Starts the exporter. Call it in the context of the runtime.
    pub fn start(options: Option<TraceOptions>, client: &Client) -> Self {
        Traces(options.map(|options| exporter::start(options, client.clone())))
    }

    /// The tracer, for a part whose work is traced if `wanted`.
    pub fn tracer(&self, wanted: bool) -> Option<Arc<Tracer>> {
        self.0.as_ref().filter(|_| wanted).map(|(tracer, _)| tracer.clone())
    }

    /// The metrics of the exporter.
    pub fn source(&self) -> Option<Source> {
        let (_, exporter) = self.0.as_ref()?;
        let metrics = exporter.metrics();
        Some(Box::new(move |names| names.families(&metrics())))
    }

    /// Sends the spans that wait, for at most `within`.
    pub async fn finish(self, within: Duration) {
        if let Some((_, exporter)) = self.0 {
            exporter.finish(within).await;
        }
    }
}
