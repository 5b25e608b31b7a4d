//! Rules for the text of a file: its head, its length, SAFETY reasons, output, scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::{File, files, lines_where, planted, report, root, rust_files, walk, without_tests};

const COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;
/// Files that may be longer, with the reason; none may have more lines than the last number.
const LONG_FILES: [(&str, &str); 2] = [
    ("bench-harness/src/dense/book.rs", "one state machine: every state of a client's socket"),
    ("src/home/channels.rs", "one state machine: every change of a channel at its home"),
];
const LONG_FILE_LINES_MAX: usize = 720;

fn without_head(files: &[File]) -> Vec<String> {
    let has_head = |file: &&File| {
        let mut lines = file.text.lines();
        lines.find(|line| !line.starts_with("#!")).unwrap_or_default().starts_with("//! ")
    };
    files.iter().filter(|file| !has_head(file)).map(|file| file.name.clone()).collect()
}

#[test]
fn every_file_says_what_it_is() {
    report("every .rs opens with `//!`", &without_head(&rust_files()));
}

#[test]
fn a_file_without_a_head_is_found() {
    let files = [planted("a.rs", "//! Head.\n"), planted("b.rs", "#![cfg(test)]\nuse a::A;\n")];
    assert_eq!(without_head(&files), ["b.rs"]);
}

/// Each `unsafe` without SAFETY in the eight lines before it.
fn unsafe_without_reason(files: &[File]) -> Vec<String> {
    let mut offences = Vec::new();
    for file in files {
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
    offences
}

#[test]
fn every_unsafe_has_its_reason() {
    report("a SAFETY reason stands at every `unsafe`", &unsafe_without_reason(&rust_files()));
}

#[test]
fn an_unsafe_without_a_reason_is_found() {
    let word = "unsafe".to_owned();
    let text = format!("// SAFETY: a.\n{word} {{ a() }}{}{word} {{ b() }}\n", "\n".repeat(9));
    assert_eq!(unsafe_without_reason(&[planted("a.rs", &text)]), ["a.rs:11"]);
}

/// Lines that write to stdout or stderr. `println!` panics when stdout is closed, and blocks while
/// the reader does not read.
fn direct_output(files: &[File]) -> Vec<String> {
    let words = ["print!(", "println!(", "dbg!(", "stdout()", "stderr()"];
    lines_where(files, |code| words.iter().any(|word| code.contains(word)))
}

#[test]
fn output_goes_through_the_log_module_alone() {
    // The log module neither panics nor blocks; nor does the report of a crash.
    let careful = ["src/base/log/mod.rs", "src/base/crash.rs"];
    let mut files = files(&["src"], "rs");
    files.retain(|file| !careful.contains(&&*file.name));
    report(
        "the process writes to stderr and stdout through crate::base::log",
        &direct_output(&files),
    );
}

#[test]
fn direct_output_is_found() {
    let text = "// println!(1)\neprintln!(2);\nlet out = io::stdout();\n";
    assert_eq!(direct_output(&[planted("a.rs", text)]), ["a.rs:2", "a.rs:3"]);
}

fn too_long(files: &[File]) -> Vec<String> {
    let mut offences = Vec::new();
    for file in files {
        // Fixtures of unit tests may be wide.
        let count = without_tests(&file.text).lines().count();
        let is_long = LONG_FILES.iter().any(|(name, _)| *name == file.name);
        let most = if is_long { LONG_FILE_LINES_MAX } else { FILE_LINES_MAX };
        if count > most {
            offences.push(format!("{}: {count} lines", file.name));
        }
        let mut opened: Option<(usize, String)> = None;
        for (number, line) in file.text.lines().enumerate() {
            // A single string that cannot be broken may be longer; rustfmt breaks everything else.
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
    offences
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
fn lines_functions_and_files_are_short() {
    report("lines, functions and files are short", &too_long(&rust_files()));
}

#[test]
fn long_lines_functions_and_files_are_found() {
    let wide = "x".repeat(COLUMNS_MAX + 1);
    let body = "    a();\n".repeat(FUNCTION_LINES_MAX);
    let text = format!("{wide}\nfn short() {{\n    a();\n}}\nfn long() {{\n{body}}}\n");
    let lines = "a();\n".repeat(FILE_LINES_MAX + 1);
    let wanted = ["a.rs:1: over 100 columns", "a.rs:5: 72 lines", "b.rs: 601 lines"];
    assert_eq!(too_long(&[planted("a.rs", &text), planted("b.rs", &lines)]), wanted);
}

fn left_for_later(files: &[File]) -> Vec<String> {
    let words = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    let mut offences = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str()) && !line.contains("mktemp")) {
                offences.push(format!("{}:{}", file.name, number + 1));
            }
        }
    }
    offences
}

#[test]
fn nothing_is_left_for_later() {
    let mut all = rust_files();
    all.extend(files(&["scripts", "tests"], "sh"));
    all.extend(files(&["tests"], "mjs"));
    all.extend(files(&["ticker"], "js"));
    all.extend(files(&["tests"], "py"));
    report("nothing is left for later", &left_for_later(&all));
}

#[test]
fn a_note_for_later_is_found() {
    let text = ["a\n# TO", "DO: b\n"].concat();
    assert_eq!(left_for_later(&[planted("a.sh", &text)]), ["a.sh:2"]);
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

/// Faults in the table of scripts/test.sh: `style` is not the first step or needs something, or a
/// step has no function or no purpose.
fn faults_of_steps(script: &str) -> Vec<String> {
    let table = script.split("STEPS=\"\n").nth(1).and_then(|rest| rest.split("\n\"").next());
    let mut offences = Vec::new();
    let mut steps: Vec<Vec<&str>> = Vec::new();
    for line in table.unwrap_or_default().lines() {
        let Some((words, _purpose)) = line.split_once(" | ") else {
            offences.push(format!("no purpose: {line}"));
            continue;
        };
        steps.push(words.split_whitespace().collect());
    }
    match steps.first().map(Vec::as_slice) {
        Some(["style", _]) => {}
        other => offences.push(format!("the first step is {other:?}, not `style` without needs")),
    }
    for step in steps.iter().filter(|step| !script.contains(&format!("step_{}()", step[0]))) {
        offences.push(format!("step_{} does not exist", step[0]));
    }
    offences
}

#[test]
fn the_style_test_runs_first_and_builds_no_server() {
    let script = fs::read_to_string(root().join("scripts/test.sh")).unwrap();
    report("scripts/test.sh runs the style test first", &faults_of_steps(&script));
    let manifest = fs::read_to_string(root().join("tests/style/Cargo.toml")).unwrap();
    assert!(!manifest.contains("dependencies]"), "the style test must need no other crate");
}

#[test]
fn a_style_test_that_is_not_first_is_found() {
    let late = "STEPS=\"\nunit 900 | a\nstyle 300 release | b\nformat 9\n\"\nstep_style() {}\n";
    let wanted = [
        "no purpose: format 9",
        "the first step is Some([\"unit\", \"900\"]), not `style` without needs",
        "step_unit does not exist",
    ];
    assert_eq!(faults_of_steps(late), wanted);
}
