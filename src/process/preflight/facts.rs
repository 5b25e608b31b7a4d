//! Facts of the machine, and requirements of the server.
//!
//! Owns the types. Never reads the machine.

use std::io;

use crate::engine::node::RingSettings;
use crate::engine::ring::Refusal;

/// What the server is to do.
#[derive(Clone, Debug)]
pub struct Requirements {
    /// Number of shards; 0: [`super::recommended_shards`].
    pub shards: usize,
    /// Public port.
    pub port: u16,
    /// Connections that the machine is to hold.
    pub connections: u64,
    /// Slots per shard; 0: as many as the node needs and the limits allow.
    pub slots_per_shard: usize,
    /// Sizes of every ring.
    pub rings: RingSettings,
}

/// Result of setting up a ring as the shards use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ring {
    /// The ring works, apart from missing operations.
    Ready {
        /// Names of needed operations that the kernel does not support.
        missing: Vec<&'static str>,
    },
    /// The kernel, or a filter before it, refused a system call.
    Refused(Refusal),
}

/// The kernel, as far as io_uring depends on it.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Release, such as `6.12.4-arch1`.
    pub release: String,
    /// `kernel.io_uring_disabled`; `None`: the kernel is older than 6.6, or lacks io_uring.
    pub io_uring_disabled: Option<u64>,
    /// Whether this process runs under a seccomp filter.
    pub is_filtered: bool,
}

/// Facts of the machine. `None`: the value does not exist or cannot be read, so nothing follows
/// from it.
#[derive(Clone, Debug)]
pub struct MachineFacts {
    /// The kernel, and what stands before io_uring.
    pub kernel: Kernel,
    /// Result of the trial ring.
    pub ring: Ring,
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
    /// Processors that this process may use.
    pub cores: usize,
    /// `MemAvailable` in bytes.
    pub available: Option<u64>,
    /// Bytes left below the lowest cgroup memory limit; `None`: no limit.
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
    /// Number of tracked connections, and `nf_conntrack_max`.
    pub conntrack: Option<(u64, u64)>,
    /// Buckets of the kernel's table of TCP connections (`net.ipv4.tcp_ehash_entries`).
    pub tcp_buckets: Option<u64>,
    /// Names of the network cards, and how many receive queues each has.
    pub cards: Vec<(String, usize)>,
    /// Why the port cannot be bound; `None`: it can.
    pub port_refused: Option<io::ErrorKind>,
}

/// RLIMIT_MEMLOCK of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memlock {
    /// Hard limit in bytes. The server raises the soft limit to it.
    pub bytes: u64,
    /// Whether the memory of rings counts against the limit.
    pub counts: bool,
}
