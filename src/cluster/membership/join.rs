//! How a node comes into a cluster, and leaves it: the applicant's side. (`admission.rs` is the leader's.)
//!
//! ```text
//!            ┌─────────── nobody answers: again, later ──────────┐
//!            ▼                                                   │
//!  start ► looking ──── a seed is in a cluster ────► asking ─────┴── accepted, or the map has us ─► member
//!            │ │                                       │ wait: again, later                           │ leave
//!            │ │ every seed answers, none is in one,   │ refused                                      ▼
//!            │ │ and we are the first of them          ▼                                           leaving
//!            │ └────────────► founding ──► member    failed ◄── seeds of two clusters                 │ nothing held,
//!            │ no seeds, no cluster ──▲                                                               ▼ not in the map
//!            └─ (a node by itself)                                                                   left
//! ```
//!
//! Nobody founds a cluster while a seed does not answer: it may be in one. So two nodes with the same seeds never found two.
//! A node that was in a cluster (its disk says so) comes back to that one or to none. It comes back as a stranger: the same node,
//! a larger incarnation, and empty memory.
//!
//! All questions are repeated, with growing pauses up to [`RETRY_MS_MAX`]; all answers are functions of what the answering node
//! knows, so a lost, doubled or late message does no harm.

use super::profile::is_address;
use super::{Action, Leader, MapView, Message, Profile, To};
use crate::cluster::{Identity, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Seeds that a node may be given, at most.
pub const SEEDS_MAX: usize = 64;
/// Bytes of a reason, at most.
pub const REASON_BYTES_MAX: usize = 512;
/// The pause before a question is repeated, at first and at most.
pub const RETRY_MS_MIN: u64 = 200;
/// See [`RETRY_MS_MIN`].
pub const RETRY_MS_MAX: u64 = 3200;
/// How long seeds may take to answer after the first has: two clusters are to be noticed before one is asked.
const LOOKUP_WINDOW_MS: u64 = 300;
/// Meanwhile those that are silent are asked again.
const SILENT_RETRY_MS: u64 = 100;
/// Questions to one member before the seeds are asked for another.
const QUESTIONS_MAX: u32 = 4;

/// Messages of joining and leaving.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinMessage {
    /// To a seed: who are you, and who leads?
    Lookup {
        /// Where to answer.
        address: String,
        /// The number of the seed in the asker's list.
        seed: u16,
    },
    /// What the seed knows.
    Found {
        /// The number that it was asked by.
        seed: u16,
        /// Itself.
        node: NodeId,
        /// Its cluster, if it is in one.
        cluster: Option<u64>,
        /// Where the leader listens, if it knows one.
        leader_address: Option<String>,
    },
    /// To the leader: let me in.
    Request {
        /// The cluster that the applicant was in, or found by its seeds.
        cluster: u64,
        /// Who it is.
        profile: Profile,
    },
    /// To an applicant.
    Answer {
        /// Which life of which node asked.
        to: Identity,
        /// What the leader says, or another member on its behalf.
        answer: Answer,
    },
    /// To the leader: I want to hold nothing, and go.
    Leave {
        /// Who.
        from: Identity,
        /// Where to answer, when the map does not have it any more.
        address: String,
    },
}

/// The answer to an applicant, or to one that leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The map has it, as of this version.
    Accepted {
        /// Of which cluster.
        cluster: u64,
        /// A version of the map that has it.
        map_version: u64,
    },
    /// It never will.
    Refused {
        /// Why, for the operator.
        reason: String,
    },
    /// It may be, later.
    Wait {
        /// What for, for the operator.
        reason: String,
    },
    /// We do not lead.
    Elsewhere {
        /// Where the leader listens, if we know one.
        leader_address: Option<String>,
    },
    /// The map does not have it: it may stop.
    Gone,
}

/// Why a node does not come into a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The seeds, or a seed and our own disk, are of different clusters.
    #[error("seeds of two clusters: {0:016x} and {1:016x}; give seeds of one")]
    TwoClusters(u64, u64),
    /// The leader will not have us.
    #[error("refused: {0}")]
    Refused(String),
}

/// Where a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Asks its seeds for a cluster.
    Looking,
    /// Asks to be let in.
    Asking,
    /// Is the first of a new cluster, which it is to bring up.
    Founding,
    /// Takes part.
    Member,
    /// Takes part until it holds nothing.
    Leaving,
    /// Is in no map any more, and may stop.
    Left,
    /// Will never take part, in this life.
    Failed(JoinError),
}

/// What a seed has answered.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) node: NodeId,
    pub(super) cluster: Option<u64>,
    pub(super) leader_address: Option<String>,
}

/// The way of one life of a node into its cluster and out of it.
#[derive(Debug)]
pub(super) struct Join {
    profile: Profile,
    seeds: Vec<String>,
    /// The one that our disk knows us as a member of.
    disk_cluster: Option<u64>,
    /// The same, or the one of the seeds, or the one that we found.
    cluster: Option<u64>,
    /// The one that we would found.
    fresh_cluster: u64,
    phase: Phase,
    found: BTreeMap<u16, Found>,
    window_ends_at_ms: Option<u64>,
    /// When those that are silent are asked again, until then.
    silent_retry_at_ms: u64,
    /// Maps before this version are from before we were let in.
    member_since_version: u64,
    /// Whom we ask.
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

