//! The agreement on the map: a member of a Raft group, without a clock, socket or disk of its own.
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
//! Raft is the crate `raft`, with pre-vote and check-quorum; reads go through ReadIndex. Log entries are [`Change`]s,
//! the state machine is the map, and a snapshot is the encoded map. A cluster begins as a snapshot with its first
//! member ([`Agreement::bootstrap`]). All other members begin empty and wait until a leader whose map has them adds
//! them to Raft's configuration. The voters follow from the map (`voters.rs`); the leader changes the configuration one
//! step at a time.
//!
//! | file | concept |
//! |---|---|
//! | `events.rs` | input and output of a member |
//! | `waiting.rs` | pending proposals and reads, and their answers |
//! | `ready.rs` | processing Raft's `Ready`: save, send, apply |
//! | `storage.rs` | the persistent state, and the disk interface |
//! | `wire.rs` | encoding of messages, and the filter that protects Raft |
//! | `voters.rs` | which members vote |
//!
//! # Proposals
//! A follower forwards proposals to the leader. The entry carries origin and ticket, and the origin answers when it
//! applies the entry. Whether a proposal without an answer was applied is unknown ([`AgreementError::Unknown`]); it may
//! be proposed again, since changes are idempotent (`map/change.rs`).
//!
//! # Determinism
//! A member is a function of its configuration, disk and events. The crate draws election timeouts from the thread's
//! random source; each is replaced, before it counts a tick, by one derived from the seed and the term.

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

/// Ticks made up for when the caller is late: a node that slept must not time out all its peers at once.
const TICKS_LATE_MAX: u64 = 2;
/// Senders that are remembered although the map does not have their Raft ids (yet).
const STRANGERS_MAX: usize = 64;
/// Bounds of Raft: bytes of entries per message, bytes of uncommitted entries, and messages in flight per member.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
const UNCOMMITTED_BYTES_MAX: u64 = 16 << 20;
const MESSAGES_IN_FLIGHT_MAX: usize = 64;

/// A member of the agreement.
pub struct Agreement<D> {
    config: Config,
    disk: D,
    raw: RawNode<Saved>,
    map: Map,
    /// Index and term of the last applied entry.
    applied: (u64, u64),
    waiting: BTreeMap<u64, Waiting>,
    reads: u64,
    /// Nodes behind Raft ids that the map does not have.
    strangers: BTreeMap<u64, NodeId>,
    now_ms: u64,
    ticked_ms: u64,
    /// Raft's configuration has changed since the last snapshot.
    is_reconfigured: bool,
    /// Members that were sent a snapshot which was not reported to Raft yet.
    snapshots_sent: Vec<u64>,
    /// As the leader: when each follower last answered.
    answered: BTreeMap<u64, u64>,
    fault: Option<Fault>,
}

impl<D: Disk> Agreement<D> {
    /// Starts a member from the state on its disk, or empty.
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
        // Applies what was committed before the start; no request waits for it.
        member.process_ready(&mut Vec::new())?;
        Ok(member)
    }

    /// Bootstraps a cluster with this node as its only member.
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
        // As the only voter it wins at once, and leads from the next event on.
        let _ = self.raw.campaign();
        self.pin_election_timeout();
        Ok(())
    }

    /// Handles an event at `now_ms`, which never decreases. Appends what the caller has to do, in order, to `actions`.
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

    /// The map, as far as this member has applied the log.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// The leader, as far as this member knows; None once it has stopped.
    pub fn leader(&self) -> Option<NodeId> {
        self.node_of(self.raw.raft.leader_id).filter(|_| self.fault.is_none())
    }

    /// The leader, and when it certainly led: if it is this member, when a majority last answered; if it is another,
    /// now, although only the caller can tell whether that one is heard.
    pub fn leader_at(&self) -> Option<(NodeId, u64)> {
        let leader = self.leader()?;
        let at = if self.is_leader() { self.followed_at()? } else { self.now_ms };
        Some((leader, at))
    }

    /// As the leader, the latest time by which a majority of the voters (of both sets in a joint configuration) has
    /// answered. None if it has not yet.
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

    /// True if this member believes to lead. It may have been deposed half a second ago: only a proposal or a read
    /// makes sure.
    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader && self.fault.is_none()
    }

    /// True if it leads and its map has all decisions of earlier leaders.
    pub fn leads(&self) -> bool {
        self.is_leader() && self.raw.raft.commit_to_current_term()
    }

    /// Raft's term.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// This member's Raft id.
    pub fn raft(&self) -> u64 {
        self.raw.raft.id
    }

    /// Voters and learners, by Raft id.
    pub fn configuration(&self) -> Configuration {
        (&self.raw.raft.prs().conf().to_conf_state()).into()
    }

    /// Why this member has stopped, if it has.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// The disk with its state.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Ends the member and returns its disk.
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
        // Another cluster's message, or a claimed Raft id that belongs to another node.
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
        // A message that Raft refuses counts as lost; its sender retries.
        let _ = self.raw.step(message);
        // Peers may claim any Raft id, so only members are remembered.
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

    /// As the leader, takes one step from the current voters to the wanted ones.
    fn steer_voters(&mut self) {
        let raft = &self.raw.raft;
        if raft.has_pending_conf() {
            return;
        }
        let current = self.configuration();
        if !current.voters_outgoing.is_empty() {
            // Raft leaves a joint configuration by itself, unless the leader changed in between.
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

    /// Saves `changes` to an empty disk and restarts Raft from them.
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

    /// Replaces the election timeout that Raft drew by one that is constant within a term.
    fn pin_election_timeout(&mut self) {
        let ticks = self.config.election_ticks as u64;
        let drawn = mix(self.config.seed ^ mix(self.raw.raft.term)) % ticks;
        self.raw.raft.set_randomized_election_timeout((ticks + drawn) as usize);
    }
}

/// Starts Raft from checked state.
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

/// A step of splitmix64: decorrelates consecutive numbers.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
