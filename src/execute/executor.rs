//! The executor: a shard's engine, its counters and the time, with one entry point for requests.

use super::resp::{self, Context, Slice, Streamed};
use super::strings::{self, Target};
use crate::command::{
    Administration, Args, Call, Condition, Failure, Operation, Part, Reply, Request, Session, UnixMs, ValueHead,
};
use crate::engine::{Attributes, Engine, KeyHash, Next, PutError, Reader, Upload};
use crate::metrics::{Counter, Counters};
use crate::protocol::memcached::{LINE_END, encode, encode_head, encode_tail};

/// Values up to this length, in bytes, are copied into the reply; longer ones are streamed.
pub const COPIED_BYTES_MAX: usize = 64 << 10;

/// Keys that a slice of a long command visits: about 100 µs.
const KEYS_PER_SLICE: usize = 1024;

/// The result of a request.
#[derive(Debug)]
pub enum Outcome {
    /// The whole reply was appended to the output.
    Done,
    /// Nothing was appended: this reply is to be streamed.
    Stream(Box<LongReply>),
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

/// A shard's engine and everything else that executing a request needs.
pub struct Executor {
    /// The shard's part of the data.
    pub engine: Engine,
    /// The shard's counters.
    pub counters: Counters,
    /// The time at which requests are executed; see [`Executor::advance`].
    now: UnixMs,
    /// The number of shards of the node, for SCAN's cursors.
    shards: usize,
    /// Reads a monotonic clock, in microseconds.
    stopwatch: fn() -> u64,
    /// Keys that a slice of a long command visits.
    pub keys_per_slice: usize,
    /// Measure every command, not only those whose time grows with the data.
    pub time_all: bool,
    /// The duration of the last measured command in microseconds, until it is taken.
    elapsed: Option<u64>,
}

impl Executor {
    /// Creates an executor of `engine` for one of `shards` shards. `stopwatch` reads a monotonic clock in microseconds.
    pub fn new(engine: Engine, shards: usize, now: UnixMs, stopwatch: fn() -> u64) -> Self {
        Self {
            engine,
            counters: Counters::new(),
            now,
            shards,
            stopwatch,
            keys_per_slice: KEYS_PER_SLICE,
            time_all: false,
            elapsed: None,
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

    /// Does a bounded amount of background work; returns when to continue.
    pub fn work(&mut self) -> Next {
        self.engine.work(self.now)
    }

    /// Takes the duration of the last command in microseconds, if it was measured; the caller logs slow commands.
    #[inline]
    pub fn take_elapsed(&mut self) -> Option<u64> {
        self.elapsed.take()
    }

    /// Executes a request on a key of this shard and appends the reply to `out`, unless the client suppresses replies.
    /// For a value longer than [`COPIED_BYTES_MAX`], nothing is appended.
    #[inline]
    pub fn run(&mut self, request: &Request<&[u8]>, hash: KeyHash, out: &mut Vec<u8>) -> Outcome {
        if let Operation::Call(call) = request.operation {
            return self.call(&call, request, hash, out);
        }
        let target =
            Target { engine: &mut self.engine, hash, key: request.key, now: self.now, counters: &mut self.counters };
        match strings::execute(request, target) {
            strings::Outcome::Ready(reply) if !request.session.noreply => encode(&reply, out),
            strings::Outcome::Ready(_) => {}
            strings::Outcome::Long { head, length, reader } => return self.long(&head, length, reader, out),
        }
        Outcome::Done
    }

    #[inline]
    fn call(&mut self, call: &Call<&[u8]>, request: &Request<&[u8]>, hash: KeyHash, out: &mut Vec<u8>) -> Outcome {
        let started = self.started(call);
        self.counters.called(call.command);
        let start = out.len();
        let session = request.session;
        let streamed = resp::call(call.command, session.resp3, &mut self.context(call, request.key, hash), out);
        let mut outcome = Outcome::Done;
        if let Some(Streamed { length, mut reader }) = streamed {
            if length > COPIED_BYTES_MAX && !session.noreply {
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
        self.stopped(started);
        outcome
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
        if from == 0 {
            self.counters.called(call.command);
        }
        let started = self.started(call);
        let mut context = self.context(call, key, hash);
        context.slice.from = from;
        let part = resp::part(call.command, &mut context, out);
        let next = context.slice.next;
        self.stopped(started);
        (part, next)
    }

    #[inline]
    fn context<'c>(&'c mut self, call: &Call<&'c [u8]>, key: &'c [u8], hash: KeyHash) -> Context<'c> {
        let args = Args::new(call.args, call.count as usize);
        let Self { engine, counters, now, shards, keys_per_slice, .. } = self;
        let slice = Slice { from: 0, keys_max: *keys_per_slice, next: None };
        Context { engine, hash, key, args, now: *now, counters, shards: *shards, slice }
    }

    #[inline]
    fn started(&self, call: &Call<&[u8]>) -> Option<u64> {
        (call.command.row().may_be_slow() || self.time_all).then(self.stopwatch)
    }

    #[inline]
    fn stopped(&mut self, started: Option<u64>) {
        if let Some(started) = started {
            self.elapsed = Some((self.stopwatch)().saturating_sub(started));
        }
    }

    /// Replies with a value that one of memcached's commands found, and that is not in one piece.
    fn long(&mut self, head: &ValueHead, length: usize, mut reader: Reader, out: &mut Vec<u8>) -> Outcome {
        if length > COPIED_BYTES_MAX {
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
            Administration::Flush { delay } => match delay.resolve(self.now) {
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
            Operation::Store { flags, expiry, .. } => Attributes { flags, expires: expiry.resolve(self.now) },
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

    /// Stores a complete value and appends the reply. `intact` is false if the value was not followed by a line end:
    /// then it is dropped. `after` are the arguments that followed the value.
    pub fn finish_upload(&mut self, target: UploadTarget, intact: bool, after: Args, out: &mut Vec<u8>) {
        let UploadTarget { hash, key, command, session, upload } = target;
        let start = out.len();
        match command {
            UploadCommand::Call { call: Call { command, count, .. }, args } => {
                let call = Call { command, count, args: &args[..] };
                self.counters.called(command);
                let context = &mut self.context(&call, &key, hash);
                resp::finish_upload(command, session.resp3, context, upload, after, out);
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
        let target = Target { engine: &mut self.engine, hash, key, now: self.now, counters: &mut self.counters };
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
