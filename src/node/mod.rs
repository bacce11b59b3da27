//! A node of the cluster: agreement, membership and replication, wired to each other.
//!
//! ```text
//!            frames, time                                     frames to other nodes
//!                 │                                                   ▲
//!     ┌───────────▼──────────┐ map  ┌────────────┐ map  ┌─────────────┴─┐
//!     │ Agreement (Raft)     ├─────►│ Membership ├─────►│ Replication   │◄── requests of clients
//!     │   decides on the map │◄─────┤ suspicions │      │ of the groups │──► their answers
//!     └───────────▲──────────┘      └────────────┘      └──────┬────────┘
//!                 │  changes of groups, compared and set       │
//!                 └────────────────────────────────────────────┘
//! ```
//!
//! Like its parts, the node is a sans-IO state machine: the control core drives it with real sockets and clocks, the
//! simulator with its own. Only the agreement decides the assignment of groups; the other parts propose.
//!
//! | file | concept |
//! |---|---|
//! | `mod.rs` | the wiring |
//! | `mover.rs` | the leader moves groups to where the planner wants them, a few at a time |

#![forbid(unsafe_code)]

mod mover;

use crate::cluster::agreement::{self, Agreement, Disk};
use crate::cluster::frame::{self, FrameError, Kind};
use crate::cluster::map::{Change, Map, MemberState, State};
use crate::cluster::membership::{self, MapView, MemberView, Membership, Proposal, To};
use crate::cluster::{Epoch, Identity, NodeId};
use crate::replication::{self, Answer, Message, Ms, Replication, Store, Ticket};
use crate::slots::{GROUPS, Group};
use mover::Mover;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Period of [`Event::Tick`].
pub const TICK_MS: u64 = 10;

/// An event for a node.
#[derive(Debug)]
pub enum Event<'b> {
    /// A frame has arrived.
    Frame {
        /// The sender, authenticated by the connection.
        from: NodeId,
        /// The whole frame.
        bytes: &'b [u8],
    },
    /// Time has passed: about [`TICK_MS`].
    Tick,
    /// The operator wants the node to leave its cluster.
    Leave,
}

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a frame. It may be lost.
    Send {
        /// The recipient.
        to: To,
        /// The whole frame.
        frame: Vec<u8>,
    },
    /// Answer a parked request.
    Answer {
        /// The request.
        ticket: Ticket,
        /// Its outcome.
        answer: Answer,
    },
    /// News for the operator.
    News(membership::Action),
    /// For the operator: this node was made primary of a group whose data it does not have, and opened it empty.
    Emptied(Group),
    /// The agreement has stopped on this node. The node has to restart, with a new Raft id if its disk is lost.
    Stopped(agreement::Fault),
}

/// The body of a frame of membership or replication. (Raft's messages have a form of their own.)
#[derive(Serialize, Deserialize)]
struct Envelope<M> {
    from: Identity,
    /// The incarnation of the receiver it is for; None for membership, which is for any.
    to: Option<Identity>,
    message: M,
}

/// A node of the cluster.
pub struct Node<D> {
    me: Identity,
    agreement: Agreement<D>,
    membership: Membership,
    replication: Replication,
    mover: Mover,
    settings: Settings,
    /// By group: the last epoch that replication was told of.
    epochs: Vec<Epoch>,
    map_version: u64,
    leader: Option<membership::Leader>,
    next_ticket: u64,
}

/// What a node starts with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its identity, and how it finds its cluster.
    pub membership: membership::Settings,
    /// Its identity and timing in Raft.
    pub agreement: agreement::Config,
    /// The settings of a cluster that it founds.
    pub cluster: crate::cluster::map::Settings,
    /// Bytes of log that each group keeps for holders that fall behind.
    pub backlog_bytes: usize,
    /// Groups that may be moving concurrently.
    pub moves_max: usize,
    /// The groups it manages: all, except in simulations of a few groups.
    pub groups: Vec<Group>,
    /// The safety rules of replication that hold: all, except in tests.
    pub rules: replication::Rules,
}

impl<D: Disk> Node<D> {
    /// Starts a node from its disk.
    ///
    /// # Errors
    /// The disk fails, or has lost state that other members rely on.
    pub fn new(mut settings: Settings, disk: D, now: Ms) -> Result<Self, agreement::Fault> {
        let me = settings.membership.profile.identity();
        let agreement = Agreement::new(settings.agreement.clone(), disk, now)?;
        // A disk that was used before has a Raft id already.
        settings.membership.profile.raft_id = agreement.raft();
        Ok(Self {
            me,
            agreement,
            membership: Membership::new(settings.membership.clone(), now),
            replication: Replication::new(me, settings.backlog_bytes, settings.rules),
            mover: Mover::new(settings.groups.clone(), settings.moves_max),
            settings,
            epochs: vec![Epoch(0); GROUPS],
            map_version: 0,
            leader: None,
            next_ticket: 0,
        })
    }

    /// This incarnation of the node.
    pub fn identity(&self) -> Identity {
        self.me
    }

    /// The map, as far as this node knows it.
    pub fn map(&self) -> &Map {
        self.agreement.map()
    }

