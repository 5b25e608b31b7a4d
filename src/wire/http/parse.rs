//! Parses a request head and decides whether the shard serves the request.
//!
//! Owns no state. Never parses a body. The shard serves complete, legal requests of the paths in
//! [`super::Routes`]: client connections, emulation commands, plain calls of the publish method and
//! health checks. All other well-formed requests go to the control plane unchanged.

use std::borrow::Cow;

use super::answer::accept_key;
use super::headers::{count, has_token, header, headers, no_headers, origin, query_value, tokens};
use super::loopback::foreign;
use super::request::{
    EmulationCommands, HEADERS_MOST, Head, HeadLimits, Header, Health, OpenEmulation, Poll,
    Preflight, PublishCall, Route, Service, Transport, Upgrade,
};
use super::status::Status;
use crate::wire::deflate;

/// The supported WebSocket subprotocols.
const SUBPROTOCOLS: [&str; 2] = ["centrifuge-json", "centrifuge-protobuf"];

/// Parses a request head, and the body of requests that open an HTTP transport, carry emulation
/// commands or call the publish method.
pub fn parse<'a>(bytes: &'a [u8], routes: &[Route], limits: HeadLimits) -> Head<'a> {
    let mut headers = no_headers();
    let most = limits.headers.min(HEADERS_MOST);
    let mut request = httparse::Request::new(&mut []);
    let head_bytes = match request.parse_with_uninit_headers(bytes, &mut headers[..most]) {
        Ok(httparse::Status::Complete(used)) if used <= limits.bytes => used,
        Ok(httparse::Status::Partial) if bytes.len() < limits.bytes => return Head::Partial,
        Ok(_) => return Head::Refused(Status::HeadTooLarge(limits.bytes)),
        Err(httparse::Error::TooManyHeaders) => {
            return Head::Refused(Status::TooManyHeaders(most));
        }
        Err(_) => return Head::Refused(Status::BadRequest),
    };
    if !is_host_legal(request.version == Some(1), count(&request, &["host"])) {
        return Head::Refused(Status::BadRequest);
    }
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Some(route) = routes.iter().find(|route| route.path == path) else { return Head::Control };
    let body = body(bytes, head_bytes, route.body_max, &request);
    match route.service {
        Service::Health => health(&request, head_bytes, false),
        Service::Readiness => health(&request, head_bytes, true),
        Service::Polling => poll(query, &body, &request),
        Service::Publish if path.len() < target.len() => Head::Control,
        Service::Publish => publish_call(&body, &request),
        Service::Transport(transport) if transport.is_websocket() => {
            if !has_token(&request, "upgrade", "websocket") {
                return Head::Control;
            }
            match upgrade(transport, query, route.compresses, &request) {
                Ok(upgrade) => Head::Upgrade(Box::new(upgrade), head_bytes),
                Err(status) => Head::Refused(status),
            }
        }
        Service::Transport(_) | Service::Emulation => {
            // A link or a form on another site would send the cookies of the user.
            if has_token(&request, "sec-fetch-mode", "navigate") {
                return Head::Refused(Status::Navigation);
            }
            let (body, used) = match body {
                Body::Partial => return Head::Partial,
                Body::Whole(body, used) => (body, used),
                Body::TooLarge => return Head::Refused(Status::TooLarge),
                Body::Special => return Head::Control,
            };
            match (request.method.unwrap_or_default(), route.service) {
                ("OPTIONS", _) => match preflight(&request) {
                    Ok(preflight) => Head::Preflight(preflight, used),
                    Err(status) => Head::Refused(status),
                },
                ("POST", Service::Emulation) => match emulation_commands(body, &request) {
                    Ok(commands) => Head::EmulationCommands(commands, used),
                    Err(status) => Head::Refused(status),
                },
                (method, Service::Transport(transport)) => {
                    match open_emulation(transport, method, query, body, &request) {
                        Ok(open) => Head::OpenEmulation(open, used),
                        Err(status) => Head::Refused(status),
                    }
                }
                _ => Head::Refused(Status::MethodNotAllowed("POST, OPTIONS")),
            }
        }
    }
}

