//! What clients may hold, and for how long.
//!
//! - **Client memory.** What connections hold outside of the arena, input, output and replies, is counted once per turn
//!   for those that something happened to. Where a shard's part of `--client-memory` is exceeded, the client that holds
//!   most is disconnected.
//! - **Pressure.** Uploads may have half of the memory; values that are still being sent although they have been
//!   replaced, an eighth. Where that is exceeded, the client that has made no progress for longest is disconnected, if
//!   that is a second or more for an upload, ten for a value that is being sent.
//! - **Stalls.** While there is memory, a client may take its time: `--client-stall-timeout`.
//! - **Unread replies.** A client that sends a long pipeline before it reads would wait for ever: the shard for it to
//!   take its replies, and it for the shard to take its commands. So the limit of its output is raised step by step,
//!   while client memory lasts.

use super::complaints::Complaint;
use super::connection::ConnectionId;
use super::shared::Pressure;
use super::{Io, Shard};
use crate::metrics::Counter;
use std::time::Duration;

/// A client that has made no progress with an upload for this long may be disconnected for the sake of others: they are
/// refused meanwhile.
const STALLED_UPLOAD: Duration = Duration::from_secs(1);

/// A client that has taken nothing of a replaced value for this long may be disconnected: the value shrinks the cache
/// for the others.
const STALLED_READER: Duration = Duration::from_secs(10);

/// After this long without progress, the output of a client may grow.
const NOT_READING: Duration = Duration::from_secs(1);

/// How often refused uploads have all connections searched for one that makes way.
const RELIEF_PERIOD: Duration = Duration::from_millis(50);

/// Of the memory, the part that replaced values may have which are still being sent.
const REPLACED_SHARE_MAX: u64 = 8;

/// The factor by which the output of a client that does not read may grow, per second.
const OUTPUT_GROWTH: usize = 8;

/// Free memory is returned to the system when clients hold this much less than they did.
const RETURNED_BYTES_MIN: usize = 8 << 20;

impl<I: Io> Shard<I> {
    /// This shard's part of the memory for clients, in bytes.
    pub(super) fn client_bytes_max(&self) -> usize {
        self.shared.config.client_memory_bytes as usize / self.shared.shards()
    }

    /// Disconnects the clients that hold most, until the others fit.
    #[inline]
    pub(super) fn bound_client_memory(&mut self) {
        if self.connections.memory_bytes() > self.client_bytes_max() {
            self.drop_largest();
        }
    }

    #[cold]
    fn drop_largest(&mut self) {
        self.client_bytes_peak = self.client_bytes_peak.max(self.connections.memory_bytes());
        while self.connections.memory_bytes() > self.client_bytes_max()
            && let Some(id) = self.connections.largest()
        {
            let held_bytes = self.connections.at(id).map_or(0, |connection| connection.counted_bytes);
            self.executor.counters.add(Counter::EvictedClients);
            if let Some(left_out) = self.complaints.due(Complaint::ClientMemory, self.instant) {
                tracing::warn!(
                    shard = self.id,
                    client = self.address(id),
                    held_bytes,
                    left_out,
                    "disconnected the client that holds most: --client-memory is exceeded"
                );
            }
            self.abandon(id);
            self.connections.count_memory(id);
        }
    }

    fn address(&self, id: ConnectionId) -> String {
        self.connections.socket(id).map_or_else(String::new, |socket| self.io.addresses(socket).0)
    }

    /// Once per tick: disconnects clients that have stalled, lets those go on that do not read, and returns memory.
    pub(super) fn enforce_limits(&mut self) {
        self.shared.pressure(self.id).tick();
        self.note_replaced_values();
        self.relieve();
        let output_bytes_max = 2 * self.client_bytes_max();
        for id in self.connections.ids() {
            let Some(connection) = self.connections.at(id) else { continue };
            let Some(stalled_for) = connection.stalled_for(self.instant) else { continue };
            if self.shared.config.client_stall.is_some_and(|limit| stalled_for > limit) {
                self.drop_stalled(id, "it made no progress for --client-stall-timeout");
            } else if stalled_for >= NOT_READING && connection.raise_output_limit(OUTPUT_GROWTH, output_bytes_max) {
                self.connections.may_resume(id);
            }
        }
        let held = self.connections.memory_bytes();
        self.client_bytes_peak = self.client_bytes_peak.max(held);
        if self.client_bytes_peak - held >= RETURNED_BYTES_MIN {
            self.client_bytes_peak = held;
            self.io.return_free_memory();
        }
    }

    fn drop_stalled(&mut self, id: ConnectionId, reason: &str) {
        self.executor.counters.add(Counter::StalledClients);
        if let Some(left_out) = self.complaints.due(Complaint::Stalled, self.instant) {
            tracing::info!(shard = self.id, client = self.address(id), reason, left_out, "disconnected a slow client");
        }
        self.abandon(id);
    }

    /// An upload was refused for want of memory: a client that has stalled makes way at once, those of siblings at
    /// their next tick.
    pub(super) fn note_refused_upload(&mut self) {
        if !self.executor.engine.take_upload_refusal() {
            return;
        }
        self.shared.pressure(self.id).set_uploads();
        if self.instant.saturating_duration_since(self.relieved) >= RELIEF_PERIOD {
            self.relieve();
        }
    }

    fn note_replaced_values(&self) {
        let engine = &self.executor.engine;
        if engine.replaced_bytes() > engine.memory_bytes() / REPLACED_SHARE_MAX {
            self.shared.pressure(self.id).set_replaced();
        }
    }

    /// Disconnects the client that has made no progress for longest, if it keeps memory that is needed.
    fn relieve(&mut self) {
        if !(0..self.shared.shards()).any(|shard| self.shared.pressure(shard).is_any()) {
            return;
        }
        self.relieved = self.instant;
        let mut slowest: Option<(Duration, ConnectionId)> = None;
        for id in self.connections.ids() {
            let Some(connection) = self.connections.at(id) else { continue };
            let [upload, download] = connection.long_value_owners();
            let Some(stalled_for) = connection.stalled_for(self.instant) else { continue };
            let pressed = |owner: Option<Option<usize>>, of: fn(&Pressure) -> bool| {
                owner.is_some_and(|owner| of(self.shared.pressure(owner.unwrap_or(self.id))))
            };
            let makes_way = pressed(upload, Pressure::of_uploads) && stalled_for >= STALLED_UPLOAD
                || pressed(download, Pressure::of_replaced) && stalled_for >= STALLED_READER;
            if makes_way && slowest.is_none_or(|(longest, _)| stalled_for > longest) {
                slowest = Some((stalled_for, id));
            }
        }
        if let Some((_, id)) = slowest {
            self.drop_stalled(id, "the memory that its long value occupies is needed");
        }
    }
}
