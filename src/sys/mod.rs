//! Every syscall that is not made through io_uring, and the few CPU hints: memory mappings, affinity, sockets, limits.
//!
//! Callers see safe functions; the `unsafe` that they need is discharged here.

mod host;
mod memory;
mod socket;

pub use host::{
    allowed_cores, io_uring_disabled, kernel_release, memlock_limit_bytes, physical_memory_bytes, pin_to_core,
    raise_file_limit, resident_bytes, resource_usage,
};
pub use memory::{Mapping, Zeroable, prefetch};
pub use socket::{EventFd, addresses, listen, shut_down};
