//! Misbehaving connections and many connections, against the real binary.

mod common;

use common::{Client, Node, Random, wait_until};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// Closes with a reset instead of a FIN, as the kernel does for a client that is killed with unread data.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

#[test]
fn commands_split_at_every_byte() {
    let node = Node::start(&["--shards", "1", "--memory", "64"]);
    let (mut client, mut sync) = (node.client(), node.client());
    let cases = [
        ("set key 5 0 10\r\n0123\r\n6789\r\n", "STORED\r\n"),
        ("get key nothing key\r\n", "VALUE key 5 10\r\n0123\r\n6789\r\nVALUE key 5 10\r\n0123\r\n6789\r\nEND\r\n"),
        ("append key 0 0 2 noreply\r\nab\r\nget key\r\n", "VALUE key 5 12\r\n0123\r\n6789ab\r\nEND\r\n"),
        ("set n 0 0 1\r\n1\r\nincr n 41\r\ndelete n\r\n", "STORED\r\n42\r\nDELETED\r\n"),
        ("set key 0 0 3\r\nlonger\r\nversion x\r\n", "CLIENT_ERROR bad data chunk\r\nERROR\r\n"),
        ("set key x 0 4\r\nquit\r\ntouch nothing 1\r\n", "CLIENT_ERROR bad command line format\r\nNOT_FOUND\r\n"),
    ];
    for (command, answer) in cases {
        for at in 1..command.len() {
            assert_eq!(client.ask("flush_all"), "OK");
            client.set("key", b"0123\r\n6789");
            client.send("touch key 0\r\nset key 5 0 10\r\n0123\r\n6789\r\n");
            assert_eq!((client.line(), client.line()), ("TOUCHED".into(), "STORED".into()));
            client.send(&command[..at]);
            sync.sync();
            client.send(&command[at..]);
            let got = client.bytes(answer.len());
            assert_eq!(String::from_utf8_lossy(&got), answer, "{command:?} split at {at}");
            // The tail of the value that is too long is parsed as a command of its own.
            if answer.starts_with("CLIENT_ERROR bad data") {
                assert!(client.line().starts_with("VERSION"));
            }
        }
    }
    node.stop();
}

/// Random commands on a few keys, and the replies of a model: a map.
fn conversation(commands: usize, keys: u64, seed: u64) -> (String, String) {
    let mut random = Random(seed);
    let mut map: HashMap<u64, String> = HashMap::new();
    let (mut asked, mut expected) = (String::new(), String::new());
    for n in 0..commands {
        let key = random.below(keys);
        let show = |key: u64, map: &HashMap<u64, String>, out: &mut String| {
            if let Some(value) = map.get(&key) {
                write!(out, "VALUE k{key} 0 {}\r\n{value}\r\n", value.len()).expect("a string");
            }
        };
        match random.below(10) {
            0..=2 => {
                let value = format!("{n}").repeat(1 + random.below(40) as usize);
                write!(asked, "set k{key} 0 0 {}\r\n{value}\r\n", value.len()).expect("a string");
                expected += "STORED\r\n";
                map.insert(key, value);
            }
            3..=5 => {
                write!(asked, "get k{key}\r\n").expect("a string");
                show(key, &map, &mut expected);
                expected += "END\r\n";
            }
            6 => {
                let wanted: Vec<u64> = (0..20).map(|_| random.below(keys)).collect();
                let names: Vec<String> = wanted.iter().map(|k| format!("k{k}")).collect();
                write!(asked, "get {}\r\n", names.join(" ")).expect("a string");
                wanted.iter().for_each(|&k| show(k, &map, &mut expected));
                expected += "END\r\n";
            }
            7 => {
                write!(asked, "delete k{key}\r\n").expect("a string");
                expected += if map.remove(&key).is_some() { "DELETED\r\n" } else { "NOT_FOUND\r\n" };
            }
            8 => {
                write!(asked, "set k{key} 0 0 3 noreply\r\n123\r\nincr k{key} 1\r\n").expect("a string");
                expected += "124\r\n";
                map.insert(key, "124".into());
            }
            _ => {
                asked += "nonsense\r\n";
                expected += "ERROR\r\n";
            }
        }
    }
    (asked, expected)
}

fn assert_conversation(client: &mut Client, asked: &str, expected: &str) {
    let mut writer = client.stream.try_clone().expect("a second handle");
    std::thread::scope(|scope| {
        scope.spawn(move || std::io::Write::write_all(&mut writer, asked.as_bytes()).expect("send"));
        let got = client.bytes(expected.len());
        if got != expected.as_bytes() {
            let at = got.iter().zip(expected.as_bytes()).position(|(a, b)| a != b).expect("they differ");
            let around = |bytes: &[u8]| {
                String::from_utf8_lossy(&bytes[at.saturating_sub(60)..(at + 60).min(bytes.len())]).into_owned()
            };
            panic!("at byte {at}: got {:?}, expected {:?}", around(&got), around(expected.as_bytes()));
        }
    });
    client.sync();
}

#[test]
fn a_pipeline_of_a_thousand_commands_over_all_shards_comes_back_in_order() {
    let first_core = pinion::sys::allowed_cores()[0].to_string();
    let one_core = ["-t", "3", "--cores", &first_core];
    for arguments in [
        &["-t", "1"][..],
        &["-t", "2"],
        &["-t", "5"],
        &one_core,
        &["-t", "2", "--spin-us", "50"],
        &["--profile", "small"],
    ] {
        let node = Node::start(arguments);
        for seed in 1..4 {
            let (asked, expected) = conversation(1000, 300, seed);
            let mut client = node.client();
            assert_eq!(client.ask("flush_all"), "OK");
            assert_conversation(&mut client, &asked, &expected);
        }
        node.stop();
    }
}

