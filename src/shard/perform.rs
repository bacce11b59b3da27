//! From pending requests to replies: executed here where this shard owns the key, sent to the owner otherwise.
//!
//! Requests of many connections are collected first, and the index lines that they need prefetched; then the items;
//! then they are executed. So the loads of a batch run beside each other instead of one after the other.

use super::Shard;
use super::connection::{Client, Gather, Wait};
use super::outgoing::{COPIED_BYTES_MAX, Outgoing, Source};
use super::tunables::{SlowCommand, Tunables};
use crate::command::{Args, Call, Command, Operation, Request, StatsTopic, UnixMs, ValueHead};
use crate::engine::{Engine, KeyHash, Next, Reader};
use crate::execute::resp::Streamed;
use crate::execute::{self, Outcome, execute};
use crate::metrics::{Counter, Counters};
use crate::protocol::State;
use crate::protocol::memcached::{LINE_END, encode, encode_head, encode_tail};
use crate::protocol::resp::{self, Writer};
use std::ops::Range;
use std::time::Instant;

/// Requests whose cache lines are loaded at the same time: more would push each other out of the first-level cache.
pub(super) const PREFETCH: usize = 64;

/// A request that was parsed and not yet executed. It borrows from the input that it was parsed from.
pub(super) struct Pending<'a> {
    /// Slot of the connection.
    pub(super) slot: u32,
    /// The shard that owns the key; this one, where there is none.
    pub(super) owner: u16,
    pub(super) hash: KeyHash,
    pub(super) request: Request<&'a [u8]>,
    /// The input from this request on, to go back to if it cannot be executed yet.
    pub(super) rest: &'a [u8],
    /// Where in the protocol that is.
    pub(super) state: State,
}

impl Pending<'_> {
    /// True for a key of a command that was taken apart, whose parts may be added up.
    fn is_part_of_sum(&self) -> bool {
        matches!(self.state, State::Resp(resp::State::Keys { .. }))
    }

    /// True for an element of an MGET, where it is a part of a sum: of nothing, as its client wants no reply. It may be long.
    fn is_unwanted_element(&self) -> bool {
        matches!(self.request.operation, Operation::Call(Call { command: Command::MGet, .. }))
    }
}

/// When a request begins, if it is one whose time is taken.
#[inline]
pub(super) fn begun_request(request: &Request<&[u8]>, tunables: &Tunables) -> Option<Instant> {
    let Operation::Call(call) = &request.operation else { return None };
    begun(call, tunables)
}

/// The same of a command of RESP.
#[inline]
pub(super) fn begun(call: &Call<&[u8]>, tunables: &Tunables) -> Option<Instant> {
    (call.command.row().may_be_slow() || tunables.times_all()).then(Instant::now)
}

/// What the log of slow commands keeps of one, without passwords. Whose it is, only the client's own shard knows.
pub(super) fn describe(client: Option<&Client>, call: &Call<&[u8]>, now: UnixMs) -> SlowCommand {
    let mut args = vec![call.command.name().as_bytes().to_vec()];
    let mut is_secret = false;
    for arg in Args::new(call.args, call.count as usize) {
        is_secret |= matches!(call.command, Command::Auth | Command::Hello);
        args.push(if is_secret { b"(redacted)".to_vec() } else { arg.to_vec() });
        is_secret = call.command == Command::Config && arg.eq_ignore_ascii_case(b"requirepass");
    }
    let (client_address, client_name) = match client {
        Some(client) => (client.address.clone(), client.name.clone()),
        None => Default::default(),
    };
    SlowCommand { id: 0, seconds: now / 1000, micros: 0, args, client_address, client_name }
}

/// An empty list with the storage of another: nothing is allocated when lists of different lifetimes take turns.
pub(super) fn recycle<'a>(mut list: Vec<Pending<'_>>) -> Vec<Pending<'a>> {
    list.clear();
    list.into_iter().map(|_| unreachable!("the list is empty")).collect()
}

/// A reply that is a long value.
pub(super) struct LongReply {
    /// What comes before the value, and after it.
    pub(super) head: Vec<u8>,
    pub(super) tail: Vec<u8>,
    pub(super) length: usize,
    pub(super) reader: Reader,
}

/// Executes a request on the engine and appends the reply, unless the client wants none. Of a value that is too long to be
/// copied at once, nothing is appended, and all returned that is needed to send it.
#[inline]
pub(super) fn answer(
    request: &Request<&[u8]>,
    hash: KeyHash,
    engine: &mut Engine,
    now: UnixMs,
    counters: &mut Counters,
    shards: usize,
    out: &mut Vec<u8>,
) -> Option<LongReply> {
    if let Operation::Call(call) = request.operation {
        return answer_call(&call, request, hash, engine, now, counters, shards, out);
    }
    match execute(request, hash, engine, now, counters) {
        Outcome::Ready(reply) if !request.noreply => encode(&reply, out),
        Outcome::Ready(_) => {}
        Outcome::Long { head, length, reader } => return answer_long(&head, length, reader, engine, out),
    }
    None
}

