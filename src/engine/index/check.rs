//! A full check of the index.

use super::{Bucket, HashPosition, Index, Position, QUAD, QuadLines, entries};
use crate::engine::KeyHash;
use crate::engine::arena::{Arena, Reference};

impl Index {
    /// Checks that every entry is in the quad of its hash, and that the counts of displaced entries are right.
    pub(in crate::engine) fn check(&self, arena: &Arena, mut hash_of: impl FnMut(Reference) -> KeyHash) {
        assert_eq!(self.pages().count() as u64, self.page_count);
        for (quad, end, from) in self.quads_in_order() {
            let mut displaced = [0_u32; QUAD as usize];
            let mut lines = QuadLines::of(quad);
            while let Some(line) = lines.next(arena.memory()) {
                let bucket = Bucket::at(arena.memory(), line);
                for entry in entries(bucket.used()) {
                    let reference = bucket.reference(entry);
                    let hash = hash_of(reference);
                    assert!((from..end).contains(&u64::from(hash.position())), "an entry is in another quad");
                    let found = self.find(arena.memory(), hash, |r| r == reference);
                    assert_eq!(found, Some(Position { line, entry: entry as u8 }));
                    if line != quad + hash.home() {
                        displaced[hash.home() as usize] += 1;
                    }
                }
            }
            for (home, &count) in displaced.iter().enumerate() {
                Bucket::at(arena.memory(), quad + home as u32).check_displaced(count);
            }
        }
    }

    /// Number of chained buckets.
    pub(in crate::engine) fn chained(&self, arena: &Arena) -> usize {
        let count = |quad| {
            let mut lines = QuadLines::of(quad);
            std::iter::from_fn(|| lines.next(arena.memory())).count() - QUAD as usize
        };
        self.quads_in_order().into_iter().map(|(quad, ..)| count(quad)).sum()
    }

    /// First line, end position and start position of every quad, of both tables.
    fn quads_in_order(&self) -> Vec<(u32, u64, u64)> {
        let mut quads = Vec::new();
        let mut position: HashPosition = 0;
        loop {
            let (lines, next) = self.quad(position);
            let end = if next == 0 { 1 << 32 } else { u64::from(next) };
            quads.push((lines.quad, end, u64::from(position)));
            position = next;
            if next == 0 {
                return quads;
            }
        }
    }
}
