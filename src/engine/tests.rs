//! The engine against a naive model, and the promises of its bounds.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const NOW: UnixMs = 1_700_000_000_000;

fn engine(memory_bytes: u64) -> Engine {
    let config = EngineConfig { memory_bytes, value_bytes_max: value_bytes_max(memory_bytes).min(1 << 20) as u32 };
    Engine::new(config, KeyHasher::with_seed(1), NOW).expect("memory")
}

impl Engine {
    fn set(&mut self, key: &[u8], value: &[u8], expires: Option<UnixMs>, now: UnixMs) -> u64 {
        let attributes = Attributes { flags: u32::from(value.len() % 7 == 3), expires };
        self.put(self.hasher.hash(key), key, value, attributes, now).expect("within the limit")
    }

    fn value(&mut self, key: &[u8], now: UnixMs) -> Option<Vec<u8>> {
        self.get(self.hasher.hash(key), key, now).map(|i| i.value.to_vec())
    }

    /// Every live record has its entry, every entry a live record, and the counters say what is there.
    fn check(&self) {
        let mut live: Vec<u32> = Vec::new();
        let mut stats = EngineStats::default();
        for (at, header) in self.log.records().into_iter().filter(|(_, h)| h.is_live()) {
            live.push(reference(at));
            if !self.is_flushed(header) {
                stats.items += 1;
                stats.item_bytes += header.record_bytes() as u64;
                stats.user_bytes += header.user_bytes();
            }
        }
        let mut indexed: Vec<u32> = self.index.references().collect();
        live.sort_unstable();
        indexed.sort_unstable();
        assert_eq!(live, indexed, "index and arena hold the same items");
        let of = |s: &EngineStats| (s.items, s.item_bytes, s.user_bytes);
        assert_eq!(of(&self.stats), of(&stats));
        assert!(self.index.bytes() + self.log.capacity() <= 64 << 20);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set { key: u16, bytes: usize, ttl_ms: Option<u64> },
    Extend { key: u16, front: bool, bytes: usize },
    Touch { key: u16, ttl_ms: Option<u64> },
    Remove { key: u16 },
    Get { key: u16 },
    Flush,
    FlushAt { delay_ms: u64 },
    Pass { ms: u64 },
}

fn steps(keys: u16, value_bytes: usize) -> impl Strategy<Value = Vec<Step>> {
    let ttl = || prop_oneof![3 => Just(None), 1 => (1..20_000_u64).prop_map(Some)];
    let step = prop_oneof![
        10 => (0..keys, 0..value_bytes, ttl()).prop_map(|(key, bytes, ttl_ms)| Step::Set { key, bytes, ttl_ms }),
        2 => (0..keys, any::<bool>(), 0..200_usize).prop_map(|(key, front, bytes)| Step::Extend { key, front, bytes }),
        2 => (0..keys, ttl()).prop_map(|(key, ttl_ms)| Step::Touch { key, ttl_ms }),
        3 => (0..keys).prop_map(|key| Step::Remove { key }),
        8 => (0..keys).prop_map(|key| Step::Get { key }),
        1 => (0..200_u8).prop_map(|n| if n == 0 { Step::Flush } else { Step::Pass { ms: 7 } }),
        1 => (0..3000_u64, 0..40_u8).prop_map(|(delay_ms, n)| if n == 0 { Step::FlushAt { delay_ms } } else { Step::Pass { ms: delay_ms } }),
    ];
    prop::collection::vec(step, 1..600)
}

/// What the engine must agree with: a map of key to value and expiry.
#[derive(Default)]
struct Model {
    items: HashMap<u16, (Vec<u8>, Option<UnixMs>)>,
    flush_due: Option<UnixMs>,
    now: UnixMs,
}

impl Model {
    fn live(&mut self, key: u16) -> Option<&mut (Vec<u8>, Option<UnixMs>)> {
        let now = self.now;
        // The engine rounds expiry up to a tenth of a second.
        self.items
            .get_mut(&key)
            .filter(|(_, expires)| expires.is_none_or(|e| (e - NOW).div_ceil(100) * 100 + NOW > now))
    }
}

/// Runs the steps on both. Where `lossy`, the engine may have evicted what the model has; it must never show anything else.
fn agree(memory_bytes: u64, steps: Vec<Step>, lossy: bool) {
    let mut engine = engine(memory_bytes);
    let mut model = Model { now: NOW, ..Model::default() };
    for (n, step) in steps.into_iter().enumerate() {
        let name = |key: u16| format!("key-{key}").into_bytes();
        let now = model.now;
        match step {
            Step::Set { key, bytes, ttl_ms } => {
                let value = vec![n as u8; bytes];
                let expires = ttl_ms.map(|t| now + t);
                engine.set(&name(key), &value, expires, now);
                assert_eq!(engine.value(&name(key), now).as_ref(), Some(&value), "a write is there at once");
                model.items.insert(key, (value, expires));
            }
            Step::Extend { key, front, bytes } => {
                let more = vec![n as u8; bytes];
                let end = if front { End::Front } else { End::Back };
                let hash = engine.hasher.hash(&name(key));
                let done = engine.extend(hash, &name(key), end, &more, now).expect("within the limit").is_some();
                if done {
                    let (value, _) = model.live(key).expect("the engine has only what the model has");
                    let at = if front { 0 } else { value.len() };
                    value.splice(at..at, more);
                } else {
                    assert!(lossy || model.live(key).is_none());
                    model.items.remove(&key);
                }
            }
            Step::Touch { key, ttl_ms } => {
                let expires = ttl_ms.map(|t| now + t);
                let hash = engine.hasher.hash(&name(key));
                if engine.touch(hash, &name(key), expires, now).is_some() {
                    model.live(key).expect("the engine has only what the model has").1 = expires;
                } else {
                    assert!(lossy || model.live(key).is_none());
                    model.items.remove(&key);
                }
            }
            Step::Remove { key } => {
                let hash = engine.hasher.hash(&name(key));
                let removed = engine.remove(hash, &name(key), now);
                let there = model.live(key).is_some();
                assert!(removed == there || lossy && !removed);
                model.items.remove(&key);
            }
            Step::Get { key } => {
                let (found, expected) =
                    (engine.value(&name(key), now), model.live(key).map(|(value, _)| value.clone()));
                assert!(found == expected || lossy && found.is_none(), "key {key} at step {n}");
            }
            Step::Flush => {
                engine.flush();
                model.items.clear();
                model.flush_due = None;
            }
            Step::FlushAt { delay_ms } => {
                engine.flush_at(now + delay_ms);
                model.flush_due = Some(now + delay_ms);
            }
            Step::Pass { ms } => model.now += ms,
        }
        engine.advance(model.now);
        if model.flush_due.is_some_and(|due| due <= model.now) {
            model.items.clear();
            model.flush_due = None;
        }
    }
    engine.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn with_room_for_all_it_is_a_map(steps in steps(40, 300)) {
        agree(MEMORY_BYTES_MIN, steps, false);
    }

    #[test]
    fn with_too_little_room_it_forgets_but_never_lies(steps in steps(200, 200_000)) {
        agree(MEMORY_BYTES_MIN, steps, true);
    }
}

#[test]
fn it_never_fails_to_store_and_keeps_the_newest() {
    let mut engine = engine(MEMORY_BYTES_MIN);
    for n in 0..200_000_u32 {
        engine.set(format!("memtier-{n:08}").as_bytes(), &[n as u8; 32], None, NOW);
    }
    engine.check();
    let stats = engine.stats();
    assert!(stats.evictions > 0);
    assert!(stats.user_bytes >= MEMORY_BYTES_MIN * 6 / 10, "{} of {MEMORY_BYTES_MIN}", stats.user_bytes);
    for n in 160_000..200_000_u32 {
        assert!(engine.value(format!("memtier-{n:08}").as_bytes(), NOW).is_some(), "{n}");
    }
}

#[test]
fn tiny_items_fill_the_index_and_it_goes_on() {
    let mut engine = engine(MEMORY_BYTES_MIN);
    for n in 0..400_000_u32 {
        engine.set(&n.to_le_bytes(), b"", None, NOW);
    }
    engine.check();
    assert!(engine.value(&399_999_u32.to_le_bytes(), NOW).is_some());
}

/// Without moving live items, rewriting a few keys with changing sizes would fill the log with dead copies and push
/// everything else out. As the steps are bounded, a few go all the same.
#[test]
fn churn_on_a_few_keys_evicts_little_of_the_rest() {
    let mut engine = engine(MEMORY_BYTES_MIN);
    for n in 0..10_000_u32 {
        engine.set(format!("cold-{n}").as_bytes(), &[1; 100], None, NOW);
    }
    for n in 0..300_000_u32 {
        engine.set(format!("hot-{}", n % 10).as_bytes(), &vec![2; 50 + n as usize % 500], None, NOW);
    }
    engine.check();
    let stats = engine.stats();
    assert!(stats.evictions < 300 && stats.items + stats.evictions == 10_010, "{stats:?}");
    assert!(stats.moved_bytes > 0);
}

/// A key that is rewritten in place must not be the next to go because its first copy is old.
#[test]
fn a_rewritten_item_is_new() {
    let mut engine = engine(MEMORY_BYTES_MIN);
    let mut filled = 0;
    engine.set(b"rewritten", &[0; 1000], None, NOW);
    while engine.stats().evictions == 0 {
        engine.set(format!("fill-{filled}").as_bytes(), &[0; 1000], None, NOW);
        filled += 1;
        if filled % 100 == 0 {
            engine.set(b"rewritten", &[1; 1000], None, NOW);
        }
    }
    for n in 0..filled / 4 {
        engine.set(format!("more-{n}").as_bytes(), &[0; 1000], None, NOW);
    }
    assert!(engine.value(b"rewritten", NOW).is_some());
}

#[test]
fn expiry_is_exact_to_the_tenth_and_never_early() {
    let mut engine = engine(MEMORY_BYTES_MIN);
    engine.set(b"k", b"v", Some(NOW + 2000), NOW);
    assert!(engine.value(b"k", NOW + 1999).is_some());
    assert!(engine.value(b"k", NOW + 2000).is_none());
    engine.set(b"past", b"v", Some(NOW - 5), NOW);
    assert!(engine.value(b"past", NOW).is_none(), "in the first moment too");
    engine.set(b"far", b"v", Some(u64::MAX), NOW);
    assert!(engine.value(b"far", NOW + 1_000_000_000).is_some());
    assert_eq!(engine.stats().expired, 2);
}

#[test]
fn a_flush_takes_what_was_and_leaves_what_comes() {
    let mut engine = engine(MEMORY_BYTES_MIN);
    engine.set(b"before", b"1", None, NOW);
    engine.flush();
    assert_eq!(engine.stats().items, 0);
    engine.set(b"after", b"2", None, NOW);
    assert_eq!(engine.value(b"before", NOW), None);
    assert_eq!(engine.value(b"after", NOW), Some(b"2".to_vec()));
    engine.check();
}

#[test]
fn versions_increase_with_every_write_and_not_with_touch() {
    let mut engine = engine(MEMORY_BYTES_MIN);
    let first = engine.set(b"k", b"1", None, NOW);
    let second = engine.set(b"k", b"2", None, NOW);
    assert!(second > first);
    let hash = engine.hasher.hash(b"k");
    assert_eq!(engine.touch(hash, b"k", None, NOW).map(|i| i.version), Some(second));
}

#[test]
fn too_large_a_value_is_refused_and_nothing_changes() {
    let mut engine = engine(MEMORY_BYTES_MIN);
    engine.set(b"k", b"old", None, NOW);
    let hash = engine.hasher.hash(b"k");
    let long = vec![0; (1 << 20) + 1];
    assert_eq!(engine.put(hash, b"k", &long, Attributes::default(), NOW), Err(TooLarge));
    assert_eq!(engine.extend(hash, b"k", End::Back, &long, NOW), Err(TooLarge));
    assert_eq!(engine.value(b"k", NOW), Some(b"old".to_vec()));
}
