//! Candidates for eviction: a few entries at a time, all over the index.

use super::{Bucket, Position, View, entries};
use crate::engine::index::HashPosition;

/// A hand that goes through the index in the order of hashes, half a quad (17 entries or so, and the chain) at a time. As
/// the order of hashes is no order of anything else, what it passes is a random sample; and it comes to each entry equally
/// often.
#[derive(Debug, Default)]
pub(super) struct Hand {
    quad: HashPosition,
    second_half: bool,
}

/// Half quads without any entry that a hand passes before it gives up.
const EMPTY_MAX: usize = 4096;

impl Hand {
    /// Calls `visit` for the next entries, at least one. False if there are none far and wide.
    pub(super) fn sample(&mut self, view: &mut View, mut visit: impl FnMut(&mut View, Position)) -> bool {
        for _ in 0..EMPTY_MAX {
            let (mut lines, next) = view.index.quad(self.quad);
            let half = if self.second_half { 2..usize::MAX } else { 0..2 };
            let mut number = 0;
            let mut any = false;
            while number < half.end
                && let Some(line) = lines.next(view.arena.memory())
            {
                if number >= half.start {
                    for entry in entries(Bucket::at(view.arena.memory(), line).used()) {
                        any = true;
                        visit(view, Position { line, entry: entry as u8 });
                    }
                }
                number += 1;
            }
            if self.second_half {
                self.quad = next;
                view.index.prefetch_quad(view.arena, next);
            }
            self.second_half = !self.second_half;
            if any {
                return true;
            }
        }
        false
    }
}

impl Hand {
    /// An entry, whichever comes next.
    pub(super) fn any(&mut self, view: &mut View) -> Option<Position> {
        let mut first = None;
        self.sample(view, |_, at| first = first.or(Some(at)));
        first
    }
}

/// Random numbers (xorshift64*, Vigna 2014): for choosing among entries, nothing else.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    #[inline]
    pub(super) fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.next()) * u64::from(n)) >> 32) as u32
    }
}
