//! The list of all keys, and the known name that an unknown one resembles.
//!
//! Owns the list, which follows from the sections. Never keeps a value.

use std::sync::LazyLock;

use super::key::{Key, split};
use super::sections::{Config, describe};

/// All keys, in the order of their sections.
pub fn keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| describe(&Config::default()));
    &KEYS
}

/// The keys of one table of the list at a path.
pub(super) fn table_keys(list: &str) -> &'static [Key] {
    keys().iter().find(|key| key.path == list).map_or(&[], |key| &key.options)
}

/// Whether keys stand in a section of that path.
pub(super) fn is_section(path: &str) -> bool {
    keys().iter().any(|key| is_below(&key.path, path))
}

fn is_below(path: &str, section: &str) -> bool {
    section.is_empty()
        || path.strip_prefix(section).is_some_and(|rest| rest.len() > 1 && rest.starts_with('.'))
}

/// An unknown name, with the known one that it may have been meant for.
pub(super) fn unknown(name: &str, meant: Option<String>) -> String {
    match meant {
        Some(meant) => format!("{name} (did you mean {meant}?)"),
        None => name.to_owned(),
    }
}

/// The key or section that an unknown path may have been meant for. It stands in the same section,
/// or in one below.
pub(super) fn meant(path: &str) -> Option<String> {
    let (section, name) = split(path);
    let near = keys().iter().filter(|key| is_below(&key.path, section));
    let near: Vec<&'static str> = near.map(|key| key.path.as_str()).collect();
    let parents = |path: &'static str| path.match_indices('.').map(move |(at, _)| &path[..at]);
    let sections = near.iter().copied().flat_map(parents);
    let sections = sections.filter(|found| split(found).0 == section);
    let last = |path: &str| split(path).1.to_owned();
    // A section has few letters to tell it by: http_stream is no http_server.
    let found = nearest(name, sections.map(|path| (last(path), path)), 0.75);
    let found = found.or_else(|| nearest(name, near.iter().map(|path| (last(path), *path)), 0.6));
    found.map(str::to_owned)
}

/// The known name that an unknown one resembles most and more than `least`, by what it stands for.
pub(super) fn nearest<T>(
    unknown: &str,
    known: impl IntoIterator<Item = (String, T)>,
    least: f64,
) -> Option<T> {
    let (mut likeness, mut best) = (least, None);
    for (name, stands_for) in known {
        let found = strsim::normalized_damerau_levenshtein(unknown, &name);
        if found > likeness {
            (likeness, best) = (found, Some(stands_for));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_wrong_name_was_meant_for() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(meant(path).as_deref(), expected, "{path}");
        };
        check("http_server.prot", Some("http_server.port"));
        check("http_sever", Some("http_server"));
        check("client.tokens", Some("client.token"));
        check("client.hmac_secret_key", Some("client.token.hmac_secret_key"));
        check("namespaces", Some("channel.namespaces"));
        check("token_hmac_secret_key", Some("client.token.hmac_secret_key"));
        check("presence", Some("channel.without_namespace.presence"));
        // What Centrifugo has and we have not resembles nothing of ours.
        for path in [
            "admin",
            "broker",
            "client.concurrency",
            "client.presence_update_interval",
            "consumers",
            "debug",
            "dev",
            "engine.redis",
            "engine.type",
            "graphite",
            "grpc_api",
            "http_api.external",
            "http_server.tls",
            "init",
            "log",
            "map_broker",
            "node",
            "opentelemetry",
            "pid_file",
            "presence_manager",
            "uni_grpc",
            "uni_websocket.message_size_limit",
            "usage_stats",
            "websocket.write_timeout",
            "webtransport",
        ] {
            check(path, None);
        }
    }
}
