//! The server of the page: its own files, the counters, and the relay to Drumline.
//!
//! Owns the listening socket. The invariant: a page loads everything from this server, so its
//! content security policy names no other.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::clock;
use crate::counters::{MODES, PageTraffic, Pages, Published};
use crate::heads::{self, Request};
use crate::market::SYMBOLS;
use crate::peer::Peer;
use crate::relay::{Server, relay};

/// Maximum number of connections.
const CONNECTIONS_MAX: usize = 256;
/// Maximum time for a request to come, on a connection that is open.
const IDLE: Duration = Duration::from_secs(60);
/// Interval at which `drumline.toml` sends the latest price, and between two long polls.
const CONFLATION_MS: u64 = 200;
/// Interval of polling.
const POLL_MS: u64 = 1000;

/// The page loads and connects to nothing but this server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// The files of the page: path, type, text.
const FILES: [(&str, &str, &str); 8] = [
    ("/", HTML, include_str!("../page/index.html")),
    ("/icon.svg", IMAGE, include_str!("../page/icon.svg")),
    ("/ticker.css", STYLE, include_str!("../page/ticker.css")),
    ("/ticker.js", SCRIPT, include_str!("../page/ticker.js")),
    ("/board.js", SCRIPT, include_str!("../page/board.js")),
    ("/costs.js", SCRIPT, include_str!("../page/costs.js")),
    ("/measures.js", SCRIPT, include_str!("../page/measures.js")),
    ("/transports.js", SCRIPT, include_str!("../page/transports.js")),
];

/// What all connections share.
pub struct Shared {
    /// Address of Drumline.
    pub drumline: SocketAddr,
    /// Updates per second that the generator makes.
    pub rate: f64,
    /// What pages sent and received.
    pub pages: Pages,
    /// What the generator published.
    pub published: Arc<Published>,
}

/// An answer of this server.
struct Answer {
    status: &'static str,
    kind: &'static str,
    text: String,
}

/// What a request asks for.
enum Route {
    Answer(Answer),
    /// A request for Drumline: the counters, the index of the transport, the target.
    Relay(Arc<PageTraffic>, usize, String),
}

/// Serves pages as long as the process lives.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // For example too many open files: connections that end make room.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let shared = shared.clone();
        tokio::spawn(async move {
            // A connection that breaks concerns its page alone, which reports it.
            let _ = converse(Peer::new(stream), &shared).await;
            drop(slot);
        });
    }
}

/// Answers the requests of a connection, one after the other.
async fn converse(mut browser: Peer, shared: &Shared) -> io::Result<()> {
    let mut server = Server::new(shared.drumline);
    loop {
        let request = match timeout(IDLE, browser.until(heads::request)).await {
            Ok(Ok(Some(request))) => request,
            Ok(Err(cause)) if cause.kind() == io::ErrorKind::InvalidData => {
                return refuse(&mut browser, "400 Bad Request", &cause.to_string()).await;
            }
            _ => return Ok(()),
        };
        match shared.route(&request) {
            Route::Answer(answer) => {
                if request.body > 0 {
                    return refuse(&mut browser, "400 Bad Request", "a body is not expected").await;
                }
                browser.take(request.head);
                browser.send(&answer.bytes()).await?;
            }
            Route::Relay(page, mode, target) => {
                let Some(traffic) = page.by(mode) else { return Ok(()) };
                match relay(&mut browser, &mut server, &request, &target, traffic).await {
                    Ok(true) => {}
                    Err(cause) if cause.kind() == io::ErrorKind::NotConnected => {
                        return refuse(&mut browser, "502 Bad Gateway", &cause.to_string()).await;
                    }
                    ended => return ended.map(drop),
                }
            }
        }
    }
}

/// Answers with an error, after which the connection ends.
async fn refuse(browser: &mut Peer, status: &'static str, cause: &str) -> io::Result<()> {
    browser.send(&Answer::text(status, cause).bytes()).await
}

impl Answer {
    fn ok(kind: &'static str, text: String) -> Answer {
        Answer { status: "200 OK", kind, text }
    }

    fn text(status: &'static str, text: &str) -> Answer {
        Answer { status, kind: TEXT, text: format!("{text}\n") }
    }

