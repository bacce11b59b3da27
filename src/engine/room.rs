//! Making room for writes: eviction by the policy, and evacuation of pages.
//!
//! A write takes a chunk, and may take a few pages for bookkeeping (index, queues, wheel); [`RESERVE_PAGES`] free pages
//! are available for those when it starts. If the slab class has no free chunk, items are evicted by the global policy,
//! whatever their size. As soon as some class has at least a page's worth of free chunks, one of its pages is evacuated
//! and becomes available to every class. So no class keeps memory that another needs, however the distribution of value
//! sizes shifts.
//!
//! To free one page for a growing class can take a hundred evictions and as many moves. Writes share that work, so that
//! none has to do it all:
//!
//! ```text
//! free pages:    more     a write takes what it needs
//!    the aim ─────────    evicts as many bytes as it takes
//!                fewer    evicts and moves 5/4 of what it takes, to pay back the pages taken before
//! the reserve ────────
//!                fewer    evicts and moves until the reserve is free again
//! ```

use super::arena::{Class, PageNumber, Reference, place};
use super::collection::{self, CLASSES_PER_CHANGE, Large};
use super::eviction::{self, View};
use super::hold::HELD_CHOSEN_MAX;
use super::index::{Position, STEP_PAGES_MAX};
use super::item::{self, ChunkUse, Header};
use super::value::{self, List};
use super::{Engine, Eviction, KeyHash, PutError};
use crate::command::UnixMs;

/// Pages that a write may need besides the one for its chunk: for a step of the index's growth, a chained bucket, a
/// queue, and the timing wheel.
pub(super) const RESERVE_PAGES: u32 = STEP_PAGES_MAX + 3;

/// Free pages that a change of a collection needs besides the reserve and the one page beyond it.
const PAGES_FOR_NODES: u32 = CLASSES_PER_CHANGE - RESERVE_PAGES - 1;

/// Free pages that writes aim at, each working in proportion to the bytes that it takes.
pub(super) const FREE_PAGES_AIMED_AT: u32 = RESERVE_PAGES + 4;

/// Bytes to evict and move per byte taken while below the aim, as a fraction: more than 1, so that the aim is reached.
const PACE: (usize, usize) = (5, 4);

/// Bytes moved or freed before the free pages are checked again.
const MOVED_AT_ONCE: usize = 1024;

/// Chunks whose index lines are prefetched together during an evacuation.
const EVACUATED_AT_ONCE: usize = 16;

impl Engine {
    /// Makes sure that a chunk of `class` can be allocated, and the pages of a write taken.
    #[inline]
    pub(super) fn make_room(&mut self, class: Class, now: UnixMs) -> Result<(), PutError> {
        // The common case: enough free pages, so the write owes nothing.
        let free = self.arena.free_pages();
        if free > FREE_PAGES_AIMED_AT || free == FREE_PAGES_AIMED_AT && self.arena.has_chunk(class) {
            return Ok(());
        }
        self.make_way(self.arena.class_bytes(class), now);
        self.reclaim(Some(class), 0, u64::MAX, now)?;
        Ok(())
    }

    /// Makes sure that a collection can be changed once, by about `bytes`, and that `pages` further pages can be taken.
    pub(super) fn make_room_for_nodes(&mut self, bytes: usize, pages: u32, now: UnixMs) -> Result<(), PutError> {
        if self.arena.free_pages() >= FREE_PAGES_AIMED_AT + PAGES_FOR_NODES + pages {
            return Ok(());
        }
        self.make_way(bytes, now);
        self.reclaim(None, PAGES_FOR_NODES + pages, u64::MAX, now)?;
        Ok(())
    }

    /// Evicts and moves in proportion to `bytes` that a write takes.
    pub(super) fn make_way(&mut self, bytes: usize, now: UnixMs) {
        let free = self.arena.free_pages();
        if free > FREE_PAGES_AIMED_AT {
            return;
        }
        let is_behind = free < FREE_PAGES_AIMED_AT;
        // At the aim, evicting as many bytes as are taken keeps the balance. Below it, free chunks also have to become
        // free pages, which takes evacuation.
        let bytes = if is_behind { bytes * PACE.0 / PACE.1 } else { bytes };
        let aim = self.held_item_bytes.saturating_sub(bytes as u64);
        while self.held_item_bytes > aim && self.evict_one(now) {}
        if is_behind && !self.free_deferred(bytes) {
            self.evacuate(bytes);
        }
    }

