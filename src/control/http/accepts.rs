//! Sockets that the control plane accepts itself: those of the internal port, and of the port for
//! certificates.
//!
//! Owns the sockets that wait for a place. The invariant: accepting never waits for a peer, and a
//! connection that is idle gives its place to a new one.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::base::connection_limits::{ConnectionLimits, ControlPermit};
use crate::control::http::connections::HttpConnections;
use crate::wire::http::{Cors, Status};

/// Pause after an accept that failed, because descriptors or memory ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Maximum number of accepted connections that wait for a place. Further ones are closed.
const WAITING_MAX: usize = 64;
/// How often a connection looks for a place before it is refused, and the pause between. Together
/// they are longer than the time in which a new connection is not closed as idle.
const PLACE_CHECKS: u32 = 30;
const PLACE_PAUSE: Duration = Duration::from_millis(50);
/// Maximum time for a refused connection to read the refusal.
const REFUSAL_TIME: Duration = Duration::from_millis(200);

impl HttpConnections {
    /// Serves the connections of `listener`, as many as `limits` admits, with TLS if `tls` is set.
    pub async fn listen(
        self,
        listener: TcpListener,
        limits: Arc<ConnectionLimits>,
        tls: Option<Arc<ServerConfig>>,
    ) {
        let tls = tls.map(TlsAcceptor::from);
        let waiting = Arc::new(Semaphore::new(WAITING_MAX));
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            if let Some(permit) = ControlPermit::reserve(&limits) {
                self.serve_accepted(socket, permit, tls.clone());
            } else if let Ok(place) = waiting.clone().try_acquire_owned() {
                let (connections, limits, tls) = (self.clone(), limits.clone(), tls.clone());
                tokio::spawn(async move {
                    match connections.await_place(&limits).await {
                        Some(permit) => connections.serve_accepted(socket, permit, tls),
                        // A client of TLS would take the answer for a broken record.
                        None if tls.is_some() => {}
                        None => refuse(socket).await,
                    }
                    drop(place);
                });
            }
        }
    }

    fn serve_accepted(&self, socket: TcpStream, permit: ControlPermit, tls: Option<TlsAcceptor>) {
        match tls {
            Some(tls) => self.serve_tls(socket, permit, tls),
            None => self.serve(socket, 0, Vec::new(), None, permit),
        }
    }

    /// Waits until a connection ends; closes the one that has been idle longest. `None`: all were
    /// in use the whole time.
    async fn await_place(&self, limits: &Arc<ConnectionLimits>) -> Option<ControlPermit> {
        for _ in 0..PLACE_CHECKS {
            self.idle.close_longest_idle();
            sleep(PLACE_PAUSE).await;
            if let Some(permit) = ControlPermit::reserve(limits) {
                return Some(permit);
            }
        }
        None
    }
}

/// Answers 503 to a connection that the limits do not admit.
async fn refuse(socket: TcpStream) {
    let refusal = async {
        let response = Status::Unavailable.response(Cors::default(), false);
        socket.writable().await?;
        // The send buffer of a new connection has room for the whole answer.
        socket.try_write(&response)?;
        socket2::SockRef::from(&socket).shutdown(Shutdown::Write)?;
        // Closing a socket with unread input would reset it and discard the answer.
        let mut unread = [0; 1024];
        loop {
            socket.readable().await?;
            match socket.try_read(&mut unread) {
                Ok(0) => return io::Result::Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    };
    // After the timeout the connection is closed in any case.
    let _ = timeout(REFUSAL_TIME, refusal).await;
}
