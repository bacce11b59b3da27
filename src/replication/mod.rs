//! Replication of groups between nodes: primary and backups with in-sync sets, as in PacificA (Lin et al. 2008) and
//! Kafka.
//!
//! [`Replication`] is a sans-IO state machine: requests, messages, maps and the time go in, [`Action`]s come out. It
//! opens no socket, reads no clock and stores no items; those are in a [`Store`]. `docs/replication.md` describes the
//! protocol and proves it.
//!
//! | file | concept |
//! |---|---|
//! | `entry.rs`, `message.rs` | entries of a group's log; messages between nodes |
//! | `log.rs` | the log: the newest entries, and the epoch of each entry |
//! | `replica_state.rs` | a group's replica: log, commit index, applied index, and a snapshot being received |
//! | `peer.rs` | the primary's view of another holder: replication progress, and a snapshot being sent |
//! | `primary.rs` | the primary role: admit requests, commit, propose in-sync changes, hand over |
//! | `lease.rs` | leases between nodes, which bound how long a primary may believe to be one |
//! | `replica_group.rs` | a group on this node: its replica state and its role |
//! | `rules.rs` | the safety rules, each with a switch that tests break |
//! | `store.rs` | the interface to the store |
//!
//! ```text
//!  request ─► admit ─► (the shard executes) ─► record the effects ─► complete ─► answer now, or park until committed
//!                                                   │
//!                                                 flush ─► Append to other holders ─► Acknowledge ─► commit ─► Answer
//! ```

#![forbid(unsafe_code)]

mod entry;
mod lease;
mod log;
mod message;
mod peer;
mod primary;
mod replica_group;
mod replica_state;
mod rules;
mod store;
#[cfg(test)]
mod tests;

pub use entry::{Effect, Entry, Image, Key, Position, Seq};
pub use lease::{GRACE_MS, LEASE_MS};
pub use message::{Body, Message};
pub use primary::{DOUBT_MS, FREEZE_MS, PARKED_MS, STALL_MS};
pub use rules::{Rule, Rules};
pub use store::Store;

use crate::cluster::map::{Assignment, GroupChange, Map, State};
use crate::cluster::{Epoch, Identity, NodeId};
use crate::slots::{GROUPS, Group};
use lease::Leases;
use replica_group::ReplicaGroup;
use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds of a clock that advances while the machine sleeps and is never set (CLOCK_BOOTTIME).
pub type Ms = u64;

/// Identifies a request in its answer.
pub type Ticket = u64;

/// An `Append` frame is full once its entries exceed `FRAME_ENTRY_BYTES`; it never has more than
/// `ENTRIES_PER_FRAME_MAX` entries.
const FRAME_ENTRY_BYTES: usize = 64 << 10;
const ENTRIES_PER_FRAME_MAX: usize = 4_096;
/// Entries that may be in flight to a peer.
const WINDOW_ENTRIES: u64 = 65_536;
/// Approximate size of a snapshot chunk.
const CHUNK_BYTES: usize = 64 << 10;
/// Snapshots that a node sends concurrently.
const SNAPSHOTS_MAX: usize = 8;
/// A node without contact to a leader counts as part of the cluster for so long: less than a leader waits before it
/// declares members down that no witness hears (`membership::DOWN_ALONE_MS`), and much longer than an election.
const LEADERLESS_MS: u64 = 2_000;
/// An idle group is ticked only every `IDLE_TICKS` ticks, to notice leases that have expired.
const IDLE_TICKS: usize = 10;
/// Keys whose images one `Fetch` asks for.
const FETCHED_KEYS_MAX: usize = 64;

/// Consistency level of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Replicas converge; a failover may lose the last writes.
    Eventual,
    /// A session never silently reads a state older than its own reads and writes.
    Session,
    /// Linearizable per key.
    Strong,
}

