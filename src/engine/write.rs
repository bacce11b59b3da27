//! Storing, changing and removing items.

use super::arena::{CHUNK_BYTES_MAX, Reference, place};
use super::eviction::{Entrant, Outlook, View};
use super::expiry::HORIZON_MS;
use super::index::{HashMark, Position, QuadFull, STEP_PAGES_MAX};
use super::item::{self, Fields, Header};
use super::{Attributes, Engine, Fetched, Found, Item, KEY_BYTES_MAX, KeyHash, PutError, eviction, value};
use crate::command::UnixMs;
use crate::slots::Group;

/// Bytes left free in the largest chunk, so that an item in it can be given an expiry time later.
pub(super) const EXPIRY_BYTES: usize = 4;

/// Fractional bits of the fixed-point numbers in [`Engine::outlook`].
const SCALE_BITS: u32 = 16;

impl Engine {
    /// Stores a value under a key that may exist. Returns the item's version.
    ///
    /// # Errors
    /// See [`PutError`]; the old value, if any, is unchanged.
    pub fn put(
        &mut self,
        hash: KeyHash,
        group: Group,
        key: &[u8],
        value: &[u8],
        attributes: Attributes,
        now: UnixMs,
    ) -> Result<u64, PutError> {
        assert!(key.len() <= KEY_BYTES_MAX, "a key of {} bytes", key.len());
        let Attributes { flags, expires } = attributes;
        let mut fields = Fields { flags, expires, database: hash.database(), ..Fields::default() };
        let bytes = fields.item_bytes(key.len(), value.len());
        if bytes + EXPIRY_BYTES > CHUNK_BYTES_MAX {
            return self.put_long(hash, group, key, value, attributes, now);
        }
        if value.len() > self.value_bytes_max as usize {
            return Err(PutError::TooLarge);
        }
        self.bound_user_bytes(hash, key, value.len(), now)?;
        let class = self.arena.class_for(bytes);
        if let Some(found) = self.find_live(hash, key, now)
            && !found.header.has_parts()
            && self.arena.class_of(found.item) == class
        {
            fields.version = self.versions.next(group);
            self.write_over(hash, found, &fields, key, value, now);
            return Ok(fields.version);
        }
        self.make_room(class, now)?;
        let item = self.arena.allocate(class).expect("there is room");
        fields.version = self.versions.next(group);
        let memory = self.arena.memory_mut();
        let body = item::write_item(memory, place(item), &fields, key, value.len());
        memory[body..body + value.len()].copy_from_slice(value);
        self.enter(hash, item, now)?;
        Ok(fields.version)
    }

    /// Replaces the value of a key by a short value that `change` computes from it; flags and expiry stay. The key is
    /// looked up once, because the lookup dominates the cost of INCR. False, with nothing changed, if the key does not
    /// exist.
    ///
    /// # Errors
    /// The error of `change`, or a [`PutError`]; the value is unchanged.
    pub fn change<E: From<PutError>, V: AsRef<[u8]>>(
        &mut self,
        hash: KeyHash,
        group: Group,
        key: &[u8],
        now: UnixMs,
        change: impl FnOnce(Item) -> Result<V, E>,
    ) -> Result<bool, E> {
        let Some(found) = self.find_live(hash, key, now) else { return Ok(false) };
        let value = change(self.item(found.item, found.header))?;
        let value = value.as_ref();
        let mut fields = Fields { raw: false, ..found.header.fields(self.arena.memory(), place(found.item)) };
        let bytes = fields.item_bytes(key.len(), value.len());
        let fits = !found.header.has_parts() && bytes <= CHUNK_BYTES_MAX;
        if fits && self.user_bytes_max.is_none() && self.arena.class_of(found.item) == self.arena.class_for(bytes) {
            fields.version = self.versions.next(group);
            self.write_over(hash, found, &fields, key, value, now);
        } else {
            let attributes = Attributes { flags: fields.flags, expires: fields.expires };
            self.put(hash, group, key, value, attributes, now)?;
        }
        Ok(true)
    }

