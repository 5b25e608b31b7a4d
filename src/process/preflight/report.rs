//! What follows from the facts: how many connections the machine holds, and all findings.
//!
//! Owns the arithmetic and the texts. Never reads the machine.

use std::fmt;
use std::io;

use super::facts::{Kernel, MachineFacts, Requirements, Ring};
use super::fatal::Fatal;
use crate::base::failure::Failure;
use crate::base::limits::{RING_SLOTS_MAX, SHARDS_MAX};
use crate::engine::ring;

/// [`RING_SLOTS_MAX`] as a number of descriptors.
pub(super) const RING_SLOTS: u64 = RING_SLOTS_MAX as u64;

/// Kernel memory per idle connection: socket, inode, file, dentry, direct descriptor, armed poll.
pub const KERNEL_BYTES: u64 = 4_400;

/// User memory per idle connection.
pub const USER_BYTES: u64 = 300;

pub(super) const MIB: u64 = 1 << 20;

/// User memory of the process without connections. Measured as RssAnon: 2.2 MiB with 2 shards, 6.7
/// MiB with 60. The rest is reserve.
pub(super) const FIXED_BYTES: u64 = 16 * MIB;

/// Kernel memory of a shard's ring. With the default 65,536 completions it is 1.1 MiB (`drumline
/// check` computes it from the ring's sizes). The rest is reserve.
pub(super) const SHARD_BYTES: u64 = 2 * MIB;

/// Connections per `tcp_mem` page. Idle sockets use no page; the plan is that one connection in
/// four has data in flight.
pub(super) const CONNECTIONS_PER_TCP_PAGE: u64 = 4;

/// Slots per hundred connections: the kernel spreads connections unevenly over the shards, and some
/// slots are reserved for accepting and moving sockets.
pub(super) const SLOTS_PER_HUNDRED: u64 = 112;

/// Connections that a node is planned for, if no number is given.
pub const NODE_CONNECTIONS: u64 = 1_000_000;

/// Minimum number of slots per shard, if the configuration does not set it.
pub(super) const SLOTS_MIN: u64 = 1024;

pub(super) const TUNE: &str = "scripts/tune.sh apply";

/// Requirements and facts: `drumline check` prints what follows from them.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the server is to do, with the number of shards filled in.
    pub request: Requirements,
    /// Facts of the machine.
    pub facts: MachineFacts,
    /// Shards that the server starts without a configured number, if this report recommends more.
    pub default_shards: Option<usize>,
}

/// Severity of a [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The server works, but slower than possible or with a risk.
    Advice,
    /// The machine holds fewer connections than wanted.
    Limit,
    /// The server cannot start.
    Fatal,
}

/// One problem, and its cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Severity.
    pub severity: Severity,
    /// Cause, one sentence.
    pub cause: String,
    /// Cure: a command or a flag.
    pub cure: String,
}

/// A limit on the number of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapacityBound {
    /// Name of the limited resource.
    pub name: &'static str,
    /// Connections that the limit allows.
    pub connections: u64,
    /// How the number is computed.
    pub because: String,
    /// Command or flag that raises the limit.
    pub cure: String,
}

