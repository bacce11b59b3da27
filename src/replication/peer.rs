//! The primary's view of another holder: its progress in the log (raft-rs's `Progress`), and a snapshot being sent to
//! it.
//!
//! ```text
//!             matched       next        last
//!   ─────────────┬─────────────┬───────────┬──► seq
//!   acknowledged │ in flight   │ to be sent│
//! ```
//!
//! The log itself is the send queue: a slow peer costs nothing but its cursor `next`. After [`RETRY_MS`] without an
//! answer the cursor goes back to `matched` and entries are sent again. A peer whose next entry was trimmed needs a
//! snapshot.
//!
//! A snapshot is sent alongside the live log, one chunk at a time. A chunk shows the primary's store, which may be
//! ahead of the commit index, so it is held back until everything it shows is committed.

use super::entry::{Image, Position, Seq};
use super::message::Body;
use super::replica_state::ReplicaState;
use super::rules::{Rule, Rules};
use super::store::Store;
use super::{CHUNK_BYTES, ENTRIES_PER_FRAME_MAX, FRAME_ENTRY_BYTES, Ms, WINDOW_ENTRIES};
use crate::cluster::Identity;
use crate::slots::Group;

/// Pause before something without an answer is sent again.
pub(super) const RETRY_MS: u64 = 60;

/// Another holder.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) identity: Identity,
    progress: Progress,
    next: Seq,
    /// The commit index that was last sent to it, and the one that it last acknowledged.
    commit_sent: Seq,
    commit_acked: Seq,
    sent_at: Option<Ms>,
    /// The last snapshot that it has installed.
    installed: Option<u64>,
    /// When it last made progress, or was sent entries while it had none outstanding.
    advanced_at: Ms,
}

#[derive(Debug)]
enum Progress {
    /// It is not known yet whether its log has the entry before `next`.
    Probing,
    /// Its log cannot be extended from this one, and no snapshot is being sent.
    NeedsSnapshot,
    /// Its log matches up to `matched` and is extended from there.
    Replicating { matched: Seq },
    /// A snapshot is being sent; once the peer has begun it, the log is sent as well.
    Snapshotting { snapshot: OutgoingSnapshot, matched: Option<Seq> },
}

/// A snapshot being sent.
#[derive(Debug)]
struct OutgoingSnapshot {
    id: u64,
    base: Seq,
    cursor: u64,
    /// The chunk that the peer expects; 0 until it has begun the snapshot.
    number: u64,
    chunk: Option<Chunk>,
    sent_at: Option<Ms>,
}

#[derive(Debug)]
struct Chunk {
    images: Vec<Image>,
    next_cursor: u64,
    /// The last entry whose effect the chunk may show.
    shows: Seq,
}

/// The arguments of sending.
pub(super) struct Sending<'a, S> {
    pub(super) group: Group,
    pub(super) replica: &'a ReplicaState,
    pub(super) store: &'a S,
    pub(super) rules: Rules,
    pub(super) has_yielded: bool,
    pub(super) now: Ms,
}

impl Peer {
    /// A peer whose log has to be probed, beginning at entry `last`.
    pub(super) fn new(identity: Identity, last: Seq, now: Ms) -> Self {
        Self {
            identity,
            progress: Progress::Probing,
            next: last + 1,
            commit_sent: 0,
            commit_acked: 0,
            sent_at: None,
            installed: None,
            advanced_at: now,
        }
    }

    /// Probes the peer's log again: the epoch has changed, and its log may have been truncated. A snapshot continues.
    pub(super) fn restart_probing(&mut self, last: Seq, now: Ms) {
        if !self.is_snapshotting() {
            (self.progress, self.next) = (Progress::Probing, last + 1);
        }
        (self.commit_sent, self.commit_acked) = (0, 0);
        (self.sent_at, self.advanced_at) = (None, now);
    }

    /// The last entry up to which the peer's log is known to match.
    pub(super) fn matched(&self) -> Option<Seq> {
        match self.progress {
            Progress::Replicating { matched } => Some(matched),
            Progress::Snapshotting { matched, .. } => matched,
            Progress::Probing | Progress::NeedsSnapshot => None,
        }
    }

    /// True if it has the group's contents as of its snapshot, and replicates the log.
    pub(super) fn is_replicating(&self) -> bool {
        matches!(self.progress, Progress::Replicating { .. })
    }

    /// True if it has the whole log and knows that all of it is committed.
    pub(super) fn is_caught_up(&self, replica: &ReplicaState) -> bool {
        let last = replica.last().seq;
        self.is_replicating() && self.matched() == Some(last) && self.commit_acked == last
    }

    /// True if it needs a snapshot.
    pub(super) fn needs_snapshot(&self) -> bool {
        matches!(self.progress, Progress::NeedsSnapshot)
    }

