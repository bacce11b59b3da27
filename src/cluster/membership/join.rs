//! Joining and leaving a cluster: the applicant's side. (`admission.rs` is the leader's.)
//!
//! ```text
//!            ┌─────────── no answer: retry later ────────────────┐
//!            ▼                                                   │
//!  start ► looking ──── a seed is in a cluster ────► asking ─────┴── accepted, or in the map ──────► member
//!            │ │                                       │ wait: retry later                            │ leave
//!            │ │ every seed answers, none is in one,   │ refused                                      ▼
//!            │ │ and this node is the first of them    ▼                                           leaving
//!            │ └────────────► founding ──► member    failed ◄── seeds of two clusters                 │ nothing held,
//!            │ no seeds, no cluster ──▲                                                               ▼ not in the map
//!            └─ (a node by itself)                                                                   left
//! ```
//!
//! No node founds a cluster while some seed does not answer, since that seed may be in one. So nodes with the same
//! seeds never found two. A node that was in a cluster (its disk says so) returns to that cluster only, in a larger
//! incarnation and with empty memory.
//!
//! All requests are repeated with growing pauses up to [`RETRY_MS_MAX`], and answers depend only on the answering
//! node's state, so lost, duplicate or late messages do no harm.

use super::profile::is_address;
use super::{Action, Leader, MapView, Message, Profile, To};
use crate::cluster::{Identity, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Seeds of a node, at most.
pub const SEEDS_MAX: usize = 64;
/// Length of a reason, at most, in bytes.
pub const REASON_BYTES_MAX: usize = 512;
/// Pauses before a request is repeated: the first, and the longest.
pub const RETRY_MS_MIN: u64 = 200;
/// See [`RETRY_MS_MIN`].
pub const RETRY_MS_MAX: u64 = 3200;
/// Once a first seed has answered, how long to wait for the others, so that seeds of two clusters are noticed before
/// one of these is asked.
const LOOKUP_WINDOW_MS: u64 = 300;
/// Retry interval for silent seeds within that window.
const SILENT_RETRY_MS: u64 = 100;
/// Requests to one member before the seeds are asked for another.
const QUESTIONS_MAX: u32 = 4;

/// Messages of joining and leaving.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinMessage {
    /// To a seed: asks for its cluster and leader.
    Lookup {
        /// Where to send the answer.
        address: String,
        /// The seed's index in the asker's list.
        seed: u16,
    },
    /// The seed's answer.
    Found {
        /// The index it was asked by.
        seed: u16,
        /// The seed itself.
        node: NodeId,
        /// Its cluster, if it belongs to one.
        cluster: Option<u64>,
        /// The leader's address, if known.
        leader_address: Option<String>,
    },
    /// To the leader: asks to be admitted.
    Request {
        /// The applicant's cluster, by its disk or its seeds.
        cluster: u64,
        /// The applicant.
        profile: Profile,
    },
    /// To an applicant, or to a node that leaves.
    Answer {
        /// The incarnation that asked.
        to: Identity,
        /// The answer of the leader, or of another member.
        answer: Answer,
    },
    /// To the leader: the sender wants to leave.
    Leave {
        /// The sender.
        from: Identity,
        /// Where to send the answer once the map no longer has the sender.
        address: String,
    },
}

/// The answer to a request to join or to leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The map has the node.
    Accepted {
        /// The cluster's id.
        cluster: u64,
        /// A version of the map that has the node.
        map_version: u64,
    },
    /// The node will not be admitted, or may not leave.
    Refused {
        /// Why, for the operator.
        reason: String,
    },
    /// Not yet: ask again.
    Wait {
        /// What it has to wait for, for the operator.
        reason: String,
    },
    /// This node does not lead.
    Elsewhere {
        /// The leader's address, if known.
        leader_address: Option<String>,
    },
    /// The map does not have the node: it may stop.
    Gone,
}

/// Why a node cannot join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Two seeds, or a seed and the node's disk, name different clusters.
    #[error("the seeds belong to two clusters, {0:016x} and {1:016x}; configure seeds of one")]
    TwoClusters(u64, u64),
    /// The leader refused the node.
    #[error("refused: {0}")]
    Refused(String),
}

