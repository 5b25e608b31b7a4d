//! RLIMIT_MEMLOCK counts the rings of users without CAP_IPC_LOCK.

use std::fs::{Permissions, copy, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::common::{binary, command, wait_for};

/// A folder with the binary that every user may read.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        copy(binary(), folder.path().join("drumline")).unwrap();
        Place { folder }
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("drumline")
    }

    /// Starts the binary as another user with a limit of locked memory in KiB. Each `nth` has
    /// its own user, because the kernel frees rings some time after the end of their process.
    fn run(&self, nth: u32, kib: u64, arguments: &[&str]) -> Command {
        let bytes = kib * 1024;
        let mut run = Command::new("prlimit");
        run.env_clear().current_dir(self.folder.path()).stdin(Stdio::null());
        run.args([&format!("--memlock={bytes}:{bytes}"), "--nofile=4096:4096"]);
        if geteuid().is_root() {
            let user = (60_000 + std::process::id() % 100_000 * 10 + nth).to_string();
            run.args(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"]);
            run.args(["--inh-caps=-all", "--bounding-set=-all"]);
        }
        run.arg(self.program()).args(arguments);
        run
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &output.stderr].concat()).into_owned()
}

#[test]
fn too_little_locked_memory_prevents_the_start_with_advice() {
    let place = Place::new();
    let shards = ["--shards", "16", "--client.insecure", "--http_server.port", "0"];
    let serve = [&["serve"][..], &shards].concat();
    let check = [&["check"][..], &shards].concat();
    let usual = 1024;
    let checked = place.run(0, usual, &check).output().unwrap();
    if !told(&checked).contains("rings count") {
        return eprintln!("this kernel or user counts no rings: nothing to see");
    }
    let refused = place.run(1, usual, &serve).output().unwrap();
    for output in [&checked, &refused] {
        let text = told(output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        for part in ["RLIMIT_MEMLOCK", "ulimit -l ", "LimitMEMLOCK="] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    assert!(told(&checked).contains("fatal: RLIMIT_MEMLOCK of 1024 KiB holds"));
    // The limit that the error names is enough; a limit smaller by one ring is not.
    let text = told(&refused);
    let need: u64 =
        text.split("ulimit -l ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let each: u64 =
        text.split("rings of ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let short = place.run(2, need - each, &serve).output().unwrap();
    assert_eq!(short.status.code(), Some(2), "{}", told(&short));
    let mut server = place.run(3, need, &serve);
    let mut server = server.stderr(Stdio::inherit()).stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/task", server.id());
    wait_for("the server to run", || {
        assert!(server.try_wait().unwrap().is_none(), "with {need} KiB it does not start");
        let threads = std::fs::read_dir(&status).ok()?.flatten();
        let names =
            threads.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.starts_with("worker-")).count().checked_sub(1)
    });
    kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    assert!(wait_for("its end", || server.try_wait().unwrap()).success());
}

#[test]
fn a_user_with_cap_ipc_lock_needs_no_locked_memory_limit() {
    if !geteuid().is_root() {
        return eprintln!("only root may lock memory without a limit: nothing to see");
    }
    let program = command().get_program().to_owned();
    let mut check = Command::new("prlimit");
    check.arg("--memlock=0:0").arg(program).args(["check", "--shards", "16", "--client.insecure"]);
    let text = told(&check.output().unwrap());
    assert!(!text.contains("memlock") && !text.contains("MEMLOCK"), "{text}");
}
