//! A real node, and stand-ins for the rest of its cluster.
//!
//! | group | the node's role |
//! |---|---|
//! | 0 | primary, with the others in sync |
//! | 1 | primary, with one in-sync holder and one learner |
//! | 2 | in sync; the second node is primary |
//! | 3 | learner; the second node is primary |
//! | 4 | not a holder |

use crate::membership::{self, address};
use crate::number::{Name, Number, PeerIdentity};
use crate::raft;
use crate::replication::{self, Addressed, Known, key};
use arbitrary::Arbitrary;
use pinion::cluster::agreement::{Changes, Config, Configuration, Disk, Hard, MemoryDisk, SnapshotRecord};
use pinion::cluster::frame::{self, FRAME_BYTES_MAX, Kind};
use pinion::cluster::map::{self, Change, GroupChange, Map, MemberState, State};
use pinion::cluster::membership::{Contact, HeartbeatTiming, Profile, To};
use pinion::cluster::{Epoch, Identity, Member, NodeId};
use pinion::node::{Action, Event, Node};
use pinion::replication::{Body, Completion, Level, Message, Position, Rules, Store, Ticket};
use pinion::slots::Group;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use store::NaiveStore;

#[allow(dead_code)]
#[path = "../../../tests/sim/store.rs"]
mod store;

pub const CLUSTER: u64 = 7;
/// Groups that the node manages.
pub const GROUPS: u16 = 5;

const OWN: Identity = Identity { node: NodeId(1), incarnation: 1 };
const SECOND: Identity = Identity { node: NodeId(2), incarnation: 1 };
const THIRD: Identity = Identity { node: NodeId(3), incarnation: 1 };
const START_MS: u64 = 1_000_000;
/// Ticks at the start, within which a node that votes alone is elected.
const ELECTION_STEPS_MAX: usize = 40;
/// Actions per event, at most.
const ACTIONS_MAX: usize = 50_000;
/// Frames kept for the peers to answer.
const KEPT_MAX: usize = 256;

/// Whether the node leads the agreement, as the only voter, or follows the second node.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Leads,
    Follows,
}

/// A connection, and the sender and receiver that its messages claim.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Sender {
    node: Name,
    addressed: Addressed,
}

pub struct Cluster {
    node: Node<MemoryDisk>,
    store: NaiveStore,
    now: u64,
    /// The latest epoch of each group mentioned in a message.
    epochs: BTreeMap<u16, Epoch>,
    /// The approximate end of Raft's log.
    raft_last: u64,
    /// Frames sent to each peer.
    sent: BTreeMap<NodeId, Vec<Vec<u8>>>,
    tickets: Ticket,
    parked: BTreeSet<Ticket>,
}

impl Cluster {
    pub fn new(part: Part) -> Self {
        let profile = Profile { member: member(1), incarnation: 1, raft_id: 1, address: address(OWN.node) };
        let settings = pinion::node::Settings {
            membership: pinion::cluster::membership::Settings {
                profile,
                seeds: vec![address(SECOND.node)],
                cluster: Some(CLUSTER),
                fresh_cluster: CLUSTER,
                seed: 1,
                timing: HeartbeatTiming::default(),
            },
            agreement: Config::new(OWN, 1, 1),
            cluster: map::Settings { replicas: 3, min_in_sync: 2 },
            backlog_bytes: 4 << 10,
            moves_max: 8,
            groups: (0..usize::from(GROUPS)).map(Group::numbered).collect(),
            rules: Rules::default(),
        };
        static DISKS: OnceLock<[MemoryDisk; 2]> = OnceLock::new();
        let disks = DISKS.get_or_init(|| [disk(&[1], &[2, 3]), disk(&[1, 2, 3], &[])]);
        let disk = disks[usize::from(part == Part::Follows)].clone();
        let mut cluster = Self {
            node: Node::new(settings, disk, START_MS).expect("the disk is sound"),
            store: NaiveStore::default(),
            now: START_MS,
            epochs: BTreeMap::new(),
            raft_last: 1,
            sent: BTreeMap::new(),
            tickets: 0,
            parked: BTreeSet::new(),
        };
        cluster.pass(1);
        match part {
            Part::Follows => {
                cluster.receive(SECOND.node, Kind::Agreement, &raft::short(raft::HEARTBEAT, 2, 2, 0, 1, Vec::new()));
            }
            Part::Leads => {
                let waits = (0..ELECTION_STEPS_MAX).find(|_| {
                    cluster.pass(50);
                    cluster.node.agreement().leads()
                });
                assert!(waits.is_some(), "who votes alone leads");
            }
        }
        // The leases that a primary usually holds.
        for peer in [SECOND, THIRD] {
            let grant = Message::LeaseGrant { sent_at: cluster.now, map_version: 1 };
            cluster.receive(peer.node, Kind::Replication, &(peer, Some(OWN), grant));
        }
        cluster
    }

    // Events.

