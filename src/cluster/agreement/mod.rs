//! The agreement on the map: one member of Raft, without a clock, a socket or a disk of its own.
//!
//! ```text
//!             Event                                     Action
//!  message ──►┌──────────────────────────────────────┐──► Send         to other members
//!  tick ─────►│ Agreement ── Raft (the crate) ── map │──► Answer       to a proposal or a read
//!  proposal ─►│                 │                    │──► MapChanged
//!  read ─────►└─────────────────┼────────────────────┘──► Stopped
//!                               ▼ Disk::save, before anything is sent
//! ```
//!
//! Raft is the crate `raft`, with pre-vote and check-quorum; reads of the map go through ReadIndex. The log says [`Change`]s;
//! the map is the state that they lead to; a snapshot is the map. A cluster begins as a snapshot with its first member
//! ([`Agreement::bootstrap`]); all others begin empty and wait until a leader, whose map they have joined, takes them in. Who
//! votes is derived from the map (`voters.rs`): the leader changes Raft's configuration, one step at a time.
//!
//! | file | concept |
//! |---|---|
//! | `events.rs` | what happens to a member, and what is to be done for it |
//! | `waiting.rs` | proposals and reads, and their answers |
//! | `ready.rs` | what follows each event: save, send, apply |
//! | `storage.rs` | what must not be forgotten, and the disk that keeps it |
//! | `wire.rs` | messages in our own form, and which may reach Raft |
//! | `voters.rs` | who votes |
//!
//! # Proposals
//! A proposal on a follower is passed on to the leader. Its origin and ticket travel in the entry, and the origin answers when
//! it applies that. Whether one without an answer was applied is not known ([`AgreementError::Unknown`]); it can be proposed
//! again, since a change that is applied twice does no harm (`map/change.rs`).
//!
//! # Determinism
//! Everything is a function of the configuration, the disk and the events. Raft's crate draws its election timeouts from the
//! thread's random source; each is replaced by one of ours, of the seed and the term, before it counts a tick.

mod events;
mod ready;
mod storage;
#[cfg(test)]
mod tests;
mod voters;
mod waiting;
mod wire;

pub use events::{Action, AgreementError, Answer, BootstrapError, Config, Event, Fault};
#[cfg(any(test, feature = "sim"))]
pub use storage::MemoryDisk;
pub use storage::{Changes, Configuration, Disk, DiskError, Hard, LogEntry, Saved, SnapshotRecord};

use super::map::{Change, Map, MemberState, Settings, State};
use super::{Identity, Member, NodeId};
use raft::eraftpb::ConfChangeV2;
use raft::{RawNode, StateRole};
use ready::{decode_map, encode_map};
use std::collections::BTreeMap;
use waiting::Waiting;
use wire::{Gate, Verdict};

/// Ticks that are made up for when the caller comes late: one that slept is not to find all its peers dead at once.
const TICKS_LATE_MAX: u64 = 2;
/// Senders whose identities in Raft the map does not know (yet), at most.
const STRANGERS_MAX: usize = 64;
/// Bytes of entries in one message, and in all that wait for agreement; messages on the way to one member.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
const UNCOMMITTED_BYTES_MAX: u64 = 16 << 20;
const MESSAGES_IN_FLIGHT_MAX: usize = 64;

/// One member of the agreement.
pub struct Agreement<D> {
    config: Config,
    disk: D,
    raw: RawNode<Saved>,
    map: Map,
    /// Index and term of the entry that the map was changed by last.
    applied: (u64, u64),
    waiting: BTreeMap<u64, Waiting>,
    reads: u64,
    /// Nodes behind identities in Raft that the map does not know.
    strangers: BTreeMap<u64, NodeId>,
    now_ms: u64,
    ticked_ms: u64,
    /// The configuration was changed since the last snapshot.
    is_reconfigured: bool,
    /// Members that a snapshot was sent to, until Raft knows that.
    snapshots_sent: Vec<u64>,
    /// As the leader: when each follower has answered last.
    answered: BTreeMap<u64, u64>,
    fault: Option<Fault>,
}

impl<D: Disk> Agreement<D> {
    /// Starts a member: where its disk says it was, or empty.
    pub fn new(config: Config, mut disk: D, now_ms: u64) -> Result<Self, Fault> {
        let saved = match disk.load()? {
            Some(saved) => saved,
            None => {
                let first = Changes { raft: Some(config.raft), ..Changes::default() };
                disk.save(&first)?;
                let mut saved = Saved::default();
                saved.absorb(&first)?;
                saved
            }
        };
        saved.check()?;
        let (map, applied) = match saved.snapshot() {
            Some(snapshot) => (decode_map(&snapshot.map)?, (snapshot.index, snapshot.term)),
            None => (Map::empty(), (0, 0)),
        };
        let raw = raw_node(&config, saved)?;
        let mut member = Self {
            config,
            disk,
            raw,
            map,
            applied,
            waiting: BTreeMap::new(),
            reads: 0,
            strangers: BTreeMap::new(),
            now_ms,
            ticked_ms: now_ms,
            is_reconfigured: false,
            snapshots_sent: Vec::new(),
            answered: BTreeMap::new(),
            fault: None,
        };
        member.pin_election_timeout();
        // What was agreed before the start is applied at once; there is nobody to tell yet.
        member.process_ready(&mut Vec::new())?;
        Ok(member)
    }

