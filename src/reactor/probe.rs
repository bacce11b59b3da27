//! Probes, once and before anything is opened, whether this kernel supports the reactor, so that a failure is one clear
//! line.

use super::{UringSize, uring_builder};
use crate::sys;
use io_uring::{IoUring, Probe, cqueue, opcode, types};
use std::os::fd::AsRawFd;
use std::{fmt, io};

/// The oldest kernel that supports everything that the reactor uses.
const KERNEL_FLOOR: &str = "6.1";

/// Why a reactor cannot run here, as one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel has no io_uring or is too old.
    #[error("io_uring: {missing} is missing in kernel {found}; Pinion needs Linux {KERNEL_FLOOR} or newer")]
    Missing {
        /// What is missing.
        missing: String,
        /// The running kernel.
        found: String,
    },
    /// The sysctl `kernel.io_uring_disabled` forbids it.
    #[error("io_uring is forbidden: sysctl kernel.io_uring_disabled = {0}; allow it with `sysctl kernel.io_uring_disabled=0`{hint}",
        hint = if *.0 == 1 { " (or give the process CAP_SYS_ADMIN, or its group in kernel.io_uring_group)" } else { "" })]
    Sysctl(u8),
    /// Something else forbids it; in practice a container's seccomp profile.
    #[error(
        "io_uring is forbidden ({0}) although the sysctl allows it: a seccomp profile, as containers have by default, denies \
        io_uring_setup; run with a profile that allows it (docker: --security-opt seccomp=FILE)"
    )]
    Seccomp(io::Error),
    /// The locked-memory limit is too low.
    #[error(
        "io_uring: too little lockable memory for {shards} shards (limit: {limit}); raise it with `ulimit -l` or systemd's \
        LimitMEMLOCK=, or use fewer shards (--shards)"
    )]
    LockedMemory {
        /// Number of shards to start.
        shards: usize,
        /// The limit, as text.
        limit: String,
    },
    /// Any other failed call.
    #[error("io_uring: {call}: {error}")]
    Call {
        /// The system call.
        call: &'static str,
        /// Its error.
        error: io::Error,
    },
}

impl StartError {
    /// Determines why io_uring_setup failed.
    pub(super) fn of_setup(error: io::Error, shards: usize) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS) if sys::io_uring_disabled().is_none() => Self::missing("the io_uring_setup system call"),
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => match sys::io_uring_disabled() {
                Some(value @ 1..) => Self::Sysctl(value),
                _ => Self::Seccomp(error),
            },
            Some(libc::EINVAL) => Self::missing("one of SINGLE_ISSUER, DEFER_TASKRUN, SUBMIT_ALL, TASKRUN_FLAG"),
            Some(libc::ENOMEM) => {
                let limit = sys::memlock_limit_bytes().map_or("none".into(), |b| format!("{} KiB", b / 1024));
                Self::LockedMemory { shards, limit }
            }
            _ => Self::Call { call: "io_uring_setup", error },
        }
    }

    fn missing(what: impl fmt::Display) -> Self {
        Self::Missing { missing: what.to_string(), found: sys::kernel_release() }
    }
}

/// Checks every feature that the reactor uses, with urings of the sizes that `shards` shards will use.
///
/// # Errors
/// The first feature that is missing or forbidden.
pub fn probe(size: UringSize, shards: usize) -> Result<(), StartError> {
    let build = || uring_builder(size).build(size.sq_entries).map_err(|e| StartError::of_setup(e, shards));
    let mut from = build()?;
    probe_operations(&from)?;
    probe_buffer_ring(&from)?;
    if shards > 1 {
        let mut to = build()?;
        probe_message(&mut from, &mut to)?;
    }
    Ok(())
}

fn probe_operations(uring: &IoUring) -> Result<(), StartError> {
    let mut supported = Probe::new();
    let asked = uring.submitter().register_probe(&mut supported);
    asked.map_err(|error| StartError::Call { call: "IORING_REGISTER_PROBE", error })?;
    let needed = [
        ("ACCEPT", opcode::AcceptMulti::CODE),
        ("RECV", opcode::RecvMulti::CODE),
        ("SEND", opcode::Send::CODE),
        ("READ", opcode::Read::CODE),
        ("MSG_RING", opcode::MsgRingData::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
        ("TIMEOUT", opcode::Timeout::CODE),
    ];
    match needed.iter().find(|(_, code)| !supported.is_supported(*code)) {
        Some((name, _)) => Err(StartError::missing(format!("the operation {name}"))),
        None => Ok(()),
    }
}

fn probe_buffer_ring(uring: &IoUring) -> Result<(), StartError> {
    let registered = super::ReceiveBuffers::register(&uring.submitter(), 2, 4096);
    registered.map_err(|_| StartError::missing("the provided buffer ring"))?;
    let gone = uring.submitter().unregister_buf_ring(super::buffers::GROUP);
    gone.map_err(|error| StartError::Call { call: "IORING_UNREGISTER_PBUF_RING", error })
}

/// Sends a message from one uring to another. Early kernels refuse that if the target defers its task work.
fn probe_message(from: &mut IoUring, to: &mut IoUring) -> Result<(), StartError> {
    let target = types::Fd(to.as_raw_fd());
    let message = opcode::MsgRingData::new(target, 0, 42, None).build();
    // SAFETY: the message carries two integers and no memory.
    unsafe { from.submission().push(&message) }.expect("an empty queue has room");
    let sent = from.submit_and_wait(1).map_err(|error| StartError::Call { call: "io_uring_enter", error })?;
    let result = from.completion().next().map_or(-libc::EAGAIN, |c: cqueue::Entry| c.result());
    if sent != 1 || result < 0 {
        return Err(StartError::missing("MSG_RING into a uring with DEFER_TASKRUN"));
    }
    let received = to.submit_and_wait(1).map_err(|error| StartError::Call { call: "io_uring_enter", error });
    received.and_then(|_| match to.completion().next().map(|c: cqueue::Entry| c.user_data()) {
        Some(42) => Ok(()),
        _ => Err(StartError::missing("MSG_RING into a uring with DEFER_TASKRUN")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_passes() {
        probe(UringSize::SMALL, 2).expect("the tests need io_uring");
    }

    #[test]
    fn each_refusal_names_its_cause() {
        let text = |errno| StartError::of_setup(io::Error::from_raw_os_error(errno), 4).to_string();
        assert!(text(libc::EINVAL).contains("Linux 6.1"), "{}", text(libc::EINVAL));
        assert!(text(libc::ENOMEM).contains("LimitMEMLOCK"), "{}", text(libc::ENOMEM));
        assert!(text(libc::EPERM).contains("forbidden"), "{}", text(libc::EPERM));
        assert!(StartError::Sysctl(2).to_string().contains("kernel.io_uring_disabled = 2"));
        assert!(!text(libc::EMFILE).contains('\n'));
    }
}
