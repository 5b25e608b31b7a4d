//! Rules for channel names: the namespace of a channel, its options, and the users it is for.
//!
//! Owns the options as data. Never knows a connection. The invariant: a channel of an unknown
//! namespace has no options, so every operation on it is refused.

use std::collections::HashMap;

use regex::Regex;

use crate::model::backend::Upstream;
use crate::model::retention::Retention;
use crate::wire::protocol::Error;

/// The clients that are allowed to perform an operation on a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    /// Allow clients with a user ID.
    pub client: bool,
    /// Extend `client` and `subscriber` to clients without a user ID.
    pub anonymous: bool,
    /// Allow clients that are subscribed to the channel.
    pub subscriber: bool,
}

impl Permit {
    /// Whether the operation is allowed for a client with this user ID (empty: none) that is or is
    /// not subscribed to the channel.
    pub fn allows(self, user: &str, subscribed: bool) -> bool {
        (self.client || (self.subscriber && subscribed)) && (self.anonymous || !user.is_empty())
    }
}

/// Format of the data of publications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublicationFormat {
    /// JSON text. Empty data is refused.
    #[default]
    NotEmpty,
    /// JSON text.
    Json,
    /// A JSON object.
    Object,
    /// Any bytes, or none. Only Protobuf clients can subscribe.
    Binary,
}

/// How a subscriber recovers missed publications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryMode {
    /// Send all missed publications, or none.
    #[default]
    Stream,
    /// Send only the latest publication.
    Cache,
}

/// How publications of a channel are delayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Send only the latest publication of each interval.
    Latest {
        /// Length of the interval in milliseconds.
        interval: u64,
    },
    /// Collect publications and send them together.
    Together {
        /// Maximum delay of the first collected publication in milliseconds.
        window: u64,
        /// Number of collected publications that are sent without further delay.
        publications: u32,
    },
}

/// Options of the channels of one namespace.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Retention of the history; `None`: the channel keeps no history.
    pub retention: Option<Retention>,
    /// Keep the presence of the channel: the clients that are subscribed.
    pub presence: bool,
    /// Publish a push when a client joins or leaves.
    pub join_leave: bool,
    /// Send join and leave pushes to all subscribers, requested or not.
    pub force_push_join_leave: bool,
    /// Check the position of all subscribers, requested or not.
    pub force_positioning: bool,
    /// Allow clients to request positioning when they subscribe.
    pub allow_positioning: bool,
    /// Allow recovery for all subscribers, requested or not.
    pub force_recovery: bool,
    /// Allow clients to request recovery when they subscribe.
    pub allow_recovery: bool,
    /// Recovery mode: all missed publications, or only the latest.
    pub recovery_mode: RecoveryMode,
    /// In recovery mode `Cache`, handle every subscribe as a request for recovery.
    pub auto_cache_recover: bool,
    /// Allow subscribers to request deltas to the previous publication.
    pub allow_delta: bool,
    /// Allow all publications to be sent as deltas.
    pub delta_publish: bool,
    /// Allow JSON subscribers to receive a number instead of the channel's name in pushes.
    pub allow_compaction: bool,
    /// Delay of publications; `None`: publications are sent at once.
    pub pace: Option<Pace>,
    /// Allow subscribers to filter publications by tags.
    pub allow_filter: bool,
    /// Allow the users listed in the name of a channel, after the user boundary, to subscribe.
    pub user_limited: bool,
    /// Clients that may subscribe. `subscriber` has no effect here.
    pub subscribe: Permit,
    /// Clients that may publish.
    pub publish: Permit,
    /// Clients that may read the presence.
    pub see_presence: Permit,
    /// Clients that may read the history.
    pub read_history: Permit,
    /// Pattern for the part of a name after the namespace; `None`: names must be ASCII.
    pub regex: Option<Regex>,
    /// Format of the data of publications.
    pub format: PublicationFormat,
    /// Backend that decides about subscribes; `None`: no subscribe proxy.
    pub subscribe_proxy: Option<Upstream>,
    /// Backend that decides about publishes; `None`: no publish proxy.
    pub publish_proxy: Option<Upstream>,
    /// Backend that extends subscriptions; `None`: no subscription refresh proxy.
    pub sub_refresh_proxy: Option<Upstream>,
    /// Backend that receives ended subscriptions; `None`: no unsubscribe hook.
    pub unsubscribe_hook: Option<Upstream>,
}

impl Options {
    /// Whether the store keeps the history of the channels.
    pub fn is_durable(&self) -> bool {
        self.retention.is_some_and(|retention| retention.durable)
    }
}

