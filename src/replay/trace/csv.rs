//! Requests as text, one per line: `time,key,size[,ttl[,op]]`.
//!
//! The time is in seconds and may have decimals; the size is the bytes of key and value; the ttl is in seconds, 0 or
//! empty for none; op is get, set or delete, or 0, 1, 2, and defaults to get. The first line may name the columns.
//! Empty lines, and lines that start with `#`, are ignored. There is no quoting: a key cannot contain a comma.

use super::{Column, Keys, Op, SECONDS_MAX, Trace, TraceError, times_since_first};
use crate::engine::KEY_BYTES_MAX;
use std::collections::HashMap;

const COLUMNS: [&str; 5] = ["time", "key", "size", "ttl", "op"];

/// The columns read so far.
#[derive(Default)]
struct Columns<'a> {
    numbers: HashMap<&'a [u8], u32>,
    key_bytes: Vec<u8>,
    key_ends: Vec<u32>,
    requests: Vec<u32>,
    times_ms: Vec<i64>,
    sizes: Vec<u32>,
    ttls: Vec<u32>,
    ops: Vec<Op>,
}

/// Parses text.
pub(super) fn parse(bytes: &[u8]) -> Result<Trace, TraceError> {
    let mut columns = Columns::default();
    let mut is_first = true;
    for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let names_columns = is_first && is_heading(line);
        is_first = false;
        if !names_columns {
            columns.push(line).map_err(|what| TraceError::Line { line: i + 1, what })?;
        }
    }
    columns.trace()
}

/// True if the line names the columns in their order.
fn is_heading(line: &[u8]) -> bool {
    let names: Vec<&[u8]> = line.split(|&b| b == b',').map(<[u8]>::trim_ascii).collect();
    (3..=COLUMNS.len()).contains(&names.len())
        && names.iter().zip(COLUMNS).all(|(name, column)| name.eq_ignore_ascii_case(column.as_bytes()))
}

impl<'a> Columns<'a> {
    fn push(&mut self, line: &'a [u8]) -> Result<(), String> {
        let fields: Vec<&[u8]> = line.splitn(COLUMNS.len() + 1, |&b| b == b',').map(<[u8]>::trim_ascii).collect();
        let &[time, key, size, ref rest @ ..] = fields.as_slice() else {
            return Err(format!("{} has too few columns; allowed: time,key,size[,ttl[,op]]", shown(line)));
        };
        if rest.len() > 2 {
            return Err(format!("{} has too many columns; allowed: time,key,size[,ttl[,op]]", shown(line)));
        }
        let ttl = rest.first().copied().filter(|t| !t.is_empty()).unwrap_or(b"0");
        let time_ms =
            milliseconds(time).ok_or_else(|| format!("time {}; allowed: seconds, such as 12 or 12.5", shown(time)))?;
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
            return Err(format!("key {} of {} bytes; allowed: 1 to {KEY_BYTES_MAX}", shown(key), key.len()));
        }
        let size = number(size).ok_or_else(|| format!("size {}; allowed: bytes, 0 to {}", shown(size), u32::MAX))?;
        let ttl =
            number(ttl).ok_or_else(|| format!("ttl {}; allowed: seconds, 0 (none) to {}", shown(ttl), u32::MAX))?;
        let op = op(rest.get(1).copied().unwrap_or(b""))?;

        let key = self.number_of(key);
        self.requests.push(key);
        self.times_ms.push(time_ms);
        self.sizes.push(size);
        self.ttls.push(ttl);
        self.ops.push(op);
        Ok(())
    }

    fn number_of(&mut self, key: &'a [u8]) -> u32 {
        *self.numbers.entry(key).or_insert_with(|| {
            self.key_bytes.extend_from_slice(key);
            self.key_ends.push(self.key_bytes.len() as u32);
            self.key_ends.len() as u32 - 1
        })
    }

    fn trace(self) -> Result<Trace, TraceError> {
        if self.requests.is_empty() {
            return Err(TraceError::Empty);
        }
        Ok(Trace {
            keys: Keys::Texts { bytes: self.key_bytes, ends: self.key_ends },
            requests: self.requests,
            times_ms: times_since_first(self.times_ms),
            sizes: column(self.sizes),
            ttls: column(self.ttls),
            ops: self.ops.iter().any(|&op| op != Op::Get).then_some(self.ops),
        })
    }
}

/// A single number if all are equal.
fn column(numbers: Vec<u32>) -> Column {
    let first = numbers[0];
    if numbers.iter().all(|&n| n == first) { Column::Constant(first) } else { Column::PerRequest(numbers) }
}

fn op(text: &[u8]) -> Result<Op, String> {
    match text.to_ascii_lowercase().as_slice() {
        b"" | b"get" | b"0" => Ok(Op::Get),
        b"set" | b"1" => Ok(Op::Set),
        b"delete" | b"2" => Ok(Op::Delete),
        _ => Err(format!("op {}; allowed: get, set, delete, or 0, 1, 2", shown(text))),
    }
}

fn number(text: &[u8]) -> Option<u32> {
    digits(text)?.parse().ok()
}

/// Parses seconds with decimals, of which three are significant.
fn milliseconds(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let seconds = digits(whole.as_bytes())?.parse::<i64>().ok().filter(|&s| s <= SECONDS_MAX)?;
    let decimals = digits(decimals.as_bytes())?;
    let thousandths: i64 = format!("{decimals:0<3.3}").parse().ok()?;
    Some(seconds * 1000 + thousandths)
}

/// The text, if it consists of digits only.
fn digits(text: &[u8]) -> Option<&str> {
    let digits = std::str::from_utf8(text).ok()?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}

/// The start of the text, shortened to fit an error message of one line.
fn shown(text: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 40;
    let cut = if text.len() > SHOWN_BYTES_MAX { "…" } else { "" };
    format!("\"{}{cut}\"", text[..text.len().min(SHOWN_BYTES_MAX)].escape_ascii())
}
