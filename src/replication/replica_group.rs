//! One group on one node: its replica state, and whether this node is its primary or a replica.
//!
//! ```text
//!             map names this node         map names another, or a frame of a later epoch arrives
//!   Replica ───────────────────► Primary ───────────────────► Replica (cleared, if its log was ahead of the commit)
//! ```
//!
//! A node learns of an epoch from the map, or earlier, from a frame of a primary that has that map already. Frames of
//! older epochs are refused; maps of older epochs change nothing.

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

/// Entries that a replica applies in one step; it applies the rest with the next frame or tick.
const APPLIED_PER_STEP: usize = 1_024;

/// Uncommitted entries that a primary keeps, as a multiple of `backlog_bytes`.
const BACKLOGS_MAX: usize = 4;

/// A group that this node holds.
#[derive(Debug)]
pub(super) struct ReplicaGroup {
    group: Group,
    /// The last assignment that came with the map.
    assignment: Assignment,
    /// The latest epoch known, from the map or from a frame, and its primary.
    epoch: Epoch,
    primary: Option<Identity>,
    replica: ReplicaState,
    role: Role,
    /// The last entry up to which this log matches the primary's.
    matched: Seq,
    /// Until then, a lease of an earlier primary may be valid.
    leased_until: Ms,
    /// The epoch whose primary has yielded: it serves no more requests.
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

