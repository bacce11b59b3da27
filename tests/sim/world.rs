//! The simulated world: hosts with clocks and disks, the network between them, and the order of events.
//!
//! Time is in microseconds of a true clock that no host sees. All events are in one queue, and all random choices come
//! from the run's seed, so a seed determines the run.

use crate::random::Random;
use crate::store::NaiveStore;
use pinion::cluster::agreement::{Config, MemoryDisk};
use pinion::cluster::map;
use pinion::cluster::membership::{self, HeartbeatTiming, Profile, To};
use pinion::cluster::{Identity, Member, NodeId};
use pinion::node::{self, Action, Node};
use pinion::replication::{Answer, Rule, Rules, Ticket};
use pinion::slots::Group;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

pub type Us = u64;
pub const MS: Us = 1_000;
pub const SECOND: Us = 1_000_000;
/// The initial wall-clock time, in milliseconds.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// The parameters of a run.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub hosts: usize,
    pub broken: Option<Rule>,
    pub trace: bool,
    /// Message loss, in permille.
    pub loss_permille: u64,
    /// Largest deviation of clock rates, in permille.
    pub drift_permille: u64,
    /// Largest deviation of wall clocks.
    pub skew_ms: u64,
    pub replicas: u8,
    pub groups: Vec<Group>,
    pub zones: usize,
}

/// A machine.
pub struct Host {
    pub id: NodeId,
    incarnation: u64,
    pub node: Option<Node<MemoryDisk>>,
    pub store: NaiveStore,
    /// The disk, while the node is down.
    disk: Option<MemoryDisk>,
    /// Its clock: microseconds ahead, and faster by `faster_ppm`.
    ahead: Us,
    faster_ppm: i64,
    skew_ms: i64,
    pub paused_until: Us,
    /// Additional delay of frames from and to it.
    pub slow_us: Us,
    /// Since when it reaches no other host.
    pub isolated_since: Option<Us>,
    raft_ids: u64,
    /// It dies in its next step: the last save is torn, and messages are not sent.
    dies: bool,
}

/// An event to come.
#[derive(Debug)]
pub enum Event {
    Frame { from: usize, to: usize, bytes: Vec<u8> },
    Tick { host: usize, incarnation: u64 },
    Start { host: usize, loses_disk: bool },
    Client { client: usize, what: crate::client::Wake },
    Request { host: usize, request: crate::client::Request },
    Fault,
    Repair(crate::faults::Repair),
}

struct Due {
    at: Us,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Counts of a run.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub events: u64,
    pub operations: u64,
    pub faults: u64,
    pub primary_changes: u64,
    pub lost_groups: u64,
    pub restarts: u64,
    pub session_losses: u64,
    pub lost_disks: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.operations += other.operations;
        self.faults += other.faults;
        self.primary_changes += other.primary_changes;
        self.lost_groups += other.lost_groups;
        self.restarts += other.restarts;
        self.session_losses += other.session_losses;
        self.lost_disks += other.lost_disks;
    }

    pub fn averages(&self, seeds: u64) -> String {
        let average = |count: u64| count as f64 / seeds.max(1) as f64;
        format!(
            "{:.0} operations, {:.1} faults, {:.1} restarts, {:.1} primary changes, {:.3} lost groups, {:.3} lost sessions, \
             {:.0} events",
            average(self.operations),
            average(self.faults),
            average(self.restarts),
            average(self.primary_changes),
            average(self.lost_groups),
            average(self.session_losses),
            average(self.events),
        )
    }
}

pub struct World {
    pub options: Options,
    pub now: Us,
    pub random: Random,
    pub hosts: Vec<Host>,
    queue: BinaryHeap<Reverse<Due>>,
    number: u64,
    /// Frames from the first host to the second are lost.
    pub cut: Vec<Vec<bool>>,
    /// Parked requests, by host, incarnation and ticket.
    pub parked: BTreeMap<(usize, u64, Ticket), crate::client::Reply>,
    pub history: crate::check::History,
    pub counts: Counts,
    pub violations: Vec<String>,
    /// Hosts that are not switched on yet.
    pub absent: BTreeSet<usize>,
    /// No more faults are injected.
    pub is_healing: bool,
    /// By group: the map version and primary last seen in any node's map.
    primaries: BTreeMap<Group, (u64, Identity)>,
    leaders: BTreeMap<(Group, u32), Identity>,
    /// The epoch in which each group was last opened empty.
    opened: BTreeMap<Group, u32>,
}

