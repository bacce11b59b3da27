//! Versions of items: 48 bits, unique and increasing within a group.
//!
//! ```text
//! | epoch 16 | sequence 32 |
//! ```
//!
//! Each group counts its own writes. The epoch names the node that assigned the number, once there is a cluster to
//! agree on it; a sequence that overflows increments it. Versions serve as memcached's CAS.

use super::item::VERSION_MAX;
use crate::slots::{GROUPS, Group};

/// The last version assigned in each group.
#[derive(Clone, Debug)]
pub(super) struct Versions(Box<[u64; GROUPS]>);

impl Versions {
    pub(super) fn new() -> Self {
        Self(Box::new([0; GROUPS]))
    }

    /// Assigns the version of a write. A write that fails afterwards leaves a gap.
    #[inline]
    pub(super) fn next(&mut self, group: Group) -> u64 {
        let last = &mut self.0[group.index()];
        // At a million writes a second to one group this wraps after nine years.
        *last = (*last + 1) & VERSION_MAX;
        *last
    }

    /// True if the version was assigned before this copy of the counters was made.
    pub(super) fn includes(&self, group: Group, version: u64) -> bool {
        version <= self.0[group.index()]
    }
}
