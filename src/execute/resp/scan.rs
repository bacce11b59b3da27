//! The common parts of SCAN, SSCAN, HSCAN and ZSCAN.

use super::arguments::{Error, SYNTAX, integer, required, text};
use super::keys::kind_name;
use crate::engine::Kind;
use crate::protocol::resp::Writer;
use crate::values::glob::{Glob, TooComplex};

const KINDS: [Kind; 5] = [Kind::String, Kind::List, Kind::Set, Kind::SortedSet, Kind::Hash];

/// The approximate number of elements that a call visits without COUNT.
const COUNT: usize = 10;

/// The most elements that a call visits, whatever COUNT says: a client that wants them all calls again. Redis allows
/// fewer than COUNT.
const COUNT_MAX: usize = 4096;

/// Matching a name against a pattern counts as another element for each of this many units of work ([`Glob::work`]). So
/// a call spends a few milliseconds on matching at most, and KEYS yields in time.
const WORK_PER_ELEMENT: usize = 1024;

/// The options after the cursor.
#[derive(Debug)]
pub(super) struct ScanOptions<'w> {
    /// MATCH: the pattern that names must match.
    filter: Filter<'w>,
    /// COUNT: approximately how many elements to visit; from 1 to [`COUNT_MAX`].
    pub(super) count: usize,
    /// TYPE: the type that keys must have.
    pub(super) kind: Option<Kind>,
    /// NOVALUES or NOSCORES: only names are returned.
    pub(super) names_only: bool,
}

impl<'w> ScanOptions<'w> {
    /// Parses the options of a scan over a collection of type `over`, or over keys if it is None.
    pub(super) fn read(mut args: impl Iterator<Item = &'w [u8]>, over: Option<Kind>) -> Result<Self, Error> {
        let mut options = Self { filter: Filter(None), count: COUNT, kind: None, names_only: false };
        while let Some(arg) = args.next() {
            match arg.to_ascii_uppercase().as_slice() {
                b"COUNT" => {
                    let count = integer(required(&mut args)?)?;
                    let count = usize::try_from(count).ok().filter(|&count| count > 0).ok_or(SYNTAX)?;
                    options.count = count.min(COUNT_MAX);
                }
                b"MATCH" => options.filter = Filter::new(required(&mut args)?)?,
                b"TYPE" if over.is_none() => options.kind = Some(kind(required(&mut args)?)?),
                b"NOVALUES" if over == Some(Kind::Hash) => options.names_only = true,
                b"NOSCORES" if over == Some(Kind::SortedSet) => options.names_only = true,
                b"NOVALUES" => return Err(text("ERR NOVALUES option can only be used in HSCAN")),
                b"NOSCORES" => return Err(text("ERR NOSCORES option can only be used in ZSCAN")),
                _ => return Err(SYNTAX),
            }
        }
        Ok(options)
    }

    /// As [`Filter::matches`].
    pub(super) fn matches(&self, name: &[u8]) -> (bool, usize) {
        self.filter.matches(name)
    }
}

/// The pattern of a scan, if there is one.
#[derive(Debug)]
pub(super) struct Filter<'w>(Option<Glob<'w>>);

impl<'w> Filter<'w> {
    pub(super) fn new(pattern: &'w [u8]) -> Result<Self, Error> {
        // As a filter, `*` must match the empty name too, which the glob does not: drop the pattern.
        if pattern == b"*" {
            return Ok(Self(None));
        }
        Ok(Self(Some(Glob::new(pattern, false).map_err(|TooComplex| text(TooComplex::TEXT))?)))
    }

    /// Whether a name matches, and as how many elements the visit counts.
    pub(super) fn matches(&self, name: &[u8]) -> (bool, usize) {
        match &self.0 {
            None => (true, 1),
            Some(glob) => (glob.matches(name), 1 + glob.work(name) / WORK_PER_ELEMENT),
        }
    }
}

fn kind(name: &[u8]) -> Result<Kind, Error> {
    let found = KINDS.into_iter().find(|&kind| name.eq_ignore_ascii_case(kind_name(kind).as_bytes()));
    found.ok_or_else(|| Error::Text(format!("ERR unknown type name '{}'", String::from_utf8_lossy(name)).into()))
}

/// Parses a cursor.
pub fn cursor(arg: &[u8]) -> Result<u64, Error> {
    let digits = std::str::from_utf8(arg).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(text("ERR invalid cursor"))
}

/// Writes the reply of a call: `fill` writes the elements, and returns the next cursor and the number of replies
/// written.
pub(super) fn write_page(w: &mut Writer, fill: impl FnOnce(&mut Writer) -> (u64, usize)) {
    w.array(2);
    let start = w.out().len();
    let found = w.begin_array();
    let (cursor, count) = fill(w);
    w.end(found, count);
    // The cursor is known only at the end, but precedes the elements: rotate it to the front.
    let end = w.out().len();
    w.bulk(itoa::Buffer::new().format(cursor).as_bytes());
    w.out()[start..].rotate_left(end - start);
}
