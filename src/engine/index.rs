//! The index: from a key's hash to where its item lies.
//!
//! A bucket is one 64-byte cache line of 12 entries, each a one-byte tag of the hash and a u32 reference (the item's
//! place in granules). Four buckets make a quad. An entry lives in its home bucket, or, when that is full, anywhere in
//! the home's quad; the home counts its displaced entries, so that a lookup reads the other three lines only if there
//! are any.
//!
//! ```text
//! bucket (64 B): | tag x 12 | displaced | spare x 3 | reference x 12 |
//! hash bits:     high 32: quad (scaled, so any number of quads does) · 8..15: tag · 0..1: home in the quad
//! ```

use super::KeyHash;
use crate::sys::{Mapping, Zeroable, prefetch};
use std::io;

/// Entries in a bucket.
const ENTRIES: usize = 12;
/// Buckets in a quad.
const QUAD: usize = 4;
/// Bytes of index per quad.
pub(super) const QUAD_BYTES: usize = QUAD * size_of::<Bucket>();

const EMPTY: u8 = 0;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    /// 0 means that the entry is free. Only the first `ENTRIES` are tags; the next counts the displaced.
    tags: [u8; 16],
    references: [u32; ENTRIES],
}

const DISPLACED: usize = ENTRIES;

const _: () = assert!(size_of::<Bucket>() == 64);

// SAFETY: an array of integers: zero is a value, nothing to drop.
unsafe impl Zeroable for Bucket {}

/// Place of an entry in the index; valid until the index changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    bucket: usize,
    entry: usize,
}

pub(super) struct Index {
    buckets: Mapping<Bucket>,
    quads: u64,
}

/// A quad has no free entry left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QuadFull;

impl Index {
    pub(super) fn new(quads: usize) -> io::Result<Self> {
        let buckets = Mapping::new(quads * QUAD)?;
        buckets.advise_huge_pages();
        Ok(Self { buckets, quads: quads as u64 })
    }

    pub(super) fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    fn quad_start(&self, hash: KeyHash) -> usize {
        (((hash.0 >> 32) * self.quads) >> 32) as usize * QUAD
    }

    fn home(&self, hash: KeyHash) -> usize {
        self.quad_start(hash) + (hash.0 & 3) as usize
    }

    /// The home bucket first, then the rest of its quad.
    fn probes(&self, hash: KeyHash) -> [usize; QUAD] {
        let home = self.home(hash);
        [home, home ^ 1, home ^ 2, home ^ 3]
    }

    /// Starts to load the home bucket.
    #[inline]
    pub(super) fn prefetch(&self, hash: KeyHash) {
        prefetch(&self.buckets[self.home(hash)]);
    }

    /// The reference of the first entry in the home bucket that may be the key's: what to prefetch next.
    #[inline]
    pub(super) fn likely_reference(&self, hash: KeyHash) -> Option<u32> {
        let bucket = &self.buckets[self.home(hash)];
        let matches = matches(bucket, tag(hash));
        (matches != 0).then(|| bucket.references[matches.trailing_zeros() as usize])
    }

    /// The entry with the hash's tag whose reference satisfies `is_key`.
    #[inline]
    pub(super) fn find(&self, hash: KeyHash, mut is_key: impl FnMut(u32) -> bool) -> Option<Position> {
        let probes = self.probes(hash);
        let reach = if self.buckets[probes[0]].tags[DISPLACED] == 0 { 1 } else { QUAD };
        for &at in &probes[..reach] {
            let bucket = &self.buckets[at];
            let mut matches = matches(bucket, tag(hash));
            while matches != 0 {
                let entry = matches.trailing_zeros() as usize;
                if is_key(bucket.references[entry]) {
                    return Some(Position { bucket: at, entry });
                }
                matches &= matches - 1;
            }
        }
        None
    }

    #[cfg(test)]
    pub(super) fn reference(&self, at: Position) -> u32 {
        self.buckets[at.bucket].references[at.entry]
    }

    pub(super) fn set_reference(&mut self, at: Position, reference: u32) {
        self.buckets[at.bucket].references[at.entry] = reference;
    }

