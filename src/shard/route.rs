//! The mesh from one shard's side: per sibling, a batch that is being filled and at most one that is under way.

use super::Shard;
use super::batch::{Batch, Entry, Message, REPLY_BYTES_MAX, Task};
use super::connection::Wait;
use super::outgoing::StreamStart;
use super::perform::{LongReply, PREFETCH, answer, begun_request, describe};
use crate::command::{Args, Operation};
use crate::mesh::OUTSTANDING_MAX;
use crate::metrics::Counter;

/// The way to one sibling.
pub(super) struct Route {
    pub(super) filling: Box<Batch>,
    /// The other batch, while it is not under way.
    spare: Option<Box<Batch>>,
}

impl Route {
    pub(super) fn new(from: usize, to: usize) -> Self {
        let batch = || Box::new(Batch { from, to, ..Batch::default() });
        Self { filling: batch(), spare: Some(batch()) }
    }

    /// The batch to send now, if there is something to send and nothing under way.
    fn take(&mut self) -> Option<Box<Batch>> {
        if self.filling.is_empty() {
            return None;
        }
        let spare = self.spare.take()?;
        Some(std::mem::replace(&mut self.filling, spare))
    }
}

impl Shard {
    /// Executes what siblings ask and takes their answers.
    pub(super) fn drain_mesh(&mut self) {
        // What was there when the turn began, and no more: siblings that keep sending must not keep clients waiting.
        for _ in 0..OUTSTANDING_MAX * self.routes.len() {
            let Some(message) = self.mesh.receive() else { return };
            self.read_clock();
            match message {
                Message::Requests(batch) => self.serve(batch),
                Message::Replies(batch) => self.take_replies(batch),
            }
        }
    }

    /// Sends each sibling what this turn has for it.
    pub(super) fn send_batches(&mut self) {
        for to in 0..self.routes.len() {
            self.send_batch(to);
        }
    }

    fn send_batch(&mut self, to: usize) {
        if let Some(batch) = self.routes[to].take() {
            self.counters.add(Counter::MeshBatches);
            self.counters.add_n(Counter::MeshRequests, batch.entries.len() as u64);
            self.post(to, Message::Requests(batch));
        }
    }

    fn post(&mut self, to: usize, message: Message) {
        self.posted = true;
        if self.mesh.send(to, message) {
            self.to_ring.push(to);
        }
    }

    /// Wakes the siblings that sleep and have got something in this turn. Last of all that the turn submits: a sibling on
    /// the same core may run at once.
    pub(super) fn ring_sleepers(&mut self) {
        for to in self.to_ring.drain(..) {
            self.reactor.ring(to as u32, self.node.doorbell(to));
        }
    }

