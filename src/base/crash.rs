//! Ends the process after a fatal error: a panic of any thread, or an io_uring that fails.
//!
//! Owns the panic hook. Never waits longer than its time limits for a standard error that accepts
//! no data. The invariant: after a fatal error of any thread the whole process exits with
//! [`STATUS`]; it never continues without the thread.

use std::backtrace::Backtrace;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::base::log;

/// Exit status after a fatal error (EX_SOFTWARE of sysexits.h).
pub const STATUS: i32 = 70;

/// Time limit for writing the report to standard error.
const REPORT_TIME: Duration = Duration::from_secs(1);
/// Time limit for writing log lines that are still queued.
const LOG_TIME: Duration = Duration::from_millis(100);
/// Time for which a second failing thread waits for the report of the first one.
const OTHERS_REPORT_TIME: Duration = Duration::from_secs(10);
/// Bytes that a pipe accepts without blocking once poll says that it is writable (PIPE_BUF).
const CHUNK_BYTES: usize = 4096;

/// Installs the panic hook: a panic of any thread ends the process.
pub fn install() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        end(&format!("thread '{}' {panic}", thread.name().unwrap_or("without a name")));
    }));
}

/// Writes the cause and a backtrace to standard error and exits with [`STATUS`].
pub fn end(cause: &str) -> ! {
    static ENDING: AtomicBool = AtomicBool::new(false);
    if ENDING.swap(true, Ordering::SeqCst) {
        // Another thread is reporting its own error and will end the process.
        std::thread::sleep(OTHERS_REPORT_TIME);
        std::process::abort();
    }
    let deadline = Instant::now() + REPORT_TIME;
    // The cause is written first, because capturing a backtrace takes time.
    let cause = format!("drumline: fatal error, the server exits: {cause}\n");
    if report(cause.as_bytes(), deadline).is_ok() {
        let backtrace = format!("{}\n", Backtrace::force_capture());
        // If standard error fails now, the rest of the report is lost.
        let _ = report(backtrace.as_bytes(), deadline.max(Instant::now() + REPORT_TIME));
        log::flush(LOG_TIME);
    }
    std::process::exit(STATUS);
}

/// Writes to standard error without the lock of [`io::stderr`], which the failing thread may hold.
fn report(mut text: &[u8], deadline: Instant) -> rustix::io::Result<()> {
    let stderr = io::stderr();
    while !text.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut polled = [PollFd::new(&stderr, PollFlags::OUT)];
        match poll(&mut polled, Some(&left)) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        }
        match rustix::io::write(&stderr, &text[..text.len().min(CHUNK_BYTES)]) {
            Ok(written) => text = text.get(written..).unwrap_or_default(),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};

    /// Environment variable that names the thread that fails in the child process.
    const FAILING: &str = "DRUMLINE_TEST_FAILING_THREAD";

    /// Runs in a child process and ends it. Does nothing if the variable is not set.
    #[test]
    fn child() {
        let Ok(failing) = std::env::var(FAILING) else { return };
        install();
        match failing.as_str() {
            "worker" => {
                let worker = std::thread::Builder::new().name("worker-7".into());
                let worker = worker.spawn(|| panic!("planted in a worker")).unwrap();
                // The panic hook, not the join, must end the process.
                let _ = worker.join();
                std::thread::sleep(Duration::from_secs(60));
            }
            "task" => {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                // The runtime catches the panic of a task, but the hook runs before.
                let _ = runtime
                    .block_on(async { tokio::spawn(async { panic!("planted in a task") }).await });
                std::thread::sleep(Duration::from_secs(60));
            }
            "two" => {
                let threads: Vec<_> = (0..2)
                    .map(|_| std::thread::spawn(|| panic!("planted in two threads")))
                    .collect();
                threads.into_iter().for_each(|thread| drop(thread.join()));
            }
            "ring" => end("io_uring_enter failed: planted"),
            _ => panic!("planted in the main thread"),
        }
    }

    fn start(failing: &str, stderr: Stdio) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "base::crash::tests::child", "--nocapture"])
            .env(FAILING, failing)
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap()
    }

    #[test]
    fn a_panic_of_any_thread_is_reported_and_ends_the_process() {
        for failing in ["worker", "task", "two", "main", "ring"] {
            let mut child = start(failing, Stdio::piped());
            let mut told = String::new();
            child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(STATUS), "{failing}: {told}");
            assert!(told.starts_with("drumline: fatal error, the server exits: "), "{told}");
            assert!(told.contains("planted"), "{failing}: {told}");
            assert!(
                told.contains("base::crash::tests::child"),
                "{failing}: no backtrace in {told}"
            );
            assert_eq!(told.matches("fatal error").count(), 1, "one report: {told}");
            if failing == "worker" {
                assert!(
                    told.contains("thread 'worker-7' panicked at src/base/crash.rs:"),
                    "{told}"
                );
            }
        }
    }

    #[test]
    fn a_panic_ends_the_process_even_if_standard_error_is_broken() {
        let (reader, closed) = io::pipe().unwrap();
        drop(reader);
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (stuck_reader, stuck) = io::pipe().unwrap();
        let mut filled = 0;
        while poll(&mut [PollFd::new(&stuck, PollFlags::OUT)], Some(&Timespec::default())) == Ok(1)
        {
            filled += rustix::io::write(&stuck, &[b'x'; CHUNK_BYTES]).unwrap();
        }
        assert!(filled > 0);
        for (what, stderr) in
            [("closed pipe", closed.into()), ("full", full.into()), ("stuck", stuck.into())]
        {
            let status = start("worker", stderr).wait().unwrap();
            assert_eq!((status.code(), status.signal()), (Some(STATUS), None), "{what}");
        }
        drop(stuck_reader);
    }
}
