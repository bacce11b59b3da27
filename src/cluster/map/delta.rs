//! The difference between two versions of the map, sent to nodes that have the older one instead of the whole map.

use super::wire::{self, AssignmentWire};
use super::{Assignment, Invalid, Map, MemberState, Settings};
use crate::cluster::{Identity, NodeId};
use crate::slots::{GROUPS, Group};
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

/// The difference between two maps of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "DeltaWire")]
pub struct Delta {
    /// The version of the map it applies to.
    pub from: u64,
    /// The version of the resulting map.
    pub to: u64,
    cluster: u64,
    settings: Settings,
    lost: u64,
    /// Members added or changed, and members removed.
    members: Vec<MemberState>,
    removed: Vec<NodeId>,
    groups: Vec<(Group, Assignment)>,
}

impl Delta {
    /// Groups whose assignment changed, with the new assignment.
    pub fn groups(&self) -> &[(Group, Assignment)] {
        &self.groups
    }
}

/// Why a delta was not applied. The map is unchanged; the whole map has to be requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DeltaError {
    /// The delta applies to another version.
    #[error("the delta applies to version {from}, the map has version {version}")]
    Version {
        /// The version that the delta applies to.
        from: u64,
        /// The version of the map.
        version: u64,
    },
    /// The delta belongs to another cluster.
    #[error("the delta belongs to another cluster")]
    Cluster,
    /// The resulting map would break its invariants.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl Map {
    /// The delta from an older map of the cluster to this one.
    pub fn delta_since(&self, older: &Self) -> Delta {
        let changed = |member: &&MemberState| older.member(member.member.id) != Some(*member);
        let groups = self.assignments().filter(|&(group, assignment)| older.assignment(group) != assignment);
        Delta {
            from: older.version,
            to: self.version,
            cluster: self.cluster,
            settings: self.settings,
            lost: self.lost,
            members: self.members().filter(changed).cloned().collect(),
            removed: older.members.keys().copied().filter(|node| !self.members.contains_key(node)).collect(),
            groups: groups.map(|(group, assignment)| (group, assignment.clone())).collect(),
        }
    }

    /// Applies a delta to the map.
    pub fn apply_delta(&mut self, delta: &Delta) -> Result<(), DeltaError> {
        if delta.from != self.version || delta.to < delta.from {
            return Err(DeltaError::Version { from: delta.from, version: self.version });
        }
        if self.version > 0 && delta.cluster != self.cluster {
            return Err(DeltaError::Cluster);
        }
        let mut next = self.clone();
        (next.version, next.cluster, next.settings, next.lost) = (delta.to, delta.cluster, delta.settings, delta.lost);
        for node in &delta.removed {
            next.members.remove(node);
        }
        for member in &delta.members {
            next.members.insert(member.member.id, member.clone());
        }
        for (group, assignment) in &delta.groups {
            next.groups[group.index()] = assignment.clone();
        }
        next.check()?;
        *self = next;
        Ok(())
    }
}

/// A delta as it is encoded.
#[derive(Serialize, Deserialize)]
struct DeltaWire {
    from: u64,
    to: u64,
    cluster: u64,
    settings: Settings,
    lost: u64,
    members: Vec<MemberState>,
    removed: Vec<NodeId>,
    table: Vec<Identity>,
    groups: Vec<(u16, AssignmentWire)>,
}

impl Serialize for Delta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let table = wire::table(self.groups.iter().map(|(_, assignment)| assignment));
        let group =
            |(group, assignment): &(Group, Assignment)| (group.index() as u16, AssignmentWire::new(assignment, &table));
        let groups = self.groups.iter().map(group).collect();
        let Self { from, to, cluster, settings, lost, members, removed, .. } = self.clone();
        DeltaWire { from, to, cluster, settings, lost, members, removed, groups, table }.serialize(serializer)
    }
}

impl TryFrom<DeltaWire> for Delta {
    type Error = Invalid;

    fn try_from(wire: DeltaWire) -> Result<Self, Invalid> {
        let DeltaWire { from, to, cluster, settings, lost, members, removed, table, groups } = wire;
        let group = |(number, assignment): (u16, AssignmentWire)| {
            if usize::from(number) >= GROUPS {
                return Err(Invalid("a group that there is not"));
            }
            Ok((Group::numbered(usize::from(number)), assignment.read(&table)?))
        };
        let groups = groups.into_iter().map(group).collect::<Result<_, _>>()?;
        Ok(Self { from, to, cluster, settings, lost, members, removed, groups })
    }
}
