//! Memory for large values that are still arriving.
//!
//! A value that does not fit a connection's small input buffer is collected in one of its own, and those of a shard are
//! bounded together: a value is admitted as a whole, before its bytes are read, so those that are admitted can always
//! become complete. The others wait in line, their bytes in the socket. A client that stalls while others wait is
//! disconnected, so the line always moves.

use super::Shard;
use super::connection::Ending;
use crate::reactor::Token;
use std::collections::VecDeque;
use std::time::Duration;

/// Bytes of a shard's large values under way, or one value, if that is larger.
const STAGED_BYTES_MAX: usize = 16 << 20;

/// How long a client may stall in the middle of a large value while others wait.
const STALL: Duration = Duration::from_secs(10);

pub(super) struct Staging {
    used: usize,
    most: usize,
    waiting: VecDeque<Token>,
}

impl Staging {
    pub(super) fn new(value_bytes_max: usize) -> Self {
        // With its command line and line end, which are collected as well.
        Self { used: 0, most: STAGED_BYTES_MAX.max(value_bytes_max + 4096), waiting: VecDeque::new() }
    }
}

impl Shard {
    /// Reserves memory for the value that a connection is waiting for, or makes the connection wait.
    pub(super) fn stage(&mut self, slot: u32) {
        let token = self.connections.token(slot);
        let Some(connection) = self.connections.at(slot) else { return };
        if connection.blocked || connection.staged > 0 {
            return;
        }
        let bytes = connection.needed;
        if self.staging.used + bytes > self.staging.most {
            connection.blocked = true;
            self.staging.waiting.push_back(token);
            self.stop_receiving(slot);
            return;
        }
        self.staging.used += bytes;
        connection.staged = bytes;
        connection.partial.reserve_exact(bytes - connection.partial.len());
    }

    /// Gives a connection's reservation back and lets the next in line try.
    pub(super) fn release_staged(&mut self, slot: u32) {
        let Some(connection) = self.connections.at(slot) else { return };
        let bytes = std::mem::take(&mut connection.staged);
        if bytes == 0 {
            return;
        }
        self.staging.used -= bytes;
        for token in std::mem::take(&mut self.staging.waiting) {
            if self.connections.get(token).is_some() {
                self.resumable.push(token.slot);
            }
        }
        // The list is worked off from its end: the first in line goes first.
        self.resumable.reverse();
    }

    /// Disconnects who keeps others waiting.
    pub(super) fn drop_stalled(&mut self) {
        if self.staging.waiting.is_empty() {
            return;
        }
        for slot in 0..self.connections.slots() {
            let Some(connection) = self.connections.at(slot) else { continue };
            if connection.staged > 0 && connection.ending == Ending::Open && self.instant - connection.progress > STALL
            {
                tracing::info!(shard = self.id, "disconnected a client that stalled in the middle of a large value");
                connection.abandon();
                self.touch(slot);
            }
        }
    }
}
