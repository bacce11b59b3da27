//! The encoding of Raft's messages and records, and the filter of messages before they reach Raft.
//!
//! Raft's crate uses protocol buffers for all of these. Here they are serde types in postcard, in a checked frame, so
//! that no byte of a peer or a file reaches the protocol buffers decoder, which has a known flaw (`deny.toml`).
//!
//! Raft trusts its peers: some messages that no correct peer sends make it panic. [`Gate::judge`] drops these.

use super::storage::{Configuration, Hard, LogEntry, Saved, SnapshotRecord};
use crate::cluster::Identity;
use crate::cluster::frame::{self, Kind};
use crate::cluster::map::{Change, MEMBERS_MAX, Map};
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot};
use raft::{Raft, StateRole};
use serde::{Deserialize, Serialize};

/// Largest encoded change, in bytes.
pub(super) const PROPOSAL_BYTES_MAX: usize = 1 << 20;
/// Longest context of a message, in bytes: that of a read.
const CONTEXT_BYTES_MAX: usize = 64;
/// Reads that wait for a majority, at most; further ones of peers are dropped.
pub(super) const READS_MAX: usize = 4_096;
/// Larger terms and indexes cannot come from counting by ones; adding to smaller ones does not overflow.
pub(super) const COUNT_MAX: u64 = u64::MAX / 4;

/// The types of messages that members exchange; the index is the encoded number.
pub(super) const TYPES: [MessageType; 14] = [
    MessageType::MsgPropose,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
    MessageType::MsgTransferLeader,
];

/// The content of a normal entry: a change of the map, and the request that it answers.
#[derive(Serialize, Deserialize)]
pub(super) struct Proposal {
    pub origin: Identity,
    pub ticket: u64,
    pub change: Change,
}

/// The body of a frame: a message, and the sender's cluster, 0 if it knows none yet.
#[derive(Serialize, Deserialize)]
struct Envelope {
    cluster: u64,
    number: u8,
    to: u64,
    from: u64,
    term: u64,
    log_term: u64,
    index: u64,
    entries: Vec<LogEntry>,
    commit: u64,
    commit_term: u64,
    snapshot: Option<SnapshotRecord>,
    is_rejected: bool,
    reject_hint: u64,
    context: Vec<u8>,
}

/// Encodes a message as a frame. None for types that are not sent to others.
pub(super) fn encode(cluster: u64, message: &Message) -> Option<Vec<u8>> {
    let number = TYPES.iter().position(|&known| known == message.get_msg_type())? as u8;
    let envelope = Envelope {
        cluster,
        number,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.get_entries().iter().map(LogEntry::from).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        snapshot: message.has_snapshot().then(|| message.get_snapshot().into()),
        is_rejected: message.reject,
        reject_hint: message.reject_hint,
        context: message.context.to_vec(),
    };
    let mut bytes = Vec::new();
    frame::encode(Kind::Agreement, &envelope, &mut bytes);
    Some(bytes)
}

/// Decodes a frame to the sender's cluster and the message. None if no member sends such a frame.
pub(super) fn decode(bytes: &[u8]) -> Option<(u64, Message)> {
    let frame = frame::decode(bytes).ok().filter(|frame| frame.kind == Kind::Agreement)?;
    let envelope: Envelope = frame.read().ok()?;
    let mut message = Message::default();
    message.set_msg_type(*TYPES.get(usize::from(envelope.number))?);
    (message.to, message.from, message.term) = (envelope.to, envelope.from, envelope.term);
    (message.log_term, message.index) = (envelope.log_term, envelope.index);
    (message.commit, message.commit_term) = (envelope.commit, envelope.commit_term);
    (message.reject, message.reject_hint) = (envelope.is_rejected, envelope.reject_hint);
    message.context = envelope.context.into();
    message.set_entries(envelope.entries.iter().map(Entry::from).collect::<Vec<_>>().into());
    if let Some(snapshot) = &envelope.snapshot {
        message.set_snapshot(snapshot.into());
    }
    Some((envelope.cluster, message))
}

