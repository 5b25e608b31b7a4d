//! Closed, full or unread stderr and stdout: the server keeps running, and commands exit with an
//! error status.

use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use rustix::fs::{OFlags, fcntl_setfl};

use crate::common::{API_KEY, Client, Server, WEBSOCKET, binary, free_port, wait_for};

/// A pipe without a reader.
fn closed() -> PipeWriter {
    pipe().unwrap().1
}

/// A full pipe. Its reader reads nothing and keeps it open.
fn full() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    fcntl_setfl(writer.as_fd(), OFlags::NONBLOCK).unwrap();
    while match writer.write(&[b'x'; 512]) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    } {}
    fcntl_setfl(writer.as_fd(), OFlags::empty()).unwrap();
    (reader, writer)
}

fn full_device() -> Stdio {
    std::fs::File::options().write(true).open("/dev/full").unwrap().into()
}

/// A server that logs an error for every client: its connect proxy and key set are unreachable.
fn server_that_logs(stdout: Stdio, stderr: Stdio) -> Server {
    let nobody = format!("http://127.0.0.1:{}/", free_port());
    let flags = [
        "--client.proxy.connect.enabled",
        "--client.proxy.connect.endpoint",
        &nobody,
        "--client.token.jwks_public_endpoint",
        &nobody,
        "--shards",
        "2",
        "--engine.slots_per_shard",
        "100",
        "--http_api.key",
        API_KEY,
    ];
    let mut server = Server::launch(&flags, |command| _ = command.stdout(stdout).stderr(stderr));
    wait_for("the server to listen", || {
        assert!(server.is_running(), "the server ended at once");
        std::net::TcpStream::connect(server.internal_address()).ok()
    });
    server
}

/// Makes clients cause log lines, and checks that the server keeps working.
fn goes_on(mut server: Server) {
    // A token whose key must come from the key set: {"alg":"RS256","kid":"a"}.{"sub":"a"}.
    let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJhIn0.c2ln";
    for connect in ["{}".to_owned(), format!(r#"{{"token":"{token}"}}"#)] {
        for _ in 0..3 {
            let mut client = Client::open(&server, WEBSOCKET);
            let reply = client.ask(&format!(r#"{{"id":1,"connect":{connect}}}"#));
            assert!(reply.starts_with(r#"{"id":1,"error":{"code":100,"#), "{reply}");
        }
    }
    server.signal(rustix::process::Signal::HUP);
    for _ in 0..3 {
        let published = server.api("publish", r#"{"channel":"a","data":1}"#);
        assert_eq!(published, r#"{"result":{}}"#);
        assert!(server.metric("drumline_accepted_total") >= 6);
    }
    assert!(server.is_running());
    server.signal_stop();
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_server_goes_on_with_closed_output() {
    goes_on(server_that_logs(closed().into(), closed().into()));
}

#[test]
fn the_server_goes_on_with_output_to_a_full_device() {
    let server = server_that_logs(full_device(), full_device());
    goes_on(server);
}

#[test]
fn the_server_goes_on_when_its_output_is_not_read() {
    let (_reader, writer) = full();
    let server = server_that_logs(writer.try_clone().unwrap().into(), writer.into());
    goes_on(server);
}

#[test]
fn the_last_lines_are_written_before_the_process_ends() {
    let (mut reader, writer) = pipe().unwrap();
    let mut server = server_that_logs(Stdio::null(), writer.into());
    let mut client = Client::open(&server, WEBSOCKET);
    client.ask(r#"{"id":1,"connect":{}}"#);
    server.signal_stop();
    assert_eq!(server.wait().code(), Some(0));
    let mut told = String::new();
    reader.read_to_string(&mut told).unwrap();
    assert!(
        told.contains("drumline [warn] backend: connect request to http://127.0.0.1:"),
        "{told}"
    );
}

#[test]
fn commands_fail_when_their_output_cannot_be_written() {
    for command in ["configdoc", "defaultconfig", "genconfig", "version"] {
        let run = |stdout: Stdio| {
            Command::new(binary()).arg(command).stdout(stdout).output().expect("the binary runs")
        };
        let ended = run(full_device());
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(2), "{command}: {told}");
        assert!(told.starts_with("drumline: cannot write to stdout: No space left"), "{told}");
        let ended = run(closed().into());
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), &*told), (Some(141), ""), "{command}");
    }
}
