//! An address of the network namespace whose packets are dropped, by nftables.
//!
//! Owns the rule. Never touches the tables of the machine: the caller has entered a namespace of
//! its own. Invariant: the rule is gone when its owner is dropped.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Table of the rule. A namespace has at most one.
const TABLE: &str = "drumline_blackhole";

/// Packets from and to the address are dropped while this exists.
pub struct Blackhole(());

impl Blackhole {
    /// Begins to drop the packets.
    pub fn open(address: Ipv4Addr) -> Result<Self> {
        nft(&format!(
            "table inet {TABLE} {{\n  chain in {{\n    type filter hook input priority 0;\n    \
             ip saddr {address} drop;\n    ip daddr {address} drop;\n  }}\n}}\n"
        ))?;
        Ok(Blackhole(()))
    }

    /// Lets the packets pass again.
    pub fn close(self) -> Result<()> {
        std::mem::forget(self);
        nft(&format!("delete table inet {TABLE}\n"))
    }
}

impl Drop for Blackhole {
    fn drop(&mut self) {
        if let Err(error) = nft(&format!("delete table inet {TABLE}\n")) {
            eprintln!("{error:#}");
        }
    }
}

/// Runs these commands.
fn nft(commands: &str) -> Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run nft: install the package nftables")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(commands.as_bytes()).context("cannot write to nft")?;
    }
    let output = child.wait_with_output().context("cannot wait for nft")?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft: {}; run the scenario as root", why.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::namespace;

    #[test]
    fn packets_are_dropped_until_the_hole_is_closed() {
        let tested = std::thread::spawn(|| -> Result<()> {
            if let Err(error) = namespace::enter() {
                eprintln!("not tested without a network namespace: {error:#}");
                return Ok(());
            }
            let listener = TcpListener::bind("0.0.0.0:0")?;
            let port = listener.local_addr()?.port();
            let reached = |last| {
                let address = SocketAddr::from(([127, 0, 7, last], port));
                TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok()
            };
            assert!(reached(7));
            let hole = Blackhole::open(Ipv4Addr::new(127, 0, 7, 7))?;
            assert!(!reached(7) && reached(8), "only one address is cut off");
            hole.close()?;
            assert!(reached(7));
            Ok(())
        });
        tested.join().unwrap().unwrap();
    }
}
