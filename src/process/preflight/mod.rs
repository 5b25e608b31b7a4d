//! What this box permits and how many connections it can hold: the logic behind `drumline check`.
//!
//! Owns: reading the facts (kernel, io_uring, limits, memory, sysctls), the arithmetic on them, and
//! the sentence that names what stands in the way together with the line that cures it. Never
//! changes a setting (`scripts/tune.sh` does), never keeps a ring or a socket open past [`survey`].
//! Invariant: [`survey`] alone touches the machine; everything a [`Report`] says follows from its
//! [`Facts`] and [`Request`], so it can be tested with made-up ones.

mod fatal;
mod memlock;

use std::fmt;
use std::fs;
use std::io;

use crate::base::failure::Failure;
use crate::base::limits::{RING_SLOTS_MAX, SHARDS_MAX};
use crate::base::sys;
use crate::engine::node::RingSizes;
use crate::engine::ring;

pub use self::fatal::Fatal;
pub use self::memlock::Memlock;

/// [`RING_SLOTS_MAX`], as counts of descriptors are.
const RING_SLOTS: u64 = RING_SLOTS_MAX as u64;
/// Kernel memory of one idle connection: socket, inode, file, dentry, direct descriptor, armed
/// poll.
pub const KERNEL_BYTES: u64 = 4_400;
/// User-space memory of one idle connection.
pub const USER_BYTES: u64 = 300;

const MIB: u64 = 1 << 20;
/// The process at 0 connections: 64 MiB and 2 MiB a shard.
const FIXED_BYTES: u64 = 64 * MIB;
const SHARD_BYTES: u64 = 2 * MIB;
/// Idle sockets hold no `tcp_mem` pages. This plans for one connection in four having data in
/// flight at a time.
const CONNECTIONS_PER_TCP_PAGE: u64 = 4;
/// Slots wanted for a hundred connections: hashing is uneven, and some slots are reserved for
/// accepts and relays.
const SLOTS_PER_HUNDRED: u64 = 112;
/// Connections that a node is laid out for where nothing says otherwise.
pub const NODE_CONNECTIONS: u64 = 1_000_000;
/// Slots of a shard at least, where nothing says otherwise.
const SLOTS_MIN: u64 = 1024;
/// CAP_SYS_RESOURCE, which may raise a hard limit.
const CAP_SYS_RESOURCE: u32 = 24;
const TUNE: &str = "scripts/tune.sh apply";

/// What the server is going to be asked to do.
#[derive(Clone, Debug)]
pub struct Request {
    /// Shards to run; 0 leaves it to [`recommended_shards`].
    pub shards: usize,
    /// Public port.
    pub port: u16,
    /// Connections that the box is meant to hold.
    pub connections: u64,
    /// Connections that one shard holds; 0: as many as limits and need allow.
    pub slots_per_shard: usize,
    /// Sizes of every ring.
    pub rings: RingSizes,
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
pub struct Facts {
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

/// Facts and request together: everything `drumline check` has to say.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was asked for, the number of shards filled in.
    pub request: Request,
    /// What the machine said.
    pub facts: Facts,
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
pub struct Bound {
    /// What bounds it.
    pub name: &'static str,
    /// How many connections it allows.
    pub connections: u64,
    /// How that number comes about.
    pub because: String,
    /// The line that raises it.
    pub cure: String,
}

// --- what follows from the facts -----------------------------------------------------------------

impl Report {
    /// Whether the engine can run here at all.
    ///
    /// # Errors
    /// The reason why not.
    pub fn verdict(&self) -> Result<(), Fatal> {
        self.ring_verdict().and_then(|()| self.locked_verdict())
    }

    fn ring_verdict(&self) -> Result<(), Fatal> {
        let facts = &self.facts;
        ring_verdict(&facts.ring, facts.io_uring_disabled, &facts.release)
    }