/// Many concurrent connections, each with its own keys, so that each request has one correct reply.
#[test]
fn connections_do_not_get_each_others_replies() {
    let node = Node::start(&["-t", "3", "-m", "256"]);
    std::thread::scope(|scope| {
        for id in 0..16_u64 {
            let node = &node;
            scope.spawn(move || {
                let (asked, expected) = conversation(3000, 200, id + 100);
                let own = |text: &str| text.replace(" k", &format!(" c{id}-k"));
                assert_conversation(&mut node.client(), &own(&asked), &own(&expected));
            });
        }
    });
    node.stop();
}

#[test]
fn a_multi_get_may_be_longer_than_any_buffer() {
    let node = Node::start(&["-t", "2", "-m", "64"]);
    let mut client = node.client();
    let keys: Vec<String> = (0..20_000).map(|n| format!("key-{n}")).collect();
    let sets: String = keys.iter().step_by(2).map(|k| format!("set {k} 0 0 {}\r\n{k}\r\n", k.len())).collect();
    let stored = "STORED\r\n".repeat(10_000);
    assert_conversation(&mut client, &sets, &stored);
    let expected: String = keys.iter().step_by(2).map(|k| format!("VALUE {k} 0 {}\r\n{k}\r\n", k.len())).collect();
    assert_conversation(&mut client, &format!("get {}\r\n", keys.join(" ")), &(expected + "END\r\n"));
    node.stop();
}

/// A deadlock: where siblings' values exceeded what a batch brings back at once, the connection's output waited for the
/// rest of the batch, and the rest of the batch for room in the output.
#[test]
fn a_multi_get_of_many_large_values_arrives() {
    let node = Node::start(&["-t", "2", "-m", "256"]);
    let mut clients: Vec<Client> = (0..2).map(|_| node.client()).collect();
    let value = "v".repeat(100_000);
    let keys: Vec<String> = (0..80).map(|n| format!("k{n}")).collect();
    keys.iter().for_each(|k| clients[0].set(k, value.as_bytes()));
    let found: String = keys.iter().map(|k| format!("VALUE {k} 0 100000\r\n{value}\r\n")).collect();
    for client in &mut clients {
        for count in [1, 2, 10] {
            let asked = format!("get {}\r\n", keys.join(" ")).repeat(count);
            assert_conversation(client, &asked, &format!("{found}END\r\n").repeat(count));
        }
    }
    node.stop();
}

/// Requests that follow large values must not be executed before the earlier requests of the pipeline.
#[test]
fn large_replies_do_not_change_the_order_of_execution() {
    let node = Node::start(&["-t", "2", "-m", "256"]);
    let mut clients: Vec<Client> = (0..2).map(|_| node.client()).collect();
    let value = vec![b'v'; 100_000];
    let keys: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
    keys.iter().for_each(|k| clients[0].set(k, &value));
    for n in 0..60 {
        let client = &mut clients[n % 2];
        let number = format!("{n:05}");
        client.send(format!("get {}\r\n", keys.join(" ")));
        for key in 0..4 {
            client.send(format!("set small{key} 0 0 5\r\n{number}\r\n"));
        }
        client.send("get small0 small1 small2 small3\r\n");
        for key in &keys {
            assert_eq!(client.line(), format!("VALUE {key} 0 100000"));
            assert!(client.bytes(100_000) == value);
            assert_eq!(client.line(), "");
        }
        assert_eq!(client.line(), "END");
        (0..4).for_each(|_| assert_eq!(client.line(), "STORED"));
        for key in 0..4 {
            assert_eq!((client.line(), client.line()), (format!("VALUE small{key} 0 5"), number.clone()));
        }
        assert_eq!(client.line(), "END");
    }
    node.stop();
}

#[test]
fn a_multi_get_over_all_shards_is_one_batch_per_sibling() {
    let node = Node::start(&["-t", "3", "-m", "64"]);
    let mut client = node.client();
    // Few enough that a new connection may have all of them on their way before it knows the replies' length.
    let keys: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
    keys.iter().for_each(|k| client.set(k, k.as_bytes()));
    // Reading them asks the siblings, too: what two readings cost is known from two of them with nothing in between.
    let read = |client: &mut Client| (client.stat("mesh_batches"), client.stat("mesh_requests"));
    let (first, before) = (read(&mut client), read(&mut client));
    let found: String = keys.iter().map(|k| format!("VALUE {k} 0 {}\r\n{k}\r\n", k.len())).collect();
    assert_conversation(&mut client, &format!("get {}\r\n", keys.join(" ")), &(found + "END\r\n"));
    let after = read(&mut client);
    let sent = (after.0 - before.0 - (before.0 - first.0), after.1 - before.1 - (before.1 - first.1));
    assert_eq!(sent.0, 2, "one to each sibling, for {} of the keys", sent.1);
    assert!((5..20).contains(&sent.1), "about two thirds of the keys are foreign");
    node.stop();
}

#[test]
fn five_thousand_idle_connections_cost_little_and_go_away() {
    // The node inherits this process's limit.
    let limit = pinion::sys::raise_file_limit(12_000).expect("getrlimit");
    assert!(limit >= 6000, "this test needs 6,000 open files; the hard limit is {limit}");
    let node = Node::start(&["-t", "2", "-m", "64"]);
    let mut active = node.client();
    active.set("k", b"v");
    let before = node.resident_bytes();
    let mut idle: Vec<Client> = (0..5000).map(|_| node.client()).collect();
    wait_until("5,001 connections", || active.stat("curr_connections") == 5001);
    assert_eq!(active.get("k"), Some(b"v".to_vec()));
    // Each connection has been used once, as those of real clients have.
    for client in &mut idle {
        client.send("get k\r\n");
    }
    for client in &mut idle {
        assert_eq!(client.bytes(20), b"VALUE k 0 1\r\nv\r\nEND\r\n"[..20]);
    }
    let per_connection = node.resident_bytes().saturating_sub(before) / 5000;
    assert!(per_connection <= 16 << 10, "{per_connection} bytes per idle connection");
    drop(idle);
    wait_until("one connection", || active.stat("curr_connections") == 1);
    node.stop();
}

