//! The persistent state of a member of the agreement, and the disk interface.
//!
//! ```text
//!        dropped        │ kept for followers a little behind │ since the snapshot
//!  1 ……………… before ─────┼──────────────── snapshot ──────────┼──── commit ──────── last
//!                       └──────────────── entries ───────────────────────────────────┘
//! ```
//!
//! The agreement writes by [`Disk::save`], once per `Ready`, and reads only when it starts. [`Saved`] is the sum of all
//! changes: appending each change to a file, and summing them up when loading, implements a disk.
//!
//! Other members rely on what was saved: a vote, an entry that counts towards a majority. After a failed save, or after
//! saved state was lost, the node must not continue under its Raft id. It comes back empty, with a new one.

use super::wire;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Entries kept before a snapshot, so that a follower slightly behind need not be sent the whole map.
const ENTRIES_KEPT: u64 = 64;

/// Why the disk failed to keep or return state.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DiskError {
    /// Reading or writing failed.
    #[error("the disk of the agreement failed: {0}")]
    Failed(String),
    /// Its content is inconsistent.
    #[error("the disk of the agreement is corrupt: {0}")]
    Corrupt(&'static str),
}

/// The storage of a member's state. Calls are synchronous: saved changes survive a crash once `save` has returned.
pub trait Disk {
    /// The sum of all saved changes, in order; None if nothing was ever saved.
    fn load(&mut self) -> Result<Option<Saved>, DiskError>;

    /// Saves all of the changes or none. After an error either may be the case, and the disk is not used again.
    fn save(&mut self, changes: &Changes) -> Result<(), DiskError>;
}

/// The changes of the state since the last save.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The node's Raft id, with the first save.
    pub raft: Option<u64>,
    /// Raft's hard state: term, vote and commit index.
    pub hard: Option<Hard>,
    /// The map as of an entry. If the log has that entry, earlier ones are no longer needed; otherwise the whole log is
    /// void.
    pub snapshot: Option<SnapshotRecord>,
    /// New entries, which replace those of the log from the first one's index on.
    pub entries: Vec<LogEntry>,
}

/// Raft's hard state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hard {
    /// The current term.
    pub term: u64,
    /// The Raft id voted for in that term; 0 for none.
    pub vote: u64,
    /// The commit index.
    pub commit: u64,
}

/// An entry of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// True for a change of the configuration, false for one of the map.
    pub is_configuration: bool,
    /// The term of the leader that appended it.
    pub term: u64,
    /// Its index in the log.
    pub index: u64,
    /// The encoded proposal, or the configuration change in Raft's encoding.
    pub data: Vec<u8>,
    /// The configuration change in this crate's encoding.
    pub context: Vec<u8>,
}

/// Raft's configuration: voters and learners, by Raft id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The voters.
    pub voters: Vec<u64>,
    /// Members without a vote.
    pub learners: Vec<u64>,
    /// In a joint configuration, the old voters, whose majority is needed as well.
    pub voters_outgoing: Vec<u64>,
    /// Outgoing voters that become learners.
    pub learners_next: Vec<u64>,
    /// Raft leaves the joint configuration by itself.
    pub auto_leave: bool,
}

/// The map as of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// The entry's index.
    pub index: u64,
    /// The entry's term.
    pub term: u64,
    /// The configuration as of the entry.
    pub configuration: Configuration,
    /// The map, encoded.
    pub map: Vec<u8>,
}

/// The sum of all changes that were saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    raft: u64,
    hard: Hard,
    snapshot: Option<SnapshotRecord>,
    /// Index and term of the last entry dropped.
    before: (u64, u64),
    entries: Vec<LogEntry>,
}

impl Saved {
    /// Adds changes. An error if their entries do not continue the log.
    pub fn absorb(&mut self, changes: &Changes) -> Result<(), DiskError> {
        self.raft = changes.raft.unwrap_or(self.raft);
        self.hard = changes.hard.unwrap_or(self.hard);
        if let Some(snapshot) = &changes.snapshot {
            if self.term_at(snapshot.index) == Some(snapshot.term) {
                self.compact(snapshot.index.saturating_sub(ENTRIES_KEPT));
            } else {
                self.entries.clear();
                self.before = (snapshot.index, snapshot.term);
            }
            self.snapshot = Some(snapshot.clone());
        }
        if let Some(first) = changes.entries.first() {
            if first.index <= self.before.0 || first.index > self.last_index() + 1 {
                return Err(DiskError::Corrupt("entries that do not go on where the log ends"));
            }
            self.entries.truncate((first.index - self.before.0 - 1) as usize);
            self.entries.extend_from_slice(&changes.entries);
        }
        Ok(())
    }

    /// Drops entries up to `index`.
    fn compact(&mut self, index: u64) {
        if let Some(term) = self.term_at(index) {
            self.entries.drain(..(index - self.before.0) as usize);
            self.before = (index, term);
        }
    }

