//! Log lines that clients can cause: of each kind at most one per [`PERIOD`] and shard, which says how many were left
//! out since the one before.

use std::time::{Duration, Instant};

/// The shortest time between two lines of a kind.
const PERIOD: Duration = Duration::from_secs(10);

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Complaint {
    /// A connection could not be accepted.
    CannotAccept,
    /// A client speaks a protocol that its port does not serve.
    WrongProtocol,
    /// A client gave a wrong password.
    WrongPassword,
    /// A client was disconnected because clients held too much memory.
    ClientMemory,
    /// A client was disconnected because it made no progress.
    Stalled,
}

const KINDS: usize = Complaint::Stalled as usize + 1;

/// When a line of each kind was written last, and how many were left out since.
#[derive(Debug, Default)]
pub(super) struct Complaints([(Option<Instant>, u64); KINDS]);

impl Complaints {
    /// Some if a line of this kind is due: the number of lines left out since the last one.
    pub(super) fn due(&mut self, about: Complaint, now: Instant) -> Option<u64> {
        let (last, left_out) = &mut self.0[about as usize];
        if last.is_some_and(|last| now.saturating_duration_since(last) < PERIOD) {
            *left_out += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_a_kind_per_period_counts_the_others() {
        let (mut complaints, now) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.due(Complaint::WrongPassword, now), Some(0));
        for _ in 0..3 {
            assert_eq!(complaints.due(Complaint::WrongPassword, now + PERIOD / 2), None);
        }
        assert_eq!(complaints.due(Complaint::WrongProtocol, now + PERIOD / 2), Some(0));
        assert_eq!(complaints.due(Complaint::WrongPassword, now + PERIOD), Some(3));
        assert_eq!(complaints.due(Complaint::WrongPassword, now + 2 * PERIOD), Some(0));
    }
}
