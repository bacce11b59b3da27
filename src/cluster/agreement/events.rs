//! Input and output of a member of the agreement.

use super::storage::DiskError;
use crate::cluster::map::{Applied, Change, Refused};
use crate::cluster::{Identity, NodeId};
use thiserror::Error;

/// Identity and timing of a member.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node.
    pub node: NodeId,
    /// Larger with each start of the node. Answers go to the incarnation that asked.
    pub incarnation: u64,
    /// Its Raft id if its disk has none: drawn at random, never used before, not 0.
    pub raft: u64,
    /// Seed of election timeouts, different for each node.
    pub seed: u64,
    /// Length of a tick, in milliseconds.
    pub tick_ms: u64,
    /// Ticks between the leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Election timeout: it is drawn from once to twice as many ticks.
    pub election_ticks: usize,
    /// Milliseconds after which a proposal or a read without an answer fails.
    pub answer_ms: u64,
    /// Entries after which a snapshot is taken.
    pub snapshot_entries: usize,
}

impl Config {
    /// The timing of all clusters: a new leader typically follows half a second (0.4 to 0.8) after the loss of the old
    /// one.
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

/// An event for a member.
#[derive(Clone, Debug)]
pub enum Event {
    /// A frame of kind `Agreement` arrived; the connection has authenticated its sender.
    Message {
        /// The sender.
        from: NodeId,
        /// The whole frame.
        bytes: Vec<u8>,
    },
    /// Time has passed. Required at least every `tick_ms`.
    Tick,
    /// A change of the map is proposed.
    Propose {
        /// Identifies the answer.
        ticket: u64,
        /// The change.
        change: Change,
    },
    /// A linearizable read: once answered, this node's map has all changes that any node had answered before.
    Read {
        /// Identifies the answer.
        ticket: u64,
    },
}

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a frame to a node. It may be lost.
    Send {
        /// The receiver.
        to: NodeId,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// Answer a proposal or a read, exactly once.
    Answer {
        /// The proposal or read.
        ticket: u64,
        /// Its result.
        result: Result<Answer, AgreementError>,
    },
    /// The map has changed.
    MapChanged,
    /// The member has stopped for good.
    Stopped(Fault),
}

/// The result of a proposal or a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The change was committed and applied here.
    Applied(Applied),
    /// This node's map, of this version or a later one, has all changes answered before the read.
    Read {
        /// The map's version.
        version: u64,
    },
}

/// Why a proposal or a read failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AgreementError {
    /// The map refuses the change: it was not applied.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There is no leader to take the proposal: it was not applied, and will not be.
    #[error("no leader can take the proposal")]
    NotTaken,
    /// Too many requests wait, or the change is too large: it was not applied, and will not be.
    #[error("too many requests wait, or the change is too large")]
    NoRoom,
    /// No answer came in time. The change may have been applied, may be applied later, or never.
    #[error("the outcome of the proposal is unknown")]
    Unknown,
    /// No majority confirmed the read in time.
    #[error("no majority confirmed the read in time")]
    NotRead,
    /// The member has stopped.
    #[error("this member of the agreement has stopped")]
    Stopped,
}

/// Why a member stopped. It must not take part in Raft again under this id, unless its disk turns out to be intact; it
/// can come back with a new Raft id and an empty disk.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// Its disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Other members rely on entries that its log has lost.
    #[error("the log has lost entries that others rely on")]
    LogLost,
    /// A committed entry cannot be decoded by this version. Skipping it would make the map diverge.
    #[error("an entry of the log cannot be decoded: {0}")]
    NotUnderstood(&'static str),
}

/// Why a cluster was not bootstrapped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BootstrapError {
    /// The node belongs to a cluster already.
    #[error("the node belongs to a cluster already")]
    Bootstrapped,
    /// A setting or name exceeds its bounds.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The member has stopped.
    #[error(transparent)]
    Stopped(#[from] Fault),
}
