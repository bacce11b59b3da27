//! The leader's side of reports: is a member down, or does it stay?
//!
//! A *witness* is a member that takes part, such that the leader and it hear each other, or the leader itself; so one that is
//! cut off from the leader, even one way, has no say. Nor has one that is about to find itself cut off: a report says how long
//! ago the leader was heard, and does not count after [`WITNESS_SILENCE_MS_MAX`]. *Others* are all members that take part, without the accused, whether
//! witnesses or not, and without those that are decided to be down already.
//!
//! | who does not hear member X | decision |
//! |---|---|
//! | more than half of the others, each a witness that has promised | X is down, at once |
//! | fewer, and some witness hears X | X stays: told to those who reported it, after [`STAYS_AFTER_MS`] |
//! | fewer, and no witness hears X: more than half of the others are silent themselves | X is down, after [`DOWN_ALONE_MS`] |
//! | a witness has heard the next life of X | this life of X is down, at once |
//! | X is the leader | it stays, it is here to say so; if it is not here, Raft elects another |
//!
//! What follows from that:
//!
//! | case | what happens |
//! |---|---|
//! | 2 members | the other is the leader, and more than half of one: it decides alone (if Raft lets it commit) |
//! | 3 members | both others must not hear X. One broken link, and X stays |
//! | one-way cut X → R | both ends report each other, everybody else hears both: both stay |
//! | leader in the minority | its witnesses are not more than half, and Raft would not commit; check-quorum ends its term |
//! | halves that do not hear each other | the leader's half, with more than half of the others of any member across |
//! | two halves accuse each other | only the leader's are witnesses, and who is decided to be down counts no more |
//! | X flaps | a report without silence is no vote; the reporter is freed at once, and pauses before the next |
//! | a new leader | begins with nothing: reports carry their term, and are repeated |
//! | most members die at once | Raft may still have its quorum: the leader waits five seconds, then clears them away |
//!
//! A decision is never taken back within a term, since those who promised are held by it: the proposal is repeated until the
//! map shows it. It names the life, not only the node, so to apply it twice or late does nothing. A promise that was answered
//! is remembered by its number, so a late copy of its report is no vote.
//!
//! That a leader decides alone after [`DOWN_ALONE_MS`] rests on Raft's check-quorum: who still leads by then has a quorum. It
//! has to be on, and quicker than that.

use super::heartbeats::Heartbeats;
use super::{Action, MapView, Message, Proposal, Report, Stays, To};
use crate::cluster::Identity;
use std::collections::BTreeMap;

/// A report that is not repeated for so long has gone: four in a row were lost.
const REPORT_EXPIRES_MS: u64 = 450;
/// A reporter that has not heard the leader for so long may be cut off, and not know it yet.
pub const WITNESS_SILENCE_MS_MAX: u64 = 300;
/// How long a report may wait for others before the leader answers that the peer stays.
pub const STAYS_AFTER_MS: u64 = 500;
/// How long nobody may hear a member before witnesses decide that are fewer than half.
pub const DOWN_ALONE_MS: u64 = 5000;
/// From one proposal of a decision to the next, while the map does not show it.
const PROPOSAL_PERIOD_MS: u64 = 500;

/// What the leader knows beside the reports.
pub(super) struct Evidence<'a> {
    pub(super) map: &'a MapView,
    pub(super) heartbeats: &'a Heartbeats,
    pub(super) now_ms: u64,
}

/// Reports to a leader, in one term.
#[derive(Debug)]
pub(super) struct Arbiter {
    own: Identity,
    term: Option<u64>,
    cases: BTreeMap<Identity, Case>,
    /// The last promise of each member about each other that has been answered: (from, about) → number.
    answered: BTreeMap<(Identity, Identity), u64>,
}

/// All that is reported about one member.
#[derive(Debug, Default)]
struct Case {
    reports: BTreeMap<Identity, Received>,
    /// Since when there is a report that the member is unreachable.
    opened_at_ms: u64,
    /// It is down; when to propose that again.
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

