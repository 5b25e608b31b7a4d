//! The comparison of the loads of two runs.
//!
//! Owns the definition of a load: the scenario, which fixes rate, size and fan-out, and its
//! parameters.
//! Never compares results. Invariant: a parameter that only one run states is a difference.

use std::collections::BTreeSet;

use super::input::Input;
use crate::run::Run;

/// Parameters that configure the server. Runs that differ in these only may be compared.
const SETTINGS: [&str; 1] = ["shards"];

/// The differences, one line per parameter: `connections: 15000 (A), 500 (B)`. Inputs without a run
/// are ignored.
pub fn differences(inputs: &[Input]) -> Vec<String> {
    let runs: Vec<(&str, &Run)> = inputs
        .iter()
        .filter_map(|input| Some((input.label.as_str(), input.run.as_ref()?)))
        .collect();
    let keys: BTreeSet<&str> = runs
        .iter()
        .flat_map(|(_, run)| run.parameters.keys())
        .map(String::as_str)
        .filter(|key| !SETTINGS.contains(key))
        .collect();
    let mut found = Vec::new();
    found.extend(difference("scenario", &runs, |run| run.scenario.clone()));
    for key in keys {
        let stated = |run: &Run| {
            run.parameters.get(key).map_or_else(|| "not stated".to_owned(), |v| v.to_string())
        };
        found.extend(difference(key, &runs, stated));
    }
    if found.is_empty() {
        found.extend(difference("load", &runs, |run| without_settings(&run.load)));
    }
    found
}

fn difference(what: &str, runs: &[(&str, &Run)], value: impl Fn(&Run) -> String) -> Option<String> {
    let values: Vec<String> = runs.iter().map(|(_, run)| value(run)).collect();
    if values.iter().all(|value| Some(value) == values.first()) {
        return None;
    }
    let pairs: Vec<String> =
        runs.iter().zip(&values).map(|((label, _), value)| format!("{value} ({label})")).collect();
    Some(format!("{what}: {}", pairs.join(", ")))
}

/// `1,000 connections, 2 shards` without the settings.
fn without_settings(load: &str) -> String {
    let is_load = |part: &&str| !SETTINGS.iter().any(|setting| part.ends_with(setting));
    load.split(", ").filter(is_load).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::input::tests::{inputs, result_file};

    fn changed(change: impl Fn(&mut Run)) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        let folder = result_file(root.path(), "latency", 7, &["drumline"]);
        let mut two = inputs(&[&folder, &folder]);
        change(two[1].run.as_mut().unwrap());
        differences(&two)
    }

    #[test]
    fn runs_that_differ_in_settings_have_the_same_load() {
        assert!(changed(|_| ()).is_empty());
        let shards = |run: &mut Run| {
            run.parameters.insert("shards".to_owned(), 6.into());
            run.load = "7 connections, 6 shards".to_owned();
        };
        assert!(changed(shards).is_empty(), "a setting is compared, not kept alike");
    }

    #[test]
    fn every_difference_is_listed() {
        let found = changed(|run| {
            run.scenario = "fanout".to_owned();
            run.parameters.insert("connections".to_owned(), 8.into());
            run.parameters.insert("rate".to_owned(), 2000.into());
        });
        assert_eq!(
            found,
            [
                "scenario: latency (latency (1)), fanout (latency (2))",
                "connections: 7 (latency (1)), 8 (latency (2))",
                "rate: not stated (latency (1)), 2000 (latency (2))",
            ]
        );
        let found = changed(|run| run.load = "7 connections, 512 bytes, 2 shards".to_owned());
        assert!(found[0].starts_with("load: 7 connections ("), "{found:?}");
        assert!(found[0].contains("7 connections, 512 bytes ("), "{found:?}");
    }
}