/// The phase of a node's membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Asks its seeds for a cluster.
    Looking,
    /// Asks the leader to be admitted.
    Asking,
    /// Founds a new cluster as its first member.
    Founding,
    /// A member.
    Member,
    /// A member until it holds no groups.
    Leaving,
    /// No longer a member; the node may stop.
    Left,
    /// Cannot join in this incarnation.
    Failed(JoinError),
}

/// A seed's answer.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) node: NodeId,
    pub(super) cluster: Option<u64>,
    pub(super) leader_address: Option<String>,
}

/// Joining and leaving of one incarnation of a node.
#[derive(Debug)]
pub(super) struct Join {
    profile: Profile,
    seeds: Vec<String>,
    /// The cluster that the disk names.
    disk_cluster: Option<u64>,
    /// The cluster that the node belongs to or wants to join or found.
    cluster: Option<u64>,
    /// The id of the cluster it would found.
    fresh_cluster: u64,
    phase: Phase,
    found: BTreeMap<u16, Found>,
    window_ends_at_ms: Option<u64>,
    /// When silent seeds are asked again, within the window.
    silent_retry_at_ms: u64,
    /// Older maps are from before this node was admitted.
    member_since_version: u64,
    /// The address that requests go to.
    target: String,
    questions: u32,
    retry_ms: u64,
    next_question_ms: u64,
}

impl Join {
    pub(super) fn new(
        profile: Profile,
        seeds: Vec<String>,
        disk_cluster: Option<u64>,
        fresh_cluster: u64,
        now_ms: u64,
    ) -> Self {
        let target = seeds.first().cloned().unwrap_or_else(|| profile.address.clone());
        Self {
            profile,
            seeds: seeds.into_iter().take(SEEDS_MAX).collect(),
            disk_cluster,
            cluster: disk_cluster,
            fresh_cluster,
            phase: Phase::Looking,
            found: BTreeMap::new(),
            window_ends_at_ms: None,
            silent_retry_at_ms: now_ms,
            member_since_version: 0,
            target,
            questions: 0,
            retry_ms: RETRY_MS_MIN,
            next_question_ms: now_ms,
        }
    }

    pub(super) fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The cluster that the node belongs to. One that it only wants to join is not told to others.
    pub(super) fn own_cluster(&self) -> Option<u64> {
        let joined = self.cluster.filter(|_| matches!(self.phase, Phase::Founding | Phase::Member | Phase::Leaving));
        joined.or(self.disk_cluster)
    }

    /// Begins to leave, if the node is a member.
    pub(super) fn leave(&mut self, now_ms: u64) {
        if self.phase == Phase::Member {
            self.phase = Phase::Leaving;
            self.restart_asking(now_ms);
        }
    }

    /// Follows the map, which is authoritative on whether this node is a member.
    pub(super) fn follow(&mut self, map: &MapView, actions: &mut Vec<Action>) {
        let own = self.profile.identity();
        // The map may have another process with this node id.
        let is_here = map.members.get(&own.node).is_some_and(|known| known.address == self.profile.address);
        let is_ours = self.cluster.is_none_or(|cluster| cluster == map.cluster);
        match self.phase {
            // Admitted: the map says so even if the answer was lost.
            Phase::Looking | Phase::Asking | Phase::Founding if is_ours && map.is_alive(own) && is_here => {
                self.enter(map.cluster, map.version, actions);
            }
            // Removed or declared down.
            Phase::Member | Phase::Leaving if map.version >= self.member_since_version && !map.is_alive(own) => {
                self.end(actions);
            }
            _ => {}
        }
    }

    /// Handles a seed's answer.
    pub(super) fn found(&mut self, seed: u16, found: Found, now_ms: u64, actions: &mut Vec<Action>) {
        if self.phase != Phase::Looking || usize::from(seed) >= self.seeds.len() {
            return;
        }
        self.found.insert(seed, found);
        // The first answer: wait for the others a little, in case they name another cluster.
        if self.window_ends_at_ms.is_none() {
            (self.window_ends_at_ms, self.silent_retry_at_ms) =
                (Some(now_ms + LOOKUP_WINDOW_MS), now_ms + SILENT_RETRY_MS);
        }
        let clusters = self.found.values().filter_map(|found| found.cluster).chain(self.disk_cluster);
        let clusters: BTreeSet<u64> = clusters.collect();
        if let (Some(&one), Some(&other)) = (clusters.first(), clusters.last())
            && one != other
        {
            self.fail(JoinError::TwoClusters(one, other), actions);
        }
    }

