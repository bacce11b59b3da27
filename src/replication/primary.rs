//! The primary of a group: it decides what is written, sends it to the other holders, and says when it is safe.
//!
//! | what | when |
//! |---|---|
//! | committed | all in-sync holders have it, and all that were proposed to be in sync |
//! | an in-sync holder is proposed for removal | it has not come further for [`STALL_MS`], or has given no lease for as long |
//! | a learner is proposed as in-sync | it follows the log and has all that is committed |
//! | handing over | requests stop; when all is committed, the other is proposed as primary |
//!
//! What was proposed may have been decided, whatever the answer: until the epoch has moved on the primary acts as if both were
//! so. It commits nothing that the proposed holder does not have; and one that has proposed its successor serves no more.

use super::Ms;
use super::entry::Seq;
use super::lease::LEASE_MS;
use super::peer::{Peer, Sending};
use super::replica_state::ReplicaState;
use super::rules::{Rule, Rules};
use super::store::Store;
use super::{Action, Answer, Level, Refusal, Ticket, View};
use crate::cluster::map::{Assignment, GroupChange};
use crate::cluster::{Epoch, Identity, NodeId};
use crate::slots::Group;
use std::collections::{BTreeSet, VecDeque};

/// For how long strong requests wait for a holder that does not answer, before it is proposed for removal.
pub const STALL_MS: u64 = 200;
/// How often a proposal is made again while the epoch has not moved.
const PROPOSE_INTERVAL_MS: u64 = 300;
/// How long a group is frozen while the last of its log goes to its next primary, before that is given up.
pub const FREEZE_MS: u64 = 100;
/// How long a request waits for its commit.
pub const PARKED_MS: u64 = 3_000;
/// How long a primary without its lease takes writes that promise nothing.
pub const DOUBT_MS: u64 = 2_000;
/// Entries of an epoch, after which another one is asked for: versions of items have 32 bits for them.
const SEQS_PER_EPOCH: u64 = 1 << 31;
/// Requests of a group that wait for their commit.
const PARKED_MAX: usize = 16_384;

/// What the primary of a group knows beside its copy.
#[derive(Debug)]
pub(super) struct Primary {
    epoch: Epoch,
    in_sync: Vec<Identity>,
    peers: Vec<Peer>,
    /// Who was proposed as in-sync in this epoch.
    candidates: BTreeSet<Identity>,
    started_at: Ms,
    /// Strong requests are served from then on: no other primary's lease is left.
    strong_from: Ms,
    /// When it had its lease last.
    lease_held_at: Ms,
    proposed_at: Option<Ms>,
    handing_over: Option<HandingOver>,
    parked: VecDeque<Parked>,
}

#[derive(Debug)]
struct HandingOver {
    to: Identity,
    since: Ms,
    /// It was proposed: there is no way back.
    has_yielded: bool,
}

/// A request whose result waits until what it has seen is committed.
#[derive(Debug)]
struct Parked {
    ticket: Ticket,
    needs: Seq,
    since: Ms,
}

impl Primary {
    /// Begins, in an epoch, with a copy that has applied all it has.
    pub(super) fn new(assignment: &Assignment, me: Identity, replica: &ReplicaState, strong_from: Ms, now: Ms) -> Self {
        let mut primary = Self {
            epoch: assignment.epoch,
            in_sync: Vec::new(),
            peers: Vec::new(),
            candidates: BTreeSet::new(),
            started_at: now,
            strong_from,
            lease_held_at: now,
            proposed_at: None,
            handing_over: None,
            parked: VecDeque::new(),
        };
        primary.assign(assignment, me, replica.last().seq, now);
        primary
    }

    /// Goes on in a later epoch, with other holders, and a log that ends with `last`.
    pub(super) fn assign(&mut self, assignment: &Assignment, me: Identity, last: Seq, now: Ms) {
        (self.epoch, self.in_sync) = (assignment.epoch, assignment.in_sync.clone());
        self.candidates.clear();
        (self.proposed_at, self.handing_over) = (None, None);
        let holders: Vec<Identity> = assignment.holders().filter(|&holder| holder != me).collect();
        self.peers.retain(|peer| holders.contains(&peer.identity));
        self.peers.iter_mut().for_each(|peer| peer.restart_probing(last, now));
        for identity in holders {
            if !self.peers.iter().any(|peer| peer.identity == identity) {
                self.peers.push(Peer::new(identity, last, now));
            }
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn peer(&mut self, identity: Identity) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.identity == identity)
    }

    pub(super) fn snapshots(&self) -> usize {
        self.peers.iter().filter(|peer| peer.is_snapshotting()).count()
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.handing_over.is_some()
    }

