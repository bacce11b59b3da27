//! Bits of strings, and integers within them.

use super::Session;
use proptest::prelude::*;

#[test]
fn single_bits() {
    Session::new().transcript(
        "> SETBIT k 7 1
         < :0|
         > SETBIT k 7 0
         < :1|
         > GETBIT k 7
         < :0|
         > GETBIT k 100
         < :0|
         > GETBIT none 0
         < :0|
         > SETBIT k 17 1
         < :0|
         > STRLEN k
         < :3|
         > SETBIT k 30 0
         < :0|
         > STRLEN k
         < :4|
         > BITCOUNT k
         < :1|
         > SETBIT k 0 2
         < -ERR bit is not an integer or out of range|
         > SETBIT k x 1
         < -ERR bit offset is not an integer or out of range|
         > SETBIT k -1 1
         < -ERR bit offset is not an integer or out of range|
         > SETBIT k 4294967296 1
         < -ERR bit offset is not an integer or out of range|
         > GETBIT k #1
         < -ERR bit offset is not an integer or out of range|",
    );
}

#[test]
fn time_to_live_stays() {
    Session::new().transcript(
        "> SET k a EX 100
         < +OK|
         > SETBIT k 6 1
         < :0|
         > GET k
         < $1|c|
         > SETBIT k 31 1
         < :0|
         > BITFIELD k SET u8 #4 1
         < *1|:0|
         > TTL k
         < :100|",
    );
}

#[test]
fn parts() {
    Session::new().transcript(
        "> SET k foobar
         < +OK|
         > BITCOUNT k
         < :26|
         > BITCOUNT k 0 0
         < :4|
         > BITCOUNT k 1
         < :22|
         > BITCOUNT k 1 1 BYTE
         < :6|
         > BITCOUNT k 5 30 bit
         < :17|
         > BITCOUNT k -1 -100
         < :0|
         > BITCOUNT k 9 10
         < :0|
         > BITCOUNT none
         < :0|
         > BITCOUNT none 0 x
         < -ERR value is not an integer or out of range|
         > BITCOUNT k 0 1 WORD
         < -ERR syntax error|
         > BITCOUNT k 0 1 BIT x
         < -ERR syntax error|
         > BITPOS k 1
         < :1|
         > BITPOS k 0
         < :0|
         > BITPOS k 1 2
         < :17|
         > BITPOS k 1 8 11 BIT
         < :9|
         > BITPOS k 1 12 11 BIT
         < :-1|
         > BITPOS k 1 100
         < :-1|
         > BITPOS none 1
         < :-1|
         > BITPOS none 0
         < :0|
         > BITPOS none 0 1 hello
         < -ERR value is not an integer or out of range|
         > BITPOS k 2
         < -ERR The bit argument must be 1 or 0.|
         > BITPOS k x
         < -ERR value is not an integer or out of range|
         > BITPOS k 0 0 1 WORD
         < -ERR syntax error|",
    );
    let mut session = Session::new();
    session.send(&[b"SET", b"k", b"\xff\xff\xff"]);
    session.transcript(
        "> BITPOS k 0
         < :24|
         > BITPOS k 0 1
         < :24|
         > BITPOS k 0 0 -1
         < :-1|
         > BITPOS k 0 0 -1 BIT
         < :-1|",
    );
}

#[test]
fn integers() {
    Session::new().transcript(
        "> BITFIELD k SET u8 0 255 GET u8 0
         < *2|:0|:255|
         > BITFIELD k INCRBY u8 0 10
         < *1|:9|
         > BITFIELD k OVERFLOW SAT INCRBY u8 0 250
         < *1|:255|
         > BITFIELD k OVERFLOW SAT INCRBY u8 0 -300
         < *1|:0|
         > BITFIELD k OVERFLOW FAIL INCRBY u8 0 -1 GET u8 0
         < *2|$-1|:0|
         > BITFIELD k SET i8 #1 -100 INCRBY i8 #1 -100 OVERFLOW SAT INCRBY i8 #1 100
         < *3|:0|:56|:127|
         > BITFIELD k SET u8 0 -1 GET u8 0 OVERFLOW SAT SET u8 0 -1 GET u8 0
         < *4|:0|:255|:255|:255|
         > BITFIELD k SET i64 3 -9223372036854775808 GET i64 3 INCRBY i64 3 -1
         < *3|:-290482175965396992|:-9223372036854775808|:9223372036854775807|
         > BITFIELD none GET u8 0
         < *1|:0|
         > EXISTS none
         < :0|
         > BITFIELD k
         < *0|
         > BITFIELD k GET u64 0
         < -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.|
         > BITFIELD k GET i65 0
         < -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.|
         > BITFIELD k GET u8 x
         < -ERR bit offset is not an integer or out of range|
         > BITFIELD k GET u8
         < -ERR syntax error|
         > BITFIELD k SET u8 0 x
         < -ERR value is not an integer or out of range|
         > BITFIELD k OVERFLOW MAYBE
         < -ERR Invalid OVERFLOW type specified|
         > BITFIELD_RO k SET u8 0 1
         < -ERR BITFIELD_RO only supports the GET subcommand|
         > BITFIELD_RO k GET u8 0
         < *1|:239|",
    );
    Session::resp3().transcript(
        "> BITFIELD k OVERFLOW FAIL SET u2 0 9
         < *1|_|",
    );
}

