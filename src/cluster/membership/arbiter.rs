//! The arbiter: on the leader, decides by the members' reports whether an unreachable member is down or stays.
//!
//! A *witness* is the leader, or a member that it hears and that hears it; a member cut off from the leader, even one
//! way, does not count. Nor does a member about to find itself cut off: its reports say how long ago it heard the
//! leader, and do not count after [`WITNESS_SILENCE_MS_MAX`]. The *others* are all live members except the accused and
//! those already decided to be down, whether they are witnesses or not.
//!
//! | reports about member X | decision |
//! |---|---|
//! | more than half of the others are witnesses that have fenced X | X is down, at once |
//! | fewer, and some witness hears X | X stays; its reporters are told after [`STAYS_AFTER_MS`] |
//! | fewer, and no witness hears X: more than half of the others are silent themselves | X is down, after [`DOWN_ALONE_MS`] |
//! | a witness has heard X's next incarnation | the earlier incarnation is down, at once |
//! | X is the leader | X stays: it is evidently alive. A leader that is gone is replaced by Raft |
//!
//! Consequences:
//!
//! | case | outcome |
//! |---|---|
//! | 2 members | the leader is more than half of the one other, so it decides alone (if Raft lets it commit) |
//! | 3 members | both others must lose X; a single broken link leaves X in |
//! | one-way cut X → R | both ends report each other, all others hear both: both stay |
//! | leader in the minority | its witnesses are not more than half, and Raft would not commit; check-quorum ends its term |
//! | two halves that do not hear each other | the leader's half wins: of the others of any member across, it has more than half |
//! | two halves that accuse each other | only members of the leader's half are witnesses; members decided to be down no longer count |
//! | X flaps | a report without silence is no vote; the reporter's fence ends at once, and it pauses before the next |
//! | a new leader | begins without reports: reports carry their term and are repeated |
//! | most members die at once | Raft may still have a quorum: the leader waits five seconds, then declares them down |
//!
//! A decision is final within a term, since fenced reporters depend on it: the proposal is repeated until the map shows
//! it. It names the incarnation, so applying it twice or late does nothing. The number of an answered fence is
//! remembered, so a late copy of its report is no vote.
//!
//! Deciding alone after [`DOWN_ALONE_MS`] is safe only with Raft's check-quorum, and if that acts sooner: a node that
//! still leads by then has a quorum.

use super::heartbeats::Heartbeats;
use super::{Action, MapView, Message, Proposal, Report, Stays, To};
use crate::cluster::Identity;
use std::collections::BTreeMap;

/// A report that was not repeated for so long has expired: four in a row were lost.
const REPORT_EXPIRES_MS: u64 = 450;
/// A reporter that has not heard the leader for so long may be cut off without knowing it yet.
pub const WITNESS_SILENCE_MS_MAX: u64 = 300;
/// How long a report waits for others to confirm it, before the leader answers that the peer stays.
pub const STAYS_AFTER_MS: u64 = 500;
/// How long a member must be heard by no witness before fewer than half of the others suffice.
pub const DOWN_ALONE_MS: u64 = 5000;
/// Pause before a proposal is repeated, while the map does not show it.
const PROPOSAL_PERIOD_MS: u64 = 500;

/// What decisions depend on besides the reports.
pub(super) struct Evidence<'a> {
    pub(super) map: &'a MapView,
    pub(super) heartbeats: &'a Heartbeats,
    pub(super) now_ms: u64,
}

/// The reports to a leader in one term, and its decisions.
#[derive(Debug)]
pub(super) struct Arbiter {
    own: Identity,
    term: Option<u64>,
    cases: BTreeMap<Identity, Case>,
    /// The last answered fence by reporter and accused: (from, about) → number.
    answered: BTreeMap<(Identity, Identity), u64>,
}

/// The reports about one member.
#[derive(Debug, Default)]
struct Case {
    reports: BTreeMap<Identity, Received>,
    /// When the first report about the member arrived.
    opened_at_ms: u64,
    /// Set once the member is decided to be down: when to repeat the proposal.
    propose_at_ms: Option<u64>,
}

#[derive(Debug)]
struct Received {
    report: Report,
    first_ms: u64,
    last_ms: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Down,
    Stays,
    Wait,
}

impl Arbiter {
    pub(super) fn new(own: Identity) -> Self {
        Self { own, term: None, cases: BTreeMap::new(), answered: BTreeMap::new() }
    }

    /// This node leads in `term`, or does not lead. Reports of other terms are dropped: their fences are not this
    /// leader's.
    pub(super) fn lead(&mut self, term: Option<u64>) {
        if self.term != term {
            *self = Self { term, ..Self::new(self.own) };
        }
    }

    /// Takes a report. Only those of live members, about live members, in the current term count.
    pub(super) fn receive(&mut self, report: Report, evidence: &Evidence, actions: &mut Vec<Action>) {
        let are_members = evidence.map.is_alive(report.from) && evidence.map.is_alive(report.about);
        if self.term != Some(report.term) || !are_members || report.from == report.about {
            return;
        }
        if self.answered.get(&(report.from, report.about)).is_some_and(|&number| report.number <= number) {
            // Answered before: it is no vote any more. The answer was lost or is in flight.
            actions.push(stays(&report, evidence.map));
            return;
        }
        let case =
            self.cases.entry(report.about).or_insert_with(|| Case { opened_at_ms: evidence.now_ms, ..Case::default() });
        let received = case.reports.entry(report.from).or_insert(Received {
            report,
            first_ms: evidence.now_ms,
            last_ms: evidence.now_ms,
        });
        (received.report, received.last_ms) = (report, evidence.now_ms);
    }

