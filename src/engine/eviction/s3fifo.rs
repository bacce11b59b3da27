//! S3-FIFO (Yang et al., SOSP 2023, "FIFO queues are all you need for cache eviction"), the default.
//!
//! New items enter a small queue, which holds a tenth of all bytes. An item that was hit there moves on to the main
//! part when it reaches the end of the queue; one that was not is evicted and remembered in the ghost for a while. A
//! new item whose key is in the ghost enters the main part directly.
//!
//! ```text
//!   new ──► small queue (10 %) ── not hit ──► evicted ──► ghost
//!                 └── hit ──► main part ◄── new, but in the ghost ──┘
//!                               └── the hand: count 0 → evicted, else count − 1
//! ```
//!
//! Deviations:
//! - The main part is not a queue: it consists of all other entries, and a hand passes over the index in hash order
//!   (CLOCK). So it needs no memory.
//! - The ghost holds three quarters as many fingerprints as there are items.
//! - The small queue stays at about a tenth of the bytes even while memory is still filling up. Items admitted beyond
//!   that enter the main part as *unproven*; the hand evicts those first, unless they have been hit.
//!
//! byte: | main 7 | unproven 6, in the main part | count 0-1 |
//!       | 0      | serial of the mark in the small queue 2-6 | count 0-1 |

use super::sample;
use super::{Arena, Bucket, Entrant, HashMark, Outlook, Position, Rules, View, entries};
use crate::engine::KeyHash;
use crate::engine::ghost::Ghost;
use crate::engine::index::HashPosition;
use crate::engine::queue::Queue;

const MAIN: u8 = 0x80;
const UNPROVEN: u8 = 0x40;
const COUNT: u8 = 3;
const SERIAL_SHIFT: u32 = 2;
const SERIAL: u8 = !(MAIN | COUNT);

/// The small queue holds this fraction of all bytes (a tenth).
const SMALL_PART: u64 = 10;
/// Fingerprints in the ghost per 100 items. At 50, the ghost takes 0.5 % less of the memory, and 1 % more of the
/// requests miss.
const GHOST_PERCENT: u64 = 75;
/// Unproven entries are looked for while at least one entry in this many is unproven.
const UNPROVEN_PART: u64 = 64;
/// Entries that the hand passes in search of one with count 0, before the one with the lowest count is evicted: bounds
/// the step where every entry is popular.
const PASSED_MAX: usize = 256;
/// Quads that the hand passes in that search, at most: after a change of the policy, few entries belong to the main
/// part at first.
const QUADS_PASSED_MAX: usize = 24;
/// Stale marks that the small queue may hold, besides as many as it has items, before it is tidied.
const STALE_MAX: u64 = 4096;
/// Free pages that the ghost leaves untouched: it only takes pages beyond those that writes aim at.
const SPARE_PAGES: u32 = crate::engine::FREE_PAGES_AIMED_AT - 1;

pub(in crate::engine) struct S3Fifo {
    small: Queue,
    small_bytes: u64,
    small_items: u64,
    unproven_items: u64,
    ghost: Ghost,
    hand: Hand,
    /// Chooses a victim if neither part offers one.
    last_resort: sample::Hand,
}

/// Position of the main part's hand: a quad, a line in it, an entry in that.
#[derive(Debug, Default)]
struct Hand {
    quad: HashPosition,
    line: u8,
    entry: u8,
}

impl S3Fifo {
    pub(super) fn new() -> Self {
        Self {
            small: Queue::new(),
            small_bytes: 0,
            small_items: 0,
            unproven_items: 0,
            ghost: Ghost::new(),
            hand: Hand::default(),
            last_resort: sample::Hand::default(),
        }
    }

    fn leave_small(&mut self, bytes: u64) {
        self.small_bytes -= bytes;
        self.small_items -= 1;
    }

    fn choose(&mut self, view: &mut View) -> Option<Position> {
        // The small queue has its share or more: it has to give one up.
        if self.small_bytes * SMALL_PART >= view.item_bytes {
            return self.small_victim(view).or_else(|| self.main_victim(view, false));
        }
        // Worth a search only while there are enough of them for the hand to find one soon.
        let unproven = self.unproven_items * UNPROVEN_PART > view.index.entries();
        let first = if unproven { self.main_victim(view, true) } else { None };
        first.or_else(|| self.main_victim(view, false)).or_else(|| self.small_victim(view))
    }

    /// The oldest item of the small queue that was not hit. Items that were hit move on to the main part.
    fn small_victim(&mut self, view: &mut View) -> Option<Position> {
        let mut budget = super::POPPED_MAX;
        loop {
            let (_, at) = super::pop_marked(&mut self.small, view, &mut budget, is_small_of_serial)?;
            if view.policy(at) & COUNT == 0 {
                return Some(at);
            }
            view.set_policy(at, MAIN);
            self.leave_small(view.footprint(at));
        }
    }

