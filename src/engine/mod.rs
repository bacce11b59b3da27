//! One shard's storage: a bounded set of items with expiry, eviction and versions.
//!
//! Pure: callers pass the time in; the engine reads no clock. Everything that it stores lies in the pages of one arena,
//! so one limit bounds all of it.
//!
//! ```text
//!  KeyHash ──► index: quads of 64-byte buckets ──► item: header, key, value ──► parts of a long value
//!                │ a policy byte per entry           in a chunk of its slab class    pages and blocks
//!                ▼
//!  eviction policy    timing wheel, sweep    room: evict, evacuate
//! ```
//!
//! | file | concept |
//! |---|---|
//! | `arena/` | pages, slab classes, chunks |
//! | `item.rs`, `value.rs` | how an item lies in its chunk; long values |
//! | `index/` | hash → entry → item; growing |
//! | `eviction/`, `queue.rs`, `ghost.rs` | eviction policies: which item to evict |
//! | `room.rs` | making room: eviction and evacuation |
//! | `expiry.rs`, `background.rs` | the timing wheel; background work in bounded steps |
//! | `collection/` | lists, sets, sorted sets, hashes |
//! | `hold.rs` | keys that a command works on in several steps |
//! | `cursor.rs` | what clients see of the position of a scan |
//! | `long.rs` | reading and writing long values piece by piece |
//! | `write.rs`, `extend.rs` | storing, changing and removing items; adding to their values |
//! | `range.rs`, `describe.rs` | ranges of strings; metadata of a key |
//! | `versions.rs` | item versions, counted per group |
//!
//! ARCHITECTURE.md explains the design and the measurements that led to it.

#![forbid(unsafe_code)]

mod arena;
mod background;
#[cfg(test)]
mod check;
mod collection;
mod cursor;
mod describe;
mod eviction;
mod expiry;
mod extend;
mod ghost;
mod hash;
mod hold;
mod index;
mod item;
mod long;
mod queue;
mod range;
mod room;
mod sample;
#[cfg(test)]
mod tests;
mod value;
mod versions;
mod write;

pub use crate::eviction::Eviction;
pub use background::Next;
pub use collection::{
    Bound, Bytes, FIELD_EXPIRES_MAX, Field, FieldExpiry, FieldOutcome, Hash, List, ScoreChange, Scored, Set, Sorted,
};
pub use cursor::{Cursors, KEY_CURSOR_BITS, MEMBER_CURSOR_BITS};
pub use describe::{Description, Encoding};
pub use hash::{KeyHash, KeyHasher};
pub use item::{KEY_BYTES_MAX, Kind};
pub use long::{Reader, Upload};

use crate::command::{DATABASES, EncodingLimits, UnixMs};
use crate::slots::Group;
use arena::{Arena, Reference, place};
use background::Sweep;
use collection::{DeferredFree, FieldSweep};
use eviction::{Policy, Random};
use expiry::Wheel;
use hold::Hold;
use index::{Index, Position};
use item::Header;
use long::Handles;
use room::{FREE_PAGES_AIMED_AT, RESERVE_PAGES};
use std::io;
use versions::Versions;

/// Most memory of one engine: a u32 reference counts granules of 4 bytes.
pub const MEMORY_BYTES_MAX: u64 = arena::ARENA_BYTES_MAX;

/// Least memory of one engine.
pub const MEMORY_BYTES_MIN: u64 = 4 << 20;

/// The longest value is this fraction of the memory (one half).
const VALUE_SHARE_MAX: u64 = 2;

/// The longest value whatever the memory, in bytes.
const VALUE_BYTES_MAX: u64 = 512 << 20;

/// Slab classes that only one user allocates from, by their number in [`OTHER_CHUNKS`].
const CHAINED_BUCKETS: usize = 0;
const WHEEL_BLOCKS: usize = 1;
const OTHER_CHUNKS: [usize; 2] = [index::BUCKET_BYTES, expiry::BLOCK_BYTES];

