//! How a node comes into a cluster, and leaves it: what a member answers. (`join.rs` is the applicant's side.)
//!
//! | who asks the leader to be let in | answer |
//! |---|---|
//! | a node of another cluster | refused, both named |
//! | a life that the map has, from the address that the map has | accepted |
//! | a life that the map has, from another address | refused: two processes with one node id |
//! | a life before the one that the map has | refused: that one is newer |
//! | the next life of a node that is down | let in |
//! | the next life of a node that takes part, from the same address | let in: the last life's process cannot be there too |
//! | the same from another address, and the last life is heard | refused: two processes with one node id |
//! | the same, and the last life is silent | wait until the map has it down |
//! | a node that the map does not know | let in, if there is room |
//!
//! "Let in" is a proposal to Raft; the applicant asks again, and finds itself accepted. To apply such a proposal twice does
//! nothing, as the map only ever goes to a larger incarnation. Who does not lead says where the leader is.

use super::heartbeats::{Heartbeats, MEMBERS_MAX};
use super::join::Answer;
use super::{Action, Leader, MapView, MemberState, Profile, Proposal};
use crate::cluster::Identity;

/// A process that was heard so recently is alive: no supervisor starts it somewhere else as quickly.
const HEARD_LATELY_MS: u64 = 250;

/// What a member knows when it is asked.
pub(super) struct AdmissionContext<'a> {
    pub(super) own: Identity,
    pub(super) map: &'a MapView,
    pub(super) leader: Option<Leader>,
    pub(super) heartbeats: &'a Heartbeats,
    pub(super) now_ms: u64,
}

impl AdmissionContext<'_> {
    /// Answers one that wants to be let in.
    pub(super) fn request(&self, cluster: u64, profile: &Profile, actions: &mut Vec<Action>) -> Answer {
        if cluster != self.map.cluster {
            let own = self.map.cluster;
            return refused(format!("node {} is of cluster {cluster:016x}, this is {own:016x}", profile.node()));
        }
        if let Err(error) = profile.check() {
            return refused(format!("node {}: {error}", profile.node()));
        }
        match self.term() {
            Ok(term) => self.judge(term, profile, actions),
            Err(elsewhere) => elsewhere,
        }
    }

    /// Answers one that wants to leave.
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
                return refused("nobody else stays in the cluster to hold its data".into());
            }
            _ => actions.push(Action::Propose { term, proposal: Proposal::Leave(from) }),
        }
        Answer::Wait { reason: format!("{} groups are still to be moved", known.groups) }
    }

    /// The term that we lead in, or else the answer where the leader is.
    fn term(&self) -> Result<u64, Answer> {
        let address = |leader: Leader| self.map.members.get(&leader.node).map(|known| known.address.clone());
        match self.leader {
            Some(leader) if leader.node == self.own.node => Ok(leader.term),
            leader => Err(Answer::Elsewhere { leader_address: leader.and_then(address) }),
        }
    }

    /// The table above.
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
            return refused(format!("node {node}: a newer life of it is in the map, from {}", known.address));
        }
        if profile.incarnation == last.incarnation {
            return match (known.state, is_same_place) {
                (MemberState::Down, _) => refused(format!("node {node}: this life of it is over; start it anew")),
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
            Answer::Wait { reason: format!("node id {node} is still taken for the process at {}", known.address) }
        }
    }

    fn let_in(&self, term: u64, profile: &Profile, actions: &mut Vec<Action>) -> Answer {
        let proposal = Proposal::Admit { profile: profile.clone(), map_version: self.map.version };
        actions.push(Action::Propose { term, proposal });
        Answer::Wait { reason: "the map is about to know it".into() }
    }
}

fn refused(reason: String) -> Answer {
    Answer::Refused { reason }
}
