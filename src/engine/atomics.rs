//! The atomics of the wake-ups. The model in `tests/loom` gives loom's instead.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
