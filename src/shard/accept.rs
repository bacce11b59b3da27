//! New connections, and connections that move: each goes to the shard that has the fewest.

use super::balancer::Placed;
use super::complaints::Complaint;
use super::connection::Moving;
use super::io::Listener;
use super::{Io, Shard};
use crate::metrics::Counter;
use crate::protocol::State;
use crate::reactor::Errno;

/// The reply to a connection beyond the limit (memcached's text).
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";
/// Redis's text.
const TOO_MANY_RESP: &[u8] = b"-ERR max number of clients reached\r\n";

impl<I: Io> Shard<I> {
    /// Closes the listening sockets: connections that are not accepted yet are refused.
    pub(super) fn stop_listening(&mut self) {
        self.io.stop_listening();
        self.listeners.clear();
    }

    pub(super) fn on_accepted(&mut self, listener: u32, socket: I::Socket, armed: bool) {
        let Some(listener) = self.listeners.get_mut(listener as usize) else { return };
        listener.armed = armed;
        let Listener { pinned, state, .. } = *listener;
        let keepalive_seconds = self.shared.tunables.tcp_keepalive_seconds();
        if keepalive_seconds != self.shared.config.tcp_keepalive_seconds {
            // The listener, whose setting the socket inherits, has the one of the start.
            self.io.keep_alive(&socket, keepalive_seconds);
        }
        if !armed {
            self.retry_accepts();
        }
        let moving = Moving { socket, state, client: None };
        match self.shared.balancer.place(self.id, pinned) {
            Placed::Here => {
                self.executor.counters.add(Counter::TotalConnections);
                self.open(moving, pinned);
            }
            Placed::There(shard) => {
                self.executor.counters.add(Counter::TotalConnections);
                self.router.batch(shard).moving.push(moving);
            }
            Placed::Nowhere => {
                self.executor.counters.add(Counter::RejectedConnections);
                self.publish();
                let text = if matches!(state, State::Resp(_)) { TOO_MANY_RESP } else { TOO_MANY };
                self.io.refuse(moving.socket, text);
            }
        }
    }

    /// Accepting failed: usually there are too many open files. It is tried again when a connection closes, or at the
    /// next tick.
    pub(super) fn on_accept_failed(&mut self, listener: u32, errno: Errno) {
        if let Some(listener) = self.listeners.get_mut(listener as usize) {
            listener.armed = false;
            self.executor.counters.add(Counter::FailedAccepts);
            if let Some(left_out) = self.complaints.due(Complaint::CannotAccept, self.instant) {
                tracing::warn!(shard = self.id, error = %errno, left_out, "cannot accept a connection");
            }
        }
    }

    /// Arms the accepts that are not under way.
    pub(super) fn retry_accepts(&mut self) {
        for (index, listener) in self.listeners.iter_mut().enumerate().filter(|(_, l)| !l.armed) {
            listener.armed = true;
            self.io.arm_accept(index);
        }
    }

    /// Starts to serve a connection.
    pub(super) fn open(&mut self, moving: Moving<I::Socket>, pinned: bool) {
        let token = self.connections.insert(moving, pinned, self.instant);
        if self.stopping.is_some_and(|s| s.closing)
            && let Some(connection) = self.connections.at(token.slot)
        {
            connection.stop();
        }
        self.connections.touch(token.slot);
    }

    /// Sends idle connections away, if this shard has more than its quota.
    pub(super) fn balance(&mut self) {
        for id in self.connections.ids() {
            if !self.connections.at(id).is_some_and(|connection| connection.may_move()) {
                continue;
            }
            let Some(to) = self.shared.balancer.lighter(self.id) else { return };
            if let Some(connection) = self.connections.at(id) {
                connection.leave_for(to);
            }
            self.stop_receiving(id);
        }
    }
}
