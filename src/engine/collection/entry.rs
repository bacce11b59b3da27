//! Layout of one element of a collection.
//!
//! ```text
//! list      | string |
//! set       | string |                              the member
//! hash      | string | value string |               field and value
//!           | string | 0xff | expires 6 | string |  a field with a time of expiry, in milliseconds
//! ordered   | score 8 | string |                    of a sorted set, in the order of scores
//! member    | string | 8 | score 8 |                of a sorted set, in the order of members; a pair, too
//!
//! string:   | length 1 | bytes |                    up to 192 bytes
//!           | 0xfe | length 4 | reference 4 |       longer ones, in blobs
//!           | 0xfd | hash 6 |                       a member that is found by its score
//! ```
//!
//! Entries are packed without gaps and found by a linear walk; a leaf holds a few dozen at most.

use crate::command::UnixMs;
use crate::engine::arena::Reference;
use crate::engine::item::u32_at;

/// Longest string that is stored in an entry, in bytes.
pub(in crate::engine) const INLINE_BYTES_MAX: usize = 192;
const HASHED: u8 = 0xfd;
const OUTSIDE: u8 = 0xfe;
const TIMED: u8 = 0xff;
/// Bytes that a string in blobs takes in its entry.
const OUTSIDE_BYTES: usize = 9;
const HASHED_BYTES: usize = 7;
const EXPIRES_BYTES: usize = 7;
/// The latest expiry time of a field: what 48 bits can hold, in the year 10889.
pub const FIELD_EXPIRES_MAX: UnixMs = (1 << 48) - 1;
pub(super) const SCORE_BYTES: usize = 8;

/// Longest entry.
pub(super) const ENTRY_BYTES_MAX: usize = 2 * (1 + INLINE_BYTES_MAX) + EXPIRES_BYTES;

const _: () = assert!(INLINE_BYTES_MAX < HASHED as usize);

/// The shape of a leaf's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Shape {
    /// One string: an element of a list, a member of a set.
    One,
    /// Two strings and an optional expiry time: a field of a hash. In a sorted set's second tree, the second string is
    /// a score.
    Pair,
    /// A score and a string.
    Scored,
}

/// A string of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Text<'a> {
    Inside(&'a [u8]),
    /// A string of this many bytes in blobs.
    Outside(u32, Reference),
    /// A member of a sorted set whose name is stored in score order only: its position in hash order.
    Hashed(u64),
}

impl Text<'_> {
    pub(super) fn length(self) -> usize {
        match self {
            Self::Inside(bytes) => bytes.len(),
            Self::Outside(length, _) => length as usize,
            Self::Hashed(_) => 0,
        }
    }

    /// Bytes that it takes in an entry.
    #[inline]
    fn bytes(self) -> usize {
        match self {
            Self::Inside(bytes) => 1 + bytes.len(),
            Self::Outside(..) => OUTSIDE_BYTES,
            Self::Hashed(_) => HASHED_BYTES,
        }
    }

    /// Writes the string at an offset; returns where it ends.
    #[inline]
    fn write(self, to: &mut [u8], at: usize) -> usize {
        match self {
            Self::Inside(bytes) => {
                debug_assert!(bytes.len() <= INLINE_BYTES_MAX);
                to[at] = bytes.len() as u8;
                to[at + 1..at + 1 + bytes.len()].copy_from_slice(bytes);
            }
            Self::Outside(length, first) => {
                to[at] = OUTSIDE;
                to[at + 1..at + 5].copy_from_slice(&length.to_le_bytes());
                to[at + 5..at + OUTSIDE_BYTES].copy_from_slice(&first.to_le_bytes());
            }
            Self::Hashed(hash) => {
                to[at] = HASHED;
                to[at + 1..at + HASHED_BYTES].copy_from_slice(&hash.to_le_bytes()[..HASHED_BYTES - 1]);
            }
        }
        at + self.bytes()
    }
}

/// Reads the string at an offset; also returns where it ends.
#[inline]
pub(super) fn text(bytes: &[u8], at: usize) -> (Text<'_>, usize) {
    match bytes[at] {
        OUTSIDE => {
            let (length, first) = (u32_at(bytes, at + 1), u32_at(bytes, at + 5));
            (Text::Outside(length, first), at + OUTSIDE_BYTES)
        }
        HASHED => (Text::Hashed(u48_at(bytes, at + 1)), at + HASHED_BYTES),
        length => {
            let end = at + 1 + usize::from(length);
            (Text::Inside(&bytes[at + 1..end]), end)
        }
    }
}

