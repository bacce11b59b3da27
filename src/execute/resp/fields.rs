//! Expiry of hash fields, and the commands that combine it with reading or writing fields.
//!
//! Arguments and errors are those of Valkey 9.

use super::arguments::{Error, SYNTAX, integer, is, required, text};
use super::hashes::{Pairs, write_value};
use super::keys::ExpireCondition;
use super::slice::SECOND_PASS;
use super::{Context, Done};
use crate::command::{Args, UnixMs};
use crate::engine::{FIELD_EXPIRES_MAX, FieldExpiry, FieldOutcome};
use crate::protocol::resp::Writer;

const WRONG_COUNT: Error = text("ERR numfields should be greater than 0 and match the provided number of fields");

/// Splits the arguments at FIELDS into the options before it and the fields after it. The number that follows FIELDS
/// must be the number of groups of `group` arguments that remain; otherwise returns `mismatch`.
fn split<'w>(args: Args<'w>, group: usize, mismatch: Error) -> Result<(Vec<&'w [u8]>, Args<'w>), Error> {
    let (mut options, mut args) = (Vec::new(), args.into_iter());
    loop {
        match args.next() {
            Some(arg) if is(arg, "FIELDS") => break,
            Some(arg) => options.push(arg),
            None => return Err(mismatch),
        }
    }
    let count = integer(args.next().ok_or(mismatch.clone())?)?;
    let fields = args.rest();
    let is_right = usize::try_from(count).ok().and_then(|n| n.checked_mul(group)) == Some(fields.len());
    if is_right && !fields.is_empty() { Ok((options, fields)) } else { Err(mismatch) }
}

/// An expiry of fields, as an argument in the units of its option or command.
#[derive(Clone, Copy, Debug)]
struct Time<'w> {
    arg: &'w [u8],
    unit: i64,
    relative: bool,
}

impl Time<'_> {
    /// The time in milliseconds by the shard's clock. A time in the past removes the fields.
    fn resolve(self, c: &Context, command: &str) -> Result<UnixMs, Error> {
        let expires = match integer(self.arg)? {
            0 => 0,
            number => c.time_of(number, self.unit, self.relative, command)?,
        };
        let expires = u64::try_from(expires).ok().filter(|_| !self.arg.starts_with(b"-"));
        // Later times than the latest are reduced to it, as those of keys are.
        expires
            .map(|expires| expires.min(FIELD_EXPIRES_MAX))
            .ok_or_else(|| Error::Text(format!("ERR invalid expire time in '{command}' command").into()))
    }
}

pub(super) fn hexpire(c: &mut Context, w: &mut Writer, unit: i64, relative: bool) -> Done {
    let command = match (unit, relative) {
        (1000, true) => "hexpire",
        (_, true) => "hpexpire",
        (1000, false) => "hexpireat",
        (_, false) => "hpexpireat",
    };
    let mut args = c.args.skip(1).into_iter();
    let arg = required(&mut args)?;
    let (options, fields) = split(args.rest(), 1, WRONG_COUNT)?;
    let mut condition = ExpireCondition::default();
    for option in options {
        if !condition.take(option) {
            return Err(Error::Text(format!("ERR Unsupported option {}", String::from_utf8_lossy(option)).into()));
        }
    }
    condition.check()?;
    let expires = Time { arg, unit, relative }.resolve(c, command)?;
    change(c, w, fields, Some(expires), |old| condition.holds(old, expires as i64), 0)
}

pub(super) fn hpersist(c: &mut Context, w: &mut Writer) -> Done {
    let (options, fields) = split(c.args.skip(1), 1, SYNTAX)?;
    if !options.is_empty() {
        return Err(SYNTAX);
    }
    change(c, w, fields, None, |old| old.is_some(), -1)
}

