//! Long values over the wire: streamed in and out, across shards, without delaying other clients or leaking memory.

mod common;

use common::{Client, Node, wait_until};
use std::io::Write;

const MIB: usize = 1 << 20;

/// Bytes that differ from position to position and from seed to seed.
fn value(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| (i / 7 + i / 4099 + seed) as u8).collect()
}

fn set_command(key: &str, value: &[u8]) -> Vec<u8> {
    [format!("set {key} 0 0 {}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
}

/// Receives the reply of one hit.
fn expect_value(client: &mut Client, key: &str, value: &[u8]) {
    assert_eq!(client.line(), format!("VALUE {key} 0 {}", value.len()));
    assert!(client.bytes(value.len()) == value, "{key}");
    assert_eq!((client.line(), client.line()), (String::new(), "END".into()));
}

#[test]
fn of_any_length_on_any_shard_and_without_a_copy() {
    for shards in ["1", "3"] {
        let node = Node::start(&["-t", shards, "-m", "600", "-I", "90m"]);
        let mut client = node.client();
        let before = node.resident_bytes();
        for (n, length) in [16 << 10, (16 << 10) + 1, 65_535, 65_536, 65_537, MIB, 40 * MIB].into_iter().enumerate() {
            for key in ["a", "b", "c", "d"] {
                let value = value(n, length);
                client.send(set_command(key, &value));
                assert_eq!(client.line(), "STORED");
                client.send(format!("get {key}\r\n"));
                expect_value(&mut client, key, &value);
            }
        }
        let grown = node.resident_bytes().saturating_sub(before);
        // A copy of one value would add 40 MiB. Buffers take less: batches between three shards come to about 20 MiB.
        assert!(grown < 190 << 20, "{grown} bytes for four values of 40 MiB");
        node.stop();
    }
}

/// Replies are in the order of requests, whether values are long or short, wherever their keys are.
#[test]
fn pipelines_of_long_and_short_values() {
    for shards in ["1", "2", "5"] {
        let node = Node::start(&["-t", shards, "-m", "256"]);
        let mut client = node.client();
        let long: Vec<Vec<u8>> = (0..8).map(|n| value(n, 20_000 << n.min(4))).collect();
        let mut asked = Vec::new();
        for (n, value) in long.iter().enumerate() {
            asked.extend(set_command(&format!("long{n}"), value));
            asked.extend(format!("set short{n} 0 0 1\r\n{n}\r\n").bytes());
        }
        for n in 0..8 {
            asked.extend(format!("get short{n} long{n}\r\nappend long{n} 0 0 20000\r\n").bytes());
            asked.extend(&value(9, 20_000));
            asked.extend(format!("\r\nget long{n}\r\nprepend short{n} 0 0 17000\r\n").bytes());
            asked.extend(&value(5, 17_000));
            asked.extend(format!("\r\nget short{n}\r\ndelete long{n}\r\nget long{n}\r\n").bytes());
        }
        let mut writer = client.stream.try_clone().expect("a second handle");
        std::thread::scope(|scope| {
            scope.spawn(move || writer.write_all(&asked).expect("send"));
            (0..16).for_each(|_| assert_eq!(client.line(), "STORED"));
            for (n, long) in long.iter().enumerate() {
                assert_eq!(client.line(), format!("VALUE short{n} 0 1"));
                assert_eq!(client.line(), n.to_string());
                expect_value(&mut client, &format!("long{n}"), long);
                assert_eq!(client.line(), "STORED");
                expect_value(&mut client, &format!("long{n}"), &[&long[..], &value(9, 20_000)].concat());
                assert_eq!(client.line(), "STORED");
                let short = [&value(5, 17_000)[..], n.to_string().as_bytes()].concat();
                expect_value(&mut client, &format!("short{n}"), &short);
                assert_eq!((client.line(), client.line()), ("DELETED".into(), "END".into()));
            }
        });
        node.stop();
    }
}

/// A reader receives the whole value, whatever happens to the key meanwhile; the memory is freed afterwards.
#[test]
fn a_value_that_is_being_read_stays_as_it_was() {
    for shards in ["1", "2"] {
        let node = Node::start(&["-t", shards, "-m", "128", "-I", "20m"]);
        let mut other = node.client();
        for key in ["a", "b", "c"] {
            let old = value(1, 20 * MIB);
            other.set(key, &old);
            let mut slow = node.client();
            slow.send(format!("get {key}\r\n"));
            assert_eq!(slow.line(), format!("VALUE {key} 0 {}", old.len()));
            other.set(key, b"new");
            assert_eq!(other.get(key), Some(b"new".to_vec()));
            (0..2000).for_each(|n| other.set(&format!("more{n}"), &value(n, 40_000)));
            assert!(slow.bytes(old.len()) == old);
            assert_eq!((slow.line(), slow.line()), (String::new(), "END".into()));
        }
        other.send("flush_all\r\n");
        assert_eq!(other.line(), "OK");
        wait_until("the memory to come back", || other.stat("held_bytes") < 4 << 20);
        node.stop();
    }
}

/// Each piece evicts hundreds of small items, so it is stored over several turns; a client with small requests is not
/// delayed by that.
#[test]
fn over_small_items_a_long_value_comes_in_steps() {
    for shards in ["1", "3"] {
        let node = Node::start(&["-t", shards, "-m", "16"]);
        let mut other = node.client();
        for from in (0..500_000).step_by(50_000) {
            let sets: Vec<String> =
                (from..from + 50_000).map(|n| format!("set {n} 0 0 16 noreply\r\nsixteen bytes...\r\n")).collect();
            other.send(sets.concat());
            other.sync();
        }
        let before = other.stat("evictions");
        assert!(before > 0);
        let mut clients: Vec<Client> = (0..4).map(|_| node.client()).collect();
        for round in 0..3 {
            let values: Vec<Vec<u8>> = (0..4).map(|n| value(n + round, 700_000)).collect();
            for ((n, client), value) in clients.iter_mut().enumerate().zip(&values) {
                let mut stream = client.stream.try_clone().expect("a second handle");
                let command =
                    [set_command(&format!("long{n}"), value), format!("get long{n}\r\n").into_bytes()].concat();
                std::thread::spawn(move || stream.write_all(&command).expect("send"));
            }
            other.set("short", b"1");
            assert_eq!(other.get("short"), Some(b"1".to_vec()));
            for ((n, client), value) in clients.iter_mut().enumerate().zip(&values) {
                assert_eq!(client.line(), "STORED");
                expect_value(client, &format!("long{n}"), value);
            }
        }
        assert!(other.stat("evictions") > before + 20_000);
        node.stop();
    }
}

/// An upload that its client aborts leaves no item, and keeps the key's old value.
#[test]
fn a_broken_upload_leaves_nothing() {
    for shards in ["1", "2"] {
        let node = Node::start(&["-t", shards, "-m", "128", "-I", "30m"]);
        let mut other = node.client();
        for key in ["a", "b", "c"] {
            other.set(key, b"old");
            let mut client = node.client();
            client.send(&set_command(key, &value(1, 20 * MIB))[..19 * MIB]);
            wait_until("the upload to arrive", || other.stat("held_bytes") > 18 << 20);
            assert_eq!(other.get(key), Some(b"old".to_vec()));
            drop(client);
            wait_until("its memory to come back", || other.stat("held_bytes") < 2 << 20);
            assert_eq!(other.get(key), Some(b"old".to_vec()));
            // The value is not followed by a line end.
            let mut client = node.client();
            let mut command = set_command(key, &value(1, MIB));
            let end = command.len() - 2;
            command[end..].copy_from_slice(b"xx");
            client.send(command);
            assert_eq!(client.line(), "CLIENT_ERROR bad data chunk");
            client.sync();
            assert_eq!(other.get(key), Some(b"old".to_vec()));
            // The condition does not hold.
            client.send([b"add ", &set_command(key, &value(1, MIB))[4..]].concat());
            assert_eq!(client.line(), "NOT_STORED");
            client.send([b"cas ", format!("{key} 0 0 {MIB} 999999\r\n").as_bytes(), &value(1, MIB), b"\r\n"].concat());
            assert_eq!(client.line(), "EXISTS");
            assert_eq!(other.get(key), Some(b"old".to_vec()));
        }
        assert!(other.stat("held_bytes") < 2 << 20);
        node.stop();
    }
}

/// Uploads may use half of the memory: further uploads are rejected, and their connections stay in sync.
#[test]
fn uploads_do_not_push_out_everything() {
    let node = Node::start(&["-t", "1", "-m", "64", "-I", "20m"]);
    let mut other = node.client();
    other.set("k", b"v");
    let mut first = node.client();
    first.send(&set_command("a", &value(1, 20 * MIB))[..19 * MIB]);
    wait_until("the first", || other.stat("held_bytes") > 18 << 20);
    let mut second = node.client();
    second.send(set_command("b", &value(2, 20 * MIB)));
    assert_eq!(second.line(), "SERVER_ERROR out of memory storing object");
    second.sync();
    assert_eq!(other.get("k"), Some(b"v".to_vec()));
    first.send(&set_command("a", &value(1, 20 * MIB))[19 * MIB..]);
    assert_eq!(first.line(), "STORED");
    assert_eq!(other.get("a").map(|v| v.len()), Some(20 * MIB));
    node.stop();
}

#[test]
fn a_stop_does_not_wait_for_a_half_sent_value() {
    let node = Node::start(&["-t", "2", "-m", "64"]);
    let mut client = node.client();
    for key in ["a", "b", "c", "d"] {
        client.send([b"get x\r\n", &set_command(key, &value(1, MIB))[..MIB / 2]].concat());
        assert_eq!(client.line(), "END");
        client = node.client();
    }
    node.stop();
}

/// While a connection waited for room in a batch to the key's owner, a stop aborted the upload, and the rest of its
/// value was parsed as commands: they were executed, and answered.
#[test]
fn a_stop_does_not_take_a_value_for_commands() {
    let node = Node::start(&["-t", "3", "-m", "900", "-I", "100m"]);
    let mut uploads = Vec::new();
    for key in ["a", "b", "c", "d"] {
        let mut client = node.client();
        let mut sender = client.stream.try_clone().expect("a socket");
        sender.set_write_timeout(Some(std::time::Duration::from_secs(2))).expect("a timeout");
        let lines = b"get x\r\n".repeat(1000);
        uploads.push(std::thread::spawn(move || {
            let _ = write!(sender, "set {key} 0 0 {}\r\n", 90 << 20);
            // Until the node closes the connection.
            while sender.write_all(&lines).is_ok() {}
            assert!(client.is_closed(), "it was answered");
        }));
    }
    let mut other = node.client();
    wait_until("some of it", || other.stat("held_bytes") > 8 << 20);
    node.stop();
    for upload in uploads {
        upload.join().expect("no reply");
    }
}