    /// Passes `ms` milliseconds, with one tick.
    pub fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.step(Event::Tick);
    }

    pub fn leave(&mut self) {
        self.step(Event::Leave);
    }

    pub fn receive_replication(&mut self, sender: Sender, message: &replication::Message) {
        let number = message.group().filter(|&group| group < GROUPS);
        let message = message.of(self.known(number.unwrap_or(0)));
        if let Message::Group { group, epoch, .. } = message {
            self.epochs.insert(group, epoch);
        }
        let usual = Identity { node: sender.node.node(), incarnation: 1 };
        let (from, to) = match sender.addressed {
            Addressed::Well => (usual, Some(OWN)),
            Addressed::From(peer) => (peer.identity(), Some(OWN)),
            Addressed::To(peer) => (usual, peer.map(PeerIdentity::identity)),
        };
        self.receive(sender.node.node(), Kind::Replication, &(from, to, message));
    }

    pub fn receive_membership(&mut self, sender: Sender, message: &membership::Message) {
        let profile = Profile { member: member(1), incarnation: 1, raft_id: 1, address: address(OWN.node) };
        let own = Contact { cluster: CLUSTER, renewal: 0, profile };
        let message = message.of(own, self.node.agreement().term(), self.node.map().version());
        let from = Identity { node: sender.node.node(), incarnation: 1 };
        self.receive(sender.node.node(), Kind::Membership, &(from, None::<Identity>, message));
    }

    pub fn receive_raft(&mut self, sender: Sender, message: &raft::Message) {
        let from = sender.node.node();
        let message = message.of(from, self.node.agreement().term(), self.raft_last, self.node.map());
        let last = message.7.last().map(|entry| entry.index);
        self.receive(from, Kind::Agreement, &message);
        self.raft_last = last.filter(|&last| last < 1_000).unwrap_or(self.raft_last);
    }

    pub fn receive_body(&mut self, sender: Sender, kind: u8, body: &[u8]) {
        let kind = [Kind::Agreement, Kind::Membership, Kind::Replication][usize::from(kind % 3)];
        let mut bytes = Vec::new();
        frame::encode(kind, &Raw(body), &mut bytes);
        self.step(Event::Frame { from: sender.node.node(), bytes: &bytes });
    }

    /// A peer answers all frames it was sent, as a correct one does.
    pub fn answer(&mut self, name: Name) {
        let node = name.node();
        let peer = Identity { node, incarnation: 1 };
        for frame in self.sent.remove(&node).unwrap_or_default() {
            if let Some(answer) = raft::answer(&frame, node.0) {
                self.raft_last = self.raft_last.max(answer.6);
                self.receive(node, Kind::Agreement, &answer);
            } else if let Some(answer) = self.answer_replication(&frame) {
                self.receive(node, Kind::Replication, &(peer, Some(OWN), answer));
            }
        }
    }

    fn answer_replication(&self, frame: &[u8]) -> Option<Message> {
        let frame = frame::decode(frame).ok().filter(|frame| frame.kind == Kind::Replication)?;
        let (.., message) = frame.read::<(Identity, Option<Identity>, Message)>().expect("the node has sent it");
        match message {
            Message::LeaseRequest { sent_at } => Some(Message::LeaseGrant { sent_at, map_version: 1 }),
            Message::LeaseGrant { .. } => None,
            Message::Group { group, epoch, body } => {
                let body = match body {
                    Body::Append { previous, entries, committed, .. } => Body::Acknowledge {
                        matched: entries.last().map_or(previous.seq, |entry| entry.at.seq),
                        committed,
                        snapshot: None,
                    },
                    Body::SnapshotBegin { id, .. } => Body::SnapshotAcknowledge { id, next_chunk: 1 },
                    Body::SnapshotChunk { id, number, .. } => Body::SnapshotAcknowledge { id, next_chunk: number + 1 },
                    _ => return None,
                };
                Some(Message::Group { group, epoch, body })
            }
        }
    }

    /// Executes a client's request, as a shard does.
    pub fn request(
        &mut self,
        group: u8,
        key_number: u8,
        level: u8,
        effect: Option<&replication::Effect>,
        token: Option<(u8, Number)>,
    ) {
        let known = self.known(u16::from(group) % GROUPS);
        let group = Group::numbered(usize::from(u16::from(group) % GROUPS));
        let level = [Level::Eventual, Level::Session, Level::Strong][usize::from(level % 3)];
        let token = token.map(|(epoch, seq)| Position { epoch: Epoch(epoch.into()), seq: seq.around(known.last) });
        let key = key(key_number);
        if self.node.replication().admit(group, &key, level, effect.is_some(), token, self.now).is_err() {
            return;
        }
        if let Some(effect) = effect {
            let effect = effect.of(known);
            let at =
                self.node.replication().next_position(group).expect("the request was admitted, so the group is held");
            self.store.apply(group, &effect, at);
            self.node.replication_mut().record(group, effect);
        }
        self.tickets += 1;
        if let Completion::Parked(_) =
            self.node.replication_mut().complete_request(group, level, self.tickets, self.now)
        {
            self.parked.insert(self.tickets);
        }
        let mut actions = Vec::new();
        self.node.flush(self.now, &mut self.store, &mut actions);
        self.dispatch(actions);
    }

    // The node.

    fn known(&self, group: u16) -> Known {
        let map = self.node.map();
        let assigned = map.assignment(Group::numbered(group.into())).epoch;
        let spoken = self.epochs.get(&group).copied().unwrap_or_default();
        let next = self.node.replication().next_position(Group::numbered(group.into()));
        Known {
            now: self.now,
            map_version: map.version(),
            epoch: assigned.max(spoken),
            last: next.map_or(0, |next| next.seq - 1),
        }
    }

    fn receive(&mut self, from: NodeId, kind: Kind, body: &impl Serialize) {
        let mut bytes = Vec::new();
        frame::encode(kind, body, &mut bytes);
        self.step(Event::Frame { from, bytes: &bytes });
    }

    fn step(&mut self, event: Event) {
        let mut actions = Vec::new();
        let _ = self.node.step(event, self.now, &mut self.store, &mut actions);
        self.dispatch(actions);
    }

    fn dispatch(&mut self, actions: Vec<Action>) {
        assert!(actions.len() <= ACTIONS_MAX, "{} actions", actions.len());
        for action in actions {
            match action {
                Action::Send { to, frame } => {
                    assert!(frame.len() <= FRAME_BYTES_MAX && frame::decode(&frame).is_ok(), "a frame of the node's");
                    if let To::Node(node) = to {
                        let sent = self.sent.entry(node).or_default();
                        sent.push(frame);
                        sent.drain(..sent.len().saturating_sub(KEPT_MAX));
                    }
                }
                Action::Answer { ticket, .. } => {
                    assert!(self.parked.remove(&ticket), "an answer that nobody waits for")
                }
                Action::News(_) | Action::Emptied(_) | Action::Stopped(_) => {}
            }
        }
    }
}

