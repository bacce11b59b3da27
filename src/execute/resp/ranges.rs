//! Ranges of sorted sets by rank, score or name, upwards or downwards.
//!
//! Every range is resolved to a [`Span`] of ranks, which is then counted, iterated or removed.

use super::arguments::{Error, SYNTAX, index_range, integer, is, required, text};
use super::{Context, Done, sorted};
use crate::command::args::Iter;
use crate::engine::{Bound, Sorted};
use crate::protocol::resp::Writer;
use crate::values::numbers;

/// The order that a range refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Rank,
    Score,
    /// Byte order of the names. All scores are expected to be equal.
    Name,
}

/// A range as the command specifies it, not yet resolved.
#[derive(Clone, Copy, Debug)]
enum Range<'w> {
    /// First and last rank; negative ones count from the end.
    Ranks(i64, i64),
    Bounds(Bound<'w>, Bound<'w>),
}

/// A span of ranks, counted from the lowest: the first, and the one behind the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: u64,
    to: u64,
}

impl<'w> Range<'w> {
    fn read(by: By, min: &'w [u8], max: &'w [u8]) -> Result<Self, Error> {
        Ok(match by {
            By::Rank => Self::Ranks(integer(min)?, integer(max)?),
            By::Score => Self::Bounds(score_bound(min, false)?, score_bound(max, true)?),
            By::Name => Self::Bounds(name_bound(min, false)?, name_bound(max, true)?),
        })
    }

    /// Resolves the range in a sorted set. If `downwards`, ranks are counted from the highest.
    fn span(&self, sorted: &Sorted, downwards: bool) -> Span {
        match *self {
            Self::Ranks(start, stop) => {
                let length = sorted.len();
                match index_range(start, stop, length) {
                    (from, to) if downwards => Span { from: length - to, to: length - from },
                    (from, to) => Span { from, to },
                }
            }
            Self::Bounds(min, max) => {
                let from = sorted.rank_of(min);
                Span { from, to: sorted.rank_of(max).max(from) }
            }
        }
    }
}

impl Span {
    fn len(self) -> u64 {
        self.to - self.from
    }

    /// Applies LIMIT: skips `offset` ranks in the direction of iteration and keeps at most `count`.
    fn limited(self, offset: u64, count: u64, downwards: bool) -> Self {
        let Self { from, to } = self;
        if downwards {
            let to = to.saturating_sub(offset).max(from);
            Self { from: to.saturating_sub(count).max(from), to }
        } else {
            let from = from.saturating_add(offset).min(to);
            Self { from, to: from.saturating_add(count).min(to) }
        }
    }
}

/// Parses a bound by score: `1.5` is inclusive, `(1.5` exclusive.
fn score_bound<'w>(arg: &[u8], upper: bool) -> Result<Bound<'w>, Error> {
    let (number, excluded) = match arg {
        [b'(', number @ ..] => (number, true),
        number => (number, false),
    };
    let score = numbers::float(number).ok_or(text("ERR min or max is not a float"))?;
    Ok(Bound::Score { score, after: upper != excluded })
}

/// Parses a bound by name: `-` and `+` are the ends, `[name` is inclusive, `(name` exclusive.
fn name_bound(arg: &[u8], upper: bool) -> Result<Bound<'_>, Error> {
    match arg {
        b"-" => Ok(Bound::Start),
        b"+" => Ok(Bound::End),
        [b'[', member @ ..] => Ok(Bound::Member { member, after: upper }),
        [b'(', member @ ..] => Ok(Bound::Member { member, after: !upper }),
        _ => Err(text("ERR min or max not valid string range item")),
    }
}

/// The options of ZRANGE and its relatives.
#[derive(Clone, Copy, Debug)]
struct Options {
    by: By,
    downwards: bool,
    scores: bool,
    /// LIMIT's offset; a negative one makes the range empty.
    offset: i64,
    /// LIMIT's count; a negative one means all.
    count: i64,
}