    /// True if all holders are in sync and have all, and nothing is asked of them or of the map.
    pub(super) fn is_idle(&self, replica: &ReplicaState) -> bool {
        let has_all = |peer: &Peer| self.in_sync.contains(&peer.identity) && peer.is_caught_up(replica);
        self.parked.is_empty() && self.proposed_at.is_none() && !self.is_frozen() && self.peers.iter().all(has_all)
    }

    /// True if it hands over and has everything committed: from then on its log stays as it is until the epoch has moved.
    pub(super) fn has_yielded(&self) -> bool {
        self.handing_over.as_ref().is_some_and(|handing_over| handing_over.has_yielded)
    }

    /// Whether a request may be carried out now.
    ///
    /// # Errors
    /// It may not; nothing is to be changed.
    pub(super) fn admit(&self, level: Level, writes: bool, view: &View) -> Result<(), Refusal> {
        let View { rules, now, .. } = *view;
        let stops = self.is_frozen() && (writes || level == Level::Strong || self.has_yielded());
        if stops && rules.hold(Rule::Freeze) {
            return Err(Refusal::Frozen);
        }
        if level == Level::Strong {
            if self.in_sync.len() < view.min_in_sync && rules.hold(Rule::MinInSync) {
                return Err(Refusal::TooFewInSync);
            }
            if now < self.strong_from && rules.hold(Rule::Grace) {
                return Err(Refusal::Waiting);
            }
            if !self.has_lease(view) && rules.hold(Rule::Lease) {
                return Err(Refusal::NoLease);
            }
            if self.parked.len() >= PARKED_MAX {
                return Err(Refusal::Waiting);
            }
        }
        let is_in_doubt = now > self.lease_held_at + DOUBT_MS || !view.is_led;
        if writes && is_in_doubt && rules.hold(Rule::BoundedDoubt) {
            return Err(Refusal::NoLease);
        }
        Ok(())
    }

    /// True if nobody else can be primary: all would wait who are in sync or were proposed to be, and most members, so that nobody
    /// can have been taken for dead without one that would.
    fn has_lease(&self, view: &View) -> bool {
        let View { leases, now, me, .. } = *view;
        let others = self.in_sync.iter().chain(&self.candidates).filter(|&&identity| identity != me);
        others.into_iter().all(|&identity| leases.holds(identity, now)) && view.has_majority && view.is_led
    }

    /// Keeps an answer until what it has seen is committed.
    pub(super) fn park(&mut self, ticket: Ticket, needs: Seq, now: Ms) {
        self.parked.push_back(Parked { ticket, needs, since: now });
    }

    /// The request that hands the group over to another in-sync holder.
    pub(super) fn hand_over(&mut self, to: NodeId, me: Identity, now: Ms) {
        let to = self.in_sync.iter().find(|identity| identity.node == to && **identity != me);
        if let Some(&to) = to
            && self.handing_over.is_none()
            && self.proposed_at.is_none()
        {
            self.handing_over = Some(HandingOver { to, since: now, has_yielded: false });
        }
    }

    /// Gives up: somebody is in a later epoch. What it has answered for is unknown.
    pub(super) fn step_down(self, out: &mut Vec<Action>) {
        for parked in self.parked {
            out.push(Action::Answer { ticket: parked.ticket, answer: Answer::Unknown });
        }
    }

    /// Notes what is committed, and answers those that waited for it.
    pub(super) fn commit(&mut self, replica: &mut ReplicaState, view: &View, out: &mut Vec<Action>) {
        let needed = |peer: &&Peer| self.in_sync.contains(&peer.identity) || self.candidates.contains(&peer.identity);
        let matched = self.peers.iter().filter(needed).map(|peer| peer.matched().unwrap_or(0));
        let last = replica.last().seq;
        let committed = if view.rules.hold(Rule::AllAcknowledge) { matched.min().unwrap_or(last) } else { last };
        replica.set_committed(committed);
        if self.in_sync.len() < view.min_in_sync && view.rules.hold(Rule::MinInSync) {
            return;
        }
        let is_safe = |parked: &Parked| parked.needs <= replica.committed() || !view.rules.hold(Rule::CommittedReads);
        while let Some(parked) = self.parked.pop_front_if(|parked| is_safe(parked)) {
            out.push(Action::Answer { ticket: parked.ticket, answer: Answer::Done });
        }
    }

