//! A shard's connections by number, and which of them need attention.

use super::{BUFFER_BYTES_KEPT, Client, Connection, Wait};
use crate::protocol::State;
use crate::reactor::Token;
use crate::shard::faults::{self, Fault};
use std::collections::VecDeque;
use std::time::Instant;

/// The number of a connection on its shard. It is used again once the connection is gone; a [`Token`] is not.
pub(in crate::shard) type ConnectionId = u32;

/// A connection on its way to another shard.
#[derive(Debug)]
pub(in crate::shard) struct Moving<S> {
    pub(in crate::shard) socket: S,
    pub(in crate::shard) state: State,
    pub(in crate::shard) client: Option<Box<Client>>,
}

/// A place for a connection.
struct Place<S> {
    /// How often the place was used before.
    generation: u32,
    /// In `touched`.
    touched: bool,
    /// In `resumable`.
    resuming: bool,
    open: Option<Open<S>>,
}

struct Open<S> {
    socket: S,
    connection: Box<Connection>,
}

/// The connections, and the lists of those that the turn must look at.
pub(in crate::shard) struct Connections<S> {
    places: Vec<Place<S>>,
    free: Vec<ConnectionId>,
    open: usize,
    /// Something happened to them in this turn; each once, in order.
    touched: VecDeque<ConnectionId>,
    /// They may be able to go on; each once, in order.
    resumable: VecDeque<ConnectionId>,
    /// They wait for room in a batch to a sibling.
    mesh_waiters: Vec<Token>,
    /// They resume in the next turn.
    turn_waiters: Vec<Token>,
    /// Connections that wait for the turn in which they may move bytes of a long value, in this order.
    value_waiters: Vec<Token>,
    /// Connections that wait for the next tick.
    tick_waiters: Vec<Token>,
    /// They receive one buffer each, in this order, since the buffers ran out; first those whose last receive found
    /// none.
    frugal: VecDeque<Token>,
    without_buffer: VecDeque<Token>,
    outputs: OutputPool,
    /// Bytes of memory that all connections hold, as they were counted last.
    memory_bytes: usize,
}

