//! Numbers as a peer may send them: plausible ones, near what the node knows, or near the limits of arithmetic.

use arbitrary::{Arbitrary, Unstructured};
use pinion::cluster::{Epoch, Identity, NodeId};

#[derive(Clone, Copy, Debug)]
pub enum Number {
    Small(u8),
    Near(i8),
    Far(u16),
    Half(i8),
    Most(u8),
    Any(u64),
}

/// Mostly near what the node knows: a single far number often makes a group unusable for the rest of the input.
impl<'a> Arbitrary<'a> for Number {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match bytes.arbitrary::<u8>()? % 16 {
            0..=8 => Self::Near(bytes.int_in_range(-2..=2)?),
            9 => Self::Small(bytes.int_in_range(0..=3)?),
            10 => Self::Small(bytes.arbitrary()?),
            11 => Self::Near(bytes.arbitrary()?),
            12 => Self::Far(bytes.arbitrary()?),
            13 => Self::Half(bytes.arbitrary()?),
            14 => Self::Most(bytes.arbitrary()?),
            _ => Self::Any(bytes.arbitrary()?),
        })
    }
}

impl Number {
    /// The number, relative to `known`.
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

    /// The number as an epoch of 32 bits.
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

/// A node: mostly one of the two peers; or the node under test, or an unknown one.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    Own,
    Second,
    Third,
    Stranger,
    Any(u64),
}

impl<'a> Arbitrary<'a> for Name {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match bytes.arbitrary::<u8>()? % 16 {
            0..=7 => Self::Second,
            8..=11 => Self::Third,
            12 | 13 => Self::Own,
            14 => Self::Stranger,
            _ => Self::Any(bytes.arbitrary()?),
        })
    }
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

/// An incarnation of a node: mostly the one in the map.
#[derive(Clone, Copy, Debug)]
pub struct PeerIdentity {
    name: Name,
    incarnation: Option<Number>,
}

impl<'a> Arbitrary<'a> for PeerIdentity {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let (name, is_other) = (bytes.arbitrary()?, bytes.arbitrary::<u8>()? % 8 == 7);
        let incarnation = if is_other { Some(bytes.arbitrary()?) } else { None };
        Ok(Self { name, incarnation })
    }
}

impl PeerIdentity {
    pub fn identity(self) -> Identity {
        let incarnation = self.incarnation.map_or(1, |number| number.around(1));
        Identity { node: self.name.node(), incarnation }
    }
}
