//! Scenarios of the safety rules: each shows what a rule is for, and fails as soon as the rule is broken.
//!
//! A [`Cluster`] is some nodes, one map, and a wire. Nothing happens by itself: a scenario says which frames are
//! delivered, held back or lost, when time passes, what the map decides and which nodes learn of it.
//!
//! | file | rules |
//! |---|---|
//! | `failover.rs` | which node may serve after the primary is gone, and with which data |
//! | `safety.rs` | what may be acknowledged, and what may be read |
//! | `snapshot.rs` | snapshots alongside the log |
//! | `hostile.rs` | frames that no peer sends which follows the protocol |
//! | `model.rs` | logs and replica states against naive models |
//! | `wire.rs` | frames in flight, and what a scenario does to them |
//! | `client.rs`, `store.rs` | how a node executes requests, and its naive store |

mod client;
mod failover;
mod hostile;
mod model;
mod safety;
mod snapshot;
mod store;
mod wire;

use super::*;
use crate::cluster::Member;
use crate::cluster::map::{Applied, Change, MemberState, Settings};
use client::{Asked, Fate};
use store::NaiveStore;
use wire::Frame;

/// Milliseconds between two ticks.
const TICK_MS: Ms = 10;
/// Bytes of the log that each node keeps.
const BACKLOG_BYTES: usize = 1 << 20;
/// The initial wall-clock time of all nodes.
const WALL_MS: u64 = 1_700_000_000_000;

/// Checks that a scenario holds, and that it fails without the rule.
fn assert_needed(rule: Rule, is_kept: fn(Rules) -> bool) {
    assert!(is_kept(Rules::default()), "the scenario fails with all rules");
    assert!(!is_kept(Rules::without(rule)), "the scenario holds without {rule:?}");
}

/// The group of all keys: number 0, so that its next primary is the one with the least identity.
fn group() -> Group {
    let group = Group::of(&key("x"));
    assert_eq!(group.index(), 0);
    group
}

/// The key that a scenario names by a letter.
fn key(letter: &str) -> Key {
    format!("{{raw}}{letter}").into_bytes().into()
}

/// A node, with its monotonic clock and its wall clock ahead of the scenario's time.
struct Node {
    identity: Identity,
    replication: Replication,
    store: NaiveStore,
    clock_ahead_ms: Ms,
    wall_ahead_ms: u64,
    is_up: bool,
}

/// The nodes, the map, and the frames between nodes.
struct Cluster {
    rules: Rules,
    map: Map,
    nodes: Vec<Node>,
    wire: Vec<Frame>,
    holds_back: fn(&Frame) -> bool,
    cut: BTreeSet<(usize, usize)>,
    now: Ms,
    asked: Vec<Asked>,
    proposed: Vec<GroupChange>,
}

impl Cluster {
    /// A cluster of `nodes` nodes, of which the first `copies` hold the group in sync, the first as primary. Strong
    /// requests need `copies - 1` in-sync holders.
    fn new(nodes: usize, copies: usize, rules: Rules) -> Self {
        let mut map = Map::empty();
        let state = |node: usize| MemberState {
            member: Member { id: NodeId(node as u64), zone: String::new(), memory_bytes: 1 << 30 },
            incarnation: 1,
            raft: node as u64 + 1,
            address: format!("node{node}:11290"),
            state: State::Up,
        };
        let settings = Settings { replicas: 3, min_in_sync: (copies as u8).saturating_sub(1).max(1) };
        map.apply(&Change::Bootstrap { cluster: 7, settings, first: state(0) }).expect("a cluster");
        for node in 1..nodes {
            let MemberState { member, incarnation, raft, address, .. } = state(node);
            map.apply(&Change::Join { member, incarnation, raft, address }).expect("a member");
        }
        let node = |node: usize| {
            let identity = Identity { node: NodeId(node as u64), incarnation: 1 };
            let (replication, store) = (Replication::new(identity, BACKLOG_BYTES, rules), NaiveStore::default());
            Node { identity, replication, store, clock_ahead_ms: 1_000_000 * node as Ms, wall_ahead_ms: 0, is_up: true }
        };
        let mut cluster = Self {
            rules,
            map,
            nodes: (0..nodes).map(node).collect(),
            wire: Vec::new(),
            holds_back: |_| false,
            cut: BTreeSet::new(),
            now: 0,
            asked: Vec::new(),
            proposed: Vec::new(),
        };
        cluster.tell_all();
        if copies > 1 {
            cluster.regroup(0, &[0], &(1..copies).collect::<Vec<_>>());
            cluster.tell_all();
        }
        cluster.run_agreeing(300);
        assert_eq!(cluster.map.assignment(group()).in_sync.len(), copies);
        cluster
    }

