//! Admission: how the leader answers nodes that want to join or leave. (`join.rs` is the applicant's side.)
//!
//! | an applicant | answer of the leader |
//! |---|---|
//! | of another cluster | refused; the reason names both clusters |
//! | in the map's incarnation, from the map's address | accepted |
//! | in the map's incarnation, from another address | refused: two processes with one node id |
//! | in an earlier incarnation than the map's | refused: a newer one is in the map |
//! | in a later incarnation, and the node is down | admitted |
//! | in a later incarnation of a live member, from the same address | admitted: the earlier process cannot run at that address too |
//! | in a later incarnation of a live member, from another address, and the earlier incarnation is heard | refused: two processes with one node id |
//! | in a later incarnation of a live member, from another address, and the earlier incarnation is silent | wait until the map has it down |
//! | that the map does not have | admitted, if there is room |
//!
//! To admit is to propose the change to Raft; the applicant asks again and is accepted once the map has it. Applying
//! the proposal twice does nothing, as a node's incarnation in the map only increases. A member that does not lead
//! answers with the leader's address.

use super::heartbeats::{Heartbeats, MEMBERS_MAX};
use super::join::Answer;
use super::{Action, Leader, MapView, MemberState, Profile, Proposal};
use crate::cluster::Identity;

/// A process heard so recently is alive: no supervisor could have restarted it elsewhere in that time.
const HEARD_LATELY_MS: u64 = 250;

/// What an answer depends on.
pub(super) struct AdmissionContext<'a> {
    pub(super) own: Identity,
    pub(super) map: &'a MapView,
    pub(super) leader: Option<Leader>,
    pub(super) heartbeats: &'a Heartbeats,
    pub(super) now_ms: u64,
}

impl AdmissionContext<'_> {
    /// Answers a request to join.
    pub(super) fn request(&self, cluster: u64, profile: &Profile, actions: &mut Vec<Action>) -> Answer {
        if cluster != self.map.cluster {
            let own = self.map.cluster;
            return refused(format!("node {} belongs to cluster {cluster:016x}, this is {own:016x}", profile.node()));
        }
        if let Err(error) = profile.check() {
            return refused(format!("node {}: {error}", profile.node()));
        }
        match self.term() {
            Ok(term) => self.judge(term, profile, actions),
            Err(elsewhere) => elsewhere,
        }
    }

    /// Answers a request to leave.
    pub(super) fn leave(&self, from: Identity, actions: &mut Vec<Action>) -> Answer {
        let term = match self.term() {
            Ok(term) => term,
            Err(elsewhere) => return elsewhere,
        };
        if !self.map.is_alive(from) {
            return Answer::Gone;
        }
        let known = &self.map.members[&from.node];
        let stays = |node: &Identity| node.node != from.node && self.map.members[&node.node].state == MemberState::Up;
        match known.state {
            MemberState::Leaving if known.groups == 0 => {
                actions.push(Action::Propose { term, proposal: Proposal::Remove(from) });
            }
            MemberState::Leaving => {}
            _ if !self.map.alive().any(|node| stays(&node)) => {
                return refused("no other node would remain in the cluster to hold its data".into());
            }
            _ => actions.push(Action::Propose { term, proposal: Proposal::Leave(from) }),
        }
        Answer::Wait { reason: format!("{} groups are still to be moved", known.groups) }
    }

    /// The term in which this node leads, or the answer that names the leader.
    fn term(&self) -> Result<u64, Answer> {
        let address = |leader: Leader| self.map.members.get(&leader.node).map(|known| known.address.clone());
        match self.leader {
            Some(leader) if leader.node == self.own.node => Ok(leader.term),
            leader => Err(Answer::Elsewhere { leader_address: leader.and_then(address) }),
        }
    }

    /// Decides by the table above.
    fn judge(&self, term: u64, profile: &Profile, actions: &mut Vec<Action>) -> Answer {
        let (node, MapView { cluster, version, members, .. }) = (profile.node(), self.map);
        let Some(known) = members.get(&node) else {
            return match members.len() < MEMBERS_MAX {
                true => self.let_in(term, profile, actions),
                false => refused(format!("the cluster has {MEMBERS_MAX} nodes already")),
            };
        };
        let last = Identity { node, incarnation: known.incarnation };
        let in_use = || refused(format!("node id {node} is in use by the process at {}", known.address));
        let is_same_place = known.address == profile.address;
        if profile.incarnation < last.incarnation {
            return refused(format!("node {node}: a newer incarnation is in the map, at {}", known.address));
        }
        if profile.incarnation == last.incarnation {
            return match (known.state, is_same_place) {
                (MemberState::Down, _) => refused(format!("node {node}: this incarnation is down; restart the node")),
                (_, true) => Answer::Accepted { cluster: *cluster, map_version: *version },
                (_, false) => in_use(),
            };
        }
        let heard_at_ms = self.heartbeats.heard_at_ms(last);
        if known.state == MemberState::Down || is_same_place {
            self.let_in(term, profile, actions)
        } else if last == self.own || heard_at_ms.is_some_and(|at_ms| self.now_ms - at_ms < HEARD_LATELY_MS) {
            in_use()
        } else {
            Answer::Wait { reason: format!("node id {node} still belongs to the process at {}", known.address) }
        }
    }

    fn let_in(&self, term: u64, profile: &Profile, actions: &mut Vec<Action>) -> Answer {
        let proposal = Proposal::Admit { profile: profile.clone(), map_version: self.map.version };
        actions.push(Action::Propose { term, proposal });
        Answer::Wait { reason: "the map does not have the node yet".into() }
    }
}

fn refused(reason: String) -> Answer {
    Answer::Refused { reason }
}
