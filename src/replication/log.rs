//! A node's log of a group: the newest entries, and the epoch in which each entry of the whole log was written.
//!
//! ```text
//!            history: epoch 3 from 1, epoch 4 from 120, epoch 7 from 125
//!   1 ─────────────────┬────────────────┬───────────┬──────────────► seq
//!         trimmed      │ entries        │           last
//!                     base              applied, committed: see replica_state.rs
//! ```
//!
//! The entries kept are the backlog, and the backlog is the send queue: a peer is a cursor into it (`peer.rs`).
//!
//! The history decides whether two logs match. Only the primary of an epoch writes entries of that epoch, so two logs
//! that have an entry with equal number and epoch are identical up to it (Raft's log matching property; Kafka's leader
//! epochs).

use super::entry::{Effect, Entry, Position, Seq};
use crate::cluster::Epoch;
use std::collections::VecDeque;

/// Epochs remembered, besides those of entries that are not applied. A peer whose last entry is of an older epoch needs
/// a snapshot.
pub(super) const HISTORY_MAX: usize = 64;

/// The epochs of a log's entries: each epoch with the number of its first entry, in order. Nothing is known before the
/// first epoch listed.
pub(super) type History = Vec<(Epoch, Seq)>;

/// A group's log.
#[derive(Clone, Debug)]
pub(super) struct Log {
    history: History,
    entries: VecDeque<Entry>,
    /// The number of the last entry that was trimmed.
    base: Seq,
    bytes: usize,
}

impl Log {
    /// The log of a group that was opened empty in epoch `opened`.
    pub(super) fn new(opened: Epoch) -> Self {
        Self { history: vec![(opened, 0)], entries: VecDeque::new(), base: 0, bytes: 0 }
    }

    /// A log without entries that continues after a snapshot whose last entry is `base`.
    pub(super) fn from_snapshot(history: History, base: Seq) -> Self {
        Self { history, entries: VecDeque::new(), base, bytes: 0 }
    }

    /// The position of its last entry.
    pub(super) fn last(&self) -> Position {
        let seq = self.base + self.entries.len() as u64;
        Position { epoch: self.epoch_at(seq).expect("the end is known"), seq }
    }

    pub(super) fn history(&self) -> &History {
        &self.history
    }

    /// The epoch of entry `seq`, unless it is older than the history.
    pub(super) fn epoch_at(&self, seq: Seq) -> Option<Epoch> {
        self.history.iter().rev().find(|&&(_, first)| first <= seq).map(|&(epoch, _)| epoch)
    }

    /// True if the log contains the entry at `position`, trimmed or not.
    pub(super) fn holds(&self, position: Position) -> bool {
        position.seq <= self.last().seq && self.epoch_at(position.seq) == Some(position.epoch)
    }

    /// The last number up to which a log that ends at `other` can match this one.
    pub(super) fn common_end(&self, other: Position) -> Option<Seq> {
        let later = self.history.iter().position(|&(epoch, _)| epoch > other.epoch);
        let own_end = match later {
            // All epochs known here are later.
            Some(0) => return None,
            Some(later) => self.history[later].1 - 1,
            None => self.last().seq,
        };
        Some(own_end.min(other.seq))
    }

    /// The number of an entry, counted from the first of its epoch: versions of items have 32 bits for it.
    pub(super) fn seq_in_epoch(&self, position: Position) -> u64 {
        let first =
            self.history.iter().rev().find(|&&(epoch, _)| epoch == position.epoch).map_or(0, |&(_, first)| first);
        position.seq.saturating_sub(first)
    }

    /// Appends an entry of `epoch`, which is not older than that of the last entry.
    pub(super) fn append(&mut self, epoch: Epoch, effect: Effect) -> Position {
        let at = Position { epoch, seq: self.last().seq + 1 };
        self.push(Entry { at, effect });
        at
    }

    /// Appends an entry that follows the last one.
    pub(super) fn push(&mut self, entry: Entry) {
        let last = self.last();
        assert!(entry.at.seq == last.seq + 1 && entry.at.epoch >= last.epoch, "{:?} after {last:?}", entry.at);
        if entry.at.epoch > last.epoch {
            self.history.push((entry.at.epoch, entry.at.seq));
        }
        self.bytes += entry.effect.bytes();
        self.entries.push_back(entry);
    }

