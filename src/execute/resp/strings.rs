//! Strings and counters.

use super::arguments::{Error, NOT_A_FLOAT, NOT_AN_INTEGER, SYNTAX, integer, is, required, text};
use super::{Context, Done, Streamed};
use crate::command::{Command, End, UnixMs};
use crate::engine::{Attributes, Fetched, PutError, Value};
use crate::metrics::Counter;
use crate::protocol::resp::Writer;
use crate::values::numbers::{self, LongDouble};

/// Strings up to this length, in bytes, are rewritten when they become longer.
const REWRITTEN_BYTES_MAX: usize = 64 << 10;

const NOT_WITHIN: Error = text("ERR string exceeds maximum allowed size (proto-max-bulk-len)");

/// The expiry that SET and its relatives specify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expire {
    Never,
    Keep,
    At(UnixMs),
}

/// The condition and reply options of SET.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SetOptions<'w> {
    absent: bool,
    present: bool,
    get: bool,
    equal: Option<&'w [u8]>,
}

/// Writes a fetched value, or only its header if the value is long.
fn write_fetched(fetched: Fetched, w: &mut Writer) -> Result<Option<Streamed>, Error> {
    let Fetched { item, reader } = fetched;
    match (item.value, reader) {
        (Value::Whole(value), _) => w.bulk(value),
        (Value::Long(length), Some(reader)) => {
            w.bulk_head(length);
            return Ok(Some(Streamed { length, reader }));
        }
        (Value::Long(_), None) => unreachable!("a long value is fetched with its reader"),
        (Value::Collection(..), _) => return Err(PutError::WrongType.into()),
    }
    Ok(None)
}

#[inline]
pub(super) fn get(c: &mut Context, w: &mut Writer) -> Result<Option<Streamed>, Error> {
    let Context { engine, counters, .. } = c;
    counters.add(Counter::CmdGet);
    match engine.fetch(c.hash, c.key, c.now) {
        Some(fetched) => {
            counters.add(Counter::GetHits);
            write_fetched(fetched, w)
        }
        None => {
            counters.add(Counter::GetMisses);
            w.null();
            Ok(None)
        }
    }
}

/// Writes one key's element of MGET's reply: null unless the key holds a string.
pub(super) fn element(c: &mut Context, w: &mut Writer) -> Result<Option<Streamed>, Error> {
    c.counters.executed_part(Command::MGet);
    match get(c, w) {
        Err(Error::Put(PutError::WrongType)) => {
            w.null();
            Ok(None)
        }
        done => done,
    }
}

/// Parses `EX`, `PX`, `EXAT` or `PXAT` and the argument after it; None if `arg` is another option.
fn expire_option<'w>(
    c: &Context,
    arg: &[u8],
    args: &mut impl Iterator<Item = &'w [u8]>,
    command: &str,
) -> Result<Option<Expire>, Error> {
    let (unit, relative) = match arg.to_ascii_uppercase().as_slice() {
        b"EX" => (1000, true),
        b"PX" => (1, true),
        b"EXAT" => (1000, false),
        b"PXAT" => (1, false),
        _ => return Ok(None),
    };
    Ok(Some(Expire::At(c.future(required(args)?, unit, relative, command)?)))
}

pub(super) fn getex(c: &mut Context, w: &mut Writer) -> Result<Option<Streamed>, Error> {
    let mut args = c.args.skip(1).into_iter();
    let mut expire = None;
    while let Some(arg) = args.next() {
        let option = match is(arg, "PERSIST") {
            true => Some(Expire::Never),
            false => expire_option(c, arg, &mut args, "getex")?,
        };
        if option.is_none() || expire.is_some() {
            return Err(SYNTAX);
        }
        expire = option;
    }
    let found = c.engine.get(c.hash, c.key, c.now).map(|item| matches!(item.value, Value::Collection(..)));
    match (found, expire) {
        (Some(true), _) => {
            c.looked(true);
            Err(PutError::WrongType.into())
        }
        (Some(false), Some(expire)) => {
            c.looked(true);
            let expires = if let Expire::At(at) = expire { Some(at) } else { None };
            match c.engine.fetch_and_touch(c.hash, c.key, expires, c.now)? {
                Some(fetched) => write_fetched(fetched, w),
                None => {
                    w.null();
                    Ok(None)
                }
            }
        }
        _ => get(c, w),
    }
}

