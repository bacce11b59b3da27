//! Fields of hashes that expire.

use super::{NOW, Session};

const WRONG_COUNT: &str = "-ERR numfields should be greater than 0 and match the provided number of fields|";

#[test]
fn times_are_set_and_told() {
    let at = NOW / 1000 + 50;
    let text = format!(
        "> HSET h a 1 b 2 c 3
         < :3|
         > HEXPIRE h 100 FIELDS 2 a x
         < *2|:1|:-2|
         > HTTL h FIELDS 3 a b x
         < *3|:100|:-1|:-2|
         > HPTTL h FIELDS 1 a
         < *1|:100000|
         > HEXPIREAT h {at} FIELDS 1 b
         < *1|:1|
         > HEXPIRETIME h FIELDS 1 b
         < *1|:{at}|
         > HPEXPIRETIME h FIELDS 1 b
         < *1|:{at}000|
         > HPEXPIRE h 5 FIELDS 1 c
         < *1|:1|
         > HPEXPIREAT h {at}000 FIELDS 1 c
         < *1|:1|
         > HPEXPIRETIME h FIELDS 1 c
         < *1|:{at}000|
         > HPERSIST h FIELDS 3 a x a
         < *3|:1|:-2|:-1|
         > HEXPIRE none 100 FIELDS 2 a b
         < *2|:-2|:-2|
         > HTTL none FIELDS 1 a
         < *1|:-2|
         > HPERSIST none FIELDS 1 a
         < *1|:-2|
         > HEXPIRE h 0 FIELDS 2 a a
         < *2|:2|:-2|
         > HEXPIREAT h 1000 FIELDS 2 b c
         < *2|:2|:2|
         > EXISTS h
         < :0|"
    );
    Session::new().transcript(&text);
}

#[test]
fn conditions() {
    Session::new().transcript(
        "> HSET h a 1 b 2
         < :2|
         > HEXPIRE h 100 XX FIELDS 1 a
         < *1|:0|
         > HEXPIRE h 100 GT FIELDS 1 a
         < *1|:0|
         > HEXPIRE h 100 NX FIELDS 1 a
         < *1|:1|
         > HEXPIRE h 100 nx fields 2 a b
         < *2|:0|:1|
         > HEXPIRE h 50 GT FIELDS 1 a
         < *1|:0|
         > HEXPIRE h 50 LT FIELDS 1 a
         < *1|:1|
         > HEXPIRE h 70 XX GT FIELDS 1 a
         < *1|:1|
         > HPERSIST h FIELDS 1 b
         < *1|:1|
         > HEXPIRE h 70 LT FIELDS 1 b
         < *1|:1|
         > HEXPIRE h 0 GT FIELDS 2 a x
         < *2|:0|:-2|
         > HLEN h
         < :2|
         > HEXPIRE h 10 NX XX FIELDS 1 a
         < -ERR NX and XX, GT or LT options at the same time are not compatible|
         > HEXPIRE h 10 GT LT FIELDS 1 a
         < -ERR GT and LT options at the same time are not compatible|
         > HEXPIRE h 10 YY FIELDS 1 a
         < -ERR Unsupported option YY|
         > HEXPIRE h -1 FIELDS 1 a
         < -ERR invalid expire time in 'hexpire' command|
         > HPEXPIREAT h 281474976710655 FIELDS 1 a
         < *1|:1|
         > HPEXPIRETIME h FIELDS 1 a
         < *1|:281474976710655|
         > HPEXPIREAT h 9223372036854775 FIELDS 1 a
         < *1|:1|
         > HPEXPIRETIME h FIELDS 1 a
         < *1|:281474976710655|
         > HPEXPIREAT h 9223372036854775807 FIELDS 1 a
         < *1|:1|
         > HPEXPIRE h 9223372036854775807 FIELDS 1 a
         < -ERR invalid expire time in 'hpexpire' command|
         > HEXPIREAT h 9223372036854775807 FIELDS 1 a
         < -ERR invalid expire time in 'hexpireat' command|
         > HEXPIRE h x FIELDS 1 a
         < -ERR value is not an integer or out of range|",
    );
}

#[test]
fn numbers_of_fields() {
    let mut session = Session::new();
    session.line("HSET h a 1 b 2");
    for line in [
        "HEXPIRE h 10 FIELDS 0 a",
        "HEXPIRE h 10 FIELDS 2 a",
        "HEXPIRE h 10 FIELDS 1 a b",
        "HEXPIRE h 10 FIELDS -1 a",
        "HEXPIRE h 10 NX 1 a",
        "HGETEX h FIELDS 2 a",
        "HGETEX h EX 10 1 a",
        "HSETEX h FIELDS 2 a 1",
        "HSETEX h FIELDS 1 a 1 b",
        "HSETEX h EX 10 FIELDS 0",
    ] {
        assert_eq!(session.line(line), WRONG_COUNT, "{line}");
    }
    for line in [
        "HTTL h FIELDS 2 a",
        "HTTL h FIELDS 0 a",
        "HTTL h a b c",
        "HPERSIST h FIELDS 2 a",
        "HPERSIST h FIELDS 0 a",
        "HGETDEL h FIELDS 2 a",
        "HGETDEL h FIELDS 0 a",
    ] {
        assert_eq!(session.line(line), "-ERR syntax error|", "{line}");
    }
    let not_an_integer = "-ERR value is not an integer or out of range|";
    assert_eq!(session.line("HEXPIRE h 10 FIELDS x a"), not_an_integer);
}

