//! What connections do next: the actions of each that something happened to, once per turn.

use super::connection::{Action, ConnectionId, Source};
use super::faults::{self, Fault};
use super::{Io, Shard};
use crate::metrics::Counter;
use crate::reactor::{Errno, Token};
use std::net::Shutdown;

/// Turns without a shortage of receive buffers after which connections use multishot receives again.
const TURNS_WITHOUT_SHORTAGE: u64 = 16;

impl<I: Io> Shard<I> {
    /// Carries out the actions of every connection that was touched in this turn.
    pub(super) fn drive_touched(&mut self) {
        let mut touched = 0;
        while let Some(id) = self.connections.next_touched() {
            touched += 1;
            self.fetch_more(id);
            while self.act(id) {}
            self.connections.count_memory(id);
        }
        self.active = touched;
        self.bound_client_memory();
        self.arm_frugal();
    }

    /// Carries out a connection's next action. False if there is none.
    #[inline]
    fn act(&mut self, id: ConnectionId) -> bool {
        let token = self.connections.token(id);
        let node_stops = self.stopping.is_some();
        let Some(connection) = self.connections.at(id) else { return false };
        let Some(action) = connection.next_action(self.instant, node_stops) else { return false };
        match action {
            Action::Send(bytes) => self.send(token, bytes, 0),
            Action::Receive { once: false } => self.arm_receive(token, false),
            // In their order, as many per turn as there are buffers.
            Action::Receive { once: true } => self.connections.queue_frugal(token),
            Action::ReceiveValue => self.receive_value(id),
            Action::ShutDown(how) => self.shut_down(id, how),
            Action::Close => {
                self.close(id);
                return false;
            }
            Action::HandOver(to) => {
                if let Some(moving) = self.connections.remove(id) {
                    self.executor.counters.add(Counter::MovedConnections);
                    self.router.batch(to).moving.push(moving);
                }
                return false;
            }
            Action::Stay(instead_of) => self.shared.balancer.moved(instead_of, self.id),
        }
        true
    }

    fn send(&mut self, token: Token, bytes: Vec<u8>, from: usize) {
        if let Some(socket) = self.connections.socket(token.slot) {
            self.io.send(token, socket, bytes, from);
        }
    }

    fn arm_receive(&mut self, token: Token, once: bool) {
        if let Some(socket) = self.connections.socket(token.slot) {
            self.io.arm_receive(token, socket, once);
        }
    }

    fn shut_down(&mut self, id: ConnectionId, how: Shutdown) {
        if let Some(socket) = self.connections.socket(id) {
            self.io.shut_down(socket, how);
        }
    }

    /// Arms receives into one buffer each, first come, first served: no more per turn than there are buffers. So
    /// however many connections have bytes to receive, each gets its turn.
    fn arm_frugal(&mut self) {
        let is_over = self.turns > self.last_shortage + TURNS_WITHOUT_SHORTAGE;
        for _ in 0..self.shared.config.receive_buffers {
            let Some(token) = self.connections.next_frugal() else { return };
            let Some(connection) = self.connections.get(token) else { continue };
            if connection.is_cancelling() {
                connection.on_receive_ended(Some(Errno::CANCELLED));
                self.connections.touch(token.slot);
                continue;
            }
            if is_over {
                connection.end_frugality();
            }
            let once = connection.receives_once();
            self.arm_receive(token, once);
        }
    }

    /// A send completed.
    pub(super) fn on_sent(&mut self, token: Token, bytes: Vec<u8>, result: Result<usize, Errno>) {
        self.executor.counters.add(Counter::Sends);
        self.executor.counters.add_n(Counter::BytesWritten, *result.as_ref().unwrap_or(&0) as u64);
        let now = self.instant;
        let Some(connection) = self.connections.get(token) else {
            return self.connections.give_back(bytes);
        };
        match connection.on_sent(result.ok(), now) {
            Some(from) => self.send(token, bytes, from),
            None => self.connections.give_back(bytes),
        }
        if result.is_err() {
            self.abandon(token.slot);
        }
        self.connections.touch(token.slot);
        self.connections.output_has_room(token.slot);
    }

    /// Gives a client up: its requests and replies are forgotten, and its socket is shut down, which ends what is in
    /// flight.
    pub(super) fn abandon(&mut self, id: ConnectionId) {
        let token = self.connections.token(id);
        self.drop_upload(id);
        let Some(connection) = self.connections.at(id) else { return };
        let open: Vec<Source> = connection.abandon().collect();
        self.close_downloads(open, token);
        self.shut_down(id, Shutdown::Both);
        self.connections.touch(id);
    }

    fn close_downloads(&mut self, sources: impl IntoIterator<Item = Source>, token: Token) {
        for source in sources {
            if faults::has(Fault::LeakedReader) {
                continue;
            }
            self.close_download(source, token);
        }
    }

    /// Closes all connections as soon as what was received from them is answered.
    pub(super) fn close_all(&mut self) {
        for id in self.connections.ids() {
            let Some(connection) = self.connections.at(id) else { continue };
            connection.stop();
            // The rest of a value will not come any more.
            self.drop_upload(id);
            self.connections.touch(id);
        }
    }

    /// Stops waiting for clients that have their replies and do not hang up; for all clients, if `all`.
    pub(super) fn hang_up(&mut self, all: bool) {
        for id in self.connections.ids() {
            if self.connections.at(id).is_some_and(|connection| all || connection.is_shut_down()) {
                self.abandon(id);
            }
        }
    }

    /// Frees a connection that has nothing in flight; its socket closes.
    fn close(&mut self, id: ConnectionId) {
        let token = self.connections.token(id);
        self.drop_upload(id);
        let Some(connection) = self.connections.at(id) else { return };
        let counted_for = connection.leaving().unwrap_or(self.id);
        let open: Vec<Source> = connection.abandon().collect();
        self.close_downloads(open, token);
        drop(self.connections.remove(id));
        self.shared.balancer.closed(counted_for);
        self.retry_accepts();
    }
}
