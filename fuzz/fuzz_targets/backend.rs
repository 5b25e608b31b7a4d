//! A backend's answers: never a panic, and no close code that may not be sent.
#![no_main]

use drumline::model::backend::{AnswerError, ProxyAnswer, ProxyEvent, ProxyFailure, answer};
use drumline::wire::protocol::command::ConnectRequest;
use libfuzzer_sys::fuzz_target;

fn events() -> [ProxyEvent; 8] {
    [
        ProxyEvent::connect(&ConnectRequest::default()),
        ProxyEvent::Refresh,
        ProxyEvent::Subscribe { channel: "a".into(), data: None },
        ProxyEvent::Publish { channel: "a".into(), data: b"1".as_slice().into() },
        ProxyEvent::SubRefresh { channel: "a".into() },
        ProxyEvent::Rpc { method: "m".into(), data: None },
        ProxyEvent::Disconnect { code: 3000, reason: "gone".into() },
        ProxyEvent::Unsubscribe { channel: "a".into(), code: 0, reason: "".into() },
    ]
}

fuzz_target!(|body: &[u8]| {
    for event in events() {
        match answer(&event, body) {
            Ok(ProxyAnswer::Acknowledged) => {
                assert!(matches!(
                    event,
                    ProxyEvent::Disconnect { .. } | ProxyEvent::Unsubscribe { .. }
                ));
            }
            Err(AnswerError::Rejected(ProxyFailure::Disconnect { code, .. })) => {
                assert!((3000..5000).contains(&code));
            }
            Err(AnswerError::Rejected(ProxyFailure::Error { code, .. })) => assert_ne!(code, 0),
            Err(AnswerError::Unreadable(cause)) => assert!(!cause.is_empty()),
            _ => {}
        }
    }
});
