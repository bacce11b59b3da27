//! Payloads of a real Redis, of this writer, and malicious ones.

use super::*;
use proptest::prelude::*;
use std::borrow::Cow;

/// Replies of DUMP on Redis 7.0.15, with the commands that stored the values.
const OF_REDIS: &[(&[u8], &[u8])] = &[
    (b"hello", b"\0\x05hello\x0a\0cr\xdfve4 \x0a"),
    (b"", b"\0\0\x0a\0]\x9b\\@\x0f\x7f\xa2\xda"),
    (b"-7", b"\0\xc0\xf9\x0a\0^&\xd10\xd7\xa2B\xab"),
    (b"-300", b"\0\xc1\xd4\xfe\x0a\0\xc6\xc4\x86#\xfe\xbe\xde."),
    (b"100000", b"\0\xc2\xa0\x86\x01\0\x0a\0\xf1$\x03Po/\xa6t"),
    (b"2147483648", b"\0\x0a2147483648\x0a\0\xe7\xb1)\xa3L\x1dv\xee"),
];

/// `abcde` twenty times, compressed.
const COMPRESSED: &[u8] = b"\0\xc3\x0d@d\x05abcdea\xe0S\x04\x01de\x0a\0H\x03\xed\xa0\x13>\xba_";
/// RPUSH k a 1 ""
const QUICKLIST: &[u8] =
    b"\x12\x01\x02\x0e\x0e\0\0\0\x03\0\x81a\x02\x01\x01\x80\x01\xff\x0a\0\x0f\xe8\xa2 \xc3\xa5\x1e\xc0";
/// SADD k 1 2 -3
const INTSET: &[u8] = b"\x0b\x0e\x02\0\0\0\x03\0\0\0\xfd\xff\x01\0\x02\0\x0a\0\xd1\xb7\x8e\xd9\xbc\x07\xc2\x7f";
/// SADD k 1099511627776 -5
const INTSET_WIDE: &[u8] =
    b"\x0b\x18\x08\0\0\0\x02\0\0\0\xfb\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\x01\0\0\x0a\0\xa7\xd6B\x12\xf1^\xb7f";
/// SADD k bc a 1
const SET: &[u8] = b"\x02\x03\x02bc\x01a\xc0\x01\x0a\0Ua\xf8q\x0d<WX";
/// HSET k f v n 500
const HASH_LISTPACK: &[u8] =
    b"\x10\x13\x13\0\0\0\x04\0\x81f\x02\x81v\x02\x81n\x02\xc1\xf4\x02\xff\x0a\0\x85\x8323\x18\x19\x8eg";
const HASH: &[u8] = b"\x04\x02\x01n\xc1\xf4\x01\x01f\x01v\x0a\0\xa2\x82\xe5\xe4\xc7O\xa0\x98";
/// ZADD k 1.5 a -inf b 3 c
const SORTED_SET_LISTPACK: &[u8] = b"\x11\x1d\x1d\0\0\0\x06\0\x81b\x02\x84-inf\x05\x81a\x02\x831.5\x04\x81c\x02\x03\x01\xff\x0a\0)p\xc5\x8f\xcd\xe6\xfc1";
const SORTED_SET: &[u8] =
    b"\x05\x03\x01c\0\0\0\0\0\0\x08@\x01a\0\0\0\0\0\0\xf8?\x01b\0\0\0\0\0\0\xf0\xff\x0a\0\x9a\xa2S%a\x0c\xea\xfb";

/// Parses a payload with memory to spare.
fn read(payload: &[u8]) -> Result<Dumped<'_>, BadDump> {
    super::read(payload, 64 << 20)
}

