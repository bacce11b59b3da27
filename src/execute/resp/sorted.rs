//! Sorted sets: members, scores, ranks. Ranges are in `ranges.rs`.

use super::arguments::{Error, NOT_A_FLOAT, SYNTAX, integer, is, natural, required, text};
use super::random::Draw;
use super::scan::{ScanOptions, cursor, write_page};
use super::slice::{SECOND_PASS, Slice};
use super::{Context, Done};
use crate::command::Args;
use crate::engine::{Bytes, Kind, MEMBER_CURSOR_BITS, ScoreChange, Scored, Sorted};
use crate::metrics::Counter;
use crate::protocol::resp::Writer;
use crate::values::numbers;

/// The sorted set at the key, for reading. Counts as a lookup.
#[inline]
pub(super) fn find<'c>(c: &'c mut Context) -> Result<Option<Sorted<'c>>, Error> {
    let found = c.engine.as_sorted(c.hash, c.key, c.now);
    super::count_look(c.counters, !matches!(found, Ok(None)));
    Ok(found?)
}

/// Parses a score. As Redis keeps it, zero has no sign.
fn score(arg: &[u8]) -> Result<f64, Error> {
    numbers::float(arg).map(|score| score + 0.0).ok_or(NOT_A_FLOAT)
}

/// Writes a slice of `count` members: `members` are those that are left. In RESP3, a member with its score is a nested
/// array.
#[inline]
pub(super) fn write_members<'b>(
    w: &mut Writer,
    count: u64,
    members: impl Iterator<Item = (Bytes<'b>, f64)>,
    scores: bool,
    slice: &mut Slice,
) {
    if slice.from == 0 {
        write_head(w, count as usize, scores);
    }
    let members = members.take((count - slice.from) as usize);
    let written = slice.write(w, members, |w, (member, score)| write_member(w, &member, score, scores));
    slice.done_to(slice.from + written, count);
}

fn write_head(w: &mut Writer, count: usize, scores: bool) {
    w.array(if scores && !w.resp3() { 2 * count } else { count });
}

#[inline]
fn write_member(w: &mut Writer, member: &[u8], score: f64, scores: bool) {
    if scores && w.resp3() {
        w.array(2);
    }
    w.bulk(member);
    if scores {
        w.double(score);
    }
}

/// The options of ZADD.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AddOptions {
    change: ScoreChange,
    /// CH: members whose scores changed are counted too.
    changed: bool,
}

impl AddOptions {
    /// Parses the leading options; returns them and the remaining arguments.
    fn read(mut args: Args<'_>) -> (Self, Args<'_>) {
        let mut options = Self::default();
        while let Some((arg, rest)) = args.split_first() {
            if !options.take(arg) {
                break;
            }
            args = rest;
        }
        (options, args)
    }

    /// Parses an option; false if `arg` is not one.
    fn take(&mut self, arg: &[u8]) -> bool {
        let change = &mut self.change;
        if is(arg, "GT") {
            change.only_greater = true;
        } else if is(arg, "LT") {
            change.only_less = true;
        } else if is(arg, "INCR") {
            change.increment = true;
        } else {
            return self.take_common(arg);
        }
        true
    }

    /// Parses an option that GEOADD has too; false if `arg` is not one.
    pub(super) fn take_common(&mut self, arg: &[u8]) -> bool {
        if is(arg, "NX") {
            self.change.only_new = true;
        } else if is(arg, "XX") {
            self.change.only_known = true;
        } else if is(arg, "CH") {
            self.changed = true;
        } else {
            return false;
        }
        true
    }

    pub(super) fn check(self) -> Result<(), Error> {
        let ScoreChange { only_new, only_known, only_greater, only_less, .. } = self.change;
        if only_new && only_known {
            return Err(text("ERR XX and NX options at the same time are not compatible"));
        }
        if only_new && (only_greater || only_less) || only_greater && only_less {
            return Err(text("ERR GT, LT, and/or NX options at the same time are not compatible"));
        }
        Ok(())
    }
}

/// Parses members behind their scores.
fn scored(args: Args<'_>) -> Result<Vec<(f64, &[u8])>, Error> {
    let (mut args, mut members) = (args.into_iter(), Vec::with_capacity(args.len() / 2));
    while let Some(arg) = args.next() {
        members.push((score(arg)?, required(&mut args)?));
    }
    Ok(members)
}

