//! The rules that the protocol stands on, and the switches that break them.
//!
//! Each has a failure behind it that the simulator finds again once the rule is broken (`sim`). Outside of tests and of the
//! feature `sim` they all hold, and nothing of this is left in the program.

/// A rule of replication. `docs/replication.md` says what each is for; the numbers are those of its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// 1: Data belongs to one life of a node: who has started again is a stranger.
    Identity,
    /// 2: A frame of an older epoch than the receiver's is refused.
    Epoch,
    /// 2: What a log has that the new primary's has not is cut off.
    Truncation,
    /// 3: Strong requests are served under a lease from all in-sync holders, and from most members.
    Lease,
    /// 3: A new primary waits until no lease of the old one can be left.
    Grace,
    /// 4: Who was reported gets no more acknowledgements until the map has answered.
    Fencing,
    /// 5: Strong requests want as many in-sync copies as the settings say.
    MinInSync,
    /// 5: A group whose in-sync copies are all gone is opened empty: what others still have of it is void.
    Opened,
    /// 6: A change inside a value is applied to the version that it was made for.
    ChangedVersion,
    /// 6: While a snapshot comes in, what was removed is remembered.
    Tombstones,
    /// 6: An image of a snapshot does not replace something newer.
    NewerWins,
    /// 7: What a replica has evicted on its own is gone for its next primary too, if that is itself.
    OwnEviction,
    /// 7: An expired item is removed by the log before anybody is told that it is gone.
    ExpiryInLog,
    /// 8: A strong result waits until all that it has seen is committed.
    CommittedReads,
    /// 8: A write is committed when all in-sync holders have it.
    AllAcknowledge,
    /// 9: All that was acknowledged is applied before its holder serves.
    AppliedBeforeServing,
    /// 9: A replica applies what is committed, not what it has only received.
    CommittedApplied,
    /// 10: Who has had no lease for two seconds takes no writes of any kind.
    BoundedDoubt,
    /// Sessions: a replica answers once it has what the session has written.
    SessionToken,
    /// Movement: a learner becomes in-sync when all that its snapshot shows is committed.
    SnapshotCommitted,
    /// Movement: a primary that hands over takes no more requests, and once all is committed its log stays as it is.
    Freeze,
    /// Agreement: a change of a group is made to the epoch that it was meant for.
    CompareAndSet,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::Identity,
        Self::Epoch,
        Self::Truncation,
        Self::Lease,
        Self::Grace,
        Self::Fencing,
        Self::MinInSync,
        Self::Opened,
        Self::ChangedVersion,
        Self::Tombstones,
        Self::NewerWins,
        Self::OwnEviction,
        Self::ExpiryInLog,
        Self::CommittedReads,
        Self::AllAcknowledge,
        Self::AppliedBeforeServing,
        Self::CommittedApplied,
        Self::BoundedDoubt,
        Self::SessionToken,
        Self::SnapshotCommitted,
        Self::Freeze,
        Self::CompareAndSet,
    ];
}

/// Which rules hold: all of them.
#[cfg(not(any(test, feature = "sim")))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules;

#[cfg(not(any(test, feature = "sim")))]
impl Rules {
    #[inline(always)]
    pub(crate) fn hold(self, _: Rule) -> bool {
        true
    }
}

/// Which rules hold: all but at most one.
#[cfg(any(test, feature = "sim"))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    broken: Option<Rule>,
}

#[cfg(any(test, feature = "sim"))]
impl Rules {
    /// All but one.
    pub fn without(rule: Rule) -> Self {
        Self { broken: Some(rule) }
    }

    pub(crate) fn hold(self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }
}
