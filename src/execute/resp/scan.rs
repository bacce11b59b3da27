//! The common parts of SCAN, SSCAN, HSCAN and ZSCAN.

use super::arguments::{Error, SYNTAX, integer, required, text};
use super::keys::kind_name;
use crate::engine::Kind;
use crate::protocol::resp::Writer;
use crate::values::glob;

const KINDS: [Kind; 5] = [Kind::String, Kind::List, Kind::Set, Kind::SortedSet, Kind::Hash];

/// The approximate number of elements that a call visits without COUNT.
const COUNT: usize = 10;

/// The options after the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScanOptions<'w> {
    /// MATCH: the pattern that names must match.
    pattern: Option<&'w [u8]>,
    /// COUNT: approximately how many elements to visit; at least 1.
    pub(super) count: usize,
    /// TYPE: the type that keys must have.
    pub(super) kind: Option<Kind>,
    /// NOVALUES or NOSCORES: only names are returned.
    pub(super) names_only: bool,
}

impl<'w> ScanOptions<'w> {
    /// Parses the options of a scan over a collection of type `over`, or over keys if it is None.
    pub(super) fn read(mut args: impl Iterator<Item = &'w [u8]>, over: Option<Kind>) -> Result<Self, Error> {
        let mut options = Self { pattern: None, count: COUNT, kind: None, names_only: false };
        while let Some(arg) = args.next() {
            match arg.to_ascii_uppercase().as_slice() {
                b"COUNT" => {
                    let count = integer(required(&mut args)?)?;
                    options.count = usize::try_from(count).ok().filter(|&count| count > 0).ok_or(SYNTAX)?;
                }
                b"MATCH" => {
                    let pattern = required(&mut args)?;
                    // As a filter, `*` must match the empty name too, which the glob does not: drop the pattern.
                    options.pattern = Some(pattern).filter(|&pattern| pattern != b"*");
                }
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

    /// True if a name matches the pattern, if any.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name, false))
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
