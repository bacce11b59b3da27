//! The input of membership: versions of the agreed map, and the leader.
//!
//! Membership does not depend on the types of the map and of Raft: its embedder converts each version of the map to a
//! view.

use crate::cluster::{Identity, NodeId};
use std::collections::BTreeMap;

/// One version of the map, as far as membership needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapView {
    /// The cluster's id.
    pub cluster: u64,
    /// Larger with each change.
    pub version: u64,
    /// All nodes in the map. A node that has left is not in it.
    pub members: BTreeMap<NodeId, MemberView>,
}

/// A node in the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// The incarnation that was admitted last.
    pub incarnation: u64,
    /// Its address for other nodes.
    pub address: String,
    /// Its state.
    pub state: MemberState,
    /// The number of groups it holds, in any role.
    pub groups: usize,
}

/// The state of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// A live member.
    Up,
    /// A live member whose groups are being moved away.
    Leaving,
    /// This incarnation is down.
    Down,
}

/// Raft's leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The leading node.
    pub node: NodeId,
    /// Its term; a term has at most one leader.
    pub term: u64,
}

impl MapView {
    /// The live incarnations, sorted by node.
    pub fn alive(&self) -> impl Iterator<Item = Identity> {
        let alive = self.members.iter().filter(|(_, known)| known.state != MemberState::Down);
        alive.map(|(&node, known)| Identity { node, incarnation: known.incarnation })
    }

    /// True if `identity` is a live member.
    pub fn is_alive(&self, identity: Identity) -> bool {
        let known = self.members.get(&identity.node);
        known.is_some_and(|known| known.incarnation == identity.incarnation && known.state != MemberState::Down)
    }
}
