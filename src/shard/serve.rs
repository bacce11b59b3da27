//! The mesh: executing siblings' batches, and taking the replies to ours.

use super::batch::{Batch, Message, NO_KEY, REPLY_BYTES_MAX, Special, Task, TaskKind, is_executed};
use super::connection::{StreamStart, Wait};
use super::faults::{self, Fault};
use super::holds::Waiting;
use super::pending::PREFETCH;
use super::remote::Origin;
use super::slices::call_at;
use super::{Io, Shard};
use crate::command::{Args, Operation, Request};
use crate::execute::{COPIED_BYTES_MAX, LongReply, Outcome};
use crate::mesh::OUTSTANDING_MAX;
use crate::metrics::Counter;
use crate::reactor::Token;

impl<I: Io> Shard<I> {
    /// Executes what siblings ask and takes their replies.
    pub(super) fn drain_mesh(&mut self) {
        // As much as there can be when the turn begins: siblings that keep sending must not keep clients waiting.
        for _ in 0..OUTSTANDING_MAX * self.router.shards() {
            let Some(message) = self.io.next_message() else { return };
            self.read_clock();
            match message {
                Message::Requests(batch) => self.serve(batch),
                Message::Replies(batch) => self.take_replies(batch),
            }
        }
    }

    /// Sends each sibling what this turn has for it.
    pub(super) fn send_batches(&mut self) {
        for to in 0..self.router.shards() {
            self.send_batch(to);
        }
    }

    fn send_batch(&mut self, to: usize) {
        if let Some(batch) = self.router.take(to) {
            self.executor.counters.add(Counter::MeshBatches);
            self.executor.counters.add_n(Counter::MeshRequests, batch.tasks.len() as u64);
            self.io.post(to, Message::Requests(batch));
        }
    }

