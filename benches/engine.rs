//! The engine's get and set, one by one and in batches with prefetch, on a set that no cache holds.
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pinion::engine::{Attributes, Engine, EngineConfig, Eviction, KeyHash, KeyHasher};
use pinion::slots::Group;
use std::hint::black_box;

const ITEMS: u32 = 4_000_000;
const NOW: u64 = 1_700_000_000_000;
/// Keys drawn per measurement.
const DRAWN: usize = 1 << 16;

type Key = [u8; 16];

fn key(n: u32) -> Key {
    format!("key:{n:012x}").into_bytes().try_into().expect("16 bytes")
}

fn drawn(hasher: &KeyHasher) -> Vec<(Key, KeyHash)> {
    let mut x = 88_172_645_463_325_252_u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        key((((x >> 32) * u64::from(ITEMS)) >> 32) as u32)
    };
    (0..DRAWN).map(|_| next()).map(|k| (k, hasher.hash(&k))).collect()
}

fn benches(c: &mut Criterion) {
    let hasher = KeyHasher::with_seed(1);
    let config = EngineConfig {
        memory_bytes: 1 << 30,
        value_bytes_max: 1 << 20,
        eviction: Eviction::default(),
        user_bytes_max: None,
    };
    let mut engine = Engine::new(config, hasher.clone(), NOW).expect("memory");
    for n in 0..ITEMS {
        let key = key(n);
        engine.put(hasher.hash(&key), Group::of(&key), &key, &[7; 100], Attributes::default(), NOW).expect("it fits");
    }
    assert_eq!(engine.stats().evictions, 0, "all of it fits");
    let keys = drawn(&hasher);

    let mut group = c.benchmark_group("engine, 4 M items of 16+100 B");
    group.throughput(Throughput::Elements(1));
    group.bench_function("hash", |b| {
        let mut at = 0;
        b.iter(|| {
            at = (at + 1) % DRAWN;
            hasher.hash(black_box(&keys[at].0))
        });
    });
    for batch in [1, 8, 16, 64] {
        let mut chunks = keys.chunks_exact(batch).cycle();
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("get, batches of {batch}"), |b| {
            b.iter(|| {
                let chunk = chunks.next().expect("endless");
                chunk.iter().for_each(|(_, hash)| engine.prefetch_index(*hash));
                chunk.iter().for_each(|(_, hash)| engine.prefetch_item(*hash));
                for (key, hash) in chunk {
                    let item = engine.get(*hash, key, NOW).expect("a hit");
                    black_box(item.value.whole().map(|v| v[0]));
                }
            });
        });
    }
    let mut at = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("set, same size", |b| {
        b.iter(|| {
            at = (at + 1) % DRAWN;
            let (key, hash) = &keys[at];
            engine.put(*hash, Group::of(key), key, &[8; 100], Attributes::default(), NOW).expect("it fits")
        });
    });
    let mut new = ITEMS;
    group.bench_function("set, new keys, evicting", |b| {
        b.iter(|| {
            new += 1;
            let key = key(new);
            engine
                .put(hasher.hash(&key), Group::of(&key), &key, &[8; 100], Attributes::default(), NOW)
                .expect("it fits")
        });
    });
}

criterion_group!(storage, benches);
criterion_main!(storage);
