//! Changes of the map and their effects.
//!
//! | change | effect on groups |
//! |---|---|
//! | `Bootstrap`, `Join` | groups without a primary are opened; an earlier incarnation of the node loses all its groups |
//! | `Leave` | none yet: the planner moves the node's groups away, by `Groups` |
//! | `Down` | the node is removed from all of them at once, and primaries are replaced |
//! | `Remove` | none: the node holds none |
//! | `Groups` | each group is compared and set individually |
//!
//! Changes are idempotent, so one whose outcome is unknown can be proposed again: a change already in effect gives
//! `Applied::Unchanged`, and a group's epoch has moved past the one its second change expects.

use super::{Assignment, EPOCH_MAX, MEMBERS_MAX, Map, MemberState, Settings, State, are_distinct};
use crate::cluster::{Epoch, Identity, Member, NodeId, Ring};
use crate::slots::{GROUPS, Group};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

/// A change of the map, as entries of the agreement's log carry it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Creates a cluster of one member, which holds all groups. Valid for the empty map only.
    Bootstrap {
        /// The cluster's identity.
        cluster: u64,
        /// Settings of the cluster.
        settings: Settings,
        /// Its first member, which is up.
        first: MemberState,
    },
    /// Admits a new node, or a known one in a new incarnation: after a restart, or after it was declared down wrongly.
    /// A known node that is not down can come back only at its old address: at another one it is refused, since it may
    /// be a different node of that name, or one that moved and has to wait until its old incarnation is declared down.
    Join {
        /// Its properties for placement.
        member: Member,
        /// Larger than that of each earlier start of the node.
        incarnation: u64,
        /// Its identity in Raft.
        raft: u64,
        /// Its address for other nodes, unique among live members.
        address: String,
    },
    /// Makes a node give its groups to others.
    Leave {
        /// The node.
        node: NodeId,
    },
    /// Removes a node that is down, or that is leaving and holds no groups.
    Remove {
        /// The node.
        node: NodeId,
    },
    /// Declares an incarnation of a node down. Later incarnations are not affected.
    Down {
        /// The incarnation.
        identity: Identity,
    },
    /// Changes the holders of groups. Each change is applied or refused individually.
    Groups(Vec<GroupChange>),
}

/// A compare-and-set of a group's holders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupChange {
    /// The group.
    #[serde(with = "super::wire::group_number")]
    pub group: Group,
    /// The group's epoch as the proposer knows it. The change increments it.
    pub expected: Epoch,
    /// The primary, which must be in sync before and after.
    pub primary: Identity,
    /// The in-sync set, including the primary: holders of the group before the change.
    pub in_sync: Vec<Identity>,
    /// The learners.
    pub learners: Vec<Identity>,
}

/// The effect of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// The change was in effect already.
    Unchanged,
    /// The map has a new version.
    Changed,
    /// By group: the new epoch, or why it was not changed. The map has a new version if any group was.
    Groups(Vec<Result<Epoch, GroupRefused>>),
}

/// Why a change was refused. The map is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Refused {
    /// The map belongs to a cluster already.
    #[error("the cluster is bootstrapped already")]
    Bootstrapped,
    /// The map is empty.
    #[error("the cluster is not bootstrapped yet")]
    NotBootstrapped,
    /// A number or name exceeds its bounds.
    #[error("a number or a name of the change is out of bounds")]
    Bounds,
    /// The map knows this incarnation of the node, or a later one.
    #[error("the map has the node in incarnation {known}; it must join in a later one")]
    Incarnation {
        /// The incarnation in the map.
        known: u64,
    },
    /// A live member at another address has this node's id.
    #[error("a node with this id is alive at another address")]
    NameTaken,
    /// Another live member has this address.
    #[error("node {0} is alive at this address")]
    AddressTaken(NodeId),
    /// Another member has this Raft id.
    #[error("node {0} has this Raft id")]
    RaftTaken(NodeId),
    /// The cluster has [`MEMBERS_MAX`] members.
    #[error("the cluster has the maximum number of members")]
    Full,
    /// The map does not have the node, or not this incarnation.
    #[error("the node is unknown")]
    Unknown,
    /// The node is down, so it cannot leave.
    #[error("the node is down")]
    Down,
    /// The node is up or still holds groups.
    #[error("the node is up or still holds groups")]
    InUse,
}

/// Why a group was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum GroupRefused {
    /// The group's epoch has moved on; this is the current one.
    #[error("the group's epoch has changed")]
    Epoch(Epoch),
    /// The proposed primary would not be in sync, or was not.
    #[error("the primary is not in sync")]
    Primary,
    /// A node would be in sync that was no holder before.
    #[error("a node that does not hold the group cannot be in sync")]
    Stranger,
    /// A holder is not a live member in this incarnation.
    #[error("a holder is not a live member")]
    NotLive,
    /// Some holder is named twice, or there are too many.
    #[error("there are too many holders, or one twice")]
    Holders,
    /// The epoch has reached its maximum.
    #[error("the group's epochs are exhausted")]
    Exhausted,
}

