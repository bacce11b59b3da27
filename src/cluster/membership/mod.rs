//! Membership: gossip, heartbeats, failure detection, joining and leaving.
//!
//! | file | concept |
//! |---|---|
//! | `view.rs` | the input: versions of the agreed map, and the leader |
//! | `profile.rs` | a node's description of itself |
//! | `gossip.rs` | discovery and hints: SWIM, by foca |
//! | `heartbeats.rs` | the failure detector of each node: ten heartbeats a second on the data connections |
//! | `fencing.rs` | reports of unreachable peers, and the fences that they imply |
//! | `arbiter.rs` | the leader's decision on reports: down, or stays |
//! | `join.rs` | joining and leaving, on the applicant's side |
//! | `admission.rs` | joining and leaving, on the leader's side |
//! | `node.rs` | all parts as one state machine |
//!
//! Membership does not own the map. Its conclusions become proposals to Raft, and take effect with the map that comes
//! back:
//!
//! ```text
//!   messages, time, map, leader ──► Membership::step ──► messages, proposals, news
//!                  ▲                                             │
//!                  └──────────── Raft, the map ◄─────────────────┘
//! ```
//!
//! There is no clock, socket or random source: equal events at equal times, with equal seeds, give equal actions.

#![forbid(unsafe_code)]

mod admission;
mod arbiter;
mod fencing;
mod gossip;
mod heartbeats;
mod join;
mod node;
mod profile;
#[cfg(test)]
mod tests;
mod view;

pub use arbiter::{DOWN_ALONE_MS, STAYS_AFTER_MS, WITNESS_SILENCE_MS_MAX};
pub use fencing::{REPORT_PAUSE_MS, REPORT_PERIOD_MS, Report, Stays};
pub use gossip::{Contact, PACKET_BYTES_MAX};
pub use heartbeats::{Heartbeat, HeartbeatTiming, MEMBERS_MAX};
pub use join::{Answer, JoinError, JoinMessage, Phase, RETRY_MS_MAX, RETRY_MS_MIN, SEEDS_MAX};
pub use node::{Membership, Settings};
pub use profile::{ADDRESS_BYTES_MAX, Profile, ProfileError, ZONE_BYTES_MAX};
pub use view::{Leader, MapView, MemberState, MemberView};

use crate::cluster::{Identity, NodeId};
use serde::{Deserialize, Serialize};

/// A message of membership. The transport frames it, and has authenticated the sender as a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A packet of gossip, at most [`PACKET_BYTES_MAX`] bytes.
    Gossip(Vec<u8>),
    /// The sender is alive.
    Heartbeat(Heartbeat),
    /// A peer is unreachable.
    Report(Report),
    /// The leader's answer to a report: the peer stays.
    Stays(Stays),
    /// Joining and leaving.
    Join(JoinMessage),
}

/// The recipient of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// A member of the map, by its connection.
    Node(NodeId),
    /// Whichever node is at an address.
    Address(String),
}

/// An event for a node's membership.
#[derive(Clone, Debug)]
pub enum Event {
    /// The time named by [`Membership::wake_at_ms`] has come.
    Wake,
    /// A message has arrived.
    Received(Message),
    /// The map has a new version.
    Map(MapView),
    /// Raft has another leader or term, or no leader. This node counts as leader only once its map has an entry of its
    /// own term, so that no decision of former leaders is outstanding.
    Leader(Option<Leader>),
    /// The operator wants the node to leave its cluster.
    Leave,
}

/// What the caller has to do, or may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a message; it may be lost.
    Send {
        /// The recipient.
        to: To,
        /// The message.
        message: Message,
    },
    /// Propose a change of the map, provided that Raft is still in `term`: conclusions of another term rest on fences
    /// that may have ended.
    Propose {
        /// The term in which this node leads.
        term: u64,
        /// The change.
        proposal: Proposal,
    },
    /// Create Raft's state and the map of a new cluster, with this node as its only member.
    FoundCluster {
        /// The cluster's id.
        cluster: u64,
    },
    /// The node has become a member.
    Joined {
        /// Its cluster, to be kept on disk.
        cluster: u64,
        /// A version of the map that has the node.
        map_version: u64,
    },
    /// The node cannot join.
    JoinFailed(JoinError),
    /// Joining or leaving has to wait.
    Waiting {
        /// What for.
        reason: String,
    },
    /// The node wanted to leave but may not.
    StayedIn {
        /// Why.
        reason: String,
    },
    /// The node has left and may stop.
    Left,
    /// The map has this incarnation down: its data is void. The node may come back in the next incarnation.
    Expelled,
    /// This node and a peer no longer hear each other.
    Unreachable(Identity),
    /// This node and a peer hear each other again.
    Reachable(Identity),
    /// A peer has restarted: the data of its earlier incarnation is gone.
    Restarted {
        /// The earlier incarnation.
        before: Identity,
        /// The number of the new one.
        incarnation: u64,
    },
    /// Gossip has found a node, or an update of one.
    ContactUp(Contact),
    /// Gossip has given up a node.
    ContactDown(Contact),
    /// A node of another cluster has sent a packet, which was refused. Reported once per cluster.
    MetOtherCluster {
        /// This node's cluster.
        own: u64,
        /// The other cluster.
        other: u64,
        /// The address of that node.
        address: String,
    },
}

/// A change of the map. All are idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proposal {
    /// Declares an incarnation down; all its groups move in one entry. Void unless the map has that incarnation as a
    /// live member.
    Down {
        /// The incarnation.
        about: Identity,
        /// The version of the map on which it was decided.
        map_version: u64,
    },
    /// Admits an incarnation of a node, with empty memory. Void unless it is later than the one in the map.
    Admit {
        /// The node.
        profile: Profile,
        /// The version of the map on which it was decided.
        map_version: u64,
    },
    /// Moves all groups off an incarnation. Void unless the map has it up.
    Leave(Identity),
    /// Removes an incarnation that has left. Void unless the map has it leaving and without groups.
    Remove(Identity),
}

/// Numbers of refused messages since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// From nodes of other clusters.
    pub other_cluster: u64,
    /// From earlier incarnations.
    pub past_incarnation: u64,
    /// From nodes that the map does not have.
    pub unknown: u64,
    /// Malformed or oversized.
    pub malformed: u64,
}