/// A dump of 182 KB made the server hold more than a gigabyte: what is compressed, or packed, may be thousands of times
/// smaller than the elements built of it.
#[test]
fn what_is_built_takes_no_more_than_allowed() {
    // A listpack of zeros, two bytes each, compressed to three bytes per 264.
    let entries = 400_000_usize;
    let listpack_bytes = 6 + 2 * entries + 1;
    let mut compressed = Vec::new();
    let header = (listpack_bytes as u32).to_le_bytes();
    compressed.extend_from_slice(&[7, header[0], header[1], header[2], header[3], 0xff, 0xff, 0, 1]);
    let mut left = 2 * (entries - 1);
    while left > 0 {
        let length = match left {
            ..=264 => left,
            _ if left - 264 < 9 => left - 20,
            _ => 264,
        };
        match length {
            0..9 => compressed.extend_from_slice(&[((length - 2) << 5) as u8, 1]),
            _ => compressed.extend_from_slice(&[0xe0, (length - 9) as u8, 1]),
        }
        left -= length;
    }
    compressed.extend_from_slice(&[0, 0xff]);
    let long = |length: usize| [&[0x80][..], &(length as u32).to_be_bytes()].concat();
    let listpack = [&[0xc3][..], &long(compressed.len()), &long(listpack_bytes), &compressed].concat();
    let payload = sealed(&[&[0x12, 1, 2][..], &listpack].concat());
    assert!(payload.len() < 10_000, "{}", payload.len());
    assert_eq!(super::read(&payload, 32 << 20), Err(BadDump::TooLarge));
    assert_eq!(super::read(&payload, 500_000), Err(BadDump::TooLarge), "nor is it decompressed");
    let Ok(Dumped::List(elements)) = super::read(&payload, 64 << 20) else { panic!("a list") };
    assert_eq!((elements.len(), &elements[entries - 1][..]), (entries, &b"0"[..]));

    // Uncompressed elements and integers have the same bound.
    let plain = sealed(&[&[2][..], &long(100_000), &[0; 100_000]].concat());
    assert_eq!(super::read(&plain, 1 << 20), Err(BadDump::TooLarge));
    let integers: Vec<u8> = (0..10_000_u16).flat_map(u16::to_le_bytes).collect();
    let intset = [&[2, 0, 0, 0][..], &10_000_u32.to_le_bytes(), &integers].concat();
    let intset = sealed(&[&[11][..], &long(intset.len()), &intset].concat());
    assert_eq!(super::read(&intset, 100_000), Err(BadDump::TooLarge));
    assert!(super::read(&intset, 10 << 20).is_ok());
}

fn cow(text: &str) -> Cow<'_, [u8]> {
    Cow::Borrowed(text.as_bytes())
}

/// A payload of an encoded value.
fn sealed(value: &[u8]) -> Vec<u8> {
    Writer { payload: value.to_vec(), crc: 0 }.finish()
}

fn begun(kind: Kind) -> Writer {
    let mut writer = Writer::continued(0);
    writer.kind(kind);
    writer
}

/// The payload of a value, in the plain types.
fn written(dumped: &Dumped) -> Vec<u8> {
    let mut writer;
    match dumped {
        Dumped::String(string) => {
            writer = begun(Kind::String);
            writer.string(string);
        }
        Dumped::List(elements) => {
            writer = begun(Kind::List);
            writer.length(elements.len());
            elements.iter().for_each(|element| writer.string(element));
        }
        Dumped::Set(members) => {
            writer = begun(Kind::Set);
            writer.length(members.len());
            members.iter().for_each(|member| writer.string(member));
        }
        Dumped::SortedSet(members) => {
            writer = begun(Kind::SortedSet);
            writer.length(members.len());
            for (member, score) in members {
                writer.string(member);
                writer.score(*score);
            }
        }
        Dumped::Hash(fields) => {
            writer = begun(Kind::Hash);
            writer.length(fields.len());
            for (field, value) in fields {
                writer.string(field);
                writer.string(value);
            }
        }
    }
    writer.finish()
}

#[test]
fn strings_are_those_of_redis() {
    for &(string, payload) in OF_REDIS {
        let dumped = Dumped::String(Cow::Borrowed(string));
        assert_eq!(read(payload), Ok(dumped.clone()));
        assert_eq!(written(&dumped), payload);
    }
    assert_eq!(read(COMPRESSED), Ok(Dumped::String(cow(&"abcde".repeat(20)))));
}

#[test]
fn collections_are_those_of_redis() {
    let list = Dumped::List(vec![cow("a"), cow("1"), cow("")]);
    assert_eq!(read(QUICKLIST), Ok(list));
    assert_eq!(read(INTSET), Ok(Dumped::Set(vec![cow("-3"), cow("1"), cow("2")])));
    assert_eq!(read(INTSET_WIDE), Ok(Dumped::Set(vec![cow("-5"), cow("1099511627776")])));
    assert_eq!(read(HASH_LISTPACK), Ok(Dumped::Hash(vec![(cow("f"), cow("v")), (cow("n"), cow("500"))])));
    let members = vec![(cow("b"), f64::NEG_INFINITY), (cow("a"), 1.5), (cow("c"), 3.0)];
    assert_eq!(read(SORTED_SET_LISTPACK), Ok(Dumped::SortedSet(members)));

    for (dumped, payload) in [
        (Dumped::Set(vec![cow("bc"), cow("a"), cow("1")]), SET),
        (Dumped::Hash(vec![(cow("n"), cow("500")), (cow("f"), cow("v"))]), HASH),
        (Dumped::SortedSet(vec![(cow("c"), 3.0), (cow("a"), 1.5), (cow("b"), f64::NEG_INFINITY)]), SORTED_SET),
    ] {
        assert_eq!(read(payload), Ok(dumped.clone()));
        assert_eq!(written(&dumped), payload);
    }
}

