//! The timing wheel: finds the items with a short time to live that have expired.
//!
//! The wheel has a bucket per quarter of a second for a little more than ten minutes. A bucket is a list of blocks of
//! hash marks, 4 bytes per item. When a bucket is due, each mark leads to its item, which is removed if it has expired.
//! No item points into the wheel, and deleting or moving an item leaves its mark behind, which then leads to nothing.
//! An item usually has one mark, and its header says so. If its expiry was postponed, it gets a new mark when the old
//! one is due.
//!
//! Items with a longer time to live are left to the background pass, which visits every item every 25 seconds
//! (`background.rs`).

use super::arena::{Arena, Class, Reference, place};
use super::index::HashMark;
use super::item::u32_at;
use crate::command::UnixMs;

/// Bytes of a block of marks.
pub(super) const BLOCK_BYTES: usize = 256;
const HEADER_BYTES: usize = 8;
/// Marks in a block.
pub(super) const BLOCK_MARKS: usize = (BLOCK_BYTES - HEADER_BYTES) / 4;

/// A finer wheel would hold more partly filled blocks: 128 bytes lost in each, up to 2,400 of them.
const TICK_MS: u64 = 250;
const BUCKETS: u64 = 2560;

/// Longest time to live that the wheel handles.
pub(super) const HORIZON_MS: u64 = 600_000;

const _: () = assert!(HORIZON_MS + 2 * TICK_MS < BUCKETS * TICK_MS);

/// No block.
const NONE: Reference = 0;

/// A block of due marks, taken out of the wheel.
pub(super) struct Due {
    marks: [HashMark; BLOCK_MARKS],
    count: usize,
}

impl Due {
    pub(super) fn marks(&self) -> &[HashMark] {
        &self.marks[..self.count]
    }
}

pub(super) struct Wheel {
    /// First block of each bucket: | next block u32 | marks in it u32 | marks |.
    buckets: Box<[Reference]>,
    /// The tick whose bucket is being emptied, or will be next.
    tick: u64,
    marks: u64,
    class: Class,
}

impl Wheel {
    /// An empty wheel. Its blocks are chunks of `class`, of [`BLOCK_BYTES`].
    pub(super) fn new(class: Class, now: UnixMs) -> Self {
        Self { buckets: vec![NONE; BUCKETS as usize].into(), tick: now / TICK_MS, marks: 0, class }
    }

    /// Marks in the wheel.
    pub(super) fn marks(&self) -> u64 {
        self.marks
    }

    /// Milliseconds until the next bucket is due; for when [`Wheel::due`] has returned None.
    pub(super) fn next_in_ms(now: UnixMs) -> u64 {
        TICK_MS - now % TICK_MS
    }

    /// Enters a mark for a time within the horizon. False if there is no memory for it.
    pub(super) fn insert(&mut self, arena: &mut Arena, mark: HashMark, due: UnixMs, now: UnixMs) -> bool {
        if self.marks == 0 {
            self.tick = self.tick.max(now / TICK_MS);
        }
        let tick = due.div_ceil(TICK_MS).max(self.tick);
        if tick - self.tick >= BUCKETS {
            return false;
        }
        let bucket = (tick % BUCKETS) as usize;
        let first = self.buckets[bucket];
        let block = match first != NONE && u32_at(arena.memory(), place(first) + 4) < BLOCK_MARKS as u32 {
            true => first,
            false => {
                let Some(block) = arena.allocate(self.class) else { return false };
                put(arena, place(block), first);
                put(arena, place(block) + 4, 0);
                self.buckets[bucket] = block;
                block
            }
        };
        let count = u32_at(arena.memory(), place(block) + 4);
        put(arena, place(block) + HEADER_BYTES + 4 * count as usize, mark.0);
        put(arena, place(block) + 4, count + 1);
        self.marks += 1;
        true
    }

    /// Takes the next block of due marks. None if nothing is due.
    pub(super) fn due(&mut self, arena: &mut Arena, now: UnixMs) -> Option<Due> {
        while self.tick * TICK_MS <= now {
            if self.marks == 0 {
                self.tick = now / TICK_MS + 1;
                return None;
            }
            let bucket = (self.tick % BUCKETS) as usize;
            let block = self.buckets[bucket];
            if block != NONE {
                return Some(self.take(arena, bucket, block));
            }
            self.tick += 1;
        }
        None
    }

    fn take(&mut self, arena: &mut Arena, bucket: usize, block: Reference) -> Due {
        let from = place(block);
        let count = u32_at(arena.memory(), from + 4) as usize;
        let mut marks = [HashMark(0); BLOCK_MARKS];
        for (n, mark) in marks[..count].iter_mut().enumerate() {
            *mark = HashMark(u32_at(arena.memory(), from + HEADER_BYTES + 4 * n));
        }
        self.buckets[bucket] = u32_at(arena.memory(), from);
        self.marks -= count as u64;
        arena.release(block);
        Due { marks, count }
    }

    /// Blocks in use, for the accounting.
    #[cfg(test)]
    pub(super) fn blocks(&self, arena: &Arena) -> u32 {
        let mut count = 0;
        for &first in &self.buckets {
            let mut block = first;
            while block != NONE {
                count += 1;
                block = u32_at(arena.memory(), place(block));
            }
        }
        count
    }
}

fn put(arena: &mut Arena, at: usize, word: u32) {
    arena.memory_mut()[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_comes_up_once_at_its_time() {
        let mut arena = Arena::new(1 << 20, &[BLOCK_BYTES]).expect("memory");
        let start = 1_700_000_000_000;
        let mut wheel = Wheel::new(arena.other_class(0), start);
        let due = |n: u32| start + u64::from(n) * 7919 % HORIZON_MS;
        for n in 0..5000 {
            assert!(wheel.insert(&mut arena, HashMark(n), due(n), start));
        }
        assert!(!wheel.insert(&mut arena, HashMark(0), start + 700_000, start), "beyond the horizon");
        let mut seen = vec![false; 5000];
        for step in 0..6100 {
            let now = start + step * 100;
            while let Some(block) = wheel.due(&mut arena, now) {
                for mark in block.marks() {
                    assert!(!std::mem::replace(&mut seen[mark.0 as usize], true), "once");
                    assert!((due(mark.0)..due(mark.0) + TICK_MS + 100).contains(&now), "{} at {now}", due(mark.0));
                }
            }
        }
        assert!(seen.iter().all(|&s| s));
        assert_eq!((wheel.marks(), wheel.blocks(&arena), arena.held_pages()), (0, 0, 0));
    }
}
