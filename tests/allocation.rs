//! In the steady state, answering requests allocates nothing: a counting allocator under a node in this very process.
//!
//! The clients are in this process as well, so they use buffers made beforehand.

use pinion::config::{Config, Machine, Options, Port};
use pinion::server::Server;
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as promised by our caller.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Requests and their replies; `sent` in pieces that the network does not join.
struct Load {
    sent: Vec<Vec<u8>>,
    expected: Vec<u8>,
}

fn loads() -> Vec<Load> {
    let value = "v".repeat(100);
    let pipeline = |count: usize| {
        let sets: String = (0..count).map(|n| format!("set key-{n} 0 0 100\r\n{value}\r\nget key-{n}\r\n")).collect();
        let stored =
            (0..count).map(|n| format!("STORED\r\nVALUE key-{n} 0 100\r\n{value}\r\nEND\r\n")).collect::<String>();
        Load { sent: vec![sets.into_bytes()], expected: stored.into_bytes() }
    };
    let keys: Vec<String> = (0..16).map(|n| format!("key-{n}")).collect();
    let found: String = keys.iter().map(|k| format!("VALUE {k} 0 100\r\n{value}\r\n")).collect();
    let multi = Load {
        sent: vec![format!("get {}\r\n", keys.join(" ")).into_bytes()],
        expected: format!("{found}END\r\n").into_bytes(),
    };
    // A command in two pieces: the connection keeps the first.
    let halves = Load {
        sent: ["set key-1 0 0 100\r\nvvvv".to_owned(), format!("{}\r\nget key", &value[4..]), "-1\r\n".to_owned()]
            .map(Vec::from)
            .into(),
        expected: format!("STORED\r\nVALUE key-1 0 100\r\n{value}\r\nEND\r\n").into_bytes(),
    };
    vec![pipeline(1), pipeline(16), pipeline(64), multi, halves]
}

fn play(clients: &mut [TcpStream], sync: &mut TcpStream, load: &Load, reply: &mut [u8]) {
    for client in clients {
        for (n, piece) in load.sent.iter().enumerate() {
            client.write_all(piece).expect("send");
            if n + 1 < load.sent.len() {
                sync.write_all(b"get nothing\r\n").expect("send");
                sync.read_exact(&mut reply[..5]).expect("an answer");
            }
        }
        let reply = &mut reply[..load.expected.len()];
        client.read_exact(reply).expect("an answer");
        assert!(reply == load.expected);
    }
}

fn allocations_of(shards: usize) -> u64 {
    let options =
        Options { port: Some(Port::Auto), resp_port: Some(Port::Auto), shards: Some(shards), ..Options::default() };
    let machine = Machine { cores: pinion::sys::allowed_cores(), memory_bytes: None, open_files: 1024 };
    let server = Server::start(Config::new(&options, &machine).expect("settings")).expect("a node");
    let address = server.addresses()[0].address;
    let connect = || {
        let stream = TcpStream::connect(address).expect("connect");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream
    };
    let mut clients: Vec<TcpStream> = (0..8).map(|_| connect()).collect();
    let (mut sync, loads) = (connect(), loads());
    let mut reply = vec![0; 64 << 10];
    let mut rounds = |count| {
        for _ in 0..count {
            for load in &loads {
                play(&mut clients, &mut sync, load, &mut reply);
            }
        }
    };
    rounds(50);
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > 0, "the allocator counts");
    // Pools and lists grow until they are large enough, which may take an unusual moment; then no more.
    let mut allocations = 0;
    for _ in 0..5 {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        rounds(100);
        allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        if allocations == 0 {
            break;
        }
    }
    server.stop();
    allocations
}

/// One test for both, as what is counted is the process's.
#[test]
fn the_steady_state_allocates_nothing() {
    // 100 rounds of 5 loads on 8 connections are 134,400 requests.
    assert_eq!(allocations_of(1), 0, "one shard");
    assert_eq!(allocations_of(2), 0, "two shards, half of the keys of the other");
}
