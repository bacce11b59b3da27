//! Replication of groups between nodes: primary and backups with in-sync sets, as in PacificA (Lin et al. 2008) and Kafka.
//!
//! It is a state machine: requests, messages, maps and the time go in, [`Action`]s come out. It opens no socket, reads no clock
//! and keeps no data: that is in a [`Store`]. `docs/replication.md` tells the protocol, and why it is right.
//!
//! | file | concept |
//! |---|---|
//! | `entry.rs`, `message.rs` | what a log consists of; what nodes say to each other |
//! | `log.rs` | the newest entries of a group, and their epochs |
//! | `replica_state.rs` | what a node holds of a group: log, applied, committed; being filled by a snapshot |
//! | `peer.rs` | another holder, as its primary sees it: a cursor in the log, a snapshot under way |
//! | `primary.rs` | what a primary does: admit, commit, propose, hand over |
//! | `lease.rs` | who may believe to be primary, and until when |
//! | `replica_group.rs` | a group on a node: which of these it is now |
//! | `rules.rs` | the rules, and the switches by which tests break them |
//! | `store.rs` | what is asked of the store |
//!
//! ```text
//!  request ─► admit ─► (the shard executes) ─► record the effects ─► settle ─► answer now, or park until committed
//!                                                   │
//!                                                 flush ─► Append to the other holders ─► Acknowledge ─► commit ─► Answer
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

/// A time in milliseconds, of a clock that goes on while the machine sleeps and is never set (CLOCK_BOOTTIME).
pub type Ms = u64;

/// Names a request, for its answer.
pub type Ticket = u64;

/// Bytes of entries after which a frame is full, and how many it has at most.
const FRAME_ENTRY_BYTES: usize = 64 << 10;
const ENTRIES_PER_FRAME_MAX: usize = 4_096;
/// Entries that may be on their way to a peer.
const WINDOW_ENTRIES: u64 = 65_536;
/// Bytes of a chunk of a snapshot, about.
const CHUNK_BYTES: usize = 64 << 10;
/// Snapshots that a node sends at once.
const SNAPSHOTS_MAX: usize = 8;
/// How long a node that knows no leader can take itself for a part of the cluster: less than a leader waits before it gives up
/// members of which it hears nothing at all (`membership::DOWN_ALONE_MS`), and far more than an election takes.
const LEADERLESS_MS: u64 = 2_000;
/// A group where nothing happens is looked at every so many ticks: leases may have ended.
const IDLE_TICKS: usize = 10;
/// Keys whose values are asked for at once.
const FETCHED_KEYS_MAX: usize = 64;

/// What a request is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Copies converge; a failover may lose the last writes.
    Eventual,
    /// A session is never silently older than what it has written or read.
    Session,
    /// Linearizable per key.
    Strong,
}

/// Why a request is not carried out. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This node does not serve it; perhaps that one does.
    #[error("another node serves it")]
    Elsewhere(Option<NodeId>),
    /// The group is changing hands; in some milliseconds it has.
    #[error("the group is being handed over")]
    Frozen,
    /// An earlier primary may still believe to be one; or too many requests wait already.
    #[error("the group is not ready yet")]
    Waiting,
    /// The other holders, or most members, cannot be reached.
    #[error("the node has no lease")]
    NoLease,
    /// Fewer in-sync copies than the settings want.
    #[error("there are too few in-sync copies")]
    TooFewInSync,
    /// What the session has written or read is lost: a failover did not know of it.
    #[error("the session's last writes were lost")]
    SessionLost,
}

/// What became of a request that was parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What it has seen and written is safe.
    Done,
    /// It may have been carried out, or not, or be yet.
    Unknown,
}

/// Whether a request's answer can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// At once. The position is the session's next token.
    Now(Position),
    /// With an [`Action::Answer`]. The position is the token then.
    Parked(Position),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a message.
    Send {
        /// To whom: if the node is in another life, to nobody.
        to: Identity,
        /// What.
        message: Message,
    },
    /// Propose a change of the map.
    Propose(GroupChange),
    /// Answer a request that was parked.
    Answer {
        /// Which.
        ticket: Ticket,
        /// What became of it.
        answer: Answer,
    },
    /// Tell the operator: this node became the primary of a group whose data it does not have, and begins with nothing. No
    /// sound peer brings that about.
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

