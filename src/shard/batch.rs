//! A batch: the tasks of one shard for another, which travels back with their replies in its own buffers.

use super::connection::{Moving, StreamStart};
use crate::command::{Administration, Args, Call, Part, Request, Span};
use crate::engine::KeyHash;
use crate::reactor::Token;

/// A batch takes no more tasks once it has this many.
const TASKS_MAX: usize = 1024;
/// Or this many bytes of keys and values.
const BYTES_MAX: usize = 256 << 10;
/// The owner stops executing a batch once its replies are this long; the rest follows when these are taken.
pub(super) const REPLY_BYTES_MAX: usize = 1 << 20;
/// Buffers that have grown beyond this are not kept for the next batch.
const BYTES_KEPT: usize = 512 << 10;

/// The sequence number of a task without a reply of its own.
const NO_REPLY: u32 = 0;
/// The hash of a task without a key.
pub(super) const NO_KEY: KeyHash = KeyHash(0);

/// Something for another shard to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    /// The connection that it is for.
    pub(super) token: Token,
    /// Which of the connection's replies it resolves.
    pub(super) sequence: u32,
    /// The hash of its key, and its database.
    pub(super) hash: KeyHash,
    pub(super) kind: TaskKind,
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum TaskKind {
    /// Execute a request; the reply is encoded for its client.
    Execute(Request<Span>),
    /// Execute a request's part for one key or for this shard; the reply is a typed part.
    Part { key: Span, call: Call<Span> },
    /// A reply, or some of one, for a client of this shard: the sender could not reply at once.
    Deliver { answer: Special, bytes: Span },
    /// Change the engine; the reply is empty.
    Administer(Administration),
    /// Publish all counters; the reply is empty.
    Publish,
    /// CLIENT LIST or CLIENT KILL on this shard's clients: the arguments after CLIENT. The reply is a part.
    Clients { asked_by: u64, args: Span, count: u32 },
    /// `stats conns` of this shard. The reply is a part.
    Connections,
    /// Take a long value, whose pieces will follow.
    BeginUpload { request: Request<Span>, value_bytes: usize },
    /// The next piece of it.
    Piece(Span),
    /// It is complete, its line end right or not, followed by `count` arguments of RESP: store it, and reply.
    FinishUpload { intact: bool, after: Span, count: u32 },
    /// It will not be completed.
    AbortUpload,
    /// Read the next piece of a long value.
    ReadStream { stream: u64 },
    /// Close the reader of a long value.
    CloseStream { stream: u64 },
}

/// What a reply is, where it is not an encoded reply as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    /// A part, whose bytes the reply is.
    Part(Part),
    /// The start of a long value.
    Stream(StreamStart),
    /// A slice of a part; the next one will be delivered ([`TaskKind::Deliver`]).
    Slice(Part),
    /// A whole reply, delivered later.
    Whole,
    /// The first slice of a reply; the others will be delivered.
    FirstSlice,
    /// Another slice of a reply; `more` will be delivered.
    NextSlice { more: bool },
    /// Nothing yet: the reply will be delivered.
    Later,
}

/// Tasks of one shard for another; then their replies.
#[derive(Debug)]
pub struct Batch<S> {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Tasks and bytes from which on it is full.
    pub(super) limits: (usize, usize),
    pub(super) tasks: Vec<Task>,
    /// Keys and values of the tasks.
    pub(super) bytes: Vec<u8>,
    /// Tasks that were executed in earlier rounds.
    pub(super) done: usize,
    /// Replies of this round, one after the other.
    pub(super) replies: Vec<u8>,
    /// Where each reply of this round ends.
    pub(super) reply_ends: Vec<usize>,
    /// Replies of this round that are parts or long values, by their index, in order.
    pub(super) specials: Vec<(usize, Special)>,
    /// Connections that move to the other shard.
    pub(super) moving: Vec<Moving<S>>,
}

/// A message between shards.
#[derive(Debug)]
pub enum Message<S> {
    /// To execute.
    Requests(Box<Batch<S>>),
    /// Executed, all or in part.
    Replies(Box<Batch<S>>),
}

impl<S> Batch<S> {
    pub(super) fn new(from: usize, to: usize) -> Self {
        Self {
            from,
            to,
            limits: (TASKS_MAX, BYTES_MAX),
            tasks: Vec::new(),
            bytes: Vec::new(),
            done: 0,
            replies: Vec::new(),
            reply_ends: Vec::new(),
            specials: Vec::new(),
            moving: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.moving.is_empty()
    }

    /// True if it takes no more tasks. One that is not full takes any one more.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        let (tasks, bytes) = self.limits;
        self.tasks.len() >= tasks || self.bytes.len() >= bytes
    }

