//! A node's replica of a group: its log, and how much of it the store has applied.
//!
//! ```text
//!                applied <= committed <= last
//!   1 ──────────────┬──────────┬──────────┬──► seq
//!     in the store  │ committed│ received │
//! ```
//!
//! A replica applies only committed entries: all in-sync holders have them, so every later primary has. Received
//! entries that are not committed may be truncated when a new primary lacks them; the store is never rolled back. Only
//! a primary applies its own entries at once, so a deposed primary whose log is ahead of the commit index has to
//! discard its data.
//!
//! | coverage | meaning |
//! |---|---|
//! | `Empty` | needs a snapshot |
//! | `Partial` | receives a snapshot alongside the log; of two versions of a key the newer one stays |
//! | `Complete` | has all entries up to `applied` |
//!
//! A key is *locally evicted* when this node's store dropped it for want of memory. That is harmless on a replica. On
//! becoming primary the node removes such keys by the log: its clients see them as missing, so they must not reappear
//! with the next primary.
//!
//! A key is *incomplete* when a `Change` arrived for a version that the store does not have. The store then drops the
//! key, and its image is fetched from the primary.

use super::entry::{Effect, Entry, Image, Key, Position, Seq};
use super::log::{History, Log};
use super::rules::{Rule, Rules};
use super::store::Store;
use crate::cluster::{Epoch, Identity};
use crate::slots::Group;
use std::collections::{BTreeMap, BTreeSet};

/// Locally evicted keys that are remembered per group.
const LOCALLY_EVICTED_MAX: usize = 4_096;

/// One node's replica of one group.
#[derive(Debug)]
pub(super) struct ReplicaState {
    group: Group,
    rules: Rules,
    log: Log,
    applied: Seq,
    committed: Seq,
    coverage: Coverage,
    /// The last snapshot begun, as (sender, id): a duplicate or earlier `SnapshotBegin` does not begin another.
    last_snapshot: Option<(Identity, u64)>,
    /// Keys whose value is missing, each with the version that it would have.
    incomplete: BTreeMap<Key, Position>,
    /// Keys that the store has evicted on its own, for want of memory.
    locally_evicted: BTreeSet<Key>,
}

#[derive(Debug)]
enum Coverage {
    Empty,
    Partial(IncomingSnapshot),
    Complete,
}

/// A snapshot being received.
#[derive(Debug)]
struct IncomingSnapshot {
    /// The sender. Chunks of another primary do not fit: its store may differ.
    from: Identity,
    next_chunk: u64,
    /// Tombstones: keys removed by the log meanwhile, with the versions of the removals. An older image must not
    /// restore them.
    removed: BTreeMap<Key, Position>,
}

/// Why entries of a primary could not be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// The log ends before the previous entry, or has another entry there. No entry after this one is in both logs.
    CommonAtMost(Position),
    /// There is no log that could be extended: a snapshot is needed.
    NeedsSnapshot,
}

impl ReplicaState {
    /// The replica of a node that holds nothing.
    pub(super) fn empty(group: Group, rules: Rules) -> Self {
        let (log, incomplete) = (Log::new(Epoch(0)), BTreeMap::new());
        Self {
            group,
            rules,
            log,
            applied: 0,
            committed: 0,
            coverage: Coverage::Empty,
            last_snapshot: None,
            incomplete,
            locally_evicted: BTreeSet::new(),
        }
    }

    /// Discards everything: the node no longer holds the group, or its data cannot be trusted.
    pub(super) fn clear(&mut self, store: &mut impl Store) {
        *self = Self { last_snapshot: self.last_snapshot, ..Self::empty(self.group, self.rules) };
        store.clear(self.group);
    }

    /// Becomes the empty, complete replica of a group that was opened in epoch `opened`.
    pub(super) fn open(&mut self, opened: Epoch, store: &mut impl Store) {
        self.clear(store);
        self.log = Log::new(opened);
        self.coverage = Coverage::Complete;
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn last(&self) -> Position {
        self.log.last()
    }

    pub(super) fn committed(&self) -> Seq {
        self.committed
    }

    /// The last entry that the store has applied.
    pub(super) fn applied(&self) -> Position {
        let epoch = self.log.epoch_at(self.applied).expect("the history covers the last applied entry");
        Position { epoch, seq: self.applied }
    }

    /// True if the log begins before the epoch in which the group was last opened: all its data is void.
    pub(super) fn predates(&self, opened: Epoch) -> bool {
        self.log.history()[0].0 < opened
    }

    /// True if the store, with the entries of the log, has everything that is committed.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.coverage, Coverage::Complete)
    }

    /// True if the store's answer for `key` reflects the log.
    pub(super) fn can_read(&self, key: &[u8]) -> bool {
        self.is_complete() && !self.incomplete.contains_key(key) && !self.locally_evicted.contains(key)
    }

    /// True if the store has applied the entry at `position`, of this very log.
    pub(super) fn has_applied(&self, position: Position) -> bool {
        position.seq <= self.applied && self.log.holds(position)
    }

