//! The mesh: executing siblings' batches, and taking the replies to ours.

use super::batch::{Batch, Message, REPLY_BYTES_MAX, Special, Task, TaskKind, is_executed};
use super::connection::{StreamStart, Wait};
use super::faults::{self, Fault};
use super::pending::PREFETCH;
use super::remote::Origin;
use super::{Io, Shard};
use crate::command::{Args, Call, Operation, Request, Span};
use crate::execute::{COPIED_BYTES_MAX, LongReply, Outcome};
use crate::mesh::OUTSTANDING_MAX;
use crate::metrics::Counter;

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
                if let Outcome::Stream(reply) = self.executor.run(&request, hash, COPIED_BYTES_MAX, replies) {
                    let LongReply { head, tail, length, reader } = *reply;
                    replies.extend_from_slice(&head);
                    replies.extend_from_slice(&tail);
                    let stream = self.long_values.lend(*from, reader);
                    let start = StreamStart { head_bytes: head.len(), stream, length };
                    specials.push((number, Special::Stream(start)));
                }
                self.apply_effects(None, &request.operation);
            }
            TaskKind::Part { key, call } => {
                let call = call_at(bytes, call);
                let (part, next) = self.executor.part(&call, &bytes[key.range()], hash, 0, replies);
                match next {
                    None => specials.push((number, Special::Part(part))),
                    Some(from) => {
                        // The other slices follow in batches of this shard, after this one: they do not hold it up.
                        specials.push((number, Special::Slice(part)));
                        self.slice(origin, *sequence, hash, &call, from);
                    }
                }
                self.apply_effects(None, &Operation::Call(call));
            }
            TaskKind::Deliver { part, bytes: span, more } => {
                self.take_part(*token, *sequence, part, &bytes[span.range()], more);
            }
            TaskKind::Administer(administration) => self.executor.administer(administration),
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
                self.long_values.finish(&mut self.executor, origin, intact, after, replies);
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
                (_, Some(Special::Slice(part))) => self.take_part(task.token, task.sequence, part, reply, true),
                (_, Some(Special::Stream(stream))) => self.take_stream(task, batch.to, &stream, reply),
                (TaskKind::Execute(_) | TaskKind::FinishUpload { .. }, None)
                | (TaskKind::Administer(_) | TaskKind::Publish, None) => {
                    if faults::has(Fault::LostReply) && task.sequence % 16 == 15 {
                        continue;
                    }
                    if let Some(connection) = self.connections.get_answering(task.token) {
                        connection.on_reply(task.sequence, reply);
                        let waits_for_output = connection.wait() == Some(Wait::Output);
                        self.replied(task, waits_for_output);
                    }
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

    /// A reply reached its connection.
    #[inline]
    fn replied(&mut self, task: &Task, waits_for_output: bool) {
        if waits_for_output {
            self.connections.may_resume(task.token.slot);
        }
        self.connections.touch(task.token.slot);
    }

    /// A reply turned out to be a long value: it is fetched piece by piece, when the replies before it are out.
    fn take_stream(&mut self, task: &Task, owner: usize, start: &StreamStart, reply: &[u8]) {
        let now = self.instant;
        let connection = self.connections.get(task.token);
        if connection.is_some_and(|connection| connection.on_stream(task.sequence, owner, start, reply, now)) {
            self.connections.touch(task.token.slot);
        } else {
            self.router.close_stream(owner, start.stream, task.token);
        }
    }
}

/// A call whose arguments lie in a batch.
fn call_at(bytes: &[u8], call: Call<Span>) -> Call<&[u8]> {
    let Call { command, count, args } = call;
    Call { command, count, args: &bytes[args.range()] }
}