    /// Adds a request whose reply is expected as `sequence`.
    #[inline]
    pub(super) fn push(&mut self, token: Token, sequence: u32, hash: KeyHash, request: &Request<&[u8]>) {
        let request = request.map(|bytes| Span::append(bytes, &mut self.bytes));
        self.tasks.push(Task { token, sequence, hash, kind: TaskKind::Execute(request) });
    }

    /// Adds a request whose part is expected for `sequence`.
    pub(super) fn push_part(&mut self, token: Token, sequence: u32, hash: KeyHash, key: &[u8], call: &Call<&[u8]>) {
        let key = Span::append(key, &mut self.bytes);
        let call = Call { command: call.command, count: call.count, args: Span::append(call.args, &mut self.bytes) };
        self.tasks.push(Task { token, sequence, hash, kind: TaskKind::Part { key, call } });
    }

    /// Adds a reply, or some of one, for a client of the other shard, which expects it as `sequence`.
    pub(super) fn push_answer(&mut self, token: Token, sequence: u32, answer: Special, bytes: &[u8]) {
        let bytes = Span::append(bytes, &mut self.bytes);
        self.tasks.push(Task { token, sequence, hash: NO_KEY, kind: TaskKind::Deliver { answer, bytes } });
    }

    /// Adds a change to the engine, whose completion is expected as `sequence`: an empty reply.
    pub(super) fn push_administration(&mut self, token: Token, sequence: u32, administration: Administration) {
        self.tasks.push(Task { token, sequence, hash: NO_KEY, kind: TaskKind::Administer(administration) });
    }

    /// Adds the publication of the counters, whose completion is expected as `sequence`: an empty reply.
    pub(super) fn push_publish(&mut self, token: Token, sequence: u32) {
        self.tasks.push(Task { token, sequence, hash: NO_KEY, kind: TaskKind::Publish });
    }

    /// Adds CLIENT LIST or CLIENT KILL, whose part is expected for `sequence`.
    pub(super) fn push_clients(&mut self, token: Token, sequence: u32, asked_by: u64, args: Args) {
        let (count, args) = (args.len() as u32, Span::append(args.bytes(), &mut self.bytes));
        self.tasks.push(Task { token, sequence, hash: NO_KEY, kind: TaskKind::Clients { asked_by, args, count } });
    }

    /// Adds `stats conns`, whose part is expected for `sequence`.
    pub(super) fn push_connections(&mut self, token: Token, sequence: u32) {
        self.tasks.push(Task { token, sequence, hash: NO_KEY, kind: TaskKind::Connections });
    }

    /// Adds a task on a long value that has no reply of its own.
    pub(super) fn push_task(&mut self, token: Token, kind: TaskKind) {
        self.tasks.push(Task { token, sequence: NO_REPLY, hash: NO_KEY, kind });
    }

    /// Announces a long value.
    pub(super) fn push_begin(&mut self, token: Token, hash: KeyHash, request: &Request<&[u8]>, value_bytes: usize) {
        let request = request.map(|bytes| Span::append(bytes, &mut self.bytes));
        let kind = TaskKind::BeginUpload { request, value_bytes };
        self.tasks.push(Task { token, sequence: NO_REPLY, hash, kind });
    }

    /// Adds a piece of it.
    pub(super) fn push_piece(&mut self, token: Token, piece: &[u8]) {
        let kind = TaskKind::Piece(Span::append(piece, &mut self.bytes));
        self.push_task(token, kind);
    }

    /// Completes it.
    pub(super) fn push_finish(&mut self, token: Token, sequence: u32, intact: bool, after: Args) {
        let (count, after) = (after.len() as u32, Span::append(after.bytes(), &mut self.bytes));
        let kind = TaskKind::FinishUpload { intact, after, count };
        self.tasks.push(Task { token, sequence, hash: NO_KEY, kind });
    }

    /// Ends the reply that was just appended to `replies`.
    #[inline]
    pub(super) fn end_reply(&mut self) {
        self.reply_ends.push(self.replies.len());
    }

    /// Forgets the replies of a round, which have been taken.
    pub(super) fn clear_replies(&mut self) {
        self.done += self.reply_ends.len();
        self.replies.clear();
        self.reply_ends.clear();
        self.specials.clear();
    }

    /// Empties it for the next tasks.
    pub(super) fn clear(&mut self) {
        self.tasks.clear();
        self.moving.clear();
        self.done = 0;
        self.reply_ends.clear();
        self.specials.clear();
        for buffer in [&mut self.bytes, &mut self.replies] {
            buffer.clear();
            buffer.shrink_to(BYTES_KEPT);
        }
    }
}

/// True for a task whose hash is worth prefetching: of those without a key, the prefetch is wasted and harmless.
#[inline]
pub(super) fn is_executed(kind: &TaskKind) -> bool {
    matches!(kind, TaskKind::Execute(_) | TaskKind::Part { .. })
}
