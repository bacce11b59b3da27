//! Strings as arrays of bits; bit 0 is the highest bit of the first byte.

use super::arguments::{Error, SYNTAX, integer, is, required, text};
use super::slice::Slice;
use super::strings::{length, pad, read_length, write_at};
use super::{Context, Done};
use crate::protocol::resp::Writer;
use crate::values::numbers;
use std::ops::{ControlFlow, RangeInclusive};

const BAD_BIT: Error = text("ERR bit is not an integer or out of range");
const BAD_OFFSET: Error = text("ERR bit offset is not an integer or out of range");

/// Bytes that are compared or counted at a time.
const WORD_BYTES: usize = 8;

/// Parses the offset of a bit within the longest string. If `width` is given, the offset may follow a `#`, which makes
/// `width` its unit.
pub(super) fn bit_offset(c: &Context, arg: &[u8], width: Option<u32>) -> Result<u64, Error> {
    let (digits, unit) = match (arg, width) {
        ([b'#', digits @ ..], Some(width)) => (digits, i64::from(width)),
        _ => (arg, 1),
    };
    let offset = numbers::integer(digits).and_then(|number| number.checked_mul(unit));
    let offset = offset.and_then(|offset| u64::try_from(offset).ok());
    offset.filter(|offset| offset / 8 < c.engine.value_bytes_max() as u64).ok_or(BAD_OFFSET)
}

/// Copies bytes of a string; bytes past its end are zero.
pub(super) fn read_at<const N: usize>(c: &mut Context, offset: usize, count: usize) -> [u8; N] {
    let (mut bytes, mut filled) = ([0; N], 0);
    c.engine.read_range(c.hash, c.key, offset..offset + count, c.now, |piece| {
        bytes[filled..filled + piece.len()].copy_from_slice(piece);
        filled += piece.len();
    });
    bytes
}

pub(super) fn setbit(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let offset = bit_offset(c, required(&mut args)?, None)?;
    let bit = match required(&mut args)? {
        b"0" => 0,
        b"1" => 1,
        _ => return Err(BAD_BIT),
    };
    let (at, shift) = ((offset / 8) as usize, 7 - offset % 8);
    if !pad(c, at)? {
        return Ok(());
    }
    let is_within = length(c)?.is_some_and(|length| at < length);
    let [byte] = read_at(c, at, 1);
    let old = byte >> shift & 1;
    if !is_within || old != bit {
        write_at(c, at, &[byte & !(1 << shift) | bit << shift])?;
    }
    w.integer(old.into());
    Ok(())
}

pub(super) fn getbit(c: &mut Context, w: &mut Writer) -> Done {
    let offset = bit_offset(c, required(&mut c.args.skip(1).into_iter())?, None)?;
    read_length(c)?;
    let [byte] = read_at(c, (offset / 8) as usize, 1);
    w.integer((byte >> (7 - offset % 8) & 1).into());
    Ok(())
}

/// The range of a string that the arguments of BITCOUNT or BITPOS specify.
#[derive(Clone, Copy, Debug)]
struct Part {
    start: i64,
    end: Option<i64>,
    /// The number of bits per index.
    unit: i64,
}

impl Part {
    fn read<'w>(args: impl ExactSizeIterator<Item = &'w [u8]>) -> Result<Self, Error> {
        let mut args = args;
        let Some(start) = args.next().map(integer).transpose()? else {
            return Ok(Self { start: 0, end: None, unit: 8 });
        };
        let (end, unit) = (args.next(), args.next());
        let unit = match unit {
            Some(arg) if is(arg, "BIT") => 1,
            Some(arg) if !is(arg, "BYTE") => return Err(SYNTAX),
            _ => 8,
        };
        let end = end.map(integer).transpose()?;
        if args.len() > 0 { Err(SYNTAX) } else { Ok(Self { start, end, unit }) }
    }

    /// The range in bits, for a string of `length` bytes. None if it is empty.
    fn bits(self, length: usize) -> Option<RangeInclusive<u64>> {
        let total = length as i64 * 8 / self.unit;
        let from_start = |index: i64| if index < 0 { (total + index).max(0) } else { index };
        let (start, end) = (from_start(self.start), from_start(self.end.unwrap_or(-1)).min(total - 1));
        let [first, last] = [start.checked_mul(self.unit)?, end * self.unit + self.unit - 1];
        (start <= end).then_some(first as u64..=last as u64)
    }
}

