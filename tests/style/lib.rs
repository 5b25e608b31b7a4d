//! Style is a test: what the compiler does not ask of these files, this does.
//!
//! Reads the repository's own files. Each rule lists all its offences at once.

#![cfg(test)]
#![allow(missing_docs, clippy::unwrap_used)]

mod architecture;
mod crates;
mod imports;
mod modules;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;
/// Files that may be longer, with the reason; none may have more lines than the last number.
const LONG_FILES: [(&str, &str); 4] = [
    ("bench-harness/src/dense/book.rs", "one state machine: every state of a client's socket"),
    ("src/home/channels.rs", "one state machine: every change of a channel at its home"),
    ("tests/simulation/client.rs", "one model: what a client must see"),
    ("tests/simulation/world.rs", "one loop: every event of a simulated node"),
];
const LONG_FILE_LINES_MAX: usize = 720;

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
    files(&["src", "tests", "bench-harness", "fuzz"], "rs")
}

fn report(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

/// A file without its tests: everything before its `#[cfg(test)]` module, or
/// `#[cfg(all(test, ...))]`.
fn without_tests(text: &str) -> &str {
    let starts = ["\n#[cfg(test)]\nmod ", "\n#[cfg(test)]\npub(crate) mod ", "\n#[cfg(all(test"];
    let end = starts.iter().filter_map(|start| text.find(start)).min();
    &text[..end.unwrap_or(text.len())]
}

#[test]
fn every_file_says_what_it_is() {
    let offences: Vec<_> = rust_files()
        .into_iter()
        .filter(|file| {
            let mut lines = file.text.lines();
            !lines.find(|line| !line.starts_with("#!")).unwrap_or_default().starts_with("//! ")
        })
        .map(|file| file.name)
        .collect();
    report("every .rs opens with `//!`", &offences);
}

#[test]
fn every_unsafe_has_its_reason() {
    let mut offences = Vec::new();
    for file in rust_files() {
        let lines: Vec<&str> = file.text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let begins = ["unsafe {", "unsafe impl", "unsafe fn"]
                .iter()
                .any(|word| code.contains(word) && !code.contains('"'));
            let reasons = &lines[number.saturating_sub(8)..=number];
            let reason =
                reasons.iter().any(|line| line.contains("SAFETY") || line.contains("# Safety"));
            if begins && !reason {
                offences.push(format!("{}:{}", file.name, number + 1));
            }
        }
    }
    report("a SAFETY reason stands at every `unsafe`", &offences);
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    let needle = [".unw", "rap()"].concat();
    let mut offences = Vec::new();
    for file in files(&["src", "bench-harness/src"], "rs") {
        for (number, line) in without_tests(&file.text).lines().enumerate() {
            if line.contains(&needle) && !line.trim_start().starts_with("//") {
                offences.push(format!("{}:{}", file.name, number + 1));
            }
        }
    }
    report("no unwrap outside tests", &offences);
}

/// What may end the process outside tests: file, a part of the line, and the reason why no peer,
/// backend, kernel or clock can reach it.
const MAY_PANIC: &[(&str, &str, &str)] = &[
    (
        "src/engine/bus.rs",
        "assert!(shards <= SHARDS_MAX",
        "the configuration allows SHARDS_MAX shards; at the start only",
    ),
    ("src/engine/bus.rs", "assert!(workers > 0", "a node has a processor; at the start only"),
    (
        "src/engine/bus.rs",
        "unreachable!(\"the bus owns both ends",
        "a queue without a bound refuses only once an end is gone",
    ),
    ("src/model/names.rs", "assert!(shards > 0", "a node has a shard; at the start only"),
    (
        "src/config/engine.rs",
        ".expect(\"a loaded configuration",
        "`check` built the same verifiers",
    ),
    ("src/config/print.rs", ".expect(\"a configuration has nothing", "a command's output only"),
    (
        "src/config/sections/section.rs",
        ".expect(\"a value of TOML's kinds\")",
        "the table's own defaults",
    ),
    (
        "src/control/api/reading.rs",
        ".expect(\"answers have only keys",
        "our types, whose keys are texts",
    ),
    (
        "src/wire/delta.rs",
        "assert!(sayable(target)",
        "callers take at most 64 KiB (DIFFERENCE_BYTES)",
    ),
    ("src/wire/frame.rs", ".expect(\"writing to a Vec cannot fail\")", "a Vec takes every byte"),
    (
        "src/home/history.rs",
        "assert_eq!(publication.offset()",
        "its one caller takes `next_offset`",
    ),
    (
        "src/hub/connections/tables.rs",
        "assert!(is_unused",
        "`end` leaves channels; a turn's entries end with the turn",
    ),
    (
        "src/wire/protocol/json/text.rs",
        ".expect(\"a Vec takes everything",
        "a Vec takes every byte",
    ),
    (
        "src/model/publication.rs",
        ".expect(\"who comes or goes is somebody\")",
        "joins are made with info",
    ),
    (
        "src/hub/turn_output.rs",
        ".expect(\"a turn's bytes are bounded\")",
        "4 MiB, and one answer beyond them",
    ),
    ("src/base/wheel.rs", "assert!(buckets.is_power_of_two()", "a constant; at the start only"),
];

