//! The map: who the members are, and which of them hold which group, as what.
//!
//! It is the state that the agreement replicates: every node has it, and it changes by [`Change`]s alone, which all nodes apply
//! in the same order. Nothing but its arguments decides what a change does, so all nodes come to the same map.
//!
//! ```text
//! Map ── version, cluster, settings, lost
//!  ├─ members:  node → { incarnation, raft, address, state: Up | Leaving | Down }
//!  └─ groups:   4,096 × { epoch, opened, primary, in-sync set, learners }
//! ```
//!
//! # The rules of the map
//! What [`Map::check`] finds true of every map, whether it came about by changes or from another node:
//!
//! 1. Who holds a group is a member in the incarnation that the map knows, and not down; nobody holds it twice.
//! 2. The primary is in the in-sync set, as its first. A group without a primary has no holders at all.
//! 3. A group has at most [`COPIES_EXTRA`] holders more than the settings say.
//! 4. No two members have the same Raft identity; no two that are not down have the same address.
//! 5. A group was opened in its epoch or in an earlier one; one that never was has epoch 0 and no holders.
//!
//! What a change must keep besides (`change.rs` checks it): only holders can become in-sync, only in-sync ones primary, and an
//! epoch rises with every change to its group.
//!
//! # Epochs and emptiness
//! `opened` is the epoch in which a group was last opened empty: data of earlier epochs is void. That happens when the group has
//! its first holder, when all of its in-sync holders are gone (then it is *lost*, and counted), and when the low 16 bits of its
//! epoch come round to 0: the versions of items carry these bits, and would no longer be in order.

mod change;
mod delta;
#[cfg(test)]
mod tests;
mod wire;

#[cfg(any(test, feature = "sim"))]
pub use change::COMPARES;
pub use change::{Applied, Change, GroupChange, GroupRefused, Refused};
pub use delta::{Delta, DeltaError};

use super::{Epoch, Identity, Member, NodeId, Plan, Ring, plan_some};
use crate::slots::{GROUPS, Group};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Members of a cluster, at most: the size of everything that is said about all of them is bounded by it.
pub const MEMBERS_MAX: usize = 1_024;
/// Copies of each group that can be asked for.
pub const REPLICAS_MAX: u8 = 8;
/// Holders that a group may have more than the settings say, while it moves.
pub const COPIES_EXTRA: usize = 3;
/// The longest address of a member.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// The longest name of a zone.
pub const ZONE_BYTES_MAX: usize = 64;

/// Larger counts come from nobody who counts by ones: they are refused before an addition to them could overflow.
const VERSION_MAX: u64 = u64::MAX / 2;
const EPOCH_MAX: u32 = u32::MAX / 2;

/// What is decided for the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Copies that each group is to have, the primary's included.
    pub replicas: u8,
    /// In-sync copies, the primary's included, without which nothing is acknowledged as safe.
    pub min_in_sync: u8,
}

impl Settings {
    fn are_sound(self) -> bool {
        (1..=REPLICAS_MAX).contains(&self.replicas) && (1..=self.replicas).contains(&self.min_in_sync)
    }
}

/// What the cluster makes of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It can hold groups.
    Up,
    /// It still holds groups, and is to give them to others.
    Leaving,
    /// It is taken for dead: it holds nothing until it joins again, in a new incarnation.
    Down,
}

/// All that the map knows of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberState {
    /// What placement has to know of it.
    pub member: Member,
    /// The incarnation that it last joined in.
    pub incarnation: u64,
    /// Its identity in Raft, never 0: another one than before if it lost its disk.
    pub raft: u64,
    /// Where other nodes reach it.
    pub address: String,
    /// What is made of it.
    pub state: State,
}

impl MemberState {
    /// Whose data the member's is.
    pub fn identity(&self) -> Identity {
        Identity { node: self.member.id, incarnation: self.incarnation }
    }

    fn is_sound(&self) -> bool {
        self.raft != 0
            && self.member.zone.len() <= ZONE_BYTES_MAX
            && (1..=ADDRESS_BYTES_MAX).contains(&self.address.len())
    }
}

/// Who holds a group. The default is that of a group that was never opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Larger with each change of what follows.
    pub epoch: Epoch,
    /// The epoch in which the group was last opened empty: data of earlier ones is void.
    pub opened: Epoch,
    /// Who decides on the group's data. None as long as there is nobody to hold it.
    pub primary: Option<Identity>,
    /// Who has all that was acknowledged: the primary first.
    pub in_sync: Vec<Identity>,
    /// Who is being brought there.
    pub learners: Vec<Identity>,
}

impl Assignment {
    /// All holders, the primary first.
    pub fn holders(&self) -> impl Iterator<Item = Identity> {
        self.in_sync.iter().chain(&self.learners).copied()
    }
}

