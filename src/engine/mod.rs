//! One shard's storage: a bounded set of items with expiry, eviction and versions.
//!
//! Pure: it takes bytes and the time, and never looks at a clock. It never holds more memory than it was given: the
//! index is sized at the start, and items live in a log of fixed capacity. When there is no room, the oldest items go
//! (FIFO), so that a write of an item within the size limit always succeeds.
//!
//! ```text
//!           tail (oldest)                        head (next write)
//!  arena: ----|item|item|dead|item|item|dead|item|------------ and around
//!  index:  hash -> place of the item
//! ```
//!
//! A new item is written at the head. Deleting or replacing one leaves dead space, which the tail reclaims as it comes
//! by. Where more than a quarter of the arena is dead, the tail moves live items to the head instead of evicting them,
//! in bounded steps: so churn on a few keys pushes out little of the rest.

mod index;
mod item;
mod log;

pub use item::KEY_BYTES_MAX;

use crate::command::{End, UnixMs};
use index::{Index, Position, QUAD_BYTES, QuadFull};
use item::{GRANULE_BYTES, Header};
use log::Log;
use std::io;

/// Most memory of one engine: a u32 counts granules of 8 bytes.
pub const MEMORY_BYTES_MAX: u64 = 32 << 30;

/// Least memory of one engine.
pub const MEMORY_BYTES_MIN: u64 = 4 << 20;

/// The index gets one eighth of the memory: at 12 entries per 64 bytes, items of 37 bytes and more fill the arena
/// before they fill the index.
const INDEX_SHARE: u64 = 8;

/// An item may be this part of the memory, so that making room for one never empties the arena.
const ITEM_SHARE_MAX: u64 = 4;

/// Versions have 48 bits: at 10 million writes a second they last for 325 days of one process, then wrap.
const VERSION_MASK: u64 = (1 << 48) - 1;

/// Hash of a key, computed once per request; it means nothing outside the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(pub u64);

/// Hashes keys with a seed that is chosen once per process, so that no client can aim at one bucket.
#[derive(Clone, Debug)]
pub struct KeyHasher(ahash::RandomState);

impl KeyHasher {
    /// A hasher with a random seed. Clones of it agree.
    pub fn new() -> Self {
        Self(ahash::RandomState::new())
    }

    /// A hasher with a known seed, for tests and benchmarks.
    pub fn with_seed(seed: u64) -> Self {
        Self(ahash::RandomState::with_seeds(seed, !seed, seed.rotate_left(17), seed ^ 0x9E37_79B9_7F4A_7C15))
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        KeyHash(hasher.finish())
    }
}

impl Default for KeyHasher {
    fn default() -> Self {
        Self::new()
    }
}

/// Limits of one engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Bound of everything that the engine holds, between [`MEMORY_BYTES_MIN`] and [`MEMORY_BYTES_MAX`].
    pub memory_bytes: u64,
    /// Longest value; at most [`value_bytes_max`] of the memory.
    pub value_bytes_max: u32,
}

/// The longest value that an engine with so much memory can be asked to keep.
pub const fn value_bytes_max(memory_bytes: u64) -> u64 {
    memory_bytes / ITEM_SHARE_MAX
}

/// An item that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// The client's 32 bits.
    pub flags: u32,
    /// Unique per write, increasing; memcached's CAS.
    pub version: u64,
    /// When it expires, if it does.
    pub expires: Option<UnixMs>,
    /// The value.
    pub value: &'a [u8],
}

/// What a write stores besides key and value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    /// The client's 32 bits.
    pub flags: u32,
    /// When the item expires, if it does.
    pub expires: Option<UnixMs>,
}

/// The value is longer than the engine takes. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// What the engine holds and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Items, those not yet known to be expired included.
    pub items: u64,
    /// Bytes of their records: key, value, header, padding.
    pub item_bytes: u64,
    /// Bytes of their keys and values alone.
    pub user_bytes: u64,
    /// Items ever written.
    pub items_written: u64,
    /// Live items removed to make room.
    pub evictions: u64,
    /// Expired items removed.
    pub expired: u64,
    /// Live bytes moved to reclaim dead space around them.
    pub moved_bytes: u64,
}

