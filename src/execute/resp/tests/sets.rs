//! Sets, scans over them, and random members.

use super::Session;
use crate::command::{Call, Command, Part, args};
use std::collections::HashSet;

#[test]
fn members() {
    Session::new().transcript(
        "> SADD s 1 2 2 3
         < :3|
         > OBJECT ENCODING s
         < $6|intset|
         > SADD s 3 a
         < :1|
         > OBJECT ENCODING s
         < $8|listpack|
         > SCARD s
         < :4|
         > SISMEMBER s a
         < :1|
         > SISMEMBER s b
         < :0|
         > SMISMEMBER s a b 1
         < *3|:1|:0|:1|
         > SREM s a b 1
         < :2|
         > SMEMBERS s
         < *2|$1|2|$1|3|
         > SREM s 2 3
         < :2|
         > EXISTS s
         < :0|
         > SCARD s
         < :0|
         > SMEMBERS s
         < *0|
         > SISMEMBER s a
         < :0|
         > SMISMEMBER s a b
         < *2|:0|:0|
         > SREM s a
         < :0|",
    );
    Session::resp3().transcript(
        "> SMEMBERS s
         < ~0|
         > SADD s a
         < :1|
         > SMEMBERS s
         < ~1|$1|a|
         > SRANDMEMBER s 5
         < *1|$1|a|
         > SPOP s 5
         < ~1|$1|a|
         > SPOP s 5
         < ~0|
         > SPOP s
         < _|
         > SRANDMEMBER s
         < _|",
    );
}

#[test]
fn random_members() {
    Session::new().transcript(
        "> SRANDMEMBER s
         < $-1|
         > SRANDMEMBER s 5
         < *0|
         > SPOP s
         < $-1|
         > SPOP s 1
         < *0|
         > SADD s a
         < :1|
         > SRANDMEMBER s
         < $1|a|
         > SRANDMEMBER s 2
         < *1|$1|a|
         > SRANDMEMBER s -2
         < *2|$1|a|$1|a|
         > SRANDMEMBER s 0
         < *0|
         > SRANDMEMBER s x
         < -ERR value is not an integer or out of range|
         > SRANDMEMBER s -9223372036854775808
         < -ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807|
         > SRANDMEMBER s -9223372036854775807
         < -ERR value is out of range|
         > SRANDMEMBER s 1 2
         < -ERR syntax error|
         > SPOP s -1
         < -ERR value is out of range, must be positive|
         > SPOP s 1 2
         < -ERR syntax error|
         > SPOP s 0
         < *0|
         > SPOP s
         < $1|a|
         > EXISTS s
         < :0|",
    );
}

/// Draws random members from a set of many leaves until all are removed.
#[test]
fn random_members_of_a_large_set() {
    let mut session = Session::new();
    let mut left: HashSet<String> = (0..2000).map(|n| format!("member{n}")).collect();
    left.iter().for_each(|member| _ = session.line(&format!("SADD s {member}")));
    for count in [100_i64, 1500, -3000] {
        let reply = session.line(&format!("SRANDMEMBER s {count}"));
        let drawn: Vec<&str> = reply.split('|').filter(|arg| arg.starts_with("member")).collect();
        let distinct: HashSet<&str> = drawn.iter().copied().collect();
        assert!(distinct.iter().all(|&member| left.contains(member)));
        assert_eq!(drawn.len() as u64, count.unsigned_abs());
        assert!(distinct.len() == drawn.len() || count < 0);
    }
    while !left.is_empty() {
        let reply = session.line("SPOP s 700");
        let popped: Vec<&str> = reply.split('|').filter(|arg| arg.starts_with("member")).collect();
        assert_eq!(popped.len(), left.len().min(700));
        popped.iter().for_each(|&member| assert!(left.remove(member), "{member} was popped twice"));
        assert_eq!(session.line("SCARD s"), format!(":{}|", left.len()));
    }
    assert_eq!(session.line("EXISTS s"), ":0|");
}