    /// Everything that bounds the number of connections, the tightest first.
    pub fn bounds(&self) -> Vec<Bound> {
        let bounds =
            [self.slots(), self.locked_bound(), self.memory(), self.files(), self.tcp_memory()];
        let mut bounds: Vec<Bound> = bounds.into_iter().flatten().collect();
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

    fn slots(&self) -> Option<Bound> {
        let (_, hard) = self.facts.nofile?;
        let table = ring_slots(hard);
        let shards = self.request.shards as u64;
        Some(Bound {
            name: "RLIMIT_NOFILE",
            connections: shards.saturating_mul(table),
            because: format!("{shards} shards x {table} slots, the limit counts for each ring"),
            cure: slots_cure(&self.facts, &self.request),
        })
    }

    fn memory(&self) -> Option<Bound> {
        let available = self.facts.available?;
        let left = self.facts.cgroup_left.unwrap_or(u64::MAX);
        let (usable, cure) = if left < available {
            (left, "raise the memory limit of the container or unit (MemoryMax=)")
        } else {
            (available, "free memory or add some")
        };
        let need = memory_need(self.request.connections, self.request.shards);
        Some(Bound {
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

    fn files(&self) -> Option<Bound> {
        let (max, open) = self.facts.files?;
        let wanted = self.request.connections.saturating_mul(2).max(2_097_152);
        Some(Bound {
            name: "fs.file-max",
            connections: max.saturating_sub(open),
            because: format!("{max} open files on the whole box, {open} taken"),
            cure: format!("sysctl -w fs.file-max={wanted}"),
        })
    }

    fn tcp_memory(&self) -> Option<Bound> {
        let pages = self.facts.tcp_pages?;
        Some(Bound {
            name: "net.ipv4.tcp_mem",
            connections: pages.saturating_mul(CONNECTIONS_PER_TCP_PAGE),
            because: format!("{pages} pages, one for every {CONNECTIONS_PER_TCP_PAGE} connections"),
            cure: TUNE.to_owned(),
        })
    }

    fn port_taken(&self) -> Option<Finding> {
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

    fn advice(&self) -> Vec<Finding> {
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

fn ring_verdict(ring: &Ring, disabled: Option<u64>, release: &str) -> Result<(), Fatal> {
    match ring {
        Ring::Ready { missing } if missing.is_empty() => Ok(()),
        Ring::Ready { missing } => Err(Fatal::Missing(release.to_owned(), missing.clone())),
        Ring::Refused(errno) => Err(Fatal::of_refusal(*errno, disabled, release)),
    }
}

fn finding(severity: Severity, cause: impl Into<String>, cure: impl Into<String>) -> Finding {
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
fn memory_connections(bytes: u64, shards: usize) -> u64 {
    bytes.saturating_sub(fixed_bytes(shards)) / (KERNEL_BYTES + USER_BYTES)
}

/// Bytes that so many connections take.
fn memory_need(connections: u64, shards: usize) -> u64 {
    connections.saturating_mul(KERNEL_BYTES + USER_BYTES).saturating_add(fixed_bytes(shards))
}

fn fixed_bytes(shards: usize) -> u64 {
    FIXED_BYTES.saturating_add((shards as u64).saturating_mul(SHARD_BYTES))
}

/// The line that gives the rings more slots: more shards if they suffice and the limit cannot be
/// raised here, else a higher limit, with `fs.nr_open` first where that is in the way.
fn slots_cure(facts: &Facts, request: &Request) -> String {
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

// --- what it looks like --------------------------------------------------------------------------

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
    fn fmt_facts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

fn shown(value: Option<u64>) -> String {
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

// --- parsing -------------------------------------------------------------------------------------

/// Soft and hard value of a line of `/proc/self/limits`, such as "Max open files"; `unlimited` is
/// `u64::MAX`.
fn parse_limits(text: &str, name: &str) -> Option<(u64, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let mut words = line.split_whitespace().map(|word| match word {
        "unlimited" => Some(u64::MAX),
        word => word.parse().ok(),
    });
    Some((words.next()??, words.next()??))
}

/// `MemAvailable` of `/proc/meminfo` in bytes.
fn parse_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Whether the effective capabilities in `/proc/self/status` include raising hard limits.
fn parse_may_raise(text: &str) -> bool {
    let mask = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> CAP_SYS_RESOURCE & 1 == 1)
}

/// The number at one place of a line of numbers, as sysctls print them.
fn number_at(text: &str, place: usize) -> Option<u64> {
    text.split_whitespace().nth(place)?.parse().ok()
}

/// A memory limit as cgroups print it; none when it is `max` or version 1's "no limit" of nearly
/// 2^63.
fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit < 1 << 60)
}

/// Page cache that a cgroup can give back, from its `memory.stat` (version 1 says
/// `total_inactive_file`).
fn parse_inactive_file(text: &str) -> u64 {
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    };
    value("total_inactive_file").or_else(|| value("inactive_file")).unwrap_or(0)
}

/// The folders whose limit binds the process, from `/proc/self/cgroup`: its own and every one above
/// it, with the names of the limit and usage files (version 2, then version 1).
fn cgroup_folders(text: &str) -> Vec<(String, &'static str, &'static str)> {
    let mut folders = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, limit, usage) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max", "memory.current")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            continue;
        };
        let mut path = path.trim_end_matches('/');
        loop {
            folders.push((format!("{root}{path}"), limit, usage));
            let Some(cut) = path.rfind('/') else { break };
            path = &path[..cut];
        }
    }
    folders
}

// --- reading the machine -------------------------------------------------------------------------

/// Collect the facts. Sets a small ring up and binds the port for a moment; both are gone on
/// return.
pub fn survey(request: &Request) -> Report {
    let facts = read_facts(request.port);
    let mut report = Report { request: request.clone(), facts };
    if report.request.shards == 0 {
        let facts = &report.facts;
        let hard = facts.nofile.map_or(RING_SLOTS, |(_, hard)| hard);
        report.request.shards = recommended_shards(facts.cores, hard, request.connections);
        // A server without a number of shards runs one per core: fewer are no choice.
        let fit = report.locked_shards().unwrap_or(SHARDS_MAX).max(report.facts.cores);
        report.request.shards = report.request.shards.min(fit);
    }
    report
}

fn read_facts(port: u16) -> Facts {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let one = |name| sysctl(name, 0);
    Facts {
        release: fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        ring: try_ring(),
        io_uring_disabled: one("kernel/io_uring_disabled"),
        nofile: fs::read_to_string("/proc/self/limits")
            .ok()
            .and_then(|text| parse_limits(&text, "Max open files")),
        memlock: memlock::read(|| matches!(try_ring(), Ring::Ready { .. })),
        may_raise: parse_may_raise(&status),
        nr_open: one("fs/nr_open"),
        files: one("fs/file-max").zip(one("fs/file-nr")),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        available: fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse_available(&text)),
        cgroup_left: cgroup_left(),
        tcp_pages: sysctl("net/ipv4/tcp_mem", 2),
        somaxconn: one("net/core/somaxconn"),
        syn_backlog: one("net/ipv4/tcp_max_syn_backlog"),
        slow_start_after_idle: one("net/ipv4/tcp_slow_start_after_idle"),
        wmem_default: sysctl("net/ipv4/tcp_wmem", 1),
        local_ports: one("net/ipv4/ip_local_port_range")
            .zip(sysctl("net/ipv4/ip_local_port_range", 1)),
        conntrack: one("net/netfilter/nf_conntrack_count")
            .zip(one("net/netfilter/nf_conntrack_max")),
        port_refused: sys::try_bind(([0, 0, 0, 0], port).into()).err().map(|error| error.kind()),
    }
}

/// Whether this process may set up rings as the shards do.
///
/// # Errors
/// The reason why not.
pub fn permitted() -> Result<(), Fatal> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    ring_verdict(&try_ring(), sysctl("kernel/io_uring_disabled", 0), release.trim())
}

fn sysctl(name: &str, place: usize) -> Option<u64> {
    number_at(&fs::read_to_string(format!("/proc/sys/{name}")).ok()?, place)
}

fn try_ring() -> Ring {
    match ring::try_out() {
        Ok(missing) => Ring::Ready { missing },
        Err(error) => Ring::Refused(error.raw_os_error().unwrap_or(0)),
    }
}

/// What is left below the tightest memory limit above this process, page cache that can go not
/// counted.
fn cgroup_left() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let left = cgroup_folders(&text).into_iter().filter_map(|(folder, limit, usage)| {
        let read = |name: &str| fs::read_to_string(format!("{folder}/{name}")).ok();
        let limit = parse_limit(&read(limit)?)?;
        let used = number_at(&read(usage)?, 0)?;
        let cache = parse_inactive_file(&read("memory.stat").unwrap_or_default());
        Some(limit.saturating_sub(used.saturating_sub(cache)))
    });
    left.min()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{self, Sources};