#[test]
fn too_many_connections_are_refused_with_a_word() {
    let node = Node::start(&["-t", "2", "-c", "3", "-m", "64"]);
    let mut clients: Vec<Client> = (0..3).map(|_| node.client()).collect();
    clients.iter_mut().for_each(Client::sync);
    let mut refused = node.client();
    assert_eq!(refused.line(), "ERROR Too many open connections");
    assert!(refused.is_closed());
    clients.pop();
    wait_until("room for one more", || {
        let mut client = node.client();
        client.send("version\r\n");
        client.line().starts_with("VERSION")
    });
    assert!(clients[0].stat("rejected_connections") >= 1);
    node.stop();
}

/// The node must not buffer 200 MB of replies for a client that does not read them, nor delay other clients.
#[test]
fn a_slow_reader_is_waited_for_and_nobody_else() {
    for shards in ["1", "2"] {
        let node = Node::start(&["-t", shards, "-m", "64"]);
        let mut other = node.client();
        let value = vec![b'x'; 512 << 10];
        (0..4).for_each(|n| other.set(&format!("big{n}"), &value));
        let before = node.resident_bytes();
        let mut slow = node.client();
        slow.send("get big0 big1 big2 big3\r\n".repeat(100));
        slow.send("stats\r\n");
        for n in 0..1000 {
            other.set("k", format!("{n}").as_bytes());
            assert_eq!(other.get("k"), Some(format!("{n}").into_bytes()));
        }
        let grown = node.resident_bytes().saturating_sub(before);
        assert!(grown < 48 << 20, "{grown} bytes more for a client that does not read");
        for _ in 0..100 {
            for n in 0..4 {
                assert_eq!(slow.line(), format!("VALUE big{n} 0 524288"));
                assert!(slow.bytes(value.len()) == value);
                assert_eq!(slow.line(), "");
            }
            assert_eq!(slow.line(), "END");
        }
        while slow.line() != "END" {}
        slow.sync();
        node.stop();
    }
}

/// Requests that waited for room in a batch were added to the list of waiters again for each reply that arrived: a long
/// pipeline to one sibling took time that grew with the cube of its length.
#[test]
fn a_deep_pipeline_to_one_sibling_keeps_moving() {
    let node = Node::start(&["-t", "2", "-m", "64"]);
    let mut clients: Vec<Client> = (0..3).map(|_| node.client()).collect();
    for key in ["a", "b", "c", "d"] {
        clients[0].set(key, key.as_bytes());
    }
    std::thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(move || {
                for key in ["a", "b", "c", "d"] {
                    let expected = format!("VALUE {key} 0 1\r\n{key}\r\nEND\r\n").repeat(50_000);
                    assert_conversation(client, &format!("get {key}\r\n").repeat(50_000), &expected);
                }
            });
        }
    });
    node.stop();
}

/// A connection kept the buffer of a large value for as long as something followed the value in the same packet.
#[test]
fn memory_of_large_values_is_given_back() {
    let node = Node::start(&["-t", "2", "-m", "64"]);
    let mut other = node.client();
    let value = vec![b'x'; 1_000_000];
    other.set("k", &value);
    let mut clients: Vec<Client> = (0..100).map(|_| node.client()).collect();
    let before = node.resident_bytes();
    for client in &mut clients {
        client.send([b"set k 0 0 1000000\r\n", &value[..], b"\r\nge"].concat());
        assert_eq!(client.line(), "STORED");
    }
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 100 << 20, "{grown} bytes, of which the items may have 64 MiB");
    for client in &mut clients {
        client.send("t k\r\n");
        assert_eq!(client.line(), "VALUE k 0 1000000");
    }
    node.stop();
}

/// A stop resumed connections that were waiting: their new requests were executed until the stop's deadline.
#[test]
fn a_stop_answers_nothing_that_comes_after_it() {
    let node = Node::start(&["-t", "1", "-m", "64"]);
    let mut other = node.client();
    other.set("k", &[b'v'; 100_000]);
    let mut slow = node.client();
    slow.send("get k\r\n".repeat(300));
    wait_until("the node to wait for the client", || other.stat("conn_yields") > 0);
    node.terminate();
    assert!(other.is_closed());
    let mut replies = 0;
    let mut reply = vec![0; "VALUE k 0 100000\r\n\r\nEND\r\n".len() + 100_000];
    while std::io::Read::read_exact(&mut slow.stream, &mut reply).is_ok() {
        replies += 1;
        // A request after the stop, which must not be answered.
        let _ = std::io::Write::write(&mut slow.stream, b"get k\r\n");
    }
    assert_eq!(replies, 300, "all that was received, and no more");
    assert!(node.wait().success());
}