    /// Executes a sibling's batch, as much of it as the bounds on replies and on the work for a long value allow, and
    /// sends it back.
    fn serve(&mut self, mut batch: Box<Batch<I::Socket>>) {
        for moving in batch.moving.drain(..) {
            self.open(moving, false);
        }
        let from = batch.done;
        'serving: for chunk_start in (from..batch.tasks.len()).step_by(PREFETCH) {
            let chunk = chunk_start..(chunk_start + PREFETCH).min(batch.tasks.len());
            for task in batch.tasks[chunk.clone()].iter().filter(|task| is_executed(&task.kind)) {
                self.executor.engine.prefetch_index(task.hash);
            }
            for task in batch.tasks[chunk.clone()].iter().filter(|task| is_executed(&task.kind)) {
                self.executor.engine.prefetch_item(task.hash);
            }
            for index in chunk {
                if !self.serve_task(&mut batch, index) {
                    break 'serving;
                }
                batch.end_reply();
                if batch.replies.len() >= REPLY_BYTES_MAX {
                    break 'serving;
                }
            }
            self.continue_work();
        }
        let to = batch.from;
        self.publish();
        self.io.post(to, Message::Replies(batch));
    }

    /// Executes one task and appends its reply. False if only a part of it could be done for now; the rest is what the
    /// task says then.
    #[inline]
    fn serve_task(&mut self, batch: &mut Batch<I::Socket>, index: usize) -> bool {
        let Batch { from, tasks, bytes, replies, specials, reply_ends, .. } = batch;
        let bytes: &[u8] = bytes;
        let Task { token, sequence, hash, kind } = &mut tasks[index];
        let (number, hash, origin) = (reply_ends.len(), *hash, Origin { shard: *from, token: *token });
        match *kind {
            TaskKind::Execute(request) => {
                let request = request.map(|span| &bytes[span.range()]);
                if !self.holds.is_empty() && self.holds.must_wait(origin, hash) {
                    if !self.holds.has_room() {
                        return false;
                    }
                    specials.push((number, Special::Later));
                    self.holds.wait(Waiting::request(origin, *sequence, hash, &request));
                    return true;
                }
                match self.executor.run(&request, hash, COPIED_BYTES_MAX, replies) {
                    Outcome::Done => {}
                    Outcome::Stream(reply) => {
                        let LongReply { head, tail, length, reader } = *reply;
                        replies.extend_from_slice(&head);
                        replies.extend_from_slice(&tail);
                        let stream = self.long_values.lend(*from, reader);
                        let start = StreamStart { head_bytes: head.len(), stream, length };
                        specials.push((number, Special::Stream(start)));
                    }
                    Outcome::More(slice) => {
                        specials.push((number, Special::FirstSlice));
                        self.slice_request(origin, *sequence, hash, &request, *slice);
                    }
                }
                self.apply_effects(None, &request.operation);
            }
            // It may have to wait for a key, and there may be a million of them in one command.
            TaskKind::Part { .. } if !self.holds.has_room() => return false,
            TaskKind::Part { key, call } => {
                let (call, key) = (call_at(bytes, call), &bytes[key.range()]);
                if self.part_waits(origin, *sequence, hash, key, &call) {
                    specials.push((number, Special::Later));
                    return true;
                }
                self.before_part(call.command);
                let (part, next) = self.executor.part(&call, key, hash, 0, replies);
                match next {
                    None => specials.push((number, Special::Part(part))),
                    Some(from) => {
                        // The other slices follow in batches of this shard, after this one: they do not hold it up.
                        specials.push((number, Special::Slice(part)));
                        self.slice_part(origin, *sequence, hash, &call, from);
                    }
                }
                self.apply_effects(None, &Operation::Call(call));
            }
            TaskKind::Deliver { answer, bytes: span } => {
                self.take_answer(*from, *token, *sequence, answer, &bytes[span.range()]);
            }
            TaskKind::Administer(administration) => {
                if !self.holds.is_empty() && self.holds.must_wait(origin, NO_KEY) {
                    specials.push((number, Special::Later));
                    self.holds.wait(Waiting::administer(origin, *sequence, administration));
                } else {
                    self.administer(administration);
                }
            }
            TaskKind::Publish => self.publish_all(),
            TaskKind::Clients { asked_by, args, count } => {
                let args = Args::new(&bytes[args.range()], count as usize);
                let part = self.clients_part(asked_by, args, replies);
                specials.push((number, Special::Part(part)));
            }
            TaskKind::Connections => {
                let part = self.connections_part(replies);
                specials.push((number, Special::Part(part)));
            }
            TaskKind::BeginUpload { request, value_bytes } => {
                let request: Request<&[u8]> = request.map(|span| &bytes[span.range()]);
                self.long_values.begin(&mut self.executor, origin, hash, &request, value_bytes);
            }
            TaskKind::Piece(span) => {
                let piece = &bytes[span.range()];
                let taken = self.long_values.append(&mut self.executor, origin, piece);
                *kind = TaskKind::Piece(span.behind(taken));
                return taken == piece.len();
            }
            TaskKind::FinishUpload { intact, after, count } => {
                let after = Args::new(&bytes[after.range()], count as usize);
                let Some(target) = self.long_values.complete(origin) else { return true };
                if self.holds.must_wait(origin, target.hash()) {
                    specials.push((number, Special::Later));
                    self.holds.wait(Waiting::finish(origin, *sequence, target, intact, after));
                } else {
                    self.executor.finish_upload(target, intact, after, replies);
                }
            }
            TaskKind::AbortUpload => self.long_values.abort(&mut self.executor, origin),
            TaskKind::ReadStream { stream } => self.long_values.read(&mut self.executor, *from, stream, replies),
            TaskKind::CloseStream { stream } => self.long_values.close(&mut self.executor, *from, stream),
        }
        true
    }

    /// Gives a batch's replies to the connections that wait for them.
    fn take_replies(&mut self, mut batch: Box<Batch<I::Socket>>) {
        let mut start = 0;
        let mut specials = batch.specials.iter().peekable();
        for (number, (task, &end)) in batch.tasks[batch.done..].iter().zip(&batch.reply_ends).enumerate() {
            let reply = &batch.replies[start..end];
            start = end;
            let special = specials.next_if(|(of, _)| *of == number).map(|(_, special)| *special);
            match (task.kind, special) {
                (kind, Some(Special::Part(part))) => {
                    let next_shard = self.router.next_of_scan(part);
                    self.take_part(task.token, task.sequence, part, reply, next_shard.is_some());
                    if let (Some(shard), TaskKind::Part { call, .. }) = (next_shard, kind) {
                        let call = call_at(&batch.bytes, call);
                        self.scan_on(task.token, task.sequence, task.hash, &call, part, shard);
                    }
                }
                (_, Some(special)) => self.take_answer(batch.to, task.token, task.sequence, special, reply),
                (TaskKind::Execute(_) | TaskKind::FinishUpload { .. }, None)
                | (TaskKind::Administer(_) | TaskKind::Publish, None) => {
                    if faults::has(Fault::LostReply) && task.sequence % 16 == 15 {
                        continue;
                    }
                    self.take_reply(task.token, task.sequence, reply);
                }
                (TaskKind::ReadStream { .. }, None) => self.take_piece(task.token, reply),
                // They have no replies of their own.
                (TaskKind::BeginUpload { .. } | TaskKind::Piece(_), None) => {}
                (TaskKind::AbortUpload | TaskKind::CloseStream { .. } | TaskKind::Deliver { .. }, None) => {}
                // Each of them has a part.
                (TaskKind::Part { .. } | TaskKind::Clients { .. } | TaskKind::Connections, None) => {
                    debug_assert!(false, "a part is missing");
                }
            }
        }
        batch.clear_replies();
        let to = batch.to;
        if batch.done < batch.tasks.len() {
            self.io.post(to, Message::Requests(batch));
            return;
        }
        if self.router.came_back(batch) {
            // At once, so that there is room for the connections that wait for it.
            self.send_batch(to);
        }
        self.connections.resume_mesh_waiters();
    }

    /// A whole reply has come for a connection of this shard.
    #[inline]
    pub(super) fn take_reply(&mut self, token: Token, sequence: u32, reply: &[u8]) {
        let Some(connection) = self.connections.get_answering(token) else { return };
        connection.on_reply(sequence, reply);
        if connection.wait() == Some(Wait::Output) {
            self.connections.may_resume(token.slot);
        }
        self.connections.touch(token.slot);
    }

    /// A reply turned out to be a long value: it is fetched piece by piece, when the replies before it are out.
    pub(super) fn take_stream(&mut self, token: Token, sequence: u32, owner: usize, start: &StreamStart, reply: &[u8]) {
        let now = self.instant;
        let connection = self.connections.get(token);
        if connection.is_some_and(|connection| connection.on_stream(sequence, owner, start, reply, now)) {
            self.connections.touch(token.slot);
        } else {
            self.router.close_stream(owner, start.stream, token);
        }
    }
}