    /// The cluster that the node belongs to: nobody is told of one that it only hopes to join.
    pub(super) fn own_cluster(&self) -> Option<u64> {
        let joined = self.cluster.filter(|_| matches!(self.phase, Phase::Founding | Phase::Member | Phase::Leaving));
        joined.or(self.disk_cluster)
    }

    /// Wants to leave. Only a member can.
    pub(super) fn leave(&mut self, now_ms: u64) {
        if self.phase == Phase::Member {
            self.phase = Phase::Leaving;
            self.restart_asking(now_ms);
        }
    }

    /// Another version of the map: it has the last word on whether we are in it.
    pub(super) fn follow(&mut self, map: &MapView, actions: &mut Vec<Action>) {
        let own = self.profile.identity();
        // It may have another process of our name.
        let is_here = map.members.get(&own.node).is_some_and(|known| known.address == self.profile.address);
        let is_ours = self.cluster.is_none_or(|cluster| cluster == map.cluster);
        match self.phase {
            Phase::Looking | Phase::Asking | Phase::Founding if is_ours && map.is_alive(own) && is_here => {
                self.enter(map.cluster, map.version, actions);
            }
            Phase::Member | Phase::Leaving if map.version >= self.member_since_version && !map.is_alive(own) => {
                self.end(actions);
            }
            _ => {}
        }
    }

    /// A seed has answered.
    pub(super) fn found(&mut self, seed: u16, found: Found, now_ms: u64, actions: &mut Vec<Action>) {
        if self.phase != Phase::Looking || usize::from(seed) >= self.seeds.len() {
            return;
        }
        self.found.insert(seed, found);
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

    /// A member has answered our request, or our wish to leave.
    pub(super) fn answered(&mut self, answer: Answer, now_ms: u64, actions: &mut Vec<Action>) {
        match (&self.phase, answer) {
            (Phase::Asking, Answer::Accepted { cluster, map_version }) if self.cluster == Some(cluster) => {
                self.enter(cluster, map_version, actions);
            }
            (Phase::Asking, Answer::Refused { reason }) => self.fail(JoinError::Refused(bounded(reason)), actions),
            (Phase::Asking | Phase::Leaving, Answer::Wait { reason }) => {
                self.questions = 0;
                actions.push(Action::Waiting { reason: bounded(reason) });
            }
            (Phase::Leaving, Answer::Refused { reason }) => {
                self.phase = Phase::Member;
                actions.push(Action::StayedIn { reason: bounded(reason) });
            }
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

    /// Asks what is to be asked now.
    pub(super) fn wake(&mut self, leader: Option<Leader>, now_ms: u64, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Looking => self.look(now_ms, actions),
            Phase::Asking if now_ms >= self.next_question_ms => {
                if self.questions == QUESTIONS_MAX && !self.seeds.is_empty() {
                    self.restart_lookup(now_ms);
                    return self.look(now_ms, actions);
                }
                let cluster = self.cluster.expect("it is known before it is asked");
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

    /// When there is something to ask, or to conclude.
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
            // By ourselves: a new cluster, or the one of our disk, with whose leader we are perhaps alone.
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
        // What a seed said is not for ever: it may be in a cluster by now.
        self.found.clear();
        self.query_silent_seeds(actions);
        self.back_off(now_ms);
    }

    /// The seeds that have not answered.
    fn silent(&self) -> impl Iterator<Item = (u16, &String)> {
        (0..).zip(&self.seeds).filter(|(seed, _)| !self.found.contains_key(seed))
    }

    /// Asks those.
    fn query_silent_seeds(&self, actions: &mut Vec<Action>) {
        for (seed, to) in self.silent() {
            let lookup = JoinMessage::Lookup { address: self.profile.address.clone(), seed };
            actions.push(Action::Send { to: To::Address(to.clone()), message: Message::Join(lookup) });
        }
    }

    /// Why there is no way in yet.
    fn missing(&self) -> String {
        let silent: Vec<&str> = self.silent().map(|(_, address)| &address[..]).collect();
        bounded(match silent.is_empty() {
            true => "no seed is in a cluster, and the first of them has to found one".into(),
            false => {
                format!("no seed is in a cluster, and none is founded while some do not answer: {}", silent.join(", "))
            }
        })
    }

    /// The cluster that the seeds are in, and where to ask: its leader, or a seed that is in it.
    fn cluster_of_seeds(&self) -> Option<(u64, String)> {
        let inside = || self.found.iter().filter_map(|(&seed, found)| Some((seed, found.cluster?, found)));
        let leader = inside().find_map(|(_, cluster, found)| Some((cluster, found.leader_address.clone()?)));
        leader.or_else(|| inside().map(|(seed, cluster, _)| (cluster, self.seeds[usize::from(seed)].clone())).next())
    }

    /// True if we are one of our seeds, no other of them has our name, and none comes before us.
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

    /// We are no member any more: because we left, or because the others took this life of us for over.
    fn end(&mut self, actions: &mut Vec<Action>) {
        actions.push(if self.phase == Phase::Leaving { Action::Left } else { Action::Expelled });
        self.phase = Phase::Left;
    }

    fn fail(&mut self, error: JoinError, actions: &mut Vec<Action>) {
        self.phase = Phase::Failed(error.clone());
        actions.push(Action::JoinFailed(error));
    }
}

/// A reason as it may be shown and kept.
fn bounded(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    reason
}
