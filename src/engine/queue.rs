//! A FIFO queue of hash marks, in whole pages of the arena.
//!
//! The mark of an item stays in the queue when the item is removed; whoever pops it finds that it leads to no entry.
//! Moving items or entries does not affect the queue, because a mark is derived from the hash and not from a position.
//!
//! Each page has a serial number. The owner of the queue stores the serial of a mark with the entry, and so tells the
//! mark from a stale one with the same hash: that of an item that was deleted and stored again.

use super::arena::{Arena, NONE, PageNumber};
use super::index::HashMark;

const MARK_BYTES: usize = 4;

/// Pages of a queue, linked from the first to the last.
#[derive(Debug)]
pub(super) struct Queue {
    first: PageNumber,
    last: PageNumber,
    pages: u32,
    /// Marks popped from the first page.
    taken: usize,
    /// Marks pushed to the last page.
    put: usize,
    length: u64,
    /// Marks popped since the queue was made.
    popped: u64,
    /// Serial of the last page.
    serial: u32,
}

impl Queue {
    pub(super) const fn new() -> Self {
        Self { first: NONE, last: NONE, pages: 0, taken: 0, put: 0, length: 0, popped: 0, serial: 0 }
    }

    /// Marks in the queue.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Marks popped since the queue was made.
    pub(super) fn popped(&self) -> u64 {
        self.popped
    }

    /// Marks pushed since the queue was made.
    pub(super) fn pushed(&self) -> u64 {
        self.popped + self.length
    }

    /// Pushes a mark and returns its serial. Without room in the last page and without a free page, the mark is
    /// dropped.
    pub(super) fn push(&mut self, arena: &mut Arena, mark: HashMark) -> u32 {
        if self.pages == 0 || self.put == marks_per_page(arena) {
            let Some(page) = arena.take_page() else { return self.serial };
            if self.pages == 0 {
                self.first = page;
            } else {
                arena.link(self.last, page);
            }
            self.last = page;
            self.pages += 1;
            self.serial = self.serial.wrapping_add(1);
            self.put = 0;
        }
        let at = arena.page_start(self.last) + self.put * MARK_BYTES;
        arena.memory_mut()[at..at + MARK_BYTES].copy_from_slice(&mark.0.to_le_bytes());
        self.put += 1;
        self.length += 1;
        self.serial
    }

    /// Pops the oldest mark, with its serial.
    pub(super) fn pop(&mut self, arena: &mut Arena) -> Option<(HashMark, u32)> {
        let mark = self.peek(arena, 0)?;
        let serial = self.serial.wrapping_sub(self.pages - 1);
        self.taken += 1;
        self.length -= 1;
        self.popped += 1;
        let emptied = if self.pages == 1 { self.length == 0 } else { self.taken == marks_per_page(arena) };
        if emptied {
            let page = self.first;
            self.first = arena.linked(page);
            arena.give_page(page);
            self.pages -= 1;
            self.taken = 0;
        }
        Some((mark, serial))
    }

    /// The mark `ahead` places behind the oldest, if it is in the same page.
    pub(super) fn peek(&self, arena: &Arena, ahead: usize) -> Option<HashMark> {
        let number = self.taken + ahead;
        let marks = if self.pages == 1 { self.put } else { marks_per_page(arena) };
        if self.length == 0 || number >= marks {
            return None;
        }
        let at = arena.page_start(self.first) + number * MARK_BYTES;
        let bytes = arena.memory()[at..at + MARK_BYTES].try_into().expect("4 bytes");
        Some(HashMark(u32::from_le_bytes(bytes)))
    }

    /// Frees all pages.
    pub(super) fn clear(&mut self, arena: &mut Arena) {
        if self.pages > 0 {
            arena.give_pages(self.first, self.last, self.pages);
        }
        *self = Self { serial: self.serial, ..Self::new() };
    }

    /// Pages in use, for the accounting.
    #[cfg(test)]
    pub(super) fn pages(&self, arena: &Arena) -> Vec<PageNumber> {
        let mut page = self.first;
        let mut pages = Vec::new();
        for _ in 0..self.pages {
            pages.push(page);
            page = arena.linked(page);
        }
        pages
    }
}

fn marks_per_page(arena: &Arena) -> usize {
    arena.page_bytes() / MARK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn marks_come_out_in_order_and_pages_go_back() {
        let mut arena = Arena::new(1 << 20, &[]).expect("memory");
        let mut queue = Queue::new();
        let mut model = VecDeque::new();
        let mut n = 0;
        for (push, pop) in [(10, 10), (5000, 4999), (4096, 1), (9000, 13_096), (3, 0)] {
            for _ in 0..push {
                n += 1;
                queue.push(&mut arena, HashMark(n));
                model.push_back(n);
            }
            for _ in 0..pop {
                assert_eq!(queue.peek(&arena, 0).map(|m| m.0), model.front().copied());
                assert_eq!(queue.pop(&mut arena).map(|m| m.0.0), model.pop_front());
            }
            assert_eq!(queue.length(), model.len() as u64);
            assert_eq!(queue.pages(&arena).len() as u32, arena.held_pages());
        }
        queue.clear(&mut arena);
        assert_eq!((arena.held_pages(), queue.pop(&mut arena)), (0, None));
    }
}
