//! What a connection does next, decided once per turn for each that something happened to.

use super::Shard;
use super::connection::{Ending, OUTPUT_BYTES_LOW, Sending, Wait};
use super::outgoing::PATIENCE;
use crate::metrics::Counter;
use crate::reactor::{Errno, Token};
use crate::sys;
use std::net::Shutdown;
use std::time::Duration;

/// A few replies are held back so that those that siblings owe can go out in the same send. They leave when all of those
/// have come, or with the first that comes after this time: a connection that always has something outstanding does not
/// hold for ever.
const HOLD: Duration = Duration::from_micros(100);

impl Shard {
    /// Settles every connection that was touched in this turn.
    pub(super) fn settle_touched(&mut self) {
        while let Some(slot) = self.touched.pop() {
            self.settle(slot);
        }
    }

    fn settle(&mut self, slot: u32) {
        let token = self.connections.token(slot);
        let Some(connection) = self.connections.at(slot) else { return };
        connection.touched = false;
        self.write_outgoing(slot);
        let Some(connection) = self.connections.at(slot) else { return };

        if connection.sending.is_none() && !connection.output.is_empty() {
            let since = *connection.held_since.get_or_insert(self.instant);
            let much = connection.output.len() >= OUTPUT_BYTES_LOW;
            if connection.order.awaited() == 0 || much || self.instant - since >= HOLD {
                connection.held_since = None;
                let bytes = std::mem::take(&mut connection.output);
                connection.sending = Some(Sending { from: 0, bytes: bytes.len() });
                self.reactor.send(token, connection.socket(), bytes, 0);
            }
        }

        let over = connection.ending != Ending::Open || connection.ended;
        if over {
            if connection.is_answered() && connection.ending != Ending::ShutDown {
                connection.ending = Ending::ShutDown;
                // While the node stops, the client may still be reading its replies: only our direction is closed.
                let how = if self.stopping.is_some() { Shutdown::Write } else { Shutdown::Both };
                sys::shut_down(connection.socket(), how);
            }
            let noreply = connection.sending.is_none() && !connection.receiving;
            if noreply && connection.ending == Ending::ShutDown && (connection.ended || self.stopping.is_none()) {
                self.close(slot);
                return;
            }
        }
        let Some(connection) = self.connections.at(slot) else { return };
        if connection.leaving.is_some() && !over && self.hand_over(slot) {
            return;
        }
        let Some(connection) = self.connections.at(slot) else { return };
        let wanted =
            !connection.ended && connection.blocked.is_none() && (!over || connection.ending == Ending::ShutDown);
        if wanted && !connection.receiving {
            connection.cancelling = false;
            connection.receiving = true;
            self.reactor.receive(token, connection.socket());
        }
    }

    /// A send completed.
    pub(super) fn sent(&mut self, token: Token, bytes: Vec<u8>, result: Result<usize, Errno>) {
        self.counters.add_n(Counter::BytesWritten, *result.as_ref().unwrap_or(&0) as u64);
        let Some(connection) = self.connections.get(token) else {
            self.outputs.give_back(bytes);
            return;
        };
        let sending = connection.sending.take().expect("a send was in flight");
        connection.progress = self.instant;
        match result {
            Ok(count) if sending.from + count < bytes.len() => {
                let from = sending.from + count;
                connection.sending = Some(Sending { from, ..sending });
                self.reactor.send(token, connection.socket(), bytes, from);
            }
            Ok(_) => self.outputs.give_back(bytes),
            Err(_) => {
                self.outputs.give_back(bytes);
                self.abandon(token.slot);
            }
        }
        self.touch(token.slot);
        if self.connections.at(token.slot).is_some_and(|c| c.blocked == Some(Wait::Output)) {
            self.may_resume(token.slot);
        }
    }

    /// Gives a client up: what it asked is forgotten, and its socket shut down, which ends what is in flight on it.
    pub(super) fn abandon(&mut self, slot: u32) {
        self.drop_incoming(slot);
        self.drop_outgoing(slot);
        if let Some(connection) = self.connections.at(slot) {
            connection.abandon();
            sys::shut_down(connection.socket(), Shutdown::Both);
            self.touch(slot);
        }
    }

    /// Closes all connections as soon as what was received from them is answered.
    pub(super) fn close_all(&mut self) {
        for slot in 0..self.connections.slots() {
            let Some(connection) = self.connections.at(slot) else { continue };
            if matches!(connection.ending, Ending::Open | Ending::Quitting) {
                connection.ending = Ending::Closing;
            }
            // The rest of a value will not come any more.
            self.drop_incoming(slot);
            self.touch(slot);
        }
    }

    /// Disconnects clients that do not go on with a long value, and so keep memory from others.
    pub(super) fn drop_stalled(&mut self) {
        for slot in 0..self.connections.slots() {
            let Some(connection) = self.connections.at(slot) else { continue };
            let sends_too_slowly = connection.incoming.as_ref().is_some_and(|i| self.instant > i.until);
            let takes_nothing = !connection.outgoing.is_empty() && self.instant - connection.progress > PATIENCE;
            let takes_too_long =
                connection.outgoing.front().and_then(|o| o.until).is_some_and(|until| self.instant > until);
            if (sends_too_slowly || takes_nothing || takes_too_long) && !connection.is_abandoned() {
                tracing::info!(shard = self.id, "disconnected a client that was too slow with a long value");
                self.abandon(slot);
            }
        }
    }

    /// Ends the wait for clients that have their replies and do not hang up; of all clients, if `all`.
    pub(super) fn hang_up(&mut self, all: bool) {
        for slot in 0..self.connections.slots() {
            let Some(connection) = self.connections.at(slot) else { continue };
            if connection.ending == Ending::ShutDown || all {
                self.abandon(slot);
            }
        }
    }

    /// Frees a connection that has nothing in flight; its socket closes.
    fn close(&mut self, slot: u32) {
        self.drop_incoming(slot);
        self.drop_outgoing(slot);
        let mut connection = self.connections.remove(slot);
        self.outputs.give_back(std::mem::take(&mut connection.output));
        self.node.spread.closed(connection.leaving.unwrap_or(self.id));
        self.retry_accepts();
    }
}
