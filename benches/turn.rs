//! A whole turn: a pipeline from a client to a node in this process and back, including the kernel. The client waits
//! for each pipeline, so this measures round trips with all wake-ups; the point is how they grow with the depth.
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pinion::config::{Config, Machine, Options, Port};
use pinion::server::Server;
use std::io::{Read, Write};
use std::net::TcpStream;

fn benches(c: &mut Criterion) {
    let cores = pinion::sys::allowed_cores();
    for shards in [1, 2] {
        let options =
            Options { port: Some(Port::Auto), resp_port: Some(Port::Auto), shards: Some(shards), ..Options::default() };
        let machine = Machine { cores: cores.clone(), memory_bytes: None, open_files: 1024 };
        let server = Server::start(Config::new(&options, &machine).expect("settings")).expect("a node");
        let mut client = TcpStream::connect(server.addresses()[0].address).expect("connect");
        client.set_nodelay(true).expect("TCP_NODELAY");
        let mut group = c.benchmark_group(format!("turn, {shards} shard(s)"));
        for depth in [1, 16, 64] {
            let sets: String = (0..depth).map(|n| format!("set key-{n} 0 0 100\r\n{}\r\n", "v".repeat(100))).collect();
            let mut reply = vec![0; 8 * depth];
            client.write_all(sets.as_bytes()).expect("send");
            client.read_exact(&mut reply).expect("replies");
            assert!(reply.starts_with(b"STORED\r\n"));

            let gets: String = (0..depth).map(|n| format!("get key-{n}\r\n")).collect();
            let expected: usize = (0..depth).map(|n| format!("VALUE key-{n} 0 100\r\n\r\nEND\r\n").len() + 100).sum();
            let mut reply = vec![0; expected];
            group.throughput(Throughput::Elements(depth as u64));
            group.bench_function(format!("{depth} gets"), |b| {
                b.iter(|| {
                    client.write_all(gets.as_bytes()).expect("send");
                    client.read_exact(&mut reply).expect("replies");
                });
            });
            assert!(reply.ends_with(b"END\r\n"));
        }
        group.finish();
        server.stop();
    }
}

criterion_group!(turns, benches);
criterion_main!(turns);
