//! The engine as replays see it: the one place that knows its configuration and its calls.
//!
//! Today's engine evicts first in, first out, and only when its memory is full. So other policies are refused as they are
//! read, and the limit of user bytes is kept from outside, by [`Oldest`]. With an engine that knows policies and the
//! limit, its own `Eviction` stands here instead, [`Oldest`] goes, and nothing outside of this file changes.

use crate::command::UnixMs;
use crate::engine::{self, Attributes, Engine, EngineConfig, KeyHash, KeyHasher};
use std::collections::VecDeque;
use std::io;

/// How items are chosen that make room for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// A small queue filters what is asked for only once.
    S3Fifo,
    /// Least recently used.
    Lru,
    /// Least frequently used.
    Lfu,
    /// First in, first out.
    Fifo,
    /// The least time to live.
    Ttl,
    /// Any.
    Random,
    /// None: writes fail when there is no room.
    None,
}

impl Eviction {
    /// All, in the order in which they are listed.
    pub const ALL: [Self; 7] = [Self::S3Fifo, Self::Lru, Self::Lfu, Self::Fifo, Self::Ttl, Self::Random, Self::None];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::S3Fifo => "s3fifo",
            Self::Lru => "lru",
            Self::Lfu => "lfu",
            Self::Fifo => "fifo",
            Self::Ttl => "ttl",
            Self::Random => "random",
            Self::None => "none",
        }
    }
}

impl std::str::FromStr for Eviction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match Self::ALL.into_iter().find(|e| e.name() == text) {
            Some(Self::Fifo) => Ok(Self::Fifo),
            Some(_) => Err("not in this version's engine yet; allowed: fifo".into()),
            None => Err("allowed: fifo".into()),
        }
    }
}

/// The policies that are compared where none are named.
pub const POLICIES: &[Eviction] = &[Eviction::Fifo];

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
    oldest: Oldest,
}

impl Cache {
    /// An empty cache.
    ///
    /// # Errors
    /// Its memory cannot be reserved.
    pub(super) fn new(limits: Limits, now: UnixMs) -> io::Result<Self> {
        assert_eq!(limits.eviction, Eviction::Fifo, "others are not read");
        let longest = engine::value_bytes_max(limits.memory_bytes).min(u32::MAX.into());
        let value_bytes_max = limits.value_bytes_max.min(longest);
        let config = EngineConfig { memory_bytes: limits.memory_bytes, value_bytes_max: value_bytes_max as u32 };
        let hasher = KeyHasher::with_seed(1);
        Ok(Self {
            engine: Engine::new(config, hasher.clone(), now)?,
            hasher,
            value_bytes_max: value_bytes_max as usize,
            user_bytes_max: limits.user_bytes_max.unwrap_or(u64::MAX),
            oldest: Oldest::default(),
        })
    }

    /// Longest value that it takes.
    pub(super) fn value_bytes_max(&self) -> usize {
        self.value_bytes_max
    }

    /// Lets the time pass, and background work go a step on. Call it regularly.
    pub(super) fn advance(&mut self, now: UnixMs) {
        self.engine.advance(now);
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
        let hash = self.hasher.hash(key);
        let Ok(version) = self.engine.put(hash, key, value, Attributes { flags: 0, expires }, now) else {
            return false;
        };
        if self.user_bytes_max < u64::MAX {
            self.oldest.wrote(hash, key, version);
            self.oldest.evict(&mut self.engine, self.user_bytes_max, now);
        }
        true
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
            evictions: stats.evictions + self.oldest.evictions,
            expired: stats.expired,
            moved_bytes: stats.moved_bytes,
        }
    }
}

/// Every write in order, so that the oldest items can be removed.
#[derive(Default)]
struct Oldest {
    writes: VecDeque<(KeyHash, Box<[u8]>, u64)>,
    evictions: u64,
}

impl Oldest {
    fn wrote(&mut self, hash: KeyHash, key: &[u8], version: u64) {
        self.writes.push_back((hash, key.into(), version));
    }

    fn evict(&mut self, engine: &mut Engine, user_bytes_max: u64, now: UnixMs) {
        while engine.stats().user_bytes > user_bytes_max {
            let Some((hash, key, version)) = self.writes.pop_front() else { return };
            let is_current = engine.get(hash, &key, now).is_some_and(|item| item.version == version);
            if is_current && engine.remove(hash, &key, now) {
                self.evictions += 1;
            }
        }
    }
}
