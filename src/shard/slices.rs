//! Commands that take long, executed in slices: some of them per turn, so that other clients are served in between. The
//! connection that sent one waits for its end before its next command; each slice goes to it as it is done, in a batch
//! if the connection is a sibling's.
//!
//! A command on one key holds that key meanwhile (`holds.rs`), and so is as atomic as any other.

use super::batch::Special;
use super::connection::{ConnectionId, OUTPUT_BYTES_HIGH};
use super::holds::{Waiting, Work};
use super::pending::Pending;
use super::remote::Origin;
use super::{Io, Shard};
use crate::command::table::Flags;
use crate::command::{Args, Call, Command, Operation, Part, Request, Span, UnixMs};
use crate::engine::KeyHash;
use crate::execute::{COPIED_BYTES_MAX, LongReply, Outcome, Slice};
use crate::reactor::Token;
use crate::shard::connection::{StreamStart, Wait};
use std::time::Duration;

/// Slices that are executed in a turn at most, however many clients send such commands.
const SLICES_PER_TURN: usize = 8;

/// The time after which no other slice begins in a turn.
const SLICES_TIME: Duration = Duration::from_micros(500);

/// A client that has taken nothing for this long does not have its command wait for it.
const STALL_SHORT: Duration = Duration::from_secs(1);

/// Requests that have waited for a key and are executed in a turn, at most.
const WAITING_PER_TURN: usize = 64;

/// A command whose next slice is due.
pub(super) struct Sliced {
    origin: Origin,
    /// The reply of the connection that its slices belong to.
    sequence: u32,
    hash: KeyHash,
    work: SlicedWork,
    /// What the spans of `work` refer to.
    bytes: Box<[u8]>,
    /// How long its slices have taken so far, in microseconds, if they were measured.
    micros: u64,
}

#[derive(Clone, Copy)]
enum SlicedWork {
    /// This shard's part of a command on all keys; the next slice begins at `from`.
    Part { call: Call<Span>, from: u64 },
    /// A command on one key, which it holds.
    Whole { request: Request<Span>, began: UnixMs, slice: Slice },
}

impl<I: Io> Shard<I> {
    /// Keeps this shard's part of a command on all keys for its next slice, in the next turn.
    pub(super) fn slice_part(&mut self, origin: Origin, sequence: u32, hash: KeyHash, call: &Call<&[u8]>, from: u64) {
        let Call { command, count, args } = *call;
        let mut bytes = Vec::new();
        let call = Call { command, count, args: Span::append(args, &mut bytes) };
        let work = SlicedWork::Part { call, from };
        self.sliced.push_back(Sliced { origin, sequence, hash, work, bytes: bytes.into(), micros: 0 });
    }

    /// Keeps a request for its next slice, and holds its key until the last one.
    pub(super) fn slice_request(
        &mut self,
        origin: Origin,
        sequence: u32,
        hash: KeyHash,
        request: &Request<&[u8]>,
        slice: Slice,
    ) {
        self.holds.hold(hash, origin, sequence);
        self.executor.engine.hold(hash);
        let micros = self.executor.take_effects().micros.unwrap_or(0);
        let mut bytes = Vec::new();
        let request = request.map(|arg| Span::append(arg, &mut bytes));
        let work = SlicedWork::Whole { request, began: self.executor.now(), slice };
        self.sliced.push_back(Sliced { origin, sequence, hash, work, bytes: bytes.into(), micros });
    }

    /// The rest of a reply of one of this shard's clients follows in slices.
    #[cold]
    pub(super) fn slice_own_request(
        &mut self,
        id: ConnectionId,
        hash: KeyHash,
        request: &Request<&[u8]>,
        slice: Slice,
    ) {
        let token = self.connections.token(id);
        let Some(connection) = self.connections.at(id) else { return };
        let sequence = connection.replies.expect_reply();
        connection.on_slices(sequence, b"");
        connection.on_kept_request(request_bytes(request));
        self.slice_request(self.origin(token), sequence, hash, request, slice);
    }

