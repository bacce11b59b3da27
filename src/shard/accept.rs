//! New connections, and connections that move: each goes to the shard that has the fewest.

use super::Shard;
use super::connection::{Connection, Ending, Moving};
use super::spread::Placed;
use crate::metrics::Counter;
use crate::protocol::State;
use crate::reactor::Errno;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

/// What a client hears whose connection is one too many (memcached's arguments).
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";
/// The same in Redis's arguments.
const TOO_MANY_RESP: &[u8] = b"-ERR max number of clients reached\r\n";

/// A listening socket, for a shard to serve.
pub struct Listening {
    /// The socket.
    pub socket: TcpListener,
    /// Its connections stay on the shard.
    pub pinned: bool,
    /// Which protocol they speak.
    pub state: State,
}

/// A listening socket of this shard.
pub(super) struct Listener {
    socket: TcpListener,
    /// Connections stay on this shard.
    pinned: bool,
    /// Where connections begin, in their protocol.
    state: State,
    armed: bool,
}

impl Shard {
    pub(super) fn start_listening(&mut self, listeners: Vec<Listening>) {
        for (index, Listening { socket, pinned, state }) in listeners.into_iter().enumerate() {
            self.reactor.accept(index as u32, socket.as_fd());
            self.listeners.push(Listener { socket, pinned, state, armed: true });
        }
    }

    /// Closes the listening sockets: what is not accepted yet is refused.
    pub(super) fn stop_listening(&mut self) {
        for index in 0..self.listeners.len() {
            self.reactor.cancel_accept(index as u32);
        }
        self.listeners.clear();
    }

    pub(super) fn accepted(&mut self, listener: u32, socket: OwnedFd, armed: bool) {
        let Some(Listener { pinned, state, .. }) = self.listeners.get_mut(listener as usize).map(|l| {
            l.armed = armed;
            &*l
        }) else {
            return;
        };
        let (pinned, state) = (*pinned, *state);
        let moving = Moving { socket, state, client: None };
        if !armed {
            self.retry_accepts();
        }
        match self.node.spread.place(self.id, pinned) {
            Placed::Here => {
                self.counters.add(Counter::TotalConnections);
                self.open(moving, pinned);
            }
            Placed::There(shard) => {
                self.counters.add(Counter::TotalConnections);
                self.routes[shard].filling.moving.push(moving);
            }
            Placed::Nowhere => {
                self.counters.add(Counter::RejectedConnections);
                self.publish();
                // The socket is new, so its buffer takes these few bytes; if it does not, the client is gone.
                let text = if matches!(state, State::Resp(_)) { TOO_MANY_RESP } else { TOO_MANY };
                let _ = TcpStream::from(moving.socket).write(text);
            }
        }
    }

    /// Accepting failed: usually there are too many open files. It is tried again when a connection closes, or at the
    /// next tick.
    pub(super) fn accept_failed(&mut self, listener: u32, errno: Errno) {
        if let Some(listener) = self.listeners.get_mut(listener as usize) {
            listener.armed = false;
            self.counters.add(Counter::FailedAccepts);
            tracing::warn!(shard = self.id, error = %errno, "cannot accept a connection");
        }
    }

    pub(super) fn retry_accepts(&mut self) {
        for (index, listener) in self.listeners.iter_mut().enumerate().filter(|(_, l)| !l.armed) {
            listener.armed = true;
            self.reactor.accept(index as u32, listener.socket.as_fd());
        }
    }

    /// Starts to serve a connection.
    pub(super) fn open(&mut self, moving: Moving, pinned: bool) {
        let token = self.connections.insert(moving, pinned, self.instant);
        if self.stopping.is_some_and(|s| s.closing)
            && let Some(connection) = self.connections.at(token.slot)
        {
            connection.ending = Ending::Closing;
        }
        self.touch(token.slot);
    }

    /// Sends idle connections away, if this shard has more than its part.
    pub(super) fn balance(&mut self) {
        for slot in 0..self.connections.slots() {
            let is_free = |c: &Connection| !c.pinned && c.leaving.is_none() && c.is_idle() && !c.ended && c.receiving;
            if !self.connections.at(slot).is_some_and(|c| is_free(c)) {
                continue;
            }
            let Some(to) = self.node.spread.lighter(self.id) else { return };
            if let Some(connection) = self.connections.at(slot) {
                connection.leaving = Some(to);
            }
            self.stop_receiving(slot);
        }
    }

    /// Hands a leaving connection over as soon as nothing of it is under way here. False if it stays after all.
    pub(super) fn hand_over(&mut self, slot: u32) -> bool {
        let Some(connection) = self.connections.at(slot) else { return true };
        let Some(to) = connection.leaving else { return false };
        if connection.receiving || !connection.is_answered() {
            return true;
        }
        if connection.is_idle() && !connection.ended {
            let moving = self.connections.remove(slot).into_moving();
            self.counters.add(Counter::MovedConnections);
            self.routes[to].filling.moving.push(moving);
            return true;
        }
        // A command is half here.
        connection.leaving = None;
        self.node.spread.moved(to, self.id);
        false
    }
}