/// Reads a whole string and its attributes. None if the key does not exist.
pub(super) fn whole(c: &mut Context) -> Result<Option<(Vec<u8>, Attributes)>, Error> {
    let Some(Fetched { item, reader }) = c.engine.fetch(c.hash, c.key, c.now) else { return Ok(None) };
    let attributes = Attributes { flags: item.flags, expires: item.expires };
    let value = match (item.value, reader) {
        (Value::Whole(value), _) => value.to_vec(),
        (Value::Long(length), Some(mut reader)) => {
            let mut value = Vec::with_capacity(length);
            while c.engine.unread(&reader) > 0 {
                value.extend_from_slice(c.engine.read(&mut reader, usize::MAX));
            }
            c.engine.close(reader);
            value
        }
        (Value::Long(_), None) => unreachable!("a long value is fetched with its reader"),
        (Value::Collection(..), _) => return Err(PutError::WrongType.into()),
    };
    Ok(Some((value, attributes)))
}

/// Stores a string.
pub(super) fn put(c: &mut Context, value: &[u8], attributes: Attributes) -> Result<(), Error> {
    c.counters.add(Counter::CmdSet);
    c.engine.put(c.hash, c.group(), c.key, value, attributes, c.now)?;
    Ok(())
}

pub(super) fn getdel(c: &mut Context, w: &mut Writer) -> Done {
    let found = whole(c);
    c.looked_up(&found);
    match found? {
        Some((value, _)) => {
            c.engine.remove(c.hash, c.key, c.now);
            w.bulk(&value);
        }
        None => w.null(),
    }
    Ok(())
}

/// DELIFEQ (Valkey 9): removes a string if it equals a value, which releases a lock without a script.
pub(super) fn delifeq(c: &mut Context, w: &mut Writer) -> Done {
    let wanted = required(&mut c.args.skip(1).into_iter())?;
    let equal = equals(c, wanted)?;
    c.counters.add(if equal { Counter::DeleteHits } else { Counter::DeleteMisses });
    if equal {
        c.engine.remove(c.hash, c.key, c.now);
    }
    w.integer(equal.into());
    Ok(())
}

/// True if the key holds this string. A long one is compared in place, piece by piece.
fn equals(c: &mut Context, wanted: &[u8]) -> Result<bool, Error> {
    let Some(Fetched { item, reader }) = c.engine.fetch(c.hash, c.key, c.now) else { return Ok(false) };
    match (item.value, reader) {
        (Value::Whole(value), _) => Ok(value == wanted),
        (Value::Long(length), Some(mut reader)) => {
            let mut rest = wanted;
            // Only strings of equal length are compared.
            let mut equal = length == wanted.len();
            while equal && c.engine.unread(&reader) > 0 {
                let piece = c.engine.read(&mut reader, rest.len());
                equal = rest.starts_with(piece);
                rest = &rest[piece.len().min(rest.len())..];
            }
            c.engine.close(reader);
            Ok(equal)
        }
        _ => Err(PutError::WrongType.into()),
    }
}

pub(super) fn getset(c: &mut Context, w: &mut Writer) -> Done {
    let value = required(&mut c.args.skip(1).into_iter())?;
    let old = replaced(c)?;
    put(c, value, Attributes::default())?;
    write_old(old, w);
    Ok(())
}

/// The string that a command replaces and returns. Counts as a lookup.
pub(super) fn replaced(c: &mut Context) -> Result<Option<(Vec<u8>, Attributes)>, Error> {
    let old = whole(c);
    c.looked_up(&old);
    old
}

