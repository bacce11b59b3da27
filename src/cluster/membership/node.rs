//! The membership of one node as a single state machine: it routes events to its parts and polls each part's timers.
//!
//! Each step notices pauses of this node, handles the event, and then lets every part do what is due. Messages to
//! itself (a leader reports to itself and answers itself) are handled within the step.

use super::admission::AdmissionContext;
use super::arbiter::{Arbiter, Evidence};
use super::fencing::Fencing;
use super::gossip::Gossip;
use super::heartbeats::{Change, HeartbeatTiming, Heartbeats};
use super::join::{Found, Join};
use super::profile::is_address;
use super::{Action, Answer, Contact, Event, JoinMessage, Leader, MapView, Message, Phase, Profile, Refusals, To};
use crate::cluster::{Identity, NodeId};

/// Rounds of messages to itself within a step: a request, its answer, and what follows.
const OWN_ROUNDS_MAX: usize = 8;

/// What a node's membership starts with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node. Its incarnation is larger than all earlier ones.
    pub profile: Profile,
    /// Addresses of nodes of its cluster, or of the nodes that are to found one together, which then all have the same
    /// list.
    pub seeds: Vec<String>,
    /// The cluster of which the disk says it is a member.
    pub cluster: Option<u64>,
    /// The id of the cluster that it would found; random, drawn by the caller.
    pub fresh_cluster: u64,
    /// The seed of gossip's random generator.
    pub seed: u64,
    /// The timing of heartbeats.
    pub timing: HeartbeatTiming,
}

/// The membership of one node.
pub struct Membership {
    settings: Settings,
    own: Identity,
    map: Option<MapView>,
    leader: Option<Leader>,
    last_term: u64,
    gossip: Option<Gossip>,
    heartbeats: Heartbeats,
    fencing: Fencing,
    arbiter: Arbiter,
    join: Join,
    /// The time of the last step; it never decreases.
    now_ms: u64,
    refusals: Refusals,
}

impl Membership {
    /// The membership of a node that starts now. It does nothing before its first step.
    pub fn new(settings: Settings, now_ms: u64) -> Self {
        let own = settings.profile.identity();
        let Settings { profile, seeds, cluster, fresh_cluster, .. } = settings.clone();
        Self {
            own,
            map: None,
            leader: None,
            last_term: 0,
            gossip: None,
            heartbeats: Heartbeats::new(own, settings.timing, now_ms),
            fencing: Fencing::new(own),
            arbiter: Arbiter::new(own),
            join: Join::new(profile, seeds, cluster, fresh_cluster, now_ms),
            now_ms,
            refusals: Refusals::default(),
            settings,
        }
    }

    /// Handles an event and does what is due. `now_ms` is read from a clock that never goes back.
    pub fn step(&mut self, event: Event, now_ms: u64, actions: &mut Vec<Action>) {
        self.now_ms = now_ms.max(self.now_ms);
        self.heartbeats.begin_step(self.now_ms);
        match event {
            Event::Wake => {}
            Event::Received(message) => self.receive(message, actions),
            Event::Map(map) => self.follow_map(map, actions),
            Event::Leader(leader) => self.follow_leader(leader),
            Event::Leave => self.join.leave(self.now_ms),
        }
        for _ in 0..OWN_ROUNDS_MAX {
            self.wake(actions);
            let own: Vec<Action> = actions.extract_if(.., |action| self.is_to_own(action)).collect();
            if own.is_empty() {
                break;
            }
            for action in own {
                if let Action::Send { message, .. } = action {
                    self.receive(message, actions);
                }
            }
        }
    }

    /// When to step next if no event comes before. None if nothing is pending.
    pub fn wake_at_ms(&self) -> Option<u64> {
        let parts = [
            Some(self.heartbeats.wake_at_ms()),
            self.fencing.wake_at_ms(),
            self.gossip.as_ref().and_then(Gossip::wake_at_ms),
        ];
        let parts = parts.into_iter().flatten().filter(|_| self.is_member());
        parts.chain(self.join.wake_at_ms()).min()
    }

