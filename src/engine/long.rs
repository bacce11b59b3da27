//! Reading and writing long values in pieces.
//!
//! An upload is an item without an index entry: memory is allocated for it as its bytes arrive, and when all have
//! arrived it replaces the key's old item in one step. A reader pins the item that it reads: if that is evicted,
//! replaced or deleted meanwhile, its memory is freed when the last reader is closed. Both refer to their item by a
//! handle, which evacuation updates when it moves the item.

use super::arena::{NONE, Reference, place};
use super::item::{self, Fields, Header};
use super::value::{self, Cursor, List, Parts};
use super::{Attributes, Engine, KEY_BYTES_MAX, KeyHash, PutError, Value};
use crate::command::UnixMs;
use crate::slots::Group;
use crate::sys::Lease;
use std::ops::Range;

/// All uploads together may occupy this fraction of the memory (one half).
const UPLOADS_SHARE_MAX: u64 = 2;

/// Evictions and moves that one call of [`Engine::append`] may do, plus those for the [`WRITTEN_AT_ONCE`] bytes in
/// progress. The smallest items take some 30 bytes, so 16 KiB can cost five hundred evictions.
const STEP_WORK_MAX: u64 = 64;

/// Bytes written before room is made for the next.
const WRITTEN_AT_ONCE: usize = 1024;

/// A long value that is being written. The owner must commit or abort it.
#[derive(Debug)]
#[must_use = "an upload holds memory until it is committed or aborted"]
pub struct Upload(pub(super) usize);

/// A long value that is being read. The owner must close it.
#[derive(Debug)]
#[must_use = "a reader holds memory until it is closed"]
pub struct Reader {
    pub(super) handle: usize,
    pub(super) cursor: Cursor,
}

/// An item that has readers or is being uploaded.
#[derive(Clone, Copy, Debug)]
struct Handle {
    /// `NONE` if the handle is free.
    item: Reference,
    users: u32,
    /// The item has lost its index entry.
    doomed: bool,
    /// Position of the upload.
    cursor: Cursor,
    /// Bytes of the parts allocated for the upload.
    taken_bytes: u64,
}

const FREE: Handle = Handle { item: NONE, users: 0, doomed: false, cursor: Cursor::START, taken_bytes: 0 };

/// Items that are being read or uploaded. There are few at any time, so a linear search suffices.
pub(super) struct Handles {
    handles: Vec<Handle>,
    /// Bytes of the parts allocated for all uploads.
    upload_bytes: u64,
    /// An upload was refused since this was last asked.
    upload_refused: bool,
}

impl Handles {
    pub(super) fn new() -> Self {
        Self { handles: Vec::new(), upload_bytes: 0, upload_refused: false }
    }

    fn add(&mut self, item: Reference) -> usize {
        let handle = Handle { item, users: 1, ..FREE };
        match self.handles.iter().position(|h| h.item == NONE) {
            Some(free) => {
                self.handles[free] = handle;
                free
            }
            None => {
                self.handles.push(handle);
                self.handles.len() - 1
            }
        }
    }

    /// Adds a reader of an item.
    pub(super) fn read(&mut self, item: Reference) -> Reader {
        let handle = match self.find(item) {
            Some(handle) => {
                self.handles[handle].users += 1;
                handle
            }
            None => self.add(item),
        };
        Reader { handle, cursor: Cursor::START }
    }

    /// Counts a page or block allocated for an upload.
    fn count(&mut self, upload: &Upload, bytes: usize) {
        self.handles[upload.0].taken_bytes += bytes as u64;
        self.upload_bytes += bytes as u64;
    }

    /// True if the item has readers.
    pub(super) fn is_read(&self, item: Reference) -> bool {
        self.find(item).is_some()
    }

    /// The current reference of a handle's item.
    pub(super) fn item(&self, handle: usize) -> Reference {
        self.handles[handle].item
    }

    /// Starts an upload at an offset: the first `bytes` will be inherited from another item.
    pub(super) fn skip(&mut self, upload: &Upload, bytes: usize) {
        self.handles[upload.0].cursor.offset = bytes;
    }

    fn find(&self, item: Reference) -> Option<usize> {
        self.handles.iter().position(|h| h.item == item)
    }

    /// Updates the handle of an item that was moved.
    pub(super) fn item_moved(&mut self, from: Reference, to: Reference) {
        if let Some(handle) = self.find(from) {
            self.handles[handle].item = to;
        }
    }

