//! The banner of `drumline serve`: addresses, shards, capacity, access, and a command that
//! publishes.
//!
//! Owns no state: facts in, text out.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Access;

/// An address that the server listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The address.
    pub address: SocketAddr,
    /// TLS: a host of its certificate, empty if the certificate names none; `None`: plain.
    pub tls: Option<String>,
}

/// Contents of the banner.
#[derive(Clone, Debug)]
pub struct Banner {
    /// Public address.
    pub public: Port,
    /// Further listeners, each with its name.
    pub listeners: Vec<String>,
    /// The internal port; `None`: there is none.
    pub internal: Option<Port>,
    /// Path of the WebSocket; `None`: it is disabled.
    pub websocket: Option<String>,
    /// Path of the API; `None`: it is disabled or refuses every request.
    pub api: Option<String>,
    /// Whether the public port serves the API although there is an internal port.
    pub api_is_public: bool,
    /// Key of the API.
    pub key: ShownKey,
    /// Whether the page is served.
    pub page: bool,
    /// Path of the admin page; `None`: it is disabled.
    pub admin: Option<String>,
    /// Processor of each shard; `None`: the shard could not be pinned.
    pub processors: Vec<Option<usize>>,
    /// Slots of each shard.
    pub slots: Vec<usize>,
    /// Lowest limit of the machine: connections, name of the limit, how the number is computed.
    pub bound: Option<(u64, String, String)>,
    /// Folder of the store; `None`: there is no store.
    pub store: Option<String>,
    /// Whether the server is open, or what closed it.
    pub access: Access,
    /// Whether the server runs in a container, where its loopback address is the container's own.
    pub is_container: bool,
    /// How clients can connect, or what to set so that they can.
    pub entrance: String,
}

/// The API key in the banner. A configured key is never shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShownKey {
    /// The API needs no key.
    None,
    /// The key was made for this run.
    Made(String),
    /// The operator set it.
    Configured,
}

impl Banner {
    /// The same with the address of the internal port, and with a host of the certificate of each
    /// port that has TLS, the public one first.
    #[must_use]
    pub fn with_ports(mut self, internal: Option<SocketAddr>, hosts: [Option<String>; 2]) -> Self {
        let [public, inner] = hosts;
        self.public.tls = public;
        self.internal = internal.map(|address| Port { address, tls: inner });
        self
    }
}

/// Text of the banner.
pub fn banner(facts: &Banner) -> String {
    let mut text = format!("Drumline {}\n\n", env!("CARGO_PKG_VERSION"));
    let mut line = |name: &str, value: String| _ = writeln!(text, "  {name:<12}{value}");
    line("listens on", listens(facts));
    for listener in &facts.listeners {
        line("", listener.clone());
    }
    if let Some(internal) = &facts.internal {
        line("internal", listens_internally(internal, facts.api_is_public));
    }
    line("shards", shards(&facts.processors));
    line("holds", holds(facts));
    if let Some(path) = &facts.store {
        line("store", path.clone());
    }
    line("access", access(facts));
    let inner = facts.internal.as_ref().unwrap_or(&facts.public);
    let mut part = |name: &str, value: String| _ = write!(text, "\n  {name}:\n    {value}\n");
    if let Some(path) = &facts.websocket {
        part("connect", format!("{}{path}", url("ws", &facts.public)));
    }
    if let Some(api) = &facts.api {
        let port = if facts.api_is_public { &facts.public } else { inner };
        part("publish", curl(port, api, &facts.key));
    }
    if facts.page {
        part("page", format!("{}/", url("http", inner)));
    }
    if let Some(path) = &facts.admin {
        part("admin page", format!("{}{path}", url("http", inner)));
    }
    text
}

fn listens(facts: &Banner) -> String {
    let Port { address, tls } = &facts.public;
    let tls = tls.is_some().then(|| "TLS".to_owned());
    let websocket = facts.websocket.as_ref().map(|path| format!("WebSocket at {path}"));
    let more: Vec<String> = tls.into_iter().chain(websocket).collect();
    if more.is_empty() { address.to_string() } else { format!("{address} ({})", more.join(", ")) }
}

fn listens_internally(Port { address, tls }: &Port, api_is_public: bool) -> String {
    let tls = if tls.is_some() { "TLS; " } else { "" };
    let api = if api_is_public { "" } else { "API, " };
    format!("{address} ({tls}{api}metrics, health and pages, which the public port lacks)")
}

/// Access of an open server in a container.
const IN_CONTAINER: &str = "open, because nothing is configured, and only to this container:\n\
    \x20             nothing outside can reach its loopback address. To be reached, it needs a\n\
    \x20             configuration: mount drumline.toml into the working folder, or set\n\
    \x20             DRUMLINE_CLIENT_TOKEN_HMAC_SECRET_KEY and DRUMLINE_HTTP_API_KEY. It then\n\
    \x20             listens on all addresses; publish the port (docker run -p 8000:8000)";

