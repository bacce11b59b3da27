//! Least recently used, nearly: the byte is the epoch of the last use, the victim the oldest of a sample.
//!
//! The epoch ticks 32 times while as many items come in as memory holds, so the 8 bits cover eight such spans; what was
//! not used for longer is long gone. With samples of a dozen or more the hit ratio is within 1.5 % of exact LRU.

use super::sample::Hand;
use super::{Arena, Entrant, Outlook, Position, Rules, View};

const TICKS_PER_TURNOVER: u64 = 32;

pub(in crate::engine) struct Lru {
    epoch: u8,
    /// Entries admitted in this epoch.
    admitted: u64,
    hand: Hand,
}

impl Lru {
    pub(super) fn new() -> Self {
        Self { epoch: 0, admitted: 0, hand: Hand::default() }
    }
}

impl Rules for Lru {
    fn admit(&mut self, _: &mut Arena, _: Entrant, outlook: Outlook) -> u8 {
        self.admitted += 1;
        if self.admitted * TICKS_PER_TURNOVER >= outlook.entries {
            self.epoch = self.epoch.wrapping_add(1);
            self.admitted = 0;
        }
        self.epoch
    }

    fn adopt(&mut self, _: &mut Arena, _: Entrant) -> u8 {
        self.epoch
    }

    #[inline]
    fn hit(&mut self, _: u8) -> u8 {
        self.epoch
    }

    fn victim(&mut self, view: &mut View) -> Option<Position> {
        let epoch = self.epoch;
        let mut oldest: Option<(u8, Position)> = None;
        self.hand.sample(view, |view, at| {
            let age = epoch.wrapping_sub(view.policy(at));
            if oldest.is_none_or(|(a, _)| age > a) {
                oldest = Some((age, at));
            }
        });
        oldest.map(|(_, at)| at)
    }
}
