//! The heap of the process: when the allocator gives memory back to the kernel.
//!
//! Owns no state. Never changes what the allocator does with small allocations.

use std::io;

/// Allocations from this size on are mapped, and given back as soon as they are freed. The default
/// of glibc.
const MAPPED_FROM: i32 = 128 << 10;
/// Free bytes at the end of a thread's heap that are kept.
const KEPT: i32 = 1 << 20;

/// Fixes both sizes. glibc would raise them to the size of the largest allocation that was freed,
/// up to 32 and 64 MiB, and the heap of every thread would keep its peak for good.
///
/// Source: mallopt(3).
///
/// # Errors
/// The allocator refuses.
#[cfg(target_env = "gnu")]
pub fn give_back_early() -> io::Result<()> {
    // SAFETY: `mallopt` locks the allocator, takes two numbers and keeps no pointer.
    let results = unsafe {
        [
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM),
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT),
        ]
    };
    if results.contains(&0) { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(()) }
}

/// Other allocators have no such sizes.
///
/// # Errors
/// None.
#[cfg(not(target_env = "gnu"))]
pub fn give_back_early() -> io::Result<()> {
    Ok(())
}

#[cfg(target_env = "gnu")]
#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    const MIB: usize = 1 << 20;

    /// Resident memory of the process, in bytes. A page has 4 KiB.
    fn resident() -> usize {
        let text = fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    /// Runs in a process of its own, where no other test takes memory.
    #[test]
    #[ignore = "started by the other test"]
    fn child() {
        give_back_early().unwrap();
        // glibc would now keep as much.
        drop(vec![1_u8; 24 * MIB]);
        let before = resident();
        let pieces: Vec<Vec<u8>> = (0..20).map(|_| vec![1; MIB]).collect();
        assert!(resident() > before + 19 * MIB);
        drop(pieces);
        assert!(resident() < before + 4 * MIB);
    }

    #[test]
    fn what_is_freed_is_given_back() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "base::heap::tests::child", "--ignored", "--nocapture"]);
        let told = child.output().unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    }
}
