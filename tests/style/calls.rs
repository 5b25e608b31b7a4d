//! The methods of `Hub` call in one direction.
//!
//! src/hub/mod.rs lists the files from the ground up. A method of `Hub` may call methods of its own
//! file, and of files before it in that list. src/hub/mod.rs itself comes last.

use std::collections::BTreeMap;

use crate::modules::code_of;
use crate::{File, files, report};

/// The part of a file's code that stands in its `impl Hub` blocks.
fn impl_of_hub(text: &str) -> String {
    // `code_of` has no indentation, so the blocks end where the text has a brace at its margin.
    let mut inside = false;
    let mut found = String::new();
    for line in text.lines() {
        if line.starts_with("impl Hub {") {
            inside = true;
        } else if line.starts_with('}') {
            inside = false;
        } else if line.starts_with("#[cfg(test)]") {
            break;
        } else if inside {
            found += line;
            found.push('\n');
        }
    }
    code_of(&found)
}

/// The names behind each `prefix` in `code`.
fn names_behind<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let names = code.match_indices(prefix).filter_map(|(at, _)| {
        let before = code[..at].chars().next_back();
        let rest = &code[at + prefix.len()..];
        let end = rest.find(|letter| !is_name(letter)).unwrap_or(rest.len());
        (!before.is_some_and(is_name) && end > 0).then_some(&rest[..end])
    });
    names.collect()
}

/// Calls from one file to a method of a later one. `order` names the files from the ground up.
fn upward_calls(files: &[File], order: &[String]) -> Vec<String> {
    let stem = |file: &File| {
        let name = file.name.rsplit('/').next().unwrap_or_default();
        name.trim_end_matches(".rs").to_owned()
    };
    let place = |name: &str| order.iter().position(|listed| listed == name).unwrap_or(order.len());
    let mut methods = BTreeMap::new();
    let code: Vec<(String, String)> =
        files.iter().map(|file| (stem(file), impl_of_hub(&file.text))).collect();
    for (file, code) in &code {
        for name in names_behind(code, "fn ") {
            methods.insert(name, file.as_str());
        }
    }
    let mut found = Vec::new();
    for (file, code) in &code {
        // A chain may be broken before its dot.
        let code: String = code.split('\n').map(str::trim).collect::<Vec<_>>().join("\n");
        let code = code.replace("\n.", ".");
        for receiver in ["self.", "Self::", "Hub::"] {
            for name in names_behind(&code, receiver) {
                let is_called = code.contains(&format!("{receiver}{name}("));
                let Some(owner) = methods.get(name).filter(|_| is_called) else { continue };
                if place(owner) > place(file) {
                    found.push(format!("{file} calls {name} of {owner}, which is listed later"));
                }
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The files that a `mod.rs` declares, in their order.
fn declared(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| {
        let line = line.trim_start_matches("pub ");
        line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'))
    });
    names.map(str::to_owned).collect()
}

#[test]
fn methods_of_the_hub_call_in_one_direction() {
    let all = files(&["src/hub"], "rs");
    let top: Vec<File> =
        all.into_iter().filter(|file| file.name.matches('/').count() == 2).collect();
    let head = top.iter().find(|file| file.name == "src/hub/mod.rs");
    let order = declared(&head.unwrap().text);
    assert!(order.len() > 20, "the files of the hub are listed: {order:?}");
    report("methods of the hub call in one direction", &upward_calls(&top, &order));
}

#[test]
fn a_call_of_a_method_of_a_later_file_is_found() {
    let file =
        |name: &str, text: &str| File { name: format!("src/hub/{name}.rs"), text: text.to_owned() };
    let low =
        "impl Hub {\n    pub fn low(&self) {\n        self\n            .high(1);\n    }\n}\n";
    let high =
        "impl Hub {\n    fn high(&self) {\n        // self.top()\n        self.low();\n    }\n}\n";
    let other = "impl Other {\n    fn low(&self) {\n        self.high();\n    }\n}\n";
    let order = ["low", "other", "high"].map(str::to_owned);
    let found = upward_calls(&[file("low", low), file("high", high), file("other", other)], &order);
    assert_eq!(found, ["low calls high of high, which is listed later"]);
}
