//! What membership is told of the agreed map, and of who leads.
//!
//! Thin on purpose: the map itself, and Raft, are others' concepts. Whoever embeds [`Membership`](super::Membership) makes a
//! view of each version of the map and hands it over.

use crate::cluster::{Identity, NodeId};
use std::collections::BTreeMap;

/// One version of the map, as far as membership is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapView {
    /// Of which cluster.
    pub cluster: u64,
    /// Larger with each change.
    pub version: u64,
    /// All that the map knows of. A node that has left is not among them.
    pub members: BTreeMap<NodeId, MemberView>,
}

/// What the map says of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Its life that was let in last.
    pub incarnation: u64,
    /// Where it listens for other nodes.
    pub address: String,
    /// What it is to the cluster.
    pub state: MemberState,
    /// Groups that it holds, as whatever.
    pub groups: usize,
}

/// What a node is to its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It takes part.
    Up,
    /// It takes part, and asked to hold nothing.
    Leaving,
    /// That life of it is over.
    Down,
}

/// Who leads, as Raft says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The leading node.
    pub node: NodeId,
    /// In which term: no two nodes lead in one.
    pub term: u64,
}

impl MapView {
    /// The lives that take part, in the order of their nodes.
    pub fn alive(&self) -> impl Iterator<Item = Identity> {
        let alive = self.members.iter().filter(|(_, known)| known.state != MemberState::Down);
        alive.map(|(&node, known)| Identity { node, incarnation: known.incarnation })
    }

    /// True if this life of a node takes part.
    pub fn is_alive(&self, identity: Identity) -> bool {
        let known = self.members.get(&identity.node);
        known.is_some_and(|known| known.incarnation == identity.incarnation && known.state != MemberState::Down)
    }
}
