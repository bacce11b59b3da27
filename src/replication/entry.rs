//! What a group's log consists of: what was done to which key, and where in the order of the group that was.

use crate::cluster::Epoch;
use crate::command::UnixMs;
use serde::{Deserialize, Serialize};

/// The number of an entry in its group's log: the first is 1.
pub type Seq = u64;

/// A key.
pub type Key = Box<[u8]>;

/// Where in a group's log an entry is, and in which epoch it was written. Two logs that have the same position have the same
/// entries up to there, unless the group was opened empty in between.
///
/// It is also the version of what the entry wrote: positions of a group increase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The epoch of its writer.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
}

/// What an entry does to one key. Effects, not commands: INCR is a `Put` of the new number, and a time to live is a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// The key has this value, whatever it had before.
    Put {
        /// The key.
        key: Key,
        /// All of its value.
        value: Box<[u8]>,
        /// When it expires.
        expires: Option<UnixMs>,
    },
    /// The key is gone: deleted, expired, or evicted by the primary.
    Remove {
        /// The key.
        key: Key,
    },
    /// The key's value is changed inside. It means something only for the version that it was made for.
    Change {
        /// The key.
        key: Key,
        /// The version of the value that is changed.
        before: Position,
        /// What the store makes of it.
        change: Box<[u8]>,
    },
}

impl Effect {
    /// The key that it is about.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Remove { key } | Self::Change { key, .. } => key,
        }
    }

    /// Bytes that it counts in a log.
    pub fn bytes(&self) -> usize {
        let content = match self {
            Self::Put { value, .. } => value.len(),
            Self::Remove { .. } => 0,
            Self::Change { change, .. } => change.len(),
        };
        size_of::<Entry>() + self.key().len() + content
    }
}

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is.
    pub at: Position,
    /// What it does.
    pub effect: Effect,
}

/// All that there is of a key: what a snapshot consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The key.
    pub key: Key,
    /// Its version.
    pub at: Position,
    /// Its value.
    pub value: Box<[u8]>,
    /// When it expires.
    pub expires: Option<UnixMs>,
}
