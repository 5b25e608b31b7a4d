//! Section about OpenTelemetry.
//!
//! Owns its keys. Never makes a span.

use super::section::section;

section! {
    /// OpenTelemetry traces.
    OpenTelemetry {
        /// Send traces to a receiver by OTLP over HTTP. The standard variables configure the
        /// exporter, such as `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_SERVICE_NAME`.
        enabled: bool = false,
        /// Trace each command of the HTTP API. The header `traceparent` of a request names the
        /// parent. The control plane then handles every call, also a plain publish.
        api: bool = false,
        /// Trace each request to the backend: proxies and hooks. The requests have the header
        /// `traceparent`.
        backend: bool = false,
    }
}
