//! One group on one node: what the node holds of it, and as what.
//!
//! ```text
//!             the map names me            the map names another, or a frame of a later epoch comes
//!   Replica ───────────────────► Primary ───────────────────► Replica (with nothing, if it was ahead of the others)
//! ```
//!
//! Epochs come from the map, or ahead of it with the frames of who has it already. An older frame is refused; an older map
//! changes nothing.

use super::entry::{Effect, Key, Position, Seq};
use super::lease::GRACE_MS;
use super::message::Body;
use super::peer::RETRY_MS;
use super::primary::Primary;
use super::replica_state::{Mismatch, ReplicaState};
use super::rules::Rule;
use super::store::Store;
use super::{Action, CHUNK_BYTES, FETCHED_KEYS_MAX, Level, Ms, Refusal, Ticket, View};
use crate::cluster::map::Assignment;
use crate::cluster::{Epoch, Identity};
use crate::slots::Group;

/// Entries that a replica applies at once; the others wait for the next frame, or tick.
const APPLIED_PER_STEP: usize = 1_024;

/// Backlogs that a primary keeps, at most, where entries are not committed.
const BACKLOGS_MAX: usize = 4;

/// A group that a node holds.
#[derive(Debug)]
pub(super) struct ReplicaGroup {
    group: Group,
    /// What the map says.
    assignment: Assignment,
    /// The latest epoch that is known, and its primary: the map's, or that of a frame.
    epoch: Epoch,
    primary: Option<Identity>,
    replica: ReplicaState,
    role: Role,
    /// How far the log agrees with the primary's.
    matched: Seq,
    /// Until then a lease of an earlier primary may be left.
    leased_until: Ms,
    /// The primary of that epoch serves no more.
    yielded: Option<Epoch>,
    fetched_at: Option<Ms>,
}

#[derive(Debug)]
enum Role {
    Replica,
    Primary(Box<Primary>),
}

impl ReplicaGroup {
    pub(super) fn new(group: Group, view: &View) -> Self {
        Self {
            group,
            assignment: Assignment::default(),
            epoch: Epoch(0),
            primary: None,
            replica: ReplicaState::empty(group, view.rules),
            role: Role::Replica,
            matched: 0,
            leased_until: 0,
            yielded: None,
            fetched_at: None,
        }
    }

    pub(super) fn replica(&self) -> &ReplicaState {
        &self.replica
    }

    pub(super) fn primary(&self) -> Option<Identity> {
        self.primary
    }

    pub(super) fn snapshots(&self) -> usize {
        if let Role::Primary(primary) = &self.role { primary.snapshots() } else { 0 }
    }