/// Always true: changes of a group are compared with its epoch.
#[cfg(not(any(test, feature = "sim")))]
#[inline(always)]
fn compares() -> bool {
    true
}

/// True unless a test has broken the rule in this thread.
#[cfg(any(test, feature = "sim"))]
fn compares() -> bool {
    COMPARES.get()
}

#[cfg(any(test, feature = "sim"))]
thread_local! {
    /// The switch of the rule `CompareAndSet` (`replication/rules.rs`).
    pub static COMPARES: std::cell::Cell<bool> = const { std::cell::Cell::new(true) };
}

impl Map {
    /// Applies a change, or refuses it and leaves the map unchanged.
    pub fn apply(&mut self, change: &Change) -> Result<Applied, Refused> {
        if (self.version == 0) != matches!(change, Change::Bootstrap { .. }) {
            return Err(if self.version == 0 { Refused::NotBootstrapped } else { Refused::Bootstrapped });
        }
        let applied = match change {
            Change::Bootstrap { cluster, settings, first } => self.bootstrap(*cluster, *settings, first)?,
            Change::Join { member, incarnation, raft, address } => self.join(MemberState {
                member: member.clone(),
                incarnation: *incarnation,
                raft: *raft,
                address: address.clone(),
                state: State::Up,
            })?,
            Change::Leave { node } => self.leave(*node)?,
            Change::Remove { node } => self.remove(*node)?,
            Change::Down { identity } => self.down(*identity)?,
            Change::Groups(changes) => {
                Applied::Groups(changes.iter().map(|change| self.change_group(change)).collect())
            }
        };
        let changed = match &applied {
            Applied::Unchanged => false,
            Applied::Changed => true,
            Applied::Groups(results) => results.iter().any(Result::is_ok),
        };
        self.version += u64::from(changed);
        debug_assert!(!cfg!(test) || self.check().is_ok());
        Ok(applied)
    }

    fn bootstrap(&mut self, cluster: u64, settings: Settings, first: &MemberState) -> Result<Applied, Refused> {
        if !settings.are_sound() || !first.is_sound() {
            return Err(Refused::Bounds);
        }
        (self.cluster, self.settings) = (cluster, settings);
        self.members.insert(first.member.id, MemberState { state: State::Up, ..first.clone() });
        self.reassign(None);
        Ok(Applied::Changed)
    }

    fn join(&mut self, joining: MemberState) -> Result<Applied, Refused> {
        if !joining.is_sound() {
            return Err(Refused::Bounds);
        }
        let node = joining.member.id;
        let known = self.members.get(&node);
        if let Some(known) = known {
            let is_live = known.state != State::Down;
            // The proposal was repeated: this incarnation is a member already.
            if is_live && *known == (MemberState { state: known.state, ..joining.clone() }) {
                return Ok(Applied::Unchanged);
            }
            // Two processes with one id, or a node that moved before its old incarnation was declared down.
            if is_live && known.address != joining.address {
                return Err(Refused::NameTaken);
            }
            if joining.incarnation <= known.incarnation {
                return Err(Refused::Incarnation { known: known.incarnation });
            }
        } else if self.members.len() >= MEMBERS_MAX {
            return Err(Refused::Full);
        }
        for other in self.members().filter(|other| other.member.id != node) {
            if other.raft == joining.raft {
                return Err(Refused::RaftTaken(other.member.id));
            }
            if other.state != State::Down && other.address == joining.address {
                return Err(Refused::AddressTaken(other.member.id));
            }
        }
        let before = known.map(MemberState::identity);
        self.members.insert(node, joining);
        self.reassign(before);
        Ok(Applied::Changed)
    }

    fn leave(&mut self, node: NodeId) -> Result<Applied, Refused> {
        let member = self.members.get_mut(&node).ok_or(Refused::Unknown)?;
        match member.state {
            State::Down => Err(Refused::Down),
            State::Leaving => Ok(Applied::Unchanged),
            State::Up => {
                member.state = State::Leaving;
                Ok(Applied::Changed)
            }
        }
    }

    fn remove(&mut self, node: NodeId) -> Result<Applied, Refused> {
        let Some(member) = self.members.get(&node) else { return Ok(Applied::Unchanged) };
        let holds = || self.groups.iter().any(|group| group.holders().any(|holder| holder.node == node));
        if member.state == State::Up || holds() {
            return Err(Refused::InUse);
        }
        self.members.remove(&node);
        Ok(Applied::Changed)
    }

    fn down(&mut self, identity: Identity) -> Result<Applied, Refused> {
        let member = self.members.get_mut(&identity.node).ok_or(Refused::Unknown)?;
        if identity.incarnation > member.incarnation {
            return Err(Refused::Unknown);
        }
        if identity != member.identity() || member.state == State::Down {
            return Ok(Applied::Unchanged);
        }
        member.state = State::Down;
        self.reassign(Some(identity));
        Ok(Applied::Changed)
    }

