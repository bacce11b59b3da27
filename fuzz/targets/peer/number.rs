//! Numbers as a peer may send them: sensible ones, those around what the node knows, and those around where arithmetic ends.

use arbitrary::Arbitrary;
use pinion::cluster::{Epoch, Identity, NodeId};

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Number {
    Small(u8),
    Near(i8),
    Far(u16),
    Half(i8),
    Most(u8),
    Any(u64),
}

impl Number {
    /// The number, around one that the node knows.
    pub fn around(self, known: u64) -> u64 {
        match self {
            Self::Small(number) => number.into(),
            Self::Near(by) => known.saturating_add_signed(by.into()),
            Self::Far(by) => known.saturating_add(by.into()),
            Self::Half(by) => (u64::MAX / 2).saturating_add_signed(by.into()),
            Self::Most(less) => u64::MAX - u64::from(less),
            Self::Any(number) => number,
        }
    }

    /// The same of 32 bits.
    pub fn epoch(self, known: Epoch) -> Epoch {
        Epoch(match self {
            Self::Small(number) => number.into(),
            Self::Near(by) => known.0.saturating_add_signed(by.into()),
            Self::Far(by) => known.0.saturating_add(by.into()),
            Self::Half(by) => (u32::MAX / 2).saturating_add_signed(by.into()),
            Self::Most(less) => u32::MAX - u32::from(less),
            Self::Any(number) => number as u32,
        })
    }
}

/// A node: the one that is tested, its two peers, or one that nobody knows.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Name {
    Own,
    Second,
    Third,
    Stranger,
    Any(u64),
}

impl Name {
    pub fn node(self) -> NodeId {
        NodeId(match self {
            Self::Own => 1,
            Self::Second => 2,
            Self::Third => 3,
            Self::Stranger => 4,
            Self::Any(number) => number,
        })
    }
}

/// A life of a node: the one that the map knows, or another.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Life {
    name: Name,
    incarnation: Option<Number>,
}

impl Life {
    pub fn identity(self) -> Identity {
        let incarnation = self.incarnation.map_or(1, |number| number.around(1));
        Identity { node: self.name.node(), incarnation }
    }
}
