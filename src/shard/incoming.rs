//! Long values that are arriving, each written piece by piece where it will stay.
//!
//! The owner of the key has an upload for it (`Engine::begin`), and the connection sends it the value's pieces: straight to
//! the engine, or to a sibling in batches, whose bound is the sender's credit: while a batch is full, the connection
//! waits and its bytes stay in the socket. Nobody ever holds a second copy of more than that. A client that does not finish
//! in time is disconnected, and the memory comes back.

use super::Shard;
use super::batch::Task;
use super::connection::{Ending, Wait};
use crate::command::{Args, Call, Command, Failure, Operation, Reply, Request};
use crate::engine::{Attributes, KEY_BYTES_MAX, KeyHash, PutError, Upload};
use crate::execute::{self, finish_upload, refuse_upload};
use crate::metrics::Counter;
use crate::protocol::memcached::{LINE_END, encode};
use crate::protocol::resp::{Limits, Parsed, UPLOAD_KEY_BYTES_MAX, Writer, parse_rest};
use crate::reactor::Token;
use std::time::{Duration, Instant};

/// A client has this long for its value, and a second more for each `BYTES_PER_SECOND_MIN`.
const PATIENCE: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND_MIN: usize = 64 << 10;

/// Bytes that travel to a sibling as one piece.
const PIECE_BYTES_MAX: usize = 16 << 10;

const _: () = assert!(UPLOAD_KEY_BYTES_MAX <= KEY_BYTES_MAX, "an upload's key can be stored");

/// A long value on its way in, from the connection's side.
pub(super) struct Incoming {
    /// The sibling that owns the key; none if that is this shard.
    owner: Option<usize>,
    /// Bytes of the value that are still to come.
    left: usize,
    /// Bytes of the line end that have come, and whether they were right.
    line_end: usize,
    intact: bool,
    /// Arguments of RESP that come after the value, and what has come of them.
    args: usize,
    tail: Vec<u8>,
    /// When it has to be complete.
    pub(super) until: Instant,
}

/// A long value on its way in, from the side of the key's owner.
pub(super) struct Receiving {
    /// The shard whose client sends it, and that client.
    from: usize,
    token: Token,
    hash: KeyHash,
    key: Box<[u8]>,
    command: Uploaded,
    noreply: bool,
    upload: Result<Upload, PutError>,
}

/// The command that a value belongs to.
enum Uploaded {
    /// Of memcached's, without the value.
    Store(Operation<&'static [u8]>),
    /// Of RESP, with the arguments before the value.
    Call { command: Command, resp3: bool, args: Box<[u8]>, count: u32 },
}

impl Shard {
    /// Begins to take a long value that a connection announces.
    pub(super) fn begin_incoming(&mut self, slot: u32, request: &Request<&[u8]>, value_bytes: usize) {
        let hash = self.node.hasher.hash(request.key);
        self.begin_incoming_for(slot, hash, request, value_bytes, 0);
    }

    /// The same for a command of RESP, up to its value; so many arguments come after that.
    pub(super) fn begin_upload(&mut self, slot: u32, args: Args, value_bytes: usize, after: usize, database: u8) {
        let Some((name, before)) = args.split_first() else { return };
        let (Some(command), Some(key)) = (Command::find(name), before.iter().next()) else { return };
        let resp3 = self.connections.at(slot).and_then(|c| c.client.as_ref()).is_some_and(|client| client.resp3);
        let call = Call { command, resp3, count: before.len() as u32, args: before.bytes() };
        let mut hash = self.node.hasher.hash(key);
        if database != 0 {
            hash = hash.in_database(database);
        }
        let request = Request { key, operation: Operation::Call(call), noreply: false };
        self.begin_incoming_for(slot, hash, &request, value_bytes, after);
    }

    fn begin_incoming_for(
        &mut self,
        slot: u32,
        hash: KeyHash,
        request: &Request<&[u8]>,
        value_bytes: usize,
        args: usize,
    ) {
        let token = self.connections.token(slot);
        let request = &Request { noreply: request.noreply || self.take_noreply(slot), ..*request };
        let owner = usize::from(self.node.slots.owner(request.key));
        let owner = (owner != self.id).then_some(owner);
        match owner {
            None => self.begin_receiving(self.id, token, hash, request, value_bytes),
            Some(owner) => self.routes[owner].filling.push_begin(token, hash, request, value_bytes),
        }
        let until = self.instant + PATIENCE + Duration::from_secs((value_bytes / BYTES_PER_SECOND_MIN) as u64);
        if let Some(connection) = self.connections.at(slot) {
            connection.incoming = Some(Box::new(Incoming {
                owner,
                left: value_bytes,
                line_end: 0,
                intact: true,
                args,
                tail: Vec::new(),
                until,
            }));
        }
    }

