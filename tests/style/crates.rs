//! The crates that each folder of src/ may use, and the parts of std that state code must not name.

use std::collections::BTreeSet;
use std::fs;

use crate::modules::{Module, code_of, modules, paths};
use crate::{report, root};

/// The crates that each folder of src/ may use beside std, in the order of the folders.
const CRATES: &[(&str, &[&str])] = &[
    (
        "base",
        &[
            "argon2",
            "core_affinity",
            "crossbeam_channel",
            "getrandom",
            "libc",
            "rustix",
            "serde",
            "socket2",
            "tracing",
        ],
    ),
    (
        "wire",
        &[
            "aws_lc_rs",
            "bytemuck",
            "data_encoding",
            "hashbrown",
            "httparse",
            "memchr",
            "prost",
            "rustls",
            "serde",
            "serde_json",
            "tungstenite",
            "zeroize",
            "zlib_rs",
        ],
    ),
    (
        "model",
        &[
            "bytemuck",
            "data_encoding",
            "jsonwebtoken",
            "regex",
            "regex_syntax",
            "serde",
            "serde_json",
            "siphasher",
        ],
    ),
    ("home", &["compact_str", "hashbrown", "siphasher", "slab", "smallvec"]),
    ("local", &["hashbrown", "slab", "smallvec"]),
    ("hub", &["hashbrown", "rustls", "slab"]),
    ("engine", &["crossbeam_channel", "io_uring", "libc", "rustix", "socket2"]),
    (
        "config",
        &[
            "data_encoding",
            "dotenvy",
            "figment",
            "http",
            "percent_encoding",
            "regex",
            "serde",
            "serde_json",
            "serde_saphyr",
            "strsim",
            "toml",
        ],
    ),
    (
        "tls",
        &[
            "aws_lc_rs",
            "data_encoding",
            "rcgen",
            "rustls",
            "rustls_native_certs",
            "rustls_pki_types",
            "tempfile",
            "webpki_roots",
            "x509_parser",
        ],
    ),
    ("link", &["tokio", "tracing"]),
    (
        "store",
        &[
            "fjall",
            "log",
            "memchr",
            "prost",
            "rustix",
            "siphasher",
            "tempfile",
            "tracing",
            "xxhash_rust",
        ],
    ),
    (
        "feeds",
        &[
            "async_rs",
            "futures_io",
            "futures_util",
            "lapin",
            "rustls",
            "rustls_pki_types",
            "serde",
            "serde_json",
            "tokio",
            "tokio_rustls",
            "tracing",
        ],
    ),
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
            "instant_acme",
            "percent_encoding",
            "prost",
            "rustls",
            "rustls_pki_types",
            "schemars",
            "serde",
            "serde_json",
            "socket2",
            "tempfile",
            "tokio",
            "tokio_rustls",
            "tower",
            "tracing",
        ],
    ),
    ("process", &["libc", "tokio", "tracing"]),
];

/// Folders of the data plane. Their code blocks on nothing but the ring.
const DATA_PLANE: [&str; 7] = ["base", "wire", "model", "home", "local", "hub", "engine"];
/// Crates of the control plane.
const ASYNCHRONOUS: [&str; 6] = ["axum", "futures_util", "hyper", "hyper_util", "tokio", "tower"];

/// Folders that hold state alone.
const STATE: [&str; 5] = ["wire", "model", "home", "local", "hub"];
/// Parts of std that state code must not name.
const OUTSIDE: [&[&str]; 13] = [
    &["env"],
    &["fs"],
    &["io", "stdin"],
    &["net", "TcpListener"],
    &["net", "TcpStream"],
    &["net", "UdpSocket"],
    &["os"],
    &["process"],
    &["sync", "Condvar"],
    &["sync", "mpsc"],
    &["thread"],
    &["time", "Instant"],
    &["time", "SystemTime"],
];
/// State code that names them all the same, with the reason.
const MAY_NAME: [(&str, &str, &str); 1] =
    [("src/model/hand_over.rs", "os::fd::OwnedFd", "a message carries a socket between planes")];

/// The crates that a Cargo.toml names as dependencies, as the code spells them.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
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

/// Crates that a folder uses and `crates` does not list for it, and listed crates that it does not
/// use.
fn crates_off_the_list(
    modules: &[Module],
    dependencies: &[String],
    crates: &[(&str, &[&str])],
) -> Vec<String> {
    let mut offences = Vec::new();
    let mut used = BTreeSet::new();
    for module in modules.iter().filter(|module| module.file.name != "src/main.rs") {
        let Some(folder) = module.folder() else { continue };
        let Some((_, allowed)) = crates.iter().find(|(name, _)| *name == folder) else {
            offences.push(format!("{}: CRATES does not list {folder}", module.file.name));
            continue;
        };
        let code = code_of(&module.file.text);
        for name in dependencies.iter().filter(|name| uses_crate(&code, name)) {
            used.insert((folder, name.as_str()));
            if !allowed.contains(&name.as_str()) {
                offences.push(format!("{} uses {name}", module.file.name));
            }
        }
    }
    for (folder, allowed) in crates {
        let unused = allowed.iter().filter(|name| !used.contains(&(*folder, **name)));
        offences.extend(unused.map(|name| format!("CRATES: {folder} does not use {name}")));
    }
    offences
}