    fn change_group(&mut self, change: &GroupChange) -> Result<Epoch, GroupRefused> {
        let GroupChange { group, expected, primary, in_sync, learners } = change;
        let old = &self.groups[group.index()];
        let holders = || in_sync.iter().chain(learners);
        if old.epoch != *expected && compares() {
            return Err(GroupRefused::Epoch(old.epoch));
        }
        if old.epoch.0 >= EPOCH_MAX {
            return Err(GroupRefused::Exhausted);
        }
        if in_sync.len() + learners.len() > self.copies_max() || !are_distinct(holders().map(|holder| holder.node)) {
            return Err(GroupRefused::Holders);
        }
        if !in_sync.contains(primary) || !old.in_sync.contains(primary) {
            return Err(GroupRefused::Primary);
        }
        if !in_sync.iter().all(|holder| old.holders().any(|old| old == *holder)) {
            return Err(GroupRefused::Stranger);
        }
        if !holders().all(|&holder| self.is_live(holder)) {
            return Err(GroupRefused::NotLive);
        }
        let others = in_sync.iter().copied().filter(|holder| holder != primary);
        let in_sync = std::iter::once(*primary).chain(others).collect();
        let assignment = &mut self.groups[group.index()];
        (assignment.primary, assignment.in_sync, assignment.learners) = (Some(*primary), in_sync, learners.clone());
        self.lost += u64::from(assignment.advance());
        Ok(assignment.epoch)
    }

    /// Removes the incarnation `gone` from all groups, and gives each group without a primary a new one: an in-sync
    /// holder or, if none is left, the node that the ring prefers, where the group is opened empty.
    fn reassign(&mut self, gone: Option<Identity>) {
        let mut led: BTreeMap<Identity, usize> = BTreeMap::new();
        for primary in self.groups.iter().filter_map(|assignment| assignment.primary) {
            *led.entry(primary).or_default() += 1;
        }
        let mut ring = None;
        for number in 0..GROUPS {
            let mut assignment = std::mem::take(&mut self.groups[number]);
            let primary_before = assignment.primary;
            let was_held = gone.is_some_and(|gone| assignment.release(gone));
            // An in-sync holder is left: it becomes primary, and no data is lost.
            if assignment.primary.is_none()
                && let Some(next) = self.successor(&assignment, &led)
            {
                assignment.promote(next);
            }
            let home = match assignment.primary {
                Some(_) => None,
                None => self.home(Group::numbered(number), &mut ring),
            };
            // No in-sync holder is left, or the group never had one: open it empty, at no node if none is up. It counts
            // as lost if it was held.
            if assignment.primary.is_none() && (was_held || home.is_some()) {
                assignment.open(home);
                self.lost += u64::from(was_held);
            } else if was_held {
                self.lost += u64::from(assignment.advance());
            }
            if let Some(primary) = assignment.primary
                && primary_before != Some(primary)
            {
                *led.entry(primary).or_default() += 1;
            }
            self.groups[number] = assignment;
        }
    }

    /// The in-sync holder that becomes primary: preferably not leaving, then the one with the fewest groups as primary,
    /// then the least identity.
    fn successor(&self, assignment: &Assignment, led: &BTreeMap<Identity, usize>) -> Option<Identity> {
        let is_leaving = |node| self.members.get(&node).is_some_and(|member| member.state == State::Leaving);
        let rank = |holder: &Identity| (is_leaving(holder.node), led.get(holder).copied().unwrap_or(0), *holder);
        assignment.in_sync.iter().copied().min_by_key(rank)
    }

    /// The node at which a group is opened empty: the ring's first preference among nodes that are up. The ring is
    /// computed once.
    fn home(&self, group: Group, ring: &mut Option<Ring>) -> Option<Identity> {
        let ring = ring.get_or_insert_with(|| self.ring());
        let node = *ring.preference(group).first()?;
        self.members.get(&node).map(MemberState::identity)
    }
}

impl Assignment {
    /// Removes a holder. True if it was one; the primary may be missing then.
    fn release(&mut self, gone: Identity) -> bool {
        if !self.holders().any(|holder| holder == gone) {
            return false;
        }
        self.in_sync.retain(|holder| *holder != gone);
        self.learners.retain(|holder| *holder != gone);
        self.primary = self.primary.filter(|primary| *primary != gone);
        true
    }

    /// Makes an in-sync holder the primary.
    fn promote(&mut self, primary: Identity) {
        self.in_sync.retain(|holder| *holder != primary);
        self.in_sync.insert(0, primary);
        self.primary = Some(primary);
    }

    /// Opens the group empty in a new epoch, at a node or at none.
    fn open(&mut self, home: Option<Identity>) {
        self.epoch = Epoch(self.epoch.0.saturating_add(1).min(EPOCH_MAX));
        self.opened = self.epoch;
        self.primary = home;
        self.in_sync = home.into_iter().collect();
        self.learners.clear();
    }

    /// Increments the epoch. True if the group had to be opened empty, because the 16 bits of the epoch in item
    /// versions wrapped around.
    fn advance(&mut self) -> bool {
        let comes_round = (self.epoch.0 + 1) & 0xffff == 0;
        match comes_round {
            true => self.open(self.primary),
            false => self.epoch = Epoch((self.epoch.0 + 1).min(EPOCH_MAX)),
        }
        comes_round
    }
}