    /// If a request of one of this shard's clients has to wait, has it wait, and returns true.
    #[cold]
    pub(super) fn waits_for_hold(&mut self, pending: &Pending, request: &Request<&[u8]>) -> bool {
        let origin = self.origin(self.connections.token(pending.id));
        if !self.holds.must_wait(origin, pending.hash) {
            return false;
        }
        if !self.holds.has_room() {
            self.set_back(pending.id, Wait::Turn, pending.rest, pending.state);
            return true;
        }
        let Some(connection) = self.connections.at(pending.id) else { return true };
        let mut request = *request;
        request.session.noreply |= connection.take_noreply();
        let sequence = connection.replies.expect_reply();
        connection.on_kept_request(request_bytes(&request));
        self.holds.wait(Waiting::request(origin, sequence, pending.hash, &request));
        true
    }

    /// True if something is to be executed in the next turn.
    pub(super) fn has_slices(&self) -> bool {
        !self.sliced.is_empty() || !self.holds.is_empty()
    }

    /// Executes the next slices, first come, first served, and requests that had to wait for the keys of commands that
    /// have ended.
    pub(super) fn execute_slices(&mut self) {
        if !self.has_slices() {
            return;
        }
        let started = self.io.instant();
        for _ in 0..WAITING_PER_TURN {
            let Self { holds, router, id, .. } = self;
            let may_answer = |Origin { shard, .. }| shard == *id || router.has_room(shard..shard + 1);
            let Some(waiting) = holds.next(may_answer) else { break };
            self.execute_waiting(waiting);
        }
        for _ in 0..self.sliced.len().min(SLICES_PER_TURN) {
            let Some(sliced) = self.sliced.pop_front() else { return };
            self.execute_slice(sliced, false);
            if self.io.instant() - started >= SLICES_TIME {
                return;
            }
        }
    }

    /// Ends every command that holds a key, however long it takes: before the shard is flushed, which must not happen
    /// in the middle of one.
    pub(super) fn end_holds(&mut self) {
        let is_whole = |sliced: &Sliced| matches!(sliced.work, SlicedWork::Whole { .. });
        while let Some(index) = self.sliced.iter().position(is_whole) {
            if let Some(sliced) = self.sliced.remove(index) {
                self.execute_slice(sliced, true);
            }
        }
    }

    /// Before a part of a command is executed: a flush must not come in the middle of a command in slices.
    #[inline]
    pub(super) fn before_part(&mut self, command: Command) {
        if !self.holds.is_empty() && matches!(command, Command::FlushDb | Command::FlushAll) {
            self.end_holds();
        }
    }

    /// If a part of a command has to wait, has it wait, and returns true.
    #[inline]
    pub(super) fn part_waits(
        &mut self,
        origin: Origin,
        sequence: u32,
        hash: KeyHash,
        key: &[u8],
        call: &Call<&[u8]>,
    ) -> bool {
        if self.holds.is_empty() || !self.holds.must_wait(origin, hash) {
            return false;
        }
        self.holds.wait(Waiting::part(origin, sequence, hash, key, call));
        true
    }

