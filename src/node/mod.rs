//! One node's part in the cluster: agreement, membership and replication, wired to each other.
//!
//! ```text
//!            frames, time                                     frames to other nodes
//!                 │                                                   ▲
//!     ┌───────────▼──────────┐ map  ┌────────────┐ map  ┌─────────────┴─┐
//!     │ Agreement (Raft)     ├─────►│ Membership ├─────►│ Replication   │◄── requests of clients
//!     │   decides on the map │◄─────┤ who is down│      │ of the groups │──► their answers
//!     └───────────▲──────────┘      └────────────┘      └──────┬────────┘
//!                 │  changes of groups, compared and set       │
//!                 └────────────────────────────────────────────┘
//! ```
//!
//! Like its parts it is a state machine without a socket, a clock or a thread: the control core drives it with real ones, the
//! simulator with its own. Only the agreement decides who holds what; the others propose.
//!
//! | file | concept |
//! |---|---|
//! | `mod.rs` | the wiring |
//! | `mover.rs` | the leader's part: what the planner wants, as changes of groups, a few at a time |

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

/// How often a node has to be ticked.
pub const TICK_MS: u64 = 10;

/// What happens to a node.
#[derive(Debug)]
pub enum Event<'b> {
    /// A frame has come.
    Frame {
        /// From this node: the connection has made sure.
        from: NodeId,
        /// The whole frame.
        bytes: &'b [u8],
    },
    /// Time has passed: about [`TICK_MS`].
    Tick,
    /// The operator wants the node to leave its cluster.
    Leave,
}

/// What is to be done for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a frame. It may be lost.
    Send {
        /// Where it goes.
        to: To,
        /// The whole frame.
        frame: Vec<u8>,
    },
    /// Answer a request that was parked.
    Answer {
        /// Which.
        ticket: Ticket,
        /// What became of it.
        answer: Answer,
    },
    /// Something that an operator may want to know.
    News(membership::Action),
    /// This node became the primary of a group whose data it does not have: an operator has to know.
    Emptied(Group),
    /// The agreement has stopped on this node: it must start again, as another member of Raft where its disk is lost.
    Stopped(agreement::Fault),
}

/// What a frame carries besides Raft's messages, which have their own form.
#[derive(Serialize, Deserialize)]
struct Envelope<M> {
    from: Identity,
    /// Which life of the receiver it is for. Membership is for any.
    to: Option<Identity>,
    message: M,
}

/// A node's part in its cluster.
pub struct Node<D> {
    me: Identity,
    agreement: Agreement<D>,
    membership: Membership,
    replication: Replication,
    mover: Mover,
    settings: Settings,
    /// Of each group, the epoch that replication knows.
    epochs: Vec<Epoch>,
    map_version: u64,
    leader: Option<membership::Leader>,
    next_ticket: u64,
}

/// What a node starts with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who it is, and how it finds its cluster.
    pub membership: membership::Settings,
    /// Its part in Raft.
    pub agreement: agreement::Config,
    /// What a cluster that it founds is like.
    pub cluster: crate::cluster::map::Settings,
    /// Bytes of its log that each group keeps for holders that fall behind.
    pub backlog_bytes: usize,
    /// Groups that may be on the move at once.
    pub moves_max: usize,
    /// The groups that it looks after: all of them, but for a simulator that looks at some only.
    pub groups: Vec<Group>,
    /// What replication keeps to.
    pub rules: replication::Rules,
}

impl<D: Disk> Node<D> {
    /// A node that starts now, with what its disk has.
    ///
    /// # Errors
    /// The disk cannot be used, or has lost what others rely on.
    pub fn new(mut settings: Settings, disk: D, now: Ms) -> Result<Self, agreement::Fault> {
        let me = settings.membership.profile.identity();
        let agreement = Agreement::new(settings.agreement.clone(), disk, now)?;
        // The disk knows it, if there is one that was used before.
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

    /// This life of the node.
    pub fn identity(&self) -> Identity {
        self.me
    }

    /// The map, as far as this node knows it.
    pub fn map(&self) -> &Map {
        self.agreement.map()
    }

    /// What replication says to requests.
    pub fn replication(&self) -> &Replication {
        &self.replication
    }

    /// The same, to have it record what they do. [`Node::flush`] follows.
    pub fn replication_mut(&mut self) -> &mut Replication {
        &mut self.replication
    }

    /// The agreement.
    pub fn agreement(&self) -> &Agreement<D> {
        &self.agreement
    }

    /// Where the node stands on its way in or out.
    pub fn phase(&self) -> &membership::Phase {
        self.membership.phase()
    }

    /// Ends the node, and gives its disk back.
    pub fn into_disk(self) -> D {
        self.agreement.into_disk()
    }

    /// Has something happen to the node.
    ///
    /// # Errors
    /// The frame is none of ours; nothing has happened.
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
                // With the first one, that of the disk.
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
                if to == Some(self.me) && from.node == sender {
                    let mut actions = Vec::new();
                    self.replication.receive(from, message, now, store, &mut actions);
                    self.dispatch(actions, now, store, out);
                }
            }
        }
        Ok(())
    }

    // The parts, and what each of them wants.

    fn step_agreement(&mut self, event: agreement::Event, now: Ms, store: &mut impl Store, out: &mut Vec<Action>) {
        let mut actions = Vec::new();
        self.agreement.step(event, now, &mut actions);
        let mut has_changed = false;
        for action in actions {
            match action {
                agreement::Action::Send { to, bytes } => out.push(Action::Send { to: To::Node(to), frame: bytes }),
                // Whoever proposed looks at the map, and proposes again.
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
                // What an earlier leadership has concluded is no basis for a later one.
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
        // It fails where the node has a cluster already, or has stopped; then there is nothing to found.
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

    /// Tells the other parts of the new map.
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

    /// As the leader, has groups move to where the planner wants them.
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

/// What membership has to know of a map.
fn map_view(map: &Map) -> MapView {
    let view = |member: &MemberState| {
        let groups = match member.state {
            // Who leaves wants to know when it holds nothing any more; of the others nobody asks.
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