impl Report {
    /// Checks that the server can run on this machine.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn verdict(&self) -> Result<(), Fatal> {
        self.ring_verdict().and_then(|()| self.locked_verdict())
    }

    pub(super) fn ring_verdict(&self) -> Result<(), Fatal> {
        let facts = &self.facts;
        ring_verdict(&facts.ring, &facts.kernel)
    }

    /// Limits on the number of connections, the lowest first.
    pub fn bounds(&self) -> Vec<CapacityBound> {
        let bounds =
            [self.slots(), self.locked_bound(), self.memory(), self.files(), self.tcp_memory()];
        let mut bounds: Vec<CapacityBound> = bounds.into_iter().flatten().collect();
        bounds.sort_by_key(|bound| bound.connections);
        bounds
    }

    /// Connections that this machine can hold; `None`: no limit could be read.
    pub fn capacity(&self) -> Option<u64> {
        self.bounds().first().map(|bound| bound.connections)
    }

    /// All findings, the gravest first.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Err(fatal) = self.verdict() {
            let Failure { cause, cure } = fatal.failure();
            findings.push(finding(Severity::Fatal, cause, cure));
        }
        findings.extend(self.port_taken());
        for bound in self.bounds() {
            if bound.connections < self.request.connections {
                let cause = format!(
                    "{} allows {} connections: {}",
                    bound.name, bound.connections, bound.because
                );
                findings.push(Finding { severity: Severity::Limit, cause, cure: bound.cure });
            }
        }
        findings.extend(self.advice());
        findings
    }

    /// Slots of each shard: as configured, or as the node needs, and at most the size of a ring's
    /// table.
    pub fn slots_each(&self) -> usize {
        let shards = self.request.shards.clamp(1, SHARDS_MAX);
        let table = self.facts.nofile.map_or(1024, |(_, hard)| ring_slots(hard));
        let wanted = NODE_CONNECTIONS * SLOTS_PER_HUNDRED / 100 / shards as u64;
        let configured = self.request.slots_per_shard as u64;
        let each = if configured > 0 { configured } else { wanted.max(SLOTS_MIN) };
        each.min(table) as usize
    }

    pub(super) fn slots(&self) -> Option<CapacityBound> {
        let (_, hard) = self.facts.nofile?;
        let table = ring_slots(hard);
        let shards = self.request.shards as u64;
        Some(CapacityBound {
            name: "RLIMIT_NOFILE",
            connections: shards.saturating_mul(table),
            because: format!(
                "{shards} shards with {table} slots each; the limit applies to each ring"
            ),
            cure: slots_cure(&self.facts, &self.request),
        })
    }

    pub(super) fn memory(&self) -> Option<CapacityBound> {
        let available = self.facts.available?;
        let left = self.facts.cgroup_left.unwrap_or(u64::MAX);
        let (usable, cure) = if left < available {
            (left, "raise the memory limit of the container or unit (MemoryMax=)")
        } else {
            (available, "free or add memory")
        };
        let need = memory_need(self.request.connections, self.request.shards);
        Some(CapacityBound {
            name: if left < available { "cgroup memory" } else { "memory" },
            connections: memory_connections(usable, self.request.shards),
            because: format!(
                "{} MiB available, {} bytes per connection",
                usable / MIB,
                KERNEL_BYTES + USER_BYTES
            ),
            cure: format!("{cure}: {} MiB are needed", need.div_ceil(MIB)),
        })
    }

    pub(super) fn files(&self) -> Option<CapacityBound> {
        let (max, open) = self.facts.files?;
        let wanted = self.request.connections.saturating_mul(2).max(2_097_152);
        Some(CapacityBound {
            name: "fs.file-max",
            connections: max.saturating_sub(open),
            because: format!("{max} open files on the whole machine, {open} in use"),
            cure: format!("sysctl -w fs.file-max={wanted}"),
        })
    }

    pub(super) fn tcp_memory(&self) -> Option<CapacityBound> {
        let pages = self.facts.tcp_pages?;
        Some(CapacityBound {
            name: "net.ipv4.tcp_mem",
            connections: pages.saturating_mul(CONNECTIONS_PER_TCP_PAGE),
            because: format!("{pages} pages, one per {CONNECTIONS_PER_TCP_PAGE} connections"),
            cure: TUNE.to_owned(),
        })
    }

    pub(super) fn port_taken(&self) -> Option<Finding> {
        let port = self.request.port;
        let (cause, cure) = match self.facts.port_refused? {
            io::ErrorKind::AddrInUse => (
                format!("cannot bind port {port}: address in use"),
                format!(
                    "find the process with `ss -ltnp 'sport = :{port}'`, or choose another port \
                     with --http_server.port"
                ),
            ),
            io::ErrorKind::PermissionDenied => (
                format!("cannot bind port {port}: permission denied"),
                format!(
                    "sysctl -w net.ipv4.ip_unprivileged_port_start={port}, or choose a port from \
                     1024 with --http_server.port"
                ),
            ),
            other => (
                format!("cannot bind port {port}: {other}"),
                "choose another port with --http_server.port".to_owned(),
            ),
        };
        Some(finding(Severity::Fatal, cause, cure))
    }

    pub(super) fn advice(&self) -> Vec<Finding> {
        let facts = &self.facts;
        let port = u64::from(self.request.port);
        let tracked = self.request.connections.saturating_mul(2);
        let rows = [
            (
                facts.somaxconn.is_some_and(|n| n < 32_768),
                "net.core.somaxconn is below 32768: a reconnect storm can overflow the accept queue",
                TUNE,
            ),
            (
                facts.syn_backlog.is_some_and(|n| n < 16_384),
                "net.ipv4.tcp_max_syn_backlog is below 16384: a reconnect storm can overflow it",
                TUNE,
            ),
            (
                facts.slow_start_after_idle.is_some_and(|n| n != 0),
                "net.ipv4.tcp_slow_start_after_idle is on: it slows the first message after a pause",
                TUNE,
            ),
            (
                facts.wmem_default.is_some_and(|n| n > 16_384),
                "the default (middle) value of net.ipv4.tcp_wmem is above 16384: slow readers can hold much kernel memory",
                TUNE,
            ),
            (
                facts.local_ports.is_some_and(|(low, high)| (low..=high).contains(&port)),
                "the public port is in net.ipv4.ip_local_port_range: an outgoing connection can occupy it",
                "sysctl -w net.ipv4.ip_local_reserved_ports=PORT",
            ),
            (
                facts.conntrack.is_some_and(|(count, max)| count > 0 && max < tracked),
                "connections are tracked and nf_conntrack_max is low: a full table drops packets",
                "add an nft rule 'notrack' for the public port, or sysctl -w net.netfilter.nf_conntrack_max=2097152",
            ),
            (
                facts.tcp_buckets.is_some_and(|n| n < self.request.connections / 2),
                "the kernel's table of TCP connections has fewer buckets than half the connections: look-ups cost processor time (17% of the server's at a million)",
                "boot with thash_entries=1048576 on the kernel's command line, or start the server in a network namespace made with net.ipv4.tcp_child_ehash_entries",
            ),
            (
                self.request.shards > facts.cores,
                "there are more shards than cores: they hold more connections, but are not faster",
                "raise RLIMIT_NOFILE, so that one shard per core holds as many: ulimit -n 1048576",
            ),
        ];
        let port = port.to_string();
        rows.into_iter()
            .filter(|(applies, ..)| *applies)
            .map(|(_, cause, cure)| finding(Severity::Advice, cause, cure.replace("PORT", &port)))
            .chain(self.queues())
            .collect()
    }

    /// Network cards with fewer receive queues than cores.
    fn queues(&self) -> impl Iterator<Item = Finding> {
        let cores = self.facts.cores;
        let few = self.facts.cards.iter().filter(move |(_, queues)| *queues < cores);
        few.map(move |(name, queues)| {
            finding(
                Severity::Advice,
                format!(
                    "{name} has {queues} receive queues for {cores} cores: the other cores take none of \
                     its packets"
                ),
                format!("ethtool -L {name} combined {cores}, if the card has that many"),
            )
        })
    }
}