    /// True while this incarnation of a peer is fenced; to be checked before every acknowledgement.
    pub fn is_fenced(&self, identity: Identity) -> bool {
        self.fencing.is_fenced(identity)
    }

    /// True if this node and this incarnation of a peer hear each other.
    pub fn is_reachable(&self, identity: Identity) -> bool {
        self.heartbeats.is_reachable(identity)
    }

    /// The newest map version among the peers' heartbeats, and the peer that has it: this node's may be older.
    pub fn newest_map(&self) -> Option<(u64, NodeId)> {
        self.heartbeats.newest_map()
    }

    /// The phase of joining or leaving.
    pub fn phase(&self) -> &Phase {
        self.join.phase()
    }

    /// The other nodes that gossip believes to be up.
    pub fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.gossip.iter().flat_map(Gossip::contacts)
    }

    /// Numbers of refused messages.
    pub fn refusals(&self) -> Refusals {
        let gossip = self.gossip.as_ref().map(Gossip::refusals).unwrap_or_default();
        let heartbeats = self.heartbeats.refusals();
        let sum = |of: fn(&Refusals) -> u64| of(&gossip) + of(&heartbeats) + of(&self.refusals);
        Refusals {
            other_cluster: sum(|refusals| refusals.other_cluster),
            past_incarnation: sum(|refusals| refusals.past_incarnation),
            unknown: sum(|refusals| refusals.unknown),
            malformed: sum(|refusals| refusals.malformed),
        }
    }

    /// True if the known map has this incarnation as a live member.
    fn is_member(&self) -> bool {
        self.map.as_ref().is_some_and(|map| map.is_alive(self.own))
    }

    fn is_to_own(&self, action: &Action) -> bool {
        match action {
            Action::Send { to: To::Node(node), .. } => *node == self.own.node,
            Action::Send { to: To::Address(address), .. } => *address == self.settings.profile.address,
            _ => false,
        }
    }

    fn receive(&mut self, message: Message, actions: &mut Vec<Action>) {
        let now_ms = self.now_ms;
        match message {
            Message::Gossip(packet) => {
                if let Some(gossip) = &mut self.gossip {
                    gossip.receive(&packet, now_ms, actions);
                }
            }
            Message::Heartbeat(heartbeat) if self.map.is_some() => {
                let mut changes = Vec::new();
                self.heartbeats.receive(heartbeat, now_ms, &mut changes);
                actions.extend(changes.into_iter().map(Action::from));
            }
            Message::Heartbeat(_) => self.refusals.unknown += 1,
            Message::Report(report) => {
                if let Some(map) = &self.map {
                    let evidence = Evidence { map, heartbeats: &self.heartbeats, now_ms };
                    self.arbiter.receive(report, &evidence, actions);
                }
            }
            Message::Stays(stays) => self.fencing.receive(stays, now_ms),
            Message::Join(message) => self.receive_join(message, actions),
        }
    }

    fn receive_join(&mut self, message: JoinMessage, actions: &mut Vec<Action>) {
        let now_ms = self.now_ms;
        match message {
            JoinMessage::Lookup { address, .. } | JoinMessage::Leave { address, .. } if !is_address(&address) => {
                self.refusals.malformed += 1;
            }
            JoinMessage::Request { profile, .. } if !is_address(&profile.address) => self.refusals.malformed += 1,
            JoinMessage::Lookup { address, seed } => {
                let (node, cluster) = (self.own.node, self.join.own_cluster());
                let found = JoinMessage::Found { seed, node, cluster, leader_address: self.leader_address() };
                actions.push(Action::Send { to: To::Address(address), message: Message::Join(found) });
            }
            JoinMessage::Found { seed, node, cluster, leader_address } => {
                let leader_address = leader_address.filter(|address| is_address(address));
                self.join.found(seed, Found { node, cluster, leader_address }, now_ms, actions);
            }
            JoinMessage::Request { cluster, profile } => {
                if let Some(admission) = self.admission() {
                    let answer = admission.request(cluster, &profile, actions);
                    answer_to(profile.identity(), profile.address, answer, actions);
                }
            }
            JoinMessage::Leave { from, address } => {
                if let Some(admission) = self.admission() {
                    let answer = admission.leave(from, actions);
                    answer_to(from, address, answer, actions);
                }
            }
            JoinMessage::Answer { to, answer } if to == self.own => self.join.answered(answer, now_ms, actions),
            JoinMessage::Answer { .. } => self.refusals.past_incarnation += 1,
        }
    }

    /// How long the leader has not been heard: 0 if this node leads, `u64::MAX` if the leader is unknown.
    fn leader_silence_ms(&self) -> u64 {
        match self.leader {
            Some(leader) if leader.node == self.own.node => 0,
            leader => leader.and_then(|l| self.heartbeats.silence_ms(l.node, self.now_ms)).unwrap_or(u64::MAX),
        }
    }

    fn admission(&self) -> Option<AdmissionContext<'_>> {
        let &Self { own, leader, ref heartbeats, now_ms, .. } = self;
        self.map.as_ref().map(|map| AdmissionContext { own, map, leader, heartbeats, now_ms })
    }

    fn leader_address(&self) -> Option<String> {
        let (map, leader) = (self.map.as_ref()?, self.leader?);
        map.members.get(&leader.node).map(|known| known.address.clone())
    }

    /// Follows the map. Versions come in order; an older one is outdated.
    fn follow_map(&mut self, map: MapView, actions: &mut Vec<Action>) {
        if self.map.as_ref().is_some_and(|known| known.version > map.version || known.cluster != map.cluster) {
            return;
        }
        self.join.follow(&map, actions);
        if map.is_alive(self.own) {
            let Settings { profile, seeds, seed, .. } = &self.settings;
            let (cluster, now_ms) = (map.cluster, self.now_ms);
            let gossip = self.gossip.get_or_insert_with(|| Gossip::new(cluster, profile.clone(), *seed, now_ms));
            gossip.greet(map.members.values().map(|known| &known.address).chain(seeds).cloned().collect());
        }
        self.heartbeats.follow(&map, self.now_ms);
        self.fencing.follow_map(&map, self.now_ms);
        self.map = Some(map);
    }

    fn follow_leader(&mut self, leader: Option<Leader>) {
        // News of a leader whose term is over.
        if self.leader == leader || leader.is_some_and(|leader| leader.term < self.last_term) {
            return;
        }
        self.last_term = leader.map_or(self.last_term, |leader| leader.term);
        self.leader = leader;
        self.fencing.follow_leader(leader, self.now_ms);
        self.arbiter.lead(leader.filter(|leader| leader.node == self.own.node).map(|leader| leader.term));
    }

    /// Lets every part do what is due.
    fn wake(&mut self, actions: &mut Vec<Action>) {
        let now_ms = self.now_ms;
        self.join.wake(self.leader, now_ms, actions);
        if !self.is_member() {
            return;
        }
        let mut changes = Vec::new();
        if let Some(heartbeat) = self.heartbeats.wake(now_ms, &mut changes) {
            let send = |node| Action::Send { to: To::Node(node), message: Message::Heartbeat(heartbeat.clone()) };
            actions.extend(self.heartbeats.peers().map(send));
        }
        actions.extend(changes.into_iter().map(Action::from));
        let leader_silence_ms = self.leader_silence_ms();
        self.fencing.wake(&self.heartbeats.unreachable().collect(), leader_silence_ms, now_ms, actions);
        if let Some(map) = &self.map {
            self.arbiter.decide(&Evidence { map, heartbeats: &self.heartbeats, now_ms }, actions);
        }
        if let Some(gossip) = &mut self.gossip {
            gossip.wake(now_ms, actions);
        }
    }
}

fn answer_to(to: Identity, address: String, answer: Answer, actions: &mut Vec<Action>) {
    let message = Message::Join(JoinMessage::Answer { to, answer });
    actions.push(Action::Send { to: To::Address(address), message });
}

impl From<Change> for Action {
    fn from(change: Change) -> Self {
        match change {
            Change::Unreachable(identity) => Self::Unreachable(identity),
            Change::Reachable(identity) => Self::Reachable(identity),
            Change::Restarted { before, incarnation } => Self::Restarted { before, incarnation },
        }
    }
}
