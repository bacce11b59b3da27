//! Heartbeats: the failure detector of each node. Ten a second to each other node, over the data connections.
//!
//! A peer is *unreachable* if it was not heard for a while, or if its heartbeats say that it does not hear this node: a
//! link that is cut one way cannot carry replication, so it counts as cut at both ends.
//!
//! ```text
//! heartbeats of a peer   │ │ │ ✗ │ │ † killed
//! heard                                └──── silence_ms ────► unreachable
//! ```
//!
//! | case | why it raises no alarm |
//! |---|---|
//! | one to five heartbeats in a row are lost | six are due within the silence |
//! | a peer pauses for 400 ms | it is back before the silence ends |
//! | this node paused: its clock jumped between two steps | silences start anew, and reports that it was not heard are ignored for a while |
//! | a peer was just added to the map and never heard | it has to get the map first and holds nothing yet: it gets more time |
//!
//! Heartbeats of strangers (other clusters, earlier incarnations, nodes that the map does not have) are refused and
//! counted.

use super::Refusals;
use crate::cluster::membership::MapView;
use crate::cluster::{Identity, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Members of a cluster, at most; bounds the list in a heartbeat.
pub const MEMBERS_MAX: usize = 1024;

/// The heartbeat that a node sends to each other node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender.
    pub from: Identity,
    /// The sender's cluster.
    pub cluster: u64,
    /// Increases with each heartbeat of this incarnation.
    pub sequence: u64,
    /// The version of the sender's map.
    pub map_version: u64,
    /// Members that the sender does not hear; at most [`MEMBERS_MAX`], usually none.
    pub unheard: Vec<Identity>,
}

/// The timing of heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatTiming {
    /// Period of heartbeats.
    pub period_ms: u64,
    /// A peer that was not heard for so long is unreachable.
    pub silence_ms: u64,
    /// The silence allowed for a peer that was never heard.
    pub newcomer_ms: u64,
    /// A longer interval between two steps of this node counts as a pause of its own.
    pub own_pause_ms: u64,
}

impl Default for HeartbeatTiming {
    /// Six heartbeats in a row may be lost, or one of them together with a pause of 400 ms.
    fn default() -> Self {
        Self { period_ms: 100, silence_ms: 650, newcomer_ms: 5000, own_pause_ms: 250 }
    }
}

/// A change in what is known about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Unreachable(Identity),
    Reachable(Identity),
    Restarted { before: Identity, incarnation: u64 },
}

/// The heartbeats that a node sends and hears.
#[derive(Debug)]
pub(super) struct Heartbeats {
    own: Identity,
    timing: HeartbeatTiming,
    cluster: u64,
    map_version: u64,
    peers: BTreeMap<NodeId, Peer>,
    sequence: u64,
    next_heartbeat_ms: u64,
    last_step_ms: u64,
    /// Until then, peers that say they do not hear this node do so because it paused.
    paused_lately_until_ms: u64,
    refusals: Refusals,
}

#[derive(Debug)]
struct Peer {
    incarnation: u64,
    heard_at_ms: u64,
    /// The number of its last heartbeat: those with lower numbers are late and prove nothing.
    sequence: u64,
    map_version: u64,
    unheard: BTreeSet<Identity>,
    /// The next incarnation has been heard, so this one has ended.
    has_restarted: bool,
    is_unreachable: bool,
}

impl Heartbeats {
    pub(super) fn new(own: Identity, timing: HeartbeatTiming, now_ms: u64) -> Self {
        Self {
            own,
            timing,
            cluster: 0,
            map_version: 0,
            peers: BTreeMap::new(),
            sequence: 0,
            next_heartbeat_ms: now_ms,
            last_step_ms: now_ms,
            paused_lately_until_ms: 0,
            refusals: Refusals::default(),
        }
    }

