//! Metadata of a key: type, encoding, memory, use.

use super::arena::place;
use super::item::{self, Kind};
use super::{Engine, KeyHash, Value, collection, value};
use crate::command::UnixMs;

/// Digits and sign of the longest integer that Redis encodes as one.
const NUMBER_BYTES_MAX: usize = 20;
/// Bytes of the index per item, approximately.
const ENTRY_BYTES: u64 = 8;

/// Encoding of a value, as clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A string that is an integer.
    Integer,
    /// A string of this many bytes, stored whole.
    Bytes(usize),
    /// A string that was modified in place.
    Raw,
    /// A collection within the limits of [`EncodingLimits`](crate::command::EncodingLimits); true for a set of
    /// integers.
    Compact(Kind, bool),
    /// A collection beyond them.
    Wide(Kind),
}

/// Metadata of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The type.
    pub kind: Kind,
    /// The encoding.
    pub encoding: Encoding,
    /// Bytes of memory, including its share of the index.
    pub memory_bytes: u64,
    /// Logarithmic access counter, if the policy keeps one.
    pub frequency: Option<u8>,
    /// Approximate time since the last access in milliseconds, if the policy tracks it.
    pub idle_ms: Option<u64>,
}

impl Engine {
    /// Describes a key without counting this as an access. None if the key does not exist.
    pub fn describe(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) -> Option<Description> {
        let found = self.find_live(hash, key, now)?;
        let item = self.item(found.item, found.header);
        let encoding = match item.value {
            Value::Whole(text) if is_integer(text) && !found.header.is_raw() => Encoding::Integer,
            Value::Whole(_) | Value::Long(_) if found.header.is_raw() => Encoding::Raw,
            Value::Whole(_) | Value::Long(_) => Encoding::Bytes(item.value.length()),
            Value::Collection(kind, _) => match collection::compactness(&self.arena, found.item, found.header) {
                (true, integers) => Encoding::Compact(kind, integers),
                (false, _) => Encoding::Wide(kind),
            },
        };
        let byte = self.index.policy(self.arena.memory(), found.at);
        let is_adopted = self.is_adopted(hash);
        Some(Description {
            kind: found.header.kind(),
            encoding,
            memory_bytes: value::footprint(&self.arena, found.item) + ENTRY_BYTES,
            frequency: self.policy.frequency(byte).filter(|_| is_adopted),
            idle_ms: self.policy.idle_ms(byte, now).filter(|_| is_adopted),
        })
    }
}

impl Engine {
    /// Marks a string as modified in place, so that it is no longer reported as an integer.
    pub fn mark_raw(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) {
        if let Some(found) = self.find_live(hash, key, now).filter(|found| found.header.kind() == Kind::String) {
            item::set_raw(self.arena.memory_mut(), place(found.item));
        }
    }
}

/// True for the canonical decimal digits of an i64.
fn is_integer(text: &[u8]) -> bool {
    let number = (text.len() <= NUMBER_BYTES_MAX).then(|| std::str::from_utf8(text).ok()?.parse::<i64>().ok());
    number.flatten().is_some_and(|number| itoa::Buffer::new().format(number).as_bytes() == text)
}
