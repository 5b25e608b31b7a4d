//! Configuration files of every format: never a panic, and what loads can be used.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use drumline::config::{Sources, load};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

fn file(name: &str, text: &[u8]) -> PathBuf {
    let file = FOLDER.path().join(name);
    std::fs::write(&file, text).expect("the folder can be written to");
    file
}

fuzz_target!(|input: &[u8]| {
    let Some((format, text)) = input.split_first() else { return };
    let name = ["a.toml", "a.json", "a.yaml"][usize::from(format % 3)];
    let sources = Sources { file: Some(file(name, text)), ..Sources::default() };
    match load(&sources) {
        Ok(loaded) => {
            let config = loaded.config;
            config.hub_settings(100);
            config.listener_options();
            config.used_proxies();
        }
        Err(error) => assert!(!error.cause.is_empty() && !error.cure.is_empty()),
    }
});