    /// Begins a step. If this node was paused, it was not the peers that were silent: their silences start anew.
    pub(super) fn begin_step(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.last_step_ms) > self.timing.own_pause_ms {
            self.peers.values_mut().for_each(|peer| peer.heard_at_ms = now_ms);
            self.paused_lately_until_ms = now_ms + self.timing.silence_ms;
        }
        self.last_step_ms = now_ms;
    }

    /// Monitors the live members of `map`.
    pub(super) fn follow(&mut self, map: &MapView, now_ms: u64) {
        self.cluster = map.cluster;
        self.map_version = map.version;
        self.peers.retain(|&node, peer| map.is_alive(Identity { node, incarnation: peer.incarnation }));
        for identity in map.alive().filter(|identity| identity.node != self.own.node) {
            self.peers.entry(identity.node).or_insert_with(|| Peer::new(identity.incarnation, now_ms));
        }
    }

    /// Updates which peers are unreachable. Returns the heartbeat that is due, if any, for all [`peers`](Self::peers).
    pub(super) fn wake(&mut self, now_ms: u64, changes: &mut Vec<Change>) -> Option<Heartbeat> {
        let trusts_deafness = now_ms >= self.paused_lately_until_ms;
        for (&node, peer) in &mut self.peers {
            // Right after a pause of this node, peers rightly say that they did not hear it: that is no cut.
            let is_deaf = trusts_deafness && peer.unheard.contains(&self.own);
            let is_unreachable = is_deaf || peer.is_silent(self.timing, now_ms);
            if is_unreachable != std::mem::replace(&mut peer.is_unreachable, is_unreachable) {
                let identity = Identity { node, incarnation: peer.incarnation };
                changes.push(if is_unreachable { Change::Unreachable(identity) } else { Change::Reachable(identity) });
            }
        }
        if now_ms < self.next_heartbeat_ms {
            return None;
        }
        // After a pause one heartbeat is sent, not all that were missed.
        self.next_heartbeat_ms = now_ms + self.timing.period_ms;
        self.sequence += 1;
        let silent = self.peers.iter().filter(|(_, peer)| peer.is_silent(self.timing, now_ms));
        let unheard = silent.map(|(&node, peer)| Identity { node, incarnation: peer.incarnation });
        Some(Heartbeat {
            from: self.own,
            cluster: self.cluster,
            sequence: self.sequence,
            map_version: self.map_version,
            unheard: unheard.take(MEMBERS_MAX).collect(),
        })
    }

    /// Handles a heartbeat.
    pub(super) fn receive(&mut self, heartbeat: Heartbeat, now_ms: u64, changes: &mut Vec<Change>) {
        if heartbeat.cluster != self.cluster {
            self.refusals.other_cluster += 1;
            return;
        }
        if heartbeat.unheard.len() > MEMBERS_MAX {
            self.refusals.malformed += 1;
            return;
        }
        let Some(peer) = self.peers.get_mut(&heartbeat.from.node) else {
            self.refusals.unknown += 1;
            return;
        };
        if heartbeat.from.incarnation < peer.incarnation {
            self.refusals.past_incarnation += 1;
        // The node has restarted: its earlier incarnation has ended, whatever the silence.
        } else if heartbeat.from.incarnation > peer.incarnation {
            if !std::mem::replace(&mut peer.has_restarted, true) {
                let before = Identity { node: heartbeat.from.node, incarnation: peer.incarnation };
                changes.push(Change::Restarted { before, incarnation: heartbeat.from.incarnation });
            }
        } else if heartbeat.sequence > peer.sequence {
            peer.heard_at_ms = now_ms;
            peer.sequence = heartbeat.sequence;
            peer.map_version = heartbeat.map_version;
            peer.unheard = heartbeat.unheard.into_iter().collect();
        }
    }

    /// When the next heartbeat is due or the next silence ends.
    pub(super) fn wake_at_ms(&self) -> u64 {
        let heard = self.peers.values().filter(|peer| !peer.is_unreachable);
        let silent = heard.map(|peer| peer.heard_at_ms + peer.patience_ms(self.timing));
        silent.min().map_or(self.next_heartbeat_ms, |at_ms| at_ms.min(self.next_heartbeat_ms))
    }

    /// All other live members.
    pub(super) fn peers(&self) -> impl Iterator<Item = NodeId> {
        self.peers.keys().copied()
    }

    /// Unreachable peers, each with whether its next incarnation has been heard.
    pub(super) fn unreachable(&self) -> impl Iterator<Item = (Identity, bool)> {
        let peers = self.peers.iter().filter(|(_, peer)| peer.is_unreachable);
        peers.map(|(&node, peer)| (Identity { node, incarnation: peer.incarnation }, peer.has_restarted))
    }

    /// True if this node and this incarnation of a peer hear each other.
    pub(super) fn is_reachable(&self, identity: Identity) -> bool {
        let peer = self.peers.get(&identity.node);
        peer.is_some_and(|peer| peer.incarnation == identity.incarnation && !peer.is_unreachable)
    }

    /// True if `peer` is reachable and, by its last heartbeat, hears `other`.
    pub(super) fn hears(&self, peer: Identity, other: Identity) -> bool {
        self.is_reachable(peer) && self.peers.get(&peer.node).is_some_and(|peer| !peer.unheard.contains(&other))
    }

    /// When this incarnation of a peer was last heard.
    pub(super) fn heard_at_ms(&self, identity: Identity) -> Option<u64> {
        let peer = self.peers.get(&identity.node).filter(|peer| peer.incarnation == identity.incarnation);
        peer.map(|peer| peer.heard_at_ms)
    }

    /// How long a peer has not been heard.
    pub(super) fn silence_ms(&self, node: NodeId, now_ms: u64) -> Option<u64> {
        self.peers.get(&node).map(|peer| now_ms.saturating_sub(peer.heard_at_ms))
    }

    /// The newest map version among the peers' heartbeats, and the peer that has it.
    pub(super) fn newest_map(&self) -> Option<(u64, NodeId)> {
        self.peers.iter().map(|(&node, peer)| (peer.map_version, node)).max()
    }

    pub(super) fn refusals(&self) -> Refusals {
        self.refusals
    }
}

impl Peer {
    fn new(incarnation: u64, now_ms: u64) -> Self {
        Self {
            incarnation,
            heard_at_ms: now_ms,
            sequence: 0,
            map_version: 0,
            unheard: BTreeSet::new(),
            has_restarted: false,
            is_unreachable: false,
        }
    }

    fn is_silent(&self, timing: HeartbeatTiming, now_ms: u64) -> bool {
        self.has_restarted || now_ms.saturating_sub(self.heard_at_ms) >= self.patience_ms(timing)
    }

    fn patience_ms(&self, timing: HeartbeatTiming) -> u64 {
        if self.sequence == 0 { timing.newcomer_ms } else { timing.silence_ms }
    }
}
