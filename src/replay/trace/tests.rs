//! Traces survive writing and parsing, and arbitrary bytes cause nothing worse than an error.

use super::*;
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

const TIME: u32 = 1;
const SIZE: u32 = 2;
const TTL: u32 = 4;
const OP: u32 = 8;
const SIZE_PER_KEY: u32 = 16;
const TTL_PER_KEY: u32 = 32;

fn compressed(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// A column of requests.
type Number = fn(&Request) -> u32;

/// A file of these requests, with the columns that `flags` select.
fn ctr(requests: &[Request], flags: u32) -> Vec<u8> {
    let distinct = requests.iter().map(|r| r.key).max().map_or(0, |most| most + 1);
    let mut file = b"CTR1".to_vec();
    let mut word = |n: u32| file.extend(n.to_le_bytes());
    [flags, requests.len() as u32, 0, distinct, 77, 0, 0].into_iter().for_each(&mut word);
    let mut last = 0;
    for request in requests {
        word(request.key.wrapping_sub(std::mem::replace(&mut last, request.key)));
    }
    if flags & TIME != 0 {
        let mut last = 0;
        for request in requests {
            let seconds = request.at_ms / 1000 + 5;
            word((seconds - std::mem::replace(&mut last, seconds)) as u32);
        }
    }
    let numbers: [(u32, u32, Number); 2] =
        [(SIZE, SIZE_PER_KEY, |r| r.size_bytes), (TTL, TTL_PER_KEY, |r| r.ttl_seconds)];
    for (flag, per_key, number) in numbers {
        if flags & flag == 0 {
            continue;
        }
        if flags & per_key != 0 {
            (0..distinct).for_each(|key| word(requests.iter().find(|r| r.key == key).map_or(0, number)));
        } else {
            requests.iter().for_each(|r| word(number(r)));
        }
    }
    if flags & OP != 0 {
        file.extend(requests.iter().map(|r| r.op as u8));
    }
    file
}

fn csv(requests: &[Request]) -> String {
    let op = |op| ["get", "set", "delete"][op as usize];
    let line =
        |r: &Request| format!("{},k{},{},{},{}\n", r.at_ms / 1000 + 5, r.key, r.size_bytes, r.ttl_seconds, op(r.op));
    requests.iter().map(line).collect()
}

/// Requests whose keys are numbered in order of appearance; size and TTL are per key.
fn requests() -> impl Strategy<Value = Vec<Request>> {
    let op = prop_oneof![Just(Op::Get), Just(Op::Set), Just(Op::Delete)];
    prop::collection::vec((0..20_u32, 0..3_u64, op), 1..60).prop_map(|drawn| {
        let (mut numbers, mut now) = (Vec::new(), 0);
        let request = |(drawn, seconds, op)| {
            let key = numbers.iter().position(|&n| n == drawn).unwrap_or_else(|| {
                numbers.push(drawn);
                numbers.len() - 1
            });
            let at_ms = if numbers.len() == 1 { 0 } else { now + seconds * 1000 };
            now = at_ms;
            Request { key: key as u32, at_ms, size_bytes: drawn * 1000, ttl_seconds: drawn % 4, op }
        };
        drawn.into_iter().map(request).collect()
    })
}

/// The requests, normalised where the format omits a column.
fn known(requests: impl IntoIterator<Item = Request>, flags: u32) -> Vec<Request> {
    let has = |flag| flags & flag != 0;
    let known = |r: Request| Request {
        at_ms: 0,
        size_bytes: if has(SIZE) { r.size_bytes } else { 77 },
        ttl_seconds: if has(TTL) { r.ttl_seconds } else { 0 },
        op: if has(OP) { r.op } else { Op::Get },
        ..r
    };
    requests.into_iter().map(known).collect()
}

fn times(requests: impl IntoIterator<Item = Request>) -> Vec<u64> {
    requests.into_iter().map(|r| r.at_ms).collect()
}

proptest! {
    #[test]
    fn columns_read_back(requests in requests(), flags in 0..64_u32) {
        let file = ctr(&requests, flags);
        let trace = parse(&file).unwrap();
        prop_assert_eq!(known(trace.requests(), flags), known(requests.clone(), flags));
        let steps = flags & TIME == 0 || requests.iter().all(|r| r.at_ms == 0);
        let expected = if steps { (0..requests.len() as u64).collect() } else { times(requests) };
        prop_assert_eq!(times(trace.requests()), expected);
        prop_assert_eq!(parse(&compressed(&file)).unwrap(), trace);
    }

    #[test]
    fn lines_read_back(requests in requests()) {
        let trace = parse(csv(&requests).as_bytes()).unwrap();
        prop_assert_eq!(known(trace.requests(), u32::MAX), known(requests.clone(), u32::MAX));
        for request in requests {
            let mut number = [0; 8];
            let expected = format!("k{}", request.key);
            prop_assert_eq!(trace.key(request.key, &mut number), expected.as_bytes());
        }
    }

    #[test]
    fn what_is_cut_off_is_refused(requests in requests(), flags in 0..64_u32, part in 0.0..1.0_f64) {
        let file = ctr(&requests, flags);
        let cut = |file: &[u8]| parse(&file[..(file.len() as f64 * part) as usize]);
        prop_assert!(cut(&file).is_err());
        prop_assert!(cut(&compressed(&file)).is_err());
    }

    #[test]
    fn nothing_panics(
        requests in requests(),
        flags in 0..64_u32,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let file = ctr(&requests, flags);
        for mut changed in [compressed(&file), file, csv(&requests).into_bytes()] {
            for (at, byte) in &changes {
                *at.get_mut(&mut changed) = *byte;
            }
            if let Ok(trace) = parse(&changed) {
                prop_assert_eq!(trace.requests().count(), trace.len());
                prop_assert!(trace.requests().all(|r| r.key < trace.distinct()));
                trace.footprint_bytes(1);
            }
        }
        let _ = (parse(&noise), parse(&[b"CTR1", noise.as_slice()].concat()), parse(&[ZSTD_MAGIC, &noise].concat()));
    }
}

/// A header with these numbers of requests and keys, followed by these columns.
fn header(flags: u32, requests: u64, distinct: u32, columns: &[u8]) -> Vec<u8> {
    let words = [flags, requests as u32, (requests >> 32) as u32, distinct, 1, 0, 0];
    let words: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    [b"CTR1", words.as_slice(), columns].concat()
}

fn error(file: &[u8]) -> String {
    parse(file).expect_err("it is wrong").to_string()
}

#[test]
fn counts_are_checked_before_anything_is_reserved() {
    assert!(error(&header(0, u64::MAX, 1, &[0; 4])).contains("do not fit into 36 bytes"));
    assert!(error(&header(0, 1, u32::MAX, &[0; 4])).contains("distinct keys in 1 requests; allowed: 1 to 1"));
    assert!(error(&header(TIME | OP, 2, 1, &[0; 8])).contains("40 bytes where the header says 50"));
    assert!(error(&header(64, 1, 1, &[0; 4])).contains("flags 0x40"));
    assert_eq!(error(&header(0, 0, 0, &[])), "no requests");
    assert_eq!(error(b"CTR1"), "CTR1: 4 bytes are less than a header of 32");
}

#[test]
fn keys_and_ops_are_checked() {
    let steps = |steps: [i32; 2]| steps.map(i32::to_le_bytes).concat();
    assert!(error(&header(0, 2, 2, &steps([0, 2]))).contains("request 1 has key 2; allowed: 0 to 1"));
    assert!(error(&header(0, 2, 2, &steps([-1, 1]))).contains("request 0 has key -1"));
    assert!(error(&header(OP, 1, 1, &[0, 0, 0, 0, 3])).contains("request 0 has op 3; allowed: 0 get"));
}

#[test]
fn a_corrupted_frame_is_refused() {
    let mut file =
        compressed(csv(&[Request { key: 0, at_ms: 0, size_bytes: 9, ttl_seconds: 0, op: Op::Get }]).as_bytes());
    *file.last_mut().unwrap() ^= 1;
    assert_eq!(error(&file), "zstd: the checksum is not that of the content");
}

#[test]
fn frames_follow_each_other() {
    let file = [compressed(b"0,a,100\n"), compressed(b"1,b,200\n")].concat();
    assert_eq!(parse(&file).unwrap(), parse(b"0,a,100\n1,b,200\n").unwrap());
}

#[test]
fn more_than_the_limit_is_refused() {
    let content = |bytes_max| decompress(&compressed(&vec![7; 3 << 20]), bytes_max).map(|content| content.len());
    assert_eq!(content(3 << 20), Ok(3 << 20));
    assert_eq!(content((3 << 20) - 1), Err(TraceError::TooLong));
    assert_eq!(content(0), Err(TraceError::TooLong));
}

#[test]
fn lines_and_what_is_wrong_with_them() {
    let one = |line: &str| error(format!("# a comment\ntime,key,size,ttl\n\n{line}\n").as_bytes());
    assert!(one("1,a").starts_with("line 4: \"1,a\" has too few columns; allowed: time,key,size"));
    assert!(one("1,a,2,3,get,5").contains("too many columns"));
    assert!(one("x,a,2").contains("time \"x\"; allowed: seconds"));
    assert!(one("-1,a,2").contains("time \"-1\""));
    assert!(one("99999999999999999999,a,2").contains("time"));
    assert!(one("1,,2").contains("key \"\" of 0 bytes; allowed: 1 to 3900"));
    assert!(one(&format!("1,{},2", "k".repeat(3901))).contains("of 3901 bytes"));
    assert!(one("1,a,-2").contains("size \"-2\"; allowed: bytes, 0 to 4294967295"));
    assert!(one("1,a,4294967296").contains("size"));
    assert!(one("1,a,2,soon").contains("ttl \"soon\""));
    assert!(one("1,a,2,3,touch").contains("op \"touch\"; allowed: get, set, delete"));
    assert!(one("time,key,size").contains("line 4: time \"time\""), "only the first line names columns");
    assert!(error(b"key,time,size\n").contains("line 1: time \"key\""));
    assert_eq!(error(b"# nothing\n"), "no requests");
    assert_eq!(error(b""), "no requests");
}

#[test]
fn a_line_may_say_less() {
    let trace =
        parse(b"time, key, size, ttl, op\r\n1.5,a,300\r\n1.7504,b,400,60\r\n1,a,300,,DELETE\r\n2,a,5,0,1").unwrap();
    let request = |key, at_ms, size_bytes, ttl_seconds, op| Request { key, at_ms, size_bytes, ttl_seconds, op };
    let expected = [
        request(0, 0, 300, 0, Op::Get),
        request(1, 250, 400, 60, Op::Get),
        request(0, 250, 300, 0, Op::Delete), // its clock stepped back
        request(0, 500, 5, 0, Op::Set),
    ];
    assert_eq!(trace.requests().collect::<Vec<_>>(), expected);
    assert_eq!((trace.distinct(), trace.footprint_bytes(1)), (2, 700));
    // A key is never shortened.
    assert_eq!((trace.footprint_bytes(100), trace.footprint_bytes(1000)), (7, 2));
}
