//! Hashes, whose fields may have expiry times.
//!
//! A field that has expired is no longer returned. Its memory is freed by a sweep of the hash, which is triggered by a
//! mark in the timing wheel or by the background pass; a large hash is swept leaf by leaf.

use super::edit::Edit;
use super::entry::{Entry, Shape, entry_end, pair};
use super::path::leaf_for_key;
use super::view::{Body, Bytes, Spot, View};
use super::{MAIN, TIMED};
use crate::command::UnixMs;
use crate::engine::arena::{Reference, place};
use crate::engine::background::{EXPIRY_PASS_MS, Next};
use crate::engine::eviction::hash_of;
use crate::engine::expiry::HORIZON_MS;
use crate::engine::index::HashMark;
use crate::engine::item::{Header, Kind};
use crate::engine::{Engine, KeyHash, PutError};
use std::collections::VecDeque;

/// Leaves that one step of a sweep visits.
const LEAVES_PER_STEP: usize = 16;

/// Most hashes that wait to be swept; the next background pass finds any others.
const LINE_MAX: usize = 256;

/// Hashes with expired fields that are to be removed.
#[derive(Debug, Default)]
pub(in crate::engine) struct FieldSweep {
    line: VecDeque<Swept>,
    /// No field expires later than this.
    until: UnixMs,
}

/// A hash that waits to be swept, and the progress of its sweep.
#[derive(Clone, Copy, Debug)]
struct Swept {
    hash: KeyHash,
    from: u64,
    /// The earliest expiry time among the fields visited so far.
    earliest: UnixMs,
}

impl FieldSweep {
    /// True if some field may still expire, or may have expired and is not yet removed.
    pub(in crate::engine) fn is_expected(&self, now: UnixMs) -> bool {
        now < self.until + 2 * EXPIRY_PASS_MS
    }

    /// True if no hash waits to be swept.
    #[cfg(test)]
    pub(in crate::engine) fn is_idle(&self) -> bool {
        self.line.is_empty()
    }

    /// Adds a hash, unless it waits already.
    pub(in crate::engine) fn add(&mut self, hash: KeyHash) {
        if self.line.len() < LINE_MAX && !self.line.iter().any(|swept| swept.hash == hash) {
            self.line.push_back(Swept { hash, from: 0, earliest: 0 });
        }
    }

    /// Records the expiry time of a field. A sweep under way may have passed the field, or may be of an earlier hash
    /// with this key.
    fn note(&mut self, hash: KeyHash, expires: UnixMs) {
        self.until = self.until.max(expires);
        if let Some(swept) = self.line.iter_mut().find(|swept| swept.hash == hash)
            && (swept.earliest == 0 || expires < swept.earliest)
        {
            swept.earliest = expires;
        }
    }
}

/// The effect of a write on a field's expiry time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldExpiry {
    /// It is kept.
    Keep,
    /// It is set to this, or cleared.
    Set(Option<UnixMs>),
}

/// The outcome of changing a field's expiry time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldOutcome {
    /// The field does not exist.
    Missing,
    /// The condition does not hold.
    Refused,
    /// The time was changed.
    Changed,
    /// The new time is in the past, so the field was removed.
    Removed,
}

/// A hash, for reading at a given time: fields that have expired by then are not returned.
pub struct Hash<'a> {
    view: View<'a>,
    now: UnixMs,
}

/// A field of a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name.
    pub name: Bytes<'a>,
    /// Its value.
    pub value: Bytes<'a>,
    /// Expiry time, if it has one.
    pub expires: Option<UnixMs>,
}

/// True if a hash may still contain expired fields.
fn may_have_expired(view: &View, now: UnixMs) -> bool {
    match view.body {
        Body::Small { flags, .. } => flags & TIMED != 0,
        Body::Large(large) => large.flags & TIMED != 0 && large.expires <= now,
    }
}

impl<'a> Hash<'a> {
    /// Number of fields, including those that have expired and are not yet removed.
    pub fn len(&self) -> u64 {
        self.view.len()
    }

    /// Always false: an empty hash does not exist.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if the hash may contain expired fields; then it may have fewer live ones than [`Hash::len`].
    pub fn may_have_expired(&self) -> bool {
        may_have_expired(&self.view, self.now)
    }

    /// The exact number of live fields. Visits all fields if some may have expired.
    pub fn live_len(&self) -> u64 {
        if self.may_have_expired() { self.fields().count() as u64 } else { self.len() }
    }

