//! The server under test: its process, its ports, its metrics.
//!
//! Ends the process by its id when the test ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{API_KEY, Client, PATIENCE, api_request, wait_for};

/// The binary under test: the one that cargo built, or the one named by DRUMLINE.
pub fn binary() -> PathBuf {
    std::env::var_os("DRUMLINE").map_or_else(|| env!("CARGO_BIN_EXE_drumline").into(), Into::into)
}

/// The binary under test, in an environment that configures nothing.
pub fn command() -> Command {
    without_configuration(Command::new(binary()))
}

fn without_configuration(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("DRUMLINE_") || text.starts_with("CENTRIFUGO_") {
            command.env_remove(&name);
        }
    }
    command
}

/// A free port below the range that the kernel gives to clients.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + ((std::process::id() * 131 + nth) % 18_000) as u16;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// Flags of the transports that are off by default.
const UNIDIRECTIONAL: [&str; 4] = [
    "--uni_websocket.enabled",
    "--uni_http_stream.enabled",
    "--uni_sse.enabled",
    "--long_polling.enabled",
];

/// A running server.
pub struct Server {
    child: Child,
    pub port: u16,
    pub internal: u16,
}

impl Server {
    /// Insecure, two small shards, every transport, and the flags given.
    pub fn start(flags: &[&str]) -> Server {
        Server::with(&Server::small(flags))
    }

    /// The same, with everything on the one public port and [`API_KEY`] as the key of its API.
    pub fn on_one_port(flags: &[&str]) -> Server {
        let mut all = Server::small(flags);
        all.extend(["--http_api.key", API_KEY]);
        let port = free_port();
        Server::spawn(&all, port, port)
    }

    /// The flags given and no others, with everything on the one public port.
    pub fn on_public_port(flags: &[&str]) -> Server {
        let port = free_port();
        Server::spawn(flags, port, port)
    }

