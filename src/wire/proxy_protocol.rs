//! The header of the PROXY protocol, versions 1 and 2: a load balancer writes it at the start of a
//! connection and names the client.
//!
//! Owns nothing: bytes in, an address out. Never reads past the header. The invariants: as long as
//! bytes can still become a header, the answer is "partial"; a header has at most
//! [`HEADER_MAX`] bytes. Source: the specification of HAProxy, sections 2.1 and 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Maximum length of a header in bytes, its extensions included.
pub const HEADER_MAX: usize = SIGNATURE.len() + 4 + EXTENDED_MAX;

/// Maximum length of a header of version 1, with its line end.
const LINE_MAX: usize = 107;
/// Maximum length of addresses and extensions in a header of version 2.
const EXTENDED_MAX: usize = 4096;
/// The beginning of a header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The beginning of a header of version 1.
const WORD: &[u8] = b"PROXY ";

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The beginning of a header.
    Partial,
    /// A complete header.
    Complete {
        /// Bytes of the header.
        used: usize,
        /// Address of the client. `None`: the header names none, for example that of a health
        /// check of the load balancer.
        source: Option<SocketAddr>,
    },
    /// No header.
    Invalid,
}

/// Reads the header at the start of `input`.
pub fn parse(input: &[u8]) -> ProxyHeader {
    let begins = |word: &[u8]| {
        let common = word.len().min(input.len());
        input[..common] == word[..common]
    };
    if begins(SIGNATURE) {
        binary(input)
    } else if begins(WORD) {
        line(input)
    } else {
        ProxyHeader::Invalid
    }
}

/// Version 1: one line of text.
fn line(input: &[u8]) -> ProxyHeader {
    let within = &input[..input.len().min(LINE_MAX)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        let is_open = input.len() < LINE_MAX;
        return if is_open { ProxyHeader::Partial } else { ProxyHeader::Invalid };
    };
    let text = within[..end].strip_suffix(b"\r").and_then(|text| text.strip_prefix(WORD));
    let Some(text) = text.and_then(|text| std::str::from_utf8(text).ok()) else {
        return ProxyHeader::Invalid;
    };
    let used = end + 1;
    // Whatever follows this word is to be ignored.
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return ProxyHeader::Complete { used, source: None };
    }
    match addresses(text) {
        Some(source) => ProxyHeader::Complete { used, source: Some(source) },
        None => ProxyHeader::Invalid,
    }
}