/// A client that floods the node with commands and does not read the replies.
#[test]
fn a_flood_without_reading_is_bounded() {
    let node = Node::start(&["-t", "2", "-m", "64"]);
    let mut other = node.client();
    other.set("k", &[b'v'; 1000]);
    let before = node.resident_bytes();
    let flood = node.client();
    flood.stream.set_nonblocking(true).expect("O_NONBLOCK");
    let requests = "get k\r\n".repeat(10_000);
    let (mut sent, begun) = (0, Instant::now());
    // Writes until the node has not read for a while.
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(30) {
        if let Ok(n) = std::io::Write::write(&mut &flood.stream, requests.as_bytes()) {
            sent += n;
            last = Instant::now();
        }
    }
    assert!(sent > 1 << 20, "the node reads at first");
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more for {sent} bytes of requests");
    assert_eq!(other.get("k").map(|v| v.len()), Some(1000));
    reset(flood.stream);
    node.stop();
}

#[test]
fn clients_that_are_killed_in_the_middle_leave_nothing_behind() {
    let node = Node::start(&["-t", "2", "-m", "64"]);
    let mut other = node.client();
    for n in 0..200 {
        let mut client = node.client();
        match n % 4 {
            // Within a large value: together, these values exceed the memory for collecting large values.
            0 => client.send([b"set k 0 0 1000000\r\n".to_vec(), vec![b'x'; 500_000]].concat()),
            1 => client.send("set k 0 0 100\r\nabc"),
            2 => client.send("get k k k k".repeat(50)),
            _ => client.send("get k\r\n".repeat(2000)),
        }
        if n % 8 < 4 {
            reset(client.stream);
        }
    }
    wait_until("one connection", || other.stat("curr_connections") == 1);
    other.set("k", &[b'y'; 1_000_000]);
    assert_eq!(other.get("k").map(|v| v.len()), Some(1_000_000));
    node.stop();
}

/// Forty values of 1 MB exceed the memory for collecting values: some wait, and all are stored in the end.
#[test]
fn large_values_in_flight_wait_for_each_other() {
    let node = Node::start(&["-t", "1", "-m", "256"]);
    let value: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
    let mut clients: Vec<Client> = (0..40).map(|_| node.client()).collect();
    let mut other = node.client();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(format!("set big{n} 0 0 {}\r\n", value.len()));
        client.send(&value[..20_000]);
        other.sync();
    }
    assert!(node.resident_bytes() < 200 << 20);
    for client in &mut clients {
        client.send(&value[20_000..]);
        client.send("\r\n");
        assert_eq!(client.line(), "STORED");
    }
    for n in 0..40 {
        assert!(other.get(&format!("big{n}")).as_ref() == Some(&value));
    }
    node.stop();
}

/// A client that stalls within a large value must not delay small commands, nor its own shard.
#[test]
fn a_half_sent_value_does_not_keep_small_ones_waiting() {
    let node = Node::start(&["-t", "1", "-m", "256"]);
    let mut stalled: Vec<Client> = (0..40).map(|_| node.client()).collect();
    for client in &mut stalled {
        client.send([b"set big 0 0 1000000\r\n".to_vec(), vec![0; 20_000]].concat());
    }
    let mut other = node.client();
    other.set("k", &[1; 10_000]);
    assert_eq!(other.get("k").map(|v| v.len()), Some(10_000));
    node.stop();
}

#[test]
fn a_client_that_only_closes_its_direction_gets_its_replies() {
    for shards in ["1", "2"] {
        let node = Node::start(&["-t", shards, "-m", "64"]);
        let mut client = node.client();
        let mut expected = String::new();
        for n in 0..500 {
            client.send(format!("set k{n} 0 0 1\r\nx\r\n"));
            expected += "STORED\r\n";
        }
        client.stream.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!(String::from_utf8_lossy(&client.bytes(expected.len())), expected);
        assert!(client.is_closed());
        node.stop();
    }
}

#[test]
fn quit_answers_what_came_before_and_nothing_after() {
    let node = Node::start(&["-t", "3", "-m", "64"]);
    let mut client = node.client();
    let sets: String = (0..100).map(|n| format!("set k{n} 0 0 1\r\nx\r\n")).collect();
    client.send(sets + "quit\r\nget k1\r\n");
    (0..100).for_each(|_| assert_eq!(client.line(), "STORED"));
    assert!(client.is_closed());
    node.stop();
}

fn connections(client: &mut Client) -> Vec<u64> {
    let stats = client.stats("shards");
    stats.iter().filter(|(n, _)| n.ends_with(":curr_connections")).map(|(_, v)| v.parse().expect("a number")).collect()
}

fn is_even(counts: &[u64]) -> bool {
    counts.iter().max().zip(counts.iter().min()).is_some_and(|(most, least)| most - least <= 1)
}

#[test]
fn connections_are_spread_evenly_and_stay_so() {
    let node = Node::start(&["-t", "3", "-m", "64"]);
    let mut clients: Vec<Client> = (0..10).map(|_| node.client()).collect();
    clients.iter_mut().for_each(Client::sync);
    let mut observer = clients.pop().expect("ten");
    wait_until("ten connections, spread evenly", || {
        let counts = connections(&mut observer);
        counts.iter().sum::<u64>() == 10 && is_even(&counts)
    });
    // Every third connection closes, which are most of one shard's.
    let mut kept: Vec<Client> = clients.into_iter().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, c)| c).collect();
    wait_until("seven connections, spread evenly", || {
        let counts = connections(&mut observer);
        counts.iter().sum::<u64>() == 7 && is_even(&counts)
    });
    assert!(observer.stat("moved_connections") <= 3);
    for (n, client) in kept.iter_mut().enumerate() {
        client.set(&format!("k{n}"), b"still served");
        assert_eq!(client.get(&format!("k{n}")), Some(b"still served".to_vec()));
    }
    node.stop();
}

