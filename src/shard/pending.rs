//! The pending list: what was parsed in this turn and is not executed yet.

use super::connection::ConnectionId;
use crate::command::{Args, Command, Control, Request, Session};
use crate::engine::KeyHash;
use crate::protocol::State;
use crate::protocol::memcached::LINE_BYTES_MAX;

/// Requests whose cache lines are loaded at the same time: more would evict each other from the first-level cache.
pub(super) const PREFETCH: usize = 64;

/// Something that was parsed and is not executed yet. It borrows from the input that it was parsed from.
pub(super) struct Pending<'a> {
    /// Its connection.
    pub(super) id: ConnectionId,
    /// The shard that owns the key; this one, where there is none.
    pub(super) owner: u16,
    pub(super) hash: KeyHash,
    pub(super) work: Work<'a>,
    /// The input from here on, to set the connection back to if this cannot be executed yet.
    pub(super) rest: &'a [u8],
    /// The state that `rest` is parsed in.
    pub(super) state: State,
}

/// What to do.
#[derive(Clone, Copy)]
pub(super) enum Work<'a> {
    /// A request on a key.
    Request(Request<&'a [u8]>),
    /// One key of a command of RESP that is taken apart.
    Key(Request<&'a [u8]>),
    /// The head of such a command: its keys follow.
    Split { command: Command, keys: u32, session: Session },
    /// A command of memcached's without a key, and whether its reply is suppressed.
    Control(Control, bool),
    /// A command of RESP that no owner of a key executes, or that is refused; its name is the first argument.
    Local(Args<'a>),
}

/// Pending requests at which a command is not waited for to be whole: more than a line of `LINE_BYTES_MAX` can have
/// keys.
pub(super) const PENDING_MAX: usize = PREFETCH + LINE_BYTES_MAX / 2;

/// An empty list with the storage of another: nothing is allocated when lists of different lifetimes take turns.
pub(super) fn recycle<'a>(mut list: Vec<Pending<'_>>) -> Vec<Pending<'a>> {
    list.clear();
    list.into_iter().map(|_| unreachable!("the list is empty")).collect()
}
