//! Requests on the public port: which transport a request asks for, and whether the shard keeps
//! the socket or hands it to the control plane.
//!
//! Owns nothing; reads bytes and says what they are. Never looks into a body. The invariant: a
//! socket stays with the shard only for a complete, legal upgrade of a push path or a plain call
//! of the API's publish method; whatever else is well-formed goes to the control plane untouched.

use tungstenite::handshake::derive_accept_key;

/// The longest request head taken, in bytes.
pub const HEAD_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// How a connection is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Transport {
    /// Commands and replies over WebSocket.
    WebSocket,
    /// Pushes only, over WebSocket.
    UniWebSocket,
    /// Test mode: every message comes back as it went.
    Echo,
}

impl Transport {
    /// Whether clients only listen.
    pub fn is_unidirectional(self) -> bool {
        self == Transport::UniWebSocket
    }
}

/// A complete upgrade request.
#[derive(Debug)]
pub struct Upgrade {
    /// Which transport its path names.
    pub transport: Transport,
    /// The Sec-WebSocket-Accept value that answers its key.
    pub accept: String,
    /// The connect request of a unidirectional client, from `?cf_connect=`, percent-decoded.
    pub connect: Option<String>,
    /// Whether the protobuf encoding was asked for.
    pub protobuf: bool,
    /// The subprotocol to name in the answer.
    pub subprotocol: Option<&'static str>,
    /// The Origin header.
    pub origin: Option<String>,
    /// The Host header.
    pub host: Option<String>,
}

/// A call of the API's publish method in its plain form: HTTP/1.1, kept alive, a body of known
/// length and no key but in `X-API-Key`.
#[derive(Debug)]
pub struct Call<'a> {
    /// The key it gives.
    pub key: Option<&'a str>,
    /// The whole body.
    pub body: &'a [u8],
}

/// What the bytes so far are.
#[derive(Debug)]
pub enum Head<'a> {
    /// Not all there yet.
    Partial,
    /// An upgrade for the shard; the head took this many bytes.
    Upgrade(Box<Upgrade>, usize),
    /// A call for the shard; head and body took this many bytes.
    Call(Call<'a>, usize),
    /// A request for the control plane.
    Control,
    /// Refused with this status.
    Refused(Status),
}

/// The statuses that a shard itself answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 400: no HTTP, or an upgrade that breaks its rules.
    BadRequest,
    /// 403: an origin that is not allowed.
    Forbidden,
    /// 408: the head did not come in time.
    Timeout,
    /// 426: another WebSocket version.
    UpgradeRequired,
    /// 431: the head does not end.
    HeadTooLarge,
    /// 503: no room for another connection.
    Unavailable,
}

impl Status {
    /// The whole response.
    pub fn response(self) -> Vec<u8> {
        let (line, extra, body) = match self {
            Status::BadRequest => ("400 Bad Request", "", "malformed request\n"),
            Status::Forbidden => {
                ("403 Forbidden", "", "origin not allowed: see client.allowed_origins\n")
            }
            Status::Timeout => ("408 Request Timeout", "", "request took too long\n"),
            Status::UpgradeRequired => (
                "426 Upgrade Required",
                "Sec-WebSocket-Version: 13\r\n",
                "only WebSocket version 13 is spoken here\n",
            ),
            Status::HeadTooLarge => {
                ("431 Request Header Fields Too Large", "", "request head over 16 KiB\n")
            }
            Status::Unavailable => (
                "503 Service Unavailable",
                "Retry-After: 5\r\n",
                "no room for another connection\n",
            ),
        };
        format!(
            "HTTP/1.1 {line}\r\n{extra}Content-Type: text/plain\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// Paths that the shards serve.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Of the bidirectional WebSocket.
    pub websocket: String,
    /// Of the unidirectional WebSocket.
    pub uni_websocket: String,
    /// Of the echo test mode, where it is on.
    pub echo: Option<String>,
    /// Of the API's publish method, where the public port has it.
    pub publish: Option<String>,
}

impl Paths {
    fn transport(&self, path: &str) -> Option<Transport> {
        if path == self.websocket {
            Some(Transport::WebSocket)
        } else if path == self.uni_websocket {
            Some(Transport::UniWebSocket)
        } else if Some(path) == self.echo.as_deref() {
            Some(Transport::Echo)
        } else {
            None
        }
    }
}

/// Reads a request head, and behind that of a call the body, of at most `body_max` bytes.
pub fn parse<'a>(bytes: &'a [u8], paths: &Paths, body_max: usize) -> Head<'a> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(bytes) {
        Ok(httparse::Status::Complete(used)) if used <= HEAD_MAX => used,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Head::Partial,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            return Head::Refused(Status::HeadTooLarge);
        }
        Err(_) => return Head::Refused(Status::BadRequest),
    };
    let target = request.path.unwrap_or_default();
    if paths.publish.as_deref() == Some(target) {
        return call(bytes, head_bytes, body_max, &request);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Some(transport) = paths.transport(path) else { return Head::Control };
    if !has_token(&request, "upgrade", "websocket") {
        return Head::Control;
    }
    match upgrade(transport, query, &request) {
        Ok(upgrade) => Head::Upgrade(Box::new(upgrade), head_bytes),
        Err(status) => Head::Refused(status),
    }
}

