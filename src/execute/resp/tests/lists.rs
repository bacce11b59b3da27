//! Lists.

use super::Session;

#[test]
fn both_ends() {
    Session::new().transcript(
        "> RPUSHX l a
         < :0|
         > RPUSH l a b c
         < :3|
         > LPUSH l x y
         < :5|
         > LPUSHX l z
         < :6|
         > LLEN l
         < :6|
         > LRANGE l 0 -1
         < *6|$1|z|$1|y|$1|x|$1|a|$1|b|$1|c|
         > TYPE l
         < +list|
         > LPOP l
         < $1|z|
         > RPOP l
         < $1|c|
         > RPOP l 2
         < *2|$1|b|$1|a|
         > LPOP l 0
         < *0|
         > LPOP l 10
         < *2|$1|y|$1|x|
         > EXISTS l
         < :0|
         > LPOP l
         < $-1|
         > LPOP l 1
         < *-1|
         > LPOP l 0
         < *-1|
         > LPOP l -1
         < -ERR value is out of range, must be positive|
         > RPOP l a
         < -ERR value is out of range, must be positive|
         > RPOP l 1 2
         < -ERR wrong number of arguments for 'rpop' command|
         > LLEN l
         < :0|
         > LRANGE l 0 -1
         < *0|",
    );
    Session::resp3().transcript(
        "> LPOP l
         < _|
         > LPOP l 1
         < _|",
    );
}

#[test]
fn elements_by_index() {
    Session::new().transcript(
        "> RPUSH l a b c d
         < :4|
         > LINDEX l 0
         < $1|a|
         > LINDEX l -1
         < $1|d|
         > LINDEX l 4
         < $-1|
         > LINDEX l -5
         < $-1|
         > LINDEX l x
         < -ERR value is not an integer or out of range|
         > LINDEX none x
         < $-1|
         > LSET l -2 C
         < +OK|
         > LSET l 4 e
         < -ERR index out of range|
         > LSET l x e
         < -ERR value is not an integer or out of range|
         > LSET none 0 e
         < -ERR no such key|
         > LSET none x e
         < -ERR no such key|
         > LRANGE l 1 2
         < *2|$1|b|$1|C|
         > LRANGE l -100 1
         < *2|$1|a|$1|b|
         > LRANGE l 3 100
         < *1|$1|d|
         > LRANGE l 3 2
         < *0|
         > LRANGE l 4 9
         < *0|
         > LRANGE l a 2
         < -ERR value is not an integer or out of range|
         > LTRIM l 1 -2
         < +OK|
         > LRANGE l 0 -1
         < *2|$1|b|$1|C|
         > LTRIM l 5 9
         < +OK|
         > EXISTS l
         < :0|
         > LTRIM none 0 1
         < +OK|",
    );
}

#[test]
fn elements_by_value() {
    Session::new().transcript(
        "> RPUSH l a b a c a
         < :5|
         > LINSERT l before c x
         < :6|
         > LINSERT l AFTER c y
         < :7|
         > LINSERT l AFTER none y
         < :-1|
         > LINSERT none AFTER c y
         < :0|
         > LINSERT l BESIDE c y
         < -ERR syntax error|
         > LRANGE l 0 -1
         < *7|$1|a|$1|b|$1|a|$1|x|$1|c|$1|y|$1|a|
         > LREM l -2 a
         < :2|
         > LRANGE l 0 -1
         < *5|$1|a|$1|b|$1|x|$1|c|$1|y|
         > LREM l 1 b
         < :1|
         > LREM l 0 b
         < :0|
         > LREM none 0 b
         < :0|
         > LREM l x b
         < -ERR value is not an integer or out of range|",
    );
}

#[test]
fn positions() {
    Session::new().transcript(
        "> RPUSH l a b c 1 2 3 c c
         < :8|
         > LPOS l a
         < :0|
         > LPOS l c
         < :2|
         > LPOS l none
         < $-1|
         > LPOS l c RANK 2
         < :6|
         > LPOS l c RANK 4
         < $-1|
         > LPOS l c RANK -1
         < :7|
         > LPOS l c COUNT 0
         < *3|:2|:6|:7|
         > LPOS l c COUNT 2 RANK -1
         < *2|:7|:6|
         > LPOS l c COUNT 0 RANK 2 MAXLEN 7
         < *1|:6|
         > LPOS l c COUNT 0 MAXLEN 1
         < *0|
         > LPOS l c MAXLEN 2
         < $-1|
         > LPOS none c COUNT 1
         < *0|
         > LPOS none c
         < $-1|
         > LPOS l c RANK 0
         < -ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list|
         > LPOS l c RANK -9223372036854775808
         < -ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807|
         > LPOS l c COUNT -1
         < -ERR COUNT can't be negative|
         > LPOS l c MAXLEN -1
         < -ERR MAXLEN can't be negative|
         > LPOS l c COUNT
         < -ERR syntax error|",
    );
}

#[test]
fn other_types_are_refused() {
    let mut session = Session::new();
    session.line("SET s v");
    for line in [
        "LPUSH s a",
        "RPUSHX s a",
        "LPOP s",
        "RPOP s 1",
        "LLEN s",
        "LRANGE s 0 1",
        "LINDEX s x",
        "LSET s x a",
        "LINSERT s BEFORE a b",
        "LREM s 0 a",
        "LTRIM s 0 1",
        "LPOS s a",
    ] {
        let expected = "-WRONGTYPE Operation against a key holding the wrong kind of value|";
        assert_eq!(session.line(line), expected, "{line}");
    }
}

/// Elements that are stored outside of the leaves, and more of them than fit into one leaf.
#[test]
fn long_lists() {
    let mut session = Session::new();
    let long = vec![b'x'; 100_000];
    for n in 0..1000 {
        session.line(&format!("RPUSH l {n}"));
    }
    session.send(&[b"LSET", b"l", b"500", &long]);
    assert_eq!(session.send(&[b"LPOS", b"l", &long]), b":500\r\n");
    assert_eq!(session.send(&[b"LPOS", b"l", &long, b"RANK", b"-1"]), b":500\r\n");
    assert_eq!(session.line("RPOP l 2"), "*2|$3|999|$3|998|");
    assert_eq!(session.line("LINDEX l -1"), "$3|997|");
    assert_eq!(session.line("RPOP l"), "$3|997|");
}
