//! A RabbitMQ of the tests: Debian's `rabbitmq-server` on ports of its own, without systemd.
//!
//! Owns the process of the broker and of its name service. Ends both by their ids.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};

/// Folder of the commands of Debian's package.
const COMMANDS: &str = "/usr/lib/rabbitmq/bin";
/// How long the broker may take to start.
const START: Duration = Duration::from_secs(90);

/// A broker that runs, unless it was killed.
pub struct Broker {
    folder: tempfile::TempDir,
    names: Child,
    process: Option<Child>,
    pub port: u16,
    pub tls_port: u16,
    ports: [u16; 2],
}

/// A free port, which another program may take meanwhile.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Makes an authority and a certificate for `localhost`.
fn certificates(folder: &Path) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(folder).output();
        let output = output.expect("openssl runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority = ["req", "-x509", "-days", "30", "-subj", "/CN=tests"];
    let files = ["-keyout", "ca.key", "-out", "ca.pem"];
    let extensions = ["-addext", "keyUsage=critical,keyCertSign"];
    openssl(&[&authority[..], &key, &files, &extensions].concat());
    let files = ["-keyout", "server.key", "-out", "server.csr"];
    openssl(&[&["req", "-subj", "/CN=localhost"][..], &key, &files].concat());
    fs::write(folder.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
    let signed = ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key"];
    let files = ["-CAcreateserial", "-days", "30", "-extfile", "names", "-out", "server.pem"];
    openssl(&[&signed[..], &files].concat());
}

impl Broker {
    /// Starts a broker and waits until it answers.
    pub async fn start() -> Broker {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let [port, tls_port, names_port, node_port] = [(); 4].map(|()| free_port());
        let names = Command::new("epmd")
            .args(["-address", "127.0.0.1", "-port", &names_port.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .expect("epmd of Debian's erlang-base runs");
        // A heartbeat of 0 must not switch off the heartbeats of the client.
        let path = |name: &str| folder.path().join(name).display().to_string();
        let settings = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\nlisteners.ssl.1 = 127.0.0.1:{tls_port}\n\
             ssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n\
             ssl_options.verify = verify_none\nssl_options.fail_if_no_peer_cert = false\n\
             heartbeat = 0\nlog.console = false\ndisk_free_limit.absolute = 1MB\n",
            path("ca.pem"),
            path("server.pem"),
            path("server.key"),
        );
        fs::write(folder.path().join("rabbitmq.conf"), settings).unwrap();
        let advanced = "[{rabbit,[{channel_tick_interval,500}]}].\n";
        fs::write(folder.path().join("advanced.config"), advanced).unwrap();
        fs::write(folder.path().join("plugins"), "[].\n").unwrap();
        let ports = [names_port, node_port];
        let mut broker = Broker { folder, names, process: None, port, tls_port, ports };
        broker.start_again().await;
        broker
    }

    fn command(&self, name: &str) -> Command {
        let path = |name: &str| self.folder.path().join(name);
        let mut command = Command::new(format!("{COMMANDS}/{name}"));
        let [names_port, node_port] = self.ports.map(|port| port.to_string());
        command
            .env("HOME", self.folder.path())
            .env("ERL_EPMD_PORT", names_port)
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", "feeds@localhost")
            .env("RABBITMQ_DIST_PORT", node_port)
            .env("RABBITMQ_CONF_ENV_FILE", path("no-environment"))
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
            .env("RABBITMQ_MNESIA_BASE", path("data"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_PID_FILE", self.pid_file())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.path().join("pid")
    }

    /// Starts the broker with the data of its earlier life.
    pub async fn start_again(&mut self) {
        let _ = fs::remove_file(self.pid_file());
        let output = fs::File::create(self.folder.path().join("output")).unwrap();
        let process = self
            .command("rabbitmq-server")
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .expect("rabbitmq-server of Debian's package runs");
        self.process = Some(process);
        let began = Instant::now();
        while self.connect().await.is_err() {
            if began.elapsed() > START {
                let output = fs::read_to_string(self.folder.path().join("output"));
                panic!("the broker does not start: {output:?}");
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn pid(&self) -> Pid {
        let text = fs::read_to_string(self.pid_file()).expect("the broker wrote its pid");
        Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the broker runs");
    }

    /// Ends the broker at once.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Some(mut process) = self.process.take() {
            process.wait().unwrap();
        }
    }

    /// Ends the broker gracefully.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        if let Some(mut process) = self.process.take() {
            process.wait().unwrap();
        }
    }

    /// Lets the broker stand still.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets the broker go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Runs a command of an operator.
    pub fn control(&self, arguments: &[&str]) {
        let output = self.command("rabbitmqctl").arg("-q").args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// URL with the default user.
    pub fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.port)
    }

    /// Certificate of the authority that signed the broker's certificate.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A connection of a publisher.
    pub async fn connect(&self) -> lapin::Result<Connection> {
        let url = format!("{}/%2f?heartbeat=10", self.url());
        let connect = Connection::connect(&url, ConnectionProperties::default());
        match timeout(Duration::from_secs(5), connect).await {
            Ok(connected) => connected,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    /// A client of the test.
    pub async fn client(&self) -> TestClient {
        let connection = self.connect().await.expect("the broker takes connections");
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        TestClient { _connection: connection, channel }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // A broker that stands still ends too.
            let _ = kill_process(self.pid(), Signal::KILL);
            let _ = process.wait();
        }
        let _ = self.names.kill();
        let _ = self.names.wait();
    }
}

/// A client that publishes and looks into queues.
pub struct TestClient {
    _connection: Connection,
    pub channel: Channel,
}

/// A persistent message.
pub fn properties(id: &str, headers: &[(&str, &str)]) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        let value = lapin::types::AMQPValue::LongString(value.as_bytes().to_vec().into());
        table.insert((*name).into(), value);
    }
    let properties = BasicProperties::default().with_delivery_mode(2).with_headers(table);
    if id.is_empty() { properties } else { properties.with_message_id(id.into()) }
}

impl TestClient {
    /// Publishes a message, and waits until the broker has it.
    pub async fn publish(&self, exchange: &str, key: &str, id: &str, body: &str) {
        self.publish_with(exchange, key, body, properties(id, &[])).await;
    }

    /// The same with properties.
    pub async fn publish_with(
        &self,
        exchange: &str,
        key: &str,
        body: &str,
        properties: BasicProperties,
    ) {
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, key): (ShortString, ShortString) = (exchange.into(), key.into());
        let confirm =
            self.channel.basic_publish(exchange, key, mandatory, body.as_bytes(), properties).await;
        let confirm = confirm.expect("the broker takes the message").await.unwrap();
        assert!(matches!(confirm, Confirmation::Ack(None)), "{confirm:?}");
    }

    /// Number of messages that wait in a queue.
    pub async fn waiting(&self, queue: &str) -> u32 {
        let passive = lapin::options::QueueDeclareOptions { passive: true, ..Default::default() };
        let found = self.channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
        found.unwrap().message_count()
    }

    /// Takes a message from a queue.
    pub async fn take(&self, queue: &str) -> Option<lapin::message::Delivery> {
        let options = BasicGetOptions { no_ack: true };
        Some(self.channel.basic_get(queue.into(), options).await.unwrap()?.delivery)
    }
}
