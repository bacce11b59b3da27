//! Growing the index, and shrinking it: a sweep over the hashes in their order.
//!
//! ```text
//! position:   0 ------------- swept ------------------------ 2^32
//! new table:  |###############|                                     its pages are taken as the sweep enters them
//! old table:                  |##############################|      and these given back as it leaves
//! ```
//!
//! A step moves one quad of the old table. An entry keeps only 8 bits of the hash, so a step reads the keys of its items.

use super::{Bucket, Index, QUAD, QuadLines, Table, enter, entries, line_reference};
use crate::engine::KeyHash;
use crate::engine::arena::{Arena, NONE, Reference};

/// Entries per quad, of 40, from which on the index grows.
const ENTRIES_HIGH: u64 = 36;
/// Entries per quad that it aims at when it shrinks.
const ENTRIES_AIMED_AT: u64 = 30;
/// Entries per quad below which it shrinks.
const ENTRIES_LOW: u64 = 12;
/// Shrinking leaves at least one quad in so many: each write during the sweep adds an entry and moves a quad, so there may
/// be as many entries at its end as there were quads.
const SHRINK_MAX: u32 = 4;
/// Free pages that a step may take: of the new table, and one for chained buckets.
pub(in crate::engine) const STEP_PAGES_MAX: u32 = 4;

#[derive(Debug)]
pub(super) struct Growth {
    pub(super) old: Table,
    /// Quads of the old table that have moved.
    pub(super) swept: u32,
}

impl Index {
    /// True while a sweep goes on.
    #[inline]
    pub(in crate::engine) fn is_growing(&self) -> bool {
        self.growth.is_some()
    }

    /// Begins to grow, where there are many entries.
    #[inline]
    pub(in crate::engine) fn consider_growth(&mut self, arena: &Arena) {
        let quads = u64::from(self.table.quads);
        if self.growth.is_some() {
            return;
        }
        if self.entries > quads * ENTRIES_HIGH {
            self.start(self.quads_to_grow_to(arena));
        }
    }

    /// Begins to shrink, where there are few entries. They must be spread evenly over the hashes: a pass that removes entries
    /// in the order of hashes is no time for that.
    pub(in crate::engine) fn consider_shrinking(&mut self) {
        if self.growth.is_none() && self.has_few_entries() {
            let wanted = (self.entries / ENTRIES_AIMED_AT) as u32;
            let least = (self.table.quads / SHRINK_MAX).max(1 << self.quads_per_page_shift);
            self.start(wanted.max(least));
        }
    }

    /// True if a smaller table would do.
    pub(in crate::engine) fn has_few_entries(&self) -> bool {
        let quads = u64::from(self.table.quads);
        self.entries < quads * ENTRIES_LOW && quads > 1 << self.quads_per_page_shift
    }

    /// Twice as many, while there is plenty of memory; as it fills up, no more than the entries that it will have when it
    /// is full, so that what is left of memory is not spent on free entries.
    fn quads_to_grow_to(&self, arena: &Arena) -> u32 {
        let quads = u64::from(self.table.quads);
        let expected = self.entries * u64::from(arena.limit_pages()) / u64::from(arena.held_pages());
        let wanted = expected / ENTRIES_HIGH + 1;
        wanted.clamp(quads + quads.div_ceil(32), quads * 2) as u32
    }

    fn start(&mut self, quads: u32) {
        let pages = quads.div_ceil(1 << self.quads_per_page_shift) as usize;
        let new = Table { quads, pages: vec![NONE; pages] };
        self.growth = Some(Growth { old: std::mem::replace(&mut self.table, new), swept: 0 });
    }

    /// Moves one quad, for which there are [`STEP_PAGES_MAX`] free pages. `hash_of` reads the key of an item.
    pub(in crate::engine) fn growth_step(&mut self, arena: &mut Arena, hash_of: impl Fn(&[u8], Reference) -> KeyHash) {
        let Some(growth) = &self.growth else { return };
        debug_assert!(arena.free_pages() >= STEP_PAGES_MAX);
        let quad = growth.swept;
        let first = self.line_of(&growth.old, quad);
        let last_quad = self.table.quad((growth.old.quad_end(quad) - 1) as u32);
        let is_last = quad + 1 == growth.old.quads;
        self.prefetch_next(arena);

        for page in (0..=(last_quad >> self.quads_per_page_shift) as usize).rev() {
            if self.table.pages[page] != NONE {
                break;
            }
            let taken = arena.take_zeroed_page().expect("a step has its pages");
            self.table.pages[page] = taken;
            self.page_count += 1;
        }
        let mut lines = QuadLines::of(first);
        let mut next = lines.next(arena.memory());
        while let Some(line) = next {
            let bucket = Bucket::at(arena.memory(), line);
            for entry in entries(bucket.used()) {
                let bucket = Bucket::at(arena.memory(), line);
                let (reference, policy) = (bucket.reference(entry), bucket.policy(entry));
                let hash = hash_of(arena.memory(), reference);
                let to = self.line_of(&self.table, self.table.quad(hash.position()));
                enter(arena, to, hash, reference, policy, self.chain).expect("a page for chained buckets");
            }
            next = lines.next(arena.memory());
            if !(first..first + QUAD).contains(&line) {
                arena.release(line_reference(line));
            }
        }
        let growth = self.growth.as_mut().expect("it goes on");
        growth.swept += 1;
        if is_last || growth.swept.is_multiple_of(1 << self.quads_per_page_shift) {
            let page = (quad >> self.quads_per_page_shift) as usize;
            arena.give_page(std::mem::replace(&mut growth.old.pages[page], NONE));
            self.page_count -= 1;
        }
        if is_last {
            self.growth = None;
        }
    }

    /// Starts to load what the next steps read: the items of the next quad, and the quad after it.
    fn prefetch_next(&self, arena: &Arena) {
        let Some(growth) = &self.growth else { return };
        let next = growth.swept + 1;
        if next + 1 < growth.old.quads {
            let line = self.line_of(&growth.old, next + 1);
            (line..line + QUAD).for_each(|line| self.prefetch_line(arena, line));
        }
        if next < growth.old.quads {
            let line = self.line_of(&growth.old, next);
            for line in line..line + QUAD {
                let bucket = Bucket::at(arena.memory(), line);
                entries(bucket.used()).for_each(|entry| arena.prefetch(bucket.reference(entry)));
            }
        }
    }
}
