//! Reads payloads from untrusted senders: every length and type is verified.

use super::{CRC, FOOTER_BYTES, listpack, lzf};
use crate::values::numbers;
use std::borrow::Cow;

/// The latest version accepted: Redis 7.4's. Later ones may have changed the meaning of types.
const VERSION_MAX: u16 = 12;

/// What an element takes while a value is built, about: its place in the list of elements, in that of pairs, and in the
/// one that is sorted to find duplicates.
const ELEMENT_BYTES: usize = 3 * size_of::<Bytes>();
/// The least that the allocator takes for a string that is not borrowed.
const STRING_BYTES_MIN: usize = 32;

/// Most capacity reserved on the basis of a declared length alone.
const CAPACITY_MAX: usize = 1024;

/// A string of a payload: borrowed, or decoded.
pub type Bytes<'a> = Cow<'a, [u8]>;

/// The value of a payload. Strings that are stored verbatim are borrowed from it.
///
/// Collections are not empty and have no duplicate members or fields.
#[derive(Clone, Debug, PartialEq)]
pub enum Dumped<'a> {
    /// A string.
    String(Bytes<'a>),
    /// The elements from head to tail.
    List(Vec<Bytes<'a>>),
    /// The members, in no particular order.
    Set(Vec<Bytes<'a>>),
    /// Members and scores, in no reliable order. No score is NaN.
    SortedSet(Vec<(Bytes<'a>, f64)>),
    /// Fields and values.
    Hash(Vec<(Bytes<'a>, Bytes<'a>)>),
}

/// Why a payload is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDump {
    /// The trailer is missing, its version is too recent, or the CRC does not match.
    #[error("DUMP payload version or checksum are wrong")]
    Footer,
    /// A type that Pinion does not support, or that only old servers write.
    #[error("Bad data format")]
    Type(u8),
    /// The bytes are not a valid value of their type.
    #[error("Bad data format")]
    Format,
    /// Building the value would take more memory than is allowed.
    #[error("the value takes more memory than this server has for it")]
    TooLarge,
}

/// The memory that may still be used to build a value. It is deducted before it is allocated: a few bytes of a payload
/// can announce, or decompress to, thousands of elements.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: usize,
    is_exceeded: bool,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, is_exceeded: false }
    }

    /// Deducts `bytes`; None if they are not left.
    pub(super) fn take(&mut self, bytes: usize) -> Option<()> {
        let left = self.bytes.checked_sub(bytes);
        self.is_exceeded |= left.is_none();
        self.bytes = left?;
        Some(())
    }

    /// Deducts an element of a collection.
    pub(super) fn take_element(&mut self, element: &Bytes) -> Option<()> {
        let own = if let Cow::Owned(bytes) = element { bytes.len().max(STRING_BYTES_MIN) } else { 0 };
        self.take(ELEMENT_BYTES + own)
    }

    /// Why a part of a payload could not be built.
    fn error(&self) -> BadDump {
        if self.is_exceeded { BadDump::TooLarge } else { BadDump::Format }
    }
}

/// A decoded length field.
enum Length {
    Of(u64),
    /// Not a length: a string in a special encoding follows.
    Encoded(u8),
}

struct Reader<'a> {
    rest: &'a [u8],
    budget: Budget,
}

/// Parses a payload. What is built of it takes up to `bytes_max` bytes, about, besides the payload.
///
/// # Errors
///
/// Bytes that neither [`super::Writer`] nor a server would write. This includes some that servers accept but never
/// write: data after the value.
pub fn read(payload: &[u8], bytes_max: usize) -> Result<Dumped<'_>, BadDump> {
    let (value, footer) =
        payload.len().checked_sub(FOOTER_BYTES).map(|at| payload.split_at(at)).ok_or(BadDump::Footer)?;
    let (version, crc) = footer.split_at(2);
    let version = u16::from_le_bytes(version.try_into().expect("two bytes"));
    let crc = u64::from_le_bytes(crc.try_into().expect("eight bytes"));
    if version > VERSION_MAX || crc != CRC.checksum(&payload[..payload.len() - size_of::<u64>()]) {
        return Err(BadDump::Footer);
    }
    let (&kind, rest) = value.split_first().ok_or(BadDump::Format)?;
    let mut reader = Reader { rest, budget: Budget::new(bytes_max) };
    let dumped = reader.value(kind)?;
    if reader.rest.is_empty() { Ok(dumped) } else { Err(BadDump::Format) }
}