    /// The entries from `seq` on. None if some of them were trimmed.
    pub(super) fn entries_from(&self, seq: Seq) -> Option<impl Iterator<Item = &Entry>> {
        let skipped = seq.checked_sub(self.base + 1)?;
        Some(self.entries.iter().skip(skipped as usize))
    }

    /// Removes all entries after `seq`.
    pub(super) fn truncate_after(&mut self, seq: Seq) {
        while self.base + self.entries.len() as u64 > seq
            && let Some(entry) = self.entries.pop_back()
        {
            self.bytes -= entry.effect.bytes();
        }
        while self.history.len() > 1 && self.history[self.history.len() - 1].1 > seq {
            self.history.pop();
        }
    }

    /// Trims the oldest entries, at most through entry `through`, until no more than `bytes_max` bytes are left. Also
    /// drops old epochs from the history, but never that of entry `through`, which may become the last one by a
    /// truncation.
    pub(super) fn trim(&mut self, bytes_max: usize, through: Seq) {
        while self.history.len() > HISTORY_MAX && self.history[1].1 <= through {
            self.history.remove(0);
        }
        while self.bytes > bytes_max && self.base < through {
            let Some(entry) = self.entries.pop_front() else { return };
            self.bytes -= entry.effect.bytes();
            self.base += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &[u8]) -> Effect {
        Effect::Put { key: key.into(), value: key.into(), expires: None }
    }

    /// A log with the given number of entries in each epoch.
    fn log(epochs: &[(u32, usize)]) -> Log {
        let mut log = Log::new(Epoch(1));
        for &(epoch, count) in epochs {
            (0..count).for_each(|_| _ = log.append(Epoch(epoch), put(b"k")));
        }
        log
    }

    fn at(epoch: u32, seq: Seq) -> Position {
        Position { epoch: Epoch(epoch), seq }
    }

    #[test]
    fn the_epoch_of_each_entry_is_known() {
        let mut log = log(&[(1, 3), (4, 2)]);
        assert_eq!(log.last(), at(4, 5));
        assert!(log.holds(at(1, 0)) && log.holds(at(1, 3)) && log.holds(at(4, 4)));
        assert!(!log.holds(at(1, 4)) && !log.holds(at(4, 3)) && !log.holds(at(4, 6)));
        log.truncate_after(3);
        assert_eq!(log.last(), at(1, 3));
        log.append(Epoch(5), put(b"k"));
        assert_eq!(log.last(), at(5, 4));
    }

    #[test]
    fn trimmed_entries_are_known_but_not_kept() {
        let mut log = log(&[(1, 3), (4, 2)]);
        log.trim(0, 4);
        assert_eq!(log.last(), at(4, 5));
        assert!(log.holds(at(1, 2)));
        assert!(log.entries_from(4).is_none());
        assert_eq!(log.entries_from(5).map(Iterator::count), Some(1));
        assert_eq!(log.entries_from(6).map(Iterator::count), Some(0));
    }

    /// A peer wrote each of a hundred entries in an epoch of its own and committed none. The epoch of the last applied
    /// entry was dropped from the history, so looking it up after a truncation failed.
    #[test]
    fn the_epoch_of_a_possible_last_entry_is_kept() {
        let mut log = log(&[(1, 3)]);
        (2..102).for_each(|epoch| _ = log.append(Epoch(epoch), put(b"k")));
        log.trim(0, 3);
        log.truncate_after(3);
        assert_eq!(log.last(), at(1, 3));
        (2..102).for_each(|epoch| _ = log.append(Epoch(epoch), put(b"k")));
        log.trim(0, 90);
        assert_eq!((log.history().len(), log.epoch_at(90)), (HISTORY_MAX, Some(Epoch(88))));
    }

    #[test]
    fn two_logs_match_up_to_where_they_diverge() {
        let ours = log(&[(1, 3), (4, 2)]);
        assert_eq!(ours.common_end(at(1, 2)), Some(2));
        assert_eq!(ours.common_end(at(1, 9)), Some(3), "entries of epoch 1 after 3 are not in this log");
        assert_eq!(ours.common_end(at(3, 9)), Some(3), "epoch 3 is unknown here");
        assert_eq!(ours.common_end(at(4, 9)), Some(5));
        assert_eq!(ours.common_end(at(0, 9)), None);
    }
}
