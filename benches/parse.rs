//! Parsing memcached text and RESP: time per command, from one buffer.
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pinion::command::Command;
use pinion::command::args::encode;
use pinion::protocol::memcached::{Parsed, State, parse};
use pinion::protocol::resp;
use std::hint::black_box;

/// Parses a buffer to its end; returns the number of requests.
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

/// Parses RESP to its end, looks the commands up and reads their arguments; returns the number of commands and keys.
fn commands(input: &[u8]) -> u64 {
    let limits = resp::Limits::authenticated(1 << 20);
    let (mut state, mut at, mut count) = (resp::State::default(), 0, 0);
    while at < input.len() {
        let length = match resp::parse(&mut state, &input[at..], &limits) {
            resp::Parsed::Command { args, length } => {
                let mut args = args.iter();
                black_box(args.next().and_then(Command::find));
                args.for_each(|arg| {
                    black_box(arg);
                });
                count += 1;
                length
            }
            resp::Parsed::Key { key, length, .. } => {
                black_box(key);
                count += 1;
                length
            }
            resp::Parsed::Split { length, .. } => length,
            other => panic!("{other:?}"),
        };
        at += length;
    }
    count
}

fn multibulk(words: &[&[u8]]) -> Vec<u8> {
    [format!("*{}\r\n", words.len()).into_bytes(), encode(words)].concat()
}

fn of_resp(c: &mut Criterion) {
    let keys: Vec<String> = (0..64).map(|n| format!("key:{n:012x}")).collect();
    let value = [b'v'; 100];
    let gets: Vec<u8> = keys.iter().flat_map(|k| multibulk(&[b"GET", k.as_bytes()])).collect();
    let sets: Vec<u8> = keys.iter().flat_map(|k| multibulk(&[b"SET", k.as_bytes(), &value])).collect();
    let words: Vec<&[u8]> = std::iter::once(&b"MGET"[..]).chain(keys.iter().map(String::as_bytes)).collect();
    let mut group = c.benchmark_group("parse RESP");
    for (name, input) in [("64 gets", gets), ("64 sets of 100 B", sets), ("one get of 64 keys", multibulk(&words))] {
        assert_eq!(commands(&input), 64);
        group.throughput(Throughput::Elements(64));
        group.bench_function(name, |b| b.iter(|| commands(black_box(&input))));
    }
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

criterion_group!(parsing, benches, of_resp);
criterion_main!(parsing);
