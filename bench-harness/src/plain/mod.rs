//! Two plain broadcast servers, the way an engineer would write them on an afternoon: a task a
//! connection, a map of topics, WebSocket in, HTTP POST to publish.
//!
//! Owns their flags. Never tunes them: they are what Drumline's extra work is held against.
//! Invariant: a topic is subscribed to before the answer to the upgrade is sent.

mod monoio;
mod tokio;

/// Flags of both.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Port of WebSockets; the path of the upgrade is the topic.
    #[arg(long)]
    port: u16,
    /// Port of `POST /publish/TOPIC`.
    #[arg(long)]
    publish_port: u16,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// From one ping to the next, in seconds; none by default.
    #[arg(long)]
    ping_seconds: Option<u64>,
}

/// Length of the accept queues.
const BACKLOG: u32 = 8192;

pub use self::monoio::serve as serve_monoio;
pub use self::tokio::serve as serve_tokio;
