//! From received bytes to pending requests.
//!
//! Input is parsed where it was received. What cannot be used yet, the start of a command, is copied to the connection,
//! and the rest of it added as it comes. At most one input of a connection is in the pending list at a time, so that
//! the connection can be set back to any request that cannot be executed yet (`Connection::set_back`).

use super::complaints::Complaint;
use super::connection::{BUFFER_BYTES_KEPT, ConnectionId, Input, Wait};
use super::pending::{PENDING_MAX, PREFETCH, Pending, Work, recycle};
use super::{Io, Shard};
use crate::command::{Control, Failure, Operation, Request};
use crate::engine::KeyHash;
use crate::metrics::Counter;
use crate::protocol::memcached::{Foreign, Parsed, State as Memcached, parse};
use crate::protocol::{State, resp};
use crate::reactor::{Errno, Token};

/// Requests of one connection that are executed in one turn, at most and at least, about: the rest of its input waits
/// for the next turn, so that the others get theirs.
pub(super) const REQUESTS_OF_ONE_MAX: usize = 4096;
const REQUESTS_OF_ONE_MIN: usize = 64;

/// Input up to this many bytes is executed in the turn in which it comes.
const INPUT_BYTES_SMALL: usize = 1 << 10;

/// Requests that are executed in one turn, about: some 10 ms.
const REQUESTS_PER_TURN: usize = 64 << 10;

impl<I: Io> Shard<I> {
    /// Requests of one connection that are executed in one turn: fewer where many connections are active.
    pub(super) fn requests_of_one(&self) -> usize {
        (REQUESTS_PER_TURN / self.active.max(1)).clamp(REQUESTS_OF_ONE_MIN, REQUESTS_OF_ONE_MAX)
    }