fn write_old(old: Option<(Vec<u8>, Attributes)>, w: &mut Writer) {
    match old {
        Some((value, _)) => w.bulk(&value),
        None => w.null(),
    }
}

#[inline]
pub(super) fn set(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let value = required(&mut args)?;
    if args.len() == 0 {
        // The most frequent case first.
        put(c, value, Attributes::default())?;
        w.simple("OK");
        return Ok(());
    }
    let (options, expire) = set_options(c, args)?;
    if let Some(proceed) = set_condition(c, options, w)? {
        let attributes = Attributes { flags: 0, expires: resolve(c, expire) };
        put(c, value, attributes)?;
        proceed.finish(w);
    }
    Ok(())
}

/// Permission to store, with the old value if SET has to reply it.
pub(super) struct Proceed {
    pub(super) old: Option<Option<(Vec<u8>, Attributes)>>,
}

impl Proceed {
    pub(super) fn finish(self, w: &mut Writer) {
        match self.old {
            Some(old) => write_old(old, w),
            None => w.simple("OK"),
        }
    }
}

/// Evaluates the condition of a SET. If it does not hold, writes the reply and returns None.
pub(super) fn set_condition(c: &mut Context, options: SetOptions, w: &mut Writer) -> Result<Option<Proceed>, Error> {
    let SetOptions { absent, present, get, equal } = options;
    // GET and IFEQ need the old value.
    let old = match get {
        true => Some(replaced(c)?),
        false => equal.map(|_| whole(c)).transpose()?,
    };
    let exists = match &old {
        Some(old) => old.is_some(),
        // NX and XX alone need only the key's existence: a long value is not copied for them.
        None if absent || present => c.engine.get(c.hash, c.key, c.now).is_some(),
        // Without a condition, nothing depends on it.
        None => false,
    };
    // IFEQ does not hold for a missing key.
    let is_equal = equal.is_none_or(|wanted| matches!(&old, Some(Some((value, _))) if value == wanted));
    if absent && exists || present && !exists || !is_equal {
        // With GET, the reply is the old value, whether or not SET stores.
        match old.filter(|_| get) {
            Some(old) => write_old(old, w),
            None => w.null(),
        }
        return Ok(None);
    }
    Ok(Some(Proceed { old: old.filter(|_| get) }))
}

pub(super) fn set_options<'w>(
    c: &Context,
    mut args: impl Iterator<Item = &'w [u8]>,
) -> Result<(SetOptions<'w>, Expire), Error> {
    let (mut options, mut expire) = (SetOptions::default(), None);
    while let Some(arg) = args.next() {
        match arg.to_ascii_uppercase().as_slice() {
            b"NX" if !options.present && options.equal.is_none() => options.absent = true,
            b"XX" if !options.absent && options.equal.is_none() => options.present = true,
            b"GET" => options.get = true,
            b"IFEQ" if !options.absent && !options.present => options.equal = Some(required(&mut args)?),
            b"KEEPTTL" if expire.is_none() => expire = Some(Expire::Keep),
            _ => match expire_option(c, arg, &mut args, "set")? {
                Some(option) if expire.is_none() => expire = Some(option),
                _ => return Err(SYNTAX),
            },
        }
    }
    Ok((options, expire.unwrap_or(Expire::Never)))
}

pub(super) fn resolve(c: &mut Context, expire: Expire) -> Option<UnixMs> {
    match expire {
        Expire::Never => None,
        Expire::At(at) => Some(at),
        Expire::Keep => c.engine.get(c.hash, c.key, c.now).and_then(|item| item.expires),
    }
}

pub(super) fn setex(c: &mut Context, w: &mut Writer, unit: i64) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let command = if unit == 1 { "psetex" } else { "setex" };
    let expires = c.future(required(&mut args)?, unit, true, command)?;
    let value = required(&mut args)?;
    put(c, value, Attributes { flags: 0, expires: Some(expires) })?;
    w.simple("OK");
    Ok(())
}

