//! Commands of the command line: files, variables and tokens that they write.

use std::path::Path;
use std::process::Output;

use crate::common::command;

fn run(folder: &Path, arguments: &[&str]) -> Output {
    command().args(arguments).current_dir(folder).output().unwrap()
}

fn print(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn generated_files_of_every_format_are_valid_and_make_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for name in ["a.json", "a.yaml", "a.yml", "a.toml"] {
        assert_eq!(print(folder, &["genconfig", "-c", name]), "");
        print(folder, &["checkconfig", "-c", name, "--strict"]);
        let token = print(folder, &["gentoken", "-q", "-u", "42", "-c", name]);
        assert!(!token.ends_with('\n') && token.split('.').count() == 3, "{token}");
        assert!(print(folder, &["checktoken", &token, "-c", name]).starts_with("valid: user 42"));
        let token = print(folder, &["gensubtoken", "-q", "-s", "news", "-c", name]);
        let valid = print(folder, &["checksubtoken", &token, "-c", name]);
        assert!(valid.starts_with("valid: anonymous user"), "{valid}");
        assert!(refused(folder, &["genconfig", "-c", name]).contains("cannot write"));
    }
}

#[test]
fn default_files_of_every_format_are_written_or_printed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for name in ["b.json", "b.yaml", "b.toml"] {
        let text = print(folder, &["defaultconfig", "-c", name, "--dry-run"]);
        assert!(text.contains("http_server") && !folder.join(name).exists());
        assert_eq!(print(folder, &["defaultconfig", "-c", name]), "");
        assert_eq!(std::fs::read_to_string(folder.join(name)).unwrap(), text);
        print(folder, &["checkconfig", "--strict", name]);
    }
    let variables = print(folder, &["defaultenv"]);
    assert!(variables.contains("\nDRUMLINE_HTTP_SERVER_PORT=8000\n"), "{variables}");
    let part = print(folder, &["configdoc", "-m", "-s", "http_api"]);
    assert!(part.contains("`http_api.key`") && !part.contains("`client."), "{part}");
    for shell in ["bash", "zsh", "fish", "powershell"] {
        assert!(print(folder, &["completion", shell]).contains("drumline"));
    }
}

#[test]
fn checkconfig_reads_the_environment_and_the_file_dot_env() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("config.json"), r#"{"http_api":{"key":"k"},"bogus":1}"#).unwrap();
    let check = ["checkconfig"];
    assert_eq!(print(folder, &check), "config.json is valid\n");
    assert!(refused(folder, &["checkconfig", "-s"]).contains("keys without effect"));
    let output = command().args(check).current_dir(folder).env("DRUMLINE_SHARDS", "x").output();
    let told = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(told.contains("DRUMLINE_SHARDS: `x` is not a whole number"), "{told}");
    let dot_env = folder.join(".env");
    std::fs::write(&dot_env, "CENTRIFUGO_HTTP_SERVER_PORT=x\n").unwrap();
    assert!(refused(folder, &check).contains("CENTRIFUGO_HTTP_SERVER_PORT: `x` is not"));
    std::fs::write(&dot_env, "CENTRIFUGO_HTTP_API_KEY=hunter2 hunter2\n").unwrap();
    let told = refused(folder, &check);
    assert!(told.contains(".env: the first line is not NAME=VALUE"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
    std::fs::write(&dot_env, "CENTRIFUGO_ENGINE_TYPE=redis\n").unwrap();
    assert!(refused(folder, &check).contains("CENTRIFUGO_ENGINE_TYPE: this server keeps all"));
}
