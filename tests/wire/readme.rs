//! The examples of README.md, as they are written there.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::access::Started;
use crate::common::request;
use crate::common::{Client, wait_for};

const README: &str = include_str!("../../README.md");

/// The code blocks of README.md in one language.
fn blocks(language: &str) -> impl Iterator<Item = &'static str> {
    let start = format!("```{language}\n");
    let parts: Vec<_> = README.split(&start).skip(1).collect();
    parts.into_iter().map(|rest| rest.split("\n```").next().unwrap())
}

/// The command of a line of README.md, directed to a server.
fn shell(line: &str, server: &Started) -> Command {
    let line = line.replace("localhost:8000", &server.address.to_string());
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("exec {}", line.replacen("curl ", "curl -fsS --max-time 60 ", 1))]);
    command
}

#[test]
fn the_examples_work_as_written() {
    let file = blocks("toml").next().expect("a configuration");
    assert!(file.contains("[http_api]"), "{file}");
    let server = Started::with_file(Some(("drumline.toml", file)), &[], &[]);
    let told = "clients connect with a token or no token\n";
    assert!(server.screen.contains(told), "{}", server.screen);
    let publish = || {
        let headers = format!("Host: {}\r\nX-API-Key: secret\r\n", server.address);
        let body = r#"{"channel":"news","data":"heard"}"#;
        let mut client = Client::dial(server.address);
        assert_eq!(client.exchange(&request("POST", "/api/publish", &headers, body)).0, 200);
    };
    let mut lines = 0;
    for line in blocks("sh").flat_map(str::lines).filter(|line| line.starts_with("curl ")) {
        lines += 1;
        let streams = line.contains("/connection/");
        if !streams {
            let output = shell(line, &server).output().expect("curl runs");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && !text.contains(r#""error":{"#),
                "{line}: {output:?}"
            );
            continue;
        }
        let mut child = shell(line, &server).stdout(Stdio::piped()).spawn().expect("curl runs");
        let output = BufReader::new(child.stdout.take().unwrap());
        let (heard, hears) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let found = output.lines().map_while(Result::ok).find(|line| line.contains("heard"));
            let _ = heard.send(found);
        });
        let found = wait_for(line, || {
            publish();
            hears.try_recv().ok()
        });
        assert!(found.is_some(), "{line}");
        // A stream never ends, so the test kills it; a long poll has ended.
        let _ = child.kill();
        let _ = child.wait();
        reader.join().unwrap();
    }
    assert!(lines >= 12, "{lines} examples were found");
    for path in ["/", "/metrics", "/swagger", "/swagger/openapi.json"] {
        assert_eq!(server.get(path).0, 200, "{path}");
    }
}

#[test]
fn every_configuration_of_the_readme_is_accepted() {
    for (nth, text) in blocks("toml").enumerate() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("drumline.toml"), text).unwrap();
        let check = ["checkconfig", "drumline.toml"];
        let output = crate::common::command().args(check).current_dir(folder.path()).output();
        let output = output.unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !told.contains("no effect"), "{nth}: {told}");
    }
}

#[test]
fn tokens_are_made_and_checked_with_the_secret_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("drumline.toml"), blocks("toml").next().unwrap()).unwrap();
    let run = |arguments: &[&str]| {
        let command = crate::common::command().args(arguments).current_dir(folder.path()).output();
        let output = command.unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let token = run(&["gentoken", "--user", "42"]);
    assert!(run(&["checktoken", &token]).starts_with("valid: user 42"));
    let token = run(&["gensubtoken", "--user", "42", "--channel", "$news"]);
    assert!(run(&["checksubtoken", &token]).starts_with("valid: user 42"));
}
