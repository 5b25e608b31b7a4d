//! Server on tokio: tokio-tungstenite for WebSocket, a broadcast channel per topic, axum for HTTP.
//!
//! Owns the topics. Never keeps a message. Invariant: a subscriber that falls further behind than
//! the channel holds is closed, and does not miss messages silently.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::broadcast::{Receiver, Sender, channel};
use tokio::time::{Instant, Interval, interval_at};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::{Bytes, Message, Utf8Bytes};

use super::options::{BACKLOG, Options};

/// Messages that a subscriber may be behind.
const BEHIND: usize = 1024;

#[derive(Default)]
struct Topics(Mutex<HashMap<String, Sender<Utf8Bytes>>>);

impl Topics {
    fn subscribe(&self, topic: &str) -> Receiver<Utf8Bytes> {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        topics.entry(topic.to_owned()).or_insert_with(|| channel(BEHIND).0).subscribe()
    }

    fn publish(&self, topic: &str, message: String) {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(topic) {
            // Nobody subscribed is no error.
            let _ = topic.send(message.into());
        }
    }
}

/// Serves until it is ended.
pub fn serve(options: &Options) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.workers)
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(run(options))
}

/// Listens on a port of 127.0.0.1. Must be called in a runtime of tokio.
///
/// # Errors
/// The port is not free.
pub fn listen(port: u16) -> Result<TcpListener> {
    let told = || format!("cannot listen on port {port}");
    let socket = TcpSocket::new_v4().with_context(told)?;
    socket.set_reuseaddr(true).with_context(told)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).with_context(told)?;
    socket.listen(BACKLOG).with_context(told)
}

async fn run(options: &Options) -> Result<()> {
    let topics = Arc::new(Topics::default());
    let router = Router::new().route("/publish/{topic}", post(publish)).with_state(topics.clone());
    let publishers = listen(options.publish_port)?;
    let sockets = listen(options.port)?;
    tokio::spawn(async move { axum::serve(publishers, router).await });
    loop {
        let (stream, _) = sockets.accept().await.context("cannot accept")?;
        tokio::spawn(connection(stream, topics.clone(), options.ping_seconds));
    }
}

async fn publish(
    State(topics): State<Arc<Topics>>,
    Path(topic): Path<String>,
    body: String,
) -> &'static str {
    topics.publish(&topic, body);
    "ok"
}

/// Waits for the next ping; forever if there is none.
async fn next(pings: &mut Option<Interval>) {
    match pings {
        Some(pings) => drop(pings.tick().await),
        None => std::future::pending().await,
    }
}

async fn connection(
    stream: TcpStream,
    topics: Arc<Topics>,
    ping_seconds: Option<u64>,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut messages = None;
    // The library's own shape of a refusal, which is never made here.
    #[allow(clippy::result_large_err)]
    let upgrade = |request: &Request, response: Response| {
        messages = Some(topics.subscribe(request.uri().path().trim_start_matches('/')));
        Ok(response)
    };
    let socket = accept_hdr_async(stream, upgrade).await?;
    let mut messages = messages.context("upgraded without a request")?;
    let (mut output, mut input) = socket.split();
    let mut pings = ping_seconds.map(Duration::from_secs).map(|every| {
        // The first one is not due at once.
        interval_at(Instant::now() + every, every)
    });
    loop {
        tokio::select! {
            message = messages.recv() => output.send(Message::Text(message?)).await?,
            () = next(&mut pings) => output.send(Message::Ping(Bytes::new())).await?,
            received = input.next() => match received {
                Some(Ok(_)) => {}
                _ => return Ok(()),
            },
        }
    }
}