impl Options {
    /// Parses options. Those for the order and the direction are accepted only if `all` options are.
    fn read(by: By, downwards: bool, all: bool, mut args: Iter) -> Result<Self, Error> {
        let mut options = Self { by, downwards, scores: false, offset: 0, count: -1 };
        let mut by_is_free = all;
        while let Some(arg) = args.next() {
            if is(arg, "WITHSCORES") {
                options.scores = true;
            } else if is(arg, "LIMIT") && args.len() >= 2 {
                options.offset = integer(required(&mut args)?)?;
                options.count = integer(required(&mut args)?)?;
            } else if all && !options.downwards && is(arg, "REV") {
                options.downwards = true;
            } else if by_is_free && is(arg, "BYSCORE") {
                (options.by, by_is_free) = (By::Score, false);
            } else if by_is_free && is(arg, "BYLEX") {
                (options.by, by_is_free) = (By::Name, false);
            } else {
                return Err(SYNTAX);
            }
        }
        options.check()
    }

    fn check(self) -> Result<Self, Error> {
        if self.count != -1 && self.by == By::Rank {
            return Err(text("ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"));
        }
        if self.scores && self.by == By::Name {
            return Err(text("ERR syntax error, WITHSCORES not supported in combination with BYLEX"));
        }
        Ok(self)
    }
}

/// ZRANGE.
#[inline]
pub(super) fn range(c: &mut Context, w: &mut Writer) -> Done {
    answer(c, w, By::Rank, false, true)
}

/// The commands whose names fix the order and the direction.
pub(super) fn range_by(c: &mut Context, w: &mut Writer, by: By, downwards: bool) -> Done {
    answer(c, w, by, downwards, false)
}

fn answer(c: &mut Context, w: &mut Writer, by: By, downwards: bool, all: bool) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let (first, second) = (required(&mut args)?, required(&mut args)?);
    let Options { by, downwards, scores, offset, count } = Options::read(by, downwards, all, args)?;
    // Downwards, bounds by score or name are given with the maximum first; ranks are not swapped.
    let range = match downwards && by != By::Rank {
        true => Range::read(by, second, first)?,
        false => Range::read(by, first, second)?,
    };
    let mut slice = c.slice;
    let Some(sorted) = sorted::find(c)? else {
        w.array(0);
        return Ok(());
    };
    let mut span = range.span(&sorted, downwards);
    if by != By::Rank {
        let offset = u64::try_from(offset).unwrap_or(u64::MAX);
        span = span.limited(offset, u64::try_from(count).unwrap_or(u64::MAX), downwards);
    }
    match (span.len(), downwards) {
        (0, _) => w.array(0),
        (count, false) => {
            let members = sorted.forward_from(span.from + slice.from);
            sorted::write_members(w, count, members, scores, &mut slice);
        }
        (count, true) => {
            let members = sorted.backward_from(span.to - 1 - slice.from);
            sorted::write_members(w, count, members, scores, &mut slice);
        }
    }
    c.slice = slice;
    Ok(())
}

/// ZCOUNT and ZLEXCOUNT.
pub(super) fn count(c: &mut Context, w: &mut Writer, by: By) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let range = Range::read(by, required(&mut args)?, required(&mut args)?)?;
    let count = sorted::find(c)?.map_or(0, |sorted| range.span(&sorted, false).len());
    w.integer(count as i64);
    Ok(())
}

/// ZREMRANGEBYRANK and its relatives.
pub(super) fn remove(c: &mut Context, w: &mut Writer, by: By) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let range = Range::read(by, required(&mut args)?, required(&mut args)?)?;
    let removed_before = c.slice.sum;
    let (from, left) = match (c.engine.as_sorted(c.hash, c.key, c.now)?, range) {
        (None, _) => (0, 0),
        // The ranks are those before the first slice.
        (Some(sorted), Range::Ranks(start, stop)) => {
            let (from, to) = index_range(start, stop, sorted.len() + removed_before);
            (from, to - from - removed_before)
        }
        (Some(sorted), Range::Bounds(..)) => {
            let span = range.span(&sorted, false);
            (span.from, span.len())
        }
    };
    let removed = left.min(c.slice.elements_max as u64);
    c.engine.sorted_remove_range(c.hash, c.key, [from, from + removed], false, c.now, |_, _| {})?;
    if removed < left {
        c.slice.go_on(1);
    }
    c.reply_total(w, removed);
    Ok(())
}
