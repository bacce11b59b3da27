//! The leader's part in movement: it has groups go to where the planner wants them.
//!
//! | a group | the leader |
//! |---|---|
//! | lacks a copy that is wanted | adds the node as a learner |
//! | has learners that nobody wants | removes them |
//! | has more copies in sync than are wanted | removes others than the wanted, and not the primary |
//! | has the wanted primary in sync, and another primary | asks that one to hand over |
//!
//! The rest the primary does: it fills the learner, proposes it as in-sync, and hands over (`replication/primary.rs`). So a
//! migration, a rebuild after a loss, a drain and a new node are the same thing. Each change is compared with the group's epoch
//! and set, so one that comes too late does nothing.

use crate::cluster::map::{Assignment, GroupChange, Map, MemberState, State};
use crate::cluster::{Identity, NodeId, Plan};
use crate::replication::{Body, Message, Ms};
use crate::slots::Group;

/// How often the leader looks at what is to be moved.
const INTERVAL_MS: u64 = 100;
/// Changes that are proposed at once.
const CHANGES_MAX: usize = 256;

/// Moves groups, as the leader.
#[derive(Debug)]
pub(super) struct Mover {
    groups: Vec<Group>,
    moves_max: usize,
    /// What the planner wants of the members that there are. None until somebody asks.
    wanted: Option<Plan>,
    members: Vec<(Identity, State)>,
    looked_at: Option<Ms>,
}

/// What the leader does about it.
#[derive(Debug, Default)]
pub(super) struct Moves {
    pub(super) changes: Vec<GroupChange>,
    pub(super) messages: Vec<(Identity, Message)>,
}

impl Mover {
    pub(super) fn new(groups: Vec<Group>, moves_max: usize) -> Self {
        Self { groups, moves_max, wanted: None, members: Vec::new(), looked_at: None }
    }

    /// The map has changed: perhaps who is in it.
    pub(super) fn members_may_have_changed(&mut self, map: &Map) {
        let members: Vec<_> = map.members().map(|member| (member.identity(), member.state)).collect();
        if members != self.members {
            self.members = members;
            self.wanted = None;
        }
    }

    /// What to do now.
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

/// The next change of a group on its way to the wanted holders.
fn change_towards(group: Group, assignment: &Assignment, wanted: &[Identity], may_begin: bool) -> Option<GroupChange> {
    let Assignment { epoch, primary, in_sync, learners, .. } = assignment;
    let primary = (*primary)?;
    let mut next_learners: Vec<Identity> = learners.iter().copied().filter(|one| wanted.contains(one)).collect();
    if may_begin {
        next_learners.extend(wanted.iter().filter(|one| !in_sync.contains(one) && !learners.contains(one)));
    }
    let mut next_in_sync = in_sync.clone();
    while next_in_sync.len() > wanted.len()
        && let Some(at) = next_in_sync.iter().rposition(|one| !wanted.contains(one) && *one != primary)
    {
        next_in_sync.remove(at);
    }
    let is_same = next_learners == *learners && next_in_sync == *in_sync;
    let change = GroupChange { group, expected: *epoch, primary, in_sync: next_in_sync, learners: next_learners };
    (!is_same && !wanted.is_empty()).then_some(change)
}

/// Asks the primary of a group that has all wanted copies to let the wanted one be primary.
fn hand_over(group: Group, assignment: &Assignment, wanted: &[Identity]) -> Option<(Identity, Message)> {
    let (primary, &to) = (assignment.primary?, wanted.first()?);
    let is_due = primary != to && assignment.in_sync.contains(&to) && assignment.learners.is_empty();
    let body = Body::HandOver { to: to.node };
    is_due.then(|| (primary, Message::Group { group: group.index() as u16, epoch: assignment.epoch, body }))
}
