//! Request heads: never a panic, and a head that is complete was not complete a byte earlier.
#![no_main]

use drumline::http::{HEAD_MAX, Head, Paths, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let paths = Paths {
        websocket: "/connection/websocket".into(),
        uni_websocket: "/connection/uni_websocket".into(),
        echo: Some("/echo".into()),
    };
    match parse(bytes, &paths) {
        Head::Partial => assert!(bytes.len() < HEAD_MAX),
        Head::Upgrade(upgrade, used) => {
            assert!(used <= bytes.len() && used <= HEAD_MAX);
            assert_eq!(upgrade.accept.len(), 28);
            assert!(
                matches!(parse(&bytes[..used], &paths), Head::Upgrade(_, same) if same == used)
            );
            assert!(matches!(parse(&bytes[..used - 1], &paths), Head::Partial));
        }
        Head::Control => {}
        Head::Refused(status) => assert!(status.response().starts_with(b"HTTP/1.1 4")),
    }
});