/// The storage of one shard.
pub struct Engine {
    index: Index,
    log: Log,
    hasher: KeyHasher,
    value_bytes_max: u32,
    /// What expiry counts from: a tick before the start, so that the first tick has always passed.
    epoch: UnixMs,
    last_version: u64,
    /// Items with this version or an older one are gone.
    flushed_version: u64,
    /// When a delayed flush is due.
    flush_due: Option<UnixMs>,
    stats: EngineStats,
    /// Where values are put together (append, prepend).
    scratch: Vec<u8>,
}

impl Engine {
    /// An empty engine. `now` starts its count of time.
    ///
    /// # Errors
    /// What mmap(2) says when the memory cannot be reserved.
    pub fn new(config: EngineConfig, hasher: KeyHasher, now: UnixMs) -> io::Result<Self> {
        assert!((MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&config.memory_bytes), "memory out of range");
        assert!(u64::from(config.value_bytes_max) <= value_bytes_max(config.memory_bytes), "values too long");
        let quads = (config.memory_bytes / INDEX_SHARE) as usize / QUAD_BYTES;
        let index = Index::new(quads)?;
        let log = Log::new(config.memory_bytes as usize - index.bytes())?;
        Ok(Self {
            index,
            log,
            hasher,
            value_bytes_max: config.value_bytes_max,
            epoch: now.saturating_sub(EXPIRY_TICK_MS),
            last_version: 0,
            flushed_version: 0,
            flush_due: None,
            stats: EngineStats::default(),
            scratch: Vec::new(),
        })
    }

    /// What the engine holds and did.
    pub fn stats(&self) -> EngineStats {
        self.stats
    }

    /// First step of a batched lookup: starts to load the index line of a key.
    #[inline]
    pub fn prefetch_index(&self, hash: KeyHash) {
        self.index.prefetch(hash);
    }

    /// Second step: starts to load the item that the index line points to.
    #[inline]
    pub fn prefetch_item(&self, hash: KeyHash) {
        if let Some(reference) = self.index.likely_reference(hash) {
            self.log.prefetch(place(reference));
        }
    }

    /// Lets the time pass: a delayed flush takes effect when it is due. Call before a batch of requests.
    #[inline]
    pub fn advance(&mut self, now: UnixMs) {
        if self.flush_due.is_some_and(|due| due <= now) {
            self.flush();
        }
    }

