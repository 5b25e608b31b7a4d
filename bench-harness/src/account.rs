//! Accounts of a server process and of the kernel, read from /proc.
//!
//! Owns the samples, their differences and the arithmetic per connection. Never attributes kernel
//! memory to a process: the kernel does not say whose it is, so the machine must be otherwise
//! quiet. Invariant: only samples of the same processes are subtracted from each other.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// Nanoseconds in a clock tick of /proc/PID/stat: USER_HZ is 100 wherever Linux runs today.
const TICK_NS: u64 = 10_000_000;
/// Bytes in a page, as /proc/slabinfo and /proc/net/sockstat count them on x86-64 and most arm64.
const PAGE_BYTES: u64 = 4096;
/// End of the target of a descriptor whose file was removed.
const REMOVED: &[u8] = b" (deleted)";
/// The slab caches that a connection is made of.
pub const SLABS: [&str; 6] = ["TCP", "TCPv6", "filp", "io_kiocb", "sock_inode_cache", "dentry"];

/// Processor time and memory of a process and its descendants so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSample {
    /// The processes counted, ascending.
    pub pids: Vec<u32>,
    /// User time in ns, in steps of a clock tick (10 ms); includes threads that have ended.
    pub user_ns: u64,
    /// System time in ns, in steps of a clock tick (10 ms); includes threads that have ended.
    pub system_ns: u64,
    /// Time on a processor of all living threads, in exact ns; `None` without schedstat.
    pub scheduled_ns: Option<u64>,
    /// Resident anonymous memory, in bytes.
    pub rss_anon: u64,
    /// Proportional set size, in bytes; `None` if smaps_rollup may not be read.
    pub pss: Option<u64>,
}

/// The difference between two samples of the same processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessDelta {
    /// User time, in ns (steps of 10 ms).
    pub user_ns: u64,
    /// System time, in ns (steps of 10 ms).
    pub system_ns: u64,
    /// User and system time together, in ns: the exact sum, or that of the ticks if threads have
    /// ended meanwhile and took their exact time with them.
    pub cpu_ns: u64,
    /// Growth of resident anonymous memory, in bytes.
    pub rss_anon: i64,
    /// Growth of the proportional set size, in bytes.
    pub pss: Option<i64>,
}

