//! A network namespace with a large table of TCP connections.
//!
//! Owns making it and moving into it. Never leaves the machine's setting changed: the value is
//! restored as soon as the namespace exists. Invariant: only the calling thread moves, and the
//! threads and processes that it starts afterwards.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::rows::number;

/// Entries of the table. A million connections have two sockets each on one machine; the kernel's
/// own table has 262,144 entries on a machine with 24 GB.
const ENTRIES: u64 = 4_194_304;
/// Setting of a namespace that its child namespaces take when they are made.
const CHILD_ENTRIES: &str = "net/ipv4/tcp_child_ehash_entries";
/// Settings that a new namespace does not inherit.
const COPIED: [&str; 7] = [
    "net/core/somaxconn",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_notsent_lowat",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_slow_start_after_idle",
    "net/ipv4/tcp_wmem",
];
/// Brings the loopback interface up, says so, and holds the namespace until its input ends.
const HOLDER: &str = "ip link set lo up && echo up && exec cat";

/// Moves the calling thread into a namespace of its own, if it may. Otherwise the thread stays
/// where it is. Returns what to say about it. Call it before the first thread starts: threads and
/// processes that already run stay outside.
pub fn enter_if_permitted() -> String {
    let told = match enter() {
        Ok(told) => told,
        Err(error) => format!("No network namespace of its own: {error:#}"),
    };
    eprintln!("  {told}");
    told
}

/// Makes the namespace and moves the calling thread into it. Returns what to say about it. Call it
/// before the first thread starts.
pub fn enter() -> Result<String> {
    let copied: Vec<(&str, String)> =
        COPIED.iter().filter_map(|name| Some((*name, read(name).ok()?))).collect();
    let changed = Changed::set(CHILD_ENTRIES, &ENTRIES.to_string())?;
    let holder = Holder::start();
    drop(changed);
    let mut holder = holder?;
    move_into_link_name_space(holder.namespace()?.as_fd(), Some(LinkNameSpaceType::Network))
        .context("cannot move into the network namespace")?;
    holder.stop();
    for (name, value) in copied {
        if read(name).is_ok_and(|now| now != value) {
            write(name, &value)?;
        }
    }
    // A negative number: the namespace uses the table of the machine.
    let entries: i64 = read("net/ipv4/tcp_ehash_entries")?.parse().unwrap_or(0);
    Ok(match u64::try_from(entries) {
        Ok(entries) if entries > 0 => format!(
            "In a network namespace of its own with a table of {} TCP connections \
             (net.ipv4.tcp_child_ehash_entries)",
            number(entries as f64)
        ),
        _ => "In a network namespace that shares the machine's table of TCP connections".to_owned(),
    })
}

fn path(name: &str) -> String {
    format!("/proc/sys/{name}")
}

fn read(name: &str) -> Result<String> {
    let text = fs::read_to_string(path(name)).with_context(|| format!("cannot read {name}"))?;
    Ok(text.trim().to_owned())
}

fn write(name: &str, value: &str) -> Result<()> {
    fs::write(path(name), value).with_context(|| format!("cannot set {name}"))
}

/// A setting that gets its value back.
struct Changed {
    name: &'static str,
    before: String,
}

impl Changed {
    fn set(name: &'static str, value: &str) -> Result<Self> {
        let before = read(name)?;
        write(name, value)?;
        Ok(Changed { name, before })
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        if let Err(error) = write(self.name, &self.before) {
            eprintln!("{error:#}; set it to {} by hand", self.before);
        }
    }
}

/// A process in the new namespace, which exists as long as a process or a thread is in it.
struct Holder(Child);

impl Holder {
    fn start() -> Result<Self> {
        let child = Command::new("unshare")
            .args(["--net", "sh", "-c", HOLDER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run unshare (package util-linux)")?;
        let mut holder = Holder(child);
        let mut line = String::new();
        if let Some(output) = &mut holder.0.stdout {
            BufReader::new(output).read_line(&mut line).context("cannot hear unshare")?;
        }
        if line.trim() != "up" {
            let mut why = String::new();
            if let Some(errors) = &mut holder.0.stderr {
                errors.read_to_string(&mut why).context("cannot hear unshare")?;
            }
            bail!("unshare --net: {}", why.trim());
        }
        Ok(holder)
    }

    fn namespace(&self) -> Result<File> {
        let path = format!("/proc/{}/ns/net", self.0.id());
        File::open(&path).with_context(|| format!("cannot open {path}"))
    }

    fn stop(&mut self) {
        drop(self.0.stdin.take());
        // It ends by itself when its input ends; its status says nothing.
        let _ = self.0.wait();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_separate_and_leaves_the_setting_as_it_was() {
        let before = read(CHILD_ENTRIES).unwrap();
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let entered = std::thread::spawn(|| {
            let told = enter().map_err(|error| format!("{error:#}"));
            (told, fs::read_link("/proc/thread-self/ns/net").unwrap())
        });
        let (told, inside) = entered.join().unwrap();
        assert_eq!(read(CHILD_ENTRIES).unwrap(), before);
        match told {
            Ok(told) => {
                assert!(told.contains("4,194,304"), "{told}");
                assert_ne!(own, inside);
            }
            // Without the permission the thread stays where it was.
            Err(why) => assert_eq!(own, inside, "{why}"),
        }
    }
}
