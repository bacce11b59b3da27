//! Long commands over the wire: executed in slices, so that others are served in between, and atomic all the same.

mod common;

use common::{Client, Node};

const MANY: usize = 100_000;

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A command on `many` members `m0`, `m1`, …, each behind what `before` returns for it.
fn many(verb: &str, key: &str, many: usize, before: impl Fn(usize) -> Option<String>) -> Vec<u8> {
    let mut words = vec![verb.to_owned(), key.to_owned()];
    for n in 0..many {
        words.extend(before(n));
        words.push(format!("m{n}"));
    }
    command(&words.iter().map(String::as_bytes).collect::<Vec<_>>())
}

/// Reads the reply to a command that returns strings.
fn strings(client: &mut Client) -> Vec<Vec<u8>> {
    let head = client.line();
    let count = head.trim_start_matches(['*', '~', '%']).parse().unwrap_or_else(|_| panic!("{head}"));
    (0..count).map(|_| string(client)).collect()
}

fn string(client: &mut Client) -> Vec<u8> {
    let head = client.line();
    let length = head.trim_start_matches('$').parse().unwrap_or_else(|_| panic!("{head}"));
    let bytes = client.bytes(length);
    assert_eq!(client.line(), "");
    bytes
}

/// SADD of millions of members, and others like it, held their shard for seconds.
#[test]
fn others_are_served_between_the_slices_of_a_long_command() {
    let node = Node::start(&["-t", "1", "-m", "256"]);
    let (mut long, mut other) = (Client::connect(node.resp_address), Client::connect(node.resp_address));
    other.ask("SET other v");
    for (message, reply) in [
        (many("SADD", "set", MANY, |_| None), format!(":{MANY}")),
        (many("SREM", "set", MANY, |_| None), format!(":{MANY}")),
        (many("ZADD", "sorted", MANY, |n| Some(n.to_string())), format!(":{MANY}")),
        (many("HSET", "hash", MANY / 2, |n| Some(format!("f{n}"))), format!(":{}", MANY / 2)),
        (command(&[b"SETRANGE", b"bits", b"100000000", b"\xff"]), ":100000001".into()),
        (command(&[b"BITCOUNT", b"bits"]), ":8".into()),
        (command(&[b"BITPOS", b"bits", b"1"]), ":800000000".into()),
    ] {
        long.send(&message);
        let mut served = 0;
        while !long.has_received() {
            // Once the whole command is there, the only thing that this client could wait for is the command.
            other.send("*2\r\n$3\r\nGET\r\n$5\r\nother\r\n");
            assert_eq!(string(&mut other), b"v");
            served += 1;
        }
        assert_eq!(long.line(), reply);
        let name = String::from_utf8_lossy(&message[4..20]).replace("\r\n", " ");
        assert!(served >= 10, "{served} requests were served during {name}");
    }
    node.stop();
}

/// What another client sees of a long command is all of it or nothing, whatever shards the two are on; and its own next
/// commands come after it.
#[test]
fn a_long_command_is_atomic_and_in_order() {
    for shards in ["1", "3"] {
        let node = Node::start(&["-t", shards, "-m", "256"]);
        let (mut long, mut other) = (Client::connect(node.resp_address), Client::connect(node.resp_address));
        for round in 0..20 {
            let key = format!("set{round}");
            let add = many("SADD", &key, 5000, |_| None);
            long.send(
                [&add, format!("SCARD {key}\r\nSPOP {key} 4000\r\nSCARD {key}\r\nDBSIZE\r\n").as_bytes()].concat(),
            );
            loop {
                let seen_now: usize = other.ask(&format!("SCARD {key}"))[1..].parse().expect("a number");
                assert!([0, 1000, 5000].contains(&seen_now), "{seen_now} of 5000");
                if seen_now == 1000 {
                    break;
                }
            }
            assert_eq!([long.line(), long.line()], [":5000", ":5000"]);
            assert_eq!(strings(&mut long).len(), 4000);
            assert_eq!([long.line(), long.line()], [":1000".to_owned(), format!(":{}", round + 1)]);
        }
        // A flush comes before a long command or after it.
        let add = many("SADD", "flushed", 5000, |_| None);
        for _ in 0..20 {
            long.send(&add);
            assert_eq!(other.ask("FLUSHALL"), "+OK");
            assert_eq!(long.line(), ":5000");
            assert!([":0", ":5000"].contains(&other.ask("SCARD flushed").as_str()));
            other.ask("DEL flushed");
        }
        node.stop();
    }
}

/// Replies of many elements go out as they are made.
#[test]
fn long_replies_are_whole() {
    for shards in ["1", "3"] {
        let node = Node::start(&["-t", shards, "-m", "512", "--client-memory", "256m"]);
        let mut client = Client::connect(node.resp_address);
        client.send(many("SADD", "set", MANY, |_| None));
        client.send(many("RPUSH", "list", MANY, |_| None));
        client.send(many("ZADD", "sorted", MANY, |n| Some(n.to_string())));
        client.send(many("HSET", "hash", MANY, |n| Some(format!("f{n}"))));
        assert_eq!([(); 4].map(|()| client.line()), [(); 4].map(|()| format!(":{MANY}")));
        let members: Vec<Vec<u8>> = (0..MANY).map(|n| format!("m{n}").into_bytes()).collect();
        for ordered in ["LRANGE list 0 -1", "ZRANGE sorted 0 -1"] {
            client.send(format!("{ordered}\r\n"));
            assert!(strings(&mut client) == members, "{ordered}");
        }
        let mut sorted = members.clone();
        sorted.sort_unstable();
        for unordered in ["SMEMBERS set", "HVALS hash", "SRANDMEMBER set 1000000", "HRANDFIELD hash 100000"] {
            client.send(format!("{unordered}\r\nPING\r\n"));
            let mut found = strings(&mut client);
            found.sort_unstable();
            match unordered.starts_with("HRANDFIELD") {
                true => assert_eq!(found.len(), MANY),
                false => assert!(found == sorted, "{unordered}"),
            }
            assert_eq!(client.line(), "+PONG");
        }
        for key in ["set", "list", "sorted", "hash"] {
            client.send(format!("DUMP {key}\r\n"));
            let payload = string(&mut client);
            client.send(command(&[b"RESTORE", format!("{key}2").as_bytes(), b"0", &payload]));
            assert_eq!(client.line(), "+OK", "{key}");
            client.send(format!("DUMP {key}2\r\n"));
            assert_eq!(string(&mut client).len(), payload.len(), "{key}");
        }
        for (popped, left) in [("LPOP list 60000", "LLEN list"), ("ZPOPMIN sorted 60000", "ZCARD sorted")] {
            client.send(format!("{popped}\r\n{left}\r\n"));
            assert_eq!(strings(&mut client).len(), if left.starts_with('Z') { 120_000 } else { 60_000 });
            assert_eq!(client.line(), ":40000");
        }
        assert_eq!(client.ask("ZREMRANGEBYRANK sorted 10 -11"), ":39980");
        assert_eq!(client.ask("ZCARD sorted"), ":20");
        // One that has gone is not waited for, and holds nothing.
        let mut gone = Client::connect(node.resp_address);
        gone.send("SMEMBERS set\r\n");
        drop(gone);
        assert_eq!(client.ask("SCARD set"), format!(":{MANY}"));
        node.stop();
    }
}