/// What state code names of the world outside: clocks, threads, sockets, files.
fn outside_of_state(modules: &[Module]) -> Vec<String> {
    let mut offences = Vec::new();
    for module in modules {
        if !module.folder().is_some_and(|folder| STATE.contains(&folder)) {
            continue;
        }
        for path in paths(&code_of(&module.file.text), "std::") {
            let (name, text) = (&module.file.name, path.join("::"));
            let is_allowed = MAY_NAME.iter().any(|(file, part, _)| file == name && *part == text);
            if !is_allowed
                && OUTSIDE.iter().any(|part| path.iter().take(part.len()).eq(part.iter()))
            {
                offences.push(format!("{name} names std::{text}"));
            }
        }
    }
    offences
}

#[test]
fn a_folder_uses_only_its_crates() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let offences = crates_off_the_list(&modules("src"), &dependencies(&manifest), CRATES);
    report("CRATES lists the crates that each folder uses", &offences);
}

/// Asynchronous crates that `crates` allows in a folder of the data plane.
fn asynchronous_data_plane(crates: &[(&str, &[&str])]) -> Vec<String> {
    let mut offences = Vec::new();
    for (folder, allowed) in crates.iter().filter(|(name, _)| DATA_PLANE.contains(name)) {
        let found = allowed.iter().filter(|name| ASYNCHRONOUS.contains(name));
        offences.extend(found.map(|name| format!("CRATES allows {name} in {folder}")));
    }
    offences
}

#[test]
fn the_data_plane_uses_no_asynchronous_crate() {
    report("tokio, hyper and axum belong to the control plane", &asynchronous_data_plane(CRATES));
}

#[test]
fn an_asynchronous_crate_in_the_data_plane_is_found() {
    let crates: [(&str, &[&str]); 2] = [("hub", &["slab", "tokio"]), ("control", &["tokio"])];
    assert_eq!(asynchronous_data_plane(&crates), ["CRATES allows tokio in hub"]);
}

#[test]
fn state_names_no_clock_thread_or_socket() {
    report("the engine hands time and bytes to state code", &outside_of_state(&modules("src")));
}

/// A module of a small text.
fn planted(name: &str, text: &str) -> Module {
    Module::new("src", crate::File { name: name.to_owned(), text: text.to_owned() })
}

#[test]
fn a_crate_off_the_list_is_found() {
    let modules = [
        planted("src/hub/a.rs", "use slab::Slab;\nfn f() { tokio::spawn(async {}); }"),
        planted("src/hub/b.rs", "use crate::model::http;\nuse http::Method;"),
        planted("src/extra/c.rs", ""),
    ];
    let dependencies = ["http", "hyper", "slab", "tokio"].map(str::to_owned);
    let crates: [(&str, &[&str]); 1] = [("hub", &["hyper", "slab"])];
    let wanted = [
        "src/hub/a.rs uses tokio",
        "src/extra/c.rs: CRATES does not list extra",
        "CRATES: hub does not use hyper",
    ];
    assert_eq!(crates_off_the_list(&modules, &dependencies, &crates), wanted);
}

#[test]
fn a_clock_a_thread_or_a_socket_in_state_is_found() {
    let modules = [
        planted("src/home/a.rs", "use std::time::{Duration, Instant};"),
        planted("src/local/b.rs", "use std::{sync::Arc, thread};\nuse std::net::IpAddr;"),
        planted("src/hub/c.rs", "fn f() { std::net::TcpStream::connect(address); }"),
        planted("src/hub/d.rs", "//! Names std::fs.\nuse std::os::fd::AsRawFd;"),
        planted("src/engine/e.rs", "use std::time::Instant;"),
    ];
    let wanted = [
        "src/home/a.rs names std::time::Instant",
        "src/local/b.rs names std::thread",
        "src/hub/c.rs names std::net::TcpStream::connect",
        "src/hub/d.rs names std::os::fd::AsRawFd",
    ];
    assert_eq!(outside_of_state(&modules), wanted);
}

#[test]
fn dependencies_of_every_kind_are_read() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\nserde-json = \"1\"\n\
                    tokio.workspace = true\n[dev-dependencies]\nloom = \"1\"\n\
                    [target.'cfg(a)'.dependencies]\nlibc = \"1\"\n";
    assert_eq!(dependencies(manifest), ["serde_json", "tokio", "libc"]);
}