fn upgrade(
    transport: Transport,
    query: &str,
    request: &httparse::Request<'_, '_>,
) -> Result<Upgrade, Status> {
    let legal = request.method == Some("GET")
        && request.version == Some(1)
        && has_token(request, "connection", "upgrade");
    if !legal {
        return Err(Status::BadRequest);
    }
    if header(request, "sec-websocket-version") != Some("13") {
        return Err(Status::UpgradeRequired);
    }
    let key = header(request, "sec-websocket-key").unwrap_or_default();
    if key.len() != 24 || !key.ends_with("==") {
        return Err(Status::BadRequest);
    }
    let subprotocol = ["centrifuge-protobuf", "centrifuge-json"]
        .into_iter()
        .find(|name| has_token(request, "sec-websocket-protocol", name));
    let asked = |name: &str| query_value(query, name);
    Ok(Upgrade {
        transport,
        accept: derive_accept_key(key.as_bytes()),
        connect: asked("cf_connect"),
        protobuf: subprotocol == Some("centrifuge-protobuf")
            || asked("format").as_deref() == Some("protobuf")
            || asked("cf_protocol").as_deref() == Some("protobuf"),
        subprotocol,
        origin: header(request, "origin").map(str::to_owned),
        host: header(request, "host").map(str::to_owned),
    })
}

/// A call, if it is a plain one.
fn call<'a>(
    bytes: &'a [u8],
    head_bytes: usize,
    body_max: usize,
    request: &httparse::Request<'_, 'a>,
) -> Head<'a> {
    const NOT_PLAIN: [&str; 4] = ["transfer-encoding", "expect", "upgrade", "authorization"];
    let named = |names: &[&str]| {
        let found = |name: &str| names.iter().any(|other| name.eq_ignore_ascii_case(other));
        request.headers.iter().filter(|header| found(header.name)).count()
    };
    let length = header(request, "content-length")
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse::<usize>().ok());
    let plain = request.method == Some("POST")
        && request.version == Some(1)
        && named(&NOT_PLAIN) == 0
        && named(&["content-length"]) == 1
        && named(&["x-api-key"]) <= 1
        && !has_token(request, "connection", "close");
    match length.filter(|length| plain && *length <= body_max) {
        None => Head::Control,
        Some(length) if bytes.len() - head_bytes < length => Head::Partial,
        Some(length) => {
            let end = head_bytes + length;
            let key = header(request, "x-api-key");
            Head::Call(Call { key, body: &bytes[head_bytes..end] }, end)
        }
    }
}

fn header<'a>(request: &httparse::Request<'_, 'a>, name: &str) -> Option<&'a str> {
    let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value).ok().map(trim)
}

/// Without the white space that HTTP knows; other kinds belong to the value.
fn trim(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

fn has_token(request: &httparse::Request<'_, '_>, name: &str, token: &str) -> bool {
    request
        .headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(name))
        .filter_map(|header| std::str::from_utf8(header.value).ok())
        .flat_map(|value| value.split(','))
        .any(|value| trim(value).eq_ignore_ascii_case(token))
}

fn query_value(query: &str, name: &str) -> Option<String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| percent_decode(value))
}