pub(super) fn setnx(c: &mut Context, w: &mut Writer) -> Done {
    let value = required(&mut c.args.skip(1).into_iter())?;
    let is_new = c.engine.get(c.hash, c.key, c.now).is_none();
    if is_new {
        put(c, value, Attributes::default())?;
    }
    w.integer(is_new.into());
    Ok(())
}

pub(super) fn append(c: &mut Context, w: &mut Writer) -> Done {
    let value = required(&mut c.args.skip(1).into_iter())?;
    if c.engine.extend(c.hash, c.group(), c.key, End::Back, value, c.now)?.is_none() {
        put(c, value, Attributes::default())?;
    } else {
        c.engine.mark_raw(c.hash, c.key, c.now);
    }
    w.integer(length(c)?.unwrap_or(0) as i64);
    Ok(())
}

/// The length of a string that a command reads, in bytes; None if the key does not exist. Counts as a lookup.
pub(super) fn read_length(c: &mut Context) -> Result<Option<usize>, Error> {
    let found = length(c);
    c.looked_up(&found);
    found
}

/// The length of a string in bytes. None if the key does not exist.
pub(super) fn length(c: &mut Context) -> Result<Option<usize>, Error> {
    match c.engine.get(c.hash, c.key, c.now).map(|item| item.value) {
        Some(Value::Collection(..)) => Err(PutError::WrongType.into()),
        found => Ok(found.map(|value| value.length())),
    }
}

pub(super) fn strlen(c: &mut Context, w: &mut Writer) -> Done {
    w.integer(read_length(c)?.unwrap_or(0) as i64);
    Ok(())
}

pub(super) fn incrby(c: &mut Context, w: &mut Writer, negate: bool) -> Done {
    let by = integer(required(&mut c.args.skip(1).into_iter())?)?;
    let by = match negate {
        true => by.checked_neg().ok_or(text("ERR decrement would overflow"))?,
        false => by,
    };
    add(c, w, by)
}

/// Adds to the stored number; a missing key counts as 0.
#[inline]
pub(super) fn add(c: &mut Context, w: &mut Writer, by: i64) -> Done {
    let (mut sum, mut digits) = (by, itoa::Buffer::new());
    let (sum_of, digits_of) = (&mut sum, &mut digits);
    let done = c.engine.change(c.hash, c.group(), c.key, c.now, move |item| {
        let old = match item.value {
            Value::Whole(value) => numbers::integer(value).ok_or(NOT_AN_INTEGER)?,
            Value::Long(_) => return Err(NOT_AN_INTEGER),
            Value::Collection(..) => return Err(PutError::WrongType.into()),
        };
        *sum_of = old.checked_add(by).ok_or(text("ERR increment or decrement would overflow"))?;
        Ok::<_, Error>(digits_of.format(*sum_of).as_bytes())
    })?;
    if done {
        c.counters.add(Counter::CmdSet);
    } else {
        put(c, itoa::Buffer::new().format(sum).as_bytes(), Attributes::default())?;
    }
    w.integer(sum);
    Ok(())
}

pub(super) fn incrbyfloat(c: &mut Context, w: &mut Writer) -> Done {
    let by = required(&mut c.args.skip(1).into_iter())?;
    let (old, attributes) = match whole(c)? {
        Some((value, attributes)) => (value, attributes),
        None => (b"0".to_vec(), Attributes::default()),
    };
    let sum = add_floats(&old, by)?;
    put(c, &sum, attributes)?;
    w.bulk(&sum);
    Ok(())
}

/// Adds two numbers and formats the sum as INCRBYFLOAT does.
pub(super) fn add_floats(a: &[u8], b: &[u8]) -> Result<Vec<u8>, Error> {
    let (a, b) = (LongDouble::read(a).ok_or(NOT_A_FLOAT)?, LongDouble::read(b).ok_or(NOT_A_FLOAT)?);
    let sum = a.checked_add(b).ok_or(text("ERR increment would produce NaN or Infinity"))?;
    let mut digits = Vec::new();
    sum.write(&mut digits);
    Ok(digits)
}

