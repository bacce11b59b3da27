//! The engine as replays use it: the only file of this module that knows the engine's configuration and calls.

use crate::command::UnixMs;
use crate::engine::{self, Attributes, Engine, EngineConfig, Eviction, KeyHasher};
use crate::slots::Group;
use std::io;

/// The policies compared by default: all that evict.
pub const POLICIES: &[Eviction] =
    &[Eviction::S3Fifo, Eviction::Sieve, Eviction::Lru, Eviction::Lfu, Eviction::Fifo, Eviction::Ttl, Eviction::Random];

/// Least memory of an engine.
pub(super) const MEMORY_BYTES_MIN: u64 = engine::MEMORY_BYTES_MIN;

/// Most memory of an engine here; cells that need more are scaled down.
pub(super) const MEMORY_BYTES_MAX: u64 = 16 << 30;

const _: () = assert!(MEMORY_BYTES_MAX <= engine::MEMORY_BYTES_MAX);

/// Limits of a cell's engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) eviction: Eviction,
    pub(super) memory_bytes: u64,
    /// The engine also evicts above this many bytes of keys and values.
    pub(super) user_bytes_max: Option<u64>,
    /// Longest value, unless memory only allows less.
    pub(super) value_bytes_max: u64,
}

/// Memory in which `user_bytes` fit whatever the engine adds to them: twice these bytes to cover fragmentation, 128
/// bytes per item for header, index and unused entries, and four times the longest item.
pub(super) fn memory_bytes_for(user_bytes: u64, items: u64, longest_item_bytes: u64) -> u64 {
    const ROOM_BYTES: u64 = 64 << 20;
    let content = user_bytes.saturating_mul(2).saturating_add(items.saturating_mul(128));
    content.saturating_add(longest_item_bytes.saturating_mul(4)).saturating_add(ROOM_BYTES)
}

/// Usage and counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    pub(super) items: u64,
    pub(super) user_bytes: u64,
    pub(super) evictions: u64,
    pub(super) expired: u64,
    pub(super) moved_bytes: u64,
}

/// An engine and its hasher. The seed is fixed, so that equal traces give equal results.
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
    /// The engine's memory cannot be reserved.
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

    /// Longest value that it accepts.
    pub(super) fn value_bytes_max(&self) -> usize {
        self.value_bytes_max
    }

    /// Advances time, and does one step of background work. To be called regularly.
    pub(super) fn advance(&mut self, now: UnixMs) {
        self.engine.advance(now);
        self.engine.work(now);
    }

    /// Looks the key up; true for a hit.
    #[inline]
    pub(super) fn get(&mut self, key: &[u8], now: UnixMs) -> bool {
        self.engine.get(self.hasher.hash(key), key, now).is_some()
    }

    /// Stores an item. False, with nothing changed, if it is too large.
    #[inline]
    pub(super) fn put(&mut self, key: &[u8], value: &[u8], expires: Option<UnixMs>, now: UnixMs) -> bool {
        if (key.len() + value.len()) as u64 > self.user_bytes_max {
            return false;
        }
        let attributes = Attributes { flags: 0, expires };
        self.engine.put(self.hasher.hash(key), Group::of(key), key, value, attributes, now).is_ok()
    }

    /// Removes a key if it exists.
    pub(super) fn remove(&mut self, key: &[u8], now: UnixMs) {
        self.engine.remove(self.hasher.hash(key), key, now);
    }

    /// Usage and counters.
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