fn u48_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word[..6].copy_from_slice(&bytes[at..at + 6]);
    u64::from_le_bytes(word)
}

#[inline]
fn after_text(bytes: &[u8], at: usize) -> usize {
    match bytes[at] {
        OUTSIDE => at + OUTSIDE_BYTES,
        HASHED => at + HASHED_BYTES,
        length => at + 1 + usize::from(length),
    }
}

#[inline]
fn after_expiry(bytes: &[u8], at: usize) -> usize {
    if bytes[at] == TIMED { at + EXPIRES_BYTES } else { at }
}

/// The end of the entry at an offset.
#[inline]
pub(super) fn entry_end(shape: Shape, bytes: &[u8], at: usize) -> usize {
    match shape {
        Shape::One => after_text(bytes, at),
        Shape::Pair => after_text(bytes, after_expiry(bytes, after_text(bytes, at))),
        Shape::Scored => after_text(bytes, at + SCORE_BYTES),
    }
}

/// The string by which an entry is looked up.
#[inline]
pub(super) fn name(shape: Shape, bytes: &[u8], at: usize) -> Text<'_> {
    text(bytes, if shape == Shape::Scored { at + SCORE_BYTES } else { at }).0
}

/// Field, expiry time and value of a hash's entry.
#[inline]
pub(super) fn pair(bytes: &[u8], at: usize) -> (Text<'_>, Option<UnixMs>, Text<'_>) {
    let (field, end) = text(bytes, at);
    let expires = (bytes[end] == TIMED).then(|| u48_at(bytes, end + 1));
    let (value, _) = text(bytes, after_expiry(bytes, end));
    (field, expires, value)
}

/// Bytes of the strings and the score of an entry.
pub(super) fn user_bytes(shape: Shape, bytes: &[u8], at: usize) -> usize {
    match shape {
        Shape::One => text(bytes, at).0.length(),
        Shape::Scored => SCORE_BYTES + text(bytes, at + SCORE_BYTES).0.length(),
        Shape::Pair => {
            let (field, _, value) = pair(bytes, at);
            field.length() + value.length()
        }
    }
}

/// The score of an entry in score order.
#[inline]
pub(super) fn score(bytes: &[u8], at: usize) -> f64 {
    f64::from_le_bytes(bytes[at..at + SCORE_BYTES].try_into().expect("8 bytes"))
}

/// The score of an entry in a sorted set's second tree.
#[inline]
pub(super) fn member_score(bytes: &[u8], at: usize) -> f64 {
    score(bytes, member_score_at(bytes, at))
}

/// Offset of that score: after the member and the score's length.
#[inline]
pub(super) fn member_score_at(bytes: &[u8], at: usize) -> usize {
    after_text(bytes, at) + 1
}

/// Calls `visit` with the offset of each reference to blobs in an entry.
pub(super) fn outside_places(shape: Shape, bytes: &[u8], at: usize, mut visit: impl FnMut(usize)) {
    let mut at = if shape == Shape::Scored { at + SCORE_BYTES } else { at };
    for _ in 0..if shape == Shape::Pair { 2 } else { 1 } {
        if bytes[at] == OUTSIDE {
            visit(at + 5);
        }
        at = after_text(bytes, at);
        if shape == Shape::Pair && at < bytes.len() {
            at = after_expiry(bytes, at);
        }
    }
}

/// The parts of an entry that is to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'t> {
    score: Option<f64>,
    name: Text<'t>,
    expires: Option<UnixMs>,
    value: Option<Text<'t>>,
}

impl<'t> Entry<'t> {
    /// An entry of a list or a set.
    #[inline]
    pub(super) fn one(name: Text<'t>) -> Self {
        Self { score: None, name, expires: None, value: None }
    }

    /// An entry of a hash, or of a sorted set's second tree.
    #[inline]
    pub(super) fn pair(name: Text<'t>, expires: Option<UnixMs>, value: Text<'t>) -> Self {
        Self { score: None, name, expires, value: Some(value) }
    }

