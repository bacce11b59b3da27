//! Processing Raft's `Ready` after each event: save, send, apply, and occasionally take a snapshot.

use super::events::{Action, Fault};
use super::storage::{Changes, Disk, DiskError, Hard, SnapshotRecord};
use super::wire::{self, Proposal};
use super::{Agreement, voters};
use crate::cluster::map::Map;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{SnapshotStatus, StateRole};

/// Bytes of entries after which a snapshot is taken, however few entries they are.
const LOG_BYTES_MAX: usize = 4 << 20;

impl<D: Disk> Agreement<D> {
    /// Processes Raft's `Ready`s until there is none: saves, then sends, then applies.
    pub(super) fn process_ready(&mut self, actions: &mut Vec<Action>) -> Result<(), Fault> {
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            let changes = Changes {
                raft: None,
                // A new commit index alone is not worth a save: it is learned again after a restart.
                hard: ready.hs().filter(|_| ready.must_sync()).map(Hard::from),
                snapshot: Some(ready.snapshot()).filter(|snapshot| !snapshot.is_empty()).map(SnapshotRecord::from),
                entries: ready.entries().iter().map(Into::into).collect(),
            };
            self.save(&changes)?;
            if let Some(snapshot) = &changes.snapshot {
                self.map = decode_map(&snapshot.map)?;
                self.applied = (snapshot.index, snapshot.term);
                actions.push(Action::MapChanged);
            }
            let (reads, entries) = (ready.take_read_states(), ready.take_committed_entries());
            self.send(ready.take_messages(), actions);
            self.send(ready.take_persisted_messages(), actions);
            // Entries are applied after `advance_append`: one may remove this leader from the configuration, and Raft
            // would then fail to find its own progress.
            let mut light = self.raw.advance_append(ready);
            self.send(light.take_messages(), actions);
            self.apply(entries, actions)?;
            self.apply(light.take_committed_entries(), actions)?;
            self.raw.advance_apply();
            self.note_reads(reads);
            self.follow_up();
        }
        self.answer_reads(actions);
        self.compact()
    }

    /// What Raft has to be told between two `Ready`s.
    fn follow_up(&mut self) {
        for id in std::mem::take(&mut self.snapshots_sent) {
            // Reported as sent whether it arrives or not: the member's next answer shows its state.
            self.raw.report_snapshot(id, SnapshotStatus::Finish);
        }
        let raft = &mut self.raw.raft;
        if raft.state == StateRole::Leader && !raft.promotable() {
            // An earlier leader has removed this member's vote, so it must not lead.
            raft.become_follower(raft.term, raft::INVALID_ID);
        }
        self.pin_election_timeout();
    }

    pub(super) fn save(&mut self, changes: &Changes) -> Result<(), Fault> {
        if *changes != Changes::default() {
            self.disk.save(changes)?;
            self.raw.mut_store().absorb(changes)?;
        }
        Ok(())
    }

    fn send(&mut self, mut messages: Vec<Message>, actions: &mut Vec<Action>) {
        // Raft yields them in the order of a hash table.
        messages.sort_by_key(|message| message.to);
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.snapshots_sent.push(message.to);
            }
            if let Some(to) = self.node_of(message.to)
                && let Some(bytes) = wire::encode(self.map.cluster(), &message)
            {
                actions.push(Action::Send { to, bytes });
            }
        }
    }

    fn apply(&mut self, entries: Vec<Entry>, actions: &mut Vec<Action>) -> Result<(), Fault> {
        for entry in entries {
            match entry.get_entry_type() {
                // An empty entry, by which a new leader commits those of earlier terms.
                EntryType::EntryNormal if entry.data.is_empty() => {}
                EntryType::EntryNormal => self.apply_proposal(&entry.data, actions)?,
                _ => {
                    let changes = voters::decode_changes(&entry.context)?;
                    let applied = self.raw.apply_conf_change(&voters::configuration_change(&changes));
                    applied.map_err(|_| Fault::NotUnderstood("a change of the configuration"))?;
                    self.is_reconfigured = true;
                }
            }
            self.applied = (entry.index, entry.term);
        }
        Ok(())
    }

    fn apply_proposal(&mut self, data: &[u8], actions: &mut Vec<Action>) -> Result<(), Fault> {
        let proposal: Proposal = postcard::from_bytes(data).map_err(|_| Fault::NotUnderstood("a change of the map"))?;
        let version = self.map.version();
        let result = self.map.apply(&proposal.change);
        if self.map.version() != version {
            actions.push(Action::MapChanged);
        }
        self.answer_change(proposal.origin, proposal.ticket, result, actions);
        Ok(())
    }

    /// Takes a snapshot once the log has grown, and after each configuration change: Raft ignores a snapshot whose
    /// configuration lacks the receiver, so a new member needs one taken since it was added.
    fn compact(&mut self) -> Result<(), Fault> {
        let (entries, bytes) = self.raw.store().since_snapshot();
        let has_grown = entries >= self.config.snapshot_entries || bytes >= LOG_BYTES_MAX;
        let since = self.raw.store().snapshot().map_or(0, |snapshot| snapshot.index);
        if !(has_grown || self.is_reconfigured) || self.applied.0 <= since {
            return Ok(());
        }
        self.is_reconfigured = false;
        let (index, term) = self.applied;
        let snapshot = SnapshotRecord { index, term, configuration: self.configuration(), map: encode_map(&self.map) };
        self.save(&Changes {
            hard: Some(Hard::from(&self.raw.raft.hard_state())),
            snapshot: Some(snapshot),
            ..Changes::default()
        })
    }
}

pub(super) fn encode_map(map: &Map) -> Vec<u8> {
    postcard::to_allocvec(map).expect("postcard encodes all derived types")
}

pub(super) fn decode_map(bytes: &[u8]) -> Result<Map, Fault> {
    postcard::from_bytes(bytes).map_err(|_| Fault::Disk(DiskError::Corrupt("the map of a snapshot")))
}
