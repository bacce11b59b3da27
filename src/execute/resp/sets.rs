//! Sets.

use super::arguments::{Error, SYNTAX, natural, required, symmetric};
use super::random::Draw;
use super::scan::{ScanOptions, cursor, write_page};
use super::slice::Slice;
use super::{Context, Done};
use crate::engine::{Kind, MEMBER_CURSOR_BITS, Set};
use crate::protocol::resp::Writer;
use crate::values::numbers;

impl Context<'_> {
    /// The key's set, for reading. Counts as a lookup.
    #[inline]
    fn as_set(&mut self) -> Result<Option<Set<'_>>, Error> {
        let found = self.engine.as_set(self.hash, self.key, self.now);
        super::count_look(self.counters, !matches!(found, Ok(None)));
        Ok(found?)
    }
}

#[inline]
pub(super) fn sadd(c: &mut Context, w: &mut Writer) -> Done {
    let members = c.some_of(c.args.skip(1), 1).into_iter();
    let is_integer = |member: &[u8]| numbers::integer(member).is_some();
    let added = c.engine.set_add(c.hash, c.key, members, is_integer, c.now)?;
    c.reply_total(w, added);
    Ok(())
}

pub(super) fn srem(c: &mut Context, w: &mut Writer) -> Done {
    let members = c.some_of(c.args.skip(1), 1).into_iter();
    let removed = c.engine.set_remove(c.hash, c.key, members, c.now)?;
    c.reply_total(w, removed);
    Ok(())
}

pub(super) fn scard(c: &mut Context, w: &mut Writer) -> Done {
    w.integer(c.as_set()?.map_or(0, |set| set.len()) as i64);
    Ok(())
}

pub(super) fn sismember(c: &mut Context, w: &mut Writer) -> Done {
    let member = required(&mut c.args.skip(1).into_iter())?;
    w.integer(c.as_set()?.is_some_and(|set| set.contains(member)).into());
    Ok(())
}

pub(super) fn smismember(c: &mut Context, w: &mut Writer) -> Done {
    let (members, mut slice) = (c.args.skip(1), c.slice);
    let set = c.as_set()?;
    let head = |w: &mut Writer| w.array(members.len());
    slice.write_each(w, members, head, |w, member| {
        w.integer(set.as_ref().is_some_and(|set| set.contains(member)).into());
    });
    c.slice = slice;
    Ok(())
}

pub(super) fn smembers(c: &mut Context, w: &mut Writer) -> Done {
    let mut slice = c.slice;
    write_all(c.as_set()?, w, &mut slice);
    c.slice = slice;
    Ok(())
}

/// Writes a slice of all members.
fn write_all(set: Option<Set>, w: &mut Writer, slice: &mut Slice) {
    let Some(set) = set else { return w.set(0) };
    if slice.from == 0 {
        w.set(set.len() as usize);
    }
    let written = slice.write(w, set.from(slice.from), |w, member| w.bulk(&member));
    slice.done_to(slice.from + written, set.len());
}

pub(super) fn srandmember(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let Some(count) = args.next() else {
        let random = c.engine.random();
        match c.as_set()? {
            Some(set) => set.from(random % set.len()).take(1).for_each(|member| w.bulk(&member)),
            None => w.null(),
        }
        return Ok(());
    };
    if args.next().is_some() {
        return Err(SYNTAX);
    }
    let draw = Draw::of(symmetric(count)?)?;
    let Some(length) = c.as_set()?.map(|set| set.len()) else {
        w.array(0);
        return Ok(());
    };
    if c.slice.from == 0 {
        w.array(draw.count(length) as usize);
    }
    let mut slice = c.slice;
    let ranks = draw.ranks(length, &slice, c.engine);
    if let Some(set) = c.engine.as_set(c.hash, c.key, c.now)? {
        ranks.write(&mut slice, w, |rank| set.from(rank).next(), |w, member| w.bulk(&member));
    }
    c.slice = slice;
    Ok(())
}

pub(super) fn spop(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let Some(count) = args.next() else {
        let popped = c.engine.set_pop(c.hash, c.key, c.now, |member| w.bulk(&member))?;
        if !popped {
            w.null();
        }
        return Ok(());
    };
    if args.next().is_some() {
        return Err(SYNTAX);
    }
    let (count, mut slice) = (natural(count)?, c.slice);
    let set = c.engine.as_set(c.hash, c.key, c.now)?;
    let length = set.as_ref().map_or(0, |set| set.len());
    // `sum` members were popped by the slices before.
    if count >= length && slice.sum == 0 {
        if length > 0 {
            // As in Redis, which reads the whole set as SMEMBERS does.
            super::count_look(c.counters, true);
        }
        write_all(set, w, &mut slice);
        if !slice.more {
            c.engine.remove(c.hash, c.key, c.now);
        }
        c.slice = slice;
        return Ok(());
    }
    if slice.sum == 0 {
        w.set(count as usize);
    }
    let mut popped = slice.write(w, slice.sum..count, |w, _| {
        let is_popped = c.engine.set_pop(c.hash, c.key, c.now, |member| w.bulk(&member));
        debug_assert_eq!(is_popped, Ok(true), "a set with more members");
    });
    popped += slice.sum;
    c.slice.sum = popped;
    c.slice.done_to(popped, count);
    Ok(())
}

pub(super) fn sscan(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let cursors = c.engine.cursors();
    let cursor = cursors.open(cursor(required(&mut args)?)?, MEMBER_CURSOR_BITS);
    let Some(set) = c.as_set()? else {
        write_page(w, |_| (0, 0));
        return Ok(());
    };
    let options = ScanOptions::read(args, Some(Kind::Set))?;
    write_page(w, |w| {
        let mut written = 0;
        let next = set.scan(cursor, options.count, |member| {
            let (matches, elements) = options.matches(&member);
            if matches {
                w.bulk(&member);
                written += 1;
            }
            elements
        });
        (cursors.seal(next, MEMBER_CURSOR_BITS), written)
    });
    Ok(())
}
