//! Making room: evicting by the policy, and evacuating pages.
//!
//! A write takes a chunk, and may take a few pages for what keeps account of it; [`RESERVE_PAGES`] free pages are there
//! for that before it starts. Where they are not, and the class of the chunk has none free, a page is evacuated if some
//! class has enough free chunks, or else an item evicted, whichever the policy says, until there is room. So no class keeps
//! memory that another needs, however the sizes of values shift.

use super::arena::{Class, PageNumber, Reference, place};
use super::eviction::{self, View};
use super::index::{Position, STEP_PAGES_MAX};
use super::item::{self, ChunkUse, Header};
use super::value::{self, List};
use super::{Engine, PutError};
use crate::command::UnixMs;

/// Pages that a write may need for others than its own chunk: a step of the index's growth, a chained bucket, a queue, the
/// timing wheel.
pub(super) const RESERVE_PAGES: u32 = STEP_PAGES_MAX + 3;

/// Chunks whose index lines are loaded at the same time in an evacuation.
const EVACUATED_AT_ONCE: usize = 16;

impl Engine {
    /// Sees to it that a chunk of a class can be allocated, and what comes with a write.
    #[inline]
    pub(super) fn make_room(&mut self, class: Class, now: UnixMs) -> Result<(), PutError> {
        let free = self.arena.free_pages();
        if free > RESERVE_PAGES || free == RESERVE_PAGES && self.arena.has_chunk(class) {
            return Ok(());
        }
        self.reclaim(Some(class), now)
    }

    /// Sees to it that a whole page can be taken.
    pub(super) fn make_room_for_page(&mut self, now: UnixMs) -> Result<(), PutError> {
        self.reclaim(None, now)
    }

    fn reclaim(&mut self, class: Option<Class>, now: UnixMs) -> Result<(), PutError> {
        loop {
            let free = self.arena.free_pages();
            let has_chunk = class.is_some_and(|class| self.arena.has_chunk(class));
            if free > RESERVE_PAGES || free == RESERVE_PAGES && has_chunk {
                return Ok(());
            }
            if !self.evacuate() && !self.evict_one(now) {
                // With no one to evict, what is free of the reserve is still there for chunks.
                return if has_chunk && free > 0 { Ok(()) } else { Err(PutError::OutOfMemory) };
            }
        }
    }

    /// Removes one item that the policy chooses. False if there is none.
    pub(super) fn evict_one(&mut self, now: UnixMs) -> bool {
        let mut view = View {
            arena: &mut self.arena,
            index: &self.index,
            hasher: &self.hasher,
            item_bytes: self.stats.item_bytes,
        };
        let Some(at) = self.policy.victim(&mut view) else { return false };
        let memory = self.arena.memory();
        let (item, byte) = (self.index.reference(memory, at), self.index.policy(memory, at));
        let header = Header::read(memory, place(item));
        let hash = eviction::hash_of(memory, &self.hasher, item);
        if self.is_current(hash, item, header, now) {
            self.stats.evictions += 1;
        } else {
            self.count_expired(hash, item, header, now);
        }
        self.remove_entry(hash, at, item, header);
        let entries = self.index.entries();
        self.policy.evicted(&mut self.arena, hash, byte, entries);
        true
    }

    /// Moves everything out of the sparsest page, if there is one that others can take in.
    fn evacuate(&mut self) -> bool {
        let Some(page) = self.arena.sparsest_page() else { return false };
        self.evacuate_page(page);
        true
    }

    fn evacuate_page(&mut self, page: PageNumber) {
        self.arena.close_page(page);
        let mut chunks = self.arena.chunks(page);
        loop {
            let mut batch = [0; EVACUATED_AT_ONCE];
            let mut count = 0;
            for chunk in chunks.by_ref() {
                match item::chunk_use(self.arena.memory(), place(chunk)) {
                    ChunkUse::Free => continue,
                    ChunkUse::Block => {}
                    ChunkUse::Item => {
                        let hash = eviction::hash_of(self.arena.memory(), &self.hasher, chunk);
                        self.index.prefetch(&self.arena, hash);
                    }
                }
                batch[count] = chunk;
                count += 1;
                if count == EVACUATED_AT_ONCE {
                    break;
                }
            }
            for &chunk in &batch[..count] {
                self.move_chunk(chunk);
            }
            if count < EVACUATED_AT_ONCE {
                return;
            }
        }
    }

    /// Moves a chunk to another page of its class, which has room, and tells its owner.
    fn move_chunk(&mut self, from: Reference) {
        let bytes = self.arena.chunk_bytes(from);
        let to = self.arena.allocate(self.arena.class_of(from)).expect("the other pages have room");
        self.arena.memory_mut().copy_within(place(from)..place(from) + bytes, place(to));
        self.stats.moved_bytes += bytes as u64;
        let memory = self.arena.memory();
        if item::chunk_use(memory, place(from)) == ChunkUse::Block {
            let (block, owner) = item::block(memory, place(from));
            List::of(&self.arena, owner).set_block(&mut self.arena, usize::from(block), to);
        } else {
            self.item_moved(from, to);
        }
        self.arena.release(from);
    }

    fn item_moved(&mut self, from: Reference, to: Reference) {
        let memory = self.arena.memory();
        let header = Header::read(memory, place(from));
        if !header.is_detached() {
            let hash = eviction::hash_of(memory, &self.hasher, from);
            let at = self.index.find(memory, hash, |reference| reference == from).expect("an item has its entry");
            self.index.set_reference(self.arena.memory_mut(), at, to);
        }
        if header.has_long_value() {
            value::set_owner(&mut self.arena, to);
            self.handles.item_moved(from, to);
        }
    }

    /// Removes an entry and its item. One that is being read stays until it is not.
    pub(super) fn remove_entry(&mut self, hash: super::KeyHash, at: Position, item: Reference, header: Header) {
        let bytes = value::footprint(&self.arena, item);
        let byte = self.index.policy(self.arena.memory(), at);
        let hasher = &self.hasher;
        self.index.remove(&mut self.arena, hash, at, |memory, item| eviction::hash_of(memory, hasher, item));
        if self.is_adopted(hash) {
            self.policy.removed(byte, bytes);
        }
        self.discount(hash, item, header, bytes);
        self.release_item(item, header);
    }

    /// Frees the memory of an item that has no entry, now or when it is not read any more.
    pub(super) fn release_item(&mut self, item: Reference, header: Header) {
        if header.has_long_value() {
            if self.handles.doom(item) {
                item::set_detached(self.arena.memory_mut(), place(item), true);
                return;
            }
            value::release_parts(&mut self.arena, item);
        }
        self.arena.release(item);
    }
}