/// Limits and settings of one engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Bound of everything that the engine stores, between [`MEMORY_BYTES_MIN`] and [`MEMORY_BYTES_MAX`].
    pub memory_bytes: u64,
    /// Longest value; at most [`value_bytes_max`] of the memory.
    pub value_bytes_max: u32,
    /// Which item is evicted when memory is full.
    pub eviction: Eviction,
    /// A second bound, on the bytes of keys and values alone: the engine evicts above it too.
    pub user_bytes_max: Option<u64>,
}

/// The longest value that an engine with this much memory can be configured to accept.
pub const fn value_bytes_max(memory_bytes: u64) -> u64 {
    let share = memory_bytes / VALUE_SHARE_MAX;
    if share < VALUE_BYTES_MAX { share } else { VALUE_BYTES_MAX }
}

/// An item, as a lookup returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// memcached's 32 bits of client flags.
    pub flags: u32,
    /// Unique per write and increasing; memcached's CAS.
    pub version: u64,
    /// Expiry time, if it has one.
    pub expires: Option<UnixMs>,
    /// The value.
    pub value: Value<'a>,
}

/// The value of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// The whole value, in one piece.
    Whole(&'a [u8]),
    /// A value in parts, of this many bytes: [`Engine::open`] reads it.
    Long(usize),
    /// Not a string but a collection of this type and this many bytes.
    Collection(Kind, usize),
}

impl Value<'_> {
    /// Its length in bytes.
    pub fn length(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Long(length) | Self::Collection(_, length) => *length,
        }
    }
}

/// An item, and a reader if its value is long.
#[derive(Debug)]
pub struct Fetched<'a> {
    /// The item.
    pub item: Item<'a>,
    /// Present if the value is [`Value::Long`]; the caller must close it.
    pub reader: Option<Reader>,
}

/// What a write stores besides the key and the value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    /// memcached's 32 bits of client flags.
    pub flags: u32,
    /// Expiry time, if the item has one.
    pub expires: Option<UnixMs>,
}

/// Why a write failed. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutError {
    /// The value is longer than the engine is configured to accept.
    TooLarge,
    /// Memory is full, and nothing can be evicted.
    OutOfMemory,
    /// The key has a value of another type.
    WrongType,
}

/// What the items of an engine, or of one of its databases, use. Items that have expired and are not yet removed count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of items.
    pub items: u64,
    /// Bytes that they occupy in chunks and pages.
    pub item_bytes: u64,
    /// Bytes of their keys and values alone.
    pub user_bytes: u64,
    /// Items that have an expiry time.
    pub expiring: u64,
}

/// Usage and counters of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Items, including those that have expired and are not yet removed.
    pub items: u64,
    /// Bytes that they occupy in chunks and pages.
    pub item_bytes: u64,
    /// Bytes of their keys and values alone.
    pub user_bytes: u64,
    /// Items written since the start.
    pub items_written: u64,
    /// Live items evicted.
    pub evictions: u64,
    /// Expired items removed.
    pub expired: u64,
    /// Bytes that the removed expired items occupied.
    pub expired_bytes: u64,
    /// Lookups that found an expired item.
    pub found_expired: u64,
    /// Lookups that found an item that a flush had invalidated.
    pub found_flushed: u64,
    /// Expired fields of hashes removed.
    pub expired_fields: u64,
    /// Bytes copied by evacuation.
    pub moved_bytes: u64,
    /// Bytes of the pages in use: these count against the limit.
    pub held_bytes: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
}

/// The storage of one shard.
pub struct Engine {
    arena: Arena,
    index: Index,
    policy: Policy,
    wheel: Wheel,
    versions: Versions,
    handles: Handles,
    /// Keys that a command works on in several steps.
    holds: Vec<Hold>,
    /// Nodes of deleted collections that are still to be freed.
    deferred: DeferredFree,
    field_sweep: FieldSweep,
    hasher: KeyHasher,
    cursors: Cursors,
    value_bytes_max: u32,
    /// The limit that was set, in pages. The arena's own limit comes down to it step by step.
    pages_wanted: u32,
    user_bytes_max: Option<u64>,
    /// When a delayed flush is due.
    flush_due: Option<UnixMs>,
    sweep: Sweep,
    lag: background::Lag,
    /// Chunks of the page under evacuation that have been examined.
    evacuated_chunks: u16,
    release: background::Release,
    /// Items evicted and chunks moved since the start; the difference bounds the work of one step.
    room_work: u64,
    /// The change under way may exceed the memory limit ([`Engine::unrefused`]).
    exceeds_limit: bool,
    /// Items that have an expiry time.
    expiring: u64,
    /// Bytes of all items, including flushed ones that are not yet removed.
    held_item_bytes: u64,
    stats: EngineStats,
    usage: Usage,
    databases: [Usage; DATABASES],
    encoding_limits: EncodingLimits,
    random: Random,
    /// Buffer in which append and prepend build the new value.
    scratch: Vec<u8>,
}

