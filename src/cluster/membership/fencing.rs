//! Reporting a peer unreachable is a promise: from then on we acknowledge nothing of it, until the map has answered.
//!
//! Why: whoever counts our report takes us for a replica that the peer can no longer write through. If we acknowledged one
//! more write of the peer after that, it could be acknowledged to a client, and be missing from the next primary.
//!
//! ```text
//!                unreachable                      the map: that life is over
//!   no promise ──────────────► promised, reported ─────────────────────────────► no promise, no peer
//!       ▲                           │     ▲ every REPORT_PERIOD_MS, to whoever leads
//!       │  our map is as new as     │ "it stays", of this promise and of the term that we know
//!       └─────── the answer's ◄─────┘
//! ```
//!
//! An answer counts only for the promise that it names, and only from the leader of the term that we know: the answer of one
//! that has been replaced must not free us from what its successor counts on. A peer that is heard again during a promise
//! changes the report, not the promise. After an answer, the next report about the same peer waits for
//! [`REPORT_PAUSE_MS`]: a link that stays broken costs one promise a second.

use super::{Action, Leader, MapView, Message, To};
use crate::cluster::Identity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// From one report of a promise to the next.
pub const REPORT_PERIOD_MS: u64 = 100;
/// From the answer "it stays" to the next promise about the same peer.
pub const REPORT_PAUSE_MS: u64 = 1000;

/// To the leader: a peer is unreachable to us, and we have stopped acknowledging its writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who promises.
    pub from: Identity,
    /// About which life of which peer.
    pub about: Identity,
    /// Larger with each promise of this life of the sender.
    pub number: u64,
    /// To the leader of which term.
    pub term: u64,
    /// False if the peer has been heard again since the promise.
    pub is_unreachable: bool,
    /// True if the next life of the peer has been heard.
    pub has_restarted: bool,
    /// For how long the sender has not heard the leader: one that is being cut off from it has no say about others.
    pub leader_silence_ms: u64,
}

/// From the leader: the peer stays in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stays {
    /// Whom the report was about.
    pub about: Identity,
    /// Which promise it ends.
    pub number: u64,
    /// The leader's term.
    pub term: u64,
    /// The promise ends with this version of the map, not before.
    pub map_version: u64,
}

/// The promises of one node.
#[derive(Debug)]
pub(super) struct Fencing {
    own: Identity,
    leader: Option<Leader>,
    map_version: u64,
    last_number: u64,
    active: BTreeMap<Identity, Fence>,
    /// Peers that stay, and until when no promise is made about them.
    paused: BTreeMap<Identity, u64>,
}

#[derive(Debug)]
struct Fence {
    number: u64,
    is_unreachable: bool,
    has_restarted: bool,
    next_report_ms: u64,
    /// The leader has answered: the promise ends with this version of the map.
    ends_with_version: Option<u64>,
}

impl Fencing {
    pub(super) fn new(own: Identity) -> Self {
        let (active, paused) = (BTreeMap::new(), BTreeMap::new());
        Self { own, leader: None, map_version: 0, last_number: 0, active, paused }
    }

    /// True while nothing of this life of a peer may be acknowledged.
    pub(super) fn is_fenced(&self, identity: Identity) -> bool {
        self.active.contains_key(&identity)
    }

    /// Raft knows another leader, or none. What the last one answered, and the map has not caught up with, is void.
    pub(super) fn follow_leader(&mut self, leader: Option<Leader>, now_ms: u64) {
        self.leader = leader;
        for fence in self.active.values_mut() {
            fence.next_report_ms = now_ms;
            fence.ends_with_version = None;
        }
    }

    /// The map has answered about those that take part no more, and has caught up with some of the leader's answers.
    pub(super) fn follow_map(&mut self, map: &MapView, now_ms: u64) {
        self.map_version = map.version;
        self.active.retain(|&about, _| map.is_alive(about));
        self.paused.retain(|&about, _| map.is_alive(about));
        self.end_answered(now_ms);
    }

    /// The leader says that a peer stays.
    pub(super) fn receive(&mut self, stays: Stays, now_ms: u64) {
        if self.leader.is_none_or(|leader| leader.term != stays.term) {
            return;
        }
        if let Some(fence) = self.active.get_mut(&stays.about).filter(|fence| fence.number == stays.number) {
            fence.ends_with_version = Some(stays.map_version);
            self.end_answered(now_ms);
        }
    }

    fn end_answered(&mut self, now_ms: u64) {
        let version = self.map_version;
        let is_answered = |fence: &Fence| fence.ends_with_version.is_some_and(|ends_with| ends_with <= version);
        let answered = self.active.extract_if(.., |_, fence| is_answered(fence));
        self.paused.extend(answered.map(|(about, _)| (about, now_ms + REPORT_PAUSE_MS)));
    }

    /// Promises about all that are unreachable now, each with whether its next life was heard; reports what is due to the
    /// leader, which has been silent for so long.
    pub(super) fn wake(
        &mut self,
        unreachable: &BTreeMap<Identity, bool>,
        leader_silence_ms: u64,
        now_ms: u64,
        actions: &mut Vec<Action>,
    ) {
        self.paused.retain(|_, until_ms| now_ms < *until_ms);
        for &about in unreachable.keys().filter(|about| !self.paused.contains_key(about)) {
            self.active.entry(about).or_insert_with(|| {
                self.last_number += 1;
                Fence::new(self.last_number, now_ms)
            });
        }
        for (&about, fence) in &mut self.active {
            fence.is_unreachable = unreachable.contains_key(&about);
            fence.has_restarted |= unreachable.get(&about).is_some_and(|&has_restarted| has_restarted);
            if let Some(leader) = self.leader
                && fence.ends_with_version.is_none()
                && fence.next_report_ms <= now_ms
            {
                fence.next_report_ms = now_ms + REPORT_PERIOD_MS;
                let message = Message::Report(Report {
                    from: self.own,
                    about,
                    number: fence.number,
                    term: leader.term,
                    is_unreachable: fence.is_unreachable,
                    has_restarted: fence.has_restarted,
                    leader_silence_ms,
                });
                actions.push(Action::Send { to: To::Node(leader.node), message });
            }
        }
    }

    /// When a report is due, or a promise may be made anew.
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        let unanswered = self.active.values().filter(|fence| fence.ends_with_version.is_none());
        let reports = unanswered.filter(|_| self.leader.is_some()).map(|fence| fence.next_report_ms);
        reports.chain(self.paused.values().copied()).min()
    }
}

impl Fence {
    fn new(number: u64, now_ms: u64) -> Self {
        Self { number, is_unreachable: true, has_restarted: false, next_report_ms: now_ms, ends_with_version: None }
    }
}
