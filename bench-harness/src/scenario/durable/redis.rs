//! Debian's redis-server, which appends to a file and syncs the file before it answers.
//!
//! Owns the process and its end. Never changes a setting that is not named here. Invariant: Redis
//! answers an `XADD` only after its append-only file is synced.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::account::ProcessSample;
use crate::target::{Launch, spawn};

/// The program of Debian's package.
const PROGRAM: &str = "/usr/bin/redis-server";
/// Maximum time that Redis may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the run says about Redis.
pub(super) const ABOUT: &str = "Debian's redis-server, its own defaults except appendonly yes, \
                                appendfsync always and save \"\"; XADD with MAXLEN ~, which trims \
                                whole nodes of 100 entries and costs less than MAXLEN =";

/// The running server.
pub(super) struct Redis {
    child: Child,
    address: SocketAddr,
}

impl Redis {
    /// Starts Redis with its data in `folder`, and waits until it listens.
    pub fn start(folder: &Path, port: u16) -> Result<Self> {
        ensure!(
            Path::new(PROGRAM).exists(),
            "{PROGRAM} does not exist; run `scripts/peers.sh setup redis`"
        );
        let port_text = port.to_string();
        let settings = [
            ("--bind", "127.0.0.1"),
            ("--port", &port_text),
            ("--appendonly", "yes"),
            ("--appendfsync", "always"),
            ("--save", ""),
        ];
        let pairs = settings.into_iter().flat_map(|(name, value)| [name, value]);
        let arguments = pairs.map(str::to_owned).collect();
        let launch = Launch { program: PathBuf::from(PROGRAM), arguments, environment: Vec::new() };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut redis = Redis { child: spawn(&launch, folder)?, address };
        redis.wait(folder)?;
        Ok(redis)
    }

    fn wait(&mut self, folder: &Path) -> Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.try_wait().context("cannot wait for Redis")?;
            if ended.is_some() || begun.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
                bail!("Redis does not listen on {}: {}", self.address, log.trim());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its processor time so far, without children that rewrite the file.
    pub fn sample(&self) -> Result<ProcessSample> {
        ProcessSample::of_one(self.pid())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Its data is removed with the folder of the run.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
