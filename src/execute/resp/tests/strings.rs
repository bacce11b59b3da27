//! Strings and keys.

use super::Session;

#[test]
fn set_and_its_options() {
    Session::new().transcript(
        "> SET k v
         < +OK|
         > GET k
         < $1|v|
         > SET k w NX
         < $-1|
         > SET k w XX GET
         < $1|v|
         > SET other x XX
         < $-1|
         > SET k x EX 100
         < +OK|
         > TTL k
         < :100|
         > SET k y KEEPTTL
         < +OK|
         > TTL k
         < :100|
         > SET k z
         < +OK|
         > TTL k
         < :-1|
         > SET k z EX 0
         < -ERR invalid expire time in 'set' command|
         > SET k z EX 10 PX 10
         < -ERR syntax error|
         > SET k a IFEQ q
         < $-1|
         > SET k a IFEQ z
         < +OK|
         > DELIFEQ k b
         < :0|
         > GETDEL k
         < $1|a|
         > GET k
         < $-1|",
    );
}

#[test]
fn counters() {
    Session::new().transcript(
        "> INCR n
         < :1|
         > INCRBY n 41
         < :42|
         > DECRBY n 2
         < :40|
         > OBJECT ENCODING n
         < $3|int|
         > SET n 9223372036854775807
         < +OK|
         > INCR n
         < -ERR increment or decrement would overflow|
         > SET n 10.5
         < +OK|
         > INCR n
         < -ERR value is not an integer or out of range|
         > INCRBYFLOAT n 0.1
         < $4|10.6|",
    );
}

#[test]
fn parts_of_strings() {
    Session::new().transcript(
        "> SETRANGE k 5 world
         < :10|
         > SETRANGE k 0 hello
         < :10|
         > GETRANGE k 0 -1
         < $10|helloworld|
         > GETRANGE k -5 -1
         < $5|world|
         > GETRANGE k 20 30
         < $0||
         > APPEND k !
         < :11|
         > STRLEN k
         < :11|
         > TYPE k
         < +string|",
    );
}

/// A long value is changed in place.
#[test]
fn parts_of_long_strings() {
    let mut session = Session::new();
    let mut value: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
    session.send(&[b"SET", b"k", &value]);
    for offset in [0, 16_383, 16_384, 50_000, 98_300, 99_990] {
        let offset_word = offset.to_string();
        assert_eq!(session.send(&[b"SETRANGE", b"k", offset_word.as_bytes(), b"0123456789"]), b":100000\r\n");
        value[offset..offset + 10].copy_from_slice(b"0123456789");
        let end = (offset + 20).min(99_999).to_string();
        let reply = session.send(&[b"GETRANGE", b"k", offset_word.as_bytes(), end.as_bytes()]);
        assert!(reply.ends_with(&[&value[offset..=(offset + 20).min(99_999)], b"\r\n"].concat()), "at {offset}");
    }
    let reply = session.send(&[b"GET", b"k"]);
    assert_eq!(reply, [&b"$100000\r\n"[..], &value, b"\r\n"].concat());
}

/// A SET of a long value that was rejected, for its arguments or for the type of the old value, removed the old value.
#[test]
fn a_long_set_that_is_refused_changes_nothing() {
    let mut session = Session::new();
    session.transcript("> SET k v\n < +OK|\n > RPUSH l a\n < :1|");
    type Refusal<'r> = (&'r [u8], &'r [&'r [u8]], &'r str);
    let refusals: [Refusal; 3] = [
        (b"k", &[b"BAD"], "-ERR syntax error|"),
        (b"k", &[b"EX", b"0"], "-ERR invalid expire time in 'set' command|"),
        (b"l", &[b"GET"], "-WRONGTYPE Operation against a key holding the wrong kind of value|"),
    ];
    for (key, after, reply) in refusals {
        assert_eq!(session.upload(&[b"SET", key], &[b'v'; 20_000], after), reply);
    }
    session.transcript("> GET k\n < $1|v|\n > LLEN l\n < :1|");
    assert_eq!(session.upload(&[b"SET", b"k"], &[b'v'; 20_000], &[b"XX"]), "+OK|");
    session.transcript("> STRLEN k\n < :20000|");
}

/// `EXPIRE key 0` kept the key until the end of the millisecond: the next command in a pipeline still found it.
#[test]
fn no_time_to_live_is_none() {
    for command in ["EXPIRE", "PEXPIRE"] {
        for time in ["0", "-1"] {
            let mut session = Session::new();
            session.transcript(&format!("> SET k v\n < +OK|\n > {command} k {time}\n < :1|\n > EXISTS k\n < :0|"));
        }
    }
}

#[test]
fn what_is_known_of_a_key_that_there_is_not() {
    Session::new()
        .transcript("> OBJECT ENCODING none\n < $-1|\n > OBJECT REFCOUNT none\n < $-1|\n > MEMORY USAGE none\n < $-1|");
}
