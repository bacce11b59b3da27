//! The engine against a naive model, and the promises of its bounds.

use super::*;
use crate::command::End;
use proptest::prelude::*;
use std::collections::HashMap;

const NOW: UnixMs = 1_700_000_000_000;

fn engine(memory_bytes: u64, eviction: Eviction) -> Engine {
    let value_bytes_max = value_bytes_max(memory_bytes) as u32;
    let config = EngineConfig { memory_bytes, value_bytes_max, eviction, user_bytes_max: None };
    Engine::new(config, KeyHasher::with_seed(1), NOW).expect("memory")
}

impl Engine {
    fn try_set(&mut self, key: &[u8], value: &[u8], expires: Option<UnixMs>, now: UnixMs) -> Result<u64, PutError> {
        let attributes = Attributes { flags: u32::from(value.len() % 7 == 3), expires };
        self.put(self.hasher.hash(key), Group::of(key), key, value, attributes, now)
    }

    fn set(&mut self, key: &[u8], value: &[u8], expires: Option<UnixMs>, now: UnixMs) -> u64 {
        self.try_set(key, value, expires, now).expect("within the limits")
    }

    fn value(&mut self, key: &[u8], now: UnixMs) -> Option<Vec<u8>> {
        let hash = self.hasher.hash(key);
        if let Value::Whole(value) = self.get(hash, key, now)?.value {
            return Some(value.to_vec());
        }
        let mut reader = self.open(hash, key, now)?;
        let value = self.read_to_end(&mut reader);
        self.close(reader);
        Some(value)
    }

    fn read_to_end(&self, reader: &mut Reader) -> Vec<u8> {
        let mut value = Vec::new();
        loop {
            let piece = self.read(reader, 3000);
            if piece.is_empty() {
                return value;
            }
            value.extend_from_slice(piece);
        }
    }

    fn remove_key(&mut self, key: &[u8], now: UnixMs) -> bool {
        self.remove(self.hasher.hash(key), key, now)
    }

    fn touch_key(&mut self, key: &[u8], expires: Option<UnixMs>, now: UnixMs) -> bool {
        self.touch(self.hasher.hash(key), key, expires, now).expect("room")
    }

    /// Works until there is nothing more to do at this time.
    fn work_all(&mut self, now: UnixMs) {
        while self.work(now) == Next::Now {}
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set { key: u16, bytes: usize, ttl_ms: Option<u64> },
    Upload { key: u16, bytes: usize },
    FinishUpload { commit: bool },
    OpenReader { key: u16 },
    ReadAndClose,
    Extend { key: u16, front: bool, bytes: usize },
    Touch { key: u16, ttl_ms: Option<u64> },
    Remove { key: u16 },
    Get { key: u16 },
    Flush,
    FlushAt { delay_ms: u64 },
    Pass { ms: u64 },
    Work,
    SetEviction { eviction: Eviction },
}

/// Lengths around the borders between the forms of a value: chunk, blocks, pages.
fn lengths(value_bytes: usize) -> impl Strategy<Value = usize> {
    let near = |n: usize| (n - 60..n + 20).boxed();
    prop_oneof![
        6 => 0..value_bytes.min(300),
        2 => 0..value_bytes,
        1 => prop_oneof![near(4096), near(4088 * 2), near(16 << 10), near((16 << 10) * 3)]
            .prop_map(move |n| n.min(value_bytes)),
    ]
}

fn steps(keys: u16, value_bytes: usize) -> impl Strategy<Value = Vec<Step>> {
    let ttl =
        || prop_oneof![3 => Just(None), 1 => (1..20_000_u64).prop_map(Some), 1 => (1..2_000_000_u64).prop_map(Some)];
    let eviction = (0..7_usize).prop_map(|n| Eviction::ALL[n]);
    let step = prop_oneof![
        20 => (0..keys, lengths(value_bytes), ttl()).prop_map(|(key, bytes, ttl_ms)| Step::Set { key, bytes, ttl_ms }),
        2 => (0..keys, lengths(value_bytes)).prop_map(|(key, bytes)| Step::Upload { key, bytes }),
        2 => (0..4_u8).prop_map(|n| Step::FinishUpload { commit: n > 0 }),
        2 => (0..keys).prop_map(|key| Step::OpenReader { key }),
        2 => Just(Step::ReadAndClose),
        4 => (0..keys, any::<bool>(), 0..200_usize).prop_map(|(key, front, bytes)| Step::Extend { key, front, bytes }),
        4 => (0..keys, ttl()).prop_map(|(key, ttl_ms)| Step::Touch { key, ttl_ms }),
        6 => (0..keys).prop_map(|key| Step::Remove { key }),
        16 => (0..keys).prop_map(|key| Step::Get { key }),
        2 => (0..100_u8).prop_map(|n| if n == 0 { Step::Flush } else { Step::Work }),
        1 => (0..3000_u64, 0..20_u8).prop_map(|(delay_ms, n)| if n == 0 { Step::FlushAt { delay_ms } } else { Step::Pass { ms: delay_ms } }),
        1 => (0..20_u8, eviction).prop_map(|(n, eviction)| if n == 0 { Step::SetEviction { eviction } } else { Step::Pass { ms: 7 } }),
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
        self.items.get_mut(&key).filter(|(_, expires)| expires.is_none_or(|e| e > now))
    }
}

fn name(key: u16) -> Vec<u8> {
    let mut name = format!("key-{key}").into_bytes();
    if key % 11 == 3 {
        name.resize(250 + usize::from(key), b'k');
    }
    name
}

/// Different bytes for each step and place.
fn bytes(n: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| (n * 31 + i + i / 251) as u8).collect()
}

