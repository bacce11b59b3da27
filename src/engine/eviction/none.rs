//! No eviction: when memory is full, writes fail.

use super::{Arena, Entrant, Outlook, Position, Rules, View};

pub(in crate::engine) struct NoEviction;

impl Rules for NoEviction {
    fn admit(&mut self, _: &mut Arena, _: Entrant, _: Outlook) -> u8 {
        0
    }

    fn adopt(&mut self, _: &mut Arena, _: Entrant) -> u8 {
        0
    }

    fn hit(&mut self, byte: u8) -> u8 {
        byte
    }

    fn victim(&mut self, _: &mut View) -> Option<Position> {
        None
    }
}
