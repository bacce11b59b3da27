//! The entries of a group's log: effects on keys, and their positions.

use crate::cluster::Epoch;
use crate::command::UnixMs;
use serde::{Deserialize, Serialize};

/// The number of an entry in its group's log, from 1.
pub type Seq = u64;

/// A key.
pub type Key = Box<[u8]>;

/// The position of an entry: its number, and the epoch in which it was written. Two logs that contain the same position
/// have the same entries up to it, unless the group was opened empty in between.
///
/// It is also the version of the item that the entry wrote: positions of a group only increase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The epoch of the primary that wrote it.
    pub epoch: Epoch,
    /// The entry's number.
    pub seq: Seq,
}

/// The effect of an entry on one key. Logs carry effects, not commands: INCR is a `Put` of the new number, and a time
/// to live is an absolute time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Sets the key's value, whatever it was before.
    Put {
        /// The key.
        key: Key,
        /// The whole value.
        value: Box<[u8]>,
        /// When it expires; never if None.
        expires: Option<UnixMs>,
    },
    /// Removes the key: it was deleted, has expired, or was evicted by the primary.
    Remove {
        /// The key.
        key: Key,
    },
    /// Changes a part of the key's value. Valid only for the version `before`.
    Change {
        /// The key.
        key: Key,
        /// The version that is changed.
        before: Position,
        /// The change, in the store's encoding.
        change: Box<[u8]>,
    },
}

impl Effect {
    /// The key that the effect concerns.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Remove { key } | Self::Change { key, .. } => key,
        }
    }

    /// Size in a log, in bytes.
    pub fn bytes(&self) -> usize {
        let content = match self {
            Self::Put { value, .. } => value.len(),
            Self::Remove { .. } => 0,
            Self::Change { change, .. } => change.len(),
        };
        size_of::<Entry>() + self.key().len() + content
    }
}

/// An entry of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its position, which is also the version that it writes.
    pub at: Position,
    /// Its effect.
    pub effect: Effect,
}

/// The full state of a key, as snapshots and `Fetch` transfer it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The key.
    pub key: Key,
    /// The version: the position of the entry that wrote the value.
    pub at: Position,
    /// Its value.
    pub value: Box<[u8]>,
    /// When it expires; never if None.
    pub expires: Option<UnixMs>,
}
