//! Lists.

use super::Shape;
use super::edit::Edit;
use super::entry::{Entry, name};
use super::view::{Bytes, View};
use crate::command::{End, UnixMs};
use crate::engine::item::Kind;
use crate::engine::{Engine, KeyHash, PutError};

/// A list, for reading.
pub struct List<'a>(View<'a>);

impl<'a> List<'a> {
    /// Number of elements.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Always false: an empty list does not exist.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements from an index on, towards the end.
    pub fn forward_from(&self, index: u64) -> impl Iterator<Item = Bytes<'a>> {
        let view = self.0;
        view.forward_from(index).map(move |entry| view.bytes(name(Shape::One, entry, 0)))
    }

    /// The elements from an index on, towards the start.
    pub fn backward_from(&self, index: u64) -> impl Iterator<Item = Bytes<'a>> {
        let view = self.0;
        view.backward_from(index).map(move |entry| view.bytes(name(Shape::One, entry, 0)))
    }

    /// For each element, from the first to the last, whether it equals a value.
    pub fn equal_forward(&self, value: &[u8]) -> impl Iterator<Item = bool> {
        let view = self.0;
        view.forward_from(0).map(move |entry| view.is_equal(name(Shape::One, entry, 0), value))
    }

    /// For each element, from the last to the first, whether it equals a value.
    pub fn equal_backward(&self, value: &[u8]) -> impl Iterator<Item = bool> {
        let view = self.0;
        view.backward_from(view.len() - 1).map(move |entry| view.is_equal(name(Shape::One, entry, 0), value))
    }

    /// The index of the first element at `index` or after it that equals a value.
    fn find_from(&self, index: u64, value: &[u8]) -> Option<u64> {
        let mut found = self.0.forward_from(index);
        found.position(|entry| self.0.is_equal(name(Shape::One, entry, 0), value)).map(|n| index + n as u64)
    }

    /// The index of the last element at `index` or before it that equals a value.
    fn find_back_from(&self, index: u64, value: &[u8]) -> Option<u64> {
        let mut found = self.0.backward_from(index);
        found.position(|entry| self.0.is_equal(name(Shape::One, entry, 0), value)).map(|n| index - n as u64)
    }
}

