//! Appending and prepending to a value.
//!
//! A value that fits into a chunk is rewritten. A long value is continued: an upload starts at the end of those parts
//! of the old value that stay as they are, receives the old bytes after them and the new bytes, and inherits those
//! parts when it replaces the old value.
//!
//! ```text
//! old value:   | page | page | block | bl |
//! upload:                            | block | b |        copies at most a block, or the blocks that now fill a page
//! new value:   | page | page | block | block | b |
//! ```
//!
//! So the cost of an append depends on what it adds, not on the length of the value. Prepending copies the whole value,
//! and so does appending while a reader has it open, because the reader must keep seeing the old value.

use super::arena::{CHUNK_BYTES_MAX, place};
use super::item::{Fields, Kind};
use super::long::{Reader, Upload};
use super::value::{self, Cursor, List, Parts};
use super::{Attributes, Engine, KeyHash, PutError, Value};
use crate::command::{End, UnixMs};
use crate::slots::Group;

/// Capacity that the scratch buffer keeps between uses.
const SCRATCH_BYTES_KEPT: usize = 64 << 10;

/// Bytes copied per step from one long value to another.
const COPIED_AT_ONCE: usize = 4096;

/// One of the pieces that make up the new value.
enum Source<'a> {
    Bytes(&'a [u8]),
    Value(Reader),
}

/// The new value.
struct Joined<'a> {
    hash: KeyHash,
    group: Group,
    key: &'a [u8],
    attributes: Attributes,
    length: usize,
    /// Bytes of the old value whose parts are inherited.
    kept: usize,
}

impl Engine {
    /// Appends or prepends bytes; flags and expiry stay. None if the key does not exist.
    ///
    /// # Errors
    /// See [`PutError`]; the value stays as it was.
    pub fn extend(
        &mut self,
        hash: KeyHash,
        group: Group,
        key: &[u8],
        end: End,
        bytes: &[u8],
        now: UnixMs,
    ) -> Result<Option<u64>, PutError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let Some(old) = self.get(hash, key, now) else { return Ok(None) };
        let attributes = Attributes { flags: old.flags, expires: old.expires };
        let value = match old.value {
            Value::Whole(value) => value,
            Value::Long(_) => return self.extend_with(hash, group, key, end, &mut Source::Bytes(bytes), now),
            Value::Collection(..) => return Err(PutError::WrongType),
        };
        let (front, back) = if end == End::Back { (value, bytes) } else { (bytes, value) };
        scratch.extend_from_slice(front);
        scratch.extend_from_slice(back);
        let version = self.put(hash, group, key, &scratch, attributes, now);
        scratch.shrink_to(SCRATCH_BYTES_KEPT);
        self.scratch = scratch;
        version.map(Some)
    }

    /// Appends or prepends the bytes of a complete upload; flags and expiry stay. None if the key does not exist.
    ///
    /// # Errors
    /// See [`PutError`]; the value stays as it was. The upload is consumed in either case.
    pub fn extend_by(
        &mut self,
        hash: KeyHash,
        group: Group,
        key: &[u8],
        end: End,
        upload: Upload,
        now: UnixMs,
    ) -> Result<Option<u64>, PutError> {
        let mut more = Source::Value(Reader { handle: upload.0, cursor: Cursor::START });
        let done = self.extend_with(hash, group, key, end, &mut more, now);
        self.abort(upload);
        done
    }

    fn extend_with(
        &mut self,
        hash: KeyHash,
        group: Group,
        key: &[u8],
        end: End,
        more: &mut Source,
        now: UnixMs,
    ) -> Result<Option<u64>, PutError> {
        let Some(old) = self.find_live(hash, key, now) else { return Ok(None) };
        if old.header.kind() != Kind::String {
            return Err(PutError::WrongType);
        }
        let Fields { flags, expires, .. } = old.header.fields(self.arena.memory(), place(old.item));
        let old_bytes = value::length(&self.arena, old.item, old.header);
        let length = old_bytes + self.source_bytes(more);
        let joined = Joined { hash, group, key, attributes: Attributes { flags, expires }, length, kept: 0 };
        if !old.header.has_long_value() {
            let mut whole = [0; CHUNK_BYTES_MAX];
            whole[..old_bytes].copy_from_slice(old.header.inline_value(self.arena.memory(), place(old.item)));
            return self.store_joined(&joined, end, &mut Source::Bytes(&whole[..old_bytes]), more, now).map(Some);
        }
        let kept = if end == End::Back && !self.handles.is_read(old.item) {
            List::of(&self.arena, old.item).parts(&self.arena).bytes_shared_with(Parts::new(length, &self.arena))
        } else {
            0
        };
        // From here on the old item is known by a handle, because making room may move or evict it.
        let mut reader = self.handles.read(old.item);
        reader.cursor.offset = kept;
        let mut old = Source::Value(reader);
        let done = self.store_joined(&Joined { kept, ..joined }, end, &mut old, more, now);
        if let Source::Value(reader) = old {
            self.close(reader);
        }
        done.map(Some)
    }

    /// Stores the new value. The old one must not change before it is certain that this succeeds.
    fn store_joined(
        &mut self,
        joined: &Joined,
        end: End,
        old: &mut Source,
        more: &mut Source,
        now: UnixMs,
    ) -> Result<u64, PutError> {
        let Joined { hash, group, key, attributes, length, kept } = *joined;
        let upload = self.begin(key, length, attributes, now)?;
        self.handles.skip(&upload, kept);
        let mut join = || {
            if end == End::Front {
                self.copy(more, &upload, now)?;
            }
            self.copy(old, &upload, now)?;
            if end == End::Back {
                self.copy(more, &upload, now)?;
            }
            self.bound_user_bytes(hash, key, length, now)
        };
        if let Err(error) = join() {
            self.abort(upload);
            return Err(error);
        }
        if let Source::Value(reader) = old
            && kept > 0
        {
            let (from, to) = (self.handles.item(reader.handle), self.handles.item(upload.0));
            value::inherit(&mut self.arena, from, to, kept);
        }
        self.commit(hash, group, upload, now)
    }

    fn source_bytes(&self, source: &Source) -> usize {
        match source {
            Source::Bytes(bytes) => bytes.len(),
            Source::Value(reader) => self.unread(reader),
        }
    }

    fn copy(&mut self, source: &mut Source, upload: &Upload, now: UnixMs) -> Result<(), PutError> {
        let reader = match source {
            Source::Bytes(bytes) => return self.append_all(upload, bytes, now),
            Source::Value(reader) => reader,
        };
        let mut buffer = [0; COPIED_AT_ONCE];
        loop {
            let piece = self.read(reader, COPIED_AT_ONCE);
            let length = piece.len();
            if length == 0 {
                return Ok(());
            }
            buffer[..length].copy_from_slice(piece);
            self.append_all(upload, &buffer[..length], now)?;
        }
    }
}