    const GIB: u64 = 1 << 30;

    fn facts() -> Facts {
        Facts {
            release: "6.12.4".to_owned(),
            ring: Ring::Ready { missing: Vec::new() },
            io_uring_disabled: Some(0),
            nofile: Some((1024, 1 << 20)),
            memlock: None,
            may_raise: false,
            nr_open: Some(2_097_152),
            files: Some((2_400_000, 1_000)),
            cores: 8,
            available: Some(16 * GIB),
            cgroup_left: None,
            tcp_pages: Some(1_500_000),
            somaxconn: Some(32_768),
            syn_backlog: Some(16_384),
            slow_start_after_idle: Some(0),
            wmem_default: Some(16_384),
            local_ports: Some((10_240, 65_535)),
            conntrack: None,
            port_refused: None,
        }
    }

    fn request(shards: usize) -> Request {
        let rings = RingSizes { submissions: 1024, completions: 65_536, buffers: 128 };
        let connections = 1_000_000;
        Request { shards, port: 8000, connections, slots_per_shard: 0, rings }
    }

    fn report(change: impl FnOnce(&mut Facts, &mut Request)) -> Report {
        let mut report = Report { request: request(8), facts: facts() };
        change(&mut report.facts, &mut report.request);
        report
    }

    #[test]
    fn a_tuned_box_has_no_findings() {
        let report = report(|_, _| {});
        assert_eq!(report.findings(), []);
        assert_eq!(report.verdict(), Ok(()));
        assert!(report.capacity() >= Some(1_000_000));
        assert!(report.to_string().contains("1000000 are wanted"));
    }