/// Whether the number of Host headers is legal: one, or none with HTTP/1.0.
pub fn is_host_legal(is_http11: bool, hosts: usize) -> bool {
    hosts == 1 || (hosts == 0 && !is_http11)
}

/// A poll, which has no body. The control plane takes what is no plain HTTP/1.1 request.
fn poll<'a>(query: &str, body: &Body<'a>, request: &httparse::Request<'_, 'a>) -> Head<'a> {
    let used = match *body {
        _ if request.method != Some("GET") => {
            return Head::Refused(Status::MethodNotAllowed("GET"));
        }
        Body::Whole(_, used) => used,
        Body::Partial => return Head::Partial,
        Body::TooLarge => return Head::Refused(Status::TooLarge),
        Body::Special => return Head::Control,
    };
    let channel = query_value(query, "channel").filter(|channel| !channel.is_empty());
    let Some(channel) = channel else { return Head::Refused(Status::NoChannel) };
    let last = has_token(request, "connection", "close");
    match origin(request) {
        Ok(origin) => {
            Head::Poll(Poll { channel, origin, host: header(request, "host"), last }, used)
        }
        Err(status) => Head::Refused(status),
    }
}

fn health<'a>(request: &httparse::Request<'_, 'a>, head_bytes: usize, ready: bool) -> Head<'a> {
    let special = ["content-length", "transfer-encoding", "expect", "upgrade"];
    let bodiless = match request.method {
        _ if count(request, &special) > 0 => return Head::Control,
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Head::Control,
    };
    let last = request.version != Some(1) || has_token(request, "connection", "close");
    Head::Health(Health { ready, bodiless, last }, head_bytes)
}

/// The body that follows a head.
enum Body<'a> {
    /// The body is incomplete.
    Partial,
    /// The whole body. The number is the bytes of head and body.
    Whole(&'a [u8], usize),
    /// The body exceeds the limit of the path.
    TooLarge,
    /// The length is unknown or invalid, or the request has an `Expect` or `Upgrade` header: the
    /// shard does not serve it.
    Special,
}

fn body<'a>(
    bytes: &'a [u8],
    head_bytes: usize,
    body_max: usize,
    request: &httparse::Request<'_, 'a>,
) -> Body<'a> {
    let special = count(request, &["transfer-encoding", "expect", "upgrade"]) > 0;
    let (length, lengths) =
        (header(request, "content-length"), count(request, &["content-length"]));
    if special || request.version != Some(1) || lengths > 1 {
        return Body::Special;
    }
    if lengths == 0 {
        let bodiless = matches!(request.method, Some("GET" | "HEAD" | "OPTIONS"));
        return if bodiless { Body::Whole(&[], head_bytes) } else { Body::Special };
    }
    let length = length
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse::<usize>().ok());
    match length {
        None => Body::Special,
        Some(length) if length > body_max => Body::TooLarge,
        Some(length) if bytes.len() - head_bytes < length => Body::Partial,
        Some(length) => {
            let end = head_bytes + length;
            Body::Whole(&bytes[head_bytes..end], end)
        }
    }
}

