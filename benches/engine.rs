//! GET and SET on a data set larger than the CPU's caches: by policy, and single lookups against batches with prefetch.
//!
//! The ratio of batches of 16 to single lookups, measured in alternating rounds, is printed at the end; separate
//! benchmarks run minutes apart, while the machine's speed drifts. `benches/steps.rs` measures the longest single
//! steps.
#![allow(missing_docs)]

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use pinion::engine::{Attributes, Engine, EngineConfig, Eviction, KeyHash, KeyHasher};
use pinion::slots::Group;
use std::hint::black_box;
use std::time::{Duration, Instant};

const ITEMS: u64 = 10_000_000;
/// Memory in which all items fit.
const MEMORY_BYTES: u64 = ITEMS * 160;
const NOW: u64 = 1_700_000_000_000;
/// Keys drawn per measurement.
const DRAWN: usize = 1 << 18;
const BATCHES: [usize; 4] = [1, 8, 16, 32];
/// Memory at which the policies are compared.
const BATCH: usize = 16;
/// Alternating rounds, of `DRAWN` lookups each.
const ROUNDS: usize = 15;

type Key = [u8; 16];

fn key(n: u64) -> Key {
    format!("key:{n:012x}").into_bytes().try_into().expect("16 bytes")
}

fn drawn(hasher: &KeyHasher) -> Vec<(Key, KeyHash)> {
    let mut x = 88_172_645_463_325_252_u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        key(((u128::from(x) * u128::from(ITEMS)) >> 64) as u64)
    };
    (0..DRAWN).map(|_| next()).map(|k| (k, hasher.hash(&k))).collect()
}

fn put(engine: &mut Engine, hash: KeyHash, key: &Key, byte: u8) {
    engine.put(hash, Group::of(key), key, &[byte; 100], Attributes::default(), NOW).expect("it fits");
}

fn get(engine: &mut Engine, hash: KeyHash, key: &Key) {
    let item = engine.get(hash, key, NOW).expect("a hit");
    black_box(item.value.whole().map(|v| v[0]));
}

/// In batches, as a shard does it.
fn get_batch(engine: &mut Engine, keys: &[(Key, KeyHash)]) {
    if keys.len() > 1 {
        keys.iter().for_each(|(_, hash)| engine.prefetch_index(*hash));
        keys.iter().for_each(|(_, hash)| engine.prefetch_item(*hash));
    }
    keys.iter().for_each(|(key, hash)| get(engine, *hash, key));
}

fn bench_gets(group: &mut BenchmarkGroup<WallTime>, engine: &mut Engine, keys: &[(Key, KeyHash)], batch: usize) {
    let name = engine.eviction();
    let mut chunks = keys.chunks_exact(batch).cycle();
    group.throughput(Throughput::Elements(batch as u64));
    group.bench_function(format!("{name}: get, batches of {batch}"), |b| {
        b.iter(|| get_batch(engine, chunks.next().expect("endless")));
    });
    group.throughput(Throughput::Elements(1));
}

fn bench_policy(group: &mut BenchmarkGroup<WallTime>, eviction: Eviction, hasher: &KeyHasher, keys: &[(Key, KeyHash)]) {
    let config = EngineConfig { memory_bytes: MEMORY_BYTES, value_bytes_max: 1 << 20, eviction, user_bytes_max: None };
    let mut engine = Engine::new(config, hasher.clone(), NOW).expect("memory");
    for n in 0..ITEMS {
        let key = key(n);
        put(&mut engine, hasher.hash(&key), &key, 7);
    }
    assert_eq!(engine.stats().evictions, 0, "all of it fits");

    if eviction == Eviction::default() {
        BATCHES.into_iter().for_each(|batch| bench_gets(group, &mut engine, keys, batch));
        print_ratio(&mut engine, keys);
    } else {
        bench_gets(group, &mut engine, keys, BATCH);
    }
    let mut endless = keys.iter().cycle();
    group.bench_function(format!("{eviction}: set, same size"), |b| {
        b.iter(|| {
            let (key, hash) = endless.next().expect("endless");
            put(&mut engine, *hash, key, 8);
        });
    });
    let mut number = 0;
    group.bench_function(format!("{eviction}: 90 % get, 10 % set"), |b| {
        b.iter(|| {
            let (key, hash) = endless.next().expect("endless");
            number += 1;
            if number % 10 == 0 { put(&mut engine, *hash, key, 9) } else { get(&mut engine, *hash, key) }
        });
    });
    let mut new = ITEMS;
    let mut put_new = |engine: &mut Engine| {
        new += 1;
        let key = key(new);
        put(engine, hasher.hash(&key), &key, 8);
    };
    while engine.stats().evictions < ITEMS / 20 {
        put_new(&mut engine);
    }
    group.bench_function(format!("{eviction}: set of new keys, evicting"), |b| b.iter(|| put_new(&mut engine)));
}

/// Medians of alternating rounds.
fn print_ratio(engine: &mut Engine, keys: &[(Key, KeyHash)]) {
    let mut times = [[0.0; ROUNDS]; 2];
    for round in 0..ROUNDS {
        for (batch, times) in [1, BATCH].into_iter().zip(&mut times) {
            let start = Instant::now();
            keys.chunks(batch).for_each(|chunk| get_batch(engine, chunk));
            times[round] = start.elapsed().as_nanos() as f64 / keys.len() as f64;
        }
    }
    let [single, batched] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    });
    let ratio = single / batched;
    println!("get: one by one {single:.1} ns, in batches of {BATCH} {batched:.1} ns each: {ratio:.2} times as fast\n");
}

fn benches(c: &mut Criterion) {
    let hasher = KeyHasher::with_seed(1);
    let keys = drawn(&hasher);
    let mut group = c.benchmark_group("engine, 10 M items of 16+100 B");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(1));
    let mut at = 0;
    group.bench_function("hash", |b| {
        b.iter(|| {
            at = (at + 1) % DRAWN;
            hasher.hash(black_box(&keys[at].0))
        });
    });
    for eviction in Eviction::ALL.into_iter().filter(|&eviction| eviction != Eviction::None) {
        bench_policy(&mut group, eviction, &hasher, &keys);
    }
}

criterion_group!(storage, benches);
criterion_main!(storage);
