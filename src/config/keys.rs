//! The list of all keys, and suggestions for unknown names.
//!
//! Owns the list, which is derived from the sections. Never keeps a configured value.

use std::sync::LazyLock;

use super::key::{Key, split};
use super::sections::{Config, describe};

/// All keys, in the order of their sections.
pub fn keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| describe(&Config::default()));
    &KEYS
}

/// The keys of each table in the list of tables at this path.
pub(super) fn table_keys(list: &str) -> &'static [Key] {
    keys().iter().find(|key| key.path == list).map_or(&[], |key| &key.options)
}

/// Whether a section at this path has keys.
pub(super) fn is_section(path: &str) -> bool {
    keys().iter().any(|key| is_below(&key.path, path))
}

/// Whether a path is in this section or in a section of it.
fn is_below(path: &str, section: &str) -> bool {
    section.is_empty()
        || path.strip_prefix(section).is_some_and(|rest| rest.len() > 1 && rest.starts_with('.'))
}

/// Text about an unknown name for messages, with the suggested name if there is one.
pub(super) fn unknown(name: &str, suggestion: Option<String>) -> String {
    match suggestion {
        Some(suggestion) => format!("{name} (did you mean {suggestion}?)"),
        None => name.to_owned(),
    }
}

/// Suggests a key or section for an unknown path: the most similar one in the same section or below
/// it.
pub(super) fn suggest(path: &str) -> Option<String> {
    let (section, name) = split(path);
    let near = keys().iter().filter(|key| is_below(&key.path, section));
    let near: Vec<&'static str> = near.map(|key| key.path.as_str()).collect();
    let parents = |path: &'static str| path.match_indices('.').map(move |(at, _)| &path[..at]);
    let sections = near.iter().copied().flat_map(parents);
    let sections = sections.filter(|found| split(found).0 == section);
    let last = |path: &str| split(path).1.to_owned();
    // Names of sections are short, so a suggestion must be more similar than for keys:
    // http_stream must not suggest http_server.
    let found = nearest(name, sections.map(|path| (last(path), path)), 0.75);
    let found = found.or_else(|| nearest(name, near.iter().map(|path| (last(path), *path)), 0.6));
    found.map(str::to_owned)
}

/// The value of the known name that is most similar to `unknown`, if its similarity (from 0 to 1)
/// is above `least`.
pub(super) fn nearest<T>(
    unknown: &str,
    known: impl IntoIterator<Item = (String, T)>,
    least: f64,
) -> Option<T> {
    let (mut highest, mut best) = (least, None);
    for (name, value) in known {
        let similarity = strsim::normalized_damerau_levenshtein(unknown, &name);
        if similarity > highest {
            (highest, best) = (similarity, Some(value));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_suggests_the_nearest_key_or_section() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(suggest(path).as_deref(), expected, "{path}");
        };
        check("http_server.prot", Some("http_server.port"));
        check("http_sever", Some("http_server"));
        check("client.tokens", Some("client.token"));
        check("client.hmac_secret_key", Some("client.token.hmac_secret_key"));
        check("namespaces", Some("channel.namespaces"));
        check("token_hmac_secret_key", Some("client.token.hmac_secret_key"));
        check("presence", Some("channel.without_namespace.presence"));
        // A Centrifugo key without a counterpart here gets no suggestion.
        for path in [
            "admin.web_path",
            "broker",
            "client.concurrency",
            "client.presence_update_interval",
            "debug",
            "dev",
            "engine.redis",
            "engine.type",
            "graphite",
            "grpc_api",
            "init",
            "map_broker",
            "node",
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