    /// Looks a field up.
    #[inline]
    pub fn field(&self, name: &[u8]) -> Option<Field<'a>> {
        let spot = self.view.find(name)?;
        self.read(self.view.leaf(spot.path.as_ref()), spot.offset)
    }

    #[inline]
    fn read(&self, leaf: &'a [u8], at: usize) -> Option<Field<'a>> {
        let (name, expires, value) = pair(leaf, at);
        if expires.is_some_and(|expires| expires <= self.now) {
            return None;
        }
        Some(Field { name: self.view.bytes(name), value: self.view.bytes(value), expires })
    }

    /// All fields, in the hash's own order.
    pub fn fields(&self) -> impl Iterator<Item = Field<'a>> {
        self.from(0)
    }

    /// The fields from a rank in that order on; expired fields count towards the rank.
    pub fn from(&self, rank: u64) -> impl Iterator<Item = Field<'a>> {
        let hash = Hash { ..*self };
        self.view.forward_from(rank).filter_map(move |entry| hash.read(entry, 0))
    }

    /// The fields from a rank in that order on, one item per rank: None for a field that has expired.
    pub fn ranks_from(&self, rank: u64) -> impl Iterator<Item = Option<Field<'a>>> {
        let hash = Hash { ..*self };
        self.view.forward_from(rank).map(move |entry| hash.read(entry, 0))
    }

    /// Visits about `count` fields from a cursor on; returns the next cursor, 0 at the end.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(Field<'a>) -> usize) -> u64 {
        // A field that has expired counts as one.
        self.view.scan(cursor, count, |_, entry| self.read(entry, 0).map_or(1, &mut visit))
    }
}