/// Payloads of servers from 7.2 on, and lists whose nodes are single elements, empty, or compressed.
#[test]
fn types_that_this_redis_does_not_write() {
    let set = sealed(b"\x14\x0d\x0d\0\0\0\x02\0\x81a\x02\x81b\x02\xff");
    assert_eq!(read(&set), Ok(Dumped::Set(vec![cow("a"), cow("b")])));
    let list =
        sealed(b"\x12\x03\x01\x03xyz\x02\x07\x07\0\0\0\0\0\xff\x02\xc3\x0b\x0a\x09\x0a\0\0\0\x01\0\x81a\x02\xff");
    assert_eq!(read(&list), Ok(Dumped::List(vec![cow("xyz"), cow("a")])));
}

#[test]
fn what_is_borrowed() {
    assert!(matches!(read(OF_REDIS[0].1), Ok(Dumped::String(Cow::Borrowed(_)))));
    assert!(matches!(read(COMPRESSED), Ok(Dumped::String(Cow::Owned(_)))));
    let Ok(Dumped::List(elements)) = read(QUICKLIST) else { panic!("a list") };
    assert!(matches!(elements[..], [Cow::Borrowed(b"a"), Cow::Owned(_), Cow::Borrowed(b"")]));
}

#[test]
fn lengths_of_each_width() {
    for length in [0, 1, 63, 64, 16_383, 16_384, 100_000] {
        let dumped = Dumped::String(Cow::Owned(vec![b'x'; length]));
        assert_eq!(read(&written(&dumped)), Ok(dumped));
    }
    assert_eq!(read(&sealed(b"\0\x81\0\0\0\0\0\0\0\x02ab")), Ok(Dumped::String(cow("ab"))));
    let mut writer = begun(Kind::List);
    writer.length(1 << 32);
    assert_eq!(writer.payload, b"\x01\x81\0\0\0\x01\0\0\0\0");
}

#[test]
fn footers() {
    let payload = OF_REDIS[0].1;
    for length in 0..payload.len() {
        assert_eq!(read(&payload[..length]), Err(BadDump::Footer));
    }
    for at in 0..payload.len() {
        let mut damaged = payload.to_vec();
        damaged[at] ^= 1;
        assert_eq!(read(&damaged), Err(BadDump::Footer));
    }
    for (version, expected) in
        [(6, Ok(Dumped::String(cow("x")))), (12, Ok(Dumped::String(cow("x")))), (13, Err(BadDump::Footer))]
    {
        let mut payload = vec![0, 1, b'x', version, 0];
        payload.extend_from_slice(&CRC.checksum(&payload).to_le_bytes());
        assert_eq!(read(&payload), expected);
    }
    assert_eq!(read(&sealed(b"")), Err(BadDump::Format));
}

#[test]
fn types_that_are_refused() {
    for kind in (0..=255).filter(|kind| ![0, 1, 2, 4, 5, 11, 16, 17, 18, 20].contains(kind)) {
        assert_eq!(read(&sealed(&[kind, 0])), Err(BadDump::Type(kind)));
    }
}

