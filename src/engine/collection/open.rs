//! Opening a collection for reading or changing, or creating it.

use super::edit::{Edit, SMALL_BYTES_MAX, pages_besides};
use super::entry::{ENTRY_BYTES_MAX, INLINE_BYTES_MAX};
use super::node::blob_pages;
use super::view::{Spot, View, small_word};
use super::{LARGE_BYTES, SMALL_HEADER_BYTES};
use crate::command::{EncodingLimits, UnixMs};
use crate::engine::arena::{CHUNK_BYTES_MAX, Reference, place};
use crate::engine::index::Position;
use crate::engine::item::{self, Fields, Header, Kind};
use crate::engine::{Engine, Found, KEY_BYTES_MAX, KeyHash, PutError};
use crate::slots::Group;

impl Engine {
    /// Opens a collection for changes. None if the key does not exist. The caller adds at most `bytes`, of which at
    /// most `longest` are in one string.
    #[inline(always)]
    pub(super) fn edit(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        kind: Kind,
        room: [usize; 2],
        now: UnixMs,
    ) -> Result<Option<Edit<'_>>, PutError> {
        let found = self.find_to_edit(hash, key, kind, room, now)?;
        Ok(found.map(|found| Edit::new(self, hash, key, kind, found)))
    }

    /// As `edit`, for an [`Edit`] that is constructed in place: copying one that was just written would stall on its
    /// stores.
    #[inline(always)]
    pub(super) fn find_to_edit(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        kind: Kind,
        [bytes, longest]: [usize; 2],
        now: UnixMs,
    ) -> Result<Option<Found>, PutError> {
        if longest > self.value_bytes_max as usize {
            return Err(PutError::TooLarge);
        }
        if bytes > 0 {
            self.make_room_for_nodes(bytes + ENTRY_BYTES_MAX, self.pages_for(kind, [bytes, longest]), now)?;
        }
        let Some(found) = self.find_live(hash, key, now) else { return Ok(None) };
        if found.header.kind() != kind {
            return Err(PutError::WrongType);
        }
        self.hit(hash, found.at);
        Ok(Some(found))
    }

    /// Opens a collection for changes, creating it if it does not exist, with room for `bytes` of entries.
    #[inline(always)]
    pub(super) fn find_or_create(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        kind: Kind,
        room: [usize; 2],
        now: UnixMs,
    ) -> Result<Found, PutError> {
        if let Some(found) = self.find_to_edit(hash, key, kind, room, now)? {
            return Ok(found);
        }
        let (at, item) = self.create_to_edit(hash, key, kind, room, now)?;
        Ok(Found { at, item, header: Header::read(self.arena.memory(), place(item)) })
    }

    #[cold]
    fn create_to_edit(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        kind: Kind,
        [bytes, longest]: [usize; 2],
        now: UnixMs,
    ) -> Result<(Position, Reference), PutError> {
        self.create(hash, key, kind, bytes, now)?;
        let room = self.make_room_for_nodes(bytes + ENTRY_BYTES_MAX, self.pages_for(kind, [bytes, longest]), now);
        if let Err(error) = room {
            self.remove(hash, key, now);
            return Err(error);
        }
        // In the worst case, making room evicted the new collection again.
        let found = self.find_to_edit(hash, key, kind, [0, longest], now)?.ok_or(PutError::OutOfMemory)?;
        Ok((found.at, found.item))
    }

    /// Removes members of a collection, looking each up first. Returns how many existed.
    pub(super) fn remove_members<'v>(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        kind: Kind,
        members: impl Iterator<Item = &'v [u8]>,
        now: UnixMs,
        remove: impl Fn(&mut Edit, &'v [u8], &Spot),
    ) -> Result<u64, PutError> {
        let Some(mut edit) = self.edit(hash, key, kind, [0, 0], now)? else { return Ok(0) };
        let mut removed = 0;
        for member in members {
            if let Some(spot) = edit.view().find(member) {
                remove(&mut edit, member, &spot);
                removed += 1;
            }
        }
        edit.finish();
        Ok(removed)
    }

    /// Pages that a change may need beyond those of every change, for strings that are stored in blobs.
    fn pages_for(&self, kind: Kind, [bytes, longest]: [usize; 2]) -> u32 {
        pages_besides(kind) + if longest > INLINE_BYTES_MAX { blob_pages(&self.arena, bytes) } else { 0 }
    }

    /// Creates an empty collection. The chunk of a small one has room for `bytes` of entries.
    fn create(&mut self, hash: KeyHash, key: &[u8], kind: Kind, bytes: usize, now: UnixMs) -> Result<(), PutError> {
        assert!(key.len() <= KEY_BYTES_MAX, "a key of {} bytes", key.len());
        // It needs a version of its own: with version 0, a flush whose pass has not come here yet would invalidate it.
        let version = self.versions.next(Group::of(key));
        let fields = Fields { kind, database: hash.database(), version, ..Fields::default() };
        let bytes = if bytes > SMALL_BYTES_MAX { LARGE_BYTES } else { SMALL_HEADER_BYTES + bytes };
        let class = self.arena.class_for(fields.item_bytes(key.len(), bytes).min(CHUNK_BYTES_MAX));
        self.make_room(class, now)?;
        let item = self.arena.allocate(class).expect("there is room");
        let memory = self.arena.memory_mut();
        let at = item::write_item(memory, place(item), &fields, key, SMALL_HEADER_BYTES);
        memory[at..at + SMALL_HEADER_BYTES].copy_from_slice(&small_word(0, 0));
        self.enter(hash, item, now)
    }

    /// Opens a collection for reading. None if the key does not exist.
    #[inline(always)]
    pub(super) fn view(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        kind: Kind,
        now: UnixMs,
    ) -> Result<Option<View<'_>>, PutError> {
        let Some(found) = self.find_live(hash, key, now) else { return Ok(None) };
        if found.header.kind() != kind {
            return Err(PutError::WrongType);
        }
        self.hit(hash, found.at);
        Ok(Some(View::new(&self.arena, &self.hasher, found.item, found.header)))
    }

    /// The limits up to which collections are reported as compact.
    pub fn encoding_limits(&self) -> EncodingLimits {
        self.encoding_limits
    }

    /// Sets these limits, for writes from now on.
    pub fn set_encoding_limits(&mut self, encoding_limits: EncodingLimits) {
        self.encoding_limits = encoding_limits;
    }
}
