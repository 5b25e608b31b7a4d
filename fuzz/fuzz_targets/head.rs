//! Request heads: never a panic, and a head that is complete was not complete a byte earlier.
#![no_main]

use drumline::http::{HEAD_MAX, Head, Paths, parse};
use libfuzzer_sys::fuzz_target;

/// Bytes of a call's body at most.
const BODY_MAX: usize = 1000;

fuzz_target!(|bytes: &[u8]| {
    let paths = Paths {
        websocket: "/connection/websocket".into(),
        uni_websocket: "/connection/uni_websocket".into(),
        echo: Some("/echo".into()),
        publish: Some("/api/publish".into()),
    };
    let parse = |bytes| parse(bytes, &paths, BODY_MAX);
    match parse(bytes) {
        Head::Partial => assert!(bytes.len() < HEAD_MAX + BODY_MAX),
        Head::Upgrade(upgrade, used) => {
            assert!(used <= bytes.len() && used <= HEAD_MAX);
            assert_eq!(upgrade.accept.len(), 28);
            assert!(matches!(parse(&bytes[..used]), Head::Upgrade(_, same) if same == used));
            assert!(matches!(parse(&bytes[..used - 1]), Head::Partial));
        }
        Head::Call(call, used) => {
            assert!(call.body.len() <= BODY_MAX && bytes[..used].ends_with(call.body));
            assert!(matches!(parse(&bytes[..used]), Head::Call(_, same) if same == used));
            assert!(matches!(parse(&bytes[..used - 1]), Head::Partial));
        }
        Head::Control => {}
        Head::Refused(status) => assert!(status.response().starts_with(b"HTTP/1.1 4")),
    }
});
