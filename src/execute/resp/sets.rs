//! Sets.

use super::arguments::{Error, SYNTAX, natural, required, symmetric};
use super::random::Draw;
use super::scan::{ScanOptions, cursor, write_page};
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
    let members = c.args.skip(1).into_iter();
    let is_integer = |member: &[u8]| numbers::integer(member).is_some();
    w.integer(c.engine.set_add(c.hash, c.key, members, is_integer, c.now)? as i64);
    Ok(())
}

pub(super) fn srem(c: &mut Context, w: &mut Writer) -> Done {
    let members = c.args.skip(1).into_iter();
    w.integer(c.engine.set_remove(c.hash, c.key, members, c.now)? as i64);
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
    let members = c.args.skip(1);
    let set = c.as_set()?;
    w.array(members.len());
    for member in members {
        w.integer(set.as_ref().is_some_and(|set| set.contains(member)).into());
    }
    Ok(())
}

pub(super) fn smembers(c: &mut Context, w: &mut Writer) -> Done {
    write_all(c.as_set()?, w);
    Ok(())
}

fn write_all(set: Option<Set>, w: &mut Writer) {
    w.set(set.as_ref().map_or(0, |set| set.len()) as usize);
    if let Some(set) = set {
        set.members().for_each(|member| w.bulk(&member));
    }
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
    let ranks = draw.ranks(length, c.engine);
    w.array(ranks.len());
    if let Some(set) = c.engine.as_set(c.hash, c.key, c.now)? {
        let drawn = ranks.iter().filter_map(|&rank| set.from(rank).next());
        for member in drawn {
            w.bulk(&member);
            if w.is_cut() {
                break;
            }
        }
    }
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
    let count = natural(count)?;
    let set = c.engine.as_set(c.hash, c.key, c.now)?;
    let length = set.as_ref().map_or(0, |set| set.len());
    if count >= length {
        if length > 0 {
            // As in Redis, which reads the whole set as SMEMBERS does.
            super::count_look(c.counters, true);
        }
        write_all(set, w);
        c.engine.remove(c.hash, c.key, c.now);
        return Ok(());
    }
    w.set(count as usize);
    for _ in 0..count {
        c.engine.set_pop(c.hash, c.key, c.now, |member| w.bulk(&member))?;
    }
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
