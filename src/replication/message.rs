//! What replication says to other nodes. The sender's identity comes with the frame that a message travels in.

use super::entry::{Entry, Image, Key, Position, Seq};
use crate::cluster::Epoch;
use serde::{Deserialize, Serialize};

/// A message of one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Asks for a lease (`lease.rs`).
    LeaseRequest {
        /// The sender's time, to be given back.
        sent_at: u64,
    },
    /// Gives it.
    LeaseGrant {
        /// The time of the request.
        sent_at: u64,
        /// The map that the sender knows.
        map_version: u64,
    },
    /// About a group.
    Group {
        /// The group's number.
        group: u16,
        /// The epoch that the sender is in. A receiver in a later one refuses.
        epoch: Epoch,
        /// What about it.
        body: Body,
    },
}

/// What one holder of a group says to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Primary: entries of the log, or none, to see where the other's log is.
    Append {
        /// The entry before the first of them.
        previous: Position,
        /// They follow one another.
        entries: Vec<Entry>,
        /// All in-sync holders have the log up to here.
        committed: Seq,
        /// It serves nobody any more in this epoch: it is handing over.
        has_yielded: bool,
    },
    /// Replica: the logs agree up to here.
    Acknowledge {
        /// The last entry of them.
        matched: Seq,
        /// What it knows to be committed.
        committed: Seq,
        /// A snapshot is under way to it, so it has not all that is before the log: which attempt.
        snapshot: Option<u64>,
    },
    /// Replica: what was sent does not follow.
    Mismatch {
        /// The last entry that both logs may have. None if there is none: it needs a snapshot.
        common: Option<Position>,
    },
    /// Primary: the snapshot begins. What it will show is the group after `base` entries, or later.
    SnapshotBegin {
        /// Which attempt.
        id: u64,
        /// In which epochs the log was written, each with its first entry.
        history: Vec<(Epoch, Seq)>,
        /// The log goes on after this entry.
        base: Seq,
    },
    /// Primary: some of the snapshot.
    SnapshotChunk {
        /// Which attempt.
        id: u64,
        /// Which chunk, from 1.
        number: u64,
        /// What is in it.
        images: Vec<Image>,
        /// There are no more.
        is_last: bool,
    },
    /// Replica: it waits for this chunk.
    SnapshotAcknowledge {
        /// Which attempt.
        id: u64,
        /// The number of the chunk; greater than the last one's when it has all.
        next_chunk: u64,
    },
    /// Replica: it does not have the values of these keys.
    Fetch {
        /// The keys.
        keys: Vec<Key>,
    },
    /// Primary: here they are. One that is gone is not among them: the log says so.
    Images {
        /// What is known of them.
        images: Vec<Image>,
    },
    /// The cluster's leader to a primary: another in-sync holder is to be the primary.
    HandOver {
        /// Which node's.
        to: crate::cluster::NodeId,
    },
}
