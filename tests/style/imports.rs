//! Imports between files: no circle, the order of the folders, one module style.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::modules::{Module, modules, named};
use crate::{File, files, report, root};

/// Folders that src/ may have.
const FOLDERS_MAX: usize = 14;

/// The other modules that each module imports from, by their places in the list.
fn edges(modules: &[Module]) -> Vec<BTreeSet<usize>> {
    let at: BTreeMap<&[String], usize> =
        modules.iter().enumerate().map(|(at, module)| (&module.path[..], at)).collect();
    // A path names the file of its longest part that is a module.
    let file_of = |path: &[String]| (0..=path.len()).rev().find_map(|end| at.get(&path[..end]));
    let of = |(own, module): (usize, &Module)| {
        let paths = named(module);
        paths.iter().filter_map(|path| file_of(path)).copied().filter(|to| *to != own).collect()
    };
    modules.iter().enumerate().map(of).collect()
}

/// Imports of a folder that comes later in `order`, or that `order` does not list.
fn against_the_order(modules: &[Module], order: &[String]) -> Vec<String> {
    let rank = |module: &Module| order.iter().position(|name| module.folder() == Some(name));
    let mut offences = Vec::new();
    for (module, named) in modules.iter().zip(edges(modules)) {
        let Some(own) = rank(module) else { continue };
        for to in named {
            if rank(&modules[to]).is_none_or(|rank| rank > own) {
                offences.push(format!("{} imports {}", module.file.name, modules[to].file.name));
            }
        }
    }
    offences
}

/// Sets of files that import each other, directly or through others.
fn circles(modules: &[Module]) -> Vec<String> {
    let edges = edges(modules);
    let reached = |from: usize| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(at) = next.pop() {
            next.extend(edges[at].iter().copied().filter(|to| seen.insert(*to)));
        }
        seen
    };
    let reach: Vec<BTreeSet<usize>> = (0..edges.len()).map(reached).collect();
    let mut found: BTreeSet<Vec<&str>> = BTreeSet::new();
    for at in (0..edges.len()).filter(|at| reach[*at].contains(at)) {
        let members = reach[at].iter().filter(|to| reach[**to].contains(&at));
        found.insert(members.map(|member| modules[*member].file.name.as_str()).collect());
    }
    found.into_iter().map(|names| names.join(" - ")).collect()
}

/// Files that lie beside a folder of the same name.
fn beside_their_folder(files: &[File], is_folder: impl Fn(&str) -> bool) -> Vec<String> {
    let beside = files.iter().filter(|file| is_folder(file.name.strip_suffix(".rs").unwrap()));
    beside.map(|file| format!("{}: move it to its folder's mod.rs", file.name)).collect()
}

/// The folders that src/lib.rs lists, in its order.
fn order() -> Vec<String> {
    let list = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let names = list.lines().filter_map(|line| line.strip_prefix("pub mod "));
    names.filter_map(|rest| rest.strip_suffix(';')).map(str::to_owned).collect()
}

#[test]
fn a_folder_imports_only_from_the_folders_before_it() {
    let offences = against_the_order(&modules("src"), &order());
    report("src/lib.rs lists the folders from the ground up", &offences);
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let folders = ["src", "bench-harness/src", "ticker/src"];
    report("imports go one way", &folders.map(|folder| circles(&modules(folder))).concat());
}

#[test]
fn the_source_has_few_folders_and_the_list_names_each() {
    let entries = fs::read_dir(root().join("src")).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut folders: Vec<String> =
        folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    folders.sort();
    report(
        "src/ has few folders, all of them in src/lib.rs",
        &faults_of_folders(&folders, &order()),
    );
}

/// Folders beyond the bound, and folders that are not listed.
fn faults_of_folders(folders: &[String], listed: &[String]) -> Vec<String> {
    let mut offences = Vec::new();
    if folders.len() > FOLDERS_MAX {
        offences.push(format!("{} folders, more than {FOLDERS_MAX}", folders.len()));
    }
    let unlisted = folders.iter().filter(|folder| !listed.contains(folder));
    offences.extend(unlisted.map(|folder| format!("src/lib.rs does not list {folder}")));
    offences
}

#[test]
fn too_many_folders_and_an_unlisted_one_are_found() {
    let folders: Vec<String> = (0..=FOLDERS_MAX).map(|nth| format!("f{nth}")).collect();
    let wanted = ["15 folders, more than 14", "src/lib.rs does not list f14"];
    assert_eq!(faults_of_folders(&folders, &folders[..FOLDERS_MAX]), wanted);
}

#[test]
fn a_folder_of_modules_has_its_own_file_inside() {
    let files = files(&["src", "bench-harness/src", "tests", "fuzz", "ticker"], "rs");
    let offences = beside_their_folder(&files, |name| root().join(name).is_dir());
    report("one module style: x/mod.rs, never x.rs beside x/", &offences);
}

/// Modules of small texts.
fn planted(files: &[(&str, &str)]) -> Vec<Module> {
    let module = |(name, text): &(&str, &str)| {
        Module::new("src", File { name: (*name).to_owned(), text: (*text).to_owned() })
    };
    files.iter().map(module).collect()
}

#[test]
fn an_import_against_the_order_is_found() {
    let order = ["low", "high"].map(str::to_owned);
    let modules = planted(&[
        ("src/low/a.rs", "use crate::high::b::B;"),
        ("src/low/c.rs", "fn f() { super::super::high::b::call(); }"),
        ("src/low/d.rs", "use crate::{low::a, unlisted};"),
        ("src/high/b.rs", "use crate::low::a::A;"),
        ("src/unlisted.rs", ""),
    ]);
    let wanted = [
        "src/low/a.rs imports src/high/b.rs",
        "src/low/c.rs imports src/high/b.rs",
        "src/low/d.rs imports src/unlisted.rs",
    ];
    assert_eq!(against_the_order(&modules, &order), wanted);
}

#[test]
fn a_circle_is_found_through_super_and_through_other_files() {
    let modules = planted(&[
        ("src/x/mod.rs", "pub mod a;\npub mod b;"),
        ("src/x/a.rs", "use super::b::B;"),
        ("src/x/b.rs", "use crate::x::c;"),
        ("src/x/c.rs", "use super::a::{self, A};"),
        ("src/y/mod.rs", "use self::d::D;"),
        ("src/y/d.rs", "use super::*;"),
        ("src/w/mod.rs", "mod e;\npub use e::E;"),
        ("src/w/e.rs", "use super::W;"),
        ("src/z.rs", "use crate::x::a::A;\n// use crate::z;"),
    ]);
    let wanted = [
        "src/w/mod.rs - src/w/e.rs",
        "src/x/a.rs - src/x/b.rs - src/x/c.rs",
        "src/y/mod.rs - src/y/d.rs",
    ];
    assert_eq!(circles(&modules), wanted);
}

#[test]
fn a_file_beside_its_folder_is_found() {
    let file = |name: &str| File { name: name.to_owned(), text: String::new() };
    let files = [file("src/x.rs"), file("src/y/mod.rs")];
    let found = beside_their_folder(&files, |name| ["src/x", "src/y"].contains(&name));
    assert_eq!(found, ["src/x.rs: move it to its folder's mod.rs"]);
}
