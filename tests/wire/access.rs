//! Open access: the start screen, the addresses, and the requests that an open server refuses.

use std::fs::{File, read_to_string, rename, write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Client, KEY, UNI_WEBSOCKET, WEBSOCKET, command, request, wait_for};

/// A server in its own folder, on a port that the kernel chose.
pub struct Started {
    child: Child,
    pub address: SocketAddr,
    /// The start screen.
    pub screen: String,
    folder: tempfile::TempDir,
}

impl Started {
    pub fn with(environment: &[(&str, &str)], flags: &[&str]) -> Started {
        Started::with_file(None, environment, flags)
    }

    /// `file`: name and text of a file in the folder where the server starts.
    pub fn with_file(
        file: Option<(&str, &str)>,
        environment: &[(&str, &str)],
        flags: &[&str],
    ) -> Started {
        let folder = tempfile::tempdir().unwrap();
        if let Some((name, text)) = file {
            write(folder.path().join(name), text).unwrap();
        }
        let output = |name: &str| File::create(folder.path().join(name)).unwrap();
        let mut child = command()
            .args(["serve", "--shards", "2", "--engine.slots_per_shard", "100"])
            .args(["--http_server.port", "0"])
            .args(flags)
            .envs(environment.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(output("stdout"))
            .stderr(output("stderr"))
            .spawn()
            .expect("the binary starts");
        let text = |name: &str| read_to_string(folder.path().join(name)).unwrap_or_default();
        let address = wait_for("the address on the first screen", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "the server ended at once: {}", text("stderr"));
            let screen = text("stdout");
            let line = screen.lines().find_map(|line| line.trim().strip_prefix("listens on"))?;
            line.split_whitespace().next()?.parse::<SocketAddr>().ok()
        });
        let mut started = Started { child, address, screen: String::new(), folder };
        assert_eq!(started.get("/health").0, 200);
        started.screen = wait_for("the whole first screen", || {
            let screen = started.text("stdout");
            (screen.contains("\n  access ") && screen.ends_with('\n')).then_some(screen)
        });
        started
    }

    pub fn text(&self, name: &str) -> String {
        read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// Changes the file in the folder where the server starts.
    pub fn rewrite(&self, name: &str, text: &str) {
        write(self.folder.path().join(name), text).unwrap();
    }

    /// Renames a file in that folder.
    pub fn rename(&self, from: &str, to: &str) {
        rename(self.folder.path().join(from), self.folder.path().join(to)).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// ID of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Runs `drumline reload` for this server. Returns its exit status and all its output.
    pub fn reload(&self) -> (Option<i32>, String) {
        let pid = self.id().to_string();
        let done = command().args(["reload", "--pid", &pid]).output().unwrap();
        let text = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8(text).unwrap())
    }

    fn dial(&self) -> Client {
        Client::dial(self.address)
    }

    /// Sends a GET as a browser on this machine does. Returns status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.dial().exchange(&request("GET", path, &format!("Host: {}\r\n", self.address), ""))
    }

    /// Ends the server and returns all its output.
    pub fn stop(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let child = &mut self.child;
        wait_for("the server to end", || child.try_wait().unwrap());
        self.text("stdout") + &self.text("stderr")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // The server may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SWITCH: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";

fn upgrade(path: &str, headers: &str) -> String {
    request("GET", path, &format!("{headers}{SWITCH}Sec-WebSocket-Key: {KEY}\r\n"), "")
}

/// A request for each path that an open server serves.
fn requests(key: &str, headers: &str) -> Vec<(String, u16)> {
    let connect = r#"{"id":1,"connect":{}}"#;
    let uni = "%7B%22subs%22%3A%7B%22a%22%3A%7B%7D%7D%7D";
    let keyed = format!("{headers}X-API-Key: {key}\r\n");
    let publish = r#"{"channel":"a","data":1}"#;
    vec![
        (upgrade(WEBSOCKET, headers), 101),
        (upgrade(UNI_WEBSOCKET, headers), 101),
        (request("POST", "/connection/http_stream", headers, connect), 200),
        (
            request(
                "GET",
                "/connection/sse?cf_connect=%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D",
                headers,
                "",
            ),
            200,
        ),
        (request("GET", &format!("/connection/uni_sse?cf_connect={uni}"), headers, ""), 200),
        (request("POST", "/connection/uni_http_stream", headers, "{}"), 200),
        (request("POST", "/api/publish", &keyed, publish), 200),
        (request("POST", "/api/info", &keyed, "{}"), 200),
        (request("GET", "/", headers, ""), 200),
        (request("GET", "/metrics", headers, ""), 200),
        (request("GET", "/swagger", headers, ""), 200),
        (request("GET", "/health", headers, ""), 200),
        (request("GET", "/nothing", headers, ""), 404),
    ]
}

fn key_of(screen: &str) -> &str {
    let (_, rest) = screen.split_once("X-API-Key: ").expect("a key");
    rest.split('\'').next().unwrap()
}

#[test]
fn a_server_without_configuration_is_open_to_its_own_machine() {
    let server = Started::with(&[], &[]);
    let screen = &server.screen;
    // In a container, the first screen says how the server can be reached from outside.
    let told = ["everybody on this machine may", "only to this container"];
    assert!(told.iter().any(|text| screen.contains(text)), "{screen}");
    let port = server.address.port();
    assert_eq!(server.address, SocketAddr::from(([127, 0, 0, 1], port)));
    assert!(TcpStream::connect(("127.0.0.2", port)).is_err(), "it listens on 127.0.0.1 alone");
    let key = key_of(screen);
    for host in [format!("127.0.0.1:{port}"), format!("LocalHost:{port}"), "[::1]".to_owned()] {
        let own = [String::new(), format!("Origin: http://{host}\r\n")];
        for origin in own {
            for (request, status) in requests(key, &format!("Host: {host}\r\n{origin}")) {
                assert_eq!(server.dial().exchange(&request).0, status, "{request}");
            }
        }
    }
}

#[test]
fn an_open_server_refuses_requests_of_others_on_every_path() {
    let server = Started::with(&[], &[]);
    let (key, host) = (key_of(&server.screen), format!("Host: {}\r\n", server.address));
    let refused = [
        ("Host: rebound.example:8000\r\n".to_owned(), "the Host header is not"),
        (String::new(), "the Host header is not"),
        (format!("{host}Origin: http://a.example\r\n"), "the Origin header is not"),
        (format!("{host}Origin: null\r\n"), "the Origin header is not"),
        (format!("{host}Forwarded: for=10.0.0.1\r\n"), "a proxy or a tunnel"),
        (format!("{host}X-Forwarded-For: 10.0.0.1\r\n"), "a proxy or a tunnel"),
    ];
    for (headers, cause) in refused {
        // HTTP/1.1 requires a Host header, so 400 is a correct answer without one.
        let is_refusal = |status: u16, body: &str| {
            let told = body.contains(cause) && body.contains("drumline genconfig");
            (status == 403 && told) || (status == 400 && headers.is_empty())
        };
        for (request, _) in requests(key, &headers) {
            let (status, body) = server.dial().exchange(&request);
            assert!(is_refusal(status, &body), "{request}: {status} {body}");
            // The same request after a good one on the same connection.
            let mut kept = server.dial();
            assert_eq!(kept.exchange(&crate::common::request("GET", "/health", &host, "")).0, 200);
            let (status, body) = kept.exchange(&request);
            assert!(is_refusal(status, &body), "{request}: {status} {body}");
        }
    }
    let absolute = crate::common::request("GET", "http://rebound.example/metrics", &host, "");
    assert_eq!(server.dial().exchange(&absolute).0, 403);
}

#[test]
fn the_first_screen_names_the_setting_that_ended_open_access() {
    let closed = |file, environment: &[(&str, &str)], flags: &[&str], setting: &str| {
        let server = Started::with_file(file, environment, flags);
        let told = format!("closed by {setting}\n");
        assert!(server.screen.contains(&told), "{told}: {}", server.screen);
        for path in ["/", "/metrics", "/swagger", "/connection/uni_sse"] {
            assert_eq!(server.get(path).0, 404, "{setting}: {path}");
        }
        server
    };
    let nobody = "no client can connect: set client.token.hmac_secret_key";
    let named = closed(Some(("config.json", "{}")), &[], &[], "config.json");
    assert!(named.screen.contains(nobody), "{}", named.screen);
    let older = [("CENTRIFUGO_TOKEN_HMAC_SECRET_KEY", "a-secret")];
    let older = closed(None, &older, &[], "CENTRIFUGO_TOKEN_HMAC_SECRET_KEY in the environment");
    assert!(older.screen.contains(nobody), "{}", older.screen);
    assert!(older.stop().contains("unknown keys and variables have no effect: CENTRIFUGO_TOKEN"));
    let empty = Started::with(&[("DRUMLINE_CLIENT_TOKEN_HMAC_SECRET_KEY", "")], &[]);
    assert!(empty.screen.contains("access      open"), "{}", empty.screen);
    let everywhere = ["--http_server.address", "0.0.0.0"];
    closed(None, &[], &everywhere, "--http_server.address 0.0.0.0");
    let by_token = ["--client.token.hmac_secret_key", "a-secret"];
    let by_token = closed(None, &[], &by_token, "--client.token.hmac_secret_key");
    assert!(by_token.screen.contains("clients connect with a token"), "{}", by_token.screen);
}

#[test]
fn variables_of_kubernetes_set_nothing_and_cause_one_warning() {
    let environment = [
        ("DRUMLINE_PORT", "tcp://10.0.0.1:8000"),
        ("DRUMLINE_SERVICE_HOST", "10.0.0.1"),
        ("DRUMLINE_SERVICE_PORT", "8000"),
        ("DRUMLINE_SERVICE_PORT_HTTP", "8000"),
        ("DRUMLINE_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("DRUMLINE_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("DRUMLINE_PORT_8000_TCP_PORT", "8000"),
        ("DRUMLINE_PORT_8000_TCP_PROTO", "tcp"),
    ];
    let server = Started::with(&environment, &[]);
    assert!(server.screen.contains("access      open"), "{}", server.screen);
    let told = server.stop();
    assert_eq!(told.matches("have no effect").count(), 1, "{told}");
    for (name, _) in environment {
        assert!(told.contains(name), "{name}: {told}");
    }
}

#[test]
fn unknown_variables_and_flags_prevent_the_start() {
    let check = |environment: &[(&str, &str)], flags: &[&str], expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        let output = command()
            .args(flags)
            .envs(environment.iter().copied())
            .current_dir(folder.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(expected), "{told}");
    };
    let meant = "did you mean DRUMLINE_CLIENT_TOKEN_HMAC_SECRET_KEY?";
    check(&[("DRUMLINE_CLIENT_TOKEN_HMAC_SECRET", "a-secret")], &["serve"], meant);
    check(&[("DRUMLINE_PORT", "8000")], &["serve"], "unknown environment variable DRUMLINE_PORT");
    check(&[], &["serve", "--client.token.hmac_secret", "a"], "--client.token.hmac_secret");
}

#[test]
fn a_disabled_websocket_does_not_upgrade() {
    let server = Started::with(&[], &["--client.insecure", "--websocket.disabled"]);
    assert!(!server.screen.contains("WebSocket"), "{}", server.screen);
    let host = format!("Host: {}\r\n", server.address);
    assert_eq!(server.dial().exchange(&upgrade(WEBSOCKET, &host)).0, 404);
    let streamed = request("POST", "/connection/http_stream", &host, r#"{"id":1,"connect":{}}"#);
    assert_eq!(server.dial().exchange(&streamed).0, 200);
}