impl Engine {
    /// Opens a hash for reading. None if the key does not exist.
    ///
    /// # Errors
    /// The key has a value of another type.
    pub fn as_hash(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) -> Result<Option<Hash<'_>>, PutError> {
        Ok(self.view(hash, key, Kind::Hash, now)?.map(|view| Hash { view, now }))
    }

    /// Sets fields of a hash, which is created if it does not exist. Returns how many are new.
    ///
    /// # Errors
    /// See [`PutError`]. Fields before the one that did not fit stay set.
    pub fn hash_set<'v>(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        fields: impl Iterator<Item = (&'v [u8], &'v [u8])> + Clone,
        expiry: FieldExpiry,
        now: UnixMs,
    ) -> Result<u64, PutError> {
        let (mut bytes, mut longest) = (0, 0);
        for (field, value) in fields.clone() {
            bytes += field.len() + value.len() + 2;
            longest = longest.max(field.len()).max(value.len());
        }
        if let FieldExpiry::Set(Some(expires)) = expiry {
            // Before writing any field: the write may fail half-way, and the fields set by then have to expire as well.
            self.note_field_expiry(hash, expires, now);
        }
        let found = self.find_or_create(hash, key, Kind::Hash, [bytes, longest], now)?;
        let mut edit = Edit::new(self, hash, key, Kind::Hash, found);
        let mut added = 0;
        for (field, value) in fields {
            let longest = field.len().max(value.len());
            if edit.is_short_of_room([field.len(), value.len()]) {
                edit = edit.reopened(key, [field.len() + value.len(), longest], now)?;
            }
            added += u64::from(edit.set_field(field, value, expiry, now));
            edit.note(longest, false);
        }
        edit.finish();
        Ok(added)
    }

    /// Removes fields. Returns how many existed.
    ///
    /// # Errors
    /// The key has a value of another type.
    pub fn hash_remove<'v>(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        fields: impl Iterator<Item = &'v [u8]>,
        now: UnixMs,
    ) -> Result<u64, PutError> {
        let Some(mut edit) = self.edit(hash, key, Kind::Hash, [0, 0], now)? else { return Ok(0) };
        let mut removed = 0;
        for field in fields {
            if let Some(spot) = edit.view().find(field) {
                let leaf = edit.view().leaf(spot.path.as_ref());
                removed += u64::from(pair(leaf, spot.offset).1.is_none_or(|expires| expires > now));
                edit.remove(&spot);
            }
        }
        edit.finish();
        Ok(removed)
    }

    /// Sets the expiry times of fields for which `may` accepts the old and the new time. `visit` receives the outcome
    /// of each. None if the key does not exist. May exceed the memory limit ([`Engine::unrefused`]).
    ///
    /// # Errors
    /// See [`PutError`].
    #[allow(clippy::too_many_arguments)]
    pub fn hash_expire<'v>(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        fields: impl Iterator<Item = &'v [u8]> + Clone,
        expires: Option<UnixMs>,
        may: impl Fn(Option<UnixMs>) -> bool,
        now: UnixMs,
        visit: impl FnMut(FieldOutcome),
    ) -> Result<Option<()>, PutError> {
        self.unrefused(|engine| engine.expire_each(hash, key, fields, expires, may, now, visit))
    }

    #[allow(clippy::too_many_arguments)]
    fn expire_each<'v>(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        fields: impl Iterator<Item = &'v [u8]> + Clone,
        expires: Option<UnixMs>,
        may: impl Fn(Option<UnixMs>) -> bool,
        now: UnixMs,
        mut visit: impl FnMut(FieldOutcome),
    ) -> Result<Option<()>, PutError> {
        let bytes: usize = fields.clone().map(|_| 8).sum();
        // Before changing any field: it may fail half-way, and the fields changed by then have to expire as well.
        expires.into_iter().for_each(|expires| self.note_field_expiry(hash, expires, now));
        let Some(mut edit) = self.edit(hash, key, Kind::Hash, [bytes, 0], now)? else { return Ok(None) };
        for field in fields {
            let found = Hash { view: edit.view(), now }.field(field);
            let Some(found) = found else {
                visit(FieldOutcome::Missing);
                continue;
            };
            if !may(found.expires) {
                visit(FieldOutcome::Refused);
                continue;
            }
            if expires.is_some_and(|expires| expires <= now) {
                let spot = edit.view().find(field).expect("it was found");
                edit.remove(&spot);
                visit(FieldOutcome::Removed);
                continue;
            }
            let value = found.value.into_owned();
            if edit.is_short_of_room([field.len(), value.len()]) {
                let room = [field.len() + value.len(), field.len().max(value.len())];
                edit = edit.reopened(key, room, now)?;
            }
            edit.set_field(field, &value, FieldExpiry::Set(expires), now);
            visit(FieldOutcome::Changed);
        }
        edit.finish();
        Ok(Some(()))
    }

    /// Makes sure that a hash is swept when a field of it expires, if that is within the wheel's horizon.
    fn note_field_expiry(&mut self, hash: KeyHash, expires: UnixMs, now: UnixMs) {
        self.field_sweep.note(hash, expires);
        if expires <= now + HORIZON_MS {
            // Without memory for a mark, the background pass finds the hash.
            self.wheel.insert(&mut self.arena, HashMark::of(hash), expires, now);
        }
    }

    /// True if an item is a hash that may contain expired fields.
    pub(in crate::engine) fn has_expired_fields(&self, item: Reference, header: Header, now: UnixMs) -> bool {
        if header.kind() != Kind::Hash {
            return false;
        }
        may_have_expired(&View::new(&self.arena, &self.hasher, item, header), now)
    }

    /// True if an item is a hash with fields that expire.
    pub(in crate::engine) fn has_expiring_fields(&self, item: Reference, header: Header) -> bool {
        header.kind() == Kind::Hash && View::new(&self.arena, &self.hasher, item, header).flags() & TIMED != 0
    }

    /// Queues the hash that a mark of the timing wheel leads to for a sweep, if it may contain expired fields.
    pub(in crate::engine) fn find_expired_fields(&mut self, mark: HashMark, now: UnixMs) {
        if !self.field_sweep.is_expected(now) {
            return;
        }
        let memory = self.arena.memory();
        let mut found = None;
        self.index.find_mark(memory, mark, |at| {
            let item = self.index.reference(memory, at);
            let header = Header::read(memory, place(item));
            let hash = hash_of(memory, &self.hasher, item);
            if HashMark::of(hash) == mark && self.has_expired_fields(item, header, now) {
                found = Some(hash);
            }
            found.is_some()
        });
        found.into_iter().for_each(|hash| self.field_sweep.add(hash));
    }

    /// Removes expired fields of the waiting hashes, within the budget `left`.
    pub(in crate::engine) fn expire_fields(&mut self, now: UnixMs, left: &mut u32) -> Next {
        while *left > 0
            && let Some(Swept { hash, from, earliest }) = self.field_sweep.line.pop_front()
        {
            *left -= 1;
            if self.is_held(hash) {
                self.field_sweep.line.push_back(Swept { hash, from, earliest });
                continue;
            }
            let memory = self.arena.memory();
            let mut item = None;
            let at = self.index.find(memory, hash, |candidate| {
                item = Some(candidate);
                hash_of(memory, &self.hasher, candidate) == hash
            });
            let (Some(_), Some(item)) = (at, item) else { continue };
            if Header::read(memory, place(item)).kind() == Kind::Hash
                && let (Some(from), earliest) = self.sweep_fields(hash, item, from, earliest, now)
            {
                self.field_sweep.line.push_front(Swept { hash, from, earliest });
            }
        }
        if self.field_sweep.line.is_empty() { Next::Idle } else { Next::Now }
    }

    /// Removes expired fields: all those of a small hash, or a step's worth of a large one, from a position on. Returns
    /// the position to continue from, None at the end; and the earliest expiry time seen so far.
    fn sweep_fields(
        &mut self,
        hash: KeyHash,
        item: Reference,
        from: u64,
        earliest: UnixMs,
        now: UnixMs,
    ) -> (Option<u64>, UnixMs) {
        let header = Header::read(self.arena.memory(), place(item));
        let key = header.key(self.arena.memory(), place(item)).to_vec();
        let Ok(Some(mut edit)) = self.edit(hash, &key, Kind::Hash, [0, 0], now) else { return (None, 0) };
        let before = edit.view().len();
        let (next, earliest) = edit.remove_expired(from, earliest, now);
        let removed = before - edit.view().len();
        if next.is_none() && edit.view().len() > 0 {
            edit.field_expiry_known(earliest);
        }
        edit.finish();
        self.stats.expired_fields += removed;
        if next.is_none() && earliest != 0 {
            self.note_field_expiry(hash, earliest, now);
        }
        (next, earliest)
    }
}