    /// Takes what a connection has received of its long value; returns how much that was: all of it, if the connection has
    /// to wait.
    pub(super) fn take_incoming(&mut self, slot: u32, input: &[u8]) -> usize {
        let token = self.connections.token(slot);
        let mut at = 0;
        loop {
            let Some(connection) = self.connections.at(slot) else { return input.len() };
            let Some(incoming) = connection.incoming.as_deref_mut() else { return at };
            let rest = &input[at..];
            if incoming.left == 0 {
                let count = rest.len().min(LINE_END.len() - incoming.line_end);
                incoming.intact &= rest[..count] == LINE_END[incoming.line_end..incoming.line_end + count];
                incoming.line_end += count;
                at += count;
                if incoming.line_end < LINE_END.len() {
                    return at;
                }
                return at + self.take_tail(slot, &input[at..]);
            }
            if rest.is_empty() {
                return at;
            }
            match incoming.owner {
                None => {
                    let count = rest.len().min(incoming.left);
                    let taken = self.receive_piece(self.id, token, &rest[..count]);
                    at += taken;
                    let Some(connection) = self.connections.at(slot) else { return input.len() };
                    if let Some(incoming) = connection.incoming.as_deref_mut() {
                        incoming.left -= taken;
                    }
                    if taken < count {
                        let state = connection.state;
                        connection.block(Wait::Turn, &input[at..], state);
                        self.turn_waiters.push(token);
                        return input.len();
                    }
                }
                Some(owner) if self.routes[owner].filling.is_full() => {
                    let state = connection.state;
                    connection.block(Wait::Mesh, rest, state);
                    self.mesh_waiters.push(token);
                    return input.len();
                }
                Some(owner) => {
                    let count = rest.len().min(incoming.left).min(PIECE_BYTES_MAX);
                    incoming.left -= count;
                    self.routes[owner].filling.push_piece(token, &rest[..count]);
                    at += count;
                }
            }
        }
    }

    /// Takes the arguments that come after a value; returns how many bytes that was. With the last, the value is complete.
    fn take_tail(&mut self, slot: u32, rest: &[u8]) -> usize {
        let limits = Limits::authenticated(self.node.config.resp_item_bytes as usize);
        let Some(connection) = self.connections.at(slot) else { return rest.len() };
        let Some(incoming) = connection.incoming.as_deref_mut() else { return 0 };
        if incoming.args == 0 {
            self.finish_incoming(slot);
            return 0;
        }
        incoming.tail.extend_from_slice(rest);
        match parse_rest(&incoming.tail, incoming.args, &limits) {
            Parsed::Command { length, .. } => {
                let beyond = incoming.tail.len() - length;
                incoming.tail.truncate(length);
                self.finish_incoming(slot);
                rest.len() - beyond
            }
            Parsed::Broken(error) => {
                self.drop_incoming(slot);
                if let Some(connection) = self.connections.at(slot) {
                    self.outputs.provide(&mut connection.output);
                    connection.write(|out| error.write(&mut Writer::new(out, false)));
                    connection.ending = Ending::Quitting;
                }
                rest.len()
            }
            _ => rest.len(),
        }
    }

    /// True if the client wants no reply to the command that it has sent.
    fn take_noreply(&mut self, slot: u32) -> bool {
        let client = self.connections.at(slot).and_then(|connection| connection.client.as_mut());
        client.is_some_and(|client| client.take_noreply())
    }

    /// The value is complete.
    fn finish_incoming(&mut self, slot: u32) {
        let token = self.connections.token(slot);
        let Some(connection) = self.connections.at(slot) else { return };
        let Some(incoming) = connection.incoming.take() else { return };
        match incoming.owner {
            Some(owner) => {
                let sequence = connection.order.await_reply();
                let tail = (&incoming.tail[..], incoming.args);
                self.routes[owner].filling.push_finish(token, sequence, incoming.intact, tail);
            }
            None => {
                self.outputs.provide(&mut connection.output);
                let mut reply = Vec::new();
                let tail = Args::new(&incoming.tail, incoming.args);
                self.finish_receiving(self.id, token, incoming.intact, tail, &mut reply);
                if let Some(connection) = self.connections.at(slot) {
                    connection.write(|out| out.extend_from_slice(&reply));
                }
            }
        }
    }