    /// Begins a cluster with this node as its only member.
    pub fn bootstrap(
        &mut self,
        cluster: u64,
        settings: Settings,
        member: Member,
        address: String,
    ) -> Result<(), BootstrapError> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone().into());
        }
        if self.raw.store().snapshot().is_some() {
            return Err(BootstrapError::Bootstrapped);
        }
        let (incarnation, raft) = (self.config.incarnation, self.raft());
        let first = MemberState { member, incarnation, raft, address, state: State::Up };
        let mut map = Map::empty();
        map.apply(&Change::Bootstrap { cluster, settings, first })?;
        let configuration = Configuration { voters: vec![raft], ..Configuration::default() };
        let snapshot = SnapshotRecord { index: 1, term: 1, configuration, map: encode_map(&map) };
        let hard = Hard { term: 1, vote: 0, commit: 1 };
        let begun = self.restart_from(Changes { hard: Some(hard), snapshot: Some(snapshot), ..Changes::default() });
        if let Err(fault) = begun {
            self.fault = Some(fault.clone());
            return Err(fault.into());
        }
        (self.map, self.applied) = (map, (1, 1));
        // There is nobody to wait for: it is the leader with the next event.
        let _ = self.raw.campaign();
        self.pin_election_timeout();
        Ok(())
    }

    /// Has something happen to the member at a time, in milliseconds, that never goes back. What is to be done comes to the end
    /// of `actions`, in the order in which it is to be done.
    pub fn step(&mut self, event: Event, now_ms: u64, actions: &mut Vec<Action>) {
        self.now_ms = self.now_ms.max(now_ms);
        if self.fault.is_some() {
            if let Event::Propose { ticket, .. } | Event::Read { ticket } = event {
                actions.push(Action::Answer { ticket, result: Err(AgreementError::Stopped) });
            }
            return;
        }
        let result = match event {
            Event::Message { from, bytes } => self.receive(from, &bytes),
            Event::Tick => {
                self.tick(actions);
                Ok(())
            }
            Event::Propose { ticket, change } => {
                self.propose(ticket, change, actions);
                Ok(())
            }
            Event::Read { ticket } => {
                self.read(ticket, actions);
                Ok(())
            }
        };
        if let Err(fault) = result.and_then(|()| self.process_ready(actions)) {
            self.stop(fault, actions);
        }
    }

    /// The map, as far as this member has applied the changes to it.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// The leader, as far as this member knows; none once it has stopped.
    pub fn leader(&self) -> Option<NodeId> {
        self.node_of(self.raw.raft.leader_id).filter(|_| self.fault.is_none())
    }

    /// The leader, as far as this member knows, and when it surely was one: this member itself when most voters had answered it;
    /// another now, which only who hears from it can say.
    pub fn leader_at(&self) -> Option<(NodeId, u64)> {
        let leader = self.leader()?;
        let at = if self.is_leader() { self.followed_at()? } else { self.now_ms };
        Some((leader, at))
    }

    /// As the leader, the time since which most voters have answered, of both sets in a joint configuration. None if they have
    /// not yet.
    fn followed_at(&self) -> Option<u64> {
        let Configuration { voters, voters_outgoing, .. } = self.configuration();
        let most_since = |voters: &[u64]| {
            let answered =
                |raft: &u64| if *raft == self.raft() { Some(self.now_ms) } else { self.answered.get(raft).copied() };
            let mut times: Vec<Option<u64>> = voters.iter().map(answered).collect();
            times.sort_unstable();
            times[times.len().checked_sub(1)? / 2]
        };
        let since = most_since(&voters);
        if voters_outgoing.is_empty() { since } else { since.min(most_since(&voters_outgoing)) }
    }

    /// True if this member takes itself for the leader. Another may have taken its place half a second ago: only a proposal or
    /// a read tells.
    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader && self.fault.is_none()
    }

    /// True if it is the leader, and its map has all that the leaders before it have decided.
    pub fn leads(&self) -> bool {
        self.is_leader() && self.raw.raft.commit_to_current_term()
    }

    /// Raft's term.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// This member's identity in Raft.
    pub fn raft(&self) -> u64 {
        self.raw.raft.id
    }

    /// Who votes and who learns, by identities in Raft.
    pub fn configuration(&self) -> Configuration {
        (&self.raw.raft.prs().conf().to_conf_state()).into()
    }

    /// Why this member has stopped, if it has.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// The disk that it keeps its state on.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Ends the member and gives its disk back.
    pub fn into_disk(self) -> D {
        self.disk
    }

    fn identity(&self) -> Identity {
        Identity { node: self.config.node, incarnation: self.config.incarnation }
    }

    fn node_of(&self, raft: u64) -> Option<NodeId> {
        let member = self.map.members().find(|member| member.raft == raft);
        member.map(|member| member.member.id).or_else(|| self.strangers.get(&raft).copied())
    }

    fn receive(&mut self, from: NodeId, bytes: &[u8]) -> Result<(), Fault> {
        let Some((cluster, message)) = wire::decode(bytes) else { return Ok(()) };
        let own = self.map.cluster();
        let is_foreign = cluster != 0 && own != 0 && cluster != own;
        let is_other = self.node_of(message.from).is_some_and(|node| node != from);
        if is_foreign || is_other {
            return Ok(());
        }
        match Gate(&self.raw.raft).judge(&message) {
            Verdict::Drop => return Ok(()),
            Verdict::LogLost => return Err(Fault::LogLost),
            Verdict::Accept => {}
        }
        if self.node_of(message.from).is_none() {
            while self.strangers.len() >= STRANGERS_MAX {
                self.strangers.pop_first();
            }
            self.strangers.insert(message.from, from);
        }
        let (sender, term) = (message.from, message.term);
        // What Raft refuses is as good as lost, which its senders reckon with.
        let _ = self.raw.step(message);
        // A peer may claim any identity: none but members are kept.
        if self.is_leader() && term == self.term() && self.raw.raft.prs().get(sender).is_some() {
            self.answered.insert(sender, self.now_ms);
        }
        self.pin_election_timeout();
        Ok(())
    }

    fn tick(&mut self, actions: &mut Vec<Action>) {
        let ticks = (self.now_ms - self.ticked_ms) / self.config.tick_ms;
        if ticks > TICKS_LATE_MAX {
            self.ticked_ms = self.now_ms;
        } else {
            self.ticked_ms += ticks * self.config.tick_ms;
        }
        for _ in 0..ticks.min(TICKS_LATE_MAX) {
            self.raw.tick();
            self.pin_election_timeout();
        }
        let (progress, leads) = (self.raw.raft.prs(), self.is_leader());
        self.answered.retain(|raft, _| leads && progress.get(*raft).is_some());
        self.expire_waiting(actions);
        self.retry_reads();
        if ticks > 0 && self.is_leader() {
            self.steer_voters();
        }
    }

    /// As the leader, goes one step towards the voters that the map makes it want.
    fn steer_voters(&mut self) {
        let raft = &self.raw.raft;
        if raft.has_pending_conf() {
            return;
        }
        let current = self.configuration();
        if !current.voters_outgoing.is_empty() {
            // Raft leaves a joint configuration by itself, unless its leader changed in between.
            let _ = self.raw.propose_conf_change(Vec::new(), ConfChangeV2::default());
            return;
        }
        let follows = |id: u64| {
            let progress = raft.prs().get(id);
            progress.is_some_and(|progress| progress.state == raft::ProgressState::Replicate)
        };
        match voters::next_step(&self.map, &current, raft.id, follows) {
            None => {}
            Some(voters::Step::Transfer(heir)) => self.raw.transfer_leader(heir),
            Some(voters::Step::Change(changes)) => {
                let context = voters::encode_changes(&changes);
                let _ = self.raw.propose_conf_change(context, voters::configuration_change(&changes));
            }
        }
    }

    /// Saves changes of an empty disk and starts Raft from them.
    fn restart_from(&mut self, changes: Changes) -> Result<(), Fault> {
        self.disk.save(&changes)?;
        let mut saved = self.raw.store().clone();
        saved.absorb(&changes)?;
        self.raw = raw_node(&self.config, saved)?;
        Ok(())
    }

    fn stop(&mut self, fault: Fault, actions: &mut Vec<Action>) {
        self.fail_waiting(actions);
        actions.push(Action::Stopped(fault.clone()));
        self.fault = Some(fault);
    }

    /// Puts our election timeout in the place of the one that Raft drew: the same for as long as the term is.
    fn pin_election_timeout(&mut self) {
        let ticks = self.config.election_ticks as u64;
        let drawn = mix(self.config.seed ^ mix(self.raw.raft.term)) % ticks;
        self.raw.raft.set_randomized_election_timeout((ticks + drawn) as usize);
    }
}

/// Starts Raft from what was saved, which is checked.
fn raw_node(config: &Config, saved: Saved) -> Result<RawNode<Saved>, Fault> {
    let settings = raft::Config {
        id: saved.raft(),
        election_tick: config.election_ticks,
        heartbeat_tick: config.heartbeat_ticks,
        applied: saved.snapshot().map_or(0, |snapshot| snapshot.index),
        max_size_per_msg: MESSAGE_BYTES_MAX,
        max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        check_quorum: true,
        pre_vote: true,
        read_only_option: raft::ReadOnlyOption::Safe,
        ..raft::Config::default()
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(&settings, saved, &logger).map_err(|_| Fault::Disk(DiskError::Corrupt("Raft does not start from it")))
}

/// A step of splitmix64: a number that looks like none of its neighbours'.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