    /// Overwrites a value in place. The chunk is of the class that the new value needs.
    #[inline]
    fn write_over(&mut self, hash: KeyHash, old: Found, fields: &Fields, key: &[u8], value: &[u8], now: UnixMs) {
        let at = place(old.item);
        let old_expires = old.header.expires(self.arena.memory(), at);
        let memory = self.arena.memory_mut();
        let body = item::write_item(memory, at, fields, key, value.len());
        memory[body..body + value.len()].copy_from_slice(value);
        self.stats.items_written += 1;
        self.user_bytes_changed(hash, old.header.inline_bytes() as u64, value.len() as u64);
        self.hit(hash, old.at);
        if fields.expires.is_some() || old_expires.is_some() {
            let marked = old_expires.filter(|_| old.header.is_in_wheel());
            self.retime(hash, old, old_expires.is_some(), marked, now);
        }
    }

    /// Enters an item that has been written into its chunk into the index, replacing the key's old item if there is
    /// one. Frees the item if there is no room for an entry.
    pub(super) fn enter(&mut self, hash: KeyHash, item: Reference, now: UnixMs) -> Result<(), PutError> {
        let memory = self.arena.memory();
        let header = Header::read(memory, place(item));
        let expires = header.expires(memory, place(item));
        let bytes = value::footprint(&self.arena, item);
        // Looked up only now, because making room may have moved or evicted the old item.
        let old = self.find(hash, header.key(self.arena.memory(), place(item)));
        match old {
            Some(old) => self.replace(hash, old, item, bytes, now),
            None => self.insert(hash, item, header, bytes, now)?,
        }
        self.stats.items_written += 1;
        self.account(item, header, bytes);
        if let Some(expires) = expires {
            self.schedule(hash, item, expires, None, now);
        }
        Ok(())
    }

    fn replace(&mut self, hash: KeyHash, old: Found, item: Reference, bytes: u64, now: UnixMs) {
        let old_bytes = value::footprint(&self.arena, old.item);
        self.index.set_reference(self.arena.memory_mut(), old.at, item);
        if self.is_adopted(hash) {
            let may_expire = Header::read(self.arena.memory(), place(item)).may_expire();
            let byte = self.index.policy(self.arena.memory(), old.at);
            self.policy.resized(byte, old_bytes, bytes);
            let byte = self.policy.retimed(byte, may_expire);
            self.index.set_policy(self.arena.memory_mut(), old.at, byte);
        }
        self.hit(hash, old.at);
        self.count_expired(hash, old.item, old.header, now);
        self.discount(hash, old.item, old.header, old_bytes);
        self.release_item(old.item, old.header);
    }

    fn insert(
        &mut self,
        hash: KeyHash,
        item: Reference,
        header: Header,
        bytes: u64,
        now: UnixMs,
    ) -> Result<(), PutError> {
        let mut entered = self.index.insert(&mut self.arena, hash, item, 0);
        if entered == Err(QuadFull::LongChain) && self.evict_collided(hash, now) {
            entered = self.index.insert(&mut self.arena, hash, item, 0);
        }
        let Ok(at) = entered else {
            // The pages of the reserve are only used up where nothing can be evicted.
            self.release_item(item, header);
            return Err(PutError::OutOfMemory);
        };
        if self.is_adopted(hash) {
            let entrant = Entrant { hash, bytes, may_expire: header.may_expire() };
            let outlook = self.outlook();
            let byte = self.policy.admit(&mut self.arena, entrant, outlook);
            self.index.set_policy(self.arena.memory_mut(), at, byte);
        }
        let mut view =
            View { arena: &mut self.arena, index: &self.index, hasher: &self.hasher, item_bytes: self.held_item_bytes };
        self.policy.tidy(&mut view);
        self.index.consider_growth(&self.arena);
        self.grow();
        Ok(())
    }

    /// Does one step of the index's growth, if it is growing and the pages for a step are free.
    #[inline]
    pub(super) fn grow(&mut self) -> bool {
        if !self.index.is_growing() || self.arena.free_pages() < STEP_PAGES_MAX {
            return false;
        }
        let hasher = &self.hasher;
        self.index.growth_step(&mut self.arena, |memory, item| eviction::hash_of(memory, hasher, item));
        true
    }