/// Every command on a hash ignores expired fields, whether they have been swept or not.
#[test]
fn fields_that_have_expired_are_not_there() {
    for fields in [1, 500] {
        let mut session = Session::new();
        session.line("HSET h live 1");
        for n in 0..fields {
            session.line(&format!("HSETEX h PX 10 FIELDS 1 short{n} 1"));
        }
        assert_eq!(session.line("HLEN h"), format!(":{}|", fields + 1));
        session.now = NOW + 20;
        session.transcript(
            "> HLEN h
             < :1|
             > HKEYS h
             < *1|$4|live|
             > HVALS h
             < *1|$1|1|
             > HGETALL h
             < *2|$4|live|$1|1|
             > HMGET h live short0
             < *2|$1|1|$-1|
             > HEXISTS h short0
             < :0|
             > HSTRLEN h short0
             < :0|
             > HTTL h FIELDS 1 short0
             < *1|:-2|
             > HRANDFIELD h 5
             < *1|$4|live|
             > HDEL h short0
             < :0|
             > HSETNX h short0 2
             < :1|
             > HTTL h FIELDS 1 short0
             < *1|:-1|",
        );
        if fields == 1 {
            assert_eq!(session.line("HSCAN h 0 NOVALUES"), "*2|$1|0|*2|$4|live|$6|short0|");
        }
    }
}

#[test]
fn counters_keep_their_time() {
    let mut session = Session::new();
    session.transcript(
        "> HSETEX h EX 100 FIELDS 1 n 5
         < :1|
         > HINCRBY h n 1
         < :6|
         > HINCRBYFLOAT h n 1.5
         < $3|7.5|
         > HTTL h FIELDS 1 n
         < *1|:100|
         > HSET h n 1
         < :0|
         > HTTL h FIELDS 1 n
         < *1|:-1|
         > HPEXPIRE h 10 FIELDS 1 n
         < *1|:1|",
    );
    session.now = NOW + 20;
    session.transcript(
        "> HINCRBY h n 3
         < :3|
         > HTTL h FIELDS 1 n
         < *1|:-1|",
    );
}

#[test]
fn hgetex() {
    Session::new().transcript(
        "> HSET h a 1 b 2
         < :2|
         > HGETEX h FIELDS 2 a x
         < *2|$1|1|$-1|
         > HGETEX h EX 100 FIELDS 3 a x b
         < *3|$1|1|$-1|$1|2|
         > HTTL h FIELDS 3 a x b
         < *3|:100|:-2|:100|
         > HGETEX h FIELDS 1 a
         < *1|$1|1|
         > HTTL h FIELDS 1 a
         < *1|:100|
         > HGETEX h PERSIST FIELDS 1 a
         < *1|$1|1|
         > HTTL h FIELDS 2 a b
         < *2|:-1|:100|
         > HGETEX h PXAT 1 FIELDS 2 a b
         < *2|$1|1|$1|2|
         > EXISTS h
         < :0|
         > HGETEX h EX 10 FIELDS 2 a b
         < *2|$-1|$-1|
         > HGETEX h EX 10 PX 10 FIELDS 1 a
         < -ERR syntax error|
         > HGETEX h EX FIELDS 1 a
         < -ERR syntax error|
         > HGETEX h KEEPTTL FIELDS 1 a
         < -ERR syntax error|
         > HGETEX h EX -1 FIELDS 1 a
         < -ERR invalid expire time in 'hgetex' command|
         > HGETEX h EX x FIELDS 1 a
         < -ERR value is not an integer or out of range|",
    );
    Session::resp3().transcript(
        "> HGETEX h FIELDS 1 a
         < *1|_|",
    );
}

#[test]
fn hgetdel() {
    Session::new().transcript(
        "> HSET h a 1 b 2
         < :2|
         > HGETDEL h FIELDS 3 a x a
         < *3|$1|1|$-1|$-1|
         > HLEN h
         < :1|
         > HGETDEL h FIELDS 1 b
         < *1|$1|2|
         > EXISTS h
         < :0|
         > HGETDEL h FIELDS 1 b
         < *1|$-1|
         > HGETDEL h a b c
         < -ERR syntax error|",
    );
}

#[test]
fn hsetex() {
    Session::new().transcript(
        "> HSETEX h FXX EX 10 FIELDS 1 a 1
         < :0|
         > HSETEX h XX EX 10 FIELDS 1 a 1
         < :0|
         > EXISTS h
         < :0|
         > HSETEX h FNX EX 100 FIELDS 2 a 1 b 2
         < :1|
         > HTTL h FIELDS 2 a b
         < *2|:100|:100|
         > HSETEX h FNX FIELDS 2 a 1 c 2
         < :0|
         > HSETEX h FXX KEEPTTL FIELDS 1 a 3
         < :1|
         > HTTL h FIELDS 1 a
         < *1|:100|
         > HSETEX h NX FIELDS 1 a 3
         < :0|
         > HSETEX h FIELDS 1 a 4
         < :1|
         > HTTL h FIELDS 1 a
         < *1|:-1|
         > HGETALL h
         < *4|$1|a|$1|4|$1|b|$1|2|
         > HSETEX h PX 0 FIELDS 3 a 1 b 2 c 3
         < :1|
         > EXISTS h
         < :0|
         > HSETEX h FNX FXX FIELDS 1 a 1
         < -ERR syntax error|
         > HSETEX h EX 10 KEEPTTL FIELDS 1 a 1
         < -ERR syntax error|
         > HSETEX h PERSIST FIELDS 1 a 1
         < -ERR syntax error|
         > HSETEX h EX -1 FIELDS 1 a 1
         < -ERR invalid expire time in 'hsetex' command|
         > HSETEX h EX x FIELDS 1 a 1
         < -ERR value is not an integer or out of range|",
    );
}
