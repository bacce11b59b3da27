//! SIEVE (Zhang et al., NSDI 2024, "SIEVE is simpler than LRU: an efficient turn-key eviction algorithm for web
//! caches").
//!
//! One FIFO queue of all items, a visited bit per item, and a hand. New items enter at the head. A hit sets the visited
//! bit and moves nothing. To evict, the hand moves from the tail (the oldest item) towards the head: it clears the bit
//! of each visited item and leaves the item in its place, and it evicts the first item that is not visited. It stays
//! there until the next eviction, and wraps around to the tail after the head. Survivors keep their place in the queue:
//! CLOCK moves them to the head, among the new items, where SIEVE lets the hand sift new items apart from the old,
//! popular ones.
//!
//! The queue is kept as two, cut at the hand, so that nothing is ever removed from the middle of one:
//!
//! ```text
//!   tail                       hand                      head
//!     │  `behind`: survivors    │  `ahead`: not yet passed │
//!     └─────────────────────────┴──────────────────────────┴──◄── new items
//!                         push ◄┴─ pop
//! ```
//!
//! An item that the hand spares goes from the front of `ahead` to the back of `behind`: the place that it has already.
//! When `ahead` is empty, the hand is at the head and wraps around: `behind` becomes `ahead`. So the order is that of
//! the paper. The queues hold marks of 4 bytes per item, and the marks of removed items stay in them until the hand
//! drops them.
//!
//! Deviations:
//! - One eviction examines [`EXAMINED_MAX`] marks at most. If all of those lead to visited items, the last one is
//!   evicted all the same; if all are stale, any item is. A visited item is evicted as well while no page is free,
//!   since `behind` may then have no room for its mark.
//! - While most marks are stale because many items were removed other than by eviction, the hand moves on by two marks
//!   per admission, to drop the stale ones. It evicts nothing then, and leaves the visited bits as they are.
//! - Wrapping around is decided by marks: where the items nearest to the head were deleted, the hand passes their
//!   marks, and then the items that came after them, before it wraps around.
//!
//! byte: | visited 7 | serial of the mark 0-6 |

use super::sample;
use super::{Arena, Entrant, HashMark, Outlook, Position, Rules, View};
use crate::engine::queue::Queue;
use std::mem;

const VISITED: u8 = 0x80;
const SERIAL: u8 = !VISITED;

/// Marks that one eviction examines at most: a bound on the time of one step, where almost every item is visited.
const EXAMINED_MAX: usize = 256;
/// Stale marks that the queues may hold beyond one per item, before the hand moves on to drop some.
const STALE_MAX: u64 = 4096;
/// Marks that the hand moves on by, per admission, to drop stale ones.
const TIDIED: usize = 2;

pub(in crate::engine) struct Sieve {
    /// Marks from the hand to the head; the oldest of them is the next that the hand examines.
    ahead: Queue,
    /// Marks from the tail to the hand.
    behind: Queue,
    items: u64,
    /// Chooses where the marks lead to no item.
    last_resort: sample::Hand,
}

impl Sieve {
    pub(super) fn new() -> Self {
        Self { ahead: Queue::new(), behind: Queue::new(), items: 0, last_resort: sample::Hand::default() }
    }

    /// Puts an entry that the hand has passed back, with `visited` as its bit. Its place in the order does not change.
    fn spare(&mut self, view: &mut View, mark: HashMark, at: Position, visited: u8) {
        let serial = self.behind.push(view.arena, mark);
        view.set_policy(at, visited | serial_bits(serial));
    }

    /// Takes the hand from the head to the tail. At once, not when the next mark is wanted: an item that is admitted in
    /// between enters at the head, and the hand has to come to it last.
    fn wrap_around(&mut self) {
        if self.ahead.length() == 0 {
            mem::swap(&mut self.ahead, &mut self.behind);
        }
    }

    /// Moves the hand to the first item that is not visited.
    fn sift(&mut self, view: &mut View) -> Option<Position> {
        let mut budget = EXAMINED_MAX;
        while budget > 0 && self.ahead.length() > 0 {
            if let Some((mark, at)) = super::pop_marked(&mut self.ahead, view, &mut budget, is_of_serial) {
                let is_visited = view.policy(at) & VISITED != 0;
                // Without a free page `behind` may have no room for the mark, and nothing would lead to the entry any
                // more.
                let can_spare = budget > 0 && view.arena.free_pages() > 0;
                if !is_visited || !can_spare {
                    self.wrap_around();
                    return Some(at);
                }
                self.spare(view, mark, at, 0);
            }
            self.wrap_around();
        }
        None
    }
}

impl Rules for Sieve {
    fn admit(&mut self, arena: &mut Arena, entrant: Entrant, _: Outlook) -> u8 {
        self.adopt(arena, entrant)
    }

    /// In hash order: the order of their admission is not known.
    fn adopt(&mut self, arena: &mut Arena, entrant: Entrant) -> u8 {
        self.items += 1;
        serial_bits(self.ahead.push(arena, HashMark::of(entrant.hash)))
    }

    fn adoption_takes_pages(&self) -> bool {
        true
    }

    #[inline]
    fn hit(&mut self, byte: u8) -> u8 {
        byte | VISITED
    }

    fn victim(&mut self, view: &mut View) -> Option<Position> {
        // All marks examined were stale, or this policy has not adopted an entry yet: any entry goes, so that the write
        // does not fail.
        self.sift(view).or_else(|| self.last_resort.any(view))
    }

    fn removed(&mut self, _: u8, _: u64) {
        self.items -= 1;
    }

    fn tidy(&mut self, view: &mut View) {
        if self.ahead.length() + self.behind.length() <= 2 * self.items + STALE_MAX {
            return;
        }
        for _ in 0..TIDIED {
            if let Some((mark, at)) = super::pop_marked(&mut self.ahead, view, &mut 1, is_of_serial) {
                let visited = view.policy(at) & VISITED;
                self.spare(view, mark, at, visited);
            }
            self.wrap_around();
        }
    }

    fn clear(&mut self, arena: &mut Arena) {
        self.ahead.clear(arena);
        self.behind.clear(arena);
    }

    #[cfg(test)]
    fn pages(&self, arena: &Arena) -> Vec<super::PageNumber> {
        [self.ahead.pages(arena), self.behind.pages(arena)].concat()
    }
}

fn serial_bits(serial: u32) -> u8 {
    serial as u8 & SERIAL
}

fn is_of_serial(byte: u8, serial: u32) -> bool {
    byte & SERIAL == serial_bits(serial)
}