pub(super) fn ring_verdict(ring: &Ring, kernel: &Kernel) -> Result<(), Fatal> {
    match ring {
        Ring::Ready { missing } if missing.is_empty() => Ok(()),
        Ring::Ready { missing } => Err(Fatal::Missing(kernel.release.clone(), missing.clone())),
        Ring::Refused(refusal) => Err(Fatal::of_refusal(*refusal, kernel)),
    }
}

pub(super) fn finding(
    severity: Severity,
    cause: impl Into<String>,
    cure: impl Into<String>,
) -> Finding {
    Finding { severity, cause: cause.into(), cure: cure.into() }
}

/// Slots of a ring's table of direct descriptors, with the soft limit raised to the hard limit.
pub fn ring_slots(nofile: u64) -> u64 {
    nofile.min(RING_SLOTS)
}

/// Shards that hold `wanted_connections` with some spare slots: one per core, or more if the limit
/// on descriptors makes the tables of the rings small, and at most [`SHARDS_MAX`].
pub fn recommended_shards(cores: usize, nofile: u64, wanted_connections: u64) -> usize {
    let cores = cores.clamp(1, SHARDS_MAX);
    let slots = u128::from(wanted_connections) * u128::from(SLOTS_PER_HUNDRED);
    let rings = slots.div_ceil(u128::from(ring_slots(nofile).max(1)) * 100);
    usize::try_from(rings).map_or(SHARDS_MAX, |rings| rings.clamp(cores, SHARDS_MAX))
}

/// Connections that fit into `bytes` of memory.
pub(super) fn memory_connections(bytes: u64, shards: usize) -> u64 {
    bytes.saturating_sub(fixed_bytes(shards)) / (KERNEL_BYTES + USER_BYTES)
}

/// Memory that the connections need, in bytes.
pub(super) fn memory_need(connections: u64, shards: usize) -> u64 {
    connections.saturating_mul(KERNEL_BYTES + USER_BYTES).saturating_add(fixed_bytes(shards))
}

pub(super) fn fixed_bytes(shards: usize) -> u64 {
    FIXED_BYTES.saturating_add((shards as u64).saturating_mul(SHARD_BYTES))
}

