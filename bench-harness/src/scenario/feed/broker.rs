//! A RabbitMQ of the run: Debian's `rabbitmq-server` on free ports of 127.0.0.1, without systemd.
//!
//! Owns the processes of the broker and of its name service, and their folder. Never touches
//! another broker of the machine. Invariant: both end with their owner.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::account::ProcessSample;

/// The command of Debian's package.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// How long the broker may take to start.
const START: Duration = Duration::from_secs(90);
/// Maximum wait for the broker's first byte, while it starts.
const GREETING: Duration = Duration::from_secs(2);
/// The header of AMQP 0-9-1, which a broker that has started answers.
const HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";

/// The running broker.
pub(super) struct Broker {
    folder: tempfile::TempDir,
    names: Child,
    server: Child,
    port: u16,
}

/// A free port, which another program may take meanwhile.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

impl Broker {
    /// Starts a broker and waits until it answers.
    pub(super) fn start() -> Result<Self> {
        ensure!(
            Path::new(SERVER).exists(),
            "{SERVER} does not exist: install Debian's package rabbitmq-server; scripts/ticker.sh \
             installs it too"
        );
        let folder = tempfile::tempdir().context("cannot make a folder for the broker")?;
        let (port, names_port, node_port) = (free_port()?, free_port()?, free_port()?);
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).context("cannot configure the broker")
        };
        write(
            "rabbitmq.conf",
            &format!(
                "listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = true\n\
                 log.console.level = warning\nlog.file = false\n"
            ),
        )?;
        write("plugins", "[].\n")?;
        let names = Command::new("epmd")
            .args(["-address", "127.0.0.1", "-port", &names_port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start epmd of Debian's package erlang-base")?;
        let output = File::create(folder.path().join("output"));
        let output = output.context("cannot make a log for the broker")?;
        let server = command(folder.path(), [names_port, node_port])
            .stdout(output.try_clone().context("cannot copy a descriptor")?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {SERVER}"))?;
        let mut broker = Broker { folder, names, server, port };
        broker.wait()?;
        Ok(broker)
    }

    fn wait(&mut self) -> Result<()> {
        let begun = Instant::now();
        while !answers(self.port) {
            let ended = self.server.try_wait().context("cannot wait for the broker")?;
            if ended.is_some() || begun.elapsed() > START {
                let output = fs::read_to_string(self.folder.path().join("output"));
                bail!("the broker does not start; its output: {}", output.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// URL with the default user and virtual host.
    pub(super) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Its processor time and memory so far.
    pub(super) fn sample(&self) -> Result<ProcessSample> {
        ProcessSample::of_one(self.pid()?)
    }

    fn pid(&self) -> Result<u32> {
        let path = self.folder.path().join("pid");
        let text = fs::read_to_string(&path).context("the broker wrote no pid")?;
        text.trim().parse().with_context(|| format!("{} holds no pid", path.display()))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let node = self.pid().ok().and_then(|pid| Pid::from_raw(pid as i32));
        if let Some(node) = node {
            // A node that has ended needs no signal.
            let _ = kill_process(node, Signal::KILL);
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = self.names.kill();
        let _ = self.names.wait();
    }
}

/// The command that starts the server, with everything that it writes in `folder`.
fn command(folder: &Path, [names_port, node_port]: [u16; 2]) -> Command {
    let path = |name: &str| -> PathBuf { folder.join(name) };
    let mut command = Command::new(SERVER);
    command
        .env("HOME", folder)
        .env("ERL_EPMD_PORT", names_port.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODENAME", "bench@localhost")
        .env("RABBITMQ_DIST_PORT", node_port.to_string())
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
        .env("RABBITMQ_CONF_ENV_FILE", path("no-environment"))
        .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", path("no-advanced.config"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
        .env("RABBITMQ_MNESIA_BASE", path("data"))
        .env("RABBITMQ_LOG_BASE", path("log"))
        .env("RABBITMQ_PID_FILE", path("pid"))
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

/// Whether a broker on this port answers the first bytes of AMQP.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    stream.set_read_timeout(Some(GREETING)).is_ok()
        && stream.write_all(HEADER).is_ok()
        && stream.read(&mut [0; 1]).is_ok_and(|read| read == 1)
}
