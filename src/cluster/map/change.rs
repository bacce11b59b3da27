//! Changes of the map, and what they do.
//!
//! | change | what it does to groups |
//! |---|---|
//! | `Bootstrap`, `Join` | groups without a primary are opened; what an earlier incarnation of the node held, it holds no more |
//! | `Leave` | nothing yet: the planner gives the node's groups to others, by `Groups` |
//! | `Down` | the node is taken from all of them, in this one change; others become primaries |
//! | `Remove` | nothing: the node holds none |
//! | `Groups` | each is compared and set by itself |
//!
//! Applying a change twice does no harm, so one whose fate is unknown can be proposed again: what is so already stays
//! (`Applied::Unchanged`), and a group's epoch has moved on from what its second change expects.

use super::{Assignment, EPOCH_MAX, MEMBERS_MAX, Map, MemberState, Settings, State, are_distinct};
use crate::cluster::{Epoch, Identity, Member, NodeId, Ring};
use crate::slots::{GROUPS, Group};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

/// A change of the map: what an entry of the agreement's log says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Makes a cluster of one member, which holds all groups. Only the empty map takes it.
    Bootstrap {
        /// The cluster's identity.
        cluster: u64,
        /// What is decided for it.
        settings: Settings,
        /// Its first member, which is up.
        first: MemberState,
    },
    /// Takes in a new node, or a known one in a new incarnation: that it has started again, or that it was taken for dead and
    /// is not. A known one that is not down can come back only from where it was: another node with its name is refused, and
    /// one that moved waits until it is declared down.
    Join {
        /// What placement has to know of it.
        member: Member,
        /// Larger than that of each earlier start of the node.
        incarnation: u64,
        /// Its identity in Raft.
        raft: u64,
        /// Where other nodes reach it; no other live member is reached there.
        address: String,
    },
    /// Has a node give its groups to others.
    Leave {
        /// The node.
        node: NodeId,
    },
    /// Forgets a node that is down, or that is leaving and holds nothing any more.
    Remove {
        /// The node.
        node: NodeId,
    },
    /// Takes one life of a node for dead. A later life of the node is not touched.
    Down {
        /// The life.
        identity: Identity,
    },
    /// Changes who holds groups. Each is changed or refused by itself.
    Groups(Vec<GroupChange>),
}

/// Who is to hold a group, if nobody has changed that since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupChange {
    /// The group.
    #[serde(with = "super::wire::group_number")]
    pub group: Group,
    /// Its epoch, as the proposer knows it. With the change it becomes one more.
    pub expected: Epoch,
    /// One that was in sync before, and is so after.
    pub primary: Identity,
    /// Who is in sync, the primary included: of those that held the group before.
    pub in_sync: Vec<Identity>,
    /// Who is being brought there.
    pub learners: Vec<Identity>,
}

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// The map was so already.
    Unchanged,
    /// The map has a new version.
    Changed,
    /// What became of each group: its new epoch, or why it was not changed. The map has a new version if any was.
    Groups(Vec<Result<Epoch, GroupRefused>>),
}

/// Why a change was refused. The map is what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Refused {
    /// There is a cluster already.
    #[error("the cluster was bootstrapped before")]
    Bootstrapped,
    /// There is no cluster yet.
    #[error("the cluster was not bootstrapped")]
    NotBootstrapped,
    /// Its numbers or names are out of bounds.
    #[error("a number or a name of the change is out of bounds")]
    Bounds,
    /// The map knows a life of the node that is as late or later.
    #[error("the node is known in incarnation {known}: it has to join in a later one")]
    Incarnation {
        /// The incarnation that the map knows.
        known: u64,
    },
    /// A node with this name is alive elsewhere.
    #[error("a node of this name is alive at another address")]
    NameTaken,
    /// Another member has this address.
    #[error("node {0} is alive at this address")]
    AddressTaken(NodeId),
    /// Another member has this identity in Raft.
    #[error("node {0} has this identity in Raft")]
    RaftTaken(NodeId),
    /// There are as many members as there can be.
    #[error("the cluster has no room for one more member")]
    Full,
    /// The map does not know the node, or not this life of it.
    #[error("the node is unknown")]
    Unknown,
    /// The node is down, so it cannot leave.
    #[error("the node is down")]
    Down,
    /// The node is up, or still holds groups.
    #[error("the node is in use")]
    InUse,
}