    /// An entry in score order.
    #[inline]
    pub(super) fn scored(score: f64, name: Text<'t>) -> Self {
        Self { score: Some(score), name, expires: None, value: None }
    }

    /// An entry that is packed already.
    pub(super) fn packed(shape: Shape, bytes: &'t [u8]) -> Self {
        match shape {
            Shape::One => Self::one(text(bytes, 0).0),
            Shape::Scored => Self::scored(score(bytes, 0), name(shape, bytes, 0)),
            Shape::Pair => {
                let (field, expires, value) = pair(bytes, 0);
                Self::pair(field, expires, value)
            }
        }
    }

    /// Bytes of the entry.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        let score = if self.score.is_some() { SCORE_BYTES } else { 0 };
        let expires = if self.expires.is_some() { EXPIRES_BYTES } else { 0 };
        score + self.name.bytes() + expires + self.value.map_or(0, Text::bytes)
    }

    /// Bytes of its strings and its score.
    #[inline]
    pub(super) fn user_bytes(&self) -> usize {
        let score = if self.score.is_some() { SCORE_BYTES } else { 0 };
        score + self.name.length() + self.value.map_or(0, Text::length)
    }

    /// True if it refers to blobs.
    #[inline]
    pub(super) fn refers(&self) -> bool {
        let is_outside = |text: Text| matches!(text, Text::Outside(..));
        is_outside(self.name) || self.value.is_some_and(is_outside)
    }

    /// Writes the entry to a slice of its length.
    #[inline]
    pub(super) fn write(&self, to: &mut [u8]) {
        let mut at = 0;
        if let Some(score) = self.score {
            to[..SCORE_BYTES].copy_from_slice(&score.to_le_bytes());
            at = SCORE_BYTES;
        }
        at = self.name.write(to, at);
        if let Some(expires) = self.expires {
            to[at] = TIMED;
            to[at + 1..at + EXPIRES_BYTES].copy_from_slice(&expires.to_le_bytes()[..EXPIRES_BYTES - 1]);
            at += EXPIRES_BYTES;
        }
        if let Some(value) = self.value {
            at = value.write(to, at);
        }
        debug_assert_eq!(at, to.len());
    }
}

/// Maps scores to integers, preserving their order.
#[inline]
pub(super) fn order_of(score: f64) -> u64 {
    // -0 and 0 are equal scores.
    let bits = (score + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(entry: &Entry) -> Vec<u8> {
        let mut bytes = vec![0; entry.bytes()];
        entry.write(&mut bytes);
        bytes
    }

    #[test]
    fn entries_read_back_as_written() {
        let short = Text::Inside(b"field");
        let long = [7; INLINE_BYTES_MAX];
        let long = Text::Inside(&long);
        let far = Text::Outside(100_000, 42);
        let hashed = Text::Hashed(0xfeff_fd12_3456);
        for field in [short, long, far, hashed] {
            for value in [Text::Inside(b""), long, far] {
                for expires in [None, Some(1_700_000_000_123)] {
                    let entry = written(&Entry::pair(field, expires, value));
                    assert_eq!(pair(&entry, 0), (field, expires, value));
                    assert_eq!(entry_end(Shape::Pair, &entry, 0), entry.len());
                    let mut places = 0;
                    outside_places(Shape::Pair, &entry, 0, |at| {
                        places += 1;
                        assert_eq!(u32_at(&entry, at), 42);
                    });
                    assert_eq!(places, usize::from(field == far) + usize::from(value == far));
                }
            }
            let entry = written(&Entry::scored(-1.5, field));
            assert_eq!((score(&entry, 0), name(Shape::Scored, &entry, 0)), (-1.5, field));
            assert_eq!(entry_end(Shape::Scored, &entry, 0), entry.len());
        }
    }

    #[test]
    fn scores_keep_their_order() {
        let scores = [f64::NEG_INFINITY, -1e300, -1.0, -1e-300, 0.0, 1e-300, 1.0, 2.0, 1e300, f64::INFINITY];
        assert!(scores.windows(2).all(|w| order_of(w[0]) < order_of(w[1])));
        assert_eq!(order_of(-0.0), order_of(0.0));
    }
}
