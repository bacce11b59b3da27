//! Parsing memcached text: per command, from one buffer.
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pinion::protocol::memcached::{Parsed, State, parse};
use std::hint::black_box;

/// Parses a buffer to its end and returns how many requests were in it.
fn requests(input: &[u8]) -> u64 {
    let (mut state, mut at, mut count) = (State::Command, 0, 0);
    while at < input.len() {
        match parse(&mut state, &input[at..], 1 << 20) {
            Parsed::Request { request, length } => {
                black_box(request);
                at += length;
                count += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    count
}

fn benches(c: &mut Criterion) {
    let gets: String = (0..64).map(|n| format!("get key:{n:012x}\r\n")).collect();
    let sets: String = (0..64).map(|n| format!("set key:{n:012x} 0 0 100\r\n{}\r\n", "v".repeat(100))).collect();
    let keys: Vec<String> = (0..64).map(|n| format!("key:{n:012x}")).collect();
    let multi = format!("get {}\r\n", keys.join(" "));
    let mut group = c.benchmark_group("parse");
    for (name, input) in [("64 gets", gets), ("64 sets of 100 B", sets), ("one get of 64 keys", multi)] {
        assert_eq!(requests(input.as_bytes()), 64);
        group.throughput(Throughput::Elements(64));
        group.bench_function(name, |b| b.iter(|| requests(black_box(input.as_bytes()))));
    }
}

criterion_group!(parsing, benches);
criterion_main!(parsing);