impl<'a> Reader<'a> {
    fn value(&mut self, kind: u8) -> Result<Dumped<'a>, BadDump> {
        Ok(match kind {
            0 => Dumped::String(self.string()?),
            1 => Dumped::List(filled(self.repeated(Self::string)?)?),
            2 => set(self.repeated(Self::string)?)?,
            4 => hash(self.repeated(|reader| Ok((reader.string()?, reader.string()?)))?)?,
            5 => sorted_set(self.repeated(|reader| Ok((reader.string()?, reader.score()?)))?)?,
            11 => set(self.integers()?)?,
            16 => hash(pairs(self.listpack()?)?)?,
            17 => {
                let scored = |(member, score): (_, Bytes)| Some((member, numbers::float(&score)?));
                let members: Option<_> = pairs(self.listpack()?)?.into_iter().map(scored).collect();
                sorted_set(members.ok_or(BadDump::Format)?)?
            }
            18 => Dumped::List(filled(self.repeated(Self::node)?.into_iter().flatten().collect())?),
            20 => set(self.listpack()?)?,
            _ => return Err(BadDump::Type(kind)),
        })
    }

    /// A length, to be read as a number of items.
    fn repeated<T>(&mut self, mut one: impl FnMut(&mut Self) -> Result<T, BadDump>) -> Result<Vec<T>, BadDump> {
        let Length::Of(length) = self.length()? else { return Err(BadDump::Format) };
        let mut all = Vec::with_capacity(length.min(CAPACITY_MAX as u64) as usize);
        for _ in 0..length {
            all.push(one(self)?);
            self.budget.take(ELEMENT_BYTES).ok_or(BadDump::TooLarge)?;
        }
        Ok(all)
    }

    fn take(&mut self, bytes: u64) -> Result<&'a [u8], BadDump> {
        let bytes = usize::try_from(bytes).map_err(|_| BadDump::Format)?;
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(BadDump::Format)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadDump> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(BadDump::Format)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn length(&mut self) -> Result<Length, BadDump> {
        let [first] = self.array()?;
        Ok(match first {
            0..0x40 => Length::Of(u64::from(first)),
            0x40..0x80 => {
                let [second] = self.array()?;
                Length::Of(u64::from(u16::from_be_bytes([first & 0x3f, second])))
            }
            0x80 => Length::Of(u64::from(u32::from_be_bytes(self.array()?))),
            0x81 => Length::Of(u64::from_be_bytes(self.array()?)),
            0xc0.. => Length::Encoded(first & 0x3f),
            _ => return Err(BadDump::Format),
        })
    }

    fn plain_length(&mut self) -> Result<u64, BadDump> {
        match self.length()? {
            Length::Of(length) => Ok(length),
            Length::Encoded(_) => Err(BadDump::Format),
        }
    }

    fn string(&mut self) -> Result<Bytes<'a>, BadDump> {
        match self.length()? {
            Length::Of(length) => self.take(length).map(Cow::Borrowed),
            Length::Encoded(0) => Ok(integer_text(i64::from(i8::from_le_bytes(self.array()?)))),
            Length::Encoded(1) => Ok(integer_text(i64::from(i16::from_le_bytes(self.array()?)))),
            Length::Encoded(2) => Ok(integer_text(i64::from(i32::from_le_bytes(self.array()?)))),
            Length::Encoded(3) => {
                let (compressed, length) = (self.plain_length()?, self.plain_length()?);
                let compressed = self.take(compressed)?;
                let length = usize::try_from(length).map_err(|_| BadDump::Format)?;
                if length.div_ceil(lzf::RATIO_MAX) > compressed.len() {
                    return Err(BadDump::Format);
                }
                self.budget.take(length.max(STRING_BYTES_MIN)).ok_or(BadDump::TooLarge)?;
                lzf::decompress(compressed, length).map(Cow::Owned).ok_or(BadDump::Format)
            }
            Length::Encoded(_) => Err(BadDump::Format),
        }
    }

    fn score(&mut self) -> Result<f64, BadDump> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// The entries of a listpack.
    fn listpack(&mut self) -> Result<Vec<Bytes<'a>>, BadDump> {
        let entries = match self.string()? {
            Cow::Borrowed(bytes) => listpack::read(bytes, &mut self.budget),
            Cow::Owned(bytes) => {
                // Of a string that was decompressed, nothing can be borrowed.
                let entries = listpack::read(&bytes, &mut self.budget).ok_or_else(|| self.budget.error())?;
                self.budget.take(entries.len() * STRING_BYTES_MIN).ok_or(BadDump::TooLarge)?;
                return Ok(entries.into_iter().map(|entry| Cow::Owned(entry.into_owned())).collect());
            }
        };
        entries.ok_or_else(|| self.budget.error())
    }

    /// The members of a set of integers: their width in bytes, their number, and the members in ascending order.
    fn integers(&mut self) -> Result<Vec<Bytes<'static>>, BadDump> {
        let bytes = self.string()?;
        let (width, rest) = bytes.split_first_chunk().ok_or(BadDump::Format)?;
        let (length, rest) = rest.split_first_chunk().ok_or(BadDump::Format)?;
        let (width, length) = (u32::from_le_bytes(*width) as usize, u32::from_le_bytes(*length) as usize);
        if !matches!(width, 2 | 4 | 8) || length.checked_mul(width) != Some(rest.len()) {
            return Err(BadDump::Format);
        }
        self.budget.take(length * (ELEMENT_BYTES + STRING_BYTES_MIN + size_of::<i64>())).ok_or(BadDump::TooLarge)?;
        let members: Vec<i64> = rest.chunks_exact(width).map(signed).collect();
        let ascending = members.windows(2).all(|pair| pair[0] < pair[1]);
        if ascending { Ok(members.into_iter().map(integer_text).collect()) } else { Err(BadDump::Format) }
    }

    /// The elements of one node of a list.
    fn node(&mut self) -> Result<Vec<Bytes<'a>>, BadDump> {
        match self.plain_length()? {
            1 => Ok(vec![self.string()?]),
            2 => self.listpack(),
            _ => Err(BadDump::Format),
        }
    }
}

