//! HyperLogLogs.

use super::Session;

#[test]
fn counting() {
    let mut session = Session::new();
    session.transcript(
        "> PFCOUNT h
         < :0|
         > PFADD h
         < :1|
         > PFADD h
         < :0|
         > PFCOUNT h
         < :0|
         > PFADD h a b c
         < :1|
         > PFADD h a b
         < :0|
         > PFCOUNT h
         < :3|
         > EXPIRE h 100
         < :1|
         > PFADD h d
         < :1|
         > TTL h
         < :100|
         > TYPE h
         < +string|",
    );
    // The estimate is cached in the string, and marked as outdated by a change.
    assert_eq!(session.send(&[b"GETRANGE", b"h", b"15", b"15"]), b"$1\r\n\x80\r\n");
    assert_eq!(session.line("PFCOUNT h"), ":4|");
    assert_eq!(session.send(&[b"GETRANGE", b"h", b"8", b"15"]), b"$8\r\n\x04\0\0\0\0\0\0\0\r\n");
    assert_eq!(session.line("TTL h"), ":100|");
}

#[test]
fn what_is_none() {
    Session::new().transcript(
        "> SET s v
         < +OK|
         > PFADD s a
         < -WRONGTYPE Key is not a valid HyperLogLog string value.|
         > PFCOUNT s
         < -WRONGTYPE Key is not a valid HyperLogLog string value.|
         > ZADD z 1 a
         < :1|
         > PFADD z a
         < -WRONGTYPE Operation against a key holding the wrong kind of value|
         > PFADD h a b c
         < :1|
         > APPEND h hello
         < :32|
         > PFCOUNT h
         < -INVALIDOBJ Corrupted HLL object detected|
         > SETRANGE h 4 x
         < :32|
         > PFCOUNT h
         < -WRONGTYPE Key is not a valid HyperLogLog string value.|",
    );
}

/// The sparse encoding is converted to the dense one, which is a long value.
#[test]
fn many_elements() {
    let mut session = Session::new();
    for from in (0..20_000).step_by(500) {
        let elements: Vec<String> = (from..from + 500).map(|n| n.to_string()).collect();
        assert_eq!(session.line(&format!("PFADD h {}", elements.join(" "))), ":1|");
    }
    let count = session.line("PFCOUNT h");
    let count: i64 = count.trim_matches([':', '|']).parse().expect("a number");
    assert!((19_500..20_500).contains(&count), "{count}");
    assert_eq!(session.line("PFCOUNT h"), format!(":{count}|"));
}
