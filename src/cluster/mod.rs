//! The cluster's mind, without a socket, a clock or a thread: who holds what, and how that is decided.
//!
//! | file | concept |
//! |---|---|
//! | `agreement/` | by whom and how the map is changed: a member of Raft |
//! | `frame.rs` | what messages between nodes travel in: kind, length, checksum |
//! | `map/` | the map: members, who holds which group, and the changes to that |
//! | `ring.rs` | the consistent-hash ring: in which order a group prefers the nodes |
//! | `quota.rs` | how much of the data each node is to hold, by its memory and its zone |
//! | `plan.rs` | the sticky planner: who holds which group, with bounded loads and few movements |
//! | `membership/` | who is there, who hears whom, who comes in, leaves, or is taken for down |

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

/// A node's name: the same for as long as its cluster knows it, over restarts too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One life of a node, from its start to its end: whose data it is. A node that starts again has empty memory, and is a
/// stranger to the data that its last life held.
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

/// How often who holds a group, and as what, was decided anew: each frame of a group carries it, and an older one than the
/// receiver's is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u32);

/// What placement has to know of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub id: NodeId,
    /// What fails together: a rack, a room, a site. The copies of a group are spread over zones first.
    pub zone: String,
    /// Memory for data, in bytes: nodes hold data in proportion to it.
    pub memory_bytes: u64,
}
