//! The simulated network. Raft is an oracle: it commits a leader's proposal after a delay, usually 50 ms, if the
//! proposer still leads and reaches more than half of the voters by then. The new map is sent repeatedly to all nodes
//! that the leader reaches.

use crate::cluster::membership::*;
use crate::cluster::{Identity, Member, NodeId};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(super) const CLUSTER: u64 = 0xc1;
const MAP_RETRY_MS: u64 = 50;
const CHECK_QUORUM_MS: u64 = 1000;

pub(super) struct Host {
    pub(super) membership: Membership,
    pub(super) profile: Profile,
    pub(super) is_running: bool,
    paused_until_ms: u64,
    wake_ms: u64,
    inbox: VecDeque<Event>,
    map_version: u64,
    leader: Option<Leader>,
}

pub(super) struct Net {
    pub(super) now_ms: u64,
    pub(super) rng: Xoshiro256PlusPlus,
    pub(super) loss: f64,
    pub(super) hosts: Vec<Host>,
    /// Delay from a proposal to its commit.
    pub(super) commit_ms: u64,
    /// Check-quorum: a leader that has not reached more than half of the members for a second steps down.
    pub(super) checks_quorum: bool,
    quorum_at_ms: u64,
    /// Links, as (from, to), that drop all messages.
    pub(super) cuts: BTreeSet<(usize, usize)>,
    pub(super) map: MapView,
    pub(super) leader: Option<Leader>,
    /// All actions except messages: time, host, action.
    pub(super) news: Vec<(u64, usize, Action)>,
    /// Incarnations that the map declared down, with the times of the proposals.
    pub(super) downs: Vec<(u64, Identity)>,
    /// By term and accused: the others at the time of the first proposal.
    others: BTreeMap<(u64, Identity), Vec<Identity>>,
    in_flight: BTreeMap<(u64, u64), (usize, usize, Message)>,
    proposals: VecDeque<Pending>,
    messages: u64,
    next_sync_ms: u64,
}

pub(super) fn address(host: usize) -> String {
    format!("10.0.0.{host}:7000")
}

pub(super) fn profile(node: u64, incarnation: u64, host: usize) -> Profile {
    let member = Member { id: NodeId(node), zone: format!("zone-{}", node % 3), memory_bytes: 16 << 30 };
    Profile { member, incarnation, raft_id: node ^ incarnation << 32, address: address(host) }
}

/// The first incarnation of a node of [`Net::cluster`].
pub(super) fn id(node: u64) -> Identity {
    Identity { node: NodeId(node), incarnation: 1 }
}

/// A proposal that is not committed yet.
struct Pending {
    commit_ms: u64,
    proposed_ms: u64,
    by: usize,
    term: u64,
    proposal: Proposal,
}