    /// Executes a slice, and keeps the command for the next. If the batch that is to take the slice is full, the
    /// command waits for it, unless this `must` be done now.
    fn execute_slice(&mut self, mut sliced: Sliced, must: bool) {
        let Sliced { origin, sequence, hash, work, .. } = sliced;
        let is_here = origin.shard == self.id;
        let is_unwanted =
            is_here && self.connections.get(origin.token).is_none_or(|connection| connection.is_abandoned());
        if is_unwanted && !work.writes() {
            if let SlicedWork::Whole { .. } = work {
                self.release(hash);
            }
            return;
        }
        // The batch is the credit.
        let has_room = match is_here {
            true => !self.outruns_its_client(origin.token),
            false => self.router.has_room(origin.shard..origin.shard + 1),
        };
        if !has_room && !must {
            self.sliced.push_back(sliced);
            return;
        }
        let mut out = std::mem::take(&mut self.part);
        out.clear();
        match work {
            SlicedWork::Part { call, from } => {
                let call = call_at(&sliced.bytes, call);
                let (part, next) = self.executor.part(&call, &[], hash, from, &mut out);
                self.apply_effects(is_here.then_some(origin.token.slot), &Operation::Call(call));
                let answer = if next.is_some() { Special::Slice(part) } else { Special::Part(part) };
                self.deliver(origin, sequence, answer, &out);
                if let Some(from) = next {
                    let SlicedWork::Part { call, .. } = work else { return };
                    sliced.work = SlicedWork::Part { call, from };
                    self.sliced.push_back(sliced);
                }
            }
            SlicedWork::Whole { request: spans, began, slice } => {
                let request = spans.map(|span| &sliced.bytes[span.range()]);
                let outcome = self.executor.resume(&request, hash, began, slice, &mut out);
                sliced.micros += self.executor.take_effects().micros.unwrap_or(0);
                if let Outcome::More(slice) = outcome {
                    self.deliver(origin, sequence, Special::NextSlice { more: true }, &out);
                    sliced.work = SlicedWork::Whole { request: spans, began, slice: *slice };
                    self.sliced.push_back(sliced);
                } else {
                    self.deliver(origin, sequence, Special::NextSlice { more: false }, &out);
                    self.log_slow(is_here.then_some(origin.token.slot), &request.operation, sliced.micros);
                    self.release(hash);
                }
            }
        }
        self.part = out;
    }

    /// A command in slices has ended.
    fn release(&mut self, hash: KeyHash) {
        self.executor.engine.release_hold(hash);
        self.holds.release(hash);
    }

    /// Executes a request that had to wait.
    fn execute_waiting(&mut self, waiting: Waiting) {
        let Waiting { origin, sequence, hash, work, bytes } = waiting;
        let id = (origin.shard == self.id).then_some(origin.token.slot);
        let mut out = std::mem::take(&mut self.part);
        out.clear();
        match work {
            Work::Request(request) => {
                let request = request.map(|span| &bytes[span.range()]);
                match self.executor.run(&request, hash, COPIED_BYTES_MAX, &mut out) {
                    Outcome::Done => self.deliver(origin, sequence, Special::Whole, &out),
                    Outcome::Stream(reply) => self.deliver_stream(origin, sequence, *reply),
                    Outcome::More(slice) => {
                        self.deliver(origin, sequence, Special::FirstSlice, &out);
                        self.slice_request(origin, sequence, hash, &request, *slice);
                    }
                }
                self.apply_effects(id, &request.operation);
            }
            Work::Part { key, call } => {
                let call = call_at(&bytes, call);
                self.before_part(call.command);
                let (part, next) = self.executor.part(&call, &bytes[key.range()], hash, 0, &mut out);
                let answer = if next.is_some() { Special::Slice(part) } else { Special::Part(part) };
                self.deliver(origin, sequence, answer, &out);
                if let Some(from) = next {
                    self.slice_part(origin, sequence, hash, &call, from);
                }
                self.apply_effects(id, &Operation::Call(call));
            }
            Work::Administer(administration) => {
                self.administer(administration);
                self.deliver(origin, sequence, Special::Whole, b"");
            }
            Work::Finish { target, intact, after, count } => {
                let after = Args::new(&bytes[after.range()], count as usize);
                self.executor.finish_upload(target, intact, after, &mut out);
                self.deliver(origin, sequence, Special::Whole, &out);
            }
        }
        self.part = out;
    }

    /// Gives a reply, or some of one, to the connection that waits for it.
    fn deliver(&mut self, origin: Origin, sequence: u32, answer: Special, bytes: &[u8]) {
        if origin.shard == self.id {
            self.take_answer(origin.shard, origin.token, sequence, answer, bytes);
        } else {
            self.router.batch(origin.shard).push_answer(origin.token, sequence, answer, bytes);
        }
    }

