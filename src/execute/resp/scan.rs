//! What SCAN, SSCAN, HSCAN and ZSCAN have in common.

use super::arguments::{Error, SYNTAX, integer, required, text};
use super::keys::kind_name;
use crate::engine::Kind;
use crate::protocol::resp::Writer;
use crate::values::glob;

const KINDS: [Kind; 5] = [Kind::String, Kind::List, Kind::Set, Kind::SortedSet, Kind::Hash];

/// Elements that a call looks at, about, where nothing is said of it.
const COUNT: usize = 10;

/// The arguments after the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScanOptions<'w> {
    /// Names have to match it.
    pattern: Option<&'w [u8]>,
    /// How many to look at, about; at least 1.
    pub(super) count: usize,
    /// Keys have to be of this type.
    pub(super) kind: Option<Kind>,
    /// Neither values nor scores are wanted.
    pub(super) names_only: bool,
}

impl<'w> ScanOptions<'w> {
    /// Reads the options of a scan over a collection of a type; over keys, if it is none.
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
                    // This one matches the empty name too, which it does not elsewhere.
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

    /// True if a name is wanted.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name, false))
    }
}

fn kind(name: &[u8]) -> Result<Kind, Error> {
    let found = KINDS.into_iter().find(|&kind| name.eq_ignore_ascii_case(kind_name(kind).as_bytes()));
    found.ok_or_else(|| Error::Text(format!("ERR unknown type name '{}'", String::from_utf8_lossy(name)).into()))
}

/// A cursor as clients send it.
pub fn cursor(arg: &[u8]) -> Result<u64, Error> {
    let digits = std::str::from_utf8(arg).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(text("ERR invalid cursor"))
}

/// Writes what a call found: `fill` writes it, and returns the next cursor and how many replies it wrote.
pub(super) fn write_page(w: &mut Writer, fill: impl FnOnce(&mut Writer) -> (u64, usize)) {
    w.array(2);
    let start = w.out().len();
    let found = w.begin_array();
    let (cursor, count) = fill(w);
    w.end(found, count);
    // The cursor is known last, and comes first.
    let end = w.out().len();
    w.bulk(itoa::Buffer::new().format(cursor).as_bytes());
    w.out()[start..].rotate_left(end - start);
}
