//! One client's connection: its state, and the table of all of a shard's.

mod client;
mod gather;
mod order;

use crate::protocol::State;
use crate::reactor::Token;
use crate::shard::incoming::Incoming;
use crate::shard::outgoing::Outgoing;
pub(super) use client::{Client, Moving, Replies};
pub(super) use gather::Gather;
use order::Order;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// A connection with this much output is not read from until most of it is sent.
const OUTPUT_BYTES_HIGH: usize = 256 << 10;
/// Then it is read from again. So much output is not held back for siblings either.
pub(super) const OUTPUT_BYTES_LOW: usize = 64 << 10;
/// What a reply that a sibling owes is taken for before any has come: 32 requests may be on their way.
const REPLY_BYTES_FIRST: usize = 8 << 10;
/// And at least, however short replies have been: 128 may be.
const REPLY_BYTES_LEAST: usize = 2 << 10;
/// Replies that may be in the making at once.
const REPLIES_MAX: usize = 4096;
/// Room that an input or output buffer keeps while it is empty.
pub(super) const BUFFER_BYTES_KEPT: usize = 16 << 10;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It does not.
    Open,
    /// The client has said so: nothing after that is read, and it closes once all replies are sent.
    Quitting,
    /// The node stops: nothing more is received, and it closes once what was is answered.
    Closing,
    /// It has been shut down; what still arrives is thrown away.
    ShutDown,
}

/// What a connection waits for before more of its input is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Its output to be taken, and its replies from siblings to come in.
    Output,
    /// Room in a batch to a sibling; it is in the shard's list of those.
    Mesh,
    /// The next turn: it has done in this one what it may. It is in the shard's list of those.
    Turn,
}

/// One client.
pub(super) struct Connection {
    socket: OwnedFd,
    /// Where in the protocol the next input byte is.
    pub(super) state: State,
    /// What is known of a client that speaks RESP.
    pub(super) client: Option<Box<Client>>,
    /// The reply that the keys of a command that is taken apart are added up in.
    pub(super) sum: Option<u32>,
    /// Input that could not be used yet.
    pub(super) partial: Vec<u8>,
    /// It makes no sense to look at `partial` again before it is so long.
    pub(super) needed: usize,
    /// Requests in the turn's pending list.
    pub(super) pending: u32,
    pub(super) order: Order,
    /// Replies that go out with the next send.
    pub(super) output: Vec<u8>,
    /// Bytes in the send in flight, from where on they have not gone out yet.
    pub(super) sending: Option<Sending>,
    pub(super) receiving: bool,
    pub(super) cancelling: bool,
    /// Why input is left in `partial` that could be used.
    pub(super) blocked: Option<Wait>,
    /// In the turn's list of connections that may go on.
    pub(super) resuming: bool,
    pub(super) ending: Ending,
    /// The peer has closed its direction.
    pub(super) ended: bool,
    /// The peer is gone: what is still to be answered, is for nobody.
    abandoned: bool,
    /// On its way to another shard.
    pub(super) leaving: Option<usize>,
    /// Belongs to this shard's own port and never moves.
    pub(super) pinned: bool,
    /// In the turn's list of connections to settle.
    pub(super) touched: bool,
    /// Since when output is held for the replies that siblings owe.
    pub(super) held_since: Option<Instant>,
    /// The long value that the client is sending.
    pub(super) incoming: Option<Box<Incoming>>,
    /// Long values that the client is to be sent, in the order of replies.
    pub(super) outgoing: VecDeque<Outgoing>,
    /// When the client last took some output.
    pub(super) progress: Instant,
    /// How long a reply that a sibling owes may be: the longest of late.
    reply_bytes_estimate: usize,
}

/// A send in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    pub(super) from: usize,
    pub(super) bytes: usize,
}

impl Connection {
    fn new(socket: OwnedFd, state: State, pinned: bool, now: Instant) -> Self {
        Self {
            socket,
            state,
            client: None,
            sum: None,
            partial: Vec::new(),
            needed: 0,
            pending: 0,
            order: Order::default(),
            output: Vec::new(),
            sending: None,
            receiving: false,
            cancelling: false,
            blocked: None,
            resuming: false,
            ending: Ending::Open,
            ended: false,
            abandoned: false,
            leaving: None,
            pinned,
            touched: false,
            held_since: None,
            incoming: None,
            outgoing: VecDeque::new(),
            progress: now,
            reply_bytes_estimate: REPLY_BYTES_FIRST,
        }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Replies that are ready, and those that siblings owe, in bytes.
    fn output_bytes(&self) -> usize {
        let sending = self.sending.map_or(0, |s| s.bytes - s.from);
        let owed = self.order.awaited_whole() * self.reply_bytes_estimate;
        self.output.len() + sending + self.order.held_bytes() + owed
    }

    /// True if no more requests should be executed for the moment.
    #[inline]
    pub(super) fn must_wait(&self) -> bool {
        !self.outgoing.is_empty() || self.output_bytes() >= OUTPUT_BYTES_HIGH || self.order.len() >= REPLIES_MAX
    }

    /// True if a connection that had to wait may go on. Whatever keeps it from that comes to an end: a send completes, or a
    /// sibling answers.
    pub(super) fn may_go_on(&self) -> bool {
        self.outgoing.is_empty() && self.output_bytes() <= OUTPUT_BYTES_LOW && self.order.len() <= REPLIES_MAX / 2
    }

    /// Writes output behind all that came before it.
    #[inline]
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.order.is_empty() {
            write(&mut self.output);
        } else {
            self.order.hold(write);
        }
    }

