//! Memory for large values that are still arriving.
//!
//! A value that does not fit a connection's small input buffer is collected in one of its own, and those of a shard are
//! bounded together: a value is admitted as a whole, before its bytes are read, so those that are admitted can always
//! become complete. The others wait in line, their bytes in the socket. A client that is too slow while others wait is
//! disconnected, so the line always moves.

use super::Shard;
use super::connection::{BUFFER_BYTES_KEPT, Ending, Wait};
use crate::reactor::Token;
use std::collections::VecDeque;
use std::time::Duration;

/// Bytes of a shard's large values under way, or one value, if that is larger.
const STAGED_BYTES_MAX: usize = 16 << 20;

/// While others wait, a client has this long for its value, and a second more for each `BYTES_PER_SECOND_MIN`.
const PATIENCE: Duration = Duration::from_secs(10);
const BYTES_PER_SECOND_MIN: usize = 256 << 10;

pub(super) struct Staging {
    used: usize,
    most: usize,
    /// First come, first admitted.
    waiting: VecDeque<Token>,
}

impl Staging {
    pub(super) fn new(value_bytes_max: usize) -> Self {
        // With its command line and line end, which are collected as well.
        Self { used: 0, most: STAGED_BYTES_MAX.max(value_bytes_max + 4096), waiting: VecDeque::new() }
    }
}

impl Shard {
    /// Reserves memory for the large value that a connection is waiting for, if it is, or makes the connection wait in line.
    pub(super) fn stage_if_large(&mut self, slot: u32) {
        let Some(connection) = self.connections.at(slot) else { return };
        let bytes = connection.needed;
        debug_assert!(bytes <= self.staging.most, "the parser refuses longer values");
        let is_large = bytes > BUFFER_BYTES_KEPT && connection.is_read();
        if !is_large || connection.blocked.is_some() || connection.staged >= bytes {
            return;
        }
        self.release_staged(slot);
        if self.staging.waiting.is_empty() && self.staging.used + bytes <= self.staging.most {
            self.admit(slot);
        } else if let Some(connection) = self.connections.at(slot) {
            connection.blocked = Some(Wait::Memory);
            connection.partial.shrink_to(BUFFER_BYTES_KEPT);
            self.staging.waiting.push_back(self.connections.token(slot));
            self.stop_receiving(slot);
        }
    }

    fn admit(&mut self, slot: u32) {
        let Some(connection) = self.connections.at(slot) else { return };
        let bytes = connection.needed;
        self.staging.used += bytes;
        connection.staged = bytes;
        connection.staged_until = self.instant + PATIENCE + Duration::from_secs((bytes / BYTES_PER_SECOND_MIN) as u64);
        // The last bytes of the value may come in one buffer with what follows it.
        let room = bytes + self.node.config.receive_buffer_bytes;
        connection.partial.reserve_exact(room.saturating_sub(connection.partial.len()));
    }

    /// Gives a connection's reservation back and admits those who are next in line.
    pub(super) fn release_staged(&mut self, slot: u32) {
        let Some(connection) = self.connections.at(slot) else { return };
        self.staging.used -= std::mem::take(&mut connection.staged);
        while let Some(&token) = self.staging.waiting.front() {
            let waiting = self.connections.get(token).filter(|c| c.blocked == Some(Wait::Memory) && c.staged == 0);
            if let Some(bytes) = waiting.map(|c| c.needed) {
                if self.staging.used + bytes > self.staging.most {
                    return;
                }
                self.admit(token.slot);
                self.may_resume(token.slot);
            }
            self.staging.waiting.pop_front();
        }
    }

    /// Disconnects who keeps others waiting.
    pub(super) fn drop_stalled(&mut self) {
        if self.staging.waiting.is_empty() {
            return;
        }
        for slot in 0..self.connections.slots() {
            let Some(connection) = self.connections.at(slot) else { continue };
            if connection.staged > 0 && connection.ending != Ending::ShutDown && self.instant > connection.staged_until
            {
                tracing::info!(shard = self.id, "disconnected a client that was too slow with a large value");
                self.abandon(slot);
            }
        }
    }
}