    pub(super) fn is_snapshotting(&self) -> bool {
        matches!(self.progress, Progress::Snapshotting { .. })
    }

    /// For how long it has made no progress while entries were outstanding.
    pub(super) fn stalled_for(&self, last: Seq, now: Ms) -> u64 {
        if self.matched().is_some_and(|matched| matched >= last) { 0 } else { now.saturating_sub(self.advanced_at) }
    }

    /// The peer acknowledges the log up to `seq`, while it receives the snapshot `snapshot`, if any. Without one it
    /// also has everything before.
    pub(super) fn acknowledged(&mut self, seq: Seq, snapshot: Option<u64>, replica: &ReplicaState, now: Ms) {
        match (&self.progress, snapshot) {
            (_, None) => {}
            (Progress::Snapshotting { snapshot, .. }, Some(id)) if snapshot.id == id => {}
            // Sent before it knew of the snapshot that has just begun: says nothing about that one.
            (Progress::Snapshotting { snapshot, .. }, Some(_)) if snapshot.number == 0 => return,
            // A late answer, sent before the snapshot was installed.
            (Progress::Replicating { .. }, Some(id)) if self.installed == Some(id) => return,
            // It receives a snapshot of an earlier primary or attempt, and would wait for chunks that never come.
            (_, Some(_)) => return self.progress = Progress::NeedsSnapshot,
        }
        let seq = seq.min(replica.last().seq);
        let before = self.matched();
        match &mut self.progress {
            Progress::Probing | Progress::NeedsSnapshot => self.progress = Progress::Replicating { matched: seq },
            Progress::Replicating { matched } => *matched = seq.max(*matched),
            Progress::Snapshotting { matched, snapshot } if seq >= snapshot.base => {
                *matched = Some(seq.max(matched.unwrap_or(0)))
            }
            Progress::Snapshotting { .. } => return,
        }
        self.next = if before.is_none() { seq + 1 } else { self.next.max(seq + 1) };
        if self.matched() > before || seq == replica.last().seq {
            self.advanced_at = now;
        }
    }

    /// The peer knows that entries up to `seq` are committed.
    pub(super) fn commit_acknowledged(&mut self, seq: Seq) {
        self.commit_acked = self.commit_acked.max(seq);
    }

    /// The peer does not have the entry before the ones it was sent; `common` is the last that may match. Each answer
    /// names an earlier entry, so probing ends.
    pub(super) fn mismatched(&mut self, common: Option<Position>, replica: &ReplicaState) {
        let has_begun = matches!(&self.progress, Progress::Snapshotting { snapshot, .. } if snapshot.number > 0);
        let needs_snapshot = common.is_none() && (has_begun || !self.is_snapshotting());
        if !needs_snapshot && (self.is_snapshotting() || self.is_replicating()) {
            // Late, from before it matched or before it began the snapshot: retries repair that.
            return;
        }
        let common = common.and_then(|common| replica.log().common_end(common));
        match common.filter(|&common| replica.log().entries_from(common + 1).is_some()) {
            Some(common) => (self.next, self.sent_at) = (common.min(self.next - 1) + 1, None),
            None => self.progress = Progress::NeedsSnapshot,
        }
    }

    /// Begins a snapshot of the current contents; the log continues after its last entry.
    pub(super) fn begin_snapshot(&mut self, id: u64, replica: &ReplicaState, now: Ms) {
        let base = replica.last().seq;
        let snapshot = OutgoingSnapshot { id, base, cursor: 0, number: 0, chunk: None, sent_at: None };
        self.progress = Progress::Snapshotting { snapshot, matched: None };
        (self.next, self.advanced_at) = (base + 1, now);
    }

    /// The peer expects chunk `next_chunk` of snapshot `id`.
    pub(super) fn chunk_acknowledged(&mut self, id: u64, next_chunk: u64, now: Ms) {
        let Progress::Snapshotting { snapshot, matched } = &mut self.progress else { return };
        if snapshot.id != id || next_chunk <= snapshot.number {
            return;
        }
        self.advanced_at = now;
        snapshot.sent_at = None;
        match snapshot.chunk.take() {
            // The last chunk was acknowledged (the cursor has come round): the snapshot is installed.
            Some(chunk) if chunk.next_cursor == 0 => {
                self.installed = Some(id);
                self.progress = Progress::Replicating { matched: matched.unwrap_or(snapshot.base) };
            }
            Some(chunk) => (snapshot.cursor, snapshot.number) = (chunk.next_cursor, snapshot.number + 1),
            None => snapshot.number = 1,
        }
    }

