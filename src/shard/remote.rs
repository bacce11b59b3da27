//! The owner's half of long values: uploads that arrive for this shard's keys, and readers that siblings' clients use.
//!
//! They are named by the shard and the connection, or by a number, that they belong to. One that is not found has been
//! given up by the other side before its last task came.

use crate::command::Request;
use crate::engine::{KeyHash, Reader};
use crate::execute::{Executor, UploadTarget};
use crate::reactor::Token;
use crate::shard::connection::PIECE_BYTES;
use std::ops::Range;

/// A long value that arrives.
struct UploadSink {
    origin: Origin,
    target: UploadTarget,
}

/// A long value that a sibling's client is being sent.
struct RemoteRead {
    to: usize,
    stream: u64,
    reader: Reader,
}

/// The long values that this shard owns and that are under way.
#[derive(Default)]
pub(super) struct LongValues {
    uploads: Vec<UploadSink>,
    reads: Vec<RemoteRead>,
    /// The number of the last read.
    last_stream: u64,
}

/// A client that this shard does something for: its shard, and its connection there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) shard: usize,
    pub(super) token: Token,
}

impl LongValues {
    /// A value of `value_bytes` bytes will come from a client. `request` is its command without the value.
    pub(super) fn begin(
        &mut self,
        executor: &mut Executor,
        origin: Origin,
        hash: KeyHash,
        request: &Request<&[u8]>,
        value_bytes: usize,
    ) {
        let target = executor.begin_upload(request, hash, value_bytes);
        self.uploads.push(UploadSink { origin, target });
    }

    fn upload(&self, origin: Origin) -> Option<usize> {
        self.uploads.iter().position(|upload| upload.origin == origin)
    }

    /// A piece of a value. Returns how many bytes of it were taken: the rest is to come again in the next turn.
    pub(super) fn append(&mut self, executor: &mut Executor, origin: Origin, piece: &[u8]) -> usize {
        match self.upload(origin) {
            Some(index) => executor.append(&mut self.uploads[index].target, piece),
            None => piece.len(),
        }
    }

    /// Provides memory for the next bytes of a value that this shard's connection receives, `bytes_max` at most;
    /// returns how many there is room for.
    pub(super) fn provide(
        &mut self,
        executor: &mut Executor,
        origin: Origin,
        bytes_max: usize,
        ranges: &mut Vec<Range<usize>>,
    ) -> usize {
        match self.upload(origin) {
            Some(index) => executor.provide(&mut self.uploads[index].target, bytes_max, ranges),
            None => 0,
        }
    }

    /// `bytes` bytes came to the memory that was provided.
    pub(super) fn received(&mut self, executor: &mut Executor, origin: Origin, bytes: usize) {
        if let Some(index) = self.upload(origin) {
            executor.received(&self.uploads[index].target, bytes);
        }
    }

    /// The value is complete: takes it, to be stored.
    pub(super) fn complete(&mut self, origin: Origin) -> Option<UploadTarget> {
        let index = self.upload(origin)?;
        Some(self.uploads.swap_remove(index).target)
    }

    /// The value will not be completed.
    pub(super) fn abort(&mut self, executor: &mut Executor, origin: Origin) {
        if let Some(index) = self.upload(origin) {
            executor.abort_upload(self.uploads.swap_remove(index).target);
        }
    }

    /// Keeps a reader for a client of shard `to`; returns the number that it is known by.
    pub(super) fn lend(&mut self, to: usize, reader: Reader) -> u64 {
        self.last_stream += 1;
        self.reads.push(RemoteRead { to, stream: self.last_stream, reader });
        self.last_stream
    }

    fn read_of(&self, to: usize, stream: u64) -> Option<usize> {
        self.reads.iter().position(|read| read.to == to && read.stream == stream)
    }

    /// Appends the next piece of a value. The last one closes the reader.
    pub(super) fn read(&mut self, executor: &mut Executor, to: usize, stream: u64, out: &mut Vec<u8>) {
        let Some(index) = self.read_of(to, stream) else { return };
        let reader = &mut self.reads[index].reader;
        executor.copy(reader, PIECE_BYTES, out);
        if executor.engine.unread(reader) == 0 {
            self.close(executor, to, stream);
        }
    }

    /// Nobody wants the rest of a value.
    pub(super) fn close(&mut self, executor: &mut Executor, to: usize, stream: u64) {
        if let Some(index) = self.read_of(to, stream) {
            executor.close(self.reads.swap_remove(index).reader);
        }
    }

    /// True if none is under way. For the simulator's accounting.
    #[cfg(feature = "sim")]
    pub(super) fn is_empty(&self) -> bool {
        self.uploads.is_empty() && self.reads.is_empty()
    }
}
