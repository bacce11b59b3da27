//! Hashes. Expiry of fields is in `fields.rs`.

use super::arguments::{Error, NOT_A_FLOAT, SYNTAX, integer, is, required, symmetric, text, wrong_arity};
use super::random::Draw;
use super::scan::{ScanOptions, cursor, write_page};
use super::{Context, Done};
use crate::command::args;
use crate::engine::{Field, FieldExpiry, Hash, Kind, MEMBER_CURSOR_BITS};
use crate::protocol::resp::Writer;
use crate::values::numbers::{self, LongDouble};

/// Iterates over alternating field names and values as pairs.
#[derive(Clone)]
pub(super) struct Pairs<'w>(pub(super) args::Iter<'w>);

impl<'w> Iterator for Pairs<'w> {
    type Item = (&'w [u8], &'w [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}

impl Context<'_> {
    /// The key's hash, for reading. Counts as a lookup.
    #[inline]
    pub(super) fn as_hash(&mut self) -> Result<Option<Hash<'_>>, Error> {
        let found = self.engine.as_hash(self.hash, self.key, self.now);
        super::count_look(self.counters, !matches!(found, Ok(None)));
        Ok(found?)
    }

    /// Reads a field before it is changed.
    fn field(&mut self, name: &[u8]) -> Result<Option<Field<'_>>, Error> {
        Ok(self.engine.as_hash(self.hash, self.key, self.now)?.and_then(|hash| hash.field(name)))
    }

    fn set_field(&mut self, field: &[u8], value: &[u8], expiry: FieldExpiry) -> Done {
        let fields = std::iter::once((field, value));
        self.engine.hash_set(self.hash, self.key, fields, expiry, self.now)?;
        Ok(())
    }
}

pub(super) fn write_value(field: Option<Field>, w: &mut Writer) {
    match field {
        Some(field) => w.bulk(&field.value),
        None => w.null(),
    }
}

#[inline]
pub(super) fn hset(c: &mut Context, w: &mut Writer) -> Done {
    let added = set_all(c, "hset")?;
    c.reply_total(w, added);
    Ok(())
}

pub(super) fn hmset(c: &mut Context, w: &mut Writer) -> Done {
    set_all(c, "hmset")?;
    if !c.slice.more {
        w.simple("OK");
    }
    Ok(())
}

#[inline]
fn set_all(c: &mut Context, command: &str) -> Result<u64, Error> {
    let args = c.args.skip(1);
    if !args.len().is_multiple_of(2) {
        return Err(wrong_arity(command));
    }
    let fields = Pairs(c.some_of(args, 2).into_iter());
    Ok(c.engine.hash_set(c.hash, c.key, fields, FieldExpiry::Set(None), c.now)?)
}

pub(super) fn hsetnx(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let (field, value) = (required(&mut args)?, required(&mut args)?);
    let is_new = c.field(field)?.is_none();
    if is_new {
        c.set_field(field, value, FieldExpiry::Set(None))?;
    }
    w.integer(is_new.into());
    Ok(())
}

#[inline]
pub(super) fn hget(c: &mut Context, w: &mut Writer) -> Done {
    let field = required(&mut c.args.skip(1).into_iter())?;
    write_value(c.as_hash()?.and_then(|hash| hash.field(field)), w);
    Ok(())
}

pub(super) fn hmget(c: &mut Context, w: &mut Writer) -> Done {
    let (fields, mut slice) = (c.args.skip(1), c.slice);
    let hash = c.as_hash()?;
    let head = |w: &mut Writer| w.array(fields.len());
    slice.write_each(w, fields, head, |w, field| write_value(hash.as_ref().and_then(|hash| hash.field(field)), w));
    c.slice = slice;
    Ok(())
}

pub(super) fn hgetall(c: &mut Context, w: &mut Writer) -> Done {
    write_all(
        c,
        w,
        |w, count| w.map(count),
        |w, field| {
            w.bulk(&field.name);
            w.bulk(&field.value);
        },
    )
}

pub(super) fn hkeys(c: &mut Context, w: &mut Writer) -> Done {
    write_all(c, w, |w, count| w.array(count), |w, field| w.bulk(&field.name))
}

pub(super) fn hvals(c: &mut Context, w: &mut Writer) -> Done {
    write_all(c, w, |w, count| w.array(count), |w, field| w.bulk(&field.value))
}

/// Writes a slice of all fields, behind a head with their number.
fn write_all(
    c: &mut Context,
    w: &mut Writer,
    head: impl FnOnce(&mut Writer, usize),
    mut write: impl FnMut(&mut Writer, Field),
) -> Done {
    let mut slice = c.slice;
    let Some(hash) = c.as_hash()? else {
        head(w, 0);
        return Ok(());
    };
    if slice.from == 0 {
        head(w, hash.live_len() as usize);
    }
    let written = slice.write(w, hash.ranks_from(slice.from), |w, field| {
        if let Some(field) = field {
            write(w, field);
        }
    });
    slice.done_to(slice.from + written, hash.len());
    c.slice = slice;
    Ok(())
}

