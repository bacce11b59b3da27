//! Hashes.

use super::{NOW, Session};
use std::collections::HashSet;

#[test]
fn fields_and_values() {
    Session::new().transcript(
        "> HSET h a 1 b 2 a 3
         < :2|
         > HSET h a 1 b
         < -ERR wrong number of arguments for 'hset' command|
         > HMSET h a 1 b
         < -ERR wrong number of arguments for 'hmset' command|
         > HMSET h c 4
         < +OK|
         > HSETNX h c 5
         < :0|
         > HSETNX h d five
         < :1|
         > HGET h a
         < $1|3|
         > HGET h x
         < $-1|
         > HGET none x
         < $-1|
         > HMGET h a x d
         < *3|$1|3|$-1|$4|five|
         > HMGET none a x
         < *2|$-1|$-1|
         > HLEN h
         < :4|
         > HSTRLEN h d
         < :4|
         > HSTRLEN h x
         < :0|
         > HEXISTS h d
         < :1|
         > HEXISTS none d
         < :0|
         > HDEL h c d x
         < :2|
         > HGETALL h
         < *4|$1|a|$1|3|$1|b|$1|2|
         > HKEYS h
         < *2|$1|a|$1|b|
         > HVALS h
         < *2|$1|3|$1|2|
         > HDEL h a b
         < :2|
         > EXISTS h
         < :0|
         > HGETALL h
         < *0|
         > HKEYS h
         < *0|
         > HLEN h
         < :0|
         > HSTRLEN h a
         < :0|",
    );
    Session::resp3().transcript(
        "> HGETALL h
         < %0|
         > HSET h a 1
         < :1|
         > HGETALL h
         < %1|$1|a|$1|1|
         > HKEYS h
         < *1|$1|a|
         > HGET h b
         < _|
         > HMGET h a b
         < *2|$1|1|_|",
    );
}

#[test]
fn numbers() {
    Session::new().transcript(
        "> HINCRBY h n 5
         < :5|
         > HINCRBY h n -7
         < :-2|
         > HINCRBY h n x
         < -ERR value is not an integer or out of range|
         > HSET h s text max 9223372036854775807
         < :2|
         > HINCRBY h s 1
         < -ERR hash value is not an integer|
         > HINCRBY h max 1
         < -ERR increment or decrement would overflow|
         > HINCRBYFLOAT h n 2.6
         < $3|0.6|
         > HINCRBYFLOAT h f 1.5e3
         < $4|1500|
         > HINCRBYFLOAT h s 1
         < -ERR hash value is not a float|
         > HINCRBYFLOAT h n x
         < -ERR value is not a valid float|
         > HINCRBYFLOAT h n inf
         < -ERR value is NaN or Infinity|
         > HGET h n
         < $3|0.6|",
    );
}

#[test]
fn random_fields() {
    Session::new().transcript(
        "> HRANDFIELD h
         < $-1|
         > HRANDFIELD h 3
         < *0|
         > HRANDFIELD h -3 WITHVALUES
         < *0|
         > HSET h a 1
         < :1|
         > HRANDFIELD h
         < $1|a|
         > HRANDFIELD h 0
         < *0|
         > HRANDFIELD h 3
         < *1|$1|a|
         > HRANDFIELD h -2
         < *2|$1|a|$1|a|
         > HRANDFIELD h -2 withvalues
         < *4|$1|a|$1|1|$1|a|$1|1|
         > HRANDFIELD h x
         < -ERR value is not an integer or out of range|
         > HRANDFIELD h 1 VALUES
         < -ERR syntax error|
         > HRANDFIELD h 1 WITHVALUES x
         < -ERR syntax error|
         > HRANDFIELD h -9223372036854775808
         < -ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807|
         > HRANDFIELD h -9223372036854775807 WITHVALUES
         < -ERR value is out of range|",
    );
    Session::resp3().transcript(
        "> HRANDFIELD h
         < _|
         > HSET h a 1
         < :1|
         > HRANDFIELD h 3 WITHVALUES
         < *1|*2|$1|a|$1|1|
         > HRANDFIELD h 3
         < *1|$1|a|",
    );
}

