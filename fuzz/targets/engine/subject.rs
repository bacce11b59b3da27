//! The engine as the target sees it: all that the target knows of the engine's functions and promises is here.

use pinion::command::{End, UnixMs};
use pinion::engine::{Attributes, Engine, EngineConfig, Eviction, KeyHash, KeyHasher, MEMORY_BYTES_MIN, PutError};
use pinion::slots::Group;

/// The least that it takes.
pub const MEMORY_BYTES: u64 = MEMORY_BYTES_MIN;

/// Longest value: as long as the memory allows, so that few writes fill it.
pub const VALUE_BYTES_MAX: u32 = (MEMORY_BYTES / 4) as u32;

/// Nothing is evicted before so many bytes of keys and values have been written, …
pub const KEPT_BYTES: u64 = MEMORY_BYTES / 4;

/// … or so many items.
pub const KEPT_ITEMS: u64 = 4096;

/// An item stays visible for less than this after its expiry.
pub const EXPIRY_LATE_MS: u64 = 1;

/// An item that was found.
#[derive(Debug)]
pub struct Found {
    pub flags: u32,
    pub version: u64,
    pub expires: Option<UnixMs>,
    pub value: Vec<u8>,
}

pub struct Subject {
    engine: Engine,
    hasher: KeyHasher,
}

impl Subject {
    pub fn new(now: UnixMs) -> Self {
        let config = EngineConfig {
            memory_bytes: MEMORY_BYTES,
            value_bytes_max: VALUE_BYTES_MAX,
            eviction: Eviction::default(),
            user_bytes_max: None,
        };
        let hasher = KeyHasher::with_seed(1);
        Self { engine: Engine::new(config, hasher.clone(), now).expect("memory"), hasher }
    }

    /// As a shard does it: the hash first, then the two prefetches.
    fn hash(&self, key: &[u8]) -> KeyHash {
        let hash = self.hasher.hash(key);
        self.engine.prefetch_index(hash);
        self.engine.prefetch_item(hash);
        hash
    }

    pub fn get(&mut self, key: &[u8], now: UnixMs) -> Option<Found> {
        let fetched = self.engine.fetch(self.hash(key), key, now)?;
        let (item, reader) = (fetched.item, fetched.reader);
        let (flags, version, expires) = (item.flags, item.version, item.expires);
        let mut value = item.value.whole().unwrap_or_default().to_vec();
        if let Some(mut reader) = reader {
            while let piece @ [_, ..] = self.engine.read(&mut reader, usize::MAX) {
                value.extend_from_slice(piece);
            }
            self.engine.close(reader);
        }
        Some(Found { flags, version, expires, value })
    }

    pub fn put(
        &mut self,
        key: &[u8],
        value: &[u8],
        flags: u32,
        expires: Option<UnixMs>,
        now: UnixMs,
    ) -> Result<u64, PutError> {
        self.engine.put(self.hash(key), Group::of(key), key, value, Attributes { flags, expires }, now)
    }

    pub fn extend(&mut self, key: &[u8], end: End, bytes: &[u8], now: UnixMs) -> Result<Option<u64>, PutError> {
        self.engine.extend(self.hash(key), Group::of(key), key, end, bytes, now)
    }

    pub fn touch(&mut self, key: &[u8], expires: Option<UnixMs>, now: UnixMs) -> bool {
        self.engine.touch(self.hash(key), key, expires, now).expect("there is room")
    }

    pub fn remove(&mut self, key: &[u8], now: UnixMs) -> bool {
        self.engine.remove(self.hash(key), key, now)
    }

    pub fn flush(&mut self) {
        self.engine.flush();
    }

    pub fn flush_at(&mut self, due: UnixMs) {
        self.engine.flush_at(due);
    }

    pub fn advance(&mut self, now: UnixMs) {
        self.engine.advance(now);
        self.engine.work(now);
    }

    pub fn evictions(&self) -> u64 {
        self.engine.stats().evictions
    }

    /// Items, and bytes of their keys and values.
    pub fn holds(&self) -> (u64, u64) {
        let stats = self.engine.stats();
        (stats.items, stats.user_bytes)
    }
}
