//! Ranges of strings: reading some bytes of a value, and overwriting some in place.

use super::arena::place;
use super::item::{self, Kind};
use super::value::Cursor;
use super::{Engine, KeyHash, PutError, value};
use crate::command::UnixMs;
use crate::slots::Group;
use std::ops::Range;

impl Engine {
    /// The longest value that this engine takes, in bytes.
    pub fn value_bytes_max(&self) -> usize {
        self.value_bytes_max as usize
    }

    /// Calls `visit` with the bytes of a range of a string, piece by piece. Not at all if the key does not exist.
    pub fn read_range(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        range: Range<usize>,
        now: UnixMs,
        mut visit: impl FnMut(&[u8]),
    ) {
        let Some(found) = self.find_live(hash, key, now).filter(|f| f.header.kind() == Kind::String) else { return };
        self.hit(hash, found.at);
        let length = value::length(&self.arena, found.item, found.header);
        let range = range.start.min(length)..range.end.min(length);
        if !found.header.has_long_value() {
            let value = found.header.inline_value(self.arena.memory(), place(found.item));
            visit(&value[range]);
            return;
        }
        let mut cursor = Cursor::at(&self.arena, found.item, range.start);
        while cursor.offset < range.end {
            let left = range.end - cursor.offset;
            visit(cursor.read(&self.arena, found.item, left));
        }
    }

    /// Overwrites bytes of a string in place, from an offset on. False, with nothing changed, if the key does not
    /// exist, the string is shorter than the range, or a reader has it open.
    ///
    /// # Errors
    /// The key has a value of another type.
    pub fn overwrite(
        &mut self,
        hash: KeyHash,
        group: Group,
        key: &[u8],
        offset: usize,
        bytes: &[u8],
        now: UnixMs,
    ) -> Result<bool, PutError> {
        let Some(found) = self.find_live(hash, key, now) else { return Ok(false) };
        if found.header.kind() != Kind::String {
            return Err(PutError::WrongType);
        }
        let length = value::length(&self.arena, found.item, found.header);
        if offset + bytes.len() > length || self.handles.is_read(found.item) {
            return Ok(false);
        }
        if found.header.has_long_value() {
            let mut cursor = Cursor::at(&self.arena, found.item, offset);
            let mut left = bytes;
            while !left.is_empty() {
                let written = cursor.write_over(&mut self.arena, found.item, left);
                left = &left[written..];
            }
        } else {
            let at = place(found.item) + found.header.body_offset() + offset;
            self.arena.memory_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        }
        let version = self.versions.next(group);
        item::set_version(self.arena.memory_mut(), place(found.item), version);
        self.stats.items_written += 1;
        self.hit(hash, found.at);
        Ok(true)
    }
}