impl Edit<'_> {
    /// Sets a field. True if it is new.
    fn set_field(&mut self, field: &[u8], value: &[u8], expiry: FieldExpiry, now: UnixMs) -> bool {
        let (mut spot, is_there) = self.view().seek(field);
        let old = is_there.then(|| {
            let leaf = self.view().leaf(spot.path.as_ref());
            pair(leaf, spot.offset).1
        });
        let was_live = old.is_some_and(|expires| expires.is_none_or(|expires| expires > now));
        let expires = match expiry {
            FieldExpiry::Keep if was_live => old.flatten(),
            FieldExpiry::Keep => None,
            FieldExpiry::Set(expires) => expires,
        };
        let bytes = field.len() + value.len() + 2 + if expires.is_some() { 7 } else { 0 };
        if self.prepare(bytes, field.len().max(value.len())) {
            spot = self.view().seek(field).0;
        }
        let entry = Entry::pair(self.text(field), expires, self.text(value));
        match is_there {
            true => self.replace(&spot, &entry),
            false => self.insert(&spot, &entry),
        }
        if let Some(expires) = expires {
            let flags = self.view().flags();
            self.set_flags(flags | TIMED);
            self.field_expires(expires);
        }
        !was_live
    }

    fn remove_expired(&mut self, from: u64, earliest: UnixMs, now: UnixMs) -> (Option<u64>, UnixMs) {
        let Body::Large(large) = *self.body() else {
            let earliest = self.remove_expired_in(Spot { path: None, offset: 0 }, 0, now);
            return (None, earliest);
        };
        let (mut at, mut earliest, mut root) = (from, earliest, large.roots[MAIN]);
        for _ in 0..LEAVES_PER_STEP {
            let path = leaf_for_key(self.view().arena, root, at);
            let next = path.next_separator(self.view().arena);
            earliest = self.remove_expired_in(Spot { path: Some(path), offset: 0 }, earliest, now);
            match (next, self.body()) {
                (Some(next), Body::Large(large)) => (at, root) = (next, large.roots[MAIN]),
                _ => return (None, earliest),
            }
        }
        (Some(at), earliest)
    }

    /// Removes the expired fields of a leaf; returns the earlier of `earliest` and the earliest expiry time left in the
    /// leaf.
    fn remove_expired_in(&mut self, leaf: Spot, earliest: UnixMs, now: UnixMs) -> UnixMs {
        let (mut expired, mut earliest) = (Vec::new(), earliest);
        let (view, mut at) = (self.view(), 0);
        let bytes = view.leaf(leaf.path.as_ref());
        while at < bytes.len() {
            match pair(bytes, at) {
                (name, Some(expires), _) if expires <= now => expired.push(view.bytes(name).into_owned()),
                (_, Some(expires), _) if earliest == 0 || expires < earliest => earliest = expires,
                _ => {}
            }
            at = entry_end(Shape::Pair, bytes, at);
        }
        for field in expired {
            if let Some(spot) = self.view().find(&field) {
                self.remove(&spot);
            }
        }
        earliest
    }

    /// Records that all fields were visited and none expires before `earliest`; 0 if none expires.
    fn field_expiry_known(&mut self, earliest: UnixMs) {
        let flags = self.view().flags();
        self.set_flags(if earliest == 0 { flags & !TIMED } else { flags | TIMED });
        self.set_field_expiry(earliest);
    }
}
