//! Flags of both plain servers.
//!
//! Owns the flags. Never serves.

/// Flags of both.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Port for subscribers (WebSocket). The path of the upgrade is the topic.
    #[arg(long)]
    pub(super) port: u16,
    /// Port of `POST /publish/TOPIC`.
    #[arg(long)]
    pub(super) publish_port: u16,
    /// Number of threads.
    #[arg(long, default_value_t = 2)]
    pub(super) workers: usize,
    /// Interval between pings, in seconds. Without it the server sends no pings.
    #[arg(long)]
    pub(super) ping_seconds: Option<u64>,
}

/// Length of the accept queues.
pub(super) const BACKLOG: u32 = 8192;
