//! Long values: those that do not fit into a chunk together with their key.
//!
//! As much of the value as fills whole pages lies in pages; the rest lies in blocks of 4 KiB and one chunk of the class
//! that fits the end. The item lists these parts after its key:
//!
//! ```text
//! item:  | header | key | length | pages | first | last | block | block | ... |         all u32
//!                                          |       |       '- | type, part, owner | bytes |   a chunk
//!                                          '-> page -> page -> page                           linked in the page table
//! ```
//!
//! So no long contiguous range is needed, a value of any length is freed in a few steps, and evacuation can move
//! blocks, since each refers to its item. Whole pages are never moved.

use super::arena::{Arena, CHUNK_BYTES_MAX, Class, NONE, PageNumber, Reference, place};
use super::collection::Large;
use super::item::{self, BLOCK_HEADER_BYTES, Header, u32_at};
use std::ops::Range;

/// Bytes of the value in a full block.
const BLOCK_BYTES: usize = CHUNK_BYTES_MAX - BLOCK_HEADER_BYTES;
/// Bytes of the list without blocks.
const LIST_BYTES: usize = 16;
const LENGTH: usize = 0;
const PAGES: usize = 4;
const FIRST: usize = 8;
const LAST: usize = 12;

/// How a value of a given length is divided into parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    pub(super) length: usize,
    page_bytes: usize,
    pub(super) pages: usize,
    pub(super) blocks: usize,
}

impl Parts {
    pub(super) fn new(length: usize, arena: &Arena) -> Self {
        let page_bytes = arena.page_bytes();
        let blocks = (length % page_bytes).div_ceil(BLOCK_BYTES);
        Self { length, page_bytes, pages: length / page_bytes, blocks }
    }

    /// Bytes of the list of parts.
    pub(super) fn list_bytes(self) -> usize {
        LIST_BYTES + 4 * self.blocks
    }

    /// Bytes of the value in its whole pages.
    pub(super) fn bytes_in_pages(self) -> usize {
        self.pages * self.page_bytes
    }

    /// Bytes of the value in a block.
    pub(super) fn block_bytes(self, block: usize) -> usize {
        (self.length - self.bytes_in_pages() - block * BLOCK_BYTES).min(BLOCK_BYTES)
    }

    /// The class of the chunk for a block.
    pub(super) fn block_class(self, block: usize, arena: &Arena) -> Class {
        arena.class_for(BLOCK_HEADER_BYTES + self.block_bytes(block))
    }

    /// Bytes in the parts that `self` shares with the longer value: the whole pages, and the full blocks if the longer
    /// value does not turn those into a page.
    pub(super) fn bytes_shared_with(self, longer: Self) -> usize {
        let in_blocks = if self.pages == longer.pages { self.length - self.bytes_in_pages() } else { 0 };
        self.bytes_in_pages() + in_blocks / BLOCK_BYTES * BLOCK_BYTES
    }

    /// Number of the block, and the offset in it, of a byte that lies after the whole pages.
    pub(super) fn block_of(self, offset: usize) -> (usize, usize) {
        let offset = offset - self.bytes_in_pages();
        (offset / BLOCK_BYTES, offset % BLOCK_BYTES)
    }
}

/// The list of parts of an item, as it lies in memory.
#[derive(Clone, Copy)]
pub(super) struct List {
    at: usize,
}

impl List {
    pub(super) fn of(arena: &Arena, item: Reference) -> Self {
        let at = place(item);
        let header = Header::read(arena.memory(), at);
        debug_assert!(header.has_long_value());
        Self { at: at + header.body_offset() }
    }

    /// Writes the list of a value none of whose parts is allocated yet.
    pub(super) fn write_empty(arena: &mut Arena, item: Reference, parts: Parts) {
        let list = Self::of(arena, item);
        list.put(arena, LENGTH, parts.length as u32);
        for offset in [PAGES, FIRST, LAST] {
            list.put(arena, offset, 0);
        }
        for block in 0..parts.blocks {
            list.put(arena, LIST_BYTES + 4 * block, 0);
        }
    }

    pub(super) fn parts(self, arena: &Arena) -> Parts {
        Parts::new(self.get(arena, LENGTH) as usize, arena)
    }

    /// Whole pages allocated so far.
    pub(super) fn pages(self, arena: &Arena) -> u32 {
        self.get(arena, PAGES)
    }

