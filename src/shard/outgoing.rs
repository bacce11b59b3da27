//! Long values that are being sent, each read piece by piece from where it lies.
//!
//! The owner of the key has a reader for it (`Engine::fetch`), which keeps the value as it was. A connection takes the next
//! piece when most of its output has been sent: from the engine, or from a sibling by a request for one piece at a time.
//! What comes after the value in the order of replies waits. A client that does not take its value in time is disconnected,
//! and the reader closed.

use super::Shard;
use super::batch::Task;
use super::connection::{OUTPUT_BYTES_LOW, Wait};
use crate::engine::Reader;
use crate::reactor::Token;
use std::time::{Duration, Instant};

/// Values up to this length are copied into the replies as a whole.
pub(super) const COPIED_BYTES_MAX: usize = 64 << 10;

/// Bytes that are taken at a time.
const PIECE_BYTES: usize = 64 << 10;

/// A client that takes nothing of its value for this long is gone. For all of it, it has as long, and a second more for each
/// `BYTES_PER_SECOND_MIN`.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND_MIN: usize = 64 << 10;

/// A long value on its way out, from the connection's side.
pub(super) struct Outgoing {
    pub(super) source: Source,
    /// What comes before the value, until it has been written.
    pub(super) head: Vec<u8>,
    /// And after it.
    pub(super) tail: Vec<u8>,
    /// Bytes of the value that are still to be written to the output.
    pub(super) left: usize,
    /// When the client has to have taken it, once it is its turn.
    pub(super) until: Option<Instant>,
}

/// Where the value is.
pub(super) enum Source {
    Here(Reader),
    /// At a sibling, which knows it by a number.
    There {
        owner: usize,
        stream: u64,
        sequence: u32,
        asked: bool,
    },
}

/// A long value that the clients of siblings are sent.
pub(super) struct Sent {
    to: usize,
    stream: u64,
    reader: Reader,
}

/// In a batch: the reply to a request is a long value.
#[derive(Debug)]
pub(super) struct StreamStart {
    /// Which of this round's replies. The reply itself is what comes before the value, and after it, together.
    pub(super) reply: usize,
    pub(super) head_bytes: usize,
    pub(super) stream: u64,
    pub(super) length: usize,
}

impl Shard {
    /// A sibling's reply turned out to be a long value: it is fetched piece by piece, when those before it are out.
    pub(super) fn begin_outgoing(
        &mut self,
        token: Token,
        sequence: u32,
        owner: usize,
        start: &StreamStart,
        reply: &[u8],
    ) {
        let stream = start.stream;
        let Some(connection) = self.connections.get(token).filter(|c| !c.is_abandoned()) else {
            self.routes[owner].filling.push_task(token, Task::CloseStream { stream });
            return;
        };
        let (head, tail) = reply.split_at(start.head_bytes);
        let source = Source::There { owner, stream, sequence, asked: false };
        let outgoing = Outgoing { source, head: head.into(), tail: tail.into(), left: start.length, until: None };
        // In the order of replies, which siblings do not keep.
        let place = connection.order.place(sequence);
        let is_before = |o: &Outgoing| match o.source {
            Source::Here(_) => false,
            Source::There { sequence, .. } => connection.order.place(sequence) < place,
        };
        let at = connection.outgoing.iter().take_while(|o| is_before(o)).count();
        connection.outgoing.insert(at, outgoing);
        connection.progress = self.instant;
        self.touch(token.slot);
    }

