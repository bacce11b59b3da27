//! Receive buffers: one io_uring buffer ring per shard, shared by all of its connections.
//!
//! ```text
//! mapping: | entries: count x 16 B, one page at least | buffer 0 | buffer 1 | ... |
//! ```
//!
//! A [`Buffer`] is the exclusive right to read one buffer. It is created when the kernel fills the buffer, and consumed
//! by [`ReceiveBuffers::give_back`]; only after that may the kernel write to the buffer again.

use crate::sys::Mapping;
use io_uring::{Submitter, types::BufRingEntry};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

/// The only buffer group of a uring.
pub(super) const GROUP: u16 = 0;

/// Most buffers in a buffer ring.
pub const COUNT_MAX: u16 = 1 << 15;

/// Padding between consecutive buffers. Small requests use only the first lines of a buffer; at distances of a power of
/// two, these lines of all buffers would compete for the same cache sets.
const COLOUR_BYTES: usize = 3 * 64;

/// A filled buffer: read it with [`ReceiveBuffers::bytes`], then give it back.
#[derive(Debug)]
pub struct Buffer {
    id: u16,
    length: u32,
}

impl Buffer {
    pub(super) fn new(id: u16, length: u32) -> Self {
        Self { id, length }
    }
}

/// Receive buffers shared with the kernel.
pub struct ReceiveBuffers {
    /// Start of the mapping. The kernel writes to it, so it is never borrowed as a whole.
    at: *mut u8,
    /// Keeps the mapping alive. The reactor holds another reference, so the kernel never writes to unmapped memory.
    memory: Rc<Mapping<u8>>,
    count: u16,
    buffer_bytes: usize,
    tail: u16,
}

impl ReceiveBuffers {
    /// Registers `count` buffers, a power of two, of `buffer_bytes` each.
    pub(super) fn register(submitter: &Submitter, count: u16, buffer_bytes: usize) -> io::Result<Self> {
        assert!(count.is_power_of_two() && count <= COUNT_MAX, "a buffer ring of {count}");
        let mut memory = Mapping::new(entries_bytes(count) + usize::from(count) * (buffer_bytes + COLOUR_BYTES))?;
        // Huge pages only improve speed, so a refusal does not matter.
        let _ = memory.advise_huge_pages();
        let at = memory.as_mut_ptr();
        // SAFETY: the entries lie at the start of a page-aligned mapping that is large enough for them, and that the
        // reactor keeps until its uring is gone.
        unsafe { submitter.register_buf_ring_with_flags(at as u64, count, GROUP, 0)? };
        let mut buffers = Self { at, memory: Rc::new(memory), count, buffer_bytes, tail: 0 };
        for id in 0..count {
            buffers.push(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// A reference to the mapping, for the owner that has to outlive the kernel's use of it.
    pub(super) fn memory(&self) -> Rc<Mapping<u8>> {
        Rc::clone(&self.memory)
    }

    /// The bytes received into a buffer.
    #[inline]
    pub fn bytes(&self, buffer: &Buffer) -> &[u8] {
        assert!(buffer.id < self.count && buffer.length as usize <= self.buffer_bytes, "a buffer of another ring");
        // SAFETY: the range is one buffer of the mapping. The kernel gave it to us (there is a `Buffer`) and does not
        // write there before it is given back, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.at.add(self.offset(buffer.id)), buffer.length as usize) }
    }

    /// Returns buffers to the kernel.
    pub fn give_back(&mut self, buffers: impl Iterator<Item = Buffer>) {
        let before = self.tail;
        for buffer in buffers {
            assert!(buffer.id < self.count, "a buffer of another ring");
            self.push(buffer.id);
        }
        if self.tail != before {
            self.publish();
        }
    }

    fn offset(&self, id: u16) -> usize {
        entries_bytes(self.count) + usize::from(id) * (self.buffer_bytes + COLOUR_BYTES)
    }

    fn push(&mut self, id: u16) {
        let index = usize::from(self.tail & (self.count - 1));
        let address = self.at as u64 + self.offset(id) as u64;
        // SAFETY: the index is within the `count` entries at the start of the mapping. Entries between the kernel's
        // head and our published tail are the kernel's; there are never more than `count` buffers, so this one is ours.
        let entry = unsafe { &mut *self.at.cast::<BufRingEntry>().add(index) };
        entry.set_addr(address);
        entry.set_len(self.buffer_bytes as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        let entries = self.at.cast::<BufRingEntry>();
        // SAFETY: the tail lies in the first entry of the mapping, 2-byte aligned; the kernel only reads it.
        unsafe { (*BufRingEntry::tail(entries).cast::<AtomicU16>()).store(self.tail, Ordering::Release) }
    }
}

/// Bytes for the entries, rounded up so that the first buffer starts on a cache line (for small rings, on a page).
const fn entries_bytes(count: u16) -> usize {
    (count as usize * size_of::<BufRingEntry>()).next_multiple_of(4096)
}
