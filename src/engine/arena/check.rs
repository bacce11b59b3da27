//! A full check of the arena's bookkeeping.

use super::{Arena, BINS, Class, NO_CHUNK, NONE, PageNumber, Reference, UNLISTED, WHOLE, reference};
use crate::engine::item::{self, ChunkUse};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that the arena has allocated.
pub(in crate::engine) struct InUse {
    /// Chunks, with their class.
    pub(in crate::engine) chunks: BTreeMap<Reference, Class>,
    /// Whole pages.
    pub(in crate::engine) pages: BTreeSet<PageNumber>,
}

impl Arena {
    /// Checks free lists, lists by fullness and counters; returns what is in use.
    pub(in crate::engine) fn check(&self) -> InUse {
        let mut free = BTreeSet::new();
        for (head, count) in [(self.free, Some(self.resident)), (self.released, None)] {
            let (mut page, before) = (head, free.len());
            while page != NONE {
                assert!(free.insert(page), "page {page} is free twice");
                page = self.pages[page as usize].next;
            }
            assert!(count.is_none_or(|count| count as usize == free.len() - before), "resident free pages");
        }
        let used = (1..self.fresh).filter(|page| !free.contains(page));
        let (whole, cut): (BTreeSet<_>, BTreeSet<_>) = used.partition(|&p| self.pages[p as usize].class == WHOLE);
        assert_eq!((whole.len() + cut.len()) as u32, self.held, "held pages");

        let mut chunks = BTreeMap::new();
        for (class, size) in self.classes.all() {
            let pages: Vec<_> = cut.iter().filter(|&&p| self.pages[p as usize].class == class.0).collect();
            let (mut live, mut free) = (0, 0);
            for &&page in &pages {
                let found = self.check_page(page, class);
                live += found.len();
                free += if page == self.closed { 0 } else { usize::from(size.chunks) - found.len() };
                chunks.extend(found.into_iter().map(|chunk| (chunk, class)));
            }
            let counted = &self.by_class[usize::from(class.0)];
            assert_eq!(counted.live_chunks as usize, live, "live chunks of {size:?}");
            assert_eq!(counted.free_chunks as usize, free, "free {size:?}");
            self.check_bins(class, pages.iter().filter(|&&&p| self.pages[p as usize].bin != UNLISTED).count());
        }
        InUse { chunks, pages: whole }
    }

    /// Checks a page's free list; returns its live chunks.
    fn check_page(&self, page: PageNumber, class: Class) -> Vec<Reference> {
        let state = self.pages[page as usize];
        let size = self.classes.size(class);
        let at = |number: u16| self.page_start(page) + usize::from(number) * size.bytes as usize;
        let mut free = BTreeSet::new();
        let mut number = state.free;
        while number != NO_CHUNK {
            assert!(number < state.fresh && free.insert(number), "chunk {number} of page {page} is free twice");
            assert_eq!(item::chunk_use(&self.memory, at(number)), ChunkUse::Free);
            number = item::next_free(&self.memory, at(number));
        }
        let live: Vec<_> = (0..state.fresh).filter(|n| !free.contains(n)).map(|n| reference(at(n))).collect();
        assert_eq!(live.len(), usize::from(state.live), "live chunks of page {page}");
        assert!(state.live > 0 && state.fresh <= size.chunks);
        let bin = match state.live == size.chunks || page == self.closed {
            true => UNLISTED,
            false => (usize::from(state.live) * BINS / usize::from(size.chunks)) as u8,
        };
        assert_eq!(state.bin, bin, "page {page} has {} of {}", state.live, size.chunks);
        live
    }

    fn check_bins(&self, class: Class, listed: usize) {
        let mut seen = 0;
        for (bin, &head) in self.by_class[usize::from(class.0)].bins.iter().enumerate() {
            let (mut page, mut previous) = (head, NONE);
            while page != NONE {
                let state = self.pages[page as usize];
                assert_eq!((usize::from(state.bin), state.previous, state.class), (bin, previous, class.0));
                (previous, page) = (page, state.next);
                seen += 1;
            }
        }
        assert_eq!(seen, listed, "pages in the lists of {class:?}");
    }
}
