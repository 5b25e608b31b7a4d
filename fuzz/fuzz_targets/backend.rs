//! A backend's answers: never a panic, and no close code that may not be sent.
#![no_main]

use drumline::model::backend::{Answer, Event, Problem, Refused, answer};
use drumline::wire::protocol::command::ConnectRequest;
use libfuzzer_sys::fuzz_target;

fn events() -> [Event; 8] {
    [
        Event::connect(&ConnectRequest::default()),
        Event::Refresh,
        Event::Subscribe { channel: "a".into(), data: None },
        Event::Publish { channel: "a".into(), data: b"1".as_slice().into() },
        Event::SubRefresh { channel: "a".into() },
        Event::Rpc { method: "m".into(), data: None },
        Event::Disconnect { code: 3000, reason: "gone".into() },
        Event::Unsubscribe { channel: "a".into(), code: 0, reason: "".into() },
    ]
}

fuzz_target!(|body: &[u8]| {
    for event in events() {
        match answer(&event, body) {
            Ok(Answer::Heard) => {
                assert!(matches!(event, Event::Disconnect { .. } | Event::Unsubscribe { .. }));
            }
            Err(Problem::Refused(Refused::Disconnect { code, .. })) => {
                assert!((3000..5000).contains(&code));
            }
            Err(Problem::Refused(Refused::Error { code, .. })) => assert_ne!(code, 0),
            Err(Problem::Unreadable(cause)) => assert!(!cause.is_empty()),
            _ => {}
        }
    }
});
