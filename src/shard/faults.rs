//! Faults that the simulator puts in, to prove that it would notice them. Without the feature `sim` none of them
//! exists.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A sibling's reply is dropped now and then.
    LostReply,
    /// A reply that is ready overtakes those that are awaited.
    SwappedOrder,
    /// The reader of an abandoned download stays open.
    LeakedReader,
    /// An abandoned upload stays.
    LeakedUpload,
    /// A late reply reaches the connection that uses the number now.
    ReusedConnection,
    /// A number is added twice to a sum.
    MiscountedPart,
    /// A connection that was set back loses the first byte of its input.
    LostInput,
    /// A connection that waits for a full batch is not resumed.
    ForgottenWaiter,
    /// The rest of a short send is not sent.
    ShortSend,
    /// A command that was cut off keeps its reply for ever.
    KeptSplit,
    /// Connections that ran out of buffers are re-armed last in, first out.
    UnfairReceive,
    /// A suppressed reply is sent.
    UnwantedReply,
    /// A connection is handed over while a part of a command is in its input.
    HandedOverHalf,
    /// A piece of an upload is counted twice.
    DoublePiece,
}

#[cfg(feature = "sim")]
impl Fault {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::LostReply,
        Self::SwappedOrder,
        Self::LeakedReader,
        Self::LeakedUpload,
        Self::ReusedConnection,
        Self::MiscountedPart,
        Self::LostInput,
        Self::ForgottenWaiter,
        Self::ShortSend,
        Self::KeptSplit,
        Self::UnfairReceive,
        Self::UnwantedReply,
        Self::HandedOverHalf,
        Self::DoublePiece,
    ];
}

#[cfg(feature = "sim")]
mod switch {
    use super::Fault;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The number of the fault that is in, in [`Fault::ALL`], plus one.
    static FAULT: AtomicUsize = AtomicUsize::new(0);

    /// Puts a fault into all shards of the process, or takes it out.
    pub fn put_in(fault: Option<Fault>) {
        FAULT.store(fault.map_or(0, |fault| fault as usize + 1), Ordering::Relaxed);
    }

    /// True if a fault is in.
    #[inline]
    pub(in crate::shard) fn has(fault: Fault) -> bool {
        FAULT.load(Ordering::Relaxed) == fault as usize + 1
    }
}

#[cfg(feature = "sim")]
pub use switch::put_in;

#[cfg(feature = "sim")]
pub(super) use switch::has;

/// False: no fault is in.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub(super) const fn has(_: Fault) -> bool {
    false
}