#[test]
fn scans() {
    let mut session = Session::new();
    session.transcript(
        "> SSCAN s 0
         < *2|$1|0|*0|
         > SSCAN s x
         < -ERR invalid cursor|
         > SSCAN s 0 COUNT x
         < *2|$1|0|*0|
         > SADD s abc abd xyz
         < :3|
         > SSCAN s 0 MATCH ab? COUNT 100
         < *2|$1|0|*2|$3|abc|$3|abd|
         > SSCAN s 0 MATCH *
         < *2|$1|0|*3|$3|abc|$3|abd|$3|xyz|
         > SSCAN s 0 COUNT x
         < -ERR value is not an integer or out of range|
         > SSCAN s 0 COUNT 0
         < -ERR syntax error|
         > SSCAN s 0 COUNT
         < -ERR syntax error|
         > SSCAN s 0 TYPE set
         < -ERR syntax error|
         > SSCAN s 0 NOVALUES
         < -ERR NOVALUES option can only be used in HSCAN|
         > SSCAN s 0 NOSCORES
         < -ERR NOSCORES option can only be used in ZSCAN|",
    );
    (0..2000).for_each(|n| _ = session.line(&format!("SADD large member{n}")));
    let (mut cursor, mut seen, mut calls) = ("0".to_owned(), HashSet::new(), 0);
    loop {
        let reply = session.line(&format!("SSCAN large {cursor} COUNT 100"));
        let args: Vec<&str> = reply.split('|').collect();
        args.iter().filter(|arg| arg.starts_with("member")).for_each(|&arg| _ = seen.insert(arg.to_owned()));
        cursor = args[2].to_owned();
        calls += 1;
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 2000);
    assert!((5..=20).contains(&calls), "{calls} calls");
}

/// The elements of a scan from a cursor on, and the next cursor.
fn page(session: &mut Session, command: &str) -> (Vec<String>, String) {
    let reply = session.line(command);
    let args: Vec<&str> = reply.split('|').collect();
    (args[4..].iter().skip(1).step_by(2).map(|&arg| arg.to_owned()).collect(), args[2].to_owned())
}

/// A page of SCAN: the part of its reply, and the part's bytes.
fn scan_page(session: &mut Session, args: &[&[u8]]) -> (Part, Vec<u8>) {
    let (encoded, mut out) = (args::encode(args), Vec::new());
    let call = Call { command: Command::Scan, count: args.len() as u32, args: &encoded[..] };
    let hash = session.hasher.hash(b"");
    (session.executor.part(&call, b"", hash, 0, &mut out).0, out)
}

/// Regression: SCAN with COUNT 10000000 held its shard for 0.9 seconds.
#[test]
fn a_scan_visits_a_bounded_part_whatever_count_says() {
    let mut session = Session::new();
    for n in 0..10_000 {
        session.line(&format!("SET key{n} v"));
        session.line(&format!("SADD set key{n}"));
        session.line(&format!("HSET hash key{n} v"));
        session.line(&format!("ZADD sorted {n} key{n}"));
    }
    let (mut cursor, mut seen, mut calls) = (0, 0, 0);
    while cursor != 0 || calls == 0 {
        let position = cursor.to_string();
        let (part, _) = scan_page(&mut session, &[position.as_bytes(), b"COUNT", b"10000000"]);
        let Part::Page { elements, next, .. } = part else { panic!("{part:?}") };
        assert!(elements < 4_500, "SCAN: {elements} elements");
        (cursor, seen, calls) = (next, seen + elements, calls + 1);
    }
    assert_eq!((seen, calls), (10_003, 3), "SCAN");
    for command in ["SSCAN set", "HSCAN hash", "ZSCAN sorted"] {
        let (mut cursor, mut seen, mut calls) = ("0".to_owned(), HashSet::new(), 0);
        loop {
            let (found, next) = page(&mut session, &format!("{command} {cursor} COUNT 10000000"));
            assert!(found.len() < 2 * 4_500, "{command}: {} elements", found.len());
            seen.extend(found.into_iter().filter(|name| name.starts_with("key")));
            (cursor, calls) = (next, calls + 1);
            if cursor == "0" {
                break;
            }
        }
        assert_eq!((seen.len(), calls), (10_000, 3), "{command}");
    }
}

