//! The limits that the host sets for this process: cores, open files, memory, io_uring.

use super::cgroup;
use std::io;
use std::path::Path;
use std::time::Duration;

/// The cores that this process may use, ascending; taskset and cgroups are respected.
pub fn allowed_cores() -> Vec<usize> {
    let mut cores: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|c| c.id).collect();
    cores.sort_unstable();
    cores
}

/// Pins the calling thread to one core. False if the kernel refuses.
pub fn pin_to_core(core: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
}

/// Raises the soft limit of open files to `wanted`, or as far as the hard limit allows. Returns the resulting limit.
pub fn raise_file_limit(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one rlimit, which `limit` is.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let found = limit.rlim_cur;
    if wanted <= found {
        return Ok(found);
    }
    let raised = libc::rlimit { rlim_cur: wanted.min(limit.rlim_max), rlim_max: limit.rlim_max };
    // SAFETY: the call reads one rlimit.
    let now = if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0 { raised.rlim_cur } else { found };
    Ok(now)
}

/// The soft limit of locked memory, which urings count against if the process lacks CAP_IPC_LOCK; None if unlimited.
pub fn memlock_limit_bytes() -> Option<u64> {
    soft_limit(libc::RLIMIT_MEMLOCK)
}

fn soft_limit(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one rlimit, which `limit` is.
    let failed = unsafe { libc::getrlimit(resource, &mut limit) } != 0;
    (!failed && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// The sysctl `kernel.io_uring_disabled`: 0 allows io_uring, 1 restricts it to privileged processes, 2 forbids it. None
/// before Linux 6.6.
pub fn io_uring_disabled() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

/// The kernel release of uname(2), for messages.
pub fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "unknown".into(), |s| s.trim().into())
}

/// The soft limit of the process's address space (`ulimit -v`); None if unlimited.
pub fn address_space_limit_bytes() -> Option<u64> {
    soft_limit(libc::RLIMIT_AS)
}

/// Memory of the machine, or of the process's control groups if their limit is lower.
pub fn physical_memory_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find(|l| l.starts_with("MemTotal:"))?;
    let machine = line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024;
    Some(cgroup::memory_limit_bytes(Path::new("/")).map_or(machine, |limit| limit.min(machine)))
}

/// Resident bytes of the process, if the kernel reports them.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// CPU time of the whole process: (user, system).
pub fn resource_usage() -> (Duration, Duration) {
    // SAFETY: zero is a value of every field of rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes one rusage, which `usage` is. It cannot fail with these arguments.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    (time(usage.ru_utime), time(usage.ru_stime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_can_be_asked() {
        assert!(!allowed_cores().is_empty());
        assert!(physical_memory_bytes().is_some_and(|b| b > 1 << 20));
        let limit = raise_file_limit(0).expect("getrlimit");
        assert_eq!(raise_file_limit(limit).expect("getrlimit"), limit);
    }
}
