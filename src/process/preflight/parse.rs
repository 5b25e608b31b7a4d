//! Parses the texts of /proc and of cgroups.
//!
//! Owns no state. A text with an unexpected format gives `None`.

/// Bit of CAP_SYS_RESOURCE, which allows raising hard limits.
const CAP_SYS_RESOURCE: u32 = 24;

/// Soft and hard value of a line of `/proc/self/limits`, such as "Max open files"; `unlimited` is
/// `u64::MAX`.
pub(super) fn parse_limits(text: &str, name: &str) -> Option<(u64, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let mut words = line.split_whitespace().map(|word| match word {
        "unlimited" => Some(u64::MAX),
        word => word.parse().ok(),
    });
    Some((words.next()??, words.next()??))
}

/// `MemAvailable` of `/proc/meminfo` in bytes.
pub(super) fn parse_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Whether the effective capabilities in `/proc/self/status` allow raising hard limits.
pub(super) fn parse_may_raise(text: &str) -> bool {
    let mask = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> CAP_SYS_RESOURCE & 1 == 1)
}

/// Whether `/proc/self/status` shows a seccomp filter.
pub(super) fn parse_is_filtered(text: &str) -> bool {
    let mode = text.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    mode.is_some_and(|mode| mode.trim() == "2")
}

/// The number at a position in a line of numbers, as sysctls print them.
pub(super) fn number_at(text: &str, place: usize) -> Option<u64> {
    text.split_whitespace().nth(place)?.parse().ok()
}

/// Number of buckets as `net.ipv4.tcp_ehash_entries` has it: negative in a network namespace that
/// uses the table of the machine.
pub(super) fn parse_buckets(text: &str) -> Option<u64> {
    text.trim().parse::<i64>().ok().map(i64::unsigned_abs).filter(|buckets| *buckets > 0)
}

/// A memory limit as cgroups print it; `None`: `max`, or nearly 2^63, which means no limit in
/// version 1.
pub(super) fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit < 1 << 60)
}

/// Reclaimable page cache of a cgroup, from its `memory.stat` (in version 1 `total_inactive_file`).
pub(super) fn parse_inactive_file(text: &str) -> u64 {
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    };
    value("total_inactive_file").or_else(|| value("inactive_file")).unwrap_or(0)
}