fn open_emulation<'a>(
    transport: Transport,
    method: &str,
    query: &str,
    body: &'a [u8],
    request: &httparse::Request<'_, 'a>,
) -> Result<OpenEmulation<'a>, Status> {
    let query_commands = query_value(query, "cf_connect").map(|text| Cow::Owned(text.into_bytes()));
    let opening = match (method, transport) {
        ("POST", _) => Cow::Borrowed(body),
        ("GET", Transport::Sse) => query_commands.ok_or(Status::BadRequest)?,
        ("GET", Transport::UniSse | Transport::LongPolling) => query_commands.unwrap_or_default(),
        (_, Transport::Sse | Transport::UniSse | Transport::LongPolling) => {
            return Err(Status::MethodNotAllowed("GET, POST, OPTIONS"));
        }
        _ => return Err(Status::MethodNotAllowed("POST, OPTIONS")),
    };
    Ok(OpenEmulation {
        transport,
        protobuf: transport == Transport::HttpStream
            && (is_protobuf(request) || requests_protobuf(query)),
        opening,
        by_url: method == "GET",
        last_event: header(request, "last-event-id").filter(|last| !last.is_empty()),
        origin: origin(request)?,
        host: header(request, "host"),
    })
}

fn emulation_commands<'a>(
    body: &'a [u8],
    request: &httparse::Request<'_, 'a>,
) -> Result<EmulationCommands<'a>, Status> {
    Ok(EmulationCommands {
        protobuf: is_protobuf(request),
        body,
        origin: origin(request)?,
        host: header(request, "host"),
        last: has_token(request, "connection", "close"),
    })
}

fn preflight<'a>(request: &httparse::Request<'_, 'a>) -> Result<Preflight<'a>, Status> {
    Ok(Preflight {
        headers: header(request, "access-control-request-headers").unwrap_or_default(),
        origin: origin(request)?,
        host: header(request, "host"),
        last: has_token(request, "connection", "close"),
    })
}

fn is_protobuf(request: &httparse::Request<'_, '_>) -> bool {
    header(request, "content-type") == Some("application/octet-stream")
}

fn requests_protobuf(query: &str) -> bool {
    query_value(query, "format").as_deref() == Some("protobuf")
        || query_value(query, "cf_protocol").as_deref() == Some("protobuf")
}

fn upgrade(
    transport: Transport,
    query: &str,
    compresses: bool,
    request: &httparse::Request<'_, '_>,
) -> Result<Upgrade, Status> {
    if request.version != Some(1) || !has_token(request, "connection", "upgrade") {
        return Err(Status::BadRequest);
    }
    if request.method != Some("GET") {
        return Err(Status::MethodNotAllowed("GET"));
    }
    if !has_token(request, "sec-websocket-version", "13") {
        return Err(Status::UpgradeRequired);
    }
    let key = header(request, "sec-websocket-key").unwrap_or_default();
    if key.len() != 24 || !key.ends_with("==") {
        return Err(Status::BadRequest);
    }
    // The client lists subprotocols in order of preference.
    let subprotocol = tokens(request, "sec-websocket-protocol")
        .find_map(|token| SUBPROTOCOLS.into_iter().find(|name| name.eq_ignore_ascii_case(token)));
    let offers = headers(request, "sec-websocket-extensions").filter(|_| compresses);
    Ok(Upgrade {
        transport,
        accept: accept_key(key),
        connect: query_value(query, "cf_connect"),
        protobuf: subprotocol == Some("centrifuge-protobuf") || requests_protobuf(query),
        frame_pings: query_value(query, "cf_ws_frame_ping_pong").as_deref() == Some("true"),
        subprotocol,
        compression: offers.filter_map(deflate::negotiate).next(),
        origin: origin(request)?.map(str::to_owned),
        host: header(request, "host").map(str::to_owned),
        kept: Vec::new(),
    })
}

/// All headers of a complete request head that have one of these lower-case names, including
/// repeated ones.
pub fn kept_headers(bytes: &[u8], names: &[String]) -> Vec<Header> {
    if names.is_empty() {
        return Vec::new();
    }
    let mut headers = no_headers();
    let mut request = httparse::Request::new(&mut []);
    if request.parse_with_uninit_headers(bytes, &mut headers).is_err() {
        return Vec::new();
    }
    let found = |name: &String| {
        let same = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case(name);
        let values = request.headers.iter().filter(same).map(|header| header.value.into());
        values.map(|value| (name.as_str().into(), value)).collect::<Vec<_>>()
    };
    names.iter().flat_map(found).collect()
}