impl<S> Connections<S> {
    pub(in crate::shard) fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            open: 0,
            touched: VecDeque::new(),
            resumable: VecDeque::new(),
            mesh_waiters: Vec::new(),
            turn_waiters: Vec::new(),
            value_waiters: Vec::new(),
            tick_waiters: Vec::new(),
            frugal: VecDeque::new(),
            without_buffer: VecDeque::new(),
            outputs: OutputPool::new(),
            memory_bytes: 0,
        }
    }

    /// Counts anew what a connection holds.
    #[inline]
    pub(in crate::shard) fn count_memory(&mut self, id: ConnectionId) {
        let Some(Place { open: Some(Open { connection, .. }), .. }) = self.places.get_mut(id as usize) else { return };
        let bytes = connection.memory_bytes();
        self.memory_bytes = self.memory_bytes + bytes - connection.counted_bytes;
        connection.counted_bytes = bytes;
    }

    /// Bytes of memory that all connections hold, as they were counted last.
    #[inline]
    pub(in crate::shard) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// The connection that holds most.
    pub(in crate::shard) fn largest(&self) -> Option<ConnectionId> {
        let counted = |place: &Place<S>| place.open.as_ref().map_or(0, |open| open.connection.counted_bytes);
        let (id, bytes) = self.places.iter().map(counted).enumerate().max_by_key(|(_, bytes)| *bytes)?;
        (bytes > 0).then_some(id as ConnectionId)
    }

    /// The number of open connections.
    pub(in crate::shard) fn len(&self) -> usize {
        self.open
    }

    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// All numbers ever used: every connection's is among them.
    pub(in crate::shard) fn ids(&self) -> std::ops::Range<ConnectionId> {
        0..self.places.len() as ConnectionId
    }

    pub(in crate::shard) fn insert(&mut self, moving: Moving<S>, pinned: bool, now: Instant) -> Token {
        let Moving { socket, state, client } = moving;
        let id = self.free.pop().unwrap_or_else(|| {
            assert!(self.places.len() < Token::SLOTS_MAX as usize, "far more than --max-connections allows");
            self.places.push(Place { generation: 0, touched: false, resuming: false, open: None });
            self.places.len() as ConnectionId - 1
        });
        let connection = Box::new(Connection::new(state, client, pinned, now));
        self.places[id as usize].open = Some(Open { socket, connection });
        self.open += 1;
        self.token(id)
    }

    /// The connection of a number.
    #[inline]
    pub(in crate::shard) fn at(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        match &mut self.places.get_mut(id as usize)?.open {
            Some(open) => Some(&mut open.connection),
            None => None,
        }
    }

    /// The connection that a token was made for, if it is still open.
    #[inline]
    pub(in crate::shard) fn get(&mut self, token: Token) -> Option<&mut Connection> {
        let place = self.places.get_mut(token.slot as usize)?;
        match &mut place.open {
            Some(open) if place.generation == token.generation || faults::has(Fault::ReusedConnection) => {
                Some(&mut open.connection)
            }
            _ => None,
        }
    }

    /// A connection, and somewhere to write its replies if it has no output.
    #[inline]
    pub(in crate::shard) fn answering(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let open = self.places.get_mut(id as usize)?.open.as_mut()?;
        self.outputs.provide(&mut open.connection.output);
        Some(&mut open.connection)
    }

    /// The connection that a token was made for, with room for output, if it is still open.
    #[inline]
    pub(in crate::shard) fn get_answering(&mut self, token: Token) -> Option<&mut Connection> {
        let place = self.places.get_mut(token.slot as usize)?;
        if place.generation != token.generation && !faults::has(Fault::ReusedConnection) {
            return None;
        }
        let open = place.open.as_mut()?;
        self.outputs.provide(&mut open.connection.output);
        Some(&mut open.connection)
    }

    pub(in crate::shard) fn socket(&self, id: ConnectionId) -> Option<&S> {
        self.places.get(id as usize)?.open.as_ref().map(|open| &open.socket)
    }

    pub(in crate::shard) fn token(&self, id: ConnectionId) -> Token {
        Token { slot: id, generation: self.places[id as usize].generation }
    }

    /// A token that no connection has: for tasks whose replies nobody waits for.
    pub(in crate::shard) fn nobody(&self) -> Token {
        Token { slot: Token::SLOTS_MAX - 1, generation: 0 }
    }

    /// Takes a connection out; completions that come later with its token find nobody. The socket comes with what
    /// another shard needs to go on with it.
    pub(in crate::shard) fn remove(&mut self, id: ConnectionId) -> Option<Moving<S>> {
        let place = self.places.get_mut(id as usize)?;
        let Open { socket, mut connection } = place.open.take()?;
        self.memory_bytes -= connection.counted_bytes;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id);
        self.open -= 1;
        self.outputs.give_back(std::mem::take(&mut connection.output));
        Some(Moving { socket, state: connection.state, client: connection.client })
    }

    /// Returns a buffer that was sent.
    #[inline]
    pub(in crate::shard) fn give_back(&mut self, buffer: Vec<u8>) {
        self.outputs.give_back(buffer);
    }

    /// Has the connection looked at before the turn ends.
    #[inline]
    pub(in crate::shard) fn touch(&mut self, id: ConnectionId) {
        if let Some(place) = self.places.get_mut(id as usize)
            && !place.touched
        {
            place.touched = true;
            self.touched.push_back(id);
        }
    }

    /// The next connection that was touched.
    #[inline]
    pub(in crate::shard) fn next_touched(&mut self) -> Option<ConnectionId> {
        let id = self.touched.pop_front()?;
        self.places[id as usize].touched = false;
        Some(id)
    }

    /// Has the connection tried in this turn, if it waits.
    pub(in crate::shard) fn may_resume(&mut self, id: ConnectionId) {
        if let Some(place) = self.places.get_mut(id as usize)
            && !place.resuming
        {
            place.resuming = true;
            self.resumable.push_back(id);
        }
    }

    /// Has the connection tried in this turn, if it waits for its output to be sent.
    #[inline]
    pub(in crate::shard) fn output_has_room(&mut self, id: ConnectionId) {
        if self.at(id).is_some_and(|connection| connection.wait() == Some(Wait::Output)) {
            self.may_resume(id);
        }
    }

    /// The next connection that may be able to go on.
    pub(in crate::shard) fn next_resumable(&mut self) -> Option<ConnectionId> {
        let id = self.resumable.pop_front()?;
        self.places[id as usize].resuming = false;
        Some(id)
    }

    /// True if there is one.
    pub(in crate::shard) fn have_resumable(&self) -> bool {
        !self.resumable.is_empty()
    }

    /// Puts a connection that was set back into the list that it waits in.
    pub(in crate::shard) fn wait_for(&mut self, wait: Wait, token: Token) {
        match wait {
            Wait::Mesh => self.mesh_waiters.push(token),
            Wait::Turn => self.turn_waiters.push(token),
            Wait::Tick => self.tick_waiters.push(token),
            // The completion of its send, or a reply, resumes it.
            Wait::Output => {}
        }
    }

    /// A batch has room again: resumes those that wait for that. In each round another one comes first.
    pub(in crate::shard) fn resume_mesh_waiters(&mut self) {
        if self.mesh_waiters.is_empty() || faults::has(Fault::ForgottenWaiter) {
            return;
        }
        let mut waiters = std::mem::take(&mut self.mesh_waiters);
        waiters.rotate_left(1);
        for token in waiters.drain(..) {
            self.resume_waiter(token, Wait::Mesh);
        }
        self.mesh_waiters = waiters;
    }

    /// A turn begins: resumes the connections that exhausted their share of the last one.
    pub(in crate::shard) fn resume_turn_waiters(&mut self) {
        if self.turn_waiters.is_empty() {
            return;
        }
        let mut waiters = std::mem::take(&mut self.turn_waiters);
        for token in waiters.drain(..) {
            self.resume_waiter(token, Wait::Turn);
        }
        self.turn_waiters = waiters;
    }

    /// Has a connection wait for the turn in which it may move bytes of a long value.
    pub(in crate::shard) fn wait_to_move_value(&mut self, id: ConnectionId) {
        let token = self.token(id);
        if let Some(connection) = self.at(id)
            && !std::mem::replace(&mut connection.waits_to_move_value, true)
        {
            self.value_waiters.push(token);
        }
    }

    /// A turn begins: has those connections looked at before any other.
    pub(in crate::shard) fn resume_value_waiters(&mut self) {
        let mut waiters = std::mem::take(&mut self.value_waiters);
        for token in waiters.drain(..) {
            if let Some(connection) = self.get(token) {
                connection.waits_to_move_value = false;
                self.touch(token.slot);
            }
        }
        self.value_waiters = waiters;
    }

    /// A tick: resumes the connections that wait for it.
    pub(in crate::shard) fn resume_tick_waiters(&mut self) {
        for token in std::mem::take(&mut self.tick_waiters) {
            self.resume_waiter(token, Wait::Tick);
        }
    }

    fn resume_waiter(&mut self, token: Token, wait: Wait) {
        if self.get(token).is_some_and(|connection| connection.wait() == Some(wait)) {
            self.may_resume(token.slot);
        }
    }

    /// Queues a connection for a receive into one buffer.
    pub(in crate::shard) fn queue_frugal(&mut self, token: Token) {
        if self.get(token).is_some_and(Connection::take_found_no_buffer) {
            return self.without_buffer.push_back(token);
        }
        match faults::has(Fault::UnfairReceive) {
            true => self.frugal.push_front(token),
            false => self.frugal.push_back(token),
        }
    }

    /// The next connection in that queue.
    pub(in crate::shard) fn next_frugal(&mut self) -> Option<Token> {
        self.without_buffer.pop_front().or_else(|| self.frugal.pop_front())
    }

    /// True if some connections can go on without an event.
    pub(in crate::shard) fn have_work(&self) -> bool {
        let waiting = [&self.turn_waiters, &self.value_waiters];
        self.are_short_of_buffers() || !self.resumable.is_empty() || waiting.iter().any(|waiters| !waiters.is_empty())
    }

    /// True if connections wait for a receive because the buffers ran out.
    pub(in crate::shard) fn are_short_of_buffers(&self) -> bool {
        !self.frugal.is_empty() || !self.without_buffer.is_empty()
    }
}

