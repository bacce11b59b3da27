//! BITFIELD: integers of any width within a string.

use super::arguments::{Error, SYNTAX, integer, is, required, text};
use super::bits::{bit_offset, read_at};
use super::strings::{length, pad, read_length, write_at};
use super::{Context, Done};
use crate::protocol::resp::Writer;
use crate::values::numbers;

/// The most bytes that an integer of 64 bits overlaps.
const TOUCHED_MAX: usize = 9;

const BAD_TYPE: Error =
    text("ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.");

/// How a number that does not fit is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Get,
    Set(i64, Overflow),
    Increment(i64, Overflow),
}

/// An operation on one integer of the string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Operation {
    signed: bool,
    width: u32,
    /// The offset of its first bit.
    offset: u64,
    action: Action,
}

pub(super) fn bitfield(c: &mut Context, w: &mut Writer, readonly: bool) -> Done {
    let operations = operations(c)?;
    let writes = || operations.iter().filter(|operation| operation.action != Action::Get);
    let end = writes().map(|operation| operation.last_byte() + 1).max();
    if readonly && end.is_some() {
        return Err(text("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    let found = if end.is_none() { read_length(c)? } else { length(c)? };
    // If only one operation writes, it also grows the string: one change instead of two.
    let longer = end.filter(|&end| end > found.unwrap_or(0));
    if let Some(end) = longer
        && !pad(c, end - 1)?
    {
        return Ok(());
    }
    let (alone, grows) = (writes().count() == 1, longer.is_some());
    if let Some(end) = longer.filter(|_| !alone) {
        write_at(c, end - 1, &[0])?;
    }
    w.array(operations.len());
    operations.iter().try_for_each(|operation| operation.execute(c, w, grows && alone))
}

fn operations(c: &Context) -> Result<Vec<Operation>, Error> {
    let (mut operations, mut overflow) = (Vec::new(), Overflow::Wrap);
    let mut args = c.args.skip(1).into_iter();
    while let Some(arg) = args.next() {
        if is(arg, "OVERFLOW") {
            overflow = match required(&mut args)?.to_ascii_uppercase().as_slice() {
                b"WRAP" => Overflow::Wrap,
                b"SAT" => Overflow::Saturate,
                b"FAIL" => Overflow::Fail,
                _ => return Err(text("ERR Invalid OVERFLOW type specified")),
            };
            continue;
        }
        let [get, set, increment] = ["GET", "SET", "INCRBY"].map(|name| is(arg, name));
        if !(get || set || increment) || args.len() < if get { 2 } else { 3 } {
            return Err(SYNTAX);
        }
        let (signed, width) = encoding(required(&mut args)?)?;
        let offset = bit_offset(c, required(&mut args)?, Some(width))?;
        let action = match get {
            true => Action::Get,
            false => {
                let number = integer(required(&mut args)?)?;
                if set { Action::Set(number, overflow) } else { Action::Increment(number, overflow) }
            }
        };
        operations.push(Operation { signed, width, offset, action });
    }
    Ok(operations)
}

/// Parses an encoding: whether the integer is signed, and its number of bits.
fn encoding(arg: &[u8]) -> Result<(bool, u32), Error> {
    let (signed, digits) = match arg {
        [b'i', digits @ ..] => (true, digits),
        [b'u', digits @ ..] => (false, digits),
        _ => return Err(BAD_TYPE),
    };
    let most = if signed { 64 } else { 63 };
    let width = numbers::integer(digits).filter(|width| (1..=most).contains(width)).ok_or(BAD_TYPE)?;
    Ok((signed, width as u32))
}

impl Operation {
    fn first_byte(&self) -> usize {
        (self.offset / 8) as usize
    }

    fn last_byte(&self) -> usize {
        ((self.offset + u64::from(self.width) - 1) / 8) as usize
    }

    /// Executes the operation. `grows`: the string is shorter than a write needs, so a write has to extend it.
    fn execute(&self, c: &mut Context, w: &mut Writer, grows: bool) -> Done {
        let touched = self.last_byte() + 1 - self.first_byte();
        let bytes: [u8; TOUCHED_MAX] = read_at(c, self.first_byte(), touched);
        let mut window = [0; 16];
        window[..TOUCHED_MAX].copy_from_slice(&bytes);
        let (window, shift) = (u128::from_be_bytes(window), self.shift());
        let old = self.extended((window >> shift) as i128);
        let (new, reply) = match self.action {
            Action::Get => (None, Some(old)),
            Action::Set(number, overflow) => {
                // For an unsigned integer, a negative argument is a large unsigned number, as in Redis.
                let number = if self.signed { i128::from(number) } else { i128::from(number as u64) };
                let new = self.fitted(number, overflow);
                (new, new.map(|_| old))
            }
            Action::Increment(by, overflow) => {
                let new = self.fitted(old + i128::from(by), overflow);
                (new, new)
            }
        };
        if self.action != Action::Get {
            // A write that overflows with FAIL changes no bit, but still extends the string.
            let field = |new: i128| window & !(self.mask() << shift) | (new as u128 & self.mask()) << shift;
            let changed = new.map_or(window, field);
            if changed != window || grows {
                write_at(c, self.first_byte(), &changed.to_be_bytes()[..touched])?;
            }
        }
        match reply {
            Some(number) => w.integer(number as i64),
            None => w.null(),
        }
        Ok(())
    }

    /// The number of bits behind the integer in a window of 128 bits that starts at the integer's first byte.
    fn shift(&self) -> u32 {
        u128::BITS - (self.offset % 8) as u32 - self.width
    }

    fn mask(&self) -> u128 {
        (1 << self.width) - 1
    }

    /// Interprets the lowest bits as the integer, with sign extension if it is signed.
    fn extended(&self, bits: i128) -> i128 {
        let spare = i128::BITS - self.width;
        if self.signed { bits << spare >> spare } else { bits & self.mask() as i128 }
    }

    /// Fits a number into the integer's range; None if it overflows with FAIL.
    fn fitted(&self, number: i128, overflow: Overflow) -> Option<i128> {
        let values = 1_i128 << self.width;
        let (least, most) = if self.signed { (-values / 2, values / 2 - 1) } else { (0, values - 1) };
        match overflow {
            _ if (least..=most).contains(&number) => Some(number),
            Overflow::Wrap => Some(self.extended(number)),
            Overflow::Saturate => Some(number.clamp(least, most)),
            Overflow::Fail => None,
        }
    }
}
