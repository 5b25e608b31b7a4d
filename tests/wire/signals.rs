//! Signals: which of them end the server, and signals during the start.

use std::io::{Read, pipe};
use std::net::TcpStream;
use std::process::Stdio;

use rustix::process::Signal;

use crate::common::{Client, Server, wait_for};

const FLAGS: [&str; 5] = ["--client.insecure", "--shards", "8", "--engine.slots_per_shard", "64"];

#[test]
fn signals_other_than_stop_signals_do_not_end_the_server() {
    let (mut reader, writer) = pipe().unwrap();
    let mut server = Server::launch(&FLAGS, |command| _ = command.stderr(writer));
    wait_for("the server to listen", || TcpStream::connect(server.internal_address()).ok());
    let mut client = Client::connected(&server);
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::PIPE] {
        server.signal(signal);
        assert!(client.is_alive() && server.is_running(), "{signal:?}");
    }
    // The reload is logged when it is done.
    std::thread::sleep(std::time::Duration::from_millis(300));
    server.signal(Signal::TERM);
    assert_eq!(client.closed().0, 3001);
    assert_eq!(server.wait().code(), Some(0));
    let mut told = String::new();
    reader.read_to_string(&mut told).unwrap();
    assert_eq!(told.matches("configuration reloaded: nothing has changed").count(), 1, "{told}");
}

/// The first shard listens well before the last shard and the control plane have started.
#[test]
fn a_client_accepted_after_a_stop_signal_is_drained() {
    for _ in 0..5 {
        let mut server = Server::launch(&FLAGS, |command| _ = command.stdout(Stdio::null()));
        let address = server.address();
        let _client = wait_for("the first accept", || {
            loop {
                if let Ok(stream) = TcpStream::connect(address) {
                    return Some(stream);
                }
                // Of very many attempts, one would get the server's port for its own.
                std::thread::sleep(std::time::Duration::from_millis(1));
                if !server.is_running() {
                    return None;
                }
            }
        });
        server.signal(Signal::TERM);
        let status = server.wait();
        assert_eq!(status.code(), Some(0), "{status}");
    }
}