/// Expired fields are still in the hash's trees, and must not be drawn as random fields.
#[test]
fn random_fields_where_some_have_expired() {
    let mut session = Session::new();
    for n in 0..200 {
        session.line(&format!("HSET h short{n} v live{n} v"));
        session.line(&format!("HPEXPIRE h 5 FIELDS 1 short{n}"));
    }
    session.now = NOW + 100;
    for (line, count) in [("HRANDFIELD h 1000", 200), ("HRANDFIELD h 60", 60), ("HRANDFIELD h -300", 300)] {
        let reply = session.line(line);
        assert!(reply.starts_with(&format!("*{count}|")) && !reply.contains("short"), "{reply}");
        assert_eq!(reply.matches("live").count(), count);
    }
    assert!(session.line("HRANDFIELD h").contains("live"));
}

#[test]
fn scans() {
    let mut session = Session::new();
    session.transcript(
        "> HSCAN h 0
         < *2|$1|0|*0|
         > HSET h abc 1 abd 2 xyz 3
         < :3|
         > HSCAN h 0 MATCH ab*
         < *2|$1|0|*4|$3|abc|$1|1|$3|abd|$1|2|
         > HSCAN h 0 MATCH ab* NOVALUES
         < *2|$1|0|*2|$3|abc|$3|abd|
         > HSCAN h 0 NOSCORES
         < -ERR NOSCORES option can only be used in ZSCAN|
         > HSCAN h -1
         < -ERR invalid cursor|",
    );
    (0..2000).for_each(|n| _ = session.line(&format!("HSET large field{n} v")));
    let (mut cursor, mut seen) = ("0".to_owned(), HashSet::new());
    loop {
        let reply = session.line(&format!("HSCAN large {cursor} COUNT 50"));
        let args: Vec<&str> = reply.split('|').collect();
        args.iter().filter(|arg| arg.starts_with("field")).for_each(|&arg| _ = seen.insert(arg.to_owned()));
        cursor = args[2].to_owned();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 2000);
}

#[test]
fn other_types_are_refused() {
    let mut session = Session::new();
    session.line("SET k v");
    for line in [
        "HSET k a 1",
        "HMSET k a 1",
        "HSETNX k a 1",
        "HGET k a",
        "HMGET k a",
        "HGETALL k",
        "HKEYS k",
        "HVALS k",
        "HDEL k a",
        "HEXISTS k a",
        "HLEN k",
        "HSTRLEN k a",
        "HINCRBY k a 1",
        "HINCRBYFLOAT k a 1",
        "HRANDFIELD k",
        "HSCAN k 0",
        "HEXPIRE k 1 FIELDS 1 a",
        "HTTL k FIELDS 1 a",
        "HPERSIST k FIELDS 1 a",
        "HGETEX k FIELDS 1 a",
        "HSETEX k FIELDS 1 a 1",
        "HGETDEL k FIELDS 1 a",
    ] {
        let expected = "-WRONGTYPE Operation against a key holding the wrong kind of value|";
        assert_eq!(session.line(line), expected, "{line}");
    }
}

/// A command that names an element again, after it has removed the last one, finds an empty tree.
#[test]
fn large_collections_are_emptied_by_one_command() {
    let mut session = Session::new();
    let names: Vec<String> = (0..500).map(|n| format!("name{n}")).collect();
    let (all, pairs) = (names.join(" "), names.join(" v ") + " v");
    for (fill, empty, reply) in [
        (format!("HSET k {pairs}"), format!("HDEL k {all} name0"), ":500|"),
        (format!("HSET k {pairs}"), format!("HEXPIRE k 0 FIELDS 501 {all} name0"), "*501|"),
        (format!("HSET k {pairs}"), format!("HGETDEL k FIELDS 501 {all} name0"), "*501|"),
        (format!("HSET k {pairs}"), format!("HSETEX k EX 0 FIELDS 500 {pairs}"), ":1|"),
        (format!("SADD k {all}"), format!("SREM k {all} name0"), ":500|"),
        (format!("SADD k {all}"), "SPOP k 500".to_owned(), "*500|"),
        (format!("RPUSH k {all}"), "LPOP k 501".to_owned(), "*500|"),
        (format!("RPUSH k {}", "v ".repeat(499) + "v"), "LREM k -500 v".to_owned(), ":500|"),
        (format!("RPUSH k {}", "v ".repeat(499) + "v"), "LREM k 0 v".to_owned(), ":500|"),
    ] {
        assert_eq!(session.line(&fill), ":500|");
        let replied = session.line(&empty);
        assert!(replied.starts_with(reply), "{replied}");
        assert_eq!(session.line("EXISTS k"), ":0|", "{empty}");
    }
}
