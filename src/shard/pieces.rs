//! Long values between a connection's socket and this shard's memory, without a copy.
//!
//! The whole pages of a value lie still: the kernel sends them from there, and receives into them. What else belongs to
//! the value, the blocks after its whole pages, may be moved by evacuation at any time, so those bytes are copied.
//!
//! - **Sending.** While pieces are in flight, the connection holds a reader of the value, so that its pages are not
//!   freed, whatever happens to the key or to the download.
//! - **Receiving.** While the kernel writes to the pages of an upload, the upload stays: one that is given up is
//!   aborted when the receive has ended (`Shard::drop_upload`).

use super::connection::{ConnectionId, PIECE_BYTES};
use super::{Io, Shard};
use crate::metrics::Counter;
use crate::protocol::memcached::LINE_END;
use crate::reactor::{Errno, Pieces, Token};
use std::ops::Range;

/// Bytes of a value that are sent at once, at most and at least.
const PIECES_BYTES_MAX: usize = 1 << 20;
const PIECES_BYTES_MIN: usize = 256 << 10;

/// Bytes of values that are sent in a turn, or that the kernel is asked to receive, about: it copies them while the
/// shard waits for it, some 5 ms. Connections beyond that are first in the next turn.
const PIECES_BYTES_PER_TURN: usize = 16 << 20;

/// Bytes of a value that are received at once, at most. The client's progress shows when all of them have come.
const RECEIVED_BYTES_MAX: usize = 256 << 10;

impl<I: Io> Shard<I> {
    /// Bytes of a value that are sent at once: less where many connections are active, or have values under way.
    pub(super) fn pieces_bytes_max(&self) -> usize {
        let sharers = self.active.max(self.values_in_flight).max(1);
        (PIECES_BYTES_PER_TURN / sharers).clamp(PIECES_BYTES_MIN, PIECES_BYTES_MAX)
    }

    /// A turn begins: so many bytes may be moved in it, first by the connections that had to wait for that.
    pub(super) fn resume_values(&mut self) {
        self.piece_bytes_left = PIECES_BYTES_PER_TURN;
        self.connections.resume_value_waiters();
    }

    /// True if a connection may move bytes of a long value in this turn. If not, it waits for the next.
    pub(super) fn may_move_value(&mut self, id: ConnectionId) -> bool {
        if self.piece_bytes_left > 0 {
            return true;
        }
        self.connections.wait_to_move_value(id);
        false
    }

    /// Sends what a connection's output holds, and behind it these pages, whose `in_pages` bytes a reader of its front
    /// download has just passed. What follows them comes along, as far as it is ready.
    pub(super) fn send_value(&mut self, id: ConnectionId, ranges: Vec<Range<usize>>, in_pages: usize) {
        let token = self.connections.token(id);
        let pieces_bytes_max = self.pieces_bytes_max();
        let Some(connection) = self.connections.answering(id) else { return };
        let Some(reader) = connection.replies.front_download().and_then(|download| download.local_reader()) else {
            return;
        };
        let engine = &mut self.executor.engine;
        connection.sent_value = Some(engine.pin(reader));
        let mut tail = Vec::new();
        if in_pages < pieces_bytes_max {
            self.executor.copy(reader, PIECE_BYTES, &mut tail);
        }
        self.piece_bytes_left = self.piece_bytes_left.saturating_sub(in_pages + tail.len());
        let head = std::mem::take(&mut connection.output);
        let finished = connection.on_fetched(in_pages + tail.len());
        // After the last byte, what ends the reply and the replies behind it are in the output.
        tail.append(&mut connection.output);
        let pieces = Pieces { head, memory: self.executor.engine.lease(), ranges, tail };
        connection.on_sending_pieces(&pieces, self.instant);
        if let Some(source) = finished {
            self.close_download(source, token);
            self.connections.output_has_room(id);
        }
        if let Some(socket) = self.connections.socket(id) {
            self.values_in_flight += 1;
            self.io.send_pieces(token, socket, pieces, 0);
        }
    }

