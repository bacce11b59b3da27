//! Cluster state machines without sockets, clocks or threads: the agreed map, its changes, and membership.
//!
//! | file | concept |
//! |---|---|
//! | `agreement/` | consensus on the map: a member of a Raft group |
//! | `frame.rs` | the frame of messages between nodes: kind, length, checksum |
//! | `map/` | the map: members, the assignment of groups to them, and its changes |
//! | `ring.rs` | the consistent-hash ring: each group's order of preference among the nodes |
//! | `quota.rs` | the number of groups each node may hold, by its memory and zone |
//! | `plan.rs` | the sticky planner: an assignment with bounded loads and few movements |
//! | `membership/` | gossip, heartbeats, failure detection, joining and leaving |

#![forbid(unsafe_code)]

pub mod agreement;
pub mod frame;
pub mod map;
pub mod membership;
mod plan;
mod quota;
mod ring;
#[cfg(test)]
mod tests;

pub use plan::{Plan, plan, plan_some};
pub use ring::Ring;

use serde::{Deserialize, Serialize};

/// The name of a node, which stays when it restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One incarnation of a node: a process from its start to its end. Data belongs to an incarnation: a node that restarts
/// has empty memory, and is a stranger to the data it held before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Larger with each start of the node.
    pub incarnation: u64,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}.{}", self.node, self.incarnation)
    }
}

/// Version of a group's assignment (primary, in-sync set, learners). Frames about a group carry it, and a receiver in a
/// later epoch ignores them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u32);

/// The properties of a node that placement depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub id: NodeId,
    /// Failure domain: a rack, a room, a site. The replicas of a group are spread over zones first.
    pub zone: String,
    /// Memory for data, in bytes. The share of the data that a node holds is proportional to it.
    pub memory_bytes: u64,
}
