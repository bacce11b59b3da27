//! First in, first out: a queue of marks, four bytes per item. Writing an item again does not change its place.
//!
//! The byte is the serial of the item's mark.
//!
//! Where the queue has none to offer (after a change of the policy it is empty; after many deletions, what is at its end
//! may lead nowhere for long) any item goes.

use super::sample::Hand;
use super::{Arena, Entrant, HashMark, Outlook, Position, Rules, View};
use crate::engine::queue::Queue;

/// Marks that may lead nowhere, besides as many as there are items, before the queue is tidied.
const STALE_MAX: u64 = 4096;

pub(in crate::engine) struct Fifo {
    queue: Queue,
    items: u64,
    /// For when the queue's end leads nowhere.
    hand: Hand,
}

impl Fifo {
    pub(super) fn new() -> Self {
        Self { queue: Queue::new(), items: 0, hand: Hand::default() }
    }
}

impl Rules for Fifo {
    fn admit(&mut self, arena: &mut Arena, entrant: Entrant, _: Outlook) -> u8 {
        self.adopt(arena, entrant)
    }

    /// In the order of hashes: in which they came is not known.
    fn adopt(&mut self, arena: &mut Arena, entrant: Entrant) -> u8 {
        self.items += 1;
        self.queue.push(arena, HashMark::of(entrant.hash)) as u8
    }

    fn adoption_takes_pages(&self) -> bool {
        true
    }

    fn hit(&mut self, byte: u8) -> u8 {
        byte
    }

    fn victim(&mut self, view: &mut View) -> Option<Position> {
        // Many marks in a row may be stale, and after a change of the policy the queue is empty at first: then any entry goes,
        // rather than that the write fails.
        let mut budget = super::POPPED_MAX;
        let oldest = super::pop_marked(&mut self.queue, view, &mut budget, is_of_serial);
        oldest.map(|(_, at)| at).or_else(|| self.hand.any(view))
    }

    fn removed(&mut self, _: u8, _: u64) {
        self.items -= 1;
    }

    fn tidy(&mut self, view: &mut View) {
        if self.queue.length() > 2 * self.items + STALE_MAX {
            super::tidy(&mut self.queue, view, is_of_serial, |_, serial| serial as u8);
        }
    }

    fn clear(&mut self, arena: &mut Arena) {
        self.queue.clear(arena);
    }

    #[cfg(test)]
    fn pages(&self, arena: &Arena) -> Vec<super::PageNumber> {
        self.queue.pages(arena)
    }
}

fn is_of_serial(byte: u8, serial: u32) -> bool {
    byte == serial as u8
}
