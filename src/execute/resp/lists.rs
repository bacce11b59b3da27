//! Lists.

use super::arguments::{
    Error, NO_SUCH_KEY, OUT_OF_RANGE, SYNTAX, index_range, integer, is, natural, required, symmetric, text, wrong_arity,
};
use super::{Context, Done};
use crate::command::End;
use crate::engine::List;
use crate::protocol::resp::Writer;

impl Context<'_> {
    /// The key's list, for reading. Counts as a lookup.
    #[inline]
    fn as_list(&mut self) -> Result<Option<List<'_>>, Error> {
        let found = self.engine.as_list(self.hash, self.key, self.now);
        super::count_look(self.counters, !matches!(found, Ok(None)));
        Ok(found?)
    }
}

/// LPUSH and RPUSH; LPUSHX and RPUSHX do not create a list.
#[inline]
pub(super) fn push(c: &mut Context, w: &mut Writer, end: End, create: bool) -> Done {
    let values = c.some_of(c.args.skip(1), 1).into_iter();
    let length = c.engine.list_push(c.hash, c.key, end, values, create, c.now)?;
    if !c.slice.more {
        w.integer(length as i64);
    }
    Ok(())
}

#[inline]
pub(super) fn pop(c: &mut Context, w: &mut Writer, end: End) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let Some(count) = args.next() else {
        let popped = c.engine.list_pop(c.hash, c.key, end, 1, c.now, |element| w.bulk(&element))?;
        if popped.is_none() {
            w.null();
        }
        return Ok(());
    };
    if args.next().is_some() {
        return Err(wrong_arity(if end == End::Front { "lpop" } else { "rpop" }));
    }
    let count = natural(count)?;
    let Some(length) = c.engine.as_list(c.hash, c.key, c.now)?.map(|list| list.len()) else {
        w.null_array();
        return Ok(());
    };
    // `from` were popped by the slices before.
    let left = (count - c.slice.from).min(length);
    if c.slice.from == 0 {
        w.array(left as usize);
    }
    let popped = left.min(c.slice.elements_max as u64);
    c.slice.done_to(c.slice.from + popped, c.slice.from + left);
    if popped > 0 {
        c.engine.list_pop(c.hash, c.key, end, popped, c.now, |element| w.bulk(&element))?;
    }
    Ok(())
}

pub(super) fn llen(c: &mut Context, w: &mut Writer) -> Done {
    w.integer(c.as_list()?.map_or(0, |list| list.len()) as i64);
    Ok(())
}

pub(super) fn lrange(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let (start, stop) = (integer(required(&mut args)?)?, integer(required(&mut args)?)?);
    let mut slice = c.slice;
    let Some(list) = c.as_list()? else {
        w.array(0);
        return Ok(());
    };
    let (first, end) = index_range(start, stop, list.len());
    let count = end - first;
    if slice.from == 0 {
        w.array(count as usize);
    }
    if count > 0 {
        let elements = list.forward_from(first + slice.from).take((count - slice.from) as usize);
        let written = slice.write(w, elements, |w, element| w.bulk(&element));
        slice.done_to(slice.from + written, count);
        c.slice = slice;
    }
    Ok(())
}

pub(super) fn lindex(c: &mut Context, w: &mut Writer) -> Done {
    let arg = required(&mut c.args.skip(1).into_iter())?;
    let Some(list) = c.as_list()? else {
        w.null();
        return Ok(());
    };
    let index = integer(arg)?;
    let index = if index < 0 { list.len().checked_add_signed(index) } else { Some(index as u64) };
    match index.filter(|&index| index < list.len()).and_then(|index| list.forward_from(index).next()) {
        Some(element) => w.bulk(&element),
        None => w.null(),
    }
    Ok(())
}

pub(super) fn lset(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let (index, value) = (required(&mut args)?, required(&mut args)?);
    let index = match integer(index) {
        Ok(index) => index,
        // As in Redis, a missing list takes precedence over an invalid index.
        Err(error) => {
            let exists = c.engine.as_list(c.hash, c.key, c.now)?.is_some();
            return Err(if exists { error } else { NO_SUCH_KEY });
        }
    };
    match c.engine.list_set(c.hash, c.key, index, value, c.now)? {
        None => Err(NO_SUCH_KEY),
        Some(false) => Err(OUT_OF_RANGE),
        Some(true) => {
            w.simple("OK");
            Ok(())
        }
    }
}