    /// Checks the invariants of a member's state: a file can contain anything.
    pub(super) fn check(&self) -> Result<(), DiskError> {
        let ensure = |holds: bool, fault| if holds { Ok(()) } else { Err(DiskError::Corrupt(fault)) };
        let (mut index, mut term) = self.before;
        for entry in &self.entries {
            ensure(Some(entry.index) == index.checked_add(1) && entry.term >= term, "the order of entries")?;
            (index, term) = (entry.index, entry.term);
        }
        ensure(self.raft != 0, "no identity in Raft")?;
        ensure(index <= wire::COUNT_MAX && self.hard.term <= wire::COUNT_MAX, "a number out of bounds")?;
        ensure(term <= self.hard.term && self.hard.commit <= index, "a promise of what there is not")?;
        ensure(self.snapshot.is_some() || index == 0, "entries without a snapshot")?;
        let Some(snapshot) = &self.snapshot else { return Ok(()) };
        ensure(snapshot.index > 0 && snapshot.configuration.is_sound(), "a snapshot")?;
        ensure(self.term_at(snapshot.index) == Some(snapshot.term), "a snapshot of another log")
    }

    pub(super) fn raft(&self) -> u64 {
        self.raft
    }

    pub(super) fn snapshot(&self) -> Option<&SnapshotRecord> {
        self.snapshot.as_ref()
    }

    /// Number and total bytes of the entries since the snapshot.
    pub(super) fn since_snapshot(&self) -> (usize, usize) {
        let since = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        let at = since.saturating_sub(self.before.0).min(self.entries.len() as u64) as usize;
        let bytes = self.entries[at..].iter().map(|entry| entry.data.len() + entry.context.len());
        (self.entries.len() - at, bytes.sum())
    }

    fn last_index(&self) -> u64 {
        self.before.0 + self.entries.len() as u64
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.before.0 {
            return Some(self.before.1);
        }
        let at = index.checked_sub(self.before.0 + 1)?;
        self.entries.get(usize::try_from(at).ok()?).map(|entry| entry.term)
    }
}

/// Raft's view of the state, which is in memory as a whole; snapshots keep it small.
impl Storage for Saved {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let snapshot = self.snapshot.as_ref();
        // The commit index is saved lazily, but the snapshot's entry is always committed.
        let commit = self.hard.commit.max(snapshot.map_or(0, |snapshot| snapshot.index));
        let mut hard_state = HardState::default();
        (hard_state.term, hard_state.vote, hard_state.commit) = (self.hard.term, self.hard.vote, commit);
        let conf_state = snapshot.map_or_else(ConfState::default, |snapshot| (&snapshot.configuration).into());
        Ok(RaftState { hard_state, conf_state })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        bytes_max: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.before.0 {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last_index() + 1 || low > high {
            return Err(StorageError::Unavailable.into());
        }
        let at = |index: u64| (index - self.before.0 - 1) as usize;
        let mut entries = self.entries[at(low)..at(high)].iter().map(Entry::from).collect();
        raft::util::limit_size(&mut entries, bytes_max.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let fault = if index < self.before.0 { StorageError::Compacted } else { StorageError::Unavailable };
        self.term_at(index).ok_or(fault.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(Saved::last_index(self))
    }

    fn snapshot(&self, request_index: u64, _: u64) -> raft::Result<Snapshot> {
        match &self.snapshot {
            Some(snapshot) if snapshot.index >= request_index => Ok(snapshot.into()),
            _ => Err(StorageError::SnapshotTemporarilyUnavailable.into()),
        }
    }
}

/// A disk in memory for tests: it can fail, and lose or tear the last saves.
#[cfg(any(test, feature = "sim"))]
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    /// Each save, encoded, as a file would contain it.
    saves: Vec<Vec<u8>>,
    /// Whether the next save fails, and if so, whether it is kept nevertheless.
    fails: Option<bool>,
}

#[cfg(any(test, feature = "sim"))]
impl MemoryDisk {
    /// Drops the last saves, like a disk that acknowledged writes too early.
    pub fn lose(&mut self, saves: usize) {
        self.saves.truncate(self.saves.len().saturating_sub(saves));
    }

    /// Truncates the last save, like a crash in the middle of it.
    pub fn tear(&mut self) {
        if let Some(last) = self.saves.last_mut() {
            last.truncate(last.len() / 2);
        }
    }

    /// Makes the next save fail; `is_kept` says whether its changes are kept nevertheless.
    pub fn fail(&mut self, is_kept: bool) {
        self.fails = Some(is_kept);
    }

    /// The number of saves.
    pub fn saves(&self) -> usize {
        self.saves.len()
    }
}

#[cfg(any(test, feature = "sim"))]
impl Disk for MemoryDisk {
    fn load(&mut self) -> Result<Option<Saved>, DiskError> {
        let mut saved = Saved::default();
        let whole = self.saves.iter().map_while(|bytes| postcard::from_bytes::<Changes>(bytes).ok());
        let mut count = 0;
        for changes in whole {
            saved.absorb(&changes)?;
            count += 1;
        }
        self.saves.truncate(count);
        Ok((count > 0).then_some(saved))
    }

    fn save(&mut self, changes: &Changes) -> Result<(), DiskError> {
        let fails = self.fails.take();
        if fails != Some(false) {
            self.saves.push(postcard::to_allocvec(changes).expect("postcard encodes them"));
        }
        match fails {
            Some(_) => Err(DiskError::Failed("it was outcome to".into())),
            None => Ok(()),
        }
    }
}
