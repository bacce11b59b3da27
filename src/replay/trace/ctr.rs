//! The columnar format CTR1.
//!
//! ```text
//!  0       4       8          16         20         24        32
//!  | CTR1  | flags | requests | distinct | constant | 8 B     | key: i32 per request, added up a number below distinct
//!  |       | u32   | u64      | keys u32 | size u32 | zero    | then, as the flags say:
//!
//!   1  time  i32 per request, seconds, to be added up        8  op   u8 per request: 0 get, 1 set, 2 delete
//!   2  size  u32 per request, key and value               16  size is per key instead
//!   4  ttl   u32 per request, seconds, 0 none             32  ttl is per key instead
//! ```
//!
//! All numbers are little-endian; the columns follow each other without gaps in the order of their flags 1, 2, 4, 8,
//! and end the file.

use super::{Column, Keys, Op, SECONDS_MAX, Trace, TraceError, times_since_first};

/// The magic number of the format.
pub(super) const MAGIC: &[u8] = b"CTR1";

const HEADER_BYTES: usize = 32;

const TIME: u32 = 1;
const SIZE: u32 = 2;
const TTL: u32 = 4;
const OP: u32 = 8;
const SIZE_PER_KEY: u32 = 16;
const TTL_PER_KEY: u32 = 32;

/// The fixed header.
struct Header {
    flags: u32,
    requests: usize,
    distinct: usize,
    constant_size: u32,
}

/// Parses a file that starts with the magic number.
pub(super) fn parse(bytes: &[u8]) -> Result<Trace, TraceError> {
    let (header, mut columns) = header(bytes)?;
    let Header { flags, requests, distinct, constant_size } = header;
    let has = |flag| flags & flag != 0;

    let keys = keys(take(&mut columns, 4 * requests), distinct)?;
    let times_ms = has(TIME).then(|| {
        let mut seconds = 0_i64;
        let sums = words(take(&mut columns, 4 * requests)).map(|delta| {
            seconds += i64::from(delta.cast_signed());
            seconds.clamp(-SECONDS_MAX, SECONDS_MAX) * 1000
        });
        sums.collect()
    });
    let mut numbers = |flag, per_key, constant| {
        if !has(flag) {
            Column::Constant(constant)
        } else if has(per_key) {
            Column::PerKey(words(take(&mut columns, 4 * distinct)).collect())
        } else {
            Column::PerRequest(words(take(&mut columns, 4 * requests)).collect())
        }
    };
    let sizes = numbers(SIZE, SIZE_PER_KEY, constant_size);
    let ttls = numbers(TTL, TTL_PER_KEY, 0);
    let ops = has(OP).then(|| take(&mut columns, requests).iter().enumerate().map(op).collect()).transpose()?;
    debug_assert!(columns.is_empty(), "the length was checked");
    Ok(Trace {
        keys: Keys::Numbers { distinct: distinct as u32 },
        requests: keys,
        times_ms: times_ms.and_then(times_since_first),
        sizes,
        ttls,
        ops,
    })
}

/// The header, and the columns with the lengths that it declares.
fn header(bytes: &[u8]) -> Result<(Header, &[u8]), TraceError> {
    let fail = |what: String| Err(TraceError::Ctr(what));
    let Some((header, columns)) = bytes.split_at_checked(HEADER_BYTES) else {
        return fail(format!("{} bytes are less than a header of {HEADER_BYTES}", bytes.len()));
    };
    let words: Vec<u32> = words(header).collect();
    let (flags, distinct, constant_size) = (words[1], words[4], words[5]);
    let requests = u64::from(words[2]) | u64::from(words[3]) << 32;
    let known = TIME | SIZE | TTL | OP | SIZE_PER_KEY | TTL_PER_KEY;
    if flags & !known != 0 || (words[6], words[7]) != (0, 0) {
        return fail(format!(
            "flags {flags:#x} and reserved bytes of a later version; allowed: flags up to {known:#x}"
        ));
    }
    if requests == 0 {
        return Err(TraceError::Empty);
    }
    // Checked before any multiplication: each request has at least the four bytes of its key.
    if requests > columns.len() as u64 / 4 {
        return fail(format!("{requests} requests do not fit into {} bytes", bytes.len()));
    }
    if !(1..=requests).contains(&u64::from(distinct)) {
        return fail(format!("{distinct} distinct keys in {requests} requests; allowed: 1 to {requests}"));
    }
    let width = |flag, per_key, bytes| match (flags & flag != 0, flags & per_key != 0) {
        (false, _) => 0,
        (true, false) => bytes * requests,
        (true, true) => bytes * u64::from(distinct),
    };
    let expected =
        4 * requests + width(TIME, 0, 4) + width(SIZE, SIZE_PER_KEY, 4) + width(TTL, TTL_PER_KEY, 4) + width(OP, 0, 1);
    if expected != columns.len() as u64 {
        let (expected, found) = (HEADER_BYTES as u64 + expected, bytes.len());
        return fail(format!("{found} bytes where the header says {expected}"));
    }
    Ok((Header { flags, requests: requests as usize, distinct: distinct as usize, constant_size }, columns))
}

/// Key numbers, summed up from their deltas.
fn keys(steps: &[u8], distinct: usize) -> Result<Vec<u32>, TraceError> {
    let mut key = 0_u32;
    let sums = words(steps).enumerate().map(|(request, step)| {
        key = key.wrapping_add(step);
        if (key as usize) < distinct {
            return Ok(key);
        }
        Err(TraceError::Ctr(format!("request {request} has key {}; allowed: 0 to {}", key.cast_signed(), distinct - 1)))
    });
    sums.collect()
}

fn op((request, code): (usize, &u8)) -> Result<Op, TraceError> {
    match code {
        0 => Ok(Op::Get),
        1 => Ok(Op::Set),
        2 => Ok(Op::Delete),
        _ => Err(TraceError::Ctr(format!("request {request} has op {code}; allowed: 0 get, 1 set, 2 delete"))),
    }
}

/// Splits a column off the front.
fn take<'a>(columns: &mut &'a [u8], bytes: usize) -> &'a [u8] {
    let (column, rest) = columns.split_at(bytes);
    *columns = rest;
    column
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word))
}
