//! URLs of brokers: `amqp://user:password@host:port/vhost`.
//!
//! Owns the syntax. Never connects. The invariant: an error shows neither user nor password.

use percent_encoding::percent_decode_str;

use super::error::{Error, error};
use super::sections::RabbitMq;

/// A parsed URL of a broker, with the credentials that apply.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// Connect with TLS.
    pub tls: bool,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User.
    pub user: String,
    /// Password. Never shown.
    pub password: String,
    /// Virtual host.
    pub vhost: String,
}

impl std::fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

/// Port of AMQP, and of AMQP with TLS.
const PORTS: [u16; 2] = [5672, 5671];

impl BrokerUrl {
    /// The broker of a consumer.
    ///
    /// # Errors
    /// `url` is not a URL of AMQP.
    pub fn of(options: &RabbitMq) -> Result<Self, Error> {
        let mut url = parse(options.url.reveal()).map_err(|cause| {
            let cure = "write it as amqp://host:5672/vhost or amqps://host:5671/vhost; write \
                        special characters of a user or password as %XX, or set user and password";
            error(format!("url {}: {cause}", options.url), cure)
        })?;
        for (own, given) in [
            (&mut url.user, options.user.as_str()),
            (&mut url.password, options.password.reveal()),
            (&mut url.vhost, options.vhost.as_str()),
        ] {
            if !given.is_empty() {
                given.clone_into(own);
            }
        }
        Ok(url)
    }

    /// The URL without credentials, for logs.
    pub fn shown(&self) -> String {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        let host = &self.host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let vhost = if self.vhost == "/" { String::new() } else { format!("/{}", self.vhost) };
        format!("{scheme}://{host}:{}{vhost}", self.port)
    }
}

fn parse(text: &str) -> Result<BrokerUrl, &'static str> {
    let (tls, rest) = match text.split_once("://") {
        Some(("amqp", rest)) => (false, rest),
        Some(("amqps", rest)) => (true, rest),
        _ => return Err("it does not begin with amqp:// or amqps://"),
    };
    if rest.contains(['?', '#']) {
        return Err("it has a query or fragment, which have no effect; remove it");
    }
    let (authority, path) =
        rest.split_once('/').map_or((rest, None), |(before, path)| (before, Some(path)));
    let (credentials, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let (host, port) = match place.strip_prefix('[') {
        Some(inside) => {
            let (host, after) = inside.split_once(']').ok_or("a `[` has no `]`")?;
            (host, after.strip_prefix(':'))
        }
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err("it names no host");
    }
    let port = match port {
        Some(port) => port.parse().map_err(|_| "the port is not a number from 1 to 65535")?,
        None => PORTS[usize::from(tls)],
    };
    let path = path.filter(|path| !path.is_empty());
    if path.is_some_and(|path| path.contains('/')) {
        return Err("the virtual host contains a slash; write it as %2F");
    }
    let or = |text: &str, default: &str| {
        let text = decoded(text);
        text.map(|text| if text.is_empty() { default.to_owned() } else { text })
    };
    Ok(BrokerUrl {
        tls,
        host: host.to_owned(),
        port,
        user: or(user, "guest")?,
        password: or(password, "guest")?,
        vhost: or(path.unwrap_or_default(), "/")?,
    })
}

fn decoded(text: &str) -> Result<String, &'static str> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| "a part of it is not UTF-8 after decoding %XX")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Result<BrokerUrl, Error> {
        BrokerUrl::of(&RabbitMq { url: url.into(), ..RabbitMq::default() })
    }

    #[test]
    fn a_url_names_broker_credentials_and_virtual_host() {
        for (url, tls, host, port, user, password, vhost) in [
            ("amqp://h", false, "h", 5672, "guest", "guest", "/"),
            ("amqps://h/", true, "h", 5671, "guest", "guest", "/"),
            ("amqp://h:1/v", false, "h", 1, "guest", "guest", "v"),
            ("amqp://u:p%40x@h/%2Fa", false, "h", 5672, "u", "p@x", "/a"),
            ("amqp://u@[::1]:2", false, "::1", 2, "u", "guest", "/"),
            ("amqp://u:a:b@c@h", false, "h", 5672, "u", "a:b@c", "/"),
        ] {
            let found = of(url).unwrap();
            let expected = (tls, host, port, user, password, vhost);
            let BrokerUrl { tls, host, port, user, password, vhost } = &found;
            assert_eq!((*tls, &**host, *port, &**user, &**password, &**vhost), expected, "{url}");
            assert!(!format!("{found:?}").contains("p@x"), "{found:?}");
        }
        let own = RabbitMq {
            url: "amqp://u:p@h/v".into(),
            user: "other".into(),
            password: "secret".into(),
            vhost: "w".into(),
            ..RabbitMq::default()
        };
        let found = BrokerUrl::of(&own).unwrap();
        assert_eq!((&*found.user, &*found.password, &*found.vhost), ("other", "secret", "w"));
        assert_eq!(found.shown(), "amqp://h:5672/w");
        assert_eq!(of("amqps://[::1]").unwrap().shown(), "amqps://[::1]:5671");
    }

    #[test]
    fn a_url_that_names_no_broker_is_refused_without_showing_the_password() {
        for (url, cause) in [
            ("", "does not begin with"),
            ("http://u:hunter2@h", "does not begin with"),
            ("amqp://u:hunter2@", "names no host"),
            ("amqp://u:hunter2@h:x", "port is not a number"),
            ("amqp://u:hunter2@h/a/b", "contains a slash"),
            ("amqp://u:hunter2@h?heartbeat=1", "query"),
            ("amqp://u:hunter2@[::1", "has no `]`"),
            ("amqp://u:hunter2%ff@h", "not UTF-8"),
        ] {
            let refused = of(url).unwrap_err();
            assert!(refused.cause.contains(cause), "{url}: {refused}");
            assert!(!refused.to_string().contains("hunter2"), "{refused}");
        }
    }
}
