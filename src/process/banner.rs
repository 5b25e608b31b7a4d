//! The banner of `drumline serve`: addresses, shards, capacity, access, and a command that
//! publishes.
//!
//! Owns no state: facts in, text out.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Access;

/// Contents of the banner.
#[derive(Clone, Debug)]
pub struct Banner {
    /// Public address.
    pub address: SocketAddr,
    /// Further listeners, each with its name.
    pub listeners: Vec<String>,
    /// Address of the internal port; `None`: there is none.
    pub internal: Option<SocketAddr>,
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
    /// Processor of each shard; `None`: the shard could not be pinned.
    pub processors: Vec<Option<usize>>,
    /// Slots of each shard.
    pub slots: Vec<usize>,
    /// Lowest limit of the machine: connections, name of the limit, how the number is computed.
    pub bound: Option<(u64, String, String)>,
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

/// Text of the banner.
pub fn banner(facts: &Banner) -> String {
    let mut text = format!("Drumline {}\n\n", env!("CARGO_PKG_VERSION"));
    let mut line = |name: &str, value: String| _ = writeln!(text, "  {name:<12}{value}");
    line("listens on", listens(facts));
    for listener in &facts.listeners {
        line("", listener.clone());
    }
    if let Some(internal) = facts.internal {
        line(
            "internal",
            format!("{internal} (API, metrics, health and pages, which the public port lacks)"),
        );
    }
    line("shards", shards(&facts.processors));
    line("holds", holds(facts));
    line("access", access(facts));
    let inner = url(facts.internal.unwrap_or(facts.address));
    if let Some(api) = &facts.api {
        let server = if facts.api_is_public { &url(facts.address) } else { &inner };
        _ = write!(text, "\n  publish:\n    {}\n", curl(server, api, &facts.key));
    }
    if facts.page {
        _ = write!(text, "\n  page:\n    {inner}/\n");
    }
    text
}

fn listens(facts: &Banner) -> String {
    match &facts.websocket {
        Some(path) => format!("{} (WebSocket at {path})", facts.address),
        None => facts.address.to_string(),
    }
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

/// Command that publishes a message.
fn curl(url: &str, api: &str, key: &ShownKey) -> String {
    let key = match key {
        ShownKey::None => String::new(),
        ShownKey::Made(key) => format!(" -H 'X-API-Key: {key}'"),
        ShownKey::Configured => " -H 'X-API-Key: <http_api.key>'".to_owned(),
    };
    let body = r#"{"channel":"news","data":{"text":"hello"}}"#;
    format!("curl{key} -d '{body}' {url}{api}/publish")
}

/// URL of an address, as seen from this machine.
fn url(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
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

    fn facts() -> Banner {
        Banner {
            address: "0.0.0.0:8000".parse().unwrap(),
            listeners: vec!["unix:/run/edge.sock (local)".into()],
            internal: None,
            websocket: Some("/connection/websocket".into()),
            api: Some("/api".into()),
            api_is_public: false,
            key: ShownKey::Made("abc".into()),
            page: true,
            processors: vec![Some(0), Some(1), Some(3)],
            slots: vec![1000; 3],
            bound: Some((500, "memory".into(), "2 MiB".into())),
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
        check("\n              unix:/run/edge.sock (local)\n");
        check("3 on cores 0-1,3\n");
        check("500 connections, limited by memory: 2 MiB\n");
        check("everybody on this machine may\n              connect, subscribe");
        check("-H 'X-API-Key: abc' -d '{\"channel\":\"news\"");
        check("http://127.0.0.1:8000/api/publish\n");
        check("    http://127.0.0.1:8000/\n");
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
            internal: Some("[::]:9000".parse().unwrap()),
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
