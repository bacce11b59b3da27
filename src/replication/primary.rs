//! The primary role of a group: orders writes, sends them to the other holders, and decides when they are committed.
//!
//! | what | when |
//! |---|---|
//! | commit | all in-sync holders, and all holders proposed as in-sync, have acknowledged the entry |
//! | propose to remove an in-sync holder | it has made no progress, or granted no lease, for [`STALL_MS`] |
//! | propose a learner as in-sync | it replicates the log and has everything that is committed |
//! | hand over | stop requests; once everything is committed, propose the target as primary |
//!
//! A proposal may have been decided even if its answer was lost. Until the epoch changes, the primary therefore assumes
//! both outcomes: it commits nothing that a proposed in-sync holder lacks, and once it has proposed its successor it
//! serves no requests.

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

/// How long strong requests wait for an in-sync holder that does not answer, before the primary proposes to remove it.
pub const STALL_MS: u64 = 200;
/// Pause before a proposal is repeated, while the epoch has not changed.
const PROPOSE_INTERVAL_MS: u64 = 300;
/// How long a group stays frozen to commit the end of its log before a handover; then the handover is cancelled.
pub const FREEZE_MS: u64 = 100;
/// How long a request may stay parked; then its outcome is [`Answer::Unknown`].
pub const PARKED_MS: u64 = 3_000;
/// How long a primary that lost its lease still admits eventual and session writes.
pub const DOUBT_MS: u64 = 2_000;
/// Entries after which an epoch is replaced: versions of items have 32 bits for the number within an epoch.
const SEQS_PER_EPOCH: u64 = 1 << 31;
/// Parked requests of a group.
const PARKED_MAX: usize = 16_384;

/// What the primary of a group knows beside its replica state.
#[derive(Debug)]
pub(super) struct Primary {
    epoch: Epoch,
    in_sync: Vec<Identity>,
    peers: Vec<Peer>,
    /// Learners proposed as in-sync in this epoch: the map may have added them already.
    candidates: BTreeSet<Identity>,
    started_at: Ms,
    /// From then on strong requests are served: all leases of earlier primaries have expired.
    strong_from: Ms,
    /// When it last held its lease.
    lease_held_at: Ms,
    proposed_at: Option<Ms>,
    handing_over: Option<HandingOver>,
    parked: VecDeque<Parked>,
}

#[derive(Debug)]
struct HandingOver {
    to: Identity,
    since: Ms,
    /// The successor was proposed, so a handover cannot be cancelled any more.
    has_yielded: bool,
}

/// A request whose answer waits until entry `needs` is committed.
#[derive(Debug)]
struct Parked {
    ticket: Ticket,
    needs: Seq,
    since: Ms,
}

impl Primary {
    /// Takes the primary role in the epoch of `assignment`, with a replica that has applied its whole log.
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

    /// Continues in a later epoch, with other holders. The log ends at `last`.
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

    /// True if all holders are in sync and caught up, and no request, proposal or handover is pending.
    pub(super) fn is_idle(&self, replica: &ReplicaState) -> bool {
        let has_all = |peer: &Peer| self.in_sync.contains(&peer.identity) && peer.is_caught_up(replica);
        self.parked.is_empty() && self.proposed_at.is_none() && !self.is_frozen() && self.peers.iter().all(has_all)
    }

    /// True if it hands over and has committed everything: its log does not change any more until the epoch does.
    pub(super) fn has_yielded(&self) -> bool {
        self.handing_over.as_ref().is_some_and(|handing_over| handing_over.has_yielded)
    }

    /// Decides whether a request may be executed now.
    ///
    /// # Errors
    /// The [`Refusal`]; nothing was changed.
    pub(super) fn admit(&self, level: Level, writes: bool, view: &View) -> Result<(), Refusal> {
        let View { rules, now, .. } = *view;
        // While frozen, eventual reads are still served; once yielded, the successor may have written, so nothing is.
        let stops = self.is_frozen() && (writes || level == Level::Strong || self.has_yielded());
        if stops && rules.hold(Rule::Freeze) {
            return Err(Refusal::Frozen);
        }
        if level == Level::Strong {
            if self.in_sync.len() < view.min_in_sync && rules.hold(Rule::MinInSync) {
                return Err(Refusal::TooFewInSync);
            }
            // An earlier primary may still serve reads under its lease.
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
        // A write of any level could be lost in a partition: bound for how long that lasts.
        let is_in_doubt = now > self.lease_held_at + DOUBT_MS || !view.is_led;
        if writes && is_in_doubt && rules.hold(Rule::BoundedDoubt) {
            return Err(Refusal::NoLease);
        }
        Ok(())
    }

    /// True if no other node can be primary now. A successor comes from the in-sync set or the candidates, or is
    /// decided after more than half of the members fenced this node; a lease from each of them, and from a majority,
    /// rules both out.
    fn has_lease(&self, view: &View) -> bool {
        let View { leases, now, me, .. } = *view;
        let others = self.in_sync.iter().chain(&self.candidates).filter(|&&identity| identity != me);
        others.into_iter().all(|&identity| leases.holds(identity, now)) && view.has_majority && view.is_led
    }

    /// Parks a request until entry `needs` is committed.
    pub(super) fn park(&mut self, ticket: Ticket, needs: Seq, now: Ms) {
        self.parked.push_back(Parked { ticket, needs, since: now });
    }

    /// Begins to hand the group over to the in-sync holder on node `to`. Ignored while another handover or proposal is
    /// pending.
    pub(super) fn hand_over(&mut self, to: NodeId, me: Identity, now: Ms) {
        let to = self.in_sync.iter().find(|identity| identity.node == to && **identity != me);
        if let Some(&to) = to
            && self.handing_over.is_none()
            && self.proposed_at.is_none()
        {
            self.handing_over = Some(HandingOver { to, since: now, has_yielded: false });
        }
    }

    /// Ends the role: there is a later epoch. The outcome of parked requests is unknown.
    pub(super) fn step_down(self, out: &mut Vec<Action>) {
        for parked in self.parked {
            out.push(Action::Answer { ticket: parked.ticket, answer: Answer::Unknown });
        }
    }

    /// Advances the commit index and answers the requests that waited for it.
    pub(super) fn commit(&mut self, replica: &mut ReplicaState, view: &View, out: &mut Vec<Action>) {
        // Candidates count: the map may have made them in-sync already, and a later primary may be one of them.
        let needed = |peer: &&Peer| self.in_sync.contains(&peer.identity) || self.candidates.contains(&peer.identity);
        let matched = self.peers.iter().filter(needed).map(|peer| peer.matched().unwrap_or(0));
        let last = replica.last().seq;
        let committed = if view.rules.hold(Rule::AllAcknowledge) { matched.min().unwrap_or(last) } else { last };
        replica.set_committed(committed);
        // Too few copies: nothing is answered as safe until the set has grown again.
        if self.in_sync.len() < view.min_in_sync && view.rules.hold(Rule::MinInSync) {
            return;
        }
        let is_safe = |parked: &Parked| parked.needs <= replica.committed() || !view.rules.hold(Rule::CommittedReads);
        while let Some(parked) = self.parked.pop_front_if(|parked| is_safe(parked)) {
            out.push(Action::Answer { ticket: parked.ticket, answer: Answer::Done });
        }
    }

    /// Does what is due by time: lease, timeouts, handover, proposals.
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
        // Everything is committed: yield. Otherwise give up in time, so that clients do not wait for a slow holder.
        if replica.committed() == replica.last().seq {
            handing_over.has_yielded = true;
        } else if !handing_over.has_yielded && now >= handing_over.since + FREEZE_MS {
            self.handing_over = None;
        }
    }

