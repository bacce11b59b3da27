//! Bytes that are sent or received in pieces: ranges of a shard's memory, without a copy.

use crate::sys::Lease;
use std::ops::Range;

/// What one send sends, or one receive receives: `head`, then ranges of leased memory, then `tail`.
#[derive(Debug)]
pub struct Pieces {
    /// Sent before the ranges. Empty for a receive.
    pub head: Vec<u8>,
    /// The memory that the ranges are in.
    pub memory: Lease,
    /// Ranges of that memory, in order.
    pub ranges: Vec<Range<usize>>,
    /// Sent after the ranges; or where the bytes after them are received: its length says how many.
    pub tail: Vec<u8>,
}

impl Pieces {
    /// Bytes of all of it.
    pub fn bytes(&self) -> usize {
        self.head.len() + self.bytes_in_ranges() + self.tail.len()
    }

    /// Bytes of the buffers: what is not in leased memory.
    pub fn bytes_in_buffers(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Bytes of the ranges.
    pub fn bytes_in_ranges(&self) -> usize {
        self.ranges.iter().map(|range| range.len()).sum()
    }

    /// All bytes from the offset `from` on, as the kernel will send them: for the simulator.
    #[cfg(any(test, feature = "sim"))]
    pub fn read(&self, from: usize) -> Vec<u8> {
        let mut bytes = self.head.clone();
        for range in &self.ranges {
            bytes.extend_from_slice(&self.memory.read(range));
        }
        bytes.extend_from_slice(&self.tail);
        bytes.split_off(from)
    }

    /// Stores received bytes, as the kernel does: for the simulator.
    #[cfg(any(test, feature = "sim"))]
    pub fn write(&mut self, mut bytes: &[u8]) {
        for range in &self.ranges {
            let count = bytes.len().min(range.len());
            self.memory.write(range, &bytes[..count]);
            bytes = &bytes[count..];
        }
        self.tail[..bytes.len()].copy_from_slice(bytes);
    }
}

/// Pieces in the hands of the kernel, and the vectors that name them.
pub(super) struct InFlight {
    pieces: Pieces,
    vectors: Vec<libc::iovec>,
    header: libc::msghdr,
}

impl InFlight {
    /// Everything from the offset `from` on.
    pub(super) fn new(mut pieces: Pieces, mut from: usize) -> Box<Self> {
        let mut vectors = Vec::with_capacity(pieces.ranges.len() + 2);
        let mut add = |at: *mut u8, length: usize| {
            let skipped = length.min(from);
            from -= skipped;
            if skipped < length {
                let iov_base = at.wrapping_add(skipped).cast();
                vectors.push(libc::iovec { iov_base, iov_len: length - skipped });
            }
        };
        add(pieces.head.as_mut_ptr(), pieces.head.len());
        for range in &pieces.ranges {
            add(pieces.memory.address(range), range.len());
        }
        add(pieces.tail.as_mut_ptr(), pieces.tail.len());
        // SAFETY: zero is a value of each of its fields: null pointers and numbers.
        let header: libc::msghdr = unsafe { std::mem::zeroed() };
        let mut this = Box::new(Self { pieces, vectors, header });
        this.header.msg_iov = this.vectors.as_mut_ptr();
        this.header.msg_iovlen = this.vectors.len();
        this
    }

    /// The message that names the pieces. It and all that it points to keep their addresses: the vectors and buffers
    /// are on the heap and not touched, and the memory is leased.
    pub(super) fn header(&mut self) -> *mut libc::msghdr {
        &raw mut self.header
    }

    /// The pieces, once the operation is over.
    pub(super) fn into_pieces(self) -> Pieces {
        self.pieces
    }
}