    fn small<'a>(flags: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["--client.insecure", "--page.enabled"];
        all.extend(UNIDIRECTIONAL);
        if !flags.contains(&"--shards") {
            all.extend(["--shards", "2"]);
        }
        if !flags.contains(&"--engine.slots_per_shard") {
            all.extend(["--engine.slots_per_shard", "500"]);
        }
        all.extend(flags);
        all
    }

    /// The flags given and no others, except for the ports and the metrics, which tests ask for.
    pub fn with(flags: &[&str]) -> Server {
        Server::spawn(flags, free_port(), free_port())
    }

    /// The internal port may be the public one. Another process may have taken a port since it
    /// was found free: then the server starts on others.
    fn spawn(flags: &[&str], port: u16, internal: u16) -> Server {
        let one = port == internal;
        let mut ports = (port, internal);
        for _ in 0..3 {
            match Server::try_spawn(flags, ports.0, ports.1) {
                Ok(server) => return server,
                Err(status) => eprintln!("the server ended at once: {status}, flags {flags:?}"),
            }
            let port = free_port();
            ports = (port, if one { port } else { free_port() });
        }
        panic!("the server does not start");
    }

    /// The flags given and no others, on ports of its own, and not waited for.
    pub fn launch(flags: &[&str], prepare: impl FnOnce(&mut Command)) -> Server {
        Server::launch_on(flags, free_port(), free_port(), prepare)
    }

    /// The same on these ports.
    pub fn launch_on(
        flags: &[&str],
        port: u16,
        internal: u16,
        prepare: impl FnOnce(&mut Command),
    ) -> Server {
        Server::launch_by(command(), flags, (port, internal), prepare)
    }

    fn launch_by(
        mut command: Command,
        flags: &[&str],
        (port, internal): (u16, u16),
        prepare: impl FnOnce(&mut Command),
    ) -> Server {
        let own = if internal == port { 0 } else { internal };
        command
            .args(["serve", "--prometheus.enabled"])
            .args(["--http_server.port", &port.to_string()])
            .args(["--http_server.internal_port", &own.to_string()])
            .args(flags)
            .stdin(Stdio::null());
        prepare(&mut command);
        let child = command.spawn().expect("the binary starts");
        Server { child, port, internal }
    }

    /// Like [`Server::on_one_port`], with the mounts of another process.
    pub fn with_mounts_of(process: u32, flags: &[&str]) -> Server {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &process.to_string()]).arg(binary());
        let mut all = Server::small(flags);
        all.extend(["--http_api.key", API_KEY]);
        let port = free_port();
        let command = without_configuration(command);
        let server = Server::launch_by(command, &all, (port, port), |_| {});
        server.listening().expect("the server starts")
    }

    /// Like [`Server::on_one_port`], with more variables.
    pub fn with_variables(flags: &[&str], variables: &[(&str, String)]) -> Server {
        let mut all = Server::small(flags);
        all.extend(["--http_api.key", API_KEY]);
        let port = free_port();
        let variables = variables.iter().map(|(name, value)| (name, value));
        let server = Server::launch_by(command(), &all, (port, port), |command| {
            command.envs(variables);
        });
        server.listening().expect("the server starts")
    }

    fn try_spawn(flags: &[&str], port: u16, internal: u16) -> Result<Server, ExitStatus> {
        Server::launch_on(flags, port, internal, |_| {}).listening()
    }

    /// Waits until the server listens, or has ended.
    fn listening(mut self) -> Result<Server, ExitStatus> {
        let server = &mut self;
        let ended = wait_for("the server to listen", || {
            let ended = server.child.try_wait().unwrap();
            let listens = || TcpStream::connect(server.internal_address()).is_ok();
            (ended.is_some() || listens()).then_some(ended)
        });
        if let Some(status) = ended {
            return Err(status);
        }
        self.settle();
        Ok(self)
    }

    /// Waits until no socket of a client is held, and returns the number of slots taken then:
    /// those that wait for a socket.
    pub fn settle(&self) -> u64 {
        let mut last = u64::MAX;
        wait_for("the number of sockets to settle", || {
            let now = self.metric("drumline_sockets");
            std::thread::sleep(Duration::from_millis(30));
            (std::mem::replace(&mut last, now) == now).then_some(now)
        })
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn internal_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.internal))
    }

    /// Has a client of its own publish into a channel.
    pub fn publish(&self, channel: &str, data: &str) {
        let mut publisher = Client::connected(self);
        let command = format!(r#"{{"id":2,"publish":{{"channel":"{channel}","data":{data}}}}}"#);
        assert_eq!(publisher.ask(&command), r#"{"id":2,"publish":{}}"#);
    }

    /// Calls a method of the API with [`API_KEY`]; returns the body of the answer.
    pub fn api(&self, method: &str, body: &str) -> String {
        let mut client = Client::dial(self.internal_address());
        let (status, body) = client.exchange(&api_request(method, "", body));
        assert_eq!(status, 200, "{body}");
        body
    }

    /// The sum of a metric over all shards.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.metrics();
        let values = values(&text, name);
        assert!(!values.is_empty(), "no metric {name} in:\n{text}");
        values.iter().sum::<f64>() as u64
    }

    /// The largest value of a metric among the shards; `None`: there is no such metric.
    pub fn largest(&self, name: &str) -> Option<u64> {
        values(&self.metrics(), name).into_iter().max_by(f64::total_cmp).map(|most| most as u64)
    }

    /// All metrics, as text.
    pub fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.internal_address()).expect("the internal port");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("metrics are text");
        text
    }

    /// Waits until a metric says so.
    pub fn wait_metric(&self, name: &str, mut accept: impl FnMut(u64) -> bool) -> u64 {
        let mut last = 0;
        wait_for(name, || {
            last = self.metric(name);
            accept(last).then_some(last)
        })
    }

    /// ID of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal_stop(&self) {
        self.signal(Signal::TERM);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the server runs");
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_for("the server to end", || child.try_wait().unwrap())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// The values of a metric in the text of all.
fn values(text: &str, name: &str) -> Vec<f64> {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .map(|rest| rest.rsplit(' ').next().unwrap().parse().expect("a number"))
        .collect()
}

impl From<&Server> for SocketAddr {
    fn from(server: &Server) -> SocketAddr {
        server.address()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
