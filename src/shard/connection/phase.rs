//! The phases of a connection, from its first byte to its last, and what it does next.

use super::{Connection, HOLD, OUTPUT_BYTES_LOW, Receive, Sending, Source, Split};
use crate::protocol::{State, resp};
use crate::shard::faults::{self, Fault};
use std::net::Shutdown;
use std::time::Instant;

/// Where a connection is between its first byte and its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Phase {
    /// Its input is parsed and answered.
    Open,
    /// The client has quit or broken the protocol: no more is parsed, and it closes once all replies are sent.
    Quitting,
    /// The node stops: no more is received, and it closes once all that was received is answered.
    Stopping,
    /// The socket is shut down; input is discarded.
    ShutDown,
    /// The socket is shut down because the peer is gone or was disconnected: replies are discarded, too.
    Abandoned,
}

/// What the shard is to do for a connection.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::shard) enum Action {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Start to receive: into one buffer, if `once`.
    Receive { once: bool },
    /// Receive the rest of the client's long value where it will lie.
    ReceiveValue,
    /// Shut the socket down.
    ShutDown(Shutdown),
    /// Nothing is in flight any more: free the connection, which closes the socket.
    Close,
    /// Nothing is under way here: hand the socket over to this shard.
    HandOver(usize),
    /// It was to be handed over to this shard, but a command has arrived in part: it stays.
    Stay(usize),
}

impl Connection {
    /// True if requests are executed and answered.
    #[inline]
    pub(in crate::shard) fn is_served(&self) -> bool {
        self.wait.is_none() && self.phase != Phase::Abandoned
    }

    /// True if input is parsed.
    #[inline]
    pub(in crate::shard) fn is_read(&self) -> bool {
        self.phase == Phase::Open
    }

    /// True if the client has quit.
    pub(in crate::shard) fn is_quitting(&self) -> bool {
        self.phase == Phase::Quitting
    }

    /// True if nobody is there to answer.
    pub(in crate::shard) fn is_abandoned(&self) -> bool {
        self.phase == Phase::Abandoned
    }

    /// True if the socket is shut down and only completions are awaited.
    pub(in crate::shard) fn is_shut_down(&self) -> bool {
        self.phase == Phase::ShutDown
    }

