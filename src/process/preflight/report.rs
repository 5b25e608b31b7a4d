//! What follows from the facts: how many connections the machine holds, and what stands in the way.
//!
//! Owns the arithmetic. Never touches the machine: everything follows from facts and request.

use std::fmt;
use std::io;

use super::facts::{MachineFacts, Requirements, Ring};
use super::fatal::Fatal;
use crate::base::failure::Failure;
use crate::base::limits::{RING_SLOTS_MAX, SHARDS_MAX};
use crate::engine::ring;

/// [`RING_SLOTS_MAX`], as counts of descriptors are.
pub(super) const RING_SLOTS: u64 = RING_SLOTS_MAX as u64;

/// Kernel memory of one idle connection: socket, inode, file, dentry, direct descriptor, armed
/// poll.
pub const KERNEL_BYTES: u64 = 4_400;

/// User-space memory of one idle connection.
pub const USER_BYTES: u64 = 300;

pub(super) const MIB: u64 = 1 << 20;

/// The process at 0 connections: 64 MiB and 2 MiB a shard.
pub(super) const FIXED_BYTES: u64 = 64 * MIB;

pub(super) const SHARD_BYTES: u64 = 2 * MIB;

/// Idle sockets hold no `tcp_mem` pages. This plans for one connection in four having data in
/// flight at a time.
pub(super) const CONNECTIONS_PER_TCP_PAGE: u64 = 4;

/// Slots wanted for a hundred connections: hashing is uneven, and some slots are reserved for
/// accepts and relays.
pub(super) const SLOTS_PER_HUNDRED: u64 = 112;

/// Connections that a node is laid out for where nothing says otherwise.
pub const NODE_CONNECTIONS: u64 = 1_000_000;

/// Slots of a shard at least, where nothing says otherwise.
pub(super) const SLOTS_MIN: u64 = 1024;

pub(super) const TUNE: &str = "scripts/tune.sh apply";

/// MachineFacts and request together: everything `drumline check` has to say.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was asked for, the number of shards filled in.
    pub request: Requirements,
    /// What the machine said.
    pub facts: MachineFacts,
}

/// How much a [`Finding`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works, but worse than it could.
    Advice,
    /// The box holds fewer connections than wanted.
    Limit,
    /// The server will not start.
    Fatal,
}

/// One thing to know, and the line that cures it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// The cause, one sentence.
    pub cause: String,
    /// The cure, a line to run or a flag to give.
    pub cure: String,
}

/// One thing that bounds the number of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapacityBound {
    /// What bounds it.
    pub name: &'static str,
    /// How many connections it allows.
    pub connections: u64,
    /// How that number comes about.
    pub because: String,
    /// The line that raises it.
    pub cure: String,
}

impl Report {
    /// Whether the engine can run here at all.
    ///
    /// # Errors
    /// The reason why not.
    pub fn verdict(&self) -> Result<(), Fatal> {
        self.ring_verdict().and_then(|()| self.locked_verdict())
    }

    pub(super) fn ring_verdict(&self) -> Result<(), Fatal> {
        let facts = &self.facts;
        ring_verdict(&facts.ring, facts.io_uring_disabled, &facts.release)
    }

    /// Everything that bounds the number of connections, the tightest first.
    pub fn bounds(&self) -> Vec<CapacityBound> {
        let bounds =
            [self.slots(), self.locked_bound(), self.memory(), self.files(), self.tcp_memory()];
        let mut bounds: Vec<CapacityBound> = bounds.into_iter().flatten().collect();
        bounds.sort_by_key(|bound| bound.connections);
        bounds
    }

    /// How many connections this box can hold; `None` if nothing could be read.
    pub fn capacity(&self) -> Option<u64> {
        self.bounds().first().map(|bound| bound.connections)
    }

    /// What is in the way, the gravest first.
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