impl World {
    pub fn new(options: Options) -> Self {
        let mut random = Random::new(options.seed);
        let count = options.hosts;
        let host = |number: usize, random: &mut Random| Host {
            id: NodeId(number as u64 + 1),
            incarnation: 0,
            node: None,
            store: NaiveStore::default(),
            disk: Some(MemoryDisk::default()),
            ahead: random.below(1000) * SECOND,
            faster_ppm: random.below(2000 * options.drift_permille + 1) as i64 - 1000 * options.drift_permille as i64,
            skew_ms: random.below(2 * options.skew_ms + 1) as i64 - options.skew_ms as i64,
            paused_until: 0,
            slow_us: 0,
            isolated_since: None,
            raft_ids: 0,
            dies: false,
        };
        let hosts = (0..count).map(|number| host(number, &mut random)).collect();
        let mut world = Self {
            options,
            now: 0,
            random,
            hosts,
            queue: BinaryHeap::new(),
            number: 0,
            cut: vec![vec![false; count]; count],
            parked: BTreeMap::new(),
            history: crate::check::History::default(),
            counts: Counts::default(),
            violations: Vec::new(),
            absent: BTreeSet::new(),
            is_healing: false,
            primaries: BTreeMap::new(),
            leaders: BTreeMap::new(),
            opened: BTreeMap::new(),
        };
        for host in 0..count {
            let at = world.random.below(20) * MS;
            world.at(at, Event::Start { host, loses_disk: false });
        }
        world
    }

    pub fn trace(&self, line: impl FnOnce() -> String) {
        if self.options.trace {
            println!("{:>10.3} ms  {}", self.now as f64 / 1000.0, line());
        }
    }

    pub fn violation(&mut self, text: String) {
        self.trace(|| format!("VIOLATION {text}"));
        self.violations.push(text);
    }

    pub fn at(&mut self, at: Us, event: Event) {
        self.number += 1;
        self.queue.push(Reverse(Due { at: at.max(self.now), number: self.number, event }));
    }

    pub fn after(&mut self, delay: Us, event: Event) {
        self.at(self.now + delay, event);
    }

    /// The next event; advances the time. None if it is later than `until`.
    pub fn next_event(&mut self, until: Us) -> Option<Event> {
        if self.queue.peek().is_none_or(|Reverse(due)| due.at > until) {
            self.now = until;
            return None;
        }
        let Reverse(due) = self.queue.pop().expect("the queue is not empty");
        self.now = due.at;
        self.counts.events += 1;
        Some(due.event)
    }

    // Hosts.

    /// A host's monotonic clock.
    pub fn clock_ms(&self, host: usize) -> u64 {
        let Host { ahead, faster_ppm, .. } = self.hosts[host];
        let run = self.now as i64
            + (self.now as i64 / 1_000_000) * faster_ppm
            + (self.now as i64 % 1_000_000) * faster_ppm / 1_000_000;
        (ahead as i64 + run) as u64 / MS
    }

    /// A host's wall clock.
    pub fn wall_ms(&self, host: usize) -> u64 {
        (EPOCH_MS as i64 + (self.now / MS) as i64 + self.hosts[host].skew_ms) as u64
    }

    /// The true time of day.
    pub fn true_wall_ms(&self) -> u64 {
        EPOCH_MS + self.now / MS
    }

    pub fn is_up(&self, host: usize) -> bool {
        self.hosts[host].node.is_some()
    }

    pub fn host_of(&self, node: NodeId) -> usize {
        node.0 as usize - 1
    }