    /// Handles the answer to a request to join or to leave.
    pub(super) fn answered(&mut self, answer: Answer, now_ms: u64, actions: &mut Vec<Action>) {
        match (&self.phase, answer) {
            (Phase::Asking, Answer::Accepted { cluster, map_version }) if self.cluster == Some(cluster) => {
                self.enter(cluster, map_version, actions);
            }
            (Phase::Asking, Answer::Refused { reason }) => self.fail(JoinError::Refused(bounded(reason)), actions),
            // The leader has answered, so it is the right one to ask: the count of requests in vain starts anew.
            (Phase::Asking | Phase::Leaving, Answer::Wait { reason }) => {
                self.questions = 0;
                actions.push(Action::Waiting { reason: bounded(reason) });
            }
            (Phase::Leaving, Answer::Refused { reason }) => {
                self.phase = Phase::Member;
                actions.push(Action::StayedIn { reason: bounded(reason) });
            }
            // Follow the redirect at once, unless redirects go round in circles.
            (Phase::Asking, Answer::Elsewhere { leader_address: Some(address) })
                if address != self.target && is_address(&address) && self.questions < QUESTIONS_MAX =>
            {
                self.target = address;
                self.next_question_ms = now_ms;
            }
            (Phase::Leaving, Answer::Gone) => self.end(actions),
            _ => {}
        }
    }

