//! What can be known of a key besides its value: type, encoding, memory, use.

use super::arena::place;
use super::item::{self, Kind};
use super::{Engine, KeyHash, Value, collection, value};
use crate::command::UnixMs;

/// Digits of the longest number that is told apart from other strings.
const NUMBER_BYTES_MAX: usize = 20;
/// Bytes of the index per item, nearly.
const ENTRY_BYTES: u64 = 8;

/// How a value lies in memory, as far as clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A string that is an integer.
    Integer,
    /// A string of so many bytes, stored as a whole.
    Bytes(usize),
    /// A string that was changed in parts.
    Raw,
    /// A collection within the limits of [`EncodingLimits`](crate::command::EncodingLimits); true for a set of integers.
    Compact(Kind, bool),
    /// A collection beyond them.
    Wide(Kind),
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The type.
    pub kind: Kind,
    /// The encoding.
    pub encoding: Encoding,
    /// Bytes of memory, its part of the index included.
    pub memory_bytes: u64,
    /// How often it is used, on a logarithmic scale; where the policy counts that.
    pub frequency: Option<u8>,
    /// How long ago it was used, roughly; where the policy knows that.
    pub idle_ms: Option<u64>,
}

impl Engine {
    /// Describes a key, without counting that as a use of it. None if there is no such key.
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
    /// Notes that a string was changed in parts: it is not called an integer then.
    pub fn mark_raw(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) {
        if let Some(found) = self.find_live(hash, key, now).filter(|found| found.header.kind() == Kind::String) {
            item::set_raw(self.arena.memory_mut(), place(found.item));
        }
    }
}

/// True for the digits of an i64, as they would be written.
fn is_integer(text: &[u8]) -> bool {
    let number = (text.len() <= NUMBER_BYTES_MAX).then(|| std::str::from_utf8(text).ok()?.parse::<i64>().ok());
    number.flatten().is_some_and(|number| itoa::Buffer::new().format(number).as_bytes() == text)
}
