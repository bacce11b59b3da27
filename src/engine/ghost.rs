//! The ghost: 16-bit fingerprints of the hashes of recently evicted items.
//!
//! A line of 64 bytes is a short queue of 32 fingerprints, newest first; each hash belongs to one line. So the ghost
//! forgets a hash about `capacity` evictions after it was added, without a queue across all lines, and both a query and
//! an insertion read one line. One in two thousand answers is wrong (32 fingerprints of 16 bits), which merely puts an
//! item into the other queue.

use super::KeyHash;
use super::arena::{Arena, PageNumber};
use zerocopy::FromBytes;

const FINGERPRINTS: usize = 32;
const LINE_BYTES: usize = 64;
const EMPTY: u16 = 0;

type Line = [u16; FINGERPRINTS];

#[derive(Debug)]
pub(super) struct Ghost {
    pages: Vec<PageNumber>,
    /// Lines in use; 0 while there is no memory for the ghost.
    lines: u64,
}

impl Ghost {
    pub(super) const fn new() -> Self {
        Self { pages: Vec::new(), lines: 0 }
    }

    /// Adjusts the capacity to about `fingerprints`, as far as the arena has free pages beyond `spare`. Takes or frees
    /// at most a page per call, and keeps the old capacity until all pages of the new one have been taken. A change of
    /// the capacity invalidates the contents, since hashes then belong to other lines; these are not cleared but pushed
    /// out over time.
    pub(super) fn fit(&mut self, arena: &mut Arena, fingerprints: u64, spare: u32) {
        let wanted = (fingerprints / FINGERPRINTS as u64).max(1);
        let lines_per_page = (arena.page_bytes() / LINE_BYTES) as u64;
        if wanted * 4 > self.lines * 5 || self.lines > wanted * 2 {
            if (self.pages.len() as u64) < wanted.div_ceil(lines_per_page) {
                self.take_page(arena, spare);
                return;
            }
            self.lines = wanted;
        }
        if self.pages.len() as u64 > self.lines.div_ceil(lines_per_page)
            && let Some(page) = self.pages.pop()
        {
            arena.give_page(page);
        }
    }

    fn take_page(&mut self, arena: &mut Arena, spare: u32) {
        if arena.free_pages() <= spare {
            return;
        }
        let Some(page) = arena.take_page() else { return };
        let (from, bytes) = (arena.page_start(page), arena.page_bytes());
        arena.memory_mut()[from..from + bytes].fill(0);
        if let Some(&last) = self.pages.last() {
            arena.link(last, page);
        }
        self.pages.push(page);
    }

    /// Adds a hash.
    pub(super) fn remember(&mut self, arena: &mut Arena, hash: KeyHash) {
        let Some(line) = self.line(arena, hash) else { return };
        let end = line.iter().position(|&f| f == EMPTY).unwrap_or(FINGERPRINTS - 1);
        line.copy_within(..end, 1);
        line[0] = fingerprint(hash);
    }

    /// True if the hash is present; it is removed.
    pub(super) fn take(&mut self, arena: &mut Arena, hash: KeyHash) -> bool {
        let Some(line) = self.line(arena, hash) else { return false };
        match line.iter().position(|&f| f == fingerprint(hash)) {
            Some(at) => {
                line.copy_within(at + 1.., at);
                line[FINGERPRINTS - 1] = EMPTY;
                true
            }
            None => false,
        }
    }

    /// Frees all pages.
    pub(super) fn clear(&mut self, arena: &mut Arena) {
        if let (Some(&first), Some(&last)) = (self.pages.first(), self.pages.last()) {
            arena.give_pages(first, last, self.pages.len() as u32);
        }
        *self = Self::new();
    }

    /// Pages in use, for the accounting.
    #[cfg(test)]
    pub(super) fn pages(&self) -> &[PageNumber] {
        &self.pages
    }

    fn line<'a>(&self, arena: &'a mut Arena, hash: KeyHash) -> Option<&'a mut Line> {
        if self.lines == 0 {
            return None;
        }
        let number = ((u64::from(hash.position()) * self.lines) >> 32) as usize;
        let per_page = arena.page_bytes() / LINE_BYTES;
        let at = arena.page_start(self.pages[number / per_page]) + number % per_page * LINE_BYTES;
        let bytes = &mut arena.memory_mut()[at..at + LINE_BYTES];
        Some(Line::mut_from_bytes(bytes).expect("lines are aligned"))
    }
}

fn fingerprint(hash: KeyHash) -> u16 {
    hash.fingerprint().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::KeyHasher;

    #[test]
    fn it_remembers_about_its_capacity_and_no_more() {
        let mut arena = Arena::new(4 << 20, &[]).expect("memory");
        let mut ghost = Ghost::new();
        let hasher = KeyHasher::with_seed(1);
        let hash = |n: u32| hasher.hash(&n.to_le_bytes());
        ghost.remember(&mut arena, hash(0));
        assert!(!ghost.take(&mut arena, hash(0)), "it has no room yet");
        // One page per call.
        (0..3).for_each(|_| ghost.fit(&mut arena, 10_000, 0));
        assert_eq!(arena.held_pages(), 2);
        (0..100_000).for_each(|n| ghost.remember(&mut arena, hash(n)));
        let found = |ghost: &mut Ghost, arena: &mut Arena, range: std::ops::Range<u32>| {
            range.filter(|&n| ghost.take(arena, hash(n))).count()
        };
        assert!(found(&mut ghost, &mut arena, 0..50_000) < 200, "long ago");
        let recent = found(&mut ghost, &mut arena, 95_000..100_000);
        assert!(recent > 4_950, "{recent} of the last 5,000");
        assert!(found(&mut ghost, &mut arena, 95_000..100_000) < 20, "taken");
        ghost.clear(&mut arena);
        assert_eq!(arena.held_pages(), 0);
    }
}