impl ProcessSample {
    /// Samples `pid` and all its living descendants.
    pub fn of_tree(pid: u32) -> Result<Self> {
        let pids = descendants(pid, &all_parents()?);
        let mut sum = ProcessSample { scheduled_ns: Some(0), pss: Some(0), ..Default::default() };
        for &one in &pids {
            match Self::of_one(one) {
                Ok(sample) => sum.add(&sample),
                Err(error) if one == pid => return Err(error),
                // A descendant that ended since it was listed.
                Err(_) if fs::metadata(format!("/proc/{one}")).is_err() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    }

    /// Samples `pid` without its descendants.
    pub fn of_one(pid: u32) -> Result<Self> {
        let stat = parse_stat(&read(pid, "stat")?).with_context(|| format!("process {pid}"))?;
        ensure!(stat.state != 'Z', "process {pid} has ended");
        Ok(ProcessSample {
            pids: vec![pid],
            user_ns: stat.user_ns,
            system_ns: stat.system_ns,
            scheduled_ns: scheduled(pid),
            rss_anon: rss_anon(pid)?,
            pss: read(pid, "smaps_rollup").ok().and_then(|text| kib_field(&text, "Pss")),
        })
    }

    /// The highest niceness among the threads of a process.
    pub fn niceness(pid: u32) -> Result<i32> {
        let told = || format!("cannot list the threads of process {pid}");
        let mut nicest = None;
        for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(told)? {
            // One that ended since it was listed does not count.
            let Ok(text) = fs::read_to_string(task?.path().join("stat")) else { continue };
            nicest = nicest.max(Some(parse_stat(&text)?.nice));
        }
        nicest.with_context(told)
    }

    /// Time on a processor of the living threads of a process whose names start with `prefix`, in
    /// ns.
    pub fn of_threads(pid: u32, prefix: &str) -> Result<u64> {
        let told = || format!("cannot list the threads of process {pid}");
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(told)? {
            let path = task?.path();
            // One that ended since it was listed does not count.
            let Ok(name) = fs::read_to_string(path.join("comm")) else { continue };
            let Ok(text) = fs::read_to_string(path.join("schedstat")) else { continue };
            if name.starts_with(prefix) {
                sum += parse_schedstat(&text).context("schedstat: no number")?;
            }
        }
        Ok(sum)
    }

    fn add(&mut self, other: &Self) {
        self.pids.extend(&other.pids);
        self.user_ns += other.user_ns;
        self.system_ns += other.system_ns;
        self.scheduled_ns = self.scheduled_ns.zip(other.scheduled_ns).map(|(a, b)| a + b);
        self.rss_anon += other.rss_anon;
        self.pss = self.pss.zip(other.pss).map(|(a, b)| a + b);
    }

    /// The difference to `before`. An error if a process has started or ended in between: its time
    /// would be counted in full or not at all.
    pub fn since(&self, before: &Self) -> Result<ProcessDelta> {
        ensure!(
            self.pids == before.pids,
            "the server's processes changed between samples: {:?}, then {:?}",
            before.pids,
            self.pids
        );
        let user_ns = self.user_ns.saturating_sub(before.user_ns);
        let system_ns = self.system_ns.saturating_sub(before.system_ns);
        let ticks = user_ns + system_ns;
        // Ticks lag by up to two a field and process; more than that means that threads ended.
        let slack = 4 * TICK_NS * self.pids.len() as u64 + ticks / 100;
        let exact = self.scheduled_ns.zip(before.scheduled_ns);
        let exact = exact.and_then(|(now, then)| now.checked_sub(then));
        Ok(ProcessDelta {
            user_ns,
            system_ns,
            cpu_ns: exact.filter(|exact| exact + slack >= ticks).unwrap_or(ticks),
            rss_anon: difference(self.rss_anon, before.rss_anon),
            pss: self.pss.zip(before.pss).map(|(now, then)| difference(now, then)),
        })
    }
}

impl ProcessDelta {
    /// Processor time per delivered message, in ns.
    pub fn cpu_ns_per(&self, deliveries: u64) -> Result<f64> {
        ensure!(deliveries > 0, "no deliveries to divide the processor time by");
        Ok(self.cpu_ns as f64 / deliveries as f64)
    }

    /// Cores kept busy on average over `wall_ns` nanoseconds.
    pub fn cores(&self, wall_ns: u64) -> Result<f64> {
        ensure!(wall_ns > 0, "no time to divide the processor time by");
        Ok(self.cpu_ns as f64 / wall_ns as f64)
    }
}

/// One slab cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slab {
    /// Objects in use.
    pub active: u64,
    /// Objects allocated, in use or not.
    pub objects: u64,
    /// Memory of the cache, in bytes, waste within the slabs included.
    pub bytes: u64,
}

/// Memory and sockets of the kernel at one moment, of the whole machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelSample {
    /// Unreclaimable slab memory (sockets, files, requests), in bytes.
    pub s_unreclaim: u64,
    /// Reclaimable slab memory (inodes and dentries of sockets are in it), in bytes.
    pub s_reclaimable: u64,
    /// Pages in TCP's socket buffers (4,096 bytes each).
    pub tcp_mem_pages: u64,
    /// TCP sockets in use, IPv4 and IPv6.
    pub tcp_in_use: u64,
    /// Sockets of all kinds in use.
    pub sockets_in_use: u64,
    /// The caches of [`SLABS`] by name; one that the kernel merged into another or that may not be
    /// read is absent.
    pub slabs: BTreeMap<String, Slab>,
}

