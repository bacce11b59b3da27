//! Long values between a shard's connections and the owners of their keys, in both directions.
//!
//! The connection's half is in `connection/upload.rs` and `connection/download.rs`, the owner's in `remote.rs`; this
//! file carries pieces from one to the other, directly or in batches.

use super::batch::TaskKind;
use super::connection::{ConnectionId, Fetch, PIECE_BYTES, Source, UploadSource, UploadStep, Wait};
use super::faults::{self, Fault};
use super::holds::Waiting;
use super::remote::Origin;
use super::{Io, Shard};
use crate::command::{Args, Call, Command, Operation, Request, Session};
use crate::engine::{KEY_BYTES_MAX, KeyHash};
use crate::metrics::Counter;
use crate::protocol::State;
use crate::protocol::resp::{Limits, UPLOAD_KEY_BYTES_MAX};
use crate::reactor::Token;

/// Bytes that travel to a sibling as one piece.
const UPLOAD_PIECE_BYTES: usize = 16 << 10;

const _: () = assert!(UPLOAD_KEY_BYTES_MAX <= KEY_BYTES_MAX, "an upload's key can be stored");

impl<I: Io> Shard<I> {
    /// A client of this shard.
    pub(super) fn origin(&self, token: Token) -> Origin {
        Origin { shard: self.id, token }
    }

    /// True if a connection may begin with a long value. Otherwise it waits for its output to be sent, and its input is
    /// set back to the command.
    pub(super) fn may_begin_upload(&mut self, id: ConnectionId, rest: &[u8], state: State) -> bool {
        let Some(connection) = self.connections.at(id).filter(|c| c.is_served()) else { return false };
        if connection.must_wait() {
            self.executor.counters.add(Counter::ConnYields);
            self.set_back(id, Wait::Output, rest, state);
            return false;
        }
        connection.needed = 0;
        true
    }

    /// Begins a long value that a connection announces: `request` is its command without the value, `args_after` the
    /// number of arguments behind it.
    pub(super) fn begin_upload(
        &mut self,
        id: ConnectionId,
        hash: KeyHash,
        mut request: Request<&[u8]>,
        value_bytes: usize,
        args_after: usize,
    ) {
        let token = self.connections.token(id);
        let Some(connection) = self.connections.at(id) else { return };
        request.session.noreply |= connection.take_noreply();
        let owner = usize::from(self.shared.slots.owner(request.key));
        let owner = (owner != self.id).then_some(owner);
        let upload = UploadSource::new(owner, value_bytes, args_after);
        let makes_way = upload.makes_way();
        connection.upload = Some(Box::new(upload));
        connection.on_upload_progress(self.instant);
        if makes_way {
            connection.expect_long_values();
        }
        match owner {
            None => {
                let origin = self.origin(token);
                self.long_values.begin(&mut self.executor, origin, hash, &request, value_bytes);
            }
            Some(owner) => self.router.batch(owner).push_begin(token, hash, &request, value_bytes),
        }
        if makes_way {
            self.stop_receiving(id);
        }
    }

    /// Begins the long value of a command of RESP, whose arguments up to the value are `args`.
    pub(super) fn begin_resp_upload(
        &mut self,
        id: ConnectionId,
        args: Args,
        value_bytes: usize,
        args_after: usize,
        session: Session,
    ) {
        let Some((name, before)) = args.split_first() else { return };
        let (Some(command), Some(key)) = (Command::find(name), before.iter().next()) else { return };
        let call = Call { command, count: before.len() as u32, args: before.bytes() };
        let mut hash = self.shared.hasher.hash(key);
        if session.database != 0 {
            hash = hash.in_database(session.database);
        }
        let request = Request { key, operation: Operation::Call(call), session };
        self.begin_upload(id, hash, request, value_bytes, args_after);
    }

    /// Takes what a connection has received of its long value; returns how many bytes that was: all of them, if the
    /// connection has to wait.
    pub(super) fn take_upload(&mut self, id: ConnectionId, input: &[u8]) -> usize {
        let limits = Limits::authenticated(self.shared.config.resp_item_bytes as usize);
        let token = self.connections.token(id);
        let mut at = 0;
        loop {
            let Some(connection) = self.connections.at(id) else { return input.len() };
            let state = connection.state;
            connection.on_upload_progress(self.instant);
            let Some(upload) = connection.upload.as_deref_mut() else { return at };
            let rest = &input[at..];
            match (upload.step(rest, &limits), upload.owner()) {
                (UploadStep::Piece(piece), None) => {
                    let origin = Origin { shard: self.id, token };
                    let taken = self.long_values.append(&mut self.executor, origin, piece);
                    upload.taken(taken);
                    at += taken;
                    if taken < piece.len() {
                        // Its memory is being evicted; other clients have their turn in between.
                        self.set_back(id, Wait::Turn, &input[at..], state);
                        return input.len();
                    }
                }
                (UploadStep::Piece(_), Some(owner)) if !self.router.has_room(owner..owner + 1) => {
                    self.set_back(id, Wait::Mesh, rest, state);
                    return input.len();
                }
                (UploadStep::Piece(piece), Some(owner)) => {
                    let piece = &piece[..piece.len().min(UPLOAD_PIECE_BYTES)];
                    upload.taken(piece.len());
                    self.router.batch(owner).push_piece(token, piece);
                    if faults::has(Fault::DoublePiece) {
                        self.router.batch(owner).push_piece(token, piece);
                    }
                    at += piece.len();
                }
                (UploadStep::Incomplete, _) => return input.len(),
                (UploadStep::Complete { used }, _) => {
                    self.finish_upload(id);
                    return at + used;
                }
                (UploadStep::Broken(error), _) => {
                    self.drop_upload(id);
                    self.break_off(id, error);
                    return input.len();
                }
            }
        }
    }

