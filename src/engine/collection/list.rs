//! Lists.

use super::Shape;
use super::edit::Edit;
use super::entry::{Entry, name};
use super::view::{Bytes, View};
use crate::command::{End, UnixMs};
use crate::engine::item::Kind;
use crate::engine::{Engine, KeyHash, PutError};

/// A list that is being read.
pub struct List<'a>(View<'a>);

impl<'a> List<'a> {
    /// Elements.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// False: an empty list is no list.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements from an index on, to the end.
    pub fn forward_from(&self, index: u64) -> impl Iterator<Item = Bytes<'a>> {
        let view = self.0;
        view.forward_from(index).map(move |entry| view.bytes(name(Shape::One, entry, 0)))
    }

    /// The elements from an index on, down to the first.
    pub fn backward_from(&self, index: u64) -> impl Iterator<Item = Bytes<'a>> {
        let view = self.0;
        view.backward_from(index).map(move |entry| view.bytes(name(Shape::One, entry, 0)))
    }

    /// Of each element, from the first on: whether it is equal to a value.
    pub fn equal_forward(&self, value: &[u8]) -> impl Iterator<Item = bool> {
        let view = self.0;
        view.forward_from(0).map(move |entry| view.is_equal(name(Shape::One, entry, 0), value))
    }

    /// The same from the last on, down to the first.
    pub fn equal_backward(&self, value: &[u8]) -> impl Iterator<Item = bool> {
        let view = self.0;
        view.backward_from(view.len() - 1).map(move |entry| view.is_equal(name(Shape::One, entry, 0), value))
    }

    /// The index of the first element from `index` on that is equal to a value.
    fn find_from(&self, index: u64, value: &[u8]) -> Option<u64> {
        let mut found = self.0.forward_from(index);
        found.position(|entry| self.0.is_equal(name(Shape::One, entry, 0), value)).map(|n| index + n as u64)
    }

    /// The same downwards.
    fn find_back_from(&self, index: u64, value: &[u8]) -> Option<u64> {
        let mut found = self.0.backward_from(index);
        found.position(|entry| self.0.is_equal(name(Shape::One, entry, 0), value)).map(|n| index - n as u64)
    }
}

impl Engine {
    /// A list, to read it. None if there is no such key.
    ///
    /// # Errors
    /// The key has a value of another type.
    pub fn as_list(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) -> Result<Option<List<'_>>, PutError> {
        Ok(self.view(hash, key, Kind::List, now)?.map(List))
    }

    /// Adds elements to an end of a list, one after the other; makes it, if there is none and `create`. Returns how long it is
    /// then; 0 if there is none.
    ///
    /// # Errors
    /// See [`PutError`]. Of elements that came before the one that did not fit, those stay.
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

    /// Removes so many elements from an end, at most, after `visit` has seen each. None if there is no such key.
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
            // The most common: it is looked for once.
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

    /// Changes the element at an index; negative ones count from the end. None if there is no such key, false if no such
    /// element.
    ///
    /// # Errors
    /// See [`PutError`]; nothing is changed.
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

    /// Puts an element before or after the first that is equal to a pivot. Returns the length then, 0 if there is no such
    /// element. None if there is no such key.
    ///
    /// # Errors
    /// See [`PutError`]; nothing is changed.
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

    /// Removes elements that are equal to a value: so many from the front, or, negative, from the back; 0: all. Returns how
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

    /// Keeps the elements from `first` on, `count` of them, and removes all others.
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
