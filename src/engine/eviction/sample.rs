//! Sampling: candidates for eviction, a few entries at a time, from all over the index.

use super::{Bucket, Position, View, entries};
use crate::engine::index::HashPosition;

/// A hand that moves through the index in hash order, half a quad (about a dozen entries, and the chain) at a time.
/// Hash order is unrelated to any other order, so the entries at the hand are a random sample; and the hand visits
/// every entry equally often.
#[derive(Debug, Default)]
pub(super) struct Hand {
    quad: HashPosition,
    second_half: bool,
}

/// A uniform random sample of `N` of the entries that the hand visits.
#[derive(Debug)]
pub(super) struct Draw<const N: usize> {
    drawn: [Option<Position>; N],
    offered: u32,
}

impl<const N: usize> Draw<N> {
    pub(super) fn new() -> Self {
        Self { drawn: [None; N], offered: 0 }
    }

    /// Offers an entry: adds it to the sample or not (algorithm R, Vitter 1985), at a random place.
    pub(super) fn offer(&mut self, random: &mut Random, at: Position) {
        let place = random.below(self.offered + 1) as usize;
        if let Some(free) = self.drawn.get_mut(self.offered as usize) {
            *free = Some(at);
            self.drawn.swap(place, self.offered as usize);
        } else if let Some(drawn) = self.drawn.get_mut(place) {
            *drawn = Some(at);
        }
        self.offered += 1;
    }

    /// The sample, in random order: `N` entries, or all that were offered if they were fewer.
    pub(super) fn drawn(&self) -> impl Iterator<Item = Position> {
        self.drawn.iter().copied().flatten()
    }
}

/// Consecutive half quads without an entry, after which a hand gives up.
const EMPTY_MAX: usize = 4096;

impl Hand {
    /// Calls `visit` for the next entries, at least one. False if [`EMPTY_MAX`] half quads in a row have none.
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
    /// The next entry.
    pub(super) fn any(&mut self, view: &mut View) -> Option<Position> {
        let mut first = None;
        self.sample(view, |_, at| first = first.or(Some(at)));
        first
    }
}

/// A random number generator (xorshift64*, Vigna 2014), for sampling only.
#[derive(Debug)]
pub(in crate::engine) struct Random(u64);

impl Random {
    pub(super) const fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    /// A generator with this seed.
    pub(in crate::engine) fn seeded(seed: u64) -> Self {
        Self(seed.max(1))
    }

    #[inline]
    pub(in crate::engine) fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }

    /// A random number below `n`.
    pub(super) fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.next()) * u64::from(n)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_offer_is_drawn_equally_often_and_to_any_place() {
        const ROUNDS: u32 = 30_000;
        let mut random = Random::new();
        let (mut drawn, mut first) = ([0_u32; 10], [0_u32; 10]);
        for _ in 0..ROUNDS {
            let mut draw = Draw::<4>::new();
            for entry in 0..10 {
                draw.offer(&mut random, Position { line: 0, entry });
            }
            assert_eq!(draw.drawn().count(), 4);
            draw.drawn().for_each(|at| drawn[at.entry as usize] += 1);
            draw.drawn().take(1).for_each(|at| first[at.entry as usize] += 1);
        }
        let near = |count: u32, expected: u32| count.abs_diff(expected) < expected / 10;
        assert!(drawn.iter().all(|&count| near(count, ROUNDS * 4 / 10)), "{drawn:?}");
        assert!(first.iter().all(|&count| near(count, ROUNDS / 10)), "{first:?}");
    }

    #[test]
    fn few_offers_are_all_drawn() {
        let mut random = Random::new();
        let mut draw = Draw::<4>::new();
        assert_eq!(draw.drawn().next(), None);
        for entry in 0..3 {
            draw.offer(&mut random, Position { line: 0, entry });
        }
        let mut entries: Vec<u8> = draw.drawn().map(|at| at.entry).collect();
        entries.sort_unstable();
        assert_eq!(entries, [0, 1, 2]);
    }
}
