//! The executor: a shard's engine, its counters and the time, with one entry point for requests.

use super::resp::{self, Context, Slice, Streamed};
use super::strings::{self, Target};
use crate::command::{
    Administration, Args, Call, Command, Condition, Failure, Operation, Part, Reply, Request, Session, UnixMs,
    ValueHead,
};
use crate::engine::{Attributes, Engine, KeyHash, Next, PutError, Reader, Upload};
use crate::metrics::{Counter, Counters};
use crate::protocol::memcached::{LINE_END, encode, encode_head, encode_tail};
use std::ops::Range;

/// Values up to this length, in bytes, are copied into the reply for a sibling; longer ones are streamed.
pub const COPIED_BYTES_MAX: usize = 64 << 10;

/// Values of this length or longer are streamed to this shard's clients if they have whole pages, which are sent
/// without a copy. With shorter ones, several replies in one send are worth more than that.
const SENT_IN_PLACE_BYTES_MIN: usize = 32 << 10;

/// Keys or elements that a slice of a long command visits: 50 to 500 µs.
const ELEMENTS_PER_SLICE: usize = 512;

/// The counters of lookups and writes, which count a command once, however many slices it takes.
const LOOKS: [Counter; 4] = [Counter::CmdGet, Counter::GetHits, Counter::GetMisses, Counter::CmdSet];

/// The result of a request.
#[derive(Debug)]
pub enum Outcome {
    /// The whole reply was appended to the output.
    Done,
    /// Nothing was appended: this reply is to be streamed.
    Stream(Box<LongReply>),
    /// The beginning of the reply was appended, or nothing; the rest follows from [`Executor::resume`] with this slice.
    /// Until then, the caller holds the key.
    More(Box<Slice>),
}

/// A reply with a value that is too long to be copied at once.
#[derive(Debug)]
pub struct LongReply {
    /// The bytes to send before the value.
    pub head: Vec<u8>,
    /// The bytes to send after the value.
    pub tail: Vec<u8>,
    /// The value's length in bytes.
    pub length: usize,
    /// Reads the value as it is now, whatever happens to the key; to be closed with [`Executor::close`].
    pub reader: Reader,
}

/// What executing a request causes besides its reply. The shard takes them after each request.
#[derive(Debug, Default)]
pub struct Effects {
    /// The duration of the command in microseconds, if it was measured.
    pub micros: Option<u64>,
}

/// An upload in progress: its command, and the destination of its bytes.
#[derive(Debug)]
pub struct UploadTarget {
    hash: KeyHash,
    key: Box<[u8]>,
    command: UploadCommand,
    session: Session,
    /// The upload, or why it failed. A failure is reported once the whole value has arrived.
    upload: Result<Upload, PutError>,
}

/// The command that an upload belongs to.
#[derive(Debug)]
enum UploadCommand {
    /// A command of memcached's protocol, without the value.
    Store(Operation<&'static [u8]>),
    /// A command of RESP, with the arguments before the value.
    Call { call: Call<()>, args: Box<[u8]> },
}

impl UploadTarget {
    /// The hash of its key.
    pub fn hash(&self) -> KeyHash {
        self.hash
    }
}

/// A shard's engine and everything else that executing a request needs.
pub struct Executor {
    /// The shard's part of the data.
    pub engine: Engine,
    /// The shard's counters.
    pub counters: Counters,
    /// The time at which requests are executed; see [`Executor::advance`].
    now: UnixMs,
    /// How far the wall clock is ahead of `now`: it converts absolute times of expiry.
    wall_ahead_ms: i64,
    /// The number of shards of the node, for SCAN's cursors.
    shards: usize,
    /// Reads a monotonic clock, in nanoseconds.
    stopwatch: fn() -> u64,
    /// The longest reply of a command that only reads, in bytes.
    pub reply_bytes_max: usize,
    /// Keys or elements that a slice of a long command visits.
    pub elements_per_slice: usize,
    /// Measure every command, not only those whose time grows with the data.
    pub time_all: bool,
    /// What the last request caused, until it is taken.
    effects: Effects,
}

impl Executor {
    /// Creates an executor of `engine` for one of `shards` shards. `stopwatch` reads a monotonic clock in nanoseconds.
    pub fn new(engine: Engine, shards: usize, now: UnixMs, stopwatch: fn() -> u64) -> Self {
        Self {
            engine,
            counters: Counters::new(),
            now,
            wall_ahead_ms: 0,
            shards,
            stopwatch,
            reply_bytes_max: usize::MAX,
            elements_per_slice: ELEMENTS_PER_SLICE,
            time_all: false,
            effects: Effects::default(),
        }
    }

