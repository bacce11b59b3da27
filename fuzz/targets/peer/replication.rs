//! Messages of replication, of all kinds, with consecutive and inconsistent entries.

use crate::number::{Name, Number, PeerIdentity};
use arbitrary::{Arbitrary, Unstructured};
use pinion::cluster::Epoch;
use pinion::replication::{self, Body, Entry, Image, Key, Position, Seq};

/// Size of a large value, in bytes: many of these do not fit a frame.
const LARGE_BYTES: usize = 400 << 10;
/// Entries per message, and other items per message.
const ENTRIES_MAX: usize = 2_100;
const ITEMS_MAX: usize = 80;

/// Mostly about a group that the node manages.
#[derive(Debug)]
pub enum Message {
    LeaseRequest { sent_at: Number },
    LeaseGrant { sent_at: Number, map_version: Number },
    Group { group: u8, epoch: Option<Number>, body: ArbitraryBody },
    OtherGroup { group: u16, epoch: Number, body: ArbitraryBody },
}

impl<'a> Arbitrary<'a> for Message {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match bytes.arbitrary::<u8>()? % 16 {
            0..=12 => {
                // Rarely of another epoch: a far one makes the group unusable for the rest of the input.
                let is_other = bytes.arbitrary::<u8>()? % 64 == 63;
                let epoch = if is_other { Some(bytes.arbitrary()?) } else { None };
                Self::Group { group: bytes.arbitrary()?, epoch, body: bytes.arbitrary()? }
            }
            13 => Self::LeaseRequest { sent_at: bytes.arbitrary()? },
            14 => Self::LeaseGrant { sent_at: bytes.arbitrary()?, map_version: bytes.arbitrary()? },
            _ => Self::OtherGroup { group: bytes.arbitrary()?, epoch: bytes.arbitrary()?, body: bytes.arbitrary()? },
        })
    }
}

#[derive(Arbitrary, Debug)]
pub enum ArbitraryBody {
    Append { previous: Option<At>, entries: Entries, committed: Number, has_yielded: bool },
    Acknowledge { matched: Number, committed: Number, snapshot: Option<u64> },
    Mismatch { common: Option<At> },
    SnapshotBegin { id: Number, history: Vec<(Number, Number)>, base: Number },
    SnapshotBeginHere { id: Number },
    SnapshotChunk { id: Number, number: Number, images: Vec<ArbitraryImage>, is_last: bool },
    SnapshotAcknowledge { id: Number, next_chunk: Number },
    Fetch { keys: Vec<u8> },
    FetchOften { key: u8, times: u8 },
    Images { images: Vec<ArbitraryImage> },
    HandOver { to: Name },
}

/// `Run`: consecutive entries, from the one after `previous` or from elsewhere.
#[derive(Arbitrary, Debug)]
pub enum Entries {
    None,
    Run { first: Option<At>, count: u16, epochs_rise: bool, effect: Effect },
    Each(Vec<(At, Effect)>),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct At {
    epoch: Number,
    seq: Number,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Effect {
    Put { key: u8, bytes: u8, expires: Option<Number> },
    PutLarge { key: u8, odds: u8 },
    Remove { key: u8 },
    Change { key: u8, before: At, bytes: u8 },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct ArbitraryImage {
    key: u8,
    at: At,
    expires: Option<Number>,
}

/// The values that numbers are relative to.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub now: u64,
    pub map_version: u64,
    pub epoch: Epoch,
    pub last: Seq,
}

/// A key: one of a few, so that they collide; one is empty.
pub fn key(number: u8) -> Key {
    vec![b'k'; usize::from(number % 8)].into()
}

fn value(bytes: usize) -> Box<[u8]> {
    vec![b'v'; bytes].into()
}

impl At {
    fn position(self, known: Known) -> Position {
        Position { epoch: self.epoch.epoch(known.epoch), seq: self.seq.around(known.last) }
    }
}

impl Effect {
    pub fn of(self, known: Known) -> replication::Effect {
        match self {
            Self::Put { key: number, bytes, expires } => replication::Effect::Put {
                key: key(number),
                value: value(bytes.into()),
                expires: expires.map(|at| at.around(known.now)),
            },
            Self::PutLarge { key: number, odds } => {
                // Large values are slow, so they are rare.
                let bytes = if odds % 4 == 0 { LARGE_BYTES } else { 0 };
                replication::Effect::Put { key: key(number), value: value(bytes), expires: None }
            }
            Self::Remove { key: number } => replication::Effect::Remove { key: key(number) },
            Self::Change { key: number, before, bytes } => replication::Effect::Change {
                key: key(number),
                before: before.position(known),
                change: value(bytes.into()),
            },
        }
    }
}

impl ArbitraryImage {
    fn image(&self, known: Known) -> Image {
        Image {
            key: key(self.key),
            at: self.at.position(known),
            value: value(3),
            expires: self.expires.map(|at| at.around(known.now)),
        }
    }
}

impl Entries {
    fn count(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Run { count, effect, .. } => {
                let is_large = matches!(effect, Effect::PutLarge { .. });
                usize::from(*count) % if is_large { 2 } else { ENTRIES_MAX }
            }
            Self::Each(entries) => entries.len().min(ITEMS_MAX),
        }
    }

    fn of(&self, previous: Position, known: Known) -> Vec<Entry> {
        match self {
            Self::None => Vec::new(),
            Self::Each(entries) => {
                let entry = |(at, effect): &(At, Effect)| Entry { at: at.position(known), effect: effect.of(known) };
                entries.iter().take(ITEMS_MAX).map(entry).collect()
            }
            Self::Run { first, epochs_rise, effect, .. } => {
                let next = Position { seq: previous.seq.saturating_add(1), ..previous };
                let first = first.map_or(next, |first| first.position(known));
                let entry = |number: usize| {
                    let rise = if *epochs_rise { number as u32 } else { 0 };
                    let epoch = Epoch(first.epoch.0.saturating_add(rise));
                    let at = Position { epoch, seq: first.seq.saturating_add(number as u64) };
                    Entry { at, effect: effect.of(known) }
                };
                (0..self.count()).map(entry).collect()
            }
        }
    }
}

impl Message {
    /// The number of entries.
    pub fn entries(&self) -> usize {
        match self {
            Self::Group { body: ArbitraryBody::Append { entries, .. }, .. }
            | Self::OtherGroup { body: ArbitraryBody::Append { entries, .. }, .. } => entries.count(),
            _ => 0,
        }
    }

