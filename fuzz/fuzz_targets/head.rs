//! Request heads: never a panic, and a head that is complete was not complete a byte earlier.
#![no_main]

use drumline::wire::http::{Cors, Head, HeadLimits, Requester, Route, Service, Transport, parse};
use libfuzzer_sys::fuzz_target;

/// Bytes of a call's body at most.
const BODY_MAX: usize = 1000;

fuzz_target!(|bytes: &[u8]| {
    let routes = [
        ("/connection/websocket", Service::Transport(Transport::WebSocket)),
        ("/connection/uni_websocket", Service::Transport(Transport::UniWebSocket)),
        ("/connection/http_stream", Service::Transport(Transport::HttpStream)),
        ("/connection/sse", Service::Transport(Transport::Sse)),
        ("/connection/uni_sse", Service::Transport(Transport::UniSse)),
        ("/emulation", Service::Emulation),
        ("/api/publish", Service::Publish),
        ("/connection/polling", Service::Polling),
        ("/health", Service::Health),
    ];
    let route = |(path, service): (&str, _)| Route {
        path: path.into(),
        service,
        body_max: BODY_MAX,
        compresses: true,
    };
    let routes = routes.map(route);
    let limits = HeadLimits::default();
    let parse = |bytes| parse(bytes, &routes, limits);
    match parse(bytes) {
        Head::Partial => assert!(bytes.len() < limits.bytes + BODY_MAX),
        Head::Upgrade(upgrade, used) => {
            assert!(used <= bytes.len() && used <= limits.bytes);
            assert_eq!(upgrade.accept.len(), 28);
            assert!(matches!(parse(&bytes[..used]), Head::Upgrade(_, same) if same == used));
            assert!(matches!(parse(&bytes[..used - 1]), Head::Partial));
        }
        Head::PublishCall(call, used) => {
            assert!(call.body.len() <= BODY_MAX && bytes[..used].ends_with(call.body));
            assert!(matches!(parse(&bytes[..used]), Head::PublishCall(_, same) if same == used));
            assert!(matches!(parse(&bytes[..used - 1]), Head::Partial));
        }
        Head::OpenEmulation(_, used) => {
            assert!(matches!(parse(&bytes[..used]), Head::OpenEmulation(_, same) if same == used));
            assert!(matches!(parse(&bytes[..used - 1]), Head::Partial));
        }
        Head::EmulationCommands(emulation, used) => {
            assert!(emulation.body.len() <= BODY_MAX && bytes[..used].ends_with(emulation.body));
        }
        Head::Poll(_, used) => {
            assert!(matches!(parse(&bytes[..used]), Head::Poll(_, same) if same == used));
            assert!(matches!(parse(&bytes[..used - 1]), Head::Partial));
        }
        Head::Preflight(_, used) => assert!(used <= bytes.len()),
        Head::Control => {}
        Head::Health(health, used) => {
            let again = Head::Health(health, used);
            assert!(format!("{:?}", parse(&bytes[..used])) == format!("{again:?}"));
            assert!(matches!(parse(&bytes[..used - 1]), Head::Partial));
        }
        Head::Refused(status) => {
            let Requester { origin, bodiless, .. } = Requester::of(bytes);
            let response = status.response(Cors { origin }, bodiless);
            assert!(response.starts_with(b"HTTP/1.1 4"));
        }
    }
});
