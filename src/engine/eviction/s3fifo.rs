//! S3-FIFO (Yang et al., SOSP 2023, "FIFO queues are all you need for cache eviction"), the default.
//!
//! New items enter a queue, the *window*. An item that was hit there moves on to the main part when it reaches the end
//! of the window; one that was not is evicted and remembered in the ghost for a while. A new item whose key is in the
//! ghost enters the main part directly. Victims come from the window while it holds its share of all bytes, else from
//! the main part.
//!
//! ```text
//!   new ──► window (10 or 30 %) ── not hit ──► evicted ──► ghost
//!              └── hit ──► main part ◄── new, but in the ghost ──┘
//!                             └── the hand: count 0 → evicted, else count − 1
//! ```
//!
//! Deviations:
//! - The main part is not a queue: it consists of all other entries, and a hand passes over the index in hash order
//!   (CLOCK). So it needs no memory.
//! - The ghost holds three quarters as many fingerprints as there are items.
//! - What fills an empty memory is *early*: it belongs to the main part, but nobody has asked for it yet. While there
//!   is any, the window's share is 30 % of all bytes instead of 10, since early entries are worth no more than new
//!   ones. So a batch of a quarter of memory can be written to a cache full of items that nobody reads, and be read
//!   back. The window is not larger, because a loop over more than memory would find nothing in it; early entries stay.
//! - Only a tenth of the bytes is in a real queue, the *small queue*, whose marks take 4 bytes an item. What the window
//!   holds beyond that lies in hash order as the main part does, but its bytes tell its generation, which is a
//!   thirtieth of memory. The hand evicts the oldest; the front of the small queue goes first while it is as old.
//!
//! Early entries and those of a generation are *unproven*.
//!
//! byte: | 1 | unproven 6 | generation or early 2-5, if unproven | count 0-1 |
//!       | 0 | serial of the mark in the small queue 2-6         | count 0-1 |

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
const GENERATION_SHIFT: u32 = 2;

/// The small queue holds at most this fraction of all bytes (a tenth); the window's share if no entries are early.
const SMALL_PART: u64 = 10;
/// The window's share while there are early entries, in tenths of all bytes.
const WINDOW_TENTHS: u64 = 3;
/// Numbers of generations. The next number stands for early entries.
const GENERATIONS: u8 = 15;
const EARLY: u8 = GENERATIONS;
/// A generation ends when this fraction of all bytes has entered the window. The window is a little more than its
/// share, up to 40 % of memory after this has filled, and fewer generations than there are numbers for.
const GENERATION_PART: u64 = 30;
/// Fingerprints in the ghost per 100 items. At 50, the ghost takes 0.5 % less of the memory, and 1 % more of the
/// requests miss.
const GHOST_PERCENT: u64 = 75;
/// A generation is over when fewer than one entry in this many belongs to it or to older ones, and so are early
/// entries: the hand would look for those too long.
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
    unproven: Unproven,
    ghost: Ghost,
    hand: Hand,
    /// Chooses a victim if neither part offers one.
    last_resort: sample::Hand,
}

/// The unproven entries. Generations are numbered in a circle; what is left of one that is over counts as older than
/// the oldest, until its number is used again.
#[derive(Debug, Default)]
struct Unproven {
    /// Items by generation, and early ones.
    items: [u64; GENERATIONS as usize + 1],
    /// Bytes of the items that have a generation.
    bytes: u64,
    /// How many marks had been pushed to the small queue when the generation began.
    pushed: [u64; GENERATIONS as usize],
    newest: u8,
    oldest: u8,
    /// Bytes that have entered the window in the newest generation.
    newest_bytes: u64,
}

/// The unproven entries among which the hand chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Early,
    Oldest,
}

impl Unproven {
    /// Notes that `bytes` enter the window, of `all` that memory will hold; `pushed` marks were pushed before.
    fn note_entry(&mut self, bytes: u64, all: u64, pushed: u64) {
        let next = following(self.newest);
        if self.newest_bytes * GENERATION_PART >= all && next != self.oldest {
            self.newest = next;
            self.newest_bytes = 0;
            self.pushed[usize::from(next)] = pushed;
        }
        self.newest_bytes += bytes;
    }

    /// Adds an item to a generation, or to the early ones; returns its policy byte.
    fn add(&mut self, generation: u8, bytes: u64) -> u8 {
        self.items[usize::from(generation)] += 1;
        self.bytes += if generation == EARLY { 0 } else { bytes };
        MAIN | UNPROVEN | generation << GENERATION_SHIFT
    }

    /// Saturating, because a byte that another policy left behind may look like that of an unproven entry.
    fn remove(&mut self, byte: u8, bytes: u64) {
        let items = &mut self.items[usize::from(generation(byte))];
        *items = items.saturating_sub(1);
        self.resize(byte, bytes, 0);
    }

    fn resize(&mut self, byte: u8, from: u64, to: u64) {
        if generation(byte) != EARLY {
            self.bytes = (self.bytes + to).saturating_sub(from);
        }
    }

    /// True if some of `entries` are early, enough of them for the hand to find one soon.
    fn has_early(&self, entries: u64) -> bool {
        self.items[usize::from(EARLY)] * UNPROVEN_PART >= entries.max(1)
    }

