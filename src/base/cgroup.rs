//! Control groups: the groups that contain this process, and how much processor time they grant.
//!
//! Owns the parsing of both versions. Never changes a group. A text with an unexpected format
//! limits nothing.

use std::fs;

/// A group that contains this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Folder of the group's files.
    pub folder: String,
    /// Whether it is a group of version 1, whose files have other names.
    pub is_first_version: bool,
}

impl Group {
    /// Text of one of the group's files, by its name in version 1 and in version 2.
    pub fn read(&self, first: &str, second: &str) -> Option<String> {
        let name = if self.is_first_version { first } else { second };
        fs::read_to_string(format!("{}/{name}", self.folder)).ok()
    }
}

/// The groups of this process for a controller: its own, and all above it that can be seen.
pub fn groups(controller: &str) -> Vec<Group> {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    parse_groups(&read("cgroup"), &read("mountinfo"), controller)
}

/// Processors that the groups of this process grant, rounded down, because workers that exceed
/// the quota stop until the next period; at least 1. `None`: there is no quota.
pub fn processor_quota() -> Option<usize> {
    let quotas = groups("cpu").into_iter().filter_map(|group| {
        let quota = match group.is_first_version {
            false => group.read("", "cpu.max")?,
            true => {
                let part = |name| group.read(name, "");
                format!("{} {}", part("cpu.cfs_quota_us")?.trim(), part("cpu.cfs_period_us")?)
            }
        };
        parse_quota(&quota)
    });
    quotas.min()
}

/// Whole processors of a quota: `200000 100000` is 2. `None`: `max`, or -1, which means no quota
/// in version 1.
fn parse_quota(text: &str) -> Option<usize> {
    let mut words = text.split_whitespace();
    let mut number = || words.next()?.parse::<usize>().ok();
    let (quota, period) = (number()?, number()?);
    Some(quota.checked_div(period)?.max(1))
}

/// The groups that `/proc/self/cgroup` names for a controller, in the folders where
/// `/proc/self/mountinfo` shows them. The innermost group is first.
fn parse_groups(cgroup: &str, mounts: &str, controller: &str) -> Vec<Group> {
    let mut groups = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let is_first_version = !controllers.is_empty();
        if is_first_version && !controllers.split(',').any(|name| name == controller) {
            continue;
        }
        let wanted = is_first_version.then_some(controller);
        let Some((root, mount)) = mounts.lines().find_map(|line| mount_of(line, wanted)) else {
            continue;
        };
        let mut inner = inside(path, root);
        loop {
            groups.push(Group { folder: format!("{mount}{inner}"), is_first_version });
            let Some(cut) = inner.rfind('/') else { break };
            inner = &inner[..cut];
        }
    }
    groups
}

/// Root and mount point of a line of mountinfo, if it mounts this controller of version 1, or
/// version 2 for `None`.
fn mount_of<'a>(line: &'a str, controller: Option<&str>) -> Option<(&'a str, &'a str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    let is_wanted = match controller {
        None => kind == "cgroup2",
        Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
    };
    let mut before = before.split(' ').skip(3);
    let found = (before.next()?, before.next()?);
    is_wanted.then_some(found)
}

/// The part of a group's path below the root of its mount. A container may see only the files of
/// its own group, at the mount point, but its path on the host.
fn inside<'a>(path: &'a str, root: &str) -> &'a str {
    let path = path.trim_end_matches('/');
    if root == "/" {
        return if path.split('/').any(|part| part == "..") { "" } else { path };
    }
    match path.strip_prefix(root) {
        Some(inner) if inner.is_empty() || inner.starts_with('/') => inner,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: &str = "25 1 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
    const FIRST: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
        35 31 0:32 /docker/a /sys/fs/cgroup/memory ro master:9 - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn groups_go_up_to_the_mount_point() {
        let table: [(&str, &str, &str, &[&str]); 10] = [
            ("0::/\n", SECOND, "cpu", &["/sys/fs/cgroup"]),
            (
                "0::/a/b\n",
                SECOND,
                "cpu",
                &["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"],
            ),
            ("0::/../b\n", SECOND, "cpu", &["/sys/fs/cgroup"]),
            (
                "4:cpu,cpuacct:/a\n3:cpuset:/b\n0::/\n",
                FIRST,
                "cpu",
                &["/sys/fs/cgroup/cpu,cpuacct/a", "/sys/fs/cgroup/cpu,cpuacct", UNIFIED],
            ),
            (
                "2:memory:/docker/a/c\n",
                FIRST,
                "memory",
                &["/sys/fs/cgroup/memory/c", "/sys/fs/cgroup/memory"],
            ),
            ("2:memory:/docker/ab\n", FIRST, "memory", &["/sys/fs/cgroup/memory"]),
            ("2:memory:/docker/a\n", FIRST, "memory", &["/sys/fs/cgroup/memory"]),
            ("2:memory:/a\n", SECOND, "memory", &[]),
            ("nonsense\n", FIRST, "cpu", &[]),
            ("0::/a\n", "nonsense - \n\n", "cpu", &[]),
        ];
        for (cgroup, mounts, controller, folders) in table {
            let found = parse_groups(cgroup, mounts, controller);
            let found: Vec<_> = found.iter().map(|group| group.folder.as_str()).collect();
            assert_eq!(found, folders, "{cgroup}");
        }
    }

    const UNIFIED: &str = "/sys/fs/cgroup/unified";

    #[test]
    fn the_version_of_a_group_follows_its_line() {
        let found = parse_groups("4:cpu,cpuacct:/\n0::/\n", FIRST, "cpu");
        let versions: Vec<_> = found.iter().map(|group| group.is_first_version).collect();
        assert_eq!(versions, [true, false]);
    }

    #[test]
    fn a_quota_is_rounded_down_to_whole_processors() {
        let table = [
            ("max 100000\n", None),
            ("-1 100000\n", None),
            ("200000 100000\n", Some(2)),
            ("250000 100000\n", Some(2)),
            ("199999 100000\n", Some(1)),
            ("50000 100000\n", Some(1)),
            ("0 100000\n", Some(1)),
            ("20000 10000\n", Some(2)),
            ("6400000 100000\n", Some(64)),
            ("200000\n", None),
            ("200000 0\n", None),
            ("", None),
        ];
        for (text, processors) in table {
            assert_eq!(parse_quota(text), processors, "{text:?}");
        }
    }
}