    /// The next change of the group's holders to propose, if any.
    fn next_change(&mut self, group: Group, replica: &ReplicaState, view: &View) -> Option<GroupChange> {
        let change =
            |primary, in_sync, learners| GroupChange { group, expected: self.epoch, primary, in_sync, learners };
        let learners = self.peers.iter().map(|peer| peer.identity).filter(|identity| !self.in_sync.contains(identity));
        let mut learners: Vec<Identity> = learners.collect();
        // A handover excludes other changes: it proposes the successor once it has yielded, and nothing before.
        if let Some(handing_over) = &self.handing_over {
            return handing_over.has_yielded.then(|| change(handing_over.to, self.in_sync.clone(), learners));
        }
        let mut in_sync = self.in_sync.clone();
        // An in-sync holder that has stalled blocks every commit: demote it to a learner.
        in_sync.retain(|&identity| {
            let keeps = identity == view.me || !self.has_stalled(identity, replica, view);
            if !keeps {
                learners.push(identity);
            }
            keeps
        });
        // A learner is ready if it has installed its snapshot, has everything committed, and grants a lease (which the
        // primary needs from every in-sync holder).
        let is_ready = |peer: &&Peer| {
            let has_all = peer.matched().is_some_and(|matched| matched >= replica.committed());
            let is_learner = !self.in_sync.contains(&peer.identity);
            is_learner && peer.is_replicating() && has_all && view.leases.holds(peer.identity, view.now)
        };
        let ready: Vec<Identity> = self.peers.iter().filter(is_ready).map(|peer| peer.identity).collect();
        learners.retain(|identity| !ready.contains(identity));
        self.candidates.extend(&ready);
        in_sync.extend(ready);
        // Two more reasons for a new epoch: a candidate that is not ready any more (only a new epoch clears the
        // candidates), and sequence numbers about to exceed 32 bits.
        let is_due = !self.candidates.is_empty() || replica.log().seq_in_epoch(replica.last()) >= SEQS_PER_EPOCH;
        (in_sync != self.in_sync || is_due).then(|| change(view.me, in_sync, learners))
    }

    fn has_stalled(&self, identity: Identity, replica: &ReplicaState, view: &View) -> bool {
        let View { leases, now, .. } = *view;
        let Some(peer) = self.peers.iter().find(|peer| peer.identity == identity) else { return false };
        // Time since the request for the last lease it granted, not counting the time before this node became primary.
        let silent_for =
            (now + LEASE_MS).saturating_sub(leases.held_until(identity)).min(now.saturating_sub(self.started_at));
        let is_silent = silent_for >= LEASE_MS + STALL_MS;
        peer.needs_snapshot() || is_silent || peer.stalled_for(replica.last().seq, now) >= STALL_MS
    }

    /// Begins snapshots for at most `most` learners that need one. A snapshot makes its receiver clear its replica, so
    /// a peer that may be in sync by now gets none until the epoch has changed.
    pub(super) fn begin_snapshots(&mut self, replica: &ReplicaState, next_id: &mut u64, most: usize, now: Ms) {
        let (in_sync, candidates) = (&self.in_sync, &self.candidates);
        let may_be_in_sync = |identity: &Identity| in_sync.contains(identity) || candidates.contains(identity);
        let lost = |peer: &&mut Peer| peer.needs_snapshot() && !may_be_in_sync(&peer.identity);
        for peer in self.peers.iter_mut().filter(lost).take(most) {
            *next_id += 1;
            peer.begin_snapshot(*next_id, replica, now);
        }
    }

    /// Sends to each peer what is pending.
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