impl Engine {
    /// An empty engine. Its timing wheel starts at `now`.
    ///
    /// # Errors
    /// The error of mmap(2) if the memory cannot be reserved.
    pub fn new(config: EngineConfig, hasher: KeyHasher, now: UnixMs) -> io::Result<Self> {
        Self::resizable(config, config.memory_bytes, hasher, now)
    }

    /// An empty engine whose memory can later be raised to `memory_bytes_max` ([`Engine::set_memory_bytes`]), for which
    /// address space is reserved.
    ///
    /// # Errors
    /// As for [`Engine::new`].
    pub fn resizable(config: EngineConfig, memory_bytes_max: u64, hasher: KeyHasher, now: UnixMs) -> io::Result<Self> {
        assert!((MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&config.memory_bytes), "memory out of range");
        assert!(u64::from(config.value_bytes_max) <= value_bytes_max(config.memory_bytes), "values too long");
        let mut arena = Arena::resizable(config.memory_bytes, memory_bytes_max, &OTHER_CHUNKS)?;
        let random = Random::seeded(hasher.hash(b"random elements").0);
        let chained = arena.other_class(CHAINED_BUCKETS);
        Ok(Self {
            index: Index::new(&mut arena, chained),
            policy: Policy::new(config.eviction),
            wheel: Wheel::new(arena.other_class(WHEEL_BLOCKS), now),
            versions: Versions::new(),
            handles: Handles::new(),
            holds: Vec::new(),
            deferred: DeferredFree::new(),
            field_sweep: FieldSweep::default(),
            cursors: Cursors::new(&hasher),
            hasher,
            value_bytes_max: config.value_bytes_max,
            pages_wanted: arena.limit_pages(),
            user_bytes_max: config.user_bytes_max,
            flush_due: None,
            sweep: Sweep::new(now),
            lag: background::Lag::default(),
            evacuated_chunks: 0,
            release: background::Release::new(now),
            room_work: 0,
            exceeds_limit: false,
            expiring: 0,
            held_item_bytes: 0,
            stats: EngineStats::default(),
            usage: Usage::default(),
            databases: [Usage::default(); DATABASES],
            encoding_limits: EncodingLimits::default(),
            random,
            scratch: Vec::new(),
            arena,
        })
    }

    /// Advises the kernel to back the memory with huge pages.
    ///
    /// # Errors
    /// The error of madvise(2); the memory is as usable as before.
    pub fn advise_huge_pages(&self) -> io::Result<()> {
        self.arena.advise_huge_pages()
    }

    /// Sets the limit of memory. Lowering it takes effect step by step, in [`Engine::work`], which also gives the
    /// memory back to the system.
    pub fn set_memory_bytes(&mut self, bytes: u64) {
        let bytes = bytes.clamp(MEMORY_BYTES_MIN, MEMORY_BYTES_MAX);
        self.pages_wanted = (bytes / self.arena.page_bytes() as u64) as u32;
        if self.pages_wanted > self.arena.limit_pages() {
            self.arena.set_limit_pages(self.pages_wanted);
            self.pages_wanted = self.arena.limit_pages();
        }
    }

    /// The limit of memory that was set.
    pub fn memory_bytes(&self) -> u64 {
        u64::from(self.pages_wanted) * self.arena.page_bytes() as u64
    }

    /// Gives free memory back to the system, step by step, in [`Engine::work`].
    pub fn purge(&mut self) {
        self.release.pages = u32::MAX;
    }

