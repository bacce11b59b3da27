//! The consistent-hash ring (Karger et al. 1997) with virtual nodes: each group's order of preference among the nodes.
//!
//! ```text
//! 0 ──A1──B1─────C1──A2──────B2──C2──A3── 2^64      a node's virtual nodes, by their hashes
//!           ▲ group 7                               its order: C, A, B
//! ```
//!
//! All hashes are XXH3-64 with one seed over little-endian numbers, so every node and every client computes the same
//! ring from the same members. A node that comes or goes does not change the relative order of the others.

use super::{Member, NodeId};
use crate::slots::Group;
use twox_hash::XxHash3_64;

/// The seed of all hashes. Changing it would change the placement of everything.
const SEED: u64 = 0x7069_6e69_6f6e_0001;

/// Virtual nodes per node if all have the same memory; otherwise per multiple of the smallest memory.
const VIRTUAL_NODES: u32 = 64;
const VIRTUAL_NODES_PER_WEIGHT: u64 = 256;
/// Virtual nodes of one node, at most, so that a node with far more memory than the smallest stays cheap.
const VIRTUAL_NODES_MAX: u64 = 16_384;

/// The ring of a set of members.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Sorted by id.
    members: Vec<Member>,
    /// The zone number of each member.
    zones: Vec<u16>,
    zone_count: usize,
    /// The virtual nodes, sorted by hash, each with the index of its member.
    points: Vec<(u64, u16)>,
}

impl Ring {
    /// The ring of `members`, in any order; of several with one id the first counts.
    ///
    /// # Panics
    /// If there are more than 65,535 members.
    pub fn new(members: &[Member]) -> Self {
        let mut members = members.to_vec();
        members.sort_by_key(|member| member.id);
        members.dedup_by_key(|member| member.id);
        assert!(members.len() <= usize::from(u16::MAX), "{} members", members.len());
        let mut names: Vec<&str> = members.iter().map(|member| &member.zone[..]).collect();
        names.sort_unstable();
        names.dedup();
        let number = |member: &Member| names.binary_search(&&member.zone[..]).expect("taken from the keys") as u16;
        let zones: Vec<u16> = members.iter().map(number).collect();
        let zone_count = names.len();

        let least = members.iter().map(|member| member.memory_bytes.max(1)).min().unwrap_or(1);
        let alike = members.iter().all(|member| member.memory_bytes.max(1) == least);
        let mut points = Vec::new();
        for (number, member) in members.iter().enumerate() {
            let count = match alike {
                true => VIRTUAL_NODES,
                false => (u128::from(member.memory_bytes.max(1)) * u128::from(VIRTUAL_NODES_PER_WEIGHT)
                    / u128::from(least))
                .min(u128::from(VIRTUAL_NODES_MAX)) as u32,
            };
            points.extend((0..count).map(|n| (virtual_node(member.id, n), number as u16)));
        }
        points.sort_unstable();
        Self { members, zones, zone_count, points }
    }

    /// The members, sorted by id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// All nodes in the group's order of preference: clockwise from the group's hash, but interleaved over zones, so
    /// that no zone's second node comes before another zone's first.
    pub fn preference(&self, group: Group) -> Vec<NodeId> {
        self.order(group).into_iter().map(|number| self.members[usize::from(number)].id).collect()
    }

    /// As [`preference`](Self::preference), as indexes into the members.
    pub(super) fn order(&self, group: Group) -> Vec<u16> {
        let hash = XxHash3_64::oneshot_with_seed(SEED, &(group.index() as u16).to_le_bytes());
        let start = self.points.partition_point(|&(point, _)| point < hash);
        let mut seen = vec![false; self.members.len()];
        let mut met = vec![0_u16; self.zone_count];
        let mut order = Vec::with_capacity(self.members.len());
        for &(_, number) in self.points[start..].iter().chain(&self.points[..start]) {
            if order.len() == self.members.len() {
                break;
            }
            if !std::mem::replace(&mut seen[usize::from(number)], true) {
                let zone = &mut met[usize::from(self.zones[usize::from(number)])];
                // The nth node of its zone sorts after the nth node of each zone that was met before.
                order.push((*zone, number));
                *zone += 1;
            }
        }
        order.sort_by_key(|&(nth, _)| nth);
        order.into_iter().map(|(_, number)| number).collect()
    }

    pub(super) fn number(&self, id: NodeId) -> Option<u16> {
        self.members.binary_search_by_key(&id, |member| member.id).ok().map(|number| number as u16)
    }

    pub(super) fn zones(&self) -> &[u16] {
        &self.zones
    }

    pub(super) fn zone_count(&self) -> usize {
        self.zone_count
    }
}

/// The position of a virtual node on the ring.
fn virtual_node(id: NodeId, n: u32) -> u64 {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&id.0.to_le_bytes());
    bytes[8..].copy_from_slice(&n.to_le_bytes());
    XxHash3_64::oneshot_with_seed(SEED, &bytes)
}