/// Maximum length in bytes of a channel name that a backend gives, unless `max_length` is larger.
/// `Error::NAME_TOO_LONG` states it.
const BACKEND_NAME_BYTES: usize = 4096;

/// All namespaces of a node.
#[derive(Clone, Debug)]
pub struct Namespaces {
    /// Options of channels without a namespace in their name.
    pub without: Options,
    /// Options of each namespace, by its name.
    pub named: HashMap<Box<str>, Options>,
    /// Prefix of private channels, which need a subscription token; empty: no private channels.
    pub private_prefix: String,
    /// Separates the namespace from the rest of a name; empty: no namespaces.
    pub boundary: String,
    /// Separates the list of users from the rest of a name; empty: no user lists.
    pub user_boundary: String,
    /// Separates users in that list; empty: the list is one user.
    pub user_separator: String,
    /// Maximum length of a channel's name in bytes.
    pub max_length: usize,
}

impl Default for Namespaces {
    fn default() -> Self {
        Namespaces {
            without: Options::default(),
            named: HashMap::new(),
            private_prefix: "$".into(),
            boundary: ":".into(),
            user_boundary: "#".into(),
            user_separator: ",".into(),
            max_length: 255,
        }
    }
}

impl Namespaces {
    /// Options of a channel, or an error if its namespace is unknown. Does not check the rules for
    /// names that clients give.
    pub fn of(&self, channel: &str) -> Result<&Options, Error> {
        Ok(self.split(channel)?.0)
    }

    /// Options of a channel that a client names, or an error if the name is invalid. Its length is
    /// not checked.
    pub fn of_client(&self, channel: &str) -> Result<&Options, Error> {
        let (options, rest) = self.split(channel)?;
        let legal = match &options.regex {
            Some(regex) => regex.is_match(rest),
            None => channel.is_ascii(),
        };
        if legal { Ok(options) } else { Err(Error::BAD_REQUEST) }
    }

    /// Options of a channel that a client subscribes to, or an error if the name is invalid or too
    /// long.
    pub fn of_subscriber(&self, channel: &str) -> Result<&Options, Error> {
        if channel.len() > self.max_length {
            return Err(Error::BAD_REQUEST);
        }
        self.of_client(channel)
    }