#[test]
fn values_that_are_refused() {
    for (value, story) in [
        (&b"\0\x02a"[..], "a string that ends early"),
        (b"\0\x01ab", "something after the value"),
        (b"\0\x82a", "no length"),
        (b"\0\xc4", "no encoding"),
        (b"\0\xc2\0\0\0", "half an integer"),
        (b"\0\x81\xff\xff\xff\xff\xff\xff\xff\xff", "a length beyond everything"),
        (b"\0\xc3\x05\x81\xff\xff\xff\xff\xff\xff\xff\xff\0a\xe0\xff\0", "a decompressed length beyond everything"),
        (b"\0\xc3\x05\x80\x20\0\0\x01\0a\xe0\xff\0", "more than 512 MiB"),
        (b"\0\xc3\x02\x02\0a", "a wrong decompressed length"),
        (b"\x01\0", "an empty list"),
        (b"\x02\0", "an empty set"),
        (b"\x04\0", "an empty hash"),
        (b"\x05\0", "an empty sorted set"),
        (b"\x01\x81\x7f\xff\xff\xff\xff\xff\xff\xff", "a list without its elements"),
        (b"\x01\xc0\x01\x01a", "an encoded number of elements"),
        (b"\x02\x02\x01a\x01a", "a member twice"),
        (b"\x02\x02\x011\xc0\x01", "a member twice, once as an integer"),
        (b"\x04\x02\x01a\x01b\x01a\x01c", "a field twice"),
        (b"\x05\x01\x01a\0\0\0\0\0\0\xf8\x7f", "a score that is no number"),
        (b"\x0b\x08\x02\0\0\0\0\0\0\0", "no integers"),
        (b"\x0b\x0a\x03\0\0\0\x01\0\0\0\0\0", "integers of three bytes"),
        (b"\x0b\x0c\x02\0\0\0\x02\0\0\0\x01\0\x01\0", "an integer twice"),
        (b"\x0b\x0c\x02\0\0\0\x02\0\0\0\x01\0\0\0", "integers in the wrong order"),
        (b"\x0b\x0a\x08\0\0\0\xff\xff\xff\xff\0\0", "integers that are not there"),
        (b"\x10\x0a\x0a\0\0\0\x01\0\x81a\x02\xff", "a field without a value"),
        (b"\x11\x0d\x0d\0\0\0\x02\0\x81a\x02\x81b\x02\xff", "a score that is a letter"),
        (b"\x12\x01\x03\x07\x07\0\0\0\0\0\xff", "a node that is neither"),
        (b"\x12\x01\x02\x07\x07\0\0\0\0\0\xff", "a list of an empty node"),
        (b"\x12\x01\x02\x01a", "a node that is no listpack"),
    ] {
        assert_eq!(read(&sealed(value)), Err(BadDump::Format), "{story}");
    }
}

fn any_dumped() -> impl Strategy<Value = Dumped<'static>> {
    fn string() -> impl Strategy<Value = Cow<'static, [u8]>> {
        let bytes = prop_oneof![any::<Vec<u8>>(), any::<i64>().prop_map(|integer| integer.to_string().into_bytes())];
        bytes.prop_map(Cow::Owned)
    }
    let score = any::<f64>().prop_filter("a number", |score| !score.is_nan());
    prop_oneof![
        string().prop_map(Dumped::String),
        prop::collection::vec(string(), 1..20).prop_map(Dumped::List),
        prop::collection::btree_set(string(), 1..20).prop_map(|set| Dumped::Set(set.into_iter().collect())),
        prop::collection::btree_map(string(), score, 1..20)
            .prop_map(|map| Dumped::SortedSet(map.into_iter().collect())),
        prop::collection::btree_map(string(), string(), 1..20).prop_map(|map| Dumped::Hash(map.into_iter().collect())),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(dumped in any_dumped()) {
        let payload = written(&dumped);
        prop_assert_eq!(read(&payload), Ok(dumped));
    }

    #[test]
    fn any_bytes_are_fine(kind in 0u8..21, value: Vec<u8>) {
        let _ = read(&value);
        let _ = read(&sealed(&[&[kind][..], &value].concat()));
    }

    /// Corruption that the CRC does not detect is rejected, or yields another value.
    #[test]
    fn damaged_payloads_are_fine(
        which in 0..10usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
    ) {
        let payload = [
            COMPRESSED, QUICKLIST, INTSET, INTSET_WIDE, SET, HASH_LISTPACK, HASH, SORTED_SET_LISTPACK, SORTED_SET,
            OF_REDIS[4].1,
        ][which];
        let mut value = payload[..payload.len() - FOOTER_BYTES].to_vec();
        for (at, byte) in damage {
            *at.get_mut(&mut value) = byte;
        }
        for value in [&value[..], &value[..cut.index(value.len())]] {
            if let Ok(dumped) = read(&sealed(value)) {
                let again = written(&dumped);
                prop_assert_eq!(read(&again), Ok(dumped));
            }
        }
    }
}

#[test]
fn a_payload_may_be_taken_piece_by_piece() {
    let whole = written(&Dumped::List((0..100).map(|n| cow(["one", "two", "-7"][n % 3])).collect()));
    let (mut pieces, mut crc) = (Vec::new(), 0);
    for piece in whole[..whole.len() - FOOTER_BYTES].chunks(17) {
        let mut writer = Writer::continued(crc);
        writer.bytes(piece);
        let (bytes, next) = writer.take();
        pieces.extend(bytes);
        crc = next;
    }
    pieces.extend(Writer::continued(crc).finish());
    assert_eq!(pieces, whole);
}