    /// The time at which requests are executed.
    #[inline]
    pub fn now(&self) -> UnixMs {
        self.now
    }

    /// Sets the time.
    pub fn advance(&mut self, now: UnixMs) {
        self.now = now;
        self.engine.advance(now);
    }

    /// Values up to this length, in bytes, are copied into the reply for a client of this shard.
    #[inline]
    pub fn local_copied_bytes_max(&self) -> usize {
        self.engine.page_bytes().max(SENT_IN_PLACE_BYTES_MIN) - 1
    }

    /// How far the wall clock is ahead of [`Executor::now`], in milliseconds.
    #[inline]
    pub fn wall_ahead_ms(&self) -> i64 {
        self.wall_ahead_ms
    }

    /// The wall clock's time at which requests are executed.
    pub fn unix_ms(&self) -> UnixMs {
        self.now.saturating_add_signed(self.wall_ahead_ms)
    }

    /// Notes how far the wall clock is ahead.
    pub fn set_wall_ahead_ms(&mut self, wall_ahead_ms: i64) {
        self.wall_ahead_ms = wall_ahead_ms;
    }

    /// Does a bounded amount of background work; returns when to continue.
    pub fn work(&mut self) -> Next {
        self.engine.work(self.now)
    }

    /// Takes what the last request caused besides its reply.
    #[inline]
    pub fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// Executes a request on a key of this shard and appends the reply to `out`, unless the client suppresses replies.
    /// For a value longer than `copied_bytes_max`, nothing is appended.
    #[inline]
    pub fn run(
        &mut self,
        request: &Request<&[u8]>,
        hash: KeyHash,
        copied_bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Outcome {
        if let Operation::Call(call) = request.operation {
            return self.call(&call, request, hash, copied_bytes_max, out);
        }
        match strings::execute(request, self.target(hash, request.key)) {
            strings::Outcome::Ready(reply) if !request.session.noreply => encode(&reply, out),
            strings::Outcome::Ready(_) => {}
            strings::Outcome::Long { head, length, reader } => {
                return self.long(&head, length, reader, copied_bytes_max, out);
            }
        }
        Outcome::Done
    }

    #[inline]
    fn call(
        &mut self,
        call: &Call<&[u8]>,
        request: &Request<&[u8]>,
        hash: KeyHash,
        copied_bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let started = self.started(call.command);
        let start = out.len();
        let session = request.session;
        let mut context = self.context(call, request.key, hash);
        let streamed = resp::call(call.command, session.resp3, &mut context, out);
        let mut outcome = Outcome::Done;
        if context.slice.more {
            outcome = Outcome::More(Box::new(context.slice.next()));
        }
        if let Some(Streamed { length, mut reader }) = streamed {
            if length > copied_bytes_max && !session.noreply {
                let head = out.split_off(start);
                outcome = Outcome::Stream(Box::new(LongReply { head, tail: LINE_END.to_vec(), length, reader }));
            } else {
                self.copy(&mut reader, usize::MAX, out);
                out.extend_from_slice(LINE_END);
                self.engine.close(reader);
            }
        }
        if session.noreply {
            out.truncate(start);
        }
        if let Some(started) = started {
            self.stopped(started, call);
        }
        outcome
    }

    /// Executes the next slice of a request: as [`Executor::run`], at the time at which the request began. What it
    /// causes and counts belongs to the whole command.
    pub fn resume(
        &mut self,
        request: &Request<&[u8]>,
        hash: KeyHash,
        began: UnixMs,
        slice: Slice,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Operation::Call(call) = request.operation else { return Outcome::Done };
        let (started, start) = (self.stopwatch(), out.len());
        let looks = LOOKS.map(|counter| self.counters.value(counter));
        let mut context = self.context(&call, request.key, hash);
        context.slice = slice;
        context.now = began;
        let streamed = resp::call(call.command, request.session.resp3, &mut context, out);
        debug_assert!(streamed.is_none(), "a long value is not read in slices");
        let slice = context.slice;
        // The first slice has counted the command's lookup of its key.
        LOOKS.iter().zip(looks).for_each(|(&counter, value)| self.counters.set(counter, value));
        if request.session.noreply {
            out.truncate(start);
        }
        let nanoseconds = self.stopwatch().saturating_sub(started);
        self.counters.took(call.command, nanoseconds);
        self.effects.micros = Some(nanoseconds / 1000);
        if slice.more { Outcome::More(Box::new(slice.next())) } else { Outcome::Done }
    }

    /// Executes a command's part for one key, or for this shard, and appends the part's bytes to `out`. A long command
    /// yields after a slice: then the part is not the last, and the next slice begins at the position returned. `from`
    /// is 0, or that position.
    pub fn part(
        &mut self,
        call: &Call<&[u8]>,
        key: &[u8],
        hash: KeyHash,
        from: u64,
        out: &mut Vec<u8>,
    ) -> (Part, Option<u64>) {
        let started = self.started(call.command);
        self.counters.executed_part(call.command);
        let mut context = self.context(call, key, hash);
        context.slice.from = from;
        let part = resp::part(call.command, &mut context, out);
        let slice = context.slice;
        if let Some(started) = started {
            self.stopped(started, call);
        }
        (part, slice.more.then_some(slice.from))
    }

    #[inline]
    fn target<'k: 'e, 'e>(&'e mut self, hash: KeyHash, key: &'k [u8]) -> Target<'k, 'e> {
        let Self { engine, counters, now, wall_ahead_ms, .. } = self;
        Target { engine, hash, key, now: *now, wall_ahead_ms: *wall_ahead_ms, counters }
    }