    // The map.

    /// Decides who holds the group.
    fn regroup(&mut self, primary: usize, in_sync: &[usize], learners: &[usize]) {
        let identities = |nodes: &[usize]| nodes.iter().map(|&node| self.nodes[node].identity).collect();
        let (in_sync, learners) = (identities(in_sync), identities(learners));
        let (expected, primary) = (self.map.assignment(group()).epoch, self.nodes[primary].identity);
        self.decide(GroupChange { group: group(), expected, primary, in_sync, learners });
    }

    fn decide(&mut self, change: GroupChange) {
        self.map.apply(&Change::Groups(vec![change])).expect("a map");
    }

    /// Decides the last proposal. False if there was none.
    fn decide_proposed(&mut self) -> bool {
        let change = self.proposed.pop();
        self.proposed.clear();
        change.map(|change| self.decide(change)).is_some()
    }

    /// Decides that a node is down, whether it is or not. No node learns of it yet.
    fn declare_down(&mut self, node: usize) {
        let identity = self.nodes[node].identity;
        assert_eq!(self.map.apply(&Change::Down { identity }), Ok(Applied::Changed));
    }

    /// A node crashes, the map declares it down, and all others learn of it.
    fn crash(&mut self, node: usize) {
        self.nodes[node].is_up = false;
        self.declare_down(node);
        self.tell_all();
    }

    /// The primary that the map names.
    fn primary(&self) -> usize {
        let primary = self.map.assignment(group()).primary;
        self.nodes.iter().position(|node| Some(node.identity) == primary).expect("a primary")
    }

    /// The nodes that have not crashed.
    fn up(&self) -> std::vec::IntoIter<usize> {
        let up = (0..self.nodes.len()).filter(|&node| self.nodes[node].is_up);
        up.collect::<Vec<_>>().into_iter()
    }

    fn tell(&mut self, node: usize) {
        let mut actions = Vec::new();
        let now = self.clock(node);
        let Node { replication, store, .. } = &mut self.nodes[node];
        replication.map_changed(&self.map, [group()], now, store, &mut actions);
        self.dispatch(node, actions);
    }

    fn tell_all(&mut self) {
        self.up().for_each(|node| self.tell(node));
    }

    /// A node has reported another as unreachable, and fences it.
    fn fence(&mut self, node: usize, against: usize) {
        let against = self.nodes[against].identity;
        self.nodes[node].replication.set_fenced(BTreeSet::from([against]));
    }

    // Time.

    fn clock(&self, node: usize) -> Ms {
        self.now + self.nodes[node].clock_ahead_ms
    }

    /// Passes time without deciding proposals.
    fn run(&mut self, ms: Ms) {
        for _ in 0..ms / TICK_MS {
            self.now += TICK_MS;
            for node in self.up() {
                let (now, mut actions) = (self.clock(node), Vec::new());
                let Node { identity, replication, store, .. } = &mut self.nodes[node];
                // These scenarios do not depend on the leader: each node counts as its own.
                replication.note_leader(identity.node, now, now);
                replication.tick(now, store, &mut actions);
                self.dispatch(node, actions);
            }
            self.deliver();
        }
    }

    /// Passes time, decides proposals, and distributes the map.
    fn run_agreeing(&mut self, ms: Ms) {
        for _ in 0..ms / TICK_MS {
            self.run(TICK_MS);
            if self.decide_proposed() {
                self.tell_all();
                self.deliver();
            }
        }
    }
}
