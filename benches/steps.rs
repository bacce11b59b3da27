//! The longest single step of a shard under storms: measures the thread CPU time of every call into the engine.
//!
//! ```text
//! cargo bench --bench steps -- [--items 1000000,10000000,50000000] [--huge-pages]
//! ```
//!
//! A turn is [`TURN`] requests and one call of [`Engine::work`], as in a shard. Prints Markdown. The first row of each
//! table shows steps that only hash a key, for about a microsecond: their tail is due to the machine (interrupts, a
//! hypervisor that preempts the core, which the kernel counts as the thread's time), and it is part of all other tails
//! as well, the more so the longer the steps.
#![allow(missing_docs)]

mod meter;

use clap::Parser;
use meter::{Meter, Random, thread_ns};
use pinion::engine::{Attributes, Engine, EngineConfig, Eviction, KeyHash, KeyHasher, Next};
use pinion::slots::Group;
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Instant;

/// Requests between two calls of `work`.
const TURN: u64 = 16;
const NOW: u64 = 1_700_000_000_000;
/// Memory per item of 16+100 B, enough for all of them in any state of the index.
const BYTES_PER_ITEM: u64 = 160;
/// Pieces in which long values are written, and the length from which on they are.
const PIECE_BYTES: usize = 16 << 10;
const MIB: usize = 1 << 20;
const KIB: usize = 1 << 10;
/// Hashes of a key that take about a microsecond.
const HASHES_PER_STEP: usize = 400;
/// The bar: longer steps are counted.
const BAR_NS: u64 = 100_000;

static VALUE: [u8; MIB] = [7; MIB];