/// The same for a command of RESP.
#[allow(clippy::too_many_arguments)]
#[inline]
fn answer_call(
    call: &Call<&[u8]>,
    request: &Request<&[u8]>,
    hash: KeyHash,
    engine: &mut Engine,
    now: UnixMs,
    counters: &mut Counters,
    shards: usize,
    out: &mut Vec<u8>,
) -> Option<LongReply> {
    let start = out.len();
    counters.called(call.command);
    let streamed = execute::resp::call(call, request.key, hash, engine, now, counters, shards, out);
    if let Some(Streamed { length, mut reader }) = streamed {
        if length > COPIED_BYTES_MAX && !request.noreply {
            let head = out.split_off(start);
            return Some(LongReply { head, tail: LINE_END.to_vec(), length, reader });
        }
        while engine.unread(&reader) > 0 {
            out.extend_from_slice(engine.read(&mut reader, usize::MAX));
        }
        out.extend_from_slice(LINE_END);
        engine.close(reader);
    }
    if request.noreply {
        out.truncate(start);
    }
    None
}

fn answer_long(
    head: &ValueHead,
    length: usize,
    mut reader: Reader,
    engine: &mut Engine,
    out: &mut Vec<u8>,
) -> Option<LongReply> {
    if length > COPIED_BYTES_MAX {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        encode_head(head, length, &mut before);
        encode_tail(head, &mut after);
        return Some(LongReply { head: before, tail: after, length, reader });
    }
    encode_head(head, length, out);
    while engine.unread(&reader) > 0 {
        out.extend_from_slice(engine.read(&mut reader, usize::MAX));
    }
    encode_tail(head, out);
    engine.close(reader);
    None
}

impl Shard {
    /// Executes what is pending, in order, and empties the list.
    pub(super) fn perform(&mut self, pending: &mut Vec<Pending>) {
        for chunk in pending.chunks(PREFETCH) {
            for request in chunk {
                if usize::from(request.owner) == self.id {
                    self.engine.prefetch_item(request.hash);
                }
            }
            for request in chunk {
                self.perform_one(request);
            }
            self.work_on();
        }
        pending.clear();
    }

    /// Lets the engine go on with what it has to do by itself, where that is not done: in a long turn more than in a short one.
    pub(super) fn work_on(&mut self) {
        if self.next_work == Next::Now {
            self.next_work = self.engine.work(self.now);
        }
    }

    #[inline]
    fn perform_one(&mut self, pending: &Pending) {
        let Some(connection) = self.connections.at(pending.slot) else { return };
        connection.pending -= 1;
        if !connection.is_served() {
            return;
        }
        if connection.must_wait() {
            self.counters.add(Counter::ConnYields);
            connection.block(Wait::Output, pending.rest, pending.state);
            return;
        }
        match pending.request.operation {
            Operation::Stats(topic) => self.perform_stats(pending, topic),
            Operation::FlushAll { .. } | Operation::SetEviction(_) => self.perform_everywhere(pending),
            Operation::Local { args, count } => self.perform_local(pending, Args::new(args, count as usize)),
            Operation::Split { command, keys, resp3 } => self.perform_split(pending.slot, command, keys, resp3),
            _ if usize::from(pending.owner) != self.id => self.send_away(pending),
            Operation::Call(call) => self.perform_call(pending, &call),
            _ => {
                self.outputs.provide(&mut connection.output);
                let shards = self.routes.len();
                let Self { engine, now, counters, .. } = self;
                let mut long = None;
                connection
                    .write(|out| long = answer(&pending.request, pending.hash, engine, *now, counters, shards, out));
                if let Some(LongReply { head, tail, length, reader }) = long {
                    connection.progress = self.instant;
                    connection.outgoing.push_back(Outgoing {
                        source: Source::Here(reader),
                        head,
                        tail,
                        left: length,
                        until: None,
                    });
                }
            }
        }
    }

    /// Sends a request to the shard that owns its key.
    pub(super) fn send_away(&mut self, pending: &Pending) {
        let owner = usize::from(pending.owner);
        if !self.has_room(owner..owner + 1, pending) {
            return;
        }
        let token = self.connections.token(pending.slot);
        let Some(connection) = self.connections.at(pending.slot) else { return };
        let mut request = pending.request;
        let sequence = match connection.sum.filter(|_| pending.is_part_of_sum()) {
            Some(sequence) => {
                request.noreply |= pending.is_unwanted_element();
                sequence
            }
            None => {
                request.noreply |= connection.client.as_mut().is_some_and(|client| client.take_noreply());
                connection.order.await_reply()
            }
        };
        self.routes[owner].filling.push(token, sequence, pending.hash, &request);
    }

