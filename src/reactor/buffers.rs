//! The buffers that the kernel receives into: one buffer ring per shard, shared by all of its connections.
//!
//! ```text
//! mapping: | entries: count x 16 B, one page at least | buffer 0 | buffer 1 | ... |
//! ```
//!
//! A [`Buffer`] is the right to read one buffer. There is at most one per buffer, made when the kernel hands the buffer
//! over; [`ReceiveBuffers::give_back`] consumes it, and only then may the kernel write there again.

use crate::sys::Mapping;
use io_uring::{Submitter, types::BufRingEntry};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

/// The one buffer group of a uring.
pub(super) const GROUP: u16 = 0;

/// Most buffers that a buffer ring can have.
pub const COUNT_MAX: u16 = 1 << 15;

/// Consecutive buffers start this much further on than a power of two would have it, so that the first lines of all
/// buffers, which are the ones used when requests are small, do not compete for the same cache sets.
const COLOUR_BYTES: usize = 3 * 64;

/// A received buffer: read it with [`ReceiveBuffers::bytes`], then give it back.
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
    /// Start of the mapping; written to by the kernel, so never borrowed as a whole.
    at: *mut u8,
    /// Keeps the mapping; the reactor has the other half, so the kernel never writes to memory that is gone.
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
        // A refusal costs nothing but speed.
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

    /// A share of the memory, for who must outlive the kernel's use of it.
    pub(super) fn memory(&self) -> Rc<Mapping<u8>> {
        Rc::clone(&self.memory)
    }

    /// The bytes that were received into a buffer.
    #[inline]
    pub fn bytes(&self, buffer: &Buffer) -> &[u8] {
        assert!(buffer.id < self.count && buffer.length as usize <= self.buffer_bytes, "a buffer of another ring");
        // SAFETY: the range is one buffer of the mapping. The kernel gave it to us (there is a `Buffer`) and does not
        // write there before it is given back, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.at.add(self.offset(buffer.id)), buffer.length as usize) }
    }

    /// Lets the kernel have the buffers again.
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
        // SAFETY: the index is within the `count` entries at the start of the mapping. Entries between the kernel's head
        // and our published tail are the kernel's; there are never more than `count` buffers, so this one is ours.
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

/// Room for the entries, rounded so that the first buffer starts a cache line (and a page, for small rings).
const fn entries_bytes(count: u16) -> usize {
    (count as usize * size_of::<BufRingEntry>()).next_multiple_of(4096)
}
