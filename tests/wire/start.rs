//! Errors that prevent the start.

use std::net::TcpStream;
use std::process::Command;

use crate::common::{binary, free_port};

/// Runs the rest of its arguments with io_uring forbidden by a seccomp filter.
const FORBID: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/without_io_uring.py");

#[test]
fn without_io_uring_the_start_fails_before_it_listens() {
    let port = free_port();
    let output = Command::new("python3")
        .arg(FORBID)
        .arg(binary())
        .args(["serve", "--client.insecure", "--http_server.port", &port.to_string()])
        .output()
        .expect("python3 runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("io_uring"), "{told}");
    let sentences = told.lines().filter(|line| !line.trim().is_empty()).count();
    assert!((1..=3).contains(&sentences), "one clear sentence: {told}");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "nothing listens");
}

#[test]
fn a_port_in_use_is_named_in_the_error() {
    let port = free_port();
    let _taken = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
    let output = Command::new(binary())
        .args(["serve", "--client.insecure", "--http_server.port", &port.to_string()])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{told}");
    assert!(told.contains(&port.to_string()), "{told}");
}
