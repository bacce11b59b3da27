//! Random eviction: any entry, regardless of its use.

use super::sample::{self, Hand};
use super::{Arena, Bucket, Entrant, Outlook, Position, Rules, View, entries};

/// Random quads that are searched for an entry, before the hand takes the next entry in hash order.
const TRIES: usize = 8;

pub(in crate::engine) struct Random {
    random: sample::Random,
    hand: Hand,
}

impl Random {
    pub(super) fn new() -> Self {
        Self { random: sample::Random::new(), hand: Hand::default() }
    }
}

impl Rules for Random {
    fn admit(&mut self, _: &mut Arena, _: Entrant, _: Outlook) -> u8 {
        0
    }

    fn adopt(&mut self, _: &mut Arena, _: Entrant) -> u8 {
        0
    }

    fn hit(&mut self, byte: u8) -> u8 {
        byte
    }

    fn victim(&mut self, view: &mut View) -> Option<Position> {
        for _ in 0..TRIES {
            let mut chosen = None;
            let mut seen = 0;
            let (mut lines, _) = view.index.quad(self.random.next());
            while let Some(line) = lines.next(view.arena.memory()) {
                for entry in entries(Bucket::at(view.arena.memory(), line).used()) {
                    seen += 1;
                    if self.random.below(seen) == 0 {
                        chosen = Some(Position { line, entry: entry as u8 });
                    }
                }
            }
            if chosen.is_some() {
                return chosen;
            }
        }
        self.hand.any(view)
    }
}