    /// Decides all open cases. Called at least as often as heartbeats are sent, so it needs no timer of its own.
    pub(super) fn decide(&mut self, evidence: &Evidence, actions: &mut Vec<Action>) {
        let Some(term) = self.term else { return };
        self.forget(evidence);
        let open: Vec<Identity> = self.cases.keys().copied().collect();
        for about in open {
            let decision = self.decision(about, evidence);
            let case = self.cases.get_mut(&about).expect("taken from the keys");
            match decision {
                // Propose, or repeat a proposal that may have been lost.
                Decision::Down if case.propose_at_ms.is_none_or(|at_ms| at_ms <= evidence.now_ms) => {
                    case.propose_at_ms = Some(evidence.now_ms + PROPOSAL_PERIOD_MS);
                    let proposal = Proposal::Down { about, map_version: evidence.map.version };
                    actions.push(Action::Propose { term, proposal });
                }
                Decision::Down => {}
                // Even while waiting, reporters that hear the member again are released.
                Decision::Stays | Decision::Wait => {
                    let stays_after_ms = if decision == Decision::Stays { STAYS_AFTER_MS } else { u64::MAX };
                    self.answer(about, stays_after_ms, evidence, actions);
                }
            }
        }
    }

    /// Drops cases that the map has decided, and reports that are not repeated.
    fn forget(&mut self, evidence: &Evidence) {
        self.answered.retain(|&(from, about), _| evidence.map.is_alive(from) && evidence.map.is_alive(about));
        for case in self.cases.values_mut() {
            let is_repeated = |received: &Received| evidence.now_ms - received.last_ms < REPORT_EXPIRES_MS;
            case.reports.retain(|&from, received| is_repeated(received) && evidence.map.is_alive(from));
        }
        let is_open = |case: &Case| case.propose_at_ms.is_some() || !case.reports.is_empty();
        self.cases.retain(|&about, case| evidence.map.is_alive(about) && is_open(case));
    }

    /// Decides a case by the table above.
    fn decision(&self, about: Identity, evidence: &Evidence) -> Decision {
        let case = &self.cases[&about];
        // Final: those who fenced the member may act on it already.
        if case.propose_at_ms.is_some() {
            return Decision::Down;
        }
        if about == self.own {
            return Decision::Stays;
        }
        let reports = || case.reports.values().map(|received| received.report);
        let votes = || reports().filter(|report| report.is_unreachable && self.counts(report, evidence));
        let others = evidence.map.alive().filter(|&other| other != about && !self.is_decided(other)).count();
        // More than half of the others have fenced the member, or a newer incarnation proves that this one has ended.
        if votes().any(|report| report.has_restarted) || votes().count() * 2 > others {
            return Decision::Down;
        }
        // The member serves at least one witness: the reporters' links are broken, not the member.
        if self.is_heard(about, evidence) {
            return Decision::Stays;
        }
        // No witness hears it, and its silent peers cannot vote: after a while, those that are left decide.
        match votes().count() > 0 && evidence.now_ms - case.opened_at_ms >= DOWN_ALONE_MS {
            true => Decision::Down,
            false => Decision::Wait,
        }
    }

    /// True if some witness hears the member.
    fn is_heard(&self, about: Identity, evidence: &Evidence) -> bool {
        let witnesses = evidence.map.alive().filter(|&other| other != about && other != self.own);
        let mut witnesses = witnesses.filter(|&other| self.is_witness(other, evidence));
        evidence.heartbeats.is_reachable(about) || witnesses.any(|witness| evidence.heartbeats.hears(witness, about))
    }

    fn counts(&self, report: &Report, evidence: &Evidence) -> bool {
        report.leader_silence_ms < WITNESS_SILENCE_MS_MAX && self.is_witness(report.from, evidence)
    }

    fn is_witness(&self, member: Identity, evidence: &Evidence) -> bool {
        member == self.own || evidence.heartbeats.is_reachable(member) && !self.is_decided(member)
    }

    fn is_decided(&self, member: Identity) -> bool {
        self.cases.get(&member).is_some_and(|case| case.propose_at_ms.is_some())
    }

    /// Answers "stays" to reporters that have waited for `stays_after_ms`, and to those that hear the member again.
    fn answer(&mut self, about: Identity, stays_after_ms: u64, evidence: &Evidence, actions: &mut Vec<Action>) {
        let case = self.cases.get_mut(&about).expect("there is a case");
        let is_due = |received: &Received| {
            !received.report.is_unreachable || evidence.now_ms - received.first_ms >= stays_after_ms
        };
        for (from, received) in case.reports.extract_if(.., |_, received| is_due(received)) {
            self.answered.insert((from, about), received.report.number);
            actions.push(stays(&received.report, evidence.map));
        }
        if case.reports.is_empty() {
            self.cases.remove(&about);
        }
    }
}

/// The answer to a report that its subject stays.
fn stays(report: &Report, map: &MapView) -> Action {
    let &Report { from, about, number, term, .. } = report;
    let message = Message::Stays(Stays { about, number, term, map_version: map.version });
    Action::Send { to: To::Node(from.node), message }
}