/// Decodes `%XX` and `+`; `None` where the result is no UTF-8 or an escape is cut short.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        bytes.push(match first {
            b'%' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                rest = tail;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            b'+' => b' ',
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Appends the 101 answer to an upgrade.
pub fn write_switching(accept: &str, subprotocol: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(accept.as_bytes());
    if let Some(subprotocol) = subprotocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(subprotocol.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// Appends a kept-alive answer to a call; with `last` the connection is closed behind it. There is
/// no `Date`: state has no clock.
pub fn write_answer(json: &[u8], last: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n");
    if last {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(json.len().to_string().as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(json);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn paths() -> Paths {
        Paths {
            websocket: "/connection/websocket".into(),
            uni_websocket: "/connection/uni_websocket".into(),
            echo: None,
            publish: Some("/api/publish".into()),
        }
    }

    fn parse<'a>(bytes: &'a [u8], paths: &Paths) -> Head<'a> {
        super::parse(bytes, paths, 100)
    }

    const GOOD: &str = "GET /connection/websocket?cf_protocol=json HTTP/1.1\r\nHost: a\r\n\
        Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    #[test]
    fn an_upgrade_is_recognised_byte_by_byte() {
        for cut in 0..GOOD.len() {
            assert!(matches!(parse(&GOOD.as_bytes()[..cut], &paths()), Head::Partial), "{cut}");
        }
        let Head::Upgrade(upgrade, used) = parse(GOOD.as_bytes(), &paths()) else { panic!() };
        assert_eq!(used, GOOD.len());
        assert_eq!(upgrade.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(upgrade.transport, Transport::WebSocket);
    }

    #[test]
    fn refusals_name_their_status() {
        let check = |from: &str, to: &str, expected: Status| {
            let request = GOOD.replace(from, to);
            match parse(request.as_bytes(), &paths()) {
                Head::Refused(status) => assert_eq!(status, expected, "{to}"),
                other => panic!("{to}: {other:?}"),
            }
        };
        check("Version: 13", "Version: 8", Status::UpgradeRequired);
        check("dGhlIHNhbXBsZSBub25jZQ==", "short", Status::BadRequest);
        check("GET", "POST", Status::BadRequest);
        check("HTTP/1.1", "HTTQ/1.1", Status::BadRequest);
        check("Host: a", &format!("Host: {}", "a".repeat(HEAD_MAX)), Status::HeadTooLarge);
        check("Host: a", &"X: y\r\n".repeat(70), Status::HeadTooLarge);
    }

    #[test]
    fn other_requests_go_to_the_control_plane() {
        for request in ["GET / HTTP/1.1\r\n\r\n", "POST /api/info HTTP/1.1\r\nHost: x\r\n\r\n{}"] {
            assert!(matches!(parse(request.as_bytes(), &paths()), Head::Control));
        }
        let plain = GOOD.replace("Upgrade: WebSocket\r\n", "");
        assert!(matches!(parse(plain.as_bytes(), &paths()), Head::Control));
    }

    const CALL: &str = "POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: secret\r\n\
        Content-Length: 7\r\n\r\n{\"a\":1}";

    #[test]
    fn a_call_is_recognised_byte_by_byte() {
        for cut in 0..CALL.len() {
            assert!(matches!(parse(&CALL.as_bytes()[..cut], &paths()), Head::Partial), "{cut}");
        }
        let two = [CALL, CALL].concat();
        let Head::Call(call, used) = parse(two.as_bytes(), &paths()) else { panic!() };
        assert_eq!((call.key, call.body, used), (Some("secret"), &b"{\"a\":1}"[..], CALL.len()));
    }

    #[test]
    fn a_call_that_is_not_plain_goes_to_the_control_plane() {
        let check = |from: &str, to: &str| {
            let request = CALL.replace(from, to);
            assert!(matches!(parse(request.as_bytes(), &paths()), Head::Control), "{request}");
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
        check("Host: a", "Connection: keep-alive, close");
        check("Host: a", "Expect: 100-continue");
        check("Host: a", "Upgrade: h2c");
        check("Host: a", "Authorization: apikey secret");
        check("Host: a", "X-Api-Key: other");
        let none = Paths { publish: None, ..paths() };
        assert!(matches!(parse(CALL.as_bytes(), &none), Head::Control));
    }

    #[test]
    fn an_answer_is_read_by_others() {
        for last in [false, true] {
            let mut bytes = Vec::new();
            write_answer(b"{\"result\":{}}", last, &mut bytes);
            let mut headers = [httparse::EMPTY_HEADER; 4];
            let mut response = httparse::Response::new(&mut headers);
            let Ok(httparse::Status::Complete(used)) = response.parse(&bytes) else { panic!() };
            assert_eq!((response.code, &bytes[used..]), (Some(200), &b"{\"result\":{}}"[..]));
            let said = |name, value: &[u8]| {
                response.headers.iter().any(|found| found.name == name && found.value == value)
            };
            assert!(said("Content-Length", b"13"));
            assert_eq!(said("Connection", b"close"), last);
        }
    }

    #[test]
    fn the_connect_request_of_a_query_is_decoded() {
        let request = GOOD.replace(
            "/connection/websocket?cf_protocol=json",
            "/connection/uni_websocket?cf_connect=%7B%22name%22%3A%22a+b%22%7D",
        );
        let Head::Upgrade(upgrade, _) = parse(request.as_bytes(), &paths()) else { panic!() };
        assert_eq!(upgrade.connect.as_deref(), Some("{\"name\":\"a b\"}"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            parse(&bytes, &paths());
        }
    }
}
