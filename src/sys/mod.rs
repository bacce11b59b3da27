//! All system calls that are not made through io_uring, and CPU hints: memory mappings, affinity, sockets, limits.
//!
//! Callers see safe functions; this module discharges the preconditions of its `unsafe` blocks.

mod cgroup;
mod host;
mod memory;
mod socket;

pub use host::{
    address_space_limit_bytes, allowed_cores, io_uring_disabled, kernel_release, memlock_limit_bytes,
    physical_memory_bytes, pin_to_core, raise_file_limit, resident_bytes, resource_usage,
};
pub use memory::{Lease, Mapping, Zeroable, prefetch, return_free_memory, return_large_memory};
pub use socket::{EventFd, LISTEN_BACKLOG, addresses, keep_alive, listen, shut_down};
