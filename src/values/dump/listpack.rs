//! Listpacks: the encoding that servers use for short collections.
//!
//! ```text
//! | bytes: 4, little-endian | entries: 2, little-endian, 65,535 if too many | entry … | ff |
//!
//! entry:  0iiiiiii                   an integer of 0–127
//!         10llllll …                 a string of up to 63 bytes
//!         110iiiii iiiiiiii          a signed integer of 13 bits
//!         1110llll llllllll …        a string of up to 4,095 bytes
//!         11110000 l×4 …             a string, its length little-endian
//!         11110001 to 11110100       a signed integer of 2, 3, 4 or 8 bytes, little-endian
//! ```
//!
//! Each entry is followed by its length, for backward traversal: seven bits per byte, least significant last, with the
//! highest bit set in all but the first byte.

use super::reader::{Budget, Bytes, integer_text, signed};
use std::borrow::Cow;

const END: u8 = 0xff;

/// The number of entries is too large for its two bytes.
const ENTRIES_UNKNOWN: u16 = u16::MAX;

/// The entries of a listpack, with integers as the strings that they stand for; `None` if it is malformed, or takes
/// more than what is left of `budget`.
pub(super) fn read<'a>(bytes: &'a [u8], budget: &mut Budget) -> Option<Vec<Bytes<'a>>> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (count, rest) = rest.split_first_chunk()?;
    let (mut rest, count) = (rest, u16::from_le_bytes(*count));
    if u32::from_le_bytes(*length) as usize != bytes.len() {
        return None;
    }
    let mut entries = Vec::new();
    while *rest.first()? != END {
        let (entry, length) = first(rest)?;
        rest = without_length(rest.get(length..)?, length)?;
        budget.take_element(&entry)?;
        entries.push(entry);
    }
    let counted = count == ENTRIES_UNKNOWN || usize::from(count) == entries.len();
    (rest.len() == 1 && counted).then_some(entries)
}

/// The first entry, and its length in bytes.
fn first(bytes: &[u8]) -> Option<(Bytes<'_>, usize)> {
    let string = |header: usize, length: usize| {
        let end = header.checked_add(length)?;
        Some((Cow::Borrowed(bytes.get(header..end)?), end))
    };
    let integer = |width: usize| Some((integer_text(signed(bytes.get(1..=width)?)), width + 1));
    match *bytes {
        [first @ ..=0x7f, ..] => Some((integer_text(i64::from(first)), 1)),
        [first @ 0x80..=0xbf, ..] => string(1, usize::from(first & 0x3f)),
        [first @ 0xc0..=0xdf, second, ..] => {
            // Sign-extends the 13 bits.
            let integer = (u16::from_be_bytes([first, second]) << 3).cast_signed() >> 3;
            Some((integer_text(i64::from(integer)), 2))
        }
        [first @ 0xe0..=0xef, second, ..] => string(2, usize::from(u16::from_be_bytes([first & 0x0f, second]))),
        [0xf0, a, b, c, d, ..] => string(5, u32::from_le_bytes([a, b, c, d]) as usize),
        [0xf1, ..] => integer(2),
        [0xf2, ..] => integer(3),
        [0xf3, ..] => integer(4),
        [0xf4, ..] => integer(8),
        _ => None,
    }
}

/// The rest after the length that follows an entry, if that length is correct.
fn without_length(bytes: &[u8], length: usize) -> Option<&[u8]> {
    // Redis uses one more byte for the largest number that would fit.
    let width = match length {
        0..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    };
    let (written, rest) = bytes.split_at_checked(width)?;
    let right = written.iter().rev().enumerate().all(|(at, &byte)| {
        let more = if at + 1 < width { 0x80 } else { 0 };
        byte == (length >> (7 * at) & 0x7f) as u8 | more
    });
    right.then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Option<Vec<Bytes<'_>>> {
        super::read(bytes, &mut Budget::new(usize::MAX))
    }

    /// A listpack of encoded entries, each followed by its length.
    fn packed(count: u16, entries: &[u8]) -> Vec<u8> {
        let mut bytes = (entries.len() as u32 + 7).to_le_bytes().to_vec();
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(entries);
        bytes.push(END);
        bytes
    }

    fn one(entry: &[u8]) -> Option<String> {
        let bytes = packed(1, entry);
        let entries = read(&bytes)?;
        Some(String::from_utf8_lossy(&entries[0]).into_owned())
    }

    #[test]
    fn entries_of_each_kind() {
        for (entry, text) in [
            (&b"\x00\x01"[..], "0"),
            (b"\x7f\x01", "127"),
            (b"\x80\x01", ""),
            (b"\x83abc\x04", "abc"),
            (b"\xc0\x80\x02", "128"),
            (b"\xcf\xff\x02", "4095"),
            (b"\xd0\x00\x02", "-4096"),
            (b"\xdf\xff\x02", "-1"),
            (b"\xe0\x02ab\x04", "ab"),
            (b"\xf0\x02\0\0\0ab\x07", "ab"),
            (b"\xf1\x00\x80\x03", "-32768"),
            (b"\xf2\xff\xff\x7f\x04", "8388607"),
            (b"\xf2\x00\x00\x80\x04", "-8388608"),
            (b"\xf3\xff\xff\xff\x7f\x05", "2147483647"),
            (b"\xf4\x00\x00\x00\x00\x00\x00\x00\x80\x09", "-9223372036854775808"),
        ] {
            assert_eq!(one(entry).as_deref(), Some(text), "{entry:?}");
        }
    }

    #[test]
    fn damage() {
        for entry in [
            &b"\x00\x02"[..],
            b"\x00",
            b"\x83ab\x04",
            b"\xc0",
            b"\xe0\x02a",
            b"\xf0\xff\xff\xff\xffab\x07",
            b"\xf4\x00\x05",
            b"\xf5\x01",
            b"",
            b"\x00\x01\x00\x01",
        ] {
            assert_eq!(one(entry), None, "{entry:?}");
        }
        let sound = packed(1, b"\x00\x01");
        assert!(read(&sound[..sound.len() - 1]).is_none());
        assert!(read(&[&sound[..], b"\xff"].concat()).is_none());
        assert!(read(b"").is_none());
        assert_eq!(read(&packed(0, b"")), Some(vec![]));
        assert_eq!(read(&packed(ENTRIES_UNKNOWN, b"\x00\x01")).map(|entries| entries.len()), Some(1));
    }

    #[test]
    fn lengths_of_entries() {
        assert_eq!(without_length(b"\x7f", 127), Some(&b""[..]));
        assert_eq!(without_length(b"\x01\x80", 128), Some(&b""[..]));
        assert_eq!(without_length(b"\x7f\xfe", 16_382), Some(&b""[..]));
        assert_eq!(without_length(b"\x00\xff\xff", 16_383), Some(&b""[..]));
        assert_eq!(without_length(b"\x01\x80\x80\x80", 2_097_152), Some(&b""[..]));
        assert_eq!(without_length(b"\x00\x80", 128), None);
        assert_eq!(without_length(b"\x01", 128), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_fine(entries: Vec<u8>) {
            read(&entries);
            read(&packed(ENTRIES_UNKNOWN, &entries));
        }
    }
}
