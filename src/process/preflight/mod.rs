//! `drumline check`: how many connections this machine can hold, and what limits them.
//!
//! Owns the facts of the machine, the arithmetic on them, and for each finding its cause and its
//! cure. Never changes a setting (`scripts/tune.sh` does). Only `machine` reads the machine: a
//! [`Report`] follows from [`MachineFacts`] and [`Requirements`] alone.

mod facts;
mod fatal;
mod machine;
mod memlock;
mod parse;
mod report;

pub use self::facts::{Kernel, MachineFacts, Memlock, Requirements, Ring};
pub use self::fatal::Fatal;
pub use self::machine::{permitted, survey};
pub use self::report::{
    CapacityBound, Finding, KERNEL_BYTES, NODE_CONNECTIONS, Report, Severity, USER_BYTES,
    recommended_shards, ring_slots,
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use std::io;

    use super::parse::*;
    use super::report::*;
    use super::*;
    use crate::base::limits::SHARDS_MAX;
    use crate::config::{self, Sources};
    use crate::engine::node::RingSettings;
    use crate::engine::ring::Refusal;

    const GIB: u64 = 1 << 30;

    fn kernel(io_uring_disabled: Option<u64>, is_filtered: bool) -> Kernel {
        Kernel { release: "6.12.4".to_owned(), io_uring_disabled, is_filtered }
    }

    fn facts() -> MachineFacts {
        MachineFacts {
            kernel: kernel(Some(0), false),
            ring: Ring::Ready { missing: Vec::new() },
            nofile: Some((1024, 1 << 20)),
            memlock: None,
            may_raise: false,
            nr_open: Some(2_097_152),
            files: Some((2_400_000, 1_000)),
            cores: 8,
            available: Some(16 * GIB),
            cgroup_left: None,
            tcp_pages: Some(1_500_000),
            somaxconn: Some(32_768),
            syn_backlog: Some(16_384),
            slow_start_after_idle: Some(0),
            wmem_default: Some(16_384),
            local_ports: Some((10_240, 65_535)),
            conntrack: None,
            tcp_buckets: Some(1 << 20),
            cards: vec![("eth0".to_owned(), 8)],
            port_refused: None,
        }
    }

    fn request(shards: usize) -> Requirements {
        let rings = RingSettings { submissions: 1024, completions: 65_536, buffers: 128 };
        let connections = 1_000_000;
        Requirements { shards, port: 8000, connections, slots_per_shard: 0, rings }
    }

    fn report(change: impl FnOnce(&mut MachineFacts, &mut Requirements)) -> Report {
        let mut report = Report { request: request(8), facts: facts(), default_shards: None };
        change(&mut report.facts, &mut report.request);
        report
    }

    #[test]
    fn a_tuned_machine_has_no_findings() {
        let report = report(|_, _| {});
        assert_eq!(report.findings(), []);
        assert_eq!(report.verdict(), Ok(()));
        assert!(report.capacity() >= Some(1_000_000));
        assert!(report.to_string().contains("1000000 are wanted"));
    }

    #[test]
    fn recommended_shards_follow_cores_until_descriptors_run_short() {
        let table = [
            (2, 20_000, 1_000_000, 56),
            (8, 1 << 20, 1_000_000, 8),
            (1, 1 << 20, 1_000_000, 2),
            (1, 1 << 20, 100_000, 1),
            (1, u64::MAX, 2_000_000, 3),
            (128, 1 << 20, 1_000_000, SHARDS_MAX),
            (4, 1024, 1_000_000, SHARDS_MAX),
            (0, 0, 1, 2),
            (0, 0, 100, SHARDS_MAX),
            (4, 0, 0, 4),
            (4, 1024, u64::MAX, SHARDS_MAX),
        ];
        for (cores, nofile, wanted, shards) in table {
            assert_eq!(
                recommended_shards(cores, nofile, wanted),
                shards,
                "{cores} cores, {nofile}, {wanted}"
            );
        }
    }

    /// All numbers after `--shards` in a text.
    fn advised_shards(text: &str) -> Vec<String> {
        let numbers = text.split("--shards ").skip(1);
        numbers.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect()).collect()
    }

    #[test]
    fn the_configuration_accepts_every_advised_number_of_shards() {
        let accepts = |shards: String| {
            let flags = vec![("shards".to_owned(), shards)];
            let sources = Sources { file: None, environment: Vec::new(), flags };
            config::load(&sources).map(|loaded| loaded.config.shards)
        };
        let mut advised = BTreeSet::new();
        for cores in [0, 1, 2, 8, 62, 63, 64, 65, 128, 1024] {
            for nofile in [0, 1, 1024, 17_777, 20_000, 1 << 20, u64::MAX] {
                for connections in [0, 1, 100, 1_000_000, 63 << 20, 64 << 20, u64::MAX] {
                    let shards = recommended_shards(cores, nofile, connections);
                    advised.insert(shards.to_string());
                    for (running, may_raise, limit) in [(1, true, None), (shards, false, Some(8))] {
                        let report = report(|facts, request| {
                            (facts.cores, facts.may_raise) = (cores, may_raise);
                            facts.nofile = Some((1024, nofile));
                            facts.memlock =
                                limit.map(|mib| Memlock { bytes: mib * MIB, counts: true });
                            (request.shards, request.connections) = (running, connections);
                        });
                        advised.extend(advised_shards(&report.to_string()));
                    }
                }
            }
        }
        assert!(advised.contains(&SHARDS_MAX.to_string()), "{advised:?}");
        for shards in advised {
            assert_eq!(accepts(shards.clone()).map(|shards| shards.to_string()), Ok(shards));
        }
        assert!(accepts((SHARDS_MAX + 1).to_string()).is_err());
    }

    #[test]
    fn memory_need_includes_the_fixed_part() {
        let fixed = 32 * MIB;
        for (bytes, connections) in [
            (0, 0),
            (fixed, 0),
            (fixed + 4_699, 0),
            (fixed + 4_700, 1),
            (fixed + 4_700_000_000, 1_000_000),
        ] {
            assert_eq!(memory_connections(bytes, 8), connections, "{bytes} bytes");
        }
        assert_eq!(memory_need(1_000_000, 8), fixed + 4_700_000_000);
    }

    #[test]
    fn the_lowest_limit_is_named_with_its_cure() {
        type ChangeFacts = fn(&mut MachineFacts);
        let table: [(ChangeFacts, &str, u64, &str); 7] = [
            (|f| f.nofile = Some((1024, 20_000)), "RLIMIT_NOFILE", 160_000, "--shards 56"),
            (
                |f| (f.nofile, f.may_raise) = (Some((1024, 20_000)), true),
                "RLIMIT_NOFILE",
                160_000,
                "ulimit -n 1048576 (or --shards 56)",
            ),
            (
                |f| (f.nofile, f.nr_open) = (Some((1024, 4_096)), Some(65_536)),
                "RLIMIT_NOFILE",
                32_768,
                "sysctl -w fs.nr_open=2097152 && ulimit -n 1048576 (as root, before the server starts)",
            ),
            (
                |f| f.available = Some(32 * MIB + 47_000_000),
                "memory",
                10_000,
                "free or add memory: 4515 MiB are needed",
            ),
            (
                |f| f.cgroup_left = Some(32 * MIB + 4_700),
                "cgroup memory",
                1,
                "raise the memory limit of the container or unit (MemoryMax=): 4515 MiB are needed",
            ),
            (
                |f| f.files = Some((100_000, 1_000)),
                "fs.file-max",
                99_000,
                "sysctl -w fs.file-max=2097152",
            ),
            (|f| f.tcp_pages = Some(98_152), "net.ipv4.tcp_mem", 392_608, TUNE),
        ];
        for (change, name, connections, cure) in table {
            let report = report(|facts, _| change(facts));
            let tightest = report.bounds().remove(0);
            assert_eq!(
                (tightest.name, tightest.connections, tightest.cure.as_str()),
                (name, connections, cure)
            );
            assert_eq!(report.capacity(), Some(connections));
            assert_eq!(report.findings().len(), 1, "{name}");
            let text = report.to_string();
            assert!(text.contains(&format!("The limit is {name}.")), "{text}");
            assert!(text.contains(&format!("cure: {cure}\n")), "{text}");
        }
    }

    #[test]
    fn more_rings_than_memlock_holds_are_fatal() {
        let limited = |bytes, counts, shards| {
            report(|facts, request| {
                facts.memlock = Some(Memlock { bytes, counts });
                facts.nofile = Some((1024, 20_000));
                request.shards = shards;
            })
        };
        // A ring of 20,000 slots: 32,768 completions of 16 bytes, 1,024 submissions, 128 buffers.
        let usual = limited(8 << 20, true, 16);
        let refused = usual.verdict().unwrap_err();
        let fatal = Fatal::Memlock { limit: 8192, each: 588, fits: 13, shards: 16, need: 9472 };
        assert_eq!(refused, fatal);
        let text = refused.to_string();
        for part in ["ulimit -l 9472", "LimitMEMLOCK=9472K", "or use --shards 13", "16 shards"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(usual.findings()[0].severity, Severity::Fatal);
        let tightest = usual.bounds().remove(0);
        assert_eq!((tightest.name, tightest.connections), ("RLIMIT_MEMLOCK", 260_000));
        assert!(usual.to_string().contains("memlock      8388608 bytes, including rings"));
        assert!(!limited(1 << 16, true, 1).verdict().unwrap_err().to_string().contains("--shards"));
        for fits in [
            limited(8 << 20, true, 13),
            limited(9472 << 10, true, 16),
            limited(8 << 20, false, 16),
            limited(u64::MAX, true, 60),
        ] {
            assert_eq!(fits.verdict(), Ok(()), "{:?}", fits.facts.memlock);
        }
    }

    #[test]
    fn one_shard_is_limited_by_the_table_of_its_ring() {
        let report = report(|_, request| (request.shards, request.connections) = (1, 2_000_000));
        let bound = report.slots().expect("the limit is known");
        assert_eq!((bound.connections, bound.cure.as_str()), (RING_SLOTS, "--shards 8"));
    }

    #[test]
    fn the_report_says_how_to_hold_more_than_the_default() {
        let text = |default_shards, nofile| {
            let mut report = report(|facts, request| {
                (facts.cores, facts.nofile) = (2, Some((1024, nofile)));
                request.shards = recommended_shards(2, nofile, request.connections);
            });
            report.default_shards = default_shards;
            report.to_string()
        };
        let more = "starts with 2 shards, one per core, which hold 40000. To hold 1120000, start it with --shards 56.";
        assert!(text(Some(2), 20_000).contains(more), "{}", text(Some(2), 20_000));
        assert!(!text(None, 20_000).contains("starts with"));
        assert!(!text(Some(2), 1 << 20).contains("starts with"));
    }

    #[test]
    fn unreadable_facts_limit_nothing() {
        let report =
            report(|f, _| (f.nofile, f.available, f.files, f.tcp_pages) = (None, None, None, None));
        assert_eq!((report.capacity(), report.findings()), (None, Vec::new()));
        assert!(report.to_string().contains("soft unknown, hard unknown"));
    }

    #[test]
    fn every_refusal_has_a_cause_and_a_cure() {
        let (setup, enter) = ("io_uring_setup", "io_uring_enter");
        let of = |call, errno| Refusal { call, errno };
        let table = [
            (of(setup, libc::ENOSYS), None, true, "has no io_uring (ENOSYS)", "6.8 or newer"),
            (of(setup, libc::ENOSYS), Some(0), true, "ENOSYS: the seccomp filter", "seccomp.json"),
            (of(setup, libc::ENOSYS), Some(0), false, "a sandbox denies it", "outside of the"),
            (of(setup, libc::EPERM), Some(2), true, "disabled = 2", "io_uring_disabled=0"),
            (of(setup, libc::EPERM), Some(1), false, "disabled = 1", "io_uring_group"),
            (of(setup, libc::EPERM), Some(0), true, "EPERM: the seccomp filter", "Docker Desktop"),
            (of(enter, libc::EPERM), Some(2), true, "io_uring_enter failed", "SystemCallFilter="),
            (of(setup, libc::EACCES), None, false, "security module", "journalctl -k"),
            (of(setup, libc::EINVAL), None, false, "Linux 6.12.4 does not support", "6.8 or newer"),
            (of(setup, libc::ENOMEM), Some(0), false, "ENOMEM", "ulimit -l"),
            (of(setup, libc::EMFILE), Some(0), false, "EMFILE", "ulimit -n"),
            (of(enter, libc::EIO), Some(0), false, "io_uring_enter failed", "dmesg"),
        ];
        for (refusal, disabled, is_filtered, cause, cure) in table {
            let report = report(|f, _| {
                f.ring = Ring::Refused(refusal);
                f.kernel = kernel(disabled, is_filtered);
            });
            let first = &report.findings()[0];
            assert_eq!(first.severity, Severity::Fatal);
            assert!(first.cause.contains(cause) && first.cure.contains(cure), "{first:?}");
            assert_eq!(report.verdict().unwrap_err().failure().cause, first.cause);
        }
    }

    #[test]
    fn missing_operations_are_listed() {
        let report =
            report(|f, _| f.ring = Ring::Ready { missing: vec!["MsgRing", "FixedFdInstall"] });
        let text = report.verdict().expect_err("operations are missing").to_string();
        assert!(text.contains("6.12.4 lacks MsgRing, FixedFdInstall"), "{text}");
    }

    #[test]
    fn each_unfavourable_setting_gives_one_finding() {
        type ChangeReport = fn(&mut MachineFacts, &mut Requirements);
        let table: [(ChangeReport, Severity, &str, &str); 10] = [
            (|f, _| f.tcp_buckets = Some(262_144), Severity::Advice, "buckets", "thash_entries="),
            (
                |f, _| f.cards = vec![("eth0".to_owned(), 8), ("eth1".to_owned(), 1)],
                Severity::Advice,
                "eth1 has 1 receive queues for 8 cores",
                "ethtool -L eth1 combined 8",
            ),
            (|f, _| f.somaxconn = Some(4_096), Severity::Advice, "somaxconn", TUNE),
            (|f, _| f.syn_backlog = Some(2_048), Severity::Advice, "syn_backlog", TUNE),
            (|f, _| f.slow_start_after_idle = Some(1), Severity::Advice, "slow_start", TUNE),
            (|f, _| f.wmem_default = Some(8 * MIB), Severity::Advice, "tcp_wmem", TUNE),
            (
                |_, r| r.port = 40_000,
                Severity::Advice,
                "port_range",
                "ip_local_reserved_ports=40000",
            ),
            (|f, _| f.conntrack = Some((12, 65_536)), Severity::Advice, "tracked", "notrack"),
            (
                |f, _| f.port_refused = Some(io::ErrorKind::AddrInUse),
                Severity::Fatal,
                "port 8000: address in use",
                "ss -ltnp",
            ),
            (|_, r| r.shards = 9, Severity::Advice, "more shards than cores", "ulimit -n"),
        ];
        for (change, severity, cause, cure) in table {
            let findings = report(change).findings();
            assert_eq!(findings.len(), 1, "{cause}: {findings:?}");
            assert_eq!(findings[0].severity, severity);
            assert!(
                findings[0].cause.contains(cause) && findings[0].cure.contains(cure),
                "{findings:?}"
            );
        }
        let idle = report(|f, _| f.conntrack = Some((0, 65_536)));
        assert_eq!(idle.findings(), []);
    }

    #[test]
    fn limits_are_parsed() {
        let head =
            "Limit                     Soft Limit           Hard Limit           Units     \n";
        let table = [
            (
                "Max open files            1024                 524288               files     \n",
                Some((1024, 524_288)),
            ),
            (
                "Max open files            unlimited            unlimited            files\n",
                Some((u64::MAX, u64::MAX)),
            ),
            ("Max open files            1024\n", None),
            ("Max processes             1                    2\n", None),
        ];
        for (line, limits) in table {
            assert_eq!(parse_limits(&format!("{head}{line}"), "Max open files"), limits, "{line}");
        }
    }

    #[test]
    fn proc_files_are_parsed() {
        assert_eq!(parse_available("MemTotal: 8 kB\nMemAvailable:    2048 kB\n"), Some(2 * MIB));
        assert_eq!(parse_available("MemTotal: 8 kB\n"), None);
        assert!(parse_may_raise("Name: x\nCapEff:\t000001ffffffffff\n"));
        assert!(!parse_may_raise("CapEff:\t00000000a80425fb\n"));
        assert!(!parse_may_raise(""));
        assert!(parse_is_filtered("Name: x\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
        assert!(!parse_is_filtered("Seccomp:\t0\nSeccomp_filters:\t2\n"));
        assert_eq!(number_at("287901\t383868\t575802\n", 2), Some(575_802));
        assert_eq!(number_at("4096\n", 1), None);
        assert_eq!(parse_buckets("262144\n"), Some(262_144));
        assert_eq!(parse_buckets("-262144\n"), Some(262_144));
        assert_eq!(parse_buckets("0\n"), None);
        assert_eq!(parse_inactive_file("inactive_file 7\ntotal_inactive_file 9\n"), 9);
        assert_eq!(parse_inactive_file("file 3\ninactive_file 7\n"), 7);
        assert_eq!(parse_inactive_file(""), 0);
        for (text, limit) in [
            ("max\n", None),
            ("1073741824\n", Some(GIB)),
            ("9223372036854771712\n", None),
            ("", None),
        ] {
            assert_eq!(parse_limit(text), limit, "{text}");
        }
    }

    #[test]
    fn a_survey_of_this_machine_prints() {
        let report = survey(&Requirements { port: 0, ..request(0) });
        assert!((1..=SHARDS_MAX).contains(&report.request.shards));
        assert!(report.facts.nofile.is_some() && report.facts.available.is_some());
        println!("{report}");
        assert!(report.to_string().contains("This machine can hold"));
    }
}
