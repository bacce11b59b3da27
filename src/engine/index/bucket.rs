//! A bucket: one cache line of entries.

use crate::engine::arena::Reference;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Entries in a bucket.
pub(in crate::engine) const ENTRIES: usize = 10;

/// Bytes of a bucket.
pub(in crate::engine) const BUCKET_BYTES: usize = 64;

/// The tag of a free entry.
const FREE: u8 = 0;

/// The lowest bits of `meta` count the entries whose home is this bucket and that are stored elsewhere. The counter
/// saturates: at the maximum it is no longer exact and never decreases. The other bits are the line of the chained
/// bucket, or 0.
const DISPLACED_BITS: u32 = 4;
const DISPLACED_MAX: u32 = (1 << DISPLACED_BITS) - 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub(in crate::engine) struct Bucket {
    /// 8 bits of the hash, never 0; 0 marks a free entry.
    tags: [u8; ENTRIES],
    /// The byte that the eviction policy keeps per entry.
    policies: [u8; ENTRIES],
    references: [Reference; ENTRIES],
    meta: u32,
}

const _: () = assert!(size_of::<Bucket>() == BUCKET_BYTES);

impl Bucket {
    /// The bucket at a line of the arena.
    #[inline]
    pub(in crate::engine) fn at(memory: &[u8], line: u32) -> &Self {
        let from = line as usize * BUCKET_BYTES;
        Self::ref_from_bytes(&memory[from..from + BUCKET_BYTES]).expect("a line is aligned")
    }

    #[inline]
    pub(in crate::engine) fn at_mut(memory: &mut [u8], line: u32) -> &mut Self {
        let from = line as usize * BUCKET_BYTES;
        Self::mut_from_bytes(&mut memory[from..from + BUCKET_BYTES]).expect("a line is aligned")
    }

    /// A bit mask of the entries with this tag.
    #[inline]
    pub(super) fn matches(&self, tag: u8) -> u32 {
        let mut bits = 0;
        for (i, &t) in self.tags.iter().enumerate() {
            bits |= u32::from(t == tag) << i;
        }
        bits
    }

    /// A bit mask of the entries in use.
    #[inline]
    pub(in crate::engine) fn used(&self) -> u32 {
        !self.matches(FREE) & ((1 << ENTRIES) - 1)
    }

    /// A free entry.
    #[inline]
    pub(super) fn free_entry(&self) -> Option<usize> {
        let free = self.matches(FREE);
        (free != 0).then_some(free.trailing_zeros() as usize)
    }

    #[inline]
    pub(in crate::engine) fn reference(&self, entry: usize) -> Reference {
        self.references[entry]
    }

    #[inline]
    pub(super) fn set_reference(&mut self, entry: usize, reference: Reference) {
        self.references[entry] = reference;
    }

    #[inline]
    pub(in crate::engine) fn policy(&self, entry: usize) -> u8 {
        self.policies[entry]
    }

    #[inline]
    pub(in crate::engine) fn set_policy(&mut self, entry: usize, byte: u8) {
        self.policies[entry] = byte;
    }

    #[inline]
    pub(super) fn set(&mut self, entry: usize, tag: u8, reference: Reference, policy: u8) {
        self.tags[entry] = tag;
        self.references[entry] = reference;
        self.policies[entry] = policy;
    }

    pub(super) fn clear(&mut self, entry: usize) {
        self.tags[entry] = FREE;
    }

    /// True if entries whose home is this bucket are stored elsewhere.
    #[inline]
    pub(super) fn has_displaced(&self) -> bool {
        self.meta & DISPLACED_MAX != 0
    }

    pub(super) fn one_more_displaced(&mut self) {
        if self.meta & DISPLACED_MAX != DISPLACED_MAX {
            self.meta += 1;
        }
    }

    pub(super) fn one_less_displaced(&mut self) {
        debug_assert!(self.has_displaced());
        if self.meta & DISPLACED_MAX != DISPLACED_MAX {
            self.meta -= 1;
        }
    }

    /// The line of the next bucket in the chain; 0 at its end.
    #[inline]
    pub(super) fn chained(&self) -> u32 {
        self.meta >> DISPLACED_BITS
    }

    pub(super) fn set_chained(&mut self, line: u32) {
        self.meta = self.meta & DISPLACED_MAX | line << DISPLACED_BITS;
    }

    #[cfg(test)]
    pub(super) fn check_displaced(&self, count: u32) {
        let counted = self.meta & DISPLACED_MAX;
        assert!(counted == count || counted == DISPLACED_MAX, "{count} displaced, not {counted}");
    }
}