    /// Evicts and moves about `bytes`, whether or not memory is short. False if there is nothing to evict.
    pub(super) fn give_up_some(&mut self, bytes: usize, now: UnixMs) -> bool {
        if self.free_deferred(bytes) || self.evacuate(bytes) {
            return true;
        }
        let aim = self.held_item_bytes.saturating_sub(bytes as u64);
        let mut evicted = false;
        while self.held_item_bytes > aim && self.evict_one(now) {
            evicted = true;
        }
        evicted
    }

    /// Makes sure that a chunk of `class` or else a whole page can be taken, and `pages` further pages; the
    /// proportional work is left to [`Engine::make_way`]. False if [`Engine::room_work`] reaches `work_max` first.
    pub(super) fn reclaim(
        &mut self,
        class: Option<Class>,
        pages: u32,
        work_max: u64,
        now: UnixMs,
    ) -> Result<bool, PutError> {
        loop {
            let free = self.arena.free_pages().saturating_sub(pages);
            let has_chunk = class.is_some_and(|class| self.arena.has_chunk(class));
            if free > RESERVE_PAGES || free == RESERVE_PAGES && has_chunk {
                return Ok(true);
            }
            if self.room_work >= work_max {
                return Ok(false);
            }
            // Cheapest first: nodes of deleted collections are free memory already.
            if self.free_deferred(MOVED_AT_ONCE) {
                self.room_work += 1;
                continue;
            }
            if !self.evacuate(MOVED_AT_ONCE) && !self.evict_one(now) {
                if self.exceeds_limit && self.arena.exceed_limit(RESERVE_PAGES + pages + 1) {
                    return Ok(true);
                }
                // Nothing can be evicted: the pages of the reserve that are left may still be cut into chunks.
                return if has_chunk && free > 0 { Ok(true) } else { Err(PutError::OutOfMemory) };
            }
        }
    }

    /// Makes a change of expiry times, which is not refused when memory is full and nothing may be evicted: expiry is
    /// one of the ways in which clients free memory. The few bytes that it needs may exceed the limit; until they are
    /// freed, no other write finds room.
    pub(super) fn unrefused<T>(&mut self, change: impl FnOnce(&mut Self) -> T) -> T {
        let limit = self.arena.limit_pages();
        self.exceeds_limit = true;
        let outcome = change(self);
        self.exceeds_limit = false;
        self.arena.set_limit_pages(limit);
        outcome
    }

    /// Frees about `bytes` of deleted collections. False if there are none. While there are some, nothing is evacuated:
    /// only the node before it in the list refers to a node there, so it could not be moved.
    pub(super) fn free_deferred(&mut self, bytes: usize) -> bool {
        let mut freed = 0;
        while freed < bytes && !self.deferred.is_empty() {
            freed += self.deferred.free_one(&mut self.arena);
        }
        freed > 0
    }

    /// Evicts the item that the policy chooses. False if there is none.
    pub(super) fn evict_one(&mut self, now: UnixMs) -> bool {
        for _ in 0..HELD_CHOSEN_MAX {
            let Self { arena, index, hasher, held_item_bytes, .. } = self;
            let mut view = View { arena, index, hasher, item_bytes: *held_item_bytes };
            let Some(at) = self.policy.victim(&mut view) else { return false };
            if !self.is_spared(at) {
                self.evict(at, now);
                return true;
            }
        }
        false
    }

    /// Evicts one of the items whose keys collide with a hash, in a quad that has no room for more. False if the policy
    /// evicts nothing.
    pub(super) fn evict_collided(&mut self, hash: KeyHash, now: UnixMs) -> bool {
        let number = self.random.next() as u16;
        let at = self.index.any_of_quad(self.arena.memory(), hash, number);
        let Some(at) = at.filter(|_| self.policy.eviction() != Eviction::None) else { return false };
        if self.is_spared(at) {
            return false;
        }
        self.evict(at, now);
        true
    }