/// What the parts of a group ask about the node.
struct View<'a> {
    me: Identity,
    now: Ms,
    rules: Rules,
    leases: &'a Leases,
    /// Most members have given leases, this node counted.
    has_majority: bool,
    /// The cluster has a leader, or had one just now.
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
    /// Who was reported as unreachable, and the map has not answered yet.
    fenced: BTreeSet<Identity>,
    /// Groups with something to send.
    dirty: BTreeSet<Group>,
    requested_at: Option<Ms>,
    led_at: Option<Ms>,
    next_snapshot_id: u64,
    backlog_bytes: usize,
    tick_number: usize,
}

impl Replication {
    /// The replication of a node that holds nothing. Each group keeps so many bytes of its log for those who fall behind.
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

    /// The map has changed, in these groups.
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
        let holds = assignment.holders().any(|holder| holder == self.me);
        // A primary that is ahead of this map may have made it a holder again.
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

    /// Who was reported to the cluster's leader as unreachable, and has not been answered for: they get no acknowledgements and no
    /// leases.
    pub fn set_fenced(&mut self, fenced: BTreeSet<Identity>) {
        self.fenced = fenced;
    }

    /// The cluster had this leader at `at`, as far as this node knows. It counts where the two hear each other: who is cut off
    /// from the leader, one way too, cannot know what was decided without it.
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

    /// Whether a request for a key may be carried out here, now.
    ///
    /// # Errors
    /// It may not.
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

    /// The version that the next effect on a group gets.
    pub fn next_position(&self, group: Group) -> Option<Position> {
        self.groups.get(&group).map(ReplicaGroup::next_position)
    }

    /// Writes down an effect that the store has already, at the group's next position.
    ///
    /// # Panics
    /// In debug builds: no request that writes was admitted to the group.
    pub fn record(&mut self, group: Group, effect: Effect) {
        if let Some(replica_group) = self.groups.get_mut(&group) {
            replica_group.record(effect);
            self.dirty.insert(group);
        }
    }

    /// The store has evicted a key on its own, which is gone from it.
    pub fn evicted(&mut self, group: Group, key: &[u8], now: Ms, store: &mut impl Store) {
        let Some(mut replica_group) = self.groups.remove(&group) else { return };
        replica_group.evicted(key, &self.view(now), store);
        self.groups.insert(group, replica_group);
        self.dirty.insert(group);
    }

    /// Whether a request that was carried out can be answered.
    pub fn complete_request(&mut self, group: Group, level: Level, ticket: Ticket, now: Ms) -> Completion {
        let mut groups = std::mem::take(&mut self.groups);
        let replica_group = groups.get_mut(&group).expect("it was admitted");
        let token = replica_group.replica().applied();
        let parks = level == Level::Strong && replica_group.park(ticket, &self.view(now));
        self.groups = groups;
        if parks { Completion::Parked(token) } else { Completion::Now(token) }
    }

    /// Sends what the requests and messages of a turn have left to send. To be called at its end.
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

    // Other nodes and time.

    /// Another node has sent something.
    pub fn receive(
        &mut self,
        from: Identity,
        message: Message,
        now: Ms,
        store: &mut impl Store,
        out: &mut Vec<Action>,
    ) {
        match message {
            // Whoever is not in the map needs none, and there are as many of them as anybody may think of.
            Message::LeaseRequest { .. } | Message::LeaseGrant { .. } if !self.members.contains(&from) => {}
            Message::LeaseRequest { sent_at } => {
                if !self.is_fenced(from) {
                    self.leases.grant(from, now);
                    let message = Message::LeaseGrant { sent_at, map_version: self.map_version };
                    out.push(Action::Send { to: from, message });
                }
            }
            Message::LeaseGrant { sent_at, map_version } => {
                if map_version <= self.map_version {
                    self.leases.receive(from, sent_at, now);
                }
            }
            Message::Group { group, epoch, body } => {
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

    /// The time has come to look at everything: every ten milliseconds or so.
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

    // For monitoring, and for tests.

    /// Whom a node that holds a group takes for its primary.
    pub fn primary(&self, group: Group) -> Option<Identity> {
        self.groups.get(&group)?.primary()
    }

    /// The epoch in which this node is the primary of a group, as far as it knows.
    pub fn leads_in(&self, group: Group) -> Option<Epoch> {
        self.groups.get(&group).filter(|replica_group| replica_group.is_primary()).map(ReplicaGroup::epoch)
    }
}
