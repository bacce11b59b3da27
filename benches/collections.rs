//! Large collections in an engine: single calls while they grow, how the cost of calls scales with size, and the
//! longest single step while one is deleted, expires, is evicted or flushed.
//!
//! ```text
//! cargo bench --bench collections -- [--elements 10000000] [--only growth,conversion,sizes,end] [--types sorted]
//! ```
//!
//! Prints Markdown; times are CPU time of the thread. A turn is [`TURN`] requests and one call of [`Engine::work`], as
//! in a shard.
#![allow(missing_docs)]

mod meter;

use clap::Parser;
use meter::{Meter, Random, thread_ns};
use pinion::command::End;
use pinion::engine::{
    Attributes, Bound, Engine, EngineConfig, Eviction, FieldExpiry, KeyHash, KeyHasher, Next, ScoreChange,
};
use pinion::slots::Group;
use std::hint::black_box;

/// Requests between two calls of `work`.
const TURN: u64 = 16;
const NOW: u64 = 1_700_000_000_000;
/// Memory per element of any type.
const BYTES_PER_ELEMENT: u64 = 128;
/// Fixed memory besides.
const BYTES_MIN: u64 = 256 << 20;
/// The bar: no step may take longer.
const BAR_NS: u64 = 1_000_000;
/// Bytes of entries from which on a collection is large, without the header of a small one.
const SMALL_BYTES: u64 = 1022;
const CONVERTED: u64 = 20_000;
/// Elements of a range that is read.
const RANGE: usize = 10;
/// Most small strings written until the collection, as the oldest item, is evicted.
const PUTS_MAX: u64 = 10_000_000;
const KEY: &[u8] = b"collection";

#[derive(Parser)]
struct Options {
    /// Elements of a large collection.
    #[arg(long, default_value_t = 10_000_000)]
    elements: u64,
    /// Benchmarks to run; all by default.
    #[arg(long, value_delimiter = ',', default_value = "growth,conversion,sizes,end")]
    only: Vec<String>,
    /// Types to run; all by default.
    #[arg(long, value_delimiter = ',', default_value = "list,set,hash,sorted")]
    types: Vec<String>,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Type {
    List,
    Set,
    Hash,
    Sorted,
}

impl Type {
    const ALL: [Self; 4] = [Self::List, Self::Set, Self::Hash, Self::Sorted];

    fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Set => "set",
            Self::Hash => "hash",
            Self::Sorted => "sorted",
        }
    }

    /// Bytes of an element in a small collection.
    fn entry_bytes(self) -> u64 {
        match self {
            Self::List | Self::Set => 17,
            Self::Hash => 34,
            Self::Sorted => 25,
        }
    }
}

/// A member of 16 bytes; its hash order differs from its numerical order.
fn member(n: u64) -> [u8; 16] {
    let mut member = *b"0000000000000000";
    let mut rest = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for digit in &mut member {
        *digit = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
    }
    member
}

/// The initial score of a member.
fn score(n: u64) -> f64 {
    (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 12) as f64
}

/// An engine with one collection.
struct Subject {
    engine: Engine,
    hasher: KeyHasher,
    now: u64,
    /// Number of the next small string.
    next: u64,
    requests: u64,
}

impl Subject {
    fn new(elements: u64) -> Self {
        Self::with_policy(elements, Eviction::default())
    }

