//! Imports: which file names which, the order of the folders, and the crates that a folder may use.
//!
//! Reads the text of the files, without the compiler: a path that begins with `crate::`, `super::`
//! or `self::` names the file of its longest part that is a module.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::{File, files, report, root, without_tests};

/// The crates that each folder of src/ may use beside std, in the order of the folders.
const CRATES: &[(&str, &[&str])] = &[
    ("base", &["core_affinity", "crossbeam_channel", "getrandom", "rustix", "serde", "socket2"]),
    (
        "wire",
        &[
            "bytemuck",
            "data_encoding",
            "hashbrown",
            "httparse",
            "memchr",
            "prost",
            "serde",
            "serde_json",
            "tungstenite",
            "zlib_rs",
        ],
    ),
    (
        "model",
        &["bytemuck", "data_encoding", "jsonwebtoken", "regex", "serde", "serde_json", "siphasher"],
    ),
    ("home", &["compact_str", "hashbrown", "siphasher", "slab", "smallvec"]),
    ("local", &["hashbrown", "slab", "smallvec"]),
    ("hub", &["hashbrown", "slab"]),
    ("engine", &["crossbeam_channel", "io_uring", "libc", "loom", "rustix", "socket2"]),
    (
        "config",
        &["figment", "http", "regex", "serde", "serde_json", "serde_saphyr", "strsim", "toml"],
    ),
    ("link", &["tokio"]),
    (
        "control",
        &[
            "axum",
            "data_encoding",
            "futures_util",
            "http_body_util",
            "httparse",
            "hyper",
            "hyper_rustls",
            "hyper_util",
            "percent_encoding",
            "schemars",
            "serde",
            "serde_json",
            "socket2",
            "tokio",
            "tower",
        ],
    ),
    ("process", &["libc", "tokio"]),
];

/// Layers that hold state alone: no clock, no thread, no socket, no file.
const PURE: [&str; 4] = ["wire", "home", "local", "hub"];
/// What such a layer may not name.
const IMPURE: [&str; 8] = [
    "std::fs",
    "std::io::stdin",
    "std::process",
    "std::thread",
    "std::os::fd",
    "Instant",
    "SystemTime",
    "TcpStream",
];
/// Folders that src/ may have.
const FOLDERS_MAX: usize = 14;

/// A file as a module: where its names begin.
struct Module {
    file: File,
    path: Vec<String>,
}

/// The modules under a folder of sources.
fn modules(folder: &str) -> Vec<Module> {
    let found = files(&[folder], "rs").into_iter().map(|file| {
        let name = file.name.strip_prefix(folder).unwrap().trim_start_matches('/');
        let name = name.strip_suffix(".rs").unwrap();
        let mut path: Vec<String> = name.split('/').map(str::to_owned).collect();
        if path.last().is_some_and(|last| ["mod", "lib"].contains(&last.as_str())) {
            path.pop();
        }
        Module { file, path }
    });
    found.collect()
}

/// Code alone: no comments, no tests, and no strings that could look like code.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    for line in without_tests(text).lines() {
        let line = line.trim_start();
        if !line.starts_with("//") {
            // How far an item is visible is no import.
            let line = line.replace("pub(in crate::", "pub(in ");
            code += line.split(" // ").next().unwrap_or_default();
            code.push('\n');
        }
    }
    code
}

/// The paths that begin with `prefix` in some code, with groups in braces written out.
fn paths(code: &str, prefix: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':') {
            continue;
        }
        spell(&code[at + prefix.len()..], &mut Vec::new(), &mut found);
    }
    found
}

/// Writes out the paths at the front of `code` behind the names of `stem`; returns what follows.
fn spell<'a>(code: &'a str, stem: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = spell(rest, stem, found).trim_start();
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let end = code.find(|letter| !is_name(letter)).unwrap_or(code.len());
    let (name, mut rest) = code.split_at(end);
    if name.is_empty() {
        return rest.strip_prefix('*').unwrap_or(rest);
    }
    stem.push(name.to_owned());
    match rest.strip_prefix("::") {
        Some(next) => rest = spell(next, stem, found),
        None => found.push(stem.clone()),
    }
    stem.pop();
    let rest = rest.trim_start();
    // A group names some things anew.
    match rest.strip_prefix("as ") {
        Some(next) => next.trim_start().trim_start_matches(is_name),
        None => rest,
    }
}

#[test]
fn a_folder_of_modules_has_its_own_file_inside() {
    let mut offences = Vec::new();
    for folder in ["src", "bench-harness/src", "tests", "fuzz"] {
        let beside = files(&[folder], "rs").into_iter().filter(|file| {
            let name = file.name.strip_suffix(".rs").unwrap_or_default();
            root().join(name).is_dir()
        });
        offences
            .extend(beside.map(|file| format!("{}: move it to its folder's mod.rs", file.name)));
    }
    report("one module style: x/mod.rs, never x.rs beside x/", &offences);
}

