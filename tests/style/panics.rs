//! What may end the process: no unwrap outside tests, and a reason for each assertion.

use crate::{File, files, lines_where, planted, report, without_tests};

/// Code outside tests that may end the process: file, a part of the line, and the reason why no
/// peer, backend, kernel or clock can reach it.
const MAY_PANIC: &[(&str, &str, &str)] = &[
    (
        "src/engine/bus.rs",
        "assert!(shards <= SHARDS_MAX",
        "the configuration allows SHARDS_MAX shards; at the start only",
    ),
    ("src/engine/bus.rs", "assert!(workers > 0", "a node has a processor; at the start only"),
    (
        "src/engine/bus.rs",
        "unreachable!(\"the bus owns the sender and the receiver",
        "a queue without a bound refuses only once an end is gone",
    ),
    ("src/model/names.rs", "assert!(shards > 0", "a node has a shard; at the start only"),
    (
        "src/config/engine.rs",
        ".expect(\"a loaded configuration",
        "`check` built the same verifiers",
    ),
    ("src/config/print.rs", ".expect(\"every value of a conf", "a command's output only"),
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
        "callers take at most 64 KiB (DELTA_DATA_MAX)",
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
        ".expect(\"a join or leave has client information\")",
        "joins are made with info",
    ),
    (
        "src/hub/turn_output.rs",
        ".expect(\"a turn's bytes are bounded\")",
        "4 MiB, and one answer beyond them",
    ),
    ("src/wire/tls/suite.rs", ".expect(\"a key of the suite's", "`Pair` has its suite's lengths"),
    ("src/wire/tls/suite.rs", ".expect(\"a short label", "three labels, 48 bytes at most"),
    ("src/wire/tls/seal.rs", ".expect(\"`out` has the len", "callers take `sealed_len`"),
    ("src/wire/tls/seal.rs", ".expect(\"a record is short", "at most 16 KiB and a type"),
    ("src/base/wheel.rs", "assert!(buckets.is_power_of_two()", "a constant; at the start only"),
];

fn unwraps(files: &[File]) -> Vec<String> {
    let needle = [".unw", "rap()"].concat();
    lines_where(files, |code| code.contains(&needle))
}

/// Code that may panic and is not on the list, and entries of the list that match no code.
fn may_panic(files: &[File], list: &[(&str, &str, &str)]) -> Vec<String> {
    let words = ["unreachable!(", ".expect(", "panic!(", "assert!(", "assert_eq!(", "assert_ne!("];
    let unfinished = ["to".to_owned() + "do!(", "unimplemented!(".to_owned()];
    let mut offences = Vec::new();
    let mut used = vec![false; list.len()];
    for file in files {
        for (number, line) in without_tests(&file.text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let may_end = words.iter().any(|word| code.contains(word))
                || unfinished.iter().any(|word| code.contains(word));
            // The compiler evaluates these.
            if !may_end || code.trim_start().starts_with("const _: () = assert!(") {
                continue;
            }
            let allowed =
                list.iter().position(|(name, part, _)| file.name == *name && code.contains(part));
            match allowed {
                Some(at) => used[at] = true,
                None => offences.push(format!("{}:{}: {}", file.name, number + 1, code.trim())),
            }
        }
    }
    for ((name, part, _), _) in list.iter().zip(used).filter(|(_, used)| !used) {
        offences.push(format!("{name}: no line contains `{part}`: take it off the list"));
    }
    offences
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    let folders = ["src", "bench-harness/src", "ticker/src"];
    report("no unwrap outside tests", &unwraps(&files(&folders, "rs")));
}

#[test]
fn nothing_from_outside_can_make_the_process_panic() {
    let offences = may_panic(&files(&["src"], "rs"), MAY_PANIC);
    report("handle the case, or add it to MAY_PANIC with a reason", &offences);
}

#[test]
fn an_unwrap_is_found() {
    let text = ["fn f() {\n    a.unw", "rap();\n}\n#[cfg(test)]\nmod tests { b.unw", "rap() }"];
    assert_eq!(unwraps(&[planted("src/a.rs", &text.concat())]), ["src/a.rs:2"]);
}

#[test]
fn a_panic_off_the_list_and_an_unused_entry_are_found() {
    let text = "const _: () = assert!(1 < 2);\nassert!(allowed);\nlet x = y.expect(\"z\");\n";
    let list = [("src/a.rs", "assert!(allowed", "why"), ("src/b.rs", "panic!(", "why")];
    let wanted = [
        "src/a.rs:3: let x = y.expect(\"z\");",
        "src/b.rs: no line contains `panic!(`: take it off the list",
    ];
    assert_eq!(may_panic(&[planted("src/a.rs", text)], &list), wanted);
}
