//! The check of a server without configuration: a request must come from the server's own machine.
//!
//! Owns no state. A loopback socket is not enough: a browser sends requests of any page to it (DNS
//! rebinding), and a proxy forwards requests of any host. The invariant: a request passes only if
//! it has exactly one Host header with a loopback name, no Origin header or the server's own
//! origin, and no header that proxies add.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::http::origin::{is_own_page, origin};

/// Why a server without configuration refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// The Host header is absent, occurs more than once or is not a loopback name.
    Host,
    /// A browser page of another origin sent the request.
    Origin,
    /// A proxy or a tunnel forwarded the request.
    Forwarded,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Foreign::Host => "the Host header is not localhost or a loopback address",
            Foreign::Origin => "the Origin header is not this server's own",
            Foreign::Forwarded => "a proxy or a tunnel forwarded the request",
        })?;
        f.write_str(
            ": a server without configuration accepts requests from its own machine only; to \
             serve others, create a configuration with `drumline genconfig --config \
             drumline.toml`\n",
        )
    }
}

/// Headers that proxies and tunnels add, in lower case. All `x-forwarded-...` headers count too.
const FORWARDING: [&str; 5] =
    ["forwarded", "via", "x-real-ip", "cf-connecting-ip", "true-client-ip"];
const FORWARDING_PREFIX: &str = "x-forwarded-";

/// Why a request with these headers is refused; `None` if it comes from this machine.
pub fn foreign<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Option<Foreign> {
    let (mut host, mut origins) = (None, Vec::new());
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        let value = value.trim_ascii();
        match name.as_str() {
            "host" if host.is_some() => return Some(Foreign::Host),
            "host" => host = Some(value),
            "origin" => origins.push(value),
            other if FORWARDING.contains(&other) || other.starts_with(FORWARDING_PREFIX) => {
                return Some(Foreign::Forwarded);
            }
            _ => {}
        }
    }
    let host = host.and_then(|host| std::str::from_utf8(host).ok()).unwrap_or_default();
    if !is_loopback(host) {
        return Some(Foreign::Host);
    }
    let is_own = |origin: Option<&str>| origin.is_none_or(|origin| is_own_page(origin, host));
    (!origin(origins.into_iter()).is_ok_and(is_own)).then_some(Foreign::Origin)
}

/// Whether a host, with or without a port, is `localhost` or a loopback address.
pub fn is_loopback(host: &str) -> bool {
    let is_port = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let is_address = address
            .parse::<Ipv6Addr>()
            .is_ok_and(|found| IpAddr::V6(found).to_canonical().is_loopback());
        return is_address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_name = name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    is_name && is_port(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_localhost_and_loopback_addresses_are_loopback() {
        for host in [
            "localhost",
            "LocalHost:8000",
            "localhost.",
            "127.0.0.1",
            "127.9.8.7:80",
            "[::1]",
            "[::1]:8000",
            "[::ffff:127.0.0.1]:8000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "example.com:8000",
            "localhost.example.com",
            "notlocalhost",
            "localhost:8000.example.com",
            "127.0.0.1.example.com",
            "128.0.0.1",
            "0.0.0.0:8000",
            "10.0.0.1",
            "[::2]",
            "[::1",
            "[::1].example.com",
            "::1",
            "localhost@example.com",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn requests_of_other_machines_and_pages_are_refused() {
        let check = |headers: &[(&str, &str)], expected: Option<Foreign>| {
            let found = foreign(headers.iter().map(|(name, value)| (*name, value.as_bytes())));
            assert_eq!(found, expected, "{headers:?}");
        };
        let host = ("Host", "localhost:8000");
        check(&[host], None);
        check(&[host, ("Origin", "http://LOCALHOST:8000")], None);
        check(&[host, ("Origin", "https://localhost:8000")], None);
        check(&[host, ("Origin", "")], None);
        check(&[], Some(Foreign::Host));
        check(&[host, host], Some(Foreign::Host));
        check(&[("Host", "rebound.example:8000")], Some(Foreign::Host));
        check(&[("HOST", "rebound.example")], Some(Foreign::Host));
        for origin in ["null", "http://localhost:9000", "http://a.example", "localhost:8000"] {
            check(&[host, ("Origin", origin)], Some(Foreign::Origin));
        }
        let own = ("Origin", "http://localhost:8000");
        check(&[host, own, ("origin", "http://a.example")], Some(Foreign::Origin));
        for name in ["Forwarded", "X-Forwarded-For", "x-forwarded-proto", "Via", "X-Real-IP"] {
            check(&[host, (name, "")], Some(Foreign::Forwarded));
        }
        let bytes = foreign([("host", &b"localhost"[..]), ("origin", b"http://\xff")]);
        assert_eq!(bytes, Some(Foreign::Origin));
    }
}