    /// Looks a key up.
    #[inline]
    pub fn get(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) -> Option<Item<'_>> {
        let (_, at, header) = self.find_live(hash, key, now)?;
        Some(self.item(at, header))
    }

    /// Changes when a key expires, and returns its item. Its version stays.
    pub fn touch(&mut self, hash: KeyHash, key: &[u8], expires: Option<UnixMs>, now: UnixMs) -> Option<Item<'_>> {
        let (_, at, mut header) = self.find_live(hash, key, now)?;
        header.expiry = self.expiry(expires);
        item::set_expiry(self.log.memory_mut(), at, header.expiry);
        Some(self.item(at, header))
    }

    /// Stores a value under a key, new or not. Returns the item's version.
    ///
    /// # Errors
    /// [`TooLarge`], and the key's old value, if any, is still there.
    pub fn put(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        value: &[u8],
        attributes: Attributes,
        now: UnixMs,
    ) -> Result<u64, TooLarge> {
        assert!((1..=KEY_BYTES_MAX).contains(&key.len()), "a key of {} bytes", key.len());
        if value.len() > self.value_bytes_max as usize {
            return Err(TooLarge);
        }
        self.last_version = (self.last_version + 1) & VERSION_MASK;
        let version = self.last_version;
        self.stats.items_written += 1;
        let expiry = self.expiry(attributes.expires);
        let bytes = item::record_bytes(key.len(), value.len(), attributes.flags);

        if let Some((_, at, old)) = self.find_live(hash, key, now)
            && old.record_bytes() == bytes
            && self.log.is_young(at)
        {
            item::write_item(self.log.memory_mut(), at, key, value, attributes.flags, version, expiry);
            self.stats.user_bytes = self.stats.user_bytes - old.user_bytes() + (key.len() + value.len()) as u64;
            return Ok(version);
        }

        self.make_room(bytes, now);
        let at = self.log.append(bytes);
        item::write_item(self.log.memory_mut(), at, key, value, attributes.flags, version, expiry);
        self.account(Header::read(self.log.memory(), at));
        // Only now: making room may have moved or evicted the old item.
        match self.find(hash, key) {
            Some((position, old_at, old)) => {
                self.index.set_reference(position, reference(at));
                self.discount(old);
                item::mark_dead(self.log.memory_mut(), old_at);
            }
            None => self.enter(hash, at, now),
        }
        Ok(version)
    }

    /// Adds bytes to one end of a value; flags and expiry stay. None if there is no such key.
    ///
    /// # Errors
    /// [`TooLarge`], and the value stays as it was.
    pub fn extend(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        end: End,
        bytes: &[u8],
        now: UnixMs,
    ) -> Result<Option<u64>, TooLarge> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let old = self.get(hash, key, now).map(|old| {
            let (front, back) = if end == End::Back { (old.value, bytes) } else { (bytes, old.value) };
            scratch.extend_from_slice(front);
            scratch.extend_from_slice(back);
            Attributes { flags: old.flags, expires: old.expires }
        });
        let version = old.map(|attributes| self.put(hash, key, &scratch, attributes, now)).transpose();
        scratch.shrink_to(SCRATCH_BYTES_KEPT);
        self.scratch = scratch;
        version
    }

    /// Removes a key. False if there was none.
    pub fn remove(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) -> bool {
        match self.find_live(hash, key, now) {
            Some((position, at, header)) => {
                self.forget(hash, position, at, header);
                true
            }
            None => false,
        }
    }

    /// Removes every item that was written before this call.
    pub fn flush(&mut self) {
        self.flush_due = None;
        self.flushed_version = self.last_version;
        self.stats.items = 0;
        self.stats.item_bytes = 0;
        self.stats.user_bytes = 0;
    }

    /// Flushes at a later time, what is written until then included. Replaces an earlier delay.
    pub fn flush_at(&mut self, due: UnixMs) {
        self.flush_due = Some(due);
    }

    fn item(&self, at: usize, header: Header) -> Item<'_> {
        let memory = self.log.memory();
        Item {
            flags: header.client_flags(memory, at),
            version: header.version,
            expires: (header.expiry != 0).then(|| self.epoch + u64::from(header.expiry) * EXPIRY_TICK_MS),
            value: header.value(memory, at),
        }
    }

    /// The entry of a key, whatever state its item is in.
    #[inline]
    fn find(&self, hash: KeyHash, key: &[u8]) -> Option<(Position, usize, Header)> {
        let memory = self.log.memory();
        let mut found = None;
        let position = self.index.find(hash, |reference| {
            let at = place(reference);
            let header = Header::read(memory, at);
            let same = header.key(memory, at) == key;
            if same {
                found = Some((at, header));
            }
            same
        })?;
        found.map(|(at, header)| (position, at, header))
    }

    /// The entry of a key whose item is neither expired nor flushed; one that is, is removed.
    #[inline]
    fn find_live(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) -> Option<(Position, usize, Header)> {
        let (position, at, header) = self.find(hash, key)?;
        if self.is_current(header, now) {
            return Some((position, at, header));
        }
        self.stats.expired += u64::from(!self.is_flushed(header));
        self.forget(hash, position, at, header);
        None
    }

    fn is_flushed(&self, header: Header) -> bool {
        header.version <= self.flushed_version
    }

    #[inline]
    fn is_current(&self, header: Header, now: UnixMs) -> bool {
        let expired = header.expiry != 0 && u64::from(header.expiry) * EXPIRY_TICK_MS <= now.saturating_sub(self.epoch);
        !expired && !self.is_flushed(header)
    }

    /// Time of expiry in ticks, rounded up: an item never goes early. Past times give the first tick, which has passed.
    fn expiry(&self, expires: Option<UnixMs>) -> u32 {
        let Some(expires) = expires else { return 0 };
        let ticks = expires.saturating_sub(self.epoch).div_ceil(EXPIRY_TICK_MS);
        u32::try_from(ticks).unwrap_or(u32::MAX).max(1)
    }

    fn account(&mut self, header: Header) {
        self.stats.items += 1;
        self.stats.item_bytes += header.record_bytes() as u64;
        self.stats.user_bytes += header.user_bytes();
    }

    /// A flushed item is not counted any more.
    fn discount(&mut self, header: Header) {
        if !self.is_flushed(header) {
            self.stats.items -= 1;
            self.stats.item_bytes -= header.record_bytes() as u64;
            self.stats.user_bytes -= header.user_bytes();
        }
    }

    fn forget(&mut self, hash: KeyHash, position: Position, at: usize, header: Header) {
        self.index.remove(hash, position);
        self.discount(header);
        item::mark_dead(self.log.memory_mut(), at);
    }

    /// Enters a new item into the index; where its quad is full, the oldest item of the quad goes.
    fn enter(&mut self, hash: KeyHash, at: usize, now: UnixMs) {
        while self.index.insert(hash, reference(at)) == Err(QuadFull) {
            let oldest = self.index.quad_references(hash).min_by_key(|&r| self.log.age_rank(place(r)));
            self.evict(place(oldest.expect("a full quad has entries")), now);
        }
    }

    /// Removes the live item at `at`, which the index knows.
    fn evict(&mut self, at: usize, now: UnixMs) {
        let header = Header::read(self.log.memory(), at);
        let (hash, position) = self.entry_of(at, header, at);
        if self.is_current(header, now) {
            self.stats.evictions += 1;
        } else {
            self.stats.expired += u64::from(!self.is_flushed(header));
        }
        self.forget(hash, position, at, header);
    }

    /// The entry of a live item that lies at `at` and that the index knows to be at `indexed_at`.
    fn entry_of(&self, at: usize, header: Header, indexed_at: usize) -> (KeyHash, Position) {
        let hash = self.hasher.hash(header.key(self.log.memory(), at));
        let position = self.index.find(hash, |r| r == reference(indexed_at));
        (hash, position.expect("every live item has its entry"))
    }

    /// Advances the tail until `bytes` fit at the head.
    fn make_room(&mut self, bytes: usize, now: UnixMs) {
        let mut may_move = MOVED_BYTES_MAX;
        while !self.log.has_room(bytes) {
            let Some((at, record)) = self.log.tail_record() else { continue };
            let keep = record.is_live()
                && self.is_current(record, now)
                && record.record_bytes() <= may_move
                && self.stats.item_bytes < self.log.capacity() as u64 / 4 * 3;
            if keep && let Some(to) = self.log.move_tail_to_head() {
                let (_, position) = self.entry_of(to, record, at);
                self.index.set_reference(position, reference(to));
                may_move -= record.record_bytes();
                self.stats.moved_bytes += record.record_bytes() as u64;
                continue;
            }
            if record.is_live() {
                self.evict(at, now);
            }
            self.log.drop_tail();
        }
    }
}

/// Resolution of expiry. A u32 of them lasts for 13 years.
const EXPIRY_TICK_MS: u64 = 100;

/// Live bytes moved at most to make room for one item.
const MOVED_BYTES_MAX: usize = 64 << 10;

/// Most memory that `extend` keeps for the next time.
const SCRATCH_BYTES_KEPT: usize = 64 << 10;

fn reference(at: usize) -> u32 {
    (at / GRANULE_BYTES) as u32
}

fn place(reference: u32) -> usize {
    reference as usize * GRANULE_BYTES
}

#[cfg(test)]
mod tests;
