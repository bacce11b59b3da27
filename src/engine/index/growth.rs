//! Resizing the index: an incremental sweep, in hash order, from an old table to a new one.
//!
//! ```text
//! position:   0 ------------- swept ------------------------ 2^32
//! new table:  |###############|                                     its pages are taken as the sweep enters them
//! old table:                  |##############################|      and these given back as it leaves
//! ```
//!
//! A step moves one quad of the old table. An entry keeps only 8 bits of its hash, so a step reads the keys of the
//! items to rehash them.

use super::{Bucket, Index, QUAD, QuadLines, Table, enter, entries, line_reference};
use crate::engine::KeyHash;
use crate::engine::arena::{Arena, NONE, Reference};

/// The index grows above this many entries per quad, of 40.
const ENTRIES_HIGH: u64 = 36;
/// Entries per quad after the index has shrunk.
const ENTRIES_AIMED_AT: u64 = 30;
/// The index shrinks below this many entries per quad.
const ENTRIES_LOW: u64 = 12;
/// Shrinking keeps at least a quarter of the quads. During the sweep each write adds one entry and moves one quad, so
/// as many entries may be added as there are quads.
const SHRINK_MAX: u32 = 4;
/// Most free pages that one step takes: pages of the new table, and one for chained buckets.
pub(in crate::engine) const STEP_PAGES_MAX: u32 = 4;

#[derive(Debug)]
pub(super) struct Growth {
    pub(super) old: Table,
    /// Quads of the old table that have been moved.
    pub(super) swept: u32,
}

impl Index {
    /// True while a sweep is under way.
    #[inline]
    pub(in crate::engine) fn is_growing(&self) -> bool {
        self.growth.is_some()
    }

    /// Begins to grow if the table is full enough.
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

    /// Begins to shrink if the table is empty enough. The caller makes sure that entries are spread evenly over the
    /// hashes, which they are not while a pass removes them in hash order.
    pub(in crate::engine) fn consider_shrinking(&mut self) {
        if self.growth.is_none() && self.has_few_entries() {
            let wanted = (self.entries / ENTRIES_AIMED_AT) as u32;
            let least = (self.table.quads / SHRINK_MAX).max(1 << self.quads_per_page_shift);
            self.start(wanted.max(least));
        }
    }

    /// True if a smaller table would suffice.
    pub(in crate::engine) fn has_few_entries(&self) -> bool {
        let quads = u64::from(self.table.quads);
        self.entries < quads * ENTRIES_LOW && quads > 1 << self.quads_per_page_shift
    }

    /// The size to grow to: twice as many quads while most memory is free; near the limit, only as many as the entries
    /// expected at the limit need, so that the last free memory is not spent on unused entries.
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

    /// Moves one quad; the caller provides [`STEP_PAGES_MAX`] free pages. `hash_of` hashes the key of an item.
    pub(in crate::engine) fn growth_step(&mut self, arena: &mut Arena, hash_of: impl Fn(&[u8], Reference) -> KeyHash) {
        let Some(growth) = &self.growth else { return };
        debug_assert!(arena.free_pages() >= STEP_PAGES_MAX);
        let quad = growth.swept;
        let first = self.line_of(&growth.old, quad);
        let last_quad = self.table.quad((growth.old.quad_end(quad) - 1) as u32);
        let is_last = quad + 1 == growth.old.quads;
        self.prefetch_next(arena);

        // The new table's pages are taken as the sweep reaches them, from the last one needed for this quad backwards.
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
        // The entries go to the new table. It covers the same hashes, so the sweep fills it front to back.
        while let Some(line) = next {
            let bucket = Bucket::at(arena.memory(), line);
            for entry in entries(bucket.used()) {
                let bucket = Bucket::at(arena.memory(), line);
                let (reference, policy) = (bucket.reference(entry), bucket.policy(entry));
                let hash = hash_of(arena.memory(), reference);
                let to = self.line_of(&self.table, self.table.quad(hash.position()));
                enter(arena, to, hash, reference, policy, self.chain, u32::MAX).expect("a page for chained buckets");
            }
            next = lines.next(arena.memory());
            if !(first..first + QUAD).contains(&line) {
                // The line was read completely, and a chained bucket has no other user.
                arena.release(line_reference(line));
            }
        }
        let growth = self.growth.as_mut().expect("it goes on");
        growth.swept += 1;
        if is_last || growth.swept.is_multiple_of(1 << self.quads_per_page_shift) {
            // The sweep leaves a page of the old table behind: nothing leads there any more.
            let page = (quad >> self.quads_per_page_shift) as usize;
            arena.give_page(std::mem::replace(&mut growth.old.pages[page], NONE));
            self.page_count -= 1;
        }
        if is_last {
            self.growth = None;
        }
    }

    /// Prefetches what the next steps read: the items of the next quad, and the buckets of the quad after it.
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