/// Connections move between shards while they are used: no reply is lost, duplicated or reordered.
#[test]
fn a_moving_connection_loses_nothing() {
    let node = Node::start(&["-t", "2", "-m", "64"]);
    let mut observer = node.client();
    observer.sync();
    let (mut kept, mut others) = (Vec::new(), Vec::new());
    while kept.len() < 12 {
        let before = connections(&mut observer);
        let mut client = node.client();
        client.sync();
        // A connection that is being handed over is briefly counted by no shard.
        wait_until("the connection to be counted", || {
            connections(&mut observer).iter().sum::<u64>() > before.iter().sum()
        });
        let on_the_first = connections(&mut observer)[0] > before[0];
        if on_the_first { kept.push(client) } else { others.push(client) }
    }
    drop(others);
    let mut round = 0_u64;
    wait_until("an even spread", || {
        for (n, client) in kept.iter_mut().enumerate() {
            client.set(&format!("k{n}"), format!("{round}").as_bytes());
            assert_eq!(client.get(&format!("k{n}")), Some(format!("{round}").into_bytes()));
        }
        round += 1;
        let counts = connections(&mut observer);
        counts.iter().sum::<u64>() == 13 && is_even(&counts)
    });
    assert!(observer.stat("moved_connections") >= 5);
    node.stop();
}

#[test]
fn a_shards_own_port_keeps_its_connections() {
    // A range of ports that the kernel reports free. Another process may bind one in between, hence several tries.
    let free = || std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let base =
        (0..100).map(|_| free()).find(|&p| p < 65_000 && std::net::TcpListener::bind(("127.0.0.1", p + 1)).is_ok());
    let base = base.expect("two ports side by side");
    let node = Node::start(&["-t", "2", "-m", "64", "--shard-ports", &base.to_string()]);
    let mut pinned: Vec<Client> = (0..6).map(|_| Client::connect(([127, 0, 0, 1], base + 1).into())).collect();
    pinned.iter_mut().for_each(Client::sync);
    let mut observer = node.client();
    assert_eq!(connections(&mut observer), [1, 6]);
    pinned[0].set("k", b"v");
    assert_eq!(observer.get("k"), Some(b"v".to_vec()));
    node.stop();
}

#[test]
fn a_ttl_ends_on_time_and_never_early() {
    let node = Node::start(&["-t", "2", "-m", "64"]);
    let mut client = node.client();
    let begun = Instant::now();
    for n in 0..20 {
        client.send(format!("set short{n} 0 1 1\r\nx\r\nset long{n} 0 3600 1\r\nx\r\n"));
        assert_eq!((client.line(), client.line()), ("STORED".into(), "STORED".into()));
    }
    wait_until("the first to expire", || {
        // The clock is read after the reply: for a miss, a second must have passed by then.
        let miss = client.get("short0").is_none();
        assert!(!miss || begun.elapsed() >= Duration::from_secs(1), "expired early");
        miss
    });
    wait_until("all to expire", || (0..20).all(|n| client.get(&format!("short{n}")).is_none()));
    assert!((0..20).all(|n| client.get(&format!("long{n}")).is_some()));
    assert_eq!(client.stat("reclaimed"), 20);
    assert_eq!(client.ask("touch long0 1"), "TOUCHED");
    wait_until("a touched item to expire", || client.get("long0").is_none());
    node.stop();
}

#[test]
fn a_delayed_flush_takes_all_that_is_there_when_it_is_due() {
    let node = Node::start(&["-t", "2", "-m", "64"]);
    let mut client = node.client();
    (0..20).for_each(|n| client.set(&format!("k{n}"), b"x"));
    assert_eq!(client.ask("flush_all 1"), "OK");
    client.set("late", b"x");
    assert_eq!(client.get("k0"), Some(b"x".to_vec()));
    wait_until("the flush", || (0..20).all(|n| client.get(&format!("k{n}")).is_none()));
    assert_eq!(client.get("late"), None);
    assert_eq!(client.stat("curr_items"), 0);
    client.set("after", b"x");
    assert_eq!(client.get("after"), Some(b"x".to_vec()));
    node.stop();
}

/// Ten times as much data as fits: no error, bounded memory, most of it used, the newest items kept.
#[test]
fn memory_is_bounded_and_used_however_much_is_written() {
    // First in, first out: so the items that must remain at the end are known.
    let node = Node::start(&["-t", "2", "-m", "16", "--eviction", "fifo"]);
    let mut client = node.client();
    let limit = client.stat("limit_maxbytes");
    assert_eq!(limit, 16 << 20);
    let keys = 10 * limit / 48;
    for first in (0..keys).step_by(5000) {
        let mut sets = String::new();
        for n in first..keys.min(first + 5000) {
            write!(sets, "set memtier-{n:08} 0 0 32\r\n{n:032}\r\n").expect("a string");
        }
        let count = keys.min(first + 5000) - first;
        assert_conversation(&mut client, &sets, &"STORED\r\n".repeat(count as usize));
    }
    assert!(client.stat("evictions") > 0);
    let (bytes, user) = (client.stat("bytes"), client.stat("user_bytes"));
    assert!(bytes <= limit && user >= limit * 6 / 10, "{user} of {limit} bytes are the user's");
    let newest = keys - limit / 2 / 48..keys;
    let gets: String = newest.clone().map(|n| format!("get memtier-{n:08}\r\n")).collect();
    let hits: String = newest.map(|n| format!("VALUE memtier-{n:08} 0 32\r\n{n:032}\r\nEND\r\n")).collect();
    assert_conversation(&mut client, &gets, &hits);
    let resident = node.resident_bytes();
    assert!(resident <= limit + (64 << 20) + 2 * (32 << 20), "{resident}");
    node.stop();
}