impl Engine {
    /// Opens a list for reading. None if the key does not exist.
    ///
    /// # Errors
    /// The key has a value of another type.
    pub fn as_list(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) -> Result<Option<List<'_>>, PutError> {
        Ok(self.view(hash, key, Kind::List, now)?.map(List))
    }

    /// Pushes elements to one end of a list; creates the list if it does not exist and `create` is set. Returns the new
    /// length; 0 if there is no list.
    ///
    /// # Errors
    /// See [`PutError`]. Elements before the one that did not fit stay.
    pub fn list_push<'v>(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        end: End,
        values: impl Iterator<Item = &'v [u8]> + Clone,
        create: bool,
        now: UnixMs,
    ) -> Result<u64, PutError> {
        let size = |values: &mut dyn Iterator<Item = &'v [u8]>| {
            values.fold([0, 0], |[bytes, longest], value| [bytes + value.len() + 1, longest.max(value.len())])
        };
        let room = size(&mut values.clone());
        let found = match create {
            true => self.find_or_create(hash, key, Kind::List, room, now)?,
            false => match self.find_to_edit(hash, key, Kind::List, room, now)? {
                Some(found) => found,
                None => return Ok(0),
            },
        };
        let mut edit = Edit::new(self, hash, key, Kind::List, found);
        for value in values {
            if edit.is_short_of_room([value.len()]) {
                edit = edit.reopened(key, [value.len(), value.len()], now)?;
            }
            edit.push(end, value);
        }
        Ok(edit.finish())
    }

    /// Removes at most `count` elements from one end, passing each to `visit` first. None if the key does not exist.
    ///
    /// # Errors
    /// The key has a value of another type.
    pub fn list_pop(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        end: End,
        count: u64,
        now: UnixMs,
        mut visit: impl FnMut(Bytes),
    ) -> Result<Option<u64>, PutError> {
        let Some(mut edit) = self.edit(hash, key, Kind::List, [0, 0], now)? else { return Ok(None) };
        let list = List(edit.view());
        let count = count.min(list.len());
        if count == 1 {
            // The common case, popping one element, takes a single lookup.
            let view = edit.view();
            let spot = if end == End::Front { view.first() } else { view.at_rank(view.len() - 1) };
            if let Some(entry) = view.next(&mut spot.clone()) {
                visit(view.bytes(name(Shape::One, entry, 0)));
            }
            edit.remove(&spot);
        } else {
            match end {
                End::Front => list.forward_from(0).take(count as usize).for_each(visit),
                End::Back => list.backward_from(list.len() - 1).take(count as usize).for_each(visit),
            }
            edit.remove_range(if end == End::Front { 0 } else { list.len() - count }, count);
        }
        edit.note_shorter();
        edit.finish();
        Ok(Some(count))
    }

    /// Replaces the element at an index; negative indices count from the end. None if the key does not exist, false if
    /// the index is out of range.
    ///
    /// # Errors
    /// See [`PutError`]; nothing was changed.
    pub fn list_set(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        index: i64,
        value: &[u8],
        now: UnixMs,
    ) -> Result<Option<bool>, PutError> {
        let Some(mut edit) = self.edit(hash, key, Kind::List, [value.len() + 1, value.len()], now)? else {
            return Ok(None);
        };
        let length = edit.view().len();
        let index = if index < 0 { length.checked_add_signed(index) } else { Some(index as u64) };
        let Some(index) = index.filter(|&index| index < length) else { return Ok(Some(false)) };
        edit.prepare(value.len() + 1, value.len());
        let entry = Entry::one(edit.text(value));
        let spot = edit.view().at_rank(index);
        edit.replace(&spot, &entry);
        edit.note(value.len(), false);
        edit.note_shorter();
        edit.finish();
        Ok(Some(true))
    }

    /// Inserts an element before or after the first one that equals a pivot. Returns the new length, 0 if no element
    /// equals it. None if the key does not exist.
    ///
    /// # Errors
    /// See [`PutError`]; nothing was changed.
    pub fn list_insert(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        pivot: &[u8],
        after: bool,
        value: &[u8],
        now: UnixMs,
    ) -> Result<Option<u64>, PutError> {
        let Some(mut edit) = self.edit(hash, key, Kind::List, [value.len() + 1, value.len()], now)? else {
            return Ok(None);
        };
        let Some(index) = List(edit.view()).find_from(0, pivot) else { return Ok(Some(0)) };
        edit.prepare(value.len() + 1, value.len());
        let entry = Entry::one(edit.text(value));
        let spot = edit.view().at_rank(index + u64::from(after));
        edit.insert(&spot, &entry);
        edit.note(value.len(), false);
        Ok(Some(edit.finish()))
    }

    /// Removes elements that equal a value: the first `count`; if negative, the last `-count`; if 0, all. Returns how
    /// many.
    ///
    /// # Errors
    /// The key has a value of another type.
    pub fn list_remove(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        count: i64,
        value: &[u8],
        now: UnixMs,
    ) -> Result<u64, PutError> {
        let Some(mut edit) = self.edit(hash, key, Kind::List, [0, 0], now)? else { return Ok(0) };
        let most = if count == 0 { u64::MAX } else { count.unsigned_abs() };
        let (mut removed, mut at) = (0, if count < 0 { edit.view().len() - 1 } else { 0 });
        while removed < most {
            let list = List(edit.view());
            let found = if count < 0 { list.find_back_from(at, value) } else { list.find_from(at, value) };
            let Some(index) = found else { break };
            edit.remove_range(index, 1);
            removed += 1;
            at = index;
            if count < 0 {
                match index.checked_sub(1) {
                    Some(before) => at = before,
                    None => break,
                }
            }
        }
        edit.note_shorter();
        edit.finish();
        Ok(removed)
    }

    /// Keeps `count` elements from `first` on, and removes all others.
    ///
    /// # Errors
    /// The key has a value of another type.
    pub fn list_trim(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        first: u64,
        count: u64,
        now: UnixMs,
    ) -> Result<(), PutError> {
        let Some(mut edit) = self.edit(hash, key, Kind::List, [0, 0], now)? else { return Ok(()) };
        let length = edit.view().len();
        let first = first.min(length);
        let behind = length - first.saturating_add(count).min(length);
        edit.remove_range(length - behind, behind);
        edit.remove_range(0, first);
        edit.note_shorter();
        edit.finish();
        Ok(())
    }
}

impl Edit<'_> {
    fn push(&mut self, end: End, value: &[u8]) {
        self.prepare(value.len() + 1, value.len());
        let entry = Entry::one(self.text(value));
        let spot = if end == End::Front { self.view().first() } else { self.view().last() };
        self.insert(&spot, &entry);
        self.note(value.len(), false);
    }
}