    fn bytes(&self) -> Vec<u8> {
        let Answer { status, kind, text } = self;
        let length = text.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
             Cache-Control: no-cache\r\nContent-Security-Policy: {POLICY}\r\n\
             X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\r\n{text}"
        )
        .into_bytes()
    }
}

impl Shared {
    fn route(&self, request: &Request) -> Route {
        let path = request.target.split('?').next().unwrap_or_default();
        if let Some(rest) = request.target.strip_prefix("/measured/") {
            return self.measured(&request.method, rest);
        }
        Route::Answer(if request.method != "GET" {
            Answer::text("405 Method Not Allowed", "only GET is allowed here")
        } else if let Some((_, kind, text)) = FILES.iter().find(|(name, ..)| *name == path) {
            Answer::ok(kind, (*text).to_owned())
        } else if path == "/market.json" {
            Answer::ok(JSON, self.market().to_string())
        } else if let Some(page) = path.strip_prefix("/counters/").and_then(|id| self.pages.of(id))
        {
            Answer::ok(JSON, self.counters(&page).to_string())
        } else {
            Answer::text("404 Not Found", "there is nothing at this path")
        })
    }

    /// A request behind `/measured/PAGE/TRANSPORT`: only the endpoints of clients are relayed.
    fn measured(&self, method: &str, rest: &str) -> Route {
        let mut parts = rest.splitn(3, '/');
        let (page, mode, target) = (parts.next(), parts.next(), parts.next());
        let page = page.and_then(|page| self.pages.of(page));
        let mode = mode.and_then(|mode| MODES.iter().position(|name| *name == mode));
        let target = target.filter(|target| target.starts_with("connection/"));
        match (page, mode, target) {
            (Some(page), Some(mode), Some(target)) if ["GET", "POST"].contains(&method) => {
                Route::Relay(page, mode, format!("/{target}"))
            }
            _ => Route::Answer(Answer::text("404 Not Found", "there is no such transport")),
        }
    }

    fn market(&self) -> Value {
        let symbols = SYMBOLS.map(|symbol| json!({"name": symbol.name, "company": symbol.company}));
        json!({
            "symbols": symbols,
            "rate": self.rate,
            "conflation_ms": CONFLATION_MS,
            "poll_ms": POLL_MS,
        })
    }

