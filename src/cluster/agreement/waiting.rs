//! Pending proposals and reads. Each gets exactly one answer, at the latest when it times out.

use super::Agreement;
use super::events::{Action, AgreementError, Answer};
use super::storage::Disk;
use super::wire::{PROPOSAL_BYTES_MAX, Proposal, READS_MAX};
use crate::cluster::Identity;
use crate::cluster::map::{Applied, Change, Refused};

/// Pending proposals and reads of this node, at most.
const WAITING_MAX: usize = READS_MAX;
/// Ticks after which a read without an index is requested again.
const READ_RETRY_TICKS: u64 = 4;

/// A pending proposal or read.
pub(super) struct Waiting {
    deadline_ms: u64,
    kind: RequestKind,
}

enum RequestKind {
    Change,
    /// The context carries `number`, so that an answer to an earlier read with this ticket does not answer this one.
    Read {
        number: u64,
        asked_ms: u64,
        index: Option<u64>,
    },
}

impl<D: Disk> Agreement<D> {
    pub(super) fn propose(&mut self, ticket: u64, change: Change, actions: &mut Vec<Action>) {
        let proposal = Proposal { origin: self.identity(), ticket, change };
        let data = postcard::to_allocvec(&proposal).expect("postcard encodes all derived types");
        let result = match self.has_room(ticket) && data.len() <= PROPOSAL_BYTES_MAX {
            true => self.raw.propose(Vec::new(), data).map_err(|_| AgreementError::NotTaken),
            false => Err(AgreementError::NoRoom),
        };
        match result {
            Ok(()) => self.wait(ticket, RequestKind::Change),
            Err(error) => actions.push(Action::Answer { ticket, result: Err(error) }),
        }
    }

    pub(super) fn read(&mut self, ticket: u64, actions: &mut Vec<Action>) {
        if !self.has_room(ticket) {
            return actions.push(Action::Answer { ticket, result: Err(AgreementError::NoRoom) });
        }
        self.reads += 1;
        let (number, asked_ms) = (self.reads, self.now_ms);
        self.wait(ticket, RequestKind::Read { number, asked_ms, index: None });
        self.raw.read_index(self.read_context(ticket, number));
    }

    /// Answers an applied proposal, if this incarnation of this node has made it.
    pub(super) fn answer_change(
        &mut self,
        origin: Identity,
        ticket: u64,
        result: Result<Applied, Refused>,
        actions: &mut Vec<Action>,
    ) {
        let is_asked = |waiting: &Waiting| matches!(waiting.kind, RequestKind::Change);
        if origin == self.identity() && self.waiting.get(&ticket).is_some_and(is_asked) {
            self.waiting.remove(&ticket);
            let result = result.map(Answer::Applied).map_err(AgreementError::Refused);
            actions.push(Action::Answer { ticket, result });
        }
    }

    /// Fails everything pending, because the member stops.
    pub(super) fn fail_waiting(&mut self, actions: &mut Vec<Action>) {
        let waiting = std::mem::take(&mut self.waiting);
        actions.extend(waiting.into_iter().map(|(ticket, waiting)| {
            let error = match waiting.kind {
                RequestKind::Change => AgreementError::Unknown,
                RequestKind::Read { .. } => AgreementError::Stopped,
            };
            Action::Answer { ticket, result: Err(error) }
        }));
    }

    fn has_room(&self, ticket: u64) -> bool {
        self.waiting.len() < WAITING_MAX && !self.waiting.contains_key(&ticket)
    }

    fn wait(&mut self, ticket: u64, kind: RequestKind) {
        let deadline_ms = self.now_ms.saturating_add(self.config.answer_ms);
        self.waiting.insert(ticket, Waiting { deadline_ms, kind });
    }

    fn read_context(&self, ticket: u64, number: u64) -> Vec<u8> {
        let context = (self.raft(), self.config.incarnation, ticket, number);
        postcard::to_allocvec(&context).expect("postcard encodes numbers")
    }

    /// Fails what has timed out.
    pub(super) fn expire_waiting(&mut self, actions: &mut Vec<Action>) {
        let now_ms = self.now_ms;
        let late = self.waiting.extract_if(.., |_, waiting| waiting.deadline_ms <= now_ms);
        actions.extend(late.map(|(ticket, waiting)| {
            let error = match waiting.kind {
                RequestKind::Change => AgreementError::Unknown,
                RequestKind::Read { .. } => AgreementError::NotRead,
            };
            Action::Answer { ticket, result: Err(error) }
        }));
    }

    /// Requests the indexes of reads again: a new leader drops them, and messages are lost.
    pub(super) fn retry_reads(&mut self) {
        let (now_ms, retry_ms) = (self.now_ms, READ_RETRY_TICKS * self.config.tick_ms);
        let mut due = Vec::new();
        for (&ticket, waiting) in &mut self.waiting {
            if let RequestKind::Read { number, asked_ms, index: None } = &mut waiting.kind
                && now_ms - *asked_ms >= retry_ms
            {
                *asked_ms = now_ms;
                due.push((ticket, *number));
            }
        }
        for (ticket, number) in due {
            self.raw.read_index(self.read_context(ticket, number));
        }
    }

    /// Notes the index up to which the map must be applied before each read is answered.
    pub(super) fn note_reads(&mut self, states: Vec<raft::ReadState>) {
        for state in states {
            let Ok((raft, incarnation, ticket, number)) =
                postcard::from_bytes::<(u64, u64, u64, u64)>(&state.request_ctx)
            else {
                continue;
            };
            let is_own = (raft, incarnation) == (self.raft(), self.config.incarnation);
            if let Some(Waiting { kind: RequestKind::Read { number: asked, index, .. }, .. }) =
                self.waiting.get_mut(&ticket)
                && is_own
                && *asked == number
            {
                *index = Some(state.index);
            }
        }
    }

    pub(super) fn answer_reads(&mut self, actions: &mut Vec<Action>) {
        let (applied, version) = (self.applied.0, self.map.version());
        let is_reached = |_: &u64, waiting: &mut Waiting| match waiting.kind {
            RequestKind::Read { index, .. } => index.is_some_and(|index| index <= applied),
            RequestKind::Change => false,
        };
        let answered = self.waiting.extract_if(.., is_reached);
        actions.extend(answered.map(|(ticket, _)| {
            let result = Ok(Answer::Read { version });
            Action::Answer { ticket, result }
        }));
    }
}
