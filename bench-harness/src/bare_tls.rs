//! A bare server of TLS: threads that accept, make the handshake with rustls, and keep the socket.
//!
//! Owns the child process and, within it, its threads and sockets. Never reads application data.
//! Invariant: the suite, the group, the certificate and the tickets are those that Drumline has in
//! the same run.

use std::io::BufRead;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::setpriority_process;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig, ServerConnection};

use crate::account::ProcessSample;
use crate::subprocess::{QUIT, Subprocess, answer, ready};
use crate::tls::{Identity, server_config};

/// The order to close all sockets and to tell what was done.
const CLOSE: &str = "close";
/// Longest time that a client may take for its part of a handshake.
const PATIENCE: Duration = Duration::from_secs(20);
/// Length of the accept queue.
const BACKLOG: i32 = 8192;

/// Options of the child.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Port, on all loopback addresses.
    #[arg(long)]
    port: u16,
    /// File of the certificate, in PEM.
    #[arg(long)]
    certificate: PathBuf,
    /// File of the key, in PEM.
    #[arg(long)]
    key: PathBuf,
    /// Number of threads.
    #[arg(long)]
    threads: usize,
    /// Niceness of the threads.
    #[arg(long, allow_negative_numbers = true, default_value_t = 0)]
    nice: i32,
}

/// Handshakes that the child has made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// With a key exchange and a signature.
    pub full: u64,
    /// With a ticket.
    pub resumed: u64,
    /// Ended before they were complete.
    pub failed: u64,
}

impl Handshakes {
    fn parse(line: &str) -> Result<Self> {
        let told = || format!("the bare TLS server answered `{line}`, not three counts");
        let counts: Vec<u64> =
            line.split(' ').map(|word| word.parse().with_context(told)).collect::<Result<_>>()?;
        let [full, resumed, failed] = counts[..] else { bail!(told()) };
        Ok(Handshakes { full, resumed, failed })
    }
}

/// The running child.
pub struct BareTls {
    process: Subprocess,
    port: u16,
}

impl BareTls {
    /// Starts a child that serves this certificate with so many threads of niceness `nice`.
    pub fn start(port: u16, identity: &Identity, threads: usize, nice: i32) -> Result<Self> {
        let arguments = [
            format!("--port={port}"),
            format!("--certificate={}", identity.certificate_file().display()),
            format!("--key={}", identity.key_file().display()),
            format!("--threads={threads}"),
            format!("--nice={nice}"),
        ];
        Ok(BareTls { process: Subprocess::start("bare-tls", &arguments)?, port })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its processor time and memory so far.
    pub fn sample(&self) -> Result<ProcessSample> {
        self.process.sample()
    }

    /// Closes its sockets. Returns the handshakes since the last call.
    pub fn close(&mut self) -> Result<Handshakes> {
        self.process.order(CLOSE)?;
        Handshakes::parse(&self.process.answer()?)
    }

    /// Ends the child.
    pub fn stop(self) -> Result<()> {
        self.process.stop()
    }
}

#[derive(Default)]
struct Shared {
    sockets: Mutex<Vec<TcpStream>>,
    full: AtomicU64,
    resumed: AtomicU64,
    failed: AtomicU64,
}

/// Runs the child: serves, and takes orders from standard input.
pub fn serve(options: &Options) -> Result<()> {
    drumline::base::sys::raise_open_files().context("cannot raise RLIMIT_NOFILE")?;
    let chain = CertificateDer::pem_file_iter(&options.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read {}", options.certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(&options.key)
        .with_context(|| format!("cannot read {}", options.key.display()))?;
    let config = server_config(chain, key)?;
    let told = || format!("cannot take a niceness of {}", options.nice);
    setpriority_process(None, options.nice).with_context(told)?;
    let listener = listen(options.port)?;
    let shared: Arc<Shared> = Arc::default();
    for _ in 0..options.threads {
        let (config, shared) = (config.clone(), shared.clone());
        let listener = listener.try_clone().context("cannot copy a listener")?;
        std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                take(socket, &config, &shared);
            }
        });
    }
    ready()?;
    for line in std::io::stdin().lock().lines() {
        match line.context("cannot read an order")?.as_str() {
            CLOSE => {
                shared.sockets.lock().unwrap_or_else(PoisonError::into_inner).clear();
                let took = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
                let [full, resumed, failed] =
                    [&shared.full, &shared.resumed, &shared.failed].map(took);
                answer(&format!("{full} {resumed} {failed}"))?;
            }
            QUIT => return Ok(()),
            order => bail!("`{order}` is no command; use `{CLOSE}` or `{QUIT}`"),
        }
    }
    Ok(())
}

fn listen(port: u16) -> Result<TcpListener> {
    let told = || format!("cannot listen on port {port}");
    let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))).with_context(told)?;
    // A second listen changes the length of the queue.
    rustix::net::listen(&listener, BACKLOG).with_context(told)?;
    Ok(listener)
}

fn take(socket: TcpStream, config: &Arc<ServerConfig>, shared: &Shared) {
    match handshake(&socket, config) {
        Ok(HandshakeKind::Resumed) => shared.resumed.fetch_add(1, Ordering::Relaxed),
        Ok(_) => shared.full.fetch_add(1, Ordering::Relaxed),
        Err(_) => shared.failed.fetch_add(1, Ordering::Relaxed),
    };
    shared.sockets.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
}

fn handshake(mut socket: &TcpStream, config: &Arc<ServerConfig>) -> Result<HandshakeKind> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut connection = ServerConnection::new(config.clone())?;
    while connection.is_handshaking() || connection.wants_write() {
        let (read, _) = connection.complete_io(&mut socket)?;
        ensure!(read > 0 || !connection.is_handshaking(), "closed within the handshake");
    }
    connection.handshake_kind().context("a handshake of no kind")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{Client, Stream};

    #[test]
    fn handshakes_are_counted_by_kind_and_failures_apart() {
        let identity = Identity::new().unwrap();
        let config = identity.server_config().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let shared: Arc<Shared> = Arc::default();
        let kept = shared.clone();
        let thread = std::thread::spawn(move || {
            for _ in 0..4 {
                take(listener.accept().unwrap().0, &config, &kept);
            }
        });
        let client = Client::resuming(identity.certificate()).unwrap();
        let collect = || {
            let mut stream = Stream::connect(server, Some(&client), PATIENCE).unwrap();
            assert!(stream.write_all(b"x").is_ok());
        };
        (0..3).for_each(|_| collect());
        drop(TcpStream::connect(server).unwrap());
        thread.join().unwrap();
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        assert_eq!((count(&shared.full), count(&shared.resumed)), (1, 2));
        assert_eq!((count(&shared.failed), client.resumed()), (1, 2));
        assert_eq!(shared.sockets.lock().unwrap().len(), 4);
    }

    #[test]
    fn an_answer_has_three_counts() {
        let counts = Handshakes { full: 1, resumed: 2, failed: 3 };
        assert_eq!(Handshakes::parse("1 2 3").unwrap(), counts);
        assert!(Handshakes::parse("1 2").is_err() && Handshakes::parse("a b c").is_err());
    }
}