/// Output buffers that no connection uses at the moment. The last one returned is used next: it is still in the cache.
struct OutputPool {
    buffers: Vec<Vec<u8>>,
    /// Their capacities together.
    bytes: usize,
}

/// Buffers kept at most.
const POOLED_MAX: usize = 256;
/// Bytes of these kept at most.
const POOLED_BYTES_MAX: usize = 4 << 20;
/// A buffer that has grown beyond this is not kept.
const POOLED_BUFFER_BYTES_MAX: usize = 512 << 10;

impl OutputPool {
    fn new() -> Self {
        Self { buffers: Vec::with_capacity(POOLED_MAX), bytes: 0 }
    }

    /// Gives an output room, if it has none.
    #[inline]
    fn provide(&mut self, output: &mut Vec<u8>) {
        if output.capacity() == 0 {
            *output = self.buffers.pop().unwrap_or_default();
            self.bytes -= output.capacity();
            output.reserve(BUFFER_BYTES_KEPT);
        }
    }

    #[inline]
    fn give_back(&mut self, mut buffer: Vec<u8>) {
        let bytes = self.bytes + buffer.capacity();
        let fits = self.buffers.len() < POOLED_MAX && bytes <= POOLED_BYTES_MAX;
        if fits && (1..=POOLED_BUFFER_BYTES_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            self.bytes = bytes;
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::Errno;

    fn connections(count: usize) -> Connections<()> {
        let mut connections = Connections::new();
        for _ in 0..count {
            connections.insert(Moving { socket: (), state: State::Unknown, client: None }, false, Instant::now());
        }
        connections
    }

    /// A reply that comes late must not reach the connection that uses the same number now.
    #[test]
    fn a_token_does_not_find_the_next_user_of_its_place() {
        let mut connections = connections(1);
        let before = connections.token(0);
        assert!(connections.get(before).is_some() && connections.remove(0).is_some());
        assert!(connections.get(before).is_none() && connections.is_empty());
        let after =
            connections.insert(Moving { socket: (), state: State::Unknown, client: None }, false, Instant::now());
        assert_eq!(after.slot, before.slot);
        assert!(connections.get(before).is_none() && connections.get(after).is_some());
    }

    #[test]
    fn each_is_listed_once_and_in_order() {
        let mut connections = connections(3);
        for id in [2, 0, 2, 1, 0] {
            connections.touch(id);
            connections.may_resume(id);
        }
        let touched: Vec<_> = std::iter::from_fn(|| connections.next_touched()).collect();
        let resumable: Vec<_> = std::iter::from_fn(|| connections.next_resumable()).collect();
        assert_eq!((touched, resumable), (vec![2, 0, 1], vec![2, 0, 1]));
        connections.touch(2);
        assert_eq!(connections.next_touched(), Some(2), "it can be listed again");
    }

    #[test]
    fn a_receive_that_found_no_buffer_comes_before_those_that_may_have_nothing_to_receive() {
        let mut connections = connections(4);
        let tokens: Vec<_> = (0..4).map(|id| connections.token(id)).collect();
        for id in [1, 3] {
            connections.at(id).expect("open").on_receive_ended(Some(Errno::NO_BUFFERS));
        }
        tokens.iter().for_each(|&token| connections.queue_frugal(token));
        let order: Vec<_> = std::iter::from_fn(|| connections.next_frugal()).map(|token| token.slot).collect();
        assert_eq!(order, [1, 3, 0, 2]);
        connections.queue_frugal(tokens[1]);
        connections.queue_frugal(tokens[0]);
        assert_eq!(connections.next_frugal(), Some(tokens[1]), "once");
    }

    #[test]
    fn waiters_for_a_batch_take_turns_at_being_first() {
        let mut connections = connections(3);
        let tokens: Vec<_> = (0..3).map(|id| connections.token(id)).collect();
        let wait = |connections: &mut Connections<()>, order: &[usize]| {
            for &n in order {
                connections.at(n as u32).expect("open").set_back(Wait::Mesh, b"x", State::Unknown);
                connections.wait_for(Wait::Mesh, tokens[n]);
            }
            connections.resume_mesh_waiters();
            std::iter::from_fn(|| connections.next_resumable()).map(|id| id as usize).collect::<Vec<_>>()
        };
        let first = wait(&mut connections, &[0, 1, 2]);
        assert_eq!(first, [1, 2, 0]);
        assert_eq!(wait(&mut connections, &first), [2, 0, 1]);
    }
}