/// Why a request was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This node does not serve the request; the named node may.
    #[error("another node serves it")]
    Elsewhere(Option<NodeId>),
    /// The group is being handed over to another primary; retry after some milliseconds.
    #[error("the group is being handed over to another primary")]
    Frozen,
    /// The lease of an earlier primary may still be valid, or too many requests are parked.
    #[error("the group is not ready yet")]
    Waiting,
    /// Some in-sync holder, or most members, do not grant this node a lease.
    #[error("the node has no lease")]
    NoLease,
    /// The in-sync set is smaller than `min_in_sync`.
    #[error("there are too few in-sync copies")]
    TooFewInSync,
    /// The log will never contain the session's token: a failover lost what the session wrote or read.
    #[error("the session's last writes were lost")]
    SessionLost,
}

/// The outcome of a parked request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Everything that the request read or wrote is committed.
    Done,
    /// The request's writes may have been committed, may be committed later, or may be lost.
    Unknown,
}

/// Whether the answer of an executed request may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Now. The position is the session's next token.
    Now(Position),
    /// Later, with an [`Action::Answer`]; the position becomes the session's token then.
    Parked(Position),
}

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a message.
    Send {
        /// The recipient. If that node runs in another incarnation, the message is dropped.
        to: Identity,
        /// The message.
        message: Message,
    },
    /// Propose a change of the map.
    Propose(GroupChange),
    /// Answer a parked request.
    Answer {
        /// The request.
        ticket: Ticket,
        /// Its outcome.
        answer: Answer,
    },
    /// Tell the operator: this node was made primary of a group whose data it does not have, and opened it empty. Peers
    /// that follow the protocol cannot cause this.
    Emptied {
        /// The group.
        group: Group,
    },
}

impl Action {
    fn to_holder(group: Group, epoch: Epoch, to: Identity, body: Body) -> Self {
        Self::Send { to, message: Message::Group { group: group.index() as u16, epoch, body } }
    }
}

/// The node's state that groups depend on.
struct View<'a> {
    me: Identity,
    now: Ms,
    rules: Rules,
    leases: &'a Leases,
    /// More than half of the members, this node included, have granted a lease.
    has_majority: bool,
    /// The node had contact to a leader within `LEADERLESS_MS`.
    is_led: bool,
    min_in_sync: usize,
    backlog_bytes: usize,
}

/// The replication of one node.
#[derive(Debug)]
pub struct Replication {
    me: Identity,
    rules: Rules,
    leases: Leases,
    map_version: u64,
    members: Vec<Identity>,
    min_in_sync: usize,
    groups: BTreeMap<Group, ReplicaGroup>,
    /// Identities reported as unreachable whose report the map has not decided yet.
    fenced: BTreeSet<Identity>,
    /// Groups to flush at the end of the turn.
    dirty: BTreeSet<Group>,
    requested_at: Option<Ms>,
    led_at: Option<Ms>,
    next_snapshot_id: u64,
    backlog_bytes: usize,
    tick_number: usize,
}

impl Replication {
    /// Replication of a node that holds nothing. Each group keeps `backlog_bytes` of its log for holders that fall
    /// behind.
    pub fn new(me: Identity, backlog_bytes: usize, rules: Rules) -> Self {
        Self {
            me,
            rules,
            leases: Leases::default(),
            map_version: 0,
            members: Vec::new(),
            min_in_sync: 1,
            groups: BTreeMap::new(),
            fenced: BTreeSet::new(),
            dirty: BTreeSet::new(),
            requested_at: None,
            led_at: None,
            next_snapshot_id: 0,
            backlog_bytes,
            tick_number: 0,
        }
    }

    /// Applies a new map, which differs from the last one in the groups `changed`.
    pub fn map_changed(
        &mut self,
        map: &Map,
        changed: impl IntoIterator<Item = Group>,
        now: Ms,
        store: &mut impl Store,
        out: &mut Vec<Action>,
    ) {
        self.map_version = map.version();
        self.min_in_sync = usize::from(map.settings().min_in_sync);
        let live = map.members().filter(|member| member.state != State::Down);
        self.members = live.map(|member| member.identity()).collect();
        let members = &self.members;
        self.leases.retain(|identity| members.contains(&identity), now);
        for group in changed {
            self.assign(group, map.assignment(group), now, store, out);
        }
    }