    /// Gives a long value to the connection that waits for it.
    fn deliver_stream(&mut self, origin: Origin, sequence: u32, reply: LongReply) {
        let Origin { shard, token } = origin;
        if shard != self.id {
            let LongReply { head, tail, length, reader } = reply;
            let start = StreamStart { head_bytes: head.len(), stream: self.long_values.lend(shard, reader), length };
            return self.deliver(origin, sequence, Special::Stream(start), &[head, tail].concat());
        }
        let now = self.instant;
        let unwanted = match self.connections.get_answering(token) {
            Some(connection) => connection.on_own_stream(sequence, reply, now),
            None => Some(reply),
        };
        match unwanted {
            Some(reply) => self.executor.close(reply.reader),
            None => self.connections.touch(token.slot),
        }
    }

    /// A reply that could not be given at once, or some of one, has come for a connection of this shard, from `shard`.
    pub(super) fn take_answer(&mut self, shard: usize, token: Token, sequence: u32, answer: Special, bytes: &[u8]) {
        match answer {
            Special::Part(part) => self.take_part(token, sequence, part, bytes, false),
            Special::Slice(part) => self.take_part(token, sequence, part, bytes, true),
            Special::NextSlice { more } => {
                self.take_part(token, sequence, Part::Text, bytes, more);
                self.bound_output(token);
            }
            Special::Stream(start) => self.take_stream(token, sequence, shard, &start, bytes),
            Special::FirstSlice => {
                if let Some(connection) = self.connections.get_answering(token) {
                    connection.on_slices(sequence, bytes);
                    self.connections.touch(token.slot);
                }
            }
            Special::Whole => self.take_reply(token, sequence, bytes),
            Special::Later => {}
        }
    }

    /// A part has come for a connection of this shard, or with `more` a slice of one.
    pub(super) fn take_part(&mut self, token: Token, sequence: u32, part: Part, bytes: &[u8], more: bool) {
        if let Some(connection) = self.connections.get_answering(token) {
            connection.on_part(sequence, part, bytes, more);
            self.connections.output_has_room(token.slot);
            self.connections.touch(token.slot);
        }
    }

    /// True if memory for clients is short, and the client of a command in slices takes its reply, but less fast than
    /// it is made. While there is memory, the reply is made all the same: the key is held meanwhile.
    fn outruns_its_client(&mut self, token: Token) -> bool {
        let is_short = self.connections.memory_bytes() > self.client_bytes_max() / 4;
        let now = self.instant;
        is_short
            && self.connections.get(token).is_some_and(|connection| {
                let takes_some = connection.stalled_for(now).is_none_or(|stalled| stalled < STALL_SHORT);
                connection.output.len() > OUTPUT_BYTES_HIGH && takes_some
            })
    }

    /// Counts what a connection holds at once if it has much output, since there may be many of them in a turn.
    fn bound_output(&mut self, token: Token) {
        if self.connections.get(token).is_some_and(|connection| connection.output.len() > OUTPUT_BYTES_HIGH) {
            self.connections.count_memory(token.slot);
            self.bound_client_memory();
        }
    }
}

impl SlicedWork {
    /// True if ending the command in the middle would leave its key half changed.
    fn writes(&self) -> bool {
        match self {
            Self::Part { .. } => false,
            Self::Whole { request, .. } => match request.operation {
                Operation::Call(Call { command, .. }) => !command.row().flags.has(Flags::READONLY),
                _ => true,
            },
        }
    }
}

/// Bytes that a copy of a request takes.
fn request_bytes(request: &Request<&[u8]>) -> usize {
    let args = if let Operation::Call(call) = request.operation { call.args.len() } else { 0 };
    request.key.len() + args
}

/// A call whose arguments lie in a buffer.
pub(super) fn call_at(bytes: &[u8], call: Call<Span>) -> Call<&[u8]> {
    let Call { command, count, args } = call;
    Call { command, count, args: &bytes[args.range()] }
}
