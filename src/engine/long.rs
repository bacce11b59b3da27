//! Reading and writing long values piece by piece.
//!
//! An upload is an item that no entry leads to yet: its memory is taken as its bytes come, and it takes its key's place at
//! once when all of them have. A reader keeps what it reads: an item that is evicted, replaced or deleted meanwhile stays in
//! memory until the last reader of it is closed. Both know their item by a handle, which follows it when it is moved.

use super::arena::{NONE, Reference, place};
use super::item::{self, Fields, Header};
use super::value::{self, Cursor, List, Parts};
use super::{Attributes, Engine, KEY_BYTES_MAX, KeyHash, PutError, Value};
use crate::command::UnixMs;
use crate::slots::Group;

/// Uploads may have this part of the memory, together.
const UPLOADS_SHARE_MAX: u64 = 2;

/// Items that are evicted and chunks that are moved in one step of an upload, and those for [`WRITTEN_AT_ONCE`] more bytes.
/// The smallest items are some 30 bytes long: for 16 KiB, five hundred of them have to go.
const STEP_WORK_MAX: u64 = 64;

/// Bytes that are written before room is made for as many.
const WRITTEN_AT_ONCE: usize = 1024;

/// A long value that is being written. It must be committed or aborted.
#[derive(Debug)]
#[must_use = "an upload holds memory until it is committed or aborted"]
pub struct Upload(pub(super) usize);

/// A long value that is being read. It must be closed.
#[derive(Debug)]
#[must_use = "a reader holds memory until it is closed"]
pub struct Reader {
    pub(super) handle: usize,
    pub(super) cursor: Cursor,
}

/// An item that is being written or read.
#[derive(Clone, Copy, Debug)]
struct Handle {
    /// `NONE`: the handle is free.
    item: Reference,
    users: u32,
    /// The item has lost its entry.
    doomed: bool,
    /// Where the writer is.
    cursor: Cursor,
    /// Bytes of the parts that the writer has taken.
    taken_bytes: u64,
}

const FREE: Handle = Handle { item: NONE, users: 0, doomed: false, cursor: Cursor::START, taken_bytes: 0 };

/// Items that are being written or read: few at any time, so they are searched one by one.
pub(super) struct Handles {
    handles: Vec<Handle>,
    /// Bytes of the parts that uploads have taken.
    upload_bytes: u64,
}

impl Handles {
    pub(super) fn new() -> Self {
        Self { handles: Vec::new(), upload_bytes: 0 }
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

    /// A reader of an item.
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

    /// An upload has taken a page or a block.
    fn count(&mut self, upload: &Upload, bytes: usize) {
        self.handles[upload.0].taken_bytes += bytes as u64;
        self.upload_bytes += bytes as u64;
    }

    /// True if an item is being read.
    pub(super) fn is_read(&self, item: Reference) -> bool {
        self.find(item).is_some()
    }

    /// Where the item of a handle is now.
    pub(super) fn item(&self, handle: usize) -> Reference {
        self.handles[handle].item
    }

    /// Lets an upload go on behind so many bytes, which it will get from elsewhere.
    pub(super) fn skip(&mut self, upload: &Upload, bytes: usize) {
        self.handles[upload.0].cursor.offset = bytes;
    }

    fn find(&self, item: Reference) -> Option<usize> {
        self.handles.iter().position(|h| h.item == item)
    }

    /// An item is somewhere else now.
    pub(super) fn item_moved(&mut self, from: Reference, to: Reference) {
        if let Some(handle) = self.find(from) {
            self.handles[handle].item = to;
        }
    }

    /// An item has lost its entry. False if nobody reads it.
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
    #[cfg(feature = "sim")]
    fn open(&self) -> usize {
        self.handles.iter().filter(|h| h.item != NONE).map(|h| h.users as usize).sum()
    }

    /// Items that only handles lead to, for the accounting.
    #[cfg(test)]
    pub(super) fn detached(&self, is_detached: impl Fn(Reference) -> bool) -> Vec<Reference> {
        self.handles.iter().map(|h| h.item).filter(|&item| item != NONE && is_detached(item)).collect()
    }
}

impl Engine {
    /// The number of readers and uploads that are open: for the simulator's accounting.
    #[cfg(feature = "sim")]
    pub fn open_long_values(&self) -> usize {
        self.handles.open()
    }

