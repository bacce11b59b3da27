//! A network of members in one thread, in virtual time: a seed decides which messages are delayed, lost or cut off.

use super::super::*;
use crate::cluster::Epoch;
use crate::cluster::map::{Applied, GroupChange};
use crate::slots::Group;
use std::collections::BTreeSet;
use twox_hash::XxHash3_64;

/// Few, so that every scenario involves snapshots.
const SNAPSHOT_ENTRIES: usize = 30;

/// A node: running, or only its disk.
struct Node {
    member: Option<Agreement<MemoryDisk>>,
    disk: MemoryDisk,
    incarnation: u64,
    raft: u64,
}

/// The result of a proposal or read.
pub(super) type Outcome = Result<Answer, AgreementError>;

pub(super) struct Network {
    pub(super) now_ms: u64,
    /// Message loss, in permille.
    pub(super) loss_permille: u64,
    pub(super) delay_ms_max: u64,
    /// Links, as (from, to), that drop all messages.
    pub(super) cuts: BTreeSet<(u64, u64)>,
    /// All answers, by node and ticket.
    pub(super) answers: BTreeMap<(u64, u64), Outcome>,
    /// Some peer breaks the protocol, so maps may differ.
    pub(super) is_byzantine: bool,
    /// By version: the hash of the map, which must be equal on all nodes.
    versions: BTreeMap<u64, u64>,
    nodes: BTreeMap<u64, Node>,
    /// Messages in flight, by time of arrival.
    flying: BTreeMap<(u64, u64), (u64, u64, Vec<u8>)>,
    sent: u64,
    tickets: u64,
    random: u64,
    /// A hash of all actions so far.
    pub(super) trace: u64,
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now_ms: 1_000,
            loss_permille: 0,
            delay_ms_max: 3,
            cuts: BTreeSet::new(),
            answers: BTreeMap::new(),
            is_byzantine: false,
            versions: BTreeMap::new(),
            nodes: BTreeMap::new(),
            flying: BTreeMap::new(),
            sent: 0,
            tickets: 0,
            random: seed,
            trace: 0,
        }
    }

    /// A cluster of `nodes` nodes that has converged.
    pub(super) fn cluster(seed: u64, nodes: u64) -> Self {
        let mut network = Self::new(seed);
        network.start(0);
        let (cluster, settings) = (7, Settings { replicas: 3, min_in_sync: 2 });
        let state = network.state(0);
        network.member_mut(0).bootstrap(cluster, settings, state.member, state.address).expect("a fresh node");
        network.run(200);
        for node in 1..nodes {
            network.start(node);
            network.join(node);
        }
        network.run(3_000);
        network
    }

    pub(super) fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(1);
        mix(self.random) % below
    }

    /// Starts a node: for the first time, after a crash, or with an empty disk if that was removed.
    pub(super) fn start(&mut self, node: u64) {
        let seed = self.random(u64::MAX);
        let fresh = Node { member: None, disk: MemoryDisk::default(), incarnation: 0, raft: 0 };
        let entry = self.nodes.entry(node).or_insert(fresh);
        assert!(entry.member.is_none(), "it runs");
        entry.incarnation += 1;
        let identity = Identity { node: NodeId(node), incarnation: entry.incarnation };
        let raft = 1_000 * entry.incarnation + node;
        let config = Config { snapshot_entries: SNAPSHOT_ENTRIES, ..Config::new(identity, raft, seed ^ node) };
        let member = Agreement::new(config, std::mem::take(&mut entry.disk), self.now_ms).expect("a whole disk");
        entry.raft = member.raft();
        entry.member = Some(member);
        self.note_version(node);
    }

    /// Kills a node. Its disk stays.
    pub(super) fn kill(&mut self, node: u64) {
        let node = self.nodes.get_mut(&node).expect("a node");
        node.disk = node.member.take().expect("it runs").into_disk();
    }

    pub(super) fn disk_mut(&mut self, node: u64) -> &mut MemoryDisk {
        let node = self.nodes.get_mut(&node).expect("a node");
        match &mut node.member {
            Some(member) => &mut member.disk,
            None => &mut node.disk,
        }
    }

    pub(super) fn member(&self, node: u64) -> &Agreement<MemoryDisk> {
        self.nodes[&node].member.as_ref().expect("it runs")
    }

    pub(super) fn member_mut(&mut self, node: u64) -> &mut Agreement<MemoryDisk> {
        self.nodes.get_mut(&node).expect("a node").member.as_mut().expect("it runs")
    }

    pub(super) fn running(&self) -> Vec<u64> {
        self.nodes.iter().filter(|(_, node)| node.member.is_some()).map(|(&id, _)| id).collect()
    }

    /// The leader of the latest term.
    pub(super) fn leader(&self) -> Option<u64> {
        let leads = |&node: &u64| self.member(node).is_leader();
        self.running().into_iter().filter(leads).max_by_key(|&node| self.member(node).term())
    }

    pub(super) fn identity(&self, node: u64) -> Identity {
        Identity { node: NodeId(node), incarnation: self.nodes[&node].incarnation }
    }

    /// A node's description of itself when it joins.
    pub(super) fn state(&self, node: u64) -> MemberState {
        let member = Member { id: NodeId(node), zone: format!("zone-{}", node % 3), memory_bytes: 1 << 34 };
        let Node { incarnation, raft, .. } = self.nodes[&node];
        MemberState { member, incarnation, raft, address: format!("10.0.0.{node}:11290"), state: State::Up }
    }

    /// Has the leader admit a running node.
    pub(super) fn join(&mut self, node: u64) {
        let MemberState { member, incarnation, raft, address, .. } = self.state(node);
        self.change(Change::Join { member, incarnation, raft, address });
    }

    /// Proposes a change to the leader until it is applied.
    pub(super) fn change(&mut self, change: Change) -> Applied {
        for _ in 0..20 {
            if let Some(leader) = self.leader() {
                let ticket = self.propose(leader, change.clone());
                match self.wait_for(leader, ticket) {
                    Ok(Answer::Applied(applied)) => return applied,
                    Err(AgreementError::NotTaken | AgreementError::Unknown) => {}
                    other => panic!("{change:?}: {other:?}"),
                }
            }
            self.run(500);
        }
        panic!("no leader takes it");
    }

    /// A change that only increments a group's epoch, as known to `node`.
    pub(super) fn touch(&self, node: u64, group: usize) -> Change {
        let group = Group::numbered(group);
        let old = self.member(node).map().assignment(group).clone();
        let primary = old.primary.expect("a primary");
        let expected = old.epoch;
        Change::Groups(vec![GroupChange { group, expected, primary, in_sync: old.in_sync, learners: old.learners }])
    }

    pub(super) fn epoch(&self, node: u64, group: usize) -> Epoch {
        self.member(node).map().assignment(Group::numbered(group)).epoch
    }

    pub(super) fn propose(&mut self, node: u64, change: Change) -> u64 {
        self.tickets += 1;
        let ticket = self.tickets;
        self.step(node, Event::Propose { ticket, change });
        ticket
    }

    pub(super) fn read(&mut self, node: u64) -> u64 {
        self.tickets += 1;
        let ticket = self.tickets;
        self.step(node, Event::Read { ticket });
        ticket
    }

    pub(super) fn wait_for(&mut self, node: u64, ticket: u64) -> Outcome {
        self.run_until(5_000, |network| network.answers.contains_key(&(node, ticket)));
        self.answers[&(node, ticket)].clone()
    }

    pub(super) fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ms += 1;
            while let Some((&key, _)) = self.flying.first_key_value().filter(|((at, _), _)| *at <= self.now_ms) {
                let (from, to, bytes) = self.flying.remove(&key).expect("it is the first");
                self.step(to, Event::Message { from: NodeId(from), bytes });
            }
            for node in self.running() {
                if (self.now_ms + 7 * node).is_multiple_of(10) {
                    self.step(node, Event::Tick);
                }
            }
        }
    }

    /// Runs until a condition holds, and returns how long that took.
    pub(super) fn run_until(&mut self, ms_max: u64, is_so: impl Fn(&Self) -> bool) -> u64 {
        let start = self.now_ms;
        while !is_so(self) {
            assert!(self.now_ms - start < ms_max, "it does not come to be so");
            self.run(1);
        }
        self.now_ms - start
    }

    pub(super) fn step(&mut self, node: u64, event: Event) {
        let now_ms = self.now_ms;
        let Some(member) = self.nodes.get_mut(&node).and_then(|node| node.member.as_mut()) else { return };
        let mut actions = Vec::new();
        member.step(event, now_ms, &mut actions);
        for action in actions {
            self.note(format!("{now_ms} {node}").as_bytes());
            match action {
                Action::Send { to, bytes } => {
                    self.note(&bytes);
                    self.send(node, to.0, bytes);
                }
                Action::Answer { ticket, result } => {
                    self.note(format!("{ticket} {result:?}").as_bytes());
                    let told_before = self.answers.insert((node, ticket), result);
                    assert_eq!(told_before, None, "each gets one answer");
                }
                Action::MapChanged => self.note_version(node),
                Action::Stopped(fault) => self.note(format!("{fault:?}").as_bytes()),
            }
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        self.trace = XxHash3_64::oneshot_with_seed(self.trace, bytes);
    }

    fn send(&mut self, from: u64, to: u64, bytes: Vec<u8>) {
        let is_lost = self.random(1_000) < self.loss_permille;
        let delay_ms = 1 + self.random(self.delay_ms_max);
        if !is_lost && !self.cuts.contains(&(from, to)) {
            self.sent += 1;
            self.flying.insert((self.now_ms + delay_ms, self.sent), (from, to, bytes));
        }
    }

    /// Checks that all nodes have the same map in each version.
    fn note_version(&mut self, node: u64) {
        let map = self.member(node).map();
        let version = map.version();
        let hash = XxHash3_64::oneshot(&encode_map(map));
        let known = *self.versions.entry(version).or_insert(hash);
        assert!(known == hash || self.is_byzantine, "node {node} has another version {version}");
    }

    /// Cuts all links between some nodes and the others.
    pub(super) fn isolate(&mut self, nodes: &[u64]) {
        let others: Vec<u64> = self.nodes.keys().copied().filter(|node| !nodes.contains(node)).collect();
        for (&node, &other) in nodes.iter().flat_map(|node| others.iter().map(move |other| (node, other))) {
            self.cuts.extend([(node, other), (other, node)]);
        }
    }

    /// The voters, as the leader sees them.
    pub(super) fn voters(&self) -> BTreeSet<u64> {
        let leader = self.member(self.leader().expect("a leader"));
        let configuration = leader.configuration();
        assert!(configuration.voters_outgoing.is_empty(), "between two configurations");
        configuration.voters.iter().map(|&raft| leader.node_of(raft).expect("a member").0).collect()
    }
}