    /// Replication, to admit requests.
    pub fn replication(&self) -> &Replication {
        &self.replication
    }

    /// Replication, to record the effects of requests. Call [`Node::flush`] afterwards.
    pub fn replication_mut(&mut self) -> &mut Replication {
        &mut self.replication
    }

    /// The agreement.
    pub fn agreement(&self) -> &Agreement<D> {
        &self.agreement
    }

    /// The phase of joining or leaving.
    pub fn phase(&self) -> &membership::Phase {
        self.membership.phase()
    }

    /// Ends the node and returns its disk.
    pub fn into_disk(self) -> D {
        self.agreement.into_disk()
    }

    /// Handles an event.
    ///
    /// # Errors
    /// The frame is invalid; nothing was changed.
    pub fn step(
        &mut self,
        event: Event,
        now: Ms,
        store: &mut impl Store,
        out: &mut Vec<Action>,
    ) -> Result<(), FrameError> {
        match event {
            Event::Frame { from, bytes } => self.receive(from, bytes, now, store, out)?,
            Event::Leave => self.step_membership(membership::Event::Leave, now, store, out),
            Event::Tick => {
                // The first tick distributes the map that the disk has.
                self.follow_map(now, store, out);
                self.step_agreement(agreement::Event::Tick, now, store, out);
                if self.membership.wake_at_ms().is_some_and(|at| at <= now) {
                    self.step_membership(membership::Event::Wake, now, store, out);
                }
                if let Some((leader, at)) = self.agreement.leader_at() {
                    self.replication.note_leader(leader, at, now);
                }
                let mut actions = Vec::new();
                self.replication.tick(now, store, &mut actions);
                self.dispatch(actions, now, store, out);
                self.run_mover(now, store, out);
            }
        }
        self.flush(now, store, out);
        Ok(())
    }

    /// Sends what requests have recorded.
    pub fn flush(&mut self, now: Ms, store: &mut impl Store, out: &mut Vec<Action>) {
        let mut actions = Vec::new();
        self.replication.flush(now, store, &mut actions);
        self.dispatch(actions, now, store, out);
    }

    fn receive(
        &mut self,
        sender: NodeId,
        bytes: &[u8],
        now: Ms,
        store: &mut impl Store,
        out: &mut Vec<Action>,
    ) -> Result<(), FrameError> {
        let frame = frame::decode(bytes)?;
        match frame.kind {
            Kind::Agreement => {
                let event = agreement::Event::Message { from: sender, bytes: bytes.to_vec() };
                self.step_agreement(event, now, store, out);
            }
            Kind::Membership => {
                let Envelope { message, .. } = frame.read::<Envelope<membership::Message>>()?;
                self.step_membership(membership::Event::Received(message), now, store, out);
            }
            Kind::Replication => {
                let Envelope { from, to, message } = frame.read::<Envelope<Message>>()?;
                // Messages for another incarnation of this node, or in another node's name, are void.
                if to == Some(self.me) && from.node == sender {
                    let mut actions = Vec::new();
                    self.replication.receive(from, message, now, store, &mut actions);
                    self.dispatch(actions, now, store, out);
                }
            }
        }
        Ok(())
    }

    // Stepping the parts, and dispatching their actions.

    fn step_agreement(&mut self, event: agreement::Event, now: Ms, store: &mut impl Store, out: &mut Vec<Action>) {
        let mut actions = Vec::new();
        self.agreement.step(event, now, &mut actions);
        let mut has_changed = false;
        for action in actions {
            match action {
                agreement::Action::Send { to, bytes } => out.push(Action::Send { to: To::Node(to), frame: bytes }),
                // The proposer sees from the map whether its proposal was applied, and repeats it if not.
                agreement::Action::Answer { .. } => {}
                agreement::Action::MapChanged => has_changed = true,
                agreement::Action::Stopped(fault) => out.push(Action::Stopped(fault)),
            }
        }
        if has_changed {
            self.follow_map(now, store, out);
        }
        self.follow_leader(now, store, out);
    }

    fn step_membership(&mut self, event: membership::Event, now: Ms, store: &mut impl Store, out: &mut Vec<Action>) {
        let mut actions = Vec::new();
        self.membership.step(event, now, &mut actions);
        // Fence before any message of this step can be sent: no acknowledgement may follow a report.
        let fenced = self.map().members().map(MemberState::identity);
        let fenced = fenced.filter(|&identity| self.membership.is_fenced(identity));
        let fenced: BTreeSet<Identity> = fenced.collect();
        self.replication.set_fenced(fenced);
        for action in actions {
            match action {
                membership::Action::Send { to, message } => {
                    let mut bytes = Vec::new();
                    let envelope = Envelope { from: self.me, to: None, message };
                    frame::encode(Kind::Membership, &envelope, &mut bytes);
                    out.push(Action::Send { to, frame: bytes });
                }
                // Conclusions of an earlier term rest on fences that may have ended.
                membership::Action::Propose { term, proposal } if term == self.agreement.term() => {
                    self.propose(change_of(proposal), now, store, out);
                }
                membership::Action::Propose { .. } => {}
                membership::Action::FoundCluster { cluster } => self.found_cluster(cluster, now, store, out),
                news => out.push(Action::News(news)),
            }
        }
    }