    fn outlook(&self) -> Outlook {
        let (held, limit) = match self.user_bytes_max {
            Some(max) => (self.usage.user_bytes, max),
            None => (u64::from(self.arena.held_pages()), u64::from(self.arena.limit_pages())),
        };
        // Fixed-point arithmetic, so that one division per write suffices.
        let scale = (limit.max(held) << SCALE_BITS) / held.max(1);
        let when_full = |now: u64| ((u128::from(now) * u128::from(scale)) >> SCALE_BITS) as u64;
        let held_bytes = self.held_item_bytes;
        Outlook { entries: when_full(self.index.entries()), bytes: when_full(held_bytes), held_bytes }
    }

    /// Sets the expiry time of a key. Its version stays. False if the key does not exist.
    ///
    /// # Errors
    /// [`PutError::OutOfMemory`] if the expiry time needs a larger chunk and there is none, not even beyond the memory
    /// limit ([`Engine::unrefused`]). Nothing is changed then.
    pub fn touch(&mut self, hash: KeyHash, key: &[u8], expires: Option<UnixMs>, now: UnixMs) -> Result<bool, PutError> {
        Ok(self.touch_found(hash, key, expires, now)?.is_some())
    }

    /// Looks a key up in order to send its value, and sets its expiry time. A time in the past takes effect after this
    /// lookup.
    ///
    /// # Errors
    /// As for [`Engine::touch`].
    pub fn fetch_and_touch(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        expires: Option<UnixMs>,
        now: UnixMs,
    ) -> Result<Option<Fetched<'_>>, PutError> {
        let found = self.touch_found(hash, key, expires, now)?;
        Ok(found.map(|found| self.fetched(found)))
    }

    fn touch_found(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        expires: Option<UnixMs>,
        now: UnixMs,
    ) -> Result<Option<Found>, PutError> {
        let Some(mut found) = self.find_live(hash, key, now) else { return Ok(None) };
        let (memory, at) = (self.arena.memory(), place(found.item));
        let old_expires = found.header.expires(memory, at);
        let marked = old_expires.filter(|_| found.header.is_in_wheel());
        match (old_expires, expires) {
            (Some(_), Some(expires)) => item::set_expiry(self.arena.memory_mut(), at, expires),
            (None, None) => {}
            _ => {
                found = match self.unrefused(|engine| engine.rewrite(hash, key, found, expires, now))? {
                    Some(found) => found,
                    None => return Ok(None),
                };
            }
        }
        self.hit(hash, found.at);
        self.retime(hash, found, old_expires.is_some(), marked, now);
        Ok(Some(found))
    }

    /// Rewrites an item with or without an expiry time, which changes its length. None if the item was evicted to make
    /// room.
    fn rewrite(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        old: Found,
        expires: Option<UnixMs>,
        now: UnixMs,
    ) -> Result<Option<Found>, PutError> {
        let (memory, at) = (self.arena.memory(), place(old.item));
        let fields = Fields { expires, ..old.header.fields(memory, at) };
        let body_bytes = match old.header.has_long_value() {
            true => value::List::of(&self.arena, old.item).parts(&self.arena).list_bytes(),
            false => old.header.inline_bytes(),
        };
        let bytes = fields.item_bytes(key.len(), body_bytes);
        let mut body = [0; CHUNK_BYTES_MAX];
        let body = &mut body[..body_bytes];
        let from = at + old.header.body_offset();
        body.copy_from_slice(&memory[from..from + body_bytes]);
        if bytes <= self.arena.chunk_bytes(old.item) {
            self.write_body(old.item, &fields, key, body);
            return Ok(Some(Found { header: Header::read(self.arena.memory(), at), ..old }));
        }
        let class = self.arena.class_for(bytes);
        self.make_room(class, now)?;
        // Making room may have moved the item or its blocks, or evicted it.
        let Some(old) = self.find(hash, key) else { return Ok(None) };
        let from = place(old.item) + old.header.body_offset();
        body.copy_from_slice(&self.arena.memory()[from..from + body_bytes]);
        let old_bytes = value::footprint(&self.arena, old.item);
        let item = self.arena.allocate(class).expect("there is room");
        self.write_body(item, &fields, key, body);
        self.index.set_reference(self.arena.memory_mut(), old.at, item);
        self.parts_moved(old.item, item);
        self.arena.release(old.item);
        self.resized(hash, old.at, old_bytes, value::footprint(&self.arena, item));
        Ok(Some(Found { at: old.at, item, header: Header::read(self.arena.memory(), place(item)) }))
    }

    fn write_body(&mut self, item: Reference, fields: &Fields, key: &[u8], body: &[u8]) {
        let memory = self.arena.memory_mut();
        let at = item::write_item(memory, place(item), fields, key, body.len());
        memory[at..at + body.len()].copy_from_slice(body);
    }

    /// Updates the usage and the policy after the footprint of an item changed from `from` to `to`.
    pub(super) fn resized(&mut self, hash: KeyHash, at: Position, from: u64, to: u64) {
        self.held_item_bytes = self.held_item_bytes - from + to;
        for usage in [&mut self.usage, &mut self.databases[usize::from(hash.database())]] {
            usage.item_bytes = usage.item_bytes - from + to;
        }
        if self.is_adopted(hash) {
            let byte = self.index.policy(self.arena.memory(), at);
            self.policy.resized(byte, from, to);
        }
    }

    /// Records a new expiry time. `marked` is the time of the item's mark in the timing wheel, if it has one.
    fn retime(&mut self, hash: KeyHash, found: Found, did_expire: bool, marked: Option<UnixMs>, now: UnixMs) {
        let memory = self.arena.memory();
        let expires = Header::read(memory, place(found.item)).expires(memory, place(found.item));
        if did_expire != expires.is_some() {
            self.expiring = self.expiring + u64::from(expires.is_some()) - u64::from(did_expire);
            for usage in [&mut self.usage, &mut self.databases[usize::from(hash.database())]] {
                usage.expiring = usage.expiring + u64::from(expires.is_some()) - u64::from(did_expire);
            }
            if self.is_adopted(hash) {
                let byte = self.index.policy(memory, found.at);
                let byte = self.policy.retimed(byte, expires.is_some());
                self.index.set_policy(self.arena.memory_mut(), found.at, byte);
            }
        }
        if let Some(expires) = expires {
            self.schedule(hash, found.item, expires, marked, now);
        }
    }

    /// Enters an item into the timing wheel if its time to live is short and it has no mark that is due in time.
    pub(super) fn schedule(
        &mut self,
        hash: KeyHash,
        item: Reference,
        expires: UnixMs,
        marked: Option<UnixMs>,
        now: UnixMs,
    ) {
        let in_time = marked.is_some_and(|marked| marked <= expires);
        let is_near = expires <= now + HORIZON_MS;
        // Evicted items leave their marks behind, and so does an item whose time is shortened again and again. The
        // wheel takes no marks beyond this bound; the background pass finds the items without one.
        let marks_max = self.expiring + self.expiring / 16 + 1024;
        let in_wheel = in_time
            || is_near
                && self.wheel.marks() < marks_max
                && self.wheel.insert(&mut self.arena, HashMark::of(hash), expires, now);
        if in_wheel {
            item::set_in_wheel(self.arena.memory_mut(), place(item), true);
        }
    }

    /// Removes a key. False if it does not exist.
    pub fn remove(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) -> bool {
        match self.find_live(hash, key, now) {
            Some(found) => {
                self.remove_entry(hash, found.at, found.item, found.header);
                true
            }
            None => false,
        }
    }

    /// Under a bound on user bytes, evicts until the value fits, counting the old value as gone.
    #[inline]
    pub(super) fn bound_user_bytes(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        value_bytes: usize,
        now: UnixMs,
    ) -> Result<(), PutError> {
        let Some(max) = self.user_bytes_max else { return Ok(()) };
        let bytes = (key.len() + value_bytes) as u64;
        loop {
            // Looked up in each round, because the old value may be the one that is evicted.
            let old = self.find_live(hash, key, now).map_or(0, |old| self.user_bytes(old.item, old.header));
            if self.usage.user_bytes - old + bytes <= max {
                return Ok(());
            }
            if !self.evict_one(now) {
                return Err(PutError::OutOfMemory);
            }
        }
    }
}
