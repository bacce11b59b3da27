//! The engine as replays see it: the one place that knows its configuration and its calls.

use crate::command::UnixMs;
use crate::engine::{self, Attributes, Engine, EngineConfig, Eviction, KeyHasher};
use crate::slots::Group;
use std::io;

/// The policies that are compared where none are named: those that evict.
pub const POLICIES: &[Eviction] =
    &[Eviction::S3Fifo, Eviction::Sieve, Eviction::Lru, Eviction::Lfu, Eviction::Fifo, Eviction::Ttl, Eviction::Random];

/// Least memory of an engine.
pub(super) const MEMORY_BYTES_MIN: u64 = engine::MEMORY_BYTES_MIN;

/// Most memory of an engine here: what needs more is scaled.
pub(super) const MEMORY_BYTES_MAX: u64 = 16 << 30;

const _: () = assert!(MEMORY_BYTES_MAX <= engine::MEMORY_BYTES_MAX);

/// What a cell's engine is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) eviction: Eviction,
    pub(super) memory_bytes: u64,
    /// Evict as if memory were full when there are more bytes of keys and values.
    pub(super) user_bytes_max: Option<u64>,
    /// Longest value, as far as memory allows.
    pub(super) value_bytes_max: u64,
}

/// Memory in which so many user bytes find room whatever the engine adds: twice their own for space that is dead or
/// cut into pieces, 128 bytes per item for header, index and what of it stays empty, and four of the longest item.
pub(super) fn memory_bytes_for(user_bytes: u64, items: u64, longest_item_bytes: u64) -> u64 {
    const ROOM_BYTES: u64 = 64 << 20;
    let content = user_bytes.saturating_mul(2).saturating_add(items.saturating_mul(128));
    content.saturating_add(longest_item_bytes.saturating_mul(4)).saturating_add(ROOM_BYTES)
}

/// What a cache holds and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    pub(super) items: u64,
    pub(super) user_bytes: u64,
    pub(super) evictions: u64,
    pub(super) expired: u64,
    pub(super) moved_bytes: u64,
}

/// An engine and the hasher of its keys, whose seed is fixed: the same trace gives the same result.
pub(super) struct Cache {
    engine: Engine,
    hasher: KeyHasher,
    value_bytes_max: usize,
    user_bytes_max: u64,
}

impl Cache {
    /// An empty cache.
    ///
    /// # Errors
    /// Its memory cannot be reserved.
    pub(super) fn new(limits: Limits, now: UnixMs) -> io::Result<Self> {
        let longest = engine::value_bytes_max(limits.memory_bytes).min(u32::MAX.into());
        let value_bytes_max = limits.value_bytes_max.min(longest);
        let config = EngineConfig {
            memory_bytes: limits.memory_bytes,
            value_bytes_max: value_bytes_max as u32,
            eviction: limits.eviction,
            user_bytes_max: limits.user_bytes_max,
        };
        let hasher = KeyHasher::with_seed(1);
        Ok(Self {
            engine: Engine::new(config, hasher.clone(), now)?,
            hasher,
            value_bytes_max: value_bytes_max as usize,
            user_bytes_max: limits.user_bytes_max.unwrap_or(u64::MAX),
        })
    }

    /// Longest value that it takes.
    pub(super) fn value_bytes_max(&self) -> usize {
        self.value_bytes_max
    }

    /// Lets the time pass, and background work go a step on. Call it regularly.
    pub(super) fn advance(&mut self, now: UnixMs) {
        self.engine.advance(now);
        self.engine.work(now);
    }

    /// True if the key is there.
    #[inline]
    pub(super) fn get(&mut self, key: &[u8], now: UnixMs) -> bool {
        self.engine.get(self.hasher.hash(key), key, now).is_some()
    }

    /// Stores an item. False if it is too large, and nothing was changed.
    #[inline]
    pub(super) fn put(&mut self, key: &[u8], value: &[u8], expires: Option<UnixMs>, now: UnixMs) -> bool {
        if (key.len() + value.len()) as u64 > self.user_bytes_max {
            return false;
        }
        let attributes = Attributes { flags: 0, expires };
        self.engine.put(self.hasher.hash(key), Group::of(key), key, value, attributes, now).is_ok()
    }

    /// Removes a key, if it is there.
    pub(super) fn remove(&mut self, key: &[u8], now: UnixMs) {
        self.engine.remove(self.hasher.hash(key), key, now);
    }

    /// What it holds and did.
    pub(super) fn stats(&self) -> Stats {
        let stats = self.engine.stats();
        Stats {
            items: stats.items,
            user_bytes: stats.user_bytes,
            evictions: stats.evictions,
            expired: stats.expired,
            moved_bytes: stats.moved_bytes,
        }
    }
}