    fn is(&self, generation: u8, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Early => generation == EARLY,
            Wanted::Oldest => generation != EARLY && self.age(generation) >= self.age(self.oldest),
        }
    }

    fn age(&self, generation: u8) -> u8 {
        (self.newest + GENERATIONS - generation) % GENERATIONS
    }

    /// Advances the oldest generation to one with enough of `entries`, what is left of older ones included. False if
    /// there is none.
    fn find_oldest(&mut self, entries: u64) -> bool {
        let mut items = self.items[usize::from(self.oldest)];
        let mut older = following(self.newest);
        while older != self.oldest {
            items += self.items[usize::from(older)];
            older = following(older);
        }
        while items * UNPROVEN_PART < entries && self.oldest != self.newest {
            self.oldest = following(self.oldest);
            items += self.items[usize::from(self.oldest)];
        }
        items * UNPROVEN_PART >= entries
    }

    /// True if the mark at the front of the small queue, before which `popped` were popped, is as old as the oldest
    /// generation.
    fn is_as_old(&self, popped: u64) -> bool {
        self.oldest == self.newest || popped < self.pushed[usize::from(following(self.oldest))]
    }
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
            unproven: Unproven::default(),
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
        let has_early = self.unproven.has_early(view.index.entries());
        let tenths = if has_early { WINDOW_TENTHS } else { 1 };
        // The window has its share or more: it has to give an item up.
        let is_due = (self.small_bytes + self.unproven.bytes) * SMALL_PART >= view.item_bytes * tenths;
        let oldest = if is_due { self.window_victim(view) } else { None };
        // Where all that was due had been hit, the window has become smaller.
        let early = oldest.or_else(|| if has_early { self.main_victim(view, Some(Wanted::Early)) } else { None });
        early.or_else(|| self.main_victim(view, None)).or_else(|| self.small_victim(view))
    }

    /// The oldest item of the window that was not hit, approximately. None if the oldest ones had all been hit; they
    /// have moved on to the main part.
    fn window_victim(&mut self, view: &mut View) -> Option<Position> {
        let has_generation = self.unproven.find_oldest(view.index.entries());
        if has_generation && (self.small.length() == 0 || !self.unproven.is_as_old(self.small.popped())) {
            return self.main_victim(view, Some(Wanted::Oldest));
        }
        self.small_victim(view)
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
    /// `wanted`, it stops at these unproven entries only, marks those that were hit as proven, and leaves the rest as
    /// they are.
    fn main_victim(&mut self, view: &mut View, wanted: Option<Wanted>) -> Option<Position> {
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
                        let is_candidate = wanted
                            .is_none_or(|wanted| byte & UNPROVEN != 0 && self.unproven.is(generation(byte), wanted));
                        if is_candidate && count == 0 {
                            // The hand stays behind the victim, so that the next search continues here.
                            self.hand = Hand { line: number, entry: entry as u8 + 1, ..self.hand };
                            return Some(at);
                        }
                        passed += 1;
                        if wanted.is_some() {
                            if is_candidate {
                                self.unproven.remove(byte, view.footprint(at));
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
        let window = outlook.bytes / SMALL_PART * WINDOW_TENTHS;
        if overfull && outlook.held_bytes + window < outlook.bytes {
            return self.unproven.add(EARLY, entrant.bytes);
        }
        self.unproven.note_entry(entrant.bytes, outlook.bytes, self.small.pushed());
        if overfull {
            return self.unproven.add(self.unproven.newest, entrant.bytes);
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
        } else if byte & UNPROVEN != 0 {
            self.unproven.resize(byte, from, to);
        }
    }

    fn removed(&mut self, byte: u8, bytes: u64) {
        if byte & MAIN == 0 {
            self.leave_small(bytes);
        } else if byte & UNPROVEN != 0 {
            self.unproven.remove(byte, bytes);
        }
    }

    fn evicted(&mut self, arena: &mut Arena, hash: KeyHash, byte: u8, entries: u64) {
        self.ghost.fit(arena, entries * GHOST_PERCENT / 100, SPARE_PAGES);
        if byte & MAIN == 0 || byte & UNPROVEN != 0 {
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

/// The generation of an unproven entry, or [`EARLY`].
fn generation(byte: u8) -> u8 {
    (byte & !(MAIN | UNPROVEN)) >> GENERATION_SHIFT
}

/// The number after that of a generation.
fn following(generation: u8) -> u8 {
    (generation + 1) % GENERATIONS
}

fn serial_bits(serial: u32) -> u8 {
    (serial << SERIAL_SHIFT) as u8 & SERIAL
}

fn is_small_of_serial(byte: u8, serial: u32) -> bool {
    byte & (MAIN | SERIAL) == serial_bits(serial)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The window of a full memory, in which each item that enters evicts the oldest one.
    #[test]
    fn generations_go_in_order_and_their_numbers_are_used_again() {
        const ALL: u64 = 3000;
        let mut unproven = Unproven::default();
        let mut window = std::collections::VecDeque::new();
        for n in 0..20 * ALL {
            unproven.note_entry(1, ALL, 0);
            window.push_back(unproven.add(unproven.newest, 1));
            if window.len() as u64 <= ALL * 4 / 10 {
                continue;
            }
            assert!(unproven.find_oldest(ALL), "entry {n}");
            // Up to 1/64 of the entries may be left of generations that are over.
            let at = window.iter().position(|&byte| unproven.is(generation(byte), Wanted::Oldest)).expect("the oldest");
            assert!(at as u64 <= ALL / UNPROVEN_PART, "entry {n}: {at} older ones stayed");
            let byte = window.remove(at).expect("it is there");
            unproven.remove(byte, 1);
        }
        assert_eq!(unproven.bytes, window.len() as u64);
        assert_eq!(unproven.items.iter().sum::<u64>(), window.len() as u64);
    }
}
