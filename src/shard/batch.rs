//! What travels over the mesh: a batch of requests, which comes back with their replies in the same buffers.

use super::connection::Moving;
use super::outgoing::StreamStart;
use crate::command::{Request, Span};
use crate::engine::KeyHash;
use crate::reactor::Token;

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
    pub(super) task: Task,
}

/// What a sibling is to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    /// Execute a request, and reply.
    Request(Request<Span>),
    /// Take a long value, whose pieces will follow.
    BeginUpload { request: Request<Span>, value_bytes: usize },
    /// The next piece of it.
    Piece(Span),
    /// It is complete, its line end right or not, with the arguments of RESP after it: store it, and reply.
    FinishUpload { intact: bool, tail: Span, args: u32 },
    /// It will not be complete.
    AbortUpload,
    /// Send the next piece of a long value.
    ReadOn { stream: u64 },
    /// Send no more of it.
    CloseStream { stream: u64 },
}

/// The sequence number of a task without a reply of its own.
const NO_REPLY: u32 = 0;
/// The hash of a task without a key.
const NO_KEY: KeyHash = KeyHash(0);

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
    /// Replies of this round that are long values, in order.
    pub(super) streams: Vec<StreamStart>,
    /// Connections that move to the other shard.
    pub(super) moving: Vec<Moving>,
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
        self.entries.push(Entry { token, sequence, hash, task: Task::Request(request) });
    }

    /// Adds a task on a long value.
    pub(super) fn push_task(&mut self, token: Token, task: Task) {
        self.entries.push(Entry { token, sequence: NO_REPLY, hash: NO_KEY, task });
    }

    pub(super) fn push_begin(&mut self, token: Token, hash: KeyHash, request: &Request<&[u8]>, value_bytes: usize) {
        let request = request.map(|bytes| Span::append(bytes, &mut self.bytes));
        let task = Task::BeginUpload { request, value_bytes };
        self.entries.push(Entry { token, sequence: NO_REPLY, hash, task });
    }

    pub(super) fn push_piece(&mut self, token: Token, piece: &[u8]) {
        let task = Task::Piece(Span::append(piece, &mut self.bytes));
        self.push_task(token, task);
    }

    pub(super) fn push_finish(&mut self, token: Token, sequence: u32, intact: bool, tail: (&[u8], usize)) {
        let (args, tail) = (tail.1 as u32, Span::append(tail.0, &mut self.bytes));
        self.entries.push(Entry { token, sequence, hash: NO_KEY, task: Task::FinishUpload { intact, tail, args } });
    }

    /// Empties it for the next requests.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.moving.clear();
        self.done = 0;
        self.reply_ends.clear();
        self.streams.clear();
        for buffer in [&mut self.bytes, &mut self.replies] {
            buffer.clear();
            buffer.shrink_to(BYTES_KEPT);
        }
    }
}