    pub(super) fn first_page(self, arena: &Arena) -> PageNumber {
        self.get(arena, FIRST)
    }

    pub(super) fn last_page(self, arena: &Arena) -> PageNumber {
        self.get(arena, LAST)
    }

    /// Appends a page.
    pub(super) fn push_page(self, arena: &mut Arena, page: PageNumber) {
        match self.pages(arena) {
            0 => self.put(arena, FIRST, page),
            _ => arena.link(self.last_page(arena), page),
        }
        self.put(arena, LAST, page);
        let pages = self.pages(arena) + 1;
        self.put(arena, PAGES, pages);
    }

    /// Reference of a block; 0 if it is not allocated.
    pub(super) fn block(self, arena: &Arena, block: usize) -> Reference {
        self.get(arena, LIST_BYTES + 4 * block)
    }

    pub(super) fn set_block(self, arena: &mut Arena, block: usize, reference: Reference) {
        self.put(arena, LIST_BYTES + 4 * block, reference);
    }

    fn get(self, arena: &Arena, offset: usize) -> u32 {
        u32_at(arena.memory(), self.at + offset)
    }

    fn put(self, arena: &mut Arena, offset: usize, word: u32) {
        arena.memory_mut()[self.at + offset..self.at + offset + 4].copy_from_slice(&word.to_le_bytes());
    }
}

/// Bytes that an item occupies in the arena, with all its parts.
#[inline]
pub(super) fn footprint(arena: &Arena, item: Reference) -> u64 {
    let own = arena.chunk_bytes(item) as u64;
    let header = Header::read(arena.memory(), place(item));
    match header.has_parts() {
        false => own,
        true if header.is_large() => own + Large::of(arena, item).node_bytes,
        true => own + parts_footprint(arena, item),
    }
}

fn parts_footprint(arena: &Arena, item: Reference) -> u64 {
    let parts = List::of(arena, item).parts(arena);
    let blocks = (0..parts.blocks).map(|block| arena.class_bytes(parts.block_class(block, arena)));
    (parts.bytes_in_pages() + blocks.sum::<usize>()) as u64
}

/// Length of an item's value.
#[inline]
pub(super) fn length(arena: &Arena, item: Reference, header: Header) -> usize {
    match header.has_parts() {
        false => header.inline_bytes(),
        true if header.is_large() => Large::of(arena, item).user_bytes as usize,
        true => List::of(arena, item).parts(arena).length,
    }
}

/// Frees the allocated parts of a long value.
pub(super) fn release_parts(arena: &mut Arena, item: Reference) {
    let list = List::of(arena, item);
    let pages = list.pages(arena);
    if pages > 0 {
        arena.give_pages(list.first_page(arena), list.last_page(arena), pages);
    }
    for block in 0..list.parts(arena).blocks {
        match list.block(arena, block) {
            NONE => {}
            reference => arena.release(reference),
        }
    }
}

/// Moves the parts that hold the first `bytes` of a value from one item to another, which has allocated only the parts
/// after them.
pub(super) fn inherit(arena: &mut Arena, from: Reference, to: Reference, bytes: usize) {
    let (old, new) = (List::of(arena, from), List::of(arena, to));
    let pages = old.pages(arena);
    if pages > 0 {
        match new.pages(arena) {
            0 => new.put(arena, LAST, old.last_page(arena)),
            _ => arena.link(old.last_page(arena), new.first_page(arena)),
        }
        new.put(arena, FIRST, old.first_page(arena));
        let all = pages + new.pages(arena);
        new.put(arena, PAGES, all);
        old.put(arena, PAGES, 0);
    }
    for block in 0..(bytes - old.parts(arena).bytes_in_pages()) / BLOCK_BYTES {
        let reference = old.block(arena, block);
        item::write_block(arena.memory_mut(), place(reference), block as u16, to);
        new.set_block(arena, block, reference);
        old.set_block(arena, block, NONE);
    }
}

/// Updates the owner recorded in the item's blocks after the item has moved.
pub(super) fn set_owner(arena: &mut Arena, item: Reference) {
    let list = List::of(arena, item);
    for block in 0..list.parts(arena).blocks {
        match list.block(arena, block) {
            NONE => {}
            reference => item::write_block(arena.memory_mut(), place(reference), block as u16, item),
        }
    }
}

