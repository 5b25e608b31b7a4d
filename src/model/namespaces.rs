//! What a channel's name says: its namespace's options, and whom it is for.
//!
//! Owns the options as data. Never knows a connection. The invariant: a name that belongs to no
//! namespace has no options, so nothing can be done in it.

use std::collections::HashMap;

use regex::Regex;

use crate::model::backend::Upstream;
use crate::model::retention::Retention;
use crate::wire::protocol::Error;

/// Who may do one thing in a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    /// Clients that have a user.
    pub client: bool,
    /// Those without one too.
    pub anonymous: bool,
    /// Whoever is subscribed to the channel.
    pub subscriber: bool,
}

impl Permit {
    /// Whether a client may, if this is its user and its subscription.
    pub fn allows(self, user: &str, subscribed: bool) -> bool {
        (self.client && (self.anonymous || !user.is_empty())) || (self.subscriber && subscribed)
    }
}

/// What publications must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublicationFormat {
    /// JSON text; empty data is refused, too.
    #[default]
    NotEmpty,
    /// JSON text.
    Json,
    /// A JSON object.
    Object,
    /// Any bytes, even none. Only protobuf clients subscribe.
    Binary,
}

/// How a subscriber gets what it missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryMode {
    /// All of it, or none.
    #[default]
    Stream,
    /// The latest publication.
    Cache,
}

/// How publications of a channel wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// One goes out in so many milliseconds: the latest.
    Latest {
        /// Milliseconds.
        interval: u64,
    },
    /// Several go out together.
    Together {
        /// Milliseconds that the first of them waits.
        window: u64,
        /// As soon as there are so many, they go out.
        publications: u32,
    },
}

/// Options of the channels of one namespace.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How much history a channel keeps; `None`: none.
    pub retention: Option<Retention>,
    /// Whether it is known who is there.
    pub presence: bool,
    /// Whether it is told who comes and goes,
    pub join_leave: bool,
    /// and that even to subscribers that have not asked.
    pub force_push_join_leave: bool,
    /// Every subscriber's position is checked.
    pub force_positioning: bool,
    /// It is where a client asks for it.
    pub allow_positioning: bool,
    /// Every subscriber may recover.
    pub force_recovery: bool,
    /// It may where it asks for it.
    pub allow_recovery: bool,
    /// How.
    pub recovery_mode: RecoveryMode,
    /// A subscribe is answered as if it had asked for what it missed.
    pub auto_cache_recover: bool,
    /// Subscribers may have differences to the publication before.
    pub allow_delta: bool,
    /// Every publication may go out as one.
    pub delta_publish: bool,
    /// A number may stand for a channel's name in what its subscribers are sent in JSON.
    pub allow_compaction: bool,
    /// How publications wait; `None`: they go out at once.
    pub pace: Option<Pace>,
    /// Subscribers may let only publications with certain tags through.
    pub allow_filter: bool,
    /// Channels with a user boundary in their name are for the users named behind it.
    pub user_limited: bool,
    /// Who may subscribe; nobody by being subscribed.
    pub subscribe: Permit,
    /// Who may publish.
    pub publish: Permit,
    /// Who may know who is there.
    pub see_presence: Permit,
    /// Who may read what was published.
    pub read_history: Permit,
    /// What names must match behind their namespace, instead of being ASCII.
    pub regex: Option<Regex>,
    /// What publications must be.
    pub format: PublicationFormat,
    /// Who is asked whether a client may subscribe.
    pub subscribe_proxy: Option<Upstream>,
    /// Who is asked whether a client may publish.
    pub publish_proxy: Option<Upstream>,
    /// Who is asked how much longer a subscription holds.
    pub sub_refresh_proxy: Option<Upstream>,
    /// Who is told of subscriptions that have ended.
    pub unsubscribe_hook: Option<Upstream>,
}