    /// Gives up the long value that a connection was sending, if it was.
    pub(super) fn drop_incoming(&mut self, slot: u32) {
        let token = self.connections.token(slot);
        let Some(connection) = self.connections.at(slot) else { return };
        let Some(incoming) = connection.incoming.take() else { return };
        // What is kept of its input belongs to the value: read on, it would be taken for commands.
        connection.partial = Vec::new();
        connection.blocked = None;
        match incoming.owner {
            Some(owner) => self.routes[owner].filling.push_task(token, Task::AbortUpload),
            None => self.abort_receiving(self.id, token),
        }
    }

    /// The owner's side: a value will come.
    pub(super) fn begin_receiving(
        &mut self,
        from: usize,
        token: Token,
        hash: KeyHash,
        request: &Request<&[u8]>,
        value_bytes: usize,
    ) {
        let attributes = match request.operation {
            Operation::Store { flags, expiry, .. } => Attributes { flags, expires: expiry.resolve(self.now) },
            _ => Attributes::default(),
        };
        let upload = self.engine.begin(request.key, value_bytes, attributes, self.now);
        let command = match request.operation {
            Operation::Call(Call { command, resp3, args, count }) => {
                Uploaded::Call { command, resp3, args: args.into(), count }
            }
            _ => Uploaded::Store(request.map(|_| &[][..]).operation),
        };
        let (key, noreply) = (request.key.into(), request.noreply);
        self.receiving.push(Receiving { from, token, hash, key, command, noreply, upload });
    }

    fn receiving(&self, from: usize, token: Token) -> Option<usize> {
        self.receiving.iter().position(|r| r.from == from && r.token == token)
    }

    /// The owner's side: a piece of a value. Returns how many bytes of it were taken: where these are not all, the rest is to
    /// come again in the next turn. A piece that there is no memory for is dropped, and the value with it.
    pub(super) fn receive_piece(&mut self, from: usize, token: Token, bytes: &[u8]) -> usize {
        let Some(number) = self.receiving(from, token) else { return bytes.len() };
        let Self { engine, receiving, now, .. } = self;
        let upload = &mut receiving[number].upload;
        let Ok(begun) = upload else { return bytes.len() };
        match engine.append(begun, bytes, *now) {
            Ok(taken) => taken,
            Err(error) => {
                if let Ok(begun) = std::mem::replace(upload, Err(error)) {
                    engine.abort(begun);
                }
                bytes.len()
            }
        }
    }

    /// The owner's side: the value is complete, and is stored, if its line end was right. Appends the reply.
    pub(super) fn finish_receiving(&mut self, from: usize, token: Token, intact: bool, tail: Args, out: &mut Vec<u8>) {
        let Some(number) = self.receiving(from, token) else { return };
        let Receiving { hash, key, command, noreply, upload, .. } = self.receiving.swap_remove(number);
        let Self { engine, now, counters, .. } = self;
        let operation = match command {
            Uploaded::Store(operation) => operation,
            Uploaded::Call { command, resp3, args, count } => {
                let start = out.len();
                counters.called(command);
                let call = Call { command, resp3, count, args: &args[..] };
                execute::resp::finish_upload(&call, &key, hash, upload, tail, engine, *now, counters, out);
                if noreply {
                    out.truncate(start);
                }
                return;
            }
        };
        let request = Request { key: &key[..], operation, noreply };
        let reply = match upload {
            Ok(upload) if intact => finish_upload(&request, hash, upload, engine, *now, counters),
            Ok(upload) => {
                engine.abort(upload);
                counters.add(Counter::InvalidCommands);
                Reply::Failed(Failure::BadDataChunk)
            }
            Err(error) => refuse_upload(&request, hash, error, engine, *now, counters),
        };
        if !noreply {
            encode(&reply, out);
        }
    }

    /// The owner's side: the value will not come.
    pub(super) fn abort_receiving(&mut self, from: usize, token: Token) {
        if let Some(number) = self.receiving(from, token)
            && let Ok(upload) = self.receiving.swap_remove(number).upload
        {
            self.engine.abort(upload);
        }
    }
}
