//! Who hears whom: ten heartbeats a second from each node to each other, over the connections that carry the data.
//!
//! A peer is *unreachable* when we have not heard it for a while, or when it says that it does not hear us: a link that is cut
//! one way carries no replication, so it counts as cut at both ends.
//!
//! ```text
//! heartbeats of a peer   │ │ │ ✗ │ │ † killed
//! heard                                └──── silence_ms ────► unreachable
//! ```
//!
//! | what | why it is no alarm |
//! |---|---|
//! | a lost heartbeat, or five in a row | six are due within the silence |
//! | a peer that pauses for 400 ms | it is back before the silence is over |
//! | we paused: our clock jumped between two steps | we listen to them anew; that they did not hear us is no cut either |
//! | a peer that has just come into the map, and was never heard | it has to get the map first, and holds nothing yet: it has more time |
//!
//! Heartbeats of strangers (another cluster, a life that is over, nobody that the map knows) are refused and counted.

use super::Refusals;
use crate::cluster::membership::MapView;
use crate::cluster::{Identity, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Members of a cluster, at most: it bounds what a heartbeat may list.
pub const MEMBERS_MAX: usize = 1024;

/// What a node says ten times a second to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Who says it.
    pub from: Identity,
    /// As a member of which cluster.
    pub cluster: u64,
    /// Larger with each heartbeat of this life.
    pub sequence: u64,
    /// The version of the map that the sender has.
    pub map_version: u64,
    /// Members that the sender does not hear; at most [`MEMBERS_MAX`], and most of the time none.
    pub unheard: Vec<Identity>,
}

/// How often, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatTiming {
    /// From one heartbeat to the next.
    pub period_ms: u64,
    /// A peer that is not heard for so long is unreachable.
    pub silence_ms: u64,
    /// The same for a peer that was never heard.
    pub newcomer_ms: u64,
    /// A longer time between two of our own steps is a pause of ours.
    pub own_pause_ms: u64,
}

impl Default for HeartbeatTiming {
    /// Six heartbeats in a row may be lost, and a pause of 400 ms together with one of them.
    fn default() -> Self {
        Self { period_ms: 100, silence_ms: 650, newcomer_ms: 5000, own_pause_ms: 250 }
    }
}

/// What has changed about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Unreachable(Identity),
    Reachable(Identity),
    Restarted { before: Identity, incarnation: u64 },
}

/// Heartbeats of one node, sent and heard.
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
    /// Until then, that others do not hear us is the trace of a pause of ours.
    paused_lately_until_ms: u64,
    refusals: Refusals,
}

#[derive(Debug)]
struct Peer {
    incarnation: u64,
    heard_at_ms: u64,
    /// Of its last heartbeat: older ones come late, and prove nothing.
    sequence: u64,
    map_version: u64,
    unheard: BTreeSet<Identity>,
    /// The next life of the node has been heard, so this one is over.
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

    /// Before anything else of a step: if we were paused, the silence of the others was our own deafness.
    pub(super) fn begin_step(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.last_step_ms) > self.timing.own_pause_ms {
            self.peers.values_mut().for_each(|peer| peer.heard_at_ms = now_ms);
            self.paused_lately_until_ms = now_ms + self.timing.silence_ms;
        }
        self.last_step_ms = now_ms;
    }

    /// Takes the members of a map as the peers to be heard.
    pub(super) fn follow(&mut self, map: &MapView, now_ms: u64) {
        self.cluster = map.cluster;
        self.map_version = map.version;
        self.peers.retain(|&node, peer| map.is_alive(Identity { node, incarnation: peer.incarnation }));
        for identity in map.alive().filter(|identity| identity.node != self.own.node) {
            self.peers.entry(identity.node).or_insert_with(|| Peer::new(identity.incarnation, now_ms));
        }
    }

    /// Looks who has been silent for too long. The heartbeat that is due, if one is, goes to all [`peers`](Self::peers).
    pub(super) fn wake(&mut self, now_ms: u64, changes: &mut Vec<Change>) -> Option<Heartbeat> {
        let trusts_deafness = now_ms >= self.paused_lately_until_ms;
        for (&node, peer) in &mut self.peers {
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
        // After a pause one heartbeat is due, not all that were missed.
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

    /// A heartbeat has arrived.
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

    /// When the next heartbeat is due, or somebody may have been silent for too long.
    pub(super) fn wake_at_ms(&self) -> u64 {
        let heard = self.peers.values().filter(|peer| !peer.is_unreachable);
        let silent = heard.map(|peer| peer.heard_at_ms + peer.patience_ms(self.timing));
        silent.min().map_or(self.next_heartbeat_ms, |at_ms| at_ms.min(self.next_heartbeat_ms))
    }

    /// All other nodes that take part.
    pub(super) fn peers(&self) -> impl Iterator<Item = NodeId> {
        self.peers.keys().copied()
    }

    /// Peers that are unreachable, each with whether its next life has been heard.
    pub(super) fn unreachable(&self) -> impl Iterator<Item = (Identity, bool)> {
        let peers = self.peers.iter().filter(|(_, peer)| peer.is_unreachable);
        peers.map(|(&node, peer)| (Identity { node, incarnation: peer.incarnation }, peer.has_restarted))
    }

    /// True if we and this life of a peer hear each other.
    pub(super) fn is_reachable(&self, identity: Identity) -> bool {
        let peer = self.peers.get(&identity.node);
        peer.is_some_and(|peer| peer.incarnation == identity.incarnation && !peer.is_unreachable)
    }

    /// True if a peer, by its last heartbeat, hears another member.
    pub(super) fn hears(&self, peer: Identity, other: Identity) -> bool {
        self.is_reachable(peer) && self.peers.get(&peer.node).is_some_and(|peer| !peer.unheard.contains(&other))
    }

    /// When this life of a peer was heard last.
    pub(super) fn heard_at_ms(&self, identity: Identity) -> Option<u64> {
        let peer = self.peers.get(&identity.node).filter(|peer| peer.incarnation == identity.incarnation);
        peer.map(|peer| peer.heard_at_ms)
    }

    /// For how long a peer has not been heard.
    pub(super) fn silence_ms(&self, node: NodeId, now_ms: u64) -> Option<u64> {
        self.peers.get(&node).map(|peer| now_ms.saturating_sub(peer.heard_at_ms))
    }

    /// The newest version of the map that a peer speaks of, and who has it.
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
