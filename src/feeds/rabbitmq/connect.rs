//! A connection to a broker with its credentials, within a bounded time.
//!
//! Owns the connection. Never declares anything. The invariant: whatever happens to the caller, the
//! socket is hung up when its connection is dropped, so that no thread of lapin is left behind.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::tcp::AsyncTcpStream;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Connection, ConnectionProperties, Error};
use tokio::time::timeout;

use super::faults::{self, Step};
use super::tls::Tls;
use super::transport::{BrokerRuntime, Transport, Wire, runtime};
use crate::config::BrokerUrl;
use crate::feeds::message::Fault;

/// Maximum size of a frame in bytes: lapin keeps two buffers of 32 frames per connection.
const FRAME_MAX: u32 = 32 * 1024;
/// Maximum time of a graceful close.
const CLOSE: Duration = Duration::from_secs(1);

/// How to connect to a broker.
pub struct Broker {
    /// Address and credentials.
    pub url: BrokerUrl,
    /// TLS; `None`: plain TCP.
    pub tls: Option<Tls>,
    /// Heartbeat interval in seconds that the client asks for.
    pub heartbeat: u16,
    /// Maximum time to connect.
    pub connect_timeout: Duration,
    /// Name that the broker shows for the connection.
    pub name: String,
}

/// A connection to a broker.
pub struct BrokerLink {
    /// The connection of lapin.
    pub connection: Connection,
    /// Its socket.
    pub wire: Arc<Wire>,
}

impl Drop for BrokerLink {
    fn drop(&mut self) {
        self.wire.hang_up();
    }
}

/// Hangs up unless it is defused.
struct HangUp(Option<Arc<Wire>>);

impl Drop for HangUp {
    fn drop(&mut self) {
        if let Some(wire) = self.0.take() {
            wire.hang_up();
        }
    }
}

impl Broker {
    /// Connects and authenticates. The caller bounds the time.
    ///
    /// # Errors
    /// The broker cannot be reached, or refuses the client.
    pub async fn connect(&self) -> Result<BrokerLink, Fault> {
        let wire = Wire::new();
        let mut hang_up = HangUp(Some(wire.clone()));
        let failed = |error: Error| faults::of(&self.url, &Step::Connect, &error);
        let transport = self.dial(&wire).await.map_err(|error| failed(error.into()))?;
        // lapin asks for the socket in a thread of its own, where nothing can be ended.
        let transport = Mutex::new(Some(transport));
        let taken = async move |_: AMQPUri, _: BrokerRuntime| {
            let transport = transport.lock().unwrap_or_else(PoisonError::into_inner).take();
            let transport = transport.ok_or(io::ErrorKind::NotConnected);
            Ok(AsyncTcpStream::Plain(transport.map_err(io::Error::from)?))
        };
        let properties =
            ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let connected = Connection::connector(self.uri(), runtime(), taken, properties).await;
        let connection = connected.map_err(failed)?;
        hang_up.0 = None;
        Ok(BrokerLink { connection, wire })
    }

    async fn dial(&self, wire: &Arc<Wire>) -> io::Result<Transport> {
        let stream = wire.connect(&self.url.host, self.url.port).await?;
        match &self.tls {
            None => Ok(wire.transport(stream)),
            Some(tls) => Ok(wire.transport(tls.connect(&self.url.host, stream).await?)),
        }
    }

    fn uri(&self) -> AMQPUri {
        let BrokerUrl { user, password, host, port, vhost, .. } = self.url.clone();
        AMQPUri {
            // TLS is in the transport.
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: user, password },
                host,
                port,
            },
            vhost,
            query: AMQPQueryString {
                frame_max: Some(FRAME_MAX),
                heartbeat: Some(self.heartbeat),
                ..AMQPQueryString::default()
            },
        }
    }
}

impl BrokerLink {
    /// Closes the connection gracefully, or hangs up if the broker does not answer in time.
    pub async fn close(self) {
        let _ = timeout(CLOSE, self.connection.close(200, "OK".into())).await;
    }
}
