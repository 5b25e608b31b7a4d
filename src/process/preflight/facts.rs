//! What was read from the machine, and what the server is going to be asked to do.
//!
//! Owns the types. Never reads the machine.

use std::io;

use crate::engine::node::RingSettings;

/// What the server is going to be asked to do.
#[derive(Clone, Debug)]
pub struct Requirements {
    /// Shards to run; 0 leaves it to [`super::recommended_shards`].
    pub shards: usize,
    /// Public port.
    pub port: u16,
    /// Connections that the box is meant to hold.
    pub connections: u64,
    /// Connections that one shard holds; 0: as many as limits and need allow.
    pub slots_per_shard: usize,
    /// Sizes of every ring.
    pub rings: RingSettings,
}

/// Whether an io_uring ring as the shards use it could be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ring {
    /// It works; these of the needed operations are missing (none: all is well).
    Ready {
        /// Names of needed operations that the kernel does not know.
        missing: Vec<&'static str>,
    },
    /// The kernel refused it with this error number.
    Refused(i32),
}

/// What was read from the machine. `None` means: not there or not readable, so nothing is concluded
/// from it.
#[derive(Clone, Debug)]
pub struct MachineFacts {
    /// Kernel release, such as `6.12.4-arch1`.
    pub release: String,
    /// Result of the trial ring.
    pub ring: Ring,
    /// `kernel.io_uring_disabled`.
    pub io_uring_disabled: Option<u64>,
    /// Soft and hard RLIMIT_NOFILE.
    pub nofile: Option<(u64, u64)>,
    /// RLIMIT_MEMLOCK.
    pub memlock: Option<Memlock>,
    /// Whether this process may raise its hard limits.
    pub may_raise: bool,
    /// `fs.nr_open`.
    pub nr_open: Option<u64>,
    /// `fs.file-max`, and how many files are open now.
    pub files: Option<(u64, u64)>,
    /// CPUs this process may use.
    pub cores: usize,
    /// `MemAvailable` in bytes.
    pub available: Option<u64>,
    /// Bytes left below the tightest cgroup memory limit; `None` without a limit.
    pub cgroup_left: Option<u64>,
    /// `net.ipv4.tcp_mem`, the last value, in pages.
    pub tcp_pages: Option<u64>,
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub syn_backlog: Option<u64>,
    /// `net.ipv4.tcp_slow_start_after_idle`.
    pub slow_start_after_idle: Option<u64>,
    /// `net.ipv4.tcp_wmem`, the default (middle) value.
    pub wmem_default: Option<u64>,
    /// `net.ipv4.ip_local_port_range`.
    pub local_ports: Option<(u64, u64)>,
    /// Tracked connections and `nf_conntrack_max`.
    pub conntrack: Option<(u64, u64)>,
    /// Why the port cannot be bound, if it cannot.
    pub port_refused: Option<io::ErrorKind>,
}

/// The limit as this process meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memlock {
    /// Bytes that the hard limit allows; the soft one is raised to it.
    pub bytes: u64,
    /// Whether rings count against it.
    pub counts: bool,
}
