//! The environment of a measurement: commit, machine, limits and the exact command.
//!
//! Owns reading them, once, at the start of a run. Never guesses: a field that cannot be read is an
//! error. Invariant: the fields describe the process that measures.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// Where, when and how something was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Short git commit, with `-dirty` if tracked files differ from it (results do not count).
    pub commit: String,
    /// Start of the run in UTC, RFC 3339, whole seconds.
    pub date: String,
    /// Kernel name, release and machine.
    pub kernel: String,
    /// CPU model.
    pub cpu: String,
    /// Logical cores that are online.
    pub cores: u32,
    /// Physical memory, in bytes.
    pub memory_bytes: u64,
    /// Soft RLIMIT_NOFILE, `None` if unlimited.
    pub nofile_soft: Option<u64>,
    /// Hard RLIMIT_NOFILE, `None` if unlimited.
    pub nofile_hard: Option<u64>,
    /// Whether the processors were held out of deep idle (/dev/cpu_dma_latency at 0).
    #[serde(default)]
    pub held_awake: bool,
    /// The exact command line, quoted for a shell; the program without its directory.
    pub command: String,
}

impl Environment {
    /// Reads everything. Call it once, before the run, from inside the repository.
    pub fn collect(held_awake: bool) -> Result<Self> {
        let cpuinfo = read("/proc/cpuinfo")?;
        let (nofile_soft, nofile_hard) = parse_nofile(&read("/proc/self/limits")?)?;
        Ok(Environment {
            commit: commit()?,
            date: now(),
            kernel: format!(
                "Linux {} {}",
                read("/proc/sys/kernel/osrelease")?.trim(),
                std::env::consts::ARCH
            ),
            cpu: parse_cpu_model(&cpuinfo).unwrap_or_else(|| "unnamed CPU".into()),
            cores: parse_cores(&cpuinfo)?,
            memory_bytes: parse_memory(&read("/proc/meminfo")?)?,
            nofile_soft,
            nofile_hard,
            held_awake,
            command: command_line(std::env::args()),
        })
    }

    /// The day of the run, `YYYY-MM-DD` in UTC.
    pub fn day(&self) -> &str {
        self.date.get(..10).unwrap_or(&self.date)
    }

    /// Machine and limits in one line.
    pub fn machine(&self) -> String {
        format!(
            "{}, {} cores{}, {}, RLIMIT_NOFILE {} (hard {})",
            self.cpu,
            self.cores,
            if self.held_awake { " held out of deep idle" } else { "" },
            crate::rows::value(self.memory_bytes as f64, "bytes"),
            limit(self.nofile_soft),
            limit(self.nofile_hard),
        )
    }
}

fn limit(value: Option<u64>) -> String {
    value.map_or("unlimited".into(), |v| crate::rows::number(v as f64))
}

/// The present second in UTC, RFC 3339.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

fn git(args: &[&str]) -> Result<String> {
    let output = Command::new("git").args(args).output().context("cannot run git")?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("git {} failed (run inside the repository): {}", args[0], why.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn commit() -> Result<String> {
    let head = git(&["rev-parse", "--short=9", "HEAD"])?;
    // The harness writes these two itself: they don't change what is measured.
    let changed = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":(top)",
        ":(top,exclude)RESULTS.md",
        ":(top,exclude)bench-harness/results",
    ])?;
    Ok(if changed.is_empty() { head } else { format!("{head}-dirty") })
}

fn parse_cpu_model(cpuinfo: &str) -> Option<String> {
    ["model name", "Model", "Hardware", "CPU part"].iter().find_map(|wanted| {
        cpuinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == *wanted).then(|| value.trim().to_owned())
        })
    })
}

fn parse_cores(cpuinfo: &str) -> Result<u32> {
    let is_core = |line: &&str| line.split(':').next().is_some_and(|k| k.trim() == "processor");
    let cores = cpuinfo.lines().filter(is_core).count();
    ensure!(cores > 0, "/proc/cpuinfo names no processor");
    Ok(u32::try_from(cores)?)
}

fn parse_memory(meminfo: &str) -> Result<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("/proc/meminfo has no MemTotal")? * 1024)
}

fn parse_nofile(limits: &str) -> Result<(Option<u64>, Option<u64>)> {
    let rest = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .context("/proc/self/limits has no line for open files")?;
    let mut words = rest.split_whitespace();
    let mut next = || match words.next() {
        Some("unlimited") => Ok(None),
        Some(word) => word.parse().map(Some).context("/proc/self/limits: not a number"),
        None => bail!("/proc/self/limits: the line for open files is short"),
    };
    Ok((next()?, next()?))
}

/// The command line quoted for a shell, without the program's directory.
fn command_line(args: impl Iterator<Item = String>) -> String {
    let mut words = Vec::new();
    for (i, arg) in args.enumerate() {
        let arg = if i == 0 { arg.rsplit('/').next().unwrap_or_default().to_owned() } else { arg };
        words.push(quote(arg));
    }
    words.join(" ")
}

fn quote(word: String) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUINFO: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 106\n\
        model name\t: Intel(R) Xeon(R) Processor @ 2.80GHz\n\nprocessor\t: 1\n\
        model name\t: Intel(R) Xeon(R) Processor @ 2.80GHz\n";

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     
Max core file size        0                    unlimited            bytes     
Max open files            1024                 20000                files     
";

    #[test]
    fn captured_text() {
        assert_eq!(parse_cpu_model(CPUINFO).unwrap(), "Intel(R) Xeon(R) Processor @ 2.80GHz");
        assert_eq!(parse_cores(CPUINFO).unwrap(), 2);
        assert_eq!(parse_memory("MemTotal:       24601988 kB\n").unwrap(), 24_601_988 * 1024);
        assert_eq!(parse_nofile(LIMITS).unwrap(), (Some(1024), Some(20_000)));
        let unlimited = "Max open files            unlimited            unlimited  files\n";
        assert_eq!(parse_nofile(unlimited).unwrap(), (None, None));
    }

    #[test]
    fn missing_text_is_an_error() {
        assert!(parse_cores("").is_err());
        assert!(parse_memory("MemFree: 1 kB\n").is_err());
        assert!(parse_nofile("Max processes 1 2\n").is_err());
        assert!(parse_nofile("Max open files  1024\n").is_err());
        assert_eq!(parse_cpu_model("flags: x"), None);
    }

    #[test]
    fn commands_can_be_pasted() {
        let line = |words: &[&str]| command_line(words.iter().map(|w| (*w).to_owned()));
        assert_eq!(
            line(&["/x/y/drumline-bench", "idle", "--n=1000"]),
            "drumline-bench idle --n=1000"
        );
        assert_eq!(line(&["b", "two words", "it's", ""]), r"b 'two words' 'it'\''s' ''");
    }

    #[test]
    fn collected_here() {
        let here = Environment::collect(false).unwrap();
        assert_eq!(here.day().len(), 10);
        assert!(here.date.ends_with('Z') && here.date.len() == 20, "{}", here.date);
        assert!(here.commit.len() >= 9);
        let text = serde_json::to_string(&here).unwrap();
        assert_eq!(serde_json::from_str::<Environment>(&text).unwrap(), here);
    }
}