    /// Slots of each shard: as configured, or as many as a ring may have and the node needs.
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
            because: format!("{shards} shards x {table} slots, the limit counts for each ring"),
            cure: slots_cure(&self.facts, &self.request),
        })
    }

    pub(super) fn memory(&self) -> Option<CapacityBound> {
        let available = self.facts.available?;
        let left = self.facts.cgroup_left.unwrap_or(u64::MAX);
        let (usable, cure) = if left < available {
            (left, "raise the memory limit of the container or unit (MemoryMax=)")
        } else {
            (available, "free memory or add some")
        };
        let need = memory_need(self.request.connections, self.request.shards);
        Some(CapacityBound {
            name: if left < available { "cgroup memory" } else { "memory" },
            connections: memory_connections(usable, self.request.shards),
            because: format!(
                "{} MiB to use at {} bytes each",
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
            because: format!("{max} open files on the whole box, {open} taken"),
            cure: format!("sysctl -w fs.file-max={wanted}"),
        })
    }

    pub(super) fn tcp_memory(&self) -> Option<CapacityBound> {
        let pages = self.facts.tcp_pages?;
        Some(CapacityBound {
            name: "net.ipv4.tcp_mem",
            connections: pages.saturating_mul(CONNECTIONS_PER_TCP_PAGE),
            because: format!("{pages} pages, one for every {CONNECTIONS_PER_TCP_PAGE} connections"),
            cure: TUNE.to_owned(),
        })
    }

    pub(super) fn port_taken(&self) -> Option<Finding> {
        let port = self.request.port;
        let (cause, cure) = match self.facts.port_refused? {
            io::ErrorKind::AddrInUse => (
                format!("port {port} is taken"),
                format!("ss -ltnp 'sport = :{port}' shows by whom"),
            ),
            io::ErrorKind::PermissionDenied => (
                format!("port {port} needs a privilege"),
                format!(
                    "sysctl -w net.ipv4.ip_unprivileged_port_start={port}, or a port from 1024 up"
                ),
            ),
            other => (format!("port {port} cannot be bound ({other})"), "another port".to_owned()),
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
                "net.core.somaxconn is short for a reconnect storm",
                TUNE,
            ),
            (
                facts.syn_backlog.is_some_and(|n| n < 16_384),
                "net.ipv4.tcp_max_syn_backlog is short for a reconnect storm",
                TUNE,
            ),
            (
                facts.slow_start_after_idle.is_some_and(|n| n != 0),
                "net.ipv4.tcp_slow_start_after_idle slows the first push after a pause",
                TUNE,
            ),
            (
                facts.wmem_default.is_some_and(|n| n > 16_384),
                "the default (middle) value of net.ipv4.tcp_wmem lets slow readers pin kernel memory",
                TUNE,
            ),
            (
                facts.local_ports.is_some_and(|(low, high)| (low..=high).contains(&port)),
                "the public port lies in net.ipv4.ip_local_port_range, so an outgoing connection may take it",
                "sysctl -w net.ipv4.ip_local_reserved_ports=PORT",
            ),
            (
                facts.conntrack.is_some_and(|(count, max)| count > 0 && max < tracked),
                "connections are tracked and nf_conntrack_max is small: a full table drops packets silently",
                "nft 'notrack' on the public port, or sysctl -w net.netfilter.nf_conntrack_max=2097152",
            ),
            (
                self.request.shards > facts.cores,
                "there are more shards than cores: fine to hold, not to be fast",
                "a higher RLIMIT_NOFILE lets one shard a core hold as many: ulimit -n 1048576",
            ),
        ];
        let port = port.to_string();
        rows.into_iter()
            .filter(|(applies, ..)| *applies)
            .map(|(_, cause, cure)| finding(Severity::Advice, cause, cure.replace("PORT", &port)))
            .collect()
    }
}

pub(super) fn ring_verdict(ring: &Ring, disabled: Option<u64>, release: &str) -> Result<(), Fatal> {
    match ring {
        Ring::Ready { missing } if missing.is_empty() => Ok(()),
        Ring::Ready { missing } => Err(Fatal::Missing(release.to_owned(), missing.clone())),
        Ring::Refused(errno) => Err(Fatal::of_refusal(*errno, disabled, release)),
    }
}

pub(super) fn finding(
    severity: Severity,
    cause: impl Into<String>,
    cure: impl Into<String>,
) -> Finding {
    Finding { severity, cause: cause.into(), cure: cure.into() }
}

