//! S3-FIFO (Yang et al., SOSP 2023, "FIFO queues are all you need for cache eviction"), the default.
//!
//! New items enter a small queue, a tenth of all bytes. Who is asked for there moves on to the main part; who is not is
//! evicted at its end, and remembered in the ghost for a while: who comes back from there goes straight to the main part.
//!
//! ```text
//!   new ──► small queue (10 %) ── not hit ──► evicted ──► ghost
//!                 └── hit ──► main part ◄── new, but in the ghost ──┘
//!                               └── the hand: count 0 → evicted, else count − 1
//! ```
//!
//! Deviations:
//! - The main part is no queue but all other entries of the index, and a hand that goes through them in the order of hashes
//!   (CLOCK), so it needs no memory.
//! - The ghost holds fingerprints for three quarters as many as there are items.
//! - The small queue holds little more than its tenth, also while nothing has to go yet: what comes then enters the main
//!   part *unproven*. The hand takes these first, unless they have been hit.
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

/// Items in the small queue, as a part of all bytes.
const SMALL_PART: u64 = 10;
/// Fingerprints in the ghost, per 100 items. At 50, a page of memory is saved in 200, and 1 % more of the requests miss.
const GHOST_PERCENT: u64 = 75;
/// Unproven entries are looked for while there is one among so many.
const UNPROVEN_PART: u64 = 64;
/// Entries that the hand passes in search of one with count 0, before the lowest of them goes: a bound, where everything
/// is popular.
const PASSED_MAX: usize = 256;
/// Quads that the hand goes over in that search, at most: few of their entries are in the main part where another policy was
/// in charge until now.
const QUADS_PASSED_MAX: usize = 24;
/// Marks that may lead nowhere, besides as many as there are items in the queue, before it is tidied.
const STALE_MAX: u64 = 4096;
/// Pages that the ghost leaves to others: it takes one where writes have brought about as many as they aim at.
const SPARE_PAGES: u32 = crate::engine::FREE_PAGES_AIMED_AT - 1;

pub(in crate::engine) struct S3Fifo {
    small: Queue,
    small_bytes: u64,
    small_items: u64,
    unproven_items: u64,
    ghost: Ghost,
    hand: Hand,
    /// For when neither part has anything to offer.
    last_resort: sample::Hand,
}

/// Where the main part's hand is: in a quad, at an entry of one of its lines.
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
        if self.small_bytes * SMALL_PART >= view.item_bytes {
            return self.small_victim(view).or_else(|| self.main_victim(view, false));
        }
        // While there are enough of them for the hand to find one soon.
        let unproven = self.unproven_items * UNPROVEN_PART > view.index.entries();
        let first = if unproven { self.main_victim(view, true) } else { None };
        first.or_else(|| self.main_victim(view, false)).or_else(|| self.small_victim(view))
    }

    /// The end of the small queue. Who was hit moves on to the main part.
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

    /// The next entry of the main part that the hand finds with count 0; it lowers the others. Or only among the unproven:
    /// then it makes those with hits proven, and passes over the rest.
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
                            continue;
                        }
                        let count = byte & COUNT;
                        let is_asked_for = !unproven || byte & UNPROVEN != 0;
                        if is_asked_for && count == 0 {
                            self.hand = Hand { line: number, entry: entry as u8 + 1, ..self.hand };
                            return Some(at);
                        }
                        passed += 1;
                        if unproven {
                            if is_asked_for {
                                // Saturating: what another policy left may look like one.
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
        lowest.map(|(_, at)| at)
    }
}

impl Rules for S3Fifo {
    fn admit(&mut self, arena: &mut Arena, entrant: Entrant, outlook: Outlook) -> u8 {
        let overfull = self.small_bytes * SMALL_PART > outlook.bytes + outlook.bytes / SMALL_PART;
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
        // Many marks in a row may be stale, and the entries of an earlier policy not in the main part yet.
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