#[test]
fn nothing_from_outside_can_make_the_process_panic() {
    let words = ["unreachable!(", ".expect(", "panic!(", "assert!(", "assert_eq!(", "assert_ne!("];
    let unfinished = ["to".to_owned() + "do!(", "unimplemented!(".to_owned()];
    let mut offences = Vec::new();
    let mut used = vec![false; MAY_PANIC.len()];
    for file in files(&["src"], "rs") {
        for (number, line) in without_tests(&file.text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let may_end = words.iter().any(|word| code.contains(word))
                || unfinished.iter().any(|word| code.contains(word));
            // The compiler looks at these.
            if !may_end || code.trim_start().starts_with("const _: () = assert!(") {
                continue;
            }
            let allowed = MAY_PANIC
                .iter()
                .position(|(name, part, _)| file.name == *name && code.contains(part));
            match allowed {
                Some(at) => used[at] = true,
                None => offences.push(format!("{}:{}: {}", file.name, number + 1, code.trim())),
            }
        }
    }
    for ((name, part, _), _) in MAY_PANIC.iter().zip(used).filter(|(_, used)| !used) {
        offences.push(format!("{name}: `{part}` is not there any more: take it off the list"));
    }
    report("handle the case, or add it to MAY_PANIC with a reason", &offences);
}

/// `println!` panics where stdout is closed and blocks where nobody reads it; src/log.rs does not,
/// nor does the last report of src/crash.rs.
#[test]
fn output_goes_through_the_log_module_alone() {
    let words = ["print!(", "println!(", "dbg!(", "stdout()", "stderr()"];
    let mut offences = Vec::new();
    let careful = ["src/base/log.rs", "src/base/crash.rs"];
    for file in files(&["src"], "rs").iter().filter(|file| !careful.contains(&&*file.name)) {
        for (number, line) in without_tests(&file.text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                offences.push(format!("{}:{}", file.name, number + 1));
            }
        }
    }
    report("what the process writes to stderr and stdout goes through crate::log", &offences);
}

#[test]
fn lines_functions_and_files_are_short() {
    let mut offences = Vec::new();
    for file in rust_files() {
        // Fixtures of unit tests may be wide.
        let count = without_tests(&file.text).lines().count();
        let is_long = LONG_FILES.iter().any(|(name, _)| *name == file.name);
        let most = if is_long { LONG_FILE_LINES_MAX } else { FILE_LINES_MAX };
        if count > most {
            offences.push(format!("{}: {count} lines", file.name));
        }
        let mut opened: Option<(usize, String)> = None;
        for (number, line) in file.text.lines().enumerate() {
            // One string that cannot be broken may be longer; rustfmt breaks all else.
            if number < count && line.chars().count() > COLUMNS_MAX && !is_one_string(line) {
                offences.push(format!("{}:{}: over {COLUMNS_MAX} columns", file.name, number + 1));
            }
            if let Some((start, end)) = &opened {
                if line == end {
                    if number - start > FUNCTION_LINES_MAX {
                        let length = number - start + 1;
                        offences.push(format!("{}:{}: {length} lines", file.name, start + 1));
                    }
                    opened = None;
                }
            } else if starts_function(line) {
                let indent = line.len() - line.trim_start().len();
                opened = Some((number, format!("{}}}", " ".repeat(indent))));
            }
        }
    }
    report("lines, functions and files are short", &offences);
}

fn is_one_string(line: &str) -> bool {
    let line = line.trim();
    line.starts_with(['"', 'r', 'b', '\\']) || line.matches('"').count() >= 2
}

fn starts_function(line: &str) -> bool {
    let mut words = line.trim_start();
    for word in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe "] {
        words = words.strip_prefix(word).unwrap_or(words);
    }
    words.starts_with("fn ") && !line.trim_end().ends_with([';', '}'])
}

#[test]
fn nothing_is_left_for_later() {
    let words = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    let mut all = rust_files();
    all.extend(files(&["scripts", "tests"], "sh"));
    all.extend(files(&["tests"], "mjs"));
    all.extend(files(&["tests"], "py"));
    let mut offences = Vec::new();
    for file in all {
        for (number, line) in file.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str()) && !line.contains("mktemp")) {
                offences.push(format!("{}:{}", file.name, number + 1));
            }
        }
    }
    report("nothing is left for later", &offences);
}

#[test]
fn scripts_can_be_run() {
    let mut paths = Vec::new();
    walk(&root().join("scripts"), "sh", &mut paths);
    walk(&root().join("tests"), "sh", &mut paths);
    assert!(!paths.is_empty());
    let offences: Vec<_> = paths
        .iter()
        .filter(|path| fs::metadata(path).unwrap().permissions().mode() & 0o111 == 0)
        .map(|path| path.display().to_string())
        .collect();
    report("every script is executable", &offences);
}