    /// Moves the hand to the next entry of the main part with count 0, decrementing the counts that it passes. With
    /// `unproven`, it stops at unproven entries only, marks those that were hit as proven, and leaves the rest as they
    /// are.
    fn main_victim(&mut self, view: &mut View, unproven: bool) -> Option<Position> {
        let mut passed = 0;
        let mut lowest: Option<(u8, Position)> = None;
        let mut quads = 0;
        while passed < PASSED_MAX && quads < QUADS_PASSED_MAX {
            let (mut lines, next) = view.index.quad(self.hand.quad);
            let mut number = 0;
            while let Some(line) = lines.next(view.arena.memory()) {
                let is_current = number == self.hand.line;
                if number >= self.hand.line {
                    let bits = Bucket::at(view.arena.memory(), line).used();
                    let from = if is_current { self.hand.entry } else { 0 };
                    for entry in entries(bits & u32::MAX << from) {
                        let at = Position { line, entry: entry as u8 };
                        let byte = view.policy(at);
                        if byte & MAIN == 0 {
                            // It belongs to the small queue.
                            continue;
                        }
                        let count = byte & COUNT;
                        let is_candidate = !unproven || byte & UNPROVEN != 0;
                        if is_candidate && count == 0 {
                            // The hand stays behind the victim, so that the next search continues here.
                            self.hand = Hand { line: number, entry: entry as u8 + 1, ..self.hand };
                            return Some(at);
                        }
                        passed += 1;
                        if unproven {
                            if is_candidate {
                                // Saturating, because a byte that another policy left behind may look like an unproven
                                // entry.
                                self.unproven_items = self.unproven_items.saturating_sub(1);
                                view.set_policy(at, MAIN);
                            }
                            continue;
                        }
                        view.set_policy(at, byte - 1);
                        if lowest.is_none_or(|(c, _)| count < c) {
                            lowest = Some((count, at));
                        }
                    }
                }
                number += 1;
            }
            self.hand = Hand { quad: next, line: 0, entry: 0 };
            quads += 1;
            view.index.prefetch_quad(view.arena, next);
        }
        // The bound is reached: the entry with the fewest hits of those passed.
        lowest.map(|(_, at)| at)
    }
}

impl Rules for S3Fifo {
    fn admit(&mut self, arena: &mut Arena, entrant: Entrant, outlook: Outlook) -> u8 {
        let overfull = self.small_bytes * SMALL_PART > outlook.bytes + outlook.bytes / SMALL_PART;
        // It comes back soon after its eviction, so the small queue would have given it up too early.
        if self.ghost.take(arena, entrant.hash) {
            return MAIN;
        }
        if overfull {
            self.unproven_items += 1;
            return MAIN | UNPROVEN;
        }
        self.small_bytes += entrant.bytes;
        self.small_items += 1;
        serial_bits(self.small.push(arena, HashMark::of(entrant.hash)))
    }

    fn adopt(&mut self, _: &mut Arena, _: Entrant) -> u8 {
        MAIN
    }

    #[inline]
    fn hit(&mut self, byte: u8) -> u8 {
        byte + u8::from(byte & COUNT < COUNT)
    }

    fn victim(&mut self, view: &mut View) -> Option<Position> {
        // A long run of marks may be stale, and the entries that an earlier policy admitted may not be in the main part
        // yet.
        self.choose(view).or_else(|| self.last_resort.any(view))
    }

    fn resized(&mut self, byte: u8, from: u64, to: u64) {
        if byte & MAIN == 0 {
            self.small_bytes = self.small_bytes - from + to;
        }
    }

    fn removed(&mut self, byte: u8, bytes: u64) {
        if byte & MAIN == 0 {
            self.leave_small(bytes);
        } else if byte & UNPROVEN != 0 {
            self.unproven_items = self.unproven_items.saturating_sub(1);
        }
    }

    fn evicted(&mut self, arena: &mut Arena, hash: KeyHash, byte: u8, entries: u64) {
        self.ghost.fit(arena, entries * GHOST_PERCENT / 100, SPARE_PAGES);
        if byte & MAIN == 0 {
            self.ghost.remember(arena, hash);
        }
    }

    fn tidy(&mut self, view: &mut View) {
        if self.small.length() > 2 * self.small_items + STALE_MAX {
            super::tidy(&mut self.small, view, is_small_of_serial, |byte, serial| byte & COUNT | serial_bits(serial));
        }
    }

    fn clear(&mut self, arena: &mut Arena) {
        self.small.clear(arena);
        self.ghost.clear(arena);
    }

    #[cfg(test)]
    fn pages(&self, arena: &Arena) -> Vec<super::PageNumber> {
        let mut pages = self.small.pages(arena);
        pages.extend(self.ghost.pages());
        pages
    }
}

fn serial_bits(serial: u32) -> u8 {
    (serial << SERIAL_SHIFT) as u8 & SERIAL
}

fn is_small_of_serial(byte: u8, serial: u32) -> bool {
    byte & (MAIN | SERIAL) == serial_bits(serial)
}
