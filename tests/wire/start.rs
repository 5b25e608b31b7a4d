//! Errors that prevent the start.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{binary, free_port};

/// Runs the rest of its arguments with a system call of io_uring forbidden by a seccomp filter.
const FORBID: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/without_io_uring.py");

/// A server that does not notice at once keeps its orchestrator waiting.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn without_io_uring_the_start_fails_before_it_listens() {
    let table = [
        ("io_uring_setup", "EPERM", "the seccomp filter of this process blocks it"),
        ("io_uring_setup", "ENOSYS", "the seccomp filter of this process blocks it"),
        ("io_uring_enter", "EPERM", "io_uring_enter failed with EPERM: the seccomp filter"),
        ("io_uring_register", "EPERM", "io_uring_register failed with EPERM: the seccomp filter"),
        ("io_uring_setup", "EINVAL", "does not support the flags of the ring"),
        ("io_uring_setup", "ENOMEM", "no memory for an io_uring ring"),
    ];
    let port = free_port();
    for (call, error, cause) in table {
        let begun = Instant::now();
        let output = Command::new("python3")
            .args([FORBID, call, error])
            .arg(binary())
            .args(["serve", "--client.insecure", "--http_server.port", &port.to_string()])
            .output()
            .expect("python3 runs");
        assert!(begun.elapsed() < AT_ONCE, "{call} {error}: {:?}", begun.elapsed());
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(cause), "{call} {error}: {told}");
        let lines = told.lines().filter(|line| !line.is_empty() && !line.contains("[warn]"));
        assert_eq!(lines.count(), 2, "a cause and a cure: {told}");
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "nothing listens");
    }
}

#[test]
fn a_port_in_use_is_named_in_the_error() {
    let port = free_port();
    let _taken = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
    let output = Command::new(binary())
        .args(["serve", "--client.insecure", "--http_server.port", &port.to_string()])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{told}");
    assert!(told.contains(&port.to_string()), "{told}");
}

/// A group with a quota of processors, and a group inside it without one. Version 1 or version 2,
/// where this machine lets the test make it.
struct QuotaGroup {
    outer: PathBuf,
    inner: PathBuf,
}

impl QuotaGroup {
    fn new(quota: u32) -> Option<QuotaGroup> {
        let name = format!("drumline-test-{}", std::process::id());
        let files: [(&str, &[(&str, String)]); 2] = [
            ("/sys/fs/cgroup/cpu", &[("cpu.cfs_quota_us", quota.to_string())]),
            ("/sys/fs/cgroup", &[("cpu.max", format!("{quota} 100000"))]),
        ];
        for (root, settings) in files {
            let outer = Path::new(root).join(&name);
            let group = QuotaGroup { inner: outer.join("inner"), outer };
            let is_made = fs::create_dir(&group.outer).is_ok()
                && settings.iter().all(|(file, text)| {
                    group.outer.join(file).exists()
                        && fs::write(group.outer.join(file), text).is_ok()
                })
                && fs::create_dir(&group.inner).is_ok();
            if is_made {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for QuotaGroup {
    fn drop(&mut self) {
        for folder in [&self.inner, &self.outer] {
            // The kernel keeps a group busy for a moment after its last process.
            for _ in 0..100 {
                match fs::remove_dir(folder) {
                    Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// The line of `drumline check` about processors, for a process that a shell prepares.
fn cores_line(prepare: &str) -> String {
    let script = format!("{prepare} \"$0\" check --client.insecure --http_server.port 0");
    let output = Command::new("sh").args(["-c", &script]).arg(binary()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    told.lines().find(|line| line.starts_with("cores ")).unwrap_or(&told).to_owned()
}

#[test]
fn workers_follow_the_quota_of_a_parent_group_and_the_cpuset() {
    let all = std::thread::available_parallelism().unwrap().get();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.split("Cpus_allowed_list:\t").nth(1).unwrap();
    let first: String = allowed.chars().take_while(char::is_ascii_digit).collect();
    let one = cores_line(&format!("exec taskset -c {first}"));
    assert!(one.contains("cores        1,"), "{one}");
    let unlimited = cores_line("exec");
    assert!(unlimited.contains(&format!("cores        {all},")), "{unlimited}");
    // One and a half processors: one worker, which the quota never stops.
    let Some(group) = QuotaGroup::new(150_000) else {
        return eprintln!("no group can be made here: nothing to see");
    };
    let enter = format!("echo $$ >{}/cgroup.procs && exec", group.inner.display());
    assert!(cores_line(&enter).contains("cores        1,"), "{}", cores_line(&enter));
}