/// Why a group was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum GroupRefused {
    /// Somebody changed it before.
    #[error("the group is in another epoch")]
    Epoch(Epoch),
    /// The primary would not be in sync, or was not before.
    #[error("the primary is not in sync")]
    Primary,
    /// One would be in sync that did not hold the group before.
    #[error("a stranger cannot be in sync")]
    Stranger,
    /// A holder is not a member in this incarnation, or is down.
    #[error("a holder is not alive")]
    NotLive,
    /// A holder is named twice, or there are too many.
    #[error("the holders are too many, or not distinct")]
    Holders,
    /// The epoch cannot become larger.
    #[error("the epochs of the group are used up")]
    Exhausted,
}

/// True: a group is changed only in the epoch that its change expects.
#[cfg(not(any(test, feature = "sim")))]
#[inline(always)]
fn compares() -> bool {
    true
}

/// True unless a test has broken the rule, in this thread.
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
    /// Changes the map, or refuses to and leaves it as it is.
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
            if is_live && *known == (MemberState { state: known.state, ..joining.clone() }) {
                return Ok(Applied::Unchanged);
            }
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

    /// Takes a life of a node that has ended from all groups, and gives those without a primary one: an in-sync holder, or, where
    /// there is none, the group is opened empty at the node that the ring prefers, if any is up.
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
            if assignment.primary.is_none()
                && let Some(next) = self.successor(&assignment, &led)
            {
                assignment.promote(next);
            }
            let home = match assignment.primary {
                Some(_) => None,
                None => self.home(Group::numbered(number), &mut ring),
            };
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

    /// Which in-sync holder becomes the primary: one that is not leaving, that is the primary of the fewest groups, and that has
    /// the least identity.
    fn successor(&self, assignment: &Assignment, led: &BTreeMap<Identity, usize>) -> Option<Identity> {
        let is_leaving = |node| self.members.get(&node).is_some_and(|member| member.state == State::Leaving);
        let rank = |holder: &Identity| (is_leaving(holder.node), led.get(holder).copied().unwrap_or(0), *holder);
        assignment.in_sync.iter().copied().min_by_key(rank)
    }

    /// Where a group is opened empty: at the node that is up and that the ring, which is made when it is first asked, prefers.
    fn home(&self, group: Group, ring: &mut Option<Ring>) -> Option<Identity> {
        let ring = ring.get_or_insert_with(|| self.ring());
        let node = *ring.preference(group).first()?;
        self.members.get(&node).map(MemberState::identity)
    }
}

impl Assignment {
    /// Takes a holder away. True if it was one; then the primary may be missing.
    fn release(&mut self, gone: Identity) -> bool {
        if !self.holders().any(|holder| holder == gone) {
            return false;
        }
        self.in_sync.retain(|holder| *holder != gone);
        self.learners.retain(|holder| *holder != gone);
        self.primary = self.primary.filter(|primary| *primary != gone);
        true
    }

    /// Makes one of the in-sync holders the primary.
    fn promote(&mut self, primary: Identity) {
        self.in_sync.retain(|holder| *holder != primary);
        self.in_sync.insert(0, primary);
        self.primary = Some(primary);
    }

    /// Opens the group empty, in a new epoch, at a node or at none.
    fn open(&mut self, home: Option<Identity>) {
        self.epoch = Epoch(self.epoch.0.saturating_add(1).min(EPOCH_MAX));
        self.opened = self.epoch;
        self.primary = home;
        self.in_sync = home.into_iter().collect();
        self.learners.clear();
    }

    /// Goes on to the next epoch. True if the group had to be opened empty for it, because the part of the epoch that is in the
    /// versions of items begins anew.
    fn advance(&mut self) -> bool {
        let comes_round = (self.epoch.0 + 1) & 0xffff == 0;
        match comes_round {
            true => self.open(self.primary),
            false => self.epoch = Epoch((self.epoch.0 + 1).min(EPOCH_MAX)),
        }
        comes_round
    }
}
