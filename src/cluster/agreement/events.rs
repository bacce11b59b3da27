//! What goes into a member of the agreement and what comes out of it.

use super::storage::DiskError;
use crate::cluster::map::{Applied, Change, Refused};
use crate::cluster::{Identity, NodeId};
use thiserror::Error;

/// Who this member is, and how fast it is to act.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node.
    pub node: NodeId,
    /// Larger with each start of the node: answers are for the life that asked.
    pub incarnation: u64,
    /// Its identity in Raft if its disk has none, drawn at random and never used before; not 0.
    pub raft: u64,
    /// What election timeouts are made of, another for each node.
    pub seed: u64,
    /// Milliseconds of a tick.
    pub tick_ms: u64,
    /// Ticks between the leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader after which one is elected: as many, and up to twice as many.
    pub election_ticks: usize,
    /// Milliseconds after which a proposal or a read is given up.
    pub answer_ms: u64,
    /// Entries after which a snapshot is taken.
    pub snapshot_entries: usize,
}

impl Config {
    /// The timing of a cluster in one place: a new leader typically half a second (0.4 to 0.8) after the old one is gone.
    pub fn new(identity: Identity, raft: u64, seed: u64) -> Self {
        Self {
            node: identity.node,
            incarnation: identity.incarnation,
            raft,
            seed,
            tick_ms: 50,
            heartbeat_ticks: 2,
            election_ticks: 10,
            answer_ms: 2_000,
            snapshot_entries: 1_000,
        }
    }
}

/// What happens to a member.
#[derive(Clone, Debug)]
pub enum Event {
    /// A frame of kind `Agreement` came from a node; who it is was verified by the connection.
    Message {
        /// The sender.
        from: NodeId,
        /// The whole frame.
        bytes: Vec<u8>,
    },
    /// Time passed. To come at least every `tick_ms`.
    Tick,
    /// Somebody wants the map changed.
    Propose {
        /// What the answer will name.
        ticket: u64,
        /// The change.
        change: Change,
    },
    /// Somebody wants to be sure that this node's map has all changes that were answered before, whoever asked for them.
    Read {
        /// What the answer will name.
        ticket: u64,
    },
}

/// What is to be done for a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a whole frame to a node. It may be lost.
    Send {
        /// The receiver.
        to: NodeId,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// Answer a proposal or a read: each gets one answer.
    Answer {
        /// What was asked.
        ticket: u64,
        /// What came of it.
        result: Result<Answer, AgreementError>,
    },
    /// The map is another than before.
    MapChanged,
    /// The member has stopped for good, for this reason.
    Stopped(Fault),
}

/// What came of a proposal or a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The change was applied, here and by a majority.
    Applied(Applied),
    /// The map of this node has all changes that were answered before the read; it has this version or a later one.
    Read {
        /// The map's version.
        version: u64,
    },
}

/// Why there is no such answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AgreementError {
    /// The map does not allow the change. It was not applied.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There is no leader that takes it now. It was not applied, and will not be.
    #[error("there is no leader to take the proposal")]
    NotTaken,
    /// Too many wait, or the change is too large. It was not applied, and will not be.
    #[error("the proposal has no room")]
    NoRoom,
    /// No answer came in time. The change was applied, or will be, or never.
    #[error("the fate of the proposal is unknown")]
    Unknown,
    /// The read found no majority in time.
    #[error("the read found no majority in time")]
    NotRead,
    /// The member has stopped.
    #[error("this member of the agreement has stopped")]
    Stopped,
}

/// Why a member stopped. It must not act as this member of Raft again, unless its disk is whole after all; it can come back as
/// another, with a new identity in Raft and an empty disk.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// Its disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Others rely on entries that are not in its log.
    #[error("the log has lost entries that others rely on")]
    LogLost,
    /// What was agreed is nothing that this version knows. To skip it would be to have another map than others.
    #[error("an entry of the log is not understood: {0}")]
    NotUnderstood(&'static str),
}

/// Why a cluster was not begun.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BootstrapError {
    /// The node belongs to one.
    #[error("the node belongs to a cluster already")]
    Bootstrapped,
    /// Settings or names are out of bounds.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The member has stopped.
    #[error(transparent)]
    Stopped(#[from] Fault),
}