#[test]
fn mixed_sizes_never_fail() {
    let node = Node::start(&["-t", "2", "-m", "16"]);
    let mut client = node.client();
    let mut random = Random(7);
    for n in 0..3000 {
        let bytes = 1 << random.below(20);
        client.set(&format!("k{}", random.below(500)), &vec![n as u8; bytes as usize]);
    }
    assert!(client.stat("bytes") <= 16 << 20);
    assert!(client.stat("evictions") > 0);
    node.stop();
}

#[test]
fn statistics_add_up_over_shards() {
    let node = Node::start(&["-t", "3", "-m", "64"]);
    let mut client = node.client();
    (0..100).for_each(|n| client.set(&format!("k{n}"), b"0"));
    (0..150).for_each(|n| _ = client.get(&format!("k{n}")));
    assert_eq!(client.ask("incr k1 1"), "1");
    assert_eq!(client.ask("delete k2"), "DELETED");
    let mut stat = |name| client.stat(name);
    assert_eq!((stat("cmd_set"), stat("cmd_get"), stat("get_hits"), stat("get_misses")), (100, 150, 100, 50));
    assert_eq!((stat("curr_items"), stat("incr_hits"), stat("delete_hits"), stat("threads")), (99, 1, 1, 3));
    assert!(stat("bytes_read") > 0 && stat("bytes_written") > 0 && stat("mesh_requests") > 0);
    // In one pipeline: the counters include all earlier requests.
    let sets: String = (0..200).map(|n| format!("set p{n} 0 0 1\r\nx\r\n")).collect();
    client.send(sets + "stats\r\n");
    (0..200).for_each(|_| assert_eq!(client.line(), "STORED"));
    let mut counted = String::new();
    while counted != "END" {
        counted = client.line();
        assert!(!counted.starts_with("STAT cmd_set ") || counted == "STAT cmd_set 300", "{counted}");
    }
    assert_eq!(client.ask("stats reset"), "RESET");
    assert_eq!((client.stat("cmd_set"), client.stat("curr_items")), (0, 299));
    node.stop();
}