    /// True if it is the primary, as far as it knows.
    pub(super) fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary(_))
    }

    /// The epoch that it knows.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    // The map.

    /// The map says something new of the group.
    pub(super) fn assign(
        &mut self,
        assignment: &Assignment,
        view: &View,
        store: &mut impl Store,
        out: &mut Vec<Action>,
    ) {
        if assignment.epoch <= self.assignment.epoch {
            return;
        }
        let before = std::mem::replace(&mut self.assignment, assignment.clone());
        self.note_prior_leases(&before, view);
        // The frames of a primary may have come before the map.
        if self.replica.predates(assignment.opened) && view.rules.hold(Rule::Opened) {
            self.open(view, store, out);
        }
        if assignment.epoch < self.epoch {
            return;
        }
        let is_same = self.primary == assignment.primary;
        (self.epoch, self.primary) = (assignment.epoch, assignment.primary);
        if !is_same {
            self.matched = 0;
        }
        if assignment.primary != Some(view.me) {
            return self.step_down(store, out);
        }
        if let Role::Primary(primary) = &mut self.role {
            primary.assign(assignment, view.me, self.replica.last().seq, view.now);
            let locally_evicted = self.replica.take_locally_evicted();
            return self.remove(locally_evicted, store);
        }
        self.promote(view, store, out);
    }

    /// Remembers until when an earlier primary can believe to be one.
    fn note_prior_leases(&mut self, before: &Assignment, view: &View) {
        let assignment = &self.assignment;
        let was_opened = assignment.opened == assignment.epoch;
        // Who was primary in an epoch that was never seen here is not known.
        let was_skipped = assignment.epoch.0 > before.epoch.0 + 1;
        if was_opened && assignment.epoch > Epoch(1) || was_skipped {
            self.leased_until = view.now + GRACE_MS;
        }
        if let Some(primary) = before.primary
            && primary != view.me
            && assignment.primary != Some(primary)
            && self.yielded != Some(before.epoch)
        {
            self.leased_until = self.leased_until.max(view.leases.ended_for(primary));
        }
    }

    /// The group was opened empty: what is here is void.
    fn open(&mut self, view: &View, store: &mut impl Store, out: &mut Vec<Action>) {
        self.step_down(store, out);
        // Who is in sync alone has opened it: nobody else is in sync before the first primary has seen to that.
        if self.assignment.in_sync == [view.me] {
            self.replica.open(self.assignment.opened, store);
        } else {
            self.replica.clear(store);
        }
    }

    fn promote(&mut self, view: &View, store: &mut impl Store, out: &mut Vec<Action>) {
        if !self.replica.is_complete() {
            // A frame that claimed an epoch which the map never had has cost it its data. What is left is only a part.
            self.replica.open(self.epoch, store);
            out.push(Action::Emptied { group: self.group });
        }
        let unknown = self.replica.promote(store);
        self.role = Role::Primary(Box::new(Primary::new(
            &self.assignment,
            view.me,
            &self.replica,
            self.leased_until,
            view.now,
        )));
        self.remove(unknown, store);
    }

    /// As the primary, removes keys whose values nobody here knows, whatever they are.
    fn remove(&mut self, keys: impl IntoIterator<Item = Key>, store: &mut impl Store) {
        for key in keys {
            store.remove(self.group, &key);
            self.replica.append(self.epoch, Effect::Remove { key });
        }
    }

    /// Another is primary. A copy that has more than what is committed may have what the other has not.
    fn step_down(&mut self, store: &mut impl Store, out: &mut Vec<Action>) {
        if let Role::Primary(primary) = std::mem::replace(&mut self.role, Role::Replica) {
            primary.step_down(out);
            if self.replica.committed() < self.replica.last().seq {
                self.replica.clear(store);
            }
        }
    }

    /// The node does not hold it any more.
    pub(super) fn leave(mut self, store: &mut impl Store, out: &mut Vec<Action>) {
        self.step_down(store, out);
        self.replica.clear(store);
    }

    // Requests.

    /// Whether a request may be carried out here, now.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn admit(
        &self,
        key: &[u8],
        level: Level,
        writes: bool,
        token: Option<Position>,
        view: &View,
    ) -> Result<(), Refusal> {
        if let Some(token) = token
            && level == Level::Session
            && view.rules.hold(Rule::SessionToken)
        {
            let needs_snapshot = match self.role {
                // What the primary's log does not have, nobody's has, unless there is a later primary.
                Role::Primary(_) => token.epoch <= self.epoch && !self.replica.log().holds(token),
                Role::Replica => self.replica.is_complete() && self.replica.can_never_hold(token),
            };
            if needs_snapshot {
                return Err(Refusal::SessionLost);
            }
            if !self.replica.has_applied(token) {
                return Err(self.elsewhere(view));
            }
        }
        match &self.role {
            Role::Primary(primary) => primary.admit(level, writes, view),
            Role::Replica if !writes && level != Level::Strong && self.replica.can_read(key) => Ok(()),
            Role::Replica => Err(self.elsewhere(view)),
        }
    }

    fn elsewhere(&self, view: &View) -> Refusal {
        let other = self.primary.filter(|&primary| primary != view.me);
        Refusal::Elsewhere(other.map(|primary| primary.node))
    }

    /// The position of the next entry.
    pub(super) fn next_position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.replica.last().seq + 1 }
    }

    /// Writes down what was done to the store.
    pub(super) fn record(&mut self, effect: Effect) -> Position {
        debug_assert!(self.is_primary());
        self.replica.append(self.epoch, effect)
    }

    /// The store has evicted a key. As the primary's decision the log carries it; a replica remembers it, and where those are too
    /// many it gives up its copy, to be filled anew. A primary that has yielded remembers it too, however many: it is in sync
    /// with whoever is primary next only if its log stays as it is, and nothing is written that could be evicted without end.
    pub(super) fn evicted(&mut self, key: &[u8], view: &View, store: &mut impl Store) {
        match &self.role {
            Role::Primary(primary) if primary.has_yielded() && view.rules.hold(Rule::Freeze) => {
                self.replica.note_local_eviction(key);
            }
            Role::Primary(_) => _ = self.record(Effect::Remove { key: key.into() }),
            Role::Replica => {
                if view.rules.hold(Rule::OwnEviction) && !self.replica.note_local_eviction(key) {
                    self.replica.clear(store);
                }
            }
        }
    }

    /// Keeps a request's answer until what it has seen is committed. False if that is so already.
    pub(super) fn park(&mut self, ticket: Ticket, view: &View) -> bool {
        let Role::Primary(primary) = &mut self.role else { return false };
        let needs = self.replica.applied().seq;
        if needs <= self.replica.committed() || !view.rules.hold(Rule::CommittedReads) {
            return false;
        }
        primary.park(ticket, needs, view.now);
        true
    }

    // Other holders.

    /// Another holder says something.
    pub(super) fn receive(
        &mut self,
        from: Identity,
        epoch: Epoch,
        body: Body,
        view: &View,
        store: &mut impl Store,
        out: &mut Vec<Action>,
    ) {
        match body {
            Body::Append { .. } | Body::SnapshotBegin { .. } | Body::SnapshotChunk { .. } | Body::Images { .. } => {
                if epoch < self.epoch && view.rules.hold(Rule::Epoch) {
                    return;
                }
                if epoch > self.epoch {
                    self.adopt_epoch(from, epoch, store, out);
                }
                let is_primarys = self.primary == Some(from) || !view.rules.hold(Rule::Epoch);
                if is_primarys && !self.is_primary() {
                    self.handle_from_primary(from, body, store, out);
                }
            }
            Body::HandOver { to } => {
                if let Role::Primary(primary) = &mut self.role
                    && epoch == self.epoch
                {
                    primary.hand_over(to, view.me, view.now);
                }
            }
            Body::Acknowledge { .. }
            | Body::Mismatch { .. }
            | Body::SnapshotAcknowledge { .. }
            | Body::Fetch { .. } => {
                self.handle_from_replica(from, epoch, body, view, store, out);
            }
        }
    }

    /// A frame of an epoch that the map has not told of yet.
    fn adopt_epoch(&mut self, from: Identity, epoch: Epoch, store: &mut impl Store, out: &mut Vec<Action>) {
        self.step_down(store, out);
        (self.epoch, self.primary, self.matched) = (epoch, Some(from), 0);
    }

    /// What the primary says.
    fn handle_from_primary(&mut self, from: Identity, body: Body, store: &mut impl Store, out: &mut Vec<Action>) {
        let answer = match body {
            Body::Append { previous, entries, committed, has_yielded } => {
                if !follow_one_another(previous, &entries, self.epoch) {
                    return;
                }
                if has_yielded {
                    self.yielded = Some(self.epoch);
                }
                match self.replica.accept(from, previous, entries, store) {
                    Ok(matched) => {
                        self.matched = matched.max(self.matched);
                        self.replica.commit(committed, self.matched, APPLIED_PER_STEP, store);
                        {
                            let (matched, committed) = (self.matched, self.replica.committed());
                            Body::Acknowledge { matched, committed, snapshot: self.replica.incoming_snapshot() }
                        }
                    }
                    Err(Mismatch::CommonAtMost(common)) => Body::Mismatch { common: Some(common) },
                    Err(Mismatch::NeedsSnapshot) => Body::Mismatch { common: None },
                }
            }
            Body::SnapshotBegin { id, history, base } => {
                if !is_history(&history, base, self.epoch) {
                    return;
                }
                self.replica.begin_snapshot(from, id, history, base, store);
                let Some(next_chunk) = self.replica.next_chunk(from, id) else { return };
                if next_chunk == 1 {
                    self.matched = base;
                }
                Body::SnapshotAcknowledge { id, next_chunk }
            }
            Body::SnapshotChunk { id, number, images, is_last } => {
                if self.replica.next_chunk(from, id) == Some(number) {
                    self.replica.apply_chunk(images, is_last, store);
                }
                let Some(next_chunk) = self.replica.next_chunk(from, id) else { return };
                Body::SnapshotAcknowledge { id, next_chunk }
            }
            Body::Images { images } => {
                return images.into_iter().for_each(|image| self.replica.take_image(image, store));
            }
            _ => unreachable!("a primary says nothing else"),
        };
        out.push(Action::to_holder(self.group, self.epoch, from, answer));
    }

    /// What a replica answers.
    fn handle_from_replica(
        &mut self,
        from: Identity,
        epoch: Epoch,
        body: Body,
        view: &View,
        store: &mut impl Store,
        out: &mut Vec<Action>,
    ) {
        let Role::Primary(primary) = &mut self.role else { return };
        if epoch != primary.epoch() && view.rules.hold(Rule::Epoch) {
            return;
        }
        let Some(peer) = primary.peer(from) else { return };
        match body {
            Body::Acknowledge { matched, committed, snapshot } => {
                peer.acknowledged(matched, snapshot, &self.replica, view.now);
                peer.commit_acknowledged(committed);
            }
            Body::Mismatch { common } => peer.mismatched(common, &self.replica),
            Body::SnapshotAcknowledge { id, next_chunk } => peer.chunk_acknowledged(id, next_chunk, view.now),
            Body::Fetch { keys } => {
                // What it is shown must be committed; it asks again.
                if self.replica.committed() == self.replica.last().seq {
                    let mut bytes = 0;
                    let images = keys.iter().take(FETCHED_KEYS_MAX).filter_map(|key| store.image(self.group, key));
                    let images = images.take_while(|image| {
                        let fits = bytes < CHUNK_BYTES;
                        bytes += image.key.len() + image.value.len();
                        fits
                    });
                    let images = images.collect();
                    out.push(Action::to_holder(self.group, self.epoch, from, Body::Images { images }));
                }
            }
            _ => unreachable!("a replica says nothing else"),
        }
    }

    // Time.

    /// True if nothing is under way: all holders have all there is, and nobody waits.
    pub(super) fn is_idle(&self) -> bool {
        let is_applied =
            self.replica.applied() == self.replica.last() && self.replica.committed() == self.replica.last().seq;
        match &self.role {
            Role::Primary(primary) => is_applied && primary.is_idle(&self.replica),
            Role::Replica => is_applied && self.replica.incomplete().next().is_none(),
        }
    }

    /// Sends what there is to send, and answers what is committed.
    pub(super) fn flush(&mut self, view: &View, store: &impl Store, out: &mut Vec<Action>) {
        let Role::Primary(primary) = &mut self.role else { return };
        primary.commit(&mut self.replica, view, out);
        primary.send(self.group, &self.replica, store, view.rules, view.now, out);
    }

    /// What is due.
    pub(super) fn tick(
        &mut self,
        view: &View,
        next_snapshot_id: &mut u64,
        snapshots: usize,
        store: &mut impl Store,
        out: &mut Vec<Action>,
    ) {
        let committed = self.replica.committed();
        self.replica.trim(view.backlog_bytes, committed);
        if let Role::Primary(primary) = &mut self.role {
            // A holder that keeps the log from being committed, and that nobody can remove, is not waited for without bound.
            self.replica.trim(BACKLOGS_MAX * view.backlog_bytes, Seq::MAX);
            primary.begin_snapshots(&self.replica, next_snapshot_id, snapshots, view.now);
            primary.tick(self.group, &self.replica, view, out);
            return self.flush(view, store, out);
        }
        self.replica.apply_some(APPLIED_PER_STEP, store);
        self.fetch(view, out);
    }

    /// Asks for the values that are missing.
    fn fetch(&mut self, view: &View, out: &mut Vec<Action>) {
        let keys: Vec<_> = self.replica.incomplete().take(FETCHED_KEYS_MAX).cloned().collect();
        let is_early = self.fetched_at.is_some_and(|at| view.now < at + RETRY_MS);
        let Some(primary) = self.primary.filter(|_| !keys.is_empty() && !is_early) else { return };
        self.fetched_at = Some(view.now);
        out.push(Action::to_holder(self.group, self.epoch, primary, Body::Fetch { keys }));
    }
}

/// True for entries that can follow a position in an epoch.
fn follow_one_another(previous: Position, entries: &[super::Entry], epoch: Epoch) -> bool {
    let mut last = previous;
    let follow = entries.iter().all(|entry| {
        let follows = last.seq.checked_add(1) == Some(entry.at.seq) && entry.at.epoch >= last.epoch;
        last = entry.at;
        follows
    });
    follow && last.epoch <= epoch
}

/// True for a history that can lead to an entry, in an epoch or before it.
fn is_history(history: &[(Epoch, Seq)], base: Seq, epoch: Epoch) -> bool {
    let rises = history.is_sorted_by(|(epoch, first), (later, later_first)| epoch < later && first < later_first);
    let reaches = history.last().is_some_and(|&(last, first)| first <= base && last <= epoch);
    (1..=super::log::HISTORY_MAX).contains(&history.len()) && rises && reaches && base < Seq::MAX / 2
}
