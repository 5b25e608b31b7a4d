//! A target as a child process.
//!
//! Owns the child, its directory and its end. Never signals a process that it did not start.
//! Invariant: whatever happens here, in the end no process of the target is left; the child also
//! ends when the harness is killed.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use rustix::process::{
    Pid, Signal, getppid, kill_process, kill_process_group, set_parent_process_death_signal,
};
use tempfile::TempDir;

use super::{Adapter, Launch, TargetOptions};
use crate::account::ProcessSample;

/// Maximum time that a target may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Threads and processes behind the first begin to listen a little later.
const BREATH: Duration = Duration::from_millis(300);
/// File in the target's directory with what it writes.
const LOG: &str = "log";
/// Bytes of the end of the log that an error shows.
const TAIL: usize = 600;

/// A running target.
pub struct Peer {
    adapter: &'static dyn Adapter,
    child: Child,
    options: TargetOptions,
    /// Removed when dropped.
    _dir: TempDir,
}

impl Peer {
    /// Starts it in a directory of its own and waits until it listens.
    pub fn start(adapter: &'static dyn Adapter, mut options: TargetOptions) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("drumline-peer-").tempdir();
        let dir = dir.context("cannot make a directory for the target")?;
        options.dir = dir.path().to_owned();
        let launch = adapter.launch(&options)?;
        let child = spawn(&launch, &options.dir)?;
        let mut peer = Peer { adapter, child, options, _dir: dir };
        for port in [peer.options.port, peer.options.publish_port] {
            peer.await_port(port)?;
        }
        std::thread::sleep(BREATH);
        peer.alive()?;
        if peer.options.recovers {
            adapter.prepare_recovery(&peer.options).map_err(|error| peer.cause(error))?;
        }
        Ok(peer)
    }

    fn await_port(&mut self, port: u16) -> Result<()> {
        let (begun, address) = (Instant::now(), SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        while TcpStream::connect(address).is_err() {
            self.alive()?;
            ensure!(
                begun.elapsed() < PATIENCE,
                "{} does not listen on {address} after {PATIENCE:?}{}",
                self.adapter.name(),
                self.tail()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// An error with the end of its log if it has ended.
    pub fn alive(&mut self) -> Result<()> {
        let status = self.child.try_wait().context("cannot wait for the target")?;
        if let Some(status) = status {
            bail!("{} ended with {status}{}", self.adapter.name(), self.tail());
        }
        Ok(())
    }

    /// Puts the end of the target, if it has ended, in front of an error.
    pub fn cause(&mut self, error: Error) -> Error {
        // Its sockets are closed a little before it has ended.
        std::thread::sleep(BREATH);
        match self.alive() {
            Ok(()) => error,
            Err(death) => anyhow!("{death:#}; then: {error:#}"),
        }
    }

    /// The end of the target's output.
    fn tail(&self) -> String {
        let mut told = String::new();
        for file in [LOG, "error.log"] {
            let text = fs::read(self.options.dir.join(file)).unwrap_or_default();
            let end = &text[text.len().saturating_sub(TAIL)..];
            if !end.is_empty() {
                let text = String::from_utf8_lossy(end);
                told.push_str(&format!("; its last output: {}", text.trim().replace('\n', " / ")));
            }
        }
        told
    }

    /// Its adapter.
    pub fn adapter(&self) -> &'static dyn Adapter {
        self.adapter
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// Port of subscribers.
    pub fn port(&self) -> u16 {
        self.options.port
    }

    /// Where publishers go.
    pub fn publish_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.options.publish_port))
    }

    /// Processor time and memory of all its processes.
    pub fn sample(&self) -> Result<ProcessSample> {
        let told = || format!("{} is gone{}", self.adapter.name(), self.tail());
        ProcessSample::of_tree(self.child.id()).with_context(told)
    }

    /// Asks it to end and waits; what does not end by itself is killed.
    pub fn stop(mut self) -> Result<()> {
        self.alive()?;
        self.end();
        Ok(())
    }

    /// Ends the target and every process that is left of its group: workers outlive a master that
    /// was killed.
    fn end(&mut self) {
        let pid = Pid::from_child(&self.child);
        // The target may have ended by itself meanwhile: then the signal finds no process.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < PATIENCE / 3 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts a program in its directory, through this program itself (see [`become_child`]).
pub fn spawn(launch: &Launch, dir: &Path) -> Result<Child> {
    let log = dir.join(LOG);
    let log = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let again = log.try_clone().context("cannot copy a descriptor")?;
    drumline::base::sys::raise_open_files().context("cannot raise RLIMIT_NOFILE")?;
    Command::new(std::env::current_exe().context("cannot find this program's own file")?)
        .arg("child")
        .arg(std::process::id().to_string())
        .arg(&launch.program)
        .args(&launch.arguments)
        .envs(launch.environment.iter().map(|(name, value)| (name, value)))
        .env("TMPDIR", dir)
        .current_dir(dir)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(again)
        .spawn()
        .with_context(|| format!("cannot start {}", launch.program.display()))
}

/// The program that the child becomes.
#[derive(Debug, Clone, clap::Args)]
pub struct Becoming {
    /// The harness's process.
    harness: i32,
    /// The target's program.
    program: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Becomes a target that the kernel ends when the harness ends.
pub fn become_child(becoming: &Becoming) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot ask for a signal")?;
    let parent = getppid().map_or(0, |parent| parent.as_raw_nonzero().get());
    ensure!(parent == becoming.harness, "the harness has ended already");
    let error = Command::new(&becoming.program).args(&becoming.arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", becoming.program.display()))
}