    fn with_policy(elements: u64, eviction: Eviction) -> Self {
        let hasher = KeyHasher::with_seed(1);
        let config = EngineConfig {
            memory_bytes: BYTES_MIN + elements * BYTES_PER_ELEMENT,
            value_bytes_max: 1 << 20,
            eviction,
            user_bytes_max: None,
        };
        let engine = Engine::new(config, hasher.clone(), NOW).expect("memory");
        Self { engine, hasher, now: NOW, next: 0, requests: 0 }
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

    /// Adds a new element.
    fn add(&mut self, meter: &mut Meter, of: Type, key: &[u8], n: u64) {
        let (hash, now) = (self.hasher.hash(key), self.now);
        meter.time("add", &mut self.engine, |engine| add(engine, of, hash, key, n, now));
    }

    /// Adds elements without timing.
    fn fill(&mut self, of: Type, elements: std::ops::Range<u64>) {
        let hash = self.hasher.hash(KEY);
        for n in elements {
            add(&mut self.engine, of, hash, KEY, n, self.now);
            if n.is_multiple_of(TURN) {
                self.engine.work(self.now);
            }
        }
    }

    /// Stores a small string.
    fn put(&mut self, meter: &mut Meter) {
        let (key, now) = (member(self.next), self.now);
        let (hash, group) = (self.hasher.hash(&key), Group::of(&key));
        self.next += 1;
        let attributes = Attributes { flags: 0, expires: None };
        let done =
            meter.time("put", &mut self.engine, |engine| engine.put(hash, group, &key, &[7; 100], attributes, now));
        done.expect("it fits");
    }

    /// Continues until no background work is left, with a few requests in each turn.
    fn settle(&mut self, meter: &mut Meter) {
        while self.work(meter) == Next::Now {
            (0..TURN / 4).for_each(|_| self.put(meter));
        }
    }
}

fn add(engine: &mut Engine, of: Type, hash: KeyHash, key: &[u8], n: u64, now: u64) {
    let member = member(n);
    let members = std::iter::once(&member[..]);
    let added = match of {
        Type::List => engine.list_push(hash, key, End::Front, members, true, now).map(|_| 1),
        Type::Set => engine.set_add(hash, key, members, |_| false, now),
        Type::Hash => {
            let fields = members.map(|member| (member, member));
            engine.hash_set(hash, key, fields, FieldExpiry::Keep, now)
        }
        Type::Sorted => {
            let members = members.map(|member| (score(n), member));
            engine.sorted_add(hash, key, members, ScoreChange::default(), now, |_| {}).map(|()| 1)
        }
    };
    assert_eq!(added.expect("it fits"), 1);
}

fn main() {
    let options = Options::parse();
    let mut meter = Meter::new(BAR_NS);
    let selected = |name: &str| options.only.iter().any(|only| only == name);
    println!("Reading the clock takes {} ns, which is subtracted from each step.", meter.overhead_ns);
    let types = Type::ALL.into_iter().filter(|of| options.types.iter().any(|name| name == of.name()));
    for of in types.filter(|_| ["growth", "conversion", "end"].into_iter().any(selected)) {
        println!("\n### {}, {} elements of 16 B\n\nCPU time of single steps, µs:\n", of.name(), options.elements);
        meter.print_head();
        if selected("growth") {
            growth(&mut meter, of, options.elements);
        }
        if selected("conversion") {
            conversion(&mut meter, of);
        }
        if selected("end") {
            ENDS.iter().for_each(|end| end(&mut meter, of, options.elements));
        }
    }
    if selected("sizes") {
        sizes(options.elements);
    }
}

fn growth(meter: &mut Meter, of: Type, elements: u64) {
    let mut subject = Subject::new(elements);
    meter.storm = "growth";
    for n in 0..elements {
        subject.add(meter, of, KEY, n);
        subject.requested(meter);
    }
    meter.end_storm();
}

/// Adds to many small collections the one element that makes them large.
fn conversion(meter: &mut Meter, of: Type) {
    let count = SMALL_BYTES / of.entry_bytes();
    let mut subject = Subject::new(CONVERTED * (count + 8));
    for n in 0..CONVERTED {
        let key = member(n);
        let hash = subject.hasher.hash(&key);
        (0..count).for_each(|element| add(&mut subject.engine, of, hash, &key, element, NOW));
    }
    meter.storm = "conversion";
    for n in 0..CONVERTED {
        subject.add(meter, of, &member(n), count);
        subject.requested(meter);
    }
    meter.end_storm();
}

/// The ways in which a collection is removed.
const ENDS: [fn(&mut Meter, Type, u64); 4] = [deletion, expiry, eviction, flush];

fn deletion(meter: &mut Meter, of: Type, elements: u64) {
    let mut subject = Subject::new(elements);
    subject.fill(of, 0..elements);
    meter.storm = "deletion";
    let (hash, now) = (subject.hasher.hash(KEY), subject.now);
    meter.time("remove", &mut subject.engine, |engine| engine.remove(hash, KEY, now));
    subject.settle(meter);
    meter.end_storm();
}

fn expiry(meter: &mut Meter, of: Type, elements: u64) {
    const TTL_MS: u64 = 10_000;
    let mut subject = Subject::new(elements);
    subject.fill(of, 0..elements);
    meter.storm = "expiry";
    let (hash, now) = (subject.hasher.hash(KEY), subject.now);
    let touched = subject.engine.touch(hash, KEY, Some(now + TTL_MS), now);
    assert_eq!(touched, Ok(true));
    while subject.engine.stats().expired == 0 {
        subject.now += 100;
        subject.work(meter);
    }
    subject.settle(meter);
    meter.end_storm();
}

/// Evicts the collection by small strings. Under LRU, since S3-FIFO would rather evict those strings, which are never
/// read.
fn eviction(meter: &mut Meter, of: Type, elements: u64) {
    let mut subject = Subject::with_policy(elements, Eviction::Lru);
    subject.fill(of, 0..elements);
    meter.storm = "eviction";
    let full = subject.engine.stats();
    subject.engine.set_memory_bytes(full.held_bytes + (64 << 20));
    while subject.engine.stats().user_bytes > full.user_bytes / 2 {
        assert!(subject.next < PUTS_MAX, "it is not evicted");
        subject.put(meter);
        subject.requested(meter);
    }
    subject.settle(meter);
    meter.end_storm();
}

fn flush(meter: &mut Meter, of: Type, elements: u64) {
    let mut subject = Subject::new(elements);
    subject.fill(of, 0..elements);
    meter.storm = "flush";
    meter.time("flush", &mut subject.engine, Engine::flush);
    subject.settle(meter);
    meter.end_storm();
}

/// The cost of calls on a sorted set, and of looking a field up, by size.
fn sizes(elements: u64) {
    println!("\n### Calls by size, ns of CPU time each (members of 16 B)\n");
    println!(
        "| elements | add | remove | other score | score | rank | {RANGE} by rank | {RANGE} by score | set: contains | hash: field |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let [mut sorted, mut set, mut hash] = std::array::from_fn(|_| Subject::new(elements));
    let (mut size, mut filled) = (1000, 0);
    while size <= elements {
        sorted.fill(Type::Sorted, filled..size);
        set.fill(Type::Set, filled..size);
        hash.fill(Type::Hash, filled..size);
        let cells = calls(&mut sorted, size).into_iter().chain(lookups(&mut set, &mut hash, size));
        println!("| {size} | {} |", cells.map(|ns| format!("{ns:.0}")).collect::<Vec<_>>().join(" | "));
        (filled, size) = (size, size * 10);
    }
}

const CALLS: u64 = 100_000;

/// Nanoseconds of each of [`CALLS`] calls.
fn each(mut call: impl FnMut(u64)) -> f64 {
    let start = thread_ns();
    (0..CALLS).for_each(&mut call);
    (thread_ns() - start) as f64 / CALLS as f64
}

fn calls(subject: &mut Subject, size: u64) -> [f64; 7] {
    let (hash, now, mut random) = (subject.hasher.hash(KEY), subject.now, Random(88_172_645_463_325_252));
    let engine = &mut subject.engine;
    let mut spent = [0; 2];
    let few = (size / 20).min(CALLS);
    let rounds = CALLS / few;
    // New members are removed again, to keep the size that the row states.
    for _ in 0..rounds {
        let start = thread_ns();
        (size..size + few).for_each(|n| add(engine, Type::Sorted, hash, KEY, n, now));
        let added = thread_ns();
        for n in size..size + few {
            let removed = engine.sorted_remove(hash, KEY, std::iter::once(&member(n)[..]), now);
            assert_eq!(removed, Ok(1));
        }
        spent = [spent[0] + added - start, spent[1] + thread_ns() - added];
    }
    let [added, removed] = spent.map(|ns| ns as f64 / (rounds * few) as f64);
    let changed = each(|n| {
        let member = member(random.below(size));
        let change = std::iter::once((score(n + elements_apart()), &member[..]));
        engine.sorted_add(hash, KEY, change, ScoreChange::default(), now, |_| {}).expect("it fits");
    });
    let mut read = |read: &mut dyn FnMut(&pinion::engine::Sorted, u64)| {
        each(|_| {
            let sorted = engine.as_sorted(hash, KEY, now).expect("its type").expect("it is there");
            read(&sorted, random.below(size));
        })
    };
    let scored = read(&mut |sorted, n| _ = black_box(sorted.score(&member(n))));
    let ranked = read(&mut |sorted, n| _ = black_box(sorted.rank(&member(n))));
    let by_rank = read(&mut |sorted, n| _ = black_box(sorted.forward_from(n).take(RANGE).map(|e| e.1).sum::<f64>()));
    let by_score = read(&mut |sorted, n| {
        let rank = sorted.rank_of(Bound::Score { score: score(n), after: false });
        black_box(sorted.forward_from(rank).take(RANGE).map(|e| e.1).sum::<f64>());
    });
    [added, removed, changed, scored, ranked, by_rank, by_score]
}

/// Scores for updates differ from those of members that are added later.
fn elements_apart() -> u64 {
    1 << 40
}

fn lookups(set: &mut Subject, fields: &mut Subject, size: u64) -> [f64; 2] {
    let (hash, now, mut random) = (set.hasher.hash(KEY), set.now, Random(88_172_645_463_325_252));
    let contains = each(|_| {
        let set = set.engine.as_set(hash, KEY, now).expect("its type").expect("it is there");
        assert!(set.contains(&member(random.below(size))));
    });
    let field = each(|_| {
        let hash = fields.engine.as_hash(hash, KEY, now).expect("its type").expect("it is there");
        assert!(hash.field(&member(random.below(size))).is_some());
    });
    [contains, field]
}