    #[inline]
    fn context<'c>(&'c mut self, call: &Call<&'c [u8]>, key: &'c [u8], hash: KeyHash) -> Context<'c> {
        let args = Args::new(call.args, call.count as usize);
        let Self { engine, counters, now, wall_ahead_ms, shards, reply_bytes_max, elements_per_slice, .. } = self;
        let slice = Slice::first(*elements_per_slice);
        let (now, wall_ahead_ms, shards) = (*now, *wall_ahead_ms, *shards);
        let reply_bytes_max = *reply_bytes_max;
        Context { engine, hash, key, args, now, wall_ahead_ms, counters, shards, reply_bytes_max, slice }
    }

    /// The time, in nanoseconds, of a clock that measures commands.
    pub fn stopwatch(&self) -> u64 {
        (self.stopwatch)()
    }

    /// Counts an execution; the time at which it starts, if it is measured.
    #[inline]
    fn started(&mut self, command: Command) -> Option<u64> {
        (self.counters.executed(command) | self.time_all).then(self.stopwatch)
    }

    #[inline(never)]
    fn stopped(&mut self, started: u64, call: &Call<&[u8]>) {
        let nanoseconds = self.stopwatch().saturating_sub(started);
        let row = call.command.row();
        let may_be_slow = row.may_be_slow();
        // Subcommands are counted as such; then all calls of their command have to come here.
        let is_container = !row.subcommands.is_empty();
        self.counters.measured(call.command, nanoseconds, may_be_slow || is_container);
        if is_container {
            self.counters.executed_part(call.command);
            self.counters.called(row.executed_by(Args::new(call.args, call.count as usize).iter()), nanoseconds);
        }
        if may_be_slow || self.time_all {
            self.effects.micros = Some(nanoseconds / 1000);
        }
    }

    /// Replies with a value that one of memcached's commands found, and that is not in one piece.
    fn long(
        &mut self,
        head: &ValueHead,
        length: usize,
        mut reader: Reader,
        copied_bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Outcome {
        if length > copied_bytes_max {
            let (mut before, mut after) = (Vec::new(), Vec::new());
            encode_head(head, length, &mut before);
            encode_tail(head, &mut after);
            return Outcome::Stream(Box::new(LongReply { head: before, tail: after, length, reader }));
        }
        encode_head(head, length, out);
        self.copy(&mut reader, usize::MAX, out);
        encode_tail(head, out);
        self.engine.close(reader);
        Outcome::Done
    }

    /// Appends up to `bytes_max` bytes of a value to `out`; returns how many were appended.
    pub fn copy(&self, reader: &mut Reader, bytes_max: usize, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        while out.len() - start < bytes_max && self.engine.unread(reader) > 0 {
            let left = bytes_max - (out.len() - start);
            out.extend_from_slice(self.engine.read(reader, left));
        }
        out.len() - start
    }

    /// Closes a reader, so that its value may be freed.
    pub fn close(&mut self, reader: Reader) {
        self.engine.close(reader);
    }

    /// Changes this shard's engine.
    pub fn administer(&mut self, administration: Administration) {
        match administration {
            Administration::Flush { delay } => match delay.resolve(self.now, self.wall_ahead_ms) {
                Some(due) if due > self.now => self.engine.flush_at(due),
                _ => self.engine.flush(),
            },
            Administration::SetEviction(eviction) => self.engine.set_eviction(eviction),
            Administration::SetMemory(bytes) => self.engine.set_memory_bytes(bytes),
            Administration::Purge => self.engine.purge(),
            Administration::SetEncodingLimits(limits) => self.engine.set_encoding_limits(limits),
        }
    }

    /// Begins an upload of `value_bytes` bytes. `request` is its command without the value. If memory is exhausted, the
    /// bytes are dropped as they arrive, and the error is reported once the whole value has arrived.
    pub fn begin_upload(&mut self, request: &Request<&[u8]>, hash: KeyHash, value_bytes: usize) -> UploadTarget {
        let attributes = match request.operation {
            Operation::Store { flags, expiry, .. } => {
                Attributes { flags, expires: expiry.resolve(self.now, self.wall_ahead_ms) }
            }
            _ => Attributes::default(),
        };
        let upload = self.engine.begin(request.key, value_bytes, attributes, self.now);
        let command = match request.operation {
            Operation::Call(Call { command, count, args }) => {
                UploadCommand::Call { call: Call { command, count, args: () }, args: args.into() }
            }
            _ => UploadCommand::Store(request.map(|_| &[][..]).operation),
        };
        UploadTarget { hash, key: request.key.into(), command, session: request.session, upload }
    }

    /// Appends a piece to an upload; returns how many of its bytes were taken. Where a piece would evict many items at
    /// once, the engine takes only a part of it: the caller passes the rest again in the next turn. If memory is
    /// exhausted, the piece and the value are dropped.
    pub fn append(&mut self, target: &mut UploadTarget, bytes: &[u8]) -> usize {
        let Ok(upload) = &target.upload else { return bytes.len() };
        match self.engine.append(upload, bytes, self.now) {
            Ok(taken) => taken,
            Err(error) => {
                if let Ok(upload) = std::mem::replace(&mut target.upload, Err(error)) {
                    self.engine.abort(upload);
                }
                bytes.len()
            }
        }
    }

    /// Provides memory for the next bytes of an upload: see [`Engine::provide`]. If memory is exhausted, the value is
    /// dropped, and nothing is provided.
    pub fn provide(&mut self, target: &mut UploadTarget, bytes_max: usize, ranges: &mut Vec<Range<usize>>) -> usize {
        let Ok(upload) = &target.upload else { return 0 };
        match self.engine.provide(upload, bytes_max, ranges, self.now) {
            Ok(bytes) => bytes,
            Err(error) => {
                if let Ok(upload) = std::mem::replace(&mut target.upload, Err(error)) {
                    self.engine.abort(upload);
                }
                ranges.clear();
                0
            }
        }
    }

    /// Notes that the next `bytes` bytes of an upload have come to the memory that was provided.
    pub fn received(&mut self, target: &UploadTarget, bytes: usize) {
        if let Ok(upload) = &target.upload {
            self.engine.received(upload, bytes);
        }
    }

    /// Stores a complete value and appends the reply. `intact` is false if the value was not followed by a line end:
    /// then it is dropped. `after` are the arguments that followed the value.
    pub fn finish_upload(&mut self, target: UploadTarget, intact: bool, after: Args, out: &mut Vec<u8>) {
        let UploadTarget { hash, key, command, session, upload } = target;
        let start = out.len();
        match command {
            UploadCommand::Call { call: Call { command, count, .. }, args } => {
                let call = Call { command, count, args: &args[..] };
                let started = self.started(command);
                let context = &mut self.context(&call, &key, hash);
                resp::finish_upload(command, session.resp3, context, upload, after, out);
                if let Some(started) = started {
                    self.stopped(started, &call);
                    // The pieces of the value are not measured, so the log of slow commands would say too little.
                    self.effects.micros = None;
                }
            }
            UploadCommand::Store(operation) => {
                let reply = self.finish_store(operation, hash, &key, upload, intact);
                encode(&reply, out);
            }
        }
        if session.noreply {
            out.truncate(start);
        }
    }

    fn finish_store(
        &mut self,
        operation: Operation<&[u8]>,
        hash: KeyHash,
        key: &[u8],
        upload: Result<Upload, PutError>,
        intact: bool,
    ) -> Reply<'static> {
        let upload = match upload {
            Ok(upload) if !intact => {
                self.engine.abort(upload);
                self.counters.add(Counter::InvalidCommands);
                return Reply::Failed(Failure::BadDataChunk);
            }
            upload => upload,
        };
        let target = self.target(hash, key);
        match (upload, operation) {
            (Ok(upload), Operation::Extend { end, bytes_max, .. }) => target.extend_by(end, upload, bytes_max),
            (Ok(upload), Operation::Store { condition, .. }) => target.commit(condition, upload),
            (Ok(upload), _) => target.commit(Condition::Always, upload),
            (Err(error), operation) => {
                let drop_old = matches!(operation, Operation::Store { condition: Condition::Always, .. });
                target.refuse(drop_old, error)
            }
        }
    }

    /// Aborts an upload that will not be completed.
    pub fn abort_upload(&mut self, target: UploadTarget) {
        if let Ok(upload) = target.upload {
            self.engine.abort(upload);
        }
    }
}