    /// Bytes arrived on a connection.
    pub(super) fn on_received<'a>(
        &mut self,
        token: Token,
        bytes: &'a [u8],
        armed: bool,
        pending: &mut Vec<Pending<'a>>,
    ) {
        self.executor.counters.add(Counter::Receives);
        self.executor.counters.add_n(Counter::BytesRead, bytes.len() as u64);
        let Some(connection) = self.connections.get(token) else { return };
        connection.on_receive(armed);
        let bytes = connection.transport.opened(bytes);
        // Its input before this one is in the list: to be set back to, only one may be.
        let in_the_list = connection.queued > 0 && connection.is_read();
        self.connections.touch(token.slot);
        if in_the_list {
            self.execute(pending);
        }
        let Some(connection) = self.connections.get(token) else { return };
        match connection.on_bytes(bytes) {
            Input::Used => {}
            // The turn has no time for it: it waits for the next. A few requests do not, so that who sends one at a
            // time need not queue behind those who send hundreds.
            Input::Parse if (self.stage_is_over || self.has_backlog) && bytes.len() > INPUT_BYTES_SMALL => {
                let state = connection.state;
                self.set_back(token.slot, Wait::Turn, bytes, state);
            }
            Input::ParseKept if self.stage_is_over || self.has_backlog => {
                connection.wait_with_input(Wait::Turn);
                self.connections.wait_for(Wait::Turn, token);
            }
            Input::Parse => {
                let used = self.read(token.slot, bytes, pending);
                if used < bytes.len()
                    && let Some(connection) = self.connections.get(token)
                {
                    connection.input.extend_from_slice(&bytes[used..]);
                }
            }
            Input::ParseKept => self.read_kept(token.slot),
            Input::StopReceiving => self.stop_receiving(token.slot),
        }
    }

    /// A receive ended: the peer closed its direction, or the receive failed, was cancelled or ran out of buffers.
    pub(super) fn on_receive_ended(&mut self, token: Token, errno: Option<Errno>) {
        let Some(connection) = self.connections.get(token) else { return };
        if errno == Some(Errno::NO_BUFFERS) {
            self.last_shortage = self.turns;
        }
        if connection.on_receive_ended(errno) {
            self.abandon(token.slot);
        }
        self.connections.touch(token.slot);
    }

    /// Tries to go on with a connection that waits.
    pub(super) fn try_resume(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.at(id) else { return };
        let has_input = connection.try_resume();
        if connection.wait().is_none() {
            self.connections.touch(id);
        }
        if has_input {
            self.read_kept(id);
        }
    }

    /// Parses and executes the input that a connection has kept.
    fn read_kept(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.at(id) else { return };
        let mut input = std::mem::take(&mut connection.input);
        let mut pending = recycle(std::mem::take(&mut self.pending_kept));
        let used = self.read(id, &input, &mut pending);
        self.execute(&mut pending);
        self.pending_kept = recycle(pending);

        // A connection that was set back has kept its input itself.
        let Some(connection) = self.connections.at(id) else { return };
        if connection.is_served() {
            // The start of a command only grows.
            if used > 0 {
                input.drain(..used);
                input.shrink_to(connection.needed.max(BUFFER_BYTES_KEPT));
            }
            connection.input = input;
        }
    }

    /// Parses an input into pending requests, executing them whenever enough have come together. Returns how much of
    /// the input is done with: all of it, if the connection was set back or closes.
    fn read<'a>(&mut self, id: ConnectionId, input: &'a [u8], pending: &mut Vec<Pending<'a>>) -> usize {
        let Some(connection) = self.connections.at(id) else { return input.len() };
        if connection.state == State::Unknown {
            connection.state = match input.first() {
                None => return 0,
                Some(b'*') => State::Resp(resp::State::Command),
                Some(_) => State::Memcached(Memcached::Command),
            };
        }
        match connection.state {
            State::Memcached(state) => self.read_memcached(id, state, input, pending),
            // Unknown no longer: the first byte has told.
            State::Resp(_) | State::Unknown => self.read_resp(id, input, pending),
        }
    }

    fn read_memcached<'a>(
        &mut self,
        id: ConnectionId,
        mut state: Memcached,
        input: &'a [u8],
        pending: &mut Vec<Pending<'a>>,
    ) -> usize {
        let value_bytes_max = self.shared.config.max_item_bytes as usize;
        let Some(connection) = self.connections.at(id) else { return input.len() };
        let mut at = 0;
        if connection.upload.is_some() {
            at = self.take_upload(id, input);
            if at == input.len() {
                return at;
            }
        }
        // Where in the list the command starts that is being parsed.
        let mut command = pending.len();
        let mut executed = 0;
        let needed = loop {
            if (pending.len() >= PREFETCH && state == Memcached::Command) || pending.len() >= PENDING_MAX {
                executed += pending.len();
                self.execute(pending);
                self.check_stage();
                command = 0;
                if self.connections.at(id).is_none_or(|c| !c.is_served()) {
                    return input.len();
                }
                if (self.stage_is_over || executed >= self.requests_of_one()) && at < input.len() {
                    self.set_back(id, Wait::Turn, &input[at..], State::Memcached(state));
                    return input.len();
                }
            }
            let (rest, before) = (&input[at..], state);
            match parse(&mut state, rest, value_bytes_max) {
                Parsed::Request { request, length } => {
                    at += length;
                    if !matches!(request.operation, Operation::Get { first: false, .. }) {
                        command = pending.len();
                    }
                    self.queue_request(id, request, rest, State::Memcached(before), pending);
                }
                Parsed::Control { control, noreply, length } => {
                    at += length;
                    if matches!(control, Control::Invalid(_)) {
                        self.take_back(pending, command);
                    }
                    command = pending.len();
                    self.queue(id, Work::Control(control, noreply), rest, State::Memcached(before), pending);
                }
                Parsed::Upload { request, value_bytes, length } => {
                    // What came before it is executed first.
                    self.execute(pending);
                    command = 0;
                    if !self.may_begin_upload(id, rest, State::Memcached(before)) {
                        return input.len();
                    }
                    // What was said last may be from before this input.
                    if let Some(connection) = self.connections.at(id) {
                        connection.state = State::Memcached(Memcached::Command);
                    }
                    at += length;
                    let hash = self.shared.hasher.hash(request.key);
                    self.begin_upload(id, hash, request, value_bytes, 0);
                    at += self.take_upload(id, &input[at..]);
                    if self.connections.at(id).is_none_or(|c| !c.is_served() || c.upload.is_some()) {
                        return input.len();
                    }
                }
                Parsed::Skip { length } => at += length,
                Parsed::Incomplete { needed } => break needed,
                Parsed::TooLong => {
                    let error = Work::Control(Control::Invalid(Failure::Unknown), false);
                    self.queue(id, error, rest, State::Memcached(before), pending);
                    if let Some(connection) = self.connections.at(id) {
                        connection.quit();
                    }
                    return input.len();
                }
                Parsed::Foreign(protocol) => {
                    // What came before it is executed first. If the connection is set back to a part of that, this is
                    // parsed again.
                    self.execute(pending);
                    if self.connections.at(id).is_some_and(|connection| connection.is_served()) {
                        self.refuse_protocol(id, protocol);
                    }
                    return input.len();
                }
                Parsed::Close => {
                    if let Some(connection) = self.connections.at(id) {
                        connection.quit();
                    }
                    return input.len();
                }
            }
        };
        if let Some(connection) = self.connections.at(id) {
            connection.state = State::Memcached(state);
            connection.needed = needed;
        }
        at
    }

    /// Closes a connection, once it is answered, whose client speaks a protocol that is not served.
    fn refuse_protocol(&mut self, id: ConnectionId, protocol: Foreign) {
        self.executor.counters.add(Counter::WrongProtocol);
        if let Some(left_out) = self.complaints.due(Complaint::WrongProtocol, self.instant)
            && let Some(socket) = self.connections.socket(id)
        {
            let (client, _) = self.io.addresses(socket);
            let protocol = protocol.name();
            tracing::warn!(
                shard = self.id,
                client,
                protocol,
                left_out,
                "closed a client: its protocol is not served here"
            );
        }
        if let Some(connection) = self.connections.at(id) {
            connection.quit();
        }
    }

    /// Adds a request to the list and starts to load the cache lines that it needs.
    #[inline]
    fn queue_request<'a>(
        &mut self,
        id: ConnectionId,
        request: Request<&'a [u8]>,
        rest: &'a [u8],
        state: State,
        pending: &mut Vec<Pending<'a>>,
    ) {
        let hash = self.shared.hasher.hash(request.key);
        let owner = self.shared.slots.owner(request.key);
        if usize::from(owner) == self.id {
            self.executor.engine.prefetch_index(hash);
        }
        if let Some(connection) = self.connections.at(id) {
            connection.queued += 1;
        }
        pending.push(Pending { id, owner, hash, work: Work::Request(request), rest, state });
    }

    /// Adds something without a key to the list.
    pub(super) fn queue<'a>(
        &mut self,
        id: ConnectionId,
        work: Work<'a>,
        rest: &'a [u8],
        state: State,
        pending: &mut Vec<Pending<'a>>,
    ) {
        if let Some(connection) = self.connections.at(id) {
            connection.queued += 1;
        }
        pending.push(Pending { id, owner: self.id as u16, hash: KeyHash(0), work, rest, state });
    }

    /// Takes back the keys of a get line that turned out to be wrong: those from `from` on, if that is what they are.
    fn take_back(&mut self, pending: &mut Vec<Pending>, from: usize) {
        let is_unfinished = |p: &Pending| {
            matches!(p.work, Work::Request(Request { operation: Operation::Get { last: false, .. }, .. }))
        };
        if pending[from..].iter().all(is_unfinished) {
            for key in pending.drain(from..) {
                if let Some(connection) = self.connections.at(key.id) {
                    connection.queued -= 1;
                }
            }
        }
    }

    /// Sets a connection back to a request that cannot be executed yet, and notes what it waits for.
    pub(super) fn set_back(&mut self, id: ConnectionId, wait: Wait, rest: &[u8], state: State) {
        let token = self.connections.token(id);
        if let Some(connection) = self.connections.at(id) {
            connection.set_back(wait, rest, state);
            self.connections.wait_for(wait, token);
        }
    }

    /// Leaves what else the client sends in the socket, for as long as the connection waits.
    pub(super) fn stop_receiving(&mut self, id: ConnectionId) {
        let token = self.connections.token(id);
        if self.connections.at(id).is_some_and(|connection| connection.cancel_receive()) {
            self.io.cancel_receive(token);
        }
    }
}
