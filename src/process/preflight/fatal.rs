//! Reasons why the server cannot run on a machine, and their cures.
//!
//! Owns the reasons and their texts. Never reads the machine.

use std::fmt;
use std::io;

use crate::base::failure::Failure;
use crate::engine::ring;

/// Why the server cannot run on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// ENOSYS: the system call does not exist.
    Absent,
    /// `kernel.io_uring_disabled` is not 0.
    Disabled(u64),
    /// EPERM or EACCES although the sysctl allows it: a seccomp filter or a security module.
    Filtered,
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
    Other(i32),
}

impl Fatal {
    /// Reason for an error number of `io_uring_setup`.
    pub(super) fn of_refusal(errno: i32, disabled: Option<u64>, release: &str) -> Fatal {
        match errno {
            libc::ENOSYS => Fatal::Absent,
            libc::EPERM | libc::EACCES => match disabled {
                Some(value) if value != 0 => Fatal::Disabled(value),
                _ => Fatal::Filtered,
            },
            libc::EINVAL => Fatal::TooOld(release.to_owned()),
            libc::ENOMEM => Fatal::NoMemory,
            libc::EMFILE | libc::ENFILE => Fatal::NoDescriptor,
            other => Fatal::Other(other),
        }
    }

    /// Cause and cure.
    pub fn failure(&self) -> Failure {
        Failure::new(self.cause(), self.cure())
    }

    fn cause(&self) -> String {
        match self {
            Self::Absent => {
                "io_uring is not available (ENOSYS): the kernel is too old or built without \
                 CONFIG_IO_URING, or a sandbox blocks the system call"
                    .to_owned()
            }
            Self::Disabled(value) => {
                format!("io_uring is disabled by kernel.io_uring_disabled = {value}")
            }
            Self::Filtered => {
                "io_uring is not permitted (EPERM), although kernel.io_uring_disabled \
                 allows it: a seccomp filter or security module blocks it"
                    .to_owned()
            }
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
            Self::Other(errno) => {
                let error = io::Error::from_raw_os_error(*errno);
                format!("cannot set up io_uring: {error}")
            }
        }
    }

    fn cure(&self) -> String {
        match self {
            Self::Absent => format!("{}, outside of such a sandbox", newer_kernel()),
            Self::Disabled(_) => {
                "run `sysctl -w kernel.io_uring_disabled=0` on the host".to_owned()
            }
            Self::Filtered => "in a container, use a seccomp profile that permits io_uring_setup, \
                 io_uring_enter and io_uring_register (docker run --security-opt \
                 seccomp=profile.json)"
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

fn newer_kernel() -> String {
    format!("run Linux {} or newer (6.12 LTS recommended)", ring::least_kernel())
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure().fmt(f)
    }
}

impl std::error::Error for Fatal {}