#[test]
fn a_stop_answers_what_was_received() {
    for shards in ["1", "3"] {
        let node = Node::start(&["-t", shards, "-m", "64"]);
        let mut clients: Vec<Client> = (0..8).map(|_| node.client()).collect();
        clients.iter_mut().for_each(Client::sync);
        let sets: String = (0..500).map(|n| format!("set k{n} 0 0 1\r\nx\r\n")).collect();
        for client in &mut clients {
            client.send(&sets);
        }
        let begun = Instant::now();
        node.terminate();
        for client in &mut clients {
            (0..500).for_each(|n| assert_eq!(client.line(), "STORED", "{n}"));
            assert!(client.is_closed());
        }
        assert!(node.wait().success());
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_stop_does_not_wait_for_ever_for_a_client() {
    let node = Node::start(&["-t", "2", "-m", "64"]);
    let mut idle = node.client();
    idle.set("big", &vec![b'x'; 1 << 20]);
    let mut slow = node.client();
    slow.send("get big\r\n".repeat(100));
    let mut half = node.client();
    half.send("set k 0 0 100\r\nabc");
    idle.sync();
    let begun = Instant::now();
    node.terminate();
    assert!(node.wait().success());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// SIGINT, which Ctrl-C sends.
#[test]
fn an_interrupt_stops_as_well() {
    let node = Node::start(&["-t", "1", "-m", "64"]);
    // SAFETY: the call takes no pointers; the process is our child and has not been waited for yet.
    unsafe { libc::kill(node.pid() as i32, libc::SIGINT) };
    assert!(node.wait().success());
}

/// An idle node does not poll: its turns are those of its timer, one per second and shard. (Its CPU time is measured,
/// not tested: docs/benchmarks.md.)
#[test]
fn an_idle_node_sleeps() {
    let node = Node::start(&["-t", "2", "-m", "64"]);
    let mut clients: Vec<Client> = (0..20).map(|_| node.client()).collect();
    clients.iter_mut().for_each(Client::sync);
    wait_until("no connection to move", || is_even(&connections(&mut clients[0])));
    let before = clients[0].stat("turns");
    clients[1].stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
    let nothing = std::io::Read::read(&mut clients[1].stream, &mut [0]).expect_err("nothing arrives");
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    let turned = clients[0].stat("turns") - before;
    assert!((1..30).contains(&turned), "{turned} turns in three idle seconds");
    node.stop();
}

/// Connects a client to the RESP port.
fn resp_client(node: &Node) -> Client {
    let log = node.log();
    let address = log.iter().filter(|line| line.contains("resp")).find_map(|line| {
        let (_, rest) = line.split_once("address=")?;
        rest.split_whitespace().next()?.parse().ok()
    });
    Client::connect(address.expect("a RESP port"))
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let word = |word: &&[u8]| [format!("${}\r\n", word.len()).as_bytes(), word, b"\r\n"].concat();
    [format!("*{}\r\n", words.len()).into_bytes(), words.iter().flat_map(word).collect()].concat()
}

/// An upload under a key too long to be stored stopped the shard that owned the key.
#[test]
fn a_long_value_under_a_key_that_is_too_long() {
    let node = Node::start(&["--shards", "2", "--memory", "64"]);
    let mut client = resp_client(&node);
    for n in 0..8 {
        let (key, value) = (format!("{n}").repeat(5000), vec![b'v'; 20_000]);
        client.send(command(&[b"SET", key.as_bytes(), &value]));
        assert_eq!(client.line(), "-ERR the key is longer than 3900 bytes");
    }
    node.stop();
}

/// Elements of an MGET whose reply was suppressed were long values: their readers were never closed, and those of
/// siblings were sent.
#[test]
fn long_values_that_nobody_wants() {
    let node = Node::start(&["--shards", "2", "--memory", "64"]);
    let mut client = resp_client(&node);
    let keys: Vec<String> = (0..8).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        client.send(command(&[b"SET", key.as_bytes(), &vec![b'v'; 200_000]]));
        assert_eq!(client.line(), "+OK");
    }
    client.send(command(&[b"CLIENT", b"REPLY", b"OFF"]));
    client.send(command(&[&[&b"MGET"[..]], &keys.iter().map(String::as_bytes).collect::<Vec<_>>()[..]].concat()));
    client.send(command(&[b"CLIENT", b"REPLY", b"ON"]));
    client.send(command(&[b"PING"]));
    assert_eq!([client.line(), client.line()], ["+OK", "+PONG"]);
    node.stop();
}

/// MGET of one key was not split, and replied with the value alone instead of an array.
#[test]
fn mget_of_one_key_is_an_array() {
    let node = Node::start(&["--shards", "2", "--memory", "64"]);
    let mut client = resp_client(&node);
    for key in [&b"a"[..], b"b", b"c"] {
        client.send([command(&[b"SET", key, b"v"]), command(&[b"MGET", key]), command(&[b"MGET", b"none"])].concat());
        let lines: Vec<String> = (0..6).map(|_| client.line()).collect();
        assert_eq!(lines, ["+OK", "*1", "$1", "v", "*1", "$-1"]);
    }
    node.stop();
}

/// Input that followed QUIT in the same packet was executed and answered.
#[test]
fn nothing_counts_after_quit() {
    let node = Node::start(&["--shards", "2", "--memory", "64"]);
    let (mut client, mut other) = (resp_client(&node), resp_client(&node));
    client.send([command(&[b"QUIT"]), command(&[b"SET", b"key", b"value"]), b"PING\r\n".to_vec()].concat());
    assert_eq!(client.line(), "+OK");
    assert!(client.is_closed());
    other.send(command(&[b"GET", b"key"]));
    assert_eq!(other.line(), "$-1");
    node.stop();
}

/// memcached's binary protocol, TLS and HTTP: clients waited for an answer until their timeout, or had what followed
/// executed.
#[test]
fn clients_of_other_protocols_are_closed_counted_and_named_in_the_log() {
    let node = Node::start(&["-t", "2", "-m", "64"]);
    let mut client = node.client();
    let noop = [&[0x80, 0x0a][..], &[0; 22]].concat();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\nset tls 0 0 1\r\nx\r\n".to_vec();
    let posted = b"POST / with many words in one line HTTP/1.1\r\nset http 0 0 1\r\nx\r\n".to_vec();
    for bytes in [&noop[..1], &noop[..], &hello[..], &posted[..]] {
        let mut other = node.client();
        other.send(bytes);
        assert!(other.is_closed(), "{bytes:?}");
    }
    // After a command of the text protocol too; it is answered.
    let mut other = node.client();
    other.send([&b"get none\r\n"[..], &noop].concat());
    assert_eq!(other.line(), "END");
    assert!(other.is_closed());
    assert_eq!((client.get("tls"), client.get("http")), (None, None));
    assert_eq!(client.stat("wrong_protocol_connections"), 5);
    let lines =
        || node.log().iter().filter(|line| line.contains("protocol is not served")).cloned().collect::<Vec<_>>();
    wait_until("the log", || !lines().is_empty());
    assert!(lines().len() <= 2 && lines()[0].contains("client=\"127.0.0.1:"), "one per shard: {:?}", lines());
    node.stop();
}

/// The time until the kernel probes the peer of the node's end of a connection, in seconds; None if it will not.
fn keepalive_seconds(client: &Client) -> Option<u64> {
    let (own, peer) = (client.stream.peer_addr().expect("connected"), client.stream.local_addr().expect("connected"));
    let ends = [own, peer].map(|address| format!(":{:04X}", address.port()));
    loop {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row[1].ends_with(&ends[0]) && row[2].ends_with(&ends[1])).expect("a row");
        let (timer, when) = row[5].split_once(':').expect("a timer");
        match timer {
            "00" => return None,
            // Keep-alive's timer; its time is in hundredths of a second.
            "02" => return Some(u64::from_str_radix(when, 16).expect("a number").div_ceil(100)),
            // Bytes that the peer has not acknowledged yet.
            _ => std::thread::yield_now(),
        }
    }
}

/// CONFIG GET said 300 seconds; it was the kernel's two hours.
#[test]
fn keepalive_is_what_the_setting_says() {
    for (arguments, at_first) in [(&[][..], 299..=300), (&["--tcp-keepalive", "60"][..], 59..=60)] {
        let node = Node::start(&[&["-t", "1", "-m", "64"], arguments].concat());
        let mut client = node.client();
        client.sync();
        assert!(keepalive_seconds(&client).is_some_and(|seconds| at_first.contains(&seconds)), "{arguments:?}");
        let mut resp = Client::connect(node.resp_address);
        let most = at_first.end().to_string();
        assert_eq!(resp.ask("CONFIG GET tcp-keepalive"), "*2");
        let lines = [resp.line(), resp.line(), resp.line(), resp.line()];
        assert_eq!((lines[1].as_str(), &lines[3]), ("tcp-keepalive", &most));
        for (seconds, shown) in [("20", Some(19..=20)), ("0", None)] {
            assert_eq!(resp.ask(&format!("CONFIG SET tcp-keepalive {seconds}")), "+OK");
            let mut later = node.client();
            later.sync();
            match (keepalive_seconds(&later), shown) {
                (None, None) => {}
                (Some(seconds), Some(shown)) => assert!(shown.contains(&seconds), "{seconds}"),
                (found, _) => panic!("{found:?} after CONFIG SET {seconds}"),
            }
        }
        assert!(resp.ask("CONFIG SET tcp-keepalive 40000").starts_with("-ERR CONFIG SET failed"));
        node.stop();
    }
}

/// memcached's own test library asks for them, and waited for an answer.
#[test]
fn stats_conns_shows_the_connections_of_all_shards() {
    let node = Node::start(&["-t", "2", "-m", "64"]);
    let mut clients: Vec<Client> = (0..6).map(|_| node.client()).collect();
    clients.iter_mut().for_each(Client::sync);
    let stats = clients[0].stats("conns");
    let mut numbers: Vec<&str> = stats.iter().filter_map(|(name, _)| name.strip_suffix(":addr")).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 6, "{stats:?}");
    for client in &clients {
        let address = format!("tcp:{}", client.stream.local_addr().expect("connected"));
        assert!(stats.iter().any(|(_, value)| *value == address), "{address} in {stats:?}");
    }
    assert_eq!(stats.iter().filter(|(name, value)| name.ends_with(":state") && value == "conn_read").count(), 5);
    node.stop();
}