    /// Executes a sibling's batch, as much of it as the bounds on replies and on the work for a long value allow, and sends it
    /// back.
    fn serve(&mut self, mut batch: Box<Batch>) {
        for moving in batch.moving.drain(..) {
            self.open(moving, false);
        }
        let Batch { from, entries, bytes, done, replies, reply_ends, streams, .. } = &mut *batch;
        let bytes: &[u8] = bytes;
        let shards = self.routes.len();
        'serving: for chunk in entries[*done..].chunks_mut(PREFETCH) {
            for entry in chunk.iter().filter(|entry| matches!(entry.task, Task::Request(_))) {
                self.engine.prefetch_index(entry.hash);
            }
            for entry in chunk.iter().filter(|entry| matches!(entry.task, Task::Request(_))) {
                self.engine.prefetch_item(entry.hash);
            }
            for entry in chunk {
                if let Task::Request(request) = &entry.task {
                    let request = request.map(|span| &bytes[span.range()]);
                    if let Operation::Clients { args, count } = request.operation {
                        self.answer_clients(Args::new(args, count as usize), replies);
                        reply_ends.push(replies.len());
                        continue;
                    }
                    let Self { engine, now, counters, node, .. } = self;
                    let begun = begun_request(&request, &node.tunables);
                    let long = answer(&request, entry.hash, engine, *now, counters, shards, replies);
                    if let (Some(begun), Operation::Call(call)) = (begun, request.operation) {
                        let micros = begun.elapsed().as_micros() as u64;
                        node.tunables.took(micros, *now, || describe(None, &call, *now));
                    }
                    if let Some(long) = long {
                        let start = self.start_stream(*from, reply_ends.len(), long, replies);
                        streams.push(start);
                    }
                } else if !self.serve_long(*from, entry, bytes, replies) {
                    break 'serving;
                }
                reply_ends.push(replies.len());
                if replies.len() >= REPLY_BYTES_MAX {
                    break 'serving;
                }
            }
            self.work_on();
        }
        let to = batch.from;
        self.publish();
        self.post(to, Message::Replies(batch));
    }

    /// A reply that is a long value: its client's shard will ask for the pieces.
    fn start_stream(&mut self, to: usize, reply: usize, long: LongReply, replies: &mut Vec<u8>) -> StreamStart {
        let LongReply { head, tail, length, reader } = long;
        replies.extend_from_slice(&head);
        replies.extend_from_slice(&tail);
        StreamStart { reply, head_bytes: head.len(), stream: self.lend(to, reader), length }
    }

    /// Does a task on a long value. False if only a part of it could be done for now; the rest is what the entry says then.
    fn serve_long(&mut self, from: usize, entry: &mut Entry, bytes: &[u8], replies: &mut Vec<u8>) -> bool {
        match entry.task {
            Task::Request(_) => unreachable!("requests are served by the engine"),
            Task::BeginUpload { request, value_bytes } => {
                let request = request.map(|span| &bytes[span.range()]);
                self.begin_receiving(from, entry.token, entry.hash, &request, value_bytes);
            }
            Task::Piece(span) => {
                let piece = &bytes[span.range()];
                let taken = self.receive_piece(from, entry.token, piece);
                entry.task = Task::Piece(span.behind(taken));
                return taken == piece.len();
            }
            Task::FinishUpload { intact, tail, args } => {
                let tail = Args::new(&bytes[tail.range()], args as usize);
                self.finish_receiving(from, entry.token, intact, tail, replies);
            }
            Task::AbortUpload => self.abort_receiving(from, entry.token),
            Task::ReadOn { stream } => self.read_on(from, stream, replies),
            Task::CloseStream { stream } => self.stop_lending(from, stream),
        }
        true
    }

    /// Gives a batch's replies to the connections that wait for them.
    fn take_replies(&mut self, mut batch: Box<Batch>) {
        let mut start = 0;
        let mut streams = batch.streams.iter().peekable();
        for (number, (entry, &end)) in batch.entries[batch.done..].iter().zip(&batch.reply_ends).enumerate() {
            let reply = &batch.replies[start..end];
            match entry.task {
                Task::Request(_) | Task::FinishUpload { .. } => match streams.next_if(|s| s.reply == number) {
                    Some(stream) => self.begin_outgoing(entry.token, entry.sequence, batch.to, stream, reply),
                    None => self.take_reply(entry, reply),
                },
                Task::ReadOn { .. } => self.take_piece(entry.token, reply),
                Task::BeginUpload { .. } | Task::Piece(_) | Task::AbortUpload | Task::CloseStream { .. } => {}
            }
            start = end;
        }
        batch.done += batch.reply_ends.len();
        batch.replies.clear();
        batch.reply_ends.clear();
        batch.streams.clear();
        let to = batch.to;
        if batch.done < batch.entries.len() {
            self.post(to, Message::Requests(batch));
            return;
        }
        batch.clear();
        self.routes[to].spare = Some(batch);
        if self.routes[to].filling.is_full() {
            // Now, so that there is room for those who wait for it.
            self.send_batch(to);
        }
        self.resume_mesh_waiters();
    }

    /// Lets those go on that wait for room in a batch: each round another one first.
    fn resume_mesh_waiters(&mut self) {
        let Self { mesh_waiters, connections, resumable, .. } = self;
        if !mesh_waiters.is_empty() {
            mesh_waiters.rotate_left(1);
        }
        for token in mesh_waiters.drain(..) {
            if let Some(connection) = connections.get(token).filter(|c| c.blocked == Some(Wait::Mesh) && !c.resuming) {
                connection.resuming = true;
                resumable.push_back(token.slot);
            }
        }
    }

    fn take_reply(&mut self, entry: &Entry, reply: &[u8]) {
        let Some(connection) = self.connections.get(entry.token) else { return };
        self.outputs.provide(&mut connection.output);
        connection.take_reply(entry.sequence, reply);
        if connection.blocked == Some(Wait::Output) {
            self.may_resume(entry.token.slot);
        }
        self.touch(entry.token.slot);
    }
}
