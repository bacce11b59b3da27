//! Draws random elements by their ranks.

use super::arguments::{Error, text};
use crate::engine::Engine;
use std::collections::HashSet;

/// The most elements that may be drawn with repetition in one call. Redis has no such limit, but here a reply is
/// assembled in memory.
const REPEATED_MAX: u64 = 1 << 20;

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

    /// Draws the ranks, out of `length` elements.
    pub(super) fn ranks(self, length: u64, engine: &mut Engine) -> Vec<u64> {
        match self {
            Self::Repeated(_) if length == 0 => Vec::new(),
            Self::Repeated(count) => (0..count).map(|_| engine.random() % length).collect(),
            Self::Distinct(count) if count >= length => (0..length).collect(),
            // Where the sample is a large part of all elements, one pass over them selects it (Knuth's algorithm S).
            Self::Distinct(count) if count > length / 4 => {
                let mut left = count;
                let chosen = (0..length).filter(|rank| {
                    let is_chosen = engine.random() % (length - rank) < left;
                    left -= u64::from(is_chosen);
                    is_chosen
                });
                chosen.collect()
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
                chosen.into_iter().collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::resp::tests::Session;

    #[test]
    fn every_rank_is_as_likely() {
        let mut engine = Session::new().executor.engine;
        for (count, length) in [(1, 20), (4, 20), (9, 20), (19, 20), (20, 20)] {
            let mut drawn = [0_u64; 20];
            for _ in 0..4000 {
                let ranks = Draw::Distinct(count).ranks(length, &mut engine);
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
        assert_eq!(Draw::Distinct(9).ranks(3, &mut engine), [0, 1, 2]);
        assert_eq!(Draw::Repeated(9).ranks(1, &mut engine), [0; 9]);
        assert!(Draw::Repeated(9).ranks(0, &mut engine).is_empty());
    }
}
