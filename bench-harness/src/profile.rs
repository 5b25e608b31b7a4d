//! Where the server's workers spend their time, by perf: shares by groups of functions.
//!
//! Owns the groups. Never profiles unless asked: sampling costs the server some percent. Invariant:
//! a sample counts in the first group that has one of its functions, and every sample counts.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Samples per second and thread.
const FREQUENCY: &str = "499";
/// Start of the names of the threads whose samples count.
const WORKERS: &str = "worker-";
/// Groups, and parts of the names of their functions. A ping's send is among the sends.
const GROUPS: [(&str, &[&str]); 8] = [
    ("deadlines of pings", &["ping_or_check", "deadline_reached", "Hub>::expire", "base::wheel"]),
    ("HTTP", &["wire::http", "hub::calls", "hub::requests"]),
    ("send", &["tcp_sendmsg", "sock_sendmsg", "io_send"]),
    ("receive", &["tcp_recvmsg", "sock_recvmsg", "io_recv"]),
    ("sleep and wake", &["io_cqring_wait", "schedule", "try_to_wake_up", "eventfd_", "futex_"]),
    ("rest of io_uring", &["io_uring_enter", "io_submit", "io_issue", "io_poll", "tctx_task_work"]),
    (
        "homes, subscribers and connections",
        &["drumline::home", "drumline::local", "drumline::hub", "drumline::wire"],
    ),
    ("pass and bus", &["drumline::engine"]),
];
const OTHER: &str = "other";

/// perf while it records.
pub struct Profile {
    child: Child,
    data: PathBuf,
}

impl Profile {
    /// Samples a process for so long.
    pub fn start(pid: u32, time: Duration) -> Result<Self> {
        let data = std::env::temp_dir().join(format!("drumline-bench-{}.perf", std::process::id()));
        let child = Command::new("perf")
            .args(["record", "-q", "-g", "-F", FREQUENCY, "-p", &pid.to_string(), "-o"])
            .arg(&data)
            .args(["--", "sleep", &time.as_secs().max(1).to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run perf")?;
        Ok(Profile { child, data })
    }

    /// Waits for the end. Returns the share of each group.
    pub fn finish(mut self) -> Result<Vec<(&'static str, f64)>> {
        let status = self.child.wait().context("cannot wait for perf")?;
        ensure!(status.success(), "perf record ended with {status}");
        let script = Command::new("perf")
            .args(["script", "-F", "comm,ip,sym", "-i"])
            .arg(&self.data)
            .output()
            .context("cannot run perf")?;
        // The folder of temporary files is cleared by the system otherwise.
        let _ = fs::remove_file(&self.data);
        ensure!(script.status.success(), "perf script ended with {}", script.status);
        shares(&String::from_utf8_lossy(&script.stdout))
    }
}

/// The shares of the groups in a text of `perf script`: a line with the thread's name, a line per
/// function from the innermost to the outermost, an empty line.
fn shares(text: &str) -> Result<Vec<(&'static str, f64)>> {
    let mut counts: Vec<(&'static str, u64)> = GROUPS.iter().map(|(name, _)| (*name, 0)).collect();
    counts.push((OTHER, 0));
    for sample in text.split("\n\n").map(str::trim).filter(|one| one.starts_with(WORKERS)) {
        let group = group_of(sample);
        if let Some((_, count)) = counts.iter_mut().find(|(name, _)| *name == group) {
            *count += 1;
        }
    }
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    ensure!(all > 0, "perf took no sample of the workers");
    Ok(counts.into_iter().map(|(name, count)| (name, count as f64 / all as f64)).collect())
}

fn group_of(sample: &str) -> &'static str {
    let has = |parts: &[&str]| parts.iter().any(|part| sample.contains(part));
    GROUPS.iter().find(|(_, parts)| has(parts)).map_or(OTHER, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_of_a_worker_counts_in_one_group() {
        let text = "worker-0 \n\tffff1 tcp_ack\n\tffff2 tcp_sendmsg\n\tffff3 io_uring_enter\n\n\
                    worker-1 \n\t55 drumline::engine::shard::Shard::turn\n\n\
                    worker-1 \n\t55 [unknown]\n\n\
                    worker-0 \n\t55 io_cqring_wait\n\tffff3 io_uring_enter\n\n\
                    control \n\t55 tcp_sendmsg\n\n";
        let shares = shares(text).unwrap();
        let share = |name: &str| shares.iter().find(|(one, _)| *one == name).unwrap().1;
        assert_eq!(share("send"), 0.25);
        assert_eq!(share("pass and bus"), 0.25);
        assert_eq!(share("sleep and wake"), 0.25);
        assert_eq!(share(OTHER), 0.25);
        assert_eq!(shares.iter().map(|(_, share)| share).sum::<f64>(), 1.0);
        assert!(super::shares("control \n\t55 tcp_sendmsg\n\n").is_err());
    }
}
