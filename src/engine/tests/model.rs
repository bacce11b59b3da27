//! The engine against a naive model: random operations, tiny memory, every policy.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Clone, Debug)]
enum Step {
    Set { key: u16, bytes: usize, ttl_ms: Option<u64> },
    Upload { key: u16, bytes: usize },
    FinishUpload { then: Then },
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

/// How an upload ends.
#[derive(Clone, Copy, Debug)]
enum Then {
    Commit,
    Extend { front: bool },
    Abort,
}

/// Lengths around the boundaries between chunk, blocks and pages.
fn lengths(value_bytes: usize) -> impl Strategy<Value = usize> {
    let near = |n: usize| (n - 60..n + 20).boxed();
    prop_oneof![
        6 => 0..value_bytes.min(300),
        2 => 0..value_bytes,
        1 => prop_oneof![near(4096), near(4088 * 2), near(16 << 10), near((16 << 10) * 3)]
            .prop_map(move |n| n.min(value_bytes)),
    ]
}

fn steps(keys: u16, value_bytes: usize, more_bytes: usize) -> impl Strategy<Value = Vec<Step>> {
    let ttl =
        || prop_oneof![3 => Just(None), 1 => (1..20_000_u64).prop_map(Some), 1 => (1..2_000_000_u64).prop_map(Some)];
    let eviction = (0..Eviction::ALL.len()).prop_map(|n| Eviction::ALL[n]);
    let step = prop_oneof![
        20 => (0..keys, lengths(value_bytes), ttl()).prop_map(|(key, bytes, ttl_ms)| Step::Set { key, bytes, ttl_ms }),
        2 => (0..keys, lengths(value_bytes)).prop_map(|(key, bytes)| Step::Upload { key, bytes }),
        2 => prop_oneof![
            3 => Just(Then::Commit),
            2 => any::<bool>().prop_map(|front| Then::Extend { front }),
            1 => Just(Then::Abort),
        ].prop_map(|then| Step::FinishUpload { then }),
        2 => (0..keys).prop_map(|key| Step::OpenReader { key }),
        2 => Just(Step::ReadAndClose),
        4 => (0..keys, 0..4_u8, lengths(more_bytes)).prop_map(|(key, n, bytes)| Step::Extend { key, front: n == 0, bytes }),
        4 => (0..keys, ttl()).prop_map(|(key, ttl_ms)| Step::Touch { key, ttl_ms }),
        6 => (0..keys).prop_map(|key| Step::Remove { key }),
        16 => (0..keys).prop_map(|key| Step::Get { key }),
        2 => (0..100_u8).prop_map(|n| if n == 0 { Step::Flush } else { Step::Work }),
        1 => (0..3000_u64, 0..20_u8).prop_map(|(delay_ms, n)| if n == 0 { Step::FlushAt { delay_ms } } else { Step::Pass { ms: delay_ms } }),
        1 => (0..20_u8, eviction).prop_map(|(n, eviction)| if n == 0 { Step::SetEviction { eviction } } else { Step::Pass { ms: 7 } }),
    ];
    prop::collection::vec(step, 1..600)
}

/// The model: a map from key to value and expiry time.
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

    fn extended(&mut self, key: u16, end: End, more: Vec<u8>, done: Result<Option<u64>, PutError>, lossy: bool) {
        match done {
            Ok(Some(_)) => {
                let (value, _) = self.live(key).expect("the engine has only what the model has");
                let at = if end == End::Front { 0 } else { value.len() };
                value.splice(at..at, more);
            }
            Ok(None) => {
                assert!(lossy || self.live(key).is_none());
                self.items.remove(&key);
            }
            Err(error) => assert!(error == PutError::TooLarge || lossy),
        }
    }
}

fn name(key: u16) -> Vec<u8> {
    let mut name = format!("key-{key}").into_bytes();
    if key % 11 == 3 {
        name.resize(250 + usize::from(key), b'k');
    }
    name
}

/// Bytes that differ by step and position.
fn bytes(n: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| (n * 31 + i + i / 251) as u8).collect()
}

/// Applies the steps to both. If `lossy`, the engine may have evicted items of the model; it must never return anything
/// else.
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
            Step::FinishUpload { then } if !uploads.is_empty() => {
                let (key, value, upload) = uploads.remove(0);
                let written = value.chunks(5000).try_for_each(|piece| engine.append_all(&upload, piece, now));
                if written.is_err() || matches!(then, Then::Abort) {
                    assert!(lossy || written.is_ok());
                    engine.abort(upload);
                } else if let Then::Extend { front } = then {
                    let end = if front { End::Front } else { End::Back };
                    let hash = engine.hasher.hash(&name(key));
                    let done = engine.extend_by(hash, Group::of(&name(key)), &name(key), end, upload, now);
                    model.extended(key, end, value, done, lossy);
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
                let done = engine.extend(hash, Group::of(&name(key)), &name(key), end, &more, now);
                model.extended(key, end, more, done, lossy);
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
    (0..Eviction::ALL.len()).prop_map(|n| Eviction::ALL[n])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn with_room_for_all_it_is_a_map(steps in steps(40, 300, 200), eviction in any_eviction()) {
        agree(MEMORY_BYTES_MIN, eviction, steps, false);
    }

    #[test]
    fn with_too_little_room_it_forgets_but_never_lies(steps in steps(200, 200_000, 20_000), eviction in any_eviction()) {
        agree(MEMORY_BYTES_MIN, eviction, steps, true);
    }

    #[test]
    fn long_values_grow(steps in steps(4, 40_000, 20_000), eviction in any_eviction()) {
        agree(2 * MEMORY_BYTES_MIN, eviction, steps, false);
    }

    #[test]
    fn long_values_grow_where_there_is_too_little_room(steps in steps(12, 400_000, 70_000), eviction in any_eviction()) {
        agree(MEMORY_BYTES_MIN, eviction, steps, true);
    }
}