    /// Marks an item whose index entry was removed. False if it has no readers.
    pub(super) fn doom(&mut self, item: Reference) -> bool {
        match self.find(item) {
            Some(handle) => {
                self.handles[handle].doomed = true;
                true
            }
            None => false,
        }
    }

    /// Readers and uploads that are open.
    #[cfg(any(test, feature = "sim"))]
    fn open(&self) -> usize {
        self.handles.iter().filter(|h| h.item != NONE).map(|h| h.users as usize).sum()
    }

    /// Items without an index entry, for the accounting.
    #[cfg(test)]
    pub(super) fn detached(&self, is_detached: impl Fn(Reference) -> bool) -> Vec<Reference> {
        self.handles.iter().map(|h| h.item).filter(|&item| item != NONE && is_detached(item)).collect()
    }
}

/// Adds a range behind the others, to the last if it follows that without a gap.
fn add_range(ranges: &mut Vec<Range<usize>>, range: Range<usize>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

impl Engine {
    /// The number of readers and uploads that are open: for the simulator's accounting.
    #[cfg(any(test, feature = "sim"))]
    pub fn open_long_values(&self) -> usize {
        self.handles.open()
    }

    /// Begins to store a value of `length` bytes.
    ///
    /// # Errors
    /// See [`PutError`]; nothing was changed.
    pub fn begin(
        &mut self,
        key: &[u8],
        length: usize,
        attributes: Attributes,
        now: UnixMs,
    ) -> Result<Upload, PutError> {
        assert!(key.len() <= KEY_BYTES_MAX, "a key of {} bytes", key.len());
        if length > self.value_bytes_max as usize {
            return Err(PutError::TooLarge);
        }
        let parts = Parts::new(length, &self.arena);
        let Attributes { flags, expires } = attributes;
        let fields = Fields { flags, expires, long_value: true, ..Fields::default() };
        let class = self.arena.class_for(fields.item_bytes(key.len(), parts.list_bytes()));
        self.make_room(class, now)?;
        let item = self.arena.allocate(class).expect("there is room");
        item::write_item(self.arena.memory_mut(), place(item), &fields, key, parts.list_bytes());
        item::set_detached(self.arena.memory_mut(), place(item), true);
        List::write_empty(&mut self.arena, item, parts);
        Ok(Upload(self.handles.add(item)))
    }

    /// Appends the next bytes of a value, at most as many as are missing; returns how many it took. It takes fewer,
    /// possibly none, if making room for all of them exceeds the work of one step; the caller passes the rest again
    /// later.
    ///
    /// # Errors
    /// [`PutError::OutOfMemory`]; the caller must abort the upload.
    pub fn append(&mut self, upload: &Upload, bytes: &[u8], now: UnixMs) -> Result<usize, PutError> {
        let work_max = self.room_work + STEP_WORK_MAX;
        let mut taken = 0;
        while taken < bytes.len() && self.room_work < work_max && self.provide_part(upload, work_max, now)? {
            let Handle { item, mut cursor, .. } = self.handles.handles[upload.0];
            let next = &bytes[taken..bytes.len().min(taken + WRITTEN_AT_ONCE)];
            let written = cursor.write(&mut self.arena, item, next);
            assert!(written > 0, "more bytes than the value has");
            self.handles.handles[upload.0].cursor = cursor;
            taken += written;
            self.make_way(written, now);
        }
        Ok(taken)
    }

    /// Appends all of `bytes`, in as many steps as necessary.
    pub(super) fn append_all(&mut self, upload: &Upload, mut bytes: &[u8], now: UnixMs) -> Result<(), PutError> {
        while !bytes.is_empty() {
            let taken = self.append(upload, bytes, now)?;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Allocates the page or block for the next byte, unless it is there. False if making room for it would exceed
    /// `work_max`.
    fn provide_part(&mut self, upload: &Upload, work_max: u64, now: UnixMs) -> Result<bool, PutError> {
        let Handle { item, cursor, .. } = self.handles.handles[upload.0];
        let list = List::of(&self.arena, item);
        let parts = list.parts(&self.arena);
        if cursor.offset < parts.bytes_in_pages() {
            if cursor.needs_page(&self.arena, list) {
                self.allow_upload(self.arena.page_bytes())?;
                if !self.reclaim(None, 0, work_max, now)? {
                    return Ok(false);
                }
                self.push_page(upload);
            }
            return Ok(true);
        }
        // After the whole pages come the blocks; at the end of the value `block` is one past the last.
        let (block, _) = parts.block_of(cursor.offset);
        if block < parts.blocks && list.block(&self.arena, block) == NONE {
            let class = parts.block_class(block, &self.arena);
            self.allow_upload(parts.block_bytes(block))?;
            if !self.reclaim(Some(class), 0, work_max, now)? {
                return Ok(false);
            }
            self.handles.count(upload, parts.block_bytes(block));
            // Making room may have moved the item.
            let item = self.handles.handles[upload.0].item;
            let chunk = self.arena.allocate(class).expect("there is room");
            item::write_block(self.arena.memory_mut(), place(chunk), block as u16, item);
            List::of(&self.arena, item).set_block(&mut self.arena, block, chunk);
        }
        Ok(true)
    }

    /// Allocates whole pages for the next bytes of an upload, `bytes_max` bytes at most, and adds where those bytes lie
    /// to `ranges`, for the kernel to write there; the caller then says how many came ([`Engine::received`]). Returns
    /// how many there is room for: fewer, possibly none, where making room exceeds the work of one step.
    ///
    /// # Errors
    /// [`PutError::OutOfMemory`]; the caller must abort the upload.
    pub fn provide(
        &mut self,
        upload: &Upload,
        bytes_max: usize,
        ranges: &mut Vec<Range<usize>>,
        now: UnixMs,
    ) -> Result<usize, PutError> {
        let work_max = self.room_work + STEP_WORK_MAX;
        let mut ahead = self.handles.handles[upload.0].cursor;
        let mut bytes = 0;
        while bytes < bytes_max && self.room_work < work_max {
            let item = self.handles.handles[upload.0].item;
            if ahead.needs_page(&self.arena, List::of(&self.arena, item)) {
                self.allow_upload(self.arena.page_bytes())?;
                if !self.reclaim(None, 0, work_max, now)? {
                    break;
                }
                self.push_page(upload);
            }
            let item = self.handles.handles[upload.0].item;
            let Some(range) = ahead.read_page(&self.arena, item, bytes_max - bytes) else { break };
            bytes += range.len();
            add_range(ranges, range);
        }
        Ok(bytes)
    }

    /// Notes that the next `bytes` bytes of an upload lie where [`Engine::provide`] said.
    pub fn received(&mut self, upload: &Upload, mut bytes: usize) {
        let Handle { item, mut cursor, .. } = self.handles.handles[upload.0];
        while bytes > 0 {
            let range = cursor.read_page(&self.arena, item, bytes).expect("bytes that were provided");
            bytes -= range.len();
        }
        self.handles.handles[upload.0].cursor = cursor;
    }

    /// Takes a page, of which there is one, for the next bytes of an upload.
    fn push_page(&mut self, upload: &Upload) {
        self.handles.count(upload, self.arena.page_bytes());
        let item = self.handles.handles[upload.0].item;
        let page = self.arena.take_page().expect("there is room");
        List::of(&self.arena, item).push_page(&mut self.arena, page);
    }

    /// Uploads must not evict everything else, nor each other. A single upload is always allowed: no value is longer
    /// than half of the memory, not counting the rest of its last page.
    fn allow_upload(&mut self, bytes: usize) -> Result<(), PutError> {
        let max = (u64::from(self.arena.limit_pages()) + 1) * self.arena.page_bytes() as u64 / UPLOADS_SHARE_MAX;
        if self.handles.upload_bytes + bytes as u64 <= max {
            return Ok(());
        }
        self.handles.upload_refused = true;
        Err(PutError::OutOfMemory)
    }

    /// True if an upload was refused, because others occupy what uploads may have, since this was last asked.
    pub fn take_upload_refusal(&mut self) -> bool {
        std::mem::take(&mut self.handles.upload_refused)
    }

    /// Bytes of values that have been replaced or removed and still have readers.
    pub fn replaced_bytes(&self) -> u64 {
        let replaced = self.handles.handles.iter().filter(|handle| handle.item != NONE && handle.doomed);
        replaced.map(|handle| value::footprint(&self.arena, handle.item)).sum()
    }

    /// Bytes of the value received so far.
    pub fn uploaded(&self, upload: &Upload) -> usize {
        self.handles.handles[upload.0].cursor.offset
    }

    /// Bytes of the value still missing.
    pub fn missing(&self, upload: &Upload) -> usize {
        let Handle { item, cursor, .. } = self.handles.handles[upload.0];
        List::of(&self.arena, item).parts(&self.arena).length - cursor.offset
    }

    /// Replaces the key's old item by the complete upload. Returns the item's version.
    ///
    /// # Errors
    /// [`PutError::OutOfMemory`]; the upload is aborted and the old value unchanged.
    pub fn commit(&mut self, hash: KeyHash, group: Group, upload: Upload, now: UnixMs) -> Result<u64, PutError> {
        assert_eq!(self.missing(&upload), 0, "the value is not complete");
        if self.user_bytes_max.is_some() {
            let item = self.handles.handles[upload.0].item;
            let key = Header::read(self.arena.memory(), place(item)).key(self.arena.memory(), place(item)).to_vec();
            let length = List::of(&self.arena, item).parts(&self.arena).length;
            if let Err(error) = self.bound_user_bytes(hash, &key, length, now) {
                self.abort(upload);
                return Err(error);
            }
        }
        let item = self.end_upload(upload);
        let version = self.versions.next(group);
        item::set_version(self.arena.memory_mut(), place(item), version);
        item::set_detached(self.arena.memory_mut(), place(item), false);
        item::set_database(self.arena.memory_mut(), place(item), hash.database());
        self.enter(hash, item, now)?;
        Ok(version)
    }

    /// Discards an upload.
    pub fn abort(&mut self, upload: Upload) {
        let item = self.end_upload(upload);
        value::release_parts(&mut self.arena, item);
        self.arena.release(item);
    }

    fn end_upload(&mut self, upload: Upload) -> Reference {
        let Handle { item, taken_bytes, .. } = std::mem::replace(&mut self.handles.handles[upload.0], FREE);
        self.handles.upload_bytes -= taken_bytes;
        item
    }

    /// Opens a long value for reading. None if the key has none.
    pub fn open(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) -> Option<Reader> {
        let found = self.find_live(hash, key, now).filter(|found| found.header.has_long_value())?;
        Some(self.handles.read(found.item))
    }

    /// The next piece of the value, at most `bytes_max` long. Empty at the end.
    pub fn read(&self, reader: &mut Reader, bytes_max: usize) -> &[u8] {
        reader.cursor.read(&self.arena, self.handles.handles[reader.handle].item, bytes_max)
    }

    /// Adds to `ranges` where the next bytes of the value lie, as far as they lie in whole pages: `bytes_max` bytes at
    /// most. They stay there, unchanged, until the reader and all that were pinned with it are closed. Returns how
    /// many.
    pub fn read_pages(&self, reader: &mut Reader, bytes_max: usize, ranges: &mut Vec<Range<usize>>) -> usize {
        let item = self.handles.handles[reader.handle].item;
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some(range) = reader.cursor.read_page(&self.arena, item, bytes_max - bytes)
        {
            bytes += range.len();
            add_range(ranges, range);
        }
        bytes
    }

    /// Another reader of the same value, at the same position. The caller must close it, too.
    pub fn pin(&mut self, reader: &Reader) -> Reader {
        self.handles.handles[reader.handle].users += 1;
        Reader { handle: reader.handle, cursor: reader.cursor }
    }

    /// Bytes of a page. A long value has whole pages if it is at least as long.
    #[inline]
    pub fn page_bytes(&self) -> usize {
        self.arena.page_bytes()
    }

    /// Lets the kernel use the ranges of [`Engine::read_pages`] and [`Engine::provide`].
    pub fn lease(&self) -> Lease {
        self.arena.lease()
    }

    /// Bytes of the value not yet read.
    pub fn unread(&self, reader: &Reader) -> usize {
        let item = self.handles.handles[reader.handle].item;
        List::of(&self.arena, item).parts(&self.arena).length - reader.cursor.offset
    }

    /// Closes a reader.
    pub fn close(&mut self, reader: Reader) {
        let handle = &mut self.handles.handles[reader.handle];
        handle.users -= 1;
        if handle.users == 0 {
            let Handle { item, doomed, .. } = std::mem::replace(handle, FREE);
            if doomed {
                value::release_parts(&mut self.arena, item);
                self.arena.release(item);
            }
        }
    }

    /// Stores a complete value that is too long for a chunk.
    pub(super) fn put_long(
        &mut self,
        hash: KeyHash,
        group: Group,
        key: &[u8],
        value: &[u8],
        attributes: Attributes,
        now: UnixMs,
    ) -> Result<u64, PutError> {
        let upload = self.begin(key, value.len(), attributes, now)?;
        match self.append_all(&upload, value, now) {
            Ok(()) => self.commit(hash, group, upload, now),
            Err(error) => {
                self.abort(upload);
                Err(error)
            }
        }
    }
}

impl Value<'_> {
    /// The value, if it is in one piece.
    pub fn whole(&self) -> Option<&[u8]> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Long(_) | Self::Collection(..) => None,
        }
    }
}