/// Slots of one ring's direct descriptor table, once the soft limit is raised to the hard one.
pub fn ring_slots(nofile: u64) -> u64 {
    nofile.min(RING_SLOTS)
}

/// Shards that carry `wanted_connections` with some slots to spare: one a core, more where the
/// limit on descriptors leaves each ring a small table, never more than [`SHARDS_MAX`].
pub fn recommended_shards(cores: usize, nofile: u64, wanted_connections: u64) -> usize {
    let cores = cores.clamp(1, SHARDS_MAX);
    let slots = u128::from(wanted_connections) * u128::from(SLOTS_PER_HUNDRED);
    let rings = slots.div_ceil(u128::from(ring_slots(nofile).max(1)) * 100);
    usize::try_from(rings).map_or(SHARDS_MAX, |rings| rings.clamp(cores, SHARDS_MAX))
}

/// Connections that fit into so many bytes.
pub(super) fn memory_connections(bytes: u64, shards: usize) -> u64 {
    bytes.saturating_sub(fixed_bytes(shards)) / (KERNEL_BYTES + USER_BYTES)
}

/// Bytes that so many connections take.
pub(super) fn memory_need(connections: u64, shards: usize) -> u64 {
    connections.saturating_mul(KERNEL_BYTES + USER_BYTES).saturating_add(fixed_bytes(shards))
}

pub(super) fn fixed_bytes(shards: usize) -> u64 {
    FIXED_BYTES.saturating_add((shards as u64).saturating_mul(SHARD_BYTES))
}

/// The line that gives the rings more slots: more shards if they suffice and the limit cannot be
/// raised here, else a higher limit, with `fs.nr_open` first where that is in the way.
pub(super) fn slots_cure(facts: &MachineFacts, request: &Requirements) -> String {
    let hard = facts.nofile.map_or(0, |(_, hard)| hard);
    let shards = recommended_shards(facts.cores, hard, request.connections);
    let carries = ring_slots(hard).saturating_mul(shards as u64) >= request.connections;
    if carries && (!facts.may_raise || hard >= RING_SLOTS) {
        return format!("--shards {shards}");
    }
    let each = request.connections.saturating_mul(SLOTS_PER_HUNDRED) / 100;
    if each > RING_SLOTS.saturating_mul(SHARDS_MAX as u64) {
        return format!("a node has at most {SHARDS_MAX} shards: use more nodes");
    }
    let raise = match facts.nr_open {
        Some(open) if open < RING_SLOTS => "sysctl -w fs.nr_open=2097152 && ulimit -n 1048576",
        _ => "ulimit -n 1048576",
    };
    let as_whom = if facts.may_raise { "" } else { " (as root, before the server starts)" };
    let with = recommended_shards(facts.cores, RING_SLOTS, request.connections);
    let then =
        if with > request.shards { format!(", then --shards {with}") } else { String::new() };
    let or = if carries { format!(" (or --shards {shards})") } else { String::new() };
    format!("{raise}{as_whom}{then}{or}")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_facts(f)?;
        let bounds = self.bounds();
        let wanted = self.request.connections;
        if let Some(tightest) = bounds.first() {
            writeln!(f)?;
            for bound in &bounds {
                writeln!(f, "{:>12}  by {} ({})", bound.connections, bound.name, bound.because)?;
            }
            writeln!(
                f,
                "\nThis box holds {} connections; {wanted} are wanted.",
                tightest.connections
            )?;
            writeln!(f, "{} stops it from holding more.", tightest.name)?;
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
    pub(super) fn fmt_facts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = &self.facts;
        let ring = match self.ring_verdict() {
            Ok(()) => format!("permitted, all {} operations are there", ring::operations()),
            Err(_) => "not usable".to_owned(),
        };
        let (soft, hard) = facts.nofile.unzip();
        let (max, open) = facts.files.unzip();
        writeln!(f, "kernel       {}", facts.release)?;
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
            writeln!(f, "memlock      {} bytes, rings count", shown(Some(limit.bytes)))?;
        }
        writeln!(f, "files        {} of {} open on the box", shown(open), shown(max))?;
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
        )
    }
}

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
