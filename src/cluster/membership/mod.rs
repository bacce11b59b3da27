//! Membership: who is there, who hears whom, who is to come in, to leave, or to be taken for down.
//!
//! | file | concept |
//! |---|---|
//! | `view.rs` | what it is told of the agreed map and of who leads |
//! | `profile.rs` | what a node tells of itself |
//! | `gossip.rs` | which nodes there are: SWIM, by foca. Discovery and hints |
//! | `heartbeats.rs` | who hears whom: ten times a second, on the connections of the data |
//! | `fencing.rs` | a report that a peer is unreachable, and what it binds the reporter to |
//! | `arbiter.rs` | the leader: down, or stays |
//! | `join.rs` | the applicant's way in, and the member's way out |
//! | `admission.rs` | the leader: who is let in |
//! | `node.rs` | all of that as one state machine |
//!
//! Nothing here owns the map. What is concluded becomes a proposal to Raft, and is true when the map that comes back says so:
//!
//! ```text
//!   messages, time, map, leader ──► Membership::step ──► messages, proposals, news
//!                  ▲                                             │
//!                  └──────────── Raft, the map ◄─────────────────┘
//! ```
//!
//! No clock, no socket, no random source: the same events at the same times, with the same seed, give the same actions.

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

/// What nodes say to each other about membership. Whoever carries it frames it, and knows the sender for a node of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A packet of gossip, at most [`PACKET_BYTES_MAX`] bytes.
    Gossip(Vec<u8>),
    /// We are here.
    Heartbeat(Heartbeat),
    /// Somebody is not.
    Report(Report),
    /// But stays.
    Stays(Stays),
    /// Joining and leaving.
    Join(JoinMessage),
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// To a member of the map, by its connection.
    Node(NodeId),
    /// To whoever is at an address.
    Address(String),
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Event {
    /// The time that [`Membership::wake_at_ms`] named has come.
    Wake,
    /// A message has arrived.
    Received(Message),
    /// There is another version of the map.
    Map(MapView),
    /// Raft knows another leader or another term, or knows none any more. A node is told that it leads itself only when its
    /// map has an entry of its own term, so that nothing that former leaders decided is still to come.
    Leader(Option<Leader>),
    /// The operator wants the node to leave its cluster.
    Leave,
}

/// What is to be done, or to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a message; it may be lost.
    Send {
        /// Where it goes.
        to: To,
        /// The message.
        message: Message,
    },
    /// Propose a change of the map to Raft, if Raft is still in this term: on what a leader concluded in another one nobody
    /// is held to their promises any more.
    Propose {
        /// The term that the node leads in.
        term: u64,
        /// The change.
        proposal: Proposal,
    },
    /// Bring up Raft and the map of a new cluster, with this node as its only member.
    FoundCluster {
        /// Its id.
        cluster: u64,
    },
    /// The node takes part.
    Joined {
        /// In which cluster: to be kept on disk.
        cluster: u64,
        /// A version of the map that has it.
        map_version: u64,
    },
    /// The node will not take part.
    JoinFailed(JoinError),
    /// Joining or leaving goes on, later.
    Waiting {
        /// What it waits for.
        reason: String,
    },
    /// The node wanted to leave, and may not.
    StayedIn {
        /// Why.
        reason: String,
    },
    /// The node has left, and may stop.
    Left,
    /// The map takes this life of the node for over: its data counts no more, and it may come back as its next life.
    Expelled,
    /// We and a peer do not hear each other any more.
    Unreachable(Identity),
    /// We and a peer hear each other again.
    Reachable(Identity),
    /// A peer has started again: the data of its last life is gone.
    Restarted {
        /// The life that is over.
        before: Identity,
        /// The next one.
        incarnation: u64,
    },
    /// Gossip knows of a node, or of news of it.
    ContactUp(Contact),
    /// Gossip has given a node up.
    ContactDown(Contact),
    /// A node of another cluster talks to us: refused. Told once for each other cluster.
    MetOtherCluster {
        /// Our cluster.
        own: u64,
        /// The other.
        other: u64,
        /// Where its node listens.
        address: String,
    },
}

/// A change of the map. To apply one twice does nothing the second time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proposal {
    /// A life of a node is over: all its groups move, in one entry. Void unless the map still has that life taking part.
    Down {
        /// Which life.
        about: Identity,
        /// The version of the map that it was decided on.
        map_version: u64,
    },
    /// Let a life of a node in, with empty memory. Void unless its incarnation is larger than what the map has.
    Admit {
        /// Who it is.
        profile: Profile,
        /// The version of the map that it was decided on.
        map_version: u64,
    },
    /// A life of a node is to hold nothing. Void unless the map has it up.
    Leave(Identity),
    /// A life of a node has left. Void unless the map has it leaving, and holding nothing.
    Remove(Identity),
}

/// Messages that were refused, since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// From a member of another cluster.
    pub other_cluster: u64,
    /// From a life of a node that is over.
    pub past_incarnation: u64,
    /// From a node that the map does not have.
    pub unknown: u64,
    /// Malformed, or without bounds.
    pub malformed: u64,
}