/// ZADD.
#[inline]
pub(super) fn add(c: &mut Context, w: &mut Writer) -> Done {
    let (options, args) = AddOptions::read(c.args.skip(1));
    if args.is_empty() || !args.len().is_multiple_of(2) {
        return Err(SYNTAX);
    }
    options.check()?;
    let mut args = args.into_iter();
    if args.len() == 2 {
        let one = [(score(required(&mut args)?)?, required(&mut args)?)];
        return add_members(c, w, &one, options);
    }
    if options.change.increment {
        return Err(text("ERR INCR option supports a single increment-element pair"));
    }
    add_all(c, w, args.rest(), 2, scored, options)
}

/// Adds the members that `read` finds in the arguments, in groups of `group`. If there are too many for one slice, they
/// are all checked before the first is added.
pub(super) fn add_all<'e>(
    c: &mut Context<'e>,
    w: &mut Writer,
    args: Args<'e>,
    group: usize,
    read: impl FnOnce(Args<'e>) -> Result<Vec<(f64, &'e [u8])>, Error>,
    options: AddOptions,
) -> Done {
    let is_second_pass = c.slice.from & SECOND_PASS != 0;
    let some = c.some_of(args, group);
    let members = read(some)?;
    if is_second_pass || some.len() == args.len() {
        return add_members(c, w, &members, options);
    }
    if !c.slice.more {
        c.slice.go_on(SECOND_PASS);
    }
    Ok(())
}

/// Adds members or changes their scores, and writes ZADD's reply.
pub(super) fn add_members(c: &mut Context, w: &mut Writer, members: &[(f64, &[u8])], options: AddOptions) -> Done {
    let AddOptions { change, changed } = options;
    let (mut added, mut rescored, mut last) = (0, 0, Scored::Refused);
    c.counters.add(Counter::CmdSet);
    c.engine.sorted_add(c.hash, c.key, members.iter().copied(), change, c.now, |scored| {
        match scored {
            Scored::Added(_) => added += 1,
            Scored::Changed(_) => rescored += 1,
            Scored::Same(_) | Scored::Refused | Scored::NotANumber => {}
        }
        last = scored;
    })?;
    match last {
        Scored::NotANumber => return Err(text("ERR resulting score is not a number (NaN)")),
        _ if !change.increment => c.reply_total(w, if changed { added + rescored } else { added }),
        Scored::Added(score) | Scored::Changed(score) | Scored::Same(score) => w.double(score),
        Scored::Refused => w.null(),
    }
    Ok(())
}

/// ZINCRBY.
pub(super) fn increment(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let one = [(score(required(&mut args)?)?, required(&mut args)?)];
    let change = ScoreChange { increment: true, ..ScoreChange::default() };
    add_members(c, w, &one, AddOptions { change, changed: false })
}

/// ZREM.
pub(super) fn remove(c: &mut Context, w: &mut Writer) -> Done {
    let members = c.some_of(c.args.skip(1), 1).into_iter();
    let removed = c.engine.sorted_remove(c.hash, c.key, members, c.now)?;
    c.reply_total(w, removed);
    Ok(())
}

/// ZCARD.
pub(super) fn card(c: &mut Context, w: &mut Writer) -> Done {
    w.integer(find(c)?.map_or(0, |sorted| sorted.len()) as i64);
    Ok(())
}

/// ZSCORE.
#[inline]
pub(super) fn score_of(c: &mut Context, w: &mut Writer) -> Done {
    let member = required(&mut c.args.skip(1).into_iter())?;
    let sorted = find(c)?;
    write_score(w, sorted.and_then(|sorted| sorted.score(member)));
    Ok(())
}

/// ZMSCORE.
pub(super) fn scores_of(c: &mut Context, w: &mut Writer) -> Done {
    write_each_member(c, w, |w, sorted, member| write_score(w, sorted.and_then(|sorted| sorted.score(member))))
}

/// Writes an element for each of the members that are the arguments after the key.
pub(super) fn write_each_member<'e>(
    c: &mut Context<'e>,
    w: &mut Writer,
    mut write: impl FnMut(&mut Writer, Option<&Sorted>, &'e [u8]),
) -> Done {
    let (members, mut slice) = (c.args.skip(1), c.slice);
    let sorted = find(c)?;
    let head = |w: &mut Writer| w.array(members.len());
    slice.write_each(w, members, head, |w, member| write(w, sorted.as_ref(), member));
    c.slice = slice;
    Ok(())
}

fn write_score(w: &mut Writer, score: Option<f64>) {
    match score {
        Some(score) => w.double(score),
        None => w.null(),
    }
}

