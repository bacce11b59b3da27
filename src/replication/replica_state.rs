//! What a node holds of a group: its log, and how much of it is in the store.
//!
//! ```text
//!                applied <= committed <= last
//!   1 ──────────────┬──────────┬──────────┬──► seq
//!     in the store  │ safe     │ received │
//! ```
//!
//! A replica applies what is committed: what all in-sync holders have, and so every later primary. What it has only received it
//! may have to cut off again, when a new primary does not have it; the store never has to take anything back. Only a primary
//! applies at once what it writes, which is why one that was not in sync with its successor has nothing to offer any more.
//!
//! | it holds | and |
//! |---|---|
//! | nothing | has to be filled by a snapshot |
//! | a part | a snapshot is under way, beside the log: the newer of two versions of a key stays |
//! | all | what was applied |
//!
//! A key that the store has *given up* on its own, for want of memory, is nobody's business while this is a replica. As a primary
//! it has the log remove it: it is told to be gone, and is not to come back with the next primary.
//!
//! A key is *incomplete* when a change inside its value came and the value that it was made for is not here: then the store
//! has nothing of the key, and an image of it is asked for.

use super::entry::{Effect, Entry, Image, Key, Position, Seq};
use super::log::{History, Log};
use super::rules::{Rule, Rules};
use super::store::Store;
use crate::cluster::{Epoch, Identity};
use crate::slots::Group;
use std::collections::{BTreeMap, BTreeSet};

/// Keys of a group that a store may give up on its own.
const LOCALLY_EVICTED_MAX: usize = 4_096;

/// One node's copy of one group.
#[derive(Debug)]
pub(super) struct ReplicaState {
    group: Group,
    rules: Rules,
    log: Log,
    applied: Seq,
    committed: Seq,
    coverage: Coverage,
    /// The last attempt to fill it: one that was sent earlier, and comes late, is not begun again.
    last_snapshot: Option<(Identity, u64)>,
    /// Keys whose value is not here, each with the version that it would have.
    incomplete: BTreeMap<Key, Position>,
    /// Keys whose value the store has given up on its own, for want of memory.
    locally_evicted: BTreeSet<Key>,
}

#[derive(Debug)]
enum Coverage {
    Empty,
    Partial(IncomingSnapshot),
    Complete,
}

/// A snapshot that is coming in.
#[derive(Debug)]
struct IncomingSnapshot {
    /// Whose it is: another primary's store may have what this one's has not.
    from: Identity,
    next_chunk: u64,
    /// Keys that the log has removed meanwhile, with the versions of their removals: an older image is not to bring them back.
    removed: BTreeMap<Key, Position>,
}

/// What a primary sent does not follow what is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// The log here has another entry there, or ends before. This is the last that both may have: no later one can be.
    CommonAtMost(Position),
    /// There is nothing here to follow: a snapshot is needed.
    NeedsSnapshot,
}

impl ReplicaState {
    /// The copy of a node that holds nothing.
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

    /// Forgets everything: the node does not hold the group any more, or cannot know what of it is right.
    pub(super) fn clear(&mut self, store: &mut impl Store) {
        *self = Self { last_snapshot: self.last_snapshot, ..Self::empty(self.group, self.rules) };
        store.clear(self.group);
    }

    /// Begins as all that there is of a group that was just opened.
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

    /// The last entry that the store has.
    pub(super) fn applied(&self) -> Position {
        let epoch = self.log.epoch_at(self.applied).expect("what is applied is of a known epoch");
        Position { epoch, seq: self.applied }
    }

    /// True if what is here, or was, is of before an opening of the group.
    pub(super) fn predates(&self, opened: Epoch) -> bool {
        self.log.history()[0].0 < opened
    }