    /// Adds an entry. The caller knows that the key has none.
    pub(super) fn insert(&mut self, hash: KeyHash, reference: u32) -> Result<(), QuadFull> {
        let probes = self.probes(hash);
        let free = |&at: &usize| Some((at, matches(&self.buckets[at], EMPTY))).filter(|(_, free)| *free != 0);
        let (at, free) = probes.iter().find_map(free).ok_or(QuadFull)?;
        let entry = free.trailing_zeros() as usize;
        self.buckets[at].tags[entry] = tag(hash);
        self.buckets[at].references[entry] = reference;
        if at != probes[0] {
            self.buckets[probes[0]].tags[DISPLACED] += 1;
        }
        Ok(())
    }

    /// Frees the entry of a key with this hash.
    pub(super) fn remove(&mut self, hash: KeyHash, at: Position) {
        let home = self.home(hash);
        self.buckets[at.bucket].tags[at.entry] = EMPTY;
        if at.bucket != home {
            self.buckets[home].tags[DISPLACED] -= 1;
        }
    }

    /// The references in the quad of a hash.
    pub(super) fn quad_references(&self, hash: KeyHash) -> impl Iterator<Item = u32> {
        let quad = self.quad_start(hash);
        let entries = self.buckets[quad..quad + QUAD].iter();
        entries.flat_map(|b| b.tags[..ENTRIES].iter().zip(&b.references).filter(|(t, _)| **t != EMPTY).map(|(_, &r)| r))
    }

    /// Every reference that the index holds, in hash order.
    #[cfg(test)]
    pub(super) fn references(&self) -> impl Iterator<Item = u32> {
        let all = self.buckets.iter();
        all.flat_map(|b| b.tags[..ENTRIES].iter().zip(&b.references).filter(|(t, _)| **t != EMPTY).map(|(_, &r)| r))
    }
}

/// One byte of the hash, never 0.
fn tag(hash: KeyHash) -> u8 {
    ((hash.0 >> 8) as u8).max(1)
}

/// A bit per entry of the bucket whose tag is `tag`.
#[inline]
fn matches(bucket: &Bucket, tag: u8) -> u32 {
    let mut bits = 0;
    for (i, &t) in bucket.tags.iter().enumerate() {
        bits |= u32::from(t == tag) << i;
    }
    bits & ((1 << ENTRIES) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes that share a quad and, if asked, a home.
    fn hash(n: u64, home: u64) -> KeyHash {
        KeyHash(n << 8 | home)
    }

    #[test]
    fn a_quad_holds_48_entries_of_one_home_and_finds_each() {
        let mut index = Index::new(2).expect("memory");
        for n in 0..48 {
            index.insert(hash(n % 3 + 1, 2), n as u32).expect("room");
        }
        assert_eq!(index.insert(hash(1, 0), 99), Err(QuadFull));
        for n in 0..48 {
            let at = index.find(hash(n % 3 + 1, 2), |r| r == n as u32).expect("there");
            assert_eq!(index.reference(at), n as u32);
        }
        assert_eq!(index.quad_references(hash(0, 0)).count(), 48);
        for n in 0..48 {
            let at = index.find(hash(n % 3 + 1, 2), |r| r == n as u32).expect("there");
            index.remove(hash(n % 3 + 1, 2), at);
        }
        assert_eq!(index.references().count(), 0);
        assert!(index.buckets.iter().all(|b| b.tags[DISPLACED] == 0), "nothing is displaced in an empty index");
    }

    #[test]
    fn a_tag_alone_is_no_match() {
        let mut index = Index::new(1).expect("memory");
        index.insert(hash(5, 1), 7).expect("room");
        assert_eq!(index.find(hash(5, 1), |_| false), None);
        assert_eq!(index.find(hash(6, 1), |_| true), None);
        assert_eq!(index.likely_reference(hash(5, 1)), Some(7));
        assert_eq!(index.likely_reference(hash(0, 1)), None, "tag 0 means free and is never looked for");
    }
}