    /// What time brings: doubts, retries, proposals.
    pub(super) fn tick(&mut self, group: Group, replica: &ReplicaState, view: &View, out: &mut Vec<Action>) {
        if self.has_lease(view) {
            self.lease_held_at = view.now;
        }
        while let Some(parked) = self.parked.pop_front_if(|parked| view.now >= parked.since + PARKED_MS) {
            out.push(Action::Answer { ticket: parked.ticket, answer: Answer::Unknown });
        }
        self.continue_hand_over(replica, view.now);
        let may_propose = self.proposed_at.is_none_or(|at| view.now >= at + PROPOSE_INTERVAL_MS);
        if may_propose {
            let change = self.next_change(group, replica, view);
            self.proposed_at = change.is_some().then_some(view.now);
            out.extend(change.map(Action::Propose));
        }
    }

    fn continue_hand_over(&mut self, replica: &ReplicaState, now: Ms) {
        let Some(handing_over) = &mut self.handing_over else { return };
        if replica.committed() == replica.last().seq {
            handing_over.has_yielded = true;
        } else if !handing_over.has_yielded && now >= handing_over.since + FREEZE_MS {
            self.handing_over = None;
        }
    }

    /// The change of the group's holders that it wants now.
    fn next_change(&mut self, group: Group, replica: &ReplicaState, view: &View) -> Option<GroupChange> {
        let change =
            |primary, in_sync, learners| GroupChange { group, expected: self.epoch, primary, in_sync, learners };
        let learners = self.peers.iter().map(|peer| peer.identity).filter(|identity| !self.in_sync.contains(identity));
        let mut learners: Vec<Identity> = learners.collect();
        if let Some(handing_over) = &self.handing_over {
            return handing_over.has_yielded.then(|| change(handing_over.to, self.in_sync.clone(), learners));
        }
        let mut in_sync = self.in_sync.clone();
        in_sync.retain(|&identity| {
            let keeps = identity == view.me || !self.has_stalled(identity, replica, view);
            if !keeps {
                learners.push(identity);
            }
            keeps
        });
        let is_ready = |peer: &&Peer| {
            let has_all = peer.matched().is_some_and(|matched| matched >= replica.committed());
            let is_learner = !self.in_sync.contains(&peer.identity);
            is_learner && peer.is_replicating() && has_all && view.leases.holds(peer.identity, view.now)
        };
        let ready: Vec<Identity> = self.peers.iter().filter(is_ready).map(|peer| peer.identity).collect();
        learners.retain(|identity| !ready.contains(identity));
        self.candidates.extend(&ready);
        in_sync.extend(ready);
        // A candidate that is none any more, and numbers that come to their end, are reasons for a new epoch too.
        let is_due = !self.candidates.is_empty() || replica.log().seq_in_epoch(replica.last()) >= SEQS_PER_EPOCH;
        (in_sync != self.in_sync || is_due).then(|| change(view.me, in_sync, learners))
    }

    fn has_stalled(&self, identity: Identity, replica: &ReplicaState, view: &View) -> bool {
        let View { leases, now, .. } = *view;
        let Some(peer) = self.peers.iter().find(|peer| peer.identity == identity) else { return false };
        let silent_for =
            (now + LEASE_MS).saturating_sub(leases.held_until(identity)).min(now.saturating_sub(self.started_at));
        let is_silent = silent_for >= LEASE_MS + STALL_MS;
        peer.needs_snapshot() || is_silent || peer.stalled_for(replica.last().seq, now) >= STALL_MS
    }

    /// Begins snapshots for learners that need one, as many as may be under way. They cost a copy what it has, so those who may
    /// be in sync by now get none until the epoch has moved.
    pub(super) fn begin_snapshots(&mut self, replica: &ReplicaState, next_id: &mut u64, most: usize, now: Ms) {
        let (in_sync, candidates) = (&self.in_sync, &self.candidates);
        let may_be_in_sync = |identity: &Identity| in_sync.contains(identity) || candidates.contains(identity);
        let lost = |peer: &&mut Peer| peer.needs_snapshot() && !may_be_in_sync(&peer.identity);
        for peer in self.peers.iter_mut().filter(lost).take(most) {
            *next_id += 1;
            peer.begin_snapshot(*next_id, replica, now);
        }
    }

    /// Sends what there is to send.
    pub(super) fn send<S: Store>(
        &mut self,
        group: Group,
        replica: &ReplicaState,
        store: &S,
        rules: Rules,
        now: Ms,
        out: &mut Vec<Action>,
    ) {
        let sending = Sending { group, replica, store, rules, has_yielded: self.has_yielded(), now };
        for peer in &mut self.peers {
            let to = peer.identity;
            peer.send(&sending, |body| out.push(Action::to_holder(group, self.epoch, to, body)));
        }
    }
}