/// Visits the bytes that overlap `bits`, in pieces, each with its offset. Bits outside of `bits` are replaced by those
/// of `blank`. Stops when `visit` breaks.
fn visit_bits<T>(
    c: &mut Context,
    bits: &RangeInclusive<u64>,
    blank: u8,
    mut visit: impl FnMut(usize, &[u8]) -> ControlFlow<T>,
) -> Option<T> {
    let (first, last) = ((bits.start() / 8) as usize, (bits.end() / 8) as usize);
    let (before, after) = (!(0xff >> (bits.start() % 8)), 0x7f_u8.wrapping_shr((bits.end() % 8) as u32));
    let (mut at, mut found) = (first, None);
    let mut visit_some = |at: usize, bytes: &[u8]| {
        if found.is_none() && !bytes.is_empty() {
            found = visit(at, bytes).break_value();
        }
    };
    c.engine.read_range(c.hash, c.key, first..last + 1, c.now, |piece| {
        let mut rest = piece;
        if let (true, Some((&byte, tail))) = (at == first, rest.split_first()) {
            let outside = before | if first == last { after } else { 0 };
            visit_some(at, &[byte & !outside | blank & outside]);
            rest = tail;
        }
        let rest_at = at + piece.len() - rest.len();
        match rest.split_last() {
            Some((&byte, head)) if rest_at + head.len() == last => {
                visit_some(rest_at, head);
                visit_some(last, &[byte & !after | blank & after]);
            }
            _ => visit_some(rest_at, rest),
        }
        at += piece.len();
    });
    found
}

pub(super) fn bitcount(c: &mut Context, w: &mut Writer) -> Done {
    let part = Part::read(c.args.skip(1).into_iter())?;
    let found = read_length(c)?;
    let is_reversed = part.start < 0 && part.end.is_some_and(|end| end < 0 && part.start > end);
    let mut count = 0;
    if let Some(bits) = part.bits(found.unwrap_or(0)).filter(|_| !is_reversed) {
        let bits = some_bits(&mut c.slice, bits);
        visit_bits(c, &bits, 0, |_, bytes| {
            count += ones(bytes);
            ControlFlow::<()>::Continue(())
        });
    }
    c.reply_total(w, count);
    Ok(())
}

/// The bits that this slice visits: up to the end of a byte.
fn some_bits(slice: &mut Slice, bits: RangeInclusive<u64>) -> RangeInclusive<u64> {
    let first = slice.from.max(*bits.start());
    let last = (first | 7).saturating_add(8 * (slice.bytes_max() - 1));
    if last < *bits.end() {
        slice.go_on(last + 1);
    }
    first..=last.min(*bits.end())
}

fn ones(bytes: &[u8]) -> u64 {
    let (args, rest) = bytes.as_chunks::<WORD_BYTES>();
    let of_words: u64 = args.iter().map(|arg| u64::from(u64::from_ne_bytes(*arg).count_ones())).sum();
    of_words + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

pub(super) fn bitpos(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let bit = match integer(required(&mut args)?)? {
        0 => 0_u8,
        1 => 1,
        _ => return Err(text("ERR The bit argument must be 1 or 0.")),
    };
    let part = Part::read(args)?;
    let found = read_length(c)?;
    // A missing key is a string of zeros.
    let Some(length) = found else {
        w.integer(if bit == 1 { -1 } else { 0 });
        return Ok(());
    };
    let Some(bits) = part.bits(length) else {
        w.integer(-1);
        return Ok(());
    };
    let blank = if bit == 1 { 0 } else { 0xff };
    let bits = some_bits(&mut c.slice, bits);
    let position = visit_bits(c, &bits, blank, |at, bytes| match first_other(bytes, blank) {
        Some(n) => ControlFlow::Break(at as u64 * 8 + n),
        None => ControlFlow::Continue(()),
    });
    if position.is_some() {
        c.slice.more = false;
    } else if c.slice.more {
        return Ok(());
    }
    w.integer(match position {
        Some(position) => position as i64,
        // If the range has no explicit end, zeros follow the string.
        None if bit == 0 && part.end.is_none() => length as i64 * 8,
        None => -1,
    });
    Ok(())
}

/// The position of the first bit that differs from the bits of `blank`, which are all equal.
fn first_other(bytes: &[u8], blank: u8) -> Option<u64> {
    let (args, _) = bytes.as_chunks::<WORD_BYTES>();
    let blank_words = args.iter().take_while(|arg| **arg == [blank; WORD_BYTES]).count();
    let from = blank_words * WORD_BYTES;
    let n = bytes[from..].iter().position(|&byte| byte != blank)?;
    let byte = bytes[from + n] ^ blank;
    Some((from + n) as u64 * 8 + u64::from(byte.leading_zeros()))
}