/// Position of a reader or writer in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) offset: usize,
    /// The whole page that the offset is in.
    page: PageNumber,
}

impl Cursor {
    pub(super) const START: Self = Self { offset: 0, page: NONE };

    /// At an offset of an existing value.
    pub(super) fn at(arena: &Arena, item: Reference, offset: usize) -> Self {
        let list = List::of(arena, item);
        let parts = list.parts(arena);
        let mut page = NONE;
        // At the start of a page the cursor still names the page before it: `turn_page` advances when it is used.
        if offset > 0 && parts.pages > 0 {
            page = list.first_page(arena);
            for _ in 0..(offset - 1).min(parts.bytes_in_pages() - 1) / parts.page_bytes {
                page = arena.linked(page);
            }
        }
        Self { offset, page }
    }

    /// The bytes of the value from the cursor to the end of the part, at most `bytes_max`; advances the cursor past
    /// them. Empty at the end of the value.
    pub(super) fn read<'a>(&mut self, arena: &'a Arena, item: Reference, bytes_max: usize) -> &'a [u8] {
        let list = List::of(arena, item);
        self.turn_page(arena, list);
        let range = self.range(arena, list, bytes_max);
        self.offset += range.len();
        &arena.memory()[range]
    }

    /// Where the next bytes of the value lie that are in a whole page, to the end of the page or the value's, at most
    /// `bytes_max`; advances the cursor past them. None if the next byte is not in a whole page.
    pub(super) fn read_page(&mut self, arena: &Arena, item: Reference, bytes_max: usize) -> Option<Range<usize>> {
        let list = List::of(arena, item);
        if self.offset >= list.parts(arena).bytes_in_pages() {
            return None;
        }
        self.turn_page(arena, list);
        let range = self.range(arena, list, bytes_max);
        self.offset += range.len();
        Some(range)
    }

    /// True if the next byte of an upload belongs to a whole page that is not allocated yet.
    pub(super) fn needs_page(&self, arena: &Arena, list: List) -> bool {
        let parts = list.parts(arena);
        self.offset < parts.bytes_in_pages()
            && self.offset.is_multiple_of(parts.page_bytes)
            && self.next_page(arena, list) == NONE
    }

    /// The page after the cursor's.
    fn next_page(&self, arena: &Arena, list: List) -> PageNumber {
        match self.page {
            NONE => list.first_page(arena),
            page => arena.linked(page),
        }
    }

    /// Advances to the next page if the cursor is at the end of one.
    fn turn_page(&mut self, arena: &Arena, list: List) {
        let parts = list.parts(arena);
        if self.offset < parts.bytes_in_pages() && self.offset.is_multiple_of(parts.page_bytes) {
            self.page = self.next_page(arena, list);
        }
    }

    /// Appends bytes to a value that is being uploaded, into the current part, which is allocated; returns how many.
    pub(super) fn write(&mut self, arena: &mut Arena, item: Reference, bytes: &[u8]) -> usize {
        let list = List::of(arena, item);
        self.turn_page(arena, list);
        self.put(arena, list, bytes)
    }

    /// Overwrites bytes of a value, at most up to the end of the current part; returns how many.
    pub(super) fn write_over(&mut self, arena: &mut Arena, item: Reference, bytes: &[u8]) -> usize {
        let list = List::of(arena, item);
        self.turn_page(arena, list);
        self.put(arena, list, bytes)
    }

    fn put(&mut self, arena: &mut Arena, list: List, bytes: &[u8]) -> usize {
        let range = self.range(arena, list, bytes.len());
        let count = range.len();
        arena.memory_mut()[range].copy_from_slice(&bytes[..count]);
        self.offset += count;
        count
    }

    /// The range of the arena that holds the next bytes.
    fn range(&self, arena: &Arena, list: List, bytes_max: usize) -> Range<usize> {
        let parts = list.parts(arena);
        if self.offset >= parts.bytes_in_pages() {
            if self.offset >= parts.length {
                return 0..0;
            }
            let (block, skip) = parts.block_of(self.offset);
            let from = place(list.block(arena, block)) + BLOCK_HEADER_BYTES + skip;
            return from..from + bytes_max.min(parts.block_bytes(block) - skip);
        }
        let skip = self.offset % parts.page_bytes;
        let from = arena.page_start(self.page) + skip;
        from..from + bytes_max.min(parts.page_bytes - skip)
    }
}