/// Formats an integer as the string that it stands for.
pub(super) fn integer_text(integer: i64) -> Bytes<'static> {
    Cow::Owned(itoa::Buffer::new().format(integer).as_bytes().to_vec())
}

/// A little-endian integer of up to eight bytes.
pub(super) fn signed(bytes: &[u8]) -> i64 {
    let mut all = [0; 8];
    let unused = all.len() - bytes.len();
    all[unused..].copy_from_slice(bytes);
    i64::from_le_bytes(all) >> (8 * unused)
}

fn pairs(entries: Vec<Bytes>) -> Result<Vec<(Bytes, Bytes)>, BadDump> {
    if !entries.len().is_multiple_of(2) {
        return Err(BadDump::Format);
    }
    let mut pairs = Vec::with_capacity(entries.len() / 2);
    let mut entries = entries.into_iter();
    while let (Some(first), Some(second)) = (entries.next(), entries.next()) {
        pairs.push((first, second));
    }
    Ok(pairs)
}

fn set(members: Vec<Bytes>) -> Result<Dumped, BadDump> {
    let members = filled(members)?;
    distinct(members.iter())?;
    Ok(Dumped::Set(members))
}

fn hash<'a>(fields: Vec<(Bytes<'a>, Bytes<'a>)>) -> Result<Dumped<'a>, BadDump> {
    let fields = filled(fields)?;
    distinct(fields.iter().map(|(field, _)| field))?;
    Ok(Dumped::Hash(fields))
}

fn sorted_set(members: Vec<(Bytes, f64)>) -> Result<Dumped, BadDump> {
    let members = filled(members)?;
    distinct(members.iter().map(|(member, _)| member))?;
    if members.iter().any(|(_, score)| score.is_nan()) {
        return Err(BadDump::Format);
    }
    Ok(Dumped::SortedSet(members))
}

/// A collection without elements cannot exist as a key.
fn filled<T>(elements: Vec<T>) -> Result<Vec<T>, BadDump> {
    if elements.is_empty() { Err(BadDump::Format) } else { Ok(elements) }
}

fn distinct<'a>(members: impl Iterator<Item = &'a Bytes<'a>>) -> Result<(), BadDump> {
    let mut sorted: Vec<&[u8]> = members.map(AsRef::as_ref).collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) { Err(BadDump::Format) } else { Ok(()) }
}