/// Whether a server without configuration refuses a complete request head, because it does not come
/// from the server's own machine. The control plane sends the refusal.
pub fn is_foreign(bytes: &[u8]) -> bool {
    let mut headers = no_headers();
    let mut request = httparse::Request::new(&mut []);
    request.parse_with_uninit_headers(bytes, &mut headers).is_ok()
        && foreign(request.headers.iter().map(|header| (header.name, header.value))).is_some()
}

/// A plain publish call, which the shard executes. The control plane serves all other calls.
fn publish_call<'a>(body: &Body<'a>, request: &httparse::Request<'_, 'a>) -> Head<'a> {
    let plain = request.method == Some("POST")
        && count(request, &["authorization"]) == 0
        && count(request, &["x-api-key"]) <= 1
        && count(request, &["x-centrifugo-error-mode"]) == 0
        && !has_token(request, "connection", "close");
    match *body {
        Body::Partial if plain => Head::Partial,
        Body::Whole(body, used) if plain => {
            Head::PublishCall(PublishCall { key: header(request, "x-api-key"), body }, used)
        }
        _ => Head::Control,
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::Routes;
    use super::*;
    use proptest::prelude::*;

    fn routes() -> Routes {
        let route = |path: &str, service| Route {
            path: path.into(),
            service,
            body_max: 100,
            compresses: false,
        };
        let transport = |path, transport| route(path, Service::Transport(transport));
        vec![
            transport("/connection/websocket", Transport::WebSocket),
            transport("/connection/uni_websocket", Transport::UniWebSocket),
            transport("/connection/http_stream", Transport::HttpStream),
            transport("/connection/sse", Transport::Sse),
            transport("/connection/uni_sse", Transport::UniSse),
            route("/emulation", Service::Emulation),
            route("/api/publish", Service::Publish),
            route("/connection/polling", Service::Polling),
            route("/health", Service::Health),
            route("/health/ready", Service::Readiness),
        ]
    }

    fn parse(bytes: &[u8]) -> Head<'_> {
        super::parse(bytes, &routes(), HeadLimits::default())
    }

    const GOOD: &str = "GET /connection/websocket?cf_protocol=json HTTP/1.1\r\nHost: a\r\n\
        Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    #[test]
    fn an_upgrade_is_partial_until_its_last_byte() {
        for cut in 0..GOOD.len() {
            assert!(matches!(parse(&GOOD.as_bytes()[..cut]), Head::Partial), "{cut}");
        }
        let Head::Upgrade(upgrade, used) = parse(GOOD.as_bytes()) else { panic!() };
        assert_eq!(used, GOOD.len());
        assert_eq!(upgrade.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(upgrade.transport, Transport::WebSocket);
    }

    #[test]
    fn a_poll_names_a_channel_and_has_no_body() {
        let request = |line: &str, headers: &str| {
            format!("{line} HTTP/1.1\r\nHost: a\r\n{headers}\r\n").into_bytes()
        };
        let polled = |line: &str, headers: &str| match parse(&request(line, headers)) {
            Head::Poll(poll, used) => {
                assert_eq!(used, request(line, headers).len());
                Ok((poll.channel, poll.last))
            }
            Head::Refused(status) => Err(Some(status)),
            _ => Err(None),
        };
        const GET: &str = "GET /connection/polling?a=b&channel=news%20a";
        assert_eq!(polled(GET, ""), Ok(("news a".to_owned(), false)));
        assert_eq!(polled(GET, "Content-Length: 0\r\n"), Ok(("news a".to_owned(), false)));
        assert_eq!(polled(GET, "Connection: close\r\n"), Ok(("news a".to_owned(), true)));
        for line in ["GET /connection/polling", "GET /connection/polling?channel="] {
            assert_eq!(polled(line, ""), Err(Some(Status::NoChannel)), "{line}");
        }
        let post = GET.replace("GET", "POST");
        assert_eq!(polled(&post, ""), Err(Some(Status::MethodNotAllowed("GET"))));
        assert_eq!(polled(GET, "Content-Length: 101\r\n"), Err(Some(Status::TooLarge)));
        assert_eq!(polled(GET, "Transfer-Encoding: chunked\r\n"), Err(None));
        assert_eq!(polled(GET, "Origin: a\r\nOrigin: b\r\n"), Err(Some(Status::Forbidden)));
    }

    #[test]
    fn requested_headers_are_kept_with_their_repetitions() {
        let more = "Host: a\r\nCookie: a=1\r\nX-Other: 2\r\ncookie: b=2\r\n";
        let request = GOOD.replace("Host: a\r\n", more);
        let kept = kept_headers(request.as_bytes(), &["x-none".into(), "cookie".into()]);
        let kept: Vec<_> = kept.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(kept, [("cookie", b"a=1".as_slice()), ("cookie", b"b=2")]);
    }

    #[test]
    fn malformed_upgrades_are_refused_with_a_status() {
        let check = |from: &str, to: &str, expected: Status| {
            let request = GOOD.replace(from, to);
            match parse(request.as_bytes()) {
                Head::Refused(status) => assert_eq!(status, expected, "{to}"),
                other => panic!("{to}: {other:?}"),
            }
        };
        check("Version: 13", "Version: 8", Status::UpgradeRequired);
        check("dGhlIHNhbXBsZSBub25jZQ==", "short", Status::BadRequest);
        check("GET", "POST", Status::MethodNotAllowed("GET"));
        check("HTTP/1.1", "HTTQ/1.1", Status::BadRequest);
        let HeadLimits { bytes, headers } = HeadLimits::default();
        let large = format!("Host: {}", "a".repeat(bytes));
        check("Host: a", &large, Status::HeadTooLarge(bytes));
        let many = format!("{}Host: a", "X: y\r\n".repeat(headers));
        check("Host: a", &many, Status::TooManyHeaders(headers));
        // The head is refused before its end has arrived.
        let begun = &GOOD.replace("Host: a", &large)[..bytes];
        let Head::Refused(status) = parse(begun.as_bytes()) else { panic!() };
        assert_eq!(status, Status::HeadTooLarge(bytes));
    }

    #[test]
    fn heads_up_to_the_limits_are_accepted() {
        let HeadLimits { bytes, headers } = HeadLimits::default();
        let others = GOOD.matches("\r\n").count() - 2;
        let many =
            GOOD.replace("Host: a", &format!("{}Host: a", "X: y\r\n".repeat(headers - others)));
        assert!(matches!(parse(many.as_bytes()), Head::Upgrade(..)));
        let kept = kept_headers(many.as_bytes(), &["x".into()]);
        assert_eq!(kept.len(), headers - others);
        let large =
            GOOD.replace("Host: a", &format!("Host: {}", "a".repeat(bytes - GOOD.len() + 1)));
        assert_eq!(large.len(), bytes);
        assert!(matches!(parse(large.as_bytes()), Head::Upgrade(..)));
        let small = HeadLimits { bytes: GOOD.len() - 1, headers: 2 };
        let refused = |limits| match super::parse(GOOD.as_bytes(), &routes(), limits) {
            Head::Refused(status) => status,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(small), Status::TooManyHeaders(2));
        assert_eq!(refused(HeadLimits { headers: 10, ..small }), Status::HeadTooLarge(small.bytes));
    }

    #[test]
    fn the_first_supported_subprotocol_of_the_client_is_chosen() {
        let check = |offered: &[&str], expected: Option<&str>| {
            let lines = offered.iter().map(|line| format!("Sec-WebSocket-Protocol: {line}\r\n"));
            let request = GOOD.replace("Host:", &format!("{}Host:", lines.collect::<String>()));
            let Head::Upgrade(upgrade, _) = parse(request.as_bytes()) else {
                panic!("{offered:?}")
            };
            assert_eq!(upgrade.subprotocol, expected, "{offered:?}");
            assert_eq!(upgrade.protobuf, expected == Some("centrifuge-protobuf"), "{offered:?}");
        };
        let (json, protobuf) = ("centrifuge-json", "centrifuge-protobuf");
        check(&[], None);
        check(&["other"], None);
        check(&["centrifuge-json, centrifuge-protobuf"], Some(json));
        check(&["centrifuge-protobuf,centrifuge-json"], Some(protobuf));
        check(&["other, Centrifuge-Protobuf , centrifuge-json"], Some(protobuf));
        check(&["other", "centrifuge-json", "centrifuge-protobuf"], Some(json));
    }

    #[test]
    fn websocket_version_13_is_found_in_a_list_of_versions() {
        for version in ["13, 8", "8,13", "13"] {
            let request = GOOD.replace("Version: 13", &format!("Version: {version}"));
            assert!(matches!(parse(request.as_bytes()), Head::Upgrade(..)), "{version}");
        }
        let request = GOOD.replace("Version: 13", "Version: 8, 130");
        assert!(matches!(parse(request.as_bytes()), Head::Refused(Status::UpgradeRequired)));
    }

    #[test]
    fn a_shard_answers_plain_health_checks() {
        let check = |request: &str, expected: Option<(bool, bool)>| match parse(request.as_bytes())
        {
            Head::Health(Health { ready, bodiless, last }, used) => {
                assert_eq!(ready, request.contains("/ready"), "{request}");
                assert_eq!(Some((bodiless, last)), expected, "{request}");
                assert_eq!(used, request.len());
            }
            Head::Control => assert!(expected.is_none(), "{request}"),
            other => panic!("{request}: {other:?}"),
        };
        check("GET /health HTTP/1.1\r\nHost: a\r\n\r\n", Some((false, false)));
        check("GET /health?a=b HTTP/1.1\r\nHost: a\r\n\r\n", Some((false, false)));
        check("GET /health/ready HTTP/1.1\r\nHost: a\r\n\r\n", Some((false, false)));
        check("HEAD /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Some((true, true)));
        check("GET /health HTTP/1.0\r\n\r\n", Some((false, true)));
        check("POST /health HTTP/1.1\r\nHost: a\r\n\r\n", None);
        check("GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", None);
        check("GET /health/ HTTP/1.1\r\nHost: a\r\n\r\n", None);
    }

    #[test]
    fn repeated_host_and_origin_headers_are_refused() {
        let check = |from: &str, to: &[u8], expected: Result<Option<&str>, Status>| {
            let (before, behind) = GOOD.split_once(from).unwrap();
            let request = [before.as_bytes(), to, behind.as_bytes()].concat();
            let found = match parse(&request) {
                Head::Upgrade(upgrade, _) => Ok(upgrade.origin),
                Head::Refused(status) => Err(status),
                other => panic!("{other:?}"),
            };
            let found = found.as_ref().map(Option::as_deref).map_err(|status| *status);
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(to));
        };
        check("Host: a\r\n", b"", Err(Status::BadRequest));
        check("Host: a\r\n", b"Host: a\r\nhost: a\r\n", Err(Status::BadRequest));
        check("Host: a\r\n", b"Host: a\r\nOrigin: https://b\r\n", Ok(Some("https://b")));
        check("Host: a\r\n", b"Host: a\r\nOrigin:\r\n", Ok(None));
        check("Host: a\r\n", b"Host: a\r\nOrigin: https://\xff\r\n", Err(Status::Forbidden));
        let two = b"Host: a\r\nOrigin: https://b\r\norigin: https://c\r\n";
        check("Host: a\r\n", two, Err(Status::Forbidden));
        for path in ["/", "/health", "/api/publish"] {
            let request = format!("POST {path} HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
            assert!(matches!(parse(request.as_bytes()), Head::Refused(Status::BadRequest)));
        }
    }

    #[test]
    fn browser_navigation_to_a_transport_path_is_refused() {
        for (method, path) in [
            ("GET", "/connection/sse?cf_connect={}"),
            ("POST", "/connection/http_stream"),
            ("GET", "/connection/uni_sse"),
            ("POST", "/emulation"),
        ] {
            let request = |mode: &str| {
                format!(
                    "{method} {path} HTTP/1.1\r\nHost: a\r\nSec-Fetch-Mode: {mode}\r\n\
                     Content-Length: 0\r\n\r\n"
                )
            };
            let refused =
                matches!(parse(request("navigate").as_bytes()), Head::Refused(Status::Navigation));
            assert!(refused, "{path}");
            assert!(!matches!(parse(request("cors").as_bytes()), Head::Refused(_)), "{path}");
        }
    }

    #[test]
    fn other_requests_go_to_the_control_plane() {
        for request in ["GET / HTTP/1.0\r\n\r\n", "POST /api/info HTTP/1.1\r\nHost: x\r\n\r\n{}"] {
            assert!(matches!(parse(request.as_bytes()), Head::Control));
        }
        let plain = GOOD.replace("Upgrade: WebSocket\r\n", "");
        assert!(matches!(parse(plain.as_bytes()), Head::Control));
    }

    const CALL: &str = "POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: secret\r\n\
        Content-Length: 7\r\n\r\n{\"a\":1}";

    #[test]
    fn a_publish_call_is_partial_until_its_last_byte() {
        for cut in 0..CALL.len() {
            assert!(matches!(parse(&CALL.as_bytes()[..cut]), Head::Partial), "{cut}");
        }
        let two = [CALL, CALL].concat();
        let Head::PublishCall(call, used) = parse(two.as_bytes()) else { panic!() };
        assert_eq!((call.key, call.body, used), (Some("secret"), &b"{\"a\":1}"[..], CALL.len()));
    }

    #[test]
    fn a_publish_call_that_is_not_plain_goes_to_the_control_plane() {
        let check = |from: &str, to: &str| {
            let request = CALL.replace(from, to);
            assert!(matches!(parse(request.as_bytes()), Head::Control), "{request}");
        };
        check("POST", "PUT");
        check("HTTP/1.1", "HTTP/1.0");
        check("/api/publish", "/api/publish?api_key=secret");
        check("Content-Length: 7", "Transfer-Encoding: chunked");
        check("Content-Length: 7", "Content-Length: 7\r\nTransfer-Encoding: chunked");
        check("Content-Length: 7", "Content-Length: 7\r\nContent-Length: 7");
        check("Content-Length: 7", "Content-Length: +7");
        check("Content-Length: 7", "Content-Length: \u{a0}7");
        check("Content-Length: 7", "Content-Length: 7\u{2003}");
        check("Content-Length: 7", "Content-Length: 99999999999999999999999");
        check("Content-Length: 7", "Content-Length: 101");
        check("Content-Length: 7", "Content-Length:");
        check("Content-Length: 7\r\n", "");
        check("Host: a", "Host: a\r\nConnection: keep-alive, close");
        check("Host: a", "Host: a\r\nExpect: 100-continue");
        check("Host: a", "Host: a\r\nUpgrade: h2c");
        check("Host: a", "Host: a\r\nAuthorization: apikey secret");
        check("Host: a", "Host: a\r\nX-Api-Key: other");
        check("Host: a", "Host: a\r\nX-Centrifugo-Error-Mode: transport");
        assert!(matches!(super::parse(CALL.as_bytes(), &[], HeadLimits::default()), Head::Control));
    }

    #[test]
    fn the_connect_request_in_the_query_is_percent_decoded() {
        let request = GOOD.replace(
            "/connection/websocket?cf_protocol=json",
            "/connection/uni_websocket?cf_connect=%7B%22name%22%3A%22a+b%22%7D",
        );
        let Head::Upgrade(upgrade, _) = parse(request.as_bytes()) else { panic!() };
        assert_eq!(upgrade.connect.as_deref(), Some("{\"name\":\"a b\"}"));
    }

    fn stream(request: &str) -> Result<(Transport, String, bool), Status> {
        match parse(request.as_bytes()) {
            Head::OpenEmulation(stream, used) => {
                assert_eq!(used, request.len());
                let opening = String::from_utf8(stream.opening.into_owned()).unwrap();
                Ok((stream.transport, opening, stream.protobuf))
            }
            Head::Refused(status) => Err(status),
            other => panic!("{request}: {other:?}"),
        }
    }

    #[test]
    fn opening_commands_come_from_the_body_or_the_query() {
        let post = "POST /connection/http_stream HTTP/1.1\r\nHost: a\r\n\
            Content-Length: 2\r\nContent-Type: application/json\r\n\r\n{}";
        for cut in 0..post.len() {
            assert!(matches!(parse(&post.as_bytes()[..cut]), Head::Partial), "{cut}");
        }
        assert_eq!(stream(post), Ok((Transport::HttpStream, "{}".into(), false)));
        let protobuf = post.replace("application/json", "application/octet-stream");
        assert_eq!(stream(&protobuf), Ok((Transport::HttpStream, "{}".into(), true)));
        let get = |path: &str| format!("GET /connection/{path} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(
            stream(&get("sse?cf_connect=%7B%7D%0A%7B%7D")),
            Ok((Transport::Sse, "{}\n{}".into(), false))
        );
        assert_eq!(stream(&get("uni_sse")), Ok((Transport::UniSse, String::new(), false)));
        assert_eq!(stream(&get("sse")), Err(Status::BadRequest));
        let posts = Status::MethodNotAllowed("POST, OPTIONS");
        assert_eq!(stream(&get("http_stream")), Err(posts));
        let either = Status::MethodNotAllowed("GET, POST, OPTIONS");
        assert_eq!(stream(&get("sse").replace("GET", "HEAD")), Err(either));
        let large = post.replace("Content-Length: 2", "Content-Length: 101");
        assert_eq!(stream(&large), Err(Status::TooLarge));
        let chunked = post.replace("Content-Length: 2", "Transfer-Encoding: chunked");
        assert!(matches!(parse(chunked.as_bytes()), Head::Control));
    }

    #[test]
    fn emulation_commands_and_preflights_are_parsed() {
        let post = "POST /emulation HTTP/1.1\r\nHost: a\r\nOrigin: https://b\r\n\
            Connection: close\r\nContent-Length: 2\r\n\r\n{}";
        let Head::EmulationCommands(emulation, used) = parse(post.as_bytes()) else { panic!() };
        assert_eq!((emulation.body, emulation.origin), (&b"{}"[..], Some("https://b")));
        assert!(emulation.last && !emulation.protobuf && used == post.len());
        let get = post.replace("POST", "GET");
        let posts = Status::MethodNotAllowed("POST, OPTIONS");
        assert!(matches!(parse(get.as_bytes()), Head::Refused(status) if status == posts));
        for path in ["/emulation", "/connection/sse"] {
            let options = format!(
                "OPTIONS {path} HTTP/1.1\r\nHost: a\r\nOrigin: https://b\r\n\
                 Access-Control-Request-Headers: content-type\r\n\r\n"
            );
            let Head::Preflight(preflight, _) = parse(options.as_bytes()) else { panic!() };
            assert_eq!((preflight.headers, preflight.origin), ("content-type", Some("https://b")));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            parse(&bytes);
        }
    }
}