/// How the kernel's memory grew between two samples, in bytes unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelDelta {
    /// Growth of unreclaimable slab memory.
    pub s_unreclaim: i64,
    /// Growth of reclaimable slab memory.
    pub s_reclaimable: i64,
    /// Growth of TCP's socket buffers.
    pub tcp_mem: i64,
    /// Growth in sockets, a count.
    pub sockets: i64,
    /// Growth of each slab cache present in both samples: bytes.
    pub slabs: BTreeMap<String, i64>,
}

impl KernelSample {
    /// Samples the kernel now.
    pub fn now() -> Result<Self> {
        let file =
            |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        let meminfo = file("/proc/meminfo")?;
        let sockstat = parse_sockstat(&file("/proc/net/sockstat")?)?;
        let six = fs::read_to_string("/proc/net/sockstat6").unwrap_or_default();
        Ok(KernelSample {
            s_unreclaim: kib_field(&meminfo, "SUnreclaim").context("meminfo: no SUnreclaim")?,
            s_reclaimable: kib_field(&meminfo, "SReclaimable")
                .context("meminfo: no SReclaimable")?,
            tcp_mem_pages: sockstat.tcp_mem_pages,
            tcp_in_use: sockstat.tcp_in_use + named_number(&six, "TCP6", "inuse").unwrap_or(0),
            sockets_in_use: sockstat.sockets,
            slabs: match fs::read_to_string("/proc/slabinfo") {
                Ok(text) => parse_slabinfo(&text)?,
                Err(_) => BTreeMap::new(),
            },
        })
    }

    /// How the kernel's memory grew since `before`.
    pub fn since(&self, before: &Self) -> KernelDelta {
        let pages = PAGE_BYTES as i64;
        let slabs = self.slabs.iter().filter_map(|(name, now)| {
            let then = before.slabs.get(name)?;
            Some((name.clone(), difference(now.bytes, then.bytes)))
        });
        KernelDelta {
            s_unreclaim: difference(self.s_unreclaim, before.s_unreclaim),
            s_reclaimable: difference(self.s_reclaimable, before.s_reclaimable),
            tcp_mem: difference(self.tcp_mem_pages, before.tcp_mem_pages) * pages,
            sockets: difference(self.sockets_in_use, before.sockets_in_use),
            slabs: slabs.collect(),
        }
    }
}

impl KernelDelta {
    /// Slab memory of both kinds, in bytes.
    pub fn slab(&self) -> i64 {
        self.s_unreclaim + self.s_reclaimable
    }
}

/// Processor time of all processors and processes since the start of the machine, in ns (steps of
/// 10 ms). Idle time and time that the hypervisor gave to other machines are left out.
pub fn busy_ns() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    parse_busy(&text).context("/proc/stat has no line for all processors")
}

/// Sums user, nice, system, interrupts and soft interrupts.
fn parse_busy(text: &str) -> Option<u64> {
    let fields: Vec<&str> = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().collect();
    let ticks = [0, 1, 2, 5, 6].map(|at| fields.get(at)?.parse::<u64>().ok());
    ticks.into_iter().sum::<Option<u64>>().map(|ticks| ticks * TICK_NS)
}

/// Resident anonymous memory of a process without its descendants, in bytes.
pub fn rss_anon(pid: u32) -> Result<u64> {
    let status = read(pid, "status")?;
    kib_field(&status, "RssAnon").with_context(|| format!("/proc/{pid}/status: no RssAnon"))
}

/// Open descriptors of a process. Sockets in the table of an io_uring ring have none.
pub fn descriptors(pid: u32) -> Result<u64> {
    let listed = fs::read_dir(format!("/proc/{pid}/fd"));
    Ok(listed.with_context(|| format!("cannot list the descriptors of process {pid}"))?.count()
        as u64)
}