    pub fn start(&mut self, host: usize, loses_disk: bool) {
        let now_ms = self.clock_ms(host);
        let options = self.options.clone();
        let seeds = (0..options.hosts.min(SEEDS)).map(address).collect();
        let this = &mut self.hosts[host];
        if this.node.is_some() || self.absent.contains(&host) {
            return;
        }
        let mut disk = this.disk.take().unwrap_or_default();
        if loses_disk {
            disk = MemoryDisk::default();
        }
        let keeps_name = options.broken == Some(Rule::Identity) && this.incarnation > 0;
        this.incarnation += u64::from(!keeps_name);
        let incarnation = this.incarnation;
        loop {
            this.raft_ids += 1;
            let raft_id = this.id.0 * 1000 + this.raft_ids;
            let member = Member { id: this.id, zone: format!("z{}", host % options.zones), memory_bytes: 1 << 30 };
            let profile = Profile { member, incarnation, raft_id, address: address(host) };
            let identity = profile.identity();
            let seed = options.seed ^ (host as u64) << 32 ^ incarnation;
            let membership = membership::Settings {
                profile,
                seeds: Vec::clone(&seeds),
                cluster: (incarnation > 1).then_some(CLUSTER),
                fresh_cluster: CLUSTER,
                seed,
                timing: HeartbeatTiming::default(),
            };
            let settings = node::Settings {
                membership,
                agreement: Config::new(identity, raft_id, seed),
                cluster: map::Settings { replicas: options.replicas, min_in_sync: options.replicas.min(2) },
                backlog_bytes: 8 << 10,
                moves_max: 64,
                groups: options.groups.clone(),
                rules: options.broken.map_or(Rules::default(), Rules::without),
            };
            match Node::new(settings, disk, now_ms) {
                Ok(node) => {
                    this.node = Some(node);
                    break;
                }
                // The disk is not intact: the node comes back empty, with a new Raft id.
                Err(_) => disk = MemoryDisk::default(),
            }
        }
        this.store = NaiveStore::default();
        this.paused_until = 0;
        self.counts.restarts += u64::from(incarnation > 1);
        self.trace(|| format!("host {host} starts, incarnation {incarnation}"));
        self.after(0, Event::Tick { host, incarnation });
    }

    /// Kills a host's node. Its memory is lost; its disk may have lost the last save.
    pub fn kill(&mut self, host: usize, disk_fault: Option<DiskFault>) {
        let this = &mut self.hosts[host];
        if disk_fault == Some(DiskFault::Tears) {
            this.dies = true;
            return self.step(host, node::Event::Tick);
        }
        let Some(node) = this.node.take() else { return };
        let disk = node.into_disk();
        self.counts.lost_disks += u64::from(disk_fault == Some(DiskFault::Loses));
        this.disk = if disk_fault == Some(DiskFault::Loses) { None } else { Some(disk) };
        self.parked.retain(|&(of, ..), _| of != host);
        self.trace(|| format!("host {host} is killed, its disk {disk_fault:?}"));
    }

    pub fn tick(&mut self, host: usize, incarnation: u64) {
        let is_current = self.hosts[host].node.as_ref().is_some_and(|node| node.identity().incarnation == incarnation);
        if !is_current {
            return;
        }
        self.step(host, node::Event::Tick);
        let wait = node::TICK_MS * MS + self.random.below(MS);
        self.after(wait, Event::Tick { host, incarnation });
    }

    pub fn step(&mut self, host: usize, event: node::Event) {
        let now_ms = self.clock_ms(host);
        let mut actions = Vec::new();
        let this = &mut self.hosts[host];
        let Some(node) = &mut this.node else { return };
        let (version, saves) = (node.map().version(), node.agreement().disk().saves());
        let result = node.step(event, now_ms, &mut this.store, &mut actions);
        let has_new_map = node.map().version() != version;
        if this.dies {
            this.dies = false;
            let has_saved = node.agreement().disk().saves() > saves;
            self.kill(host, None);
            if has_saved && let Some(disk) = &mut self.hosts[host].disk {
                disk.tear();
            }
            return;
        }
        if let Err(error) = result {
            self.violation(format!("host {host} could not decode a frame: {error}"));
        }
        if has_new_map {
            self.check_map(host);
        }
        self.check_primaries(host);
        self.dispatch(host, actions);
    }

    pub fn dispatch(&mut self, host: usize, actions: Vec<Action>) {
        let Some(incarnation) = self.hosts[host].node.as_ref().map(|node| node.identity().incarnation) else { return };
        for action in actions {
            match action {
                Action::Send { to, frame } => {
                    let to = match to {
                        To::Node(node) => self.host_of(node),
                        To::Address(text) => match (0..self.hosts.len()).find(|&other| address(other) == text) {
                            Some(other) => other,
                            None => continue,
                        },
                    };
                    self.send(host, to, frame);
                }
                Action::Answer { ticket, answer } => {
                    if let Some(mut reply) = self.parked.remove(&(host, incarnation, ticket)) {
                        if answer == Answer::Unknown {
                            reply.outcome = crate::client::Outcome::Unknown;
                        }
                        self.reply(host, reply);
                    }
                }
                Action::News(membership::Action::Expelled) => {
                    self.trace(|| format!("host {host} is expelled"));
                    self.kill(host, None);
                    self.after(20 * MS, Event::Start { host, loses_disk: false });
                    return;
                }
                Action::News(news) => self.trace(|| format!("host {host}: {news:?}")),
                Action::Emptied(group) => {
                    self.violation(format!("host {host} became primary without the data of group {}", group.index()))
                }
                Action::Stopped(fault) => {
                    self.trace(|| format!("host {host} stops: {fault}"));
                    self.kill(host, Some(DiskFault::Loses));
                    self.after(SECOND, Event::Start { host, loses_disk: true });
                    return;
                }
            }
        }
    }