/// Which module each names, by their places in the list.
fn edges(modules: &[Module]) -> Vec<BTreeSet<usize>> {
    let at: BTreeMap<&[String], usize> =
        modules.iter().enumerate().map(|(at, module)| (&module.path[..], at)).collect();
    let named = |path: &[String]| (0..=path.len()).rev().find_map(|end| at.get(&path[..end]));
    let of = |(own, module): (usize, &Module)| {
        let code = code_of(&module.file.text);
        let mut all: Vec<Vec<String>> = paths(&code, "crate::");
        for (prefix, up) in [("self::", 0), ("super::", 1), ("super::super::", 2)] {
            let Some(kept) = module.path.len().checked_sub(up) else { continue };
            let stem = &module.path[..kept];
            all.extend(paths(&code, prefix).into_iter().map(|path| [stem, &path].concat()));
        }
        all.iter().filter_map(|path| named(path)).copied().filter(|to| *to != own).collect()
    };
    modules.iter().enumerate().map(of).collect()
}

/// The order of the folders, as src/lib.rs lists them.
fn order() -> Vec<String> {
    let list = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let names = list.lines().filter_map(|line| line.strip_prefix("pub mod "));
    names.filter_map(|rest| rest.strip_suffix(';')).map(str::to_owned).collect()
}

#[test]
fn a_folder_imports_only_from_the_folders_before_it() {
    let (modules, order) = (modules("src"), order());
    assert!(order.len() <= FOLDERS_MAX, "src/ has {} folders", order.len());
    let rank = |module: &Module| order.iter().position(|name| module.path.first() == Some(name));
    let mut offences = Vec::new();
    for (module, named) in modules.iter().zip(edges(&modules)) {
        let Some(own) = rank(module) else { continue };
        for to in named {
            if rank(&modules[to]).is_none_or(|rank| rank > own) {
                offences.push(format!("{} names {}", module.file.name, modules[to].file.name));
            }
        }
    }
    report("src/lib.rs lists the folders from the ground up", &offences);
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut offences = Vec::new();
    for folder in ["src", "bench-harness/src"] {
        let modules = modules(folder);
        for circle in circles(&edges(&modules)) {
            let names: Vec<&str> =
                circle.iter().map(|at| modules[*at].file.name.as_str()).collect();
            offences.push(names.join(" - "));
        }
    }
    report("imports go one way", &offences);
}

/// Sets of files that name each other, directly or by way of others.
fn circles(edges: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    let reached = |from: usize| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(at) = next.pop() {
            next.extend(edges[at].iter().copied().filter(|to| seen.insert(*to)));
        }
        seen
    };
    let reach: Vec<BTreeSet<usize>> = (0..edges.len()).map(reached).collect();
    let mut found: BTreeSet<Vec<usize>> = BTreeSet::new();
    for at in (0..edges.len()).filter(|at| reach[*at].contains(at)) {
        found.insert(reach[at].iter().copied().filter(|to| reach[*to].contains(&at)).collect());
    }
    found.into_iter().collect()
}

/// The crates that Cargo.toml of the server names, as the code spells them.
fn dependencies() -> Vec<String> {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.starts_with("dependencies]") || section.ends_with(".dependencies]");
        } else if let (true, Some((name, _))) = (inside, line.split_once(['=', '.'])) {
            found.push(name.trim().replace('-', "_"));
        }
    }
    found
}

/// Whether code names a crate. A module of that name, imported from this crate, is not the crate.
fn uses_crate(code: &str, name: &str) -> bool {
    let is_module = paths(code, "crate::").iter().any(|path| {
        let path = path.strip_suffix(&["self".to_owned()]).unwrap_or(path);
        path.last().is_some_and(|last| last == name)
    });
    !is_module && !paths(code, &format!("{name}::")).is_empty()
}

#[test]
fn a_folder_uses_only_its_crates() {
    let dependencies = dependencies();
    let mut offences = Vec::new();
    let mut used = BTreeSet::new();
    for module in modules("src") {
        let Some(folder) = module.path.first() else { continue };
        let Some((_, allowed)) = CRATES.iter().find(|(name, _)| name == folder) else {
            if module.file.name != "src/main.rs" {
                offences.push(format!("{folder}: say in CRATES what it may use"));
            }
            continue;
        };
        let code = code_of(&module.file.text);
        for name in dependencies.iter().filter(|name| uses_crate(&code, name)) {
            used.insert((folder.clone(), name.clone()));
            if !allowed.contains(&name.as_str()) {
                offences.push(format!("{} uses {name}", module.file.name));
            }
        }
    }
    for (folder, allowed) in CRATES {
        let unused = allowed
            .iter()
            .filter(|name| !used.contains(&((*folder).to_owned(), (**name).to_owned())));
        offences.extend(unused.map(|name| format!("CRATES: {folder} does not use {name}")));
    }
    report("CRATES lists the crates that each folder uses", &offences);
}

#[test]
fn state_has_no_clock_no_thread_and_no_socket() {
    let mut offences = Vec::new();
    for module in modules("src") {
        if !module.path.first().is_some_and(|folder| PURE.contains(&folder.as_str())) {
            continue;
        }
        let code = code_of(&module.file.text);
        let named = IMPURE.iter().filter(|name| code.contains(**name));
        offences.extend(named.map(|name| format!("{}: {name}", module.file.name)));
    }
    report("wire, home, local and hub are told the time and never wait", &offences);
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let code = "use crate::a::{self, b::{C, d as e}, f};\nlet x = crate::g::h(1);";
    let found: Vec<String> = paths(code, "crate::").iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["a::self", "a::b::C", "a::b::d", "a::f", "g::h"]);
    let edges = [vec![1], vec![2], vec![0], vec![0]].map(|to| to.into_iter().collect());
    assert_eq!(circles(&edges), [vec![0, 1, 2]]);
}