    fn found_cluster(&mut self, cluster: u64, now: Ms, store: &mut impl Store, out: &mut Vec<Action>) {
        let profile = &self.settings.membership.profile;
        let (member, address) = (profile.member.clone(), profile.address.clone());
        // Fails if the node belongs to a cluster or has stopped; there is nothing to found then.
        if self.agreement.bootstrap(cluster, self.settings.cluster, member, address).is_ok() {
            self.follow_map(now, store, out);
        }
    }

    fn propose(&mut self, change: Change, now: Ms, store: &mut impl Store, out: &mut Vec<Action>) {
        self.next_ticket += 1;
        let event = agreement::Event::Propose { ticket: self.next_ticket, change };
        self.step_agreement(event, now, store, out);
    }

    fn dispatch(&mut self, actions: Vec<replication::Action>, now: Ms, store: &mut impl Store, out: &mut Vec<Action>) {
        let mut changes = Vec::new();
        for action in actions {
            match action {
                replication::Action::Send { to, message } => out.push(self.send(to, message)),
                replication::Action::Propose(change) => changes.push(change),
                replication::Action::Answer { ticket, answer } => out.push(Action::Answer { ticket, answer }),
                replication::Action::Emptied { group } => out.push(Action::Emptied(group)),
            }
        }
        if !changes.is_empty() {
            self.propose(Change::Groups(changes), now, store, out);
        }
    }

    fn send(&self, to: Identity, message: Message) -> Action {
        let mut bytes = Vec::new();
        let envelope = Envelope { from: self.me, to: Some(to), message };
        frame::encode(Kind::Replication, &envelope, &mut bytes);
        Action::Send { to: To::Node(to.node), frame: bytes }
    }

    /// Distributes a new map to the other parts.
    fn follow_map(&mut self, now: Ms, store: &mut impl Store, out: &mut Vec<Action>) {
        let map = self.agreement.map();
        if map.version() == self.map_version {
            return;
        }
        self.map_version = map.version();
        let mut changed = Vec::new();
        for &group in &self.settings.groups {
            let (known, epoch) = (&mut self.epochs[group.index()], map.assignment(group).epoch);
            if std::mem::replace(known, epoch) != epoch {
                changed.push(group);
            }
        }
        let view = map_view(map);
        let mut actions = Vec::new();
        self.replication.map_changed(map, changed, now, store, &mut actions);
        self.mover.members_may_have_changed(map);
        self.dispatch(actions, now, store, out);
        self.step_membership(membership::Event::Map(view), now, store, out);
    }

    fn follow_leader(&mut self, now: Ms, store: &mut impl Store, out: &mut Vec<Action>) {
        let node = self.agreement.leader().filter(|&node| node != self.me.node || self.agreement.leads());
        let leader = node.map(|node| membership::Leader { node, term: self.agreement.term() });
        if leader != self.leader {
            self.leader = leader;
            self.step_membership(membership::Event::Leader(leader), now, store, out);
        }
    }

    /// As the leader, moves groups to where the planner wants them.
    fn run_mover(&mut self, now: Ms, store: &mut impl Store, out: &mut Vec<Action>) {
        if !self.agreement.leads() {
            return;
        }
        let moves = self.mover.moves(self.agreement.map(), now);
        if !moves.changes.is_empty() {
            self.propose(Change::Groups(moves.changes), now, store, out);
        }
        for (to, message) in moves.messages {
            if to == self.me {
                let mut actions = Vec::new();
                self.replication.receive(self.me, message, now, store, &mut actions);
                self.dispatch(actions, now, store, out);
            } else {
                out.push(self.send(to, message));
            }
        }
    }
}

/// The view of a map that membership needs.
fn map_view(map: &Map) -> MapView {
    let view = |member: &MemberState| {
        let groups = match member.state {
            // A leaving node needs to know when it holds no groups any more; for others the count is not used.
            State::Leaving => {
                map.assignments().filter(|(_, a)| a.holders().any(|h| h.node == member.member.id)).count()
            }
            State::Up | State::Down => 0,
        };
        let state = match member.state {
            State::Up => membership::MemberState::Up,
            State::Leaving => membership::MemberState::Leaving,
            State::Down => membership::MemberState::Down,
        };
        let (incarnation, address) = (member.incarnation, member.address.clone());
        (member.member.id, MemberView { incarnation, address, state, groups })
    };
    MapView { cluster: map.cluster(), version: map.version(), members: map.members().map(view).collect() }
}

/// The change of the map that membership proposes.
fn change_of(proposal: Proposal) -> Change {
    match proposal {
        Proposal::Down { about, .. } => Change::Down { identity: about },
        Proposal::Admit { profile, .. } => Change::Join {
            member: profile.member,
            incarnation: profile.incarnation,
            raft: profile.raft_id,
            address: profile.address,
        },
        Proposal::Leave(identity) => Change::Leave { node: identity.node },
        Proposal::Remove(identity) => Change::Remove { node: identity.node },
    }
}