#[test]
fn lookups_of_expired_items_are_counted() {
    let node = Node::start(&["-t", "1", "-m", "64"]);
    let mut client = node.client();
    client.send("set short 0 -1 1\r\nx\r\n");
    assert_eq!(client.line(), "STORED");
    assert_eq!((client.get("short"), client.get("short"), client.get("never")), (None, None, None));
    assert_eq!((client.stat("get_expired"), client.stat("get_flushed"), client.stat("get_misses")), (1, 0, 3));
    node.stop();
}

/// A wrong password was neither counted nor logged, and 195,000 could be tried in a second.
#[test]
fn guessing_a_password_is_slow_counted_and_logged() {
    let node = Node::start(&["-t", "1", "-m", "64", "--requirepass", "secret"]);
    let mut guesser = resp_client(&node);
    let begun = Instant::now();
    for _ in 0..3 {
        assert!(guesser.ask("AUTH wrong").starts_with("-WRONGPASS"));
    }
    assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
    // Neither others nor those who know it wait, and nothing is lost that was sent behind a wrong one.
    let mut other = resp_client(&node);
    let begun = Instant::now();
    assert_eq!(other.ask("AUTH secret"), "+OK");
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    guesser.send("HELLO 3 AUTH default wrong\r\nAUTH secret\r\nPING\r\n");
    assert!(guesser.line().starts_with("-WRONGPASS"));
    assert_eq!((guesser.line(), guesser.line()), ("+OK".into(), "+PONG".into()));
    let mut client = node.client();
    assert_eq!((client.stat("auth_errors"), client.stat("auth_cmds")), (4, 6));
    wait_until("the log", || node.log().iter().any(|line| line.contains("wrong password") && line.contains("client=")));
    // A password that no client could give, since commands of clients that have not authenticated are bounded.
    let long = "x".repeat(513);
    assert!(other.ask(&format!("CONFIG SET requirepass {long}")).starts_with("-ERR CONFIG SET failed"));
    assert_eq!(other.ask(&format!("CONFIG SET requirepass {}", &long[1..])), "+OK");
    assert_eq!(resp_client(&node).ask(&format!("AUTH {}", &long[1..])), "+OK");
    node.stop();
}

/// A client that sends a long pipeline before it reads waited for ever, for replies that the node did not send because
/// the client took none.
#[test]
fn a_pipeline_that_is_sent_before_any_reply_is_read_is_executed() {
    const COUNT: usize = 30_000;
    let node = Node::start(&["-t", "1", "-m", "64"]);
    let mut client = Client::connect(node.resp_address);
    // More than both sockets take: 30 MiB.
    let text = "e".repeat(1000);
    client.send(format!("*2\r\n$4\r\nECHO\r\n$1000\r\n{text}\r\n").repeat(COUNT));
    for _ in 0..COUNT {
        assert_eq!(client.line(), "$1000");
        assert_eq!(client.line(), text);
    }
    assert_eq!(node.client().stat("evicted_clients"), 0);
    node.stop();
}

/// Replies that are not read were kept without bound: a hundred of 15 MiB took a gigabyte. Now the clients that hold
/// most are disconnected, and others do not notice.
#[test]
fn clients_that_hold_more_than_client_memory_are_disconnected() {
    let node = Node::start(&["-t", "1", "-m", "64", "--client-memory", "16m"]);
    let mut other = Client::connect(node.resp_address);
    let field = "f".repeat(4 << 20);
    other.send(format!("*4\r\n$4\r\nHSET\r\n$1\r\nh\r\n$1\r\nf\r\n${}\r\n{field}\r\n", field.len()));
    assert_eq!(other.line(), ":1");
    let mut unread: Vec<Client> = (0..20).map(|_| Client::connect(node.resp_address)).collect();
    unread.iter_mut().for_each(|client| client.send("*3\r\n$4\r\nHGET\r\n$1\r\nh\r\n$1\r\nf\r\n".repeat(4)));
    let mut text = node.client();
    wait_until("a client is disconnected", || text.stat("evicted_clients") > 0);
    assert_eq!(other.ask("PING"), "+PONG");
    drop(unread);
    // A reply that is longer than all of it is made as its client takes it.
    other.send(format!("*22\r\n$5\r\nHMGET\r\n$1\r\nh\r\n{}", "$1\r\nf\r\n".repeat(20)));
    assert_eq!(other.line(), "*20");
    for _ in 0..20 {
        assert_eq!(other.line(), format!("${}", field.len()));
        assert!(other.bytes(field.len() + 2).starts_with(b"fff"));
    }
    assert_eq!(other.ask("PING"), "+PONG");
    node.stop();
}
