//! Numbers of proxies and hooks, by which the data plane refers to backend endpoints.
//!
//! Owns the numbers. Never sends a request to the backend. The invariant: every number that the
//! data plane gets belongs to a proxy whose endpoint is set.

use crate::model::backend::{ContextFields, RpcUpstreams, Upstream, Upstreams};

use super::sections::{ChannelOptions, Config, NamedProxy, Proxy, RpcOptions};

/// Proxies and hooks that have their own section, in the order of their numbers.
#[derive(Clone, Copy)]
enum ProxySection {
    Connect,
    Refresh,
    Subscribe,
    Publish,
    SubRefresh,
    Rpc,
    DisconnectHook,
    UnsubscribeHook,
}

/// Whether the server itself sets a header in requests to the backend. Such a header is not passed.
pub fn is_own_header(name: &str) -> bool {
    OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Headers that the server itself sets in requests to the backend.
const OWN_HEADERS: [&str; 7] =
    ["connection", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"];

/// The name that selects the proxy of the section, as in Centrifugo, where it is the default.
pub(super) const OWN_PROXY: &str = "default";

/// Whether a name selects the proxy of the section instead of a named one.
pub(super) fn is_own_proxy(name: &str) -> bool {
    name.is_empty() || name == OWN_PROXY
}

/// Number of proxies and hooks that have their own section.
const SECTION_PROXIES: u16 = ProxySection::UnsubscribeHook as u16 + 1;

impl ProxySection {
    fn upstream(self) -> Upstream {
        Upstream(self as u16)
    }

    fn when(self, enabled: bool) -> Option<Upstream> {
        enabled.then(|| self.upstream())
    }

    /// The named proxy, or the proxy of this section if `name` is empty or "default"; `None` unless
    /// enabled. The numbers of named proxies follow those of the sections.
    fn or_named(self, enabled: bool, name: &str, named: &[NamedProxy]) -> Option<Upstream> {
        let found = named.iter().position(|proxy| proxy.name == name);
        let found = found.map(|at| Upstream(SECTION_PROXIES + at as u16));
        if is_own_proxy(name) { self.when(enabled) } else { found.filter(|_| enabled) }
    }
}

/// The proxies and the hook of one group of channels.
pub(super) struct ChannelUpstreams {
    pub(super) subscribe: Option<Upstream>,
    pub(super) publish: Option<Upstream>,
    pub(super) sub_refresh: Option<Upstream>,
    pub(super) unsubscribe_hook: Option<Upstream>,
}

impl ChannelUpstreams {
    pub(super) fn of(options: &ChannelOptions, named: &[NamedProxy]) -> Self {
        let upstream = |own: ProxySection, enabled, name: &str| own.or_named(enabled, name, named);
        ChannelUpstreams {
            subscribe: upstream(
                ProxySection::Subscribe,
                options.subscribe_proxy_enabled,
                &options.subscribe_proxy_name,
            ),
            publish: upstream(
                ProxySection::Publish,
                options.publish_proxy_enabled,
                &options.publish_proxy_name,
            ),
            sub_refresh: upstream(
                ProxySection::SubRefresh,
                options.sub_refresh_proxy_enabled,
                &options.sub_refresh_proxy_name,
            ),
            unsubscribe_hook: ProxySection::UnsubscribeHook.when(options.unsubscribe_hook_enabled),
        }
    }

    fn all(&self) -> impl Iterator<Item = Upstream> {
        let Self { subscribe, publish, sub_refresh, unsubscribe_hook } = self;
        [*subscribe, *publish, *sub_refresh, *unsubscribe_hook].into_iter().flatten()
    }
}

impl Config {
    /// Every proxy and hook with the path of its section. The index is its number.
    pub fn all_proxies(&self) -> Vec<(String, &Proxy)> {
        let (client, channel) = (&self.client, &self.channel);
        let own = [
            ("client.proxy.connect", &client.proxy.connect.proxy),
            ("client.proxy.refresh", &client.proxy.refresh.proxy),
            ("channel.proxy.subscribe", &channel.proxy.subscribe),
            ("channel.proxy.publish", &channel.proxy.publish),
            ("channel.proxy.sub_refresh", &channel.proxy.sub_refresh),
            ("rpc.proxy", &self.rpc.proxy),
            ("client.hook.disconnect", &client.hook.disconnect.proxy),
            ("channel.hook.unsubscribe", &channel.hook.unsubscribe),
        ];
        let own = own.into_iter().map(|(section, proxy)| (section.to_owned(), proxy));
        let named = self.proxies.iter().enumerate();
        let named = named.map(|(at, one)| (format!("proxies[{at}] {:?}", one.name), &one.proxy));
        own.chain(named).collect()
    }

    /// The numbers of the proxies and hooks that are enabled.
    pub fn used_proxies(&self) -> Vec<Upstream> {
        let Upstreams { connect, refresh, calls, disconnect_hook, .. } = self.own_upstreams();
        let channel = &self.channel;
        let named = channel.namespaces.iter().map(|namespace| &namespace.options);
        let groups = named.chain([&channel.without_namespace]);
        let of_channels = groups.flat_map(|options| {
            ChannelUpstreams::of(options, &self.proxies).all().collect::<Vec<_>>()
        });
        let mut used: Vec<Upstream> = [connect, refresh, calls.without, disconnect_hook]
            .into_iter()
            .chain(calls.named.into_values())
            .flatten()
            .chain(of_channels)
            .collect();
        used.sort_unstable_by_key(|upstream| upstream.0);
        used.dedup();
        used
    }

    /// The proxies and hooks that concern no channel, without the context that they need.
    fn own_upstreams(&self) -> Upstreams {
        let (client, rpc) = (&self.client, &self.rpc);
        let upstream = |options: &RpcOptions| {
            ProxySection::Rpc.or_named(options.proxy_enabled, &options.proxy_name, &self.proxies)
        };
        let named = rpc.namespaces.iter();
        let calls = RpcUpstreams {
            without: upstream(&rpc.without_namespace),
            named: named.map(|one| (one.name.as_str().into(), upstream(&one.options))).collect(),
            boundary: rpc.namespace_boundary.clone(),
        };
        Upstreams {
            connect: ProxySection::Connect.when(client.proxy.connect.enabled),
            refresh: ProxySection::Refresh.when(client.proxy.refresh.enabled),
            calls,
            disconnect_hook: ProxySection::DisconnectHook.when(client.hook.disconnect.enabled),
            waiting_max: self.engine.hooks_max,
            wants: ContextFields::default(),
        }
    }

    /// The proxies and hooks that concern no channel, with the headers and `meta` of clients that
    /// any enabled proxy needs.
    pub fn upstreams(&self) -> Upstreams {
        let mut headers = self.wanted(|proxy| &proxy.http_headers);
        if let Some(name) = self.user_header().filter(|name| !headers.contains(name)) {
            headers.push(name);
        }
        let emulated = self.wanted(|proxy| &proxy.emulated_headers);
        let meta = self.used().any(|proxy| proxy.include_connection_meta);
        Upstreams { wants: ContextFields { headers, emulated, meta }, ..self.own_upstreams() }
    }

    /// The header that contains the user's id, in lower case; `None`: there is none.
    pub(super) fn user_header(&self) -> Option<String> {
        let name = self.client.user_id_http_header.to_ascii_lowercase();
        (!name.is_empty()).then_some(name)
    }

    /// The proxies and hooks that are enabled.
    fn used(&self) -> impl Iterator<Item = &Proxy> {
        let proxies = self.all_proxies();
        self.used_proxies().into_iter().map(move |upstream| proxies[usize::from(upstream.0)].1)
    }

    /// The names of the headers that any enabled proxy needs, in lower case.
    fn wanted(&self, headers: impl Fn(&Proxy) -> &Vec<String>) -> Vec<String> {
        let named = self.used().flat_map(|proxy| headers(proxy).iter());
        let passed = named.filter(|name| !is_own_header(name));
        let mut names: Vec<String> = passed.map(|name| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