    /// True if the batches to all of these shards, this one left out, have room for a request. If not, it waits for that.
    pub(super) fn has_room(&mut self, mut shards: Range<usize>, pending: &Pending) -> bool {
        if !shards.any(|to| to != self.id && self.routes[to].filling.is_full()) {
            return true;
        }
        let token = self.connections.token(pending.slot);
        if let Some(connection) = self.connections.at(pending.slot) {
            connection.block(Wait::Mesh, pending.rest, pending.state);
            self.mesh_waiters.push(token);
        }
        false
    }

    /// Executes a command of RESP whose key is here.
    #[inline]
    pub(super) fn perform_call(&mut self, pending: &Pending, call: &Call<&[u8]>) {
        let shards = self.routes.len();
        let Self { connections, outputs, engine, now, counters, node, part, .. } = self;
        let Some(connection) = connections.at(pending.slot) else { return };
        outputs.provide(&mut connection.output);
        let mut request = pending.request;
        let begun = begun(call, &node.tunables);
        let mut long = None;
        if let Some(sequence) = connection.sum.filter(|_| pending.is_part_of_sum()) {
            request.noreply |= pending.is_unwanted_element();
            part.clear();
            let none = answer(&request, pending.hash, engine, *now, counters, shards, part);
            assert!(none.is_none(), "a number is short");
            connection.take_reply(sequence, part);
        } else {
            request.noreply |= connection.client.as_mut().is_some_and(|client| client.take_noreply());
            connection.write(|out| long = answer(&request, pending.hash, engine, *now, counters, shards, out));
        }
        if let Some(begun) = begun {
            let client = connection.client.as_deref();
            node.tunables.took(begun.elapsed().as_micros() as u64, *now, || describe(client, call, *now));
        }
        if let Some(LongReply { head, tail, length, reader }) = long {
            connection.progress = self.instant;
            let source = Source::Here(reader);
            connection.outgoing.push_back(Outgoing { source, head, tail, left: length, until: None });
        }
    }

    /// The head of a command that is taken apart: the keys follow.
    fn perform_split(&mut self, slot: u32, command: Command, keys: u32, resp3: bool) {
        let Some(connection) = self.connections.at(slot) else { return };
        let noreply = connection.client.as_mut().is_some_and(|client| client.take_noreply());
        self.outputs.provide(&mut connection.output);
        connection.sum = None;
        if command == Command::MGet && !noreply {
            connection.write(|out| Writer::new(out, resp3).array(keys as usize));
            return;
        }
        // A client that wants no reply to an MGET is not to have its elements either.
        let gather = if command == Command::MGet { Gather::nothing(keys) } else { Gather::sum(keys).noreply(noreply) };
        connection.sum = Some(connection.order.await_parts(gather));
    }

    /// Sends a request to every other shard, quietly, and executes it here with the reply, which goes out when all of them
    /// are done.
    fn perform_everywhere(&mut self, pending: &Pending) {
        let shards = self.routes.len();
        if !self.has_room(0..shards, pending) {
            return;
        }
        let token = self.connections.token(pending.slot);
        let Some(connection) = self.connections.at(pending.slot) else { return };
        let without_reply = Request { noreply: true, ..pending.request };
        for to in (0..shards).filter(|&to| to != self.id) {
            let sequence = connection.order.await_reply();
            self.routes[to].filling.push(token, sequence, pending.hash, &without_reply);
        }
        match pending.request.operation {
            Operation::SetEviction(eviction) => self.node.set_eviction(eviction),
            _ => self.counters.add(Counter::CmdFlush),
        }
        self.outputs.provide(&mut connection.output);
        let Self { engine, now, counters, .. } = self;
        connection.write(|out| {
            let long = answer(&pending.request, pending.hash, engine, *now, counters, shards, out);
            assert!(long.is_none(), "a request for all shards has no value");
        });
    }

    /// Statistics count all that this connection asked before, so they wait until siblings have answered it.
    fn perform_stats(&mut self, pending: &Pending, topic: StatsTopic) {
        let Some(connection) = self.connections.at(pending.slot) else { return };
        if !connection.order.is_empty() {
            connection.block(Wait::Output, pending.rest, pending.state);
            return;
        }
        self.publish();
        let text = self.node.statistics(topic);
        let Some(connection) = self.connections.at(pending.slot) else { return };
        self.outputs.provide(&mut connection.output);
        connection.write(|out| out.extend_from_slice(text.as_bytes()));
    }
}