    /// Sends the requests that are due.
    pub(super) fn wake(&mut self, leader: Option<Leader>, now_ms: u64, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Looking => self.look(now_ms, actions),
            Phase::Asking if now_ms >= self.next_question_ms => {
                // Nothing but redirects or silence: look for another member.
                if self.questions == QUESTIONS_MAX && !self.seeds.is_empty() {
                    self.restart_lookup(now_ms);
                    return self.look(now_ms, actions);
                }
                let cluster = self.cluster.expect("the cluster is known before a request is sent");
                let message = JoinMessage::Request { cluster, profile: self.profile.clone() };
                self.ask(To::Address(self.target.clone()), message, now_ms, actions);
            }
            Phase::Leaving if now_ms >= self.next_question_ms => {
                let leave = JoinMessage::Leave { from: self.profile.identity(), address: self.profile.address.clone() };
                match leader {
                    Some(leader) => self.ask(To::Node(leader.node), leave, now_ms, actions),
                    None => self.next_question_ms = now_ms + RETRY_MS_MIN,
                }
            }
            _ => {}
        }
    }

    /// When the next request is due or the window ends.
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Looking => {
                Some(self.window_ends_at_ms.map_or(self.next_question_ms, |at_ms| at_ms.min(self.silent_retry_at_ms)))
            }
            Phase::Asking | Phase::Leaving => Some(self.next_question_ms),
            _ => None,
        }
    }

    fn look(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        if self.seeds.is_empty() {
            // Without seeds, the node founds a new cluster, or returns to that of its disk, of which it may be the only
            // member.
            return match self.cluster {
                Some(_) => self.begin_asking(now_ms, actions),
                None => self.begin_founding(actions),
            };
        }
        let all = self.found.len() == self.seeds.len();
        if all || self.window_ends_at_ms.is_some_and(|at_ms| now_ms >= at_ms) {
            self.window_ends_at_ms = None;
            if let Some((cluster, target)) = self.cluster_of_seeds() {
                (self.cluster, self.target) = (Some(cluster), target);
                return self.begin_asking(now_ms, actions);
            }
            if all && self.is_first() {
                return self.begin_founding(actions);
            }
        }
        if self.window_ends_at_ms.is_some() {
            if now_ms >= self.silent_retry_at_ms {
                self.silent_retry_at_ms = now_ms + SILENT_RETRY_MS;
                self.query_silent_seeds(actions);
            }
        } else if now_ms >= self.next_question_ms {
            self.query_seeds(now_ms, actions);
        }
    }

    /// Asks all seeds.
    fn query_seeds(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        if self.retry_ms > RETRY_MS_MIN {
            actions.push(Action::Waiting { reason: self.missing() });
        }
        // Earlier answers are outdated: a seed may have joined a cluster since.
        self.found.clear();
        self.query_silent_seeds(actions);
        self.back_off(now_ms);
    }

    /// Seeds that have not answered.
    fn silent(&self) -> impl Iterator<Item = (u16, &String)> {
        (0..).zip(&self.seeds).filter(|(seed, _)| !self.found.contains_key(seed))
    }

    /// Asks the silent seeds only.
    fn query_silent_seeds(&self, actions: &mut Vec<Action>) {
        for (seed, to) in self.silent() {
            let lookup = JoinMessage::Lookup { address: self.profile.address.clone(), seed };
            actions.push(Action::Send { to: To::Address(to.clone()), message: Message::Join(lookup) });
        }
    }

    /// Why no cluster can be joined yet, for the operator.
    fn missing(&self) -> String {
        let silent: Vec<&str> = self.silent().map(|(_, address)| &address[..]).collect();
        bounded(match silent.is_empty() {
            true => "no seed is in a cluster, and the first of them has to found one".into(),
            false => {
                format!("no seed is in a cluster, and none is founded while some do not answer: {}", silent.join(", "))
            }
        })
    }

    /// The cluster that some seed belongs to, and the address to ask: the leader's, or that seed's.
    fn cluster_of_seeds(&self) -> Option<(u64, String)> {
        let inside = || self.found.iter().filter_map(|(&seed, found)| Some((seed, found.cluster?, found)));
        let leader = inside().find_map(|(_, cluster, found)| Some((cluster, found.leader_address.clone()?)));
        leader.or_else(|| inside().map(|(seed, cluster, _)| (cluster, self.seeds[usize::from(seed)].clone())).next())
    }

    /// True if this node is one of its seeds, has the least id of them, and no other seed has that id.
    fn is_first(&self) -> bool {
        let own = self.profile.node();
        let first = self.found.values().map(|found| found.node).min();
        first == Some(own) && self.found.values().filter(|found| found.node == own).count() == 1
    }

    fn begin_asking(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        self.phase = Phase::Asking;
        self.restart_asking(now_ms);
        self.wake(None, now_ms, actions);
    }

    fn begin_founding(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Founding;
        self.cluster = Some(self.fresh_cluster);
        actions.push(Action::FoundCluster { cluster: self.fresh_cluster });
    }

    fn restart_lookup(&mut self, now_ms: u64) {
        self.phase = Phase::Looking;
        self.found.clear();
        self.window_ends_at_ms = None;
        self.next_question_ms = now_ms;
    }

    fn restart_asking(&mut self, now_ms: u64) {
        (self.questions, self.retry_ms, self.next_question_ms) = (0, RETRY_MS_MIN, now_ms);
    }

    fn ask(&mut self, to: To, message: JoinMessage, now_ms: u64, actions: &mut Vec<Action>) {
        self.questions += 1;
        self.back_off(now_ms);
        actions.push(Action::Send { to, message: Message::Join(message) });
    }

    fn back_off(&mut self, now_ms: u64) {
        self.next_question_ms = now_ms + self.retry_ms;
        self.retry_ms = (self.retry_ms * 2).min(RETRY_MS_MAX);
    }

    fn enter(&mut self, cluster: u64, map_version: u64, actions: &mut Vec<Action>) {
        self.cluster = Some(cluster);
        self.phase = Phase::Member;
        self.member_since_version = map_version;
        actions.push(Action::Joined { cluster, map_version });
    }

    /// Ends membership: the node has left, or the others declared this incarnation down.
    fn end(&mut self, actions: &mut Vec<Action>) {
        actions.push(if self.phase == Phase::Leaving { Action::Left } else { Action::Expelled });
        self.phase = Phase::Left;
    }

    fn fail(&mut self, error: JoinError, actions: &mut Vec<Action>) {
        self.phase = Phase::Failed(error.clone());
        actions.push(Action::JoinFailed(error));
    }
}

/// Shortens a reason to [`REASON_BYTES_MAX`].
fn bounded(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    reason
}
