//! Messages of Raft, in the encoding of `cluster/agreement/wire.rs`: postcard encodes a struct as its fields.

use crate::cluster::{CLUSTER, encoded};
use crate::membership::ArbitraryProfile;
use crate::number::{Name, Number, PeerIdentity};
use arbitrary::Arbitrary;
use pinion::cluster::agreement::{Configuration, LogEntry, SnapshotRecord};
use pinion::cluster::frame::{self, Kind};
use pinion::cluster::map::{Change, GroupChange, Map};
use pinion::cluster::{Epoch, Identity, NodeId};
use pinion::slots::Group;

/// The fields of a message.
pub type Envelope =
    (u64, u8, u64, u64, u64, u64, u64, Vec<LogEntry>, u64, u64, Option<SnapshotRecord>, bool, u64, Vec<u8>);

/// The encoded numbers of some message types.
pub const APPEND: u8 = 1;
pub const APPEND_RESPONSE: u8 = 2;
pub const VOTE: u8 = 3;
pub const VOTE_RESPONSE: u8 = 4;
pub const HEARTBEAT: u8 = 6;
pub const HEARTBEAT_RESPONSE: u8 = 7;
pub const PRE_VOTE: u8 = 11;
pub const PRE_VOTE_RESPONSE: u8 = 12;

#[derive(Arbitrary, Debug)]
pub struct Message {
    is_foreign: bool,
    kind: u8,
    to: Option<Number>,
    from: Option<Number>,
    term: Option<Number>,
    log_term: Number,
    index: Number,
    entries: Vec<Entry>,
    commit: Number,
    commit_term: Number,
    snapshot: Option<Snapshot>,
    is_rejected: bool,
    reject_hint: Number,
    context: Vec<u8>,
}

/// `Next`: an entry that follows the previous one.
#[derive(Arbitrary, Debug)]
enum Entry {
    Next(Data),
    Any { is_configuration: bool, term: Number, index: Number, data: Data, context: Vec<u8> },
    Configuration(Vec<(u8, Number)>),
}

#[derive(Arbitrary, Debug)]
enum Data {
    Bytes(Vec<u8>),
    Proposal { origin: PeerIdentity, ticket: Number, change: ArbitraryChange },
}

/// A change of the map.
#[derive(Arbitrary, Debug)]
enum ArbitraryChange {
    Join(ArbitraryProfile),
    Leave(Name),
    Remove(Name),
    Down(PeerIdentity),
    Group {
        group: u8,
        expected: Option<Number>,
        primary: PeerIdentity,
        in_sync: Vec<PeerIdentity>,
        learners: Vec<PeerIdentity>,
    },
    Holders {
        group: u8,
        primary: Name,
        in_sync: [bool; 3],
        learners: [bool; 3],
    },
}

#[derive(Arbitrary, Debug)]
struct Snapshot {
    index: Number,
    term: Number,
    voters: Vec<u8>,
    learners: Vec<u8>,
    outgoing: Vec<u8>,
    learners_next: Vec<u8>,
    auto_leave: bool,
    map: SnapshotMap,
}

/// The map in a snapshot.
#[derive(Arbitrary, Debug)]
enum SnapshotMap {
    Bytes(Vec<u8>),
    After(Vec<ArbitraryChange>),
}

impl ArbitraryChange {
    fn change(&self, map: &Map) -> Change {
        let group = |number: u8| Group::numbered(usize::from(number) % usize::from(crate::cluster::GROUPS));
        match self {
            Self::Join(profile) => {
                let profile = profile.profile();
                Change::Join {
                    member: profile.member,
                    incarnation: profile.incarnation,
                    raft: profile.raft_id,
                    address: profile.address,
                }
            }
            Self::Leave(name) => Change::Leave { node: name.node() },
            Self::Remove(name) => Change::Remove { node: name.node() },
            Self::Down(peer) => Change::Down { identity: peer.identity() },
            Self::Group { group: number, expected, primary, in_sync, learners } => {
                let group = group(*number);
                let epoch = map.assignment(group).epoch;
                let peers = |peers: &[PeerIdentity]| peers.iter().map(|peer| peer.identity()).collect();
                Change::Groups(vec![GroupChange {
                    group,
                    expected: expected.map_or(epoch, |expected| expected.epoch(epoch)),
                    primary: primary.identity(),
                    in_sync: peers(in_sync),
                    learners: peers(learners),
                }])
            }
            Self::Holders { group: number, primary, in_sync, learners } => {
                let group = group(*number);
                let one = |node| Identity { node: NodeId(node), incarnation: 1 };
                let of = |are: &[bool; 3]| (1..=3).zip(are).filter(|(_, is)| **is).map(|(node, _)| one(node)).collect();
                let Epoch(expected) = map.assignment(group).epoch;
                Change::Groups(vec![GroupChange {
                    group,
                    expected: Epoch(expected),
                    primary: Identity { node: primary.node(), incarnation: 1 },
                    in_sync: of(in_sync),
                    learners: of(learners),
                }])
            }
        }
    }
}

