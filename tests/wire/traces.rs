//! Traces: a receiver that is silent or down delays nothing, and wrong variables end the start.
//! What a receiver gets is compared by `tests/system/traces.py`.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::common::{Server, command, free_port, wait_for};

/// A server with a small queue of spans for the receiver at this port.
fn started(receiver: u16) -> Server {
    let flags = [
        "--client.insecure",
        "--http_api.key",
        "secret",
        "--opentelemetry.enabled",
        "--opentelemetry.api",
    ];
    let endpoint = format!("http://127.0.0.1:{receiver}");
    let server = Server::launch(&flags, |command| {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).envs([
            ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ]);
    });
    wait_for("the server to listen", || {
        std::net::TcpStream::connect(server.internal_address()).ok()
    });
    server
}

#[test]
fn a_receiver_that_is_silent_or_down_delays_no_call_and_lost_spans_are_counted() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for receiver in [silent.local_addr().unwrap().port(), free_port()] {
        let mut server = started(receiver);
        let began = Instant::now();
        for _ in 0..100 {
            let answer = server.api("publish", r#"{"channel":"a","data":1}"#);
            assert!(answer.contains("\"result\":{}"), "{answer}");
        }
        // The time limit of one request to the receiver is 10 s.
        assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
        // Eight wait, and four are being sent.
        server.wait_metric("drumline_trace_spans_dropped_total", |lost| lost >= 100 - 8 - 4);
        assert_eq!(server.metric("drumline_trace_spans_exported_total"), 0);
        let began = Instant::now();
        server.signal_stop();
        assert_eq!(server.wait().code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    }
}

#[test]
fn a_wrong_variable_ends_the_start_only_if_traces_are_enabled() {
    let ended = |flags: &[&str]| {
        let flags = [&["serve", "--http_server.port", "0"], flags].concat();
        let variable = ("OTEL_TRACES_SAMPLER", "hunter2");
        command().args(flags).envs([variable]).output().unwrap()
    };
    let done = ended(&["--opentelemetry.enabled"]);
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{told}");
    assert!(told.contains("OTEL_TRACES_SAMPLER") && !told.contains("hunter2"), "{told}");
    // The start goes on to the next check.
    let done = ended(&["--http_server.address", "192.0.2.1"]);
    assert!(!String::from_utf8(done.stderr).unwrap().contains("OTEL_TRACES_SAMPLER"));
}