    #[test]
    fn shards_follow_cores_until_descriptors_run_short() {
        let table = [
            (2, 20_000, 1_000_000, 56),
            (8, 1 << 20, 1_000_000, 8),
            (1, 1 << 20, 1_000_000, 2),
            (1, 1 << 20, 100_000, 1),
            (1, u64::MAX, 2_000_000, 3),
            (128, 1 << 20, 1_000_000, SHARDS_MAX),
            (4, 1024, 1_000_000, SHARDS_MAX),
            (0, 0, 1, 2),
            (0, 0, 100, SHARDS_MAX),
            (4, 0, 0, 4),
            (4, 1024, u64::MAX, SHARDS_MAX),
        ];
        for (cores, nofile, wanted, shards) in table {
            assert_eq!(
                recommended_shards(cores, nofile, wanted),
                shards,
                "{cores} cores, {nofile}, {wanted}"
            );
        }
    }

    /// Every number that a text gives for `--shards`.
    fn advised_shards(text: &str) -> Vec<String> {
        let numbers = text.split("--shards ").skip(1);
        numbers.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect()).collect()
    }

    #[test]
    fn the_configuration_accepts_every_advised_number_of_shards() {
        let accepts = |shards: String| {
            let flags = vec![("shards".to_owned(), shards)];
            let sources = Sources { file: None, environment: Vec::new(), flags };
            config::load(&sources).map(|loaded| loaded.config.shards)
        };
        let mut advised = BTreeSet::new();
        for cores in [0, 1, 2, 8, 62, 63, 64, 65, 128, 1024] {
            for nofile in [0, 1, 1024, 17_777, 20_000, 1 << 20, u64::MAX] {
                for connections in [0, 1, 100, 1_000_000, 63 << 20, 64 << 20, u64::MAX] {
                    let shards = recommended_shards(cores, nofile, connections);
                    advised.insert(shards.to_string());
                    for (running, may_raise, limit) in [(1, true, None), (shards, false, Some(8))] {
                        let report = report(|facts, request| {
                            (facts.cores, facts.may_raise) = (cores, may_raise);
                            facts.nofile = Some((1024, nofile));
                            facts.memlock =
                                limit.map(|mib| Memlock { bytes: mib * MIB, counts: true });
                            (request.shards, request.connections) = (running, connections);
                        });
                        advised.extend(advised_shards(&report.to_string()));
                    }
                }
            }
        }
        assert!(advised.contains(&SHARDS_MAX.to_string()), "{advised:?}");
        for shards in advised {
            assert_eq!(accepts(shards.clone()).map(|shards| shards.to_string()), Ok(shards));
        }
        assert!(accepts((SHARDS_MAX + 1).to_string()).is_err());
    }

