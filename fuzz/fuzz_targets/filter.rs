//! Tags filters: what compiles never panics when it matches, and matches as the filter reads.
#![no_main]

use drumline::wire::filter::{FilterNode, compile};
use libfuzzer_sys::fuzz_target;

/// Each key once, as a publication has them.
const TAGS: [(&str, &str); 5] = [
    ("", "empty"),
    ("big", "123456789012345678901234567890.5"),
    ("n", "42"),
    ("s", "abc"),
    ("x", ""),
];

/// What a filter says, read without being compiled. `None`: it compares numbers.
fn says(node: &FilterNode) -> Option<bool> {
    let each = || node.nodes.iter().map(says);
    match node.op.as_str() {
        "and" => {
            return each().collect::<Option<Vec<_>>>().map(|all| all.into_iter().all(|one| one));
        }
        "or" => {
            return each().collect::<Option<Vec<_>>>().map(|all| all.into_iter().any(|one| one));
        }
        "not" => return says(node.nodes.first()?).map(|one| !one),
        _ => {}
    }
    let tag = TAGS.iter().find(|(key, _)| *key == node.key).map(|(_, value)| *value);
    let is_one = || node.vals.iter().any(|value| value == tag.unwrap_or_default());
    Some(match node.cmp.as_str() {
        "eq" => tag == Some(&*node.val),
        "neq" => tag != Some(&*node.val),
        "in" => is_one(),
        "nin" => !is_one(),
        "ex" => tag.is_some(),
        "nex" => tag.is_none(),
        "sw" => tag.is_some_and(|tag| tag.starts_with(&node.val)),
        "ew" => tag.is_some_and(|tag| tag.ends_with(&node.val)),
        "ct" => tag.is_some_and(|tag| tag.contains(&node.val)),
        _ => return None,
    })
}

fuzz_target!(|text: &[u8]| {
    let Ok(node) = serde_json::from_slice::<FilterNode>(text) else { return };
    let Ok(filter) = compile(&node) else { return };
    let tags = TAGS.map(|(key, value)| (key.into(), value.into()));
    let matches = filter.matches(&tags);
    if let Some(expected) = says(&node) {
        assert_eq!(matches, expected, "{node:?}");
    }
    filter.matches(&[]);
    assert_eq!(compile(&node.clone()).as_ref(), Ok(&filter), "equal filters are equal bytes");
});