    /// A connection's long value is complete.
    fn finish_upload(&mut self, id: ConnectionId) {
        let token = self.connections.token(id);
        let origin = self.origin(token);
        let Self { connections, executor, long_values, router, holds, .. } = self;
        let Some(connection) = connections.answering(id) else { return };
        let Some(upload) = connection.upload.take() else { return };
        let (intact, after) = upload.end();
        if let Some(owner) = upload.owner() {
            let sequence = connection.replies.expect_reply();
            router.batch(owner).push_finish(token, sequence, intact, after);
            return;
        }
        let Some(target) = long_values.complete(origin) else { return };
        if holds.must_wait(origin, target.hash()) {
            let sequence = connection.replies.expect_reply();
            holds.wait(Waiting::finish(origin, sequence, target, intact, after));
            return;
        }
        connection.write(|out| executor.finish_upload(target, intact, after, out));
    }

    /// Gives up the long value that a connection was sending, if it was.
    pub(super) fn drop_upload(&mut self, id: ConnectionId) {
        let token = self.connections.token(id);
        let Some(connection) = self.connections.at(id) else { return };
        if connection.upload.is_some() && connection.is_receiving_value() {
            // The kernel writes to the value's memory until the receive has ended.
            connection.discard_input();
            if !std::mem::replace(&mut connection.upload_is_dropped, true) {
                self.io.cancel_receive_pieces(token);
            }
            return;
        }
        let Some(upload) = connection.upload.take() else { return };
        connection.discard_input();
        if faults::has(Fault::LeakedUpload) {
            return;
        }
        match upload.owner() {
            Some(owner) => self.router.batch(owner).push_task(token, TaskKind::AbortUpload),
            None => {
                let origin = self.origin(token);
                self.long_values.abort(&mut self.executor, origin);
            }
        }
    }

    /// Writes more of a connection's long value to its output, if one is next and there is room for it.
    pub(super) fn fetch_more(&mut self, id: ConnectionId) {
        if !self.connections.at(id).is_some_and(|connection| connection.replies.has_downloads()) {
            return;
        }
        let token = self.connections.token(id);
        let pieces_bytes_max = self.pieces_bytes_max();
        while let Some(connection) = self.connections.answering(id) {
            let is_sending = connection.is_sending();
            match connection.next_fetch() {
                None => return,
                Some(Fetch::Remote { owner, stream }) => {
                    self.router.batch(owner).push_task(token, TaskKind::ReadStream { stream });
                    return;
                }
                Some(Fetch::Local(_)) if is_sending => return,
                Some(Fetch::Local(_)) if self.piece_bytes_left == 0 => return self.connections.wait_to_move_value(id),
                Some(Fetch::Local(reader)) => {
                    let mut ranges = Vec::new();
                    let in_pages = self.executor.engine.read_pages(reader, pieces_bytes_max, &mut ranges);
                    if in_pages > 0 {
                        return self.send_value(id, ranges, in_pages);
                    }
                    let piece = self.executor.engine.read(reader, PIECE_BYTES);
                    let bytes = piece.len();
                    connection.output.extend_from_slice(piece);
                    if let Some(source) = connection.on_fetched(bytes) {
                        self.close_download(source, token);
                        self.connections.output_has_room(id);
                    }
                }
            }
        }
    }

    /// A sibling sent a piece of a connection's long value.
    pub(super) fn take_piece(&mut self, token: Token, piece: &[u8]) {
        let Some(connection) = self.connections.get(token) else { return };
        if connection.on_piece(piece) {
            self.connections.output_has_room(token.slot);
        }
        self.connections.touch(token.slot);
    }

    /// Closes the reader of a long value that a connection is not sent to the end, or no more.
    pub(super) fn close_download(&mut self, source: Source, token: Token) {
        match source {
            Source::Local(reader) => self.executor.close(reader),
            Source::Remote { owner, stream, .. } => self.router.close_stream(owner, stream, token),
        }
    }
}
