//! The modules of a folder of sources, and the paths that their code names.
//!
//! Reads the text of the files, without the compiler. Expands groups in braces and resolves `self`
//! and `super`.

use crate::{File, files, without_tests};

/// A file and the path of its module.
pub struct Module {
    pub file: File,
    pub path: Vec<String>,
}

impl Module {
    /// The module of a file whose name begins with `folder`.
    pub fn new(folder: &str, file: File) -> Module {
        let name = file.name.strip_prefix(folder).unwrap().trim_start_matches('/');
        let name = name.strip_suffix(".rs").unwrap();
        let mut path: Vec<String> = name.split('/').map(str::to_owned).collect();
        if path.last().is_some_and(|last| ["mod", "lib"].contains(&last.as_str())) {
            path.pop();
        }
        Module { file, path }
    }

    /// The folder of src/ that the file is in; `None` for src/lib.rs.
    pub fn folder(&self) -> Option<&str> {
        self.path.first().map(String::as_str)
    }
}

/// The modules under a folder of sources.
pub fn modules(folder: &str) -> Vec<Module> {
    files(&[folder], "rs").into_iter().map(|file| Module::new(folder, file)).collect()
}

/// The code of a file, without comments and tests.
pub fn code_of(text: &str) -> String {
    let mut code = String::new();
    for line in without_tests(text).lines() {
        let line = line.trim_start();
        if !line.starts_with("//") {
            // The scope of a visibility is not an import.
            let line = line.replace("pub(in crate::", "pub(in ");
            code += line.split(" // ").next().unwrap_or_default();
            code.push('\n');
        }
    }
    code
}

/// The paths in `code` that begin with `prefix`, without it. Groups in braces are expanded; a glob
/// names the path before it.
pub fn paths(code: &str, prefix: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':') {
            continue;
        }
        expand(&code[at + prefix.len()..], &mut Vec::new(), &mut found);
    }
    found
}

/// Expands the paths at the start of `code`, each behind the names of `stem`. Returns the rest.
fn expand<'a>(code: &'a str, stem: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = expand(rest, stem, found).trim_start();
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
        let Some(rest) = rest.strip_prefix('*') else { return rest };
        found.push(stem.clone());
        return rest;
    }
    stem.push(name.to_owned());
    match rest.strip_prefix("::") {
        Some(next) => rest = expand(next, stem, found),
        None => found.push(stem.clone()),
    }
    stem.pop();
    let rest = rest.trim_start();
    // An import may be renamed.
    match rest.strip_prefix("as ") {
        Some(next) => next.trim_start().trim_start_matches(is_name),
        None => rest,
    }
}

/// The absolute paths, from the root of the crate, of all that a module names by `crate`, `self`,
/// `super` or one of its own submodules.
pub fn named(module: &Module) -> Vec<Vec<String>> {
    let code = code_of(&module.file.text);
    let mut found = paths(&code, "crate::");
    for name in submodules(&code) {
        let from = [&module.path[..], &[name.to_owned()]].concat();
        found.extend(paths(&code, &format!("{name}::")).iter().map(|path| resolve(&from, path)));
    }
    found.extend(paths(&code, "self::").iter().map(|path| resolve(&module.path, path)));
    for path in paths(&code, "super::") {
        let above = &module.path[..module.path.len().saturating_sub(1)];
        found.push(resolve(above, &path));
    }
    found
}

/// The names of the submodules that some code declares in files of their own.
fn submodules(code: &str) -> Vec<&str> {
    let declared = code.lines().filter_map(|line| line.strip_suffix(';')?.rsplit_once("mod "));
    let declared = declared.filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
    declared.map(|(_, name)| name).collect()
}

/// A path that begins at a module, with each leading `super` resolved.
fn resolve(from: &[String], path: &[String]) -> Vec<String> {
    match path.split_first() {
        Some((first, rest)) if first == "super" => {
            resolve(&from[..from.len().saturating_sub(1)], rest)
        }
        _ => [from, path].concat(),
    }
}

#[test]
fn groups_renames_and_globs_are_expanded() {
    let code = "use crate::a::{self, b::{C, d as e}, f, k::*};\nlet x = crate::g::h(1);";
    let found: Vec<String> = paths(code, "crate::").iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["a::self", "a::b::C", "a::b::d", "a::f", "a::k", "g::h"]);
}

#[test]
fn self_and_every_super_are_resolved() {
    let text = "use self::a::A;\nuse super::b::B;\nuse super::super::{c::C, d};\n\
                use super::super::super::e;\nuse super::*;\n// use crate::x;\n\
                #[cfg(test)]\nmod tests { use crate::t; }";
    let file = File { name: "src/x/y/z.rs".to_owned(), text: text.to_owned() };
    let found = named(&Module::new("src", file));
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["x::y::z::a::A", "x::y::b::B", "x::c::C", "x::d", "e", "x::y"]);
}