    /// We lead in this term, or in none. What was reported to us before is no basis.
    pub(super) fn lead(&mut self, term: Option<u64>) {
        if self.term != term {
            *self = Self { term, ..Self::new(self.own) };
        }
    }

    /// A report has arrived. Those of strangers, and of other terms, are no one's promise to us.
    pub(super) fn receive(&mut self, report: Report, evidence: &Evidence, actions: &mut Vec<Action>) {
        let are_members = evidence.map.is_alive(report.from) && evidence.map.is_alive(report.about);
        if self.term != Some(report.term) || !are_members || report.from == report.about {
            return;
        }
        if self.answered.get(&(report.from, report.about)).is_some_and(|&number| report.number <= number) {
            // It is no vote any more; the answer was lost, or is on its way.
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

    /// Decides what can be decided now. Asked at least as often as heartbeats are sent, so it names no time of its own.
    pub(super) fn decide(&mut self, evidence: &Evidence, actions: &mut Vec<Action>) {
        let Some(term) = self.term else { return };
        self.forget(evidence);
        let open: Vec<Identity> = self.cases.keys().copied().collect();
        for about in open {
            let decision = self.decision(about, evidence);
            let case = self.cases.get_mut(&about).expect("it is one of them");
            match decision {
                Decision::Down if case.propose_at_ms.is_none_or(|at_ms| at_ms <= evidence.now_ms) => {
                    case.propose_at_ms = Some(evidence.now_ms + PROPOSAL_PERIOD_MS);
                    let proposal = Proposal::Down { about, map_version: evidence.map.version };
                    actions.push(Action::Propose { term, proposal });
                }
                Decision::Down => {}
                Decision::Stays | Decision::Wait => {
                    let stays_after_ms = if decision == Decision::Stays { STAYS_AFTER_MS } else { u64::MAX };
                    self.answer(about, stays_after_ms, evidence, actions);
                }
            }
        }
    }

    /// Drops what the map has answered, and reports that are not repeated.
    fn forget(&mut self, evidence: &Evidence) {
        self.answered.retain(|&(from, about), _| evidence.map.is_alive(from) && evidence.map.is_alive(about));
        for case in self.cases.values_mut() {
            let is_repeated = |received: &Received| evidence.now_ms - received.last_ms < REPORT_EXPIRES_MS;
            case.reports.retain(|&from, received| is_repeated(received) && evidence.map.is_alive(from));
        }
        let is_open = |case: &Case| case.propose_at_ms.is_some() || !case.reports.is_empty();
        self.cases.retain(|&about, case| evidence.map.is_alive(about) && is_open(case));
    }

    /// The table above.
    fn decision(&self, about: Identity, evidence: &Evidence) -> Decision {
        let case = &self.cases[&about];
        if case.propose_at_ms.is_some() {
            return Decision::Down;
        }
        if about == self.own {
            return Decision::Stays;
        }
        let reports = || case.reports.values().map(|received| received.report);
        let votes = || reports().filter(|report| report.is_unreachable && self.counts(report, evidence));
        let others = evidence.map.alive().filter(|&other| other != about && !self.is_decided(other)).count();
        if votes().any(|report| report.has_restarted) || votes().count() * 2 > others {
            return Decision::Down;
        }
        if self.is_heard(about, evidence) {
            return Decision::Stays;
        }
        match votes().count() > 0 && evidence.now_ms - case.opened_at_ms >= DOWN_ALONE_MS {
            true => Decision::Down,
            false => Decision::Wait,
        }
    }

    /// True if some witness hears a member.
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

    /// Frees those who reported a member long enough ago, and those who hear it again.
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

/// The answer to a report: the peer stays.
fn stays(report: &Report, map: &MapView) -> Action {
    let &Report { from, about, number, term, .. } = report;
    let message = Message::Stays(Stays { about, number, term, map_version: map.version });
    Action::Send { to: To::Node(from.node), message }
}