pub(super) fn getrange(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let (start, end) = (integer(required(&mut args)?)?, integer(required(&mut args)?)?);
    let found = read_length(c)?;
    let length = found.unwrap_or(0) as i64;
    if length == 0 || start < 0 && end < 0 && start > end {
        w.bulk(b"");
        return Ok(());
    }
    let start = if start < 0 { (length + start).max(0) } else { start };
    let end = if end < 0 { (length + end).max(0) } else { end.min(length - 1) };
    if start > end {
        w.bulk(b"");
        return Ok(());
    }
    w.bulk_head((end - start + 1) as usize);
    let out = w.out();
    c.engine.read_range(c.hash, c.key, start as usize..end as usize + 1, c.now, |piece| out.extend_from_slice(piece));
    out.extend_from_slice(b"\r\n");
    Ok(())
}

pub(super) fn setrange(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let offset = integer(required(&mut args)?)?;
    let value = required(&mut args)?;
    let offset = usize::try_from(offset).map_err(|_| text("ERR offset is out of range"))?;
    let found = length(c)?;
    if value.is_empty() {
        w.integer(found.unwrap_or(0) as i64);
        return Ok(());
    }
    let end = offset.checked_add(value.len()).filter(|&end| end <= c.engine.value_bytes_max()).ok_or(NOT_WITHIN)?;
    if !pad(c, offset)? {
        return Ok(());
    }
    write_at(c, offset, value)?;
    w.integer(found.unwrap_or(0).max(end) as i64);
    Ok(())
}

/// Pads a string with zeros up to a length, if it is much shorter: a slice of them at a time. False if another slice is
/// to follow.
pub(super) fn pad(c: &mut Context, to: usize) -> Result<bool, Error> {
    let has = length(c)?.unwrap_or(0);
    let step = c.slice.bytes_max() as usize;
    if to.saturating_sub(has) <= step {
        return Ok(true);
    }
    lengthen(c, has, &vec![0; step])?;
    c.slice.go_on(1);
    Ok(false)
}

/// Adds bytes to the end of a string of `has` bytes. What it costs depends on what it adds, not on the string's length.
fn lengthen(c: &mut Context, has: usize, bytes: &[u8]) -> Result<(), Error> {
    if has == 0 && length(c)?.is_none() {
        return put(c, bytes, Attributes::default());
    }
    c.engine.extend(c.hash, c.group(), c.key, End::Back, bytes, c.now)?;
    Ok(())
}

/// Writes bytes at an offset of a string, and pads it with zeros up to the offset.
pub(super) fn write_at(c: &mut Context, offset: usize, bytes: &[u8]) -> Result<(), Error> {
    if c.engine.overwrite(c.hash, c.group(), c.key, offset, bytes, c.now)? || continue_at(c, offset, bytes)? {
        c.engine.mark_raw(c.hash, c.key, c.now);
        return Ok(());
    }
    let (mut value, attributes) = whole(c)?.unwrap_or_default();
    value.resize(value.len().max(offset + bytes.len()), 0);
    value[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(c, &value, attributes)?;
    c.engine.mark_raw(c.hash, c.key, c.now);
    Ok(())
}

/// Writes bytes that reach beyond the end of a long string. False, with nothing changed, if it is to be rewritten: it
/// is short, or a reader has it open, which keeps seeing the old bytes.
fn continue_at(c: &mut Context, offset: usize, bytes: &[u8]) -> Result<bool, Error> {
    let has = length(c)?.unwrap_or(0);
    let (over, behind) = bytes.split_at(has.saturating_sub(offset).min(bytes.len()));
    if has <= REWRITTEN_BYTES_MAX || behind.is_empty() {
        return Ok(false);
    }
    if !over.is_empty() && !c.engine.overwrite(c.hash, c.group(), c.key, offset, over, c.now)? {
        return Ok(false);
    }
    if offset > has {
        lengthen(c, has, &vec![0; offset - has])?;
    }
    lengthen(c, has, behind)?;
    Ok(true)
}