    fn evict(&mut self, at: Position, now: UnixMs) {
        self.room_work += 1;
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
    }

    /// Starts or continues the evacuation of the sparsest page, moving about `bytes_max`. False if no page can be
    /// evacuated because the others of its class lack free chunks.
    fn evacuate(&mut self, bytes_max: usize) -> bool {
        if self.arena.closed_page().is_none() {
            let Some(page) = self.arena.sparsest_page() else { return false };
            self.arena.close_page(page);
            self.evacuated_chunks = 0;
        }
        let mut moved = 0;
        while moved < bytes_max
            && let Some(page) = self.arena.closed_page()
        {
            let (batch, count) = self.next_evacuated(page);
            for &chunk in &batch[..count] {
                // Writes between two steps may have used up the free chunks of the class.
                if !self.arena.has_chunk(self.arena.class_of(chunk)) {
                    self.arena.reopen_page();
                    return true;
                }
                moved += self.arena.chunk_bytes(chunk);
                self.move_chunk(chunk);
            }
        }
        true
    }

    /// The next chunks to move, their index lines prefetched.
    fn next_evacuated(&mut self, page: PageNumber) -> ([Reference; EVACUATED_AT_ONCE], usize) {
        let mut batch = [0; EVACUATED_AT_ONCE];
        let mut count = 0;
        while count < EVACUATED_AT_ONCE
            && let Some(chunk) = self.arena.chunk(page, self.evacuated_chunks)
        {
            self.evacuated_chunks += 1;
            match item::chunk_use(self.arena.memory(), place(chunk)) {
                ChunkUse::Free => continue,
                ChunkUse::Block | ChunkUse::Node => {}
                ChunkUse::Item => {
                    let hash = eviction::hash_of(self.arena.memory(), &self.hasher, chunk);
                    self.index.prefetch(&self.arena, hash);
                }
            }
            batch[count] = chunk;
            count += 1;
        }
        (batch, count)
    }

    /// Moves a chunk to another page of its class, which has a free chunk, and updates the reference to it.
    fn move_chunk(&mut self, from: Reference) {
        let bytes = self.arena.chunk_bytes(from);
        let to = self.arena.allocate(self.arena.class_of(from)).expect("the other pages have room");
        self.arena.memory_mut().copy_within(place(from)..place(from) + bytes, place(to));
        self.stats.moved_bytes += bytes as u64;
        self.room_work += 1;
        let memory = self.arena.memory();
        // What refers to a block is the list of parts of its item; to a node, its parent; to an item, its index entry.
        match item::chunk_use(memory, place(from)) {
            ChunkUse::Block => {
                let (block, owner) = item::block(memory, place(from));
                List::of(&self.arena, owner).set_block(&mut self.arena, usize::from(block), to);
            }
            ChunkUse::Node => collection::node_moved(&mut self.arena, from, to),
            ChunkUse::Item | ChunkUse::Free => self.item_moved(from, to),
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
        self.parts_moved(from, to);
    }

    /// Updates the references from the parts of an item to it, after it has moved.
    pub(super) fn parts_moved(&mut self, from: Reference, to: Reference) {
        let header = Header::read(self.arena.memory(), place(to));
        if header.has_long_value() {
            value::set_owner(&mut self.arena, to);
            self.handles.item_moved(from, to);
        } else if header.is_large() {
            Large::of(&self.arena, to).tell_roots(&mut self.arena, to);
        }
    }

    /// Removes an entry and its item. An item that has readers stays in memory until the last is closed.
    pub(super) fn remove_entry(&mut self, hash: KeyHash, at: Position, item: Reference, header: Header) {
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

    /// Frees the memory of an item without an entry, now or, if it has readers, when the last is closed.
    pub(super) fn release_item(&mut self, item: Reference, header: Header) {
        if header.is_large() {
            Large::of(&self.arena, item).abandon(&mut self.arena, &mut self.deferred);
        }
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