    /// Sends what is pending.
    pub(super) fn send<S: Store>(&mut self, sending: &Sending<S>, mut send: impl FnMut(Body)) {
        if let Progress::Snapshotting { snapshot, .. } = &mut self.progress {
            snapshot.send(sending, &mut send);
            if snapshot.number == 0 {
                return;
            }
        }
        match self.progress {
            Progress::NeedsSnapshot => {}
            Progress::Probing => self.probe(sending, &mut send),
            Progress::Replicating { .. } | Progress::Snapshotting { .. } => self.send_log(sending, &mut send),
        }
    }

    /// Sends an empty `Append` after the entry before `next`; the answer says whether the peer has that entry.
    fn probe<S: Store>(&mut self, sending: &Sending<S>, send: &mut impl FnMut(Body)) {
        let is_early = self.sent_at.is_some_and(|sent_at| sending.now < sent_at + RETRY_MS);
        if !is_early && let Some(previous) = self.previous(sending.replica) {
            self.sent_at = Some(sending.now);
            send(sending.append(previous, Vec::new()));
        }
    }

    fn send_log<S: Store>(&mut self, sending: &Sending<S>, send: &mut impl FnMut(Body)) {
        let (replica, now) = (sending.replica, sending.now);
        let matched = self.matched().unwrap_or(self.next - 1);
        let awaits_nothing = self.next == matched + 1;
        let is_late = self.sent_at.is_some_and(|sent_at| now >= sent_at + RETRY_MS);
        // No answer in time: go back and send again from the first entry that was not acknowledged.
        if is_late && self.next > matched + 1 {
            self.next = matched + 1;
        }
        let has_news = self.commit_sent < replica.committed();
        let is_caught_up = self.matched().is_some_and(|matched| matched >= replica.last().seq)
            && self.commit_acked >= replica.committed();
        let is_unsure = is_late && !is_caught_up;
        while self.next <= replica.last().seq && self.next <= matched + WINDOW_ENTRIES {
            // The next entry was trimmed.
            let Some(entries) = replica.log().entries_from(self.next) else {
                self.progress = Progress::NeedsSnapshot;
                return;
            };
            let mut bytes = 0;
            let fits = |bytes: &usize| *bytes < FRAME_ENTRY_BYTES;
            let entries = entries.take(ENTRIES_PER_FRAME_MAX).take_while(|entry| {
                let fits = fits(&bytes);
                bytes += entry.effect.bytes();
                fits
            });
            let entries: Vec<_> = entries.cloned().collect();
            let Some(previous) = self.previous(replica) else { return };
            self.next += entries.len() as u64;
            (self.sent_at, self.commit_sent) = (Some(now), replica.committed());
            // Nothing was outstanding: the time without progress counts from now.
            if awaits_nothing {
                self.advanced_at = now;
            }
            send(sending.append(previous, entries));
        }
        // Without entries to send: announces a new commit index, or repeats it until the peer has acknowledged
        // everything.
        if (has_news && self.commit_sent < replica.committed() || is_unsure && self.sent_at != Some(now))
            && let Some(previous) = self.previous(replica)
        {
            (self.sent_at, self.commit_sent) = (Some(now), replica.committed());
            send(sending.append(previous, Vec::new()));
        }
    }

    /// The position before `next`. If its epoch is no longer in the history, the peer needs a snapshot, and there is
    /// none.
    fn previous(&mut self, replica: &ReplicaState) -> Option<Position> {
        let seq = self.next - 1;
        let epoch = replica.log().epoch_at(seq);
        if epoch.is_none() {
            self.progress = Progress::NeedsSnapshot;
        }
        Some(Position { epoch: epoch?, seq })
    }
}

impl OutgoingSnapshot {
    fn send<S: Store>(&mut self, sending: &Sending<S>, send: &mut impl FnMut(Body)) {
        let Sending { group, replica, store, rules, now, .. } = sending;
        if self.sent_at.is_some_and(|sent_at| *now < sent_at + RETRY_MS) {
            return;
        }
        if self.number == 0 {
            self.sent_at = Some(*now);
            let known = replica.log().history().iter().filter(|&&(_, first)| first <= self.base);
            return send(Body::SnapshotBegin { id: self.id, history: known.copied().collect(), base: self.base });
        }
        let chunk = self.chunk.get_or_insert_with(|| {
            let (images, next_cursor) = store.images(*group, self.cursor, CHUNK_BYTES);
            Chunk { images, next_cursor, shows: replica.last().seq }
        });
        if chunk.shows > replica.committed() && rules.hold(Rule::SnapshotCommitted) {
            return;
        }
        self.sent_at = Some(*now);
        let is_last = chunk.next_cursor == 0;
        send(Body::SnapshotChunk { id: self.id, number: self.number, images: chunk.images.clone(), is_last });
    }
}

impl<S> Sending<'_, S> {
    fn append(&self, previous: Position, entries: Vec<super::entry::Entry>) -> Body {
        Body::Append { previous, entries, committed: self.replica.committed(), has_yielded: self.has_yielded }
    }
}