    #[test]
    fn memory_is_counted_with_its_fixed_part() {
        let fixed = 80 * MIB;
        for (bytes, connections) in [
            (0, 0),
            (fixed, 0),
            (fixed + 4_699, 0),
            (fixed + 4_700, 1),
            (fixed + 4_700_000_000, 1_000_000),
        ] {
            assert_eq!(memory_connections(bytes, 8), connections, "{bytes} bytes");
        }
        assert_eq!(memory_need(1_000_000, 8), fixed + 4_700_000_000);
    }

    #[test]
    fn the_tightest_bound_is_named_with_its_cure() {
        type Change = fn(&mut Facts);
        let table: [(Change, &str, u64, &str); 7] = [
            (|f| f.nofile = Some((1024, 20_000)), "RLIMIT_NOFILE", 160_000, "--shards 56"),
            (
                |f| (f.nofile, f.may_raise) = (Some((1024, 20_000)), true),
                "RLIMIT_NOFILE",
                160_000,
                "ulimit -n 1048576 (or --shards 56)",
            ),
            (
                |f| (f.nofile, f.nr_open) = (Some((1024, 4_096)), Some(65_536)),
                "RLIMIT_NOFILE",
                32_768,
                "sysctl -w fs.nr_open=2097152 && ulimit -n 1048576 (as root, before the server starts)",
            ),
            (
                |f| f.available = Some(80 * MIB + 47_000_000),
                "memory",
                10_000,
                "free memory or add some: 4563 MiB are needed",
            ),
            (
                |f| f.cgroup_left = Some(80 * MIB + 4_700),
                "cgroup memory",
                1,
                "raise the memory limit of the container or unit (MemoryMax=): 4563 MiB are needed",
            ),
            (
                |f| f.files = Some((100_000, 1_000)),
                "fs.file-max",
                99_000,
                "sysctl -w fs.file-max=2097152",
            ),
            (|f| f.tcp_pages = Some(98_152), "net.ipv4.tcp_mem", 392_608, TUNE),
        ];
        for (change, name, connections, cure) in table {
            let report = report(|facts, _| change(facts));
            let tightest = report.bounds().remove(0);
            assert_eq!(
                (tightest.name, tightest.connections, tightest.cure.as_str()),
                (name, connections, cure)
            );
            assert_eq!(report.capacity(), Some(connections));
            assert_eq!(report.findings().len(), 1, "{name}");
            let text = report.to_string();
            assert!(text.contains(&format!("{name} stops it from holding more.")), "{text}");
            assert!(text.contains(&format!("cure: {cure}\n")), "{text}");
        }
    }

