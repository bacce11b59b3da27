//! What a map has that an older one had not: sent to nodes that have the older one, instead of the whole.

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
    /// The version of the map that it is applied to.
    pub from: u64,
    /// The version of the map that comes of it.
    pub to: u64,
    cluster: u64,
    settings: Settings,
    lost: u64,
    /// Members that are new or changed, and those that were removed.
    members: Vec<MemberState>,
    removed: Vec<NodeId>,
    groups: Vec<(Group, Assignment)>,
}

impl Delta {
    /// Groups whose assignment changed, with what it is now.
    pub fn groups(&self) -> &[(Group, Assignment)] {
        &self.groups
    }
}

/// Why a difference was not applied. The map is what it was; the whole one has to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DeltaError {
    /// It is not from this map's version on.
    #[error("the difference is from version {from} on, the map has {version}")]
    Version {
        /// The version that the difference begins at.
        from: u64,
        /// The version of the map.
        version: u64,
    },
    /// It is another cluster's.
    #[error("the difference is another cluster's")]
    Cluster,
    /// What comes of it is no map.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl Map {
    /// What this map has that an older one of its cluster had not.
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

    /// Makes the map what it was the difference to.
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

/// A difference as it is written.
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