    /// True if all that was committed is here, or will be with the log.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.coverage, Coverage::Complete)
    }

    /// True if what the store says of a key is what the log has made of it.
    pub(super) fn can_read(&self, key: &[u8]) -> bool {
        self.is_complete() && !self.incomplete.contains_key(key) && !self.locally_evicted.contains(key)
    }

    /// True if the store has that entry's effect, and the log is the one that it was written to.
    pub(super) fn has_applied(&self, position: Position) -> bool {
        position.seq <= self.applied && self.log.holds(position)
    }

    /// True if the log can never have that entry: it has others there, or is past the epoch.
    pub(super) fn can_never_hold(&self, position: Position) -> bool {
        let last = self.last();
        !self.log.holds(position) && (position.seq <= last.seq || position.epoch < last.epoch)
    }

    /// Keys whose images are missing, the first few.
    pub(super) fn incomplete(&self) -> impl Iterator<Item = &Key> {
        self.incomplete.keys()
    }

    // As a primary.

    /// Applies all that was received: it will serve as primary. Returns the keys of which it does not know the values.
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

    /// The keys that the store has given up on its own, to be removed by the log.
    pub(super) fn take_locally_evicted(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.locally_evicted)
    }

    /// Writes an entry, whose effect the store has already.
    pub(super) fn append(&mut self, epoch: Epoch, effect: Effect) -> Position {
        let at = self.log.append(epoch, effect);
        self.applied = at.seq;
        at
    }

    /// Notes that all in-sync holders have everything up to an entry.
    pub(super) fn set_committed(&mut self, seq: Seq) {
        self.committed = self.committed.max(seq.min(self.last().seq));
    }

    // As a replica.

    /// Takes entries that follow a position, as a primary has them. Returns up to which number the two logs agree now.
    ///
    /// # Errors
    /// They do not follow; nothing was taken.
    pub(super) fn accept(
        &mut self,
        from: Identity,
        previous: Position,
        entries: Vec<Entry>,
        store: &mut impl Store,
    ) -> Result<Seq, Mismatch> {
        match &self.coverage {
            Coverage::Empty => return Err(Mismatch::NeedsSnapshot),
            Coverage::Partial(incoming) if incoming.from != from => return Err(Mismatch::NeedsSnapshot),
            Coverage::Partial(_) | Coverage::Complete => {}
        }
        if !self.log.holds(previous) {
            return Err(self.mismatch(previous, store));
        }
        let mut matched = previous.seq;
        for entry in entries {
            let known = self.log.holds(entry.at) || !self.may_truncate(&entry);
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

    /// Up to where nothing can be taken back: it is applied, or will be.
    fn irrevocable_through(&self) -> Seq {
        self.applied.max(self.committed)
    }

    /// The log does not have an entry. If another one in its place is settled, the store has, or will have, what nobody else has.
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

    /// Applies what is committed, as far as `agreed` says that it is here: at most so many entries. True if that was all.
    pub(super) fn commit(&mut self, committed: Seq, matched: Seq, entries_max: usize, store: &mut impl Store) -> bool {
        self.set_committed(committed.min(matched));
        self.apply_some(entries_max, store)
    }

    /// Applies at most so many entries of what is committed. True if that was all.
    pub(super) fn apply_some(&mut self, entries_max: usize, store: &mut impl Store) -> bool {
        let through = if self.rules.hold(Rule::CommittedApplied) { self.committed } else { self.last().seq };
        self.apply_through(through, entries_max, store);
        self.applied == through
    }

    fn apply_through(&mut self, through: Seq, entries_max: usize, store: &mut impl Store) {
        let count = (through.saturating_sub(self.applied) as usize).min(entries_max);
        for _ in 0..count {
            let entry = self.log.entries_from(self.applied + 1).and_then(|mut entries| entries.next());
            let entry = entry.expect("what is not applied is kept").clone();
            self.apply(&entry, store);
            self.applied += 1;
        }
    }

    fn apply(&mut self, Entry { at, effect }: &Entry, store: &mut impl Store) {
        let key = effect.key();
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
            Effect::Put { .. } => {
                self.incomplete.remove(key);
                removed.map(|removed| removed.remove(key));
            }
            Effect::Remove { .. } => {
                self.incomplete.remove(key);
                if self.rules.hold(Rule::Tombstones) {
                    removed.map(|removed| removed.insert(key.into(), *at));
                }
            }
            Effect::Change { before, .. } => {
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

    /// The store has given up a key's value on its own. False if those are too many to remember.
    pub(super) fn note_local_eviction(&mut self, key: &[u8]) -> bool {
        self.locally_evicted.insert(key.into());
        self.locally_evicted.len() <= LOCALLY_EVICTED_MAX
    }

    /// Keeps no more of the log than so many bytes, of what `through` says that nobody needs.
    pub(super) fn trim(&mut self, bytes_max: usize, through: Seq) {
        self.log.trim(bytes_max, through.min(self.applied));
    }

    // A snapshot.

    /// Begins to be filled: what was here is void. The log goes on after `base`. Does nothing if it has begun to be before.
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

    /// The attempt to fill it that is under way.
    pub(super) fn incoming_snapshot(&self) -> Option<u64> {
        let is_part = matches!(self.coverage, Coverage::Partial(_));
        self.last_snapshot.filter(|_| is_part).map(|(_, id)| id)
    }

    /// The chunk that is expected next of an attempt to fill it: one past the last if it has come to its end. None if it is
    /// not the attempt that was begun last.
    pub(super) fn next_chunk(&self, from: Identity, id: u64) -> Option<u64> {
        let is_last_attempt = self.last_snapshot == Some((from, id));
        match &self.coverage {
            Coverage::Partial(incoming) if is_last_attempt => Some(incoming.next_chunk),
            Coverage::Complete if is_last_attempt => Some(u64::MAX),
            _ => None,
        }
    }

    /// Takes the chunk that is expected.
    pub(super) fn apply_chunk(&mut self, images: Vec<Image>, is_last: bool, store: &mut impl Store) {
        images.into_iter().for_each(|image| self.take_image(image, store));
        if let Coverage::Partial(incoming) = &mut self.coverage {
            incoming.next_chunk += 1;
            if is_last {
                self.coverage = Coverage::Complete;
            }
        }
    }

    /// Stores an image, unless something newer is known of its key.
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
