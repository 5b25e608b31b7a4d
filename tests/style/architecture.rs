//! ARCHITECTURE.md names files and functions: each of them must exist.
//!
//! Owns the reading of the Markdown. Checks every `src/...` and `tests/...` path of the page, and
//! in the table under "Index" each name in parentheses after a path.

use std::fs;

use super::{report, root, without_tests};

/// The texts in backticks of a line, each with whether it comes after an opening parenthesis.
fn quoted(line: &str) -> Vec<(&str, bool)> {
    let parts: Vec<&str> = line.split('`').collect();
    let mut inside = false;
    let mut found = Vec::new();
    for pair in parts.chunks(2) {
        inside = match pair[0].rfind(['(', ')']) {
            Some(at) => pair[0][at..].starts_with('('),
            None => inside,
        };
        found.extend(pair.get(1).map(|text| (*text, inside)));
    }
    found
}

/// What a page names that does not exist.
fn missing(page: &str, text_of: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let is_path = |text: &str| text.starts_with("src/") || text.starts_with("tests/");
    let mut offences = Vec::new();
    let mut section = "";
    for line in page.lines() {
        section = line.strip_prefix("## ").unwrap_or(section);
        let mut file: Option<(&str, String)> = None;
        for (text, is_function) in quoted(line) {
            if is_path(text) {
                file = text_of(text).map(|code| (text, code));
                if file.is_none() {
                    offences.push(format!("{text} does not exist"));
                }
            } else if is_function && section == "Index" {
                let Some((path, code)) = &file else { continue };
                if !without_tests(code).contains(&format!("fn {text}")) {
                    offences.push(format!("{path} has no function {text}"));
                }
            }
        }
    }
    offences
}

#[test]
fn every_file_and_function_that_the_architecture_names_exists() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let offences = missing(&page, |path| {
        let path = root().join(path);
        if path.is_dir() { Some(String::new()) } else { fs::read_to_string(path).ok() }
    });
    report("ARCHITECTURE.md names what exists (update it when code moves)", &offences);
    let index = page.split("## Index").nth(1).unwrap().split("\n## ").next().unwrap();
    assert!(index.lines().count() >= 25, "the index has lost lines");
}

#[test]
fn a_wrong_name_in_the_architecture_is_found() {
    let page = "## Index\n\n| a | `src/a.rs` (`here`, `gone`), `src/b.rs` (`here`) |\n\
                ## Rest\n\n1. `src/a.rs` (`unchecked`) and `src/c.rs`\n";
    let found = missing(page, |path| (path == "src/a.rs").then(|| "fn here() {}".to_owned()));
    let wanted =
        ["src/a.rs has no function gone", "src/b.rs does not exist", "src/c.rs does not exist"];
    assert_eq!(found, wanted);
}
