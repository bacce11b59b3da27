//! The encoding of maps and deltas: holders are indexes into a table of identities.
//!
//! ```text
//! table   [ identity 0, identity 1, … ]           each live member once, about 12 bytes
//! group   epoch, epoch − opened, [ in-sync numbers, the primary first ], [ learner numbers ]
//! ```
//!
//! A group with three copies takes about eight bytes, where full identities would take thirty.

use super::{Assignment, Invalid, Map, MemberState, Settings};
use crate::cluster::{Epoch, Identity};
use crate::slots::{GROUPS, Group};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::{BTreeMap, BTreeSet};

/// A map as it is encoded.
#[derive(Serialize, Deserialize)]
pub(super) struct MapWire {
    version: u64,
    cluster: u64,
    settings: Settings,
    lost: u64,
    members: Vec<MemberState>,
    table: Vec<Identity>,
    groups: Vec<AssignmentWire>,
}

/// An assignment with table indexes for identities.
#[derive(Serialize, Deserialize)]
pub(super) struct AssignmentWire {
    epoch: u32,
    epochs_since_opened: u32,
    in_sync: Vec<u16>,
    learners: Vec<u16>,
}

/// All holders in `assignments`, each once, sorted.
pub(super) fn table<'a>(assignments: impl Iterator<Item = &'a Assignment>) -> Vec<Identity> {
    let holders: BTreeSet<Identity> = assignments.flat_map(Assignment::holders).collect();
    holders.into_iter().collect()
}

impl AssignmentWire {
    /// Encodes an assignment. `table` is sorted and contains all its holders.
    pub(super) fn new(assignment: &Assignment, table: &[Identity]) -> Self {
        let number = |holder: &Identity| table.binary_search(holder).expect("all holders are in the table") as u16;
        Self {
            epoch: assignment.epoch.0,
            epochs_since_opened: assignment.epoch.0 - assignment.opened.0,
            in_sync: assignment.in_sync.iter().map(number).collect(),
            learners: assignment.learners.iter().map(number).collect(),
        }
    }

    pub(super) fn read(self, table: &[Identity]) -> Result<Assignment, Invalid> {
        let identities = |numbers: Vec<u16>| {
            let identities = numbers.into_iter().map(|number| table.get(usize::from(number)).copied());
            identities.collect::<Option<Vec<_>>>().ok_or(Invalid("a holder that is not in the table"))
        };
        let opened = self.epoch.checked_sub(self.epochs_since_opened).ok_or(Invalid("an epoch"))?;
        let in_sync = identities(self.in_sync)?;
        let (primary, learners) = (in_sync.first().copied(), identities(self.learners)?);
        Ok(Assignment { epoch: Epoch(self.epoch), opened: Epoch(opened), primary, in_sync, learners })
    }
}

impl Serialize for Map {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let table = table(self.groups.iter());
        let wire = MapWire {
            version: self.version,
            cluster: self.cluster,
            settings: self.settings,
            lost: self.lost,
            members: self.members.values().cloned().collect(),
            groups: self.groups.iter().map(|assignment| AssignmentWire::new(assignment, &table)).collect(),
            table,
        };
        wire.serialize(serializer)
    }
}

impl TryFrom<MapWire> for Map {
    type Error = Invalid;

    fn try_from(wire: MapWire) -> Result<Self, Invalid> {
        let MapWire { version, cluster, settings, lost, members, table, groups } = wire;
        let count = members.len();
        let members: BTreeMap<_, _> = members.into_iter().map(|member| (member.member.id, member)).collect();
        if members.len() != count {
            return Err(Invalid("a member that is there twice"));
        }
        let groups = groups.into_iter().map(|assignment| assignment.read(&table)).collect::<Result<_, _>>()?;
        let map = Self { version, cluster, settings, members, groups, lost };
        map.check()?;
        Ok(map)
    }
}

/// A group as its number, for `#[serde(with = …)]`.
pub(super) mod group_number {
    use super::*;

    pub fn serialize<S: Serializer>(group: &Group, serializer: S) -> Result<S::Ok, S::Error> {
        (group.index() as u16).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Group, D::Error> {
        let number = usize::from(u16::deserialize(deserializer)?);
        if number >= GROUPS {
            return Err(de::Error::custom("a group that there is not"));
        }
        Ok(Group::numbered(number))
    }
}
