//! The server under test, as a child process.
//!
//! Owns the child and its end. Never configures it except by its command line and one environment
//! variable. Invariant: a server that does not end with status 0 after SIGTERM is an error.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::account::ProcessSample;

/// Key of the HTTP API in every run.
pub const API_KEY: &str = "bench";
/// Default time between two pings of a connection, in seconds.
pub const PING_SECONDS: u64 = 25;
/// Time within which a pong must come, in seconds. It must be shorter than the ping interval.
const PONG_SECONDS: u64 = 8;
/// Maximum time that a server may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the server is started.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The program.
    pub program: PathBuf,
    /// Port of clients, API and metrics.
    pub port: u16,
    /// Port of API and metrics, if they have one of their own.
    pub internal_port: Option<u16>,
    /// Shards.
    pub shards: u32,
    /// Seconds between two pings of a connection, at least 2.
    pub ping_seconds: u64,
    /// Whether clients answer pings.
    pub pong: bool,
    /// Seconds over which a graceful shutdown spreads its closes.
    pub spread_seconds: u64,
    /// More arguments.
    pub arguments: Vec<String>,
}

/// The running server.
pub struct Server {
    child: Child,
    address: SocketAddr,
    control: SocketAddr,
    stopped: bool,
    /// The server's configuration file, which a reload reads again.
    config: tempfile::NamedTempFile,
}

impl Server {
    /// Starts the server and waits until its port takes connections.
    pub fn start(options: &ServerOptions) -> Result<Self> {
        let mut server = Self::spawn(options, Stdio::inherit())?;
        server.await_port(Duration::from_millis(20))?;
        Ok(server)
    }

    /// Starts the server, which writes its banner to `output`, and waits for nothing.
    pub fn spawn(options: &ServerOptions, output: Stdio) -> Result<Self> {
        ensure!(
            Path::new(&options.program).exists(),
            "{} does not exist; build it with `cargo build --release` or give its path with --server",
            options.program.display()
        );
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
        ensure!(
            TcpStream::connect(address).is_err(),
            "port {} is in use; stop the process that listens there or choose another with --port",
            options.port
        );
        let mut command = Command::new(&options.program);
        // The operator's environment variables must not configure the measured server.
        let configures =
            |name: &str| name.starts_with("DRUMLINE_") || name.starts_with("CENTRIFUGO_");
        for (name, _) in std::env::vars_os() {
            if configures(&name.to_string_lossy()) {
                command.env_remove(&name);
            }
        }
        // Without a file of its own, the server would read one in the present folder.
        let config = tempfile::Builder::new().prefix("drumline-bench-").suffix(".toml").tempfile();
        let config = config.context("cannot write an empty configuration")?;
        // Set by the environment: `versus` also starts builds that ignore this unknown key.
        let child = command
            .env("DRUMLINE_PROMETHEUS_ENABLED", "true")
            .arg("--config")
            .arg(config.path())
            .args(arguments(options))
            .stdin(Stdio::null())
            .stdout(output)
            .spawn()
            .with_context(|| format!("cannot start {}", options.program.display()))?;
        let control = options.internal_port.unwrap_or(options.port);
        let control = SocketAddr::from((Ipv4Addr::LOCALHOST, control));
        Ok(Server { child, address, control, stopped: false, config })
    }