/// Whether the server is open, or what closed it.
fn access(facts: &Banner) -> String {
    match &facts.access {
        Access::Open if facts.is_container => IN_CONTAINER.to_owned(),
        Access::Open => "open, because nothing is configured: everybody on this machine may\n\
             \x20             connect, subscribe and publish; other machines cannot reach it.\n\
             \x20             `drumline genconfig --config drumline.toml` writes a configuration file"
            .to_owned(),
        Access::Closed(setting) => {
            format!("closed by {setting}\n  {:<12}{}", "clients", facts.entrance)
        }
    }
}

/// Command that publishes a message. It works on this machine, also if the name in the certificate
/// leads elsewhere.
fn curl(port: &Port, api: &str, key: &ShownKey) -> String {
    let key = match key {
        ShownKey::None => String::new(),
        ShownKey::Made(key) => format!(" -H 'X-API-Key: {key}'"),
        ShownKey::Configured => " -H 'X-API-Key: <http_api.key>'".to_owned(),
    };
    let body = r#"{"channel":"news","data":{"text":"hello"}}"#;
    let here = here(port.address);
    let (resolve, url) = match port.tls.as_deref() {
        None | Some("") => (String::new(), url("http", port)),
        Some(name) => {
            let at = format!("{name}:{}", here.port());
            let ip =
                if here.is_ipv6() { format!("[{}]", here.ip()) } else { here.ip().to_string() };
            (format!(" --resolve {at}:{ip}"), format!("https://{at}"))
        }
    };
    format!("curl{resolve}{key} -d '{body}' {url}{api}/publish")
}

/// URL of a port: its name where others can reach it, or its address as seen from this machine.
/// `scheme` is that of a plain port.
fn url(scheme: &str, port: &Port) -> String {
    let Port { address, tls } = port;
    match tls.as_deref() {
        None => format!("{scheme}://{}", here(*address)),
        Some(name) if !name.is_empty() && !address.ip().is_loopback() => {
            format!("{scheme}s://{name}:{}", address.port())
        }
        Some(_) => format!("{scheme}s://{}", here(*address)),
    }
}

