//! A long value on its way to a client, from the connection's side.
//!
//! The owner of the key has a reader, which keeps the value as it was when the command was executed. The connection
//! asks for the next piece when most of its output has been sent: from its own shard's engine, or from a sibling, one
//! piece at a time. The download is an entry of the reply queue, so replies behind it wait.

use crate::engine::Reader;
use crate::execute::LongReply;

/// Bytes that are read at a time.
pub(in crate::shard) const PIECE_BYTES: usize = 64 << 10;

/// A long value that is being sent.
#[derive(Debug)]
pub(in crate::shard) struct Download {
    pub(in crate::shard) source: Source,
    /// What is sent before the value, until it has been written.
    head: Vec<u8>,
    /// What is sent after it.
    tail: Vec<u8>,
    /// Bytes of the value that are still to be written to the output.
    left: usize,
}

/// How a sibling announces that a reply is a long value, to be read piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct StreamStart {
    /// Bytes of the reply that come before the value; the rest come after it.
    pub(in crate::shard) head_bytes: usize,
    /// The number that the owner knows it by.
    pub(in crate::shard) stream: u64,
    /// Bytes of the value.
    pub(in crate::shard) length: usize,
}

/// Where a value is read.
#[derive(Debug)]
pub(in crate::shard) enum Source {
    /// In this shard's engine.
    Local(Reader),
    /// At a sibling. `asked`: a piece is under way.
    Remote { owner: usize, stream: u64, asked: bool },
}

/// The next piece to fetch.
#[derive(Debug)]
pub(in crate::shard) enum Fetch<'d> {
    Local(&'d mut Reader),
    Remote { owner: usize, stream: u64 },
}

impl Download {
    pub(in crate::shard) fn local(reply: LongReply) -> Self {
        let LongReply { head, tail, length, reader } = reply;
        Self { source: Source::Local(reader), head, tail, left: length }
    }

    /// A value at `owner`; `reply` is what comes before it and after it.
    pub(in crate::shard) fn remote(owner: usize, start: &StreamStart, reply: &[u8]) -> Self {
        let (head, tail) = reply.split_at(start.head_bytes);
        let source = Source::Remote { owner, stream: start.stream, asked: false };
        Self { source, head: head.into(), tail: tail.into(), left: start.length }
    }

    /// Writes what comes before the value, once, and says where to fetch the next piece. None while one is under way.
    pub(super) fn next_fetch(&mut self, output: &mut Vec<u8>) -> Option<Fetch<'_>> {
        output.append(&mut self.head);
        match &mut self.source {
            Source::Local(reader) => Some(Fetch::Local(reader)),
            Source::Remote { asked: true, .. } => None,
            Source::Remote { owner, stream, asked } => {
                *asked = true;
                Some(Fetch::Remote { owner: *owner, stream: *stream })
            }
        }
    }

    /// The sibling that owns the value; none if this shard does.
    pub(in crate::shard) fn owner(&self) -> Option<usize> {
        match self.source {
            Source::Local(_) => None,
            Source::Remote { owner, .. } => Some(owner),
        }
    }

    /// The reader of a value of this shard.
    pub(in crate::shard) fn local_reader(&mut self) -> Option<&mut Reader> {
        match &mut self.source {
            Source::Local(reader) => Some(reader),
            Source::Remote { .. } => None,
        }
    }

    /// Notes that a piece of `bytes` bytes has been written to the output. True if it was the last.
    pub(super) fn piece_written(&mut self, bytes: usize) -> bool {
        if let Source::Remote { asked, .. } = &mut self.source {
            *asked = false;
        }
        self.left -= bytes;
        self.left == 0
    }

    /// What comes after the value, and where it was read.
    pub(super) fn finish(self) -> (Vec<u8>, Source) {
        (self.tail, self.source)
    }
}