    /// True if the log can never contain that entry: it has another one there, or has moved past its epoch.
    pub(super) fn can_never_hold(&self, position: Position) -> bool {
        let last = self.last();
        !self.log.holds(position) && (position.seq <= last.seq || position.epoch < last.epoch)
    }

    /// Keys whose images are missing.
    pub(super) fn incomplete(&self) -> impl Iterator<Item = &Key> {
        self.incomplete.keys()
    }

    // As a primary.

    /// Prepares to serve as primary: applies everything received. Returns the keys whose values this node does not
    /// know.
    pub(super) fn promote(&mut self, store: &mut impl Store) -> Vec<Key> {
        let last = self.last().seq;
        if self.rules.hold(Rule::AppliedBeforeServing) {
            self.apply_through(last, usize::MAX, store);
        }
        self.applied = last;
        self.coverage = Coverage::Complete;
        let unknown = std::mem::take(&mut self.incomplete).into_keys();
        unknown.chain(self.take_locally_evicted()).collect()
    }

    /// Takes the locally evicted keys, which the caller removes by the log.
    pub(super) fn take_locally_evicted(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.locally_evicted)
    }

    /// Appends an entry whose effect the store has already applied.
    pub(super) fn append(&mut self, epoch: Epoch, effect: Effect) -> Position {
        let at = self.log.append(epoch, effect);
        self.applied = at.seq;
        at
    }

    /// Advances the commit index to `seq`, at most to the end of the log.
    pub(super) fn set_committed(&mut self, seq: Seq) {
        self.committed = self.committed.max(seq.min(self.last().seq));
    }

    // As a replica.

    /// Appends the primary's `entries`, which follow `previous`. Returns the last entry up to which the two logs match
    /// now.
    ///
    /// # Errors
    /// The entries cannot follow; the log is unchanged, or cleared if it cannot be reconciled.
    pub(super) fn accept(
        &mut self,
        from: Identity,
        previous: Position,
        entries: Vec<Entry>,
        store: &mut impl Store,
    ) -> Result<Seq, Mismatch> {
        // Without a complete replica, only the log that goes with the snapshot being received can be extended.
        match &self.coverage {
            Coverage::Empty => return Err(Mismatch::NeedsSnapshot),
            Coverage::Partial(incoming) if incoming.from != from => return Err(Mismatch::NeedsSnapshot),
            Coverage::Partial(_) | Coverage::Complete => {}
        }
        // As Raft's consistency check: logs that have the entry `previous` match up to it.
        if !self.log.holds(previous) {
            return Err(self.mismatch(previous, store));
        }
        let mut matched = previous.seq;
        for entry in entries {
            let known = self.log.holds(entry.at) || !self.may_truncate(&entry);
            // A conflicting entry: cut it off with all after it, unless it is applied or committed, which only a peer
            // that breaks the protocol, or a lost group, can bring about.
            if !known && entry.at.seq <= self.last().seq {
                if entry.at.seq <= self.irrevocable_through() {
                    return Err(self.mismatch(entry.at, store));
                }
                self.log.truncate_after(entry.at.seq - 1);
            }
            matched = entry.at.seq;
            if !known {
                self.log.push(entry);
            }
        }
        Ok(matched)
    }

    fn may_truncate(&self, entry: &Entry) -> bool {
        entry.at.seq > self.last().seq || self.rules.hold(Rule::Truncation)
    }

    /// Entries up to here cannot be truncated: they are applied or will be.
    fn irrevocable_through(&self) -> Seq {
        self.applied.max(self.committed)
    }

    /// How the log differs from one that has the entry `other`. If an irrevocable entry conflicts, the store has, or
    /// will have, effects that the primary lacks, so the replica is cleared.
    fn mismatch(&mut self, other: Position, store: &mut impl Store) -> Mismatch {
        let has_parted = other.seq <= self.irrevocable_through() && self.log.epoch_at(other.seq).is_some();
        let common = self.log.common_end(other).filter(|_| !has_parted);
        match common.and_then(|seq| Some(Position { epoch: self.log.epoch_at(seq)?, seq })) {
            Some(common) => Mismatch::CommonAtMost(common),
            None => {
                self.clear(store);
                Mismatch::NeedsSnapshot
            }
        }
    }

    /// Advances the commit index to `committed`, but not past `matched`, and applies at most `entries_max` entries.
    /// True if nothing is left to apply.
    pub(super) fn commit(&mut self, committed: Seq, matched: Seq, entries_max: usize, store: &mut impl Store) -> bool {
        self.set_committed(committed.min(matched));
        self.apply_some(entries_max, store)
    }

    /// Applies at most `entries_max` committed entries. True if nothing is left to apply.
    pub(super) fn apply_some(&mut self, entries_max: usize, store: &mut impl Store) -> bool {
        let through = if self.rules.hold(Rule::CommittedApplied) { self.committed } else { self.last().seq };
        self.apply_through(through, entries_max, store);
        self.applied == through
    }

    fn apply_through(&mut self, through: Seq, entries_max: usize, store: &mut impl Store) {
        let count = (through.saturating_sub(self.applied) as usize).min(entries_max);
        for _ in 0..count {
            let entry = self.log.entries_from(self.applied + 1).and_then(|mut entries| entries.next());
            let entry = entry.expect("entries that are not applied are not trimmed").clone();
            self.apply(&entry, store);
            self.applied += 1;
        }
    }

    fn apply(&mut self, Entry { at, effect }: &Entry, store: &mut impl Store) {
        let key = effect.key();
        // An image of the snapshot may be newer than this entry already.
        let is_newer = store.version(self.group, key).is_none_or(|version| version < *at);
        if !is_newer {
            return;
        }
        self.locally_evicted.remove(key);
        let removed = match &mut self.coverage {
            Coverage::Partial(incoming) => Some(&mut incoming.removed),
            Coverage::Empty | Coverage::Complete => None,
        };
        match effect {
            // A put replaces the whole value: neither a missing base nor an earlier tombstone matters any more.
            Effect::Put { .. } => {
                self.incomplete.remove(key);
                removed.map(|removed| removed.remove(key));
            }
            Effect::Remove { .. } => {
                self.incomplete.remove(key);
                // Images of the snapshot that are still to come may show the key as it was before.
                if self.rules.hold(Rule::Tombstones) {
                    removed.map(|removed| removed.insert(key.into(), *at));
                }
            }
            Effect::Change { before, .. } => {
                // Applied to another version, a change would yield a value that never existed: drop the key and fetch
                // its image.
                let fits = store.version(self.group, key) == Some(*before);
                if !fits && self.rules.hold(Rule::ChangedVersion) {
                    store.remove(self.group, key);
                    self.incomplete.insert(key.into(), *at);
                    return;
                }
            }
        }
        store.apply(self.group, effect, *at);
    }

    /// The store has evicted `key` on its own. False if there are too many such keys to remember.
    pub(super) fn note_local_eviction(&mut self, key: &[u8]) -> bool {
        self.locally_evicted.insert(key.into());
        self.locally_evicted.len() <= LOCALLY_EVICTED_MAX
    }

    /// Trims the log to `bytes_max` bytes, but only applied entries up to `through`.
    pub(super) fn trim(&mut self, bytes_max: usize, through: Seq) {
        self.log.trim(bytes_max, through.min(self.applied));
    }

    // A snapshot.

    /// Begins a snapshot: discards the replica; the log continues after `base`. Ignored if this snapshot, or a later
    /// one of `from`, has begun before.
    pub(super) fn begin_snapshot(
        &mut self,
        from: Identity,
        id: u64,
        history: History,
        base: Seq,
        store: &mut impl Store,
    ) {
        if self.last_snapshot.is_some_and(|(last_from, last)| last_from == from && last >= id) {
            return;
        }
        self.clear(store);
        self.last_snapshot = Some((from, id));
        self.log = Log::from_snapshot(history, base);
        (self.applied, self.committed) = (base, base);
        self.coverage = Coverage::Partial(IncomingSnapshot { from, next_chunk: 1, removed: BTreeMap::new() });
    }

    /// The snapshot being received.
    pub(super) fn incoming_snapshot(&self) -> Option<u64> {
        let is_part = matches!(self.coverage, Coverage::Partial(_));
        self.last_snapshot.filter(|_| is_part).map(|(_, id)| id)
    }

    /// The next chunk expected of snapshot `id`: `u64::MAX` if it is installed. None if it is not the last snapshot
    /// that was begun.
    pub(super) fn next_chunk(&self, from: Identity, id: u64) -> Option<u64> {
        let is_last_attempt = self.last_snapshot == Some((from, id));
        match &self.coverage {
            Coverage::Partial(incoming) if is_last_attempt => Some(incoming.next_chunk),
            Coverage::Complete if is_last_attempt => Some(u64::MAX),
            _ => None,
        }
    }

    /// Stores the expected chunk.
    pub(super) fn apply_chunk(&mut self, images: Vec<Image>, is_last: bool, store: &mut impl Store) {
        images.into_iter().for_each(|image| self.take_image(image, store));
        if let Coverage::Partial(incoming) = &mut self.coverage {
            incoming.next_chunk += 1;
            if is_last {
                self.coverage = Coverage::Complete;
            }
        }
    }

    /// Stores an image, unless a newer version, tombstone or incomplete change of its key is known.
    pub(super) fn take_image(&mut self, image: Image, store: &mut impl Store) {
        let removed = match &self.coverage {
            Coverage::Partial(incoming) => incoming.removed.get(&image.key).copied(),
            Coverage::Empty | Coverage::Complete => None,
        };
        let stored = store.version(self.group, &image.key);
        let newest = stored.max(removed).max(self.incomplete.get(&image.key).copied());
        let is_older = newest.is_some_and(|newest| image.at < newest);
        if is_older && self.rules.hold(Rule::NewerWins) {
            return;
        }
        self.incomplete.remove(&image.key);
        self.locally_evicted.remove(&image.key);
        store.put(self.group, image);
    }
}
