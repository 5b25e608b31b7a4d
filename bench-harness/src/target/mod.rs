//! The servers that are measured side by side, each an adapter in a file of its own.
//!
//! Owns what an adapter is and the list of them. Never measures, and never installs: that is
//! `scripts/peers.sh setup`. Invariant: every target is started with two workers where it can have
//! them, TCP_NODELAY, a long backlog and no compression, in a directory and on ports of its own.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use crate::dialect::Dialect;
use crate::grid::KERNEL_BASELINE;
use crate::publish::Api;

mod drumline;
mod mosquitto;
mod nats;
mod nchan;
mod plain;
mod process;
mod uwebsockets;
mod ws;

pub use process::{Becoming, Peer, become_child};

/// A server that can be measured.
pub trait Adapter: Debug + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// What it is and how it is set, in few words.
    fn about(&self) -> &'static str;

    /// What subscribers say.
    fn dialect(&self) -> &'static dyn Dialect;

    /// How publishers publish.
    fn api(&self) -> Api;

    /// Whether publishers have a port of their own.
    fn has_publish_port(&self) -> bool {
        false
    }

    /// Whether it pings idle clients by itself when [`Place::ping_seconds`] asks for it.
    fn pings(&self) -> bool {
        false
    }

    /// How subscribers recover what they missed; `None`: it keeps no messages.
    fn recovery(&self) -> Option<Recovery> {
        None
    }

    /// Makes what [`Adapter::recovery`] needs, in a target that serves already.
    fn prepare_recovery(&self, _place: &Place) -> Result<()> {
        Ok(())
    }

    /// Writes what it needs into [`Place::dir`] and answers how to start it. All its processes are
    /// descendants of that one, and it runs in the foreground. An error says what is missing.
    fn launch(&self, place: &Place) -> Result<Launch>;
}

/// Where a target runs.
#[derive(Debug)]
pub struct Place {
    /// Drumline's program.
    pub server: PathBuf,
    /// More arguments of Drumline.
    pub server_arguments: Vec<String>,
    /// Where `scripts/peers.sh setup` put what it built.
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
    /// Whether it is to keep messages for those that come back, where it can.
    pub recovers: bool,
}

/// How subscribers that were cut recover what they missed.
#[derive(Debug)]
pub struct Recovery {
    /// By what, in few words.
    pub by: &'static str,
    /// What such subscribers say, from the first time on.
    pub dialect: &'static dyn Dialect,
    /// How publishers publish what is kept for them.
    pub api: Api,
}

impl Place {
    /// A file that the setup made; an error says how to make it.
    fn made(&self, file: &str) -> Result<PathBuf> {
        let path = self.peers.join(file);
        ensure!(path.exists(), "there is no {}: run `scripts/peers.sh setup`", path.display());
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
    pub environment: Vec<(&'static str, String)>,
}

/// The first of these files that is there; an error names the package.
fn installed(places: &[&str], package: &str) -> Result<PathBuf> {
    match places.iter().map(Path::new).find(|path| path.exists()) {
        Some(path) => Ok(path.to_owned()),
        None => bail!("there is no {}: install {package} (`scripts/peers.sh setup`)", places[0]),
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// A server.
    Server(&'static dyn Adapter),
    /// The bare kernel.
    Baseline,
}

/// All targets, Drumline first: the others are held against it.
pub const ALL: &[Target] = &[
    Target::Server(&drumline::Drumline),
    Target::Baseline,
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

    /// What it is, in few words.
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
                bail!("there is no target \"{name}\"; there are {}", names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_their_own() {
        for target in ALL {
            assert_eq!(Target::named(target.name()).unwrap().name(), target.name());
        }
        let told = Target::named("nhcan").unwrap_err().to_string();
        assert!(told.contains("nchan"), "{told}");
    }
}