    /// Usage and counters.
    pub fn stats(&self) -> EngineStats {
        let page_bytes = self.arena.page_bytes() as u64;
        EngineStats {
            items: self.usage.items,
            item_bytes: self.usage.item_bytes,
            user_bytes: self.usage.user_bytes,
            held_bytes: u64::from(self.arena.held_pages()) * page_bytes,
            index_bytes: self.index.page_count() * page_bytes,
            ..self.stats
        }
    }

    /// Usage of one database.
    pub fn database(&self, number: u8) -> Usage {
        self.databases[usize::from(number)]
    }

    /// The 99th percentile of the lag, in milliseconds, with which the timing wheel has recently removed expired items.
    pub fn expiry_lag_ms(&self) -> u64 {
        self.lag.p99()
    }

    /// The current eviction policy.
    pub fn eviction(&self) -> Eviction {
        self.policy.eviction()
    }

    /// First step of a batched lookup: prefetches the index line of a key.
    #[inline]
    pub fn prefetch_index(&self, hash: KeyHash) {
        self.index.prefetch(&self.arena, hash);
    }

    /// Second step: prefetches the item that the index line points to.
    #[inline]
    pub fn prefetch_item(&self, hash: KeyHash) {
        if let Some(reference) = self.index.likely_reference(&self.arena, hash) {
            self.arena.prefetch(reference);
        }
    }