impl Net {
    /// No hosts, and an empty map of [`CLUSTER`].
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now_ms: 10_000,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            loss: 0.0,
            hosts: Vec::new(),
            commit_ms: 50,
            checks_quorum: true,
            quorum_at_ms: 0,
            cuts: BTreeSet::new(),
            map: MapView { cluster: CLUSTER, version: 0, members: BTreeMap::new() },
            leader: None,
            news: Vec::new(),
            downs: Vec::new(),
            others: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            proposals: VecDeque::new(),
            messages: 0,
            next_sync_ms: 0,
        }
    }

    /// A cluster of `nodes` members, node n on host n, in their first incarnations, with heartbeats at random phases.
    /// Node 0 leads.
    pub(super) fn cluster(nodes: u64, seed: u64) -> Self {
        let mut net = Self::new(seed);
        for node in 0..nodes {
            let host = net.start(profile(node, 1, node as usize), &[], Some(CLUSTER));
            let phase = net.rng.random_range(0..100);
            net.hosts[host].paused_until_ms = net.now_ms + phase;
            net.map.members.insert(NodeId(node), member_view(&net.hosts[host].profile));
        }
        net.map.version = 1;
        net.elect(0);
        net.run_ms(300);
        net
    }

    /// Starts a process on the host of its address, or on a new one.
    pub(super) fn start(&mut self, profile: Profile, seeds: &[usize], cluster: Option<u64>) -> usize {
        let settings = Settings {
            profile: profile.clone(),
            seeds: seeds.iter().map(|&host| address(host)).collect(),
            cluster,
            fresh_cluster: CLUSTER,
            seed: self.rng.random(),
            timing: HeartbeatTiming::default(),
        };
        let host = Host {
            membership: Membership::new(settings, self.now_ms),
            profile: profile.clone(),
            is_running: true,
            paused_until_ms: 0,
            wake_ms: self.now_ms,
            inbox: VecDeque::new(),
            map_version: 0,
            leader: None,
        };
        match (0..self.hosts.len()).find(|&number| address(number) == profile.address) {
            Some(number) => {
                self.hosts[number] = host;
                number
            }
            None => {
                assert_eq!(address(self.hosts.len()), profile.address);
                self.hosts.push(host);
                self.hosts.len() - 1
            }
        }
    }

    /// Before an election, commits or drops, at random, each outstanding proposal of the last leader.
    pub(super) fn resolve_proposals(&mut self) {
        for pending in std::mem::take(&mut self.proposals) {
            if self.rng.random() {
                self.commit(pending);
            }
        }
    }

    /// Raft elects the node on `host`.
    pub(super) fn elect(&mut self, host: usize) {
        self.resolve_proposals();
        let term = self.leader.map_or(1, |leader| leader.term + 1);
        self.leader = Some(Leader { node: self.hosts[host].profile.node(), term });
        (self.next_sync_ms, self.quorum_at_ms) = (self.now_ms, self.now_ms);
    }

    /// Creates the map of the cluster that the node on `host` has founded.
    pub(super) fn found(&mut self, host: usize) {
        let founder = member_view(&self.hosts[host].profile);
        self.map.members = BTreeMap::from([(self.hosts[host].profile.node(), founder)]);
        self.map.version = 1;
        self.elect(host);
    }

    /// The map says that `node` holds `groups` groups.
    pub(super) fn hold(&mut self, node: u64, groups: usize) {
        self.map.members.get_mut(&NodeId(node)).expect("it is a member").groups = groups;
        self.map.version += 1;
    }

    pub(super) fn kill(&mut self, host: usize) {
        self.hosts[host].is_running = false;
    }

    pub(super) fn pause(&mut self, host: usize, pause_ms: u64) {
        self.hosts[host].paused_until_ms = self.now_ms + pause_ms;
    }

    pub(super) fn is_paused(&self, host: usize) -> bool {
        self.hosts[host].paused_until_ms > self.now_ms
    }

    /// Cuts the link from one host to another, one way.
    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    pub(super) fn cut_both(&mut self, one: usize, other: usize) {
        self.cut(one, other);
        self.cut(other, one);
    }

    pub(super) fn deliver(&mut self, host: usize, event: Event) {
        self.hosts[host].inbox.push_back(event);
        self.hosts[host].wake_ms = self.now_ms;
    }

    pub(super) fn run_ms(&mut self, time_ms: u64) {
        let end_ms = self.now_ms + time_ms;
        while self.next_event(end_ms) {}
        self.now_ms = end_ms;
    }

    /// Runs until `holds`; panics if it takes longer than `most_ms`.
    pub(super) fn run_until(&mut self, most_ms: u64, holds: impl Fn(&Self) -> bool) {
        let end_ms = self.now_ms + most_ms;
        while !holds(self) {
            assert!(self.next_event(end_ms), "it does not come to be; {:?}", self.news);
        }
    }

    /// Incarnations that a leader proposed to declare down, by the time of the first proposal.
    pub(super) fn proposed_down(&self) -> Vec<Identity> {
        let mut proposed = Vec::new();
        for (_, _, action) in &self.news {
            if let Action::Propose { proposal: Proposal::Down { about, .. }, .. } = action
                && !proposed.contains(about)
            {
                proposed.push(*about);
            }
        }
        proposed
    }

    pub(super) fn count_news(&self, holds: impl Fn(&Action) -> bool) -> usize {
        self.news.iter().filter(|(_, _, action)| holds(action)).count()
    }

    pub(super) fn phase(&self, host: usize) -> &Phase {
        self.hosts[host].membership.phase()
    }

    pub(super) fn is_fenced(&self, host: usize, about: Identity) -> bool {
        self.hosts[host].membership.is_fenced(about)
    }

    /// The host of the leader, if it runs.
    pub(super) fn leader_host(&self) -> Option<usize> {
        let leader = self.leader?;
        self.host_of(leader.node).filter(|&host| self.hosts[host].is_running)
    }

    /// True if the node on `host` runs and is a live member.
    pub(super) fn is_member(&self, host: usize) -> bool {
        self.hosts[host].is_running && self.map.is_alive(self.hosts[host].profile.identity())
    }

    /// True if Raft could elect the node on `host`.
    pub(super) fn may_lead(&self, host: usize) -> bool {
        self.is_member(host) && self.reaches_quorum(host)
    }

    fn host_of(&self, node: NodeId) -> Option<usize> {
        let known = self.map.members.get(&node)?;
        self.hosts.iter().position(|host| host.profile.address == known.address)
    }

    /// Handles the next event. False if it is later than `end_ms`.
    fn next_event(&mut self, end_ms: u64) -> bool {
        let wake = |host: &Host| host.wake_ms.max(host.paused_until_ms);
        let running = self.hosts.iter().enumerate().filter(|(_, host)| host.is_running);
        let (wake_ms, host) = running.map(|(number, host)| (wake(host), number)).min().unwrap_or((u64::MAX, 0));
        let arrives_ms = self.in_flight.first_key_value().map_or(u64::MAX, |(&(at_ms, _), _)| at_ms);
        let commit_ms = self.proposals.front().map_or(u64::MAX, |pending| pending.commit_ms);
        let next_ms = wake_ms.min(arrives_ms).min(commit_ms).min(self.next_sync_ms.max(self.now_ms));
        if next_ms > end_ms {
            return false;
        }
        self.now_ms = next_ms.max(self.now_ms);
        if self.next_sync_ms <= self.now_ms {
            self.sync();
        } else if commit_ms == next_ms {
            let pending = self.proposals.pop_front().expect("it is there");
            self.commit(pending);
        } else if arrives_ms == next_ms {
            let (_, (_, to, message)) = self.in_flight.pop_first().expect("it is there");
            let host = &mut self.hosts[to];
            if host.is_running && host.paused_until_ms > self.now_ms {
                host.inbox.push_back(Event::Received(message));
            } else if host.is_running {
                self.step(to, Event::Received(message));
            }
        } else {
            match self.hosts[host].inbox.pop_front() {
                Some(event) => self.step(host, event),
                None => self.step(host, Event::Wake),
            }
        }
        true
    }

    fn step(&mut self, host: usize, event: Event) {
        let mut actions = Vec::new();
        let membership = &mut self.hosts[host].membership;
        membership.step(event, self.now_ms, &mut actions);
        let wake_ms = membership.wake_at_ms();
        let wake_ms = wake_ms.unwrap_or(u64::MAX);
        assert!(wake_ms > self.now_ms, "it asks to be woken in the future");
        self.hosts[host].wake_ms = if self.hosts[host].inbox.is_empty() { wake_ms } else { self.now_ms };
        for action in actions {
            match action {
                Action::Send { to, message } => self.send(host, to, message),
                Action::Propose { term, proposal } => {
                    if let Proposal::Down { about, .. } = proposal {
                        let decided = self.others.keys().filter(|(of, _)| *of == term).map(|(_, about)| *about);
                        let decided: BTreeSet<Identity> = decided.chain([about]).collect();
                        let others = self.map.alive().filter(|other| !decided.contains(other)).collect();
                        self.others.entry((term, about)).or_insert(others);
                    }
                    self.news.push((self.now_ms, host, Action::Propose { term, proposal: proposal.clone() }));
                    let (commit_ms, proposed_ms) = (self.now_ms + self.commit_ms, self.now_ms);
                    self.proposals.push_back(Pending { commit_ms, proposed_ms, by: host, term, proposal });
                }
                news => self.news.push((self.now_ms, host, news)),
            }
        }
    }

    fn send(&mut self, from: usize, to: To, message: Message) {
        let to = match to {
            To::Node(node) => self.host_of(node),
            To::Address(address) => self.hosts.iter().position(|host| host.profile.address == address),
        };
        let Some(to) = to else { return };
        if self.cuts.contains(&(from, to)) || self.loss > 0.0 && self.rng.random_bool(self.loss) {
            return;
        }
        self.messages += 1;
        let arrives_ms = self.now_ms + self.rng.random_range(1..=2);
        self.in_flight.insert((arrives_ms, self.messages), (from, to, message));
    }

    /// True if `host` reaches more than half of the live members both ways.
    fn reaches_quorum(&self, host: usize) -> bool {
        let members: Vec<usize> = self.map.alive().filter_map(|identity| self.host_of(identity.node)).collect();
        let reached =
            members.iter().filter(|&&other| self.hosts[other].is_running && self.reach_each_other(host, other));
        self.hosts[host].is_running && reached.count() * 2 > members.len()
    }

    fn reach_each_other(&self, one: usize, other: usize) -> bool {
        !self.cuts.contains(&(one, other)) && !self.cuts.contains(&(other, one))
    }

    /// Commits a proposal, unless the proposer's term is over, even if it leads again.
    fn commit(&mut self, Pending { proposed_ms, by, term, proposal, .. }: Pending) {
        let node = self.hosts[by].profile.node();
        let leads = self.leader.is_some_and(|leader| leader.node == node && leader.term == term);
        if !leads || !self.reaches_quorum(by) {
            return;
        }
        match proposal {
            Proposal::Down { about, .. } if self.map.is_alive(about) => {
                self.check_fences(term, about);
                self.map.members.get_mut(&about.node).expect("it is alive").state = MemberState::Down;
                self.downs.push((proposed_ms, about));
            }
            Proposal::Admit { profile, .. }
                if self
                    .map
                    .members
                    .get(&profile.node())
                    .is_none_or(|known| known.incarnation < profile.incarnation) =>
            {
                self.map.members.insert(profile.node(), member_view(&profile));
            }
            Proposal::Leave(who) if self.map.is_alive(who) => {
                self.map.members.get_mut(&who.node).expect("it is alive").state = MemberState::Leaving;
            }
            Proposal::Remove(who) if self.map.is_alive(who) => {
                self.map.members.remove(&who.node);
            }
            _ => return,
        }
        self.map.version += 1;
        self.next_sync_ms = self.now_ms;
    }

    /// The rule of fencing: when more than half of the others decide that a node is down, all of these have fenced it.
    /// (Decisions by fewer after a long silence, or by a witness of the next incarnation, are not checked.)
    fn check_fences(&self, term: u64, about: Identity) {
        let others = &self.others[&(term, about)];
        let holds = |other: &&Identity| {
            self.host_of(other.node).is_some_and(|host| !self.hosts[host].is_running || self.is_fenced(host, about))
        };
        let has_restarted = self.news.iter().any(|(_, _, action)| matches!(action, Action::Restarted { .. }));
        let alone = self
            .news
            .iter()
            .any(|(at_ms, _, action)| *action == Action::Unreachable(about) && at_ms + DOWN_ALONE_MS <= self.now_ms);
        let fenced = others.iter().filter(holds).count();
        assert!(fenced * 2 > others.len() || has_restarted || alone, "{about}: {fenced} of {}", others.len());
    }

    /// Sends map and leader to the nodes that the leader reaches.
    fn sync(&mut self) {
        self.next_sync_ms = self.now_ms + MAP_RETRY_MS;
        let Some(leading) = self.leader_host() else { return };
        if self.reaches_quorum(leading) {
            self.quorum_at_ms = self.now_ms;
        } else if self.checks_quorum && self.now_ms - self.quorum_at_ms >= CHECK_QUORUM_MS {
            self.quorum_at_ms = self.now_ms;
            return self.deliver(leading, Event::Leader(None));
        }
        for number in 0..self.hosts.len() {
            let host = &mut self.hosts[number];
            let is_reached = number == leading || !self.cuts.contains(&(leading, number));
            if !host.is_running || host.paused_until_ms > self.now_ms || !is_reached {
                continue;
            }
            let knows = self.map.members.contains_key(&host.profile.node()) || host.map_version > 0;
            if knows && host.map_version < self.map.version {
                host.map_version = self.map.version;
                let map = self.map.clone();
                self.step(number, Event::Map(map));
            }
            let host = &mut self.hosts[number];
            if knows && host.leader != self.leader {
                host.leader = self.leader;
                let leader = self.leader;
                self.step(number, Event::Leader(leader));
            }
        }
    }
}

fn member_view(profile: &Profile) -> MemberView {
    MemberView { incarnation: profile.incarnation, address: profile.address.clone(), state: MemberState::Up, groups: 0 }
}
