//! The arena: a circular log of records in one mapping.
//!
//! Records are contiguous; where one does not fit before the end of the mapping, a pad fills the rest and it starts at 0.
//! `used` bytes from `tail` on, around the end, are records (live, dead or pads); the rest is free.

#![forbid(unsafe_code)]

use super::item::{self, GRANULE_BYTES, Header};
use crate::sys::{Mapping, prefetch};
use std::io;

pub(super) struct Log {
    memory: Mapping<u8>,
    head: usize,
    tail: usize,
    used: usize,
}

/// Cache lines of an item that a lookup asks for ahead of time; longer values are left to the hardware's prefetcher.
const PREFETCH_BYTES: usize = 128;

impl Log {
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let memory = Mapping::new(bytes / GRANULE_BYTES * GRANULE_BYTES)?;
        memory.advise_huge_pages();
        Ok(Self { memory, head: 0, tail: 0, used: 0 })
    }

    pub(super) fn capacity(&self) -> usize {
        self.memory.len()
    }

    #[inline]
    pub(super) fn memory(&self) -> &[u8] {
        &self.memory
    }

    #[inline]
    pub(super) fn memory_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    #[inline]
    pub(super) fn prefetch(&self, at: usize) {
        prefetch(&self.memory[at]);
        if let Some(next) = self.memory.get(at + PREFETCH_BYTES / 2) {
            prefetch(next);
        }
        if let Some(last) = self.memory.get(at + PREFETCH_BYTES) {
            prefetch(last);
        }
    }

    /// How long ago the record at `at` was written, compared to others: smaller is older.
    pub(super) fn age_rank(&self, at: usize) -> usize {
        if at >= self.tail { at - self.tail } else { at + self.capacity() - self.tail }
    }

    /// True in the younger half of a full arena: an item there may be overwritten in place and still counts as new.
    pub(super) fn is_young(&self, at: usize) -> bool {
        self.age_rank(at) + self.capacity() / 2 >= self.used
    }

    /// True if a record of `bytes` can be appended.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let to_end = self.capacity() - self.head;
        let skipped = if bytes <= to_end { 0 } else { to_end };
        skipped + bytes <= self.capacity() - self.used
    }

    /// Takes `bytes` at the head, for which there is room, and returns where they start.
    pub(super) fn append(&mut self, bytes: usize) -> usize {
        debug_assert!(self.has_room(bytes) && bytes.is_multiple_of(GRANULE_BYTES));
        let to_end = self.capacity() - self.head;
        if bytes > to_end {
            if to_end > 0 {
                item::write_pad(&mut self.memory, self.head, to_end);
                self.used += to_end;
            }
            self.head = 0;
        }
        let at = self.head;
        self.head += bytes;
        self.used += bytes;
        at
    }

    /// The oldest record that is no pad. None if it was a pad, which is gone now.
    pub(super) fn tail_record(&mut self) -> Option<(usize, Header)> {
        assert!(self.used > 0, "an empty arena has room for any item");
        if self.tail == self.capacity() {
            self.tail = 0;
        }
        if let Some(bytes) = item::pad_bytes(&self.memory, self.tail) {
            self.release(bytes);
            return None;
        }
        Some((self.tail, Header::read(&self.memory, self.tail)))
    }

    /// Gives the space of the oldest record back.
    pub(super) fn drop_tail(&mut self) {
        self.release(Header::read(&self.memory, self.tail).record_bytes());
    }

    /// Makes the oldest record the newest; returns its new place. None, and nothing changed, if that needs a pad for which
    /// there is no room.
    pub(super) fn move_tail_to_head(&mut self) -> Option<usize> {
        let (from, bytes) = (self.tail, Header::read(&self.memory, self.tail).record_bytes());
        self.release(bytes);
        if !self.has_room(bytes) {
            self.tail = from;
            self.used += bytes;
            return None;
        }
        // A pad is written only where the record goes to the start, far from its old place: nothing is overwritten
        // before it is copied, as `has_room` counts the pad.
        let to = self.append(bytes);
        self.memory.copy_within(from..from + bytes, to);
        Some(to)
    }

    fn release(&mut self, bytes: usize) {
        self.tail += bytes;
        self.used -= bytes;
    }

    /// Every record from the oldest on, with its place.
    #[cfg(test)]
    pub(super) fn records(&self) -> Vec<(usize, Header)> {
        let (mut at, mut left, mut records) = (self.tail, self.used, Vec::new());
        while left > 0 {
            if at == self.capacity() {
                at = 0;
            }
            let bytes = item::pad_bytes(&self.memory, at).unwrap_or_else(|| {
                let header = Header::read(&self.memory, at);
                records.push((at, header));
                header.record_bytes()
            });
            at += bytes;
            left -= bytes;
        }
        records
    }
}
