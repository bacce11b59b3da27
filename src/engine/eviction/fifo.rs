//! FIFO: evicts in the order of admission. The queue holds marks, 4 bytes per item. Overwriting an item does not change
//! its place.
//!
//! The policy byte is the serial of the item's mark.
//!
//! Any item is evicted if the queue offers none: it is empty after a change of the policy, and after many deletions a
//! long run of marks at its end may be stale.

use super::sample::Hand;
use super::{Arena, Entrant, HashMark, Outlook, Position, Rules, View};
use crate::engine::queue::Queue;

/// Stale marks that the queue may hold beyond one per item, before they are removed.
const STALE_MAX: u64 = 4096;

pub(in crate::engine) struct Fifo {
    queue: Queue,
    items: u64,
    /// Chooses a victim where the marks are stale.
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

    /// In hash order: the order of their admission is not known.
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
        // Evicting any entry is better than failing the write.
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
