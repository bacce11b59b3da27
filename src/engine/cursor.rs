//! Cursors of scans, as clients see them.
//!
//! Inside, a cursor is a position in the order of hashes. Whoever sees one learns the upper bits of hashes, of keys or
//! of members, and could collect keys that collide. So a client gets it under a permutation with a secret key: a
//! Feistel network over the halves of the cursor (Luby and Rackoff, "How to Construct Pseudorandom Permutations from
//! Pseudorandom Functions", 1988). 0, where scans begin and end, stays 0.

use super::KeyHasher;
use super::collection::MEMBER_HASH_BITS;

/// Bits of a cursor over keys.
pub const KEY_CURSOR_BITS: u32 = 32;
/// Bits of a cursor over members or fields.
pub const MEMBER_CURSOR_BITS: u32 = MEMBER_HASH_BITS;

/// Four rounds suffice with random functions; the round function here is a mere mixer, so there are a few more.
const ROUNDS: usize = 8;

/// The permutation. All shards of a node have the same.
#[derive(Clone, Copy, Debug)]
pub struct Cursors {
    keys: [u64; ROUNDS],
}

impl Cursors {
    /// The key is as random as the hasher's: it consists of hashes that are used for nothing else.
    pub(super) fn new(hasher: &KeyHasher) -> Self {
        Self { keys: std::array::from_fn(|round| hasher.hash(&[b"keys of cursors", &[round as u8][..]].concat()).0) }
    }

    /// The client's form of a cursor of `bits` bits.
    pub fn seal(&self, cursor: u64, bits: u32) -> u64 {
        debug_assert!(bits.is_multiple_of(2) && cursor >> bits == 0);
        match cursor {
            0 => 0,
            // Some cursor is mapped to 0, which is taken: it gets the image of 0.
            _ => match self.forth(cursor, bits) {
                0 => self.forth(0, bits),
                sealed => sealed,
            },
        }
    }

    /// The cursor that a client sent. Any number is one, if not of a scan that was begun.
    pub fn open(&self, sealed: u64, bits: u32) -> u64 {
        let sealed = sealed & ((1 << bits) - 1);
        match sealed {
            0 => 0,
            _ if sealed == self.forth(0, bits) => self.back(0, bits),
            _ => self.back(sealed, bits),
        }
    }

    fn forth(&self, cursor: u64, bits: u32) -> u64 {
        let half = bits / 2;
        let (mut left, mut right) = (cursor >> half, cursor & ((1 << half) - 1));
        for key in self.keys {
            (left, right) = (right, left ^ mixed(right, key, half));
        }
        left << half | right
    }

    fn back(&self, cursor: u64, bits: u32) -> u64 {
        let half = bits / 2;
        let (mut left, mut right) = (cursor >> half, cursor & ((1 << half) - 1));
        for key in self.keys.into_iter().rev() {
            (left, right) = (right ^ mixed(left, key, half), left);
        }
        left << half | right
    }
}

/// The upper bits of a product chain as in SplitMix64.
fn mixed(half: u64, key: u64, bits: u32) -> u64 {
    let z = (half ^ key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30) ^ key.rotate_left(32)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z >> (u64::BITS - bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn it_is_a_permutation_that_keeps_zero() {
        for seed in 0..4 {
            let cursors = Cursors::new(&KeyHasher::with_seed(seed));
            let sealed: BTreeSet<_> = (0..1 << 16).map(|cursor| cursors.seal(cursor, 16)).collect();
            assert_eq!((sealed.len(), sealed.last()), (1 << 16, Some(&0xFFFF)));
            assert!((0..1 << 16).all(|cursor| cursors.open(cursors.seal(cursor, 16), 16) == cursor));
            assert_eq!(cursors.seal(0, 16), 0);
            for bits in [KEY_CURSOR_BITS, MEMBER_CURSOR_BITS] {
                for cursor in (0..1000).chain((1 << bits) - 1000..1 << bits).chain((0..bits).map(|bit| 1 << bit)) {
                    assert_eq!(cursors.open(cursors.seal(cursor, bits), bits), cursor);
                }
            }
        }
    }

    /// A cursor must not tell the order of hashes: neighbours differ in about half of their bits, and so do the same
    /// cursors in two processes.
    #[test]
    fn it_tells_nothing_about_the_order() {
        let [one, other] = [1, 2].map(|seed| Cursors::new(&KeyHasher::with_seed(seed)));
        for bits in [KEY_CURSOR_BITS, MEMBER_CURSOR_BITS] {
            let differing = |pair: &dyn Fn(u64) -> u64| {
                let sum: u32 = (1..10_000).map(|n| pair(n << (bits - 14)).count_ones()).sum();
                f64::from(sum) / 9_999.0 / f64::from(bits)
            };
            let neighbours = differing(&|cursor| one.seal(cursor, bits) ^ one.seal(cursor + 1, bits));
            let processes = differing(&|cursor| one.seal(cursor, bits) ^ other.seal(cursor, bits));
            assert!(
                (0.48..0.52).contains(&neighbours) && (0.48..0.52).contains(&processes),
                "{neighbours} {processes}"
            );
            let rising = (1..10_000).filter(|&n| one.seal(n, bits) < one.seal(n + 1, bits)).count();
            assert!((4_700..5_300).contains(&rising), "{rising} of 9,999");
        }
    }
}