/// All namespaces of a node.
#[derive(Clone, Debug)]
pub struct Namespaces {
    /// Options of channels whose name has no boundary.
    pub without: Options,
    /// Options by the name in front of the boundary.
    pub named: HashMap<Box<str>, Options>,
    /// In front of a channel that needs a token.
    pub private_prefix: String,
    /// Behind a namespace's name.
    pub boundary: String,
    /// In front of the users that a channel is for.
    pub user_boundary: String,
    /// Between them.
    pub user_separator: String,
    /// Bytes of a channel's name.
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
    /// Options of a channel, or why there can be none of this name.
    pub fn of(&self, channel: &str) -> Result<&Options, Error> {
        if channel.is_empty() || channel.len() > self.max_length {
            return Err(Error::BAD_REQUEST);
        }
        let public = channel.strip_prefix(&*self.private_prefix);
        let public = public.filter(|_| self.is_private(channel)).unwrap_or(channel);
        let parts = match self.boundary.as_str() {
            "" => None,
            boundary => public.split_once(boundary),
        };
        let (options, rest) = match parts {
            None => (&self.without, public),
            Some((name, rest)) => (self.named.get(name).ok_or(Error::UNKNOWN_CHANNEL)?, rest),
        };
        let legal = match &options.regex {
            Some(regex) => regex.is_match(rest),
            None => channel.is_ascii(),
        };
        if legal { Ok(options) } else { Err(Error::BAD_REQUEST) }
    }

    /// Whether a channel needs a subscription token.
    pub fn is_private(&self, channel: &str) -> bool {
        !self.private_prefix.is_empty() && channel.starts_with(&self.private_prefix)
    }

    /// The users that a channel is for, as its name lists them; `None`: it names none.
    pub fn users<'a>(&'a self, channel: &'a str) -> Option<impl Iterator<Item = &'a str>> {
        if self.user_boundary.is_empty() {
            return None;
        }
        let (_, users) = channel.rsplit_once(&*self.user_boundary)?;
        let separator = if self.user_separator.is_empty() { "\0" } else { &*self.user_separator };
        Some(users.split(separator))
    }

    /// Whether a channel's name says that it is for this user, and its options go by that.
    pub fn is_for(&self, options: &Options, channel: &str, user: &str) -> bool {
        let mut listed = self.users(channel).into_iter().flatten();
        options.user_limited && !user.is_empty() && listed.any(|one| one == user)
    }

    /// The channel that only this user is in.
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
    fn a_name_finds_its_options() {
        let chat = Options { presence: true, ..Options::default() };
        let strict = Regex::new("^[0-9]+$").ok();
        let strict = Options { regex: strict, ..Options::default() };
        let named = [("chat".into(), chat), ("strict".into(), strict)].into();
        let namespaces = Namespaces { named, ..Namespaces::default() };
        let check = |channel: &str, expected: Result<bool, Error>| {
            let found = namespaces.of(channel).map(|options| options.presence);
            assert_eq!(found, expected, "{channel}");
        };
        check("news", Ok(false));
        check("chat:1", Ok(true));
        check("$chat:1", Ok(true));
        check("chat:a:b", Ok(true));
        check("chat", Ok(false));
        check("chats:1", Err(Error::UNKNOWN_CHANNEL));
        check("strict:12", Ok(false));
        check("strict:x", Err(Error::BAD_REQUEST));
        check("", Err(Error::BAD_REQUEST));
        check("n\u{e9}ws", Err(Error::BAD_REQUEST));
        check(&"x".repeat(256), Err(Error::BAD_REQUEST));
        assert!(namespaces.is_private("$a") && !namespaces.is_private("a$"));
    }

    #[test]
    fn users_stand_behind_the_last_boundary() {
        let namespaces = Namespaces::default();
        let users = |channel| namespaces.users(channel).map(Iterator::collect::<Vec<_>>);
        assert_eq!(users("dialog#42,43"), Some(vec!["42", "43"]));
        assert_eq!(users("a#b#42"), Some(vec!["42"]));
        assert_eq!(users("dialog"), None);
        assert_eq!(namespaces.personal("", "42"), "#42");
        assert_eq!(namespaces.personal("user", "42"), "user:#42");
    }

    #[test]
    fn permits() {
        let none = Permit::default();
        assert!(!none.allows("u", true));
        let client = Permit { client: true, ..none };
        assert!(client.allows("u", false) && !client.allows("", true));
        assert!(Permit { anonymous: true, ..client }.allows("", false));
        assert!(!Permit { anonymous: true, ..none }.allows("", false));
        let subscriber = Permit { subscriber: true, ..none };
        assert!(subscriber.allows("", true) && !subscriber.allows("u", false));
    }
}