/// A map breaks one of its rules: it came from somebody who does not keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the map breaks its rules: {0}")]
pub struct Invalid(&'static str);

/// Who the members are, and what they hold.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "wire::MapWire")]
pub struct Map {
    version: u64,
    cluster: u64,
    settings: Settings,
    members: BTreeMap<NodeId, MemberState>,
    /// [`GROUPS`] of them.
    groups: Vec<Assignment>,
    lost: u64,
}

impl Map {
    /// The map before a cluster was bootstrapped: it has version 0 and no members.
    pub fn empty() -> Self {
        let settings = Settings { replicas: 1, min_in_sync: 1 };
        let groups = vec![Assignment::default(); GROUPS];
        Self { version: 0, cluster: 0, settings, members: BTreeMap::new(), groups, lost: 0 }
    }

    /// How often the map was changed: the later of two maps of a cluster has the larger version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Which cluster it is of.
    pub fn cluster(&self) -> u64 {
        self.cluster
    }

    /// What is decided for the whole cluster.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// How many groups were opened empty while they may have held data.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The members, by their nodes.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &MemberState> {
        self.members.values()
    }

    /// One member.
    pub fn member(&self, node: NodeId) -> Option<&MemberState> {
        self.members.get(&node)
    }

    /// Who holds a group.
    pub fn assignment(&self, group: Group) -> &Assignment {
        &self.groups[group.index()]
    }

    /// Who holds each group.
    pub fn assignments(&self) -> impl ExactSizeIterator<Item = (Group, &Assignment)> {
        self.groups.iter().enumerate().map(|(number, assignment)| (Group::numbered(number), assignment))
    }

    /// True for the life of a member that the map knows and does not take for dead: only such a one holds groups.
    pub fn is_live(&self, identity: Identity) -> bool {
        let known = self.members.get(&identity.node);
        known.is_some_and(|known| known.incarnation == identity.incarnation && known.state != State::Down)
    }

    /// The ring of the members that can hold groups.
    pub fn ring(&self) -> Ring {
        let up = self.members().filter(|member| member.state == State::Up);
        let up: Vec<Member> = up.map(|member| member.member.clone()).collect();
        Ring::new(&up)
    }

    /// Who holds each group now, learners too, as the planner wants to know it.
    pub fn plan_now(&self) -> Plan {
        let nodes = |assignment: &Assignment| assignment.holders().map(|holder| holder.node).collect();
        Plan::of(self.groups.iter().map(nodes).collect())
    }

    /// Who is to hold these groups: what the sticky planner makes of the members that are up.
    pub fn wanted(&self, groups: &[Group]) -> Plan {
        plan_some(&self.ring(), &self.plan_now(), usize::from(self.settings.replicas), groups)
    }

    /// Checks the rules of the map.
    pub fn check(&self) -> Result<(), Invalid> {
        let ensure = |holds: bool, rule: &'static str| if holds { Ok(()) } else { Err(Invalid(rule)) };
        ensure(self.version <= VERSION_MAX && self.lost <= VERSION_MAX, "its version")?;
        ensure(self.version > 0 || self.members.is_empty(), "members before it was bootstrapped")?;
        ensure(self.settings.are_sound(), "its settings")?;
        ensure(self.members.len() <= MEMBERS_MAX, "the number of members")?;
        ensure(self.members.iter().all(|(&node, member)| member.member.id == node), "a member's node")?;
        ensure(self.members().all(MemberState::is_sound), "a member's identity in Raft, address or zone")?;
        let live = || self.members().filter(|member| member.state != State::Down);
        ensure(are_distinct(self.members().map(|member| member.raft)), "an identity in Raft that two have")?;
        ensure(are_distinct(live().map(|member| &member.address)), "an address that two have")?;
        ensure(self.groups.len() == GROUPS, "the number of groups")?;
        self.groups.iter().try_for_each(|assignment| self.check_assignment(assignment))
    }

    fn check_assignment(&self, assignment: &Assignment) -> Result<(), Invalid> {
        let Assignment { epoch, opened, primary, in_sync, learners } = assignment;
        let ensure = |holds: bool, rule: &'static str| if holds { Ok(()) } else { Err(Invalid(rule)) };
        ensure(opened <= epoch && epoch.0 <= EPOCH_MAX, "an epoch")?;
        ensure(in_sync.first() == primary.as_ref(), "a primary that is not in sync")?;
        ensure(primary.is_some() || learners.is_empty(), "learners without a primary")?;
        ensure(primary.is_none() || opened.0 > 0, "a holder of what was never opened")?;
        ensure(in_sync.len() + learners.len() <= self.copies_max(), "the number of copies")?;
        ensure(are_distinct(assignment.holders().map(|holder| holder.node)), "a holder that holds twice")?;
        ensure(assignment.holders().all(|holder| self.is_live(holder)), "a holder that is not alive")
    }

    fn copies_max(&self) -> usize {
        usize::from(self.settings.replicas) + COPIES_EXTRA
    }
}

fn are_distinct<T: Ord>(items: impl Iterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    items.into_iter().all(|item| seen.insert(item))
}
