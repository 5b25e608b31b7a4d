//! The article that is measured here: "HTML5 WebSocket: A Quantum Leap in Scalability for the Web"
//! by Peter Lubbers and Frank Greco, with its headers and its numbers.
//!
//! Owns its texts and its arithmetic. Never measures. Invariant: the headers are those of the
//! article to the byte, apart from the line breaks that its layout needs.

/// Header lines of the article's request, without the request line.
pub(super) const REQUEST_HEADERS: &str = "Host: localhost:8080\r\n\
    User-Agent: Mozilla/5.0 (Windows; U; Windows NT 5.1; en-US; rv:1.9.1.5) Gecko/20091102 \
    Firefox/3.5.5\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-us\r\n\
    Accept-Encoding: gzip,deflate\r\n\
    Accept-Charset: ISO-8859-1,utf-8;q=0.7,*;q=0.7\r\n\
    Keep-Alive: 300\r\n\
    Connection: keep-alive\r\n\
    Referer: http://www.example.com/PollingStock/\r\n\
    Cookie: showInheritedConstant=false; showInheritedProtectedConstant=false; \
    showInheritedProperty=false; showInheritedProtectedProperty=false; \
    showInheritedMethod=false; showInheritedProtectedMethod=false; \
    showInheritedEvent=false; showInheritedStyle=false; showInheritedEffect=false\r\n";
/// Path of the article's request.
pub(super) const PATH: &str = "/PollingStock//PollingStock";
/// The article's response head, with the length of a body that takes two digits. The article prints
/// "HTTP/1.x", as its tool does; the server sends a version of the same length.
pub(super) const RESPONSE_HEAD: &str = "HTTP/1.1 200 OK\r\n\
    X-Powered-By: Servlet/2.5\r\n\
    Server: Sun Java System Application Server 9.1_02\r\n\
    Content-Type: text/html;charset=UTF-8\r\n\
    Content-Length: {}\r\n\
    Date: Sat, 07 Nov 2009 00:32:46 GMT\r\n\r\n";
/// Header bytes of a request and its response, as the article counts them.
pub(super) const POLL_BYTES: u64 = 871;
/// The same with the line ends, as they are on the wire.
pub(super) const WIRE_BYTES: u64 = 909;
/// Bytes of framing of a WebSocket message, as the article counts them.
pub(super) const FRAME_BYTES: u64 = 2;
/// The header lines of the smallest request that works.
pub(super) const SMALLEST: &str = "Host: a\r\n";

/// Bits in the article's Mbps.
const MEGABIT: f64 = 1_048_576.0;

/// A use case of the article: each client receives a message per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct UseCase {
    /// Its letter.
    pub(super) letter: char,
    /// Its clients.
    pub(super) clients: u64,
    /// Overhead in Mbps of polling and of WebSocket, as the article prints it.
    pub(super) printed: (f64, f64),
}

/// Lines of the tables with the numbers that the article prints.
pub(super) const PRINTED: [&str; 2] = ["article: polling", "article: WebSocket"];
/// The use cases.
pub(super) const USE_CASES: [UseCase; 3] = [
    UseCase { letter: 'A', clients: 1_000, printed: (6.6, 0.015) },
    UseCase { letter: 'B', clients: 10_000, printed: (66.0, 0.153) },
    UseCase { letter: 'C', clients: 100_000, printed: (665.0, 1.526) },
];

/// Throughput in the article's Mbps, of 2^20 bits.
pub(super) fn mbps(bytes: f64, seconds: f64) -> f64 {
    bytes * 8.0 / seconds / MEGABIT
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The article counts characters, not the two bytes of each line end.
    fn characters(head: &str) -> usize {
        head.lines().map(str::len).sum()
    }

    #[test]
    fn the_headers_are_those_of_the_article() {
        let request = format!("GET {PATH} HTTP/1.1\r\n{REQUEST_HEADERS}\r\n");
        let response = RESPONSE_HEAD.replace("{}", "21");
        let both = [request, response].concat();
        assert_eq!(characters(&both) as u64, POLL_BYTES);
        assert_eq!(both.len() as u64, WIRE_BYTES, "with two bytes per line end");
    }

    #[test]
    fn the_arithmetic_gives_the_numbers_of_the_article() {
        for UseCase { clients, printed: (polling, websocket), .. } in USE_CASES {
            let of = |bytes: u64| mbps((bytes * clients) as f64, 1.0);
            let rounded = |value: f64, printed: f64| (value - printed).abs() / printed < 0.03;
            assert!(rounded(of(POLL_BYTES), polling), "{} {polling}", of(POLL_BYTES));
            assert!(rounded(of(FRAME_BYTES), websocket), "{} {websocket}", of(FRAME_BYTES));
        }
    }
}