    /// Begins to store a value, of which `length` bytes will come.
    ///
    /// # Errors
    /// See [`PutError`]; nothing is changed.
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

    /// Stores the next bytes of a value, at most as many as are still to come; returns how many it took. It takes fewer,
    /// perhaps none yet, where the room for all of them is too much work for one step: the rest is for the next.
    ///
    /// # Errors
    /// Out of memory; the upload is to be aborted then.
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

    /// Stores the next bytes of a value, in as many steps as it takes.
    pub(super) fn append_all(&mut self, upload: &Upload, mut bytes: &[u8], now: UnixMs) -> Result<(), PutError> {
        while !bytes.is_empty() {
            let taken = self.append(upload, bytes, now)?;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Sees to the page or block that the next byte goes to. False if the room for it is more work than allowed.
    fn provide_part(&mut self, upload: &Upload, work_max: u64, now: UnixMs) -> Result<bool, PutError> {
        let Handle { item, cursor, .. } = self.handles.handles[upload.0];
        let list = List::of(&self.arena, item);
        let parts = list.parts(&self.arena);
        if cursor.offset < parts.bytes_in_pages() {
            if cursor.offset.is_multiple_of(self.arena.page_bytes()) {
                let bytes = self.arena.page_bytes();
                self.allow_upload(bytes)?;
                if !self.reclaim(None, 0, work_max, now)? {
                    return Ok(false);
                }
                self.handles.count(upload, bytes);
                let item = self.handles.handles[upload.0].item;
                let page = self.arena.take_page().expect("there is room");
                List::of(&self.arena, item).push_page(&mut self.arena, page);
            }
            return Ok(true);
        }
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

    /// Uploads must not push out everything that is there, and each other. One alone is always allowed: no value is longer
    /// than half of the memory, of which what is left of the last page is a part.
    fn allow_upload(&self, bytes: usize) -> Result<(), PutError> {
        let max = (u64::from(self.arena.limit_pages()) + 1) * self.arena.page_bytes() as u64 / UPLOADS_SHARE_MAX;
        if self.handles.upload_bytes + bytes as u64 <= max { Ok(()) } else { Err(PutError::OutOfMemory) }
    }

    /// Bytes of a value that have come.
    pub fn uploaded(&self, upload: &Upload) -> usize {
        self.handles.handles[upload.0].cursor.offset
    }

    /// Bytes of a value that are still to come.
    pub fn missing(&self, upload: &Upload) -> usize {
        let Handle { item, cursor, .. } = self.handles.handles[upload.0];
        List::of(&self.arena, item).parts(&self.arena).length - cursor.offset
    }

    /// Lets a complete value take the place of its key's old one. Returns the item's version.
    ///
    /// # Errors
    /// Out of memory. The upload is gone, and the old value still there.
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

    /// Gives an upload up.
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

    /// Begins to read a long value. None where the key has none.
    pub fn open(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) -> Option<Reader> {
        let found = self.find_live(hash, key, now).filter(|found| found.header.has_long_value())?;
        Some(self.handles.read(found.item))
    }

    /// The next bytes of a value: a piece of it, at most `bytes_max` long. Empty at its end.
    pub fn read(&self, reader: &mut Reader, bytes_max: usize) -> &[u8] {
        reader.cursor.read(&self.arena, self.handles.handles[reader.handle].item, bytes_max)
    }

    /// Bytes of a value that have not been read.
    pub fn unread(&self, reader: &Reader) -> usize {
        let item = self.handles.handles[reader.handle].item;
        List::of(&self.arena, item).parts(&self.arena).length - reader.cursor.offset
    }

    /// Ends reading.
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

    /// Stores a whole value that is too long for a chunk.
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
    /// The value, where it is in one piece.
    pub fn whole(&self) -> Option<&[u8]> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Long(_) | Self::Collection(..) => None,
        }
    }
}