    /// Looks a key up.
    #[inline]
    pub fn get(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) -> Option<Item<'_>> {
        let found = self.find_live(hash, key, now)?;
        self.hit(hash, found.at);
        Some(self.item(found.item, found.header))
    }

    /// Looks a key up in order to send its value: a long value comes with a reader.
    #[inline]
    pub fn fetch(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) -> Option<Fetched<'_>> {
        let found = self.find_live(hash, key, now)?;
        self.hit(hash, found.at);
        Some(self.fetched(found))
    }

    #[inline]
    fn fetched(&mut self, found: Found) -> Fetched<'_> {
        let reader = found.header.has_long_value().then(|| self.handles.read(found.item));
        Fetched { item: self.item(found.item, found.header), reader }
    }

    /// Visits the items of at least one quad, from a cursor on, in hash order; returns the next cursor, 0 at the end.
    /// Over a whole scan, an item that is present all the time is visited at least once, however often the index is
    /// resized meanwhile.
    pub fn scan(&self, cursor: u32, now: UnixMs, mut visit: impl FnMut(&[u8], KeyHash, Item)) -> u32 {
        self.index.scan(self.arena.memory(), cursor, |item| {
            let memory = self.arena.memory();
            let header = Header::read(memory, place(item));
            let hash = eviction::hash_of(memory, &self.hasher, item);
            if self.is_current(hash, item, header, now) {
                visit(header.key(memory, place(item)), hash, self.item(item, header));
            }
        })
    }

    /// Translates the cursors of scans for clients.
    pub fn cursors(&self) -> Cursors {
        self.cursors
    }

    #[inline]
    fn item(&self, item: Reference, header: Header) -> Item<'_> {
        let (memory, at) = (self.arena.memory(), place(item));
        let value = match header.kind() {
            Kind::String if header.has_long_value() => Value::Long(value::length(&self.arena, item, header)),
            Kind::String => Value::Whole(header.inline_value(memory, at)),
            kind => Value::Collection(kind, value::length(&self.arena, item, header)),
        };
        Item {
            flags: header.client_flags(memory, at),
            version: header.version(),
            expires: header.expires(memory, at),
            value,
        }
    }

    /// Reports a hit to the policy.
    #[inline]
    fn hit(&mut self, hash: KeyHash, at: Position) {
        if self.is_adopted(hash) {
            let byte = self.index.policy(self.arena.memory(), at);
            let next = self.policy.hit(byte);
            if next != byte {
                self.index.set_policy(self.arena.memory_mut(), at, next);
            }
        }
    }

    /// Finds the entry of a key, even if its item has expired or was flushed.
    #[inline(always)]
    fn find(&self, hash: KeyHash, key: &[u8]) -> Option<Found> {
        let memory = self.arena.memory();
        let mut found = None;
        let at = self.index.find(memory, hash, |item| {
            let header = Header::read(memory, place(item));
            let same = header.key(memory, place(item)) == key && header.database() == hash.database();
            if same {
                found = Some((item, header));
            }
            same
        })?;
        found.map(|(item, header)| Found { at, item, header })
    }

    /// Finds the entry of a key. An item that has expired or was flushed is removed instead of returned.
    #[inline(always)]
    fn find_live(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) -> Option<Found> {
        let found = self.find(hash, key)?;
        if self.is_current(hash, found.item, found.header, now) {
            return Some(found);
        }
        self.remove_stale(hash, found, now);
        None
    }

    /// Removes an item that has expired or was flushed, and that a lookup has found.
    #[cold]
    fn remove_stale(&mut self, hash: KeyHash, found: Found, now: UnixMs) {
        match self.is_flushed(hash, found.item, found.header) {
            true => self.stats.found_flushed += 1,
            false => self.stats.found_expired += 1,
        }
        self.count_expired(hash, found.item, found.header, now);
        self.remove_entry(hash, found.at, found.item, found.header);
    }

    #[inline]
    fn is_current(&self, hash: KeyHash, item: Reference, header: Header, now: UnixMs) -> bool {
        !self.is_expired(item, header, now) && !self.is_flushed(hash, item, header)
    }

    #[inline]
    fn is_expired(&self, item: Reference, header: Header, now: UnixMs) -> bool {
        header.expires(self.arena.memory(), place(item)).is_some_and(|expires| expires <= now)
    }

    #[inline]
    fn is_flushed(&self, hash: KeyHash, item: Reference, header: Header) -> bool {
        if !self.sweep.is_flushing() {
            return false;
        }
        let group = Group::of(header.key(self.arena.memory(), place(item)));
        self.sweep.has_flushed(hash, group, header.version())
    }

    /// Counts an item that is about to be removed, if the reason is that it has expired.
    fn count_expired(&mut self, hash: KeyHash, item: Reference, header: Header, now: UnixMs) {
        if self.is_expired(item, header, now) && !self.is_flushed(hash, item, header) {
            self.stats.expired += 1;
            self.stats.expired_bytes += value::footprint(&self.arena, item);
        }
    }

    /// True if the current policy has adopted the entries at this hash.
    #[inline]
    fn is_adopted(&self, hash: KeyHash) -> bool {
        self.sweep.is_adopted(hash.position())
    }

    fn account(&mut self, item: Reference, header: Header, bytes: u64) {
        self.held_item_bytes += bytes;
        self.expiring += u64::from(header.may_expire());
        let user_bytes = self.user_bytes(item, header);
        for usage in [&mut self.usage, &mut self.databases[usize::from(header.database())]] {
            usage.items += 1;
            usage.item_bytes += bytes;
            usage.user_bytes += user_bytes;
            usage.expiring += u64::from(header.may_expire());
        }
    }

    /// Deducts an item that is about to be removed. The flush has already deducted flushed items from the usage.
    fn discount(&mut self, hash: KeyHash, item: Reference, header: Header, bytes: u64) {
        self.held_item_bytes -= bytes;
        self.expiring -= u64::from(header.may_expire());
        if !self.is_flushed(hash, item, header) {
            let user_bytes = self.user_bytes(item, header);
            for usage in [&mut self.usage, &mut self.databases[usize::from(header.database())]] {
                usage.items -= 1;
                usage.item_bytes -= bytes;
                usage.user_bytes -= user_bytes;
                usage.expiring -= u64::from(header.may_expire());
            }
        }
    }

    /// Updates the usage after the bytes of an item's key and value changed from `from` to `to`.
    fn user_bytes_changed(&mut self, hash: KeyHash, from: u64, to: u64) {
        for usage in [&mut self.usage, &mut self.databases[usize::from(hash.database())]] {
            usage.user_bytes = usage.user_bytes - from + to;
        }
    }

    /// A random number, for commands that return random elements. The generator is seeded from the hasher.
    pub fn random(&mut self) -> u64 {
        u64::from(self.random.next()) << 32 | u64::from(self.random.next())
    }

    fn user_bytes(&self, item: Reference, header: Header) -> u64 {
        (header.key_bytes() + value::length(&self.arena, item, header)) as u64
    }
}

/// An entry and its item.
#[derive(Clone, Copy)]
struct Found {
    at: Position,
    item: Reference,
    header: Header,
}