    /// Waits until its port takes connections, and tries every `step`.
    pub fn await_port(&mut self, step: Duration) -> Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait().context("cannot wait for the server")? {
                bail!("the server ended with {status} before it listened: see its error above");
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "the server does not listen on {} in time",
                self.address
            );
            std::thread::sleep(step);
        }
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves API and metrics.
    pub fn control(&self) -> SocketAddr {
        self.control
    }

    /// Its configuration file, empty at the start.
    pub fn config(&self) -> &Path {
        self.config.path()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("cannot signal the server")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its processor time and memory so far.
    pub fn sample(&self) -> Result<ProcessSample> {
        ProcessSample::of_tree(self.child.id())
    }

    /// The sum of a metric over its label sets that contain `label`; `None` if it is not there.
    pub fn metric(&self, name: &str, label: &str) -> Result<Option<f64>> {
        Ok(metric(&self.get("/metrics")?, name, label))
    }

    /// The sum of each counter over its label sets, by name.
    pub fn totals(&self) -> Result<BTreeMap<String, f64>> {
        Ok(totals(&self.get("/metrics")?))
    }

    /// The body of a GET.
    pub fn get(&self, path: &str) -> Result<String> {
        let told = || format!("GET {path}");
        let mut stream = TcpStream::connect(self.control).with_context(told)?;
        stream.set_read_timeout(Some(PATIENCE)).with_context(told)?;
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(head.as_bytes()).with_context(told)?;
        let mut text = String::new();
        stream.read_to_string(&mut text).with_context(told)?;
        let (head, body) = text.split_once("\r\n\r\n").with_context(told)?;
        ensure!(head.starts_with("HTTP/1.1 200"), "GET {path} answered {head}");
        Ok(body.to_owned())
    }

    /// Waits until nothing listens there: the rings of a process that has ended end a little later.
    pub fn await_free_port(address: SocketAddr) -> Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(address).is_ok() {
            ensure!(begun.elapsed() < PATIENCE, "{address} listens after the end of the server");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(mut self) -> Result<()> {
        self.stopped = true;
        self.child.kill().context("cannot kill the server")?;
        self.child.wait().context("cannot wait for the server").map(drop)
    }

    /// Sends SIGTERM and waits. A server that does not end, or not with status 0, is an error.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for the server")? {
                self.stopped = true;
                ensure!(status.success(), "the server ended with {status} after SIGTERM");
                return Ok(());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "the server has not ended {PATIENCE:?} after SIGTERM"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.stopped {
            // After an error elsewhere the server must not keep running.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The command line of the server.
pub fn arguments(options: &ServerOptions) -> Vec<String> {
    let pairs = [
        ("--http_server.port", options.port.to_string()),
        ("--shards", options.shards.to_string()),
        ("--http_api.key", API_KEY.to_owned()),
        ("--client.ping_interval", format!("{}s", options.ping_seconds)),
        ("--client.pong_timeout", format!("{}s", PONG_SECONDS.min(options.ping_seconds - 1))),
    ];
    let mut arguments: Vec<String> =
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
    arguments.push("--client.insecure".to_owned());
    arguments.push(format!("--engine.pong={}", options.pong));
    arguments.push(format!("--shutdown.spread={}s", options.spread_seconds));
    if let Some(port) = options.internal_port {
        arguments.push(format!("--http_server.internal_port={port}"));
    }
    arguments.extend(options.arguments.iter().cloned());
    arguments
}

/// Arguments with which the server has TLS on its public port, and none on the internal port.
pub fn tls_arguments(certificate: &Path, key: &Path) -> Vec<String> {
    vec![
        "--http_server.tls.enabled".to_owned(),
        "--http_server.tls_external".to_owned(),
        format!("--http_server.tls.cert_pem={}", certificate.display()),
        format!("--http_server.tls.key_pem={}", key.display()),
    ]
}

fn totals(text: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        if let Some(value) = value.filter(|_| name.ends_with("_total")) {
            *sums.entry(name.to_owned()).or_default() += value;
        }
    }
    sums
}

/// The sum of a metric over its label sets that contain `label`; `None` if it is not there.
pub fn metric(text: &str, name: &str, label: &str) -> Option<f64> {
    let mut found = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        if !rest.starts_with(['{', ' ']) || !rest.contains(label) {
            continue;
        }
        if let Some(value) = rest.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()) {
            found = Some(found.unwrap_or(0.0) + value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pong_timeout_is_shorter_than_the_ping_interval() {
        for (ping_seconds, pong) in [(PING_SECONDS, "8s"), (5, "4s")] {
            let arguments = arguments(&ServerOptions {
                program: PathBuf::new(),
                port: 1,
                internal_port: None,
                shards: 1,
                ping_seconds,
                pong: true,
                spread_seconds: 0,
                arguments: Vec::new(),
            });
            let at = arguments.iter().position(|one| one == "--client.pong_timeout").unwrap();
            assert_eq!(arguments[at + 1], pong);
        }
    }

    #[test]
    fn a_metric_is_the_sum_of_the_label_sets_that_match() {
        let text = "# HELP a b\na{code=\"3008\"} 3\na{code=\"1000\"} 4\nab 5\n";
        assert_eq!(metric(text, "a", "code=\"3008\""), Some(3.0));
        assert_eq!(metric(text, "a", ""), Some(7.0));
        assert_eq!(metric(text, "c", ""), None);
        let text = "# TYPE a_total counter\na_total{shard=\"0\"} 3\na_total{shard=\"1\"} 4\nb 5\n";
        assert_eq!(totals(text), BTreeMap::from([("a_total".to_owned(), 7.0)]));
    }
}