    fn counters(&self, page: &PageTraffic) -> Value {
        json!({
            "now": clock::unix_micros(),
            "confirmed": self.published.confirmed.load(Relaxed),
            "refused": self.published.refused.load(Relaxed),
            "transports": page.json(),
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn the_configuration_of_drumline_has_the_interval_that_the_page_names() {
        let text = include_str!("../drumline.toml");
        assert!(text.contains(&format!("batch_max_delay = \"{CONFLATION_MS}ms\"")));
    }

    /// A server of the page, and a Drumline that sends bytes each time it has read a text, and
    /// closes after the last.
    async fn serving(steps: &'static [(&'static str, &'static [u8])]) -> SocketAddr {
        let drumline = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = drumline.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = drumline.accept().await.unwrap();
            let mut read = Vec::new();
            for (expected, answer) in steps {
                while !read.ends_with(expected.as_bytes()) {
                    assert!(stream.read_buf(&mut read).await.unwrap() > 0, "{read:?}");
                }
                stream.write_all(answer).await.unwrap();
            }
            stream.shutdown().await.unwrap();
            while stream.read_buf(&mut read).await.unwrap_or(0) > 0 {}
        });
        page_server(address).await
    }

    async fn page_server(drumline: SocketAddr) -> SocketAddr {
        let published = Arc::new(Published::default());
        published.confirmed.store(7, Relaxed);
        let shared = Shared { drumline, rate: 5.0, pages: Pages::default(), published };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::new(shared)));
        address
    }

    /// What the server answers until it closes, or until it has sent `length` bytes.
    async fn ask(to: SocketAddr, request: &str, length: usize) -> String {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        while read.len() < length && stream.read_buf(&mut read).await.unwrap() > 0 {}
        String::from_utf8(read).unwrap()
    }

    async fn counters(of: SocketAddr) -> Value {
        // The server closes after the second request, which is none.
        let answer = ask(of, "GET /counters/p HTTP/1.1\r\n\r\n\0\r\n\r\n", usize::MAX).await;
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        serde_json::Deserializer::from_str(body).into_iter().next().unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_poll_is_passed_on_without_its_prefix_and_its_bytes_are_counted() {
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]";
        const HEAD: &str = "GET /connection/polling?channel=a HTTP/1.1\r\nHost: x\r\n\r\n";
        let server = serving(&[(HEAD, ANSWER)]).await;
        let request = HEAD.replace("/connection", "/measured/p/polling/connection");
        let answer = ask(server, &request, ANSWER.len()).await;
        assert_eq!(answer.as_bytes(), ANSWER);
        let found = counters(server).await;
        let (up, down) = (HEAD.len(), ANSWER.len() - 3);
        let wanted = json!({"requests": 1, "up": [up, 0], "down": [down, 3]});
        assert_eq!(found["transports"]["polling"], wanted);
        assert_eq!(found["confirmed"], 7);
        assert!(found["now"].as_u64().unwrap() > 1_700_000_000_000_000);
    }

    #[tokio::test]
    async fn a_body_and_a_stream_are_passed_on_and_counted_by_their_framing() {
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{}\n[1]\n";
        let server = serving(&[("\r\n\r\n{\"subs\":{}}", ANSWER)]).await;
        let head = "POST /measured/p/http-stream/connection/uni_http_stream HTTP/1.1\r\n\
                    Content-Length: 11\r\n\r\n";
        let answer = ask(server, &format!("{head}{{\"subs\":{{}}}}"), usize::MAX).await;
        assert_eq!(answer.as_bytes(), ANSWER);
        let found = &counters(server).await["transports"]["http-stream"];
        assert_eq!(found["up"], json!([head.len() - "/measured/p/http-stream".len(), 11]));
        assert_eq!(found["down"], json!([ANSWER.len() - 5, 5]));
    }

    #[tokio::test]
    async fn frames_pass_both_ways_and_their_headers_are_counted() {
        const HEAD: &str = "GET /measured/p/websocket/connection/uni_websocket HTTP/1.1\r\n\
                            Upgrade: websocket\r\n\r\n";
        const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x01\x03abc";
        let server = serving(&[("\r\n\r\n", SWITCHED), ("\u{1}\u{2}hi", b"\x01\x00")]).await;
        let answer = ask(server, &format!("{HEAD}\u{1}\u{2}hi"), usize::MAX).await;
        assert!(answer.ends_with("\r\n\r\n\u{1}\u{3}abc\u{1}\u{0}"), "{answer}");
        let found = &counters(server).await["transports"]["websocket"];
        let (up, down) = (HEAD.len() - "/measured/p/websocket".len(), SWITCHED.len() - 5);
        assert_eq!(found["up"], json!([up + 2, 2]));
        assert_eq!(found["down"], json!([down + 2 + 2, 3]));
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_named() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let server = page_server(gone).await;
        let request = "GET /measured/p/sse/connection/uni_sse HTTP/1.1\r\n\r\n";
        let answer = ask(server, request, usize::MAX).await;
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
        assert!(answer.contains(&format!("Drumline at {gone} does not answer: ")), "{answer}");
    }

    #[tokio::test]
    async fn nothing_but_the_page_and_the_endpoints_of_clients_is_served() {
        let server = page_server(SocketAddr::from(([127, 0, 0, 1], 1))).await;
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "200 OK"),
            ("GET /?a HTTP/1.1\r\n\r\n", "200 OK"),
            ("GET /market.json HTTP/1.1\r\n\r\n", "200 OK"),
            ("GET /counters/a.b HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("GET /../Cargo.toml HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("POST / HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n", "400 Bad Request"),
            ("GET /measured/p/sse/api/info HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("GET /measured/p/carrier-pigeon/connection/sse HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("PUT /measured/p/sse/connection/sse HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("nonsense\r\n\r\n", "400 Bad Request"),
        ] {
            let answer = ask(server, request, 20).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {answer}");
        }
    }
}