/// Regression: matching took time in proportion to the product of the lengths, 46 seconds for one member of 256 KiB.
#[test]
fn matching_takes_time_in_proportion_to_the_member() {
    let mut session = Session::new();
    session.line(&format!("SADD set {}", "a".repeat(256 << 10)));
    let searched = "[ab]".repeat(256);
    let started = std::time::Instant::now();
    let plain = ["a".repeat(1950), "a".repeat(60_000), "a*".repeat(30_000)];
    for pattern in plain.iter().map(|plain| format!("*{plain}b*")).chain([format!("*{searched}*b*")]) {
        assert_eq!(session.line(&format!("SSCAN set 0 MATCH {pattern}")), "*2|$1|0|*0|");
    }
    assert!(session.line(&format!("SSCAN set 0 MATCH *{searched}*a")).starts_with("*2|$1|0|*1|$262144|aaa"));
    // Milliseconds, were it not for other processes; the products take minutes.
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

/// A match that takes long counts as so many elements that a call visits only a few such members.
#[test]
fn a_scan_ends_early_where_matching_takes_long() {
    let mut session = Session::new();
    for n in 0..400 {
        session.line(&format!("SADD set {}{n}", "a".repeat(40_000)));
    }
    let pattern = format!("*{}x*", "?".repeat(1_000));
    let (mut cursor, mut calls) = ("0".to_owned(), 0);
    while cursor != "0" || calls == 0 {
        let (found, next) = page(&mut session, &format!("SSCAN set {cursor} MATCH {pattern} COUNT 10000000"));
        assert!(found.is_empty());
        (cursor, calls) = (next, calls + 1);
    }
    // 16 words for each byte of a member: 625 elements. So each call visits one leaf.
    assert!(calls > 3, "{calls} calls");
    let refused = session.line(&format!("SSCAN set 0 MATCH *{}*", "?".repeat(2_000)));
    assert!(refused.starts_with("-ERR pattern is too complex: "), "{refused}");
    let pattern = format!("*{}*", "?".repeat(2_000));
    let (part, text) = scan_page(&mut session, &[b"0", b"MATCH", pattern.as_bytes()]);
    assert_eq!((part, format!("-{}|", String::from_utf8_lossy(&text))), (Part::Error, refused));
}

#[test]
fn other_types_are_refused() {
    let mut session = Session::new();
    session.line("SET k v");
    for line in [
        "SADD k a",
        "SREM k a",
        "SCARD k",
        "SISMEMBER k a",
        "SMISMEMBER k a",
        "SMEMBERS k",
        "SRANDMEMBER k",
        "SRANDMEMBER k 1",
        "SPOP k",
        "SPOP k 1",
        "SSCAN k 0",
    ] {
        let expected = "-WRONGTYPE Operation against a key holding the wrong kind of value|";
        assert_eq!(session.line(line), expected, "{line}");
    }
}

/// A command that failed in its first slice went on, and replied its error once per slice.
#[test]
fn an_error_ends_a_command_in_slices() {
    let mut session = Session::new();
    session.transcript(
        "
        > SET k v
        < +OK|
        > SADD k a b c d e
        < -WRONGTYPE Operation against a key holding the wrong kind of value|
        > ZADD k 1 a 2 b 3 c
        < -WRONGTYPE Operation against a key holding the wrong kind of value|
        > ZADD z 1 a 2 b high c
        < -ERR value is not a valid float|
        > EXISTS z
        < :0|
        ",
    );
}