    /// Writes more of a connection's long value to its output, if there is one and room for it.
    pub(super) fn write_outgoing(&mut self, slot: u32) {
        let token = self.connections.token(slot);
        let Self { connections, engine, outputs, routes, instant, .. } = self;
        let Some(connection) = connections.at(slot) else { return };
        loop {
            let Some(outgoing) = connection.outgoing.front_mut() else { return };
            let is_next = match outgoing.source {
                Source::Here(_) => connection.order.is_empty(),
                Source::There { sequence, .. } => connection.order.is_front(sequence),
            };
            if !is_next || connection.output.len() >= OUTPUT_BYTES_LOW {
                return;
            }
            let seconds = (outgoing.left / BYTES_PER_SECOND_MIN) as u64;
            outgoing.until.get_or_insert(*instant + PATIENCE + Duration::from_secs(seconds));
            outputs.provide(&mut connection.output);
            connection.output.append(&mut outgoing.head);
            match &mut outgoing.source {
                Source::Here(reader) => {
                    let piece = engine.read(reader, PIECE_BYTES);
                    connection.output.extend_from_slice(piece);
                    outgoing.left -= piece.len();
                }
                Source::There { asked: true, .. } => return,
                Source::There { owner, stream, asked, .. } => {
                    *asked = true;
                    routes[*owner].filling.push_task(token, Task::ReadOn { stream: *stream });
                    return;
                }
            }
            if outgoing.left == 0 {
                self.finish_outgoing(slot);
                return;
            }
        }
    }

    /// A piece of a connection's long value has come from the sibling.
    pub(super) fn take_piece(&mut self, token: Token, piece: &[u8]) {
        let Some(connection) = self.connections.get(token) else { return };
        let Some(outgoing) = connection.outgoing.front_mut() else { return };
        let Source::There { asked, .. } = &mut outgoing.source else { return };
        *asked = false;
        connection.output.extend_from_slice(piece);
        outgoing.left -= piece.len();
        let is_last = outgoing.left == 0;
        self.touch(token.slot);
        if is_last {
            self.finish_outgoing(token.slot);
        }
    }

    /// The front value has been written as a whole: what waited for it goes on.
    fn finish_outgoing(&mut self, slot: u32) {
        let Some(connection) = self.connections.at(slot) else { return };
        let Some(outgoing) = connection.outgoing.pop_front() else { return };
        match outgoing.source {
            Source::Here(reader) => {
                connection.output.extend_from_slice(&outgoing.tail);
                self.engine.close(reader);
            }
            Source::There { sequence, .. } => {
                connection.order.fulfil(sequence, &outgoing.tail, &mut connection.output);
            }
        }
        self.touch(slot);
        if self.connections.at(slot).is_some_and(|c| c.blocked == Some(Wait::Output)) {
            self.may_resume(slot);
        }
    }

    /// Gives up the long values that a connection was to be sent.
    pub(super) fn drop_outgoing(&mut self, slot: u32) {
        let token = self.connections.token(slot);
        let Some(connection) = self.connections.at(slot) else { return };
        for outgoing in std::mem::take(&mut connection.outgoing) {
            match outgoing.source {
                Source::Here(reader) => self.engine.close(reader),
                Source::There { owner, stream, .. } => {
                    self.routes[owner].filling.push_task(token, Task::CloseStream { stream })
                }
            }
        }
    }

    /// The owner's side: notes a reader for a sibling's client; returns the number that it is known by.
    pub(super) fn lend(&mut self, to: usize, reader: Reader) -> u64 {
        self.last_stream += 1;
        self.lent.push(Sent { to, stream: self.last_stream, reader });
        self.last_stream
    }

    /// The owner's side: appends the next piece of a value. The last one closes the reader.
    pub(super) fn read_on(&mut self, to: usize, stream: u64, out: &mut Vec<u8>) {
        let Some(number) = self.lent.iter().position(|s| s.to == to && s.stream == stream) else { return };
        let end = out.len() + PIECE_BYTES;
        while out.len() < end && self.engine.unread(&self.lent[number].reader) > 0 {
            let bytes_max = end - out.len();
            out.extend_from_slice(self.engine.read(&mut self.lent[number].reader, bytes_max));
        }
        if self.engine.unread(&self.lent[number].reader) == 0 {
            self.stop_lending(to, stream);
        }
    }

    /// The owner's side: nobody wants the rest of a value.
    pub(super) fn stop_lending(&mut self, to: usize, stream: u64) {
        if let Some(number) = self.lent.iter().position(|s| s.to == to && s.stream == stream) {
            let reader = self.lent.swap_remove(number).reader;
            self.engine.close(reader);
        }
    }
}