    /// Options of a channel and the part of its name after the namespace.
    fn split<'a>(&self, channel: &'a str) -> Result<(&Options, &'a str), Error> {
        if channel.is_empty() {
            return Err(Error::BAD_REQUEST);
        }
        if channel.len() > self.max_length.max(BACKEND_NAME_BYTES) {
            return Err(Error::NAME_TOO_LONG);
        }
        let name = match self.is_private(channel) {
            true => channel.strip_prefix(&*self.private_prefix).unwrap_or(channel),
            false => channel,
        };
        let parts = match self.boundary.as_str() {
            "" => None,
            boundary => name.split_once(boundary),
        };
        match parts {
            None => Ok((&self.without, channel)),
            Some(("", rest)) => Ok((&self.without, rest)),
            Some((namespace, rest)) => {
                Ok((self.named.get(namespace).ok_or(Error::UNKNOWN_CHANNEL)?, rest))
            }
        }
    }

    /// Whether a channel needs a subscription token.
    pub fn is_private(&self, channel: &str) -> bool {
        !self.private_prefix.is_empty() && channel.starts_with(&self.private_prefix)
    }

    /// The users listed in the name of a channel; `None`: the name has no user boundary.
    fn users<'a>(&'a self, channel: &'a str) -> Option<impl Iterator<Item = &'a str>> {
        if self.user_boundary.is_empty() {
            return None;
        }
        let (_, users) = channel.rsplit_once(&*self.user_boundary)?;
        let separator = if self.user_separator.is_empty() { "\0" } else { &*self.user_separator };
        Some(users.split(separator))
    }

    /// Whether the name of the channel decides who may subscribe: the options allow user lists, and
    /// the name has one.
    pub fn is_user_limited(&self, options: &Options, channel: &str) -> bool {
        options.user_limited
            && !self.user_boundary.is_empty()
            && channel.contains(&*self.user_boundary)
    }

    /// Whether the name of a user-limited channel lists this user.
    pub fn lists(&self, channel: &str, user: &str) -> bool {
        let mut listed = self.users(channel).into_iter().flatten();
        !user.is_empty() && listed.any(|listed_user| listed_user == user)
    }

    /// Name of the personal channel of a user.
    pub fn personal(&self, namespace: &str, user: &str) -> String {
        let boundary = if namespace.is_empty() { "" } else { &*self.boundary };
        format!("{namespace}{boundary}{}{user}", self.user_boundary)
    }

    /// Whether any channel keeps history.
    pub fn keep_history(&self) -> bool {
        std::iter::once(&self.without)
            .chain(self.named.values())
            .any(|options| options.retention.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_in_a_channel_name_selects_its_options() {
        let chat = Options { presence: true, ..Options::default() };
        let strict = Regex::new("^[0-9]+$").ok();
        let strict = Options { regex: strict, ..Options::default() };
        let named = [("chat".into(), chat), ("strict".into(), strict)].into();
        let namespaces = Namespaces { named, ..Namespaces::default() };
        let check = |channel: &str, expected: Result<bool, Error>| {
            let found = namespaces.of_subscriber(channel).map(|options| options.presence);
            assert_eq!(found, expected, "{channel}");
        };
        check("news", Ok(false));
        check("chat:1", Ok(true));
        check("$chat:1", Ok(true));
        check("chat:a:b", Ok(true));
        check("chat", Ok(false));
        check(":chat", Ok(false));
        check("$:chat", Ok(false));
        check("chats:1", Err(Error::UNKNOWN_CHANNEL));
        check("strict:12", Ok(false));
        check("strict:x", Err(Error::BAD_REQUEST));
        check("", Err(Error::BAD_REQUEST));
        check("n\u{e9}ws", Err(Error::BAD_REQUEST));
        check(&"x".repeat(256), Err(Error::BAD_REQUEST));
        assert!(namespaces.is_private("$a") && !namespaces.is_private("a$"));
    }

    #[test]
    fn names_from_a_backend_are_bound_by_their_own_limit() {
        let strict = Options { regex: Regex::new("^[0-9]+$").ok(), ..Options::default() };
        let named = [("strict".into(), strict)].into();
        let namespaces = Namespaces { named, ..Namespaces::default() };
        let long = "x".repeat(256);
        for channel in ["n\u{e9}ws", "strict:x", &long] {
            assert_eq!(namespaces.of(channel).map(|_| ()), Ok(()), "{channel}");
            let found = namespaces.of_subscriber(channel).map(|_| ());
            assert_eq!(found, Err(Error::BAD_REQUEST), "{channel}");
        }
        assert_eq!(namespaces.of_client(&long).map(|_| ()), Ok(()));
        let longest = "x".repeat(BACKEND_NAME_BYTES);
        assert!(namespaces.of(&longest).is_ok());
        let over = namespaces.of(&(longest + "x")).map(|_| ());
        assert_eq!(over, Err(Error::NAME_TOO_LONG));
        assert!(Error::NAME_TOO_LONG.message.contains(&BACKEND_NAME_BYTES.to_string()));
        let larger = Namespaces { max_length: 5000, ..namespaces };
        assert!(larger.of_subscriber(&"x".repeat(5000)).is_ok());
    }

    #[test]
    fn users_are_listed_after_the_last_user_boundary() {
        let namespaces = Namespaces::default();
        let users = |channel| namespaces.users(channel).map(Iterator::collect::<Vec<_>>);
        assert_eq!(users("dialog#42,43"), Some(vec!["42", "43"]));
        assert_eq!(users("a#b#42"), Some(vec!["42"]));
        assert_eq!(users("dialog"), None);
        let limited = Options { user_limited: true, ..Options::default() };
        assert!(namespaces.is_user_limited(&limited, "dialog#"));
        assert!(!namespaces.is_user_limited(&limited, "dialog"));
        assert!(!namespaces.is_user_limited(&Options::default(), "dialog#42"));
        assert!(namespaces.lists("dialog#42,43", "43") && !namespaces.lists("dialog#42", "4"));
        assert!(!namespaces.lists("dialog#", ""));
        assert_eq!(namespaces.personal("", "42"), "#42");
        assert_eq!(namespaces.personal("user", "42"), "user:#42");
    }

    #[test]
    fn permits_distinguish_users_anonymous_clients_and_subscribers() {
        let none = Permit::default();
        assert!(!none.allows("u", true));
        let client = Permit { client: true, ..none };
        assert!(client.allows("u", false) && !client.allows("", true));
        assert!(Permit { anonymous: true, ..client }.allows("", false));
        assert!(!Permit { anonymous: true, ..none }.allows("", false));
        let subscriber = Permit { subscriber: true, ..none };
        assert!(subscriber.allows("u", true) && !subscriber.allows("u", false));
        assert!(!subscriber.allows("", true));
        let subscriber = Permit { anonymous: true, ..subscriber };
        assert!(subscriber.allows("", true) && !subscriber.allows("", false));
    }
}