/// Runs the steps on both. Where `lossy`, the engine may have evicted what the model has; it must never show anything else.
fn agree(memory_bytes: u64, eviction: Eviction, steps: Vec<Step>, lossy: bool) {
    let mut engine = engine(memory_bytes, eviction);
    let mut model = Model { now: NOW, ..Model::default() };
    let mut uploads: Vec<(u16, Vec<u8>, Upload)> = Vec::new();
    let mut readers: Vec<(Vec<u8>, Reader)> = Vec::new();
    for (n, step) in steps.into_iter().enumerate() {
        let now = model.now;
        match step {
            Step::Set { key, bytes: length, ttl_ms } => {
                let value = bytes(n, length);
                let expires = ttl_ms.map(|t| now + t);
                match engine.try_set(&name(key), &value, expires, now) {
                    Ok(_) => {
                        assert_eq!(engine.value(&name(key), now).as_ref(), Some(&value), "a write is there at once");
                        model.items.insert(key, (value, expires));
                    }
                    Err(error) => assert!(lossy && error == PutError::OutOfMemory),
                }
            }
            Step::Upload { key, bytes: length } if uploads.len() < 3 => {
                match engine.begin(&name(key), length, Attributes::default(), now) {
                    Ok(upload) => uploads.push((key, bytes(n, length), upload)),
                    Err(error) => assert!(lossy && error == PutError::OutOfMemory),
                }
            }
            Step::FinishUpload { commit } if !uploads.is_empty() => {
                let (key, value, upload) = uploads.remove(0);
                let written = value.chunks(5000).try_for_each(|piece| engine.append(&upload, piece, now));
                if written.is_err() || !commit {
                    assert!(lossy || written.is_ok());
                    engine.abort(upload);
                } else if engine.commit(engine.hasher.hash(&name(key)), Group::of(&name(key)), upload, now).is_ok() {
                    assert_eq!(engine.value(&name(key), now).as_ref(), Some(&value), "a write is there at once");
                    model.items.insert(key, (value, None));
                } else {
                    assert!(lossy);
                }
            }
            Step::OpenReader { key } if readers.len() < 3 => {
                let hash = engine.hasher.hash(&name(key));
                if let Some(reader) = engine.open(hash, &name(key), now) {
                    let (value, _) = model.live(key).expect("the engine has only what the model has");
                    readers.push((value.clone(), reader));
                }
            }
            Step::ReadAndClose if !readers.is_empty() => {
                let (value, mut reader) = readers.remove(0);
                assert!(engine.read_to_end(&mut reader) == value, "a value that is read stays as it was");
                engine.close(reader);
            }
            Step::Extend { key, front, bytes: length } => {
                let more = bytes(n, length);
                let end = if front { End::Front } else { End::Back };
                let hash = engine.hasher.hash(&name(key));
                match engine.extend(hash, Group::of(&name(key)), &name(key), end, &more, now) {
                    Ok(Some(_)) => {
                        let (value, _) = model.live(key).expect("the engine has only what the model has");
                        let at = if front { 0 } else { value.len() };
                        value.splice(at..at, more);
                    }
                    Ok(None) => {
                        assert!(lossy || model.live(key).is_none());
                        model.items.remove(&key);
                    }
                    Err(error) => {
                        assert!(error == PutError::TooLarge || lossy);
                    }
                }
            }
            Step::Touch { key, ttl_ms } => {
                let expires = ttl_ms.map(|t| now + t);
                let hash = engine.hasher.hash(&name(key));
                match engine.touch(hash, &name(key), expires, now) {
                    Ok(true) => model.live(key).expect("the engine has only what the model has").1 = expires,
                    Ok(false) => {
                        assert!(lossy || model.live(key).is_none());
                        model.items.remove(&key);
                    }
                    Err(error) => assert!(lossy && error == PutError::OutOfMemory),
                }
            }
            Step::Remove { key } => {
                let removed = engine.remove_key(&name(key), now);
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
            Step::SetEviction { eviction } => engine.set_eviction(eviction),
            Step::Work => _ = engine.work(now),
            Step::Upload { .. } | Step::FinishUpload { .. } | Step::OpenReader { .. } | Step::ReadAndClose => {}
        }
        engine.advance(model.now);
        if model.flush_due.is_some_and(|due| due <= model.now) {
            model.items.clear();
            model.flush_due = None;
        }
        if n % 50 == 0 {
            engine.check();
        }
    }
    engine.check();
    readers.into_iter().for_each(|(_, reader)| engine.close(reader));
    uploads.into_iter().for_each(|(.., upload)| engine.abort(upload));
    engine.check();
    engine.flush();
    engine.work_all(model.now);
    engine.check();
    assert_eq!((engine.stats().items, engine.index.entries()), (0, 0));
}

fn any_eviction() -> impl Strategy<Value = Eviction> {
    (0..7_usize).prop_map(|n| Eviction::ALL[n])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn with_room_for_all_it_is_a_map(steps in steps(40, 300), eviction in any_eviction()) {
        agree(MEMORY_BYTES_MIN, eviction, steps, false);
    }

    #[test]
    fn with_too_little_room_it_forgets_but_never_lies(steps in steps(200, 200_000), eviction in any_eviction()) {
        agree(MEMORY_BYTES_MIN, eviction, steps, true);
    }
}

#[test]
fn it_never_fails_to_store_and_keeps_most_of_its_memory_for_users() {
    for eviction in Eviction::ALL.into_iter().filter(|&e| e != Eviction::None) {
        let mut engine = engine(16 << 20, eviction);
        for n in 0..500_000_u32 {
            engine.set(format!("memtier-{n:08}").as_bytes(), &[n as u8; 100], None, NOW);
        }
        engine.check();
        let stats = engine.stats();
        assert!(stats.evictions > 0);
        assert!(stats.held_bytes <= 16 << 20);
        let share = stats.user_bytes as f64 / f64::from(16 << 20);
        assert!(share > 0.82, "{eviction}: {share}");
    }
}

#[test]
fn without_eviction_writes_fail_and_nothing_is_lost() {
    let mut engine = engine(MEMORY_BYTES_MIN, Eviction::None);
    let mut stored = 0_u32;
    while engine.try_set(&stored.to_le_bytes(), &[7; 100], None, NOW).is_ok() {
        stored += 1;
    }
    assert!(stored > 25_000, "{stored}");
    assert_eq!(engine.try_set(b"long", &[0; 100_000], None, NOW), Err(PutError::OutOfMemory));
    engine.check();
    for n in 0..stored {
        assert_eq!(engine.value(&n.to_le_bytes(), NOW).as_deref(), Some(&[7; 100][..]));
    }
    for n in 0..1000_u32 {
        assert!(engine.remove_key(&n.to_le_bytes(), NOW));
    }
    engine.set(b"again", b"there is room", None, NOW);
}

#[test]
fn tiny_items_fit_and_it_goes_on() {
    let mut engine = engine(MEMORY_BYTES_MIN, Eviction::default());
    for n in 0..400_000_u32 {
        engine.set(&n.to_le_bytes(), b"", None, NOW);
    }
    engine.check();
    assert!(engine.value(&399_999_u32.to_le_bytes(), NOW).is_some());
}

/// A slab allocator without evacuation keeps the pages of the first size for ever: a cache that was full of 100-byte values
/// has no room for 1,000-byte ones.
#[test]
fn memory_follows_the_sizes_of_values() {
    let mut engine = engine(16 << 20, Eviction::default());
    let mut n = 0_u32;
    let mut fill = |engine: &mut Engine, bytes: usize| {
        for _ in 0..(3 * (16 << 20) / (bytes + 16)) {
            n += 1;
            engine.set(format!("key:{n:012}").as_bytes(), &vec![n as u8; bytes], None, NOW);
        }
        engine.check();
        engine.stats().user_bytes as f64 / f64::from(16 << 20)
    };
    for bytes in [100, 1000, 100, 10_000, 300, 100] {
        let share = fill(&mut engine, bytes);
        assert!(share > 0.79, "{share} with values of {bytes} bytes");
    }
    assert!(engine.stats().moved_bytes > 0);
}

#[test]
fn the_index_grows_and_shrinks_and_a_scan_misses_nothing() {
    let mut engine = engine(64 << 20, Eviction::default());
    for n in 0..1000_u32 {
        engine.set(&n.to_le_bytes(), b"kept", None, NOW);
    }
    let mut seen = std::collections::HashSet::new();
    let mut cursor = 0;
    let mut next = 1000_u32;
    let mut removed = 1000_u32;
    loop {
        cursor = engine.scan(cursor, NOW, |key, item| {
            if item.value == Value::Whole(b"kept") {
                seen.insert(key.to_vec());
            }
        });
        if cursor == 0 {
            break;
        }
        // Entries come for a while, then go again: the tables change many times during one scan.
        for _ in 0..2000 {
            if engine.index.entries() < 150_000 && removed == 1000 {
                engine.set(&next.to_le_bytes(), b"more", None, NOW);
                next += 1;
            } else if removed < next {
                engine.remove_key(&removed.to_le_bytes(), NOW);
                removed += 1;
            }
        }
        engine.work(NOW);
    }
    assert_eq!(seen.len(), 1000);
    while removed < next {
        engine.remove_key(&removed.to_le_bytes(), NOW);
        removed += 1;
    }
    engine.work_all(NOW);
    engine.check();
    assert!(engine.stats().index_bytes <= 32 << 10, "{}", engine.stats().index_bytes);
}

#[test]
fn expiry_is_exact_and_never_early() {
    let mut engine = engine(MEMORY_BYTES_MIN, Eviction::default());
    engine.set(b"k", b"v", Some(NOW + 2001), NOW);
    assert!(engine.value(b"k", NOW + 2000).is_some());
    assert!(engine.value(b"k", NOW + 2001).is_none());
    engine.set(b"past", b"v", Some(NOW - 5), NOW);
    assert!(engine.value(b"past", NOW).is_none(), "in the first moment too");
    engine.set(b"far", b"v", Some(u64::MAX), NOW);
    assert!(engine.value(b"far", NOW + 1_000_000_000).is_some());
    assert_eq!(engine.stats().expired, 2);
}

/// Nobody asks for them: the timing wheel takes those with short times to live within a second, the pass the others within a
/// minute.
#[test]
fn what_has_expired_goes_by_itself() {
    let mut engine = engine(64 << 20, Eviction::default());
    for n in 0..100_000_u32 {
        let ttl = if n % 2 == 0 { 5_000 } else { 3_600_000 };
        engine.set(&n.to_le_bytes(), &[1; 50], Some(NOW + ttl), NOW);
    }
    engine.work_all(NOW + 4_999);
    assert_eq!(engine.stats().items, 100_000);
    engine.work_all(NOW + 5_500);
    assert_eq!(engine.stats().items, 50_000);
    assert!((1..=1000).contains(&engine.expiry_lag_ms()), "{}", engine.expiry_lag_ms());
    let mut now = NOW + 3_600_000;
    engine.work_all(now);
    for _ in 0..60 {
        now += 1000;
        engine.work_all(now);
    }
    assert_eq!((engine.stats().items, engine.stats().expired), (0, 100_000));
    engine.check();
}

/// Each put-off used to be one more mark in the wheel.
#[test]
fn expiry_can_be_put_off_and_brought_forward_without_end() {
    let mut engine = engine(MEMORY_BYTES_MIN, Eviction::default());
    let mut now = NOW;
    engine.set(b"k", b"v", Some(now + 60_000), now);
    for _ in 0..100_000 {
        now += 1;
        engine.set(b"k", b"v", Some(now + 60_000), now);
    }
    assert!(engine.wheel.marks() <= 2, "{}", engine.wheel.marks());
    for n in 0..100_000 {
        assert!(engine.touch_key(b"k", Some(now + 50_000 - n % 2 * 40_000), now));
    }
    assert!(engine.wheel.marks() < 2000, "{}", engine.wheel.marks());
    assert!(engine.touch_key(b"k", Some(now + 30_000), now));
    engine.work_all(now + 29_999);
    assert_eq!(engine.stats().items, 1);
    engine.work_all(now + 30_500);
    assert_eq!(engine.stats().items, 0);
    engine.check();
}

#[test]
fn a_flush_takes_what_was_and_leaves_what_comes() {
    let mut engine = engine(MEMORY_BYTES_MIN, Eviction::default());
    for n in 0..10_000_u32 {
        engine.set(&n.to_le_bytes(), b"before", None, NOW);
    }
    engine.flush();
    assert_eq!((engine.stats().items, engine.stats().user_bytes), (0, 0));
    engine.set(b"after", b"2", None, NOW);
    engine.set(&7_u32.to_le_bytes(), b"again", None, NOW);
    engine.work(NOW);
    assert_eq!(engine.value(&9_999_u32.to_le_bytes(), NOW), None);
    assert_eq!(engine.value(b"after", NOW), Some(b"2".to_vec()));
    engine.flush();
    engine.set(b"last", b"3", None, NOW);
    engine.work_all(NOW);
    assert_eq!(engine.value(b"after", NOW), None);
    assert_eq!((engine.stats().items, engine.index.entries()), (1, 1));
    engine.check();
    assert_eq!(engine.stats().expired, 0);
}

/// A removal fills the place in the middle of a chain with the last entry of the chain. A pass that went along the chain
/// stepped over such an entry, so flushed items came back when it was over, and it went on in a bucket that had been freed
/// meanwhile, which in the end tied a chain into a loop.
#[test]
fn a_pass_misses_nothing_in_chained_buckets() {
    // Just before the index grows, when a quarter of the quads are full.
    const ITEMS: u32 = 2300;
    for expiring in [false, true] {
        let mut engine = engine(4 << 20, Eviction::default());
        for round in 0..3 {
            let written = NOW + round * 4_000_000;
            let expires = expiring.then_some(written + 3_600_000);
            for n in 0..ITEMS {
                engine.set(&n.to_le_bytes(), b"value", expires, written);
            }
            assert!(engine.index.chained(&engine.arena) > 10);
            if !expiring {
                engine.flush();
            }
            let now = expires.unwrap_or(written);
            while engine.work(now) == Next::Now {
                engine.check();
            }
            assert_eq!((engine.index.entries(), engine.stats().items), (0, 0));
        }
    }
}

/// A queue from which nothing comes for long is no reason to refuse a write: after a switch to fifo it is empty at first,
/// and where many items were deleted its end leads nowhere.
#[test]
fn fifo_always_finds_room() {
    let mut engine = engine(4 << 20, Eviction::default());
    let mut n = 0_u32;
    let mut fill = |engine: &mut Engine, count: u32| {
        for _ in 0..count {
            n += 1;
            engine.set(&n.to_le_bytes(), &[1; 100], None, NOW);
        }
        n
    };
    fill(&mut engine, 50_000);
    engine.set_eviction(Eviction::Fifo);
    fill(&mut engine, 100);
    engine.work_all(NOW);
    let last = fill(&mut engine, 50_000);
    for n in last - 20_000..last {
        engine.remove_key(&n.to_le_bytes(), NOW);
    }
    fill(&mut engine, 50_000);
    engine.check();
}

#[test]
fn versions_increase_with_every_write_of_a_group_and_not_with_touch() {
    let mut engine = engine(MEMORY_BYTES_MIN, Eviction::default());
    let first = engine.set(b"{group}a", b"1", None, NOW);
    let second = engine.set(b"{group}b", b"2", None, NOW);
    let third = engine.set(b"{group}a", &[3; 10_000], None, NOW);
    assert!(first < second && second < third);
    assert!(engine.touch_key(b"{group}b", Some(NOW + 5), NOW));
    let hash = engine.hasher.hash(b"{group}b");
    assert_eq!(engine.get(hash, b"{group}b", NOW).map(|i| i.version), Some(second));
}

#[test]
fn too_large_a_value_is_refused_and_nothing_changes() {
    let mut engine = engine(MEMORY_BYTES_MIN, Eviction::default());
    engine.set(b"k", b"old", None, NOW);
    let hash = engine.hasher.hash(b"k");
    let long = vec![0; (2 << 20) + 1];
    assert_eq!(engine.try_set(b"k", &long, None, NOW), Err(PutError::TooLarge));
    assert_eq!(engine.extend(hash, Group::of(b"k"), b"k", End::Back, &long, NOW), Err(PutError::TooLarge));
    assert_eq!(engine.value(b"k", NOW), Some(b"old".to_vec()));
}

#[test]
fn a_bound_on_users_bytes_is_kept() {
    let config = EngineConfig {
        memory_bytes: 16 << 20,
        value_bytes_max: 1 << 20,
        eviction: Eviction::Fifo,
        user_bytes_max: Some(100_000),
    };
    let mut engine = Engine::new(config, KeyHasher::with_seed(1), NOW).expect("memory");
    for n in 0..10_000_u32 {
        engine.set(&n.to_le_bytes(), &vec![1; n as usize % 3000], None, NOW);
        assert!(engine.stats().user_bytes <= 100_000);
    }
    assert!(engine.stats().user_bytes > 95_000);
    assert_eq!(engine.value(&9_999_u32.to_le_bytes(), NOW).map(|v| v.len()), Some(999));
    engine.check();
}

/// Set and delete without end would fill memory with the queue's stale marks.
#[test]
fn queues_are_tidied() {
    for eviction in [Eviction::S3Fifo, Eviction::Fifo] {
        let mut engine = engine(MEMORY_BYTES_MIN, eviction);
        for n in 0..100_u32 {
            engine.set(&n.to_le_bytes(), b"kept", None, NOW);
        }
        for n in 100..200_000_u32 {
            engine.set(&n.to_le_bytes(), b"gone at once", None, NOW);
            assert!(engine.remove_key(&n.to_le_bytes(), NOW));
        }
        assert!(engine.stats().held_bytes < 200 << 10, "{eviction}: {}", engine.stats().held_bytes);
        assert_eq!((engine.stats().items, engine.stats().evictions), (100, 0));
        engine.check();
    }
}
