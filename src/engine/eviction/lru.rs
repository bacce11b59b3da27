//! Approximate LRU: the policy byte is the epoch of the last access, the victim the oldest entry of a sample.
//!
//! The epoch advances 32 times while as many items are admitted as memory holds, so its 8 bits cover eight such
//! turnovers; an item that is not accessed for longer has been evicted by then. With samples of a dozen or more entries
//! the hit ratio is within 1.5 % of exact LRU.

use super::sample::Hand;
use super::{Arena, Entrant, Outlook, Position, Rules, View};
use crate::command::UnixMs;

const TICKS_PER_TURNOVER: u64 = 32;

pub(in crate::engine) struct Lru {
    epoch: u8,
    /// Entries admitted in this epoch.
    admitted: u64,
    hand: Hand,
    /// For each epoch number, when it last ended.
    ended: Box<[UnixMs; 256]>,
    /// The epoch at the last call of [`Lru::note_time`].
    noted: u8,
}

impl Lru {
    pub(super) fn new() -> Self {
        Self { epoch: 0, admitted: 0, hand: Hand::default(), ended: Box::new([UnixMs::MAX; 256]), noted: 0 }
    }
}

impl Lru {
    #[inline]
    pub(super) fn note_time(&mut self, now: UnixMs) {
        while self.noted != self.epoch {
            self.ended[usize::from(self.noted)] = now;
            self.noted = self.noted.wrapping_add(1);
            self.ended[usize::from(self.noted)] = UnixMs::MAX;
        }
    }

    /// Milliseconds since the epoch of the last access ended; 0 if it has not ended.
    pub(super) fn idle_ms(&self, byte: u8, now: UnixMs) -> u64 {
        now.saturating_sub(self.ended[usize::from(byte)])
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
