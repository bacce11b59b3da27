//! From pending requests to replies: executed here where this shard owns the key, sent to the owner otherwise.
//!
//! Requests of many connections are collected first, and the index lines that they need prefetched; then the items;
//! then they are executed. So the loads of a batch run beside each other instead of one after the other.

use super::Shard;
use super::connection::Wait;
use super::outgoing::{COPIED_BYTES_MAX, Outgoing, Source};
use crate::command::{Operation, Request, StatsTopic, UnixMs, ValueHead};
use crate::engine::{Engine, KeyHash, Next, Reader};
use crate::execute::{Outcome, execute};
use crate::metrics::{Counter, Counters};
use crate::protocol::memcached::{State, encode, encode_head, encode_tail};

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
    out: &mut Vec<u8>,
) -> Option<LongReply> {
    match execute(request, hash, engine, now, counters) {
        Outcome::Ready(reply) if !request.quiet => encode(&reply, out),
        Outcome::Ready(_) => {}
        Outcome::Long { head, length, reader } => return answer_long(&head, length, reader, engine, out),
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
            _ if usize::from(pending.owner) != self.id => self.send_away(pending),
            _ => {
                self.outputs.provide(&mut connection.output);
                let Self { engine, now, counters, .. } = self;
                let mut long = None;
                connection.write(|out| long = answer(&pending.request, pending.hash, engine, *now, counters, out));
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
    fn send_away(&mut self, pending: &Pending) {
        let owner = usize::from(pending.owner);
        let token = self.connections.token(pending.slot);
        let Some(connection) = self.connections.at(pending.slot) else { return };
        if self.routes[owner].filling.is_full() {
            connection.block(Wait::Mesh, pending.rest, pending.state);
            self.mesh_waiters.push(token);
            return;
        }
        let sequence = connection.order.await_reply();
        self.routes[owner].filling.push(token, sequence, pending.hash, &pending.request);
    }

    /// Sends a request to every other shard, quietly, and executes it here with the reply, which goes out when all of them
    /// are done.
    fn perform_everywhere(&mut self, pending: &Pending) {
        let token = self.connections.token(pending.slot);
        let Some(connection) = self.connections.at(pending.slot) else { return };
        let siblings = (0..self.routes.len()).filter(|&to| to != self.id);
        if siblings.clone().any(|to| self.routes[to].filling.is_full()) {
            connection.block(Wait::Mesh, pending.rest, pending.state);
            self.mesh_waiters.push(token);
            return;
        }
        let quietly = Request { quiet: true, ..pending.request };
        for to in siblings {
            let sequence = connection.order.await_reply();
            self.routes[to].filling.push(token, sequence, pending.hash, &quietly);
        }
        match pending.request.operation {
            Operation::SetEviction(eviction) => self.node.set_eviction(eviction),
            _ => self.counters.add(Counter::CmdFlush),
        }
        self.outputs.provide(&mut connection.output);
        let Self { engine, now, counters, .. } = self;
        connection.write(|out| {
            let long = answer(&pending.request, pending.hash, engine, *now, counters, out);
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