#[derive(Parser)]
struct Options {
    /// Numbers of items.
    #[arg(long, value_delimiter = ',', default_value = "1000000,10000000")]
    items: Vec<u64>,
    /// Advises the kernel to use huge pages.
    #[arg(long)]
    huge_pages: bool,
    /// Storms to run, by a part of their names.
    #[arg(long, default_value = "")]
    only: String,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

type Key = [u8; 16];

fn key(mut n: u64) -> Key {
    let mut key = *b"key:000000000000";
    for digit in key[4..].iter_mut().rev() {
        *digit = b"0123456789abcdef"[(n & 15) as usize];
        n >>= 4;
    }
    key
}

/// Value sizes of `scripts/efficiency`: median 148 B, sigma 1.
fn lognormal_sizes(random: &mut Random) -> Vec<usize> {
    let mut unit = || (random.below(1 << 53) as f64 + 1.0) / (1_u64 << 53) as f64;
    let mut normal = || (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
    (0..1 << 16).map(|_| ((148.0 * normal().exp()) as usize).clamp(1, 64 * KIB)).collect()
}

/// An engine under a storm.
struct Stormed {
    engine: Engine,
    hasher: KeyHasher,
    /// The time that is passed to the engine.
    now: u64,
    /// Number of the next new key, and of requests so far.
    next: u64,
    requests: u64,
    /// Keys of long values.
    long: VecDeque<u64>,
}

impl Stormed {
    fn new(memory_bytes: u64, huge_pages: bool) -> Self {
        let hasher = KeyHasher::with_seed(1);
        let config = EngineConfig {
            memory_bytes,
            value_bytes_max: MIB as u32,
            eviction: Eviction::default(),
            user_bytes_max: None,
        };
        let engine = Engine::new(config, hasher.clone(), NOW).expect("memory");
        if huge_pages {
            engine.advise_huge_pages().expect("huge pages");
        }
        Self { engine, hasher, now: NOW, next: 0, requests: 0, long: VecDeque::new() }
    }

    /// Counts a request, and ends the turn if it was the last.
    fn requested(&mut self, meter: &mut Meter) {
        self.requests += 1;
        if self.requests.is_multiple_of(TURN) {
            self.work(meter);
        }
        if self.requests.is_multiple_of(1000) {
            self.now += 1;
        }
    }

    fn work(&mut self, meter: &mut Meter) -> Next {
        let now = self.now;
        meter.time("work", &mut self.engine, |engine| engine.work(now))
    }

    /// Stores a new key as a shard does: long values piece by piece.
    fn put(&mut self, meter: &mut Meter, value_bytes: usize, expires: Option<u64>) {
        let (key, now) = (key(self.next), self.now);
        let (hash, group) = (self.hasher.hash(&key), Group::of(&key));
        let attributes = Attributes { flags: 0, expires };
        self.next += 1;
        let value = &VALUE[..value_bytes];
        if value_bytes <= PIECE_BYTES {
            let done =
                meter.time("put", &mut self.engine, |engine| engine.put(hash, group, &key, value, attributes, now));
            done.expect("it fits");
            return;
        }
        let upload = meter.time("begin", &mut self.engine, |engine| engine.begin(&key, value_bytes, attributes, now));
        let upload = upload.expect("it fits");
        for mut piece in value.chunks(PIECE_BYTES) {
            while !piece.is_empty() {
                let taken = meter.time("append", &mut self.engine, |engine| engine.append(&upload, piece, now));
                piece = &piece[taken.expect("it fits")..];
                self.requested(meter);
            }
        }
        meter.time("commit", &mut self.engine, |engine| engine.commit(hash, group, upload, now)).expect("it fits");
    }

    fn get(&mut self, meter: &mut Meter, n: u64) -> bool {
        let (key, now) = (key(n), self.now);
        let hash = self.hasher.hash(&key);
        meter.time("get", &mut self.engine, |engine| black_box(engine.get(hash, &key, now)).is_some())
    }

    fn remove(&mut self, meter: &mut Meter, call: &'static str, n: u64) -> bool {
        let (key, now) = (key(n), self.now);
        let hash = self.hasher.hash(&key);
        meter.time(call, &mut self.engine, |engine| engine.remove(hash, &key, now))
    }

    /// Stores `count` new keys, with turns.
    fn put_many(&mut self, meter: &mut Meter, count: u64, value_bytes: usize, expires: impl Fn(u64) -> Option<u64>) {
        for n in 0..count {
            self.put(meter, value_bytes, expires(n));
            self.requested(meter);
        }
    }

    /// Stores keys without timing.
    fn fill(&mut self, count: u64, expires: impl Fn(u64) -> Option<u64>) {
        for n in 0..count {
            let key = key(self.next);
            self.next += 1;
            let attributes = Attributes { flags: 0, expires: expires(n) };
            let (hash, group) = (self.hasher.hash(&key), Group::of(&key));
            self.engine.put(hash, group, &key, &VALUE[..100], attributes, self.now).expect("it fits");
            if n.is_multiple_of(TURN) {
                self.engine.work(self.now);
            }
        }
        while self.engine.work(self.now) == Next::Now {}
    }
}

fn main() {
    let options = Options::parse();
    let mut meter = Meter::new(BAR_NS);
    println!("Reading the clock takes {} ns, which is subtracted from each step.", meter.overhead_ns);
    for &items in &options.items {
        println!("\n### {items} items of 16+100 B{}\n", if options.huge_pages { ", huge pages" } else { "" });
        println!("CPU time of single steps, µs:\n");
        meter.print_head();
        let mut remarks = Vec::new();
        let start = Instant::now();
        let selected = |name: &str| name.contains(&options.only);
        if ["growth", "eviction", "evacuation", "long", "policy", "flush"].into_iter().any(selected) {
            fill_and_turn_over(&mut meter, items, &options, &mut remarks);
        }
        if selected("expiry") {
            expiry(&mut meter, items, &options, &mut remarks);
        }
        if selected("sweep") {
            sweep(&mut meter, items, &options, &mut remarks);
        }
        println!();
        remarks.iter().for_each(|remark| println!("- {remark}"));
        eprintln!("{items} items: {:.0} s", start.elapsed().as_secs_f64());
    }
}

/// The storms that one engine goes through in turn.
fn fill_and_turn_over(meter: &mut Meter, items: u64, options: &Options, remarks: &mut Vec<String>) {
    let memory_bytes = items * BYTES_PER_ITEM;
    let mut stormed = Stormed::new(memory_bytes, options.huge_pages);
    let mut random = Random(88_172_645_463_325_252);
    let selected = |name: &str| name.contains(&options.only);

    meter.storm = "nothing";
    for n in 0..items.min(5_000_000) {
        let key = key(n);
        let hasher = stormed.hasher.clone();
        meter.time("hash", &mut stormed.engine, |_| {
            for _ in 0..HASHES_PER_STEP {
                black_box(hasher.hash(black_box(&key)));
            }
        });
    }
    meter.end_storm();

    meter.storm = "growth";
    match selected("growth") {
        true => stormed.put_many(meter, items, 100, |_| None),
        false => stormed.fill(items, |_| None),
    }
    meter.end_storm();
    assert_eq!(stormed.engine.stats().evictions, 0, "all of it fits");

    if options.only.is_empty() {
        let (single, batched) = lookups(&mut stormed, items, &mut random);
        let ratio = single / batched;
        remarks.push(format!(
            "Lookups of random keys, alternating rounds: one by one {single:.1} ns, in batches of 16 {batched:.1} ns each: \
             {ratio:.2} times as fast."
        ));
    }

    // Eviction: one in four requests is a get or a deletion.
    meter.storm = "eviction";
    while stormed.engine.stats().evictions == 0 {
        stormed.fill(1000, |_| None);
    }
    if selected("eviction") {
        for n in 0..items.clamp(2_000_000, 10_000_000) {
            stormed.put(meter, 100, None);
            stormed.requested(meter);
            let recent = stormed.next - 1 - random.below(items);
            match n % 32 {
                0 => black_box(stormed.remove(meter, "remove", recent)),
                1..8 => black_box(stormed.get(meter, recent)),
                _ => continue,
            };
            stormed.requested(meter);
        }
    }
    meter.end_storm();

    if selected("evacuation") {
        // Each phase writes as many bytes as memory holds.
        for (storm, value_bytes) in [("evacuation: 100 B to 1 KiB", KIB), ("evacuation: 1 KiB to 100 B", 100)] {
            meter.storm = storm;
            stormed.put_many(meter, memory_bytes / (value_bytes as u64 + 40), value_bytes, |_| None);
            meter.end_storm();
        }
        meter.storm = "evacuation: to lognormal";
        let sizes = lognormal_sizes(&mut random);
        for n in 0..memory_bytes / 280 {
            stormed.put(meter, sizes[n as usize % sizes.len()], None);
            stormed.requested(meter);
        }
        meter.end_storm();
        meter.storm = "evacuation: to 16 B";
        stormed.put_many(meter, memory_bytes / 80, 16, |_| None);
        meter.end_storm();
    }

    if selected("long") {
        long_values(meter, &mut stormed, items);
    }
    if selected("policy") {
        for eviction in Eviction::ALL.into_iter().cycle().skip(1).take(Eviction::ALL.len()) {
            meter.storm = "policy";
            meter.time("set_eviction", &mut stormed.engine, |engine| engine.set_eviction(eviction));
            for _ in 0..items / 2 {
                // Without eviction there is no room to write.
                match eviction {
                    Eviction::None => black_box(stormed.get(meter, random.below(stormed.next))),
                    _ => {
                        stormed.put(meter, 100, None);
                        true
                    }
                };
                stormed.requested(meter);
            }
        }
        meter.end_storm();
    }
    if selected("flush") {
        meter.storm = "flush";
        let held = stormed.engine.stats().held_bytes;
        let spent = meter.spent_ns;
        meter.time("flush", &mut stormed.engine, Engine::flush);
        let mut turns = 0;
        while stormed.work(meter) == Next::Now {
            turns += 1;
            (0..TURN / 2).for_each(|_| stormed.put(meter, 100, None));
        }
        let left = stormed.engine.stats().held_bytes;
        remarks.push(format!(
            "Flush: {} MiB given back in {turns} turns, {:.1} s of CPU time.",
            (held - left) >> 20,
            (meter.spent_ns - spent) as f64 / 1e9
        ));
        meter.end_storm();
    }
}

/// 1 MiB values that evict small ones, are deleted, and are evicted by small ones.
fn long_values(meter: &mut Meter, stormed: &mut Stormed, items: u64) {
    meter.storm = "long values";
    for n in 0..(items / 5_000).max(2_000) {
        stormed.long.push_back(stormed.next);
        stormed.put(meter, MIB, None);
        if n % 2 == 0
            && let Some(long) = stormed.long.pop_front()
        {
            stormed.remove(meter, "remove, 1 MiB", long);
        }
        for _ in 0..16 {
            stormed.put(meter, 100, None);
            stormed.requested(meter);
        }
    }
    meter.end_storm();
    meter.storm = "long values pushed out";
    stormed.put_many(meter, items, 100, |_| None);
    meter.end_storm();
}

/// Nanoseconds of CPU time per lookup of a random key: one by one, and in batches of 16. Medians of alternating rounds.
fn lookups(stormed: &mut Stormed, items: u64, random: &mut Random) -> (f64, f64) {
    const ROUNDS: usize = 15;
    const LOOKUPS: usize = 1 << 17;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (batch, times) in [1, 16].into_iter().zip(&mut times) {
            let keys: Vec<(Key, KeyHash)> = (0..LOOKUPS)
                .map(|_| {
                    let key = key(random.below(items));
                    (key, stormed.hasher.hash(&key))
                })
                .collect();
            let engine = &mut stormed.engine;
            let start = thread_ns();
            for chunk in keys.chunks(batch) {
                if batch > 1 {
                    chunk.iter().for_each(|(_, hash)| engine.prefetch_index(*hash));
                    chunk.iter().for_each(|(_, hash)| engine.prefetch_item(*hash));
                }
                for (key, hash) in chunk {
                    let item = engine.get(*hash, key, NOW).expect("a hit");
                    black_box(item.value.whole().map(|v| v[0]));
                }
            }
            times.push((thread_ns() - start) as f64 / LOOKUPS as f64);
        }
    }
    let [single, batched] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    });
    (single, batched)
}

