//! What travels over the mesh: a batch of requests, which comes back with their replies in the same buffers.

use crate::command::{Request, Span};
use crate::engine::KeyHash;
use crate::reactor::Token;
use std::os::fd::OwnedFd;

/// A batch takes no more requests once it has this many.
const REQUESTS_MAX: usize = 1024;
/// Or this many bytes of keys and values.
const BYTES_MAX: usize = 256 << 10;
/// The owner stops executing a batch once its replies are this long; the rest follows when these are taken.
pub(super) const REPLY_BYTES_MAX: usize = 1 << 20;
/// Buffers that have grown beyond this are not kept for the next batch.
const BYTES_KEPT: usize = 512 << 10;

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Who asked.
    pub(super) token: Token,
    /// Which of its replies this will be.
    pub(super) sequence: u32,
    pub(super) hash: KeyHash,
    pub(super) request: Request<Span>,
}

/// Requests of one shard to another; then their replies.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) entries: Vec<Entry>,
    /// Keys and values of the entries.
    pub(super) bytes: Vec<u8>,
    /// Entries that were executed in earlier rounds.
    pub(super) done: usize,
    /// Replies of this round, one after the other.
    pub(super) replies: Vec<u8>,
    /// Where each reply of this round ends.
    pub(super) reply_ends: Vec<usize>,
    /// Connections that move to the other shard.
    pub(super) moving: Vec<OwnedFd>,
}

/// A message between shards.
#[derive(Debug)]
pub enum Message {
    /// To execute.
    Requests(Box<Batch>),
    /// Executed, all or in part.
    Replies(Box<Batch>),
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.moving.is_empty()
    }

    /// True if it takes no more requests. One that is not full takes any one more.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= REQUESTS_MAX || self.bytes.len() >= BYTES_MAX
    }

    #[inline]
    pub(super) fn push(&mut self, token: Token, sequence: u32, hash: KeyHash, request: &Request<&[u8]>) {
        let request = request.map(|bytes| Span::append(bytes, &mut self.bytes));
        self.entries.push(Entry { token, sequence, hash, request });
    }

    /// Empties it for the next requests.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.moving.clear();
        self.done = 0;
        self.reply_ends.clear();
        for buffer in [&mut self.bytes, &mut self.replies] {
            buffer.clear();
            buffer.shrink_to(BYTES_KEPT);
        }
    }
}
