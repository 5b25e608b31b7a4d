//! The servers that are measured side by side. Each has an adapter in a file of its own.
//!
//! Owns the trait of adapters and their list. Never measures and never installs: `scripts/peers.sh
//! setup` installs. Invariant: every target runs with two workers if it supports more than one,
//! with TCP_NODELAY, a long backlog and no compression, in its own directory and on its own ports.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use crate::dialect::Dialect;
use crate::grid::KERNEL_BASELINE;
use crate::publish::Api;

mod centrifugo;
mod drumline;
mod mosquitto;
mod nats;
mod nchan;
mod nginx;
mod plain;
mod process;
mod sockudo;
mod uwebsockets;
mod ws;

pub use nchan::Nchan;
pub use nginx::{FIXED, Nginx};
pub use process::{Becoming, Peer, become_child, spawn};

/// A server that can be measured.
pub trait Adapter: Debug + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// A short description of the server and its settings.
    fn about(&self) -> &'static str;

    /// The protocol of subscribers.
    fn dialect(&self) -> &'static dyn Dialect;

    /// How publishers publish.
    fn api(&self) -> Api;

    /// Whether publishers have a port of their own.
    fn has_publish_port(&self) -> bool {
        false
    }

    /// Whether it pings idle clients by itself when [`TargetOptions::ping_seconds`] asks for it.
    fn pings(&self) -> bool {
        false
    }

    /// Whether clients can ask for the history and the presence of a channel, and are told when its
    /// members join and leave, in the Centrifuge protocol.
    fn answers_requests(&self) -> bool {
        false
    }

    /// How subscribers recover what they missed; `None`: no subscriber of this adapter recovers.
    fn recovery(&self) -> Option<Recovery> {
        None
    }

    /// Creates what [`Adapter::recovery`] needs, in a target that already serves.
    fn prepare_recovery(&self, _options: &TargetOptions) -> Result<()> {
        Ok(())
    }

    /// Writes the target's configuration into [`TargetOptions::dir`] and returns the command that
    /// starts it. The command runs in the foreground, and all processes of the target are its
    /// descendants. An error names what is missing.
    fn launch(&self, options: &TargetOptions) -> Result<Launch>;
}

/// The settings of one target: programs, directory, ports, load.
#[derive(Debug)]
pub struct TargetOptions {
    /// Drumline's program.
    pub server: PathBuf,
    /// More arguments of Drumline.
    pub server_arguments: Vec<String>,
    /// Directory of the programs that `scripts/peers.sh setup` built.
    pub peers: PathBuf,
    /// A directory of its own, empty.
    pub dir: PathBuf,
    /// The port of subscribers, on 127.0.0.1.
    pub port: u16,
    /// The port of publishers; the same unless [`Adapter::has_publish_port`].
    pub publish_port: u16,
    /// Threads or processes that serve, where it can have more than one.
    pub workers: u32,
    /// From one keep-alive ping to the next, in seconds, as near as the target's own steps allow;
    /// `None`: never, or as seldom as the target can.
    pub ping_seconds: Option<u64>,
    /// Keep messages for subscribers that reconnect, if the target can.
    pub recovers: bool,
    /// Know the members of channels and tell subscribers who joins and leaves, if the target can.
    pub members: bool,
    /// Serve subscribers over TLS 1.3, with AES-128 and X25519; publishers then have a port of
    /// their own, without TLS.
    pub tls: Option<TlsFiles>,
}

/// The certificate of a target.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// File of the certificate, in PEM.
    pub certificate: PathBuf,
    /// File of its key, in PEM.
    pub key: PathBuf,
}

/// Longer than any turn: no target sends pings where pings are not measured.
const SILENT_SECONDS: u64 = 3_600;
/// Options of the channels of Drumline and Centrifugo: what keeps publications for clients that
/// come back or ask for them.
const HISTORY: [&str; 3] = ["history_size=100", "history_ttl=600s", "force_recovery=true"];
/// What makes the members known.
const MEMBERS: [&str; 2] = ["presence=true", "join_leave=true"];

/// How subscribers that reconnect recover the messages that they missed.
#[derive(Debug)]
pub struct Recovery {
    /// The means of recovery, in few words.
    pub by: &'static str,
    /// The protocol of subscribers that recover, from their first connection on.
    pub dialect: &'static dyn Dialect,
    /// How publishers publish messages that the target keeps.
    pub api: Api,
}

impl TargetOptions {
    /// A file that `scripts/peers.sh setup` made. The error for a missing file names that command.
    fn made(&self, file: &str) -> Result<PathBuf> {
        let path = self.peers.join(file);
        let peer = file.split('/').next().unwrap_or_default();
        ensure!(
            path.exists(),
            "{} does not exist; run `scripts/peers.sh setup {peer}`",
            path.display()
        );
        Ok(path)
    }
}

/// How to start a target.
#[derive(Debug, Default)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment, beside the harness's own.
    pub environment: Vec<(String, String)>,
}

/// The first of these files that exists. The error names the package that has to be installed.
fn installed(places: &[&str], package: &str) -> Result<PathBuf> {
    match places.iter().map(Path::new).find(|path| path.exists()) {
        Some(path) => Ok(path.to_owned()),
        None => bail!("{} does not exist; install {package} (`scripts/peers.sh setup`)", places[0]),
    }
}

/// A target of the measurement.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// A server.
    Server(&'static dyn Adapter),
    /// The bare kernel.
    Baseline,
}

/// All targets, Drumline first: the others are compared with it.
pub const ALL: &[Target] = &[
    Target::Server(&drumline::Drumline),
    Target::Baseline,
    Target::Server(&centrifugo::Centrifugo::AsItComes),
    Target::Server(&centrifugo::Centrifugo::Tuned),
    Target::Server(&sockudo::Sockudo),
    Target::Server(&uwebsockets::UWebSockets),
    Target::Server(&nchan::Nchan),
    Target::Server(&nats::Nats),
    Target::Server(&ws::Ws),
    Target::Server(&mosquitto::Mosquitto),
    Target::Server(&plain::Plain::Monoio),
    Target::Server(&plain::Plain::Tokio),
];

impl Target {
    /// Its name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Target::Server(adapter) => adapter.name(),
            Target::Baseline => KERNEL_BASELINE,
        }
    }

    /// A short description.
    pub fn about(self) -> &'static str {
        match self {
            Target::Server(adapter) => adapter.about(),
            Target::Baseline => "the bare kernel: a ring that accepts, and sends the same bytes",
        }
    }

    /// The target of this name; an error lists them. `limit` is the old name of the kernel
    /// baseline.
    pub fn named(name: &str) -> Result<Self> {
        let name = if name == "limit" { KERNEL_BASELINE } else { name };
        match ALL.iter().find(|target| target.name() == name) {
            Some(target) => Ok(*target),
            None => {
                let names: Vec<&str> = ALL.iter().map(|target| target.name()).collect();
                bail!("unknown target \"{name}\"; the targets are {}", names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_found_by_its_name_and_an_unknown_name_lists_all() {
        for target in ALL {
            assert_eq!(Target::named(target.name()).unwrap().name(), target.name());
        }
        let told = Target::named("nhcan").unwrap_err().to_string();
        assert!(told.contains("nchan"), "{told}");
    }
}
