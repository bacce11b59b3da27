//! Latency of the mesh: of the channel alone, and of a round trip to another thread while both are awake.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use pinion::mesh::{MeshEnd, mesh};
use pinion::shard::SlotMap;
use pinion::slots::slot_of;
use std::hint::black_box;

fn next(end: &MeshEnd<Box<u64>>) -> Box<u64> {
    loop {
        if let Some(message) = end.receive() {
            return message;
        }
        std::hint::spin_loop();
    }
}

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("mesh");
    let ends = mesh(2);
    let mut message = Some(Box::new(0));
    group.bench_function("send and receive, one thread", |b| {
        b.iter(|| {
            ends[0].send(1, message.take().expect("it came back"));
            message = ends[1].receive();
        });
    });

    let mut ends = mesh(2).into_iter();
    let (here, there) = (ends.next().expect("two"), ends.next().expect("two"));
    let echo = std::thread::spawn(move || {
        loop {
            let message = next(&there);
            let last = *message == u64::MAX;
            there.send(0, message);
            if last {
                return;
            }
        }
    });
    let mut message = Some(Box::new(1));
    group.bench_function("round trip to another thread, both awake", |b| {
        b.iter(|| {
            here.send(1, message.take().expect("it came back"));
            message = Some(next(&here));
        });
    });
    here.send(1, Box::new(u64::MAX));
    echo.join().expect("the echo ends");

    let map = SlotMap::new(4);
    group.bench_function("slot of a 16 B key", |b| b.iter(|| slot_of(black_box(b"key:00000001d2f3"))));
    group.bench_function("owner of a 16 B key", |b| b.iter(|| map.owner(black_box(b"key:00000001d2f3"))));
}

criterion_group!(hops, benches);
criterion_main!(hops);
