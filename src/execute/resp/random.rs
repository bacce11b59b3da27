//! Draws random elements by their ranks.

use super::arguments::{Error, text};
use super::slice::Slice;
use crate::engine::Engine;
use crate::protocol::resp::Writer;
use std::collections::HashSet;

/// The most elements that may be drawn with repetition in one call. Redis has no such limit, but here a reply is
/// assembled in memory.
const REPEATED_MAX: u64 = 1 << 20;

/// Elements that a slice passes over per element that it may visit.
const PASSED_PER_ELEMENT: u64 = 4;

/// The number of random elements that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Draw {
    /// This many distinct elements.
    Distinct(u64),
    /// This many elements, each drawn from all.
    Repeated(u64),
}

impl Draw {
    /// Interprets a count: if it is negative, elements may repeat.
    pub(super) fn of(count: i64) -> Result<Self, Error> {
        match u64::try_from(count) {
            Ok(count) => Ok(Self::Distinct(count)),
            Err(_) if count.unsigned_abs() > REPEATED_MAX => Err(text("ERR value is out of range")),
            Err(_) => Ok(Self::Repeated(count.unsigned_abs())),
        }
    }

    /// The number of elements that are drawn out of `length`.
    pub(super) fn count(self, length: u64) -> u64 {
        match self {
            Self::Repeated(_) if length == 0 => 0,
            Self::Repeated(count) => count,
            Self::Distinct(count) => count.min(length),
        }
    }

    /// Draws the ranks of a slice, out of `length` elements.
    pub(super) fn ranks(self, length: u64, slice: &Slice, engine: &mut Engine) -> Ranks {
        let (from, ranks_max) = (slice.from, slice.elements_max as u64);
        match self {
            Self::Repeated(_) if length == 0 => Ranks { ranks: Vec::new(), order: Order::Any, to: 0, end: 0 },
            Self::Repeated(count) => {
                let to = count.min(from.saturating_add(ranks_max));
                let ranks = (from..to).map(|_| engine.random() % length).collect();
                Ranks { ranks, order: Order::Each, to, end: count }
            }
            Self::Distinct(count) if count >= length => {
                let to = length.min(from.saturating_add(ranks_max));
                Ranks { ranks: (from..to).collect(), order: Order::Upwards, to, end: length }
            }
            // Where the sample is a large part of all elements, or too large for one slice, a pass over all of them
            // selects it (Knuth's algorithm S); the slices before selected `sum` of them.
            Self::Distinct(count) if count > length / 4 || count > ranks_max => {
                let to = length.min(from.saturating_add(ranks_max.saturating_mul(PASSED_PER_ELEMENT)));
                let mut left = count - slice.sum;
                let chosen = (from..to).filter(|rank| {
                    let is_chosen = engine.random() % (length - rank) < left;
                    left -= u64::from(is_chosen);
                    is_chosen
                });
                Ranks { ranks: chosen.collect(), order: Order::Upwards, to, end: length }
            }
            // Floyd's algorithm: a rank drawn a second time is replaced by `last`, which no earlier step could draw.
            Self::Distinct(count) => {
                let mut chosen = HashSet::with_capacity(count as usize);
                for last in length - count..length {
                    let rank = engine.random() % (last + 1);
                    if !chosen.insert(rank) {
                        chosen.insert(last);
                    }
                }
                Ranks { ranks: chosen.into_iter().collect(), order: Order::Any, to: 0, end: 0 }
            }
        }
    }
}

/// How the ranks of a slice were drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// All at once.
    Any,
    /// Each by itself.
    Each,
    /// In one pass, from the lowest on.
    Upwards,
}

/// The ranks of a slice.
#[derive(Debug)]
pub(super) struct Ranks {
    ranks: Vec<u64>,
    order: Order,
    /// The position behind them, in ranks or draws, and that at which the last slice ends.
    to: u64,
    end: u64,
}

impl Ranks {
    /// Writes the elements at these ranks, as many as the slice has room for; the next one draws the others again.
    pub(super) fn write<T>(
        &self,
        slice: &mut Slice,
        w: &mut Writer,
        element: impl Fn(u64) -> Option<T>,
        mut write: impl FnMut(&mut Writer, T),
    ) {
        let elements = self.ranks.iter().filter_map(|&rank| element(rank));
        if self.order == Order::Any {
            elements.for_each(|element| write(w, element));
            return;
        }
        let whole = Slice { elements_max: usize::MAX, ..*slice };
        let written = whole.write(w, elements, write);
        slice.sum += written;
        let next = match self.order {
            _ if written == self.ranks.len() as u64 => self.to,
            Order::Upwards => self.ranks[written as usize - 1] + 1,
            Order::Each | Order::Any => slice.from + written,
        };
        slice.done_to(next, self.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::resp::tests::Session;

    /// The ranks of all slices.
    fn all(draw: Draw, length: u64, elements_max: usize, engine: &mut Engine) -> Vec<u64> {
        let (mut slice, mut ranks, mut out) = (Slice::first(elements_max), Vec::new(), Vec::new());
        loop {
            let drawn = draw.ranks(length, &slice, engine);
            // Elements so long that some slices have room for one only.
            let long = vec![0; 1 << 15];
            drawn.write(&mut slice, &mut Writer::new(&mut out, false), Some, |w, rank| {
                w.bulk(&long);
                ranks.push(rank);
            });
            out.clear();
            if !slice.more {
                assert_eq!(ranks.len() as u64, draw.count(length));
                return ranks;
            }
            slice = slice.next();
        }
    }

    #[test]
    fn every_rank_is_as_likely() {
        let mut engine = Session::new().executor.engine;
        for (count, length, elements_max) in
            [(1, 20, 100), (4, 20, 100), (4, 20, 2), (9, 20, 100), (9, 20, 1), (19, 20, 2), (20, 20, 7)]
        {
            let mut drawn = [0_u64; 20];
            for _ in 0..4000 {
                let ranks = all(Draw::Distinct(count), length, elements_max, &mut engine);
                let distinct: HashSet<u64> = ranks.iter().copied().collect();
                assert_eq!((ranks.len() as u64, distinct.len() as u64), (count, count));
                ranks.iter().for_each(|&rank| drawn[rank as usize] += 1);
            }
            let expected = 4000 * count / length;
            assert!(drawn.iter().all(|&n| n > expected * 3 / 4 && n < expected * 5 / 4), "{count}: {drawn:?}");
        }
    }

    #[test]
    fn what_counts_mean() {
        assert_eq!(Draw::of(3), Ok(Draw::Distinct(3)));
        assert_eq!(Draw::of(-3), Ok(Draw::Repeated(3)));
        assert!(Draw::of(i64::MIN).is_err());
        let mut engine = Session::new().executor.engine;
        for elements_max in [1, 2, 100] {
            assert_eq!(all(Draw::Distinct(9), 3, elements_max, &mut engine), [0, 1, 2]);
            assert_eq!(all(Draw::Repeated(9), 1, elements_max, &mut engine), [0; 9]);
            assert!(all(Draw::Repeated(9), 0, elements_max, &mut engine).is_empty());
        }
    }
}
