//! Which namespaces are durable, for as long as a process runs.
//!
//! Owns the rule. Never reads a source. The invariant: a namespace that was durable, or was not, is
//! never the other one in the same process.

use std::collections::BTreeMap;

use super::sections::Channel;

/// Whether the channels of each namespace are durable, by its name; that of channels without a
/// namespace is empty.
pub fn durable_namespaces(channel: &Channel) -> BTreeMap<String, bool> {
    let without = (String::new(), channel.without_namespace.history_durable);
    let named = channel.namespaces.iter();
    let named = named.map(|one| (one.name.clone(), one.options.history_durable));
    std::iter::once(without).chain(named).collect()
}

/// Streams in memory are durable or not from their first publication on, so a namespace stays what
/// it was, also when it was away meanwhile.
pub fn keep_durable(durable: &BTreeMap<String, bool>, new: &mut Channel) {
    let keep = |name: &str, is_durable: &mut bool| {
        *is_durable = durable.get(name).copied().unwrap_or(*is_durable);
    };
    keep("", &mut new.without_namespace.history_durable);
    for namespace in &mut new.namespaces {
        keep(&namespace.name, &mut namespace.options.history_durable);
    }
}