/// The filter's verdict on a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Pass it to Raft.
    Accept,
    /// No correct peer sends it, or it has no meaning in the present state; losing a message does no harm.
    Drop,
    /// The leader counts on entries that this node does not have: it acknowledged them once, and its disk has lost
    /// them.
    LogLost,
}

/// Filters messages by Raft's present state.
pub(super) struct Gate<'r>(pub &'r Raft<Saved>);

impl Gate<'_> {
    pub(super) fn judge(&self, message: &Message) -> Verdict {
        use MessageType::*;
        let raft = self.0;
        if !is_well_formed(message) || message.to != raft.id || message.from == raft.id {
            return Verdict::Drop;
        }
        let is_leader = raft.state == StateRole::Leader;
        let is_current = message.term >= raft.term;
        let accept_if = |holds: bool| if holds { Verdict::Accept } else { Verdict::Drop };
        match message.get_msg_type() {
            // A follower would forward them, and two that take each other for the leader would do so for ever. The
            // origin retries.
            MsgPropose => accept_if(is_leader),
            MsgReadIndex => accept_if(is_leader && raft.pending_read_count() < READS_MAX),
            // The leader's commit index for this node never exceeds what the node has acknowledged.
            MsgHeartbeat if is_current && message.commit > raft.raft_log.last_index() => Verdict::LogLost,
            // No correct follower acknowledges entries that the leader does not have.
            MsgAppendResponse => accept_if(message.reject || message.index <= raft.raft_log.last_index()),
            // Only the leader of the term may tell a member to campaign, to transfer its leadership.
            MsgTimeoutNow => accept_if(message.term == raft.term && message.from == raft.leader_id),
            // Leadership is transferred by the leader itself; forwarding such requests is not needed.
            MsgTransferLeader => Verdict::Drop,
            MsgSnapshot => accept_if(is_sound_snapshot(message.get_snapshot())),
            _ => Verdict::Accept,
        }
    }
}

/// True if a member could send the message in some state.
fn is_well_formed(message: &Message) -> bool {
    use MessageType::*;
    let numbers =
        [message.term, message.log_term, message.index, message.commit, message.commit_term, message.reject_hint];
    let has_term = message.term > 0;
    let entries = message.get_entries();
    let is_asked = !has_term && entries.len() == 1 && entries[0].get_entry_type() == EntryType::EntryNormal;
    let fits = match message.get_msg_type() {
        MsgPropose => is_asked && entries[0].context.is_empty() && is_proposal(&entries[0].data),
        MsgReadIndex => is_asked && entries[0].data.len() <= CONTEXT_BYTES_MAX,
        MsgReadIndexResp => has_term && entries.len() == 1,
        MsgAppend => has_term && are_consecutive(message),
        _ => has_term && entries.is_empty(),
    };
    let has_snapshot = message.has_snapshot() == (message.get_msg_type() == MsgSnapshot);
    let is_bounded = numbers.iter().all(|&number| number <= COUNT_MAX) && message.context.len() <= CONTEXT_BYTES_MAX;
    fits && has_snapshot && is_bounded && message.from != 0
}

fn is_proposal(data: &[u8]) -> bool {
    data.len() <= PROPOSAL_BYTES_MAX && postcard::from_bytes::<Proposal>(data).is_ok()
}

/// True if the entries are consecutive and follow the entry that the message names. That one must have a term, as Raft
/// takes the term of an entry that it lacks for 0.
fn are_consecutive(message: &Message) -> bool {
    let (mut index, mut term) = (message.index, message.log_term);
    let follow_one = (index > 0) == (term > 0);
    follow_one
        && message.get_entries().iter().all(|entry| {
            let follows = index.checked_add(1) == Some(entry.index) && (term..=message.term).contains(&entry.term);
            (index, term) = (entry.index, entry.term);
            follows && entry.term > 0
        })
}

