//! Hashes of keys, and how their bits are used.

use super::index::HashPosition;
use crate::command::DATABASES;

const DATABASE_SHIFT: u32 = 2;
const DATABASE_BITS: u64 = (DATABASES as u64 - 1) << DATABASE_SHIFT;

/// Hash of a key, computed once per request; it means nothing outside the process.
///
/// The index, the ghost and the marks use disjoint bits: `index/mod.rs` draws them. Four bits that none of these use
/// hold the number of the key's database, so that equal keys in different databases are different items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// Position in hash order.
    #[inline]
    pub(super) fn position(self) -> HashPosition {
        (self.0 >> 32) as HashPosition
    }

    /// The 16 bits that the ghost keeps.
    #[inline]
    pub(super) fn fingerprint(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The 8 bits that an index entry keeps, never 0.
    #[inline]
    pub(super) fn tag(self) -> u8 {
        ((self.0 >> 8) as u8).max(1)
    }

    /// Number of the key's database.
    #[inline]
    pub fn database(self) -> u8 {
        (self.0 >> DATABASE_SHIFT) as u8 & (DATABASES as u8 - 1)
    }

    /// The hash of this key in another database.
    #[inline]
    #[must_use]
    pub fn in_database(self, number: u8) -> Self {
        debug_assert!(usize::from(number) < DATABASES && self.database() == 0);
        let mixed = self.0 ^ u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self(mixed & !DATABASE_BITS | u64::from(number) << DATABASE_SHIFT)
    }

    /// Number of the home bucket within its quad.
    #[inline]
    pub(super) fn home(self) -> u32 {
        (self.0 & 3) as u32
    }
}

/// Hashes keys with a seed that is chosen once per process, so that no client can aim at one bucket.
#[derive(Clone, Debug)]
pub struct KeyHasher(ahash::RandomState);

impl KeyHasher {
    /// A hasher with a random seed. Clones of it agree.
    pub fn new() -> Self {
        Self(ahash::RandomState::new())
    }

    /// A hasher with a known seed, for tests and benchmarks.
    pub fn with_seed(seed: u64) -> Self {
        Self(ahash::RandomState::with_seeds(seed, !seed, seed.rotate_left(17), seed ^ 0x9E37_79B9_7F4A_7C15))
    }

    /// The hash of a key in database 0.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        KeyHash(hasher.finish() & !DATABASE_BITS)
    }
}

impl Default for KeyHasher {
    fn default() -> Self {
        Self::new()
    }
}