    /// Takes a sibling's reply.
    pub(super) fn take_reply(&mut self, sequence: u32, reply: &[u8]) {
        if self.abandoned {
            return;
        }
        let fading = self.reply_bytes_estimate - self.reply_bytes_estimate / 8;
        self.reply_bytes_estimate = fading.max(reply.len()).max(REPLY_BYTES_LEAST);
        self.order.fulfil(sequence, reply, &mut self.output);
    }

    /// Sets the input back to a request that cannot be executed yet: `rest` starts with it, in the given state.
    pub(super) fn block(&mut self, wait: Wait, rest: &[u8], state: State) {
        self.blocked = Some(wait);
        self.state = state;
        self.needed = 0;
        self.partial.clear();
        self.partial.extend_from_slice(rest);
        if self.ending == Ending::Quitting {
            // The quit comes after the request and will be parsed again.
            self.ending = Ending::Open;
        }
    }

    /// True if nothing is under way that belongs to this shard: the socket could be anybody's.
    pub(super) fn is_idle(&self) -> bool {
        self.is_answered()
            && self.partial.is_empty()
            && self.incoming.is_none()
            && self.state.is_at_start()
            && self.pending == 0
    }

    /// True if everything that was asked is answered and sent.
    pub(super) fn is_answered(&self) -> bool {
        self.blocked.is_none()
            && self.outgoing.is_empty()
            && self.order.is_empty()
            && self.output.is_empty()
            && self.sending.is_none()
    }

    /// Forgets all input and output: nobody is there to answer.
    pub(super) fn abandon(&mut self) {
        self.blocked = None;
        self.partial = Vec::new();
        self.output.clear();
        self.order.clear();
        self.ended = true;
        self.abandoned = true;
        self.ending = Ending::ShutDown;
    }

    /// True if nobody is there to answer.
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    /// True if what is asked should be executed and answered.
    pub(super) fn is_served(&self) -> bool {
        self.blocked.is_none() && !self.abandoned
    }

    /// True if input should be parsed.
    pub(super) fn is_read(&self) -> bool {
        self.ending == Ending::Open && !self.abandoned
    }

    /// The connection, for another shard.
    pub(super) fn into_moving(self) -> Moving {
        Moving { socket: self.socket, state: self.state, client: self.client }
    }
}

/// A shard's connections, by slot.
pub(super) struct Connections {
    slots: Vec<Slot>,
    free: Vec<u32>,
    open: usize,
}

struct Slot {
    generation: u32,
    connection: Option<Box<Connection>>,
}

impl Connections {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), open: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.open
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Slots ever used: every connection's slot is below.
    pub(super) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(super) fn insert(&mut self, moving: Moving, pinned: bool, now: Instant) -> Token {
        let Moving { socket, state, client } = moving;
        let slot = self.free.pop().unwrap_or_else(|| {
            assert!(self.slots.len() < Token::SLOTS_MAX as usize, "far more than --max-connections allows");
            self.slots.push(Slot { generation: 0, connection: None });
            self.slots.len() as u32 - 1
        });
        let mut connection = Box::new(Connection::new(socket, state, pinned, now));
        connection.client = client;
        self.slots[slot as usize].connection = Some(connection);
        self.open += 1;
        Token { slot, generation: self.slots[slot as usize].generation }
    }

    /// The connection that uses a slot now.
    #[inline]
    pub(super) fn at(&mut self, slot: u32) -> Option<&mut Connection> {
        self.slots.get_mut(slot as usize)?.connection.as_deref_mut()
    }

    /// The connection that a token was made for, if it is still there.
    #[inline]
    pub(super) fn get(&mut self, token: Token) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(token.slot as usize)?;
        if slot.generation == token.generation { slot.connection.as_deref_mut() } else { None }
    }

    pub(super) fn token(&self, slot: u32) -> Token {
        Token { slot, generation: self.slots[slot as usize].generation }
    }

    /// A token that no connection has: for requests whose replies nobody waits for.
    pub(super) fn nobody(&self) -> Token {
        Token { slot: Token::SLOTS_MAX - 1, generation: 0 }
    }

    /// Frees a slot; later completions with its token are nobody's.
    pub(super) fn remove(&mut self, slot: u32) -> Connection {
        let used = &mut self.slots[slot as usize];
        used.generation = used.generation.wrapping_add(1);
        self.free.push(slot);
        self.open -= 1;
        *used.connection.take().expect("the slot is in use")
    }
}

/// Output buffers that no connection uses at the moment: the last one back is the next one out, still in the cache.
pub(super) struct OutputPool {
    buffers: Vec<Vec<u8>>,
}

/// Buffers kept at most.
const POOLED_MAX: usize = 256;
/// Buffers that have grown beyond this are not kept.
const POOLED_BYTES_MAX: usize = 64 << 10;

impl OutputPool {
    pub(super) fn new() -> Self {
        Self { buffers: Vec::with_capacity(POOLED_MAX) }
    }

    /// Gives a connection's output room, if it has none.
    #[inline]
    pub(super) fn provide(&mut self, output: &mut Vec<u8>) {
        if output.capacity() == 0 {
            *output = self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES_KEPT));
        }
    }

    /// Takes a buffer back.
    #[inline]
    pub(super) fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.buffers.len() < POOLED_MAX && (1..=POOLED_BYTES_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}