    // The network.

    fn send(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        if from == to {
            return self.after(0, Event::Frame { from, to, bytes });
        }
        let loss = self.options.loss_permille;
        if self.cut[from][to] || self.random.permille(loss) {
            return;
        }
        if self.random.permille(10) {
            let again = self.delay(from, to) * 4;
            self.after(again, Event::Frame { from, to, bytes: bytes.clone() });
        }
        let delay = self.delay(from, to);
        self.after(delay, Event::Frame { from, to, bytes });
    }

    fn delay(&mut self, from: usize, to: usize) -> Us {
        let slow = self.hosts[from].slow_us + self.hosts[to].slow_us;
        let usual = 100 + self.random.below(900);
        slow + if self.random.permille(20) { usual + self.random.below(40 * MS) } else { usual }
    }

    pub fn reply(&mut self, host: usize, reply: crate::client::Reply) {
        let delay = 50 + self.random.below(400) + self.hosts[host].slow_us;
        let client = reply.client;
        self.after(delay, Event::Client { client, what: crate::client::Wake::Reply(reply) });
    }

    /// Notes which hosts are isolated from all others.
    pub fn note_isolation(&mut self) {
        for host in 0..self.hosts.len() {
            let reaches =
                (0..self.hosts.len()).any(|other| other != host && !self.cut[host][other] && !self.cut[other][host]);
            let since = &mut self.hosts[host].isolated_since;
            *since = if reaches { None } else { since.or(Some(self.now)) };
        }
    }

    /// Traces the state of each host.
    pub fn trace_hosts(&self) {
        for (number, host) in self.hosts.iter().enumerate() {
            let Some(node) = &host.node else {
                self.trace(|| format!("host {number} is down"));
                continue;
            };
            let agreement = node.agreement();
            let (leader, term, version) = (agreement.leader(), agreement.term(), node.map().version());
            let (raft, voters) = (agreement.raft(), agreement.configuration());
            let phase = node.phase();
            self.trace(|| {
                format!("host {number}: {phase:?}, map {version}, leader {leader:?} in term {term}, Raft {raft} of {voters:?}")
            });
            self.trace(|| format!("host {number}: {:?}", node.replication()));
        }
    }

    // Invariants that hold at all times.

    fn check_map(&mut self, host: usize) {
        let Some(node) = &self.hosts[host].node else { return };
        let map = node.map();
        let mut changed = Vec::new();
        for &group in &self.options.groups {
            let assignment = map.assignment(group);
            let opened = self.opened.entry(group).or_insert(assignment.opened.0);
            if assignment.opened.0 > *opened {
                *opened = assignment.opened.0;
                self.counts.lost_groups += 1;
                self.history.lose(group, self.now);
            }
            let Some(primary) = assignment.primary else { continue };
            let version = map.version();
            let known = self.primaries.entry(group).or_insert((version, primary));
            if version > known.0 {
                if known.1 != primary {
                    self.counts.primary_changes += 1;
                    changed.push((group, assignment.clone()));
                }
                *known = (version, primary);
            }
        }
        for (group, assignment) in changed {
            self.trace(|| format!("group {}: {assignment:?}", group.index()));
        }
    }

    fn check_primaries(&mut self, host: usize) {
        let Some(node) = &self.hosts[host].node else { return };
        let me = node.identity();
        for &group in &self.options.groups {
            let Some(epoch) = node.replication().leads_in(group) else { continue };
            let known = *self.leaders.entry((group, epoch.0)).or_insert(me);
            if known != me {
                let text = format!("group {} has two primaries in epoch {}: {known} and {me}", group.index(), epoch.0);
                return self.violation(text);
            }
        }
    }
}

/// Hosts that all others have as seeds.
const SEEDS: usize = 5;
/// The cluster's id.
const CLUSTER: u64 = 0xC0FFEE;

/// What happens to the disk when its host is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// The crash comes in the middle of a save, if there is one; nobody relies on it yet.
    Tears,
    /// The disk is replaced by an empty one.
    Loses,
}

fn address(host: usize) -> String {
    format!("host{host}:7000")
}
