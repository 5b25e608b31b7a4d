//! The checks that every request for the admin page passes: Host, Origin and the browser's word on
//! where the request comes from.
//!
//! Owns no state. The invariant: no page of another origin, and no page behind a name that the
//! operator has not listed, reaches the admin page.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};

use crate::wire::http::origin::{is_own_page, origin};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The Host header is absent, occurs more than once or has a name that is not listed.
    Host,
    /// The Origin header is absent where it is needed, or not this server's own.
    Origin,
    /// The browser says that another site has sent the request.
    Site,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::Host => {
                "the Host header has a name that is not known; open the page by its IP address, or \
                 add the name to admin.allowed_hosts"
            }
            Refused::Origin => "the Origin header is absent or not this server's own",
            Refused::Site => "a page of another site has sent the request",
        })
    }
}

/// How a request reached the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// The Host header.
    pub(super) host: String,
    /// Whether the browser speaks TLS, with this server or with a proxy before it.
    pub(super) is_secure: bool,
}

impl Caller {
    /// Name of the session cookie. Browsers do not tell ports apart, so each port has its own.
    pub(super) fn cookie_name(&self) -> String {
        let port = self.host.rsplit_once(':').map_or("", |(_, port)| port);
        let port = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        format!("drumline_admin_{}", port.unwrap_or_default())
    }
}

/// Checks a request. A `navigation` to the page itself may come from anywhere.
pub(super) fn check(
    request: &Request,
    allowed: &[String],
    navigation: bool,
) -> Result<Caller, Refused> {
    let headers = request.headers();
    let host = one(headers, header::HOST.as_str()).ok_or(Refused::Host)?;
    let target = request.uri().authority().map_or(host, |target| target.as_str());
    if !is_known(host, allowed) || !is_known(target, allowed) {
        return Err(Refused::Host);
    }
    let origins = headers.get_all(header::ORIGIN).iter().map(|value| value.as_bytes());
    let origin = origin(origins).map_err(|_| Refused::Origin)?;
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if origin.map_or(changes, |origin| !is_own_page(origin, host)) {
        return Err(Refused::Origin);
    }
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let is_own = site.is_none_or(|site| matches!(site, b"same-origin" | b"none"));
    if !is_own && !navigation {
        return Err(Refused::Site);
    }
    let is_secure = origin.is_some_and(|origin| origin.starts_with("https://"));
    Ok(Caller { host: host.to_owned(), is_secure })
}

/// The value of a header that occurs once.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Whether a host, with or without a port, is an IP address, `localhost` or a listed name. A page
/// that reaches the server by rebinding a name of its own has that name in its requests.
fn is_known(host: &str, allowed: &[String]) -> bool {
    let is_port = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let is_end = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return is_end && address.parse::<Ipv6Addr>().is_ok();
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_listed = || allowed.iter().any(|known| known.eq_ignore_ascii_case(name));
    let is_name = name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok();
    is_port(port) && !name.is_empty() && (is_name || is_listed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn request(method: &str, headers: &[(&str, &str)]) -> Request {
        let builder = Request::builder().method(method).uri("/admin/login");
        let builder =
            headers.iter().fold(builder, |made, (name, value)| made.header(*name, *value));
        builder.body(Body::empty()).unwrap()
    }

    #[test]
    fn only_addresses_and_listed_names_are_hosts() {
        let allowed = ["ops.example.com".to_owned()];
        for host in ["10.0.0.1", "127.0.0.1:9000", "[::1]:9000", "[fe80::1]", "LocalHost:9000"] {
            assert!(is_known(host, &allowed), "{host}");
        }
        assert!(is_known("OPS.example.com.:443", &allowed));
        for host in [
            "",
            ":9000",
            "rebound.example",
            "ops.example.com.evil.example",
            "ops.example.com:x",
            "127.0.0.1.evil.example",
            "[::1",
            "[::1]x",
            "localhost@evil.example",
        ] {
            assert!(!is_known(host, &allowed), "{host}");
        }
    }

    #[test]
    fn requests_of_other_origins_and_sites_are_refused() {
        let host = ("host", "10.0.0.1:9000");
        let own = ("origin", "http://10.0.0.1:9000");
        let verdict = |method: &str, headers: &[(&str, &str)]| {
            check(&request(method, headers), &[], false).map(|caller| caller.is_secure)
        };
        assert_eq!(verdict("GET", &[host]), Ok(false));
        assert_eq!(verdict("POST", &[host, own]), Ok(false));
        assert_eq!(verdict("POST", &[host, ("origin", "https://10.0.0.1:9000")]), Ok(true));
        assert_eq!(verdict("POST", &[host, own, ("sec-fetch-site", "same-origin")]), Ok(false));
        assert_eq!(verdict("POST", &[host]), Err(Refused::Origin));
        assert_eq!(verdict("POST", &[host, own, own]), Err(Refused::Origin));
        for origin in ["null", "http://10.0.0.1", "http://10.0.0.1:9001", "http://evil.example"] {
            assert_eq!(verdict("POST", &[host, ("origin", origin)]), Err(Refused::Origin));
            assert_eq!(verdict("GET", &[host, ("origin", origin)]), Err(Refused::Origin));
        }
        for site in ["cross-site", "same-site"] {
            let asked = [host, ("sec-fetch-site", site)];
            assert_eq!(verdict("GET", &asked), Err(Refused::Site));
            assert!(check(&request("GET", &asked), &[], true).is_ok(), "a link to the page");
        }
        assert_eq!(verdict("GET", &[]), Err(Refused::Host));
        assert_eq!(verdict("GET", &[host, host]), Err(Refused::Host));
        assert_eq!(verdict("GET", &[("host", "rebound.example:9000")]), Err(Refused::Host));
        let absolute = Request::get("http://evil.example/").header("host", "10.0.0.1");
        assert!(check(&absolute.body(Body::empty()).unwrap(), &[], true).is_err());
        let caller = check(&request("GET", &[host]), &[], false).unwrap();
        assert_eq!(caller.cookie_name(), "drumline_admin_9000");
    }
}