    fn assign(
        &mut self,
        group: Group,
        assignment: &Assignment,
        now: Ms,
        store: &mut impl Store,
        out: &mut Vec<Action>,
    ) {
        // A node that the map no longer has as a holder drops its replica.
        let holds = assignment.holders().any(|holder| holder == self.me);
        // A primary whose epoch is ahead of this map may have added this node again as a holder.
        let is_ahead = self.groups.get(&group).is_some_and(|replica_group| replica_group.epoch() > assignment.epoch);
        if !holds && !is_ahead {
            if let Some(replica_group) = self.groups.remove(&group) {
                replica_group.leave(store, out);
            }
            return;
        }
        self.dirty.insert(group);
        let mut groups = std::mem::take(&mut self.groups);
        let view = self.view(now);
        let replica_group = groups.entry(group).or_insert_with(|| ReplicaGroup::new(group, &view));
        replica_group.assign(assignment, &view, store, out);
        self.groups = groups;
    }

    /// Sets the fenced identities: reported to the cluster's leader as unreachable, the report not decided yet. While
    /// fenced, they are sent no acknowledgements and granted no leases.
    pub fn set_fenced(&mut self, fenced: BTreeSet<Identity>) {
        self.fenced = fenced;
    }

    /// Notes that `leader` led the cluster at `at`. Counts only if this node and the leader hear each other (it holds a
    /// lease of the leader): a node that is cut off, even one way, may have missed decisions.
    pub fn note_leader(&mut self, leader: NodeId, at: Ms, now: Ms) {
        let hears = |member: &Identity| member.node == leader && self.leases.holds(*member, now);
        if leader == self.me.node || self.members.iter().any(hears) {
            self.led_at = self.led_at.max(Some(at));
        }
    }

    fn is_fenced(&self, identity: Identity) -> bool {
        self.fenced.contains(&identity) && self.rules.hold(Rule::Fencing)
    }