    /// A send of pieces completed, possibly in part.
    pub(super) fn on_sent_pieces(&mut self, token: Token, pieces: Pieces, result: Result<usize, Errno>) {
        self.executor.counters.add_n(Counter::BytesWritten, *result.as_ref().unwrap_or(&0) as u64);
        let now = self.instant;
        let Some(connection) = self.connections.get(token) else { return };
        match connection.on_sent(result.ok(), now) {
            Some(from) => {
                if let Some(socket) = self.connections.socket(token.slot) {
                    self.io.send_pieces(token, socket, pieces, from);
                }
            }
            None => {
                self.values_in_flight -= 1;
                connection.piece_buffer_bytes -= pieces.bytes_in_buffers();
                if let Some(reader) = connection.sent_value.take() {
                    self.executor.close(reader);
                }
                self.connections.give_back(pieces.head);
            }
        }
        if result.is_err() {
            self.abandon(token.slot);
        }
        self.connections.touch(token.slot);
        self.connections.output_has_room(token.slot);
    }

    /// Receives the rest of a connection's long value where it will lie: as much of it as there is memory for at once.
    pub(super) fn receive_value(&mut self, id: ConnectionId) {
        let token = self.connections.token(id);
        if !self.may_move_value(id) {
            if let Some(connection) = self.connections.at(id) {
                connection.wait_to_receive_value();
            }
            return;
        }
        let origin = self.origin(token);
        let mut ranges = Vec::new();
        let bytes_max = self.pieces_bytes_max().min(RECEIVED_BYTES_MAX);
        let provided = self.long_values.provide(&mut self.executor, origin, bytes_max, &mut ranges);
        self.piece_bytes_left = self.piece_bytes_left.saturating_sub(provided);
        let Some(connection) = self.connections.at(id) else { return };
        let left = connection.upload.as_ref().map_or(0, |upload| upload.left());
        if provided == 0 {
            // Its memory is being evicted, or the value is dropped as it arrives.
            connection.receive_value_by_buffer();
            self.connections.queue_frugal(token);
            return;
        }
        // Behind the whole pages come the last bytes of the value and its line end, whose number is known.
        let behind = if provided < bytes_max { left - provided + LINE_END.len() } else { 0 };
        let tail = if behind <= PIECE_BYTES { vec![0; behind] } else { Vec::new() };
        let pieces = Pieces { head: Vec::new(), memory: self.executor.engine.lease(), ranges, tail };
        connection.piece_buffer_bytes += pieces.bytes_in_buffers();
        if let Some(socket) = self.connections.socket(id) {
            self.values_in_flight += 1;
            self.io.receive_pieces(token, socket, pieces);
        }
    }

    /// A receive into pieces ended.
    pub(super) fn on_received_pieces(&mut self, token: Token, pieces: &Pieces, result: Result<usize, Errno>) {
        self.values_in_flight -= 1;
        if let Some(connection) = self.connections.get(token) {
            connection.piece_buffer_bytes -= pieces.bytes_in_buffers();
        }
        let bytes = match result {
            Ok(0) => return self.on_value_receive_ended(token, None),
            Ok(bytes) => bytes,
            Err(errno) => return self.on_value_receive_ended(token, Some(errno)),
        };
        let origin = self.origin(token);
        let Some(connection) = self.connections.get(token) else { return };
        let in_pages = bytes.min(pieces.bytes_in_ranges());
        connection.on_upload_progress(self.instant);
        if let Some(upload) = &mut connection.upload {
            upload.taken(in_pages);
            self.long_values.received(&mut self.executor, origin, in_pages);
        }
        self.executor.counters.add_n(Counter::BytesRead, in_pages as u64);
        let mut pending = Vec::new();
        let is_dropped = connection.upload_is_dropped;
        self.on_received(token, &pieces.tail[..bytes - in_pages], false, &mut pending);
        self.execute(&mut pending);
        if is_dropped {
            self.drop_received(token.slot);
        }
    }

    fn on_value_receive_ended(&mut self, token: Token, errno: Option<Errno>) {
        self.on_receive_ended(token, errno);
        if self.connections.get(token).is_some_and(|connection| connection.upload_is_dropped) {
            self.drop_received(token.slot);
        }
    }

    /// Gives up the long value that was to be given up when its receive has ended.
    fn drop_received(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.at(id) {
            connection.upload_is_dropped = false;
            self.drop_upload(id);
        }
    }
}