/// Open descriptors of a process, without those of the files in a folder. A file that was removed
/// and is still open counts.
pub fn descriptors_beside(pid: u32, folder: &Path) -> Result<u64> {
    let context = || format!("cannot list the descriptors of process {pid}");
    let mut count = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).with_context(context)? {
        // A descriptor may be closed meanwhile.
        let Ok(target) = fs::read_link(entry.with_context(context)?.path()) else { continue };
        count += u64::from(is_beside(&target, folder));
    }
    Ok(count)
}

fn is_beside(target: &Path, folder: &Path) -> bool {
    target.as_os_str().as_encoded_bytes().ends_with(REMOVED) || !target.starts_with(folder)
}

/// Bytes per connection: a growth divided by the connections that caused it.
pub fn per_connection(growth_bytes: i64, connections: u64) -> Result<f64> {
    ensure!(connections > 0, "no connections to divide memory by");
    Ok(growth_bytes as f64 / connections as f64)
}

fn difference(now: u64, then: u64) -> i64 {
    now as i64 - then as i64
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path)
        .with_context(|| format!("cannot read {path}: the process may have ended"))
}

/// Exact time on a processor of the living threads, in ns.
fn scheduled(pid: u32) -> Option<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        match fs::read_to_string(task.ok()?.path().join("schedstat")) {
            Ok(text) => sum += parse_schedstat(&text)?,
            // A thread that ended while the others were read; the ticks still hold its time.
            Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => {}
            Err(_) => return None,
        }
    }
    (sum > 0).then_some(sum)
}

fn all_parents() -> Result<Vec<(u32, u32)>> {
    let mut pairs = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot list /proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        // One that ended since it was listed has no parent to tell.
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        pairs.push((pid, parse_stat(&text)?.parent));
    }
    Ok(pairs)
}

/// `root` and all below it, ascending.
fn descendants(root: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        let children = parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid);
        let new: Vec<u32> = children.filter(|pid| !found.contains(pid)).collect();
        found.extend(new);
        next += 1;
    }
    found.sort_unstable();
    found
}

struct Stat {
    state: char,
    parent: u32,
    user_ns: u64,
    system_ns: u64,
    nice: i32,
}

/// /proc/PID/stat; the name in parentheses may itself hold spaces and parentheses.
fn parse_stat(text: &str) -> Result<Stat> {
    let (_, rest) = text.rsplit_once(") ").context("stat: no name in parentheses")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |i: usize| -> Result<i64> {
        let field = fields.get(i).with_context(|| format!("stat: no field {}", i + 3))?;
        field.parse().with_context(|| format!("stat: field {} is {field}", i + 3))
    };
    let ticks = |i: usize| -> Result<u64> { Ok(u64::try_from(number(i)?)? * TICK_NS) };
    Ok(Stat {
        state: fields.first().and_then(|f| f.chars().next()).context("stat: no state")?,
        parent: u32::try_from(number(1)?)?,
        user_ns: ticks(11)?,
        system_ns: ticks(12)?,
        nice: i32::try_from(number(16)?)?,
    })
}

fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The bytes of a `Name:   123 kB` line.
fn kib_field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(rest.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

struct Sockstat {
    sockets: u64,
    tcp_in_use: u64,
    tcp_mem_pages: u64,
}

fn parse_sockstat(text: &str) -> Result<Sockstat> {
    let number = |line: &str, name: &str| {
        named_number(text, line, name).with_context(|| format!("sockstat: no {line} {name}"))
    };
    Ok(Sockstat {
        sockets: number("sockets", "used")?,
        tcp_in_use: number("TCP", "inuse")?,
        tcp_mem_pages: number("TCP", "mem")?,
    })
}

/// The number behind `name` in the line that starts with `line:`.
fn named_number(text: &str, line: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'))?;
    let mut words = rest.split_whitespace().skip_while(|word| *word != name);
    words.nth(1)?.parse().ok()
}

fn parse_slabinfo(text: &str) -> Result<BTreeMap<String, Slab>> {
    ensure!(text.starts_with("slabinfo - version: 2."), "slabinfo: not version 2");
    let mut found = BTreeMap::new();
    for line in text.lines().skip(2) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(name) = words.first().filter(|name| SLABS.contains(*name)) else {
            continue;
        };
        let number = |i: usize| words.get(i).and_then(|w| w.parse::<u64>().ok());
        let (Some(active), Some(objects), Some(pages), Some(slabs)) =
            (number(1), number(2), number(5), number(14))
        else {
            bail!("slabinfo: cannot read the line of {name}");
        };
        found.insert(
            (*name).to_owned(),
            Slab { active, objects, bytes: slabs * pages * PAGE_BYTES },
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLABINFO: &str = "\
slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>
TCPv6                 26     26   2496   13    8 : tunables    0    0    0 : slabdata      2      2      0
io_kiocb               0      0    256   16    1 : tunables    0    0    0 : slabdata      0      0      0
request_sock_TCP      12     12    312   13    1 : tunables    0    0    0 : slabdata      1      1      0
TCP                   20     26   2368   13    8 : tunables    0    0    0 : slabdata      2      2      0
filp                 538    588    192   21    1 : tunables    0    0    0 : slabdata     28     28      0
";

    const SOCKSTAT: &str =
        "sockets: used 11\nTCP: inuse 1 orphan 0 tw 7 alloc 1 mem 169\nUDP: inuse 0 mem 3\n";

    #[test]
    fn stat_with_a_hostile_name() {
        let text =
            "10177 (a) R 5 b) S 10176 10170 7384 0 -1 4194304 105 0 0 0 250 31 9 9 20 -5 1 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.nice), ('S', 10176, -5));
        assert_eq!((stat.user_ns, stat.system_ns), (2_500_000_000, 310_000_000));
        assert!(parse_stat("10177 (a) S 1 2").is_err());
        assert!(parse_stat("").is_err());
    }

    #[test]
    fn kernel_text() {
        let stat = parse_sockstat(SOCKSTAT).unwrap();
        assert_eq!((stat.sockets, stat.tcp_in_use, stat.tcp_mem_pages), (11, 1, 169));
        assert!(parse_sockstat("sockets: used 11\n").is_err());
        assert_eq!(named_number("TCP6: inuse 4\n", "TCP6", "inuse"), Some(4));
        let meminfo = "SReclaimable:     115296 kB\nSUnreclaim:        25676 kB\n";
        assert_eq!(kib_field(meminfo, "SUnreclaim"), Some(25_676 * 1024));
        assert_eq!(kib_field(meminfo, "SUn"), None);
        assert_eq!(kib_field("Pss_Anon: 3 kB\nPss:   523 kB\n", "Pss"), Some(523 * 1024));
        assert_eq!(parse_schedstat("6041378 187548 3\n"), Some(6_041_378));
    }

    #[test]
    fn busy_time_leaves_out_idle_and_stolen_time() {
        let text = "cpu  10 20 30 400 500 6 7 800 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(parse_busy(text), Some(73 * TICK_NS));
        assert_eq!(parse_busy("cpu  10 20\n"), None);
        assert!(busy_ns().unwrap() > 0);
    }

    #[test]
    fn slab_caches() {
        let slabs = parse_slabinfo(SLABINFO).unwrap();
        assert_eq!(slabs.keys().collect::<Vec<_>>(), ["TCP", "TCPv6", "filp", "io_kiocb"]);
        assert_eq!(slabs["TCP"], Slab { active: 20, objects: 26, bytes: 2 * 8 * 4096 });
        assert!(parse_slabinfo("").is_err());
        assert!(parse_slabinfo("slabinfo - version: 2.1\n#\nTCP 1 2 3\n").is_err());
    }

    #[test]
    fn process_trees() {
        let parents = [(1, 0), (5, 1), (9, 5), (7, 5), (8, 9), (6, 1)];
        assert_eq!(descendants(5, &parents), [5, 7, 8, 9]);
        assert_eq!(descendants(6, &parents), [6]);
    }

    fn sample(ticks: u64, exact: Option<u64>) -> ProcessSample {
        let (user_ns, system_ns) = (ticks * TICK_NS, ticks * TICK_NS);
        ProcessSample {
            pids: vec![5],
            user_ns,
            system_ns,
            scheduled_ns: exact,
            ..Default::default()
        }
    }

    #[test]
    fn exact_time_unless_threads_took_theirs_along() {
        let before = sample(10, Some(200_000_000));
        let cpu = |after: ProcessSample| after.since(&before).unwrap().cpu_ns;
        assert_eq!(cpu(sample(110, Some(2_203_456_789))), 2_003_456_789);
        assert_eq!(cpu(sample(110, Some(1_200_000_000))), 2_000_000_000);
        assert_eq!(cpu(sample(110, Some(1))), 2_000_000_000);
        assert_eq!(cpu(sample(110, None)), 2_000_000_000);
        let other = ProcessSample { pids: vec![5, 6], ..sample(110, None) };
        assert!(other.since(&before).is_err());
    }

    #[test]
    fn arithmetic() {
        let mut before =
            KernelSample { s_unreclaim: 1_000, tcp_mem_pages: 9, ..Default::default() };
        let mut after =
            KernelSample { s_unreclaim: 401_000, tcp_mem_pages: 7, ..Default::default() };
        (before.s_reclaimable, after.s_reclaimable) = (5_000, 105_000);
        after.slabs.insert("TCP".into(), Slab { active: 1, objects: 1, bytes: 9 });
        let delta = after.since(&before);
        assert_eq!((delta.slab(), delta.tcp_mem), (500_000, -8192));
        assert!(delta.slabs.is_empty(), "a cache seen only once has no growth");
        assert_eq!(per_connection(delta.slab(), 100).unwrap(), 5_000.0);
        assert!(per_connection(1, 0).is_err());
        let delta = sample(50, None).since(&sample(0, None)).unwrap();
        assert_eq!(delta.cpu_ns_per(1_000).unwrap(), 1e6);
        assert_eq!(delta.cores(4_000_000_000).unwrap(), 0.25);
        assert!(delta.cpu_ns_per(0).is_err() && delta.cores(0).is_err());
    }

    #[test]
    fn this_process_and_this_kernel() {
        let me = std::process::id();
        let before = ProcessSample::of_tree(me).unwrap();
        let mut x = 1u64;
        (0..20_000_000u64).for_each(|i| x = std::hint::black_box(x.wrapping_mul(31) ^ i));
        let after = ProcessSample::of_tree(me).unwrap();
        assert!(after.scheduled_ns.unwrap() > before.scheduled_ns.unwrap());
        assert!(after.rss_anon > 0 && before.pids.contains(&me));
        let opened = descriptors(me).unwrap();
        let _file = fs::File::open("/proc/self/stat").unwrap();
        assert!(descriptors(me).unwrap() > opened - 2 && descriptors(u32::MAX).is_err());
        assert!(ProcessSample::of_tree(u32::MAX).is_err());
        assert!(ProcessSample::of_threads(me, "").unwrap() >= before.scheduled_ns.unwrap());
        assert_eq!(ProcessSample::of_threads(me, "no thread").unwrap(), 0);
        assert!(KernelSample::now().unwrap().s_unreclaim > 0);
    }

    #[test]
    fn a_file_of_the_folder_counts_as_open_when_it_was_removed() {
        let counts = |target: &str| is_beside(Path::new(target), Path::new("/store"));
        assert!(!counts("/store/tables/4") && !counts("/store"));
        assert!(counts("/store/tables/4 (deleted)"));
        assert!(counts("/stored/4") && counts("socket:[7]") && counts("anon_inode:[io_uring]"));
        let me = std::process::id();
        assert!(descriptors_beside(me, Path::new("/nowhere")).unwrap() > 0);
        assert!(descriptors_beside(u32::MAX, Path::new("/")).is_err());
    }
}
