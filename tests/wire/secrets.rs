//! No output of the program shows keys or passwords.

use std::fs::{metadata, read_dir, read_to_string, write};
use std::os::unix::fs::PermissionsExt;

use drumline::base::sys;
use drumline::model::token::{TokenSettings, make_connection};

use crate::access::Started;
use crate::common::{Client, WEBSOCKET, command, free_port, wait_for};

const SECRET: &str = "hunter2-hunter2";

#[test]
fn a_configured_key_is_not_printed() {
    let file =
        format!("[http_api]\nkey = \"{SECRET}\"\n[client.token]\nhmac_secret_key = \"{SECRET}\"");
    let by_file = Started::with_file(Some(("drumline.toml", &file)), &[], &[]);
    let variable = [("DRUMLINE_HTTP_API_KEY", SECRET)];
    let by_variable = Started::with(&variable, &[]);
    let by_flag = Started::with(&[], &["--http_api.key", SECRET]);
    for server in [by_file, by_variable, by_flag] {
        assert!(server.screen.contains("X-API-Key: <http_api.key>"), "{}", server.screen);
        let told = server.stop();
        assert!(!told.contains(SECRET), "{told}");
    }
}

#[test]
fn the_log_names_a_failing_backend_without_its_password_and_token() {
    // No process listens on this port.
    let place = format!("127.0.0.1:{}", free_port());
    let address = format!("http://user:{SECRET}@{place}/connect?token={SECRET}");
    let shown = format!("http://***@{place}/connect?***");
    let flags = [
        "--client.proxy.connect.enabled",
        &format!("--client.proxy.connect.endpoint={address}"),
        &format!(r#"--client.proxy.connect.http.static_headers={{"X-Key":"{SECRET}"}}"#),
    ];
    let server = Started::with(&[], &flags);
    let mut client = Client::open(server.address, WEBSOCKET);
    client.ask(r#"{"id":1,"connect":{}}"#);
    wait_for("the failure to be logged", || server.text("stderr").contains(&shown).then_some(()));
    let told = server.stop();
    assert!(!told.contains(SECRET), "{told}");
}

#[test]
fn the_log_names_a_failing_key_set_without_its_password_and_token() {
    let place = format!("127.0.0.1:{}", free_port());
    let address = format!("http://user:{SECRET}@{place}/keys?token={SECRET}");
    let shown = format!("http://***@{place}/keys?***");
    let server = Started::with(&[], &[&format!("--client.token.jwks_public_endpoint={address}")]);
    let mut client = Client::open(server.address, WEBSOCKET);
    // A token that names a key makes the server fetch the key set.
    let header = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ";
    client.send(&format!(r#"{{"id":1,"connect":{{"token":"{header}.e30.AA"}}}}"#));
    wait_for("the failure to be logged", || server.text("stderr").contains(&shown).then_some(()));
    let told = server.stop();
    assert!(!told.contains(SECRET), "{told}");
}

#[test]
fn errors_about_a_configuration_show_no_secret() {
    let check = |name: &str, text: &str| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path().join(name), text).unwrap();
        for arguments in [&["serve"][..], &["check"], &["checkconfig", name]] {
            let output = command().args(arguments).current_dir(folder.path()).output().unwrap();
            let told = [output.stdout, output.stderr].concat();
            let told = String::from_utf8_lossy(&told);
            assert_eq!(output.status.code(), Some(2), "{arguments:?} {text}: {told}");
            assert!(told.contains(name) && !told.contains(SECRET), "{told}");
        }
    };
    check("drumline.toml", &format!("[http_api]\nkey = {SECRET}"));
    check("drumline.toml", &format!("[http_api]\nkey = \"{SECRET}"));
    check("config.json", &format!(r#"{{"http_api": {{"key": "{SECRET}}}}}"#));
    check("config.yaml", &format!(r#"http_api: {{key: "{SECRET}""#));
    check("config.yaml", &format!(r#"http_api: "{SECRET}""#));
}

#[test]
fn a_generated_configuration_is_private_and_overwrites_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let generate = || {
        let mut command = command();
        command.args(["genconfig", "--config", "drumline.toml"]).current_dir(folder.path());
        command.output().unwrap()
    };
    assert!(generate().status.success());
    let file = folder.path().join("drumline.toml");
    assert_eq!(metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = read_to_string(&file).unwrap();
    let key = text.lines().find_map(|line| line.strip_prefix("key = \"")).unwrap();
    assert!(key.len() > 40, "the API key is random: {key}");
    write(&file, "mine").unwrap();
    let again = generate();
    let told = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(2), "{told}");
    assert!(told.contains("cannot write drumline.toml"), "{told}");
    assert_eq!(read_to_string(&file).unwrap(), "mine");
    let files = read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 1, "no unfinished file is left");
}

#[test]
fn a_secret_may_be_set_by_the_environment() {
    let settings = TokenSettings { hmac_secret_key: SECRET.into(), ..TokenSettings::default() };
    let token = make_connection(&settings, "42", Some(600), sys::unix_millis() / 1000).unwrap();
    let variable = [("DRUMLINE_CLIENT_TOKEN_HMAC_SECRET_KEY", SECRET)];
    let server = Started::with(&variable, &[]);
    let mut client = Client::open(server.address, WEBSOCKET);
    let reply = client.ask(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
    assert!(reply.starts_with(r#"{"id":1,"connect":{"client""#), "{reply}");
}