/// Command or flag that gives the rings more slots: more shards if they suffice and this process
/// cannot raise the limit, otherwise a higher limit, after `fs.nr_open` if that is too low.
pub(super) fn slots_cure(facts: &MachineFacts, request: &Requirements) -> String {
    let hard = facts.nofile.map_or(0, |(_, hard)| hard);
    let shards = recommended_shards(facts.cores, hard, request.connections);
    let carries = ring_slots(hard).saturating_mul(shards as u64) >= request.connections;
    if carries && (!facts.may_raise || hard >= RING_SLOTS) {
        return format!("--shards {shards}");
    }
    let each = request.connections.saturating_mul(SLOTS_PER_HUNDRED) / 100;
    if each > RING_SLOTS.saturating_mul(SHARDS_MAX as u64) {
        return format!("a node has at most {SHARDS_MAX} shards; use more nodes");
    }
    let raise = match facts.nr_open {
        Some(open) if open < RING_SLOTS => "sysctl -w fs.nr_open=2097152 && ulimit -n 1048576",
        _ => "ulimit -n 1048576",
    };
    let as_root = if facts.may_raise { "" } else { " (as root, before the server starts)" };
    let with = recommended_shards(facts.cores, RING_SLOTS, request.connections);
    let then =
        if with > request.shards { format!(", then --shards {with}") } else { String::new() };
    let or = if carries { format!(" (or --shards {shards})") } else { String::new() };
    format!("{raise}{as_root}{then}{or}")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_facts(f)?;
        let bounds = self.bounds();
        let wanted = self.request.connections;
        if let Some(tightest) = bounds.first() {
            writeln!(f)?;
            for bound in &bounds {
                writeln!(
                    f,
                    "{:>12}  limit of {} ({})",
                    bound.connections, bound.name, bound.because
                )?;
            }
            writeln!(
                f,
                "\nThis machine can hold {} connections; {wanted} are wanted.",
                tightest.connections
            )?;
            writeln!(f, "The limit is {}.", tightest.name)?;
            self.fmt_default(f, tightest.connections)?;
        }
        for finding in self.findings() {
            writeln!(f, "\n{}: {}", finding.severity, finding.cause)?;
            if !finding.cure.is_empty() {
                writeln!(f, "  cure: {}", finding.cure)?;
            }
        }
        Ok(())
    }
}

impl Report {
    /// What the server holds as it starts by default, and the flag that makes it hold more.
    fn fmt_default(&self, f: &mut fmt::Formatter<'_>, capacity: u64) -> fmt::Result {
        let Some(shards) = self.default_shards else { return Ok(()) };
        let request = Requirements { shards, ..self.request.clone() };
        let by_default = Report { request, default_shards: None, facts: self.facts.clone() };
        let holds = by_default.capacity().unwrap_or(capacity);
        if holds >= capacity {
            return Ok(());
        }
        writeln!(
            f,
            "The server starts with {shards} shards, one per core, which hold {holds}. To hold {capacity}, \
             start it with --shards {}.",
            self.request.shards
        )
    }

    pub(super) fn fmt_facts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = &self.facts;
        let ring = match self.ring_verdict() {
            Ok(()) => format!("permitted, all {} operations are supported", ring::operations()),
            Err(_) => "not usable".to_owned(),
        };
        let (soft, hard) = facts.nofile.unzip();
        let (max, open) = facts.files.unzip();
        writeln!(f, "kernel       {}", facts.kernel.release)?;
        writeln!(f, "io_uring     {ring}")?;
        writeln!(f, "cores        {}, shards {}", facts.cores, self.request.shards)?;
        writeln!(
            f,
            "descriptors  soft {}, hard {}, fs.nr_open {}",
            shown(soft),
            shown(hard),
            shown(facts.nr_open)
        )?;
        if let Some(limit) = facts.memlock.filter(|limit| limit.counts) {
            writeln!(f, "memlock      {} bytes, including rings", shown(Some(limit.bytes)))?;
        }
        writeln!(f, "files        {} of {} open on the machine", shown(open), shown(max))?;
        let mib = |bytes: Option<u64>| bytes.map(|bytes| bytes / MIB);
        write!(f, "memory       {} MiB available", shown(mib(facts.available)))?;
        match mib(facts.cgroup_left) {
            Some(left) => writeln!(f, ", {left} MiB left in the cgroup"),
            None => writeln!(f, ", no cgroup limit"),
        }?;
        writeln!(
            f,
            "tcp          tcp_mem {} pages, somaxconn {}, syn backlog {}, tcp_wmem default {}",
            shown(facts.tcp_pages),
            shown(facts.somaxconn),
            shown(facts.syn_backlog),
            shown(facts.wmem_default)
        )?;
        writeln!(f, "tcp table    {} buckets", shown(facts.tcp_buckets))?;
        for (name, queues) in &facts.cards {
            writeln!(f, "card         {name} with {queues} receive queues")?;
        }
        Ok(())
    }
}

/// A number of the machine as text.
pub(super) fn shown(value: Option<u64>) -> String {
    match value {
        Some(u64::MAX) => "unlimited".to_owned(),
        Some(value) => value.to_string(),
        None => "unknown".to_owned(),
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fatal => "fatal",
            Self::Limit => "limit",
            Self::Advice => "advice",
        })
    }
}
