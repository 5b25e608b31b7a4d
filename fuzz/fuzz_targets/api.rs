//! Bodies of the API: never a panic, by any method.
#![no_main]

use drumline::control::api::{METHODS, reads};
use drumline::wire::protocol::json::PlainPublish;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    for method in METHODS.iter().chain(&["batch"]) {
        reads(method, body);
    }
    assert!(!reads("no such method", body));
    // A shard answers a plain publish itself; the control plane must be able to read it too.
    let object = body.trim_ascii_start().starts_with(b"{");
    if object && serde_json::from_slice::<PlainPublish<'_>>(body).is_ok() {
        assert!(reads("publish", body));
    }
});