/// Half of the items expire within one second. The engine's time advances by the CPU time of its steps.
fn expiry(meter: &mut Meter, items: u64, options: &Options, remarks: &mut Vec<String>) {
    const TTL_MS: u64 = 300_000;
    let mut stormed = Stormed::new(items * BYTES_PER_ITEM, options.huge_pages);
    meter.storm = "expiry, fill";
    stormed.put_many(meter, items, 100, |n| n.is_multiple_of(2).then_some(NOW + TTL_MS + n * 1000 / items));
    meter.end_storm();

    meter.storm = "expiry";
    let due = NOW + TTL_MS;
    let kept = stormed.engine.stats().items - items / 2;
    let left = run_down(meter, &mut stormed, due, 2 * items, kept);
    let expiring = items / 2;
    remarks.push(format!(
        "Expiry: {expiring} items that expired within one second: the last was removed {left} ms after the first was due \
         (99 % at most {} ms after their own time), {} turns of 4 gets.",
        stormed.engine.expiry_lag_ms(),
        stormed.requests,
    ));
    meter.end_storm();
}

/// All items expire within one second, after a time to live beyond the wheel's horizon.
fn sweep(meter: &mut Meter, items: u64, options: &Options, remarks: &mut Vec<String>) {
    const TTL_MS: u64 = 3_600_000;
    let mut stormed = Stormed::new(items * BYTES_PER_ITEM, options.huge_pages);
    let due = NOW + TTL_MS;
    stormed.fill(items, |n| Some(due + n * 1000 / items));
    meter.storm = "sweep";
    // The pass is at an arbitrary position when they expire.
    stormed.now = due - 40_000;
    while stormed.now < due {
        match stormed.work(meter) {
            Next::In(milliseconds) => stormed.now += milliseconds,
            Next::Now => {}
            Next::Idle => unreachable!("items will expire"),
        }
    }
    let left = run_down(meter, &mut stormed, due, items, 0);
    remarks.push(format!("Sweep: {items} items with long times to live were gone {left} ms after the first was due."));
    meter.end_storm();
}

/// Advances time from `from` until at most `kept` items are left; returns how many milliseconds that took.
fn run_down(meter: &mut Meter, stormed: &mut Stormed, from: u64, keys: u64, kept: u64) -> u64 {
    let mut random = Random(1);
    stormed.requests = 0;
    let mut start = meter.spent_ns;
    let mut base = from;
    stormed.now = from;
    while stormed.engine.stats().items > kept {
        for _ in 0..4 {
            stormed.get(meter, random.below(keys));
        }
        stormed.requests += 1;
        stormed.now = base + (meter.spent_ns - start) / 1_000_000;
        if let Next::In(milliseconds) = stormed.work(meter) {
            (base, start) = (stormed.now + milliseconds, meter.spent_ns);
            stormed.now = base;
        }
    }
    stormed.now - from
}
