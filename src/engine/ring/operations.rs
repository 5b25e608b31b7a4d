//! The io_uring operations that a ring uses, and the oldest kernel that has all of them.
//!
//! Owns the only table of operations. The rest of the ring imports operations from this file. So an
//! operation that is missing in the table cannot be queued, and the check before the start probes
//! exactly the operations that the ring queues.

use std::fmt;

use io_uring::{IoUring, Probe};

/// A version of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u8, u8);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// An operation of io_uring.
struct Operation {
    name: &'static str,
    code: u8,
    /// The first kernel that has the operation in the form that the ring uses.
    since: Version,
}

macro_rules! operations {
    ($($name:ident ($major:literal, $minor:literal) $form:literal,)+) => {
        $(
            #[doc = $form]
            pub(super) use io_uring::opcode::$name;
        )+

        const OPERATIONS: &[Operation] = &[
            $(Operation {
                name: stringify!($name),
                code: $name::CODE,
                since: Version($major, $minor),
            },)+
        ];
    };
}

operations! {
    Accept (5, 19) "Into a direct descriptor.",
    AsyncCancel2 (5, 19) "By user data.",
    Close (5, 15) "Of a direct descriptor.",
    Connect (5, 5) "Of a direct descriptor.",
    FixedFdInstall (6, 8) "An ordinary descriptor of a direct one.",
    MsgRingSendFd (6, 0) "A direct descriptor, to another ring.",
    PollAdd (5, 13) "Multishot, edge-triggered.",
    Recv (5, 19) "Into a buffer of a registered ring.",
    Send (5, 19) "MSG_WAITALL takes up short sends.",
    SendMsg (5, 19) "MSG_WAITALL takes up short sends.",
    SetSockOpt (6, 7) "A command of a socket.",
    Shutdown (5, 11) "Of a direct descriptor.",
    Socket (5, 19) "Into a direct descriptor.",
}

/// The first kernel whose rings can be set up with the flags of [`super::uring::Ring::new`]
/// (IORING_SETUP_DEFER_TASKRUN).
const SETUP: Version = Version(6, 1);

/// How many operations a ring needs.
pub fn count() -> usize {
    OPERATIONS.len()
}

/// The oldest kernel with every operation and flag that a ring needs.
pub fn least_kernel() -> Version {
    OPERATIONS.iter().map(|operation| operation.since).fold(SETUP, Version::max)
}

/// Names of the operations that the kernel of this ring does not know.
pub(super) fn missing(ring: &IoUring) -> std::io::Result<Vec<&'static str>> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let missing = OPERATIONS.iter().filter(|operation| !probe.is_supported(operation.code));
    Ok(missing.map(|operation| operation.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_queues_exactly_the_operations_of_the_table() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/engine/ring");
        let mut code = String::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if !path.ends_with("operations.rs") {
                code += &std::fs::read_to_string(path).unwrap();
            }
        }
        let mut imports = code.lines().filter(|line| line.contains("io_uring"));
        assert_eq!(imports.find(|line| line.contains("opcode")), None, "only the table imports it");
        for operation in OPERATIONS {
            let used = code.contains(&format!("opcode::{}::", operation.name));
            assert!(used, "{} is not queued", operation.name);
        }
    }

    #[test]
    fn the_readme_names_the_least_kernel() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(&format!("Linux {} or newer", least_kernel())));
    }
}