    /// The number of the group concerned.
    pub fn group(&self) -> Option<u16> {
        match self {
            Self::Group { group, .. } => Some(u16::from(*group) % crate::cluster::GROUPS),
            Self::OtherGroup { group, .. } => Some(*group),
            _ => None,
        }
    }

    pub fn of(&self, known: Known) -> replication::Message {
        let (number, epoch) = (self.group().unwrap_or(0), known.epoch);
        let group =
            |epoch, body: &ArbitraryBody| replication::Message::Group { group: number, epoch, body: body.of(known) };
        match self {
            Self::LeaseRequest { sent_at } => replication::Message::LeaseRequest { sent_at: sent_at.around(known.now) },
            Self::LeaseGrant { sent_at, map_version } => replication::Message::LeaseGrant {
                sent_at: sent_at.around(known.now),
                map_version: map_version.around(known.map_version),
            },
            Self::Group { epoch: Some(other), body, .. } => group(other.epoch(epoch), body),
            Self::Group { body, .. } => {
                // Entries of a later epoch than their frame's would be refused.
                let body = body.of(known);
                let epoch = match &body {
                    Body::Append { entries, .. } => entries.last().map_or(epoch, |entry| entry.at.epoch.max(epoch)),
                    _ => epoch,
                };
                replication::Message::Group { group: number, epoch, body }
            }
            Self::OtherGroup { epoch: other, body, .. } => group(other.epoch(epoch), body),
        }
    }
}

impl ArbitraryBody {
    fn of(&self, known: Known) -> Body {
        let images =
            |images: &[ArbitraryImage]| images.iter().take(ITEMS_MAX).map(|image| image.image(known)).collect();
        match self {
            Self::Append { previous, entries, committed, has_yielded } => {
                let end = Position { epoch: known.epoch, seq: known.last };
                let previous = previous.map_or(end, |previous| previous.position(known));
                let entries = entries.of(previous, known);
                let committed = committed.around(entries.last().map_or(previous.seq, |entry| entry.at.seq));
                Body::Append { previous, entries, committed, has_yielded: *has_yielded }
            }
            Self::Acknowledge { matched, committed, snapshot } => {
                let (matched, committed) = (matched.around(known.last), committed.around(known.last));
                Body::Acknowledge { matched, committed, snapshot: *snapshot }
            }
            Self::Mismatch { common } => Body::Mismatch { common: common.map(|common| common.position(known)) },
            Self::SnapshotBegin { id, history, base } => {
                let epoch = |&(epoch, first): &(Number, Number)| (epoch.epoch(known.epoch), first.around(known.last));
                let history = history.iter().take(ITEMS_MAX).map(epoch).collect();
                Body::SnapshotBegin { id: id.around(1), history, base: base.around(known.last) }
            }
            Self::SnapshotBeginHere { id } => {
                Body::SnapshotBegin { id: id.around(1), history: vec![(known.epoch, known.last)], base: known.last }
            }
            Self::SnapshotChunk { id, number, images: shown, is_last } => Body::SnapshotChunk {
                id: id.around(1),
                number: number.around(1),
                images: images(shown),
                is_last: *is_last,
            },
            Self::SnapshotAcknowledge { id, next_chunk } => {
                Body::SnapshotAcknowledge { id: id.around(1), next_chunk: next_chunk.around(1) }
            }
            Self::Fetch { keys } => Body::Fetch { keys: keys.iter().map(|&number| key(number)).collect() },
            Self::FetchOften { key: number, times } => Body::Fetch { keys: vec![key(*number); usize::from(*times)] },
            Self::Images { images: shown } => Body::Images { images: images(shown) },
            Self::HandOver { to } => Body::HandOver { to: to.node() },
        }
    }
}

/// The sender and receiver that a message claims.
#[derive(Clone, Copy, Debug)]
pub enum Addressed {
    Well,
    From(PeerIdentity),
    To(Option<PeerIdentity>),
}

impl<'a> Arbitrary<'a> for Addressed {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match bytes.arbitrary::<u8>()? % 16 {
            0..=13 => Self::Well,
            14 => Self::From(bytes.arbitrary()?),
            _ => Self::To(bytes.arbitrary()?),
        })
    }
}
