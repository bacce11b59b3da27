//! Fencing: a node that reports a peer as unreachable acknowledges none of its writes until the map has decided.
//!
//! The leader counts each report as a replica through which the peer cannot commit any more. If the reporter
//! acknowledged one more write, the peer could acknowledge that to a client, and the next primary could lack it.
//!
//! ```text
//!                unreachable                      the map: that incarnation is down
//!   not fenced ──────────────► fenced, reported ─────────────────────────────► peer removed
//!       ▲                           │     ▲ every REPORT_PERIOD_MS, to the current leader
//!       │  own map is at least the  │ "stays", for this fence, in the current term
//!       └─────── answer's version ◄─┘
//! ```
//!
//! An answer counts only for the fence that it names and only in the current term: the answer of a deposed leader must
//! not lift a fence that its successor counts on. If the peer is heard again meanwhile, the report says so, but the
//! fence stays. After an answer, the next fence against that peer waits for [`REPORT_PAUSE_MS`], so a link that stays
//! broken causes one fence per second.

use super::{Action, Leader, MapView, Message, To};
use crate::cluster::Identity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Period of reports while fenced.
pub const REPORT_PERIOD_MS: u64 = 100;
/// Pause between the answer "stays" and the next fence against that peer.
pub const REPORT_PAUSE_MS: u64 = 1000;

/// To the leader: the sender does not hear a peer, and has fenced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The reporter.
    pub from: Identity,
    /// The incarnation that is reported.
    pub about: Identity,
    /// The number of the fence, which increases within an incarnation of the reporter.
    pub number: u64,
    /// The term of the leader it is for.
    pub term: u64,
    /// False if the peer has been heard again since it was fenced.
    pub is_unreachable: bool,
    /// True if the next incarnation of the peer has been heard.
    pub has_restarted: bool,
    /// How long the reporter has not heard the leader: the reports of a node that is being cut off itself do not count.
    pub leader_silence_ms: u64,
}

/// From the leader: the reported peer stays in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stays {
    /// The incarnation that was reported.
    pub about: Identity,
    /// The number of the fence that this answers.
    pub number: u64,
    /// The leader's term.
    pub term: u64,
    /// The fence ends as soon as the reporter has this version of the map.
    pub map_version: u64,
}

/// The fences of one node.
#[derive(Debug)]
pub(super) struct Fencing {
    own: Identity,
    leader: Option<Leader>,
    map_version: u64,
    last_number: u64,
    active: BTreeMap<Identity, Fence>,
    /// Peers that stayed, and until when they are not fenced again.
    paused: BTreeMap<Identity, u64>,
}

#[derive(Debug)]
struct Fence {
    number: u64,
    is_unreachable: bool,
    has_restarted: bool,
    next_report_ms: u64,
    /// Set by the leader's answer: the fence ends with this version of the map.
    ends_with_version: Option<u64>,
}

impl Fencing {
    pub(super) fn new(own: Identity) -> Self {
        let (active, paused) = (BTreeMap::new(), BTreeMap::new());
        Self { own, leader: None, map_version: 0, last_number: 0, active, paused }
    }

    /// True while no acknowledgement may be sent to this incarnation of a peer.
    pub(super) fn is_fenced(&self, identity: Identity) -> bool {
        self.active.contains_key(&identity)
    }

    /// Follows Raft to another leader, or to none. Answers of the last leader that the map has not caught up with are
    /// void.
    pub(super) fn follow_leader(&mut self, leader: Option<Leader>, now_ms: u64) {
        self.leader = leader;
        for fence in self.active.values_mut() {
            fence.next_report_ms = now_ms;
            fence.ends_with_version = None;
        }
    }

    /// Follows the map: ends fences against incarnations that are down, and those whose answer the map has caught up
    /// with.
    pub(super) fn follow_map(&mut self, map: &MapView, now_ms: u64) {
        self.map_version = map.version;
        self.active.retain(|&about, _| map.is_alive(about));
        self.paused.retain(|&about, _| map.is_alive(about));
        self.end_answered(now_ms);
    }

    /// Handles the leader's answer that a peer stays.
    pub(super) fn receive(&mut self, stays: Stays, now_ms: u64) {
        // From another term: the current leader may count on the fence.
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

    /// Fences all peers that are unreachable (the value says whether the next incarnation was heard), and sends the
    /// reports that are due, with the time since the leader was heard.
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

    /// When the next report is due or the next pause ends.
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
