//! What expires first goes first, of a sample; where nothing in it expires, any.
//!
//! The byte says whether the item expires at all. When, is read from the items of a sample: a byte could only say it in
//! steps that are too coarse for short times next to long ones.

use super::sample::{Hand, Random};
use super::{Arena, Entrant, Outlook, Position, Rules, View};
use crate::engine::arena::place;
use crate::engine::item::Header;

const EXPIRES: u8 = 1;

pub(in crate::engine) struct Ttl {
    hand: Hand,
    random: Random,
}

impl Ttl {
    pub(super) fn new() -> Self {
        Self { hand: Hand::default(), random: Random::new() }
    }
}

impl Rules for Ttl {
    fn admit(&mut self, _: &mut Arena, entrant: Entrant, _: Outlook) -> u8 {
        u8::from(entrant.may_expire)
    }

    fn adopt(&mut self, _: &mut Arena, entrant: Entrant) -> u8 {
        u8::from(entrant.may_expire)
    }

    #[inline]
    fn hit(&mut self, byte: u8) -> u8 {
        byte
    }

    fn retimed(&mut self, _: u8, may_expire: bool) -> u8 {
        u8::from(may_expire)
    }

    fn victim(&mut self, view: &mut View) -> Option<Position> {
        let mut soonest = None;
        let mut any = None;
        let mut seen = 0;
        let random = &mut self.random;
        self.hand.sample(view, |view, at| {
            seen += 1;
            if random.below(seen) == 0 {
                any = Some(at);
            }
            if view.policy(at) == EXPIRES {
                let item = place(view.reference(at));
                let memory = view.arena.memory();
                let expires = Header::read(memory, item).expires(memory, item);
                if soonest.is_none_or(|(e, _)| expires < e) {
                    soonest = Some((expires, at));
                }
            }
        });
        soonest.map(|(_, at)| at).or(any)
    }
}