impl Data {
    fn bytes(&self, map: &Map) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Proposal { origin, ticket, change } => {
                encoded(&(origin.identity(), ticket.around(1), change.change(map)))
            }
        }
    }
}

impl Snapshot {
    fn record(&self, term: u64, last: u64, map: &Map) -> SnapshotRecord {
        let ids = |ids: &[u8]| ids.iter().map(|&id| u64::from(id % 6)).collect();
        let map = match &self.map {
            SnapshotMap::Bytes(bytes) => bytes.clone(),
            SnapshotMap::After(changes) => {
                let mut map = map.clone();
                for change in changes.iter().take(4) {
                    let change = change.change(&map);
                    let _ = map.apply(&change);
                }
                encoded(&map)
            }
        };
        SnapshotRecord {
            index: self.index.around(last),
            term: self.term.around(term),
            configuration: Configuration {
                voters: ids(&self.voters),
                learners: ids(&self.learners),
                voters_outgoing: ids(&self.outgoing),
                learners_next: ids(&self.learners_next),
                auto_leave: self.auto_leave,
            },
            map,
        }
    }
}

impl Message {
    /// The message from a node to a receiver in `term` whose log ends near `last`.
    pub fn of(&self, from: NodeId, term: u64, last: u64, map: &Map) -> Envelope {
        let or = |number: Option<Number>, usual: u64| number.map_or(usual, |number| number.around(usual));
        let (sent_term, log_term, index) = (or(self.term, term), self.log_term.around(term), self.index.around(last));
        let mut next = index;
        let entry = |entry: &Entry| {
            next = next.saturating_add(1);
            match entry {
                Entry::Next(data) => {
                    LogEntry { term: sent_term, index: next, data: data.bytes(map), ..LogEntry::default() }
                }
                Entry::Any { is_configuration, term: other, index, data, context } => LogEntry {
                    is_configuration: *is_configuration,
                    term: other.around(term),
                    index: index.around(last),
                    data: data.bytes(map),
                    context: context.clone(),
                },
                Entry::Configuration(changes) => {
                    let change = |&(number, id): &(u8, Number)| (number % 4, id.around(2));
                    let changes: Vec<(u8, u64)> = changes.iter().take(8).map(change).collect();
                    let context = encoded(&changes);
                    LogEntry { is_configuration: true, term: sent_term, index: next, context, data: Vec::new() }
                }
            }
        };
        (
            if self.is_foreign { CLUSTER + 1 } else { CLUSTER },
            self.kind % 16,
            or(self.to, 1),
            or(self.from, from.0),
            sent_term,
            log_term,
            index,
            self.entries.iter().take(16).map(entry).collect(),
            self.commit.around(last),
            self.commit_term.around(term),
            self.snapshot.as_ref().map(|snapshot| snapshot.record(term, last, map)),
            self.is_rejected,
            self.reject_hint.around(last),
            self.context.clone(),
        )
    }
}

/// A message of a type with few fields.
pub fn short(kind: u8, from: u64, term: u64, index: u64, commit: u64, context: Vec<u8>) -> Envelope {
    (CLUSTER, kind, 1, from, term, 0, index, Vec::new(), commit, 0, None, false, 0, context)
}

/// The answer of a correct peer.
pub fn answer(frame: &[u8], from: u64) -> Option<Envelope> {
    let envelope: Envelope = frame::decode(frame).ok().filter(|frame| frame.kind == Kind::Agreement)?.read().ok()?;
    let (_, kind, _, _, term, _, index, entries, .., context) = envelope;
    match kind {
        APPEND => {
            let last = entries.last().map_or(index, |entry| entry.index);
            Some(short(APPEND_RESPONSE, from, term, last, 0, Vec::new()))
        }
        VOTE => Some(short(VOTE_RESPONSE, from, term, 0, 0, Vec::new())),
        PRE_VOTE => Some(short(PRE_VOTE_RESPONSE, from, term, 0, 0, Vec::new())),
        HEARTBEAT => Some(short(HEARTBEAT_RESPONSE, from, term, 0, 0, context)),
        _ => None,
    }
}