    fn view(&self, now: Ms) -> View<'_> {
        let given = self.members.iter().filter(|&&member| member == self.me || self.leases.holds(member, now));
        View {
            me: self.me,
            now,
            rules: self.rules,
            leases: &self.leases,
            has_majority: 2 * given.count() > self.members.len(),
            is_led: self.led_at.is_some_and(|at| now <= at + LEADERLESS_MS),
            min_in_sync: self.min_in_sync,
            backlog_bytes: self.backlog_bytes,
        }
    }

    // Requests.

    /// Decides whether a request for `key` may be executed here, now. `token` is the session's last position.
    ///
    /// # Errors
    /// The [`Refusal`]; nothing was changed.
    pub fn admit(
        &self,
        group: Group,
        key: &[u8],
        level: Level,
        writes: bool,
        token: Option<Position>,
        now: Ms,
    ) -> Result<(), Refusal> {
        let replica_group = self.groups.get(&group).ok_or(Refusal::Elsewhere(None))?;
        replica_group.admit(key, level, writes, token, &self.view(now))
    }

    /// The position that the group's next effect will get, which is also the version of the item.
    pub fn next_position(&self, group: Group) -> Option<Position> {
        self.groups.get(&group).map(ReplicaGroup::next_position)
    }

    /// Appends to the log, at the group's next position, an effect that the store has already applied.
    ///
    /// # Panics
    /// In debug builds, if this node is not the group's primary: no write was admitted then.
    pub fn record(&mut self, group: Group, effect: Effect) {
        if let Some(replica_group) = self.groups.get_mut(&group) {
            replica_group.record(effect);
            self.dirty.insert(group);
        }
    }

    /// The store has evicted `key` for want of memory; it no longer has it.
    pub fn evicted(&mut self, group: Group, key: &[u8], now: Ms, store: &mut impl Store) {
        let Some(mut replica_group) = self.groups.remove(&group) else { return };
        replica_group.evicted(key, &self.view(now), store);
        self.groups.insert(group, replica_group);
        self.dirty.insert(group);
    }

    /// Completes an executed request: says whether it may be answered now, and parks it otherwise. Strong requests wait
    /// until everything they may have read is committed.
    pub fn complete_request(&mut self, group: Group, level: Level, ticket: Ticket, now: Ms) -> Completion {
        let mut groups = std::mem::take(&mut self.groups);
        let replica_group = groups.get_mut(&group).expect("the request was admitted, so the group is held");
        let token = replica_group.replica().applied();
        let parks = level == Level::Strong && replica_group.park(ticket, &self.view(now));
        self.groups = groups;
        if parks { Completion::Parked(token) } else { Completion::Now(token) }
    }

    /// Sends what the requests and messages of this turn have left to send. Call it at the end of each turn.
    pub fn flush(&mut self, now: Ms, store: &impl Store, out: &mut Vec<Action>) {
        let mut groups = std::mem::take(&mut self.groups);
        let dirty = std::mem::take(&mut self.dirty);
        let view = self.view(now);
        for group in dirty {
            if let Some(replica_group) = groups.get_mut(&group) {
                replica_group.flush(&view, store, out);
            }
        }
        self.groups = groups;
    }

    // Messages and time.

    /// Handles a message from another node.
    pub fn receive(
        &mut self,
        from: Identity,
        message: Message,
        now: Ms,
        store: &mut impl Store,
        out: &mut Vec<Action>,
    ) {
        match message {
            // Lease messages of non-members are ignored: a peer could make up any number of identities.
            Message::LeaseRequest { .. } | Message::LeaseGrant { .. } if !self.members.contains(&from) => {}
            Message::LeaseRequest { sent_at } => {
                // A fenced peer gets no lease: the leader may be about to make another primary in its place.
                if !self.is_fenced(from) {
                    self.leases.grant(from, now);
                    let message = Message::LeaseGrant { sent_at, map_version: self.map_version };
                    out.push(Action::Send { to: from, message });
                }
            }
            Message::LeaseGrant { sent_at, map_version } => {
                // A granter with a newer map may know a map that changes this node's role, so its lease does not count.
                if map_version <= self.map_version {
                    self.leases.receive(from, sent_at, now);
                }
            }
            Message::Group { group, epoch, body } => {
                // No acknowledgement may reach a fenced primary, so its frames are not processed at all.
                if usize::from(group) >= GROUPS || self.is_fenced(from) {
                    return;
                }
                let group = Group::numbered(usize::from(group));
                let Some(mut replica_group) = self.groups.remove(&group) else { return };
                replica_group.receive(from, epoch, body, &self.view(now), store, out);
                self.groups.insert(group, replica_group);
                self.dirty.insert(group);
            }
        }
    }

    /// Handles the passage of time; call it about every ten milliseconds.
    pub fn tick(&mut self, now: Ms, store: &mut impl Store, out: &mut Vec<Action>) {
        if self.requested_at.is_none_or(|at| now >= at + lease::REQUEST_INTERVAL_MS) {
            self.requested_at = Some(now);
            let others = self.members.iter().filter(|&&member| member != self.me);
            out.extend(others.map(|&to| Action::Send { to, message: Message::LeaseRequest { sent_at: now } }));
        }
        let mut groups = std::mem::take(&mut self.groups);
        let mut next_snapshot_id = self.next_snapshot_id;
        let mut snapshots = SNAPSHOTS_MAX.saturating_sub(groups.values().map(ReplicaGroup::snapshots).sum());
        self.tick_number = (self.tick_number + 1) % IDLE_TICKS;
        let view = self.view(now);
        for (group, replica_group) in &mut groups {
            if !replica_group.is_idle() || group.index() % IDLE_TICKS == self.tick_number {
                let before = replica_group.snapshots();
                replica_group.tick(&view, &mut next_snapshot_id, snapshots, store, out);
                snapshots = snapshots.saturating_sub(replica_group.snapshots().saturating_sub(before));
            }
        }
        (self.groups, self.next_snapshot_id) = (groups, next_snapshot_id);
    }

    // For monitoring and tests.

    /// The primary of a group that this node holds, as far as it knows.
    pub fn primary(&self, group: Group) -> Option<Identity> {
        self.groups.get(&group)?.primary()
    }

    /// The epoch in which this node is the primary of `group`, as far as it knows. None if it is not.
    pub fn leads_in(&self, group: Group) -> Option<Epoch> {
        self.groups.get(&group).filter(|replica_group| replica_group.is_primary()).map(ReplicaGroup::epoch)
    }
}