fn member(id: u64) -> Member {
    Member { id: NodeId(id), zone: "z".into(), memory_bytes: 1 << 30 }
}

/// The disk of a node that has been in the cluster for a while, with these voters and learners.
fn disk(voters: &[u64], learners: &[u64]) -> MemoryDisk {
    let configuration =
        Configuration { voters: voters.to_vec(), learners: learners.to_vec(), ..Configuration::default() };
    let snapshot = SnapshotRecord { index: 1, term: 1, configuration, map: encoded(&first_map()) };
    let hard = Hard { term: 1, vote: 0, commit: 1 };
    let mut disk = MemoryDisk::default();
    disk.save(&Changes { raft: Some(1), hard: Some(hard), snapshot: Some(snapshot), entries: Vec::new() })
        .expect("nothing is wrong with it");
    disk
}

fn first_map() -> Map {
    let mut map = Map::empty();
    let settings = map::Settings { replicas: 3, min_in_sync: 2 };
    let at = |id| address(NodeId(id));
    let first = MemberState { member: member(1), incarnation: 1, raft: 1, address: at(1), state: State::Up };
    let mut apply = |change| map.apply(&change).expect("it follows from the last");
    apply(Change::Bootstrap { cluster: CLUSTER, settings, first });
    for id in [2, 3] {
        apply(Change::Join { member: member(id), incarnation: 1, raft: id, address: at(id) });
    }
    let mut epoch = 1;
    let mut holders =
        |groups: std::ops::Range<usize>, primary, in_sync: &[Identity], learners: &[Identity], expected| {
            let change = |number| GroupChange {
                group: Group::numbered(number),
                expected: Epoch(expected),
                primary,
                in_sync: in_sync.to_vec(),
                learners: learners.to_vec(),
            };
            apply(Change::Groups(groups.map(change).collect()));
        };
    holders(0..5, OWN, &[OWN], &[SECOND, THIRD], epoch);
    epoch += 1;
    holders(0..5, OWN, &[OWN, SECOND, THIRD], &[], epoch);
    epoch += 1;
    holders(1..2, OWN, &[OWN, SECOND], &[THIRD], epoch);
    holders(2..3, SECOND, &[SECOND, OWN, THIRD], &[], epoch);
    holders(3..4, SECOND, &[SECOND, THIRD], &[OWN], epoch);
    holders(4..5, SECOND, &[SECOND, THIRD], &[], epoch);
    without_others(&map)
}

/// The map reduced to the groups that the node manages, as if no others had been opened: decoding it is much faster.
fn without_others(map: &Map) -> Map {
    type Assignment = (u32, u32, Vec<u16>, Vec<u16>);
    type Wire = (u64, u64, map::Settings, u64, Vec<MemberState>, Vec<Identity>, Vec<Assignment>);
    let mut wire: Wire = postcard::from_bytes(&encoded(map)).expect("this is how maps are written");
    wire.6[usize::from(GROUPS)..].fill(Assignment::default());
    postcard::from_bytes(&encoded(&wire)).expect("groups that were never opened have no holders")
}

pub fn encoded(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("postcard encodes it")
}

/// Raw bytes as a body.
struct Raw<'b>(&'b [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple;
        let mut bytes = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|byte| bytes.serialize_element(byte))?;
        bytes.end()
    }
}
