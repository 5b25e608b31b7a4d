//! Families of the process and of the memory budgets.
//!
//! Owns the time of the start.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::family::{Family, FamilyKind};
use super::names::{Metric, Names};
use crate::base::log;
use crate::base::memory::{MemoryBudget, MemoryBudgets, MemoryKind};
use crate::base::metrics::MetricKind;
use crate::base::sys;

/// When the process started.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    at: Instant,
    unix: f64,
}

impl Started {
    /// Now.
    pub fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Started { at: Instant::now(), unix: unix.map_or(0.0, |since| since.as_secs_f64()) }
    }
}

/// Memory budgets, and how much of each is used.
pub fn memory(budgets: &MemoryBudgets, names: &Names) -> Vec<Family> {
    let gauge = |name, help, labels| Family::new(names.full(name), help, FamilyKind::Gauge, labels);
    let each = |number: fn(&MemoryBudget) -> usize| {
        let numbers = MemoryKind::ALL.into_iter();
        numbers.map(move |kind| (vec![kind.name().to_owned()], number(&budgets[kind]) as f64))
    };
    let all = "Sum of all memory budgets of the node in bytes.";
    vec![
        gauge("memory_budget_bytes", all, &[]).with_number(budgets.limit() as f64),
        gauge("memory_limit_bytes", "Memory budget per kind of data, in bytes.", &["kind"])
            .with_numbers(each(MemoryBudget::limit)),
        gauge("memory_used_bytes", "Used memory per kind of data, in bytes.", &["kind"])
            .with_numbers(each(MemoryBudget::used)),
    ]
}

/// Log lines that were not written.
fn log_lines() -> [Metric; 2] {
    let total = |name, help, value| Metric { name, help, kind: MetricKind::Total, value };
    [
        total(
            "log_lines_dropped",
            "Log lines dropped because the output was full, slow or closed.",
            log::dropped(),
        ),
        total("log_lines_suppressed", "Log lines left out because of log.rate.", log::suppressed()),
    ]
}

/// The process: memory, descriptors, processor time, uptime and version.
pub fn process(started: Started, names: &Names) -> Vec<Family> {
    let descriptors = std::fs::read_dir("/proc/self/fd").map(|found| found.count() as f64).ok();
    let (gauge, counter) = (FamilyKind::Gauge, FamilyKind::Counter);
    let bytes = |field| sys::memory(field).map(|bytes| bytes as f64);
    let plain = |name: &str| name.to_owned();
    let uptime = started.at.elapsed().as_secs() as f64;
    let numbers = [
        (
            plain("process_resident_memory_bytes"),
            "Resident memory in bytes.",
            gauge,
            bytes("VmRSS:"),
        ),
        (
            plain("process_virtual_memory_bytes"),
            "Virtual memory in bytes.",
            gauge,
            bytes("VmSize:"),
        ),
        (
            names.full("anonymous_memory_bytes"),
            "Resident memory that is not backed by files, in bytes.",
            gauge,
            bytes("RssAnon:"),
        ),
        (
            plain("process_open_fds"),
            "Open file descriptors, without the sockets in the tables of the rings.",
            gauge,
            descriptors,
        ),
        (
            plain("process_max_fds"),
            "Limit of open file descriptors, which is also that of each ring's table.",
            gauge,
            sys::descriptor_limit().map(|limit| limit as f64),
        ),
        (
            plain("process_cpu_seconds_total"),
            "Processor time of the process in seconds.",
            counter,
            Some(sys::processor_time().as_secs_f64()),
        ),
        (
            plain("process_start_time_seconds"),
            "Start of the process as unix time in seconds.",
            gauge,
            Some(started.unix),
        ),
        (names.full("uptime_seconds"), "Seconds since the process started.", gauge, Some(uptime)),
    ];
    let mut families = names.families(&log_lines());
    for (name, help, kind, value) in numbers {
        families.extend(value.map(|value| Family::new(name, help, kind, &[]).with_number(value)));
    }
    let build = Family::new(
        names.full("build_info"),
        "Version of the running server, as a label.",
        gauge,
        &["version"],
    );
    families.push(build.with_numbers([(vec![env!("CARGO_PKG_VERSION").to_owned()], 1.0)]));
    families
}
