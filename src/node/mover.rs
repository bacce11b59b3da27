//! The mover: on the leader, moves groups to where the planner wants them.
//!
//! | a group | the leader |
//! |---|---|
//! | lacks a wanted copy | adds the node as a learner |
//! | has unwanted learners | removes them |
//! | has more in-sync copies than wanted | removes unwanted ones, except the primary |
//! | has the wanted primary in sync, but another primary | asks that one to hand over |
//!
//! The group's primary does the rest: it sends the snapshot, proposes the learner as in-sync, and hands over
//! (`replication/primary.rs`). Migration, re-replication after a loss, draining a node and adding one therefore work
//! alike. Each change is compared with the group's epoch, so a late one does nothing.

use crate::cluster::map::{Assignment, GroupChange, Map, MemberState, State};
use crate::cluster::{Identity, NodeId, Plan};
use crate::replication::{Body, Message, Ms};
use crate::slots::Group;

/// Interval at which the leader compares the map with the plan.
const INTERVAL_MS: u64 = 100;
/// Changes per proposal.
const CHANGES_MAX: usize = 256;

/// Moves groups, on the leader.
#[derive(Debug)]
pub(super) struct Mover {
    groups: Vec<Group>,
    moves_max: usize,
    /// The plan for the current members; computed on demand.
    wanted: Option<Plan>,
    members: Vec<(Identity, State)>,
    looked_at: Option<Ms>,
}

/// The leader's next moves.
#[derive(Debug, Default)]
pub(super) struct Moves {
    pub(super) changes: Vec<GroupChange>,
    pub(super) messages: Vec<(Identity, Message)>,
}

impl Mover {
    pub(super) fn new(groups: Vec<Group>, moves_max: usize) -> Self {
        Self { groups, moves_max, wanted: None, members: Vec::new(), looked_at: None }
    }

    /// Follows the map; drops the plan if the members have changed.
    pub(super) fn members_may_have_changed(&mut self, map: &Map) {
        let members: Vec<_> = map.members().map(|member| (member.identity(), member.state)).collect();
        if members != self.members {
            self.members = members;
            self.wanted = None;
        }
    }

    /// The moves to make now.
    pub(super) fn moves(&mut self, map: &Map, now: Ms) -> Moves {
        let mut moves = Moves::default();
        if self.looked_at.is_some_and(|at| now < at + INTERVAL_MS) {
            return moves;
        }
        self.looked_at = Some(now);
        let wanted = self.wanted.get_or_insert_with(|| map.wanted(&self.groups));
        let identity = |node: &NodeId| map.member(*node).map(MemberState::identity);
        let mut moving = self.groups.iter().filter(|&&group| !map.assignment(group).learners.is_empty()).count();
        for &group in &self.groups {
            let wanted: Vec<Identity> = wanted.copies(group).iter().filter_map(identity).collect();
            let assignment = map.assignment(group);
            // Only the start of movements is limited: those under way continue, and removals cost nothing.
            let may_begin = moving < self.moves_max;
            if moves.changes.len() == CHANGES_MAX {
                break;
            }
            if let Some(change) = change_towards(group, assignment, &wanted, may_begin) {
                moving += usize::from(!change.learners.is_empty() && assignment.learners.is_empty());
                moves.changes.push(change);
            } else if let Some(message) = hand_over(group, assignment, &wanted) {
                moves.messages.push(message);
            }
        }
        moves
    }
}

/// The next change of a group's holders towards the wanted ones.
fn change_towards(group: Group, assignment: &Assignment, wanted: &[Identity], may_begin: bool) -> Option<GroupChange> {
    let Assignment { epoch, primary, in_sync, learners, .. } = assignment;
    let primary = (*primary)?;
    let mut next_learners: Vec<Identity> = learners.iter().copied().filter(|one| wanted.contains(one)).collect();
    if may_begin {
        next_learners.extend(wanted.iter().filter(|one| !in_sync.contains(one) && !learners.contains(one)));
    }
    let mut next_in_sync = in_sync.clone();
    // Shrink the in-sync set only down to the wanted number, so that a copy is dropped only after its replacement is in
    // sync.
    while next_in_sync.len() > wanted.len()
        && let Some(at) = next_in_sync.iter().rposition(|one| !wanted.contains(one) && *one != primary)
    {
        next_in_sync.remove(at);
    }
    let is_same = next_learners == *learners && next_in_sync == *in_sync;
    let change = GroupChange { group, expected: *epoch, primary, in_sync: next_in_sync, learners: next_learners };
    (!is_same && !wanted.is_empty()).then_some(change)
}

/// The request to the primary to hand over to the wanted primary, if that is in sync and nothing else is to be done.
fn hand_over(group: Group, assignment: &Assignment, wanted: &[Identity]) -> Option<(Identity, Message)> {
    let (primary, &to) = (assignment.primary?, wanted.first()?);
    let is_due = primary != to && assignment.in_sync.contains(&to) && assignment.learners.is_empty();
    let body = Body::HandOver { to: to.node };
    is_due.then(|| (primary, Message::Group { group: group.index() as u16, epoch: assignment.epoch, body }))
}