/// An address as seen from this machine.
fn here(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn shards(processors: &[Option<usize>]) -> String {
    let mut cores: Vec<usize> = processors.iter().flatten().copied().collect();
    cores.sort_unstable();
    cores.dedup();
    let loose = processors.iter().filter(|processor| processor.is_none()).count();
    if cores.is_empty() {
        return format!("{} (not pinned to cores)", processors.len());
    }
    let mut text = format!("{} on cores {}", processors.len(), ranges(&cores));
    if loose > 0 {
        _ = write!(text, ", {loose} of them not pinned");
    }
    text
}

/// `0-3,5` for 0, 1, 2, 3 and 5.
fn ranges(sorted: &[usize]) -> String {
    let runs = sorted.chunk_by(|one, next| one + 1 == *next);
    let run = |run: &[usize]| match run {
        [first, .., last] => format!("{first}-{last}"),
        [only] => only.to_string(),
        [] => String::new(),
    };
    runs.map(run).collect::<Vec<_>>().join(",")
}

fn holds(facts: &Banner) -> String {
    let slots: u64 = facts.slots.iter().map(|slots| *slots as u64).sum();
    match &facts.bound {
        Some((bound, name, because)) if *bound < slots => {
            format!("{bound} connections, limited by {name}: {because}")
        }
        _ => format!(
            "{slots} connections, limited by {} shards with {} slots each; `drumline check`\n\
             \x20             shows how to hold more",
            facts.slots.len(),
            facts.slots.iter().max().unwrap_or(&0)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: &str, tls: Option<&str>) -> Port {
        Port { address: address.parse().unwrap(), tls: tls.map(str::to_owned) }
    }

    fn facts() -> Banner {
        Banner {
            public: port("0.0.0.0:8000", None),
            listeners: vec!["unix:/run/edge.sock (local)".into()],
            internal: None,
            websocket: Some("/connection/websocket".into()),
            api: Some("/api".into()),
            api_is_public: false,
            key: ShownKey::Made("abc".into()),
            page: true,
            admin: None,
            processors: vec![Some(0), Some(1), Some(3)],
            slots: vec![1000; 3],
            bound: Some((500, "memory".into(), "2 MiB".into())),
            store: None,
            access: Access::Open,
            is_container: false,
            entrance: "clients connect with a token".into(),
        }
    }

    #[test]
    fn the_banner_shows_addresses_capacity_and_a_publish_command() {
        let text = banner(&facts());
        let check = |part: &str| assert!(text.contains(part), "{part}\n{text}");
        check("0.0.0.0:8000 (WebSocket at /connection/websocket)");
        check("\n  connect:\n    ws://127.0.0.1:8000/connection/websocket\n");
        check("\n              unix:/run/edge.sock (local)\n");
        check("3 on cores 0-1,3\n");
        check("500 connections, limited by memory: 2 MiB\n");
        check("everybody on this machine may\n              connect, subscribe");
        check("-H 'X-API-Key: abc' -d '{\"channel\":\"news\"");
        check("http://127.0.0.1:8000/api/publish\n");
        check("    http://127.0.0.1:8000/\n");
        assert!(!text.contains("admin") && !text.contains("  store "), "{text}");
    }

    #[test]
    fn the_banner_names_the_folder_of_the_store() {
        let text = banner(&Banner { store: Some("/srv/store".into()), ..facts() });
        assert!(text.contains("\n  store       /srv/store\n"), "{text}");
    }

    #[test]
    fn ports_with_tls_are_shown_with_secure_schemes_and_the_name_of_their_certificate() {
        let text = banner(&Banner {
            public: port("0.0.0.0:443", Some("push.example.com")),
            internal: Some(port("127.0.0.1:9000", Some("push.example.com"))),
            admin: Some("/ops/".into()),
            ..facts()
        });
        let check = |part: &str| assert!(text.contains(part), "{part}\n{text}");
        check("0.0.0.0:443 (TLS, WebSocket at /connection/websocket)");
        check("wss://push.example.com:443/connection/websocket\n");
        check("internal    127.0.0.1:9000 (TLS; API, metrics,");
        check("curl --resolve push.example.com:9000:127.0.0.1 -H 'X-API-Key: abc' -d");
        check(" https://push.example.com:9000/api/publish\n");
        check("  page:\n    https://127.0.0.1:9000/\n");
        check("  admin page:\n    https://127.0.0.1:9000/ops/\n");
        assert!(!text.contains("http://") && !text.contains("ws://"), "{text}");
        let nameless = banner(&Banner { public: port("[::]:443", Some("")), ..facts() });
        assert!(nameless.contains("wss://[::1]:443/connection/websocket\n"), "{nameless}");
        assert!(nameless.contains(" https://[::1]:443/api/publish\n"), "{nameless}");
    }

    #[test]
    fn a_plain_internal_port_beside_tls_has_plain_addresses() {
        let text = banner(&Banner {
            public: port("10.0.0.5:443", Some("push.example.com")),
            internal: Some(port("127.0.0.1:9000", None)),
            api_is_public: true,
            admin: Some("/".into()),
            ..facts()
        });
        let check = |part: &str| assert!(text.contains(part), "{part}\n{text}");
        check("internal    127.0.0.1:9000 (metrics, health and pages,");
        check("curl --resolve push.example.com:443:10.0.0.5 -H");
        check("  admin page:\n    http://127.0.0.1:9000/\n");
    }

    #[test]
    fn an_open_server_in_a_container_says_how_it_can_be_reached() {
        let text = banner(&Banner { is_container: true, ..facts() });
        assert!(
            text.contains("set\n              DRUMLINE_CLIENT_TOKEN_HMAC_SECRET_KEY"),
            "{text}"
        );
        let closed = Access::Closed("drumline.toml".into());
        let text = banner(&Banner { is_container: true, access: closed, ..facts() });
        assert!(!text.contains("container"), "{text}");
    }

    #[test]
    fn a_configured_key_is_not_shown() {
        let text = banner(&Banner { key: ShownKey::Configured, ..facts() });
        assert!(text.contains("-H 'X-API-Key: <http_api.key>' -d"), "{text}");
    }

    #[test]
    fn the_banner_omits_what_is_disabled() {
        let text = banner(&Banner {
            internal: Some(port("[::]:9000", None)),
            key: ShownKey::None,
            websocket: None,
            page: false,
            processors: vec![Some(2), None],
            bound: None,
            access: Access::Closed("drumline.toml".into()),
            ..facts()
        });
        assert!(!text.contains("X-API-Key") && !text.contains("page:"), "{text}");
        assert!(text.contains("http://[::1]:9000/api/publish"), "{text}");
        assert!(text.contains("2 on cores 2, 1 of them not pinned"), "{text}");
        let text_unpinned = banner(&Banner { processors: vec![None; 2], ..facts() });
        assert!(text_unpinned.contains("2 (not pinned to cores)\n"), "{text_unpinned}");
        assert!(text.contains("3000 connections") && !text.contains("WebSocket"), "{text}");
        let told = "closed by drumline.toml\n  clients     clients connect with a token\n";
        assert!(text.contains(told), "{text}");
    }
}