    /// The client has quit, or cannot be understood: it is closed once all replies are sent.
    pub(in crate::shard) fn quit(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Quitting;
        }
    }

    /// The node stops: the connection is closed once all that was received is answered.
    pub(in crate::shard) fn stop(&mut self) {
        if matches!(self.phase, Phase::Open | Phase::Quitting) {
            self.phase = Phase::Stopping;
        }
    }

    /// Forgets all input and output: nobody is there to answer. Returns the long values, whose readers are to be
    /// closed. The caller shuts the socket down.
    pub(in crate::shard) fn abandon(&mut self) -> impl Iterator<Item = Source> + use<> {
        self.wait = None;
        self.input = Vec::new();
        self.output = Vec::new();
        self.peer_closed = true;
        self.phase = Phase::Abandoned;
        self.replies.clear()
    }

    /// Gives up a command that is being taken apart: the keys that it announced and that have not been parsed will not
    /// come. Its merged reply completes with the parts of the others, and is suppressed.
    pub(in crate::shard) fn give_up_split(&mut self) {
        let State::Resp(resp::State::Keys { left, .. }) = self.state else { return };
        if faults::has(Fault::KeptSplit) {
            return;
        }
        self.state = State::Resp(resp::State::Command);
        if let Some(Split::Merged { sequence }) = self.split.take()
            && self.phase != Phase::Abandoned
        {
            self.replies.forgo_parts(sequence, left, &mut self.output);
        }
    }

    /// Discards the input of a long value that was given up: otherwise its bytes would be parsed as commands.
    pub(in crate::shard) fn discard_input(&mut self) {
        self.input = Vec::new();
        self.wait = None;
    }

    /// True if all that was asked is answered and sent.
    pub(in crate::shard) fn is_answered(&self) -> bool {
        self.wait.is_none() && self.replies.is_empty() && self.output.is_empty() && self.sending.is_none()
    }

    /// True if nothing is under way that belongs to this shard.
    pub(in crate::shard) fn is_idle(&self) -> bool {
        self.is_answered()
            && (self.input.is_empty() || faults::has(Fault::HandedOverHalf))
            && self.upload.is_none()
            && self.state.is_at_start()
            && self.queued == 0
    }

    /// True if a part of a command has been received.
    fn is_within_command(&self) -> bool {
        !self.input.is_empty() || self.upload.is_some() || !self.state.is_at_start()
    }

    /// True if the connection can be chosen to move to another shard.
    pub(in crate::shard) fn may_move(&self) -> bool {
        !self.pinned
            && self.leaving.is_none()
            && self.phase == Phase::Open
            && !self.peer_closed
            && self.receive == Receive::Armed
            && self.is_idle()
    }

    /// Prepares to move to another shard: its receive is to be cancelled.
    pub(in crate::shard) fn leave_for(&mut self, shard: usize) {
        self.leaving = Some(shard);
    }

    /// The shard that it is counted for, if that is no longer this one.
    pub(in crate::shard) fn leaving(&self) -> Option<usize> {
        self.leaving
    }

    /// Its state in one line, for a failing run of the simulator.
    #[cfg(feature = "sim")]
    pub(in crate::shard) fn describe(&self) -> String {
        format!(
            "{:?} wait {:?} receive {:?} frugal {} peer_closed {} sending {:?} output {} input {} (needed {}) replies {} \
             awaited {} queued {} leaving {:?} upload {} {:?}",
            self.phase,
            self.wait,
            self.receive,
            self.frugal,
            self.peer_closed,
            self.sending,
            self.output.len(),
            self.input.len(),
            self.needed,
            self.replies.len(),
            self.replies.awaited(),
            self.queued,
            self.leaving,
            self.upload.is_some(),
            self.state,
        )
    }

    /// The next thing to do, until there is none. `node_stops`: clients may still be reading their last replies.
    pub(in crate::shard) fn next_action(&mut self, now: Instant, node_stops: bool) -> Option<Action> {
        let is_over = self.phase != Phase::Open || self.peer_closed;
        if is_over && self.wait.is_none() && self.queued == 0 {
            // All that was received is parsed, and nothing else will be.
            self.give_up_split();
        }
        if self.sending.is_none() && !self.output.is_empty() {
            let since = *self.held_since.get_or_insert(now);
            let is_full = self.output.len() >= OUTPUT_BYTES_LOW;
            if self.replies.awaited() == 0 || is_full || now - since >= HOLD {
                self.held_since = None;
                let bytes = self.transport.sealed(std::mem::take(&mut self.output));
                self.sending = Some(Sending { from: 0, bytes: bytes.len() });
                self.progress = now;
                return Some(Action::Send(bytes));
            }
        }
        if is_over {
            return self.closing_action(node_stops);
        }
        if let Some(to) = self.leaving
            && self.receive == Receive::Off
        {
            if self.is_idle() {
                return Some(Action::HandOver(to));
            }
            if self.is_answered() || self.is_within_command() {
                // A part of a command came before the receive ended; its rest can only come here.
                self.leaving = None;
                return Some(Action::Stay(to));
            }
        }
        if self.receive == Receive::Off && self.wait.is_none() && self.leaving.is_none() {
            if self.upload.as_ref().is_some_and(|upload| upload.is_direct()) && self.input.is_empty() {
                if self.waits_to_move_value {
                    return None;
                }
                self.receive = Receive::Value;
                return Some(Action::ReceiveValue);
            }
            self.receive = Receive::Armed;
            return Some(Action::Receive { once: self.receives_once() });
        }
        None
    }

    /// The next step of a connection that is to be closed.
    fn closing_action(&mut self, node_stops: bool) -> Option<Action> {
        let is_down = matches!(self.phase, Phase::ShutDown | Phase::Abandoned);
        if !is_down && self.is_answered() {
            self.phase = Phase::ShutDown;
            // While the node stops, the client may still be reading its replies: only our direction is closed.
            let how = if node_stops { Shutdown::Write } else { Shutdown::Both };
            return Some(Action::ShutDown(how));
        }
        let in_flight = self.sending.is_some() || self.receive != Receive::Off;
        if is_down && !in_flight && (self.peer_closed || !node_stops) {
            return Some(Action::Close);
        }
        // After a half close, bytes are discarded until the peer closes its direction too.
        if self.phase == Phase::ShutDown && !self.peer_closed && self.receive == Receive::Off {
            self.receive = Receive::Armed;
            return Some(Action::Receive { once: false });
        }
        None
    }
}
