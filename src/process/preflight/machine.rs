//! Reads the facts from the machine.
//!
//! Owns no state. Never changes a setting, and keeps no ring or socket open.

use std::fs;
use std::path::Path;

use super::facts::{Kernel, MachineFacts, Requirements, Ring};
use super::fatal::Fatal;
use super::memlock;
use super::parse::{
    number_at, parse_available, parse_buckets, parse_inactive_file, parse_is_filtered, parse_limit,
    parse_limits, parse_may_raise,
};
use super::report::{RING_SLOTS, Report, recommended_shards, ring_verdict};
use crate::base::cgroup;
use crate::base::limits::SHARDS_MAX;
use crate::base::sys;
use crate::engine::ring;

/// Reads the facts of the machine. Sets a small ring up and binds the port; closes both before it
/// returns.
pub fn survey(request: &Requirements) -> Report {
    let facts = read_facts(request.port);
    let mut report = Report { request: request.clone(), facts, default_shards: None };
    if report.request.shards == 0 {
        report.default_shards = Some(report.facts.cores.min(SHARDS_MAX));
        let facts = &report.facts;
        let hard = facts.nofile.map_or(RING_SLOTS, |(_, hard)| hard);
        report.request.shards = recommended_shards(facts.cores, hard, request.connections);
        // A server without a configured number of shards runs at least one per core.
        let fit = report.locked_shards().unwrap_or(SHARDS_MAX).max(report.facts.cores);
        report.request.shards = report.request.shards.min(fit);
    }
    report
}

fn read_facts(port: u16) -> MachineFacts {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let one = |name| sysctl(name, 0);
    MachineFacts {
        kernel: kernel(&status),
        ring: try_ring(),
        nofile: fs::read_to_string("/proc/self/limits")
            .ok()
            .and_then(|text| parse_limits(&text, "Max open files")),
        memlock: memlock::read(|| matches!(try_ring(), Ring::Ready { .. })),
        may_raise: parse_may_raise(&status),
        nr_open: one("fs/nr_open"),
        files: one("fs/file-max").zip(one("fs/file-nr")),
        cores: sys::processors(),
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
        tcp_buckets: fs::read_to_string("/proc/sys/net/ipv4/tcp_ehash_entries")
            .ok()
            .and_then(|text| parse_buckets(&text)),
        cards: cards(),
        port_refused: sys::try_bind(([0, 0, 0, 0], port).into()).err().map(|error| error.kind()),
    }
}

/// Checks that this process can set up rings as the shards do.
///
/// # Errors
/// Why it cannot.
pub fn permitted() -> Result<(), Fatal> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ring_verdict(&try_ring(), &kernel(&status))
}

/// `status`: text of /proc/self/status.
fn kernel(status: &str) -> Kernel {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Kernel {
        release: release.trim().to_owned(),
        io_uring_disabled: sysctl("kernel/io_uring_disabled", 0),
        is_filtered: parse_is_filtered(status),
    }
}

fn sysctl(name: &str, place: usize) -> Option<u64> {
    number_at(&fs::read_to_string(format!("/proc/sys/{name}")).ok()?, place)
}

fn try_ring() -> Ring {
    match ring::try_out() {
        Ok(missing) => Ring::Ready { missing },
        Err(refusal) => Ring::Refused(refusal),
    }
}

/// The network cards of the machine: interfaces with a device behind them.
fn cards() -> Vec<(String, usize)> {
    let count = |path: &Path| {
        let names = fs::read_dir(path).into_iter().flatten().flatten();
        names.filter(|entry| entry.file_name().to_string_lossy().starts_with("rx-")).count()
    };
    let found = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut cards: Vec<(String, usize)> = found
        .filter(|entry| entry.path().join("device").exists())
        .map(|entry| {
            let queues = count(&entry.path().join("queues"));
            (entry.file_name().to_string_lossy().into_owned(), queues)
        })
        .filter(|(_, queues)| *queues > 0)
        .collect();
    cards.sort();
    cards
}

/// Bytes left below the lowest memory limit of this process's cgroups. Page cache that the kernel
/// can reclaim counts as free.
fn cgroup_left() -> Option<u64> {
    let left = cgroup::groups("memory").into_iter().filter_map(|group| {
        let limit = parse_limit(&group.read("memory.limit_in_bytes", "memory.max")?)?;
        let used = number_at(&group.read("memory.usage_in_bytes", "memory.current")?, 0)?;
        let stat = group.read("memory.stat", "memory.stat").unwrap_or_default();
        Some(limit.saturating_sub(used.saturating_sub(parse_inactive_file(&stat))))
    });
    left.min()
}
