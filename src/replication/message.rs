//! Messages of replication. The sender's identity comes with the frame that carries the message.

use super::entry::{Entry, Image, Key, Position, Seq};
use crate::cluster::Epoch;
use serde::{Deserialize, Serialize};

/// A message between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Requests a lease (`lease.rs`).
    LeaseRequest {
        /// The sender's time, which the grant returns.
        sent_at: u64,
    },
    /// Grants a lease.
    LeaseGrant {
        /// The time of the request that is granted.
        sent_at: u64,
        /// The version of the granter's map.
        map_version: u64,
    },
    /// A message about a group.
    Group {
        /// The group's number.
        group: u16,
        /// The sender's epoch of the group. A receiver in a later one ignores the message.
        epoch: Epoch,
        /// The message.
        body: Body,
    },
}

/// A message between holders of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Primary to replica: entries of the log; empty to probe or to announce the commit index.
    Append {
        /// The position before the first entry.
        previous: Position,
        /// Consecutive entries.
        entries: Vec<Entry>,
        /// The commit index: all in-sync holders have the log up to it.
        committed: Seq,
        /// The primary is handing over and serves no more requests in this epoch.
        has_yielded: bool,
    },
    /// Replica to primary: the log matches up to `matched`.
    Acknowledge {
        /// The last entry up to which it matches.
        matched: Seq,
        /// The replica's commit index.
        committed: Seq,
        /// The snapshot it is receiving: it lacks part of the state before the log.
        snapshot: Option<u64>,
    },
    /// Replica to primary: the entries do not follow the replica's log.
    Mismatch {
        /// The last entry that may be in both logs. None: it needs a snapshot.
        common: Option<Position>,
    },
    /// Primary to replica: begins a snapshot. It will show the group as of entry `base` or later.
    SnapshotBegin {
        /// The number of the snapshot.
        id: u64,
        /// The epochs of the log up to `base`, each with the number of its first entry.
        history: Vec<(Epoch, Seq)>,
        /// The log continues after this entry.
        base: Seq,
    },
    /// Primary to replica: a chunk of a snapshot.
    SnapshotChunk {
        /// The number of the snapshot.
        id: u64,
        /// The number of the chunk, from 1.
        number: u64,
        /// The keys in it.
        images: Vec<Image>,
        /// No chunk follows.
        is_last: bool,
    },
    /// Replica to primary: acknowledges the chunks before `next_chunk`.
    SnapshotAcknowledge {
        /// The number of the snapshot.
        id: u64,
        /// The chunk that it expects; larger than the number of the last one once the snapshot is installed.
        next_chunk: u64,
    },
    /// Replica to primary: requests the images of keys whose values it lacks.
    Fetch {
        /// The keys.
        keys: Vec<Key>,
    },
    /// Primary to replica: the images. Keys that are gone have none; the log removes them.
    Images {
        /// The images, perhaps not of all keys requested.
        images: Vec<Image>,
    },
    /// The cluster's leader to a primary: hand the group over to another in-sync holder.
    HandOver {
        /// The node that is to be primary.
        to: crate::cluster::NodeId,
    },
}