/// Changes the expiry of fields, and replies the outcome for each field.
fn change<'e>(
    c: &mut Context<'e>,
    w: &mut Writer,
    fields: Args<'e>,
    expires: Option<UnixMs>,
    may: impl Fn(Option<UnixMs>) -> bool,
    refused: i64,
) -> Done {
    let is_first = c.slice.from == 0;
    let some = c.some_of(fields, 1);
    if is_first {
        w.array(fields.len());
    }
    let found = c.engine.hash_expire(c.hash, c.key, some.into_iter(), expires, may, c.now, |outcome| {
        w.integer(match outcome {
            FieldOutcome::Missing => -2,
            FieldOutcome::Refused => refused,
            FieldOutcome::Changed => 1,
            FieldOutcome::Removed => 2,
        });
    })?;
    if found.is_none() {
        some.into_iter().for_each(|_| w.integer(-2));
    }
    Ok(())
}

/// HTTL and its relatives: replies the fields' times of expiry in units of `unit` milliseconds, from now if `relative`,
/// else as Unix times.
pub(super) fn httl(c: &mut Context, w: &mut Writer, unit: u64, relative: bool) -> Done {
    let (options, fields) = split(c.args.skip(1), 1, SYNTAX)?;
    if !options.is_empty() {
        return Err(SYNTAX);
    }
    let (now, wall_ahead_ms) = (c.now, c.wall_ahead_ms);
    let shown = |expires: UnixMs| match relative {
        true => expires.saturating_sub(now + 1),
        false => expires.saturating_add_signed(wall_ahead_ms),
    };
    let mut slice = c.slice;
    let hash = c.as_hash()?;
    let head = |w: &mut Writer| w.array(fields.len());
    slice.write_each(w, fields, head, |w, field| {
        w.integer(match hash.as_ref().and_then(|hash| hash.field(field)).map(|field| field.expires) {
            None => -2,
            Some(None) => -1,
            Some(Some(expires)) => ((shown(expires) + unit / 2) / unit) as i64,
        });
    });
    c.slice = slice;
    Ok(())
}

/// How HGETEX and HSETEX change the expiry of fields.
#[derive(Clone, Copy, Debug)]
enum Change<'w> {
    Keep,
    Persist,
    Set(Time<'w>),
}

/// Parses EX, PX, EXAT or PXAT and the argument after it; None if `arg` is another option.
fn time_option<'w>(arg: &[u8], args: &mut impl Iterator<Item = &'w [u8]>) -> Result<Option<Change<'w>>, Error> {
    let (unit, relative) = match arg.to_ascii_uppercase().as_slice() {
        b"EX" => (1000, true),
        b"PX" => (1, true),
        b"EXAT" => (1000, false),
        b"PXAT" => (1, false),
        _ => return Ok(None),
    };
    Ok(Some(Change::Set(Time { arg: required(args)?, unit, relative })))
}

pub(super) fn hgetex(c: &mut Context, w: &mut Writer) -> Done {
    let (options, fields) = split(c.args.skip(1), 1, WRONG_COUNT)?;
    let (mut options, mut change) = (options.into_iter(), None);
    while let Some(arg) = options.next() {
        let option = match is(arg, "PERSIST") {
            true => Some(Change::Persist),
            false => time_option(arg, &mut options)?,
        };
        if option.is_none() || change.is_some() {
            return Err(SYNTAX);
        }
        change = option;
    }
    let mut slice = c.slice;
    let hash = c.as_hash()?;
    let (head, mut read) = (|w: &mut Writer| w.array(fields.len()), 0);
    slice.write_each(w, fields, head, |w, field| {
        write_value(hash.as_ref().and_then(|hash| hash.field(field)), w);
        read += 1;
    });
    // Those that this slice has read.
    let fields = c.slice.args(fields, read);
    c.slice = slice;
    let expires = match change.unwrap_or(Change::Keep) {
        Change::Keep => return Ok(()),
        Change::Persist => None,
        Change::Set(time) => Some(time.resolve(c, "hgetex")?),
    };
    // PERSIST changes only fields that have an expiry.
    let may = |old: Option<UnixMs>| old.is_some() || expires.is_some();
    c.engine.hash_expire(c.hash, c.key, fields.into_iter(), expires, may, c.now, |_| ())?;
    Ok(())
}

