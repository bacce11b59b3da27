//! DUMP and RESTORE.

use super::Session;

/// The payload in the reply to DUMP.
fn dump(session: &mut Session, key: &[u8]) -> Vec<u8> {
    let reply = session.send(&[b"DUMP", key]);
    let start = reply.windows(2).position(|end| end == b"\r\n").expect("a line") + 2;
    reply[start..reply.len() - 2].to_vec()
}

#[test]
fn every_type_comes_back() {
    let mut session = Session::new();
    session.line("SET string bar");
    session.line("RPUSH list a 12 b");
    session.line("SADD set 1 2 300");
    session.line("HSET hash f v g 12");
    session.line("ZADD sorted 1 a 2.5 b -inf c");
    for n in 0..1000 {
        session.line(&format!("ZADD large {n} member{n}"));
    }
    session.send(&[b"SET", b"long", &[b'x'; 100_000]]);
    for (key, reads) in [
        ("string", vec!["GET string"]),
        ("long", vec!["GET long"]),
        ("list", vec!["LRANGE list 0 -1"]),
        ("set", vec!["SCARD set", "SISMEMBER set 300", "OBJECT ENCODING set"]),
        ("hash", vec!["HLEN hash", "HMGET hash f g"]),
        ("sorted", vec!["ZRANGE sorted 0 -1 WITHSCORES"]),
        ("large", vec!["ZRANGE large 0 -1 WITHSCORES", "ZSCORE large member7"]),
    ] {
        let payload = dump(&mut session, key.as_bytes());
        let before: Vec<_> = reads.iter().map(|read| session.line(read)).collect();
        assert_eq!(
            session.send(&[b"RESTORE", key.as_bytes(), b"0", &payload]),
            b"-BUSYKEY Target key name already exists.\r\n"
        );
        assert_eq!(session.line(&format!("DEL {key}")), ":1|");
        assert_eq!(session.send(&[b"RESTORE", key.as_bytes(), b"0", &payload]), b"+OK\r\n");
        let after: Vec<_> = reads.iter().map(|read| session.line(read)).collect();
        assert_eq!(before, after);
        assert_eq!(session.line(&format!("TTL {key}")), ":-1|");
        assert_eq!(session.send(&[b"RESTORE", key.as_bytes(), b"0", &payload, b"replace"]), b"+OK\r\n");
    }
    assert_eq!(session.line("DUMP nothing"), "$-1|");
}

#[test]
fn options_of_restore() {
    let mut session = Session::new();
    session.line("SET k v");
    let payload = dump(&mut session, b"k");
    session.line("DEL k");
    assert_eq!(session.send(&[b"RESTORE", b"k", b"5000", &payload]), b"+OK\r\n");
    assert_eq!(session.line("PTTL k"), ":5000|");
    let later = (super::NOW + 3001).to_string();
    assert_eq!(session.send(&[b"RESTORE", b"k", later.as_bytes(), &payload, b"ABSTTL", b"REPLACE"]), b"+OK\r\n");
    assert_eq!(session.line("PTTL k"), ":3000|");
    assert_eq!(session.send(&[b"RESTORE", b"k", b"0", &payload, b"REPLACE", b"FREQ", b"9"]), b"+OK\r\n");
    assert_eq!(session.line("TTL k"), ":-1|");
    // Restoring a value that has already expired removes the old value.
    assert_eq!(session.send(&[b"RESTORE", b"k", b"1000", &payload, b"ABSTTL", b"REPLACE"]), b"+OK\r\n");
    session.transcript(
        "> EXISTS k
         < :0|
         > RESTORE k 0 ...
         < -ERR DUMP payload version or checksum are wrong|
         > RESTORE k -1 ...
         < -ERR Invalid TTL value, must be >= 0|
         > RESTORE k x ...
         < -ERR value is not an integer or out of range|
         > RESTORE k 0 ... invalid-option
         < -ERR syntax error|
         > RESTORE k 0 ... FREQ 256
         < -ERR Invalid FREQ value, must be >= 0 and <= 255|
         > RESTORE k 0 ... IDLETIME -1
         < -ERR Invalid IDLETIME value, must be >= 0|",
    );
}
