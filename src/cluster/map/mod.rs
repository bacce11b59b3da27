//! The map: the members, and the assignment of groups to them.
//!
//! The map is the replicated state of the agreement: every node has it and applies the same [`Change`]s in the same
//! order. A change's effect depends on its arguments and the map alone, so all nodes compute identical maps.
//!
//! ```text
//! Map ── version, cluster, settings, lost
//!  ├─ members:  node → { incarnation, raft, address, state: Up | Leaving | Down }
//!  └─ groups:   4,096 × { epoch, opened, primary, in-sync set, learners }
//! ```
//!
//! # Invariants
//! [`Map::check`] verifies these for every map, whether computed by changes or received from another node:
//!
//! 1. A holder is a live member in the incarnation that the map has; no node holds a group twice.
//! 2. The primary is the first of the in-sync set. A group without a primary has no holders.
//! 3. A group has at most `replicas` + [`COPIES_EXTRA`] holders.
//! 4. Raft ids are unique among members, addresses among live members.
//! 5. A group was opened in its epoch or an earlier one; one that never was has epoch 0 and no holders.
//!
//! Changes guarantee in addition (`change.rs`): only holders become in-sync, only in-sync holders become primary, and
//! each change of a group increases its epoch.
//!
//! # Opening groups
//! `opened` is the epoch in which a group was last opened empty: data of earlier epochs is void. A group is opened when
//! it gets its first holder, when all its in-sync holders are gone (then it is *lost*, and counted), and when the low
//! 16 bits of its epoch wrap around to 0: versions of items contain these bits and would no longer be ordered.

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

/// Members of a cluster, at most. Bounds the size of everything that lists members.
pub const MEMBERS_MAX: usize = 1_024;
/// Maximum of [`Settings::replicas`].
pub const REPLICAS_MAX: u8 = 8;
/// Holders beyond [`Settings::replicas`] that a group may have while it moves.
pub const COPIES_EXTRA: usize = 3;
/// The longest address of a member, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// The longest zone name, in bytes.
pub const ZONE_BYTES_MAX: usize = 64;

/// Larger counts cannot come from counting by ones. They are refused, so that additions do not overflow.
const VERSION_MAX: u64 = u64::MAX / 2;
const EPOCH_MAX: u32 = u32::MAX / 2;

/// Settings of the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Copies of each group, including the primary's.
    pub replicas: u8,
    /// Smallest in-sync set, including the primary, for which strong writes are acknowledged.
    pub min_in_sync: u8,
}

impl Settings {
    fn are_sound(self) -> bool {
        (1..=REPLICAS_MAX).contains(&self.replicas) && (1..=self.replicas).contains(&self.min_in_sync)
    }
}

/// The state of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It may hold groups.
    Up,
    /// It still holds groups, which are being moved away.
    Leaving,
    /// Declared down: it holds nothing until it joins in a new incarnation.
    Down,
}

/// A member, as the map has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberState {
    /// Its properties for placement.
    pub member: Member,
    /// The incarnation in which it last joined.
    pub incarnation: u64,
    /// Its Raft id, never 0. It changes if the node loses its disk.
    pub raft: u64,
    /// Its address for other nodes.
    pub address: String,
    /// Its state.
    pub state: State,
}

impl MemberState {
    /// The incarnation that owns the member's data.
    pub fn identity(&self) -> Identity {
        Identity { node: self.member.id, incarnation: self.incarnation }
    }

    fn is_sound(&self) -> bool {
        self.raft != 0
            && self.member.zone.len() <= ZONE_BYTES_MAX
            && (1..=ADDRESS_BYTES_MAX).contains(&self.address.len())
    }
}

/// The holders of a group. The default is that of a group that was never opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Increases with each change of the fields below.
    pub epoch: Epoch,
    /// The epoch in which the group was last opened empty; data of earlier epochs is void.
    pub opened: Epoch,
    /// The primary. None while no node is up to hold the group.
    pub primary: Option<Identity>,
    /// The in-sync set: holders with everything that was acknowledged, the primary first.
    pub in_sync: Vec<Identity>,
    /// Holders that are catching up.
    pub learners: Vec<Identity>,
}

impl Assignment {
    /// All holders, the primary first.
    pub fn holders(&self) -> impl Iterator<Item = Identity> {
        self.in_sync.iter().chain(&self.learners).copied()
    }
}

/// A map, received from elsewhere, that breaks its invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the map breaks an invariant: {0}")]
pub struct Invalid(&'static str);

/// The members and the assignment of groups to them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "wire::MapWire")]
pub struct Map {
    version: u64,
    cluster: u64,
    settings: Settings,
    members: BTreeMap<NodeId, MemberState>,
    /// By group: [`GROUPS`] of them.
    groups: Vec<Assignment>,
    lost: u64,
}

impl Map {
    /// The map before the bootstrap: version 0, without members.
    pub fn empty() -> Self {
        let settings = Settings { replicas: 1, min_in_sync: 1 };
        let groups = vec![Assignment::default(); GROUPS];
        Self { version: 0, cluster: 0, settings, members: BTreeMap::new(), groups, lost: 0 }
    }

    /// The number of changes so far: of two maps of a cluster, the later has the larger version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The cluster's id.
    pub fn cluster(&self) -> u64 {
        self.cluster
    }

    /// The settings of the whole cluster.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// The number of groups that were opened empty although they may have held data.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The members, sorted by node.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &MemberState> {
        self.members.values()
    }

    /// One member.
    pub fn member(&self, node: NodeId) -> Option<&MemberState> {
        self.members.get(&node)
    }

    /// The assignment of a group.
    pub fn assignment(&self, group: Group) -> &Assignment {
        &self.groups[group.index()]
    }

    /// The assignment of each group.
    pub fn assignments(&self) -> impl ExactSizeIterator<Item = (Group, &Assignment)> {
        self.groups.iter().enumerate().map(|(number, assignment)| (Group::numbered(number), assignment))
    }

    /// True if `identity` is the incarnation of a member that the map has, and not down: only such members hold groups.
    pub fn is_live(&self, identity: Identity) -> bool {
        let known = self.members.get(&identity.node);
        known.is_some_and(|known| known.incarnation == identity.incarnation && known.state != State::Down)
    }

    /// The ring of the members that are up.
    pub fn ring(&self) -> Ring {
        let up = self.members().filter(|member| member.state == State::Up);
        let up: Vec<Member> = up.map(|member| member.member.clone()).collect();
        Ring::new(&up)
    }

    /// The current holders of each group, including learners, as input of the planner.
    pub fn plan_now(&self) -> Plan {
        let nodes = |assignment: &Assignment| assignment.holders().map(|holder| holder.node).collect();
        Plan::of(self.groups.iter().map(nodes).collect())
    }

    /// The planner's assignment of `groups` to the members that are up.
    pub fn wanted(&self, groups: &[Group]) -> Plan {
        plan_some(&self.ring(), &self.plan_now(), usize::from(self.settings.replicas), groups)
    }

    /// Checks the invariants of the map.
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
