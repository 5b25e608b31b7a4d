//! Event ids that a browser sends back as `Last-Event-ID`: never a panic, and what is read is
//! written as the same.
#![no_main]

use drumline::protocol::json;
use drumline::publication::EventId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    // Behind the first newline stands a connect request that goes on there.
    let (id, request) = input.split_once('\n').unwrap_or((input, ""));
    let Some(read) = EventId::parse(id) else { return };
    let mut line = Vec::new();
    read.write_line(&mut line);
    let written = std::str::from_utf8(&line).expect("an id is text");
    if let Some(written) = written.strip_prefix("id: ") {
        assert_eq!(EventId::parse(written.trim_end_matches('\n')), Some(read));
        assert!(!written.trim_end_matches('\n').contains(['\n', '\r']), "one line");
    }
    if let Some(resumed) = json::resume(request.as_bytes(), read.channel, read.position) {
        assert!(json::is_json(&resumed));
    }
});
