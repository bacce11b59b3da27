//! The memory limits of the control groups that the process is in.

use std::path::Path;

/// The lowest memory limit, in bytes, of the process's control group and of those above it; None if there is none.
/// `root` is the root of the file system.
///
/// ```text
/// /proc/self/cgroup       file of a group's limit
/// 0::/a/b                 /sys/fs/cgroup/a/b/memory.max                     version 2
/// 5:memory:/a/b           /sys/fs/cgroup/memory/a/b/memory.limit_in_bytes   version 1
/// ```
///
/// In a container the path may be the host's, and its groups invisible: then the root's file, which is the container's
/// own group, counts.
pub(super) fn memory_limit_bytes(root: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let limit = |group: &Path| {
            let group = group.strip_prefix("/").unwrap_or(group);
            // A group without a limit says `max`, or a number larger than any machine's memory.
            std::fs::read_to_string(root.join(mount).join(group).join(file)).ok()?.trim().parse::<u64>().ok()
        };
        Path::new(path).ancestors().filter_map(limit).min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit in a file system with these files.
    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("in a directory")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        }
        memory_limit_bytes(root.path())
    }

    /// Only the root's file of version 2 was read, so that `-m 80%` was of the host's memory almost everywhere.
    #[test]
    fn the_lowest_limit_of_all_groups_counts() {
        let nested = ("proc/self/cgroup", "0::/system.slice/pinion.service\n");
        let own = "sys/fs/cgroup/system.slice/pinion.service/memory.max";
        let above = "sys/fs/cgroup/system.slice/memory.max";
        assert_eq!(limit(&[nested, (own, "1000\n"), (above, "2000\n")]), Some(1000));
        assert_eq!(limit(&[nested, (own, "max\n"), (above, "2000\n")]), Some(2000));
        assert_eq!(limit(&[nested, (own, "max\n"), (above, "max\n")]), None);
        // In a container with a namespace of its own.
        assert_eq!(limit(&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "3000\n")]), Some(3000));
        assert_eq!(limit(&[]), None);
    }

    #[test]
    fn version_1_too() {
        let groups = ("proc/self/cgroup", "9:cpu,cpuacct:/x\n5:memory:/docker/abc\n1:name=systemd:/x\n0::/x\n");
        let own = "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes";
        assert_eq!(limit(&[groups, (own, "4096\n")]), Some(4096));
        // The host's path, which a container does not see.
        assert_eq!(limit(&[groups, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n")]), Some(5000));
        let unlimited = "9223372036854771712\n";
        assert_eq!(limit(&[groups, (own, unlimited)]), Some(9_223_372_036_854_771_712));
    }
}