    #[test]
    fn shards_whose_rings_do_not_fit_memlock_do_not_start() {
        let limited = |bytes, counts, shards| {
            report(|facts, request| {
                facts.memlock = Some(Memlock { bytes, counts });
                facts.nofile = Some((1024, 20_000));
                request.shards = shards;
            })
        };
        // A ring of 20,000 slots: 32,768 completions of 16 bytes, 1,024 submissions, 128 buffers.
        let usual = limited(8 << 20, true, 16);
        let refused = usual.verdict().unwrap_err();
        let fatal = Fatal::Memlock { limit: 8192, each: 588, fits: 13, shards: 16, need: 9472 };
        assert_eq!(refused, fatal);
        let text = refused.to_string();
        for part in ["ulimit -l 9472", "LimitMEMLOCK=9472K", "or --shards 13", "16 shards"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(usual.findings()[0].severity, Severity::Fatal);
        let tightest = usual.bounds().remove(0);
        assert_eq!((tightest.name, tightest.connections), ("RLIMIT_MEMLOCK", 260_000));
        assert!(usual.to_string().contains("memlock      8388608 bytes, rings count"));
        assert!(!limited(1 << 16, true, 1).verdict().unwrap_err().to_string().contains("--shards"));
        for fits in [
            limited(8 << 20, true, 13),
            limited(9472 << 10, true, 16),
            limited(8 << 20, false, 16),
            limited(u64::MAX, true, 60),
        ] {
            assert_eq!(fits.verdict(), Ok(()), "{:?}", fits.facts.memlock);
        }
    }

    #[test]
    fn one_shard_is_capped_by_the_kernel_table() {
        let report = report(|_, request| (request.shards, request.connections) = (1, 2_000_000));
        let bound = report.slots().expect("the limit is known");
        assert_eq!((bound.connections, bound.cure.as_str()), (RING_SLOTS, "--shards 8"));
    }

    #[test]
    fn what_could_not_be_read_bounds_nothing() {
        let report =
            report(|f, _| (f.nofile, f.available, f.files, f.tcp_pages) = (None, None, None, None));
        assert_eq!((report.capacity(), report.findings()), (None, Vec::new()));
        assert!(report.to_string().contains("soft unknown, hard unknown"));
    }

    #[test]
    fn every_refusal_has_a_cause_and_a_cure() {
        let table = [
            (libc::ENOSYS, Some(0), Fatal::Absent, "6.8 or newer"),
            (libc::EPERM, Some(2), Fatal::Disabled(2), "sysctl -w kernel.io_uring_disabled=0"),
            (libc::EPERM, Some(1), Fatal::Disabled(1), "kernel.io_uring_disabled = 1"),
            (libc::EPERM, Some(0), Fatal::Filtered, "seccomp"),
            (libc::EACCES, None, Fatal::Filtered, "seccomp"),
            (libc::EINVAL, None, Fatal::TooOld("5.15.0".to_owned()), "Linux 5.15.0"),
            (libc::ENOMEM, Some(0), Fatal::NoMemory, "ulimit -l"),
            (libc::EMFILE, Some(0), Fatal::NoDescriptor, "ulimit -n"),
            (libc::EIO, Some(0), Fatal::Other(libc::EIO), "os error 5"),
        ];
        for (errno, disabled, fatal, text) in table {
            let report = report(|f, _| {
                (f.ring, f.io_uring_disabled, f.release) =
                    (Ring::Refused(errno), disabled, "5.15.0".to_owned());
            });
            assert_eq!(report.verdict(), Err(fatal.clone()));
            assert!(fatal.to_string().contains(text), "{fatal}");
            let first = &report.findings()[0];
            assert_eq!(first.severity, Severity::Fatal);
            assert!(!first.cause.is_empty() && !first.cure.is_empty(), "{first:?}");
        }
    }

    #[test]
    fn missing_operations_are_named() {
        let report =
            report(|f, _| f.ring = Ring::Ready { missing: vec!["MsgRing", "FixedFdInstall"] });
        let text = report.verdict().expect_err("operations are missing").to_string();
        assert!(text.contains("6.12.4 lacks MsgRing, FixedFdInstall"), "{text}");
    }

    #[test]
    fn advice_comes_one_by_one() {
        type Change = fn(&mut Facts, &mut Request);
        let table: [(Change, Severity, &str, &str); 8] = [
            (|f, _| f.somaxconn = Some(4_096), Severity::Advice, "somaxconn", TUNE),
            (|f, _| f.syn_backlog = Some(2_048), Severity::Advice, "syn_backlog", TUNE),
            (|f, _| f.slow_start_after_idle = Some(1), Severity::Advice, "slow_start", TUNE),
            (|f, _| f.wmem_default = Some(8 * MIB), Severity::Advice, "tcp_wmem", TUNE),
            (
                |_, r| r.port = 40_000,
                Severity::Advice,
                "port_range",
                "ip_local_reserved_ports=40000",
            ),
            (|f, _| f.conntrack = Some((12, 65_536)), Severity::Advice, "tracked", "notrack"),
            (
                |f, _| f.port_refused = Some(io::ErrorKind::AddrInUse),
                Severity::Fatal,
                "8000 is taken",
                "ss -ltnp",
            ),
            (|_, r| r.shards = 9, Severity::Advice, "more shards than cores", "ulimit -n"),
        ];
        for (change, severity, cause, cure) in table {
            let findings = report(change).findings();
            assert_eq!(findings.len(), 1, "{cause}: {findings:?}");
            assert_eq!(findings[0].severity, severity);
            assert!(
                findings[0].cause.contains(cause) && findings[0].cure.contains(cure),
                "{findings:?}"
            );
        }
        let idle = report(|f, _| f.conntrack = Some((0, 65_536)));
        assert_eq!(idle.findings(), []);
    }

    #[test]
    fn limits_are_parsed() {
        let head =
            "Limit                     Soft Limit           Hard Limit           Units     \n";
        let table = [
            (
                "Max open files            1024                 524288               files     \n",
                Some((1024, 524_288)),
            ),
            (
                "Max open files            unlimited            unlimited            files\n",
                Some((u64::MAX, u64::MAX)),
            ),
            ("Max open files            1024\n", None),
            ("Max processes             1                    2\n", None),
        ];
        for (line, limits) in table {
            assert_eq!(parse_limits(&format!("{head}{line}"), "Max open files"), limits, "{line}");
        }
    }

    #[test]
    fn proc_files_are_parsed() {
        assert_eq!(parse_available("MemTotal: 8 kB\nMemAvailable:    2048 kB\n"), Some(2 * MIB));
        assert_eq!(parse_available("MemTotal: 8 kB\n"), None);
        assert!(parse_may_raise("Name: x\nCapEff:\t000001ffffffffff\n"));
        assert!(!parse_may_raise("CapEff:\t00000000a80425fb\n"));
        assert!(!parse_may_raise(""));
        assert_eq!(number_at("287901\t383868\t575802\n", 2), Some(575_802));
        assert_eq!(number_at("4096\n", 1), None);
        assert_eq!(parse_inactive_file("inactive_file 7\ntotal_inactive_file 9\n"), 9);
        assert_eq!(parse_inactive_file("file 3\ninactive_file 7\n"), 7);
        assert_eq!(parse_inactive_file(""), 0);
        for (text, limit) in [
            ("max\n", None),
            ("1073741824\n", Some(GIB)),
            ("9223372036854771712\n", None),
            ("", None),
        ] {
            assert_eq!(parse_limit(text), limit, "{text}");
        }
    }

    #[test]
    fn cgroup_folders_go_up_to_the_root() {
        let names = |text: &str| {
            cgroup_folders(text).into_iter().map(|(folder, ..)| folder).collect::<Vec<_>>()
        };
        assert_eq!(names("0::/\n"), ["/sys/fs/cgroup"]);
        assert_eq!(
            names("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]
        );
        assert_eq!(
            names("5:cpu,memory:/a\n2:cpu:/b\n"),
            ["/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"]
        );
        assert_eq!(names("nonsense\n"), [""; 0]);
    }

    #[test]
    fn a_survey_of_this_box_prints() {
        let report = survey(&Request { port: 0, ..request(0) });
        assert!((1..=SHARDS_MAX).contains(&report.request.shards));
        assert!(report.facts.nofile.is_some() && report.facts.available.is_some());
        println!("{report}");
        assert!(report.to_string().contains("This box holds"));
    }
}
