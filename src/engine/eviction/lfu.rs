//! Least frequently used, with decay: the byte is a logarithmic counter of hits, the victim the lowest of a sample.
//!
//! The higher the counter, the rarer a hit raises it (Morris 1978, as Redis uses it); each time the hand comes by and takes
//! another, it falls. Without that, what was popular once would never go: exact LFU misses twice as often.

use super::sample::{Hand, Random};
use super::{Arena, Entrant, Outlook, Position, Rules, View};

/// What a new entry starts with: it is not the first to go while there are others that nobody asked for.
const INITIAL: u8 = 2;
/// Up to this, every hit counts.
const LINEAR: u8 = 5;
/// Above it, one hit in so many for each step.
const RISE: u32 = 10;
/// One in so many visits of the hand lowers a counter by one.
const DECAY_ONE_IN: u32 = 64;

pub(in crate::engine) struct Lfu {
    hand: Hand,
    random: Random,
}

impl Lfu {
    pub(super) fn new() -> Self {
        Self { hand: Hand::default(), random: Random::new() }
    }
}

impl Rules for Lfu {
    fn admit(&mut self, _: &mut Arena, _: Entrant, _: Outlook) -> u8 {
        INITIAL
    }

    fn adopt(&mut self, _: &mut Arena, _: Entrant) -> u8 {
        INITIAL
    }

    #[inline]
    fn hit(&mut self, byte: u8) -> u8 {
        let above = u32::from(byte.saturating_sub(LINEAR));
        if above == 0 || self.random.below(above * RISE + 1) == 0 { byte.saturating_add(1) } else { byte }
    }

    fn victim(&mut self, view: &mut View) -> Option<Position> {
        let mut lowest: Option<(u8, Position)> = None;
        let random = &mut self.random;
        self.hand.sample(view, |view, at| {
            let byte = view.policy(at);
            if lowest.is_none_or(|(b, _)| byte < b) {
                lowest = Some((byte, at));
            }
            if random.below(DECAY_ONE_IN) == 0 {
                view.set_policy(at, byte.saturating_sub(1));
            }
        });
        lowest.map(|(_, at)| at)
    }
}
