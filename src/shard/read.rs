//! From bytes received to pending requests.
//!
//! Input is parsed where it was received. What cannot be used yet, the start of a command, is copied to the connection,
//! and the rest of it added as it comes. At most one input of a connection is in the pending list at a time, so that a
//! request that cannot be executed can always be set back to (`Connection::block`).

use super::Shard;
use super::connection::{BUFFER_BYTES_KEPT, Ending, Wait};
use super::perform::{PREFETCH, Pending, recycle};
use crate::command::Operation;
use crate::engine::KeyHash;
use crate::metrics::Counter;
use crate::protocol::memcached::{LINE_BYTES_MAX, Parsed, State as Memcached, parse};
use crate::protocol::{State, resp};
use crate::reactor::{Errno, Token};

/// Pending requests at which a command is not waited for to be whole: more than a line of `LINE_BYTES_MAX` can have keys.
pub(super) const PENDING_MAX: usize = PREFETCH + LINE_BYTES_MAX / 2;

/// A connection that has to wait goes on receiving until it has this much input; then comes only what the kernel had
/// received before the receive ended.
const WAITING_BYTES_MAX: usize = 16 << 10;

impl Shard {
    /// Takes bytes that arrived on a connection.
    pub(super) fn received<'a>(&mut self, token: Token, bytes: &'a [u8], armed: bool, pending: &mut Vec<Pending<'a>>) {
        self.counters.add_n(Counter::BytesRead, bytes.len() as u64);
        let Some(connection) = self.connections.get(token) else { return };
        connection.receiving = armed;
        connection.cancelling &= armed;
        let in_the_list = connection.pending > 0;
        let is_read = connection.is_read();
        self.touch(token.slot);
        if !is_read {
            return;
        }
        if in_the_list {
            self.perform(pending);
        }
        let Some(connection) = self.connections.get(token) else { return };
        if connection.blocked.is_none() && connection.partial.is_empty() {
            let used = self.read(token.slot, bytes, pending);
            self.keep(token.slot, &bytes[used..]);
            return;
        }
        if connection.blocked.is_some() {
            connection.partial.reserve_exact(bytes.len());
        }
        connection.partial.extend_from_slice(bytes);
        if connection.blocked.is_some() {
            if connection.partial.len() > WAITING_BYTES_MAX {
                self.stop_receiving(token.slot);
            }
        } else if connection.partial.len() >= connection.needed {
            self.read_partial(token.slot);
        }
    }

    /// Keeps input that cannot be used yet.
    fn keep(&mut self, slot: u32, left: &[u8]) {
        if left.is_empty() {
            return;
        }
        let Some(connection) = self.connections.at(slot) else { return };
        connection.partial.extend_from_slice(left);
    }

    /// The peer closed its direction, or the receive failed, was cancelled or ran out of buffers.
    pub(super) fn receive_ended(&mut self, token: Token, errno: Option<Errno>) {
        let Some(connection) = self.connections.get(token) else { return };
        connection.receiving = false;
        connection.cancelling = false;
        match errno {
            Some(Errno::NO_BUFFERS) => self.short_of_buffers = true,
            Some(Errno::CANCELLED) => {}
            None => connection.ended = true,
            Some(_) => self.abandon(token.slot),
        }
        self.touch(token.slot);
    }

    /// Puts a connection into the list of those that may go on.
    pub(super) fn may_resume(&mut self, slot: u32) {
        if let Some(connection) = self.connections.at(slot)
            && !connection.resuming
        {
            connection.resuming = true;
            self.resumable.push_back(slot);
        }
    }

    /// Lets a connection go on that had to wait, if what it waited for is there.
    pub(super) fn try_resume(&mut self, slot: u32) {
        let Some(connection) = self.connections.at(slot) else { return };
        connection.resuming = false;
        if connection.blocked.is_none() {
            return;
        }
        if !connection.may_go_on() {
            // Whatever it was in line for, it is no more: now its output comes first.
            connection.blocked = Some(Wait::Output);
            return;
        }
        connection.blocked = None;
        let enough = connection.partial.len() >= connection.needed;
        self.touch(slot);
        if enough {
            self.read_partial(slot);
        }
    }

    /// Parses and executes the input that a connection has kept.
    fn read_partial(&mut self, slot: u32) {
        let Some(connection) = self.connections.at(slot) else { return };
        let mut input = std::mem::take(&mut connection.partial);
        let mut pending = recycle(std::mem::take(&mut self.pending_partial));
        let used = self.read(slot, &input, &mut pending);
        self.perform(&mut pending);
        self.pending_partial = recycle(pending);

        let Some(connection) = self.connections.at(slot) else { return };
        if connection.is_served() {
            input.drain(..used);
            input.shrink_to(connection.needed.max(BUFFER_BYTES_KEPT));
            connection.partial = input;
        }
    }

    /// Parses an input into pending requests, executing them whenever enough have come together. Returns how much of the
    /// input is done with: all of it, where the connection was set back or closes.
    fn read<'a>(&mut self, slot: u32, input: &'a [u8], pending: &mut Vec<Pending<'a>>) -> usize {
        let Some(connection) = self.connections.at(slot) else { return input.len() };
        if connection.state == State::Unknown {
            connection.state = match input.first() {
                None => return 0,
                Some(b'*') => State::Resp(resp::State::Command),
                Some(_) => State::Memcached(Memcached::Command),
            };
        }
        match connection.state {
            State::Resp(_) => self.read_resp(slot, input, pending),
            State::Memcached(state) => self.read_memcached(slot, state, input, pending),
            State::Unknown => unreachable!("the first byte has told"),
        }
    }

    fn read_memcached<'a>(
        &mut self,
        slot: u32,
        mut state: Memcached,
        input: &'a [u8],
        pending: &mut Vec<Pending<'a>>,
    ) -> usize {
        let value_bytes_max = self.node.config.max_item_bytes as usize;
        let Some(connection) = self.connections.at(slot) else { return input.len() };
        let mut at = 0;
        if connection.incoming.is_some() {
            at = self.take_incoming(slot, input);
            if at == input.len() {
                return at;
            }
        }
        // Where in the list the command starts that is being parsed.
        let mut command = pending.len();
        let needed = loop {
            if (pending.len() >= PREFETCH && state == Memcached::Command) || pending.len() >= PENDING_MAX {
                self.perform(pending);
                command = 0;
                if self.connections.at(slot).is_none_or(|c| !c.is_served()) {
                    return input.len();
                }
            }
            let (rest, before) = (&input[at..], state);
            match parse(&mut state, rest, value_bytes_max) {
                Parsed::Request { request, length } => {
                    at += length;
                    if matches!(request.operation, Operation::Invalid(_)) {
                        self.take_back(pending, command);
                    }
                    if !matches!(request.operation, Operation::Get { first: false, .. }) {
                        command = pending.len();
                    }
                    let owner = self.id as u16;
                    self.queue(
                        Pending { slot, owner, hash: KeyHash(0), request, rest, state: State::Memcached(before) },
                        pending,
                    );
                }
                Parsed::Upload { request, value_bytes, length } => {
                    // What came before it is executed first.
                    self.perform(pending);
                    command = 0;
                    if !self.may_begin_incoming(slot, rest, State::Memcached(before)) {
                        return input.len();
                    }
                    // What was said last may be from before this input.
                    if let Some(connection) = self.connections.at(slot) {
                        connection.state = State::Memcached(Memcached::Command);
                    }
                    at += length;
                    self.begin_incoming(slot, &request, value_bytes);
                    at += self.take_incoming(slot, &input[at..]);
                    if self.connections.at(slot).is_none_or(|c| !c.is_served() || c.incoming.is_some()) {
                        return input.len();
                    }
                }
                Parsed::Skip { length } => at += length,
                Parsed::Incomplete { needed } => break needed,
                Parsed::Close => {
                    if let Some(connection) = self.connections.at(slot).filter(|c| c.ending == Ending::Open) {
                        connection.ending = Ending::Quitting;
                    }
                    return input.len();
                }
            }
        };
        if let Some(connection) = self.connections.at(slot) {
            connection.state = State::Memcached(state);
            connection.needed = needed;
        }
        at
    }

    /// True if a connection may begin with a long value. Otherwise it waits for its output to be taken, and its input is set
    /// back to the command.
    pub(super) fn may_begin_incoming(&mut self, slot: u32, rest: &[u8], state: State) -> bool {
        let Some(connection) = self.connections.at(slot).filter(|c| c.is_served()) else { return false };
        if connection.must_wait() {
            self.counters.add(Counter::ConnYields);
            connection.block(Wait::Output, rest, state);
            return false;
        }
        connection.needed = 0;
        true
    }

    /// Adds a request to the list and starts to load what it needs.
    #[inline]
    fn queue<'a>(&mut self, mut request: Pending<'a>, pending: &mut Vec<Pending<'a>>) {
        if request.request.operation.has_key() {
            let key = request.request.key;
            request.hash = self.node.hasher.hash(key);
            request.owner = self.node.slots.owner(key);
            if usize::from(request.owner) == self.id {
                self.engine.prefetch_index(request.hash);
            }
        }
        if let Some(connection) = self.connections.at(request.slot) {
            connection.pending += 1;
        }
        pending.push(request);
    }

    /// Takes back the keys of a get line that turned out to be wrong: those from `from` on, if that is what they are.
    fn take_back(&mut self, pending: &mut Vec<Pending>, from: usize) {
        let is_unfinished = |p: &Pending| matches!(p.request.operation, Operation::Get { last: false, .. });
        if pending[from..].iter().all(is_unfinished) {
            for key in pending.drain(from..) {
                if let Some(connection) = self.connections.at(key.slot) {
                    connection.pending -= 1;
                }
            }
        }
    }

    /// Leaves what else the client sends in the socket, for as long as the connection waits.
    pub(super) fn stop_receiving(&mut self, slot: u32) {
        let token = self.connections.token(slot);
        if let Some(connection) = self.connections.at(slot)
            && connection.receiving
            && !connection.cancelling
        {
            connection.cancelling = true;
            self.reactor.cancel_receive(token);
        }
    }
}