pub(super) fn linsert(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let side = required(&mut args)?;
    let after = is(side, "AFTER");
    if !after && !is(side, "BEFORE") {
        return Err(SYNTAX);
    }
    let (pivot, value) = (required(&mut args)?, required(&mut args)?);
    w.integer(match c.engine.list_insert(c.hash, c.key, pivot, after, value, c.now)? {
        None => 0,
        Some(0) => -1,
        Some(length) => length as i64,
    });
    Ok(())
}

pub(super) fn lrem(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let (count, value) = (integer(required(&mut args)?)?, required(&mut args)?);
    w.integer(c.engine.list_remove(c.hash, c.key, count, value, c.now)? as i64);
    Ok(())
}

pub(super) fn ltrim(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let (start, stop) = (integer(required(&mut args)?)?, integer(required(&mut args)?)?);
    if let Some(list) = c.engine.as_list(c.hash, c.key, c.now)? {
        let (first, end) = index_range(start, stop, list.len());
        c.engine.list_trim(c.hash, c.key, first, end - first, c.now)?;
    }
    w.simple("OK");
    Ok(())
}

/// The matches that LPOS returns.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// The first match to return, counted from 1; a negative rank counts from the tail.
    rank: i64,
    /// The most matches to return; 0 means all. Without COUNT, LPOS returns one match that is not in an array.
    count: Option<u64>,
    /// The most elements to compare; 0 means all.
    looks_max: u64,
}

pub(super) fn lpos(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let element = required(&mut args)?;
    let wanted = wanted(args)?;
    match c.as_list()? {
        Some(list) if wanted.rank < 0 => {
            let last = list.len() - 1;
            write_positions(list.equal_backward(element), wanted, |n| last - n, w);
        }
        Some(list) => write_positions(list.equal_forward(element), wanted, |n| n, w),
        None => write_positions(std::iter::empty(), wanted, |n| n, w),
    }
    Ok(())
}

fn wanted<'w>(mut args: impl Iterator<Item = &'w [u8]>) -> Result<Wanted, Error> {
    let mut wanted = Wanted { rank: 1, count: None, looks_max: 0 };
    let or = |natural: Result<u64, Error>, message: &'static str| natural.map_err(|_| text(message));
    while let Some(arg) = args.next() {
        let value = args.next().ok_or(SYNTAX)?;
        match arg.to_ascii_uppercase().as_slice() {
            b"RANK" => wanted.rank = symmetric(value)?,
            b"COUNT" => wanted.count = Some(or(natural(value), "ERR COUNT can't be negative")?),
            b"MAXLEN" => wanted.looks_max = or(natural(value), "ERR MAXLEN can't be negative")?,
            _ => return Err(SYNTAX),
        }
        if wanted.rank == 0 {
            return Err(text(
                "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to \
                 start from the end of the list",
            ));
        }
    }
    Ok(wanted)
}

/// Writes the positions of matches. `matches` yields whether each element matches; `index` maps its number to the
/// position.
fn write_positions(matches: impl Iterator<Item = bool>, wanted: Wanted, index: impl Fn(u64) -> u64, w: &mut Writer) {
    let most = |limit: u64| if limit == 0 { usize::MAX } else { limit as usize };
    let before = (wanted.rank.unsigned_abs() - 1) as usize;
    let looked_at = (0..).zip(matches).take(most(wanted.looks_max));
    let mut found = looked_at.filter(|&(_, matches)| matches).skip(before).map(|(n, _)| index(n) as i64);
    match wanted.count {
        None => match found.next() {
            Some(at) => w.integer(at),
            None => w.null(),
        },
        Some(count) => {
            let (array, mut written) = (w.begin_array(), 0);
            for at in found.take(most(count)) {
                w.integer(at);
                written += 1;
            }
            w.end(array, written);
        }
    }
}