pub(super) fn hdel(c: &mut Context, w: &mut Writer) -> Done {
    let fields = c.some_of(c.args.skip(1), 1).into_iter();
    let removed = c.engine.hash_remove(c.hash, c.key, fields, c.now)?;
    c.reply_total(w, removed);
    Ok(())
}

pub(super) fn hexists(c: &mut Context, w: &mut Writer) -> Done {
    let field = required(&mut c.args.skip(1).into_iter())?;
    w.integer(c.as_hash()?.is_some_and(|hash| hash.field(field).is_some()).into());
    Ok(())
}

pub(super) fn hlen(c: &mut Context, w: &mut Writer) -> Done {
    w.integer(c.as_hash()?.map_or(0, |hash| hash.live_len()) as i64);
    Ok(())
}

pub(super) fn hstrlen(c: &mut Context, w: &mut Writer) -> Done {
    let field = required(&mut c.args.skip(1).into_iter())?;
    let field = c.as_hash()?.and_then(|hash| hash.field(field));
    w.integer(field.map_or(0, |field| field.value.len()) as i64);
    Ok(())
}

pub(super) fn hincrby(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let (field, by) = (required(&mut args)?, integer(required(&mut args)?)?);
    let old = match c.field(field)? {
        Some(field) => numbers::integer(&field.value).ok_or(text("ERR hash value is not an integer"))?,
        None => 0,
    };
    let sum = old.checked_add(by).ok_or(text("ERR increment or decrement would overflow"))?;
    c.set_field(field, itoa::Buffer::new().format(sum).as_bytes(), FieldExpiry::Keep)?;
    w.integer(sum);
    Ok(())
}

pub(super) fn hincrbyfloat(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let (field, by) = (required(&mut args)?, required(&mut args)?);
    let by = LongDouble::read(by).ok_or(NOT_A_FLOAT)?;
    let by = by.checked_add(LongDouble::ZERO).ok_or(text("ERR value is NaN or Infinity"))?;
    let old = match c.field(field)? {
        Some(field) => LongDouble::read(&field.value).ok_or(text("ERR hash value is not a float"))?,
        None => LongDouble::ZERO,
    };
    let sum = old.checked_add(by).ok_or(text("ERR increment would produce NaN or Infinity"))?;
    let mut digits = Vec::new();
    sum.write(&mut digits);
    c.set_field(field, &digits, FieldExpiry::Keep)?;
    w.bulk(&digits);
    Ok(())
}

pub(super) fn hrandfield(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let count = args.next().map(symmetric).transpose()?;
    let with_values = match args.next() {
        None => false,
        Some(arg) if is(arg, "WITHVALUES") && args.len() == 0 => true,
        Some(_) => return Err(SYNTAX),
    };
    let draw = Draw::of(count.unwrap_or(1))?;
    let length = c.as_hash()?.map_or(0, |hash| hash.live_len());
    if count.is_none() && length == 0 {
        w.null();
        return Ok(());
    }
    let nested = with_values && w.resp3();
    let mut slice = c.slice;
    if c.engine.as_hash(c.hash, c.key, c.now)?.is_some_and(|hash| hash.may_have_expired()) {
        // Expired fields have ranks too, so the ranks of the others are known only after a pass over all fields: there
        // is to be one.
        slice.elements_max = usize::MAX;
    }
    if count.is_some() && slice.from == 0 {
        let drawn = draw.count(length) as usize;
        w.array(if with_values && !nested { drawn * 2 } else { drawn });
    }
    let ranks = draw.ranks(length, &slice, c.engine);
    if let Some(hash) = c.engine.as_hash(c.hash, c.key, c.now)? {
        let live: Option<Vec<Field>> = hash.may_have_expired().then(|| hash.fields().collect());
        let field = |rank: u64| match &live {
            Some(live) => live.get(rank as usize).cloned(),
            None => hash.from(rank).next(),
        };
        ranks.write(&mut slice, w, field, |w, field| {
            if nested {
                w.array(2);
            }
            w.bulk(&field.name);
            if with_values {
                w.bulk(&field.value);
            }
        });
    }
    c.slice = slice;
    Ok(())
}

pub(super) fn hscan(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let cursors = c.engine.cursors();
    let cursor = cursors.open(cursor(required(&mut args)?)?, MEMBER_CURSOR_BITS);
    let Some(hash) = c.as_hash()? else {
        write_page(w, |_| (0, 0));
        return Ok(());
    };
    let options = ScanOptions::read(args, Some(Kind::Hash))?;
    write_page(w, |w| {
        let mut written = 0;
        let next = hash.scan(cursor, options.count, |field| {
            let (matches, elements) = options.matches(&field.name);
            if matches {
                w.bulk(&field.name);
                written += 1;
                if !options.names_only {
                    w.bulk(&field.value);
                    written += 1;
                }
            }
            elements
        });
        (cursors.seal(next, MEMBER_CURSOR_BITS), written)
    });
    Ok(())
}
