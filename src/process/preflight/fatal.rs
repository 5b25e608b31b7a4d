//! Reasons why the server cannot run on a machine, and their cures.
//!
//! Owns the reasons and their texts. Never reads the machine.

use std::fmt;
use std::io;

use super::facts::Kernel;
use crate::base::failure::Failure;
use crate::engine::ring::{self, Refusal};

/// Why the server cannot run on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// ENOSYS from a kernel that shows no sign of io_uring: it is too old, or built without it.
    Absent(String),
    /// `kernel.io_uring_disabled` is not 0.
    Disabled(u64),
    /// A seccomp filter stands before the system call that failed.
    Filtered(Refusal),
    /// The system call is not permitted, and there is no filter: a security module or a sandbox.
    Denied(Refusal),
    /// EINVAL: the kernel does not support the flags of the ring.
    TooOld(String),
    /// The ring works, but the kernel lacks operations.
    Missing(String, Vec<&'static str>),
    /// The rings of all shards do not fit into RLIMIT_MEMLOCK. Sizes are in KiB.
    Memlock {
        /// Current limit.
        limit: u64,
        /// Size of one ring.
        each: u64,
        /// Rings that fit.
        fits: u64,
        /// Shards, each of which needs a ring.
        shards: usize,
        /// Limit that all rings need.
        need: u64,
    },
    /// ENOMEM: a memory limit is exceeded.
    NoMemory,
    /// EMFILE or ENFILE: no descriptor is left for the ring.
    NoDescriptor,
    /// Any other error number.
    Other(Refusal),
}

impl Fatal {
    /// Reason for a refused system call of io_uring.
    pub(super) fn of_refusal(refusal: Refusal, kernel: &Kernel) -> Fatal {
        let disabled = kernel.io_uring_disabled;
        match (refusal.errno, disabled) {
            (libc::EPERM, Some(value @ 1..)) if refusal.call == "io_uring_setup" => {
                Fatal::Disabled(value)
            }
            // The sysctl exists only in a kernel that has io_uring.
            (libc::ENOSYS, None) => Fatal::Absent(kernel.release.clone()),
            (libc::ENOSYS | libc::EPERM | libc::EACCES, _) if kernel.is_filtered => {
                Fatal::Filtered(refusal)
            }
            (libc::ENOSYS | libc::EPERM | libc::EACCES, _) => Fatal::Denied(refusal),
            (libc::EINVAL, _) => Fatal::TooOld(kernel.release.clone()),
            (libc::ENOMEM, _) => Fatal::NoMemory,
            (libc::EMFILE | libc::ENFILE, _) => Fatal::NoDescriptor,
            _ => Fatal::Other(refusal),
        }
    }

    /// Cause and cure.
    pub fn failure(&self) -> Failure {
        Failure::new(self.cause(), self.cure())
    }

    fn cause(&self) -> String {
        match self {
            Self::Absent(release) => format!(
                "Linux {release} has no io_uring (ENOSYS): it is too old, built without \
                 CONFIG_IO_URING, or emulated by a sandbox"
            ),
            Self::Disabled(value) => {
                format!("io_uring is disabled by kernel.io_uring_disabled = {value}")
            }
            Self::Filtered(refusal) => format!(
                "{} failed with {}: the seccomp filter of this process blocks it (the kernel has \
                 io_uring, and kernel.io_uring_disabled allows it)",
                refusal.call,
                name(refusal.errno)
            ),
            Self::Denied(refusal) => format!(
                "{} failed with {} although kernel.io_uring_disabled allows io_uring and no seccomp \
                 filter is set: a security module (SELinux, AppArmor) or a sandbox denies it",
                refusal.call,
                name(refusal.errno)
            ),
            Self::TooOld(release) => {
                format!("Linux {release} does not support the flags of the ring (EINVAL)")
            }
            Self::Missing(release, names) => {
                format!("io_uring of Linux {release} lacks {}", names.join(", "))
            }
            Self::Memlock { limit, each, fits, shards, .. } => format!(
                "only {fits} rings of {each} KiB fit into RLIMIT_MEMLOCK of {limit} KiB, but {shards} \
                 shards need one each"
            ),
            Self::NoMemory => "no memory for an io_uring ring (ENOMEM)".to_owned(),
            Self::NoDescriptor => "no descriptor is left for an io_uring ring (EMFILE)".to_owned(),
            Self::Other(Refusal { call, errno }) => {
                format!("{call} failed: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }

    fn cure(&self) -> String {
        match self {
            Self::Absent(_) => newer_kernel(),
            Self::Disabled(1) => "run `sysctl -w kernel.io_uring_disabled=0` on the host, or run \
                 the server with the group that kernel.io_uring_group names"
                .to_owned(),
            Self::Disabled(_) => {
                "run `sysctl -w kernel.io_uring_disabled=0` on the host".to_owned()
            }
            Self::Filtered(_) => "permit io_uring_setup, io_uring_enter and io_uring_register: in \
                 a container `docker run --security-opt seccomp=packaging/container/seccomp.json`, \
                 in a systemd unit SystemCallFilter=. Some platforms (Docker Desktop, some \
                 container services) block io_uring whatever the profile says: use a Linux host \
                 or a virtual machine there"
                .to_owned(),
            Self::Denied(_) => "look for the denial in the kernel log (`journalctl -k | grep -i \
                 -e avc -e apparmor`) and permit io_uring there, or run outside of the sandbox"
                .to_owned(),
            Self::TooOld(_) | Self::Missing(..) => newer_kernel(),
            Self::Memlock { need, fits: 0, .. } => memlock_cure(*need),
            Self::Memlock { need, fits, .. } => {
                format!("{}; or use --shards {fits}", memlock_cure(*need))
            }
            Self::NoMemory => {
                "raise the container's memory limit, or RLIMIT_MEMLOCK by `ulimit -l \
                 unlimited` as root (LimitMEMLOCK=infinity in a systemd unit)"
                    .to_owned()
            }
            Self::NoDescriptor => "run `ulimit -n 1048576`".to_owned(),
            Self::Other(_) => "look for the reason in the kernel log (`dmesg | tail`)".to_owned(),
        }
    }
}

/// How to raise RLIMIT_MEMLOCK to `kib` KiB.
pub(super) fn memlock_cure(kib: u64) -> String {
    format!(
        "run `ulimit -l {kib}` as root before the server starts, or set LimitMEMLOCK={kib}K in its systemd \
         unit, or give a container `--ulimit memlock={}`",
        kib * 1024
    )
}

/// Name of an error number that a filter may answer.
fn name(errno: i32) -> &'static str {
    match errno {
        libc::ENOSYS => "ENOSYS",
        libc::EACCES => "EACCES",
        _ => "EPERM",
    }
}

fn newer_kernel() -> String {
    format!("run Linux {} or newer (6.12 LTS recommended)", ring::least_kernel())
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure().fmt(f)
    }
}

impl std::error::Error for Fatal {}