/// The client in `TCP4 192.0.2.1 198.51.100.1 56324 443`.
fn addresses(text: &str) -> Option<SocketAddr> {
    let mut words = text.split(' ');
    let family = words.next()?;
    let mut address = || {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (client, _server) = (address()?, address()?);
    let mut port = || {
        let word = words.next()?;
        let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        word.parse::<u16>().ok().filter(|_| is_number)
    };
    let (client_port, _server_port) = (port()?, port()?);
    words.next().is_none().then(|| SocketAddr::new(client, client_port))
}

/// Version 2: a fixed part, then addresses and extensions of a given length.
fn binary(input: &[u8]) -> ProxyHeader {
    let fixed = &input[input.len().min(SIGNATURE.len())..];
    // A version or command that does not exist is refused as soon as it arrives.
    let Some(command) = fixed.first() else { return ProxyHeader::Partial };
    if !matches!(command, 0x20 | 0x21) {
        return ProxyHeader::Invalid;
    }
    let is_local = *command == 0x20;
    let [_, family, high, low, body @ ..] = fixed else { return ProxyHeader::Partial };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > EXTENDED_MAX {
        return ProxyHeader::Invalid;
    }
    let (address_family, transport) = (family >> 4, family & 15);
    let least = match address_family {
        _ if is_local => 0,
        _ if transport > 2 => return ProxyHeader::Invalid,
        0 => 0,
        1 => 12,
        2 => 36,
        3 => 216,
        _ => return ProxyHeader::Invalid,
    };
    if length < least {
        return ProxyHeader::Invalid;
    }
    let Some(body) = body.get(..length) else { return ProxyHeader::Partial };
    let source = if is_local || transport == 0 { None } else { source(address_family, body) };
    ProxyHeader::Complete { used: SIGNATURE.len() + 4 + length, source }
}

/// The client in the addresses of a header of version 2; `None`: a Unix socket, or unspecified.
fn source(address_family: u8, body: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| body.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
    match address_family {
        1 => {
            let bytes: [u8; 4] = body.get(..4)?.try_into().ok()?;
            Some(SocketAddr::new(IpAddr::from(bytes), port(8)?))
        }
        2 => {
            let bytes: [u8; 16] = body.get(..16)?.try_into().ok()?;
            Some(SocketAddr::new(IpAddr::from(bytes), port(32)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header of version 2.
    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u16).to_be_bytes();
        [SIGNATURE, &[command, family][..], &length, body].concat()
    }

    fn ipv4() -> Vec<u8> {
        [&[192, 0, 2, 1, 198, 51, 100, 1][..], &56324u16.to_be_bytes(), &[1, 187]].concat()
    }

    fn ipv6() -> Vec<u8> {
        let client: Ipv6Addr = "2001:db8::7".parse().unwrap();
        [&client.octets()[..], &[9; 16], &443u16.to_be_bytes(), &[1, 187]].concat()
    }

    #[test]
    fn headers_name_the_client_or_nobody() {
        let four = Some("192.0.2.1:56324");
        let six = Some("[2001:db8::7]:443");
        let more = |mut body: Vec<u8>, count: usize| {
            body.extend(std::iter::repeat_n(4, count));
            body
        };
        let table: &[(Vec<u8>, Option<&str>)] = &[
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec(), four),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 443 443\r\n".to_vec(), six),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".to_vec(), None),
            (v2(0x21, 0x11, &ipv4()), four),
            (v2(0x21, 0x12, &ipv4()), four),
            (v2(0x21, 0x21, &ipv6()), six),
            (v2(0x21, 0x11, &more(ipv4(), 2000)), four),
            (v2(0x21, 0x21, &more(ipv6(), EXTENDED_MAX - 36)), six),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &more(ipv4(), 72)), None),
            (v2(0x20, 0xff, &[1, 2, 3]), None),
            (v2(0x21, 0x00, &[]), None),
            (v2(0x21, 0x00, &[7; 84]), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ];
        for (header, source) in table {
            let expected = ProxyHeader::Complete {
                used: header.len(),
                source: source.map(|text| text.parse().unwrap()),
            };
            let shown = String::from_utf8_lossy(header);
            assert!(header.len() <= HEADER_MAX);
            assert_eq!(parse(header), expected, "{shown:?}");
            let with_more = [header, &b"GET / HTTP/1.1\r\n"[..]].concat();
            assert_eq!(parse(&with_more), expected, "{shown:?} and more");
            for cut in 0..header.len() {
                assert_eq!(parse(&header[..cut]), ProxyHeader::Partial, "{shown:?} up to {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
        let text = [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +56324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.1 1 443\r\n",
            "PROXY TCP4 ::1 ::1 1 443\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 443\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 1 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 443\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "proxy ",
            "\r\n\r\n\0\r\nQUIT ",
            &long,
        ];
        for input in text {
            assert_eq!(parse(input.as_bytes()), ProxyHeader::Invalid, "{input:?}");
        }
        for input in [
            v2(0x11, 0x11, &ipv4()),
            v2(0x22, 0x11, &ipv4()),
            v2(0x21, 0x13, &ipv4()),
            v2(0x21, 0x41, &ipv4()),
            v2(0x21, 0x11, &ipv4()[..11]),
            v2(0x21, 0x21, &ipv6()[..35]),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x20, 0x00, &[0; EXTENDED_MAX + 1]),
            [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat(),
        ] {
            assert_eq!(parse(&input), ProxyHeader::Invalid, "{:?}", &input[12..16]);
        }
    }

    proptest! {
        #[test]
        fn an_answer_does_not_change_with_more_bytes(
            start in prop_oneof![
                Just(WORD.to_vec()),
                Just(b"PROXY TCP4 1.2.3.4 ".to_vec()),
                Just(SIGNATURE.to_vec()),
                Just([&SIGNATURE[..], &[0x21, 0x11, 0]].concat()),
                Just(Vec::new()),
            ],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let input = [start, rest].concat();
            let whole = parse(&input);
            for cut in 0..input.len() {
                match parse(&input[..cut]) {
                    ProxyHeader::Partial => prop_assert!(cut < HEADER_MAX),
                    settled => prop_assert_eq!(settled, whole),
                }
            }
            if let ProxyHeader::Complete { used, .. } = whole {
                prop_assert!(used <= input.len() && used <= HEADER_MAX);
            }
        }
    }
}