/// ZRANK and ZREVRANK.
#[inline]
pub(super) fn rank(c: &mut Context, w: &mut Writer, downwards: bool) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let member = required(&mut args)?;
    let with_score = args.len() > 0;
    if args.len() > 1 {
        let command = if downwards { "zrevrank" } else { "zrank" };
        return Err(Error::Text(format!("ERR wrong number of arguments for '{command}' command").into()));
    }
    if args.next().is_some_and(|arg| !is(arg, "WITHSCORE")) {
        return Err(SYNTAX);
    }
    let found = find(c)?.and_then(|sorted| {
        let (rank, score) = sorted.rank(member)?;
        Some((if downwards { sorted.len() - 1 - rank } else { rank }, score))
    });
    match found {
        Some((rank, score)) if with_score => {
            w.array(2);
            w.integer(rank as i64);
            w.double(score);
        }
        Some((rank, _)) => w.integer(rank as i64),
        None if with_score => w.null_array(),
        None => w.null(),
    }
    Ok(())
}

/// ZPOPMIN and ZPOPMAX.
pub(super) fn pop(c: &mut Context, w: &mut Writer, downwards: bool) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let count = args.next().map(natural).transpose()?;
    if args.len() > 0 {
        return Err(SYNTAX);
    }
    let length = c.engine.as_sorted(c.hash, c.key, c.now)?.map_or(0, |sorted| sorted.len());
    // `from` were popped by the slices before.
    let left = (count.unwrap_or(1) - c.slice.from).min(length);
    // In RESP3, pairs are nested only if a count is given: without one, there is at most one pair.
    let nested = count.is_some() && w.resp3();
    if c.slice.from == 0 {
        w.array(if nested { left } else { 2 * left } as usize);
    }
    let popped = left.min(c.slice.elements_max as u64);
    c.slice.done_to(c.slice.from + popped, c.slice.from + left);
    let span = if downwards { [length - popped, length] } else { [0, popped] };
    c.engine.sorted_remove_range(c.hash, c.key, span, downwards, c.now, |member, score| {
        if nested {
            w.array(2);
        }
        w.bulk(member);
        w.double(score);
    })?;
    Ok(())
}

/// ZRANDMEMBER.
pub(super) fn random(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let Some(arg) = args.next() else { return random_one(c, w) };
    let count = integer(arg)?;
    let scores = args.next();
    if args.len() > 0 || scores.is_some_and(|arg| !is(arg, "WITHSCORES")) {
        return Err(SYNTAX);
    }
    let draw = Draw::of(count)?;
    let length = find(c)?.map_or(0, |sorted| sorted.len());
    let mut slice = c.slice;
    if slice.from == 0 {
        write_head(w, draw.count(length) as usize, scores.is_some());
    }
    let ranks = draw.ranks(length, &slice, c.engine);
    if let Some(sorted) = c.engine.as_sorted(c.hash, c.key, c.now)? {
        let element = |rank| sorted.forward_from(rank).next();
        ranks.write(&mut slice, w, element, |w, (member, score)| write_member(w, &member, score, scores.is_some()));
    }
    c.slice = slice;
    Ok(())
}

fn random_one(c: &mut Context, w: &mut Writer) -> Done {
    let random = c.engine.random();
    match find(c)?.and_then(|sorted| sorted.forward_from(random % sorted.len()).next()) {
        Some((member, _)) => w.bulk(&member),
        None => w.null(),
    }
    Ok(())
}

/// ZSCAN. Its scores are strings, also in RESP3.
pub(super) fn scan(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let cursors = c.engine.cursors();
    let cursor = cursors.open(cursor(required(&mut args)?)?, MEMBER_CURSOR_BITS);
    let Some(sorted) = find(c)? else {
        write_page(w, |_| (0, 0));
        return Ok(());
    };
    let options = ScanOptions::read(args, Some(Kind::SortedSet))?;
    let mut digits = Vec::new();
    write_page(w, |w| {
        let mut count = 0;
        let next = sorted.scan(cursor, options.count, |member, score| {
            let (matches, elements) = options.matches(&member);
            if !matches {
                return elements;
            }
            w.bulk(&member);
            count += 1;
            if !options.names_only {
                digits.clear();
                numbers::write_float(score, &mut digits);
                w.bulk(&digits);
                count += 1;
            }
            elements
        });
        (cursors.seal(next, MEMBER_CURSOR_BITS), count)
    });
    Ok(())
}
