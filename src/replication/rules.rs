//! The safety rules of the protocol, and switches that break them.
//!
//! For each rule there is a failure that the simulator, or a scenario in `tests/`, reproduces once the rule is broken.
//! Outside of tests and of the feature `sim` all rules hold, and the switches compile to nothing.

/// A safety rule of replication. `docs/replication.md` says what goes wrong without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Data belongs to one incarnation of a node: after a restart the node is a stranger to it.
    Identity,
    /// Frames of an older epoch than the receiver's are refused.
    Epoch,
    /// Entries that conflict with the new primary's log are truncated.
    Truncation,
    /// Strong requests need leases of all in-sync holders and of a majority of the members.
    Lease,
    /// A new primary waits until every lease of the old one has expired.
    Grace,
    /// A node that was reported as unreachable is fenced until the map has decided: it gets no acknowledgements and no
    /// leases.
    Fencing,
    /// Strong requests need an in-sync set of at least `min_in_sync`.
    MinInSync,
    /// A group that lost all in-sync holders is opened empty: data that others still have is void.
    Opened,
    /// A change inside a value is applied only to the version that it was made for.
    ChangedVersion,
    /// While a snapshot is received, removals leave tombstones.
    Tombstones,
    /// An image of a snapshot does not replace a newer version.
    NewerWins,
    /// Keys that a replica evicted on its own are removed by the log when it becomes primary.
    OwnEviction,
    /// An expired item is removed by the log before a client sees that it is gone.
    ExpiryInLog,
    /// The answer of a strong request waits until everything it has read is committed.
    CommittedReads,
    /// A write is committed once all in-sync holders have acknowledged it.
    AllAcknowledge,
    /// A new primary applies everything it has acknowledged before it serves.
    AppliedBeforeServing,
    /// A replica applies committed entries only, not all that it has received.
    CommittedApplied,
    /// A primary without a lease for two seconds admits no writes of any level.
    BoundedDoubt,
    /// A replica serves a session only once it has applied the session's token.
    SessionToken,
    /// Chunks of a snapshot are held back until everything they show is committed.
    SnapshotCommitted,
    /// A primary that hands over admits no requests, and once everything is committed its log does not change.
    Freeze,
    /// A group's change applies only to the epoch it was proposed for.
    CompareAndSet,
}

impl Rule {
    /// All rules.
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

/// Which rules hold: all.
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
    /// All rules but `rule`.
    pub fn without(rule: Rule) -> Self {
        Self { broken: Some(rule) }
    }

    pub(crate) fn hold(self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }
}