    /// True if this node is the primary, as far as it knows.
    pub(super) fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary(_))
    }

    /// The latest epoch that this node knows.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    // The map.

    /// Applies a new assignment of the map.
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
        // The group was opened empty since this replica's log began, so its data is void. This comes before the epoch
        // check: frames of the new primary may have moved the epoch ahead of the map.
        if self.replica.predates(assignment.opened) && view.rules.hold(Rule::Opened) {
            self.open(view, store, out);
        }
        // A frame has brought a later epoch already: role and primary follow from that one.
        if assignment.epoch < self.epoch {
            return;
        }
        let is_same = self.primary == assignment.primary;
        (self.epoch, self.primary) = (assignment.epoch, assignment.primary);
        // Another primary may have another log: matching starts anew.
        if !is_same {
            self.matched = 0;
        }
        if assignment.primary != Some(view.me) {
            return self.step_down(store, out);
        }
        // This node stays primary, with other holders. A handover that the map did not decide ends here, so the log is
        // writable again: remove the keys evicted while it was frozen.
        if let Role::Primary(primary) = &mut self.role {
            primary.assign(assignment, view.me, self.replica.last().seq, view.now);
            let locally_evicted = self.replica.take_locally_evicted();
            return self.remove(locally_evicted, store);
        }
        self.promote(view, store, out);
    }

    /// Computes until when an earlier primary may hold valid leases.
    fn note_prior_leases(&mut self, before: &Assignment, view: &View) {
        let assignment = &self.assignment;
        let was_opened = assignment.opened == assignment.epoch;
        // The primary of an epoch that this node skipped is unknown, and so are the leases it got. That holds, too, for
        // a group that was opened empty elsewhere: wait the full grace period.
        let was_skipped = assignment.epoch.0 > before.epoch.0 + 1;
        if was_opened && assignment.epoch > Epoch(1) || was_skipped {
            self.leased_until = view.now + GRACE_MS;
        }
        // A known predecessor: wait until the last lease that this node granted it has expired, unless it has yielded
        // and serves no more requests anyway.
        if let Some(primary) = before.primary
            && primary != view.me
            && assignment.primary != Some(primary)
            && self.yielded != Some(before.epoch)
        {
            self.leased_until = self.leased_until.max(view.leases.ended_for(primary));
        }
    }

    /// The group was opened empty: discards the local data.
    fn open(&mut self, view: &View, store: &mut impl Store, out: &mut Vec<Action>) {
        self.step_down(store, out);
        // Only a node that is alone in sync has opened the group: others become in-sync later, by a snapshot.
        if self.assignment.in_sync == [view.me] {
            self.replica.open(self.assignment.opened, store);
        } else {
            self.replica.clear(store);
        }
    }

    /// Takes the primary role.
    fn promote(&mut self, view: &View, store: &mut impl Store, out: &mut Vec<Action>) {
        if !self.replica.is_complete() {
            // A frame of an epoch that the map never had made this node clear its data. The remains are incomplete, so
            // open the group empty.
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

    /// As the primary, removes `keys` whose values this node does not know, from the store and by the log.
    fn remove(&mut self, keys: impl IntoIterator<Item = Key>, store: &mut impl Store) {
        for key in keys {
            store.remove(self.group, &key);
            self.replica.append(self.epoch, Effect::Remove { key });
        }
    }

    /// Gives up the primary role. If the log ends after the commit index, the store may show entries that the new
    /// primary does not have, so the replica is cleared.
    fn step_down(&mut self, store: &mut impl Store, out: &mut Vec<Action>) {
        if let Role::Primary(primary) = std::mem::replace(&mut self.role, Role::Replica) {
            primary.step_down(out);
            if self.replica.committed() < self.replica.last().seq {
                self.replica.clear(store);
            }
        }
    }

    /// The node no longer holds the group.
    pub(super) fn leave(mut self, store: &mut impl Store, out: &mut Vec<Action>) {
        self.step_down(store, out);
        self.replica.clear(store);
    }

    // Requests.

    /// Decides whether a request may be executed here, now.
    ///
    /// # Errors
    /// The [`Refusal`].
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
            let is_lost = match self.role {
                // The primary's log is the only one that continues: a position it lacks is lost, unless the token is of
                // a later primary's epoch.
                Role::Primary(_) => token.epoch <= self.epoch && !self.replica.log().holds(token),
                Role::Replica => self.replica.is_complete() && self.replica.can_never_hold(token),
            };
            if is_lost {
                return Err(Refusal::SessionLost);
            }
            // Not lost, but not applied here yet: the primary has it, or will.
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

    /// Appends an effect that the store has already applied.
    pub(super) fn record(&mut self, effect: Effect) -> Position {
        debug_assert!(self.is_primary());
        self.replica.append(self.epoch, effect)
    }

    /// The store has evicted `key`. A primary removes it by the log. A replica remembers it, and clears itself if it
    /// has to remember too many keys; a snapshot follows. A primary that has yielded also only remembers it, however
    /// many there are: it stays in sync with its successor only if its log does not change, and as it admits no writes,
    /// the number of evictions is bounded.
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

    /// Parks a request until everything it may have read is committed. False if that is so already.
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

    /// Handles a message from another holder.
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
                // A deposed primary: its entries may conflict with those of the later epoch.
                if epoch < self.epoch && view.rules.hold(Rule::Epoch) {
                    return;
                }
                // A later epoch: its primary has a map that has not arrived here yet.
                if epoch > self.epoch {
                    self.adopt_epoch(from, epoch, store, out);
                }
                // Entries come from the primary of the epoch only, and the primary itself follows nobody.
                let is_primarys = self.primary == Some(from) || !view.rules.hold(Rule::Epoch);
                if is_primarys && !self.is_primary() {
                    self.handle_from_primary(from, body, store, out);
                }
            }
            Body::HandOver { to } => {
                // Void if the epoch has moved on since the leader sent it.
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

    /// Adopts an epoch, and its primary `from`, that a frame announced before the map did.
    fn adopt_epoch(&mut self, from: Identity, epoch: Epoch, store: &mut impl Store, out: &mut Vec<Action>) {
        self.step_down(store, out);
        (self.epoch, self.primary, self.matched) = (epoch, Some(from), 0);
    }

    /// Handles a message of the primary.
    fn handle_from_primary(&mut self, from: Identity, body: Body, store: &mut impl Store, out: &mut Vec<Action>) {
        let answer = match body {
            Body::Append { previous, entries, committed, has_yielded } => {
                // Entries that no primary can send would break the log's invariants.
                if !follow_one_another(previous, &entries, self.epoch) {
                    return;
                }
                // From now on the primary serves nobody: its successor need not wait for its lease.
                if has_yielded {
                    self.yielded = Some(self.epoch);
                }
                match self.replica.accept(from, previous, entries, store) {
                    Ok(matched) => {
                        // Commit only what is known to match: entries behind that may still be truncated.
                        self.matched = matched.max(self.matched);
                        self.replica.commit(committed, self.matched, APPLIED_PER_STEP, store);
                        let (committed, snapshot) = (self.replica.committed(), self.replica.incoming_snapshot());
                        Body::Acknowledge { matched: self.matched, committed, snapshot }
                    }
                    Err(Mismatch::CommonAtMost(common)) => Body::Mismatch { common: Some(common) },
                    Err(Mismatch::NeedsSnapshot) => Body::Mismatch { common: None },
                }
            }
            Body::SnapshotBegin { id, history, base } => {
                // A history that no log can have; accepting it would make the log inconsistent.
                if !is_history(&history, base, self.epoch) {
                    return;
                }
                self.replica.begin_snapshot(from, id, history, base, store);
                let Some(next_chunk) = self.replica.next_chunk(from, id) else { return };
                // Nothing of the snapshot has arrived yet, so the log matches up to its base.
                if next_chunk == 1 {
                    self.matched = base;
                }
                Body::SnapshotAcknowledge { id, next_chunk }
            }
            Body::SnapshotChunk { id, number, images, is_last } => {
                // Chunks apply in order; a duplicate or late one is only acknowledged again.
                if self.replica.next_chunk(from, id) == Some(number) {
                    self.replica.apply_chunk(images, is_last, store);
                }
                let Some(next_chunk) = self.replica.next_chunk(from, id) else { return };
                Body::SnapshotAcknowledge { id, next_chunk }
            }
            Body::Images { images } => {
                return images.into_iter().for_each(|image| self.replica.take_image(image, store));
            }
            _ => unreachable!("all other messages of a primary are handled above"),
        };
        out.push(Action::to_holder(self.group, self.epoch, from, answer));
    }

    /// Handles a message of a replica.
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
        // An answer to frames of another epoch says nothing about this one's log.
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
                // Images show the store, which may be ahead of the commit index. The replica retries until all is
                // committed.
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
            _ => unreachable!("all other messages of a replica are handled above"),
        }
    }

    // Time.

    /// True if there is nothing to send, commit or apply, and no request is parked.
    pub(super) fn is_idle(&self) -> bool {
        let is_applied =
            self.replica.applied() == self.replica.last() && self.replica.committed() == self.replica.last().seq;
        match &self.role {
            Role::Primary(primary) => is_applied && primary.is_idle(&self.replica),
            Role::Replica => is_applied && self.replica.incomplete().next().is_none(),
        }
    }

    /// Advances the commit index, answers parked requests, and sends what is pending.
    pub(super) fn flush(&mut self, view: &View, store: &impl Store, out: &mut Vec<Action>) {
        let Role::Primary(primary) = &mut self.role else { return };
        primary.commit(&mut self.replica, view, out);
        primary.send(self.group, &self.replica, store, view.rules, view.now, out);
    }

    /// Does what is due by time.
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
            // A holder that stalls commits, and that nobody can remove now, must not make the log grow without bound:
            // it gets a snapshot later.
            self.replica.trim(BACKLOGS_MAX * view.backlog_bytes, Seq::MAX);
            primary.begin_snapshots(&self.replica, next_snapshot_id, snapshots, view.now);
            primary.tick(self.group, &self.replica, view, out);
            return self.flush(view, store, out);
        }
        self.replica.apply_some(APPLIED_PER_STEP, store);
        self.fetch(view, out);
    }

    /// Asks the primary for the images of incomplete keys.
    fn fetch(&mut self, view: &View, out: &mut Vec<Action>) {
        let keys: Vec<_> = self.replica.incomplete().take(FETCHED_KEYS_MAX).cloned().collect();
        let is_early = self.fetched_at.is_some_and(|at| view.now < at + RETRY_MS);
        let Some(primary) = self.primary.filter(|_| !keys.is_empty() && !is_early) else { return };
        self.fetched_at = Some(view.now);
        out.push(Action::to_holder(self.group, self.epoch, primary, Body::Fetch { keys }));
    }
}

/// True if `entries` can follow `previous` in the log of a primary of `epoch`.
fn follow_one_another(previous: Position, entries: &[super::Entry], epoch: Epoch) -> bool {
    let mut last = previous;
    let follow = entries.iter().all(|entry| {
        let follows = last.seq.checked_add(1) == Some(entry.at.seq) && entry.at.epoch >= last.epoch;
        last = entry.at;
        follows
    });
    follow && last.epoch <= epoch
}

/// True if `history` can be that of a log whose last entry is `base`, in an epoch not after `epoch`.
fn is_history(history: &[(Epoch, Seq)], base: Seq, epoch: Epoch) -> bool {
    let rises = history.is_sorted_by(|(epoch, first), (later, later_first)| epoch < later && first < later_first);
    let reaches = history.last().is_some_and(|&(last, first)| first <= base && last <= epoch);
    (1..=super::log::HISTORY_MAX).contains(&history.len()) && rises && reaches && base < Seq::MAX / 2
}