#[test]
fn other_types_are_refused() {
    let mut session = Session::new();
    session.line("RPUSH k v");
    for line in [
        "SETBIT k 0 1",
        "GETBIT k 0",
        "BITCOUNT k",
        "BITPOS k 0",
        "BITFIELD k GET u8 0",
        "BITFIELD k SET u8 0 1",
        "BITFIELD_RO k GET u8 0",
    ] {
        let expected = "-WRONGTYPE Operation against a key holding the wrong kind of value|";
        assert_eq!(session.line(line), expected, "{line}");
    }
}

/// A string that is stored in several pieces.
#[test]
fn long_strings() {
    let mut session = Session::new();
    session.send(&[b"SET", b"k", &[0; 200_000]]);
    for at in [0_u32, 7, 131_071, 131_072, 800_005, 1_599_999] {
        assert_eq!(session.line(&format!("SETBIT k {at} 1")), ":0|");
        assert_eq!(session.line(&format!("GETBIT k {at}")), ":1|");
        assert_eq!(session.line("BITCOUNT k"), ":1|");
        assert_eq!(session.line("BITPOS k 1"), format!(":{at}|"));
        let (before, after) = (i64::from(at) - 1, at + 1);
        if before >= 0 {
            assert_eq!(session.line(&format!("BITCOUNT k 0 {before} BIT")), ":0|");
            assert_eq!(session.line(&format!("BITPOS k 1 0 {before} BIT")), ":-1|");
        }
        assert_eq!(session.line(&format!("BITCOUNT k {after} 1599999 BIT")), ":0|");
        assert_eq!(session.line(&format!("BITFIELD k GET u63 {at}")), format!("*1|:{}|", 1_u64 << 62));
        assert_eq!(session.line(&format!("BITFIELD k SET u1 {at} 0")), "*1|:1|");
    }
    assert_eq!(session.line("STRLEN k"), ":200000|");
}

/// A naive model of the bits in a range: the position and value of each.
fn model(value: &[u8], start: i64, end: i64, unit: i64) -> Vec<(i64, u8)> {
    let total = value.len() as i64 * 8 / unit;
    let index = |n: i64| if n < 0 { (total + n).max(0) } else { n };
    let bits = (index(start) * unit).min(total * unit)..((index(end) + 1) * unit).min(total * unit);
    bits.map(|n| (n, value[n as usize / 8] >> (7 - n % 8) & 1)).collect()
}

proptest! {
    #[test]
    fn counts_and_positions(
        value in prop::collection::vec(prop_oneof![Just(0_u8), Just(0xff), any::<u8>()], 1..40),
        start in -50..50_i64,
        end in -50..50_i64,
        bits: bool,
    ) {
        let mut session = Session::new();
        session.send(&[b"SET", b"k", &value]);
        let (name, unit) = if bits { ("BIT", 1) } else { ("BYTE", 8) };
        let seen = model(&value, start, end, unit);
        if !(start < 0 && end < 0 && start > end) {
            let count = seen.iter().filter(|&&(_, bit)| bit == 1).count();
            prop_assert_eq!(session.line(&format!("BITCOUNT k {start} {end} {name}")), format!(":{count}|"));
        }
        for wanted in [0, 1] {
            let at = seen.iter().find(|&&(_, bit)| bit == wanted).map_or(-1, |&(n, _)| n);
            prop_assert_eq!(session.line(&format!("BITPOS k {wanted} {start} {end} {name}")), format!(":{at}|"));
        }
    }

    #[test]
    fn integers_of_any_width(
        value in prop::collection::vec(any::<u8>(), 30),
        offset in 0..170_usize,
        width in 1..=63_usize,
        number: u64,
    ) {
        let mut session = Session::new();
        session.send(&[b"SET", b"k", &value]);
        let number = number & ((1 << width) - 1);
        let read = |value: &[u8]| {
            (offset..offset + width).fold(0_u64, |n, at| n << 1 | u64::from(value[at / 8] >> (7 - at % 8) & 1))
        };
        let reply = session.line(&format!("BITFIELD k SET u{width} {offset} {number} GET u{width} {offset}"));
        prop_assert_eq!(reply, format!("*2|:{}|:{number}|", read(&value)));
        let mut expected = value;
        for n in 0..width {
            let (at, bit) = (offset + n, (number >> (width - 1 - n) & 1) as u8);
            expected[at / 8] = expected[at / 8] & !(0x80 >> (at % 8)) | bit << (7 - at % 8);
        }
        prop_assert_eq!(session.send(&[b"GET", b"k"]), [b"$30\r\n", &expected[..], b"\r\n"].concat());
    }
}