fn is_sound_snapshot(snapshot: &Snapshot) -> bool {
    let record = SnapshotRecord::from(snapshot);
    let is_numbered = (1..=COUNT_MAX).contains(&record.index) && (1..=COUNT_MAX).contains(&record.term);
    is_numbered && record.configuration.is_sound() && postcard::from_bytes::<Map>(&record.map).is_ok()
}

impl Configuration {
    /// True if Raft can have reached this configuration: it panics at others.
    pub(super) fn is_sound(&self) -> bool {
        let Self { voters, learners, voters_outgoing: outgoing, learners_next, auto_leave } = self;
        let distinct =
            |ids: &[u64]| ids.iter().all(|id| *id != 0 && ids.iter().filter(|&other| other == id).count() == 1);
        let disjoint = |one: &[u64], other: &[u64]| one.iter().all(|id| !other.contains(id));
        !voters.is_empty()
            && voters.len() + learners.len() + outgoing.len() + learners_next.len() <= 4 * MEMBERS_MAX
            && [voters, learners, outgoing, learners_next].iter().all(|ids| distinct(ids))
            && disjoint(learners, voters)
            && disjoint(learners, outgoing)
            && disjoint(learners_next, voters)
            && learners_next.iter().all(|id| outgoing.contains(id))
            && (!outgoing.is_empty() || !auto_leave)
    }
}

impl From<&HardState> for Hard {
    fn from(state: &HardState) -> Self {
        Self { term: state.term, vote: state.vote, commit: state.commit }
    }
}

impl From<&Entry> for LogEntry {
    fn from(entry: &Entry) -> Self {
        Self {
            is_configuration: entry.get_entry_type() != EntryType::EntryNormal,
            term: entry.term,
            index: entry.index,
            data: entry.data.to_vec(),
            context: entry.context.to_vec(),
        }
    }
}

impl From<&LogEntry> for Entry {
    fn from(record: &LogEntry) -> Self {
        let mut entry = Self::default();
        if record.is_configuration {
            entry.set_entry_type(EntryType::EntryConfChangeV2);
        }
        (entry.term, entry.index) = (record.term, record.index);
        (entry.data, entry.context) = (record.data.clone().into(), record.context.clone().into());
        entry
    }
}

impl From<&ConfState> for Configuration {
    fn from(state: &ConfState) -> Self {
        // Raft lists them in the order of its hash tables.
        let sorted = |ids: &[u64]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        Self {
            voters: sorted(state.get_voters()),
            learners: sorted(state.get_learners()),
            voters_outgoing: sorted(state.get_voters_outgoing()),
            learners_next: sorted(state.get_learners_next()),
            auto_leave: state.auto_leave,
        }
    }
}

impl From<&Configuration> for ConfState {
    fn from(configuration: &Configuration) -> Self {
        let mut state = Self::default();
        state.set_voters(configuration.voters.clone());
        state.set_learners(configuration.learners.clone());
        state.set_voters_outgoing(configuration.voters_outgoing.clone());
        state.set_learners_next(configuration.learners_next.clone());
        state.auto_leave = configuration.auto_leave;
        state
    }
}

impl From<&Snapshot> for SnapshotRecord {
    fn from(snapshot: &Snapshot) -> Self {
        let metadata = snapshot.get_metadata();
        Self {
            index: metadata.index,
            term: metadata.term,
            configuration: metadata.get_conf_state().into(),
            map: snapshot.data.to_vec(),
        }
    }
}

impl From<&SnapshotRecord> for Snapshot {
    fn from(record: &SnapshotRecord) -> Self {
        let mut snapshot = Self { data: record.map.clone().into(), ..Self::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (record.index, record.term);
        metadata.set_conf_state((&record.configuration).into());
        snapshot
    }
}
