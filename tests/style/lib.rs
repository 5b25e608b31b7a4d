//! Rules for the repository's own files that the compiler does not check.
//!
//! Reads the files as text and needs no build of the server. Each rule lists all its offences at
//! once. A test for each rule plants an offence in a small text.

#![cfg(test)]
#![allow(missing_docs, clippy::unwrap_used)]

mod architecture;
mod book;
mod calls;
mod crates;
mod imports;
mod modules;
mod panics;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

struct File {
    /// Relative to the repository.
    name: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    const SKIPPED: [&str; 4] = ["target", "node_modules", "corpus-work", "artifacts"];
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !SKIPPED.contains(&name) {
            walk(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

fn files(folders: &[&str], extension: &str) -> Vec<File> {
    let mut paths = Vec::new();
    for folder in folders {
        walk(&root().join(folder), extension, &mut paths);
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| File {
            name: path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(),
            text: fs::read_to_string(&path).unwrap(),
        })
        .collect()
}

fn rust_files() -> Vec<File> {
    files(&["src", "tests", "bench-harness", "fuzz", "ticker"], "rs")
}

fn report(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

/// A file without its tests: everything before its `#[cfg(test)]` module, or
/// `#[cfg(all(test, ...))]`; nothing of a file that is compiled for tests alone.
fn without_tests(text: &str) -> &str {
    if text.contains("\n#![cfg(test)]\n") || text.contains("\n#![cfg(any(test, fuzzing))]\n") {
        return "";
    }
    let starts = ["\n#[cfg(test)]\nmod ", "\n#[cfg(test)]\npub(crate) mod ", "\n#[cfg(all(test"];
    let end = starts.iter().filter_map(|start| text.find(start)).min();
    &text[..end.unwrap_or(text.len())]
}

/// A file of a small text.
fn planted(name: &str, text: &str) -> File {
    File { name: name.to_owned(), text: text.to_owned() }
}

/// The lines of each file, without its tests, whose code `is_offence`, as `file:line`.
fn lines_where(files: &[File], is_offence: impl Fn(&str) -> bool) -> Vec<String> {
    let mut offences = Vec::new();
    for file in files {
        for (number, line) in without_tests(&file.text).lines().enumerate() {
            if is_offence(line.split("//").next().unwrap_or_default()) {
                offences.push(format!("{}:{}", file.name, number + 1));
            }
        }
    }
    offences
}
