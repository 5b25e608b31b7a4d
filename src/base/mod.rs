//! Tools that know nothing about push messaging: logging, metrics, memory budgets, timers, the
//! operating system. Owns state that the whole process shares. Never imports another layer.

pub mod address_limits;
pub mod backoff;
pub mod buffer;
pub mod busiest;
pub mod cgroup;
pub mod connection_limits;
pub mod counter;
pub mod crash;
pub mod current;
pub mod failure;
#[allow(unsafe_code)]
pub mod heap;
pub mod histogram;
pub mod limits;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod notify;
pub mod password;
pub mod planted_faults;
pub mod ranking;
pub mod secret;
pub mod store_metrics;
pub mod sys;
#[allow(unsafe_code)]
pub mod time_slice;
pub mod vitals;
pub mod listeners;
pub mod wheel;
pub mod work_budget;