pub(super) fn hgetdel(c: &mut Context, w: &mut Writer) -> Done {
    let (options, fields) = split(c.args.skip(1), 1, SYNTAX)?;
    if !options.is_empty() {
        return Err(SYNTAX);
    }
    c.engine.as_hash(c.hash, c.key, c.now)?;
    let (mut slice, hash, key, now) = (c.slice, c.hash, c.key, c.now);
    let head = |w: &mut Writer| w.array(fields.len());
    slice.write_each(w, fields, head, |w, field| {
        // It was opened above, so its type is right.
        write_value(c.engine.as_hash(hash, key, now).ok().flatten().and_then(|hash| hash.field(field)), w);
        _ = c.engine.hash_remove(hash, key, std::iter::once(field), now);
    });
    c.slice = slice;
    Ok(())
}

/// The condition of HSETEX.
#[derive(Clone, Copy, Debug, Default)]
struct SetCondition {
    /// NX and XX: the key must exist (true), or must not.
    key: Option<bool>,
    /// FNX and FXX: all fields must exist (true), or none may.
    fields: Option<bool>,
}

impl SetCondition {
    fn holds(self, c: &mut Context, fields: Args) -> Result<bool, Error> {
        let hash = c.engine.as_hash(c.hash, c.key, c.now)?;
        if self.key.is_some_and(|wanted| wanted != hash.is_some()) {
            return Ok(false);
        }
        let has = |field: &[u8]| hash.as_ref().is_some_and(|hash| hash.field(field).is_some());
        let mut fields = Pairs(fields.into_iter());
        Ok(self.fields.is_none_or(|wanted| fields.all(|(field, _)| has(field) == wanted)))
    }
}

pub(super) fn hsetex(c: &mut Context, w: &mut Writer) -> Done {
    let (options, fields) = split(c.args.skip(1), 2, WRONG_COUNT)?;
    let (condition, change) = set_options(options)?;
    // The first pass checks, the second one stores.
    if c.slice.from & SECOND_PASS == 0 {
        let some = c.some_of(fields, 2);
        if !condition.holds(c, some)? {
            c.slice.more = false;
            w.integer(0);
            return Ok(());
        }
        if some.len() < fields.len() {
            if !c.slice.more {
                c.slice.go_on(SECOND_PASS);
            }
            return Ok(());
        }
    }
    let expiry = match change {
        Change::Keep => FieldExpiry::Keep,
        Change::Persist => FieldExpiry::Set(None),
        Change::Set(time) => FieldExpiry::Set(Some(time.resolve(c, "hsetex")?)),
    };
    let pairs = Pairs(c.some_of(fields, 2).into_iter());
    match expiry {
        // A time in the past removes the fields instead of storing them.
        FieldExpiry::Set(Some(expires)) if expires <= c.now => {
            c.engine.hash_remove(c.hash, c.key, pairs.map(|(field, _)| field), c.now)?;
        }
        _ => _ = c.engine.hash_set(c.hash, c.key, pairs, expiry, c.now)?,
    }
    if !c.slice.more {
        w.integer(1);
    }
    Ok(())
}

fn set_options(options: Vec<&[u8]>) -> Result<(SetCondition, Change<'_>), Error> {
    let (mut condition, mut change) = (SetCondition::default(), None);
    let mut args = options.into_iter();
    while let Some(arg) = args.next() {
        match arg.to_ascii_uppercase().as_slice() {
            b"NX" if condition.key != Some(true) => condition.key = Some(false),
            b"XX" if condition.key != Some(false) => condition.key = Some(true),
            b"FNX" if condition.fields != Some(true) => condition.fields = Some(false),
            b"FXX" if condition.fields != Some(false) => condition.fields = Some(true),
            b"KEEPTTL" if change.is_none() => change = Some(Change::Keep),
            _ => match time_option(arg, &mut args)? {
                Some(option) if change.is_none() => change = Some(option),
                _ => return Err(SYNTAX),
            },
        }
    }
    Ok((condition, change.unwrap_or(Change::Persist)))
}
