//! Operations on a small engine and on a map: the engine may forget what it had to evict, but it never shows anything
//! that is not in the map, never forgets without need, and counts exactly what it shows.

#![no_main]

mod subject;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pinion::command::{End, UnixMs};
use pinion::slots::Group;
use std::collections::{HashMap, HashSet};
use subject::{EXPIRY_LATE_MS, Found, KEPT_BYTES, KEPT_ITEMS, MEMORY_BYTES, Subject, VALUE_BYTES_MAX};

const START: UnixMs = 1_700_000_000_000;

/// Bound the time that one input takes. Still, the memory is filled several times.
const WRITTEN_BYTES_MAX: u64 = 4 * MEMORY_BYTES;
const WRITTEN_ITEMS_MAX: u64 = 10_000;

/// `PutMany`: items under keys that follow each other; one such step can fill the memory.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Get { key: u16 },
    Put { key: u16, size: Size, flags: u32, ttl: Ttl },
    PutMany { first_key: u16, items: u8, bytes: u16 },
    Extend { key: u16, front: bool, size: Size },
    Touch { key: u16, ttl: Ttl },
    Remove { key: u16 },
    Flush,
    FlushIn { ms: u16 },
    Pass { ms: u16 },
}

/// Of a value: short, longer, or so many bytes less (or more) than the limit.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Size {
    Short(u8),
    Long(u16),
    Limit(i8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Ttl {
    Never,
    Past(u32),
    Ms(u32),
}

impl Size {
    fn bytes(self) -> usize {
        match self {
            Self::Short(bytes) => bytes.into(),
            Self::Long(bytes) => bytes.into(),
            Self::Limit(less) => VALUE_BYTES_MAX.saturating_add_signed(-i32::from(less)) as usize,
        }
    }
}

impl Ttl {
    fn expires(self, now: UnixMs) -> Option<UnixMs> {
        match self {
            Self::Never => None,
            Self::Past(ms) => Some(now - u64::from(ms)),
            Self::Ms(ms) => Some(now + u64::from(ms)),
        }
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let mut both = Both::new();
    for (n, &step) in steps.iter().enumerate() {
        both.step(n, step);
        if both.written_bytes > WRITTEN_BYTES_MAX || both.written_items > WRITTEN_ITEMS_MAX {
            break;
        }
    }
    both.finish();
});

/// What the map has of an item.
struct Entry {
    value: Vec<u8>,
    flags: u32,
    version: u64,
    expires: Option<UnixMs>,
}

/// The engine and the map.
struct Both {
    engine: Subject,
    map: HashMap<u16, Entry>,
    flush_due: Option<UnixMs>,
    now: UnixMs,
    ever_written: HashSet<u16>,
    written_bytes: u64,
    written_items: u64,
    /// By group: each counts its own.
    last_versions: HashMap<usize, u64>,
}

impl Both {
    fn new() -> Self {
        Self {
            engine: Subject::new(START),
            map: HashMap::new(),
            flush_due: None,
            now: START,
            ever_written: HashSet::new(),
            written_bytes: 0,
            written_items: 0,
            last_versions: HashMap::new(),
        }
    }

    fn step(&mut self, n: usize, step: Step) {
        match step {
            Step::Get { key } => self.get(key),
            Step::Put { key, size, flags, ttl } => self.put(key, value(n, size.bytes()), flags, ttl),
            Step::PutMany { first_key, items, bytes } => {
                for i in 0..u16::from(items) {
                    self.put(first_key.wrapping_add(i), value(n, bytes.into()), 0, Ttl::Never);
                }
            }
            Step::Extend { key, front, size } => self.extend(key, front, &value(n, size.bytes())),
            Step::Touch { key, ttl } => {
                let expires = ttl.expires(self.now);
                let found = self.engine.touch(&name(key), expires, self.now);
                if self.agree_on_presence(key, found) {
                    self.map.get_mut(&key).expect("both have it").expires = expires;
                }
                self.get(key);
            }
            Step::Remove { key } => {
                let found = self.engine.remove(&name(key), self.now);
                self.agree_on_presence(key, found);
                self.map.remove(&key);
                self.get(key);
            }
            Step::Flush => {
                self.engine.flush();
                self.map.clear();
                self.flush_due = None;
                assert_eq!(self.engine.holds(), (0, 0));
            }
            Step::FlushIn { ms } => {
                let due = self.now + u64::from(ms);
                self.engine.flush_at(due);
                self.flush_due = Some(due);
            }
            Step::Pass { ms } => self.now += u64::from(ms),
        }
        self.engine.advance(self.now);
        if self.flush_due.is_some_and(|due| due <= self.now) {
            self.map.clear();
            self.flush_due = None;
        }
    }

    fn get(&mut self, key: u16) {
        let found = self.engine.get(&name(key), self.now);
        if !self.agree_on_presence(key, found.is_some()) {
            return;
        }
        let (Found { flags, version, expires, value }, entry) = (found.expect("found"), &self.map[&key]);
        assert!(value == entry.value, "key {key}: {} bytes, not those {}", value.len(), entry.value.len());
        assert_eq!((flags, version), (entry.flags, entry.version), "key {key}: flags and version");
        let late = |wanted: UnixMs| wanted..wanted + EXPIRY_LATE_MS;
        match (expires, entry.expires) {
            (None, None) => {}
            (Some(expires), Some(wanted)) if late(wanted).contains(&expires) => {}
            others => panic!("key {key}: expiry {others:?}"),
        }
    }

    fn put(&mut self, key: u16, value: Vec<u8>, flags: u32, ttl: Ttl) {
        let expires = ttl.expires(self.now);
        let stored = self.engine.put(&name(key), &value, flags, expires, self.now);
        assert_eq!(stored.is_ok(), value.len() <= VALUE_BYTES_MAX as usize, "{} bytes", value.len());
        if let Ok(version) = stored {
            self.written(key, Entry { value, flags, version, expires });
        } else {
            self.get(key);
        }
    }

    fn extend(&mut self, key: u16, front: bool, bytes: &[u8]) {
        let end = if front { End::Front } else { End::Back };
        let extended = self.engine.extend(&name(key), end, bytes, self.now);
        if !self.agree_on_presence(key, extended != Ok(None)) {
            return;
        }
        let old = &self.map[&key];
        let fits = old.value.len() + bytes.len() <= VALUE_BYTES_MAX as usize;
        assert_eq!(extended.is_ok(), fits, "{} and {} bytes", old.value.len(), bytes.len());
        if let Ok(Some(version)) = extended {
            let value = if front { [bytes, &old.value].concat() } else { [&old.value, bytes].concat() };
            let (flags, expires) = (old.flags, old.expires);
            self.written(key, Entry { value, flags, version, expires });
        } else {
            self.get(key);
        }
    }

    /// A write is seen at once, and is newer than all before it of its group.
    fn written(&mut self, key: u16, entry: Entry) {
        let last = self.last_versions.entry(Group::of(&name(key)).index()).or_default();
        assert!(entry.version > *last, "versions increase");
        *last = entry.version;
        self.written_bytes += (name_bytes(key) + entry.value.len()) as u64;
        self.written_items += 1;
        self.ever_written.insert(key);
        let is_live = entry.expires.is_none_or(|expires| expires > self.now);
        self.map.insert(key, entry);
        self.get(key);
        assert!(!is_live || self.map.contains_key(&key), "key {key} is gone as soon as it is written");
    }

    /// Whether both have a key. What the engine has forgotten, with reason, the map forgets too.
    fn agree_on_presence(&mut self, key: u16, found: bool) -> bool {
        let entry = self.map.get(&key);
        let expires = entry.and_then(|e| e.expires);
        if found {
            assert!(entry.is_some(), "key {key} is not there, but found");
            assert!(expires.is_none_or(|e| self.now < e + EXPIRY_LATE_MS), "key {key} should have expired");
            return true;
        }
        let has_expired = expires.is_some_and(|e| e <= self.now);
        let evictions = self.engine.evictions();
        assert!(entry.is_none() || has_expired || evictions > 0, "key {key} was forgotten without need");
        self.map.remove(&key);
        false
    }

    /// Everything that was ever written is looked up, and the engine's counters say what was found.
    fn finish(&mut self) {
        let may_evict = self.written_bytes > KEPT_BYTES || self.written_items > KEPT_ITEMS;
        assert!(may_evict || self.engine.evictions() == 0, "evicted with {} bytes written", self.written_bytes);
        for key in std::mem::take(&mut self.ever_written) {
            self.get(key);
        }
        let user_bytes = self.map.iter().map(|(&key, entry)| name_bytes(key) + entry.value.len()).sum::<usize>();
        assert_eq!(self.engine.holds(), (self.map.len() as u64, user_bytes as u64));
    }
}

fn name(key: u16) -> Vec<u8> {
    let mut name = vec![b'k'; name_bytes(key)];
    name[..2].copy_from_slice(&key.to_le_bytes());
    name
}

/// 2 to 250.
fn name_bytes(key: u16) -> usize {
    2 + usize::from(key) * 7 % 249
}

/// A value whose beginning, end and middle tell which step wrote it.
fn value(n: usize, bytes: usize) -> Vec<u8> {
    let mut value = vec![n as u8; bytes];
    let mark = (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    if let Some(first) = value.first_chunk_mut() {
        *first = mark;
    }
    if let Some(last) = value.last_chunk_mut() {
        *last = mark;
    }
    value
}
