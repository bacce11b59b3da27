//! Key → slot → group.
//!
//! The slot is the one that Redis Cluster clients compute: CRC16 (XMODEM) of the key, or of the part between the first
//! `{` and the next `}` if that part is not empty, modulo 16,384. Four adjacent slots form a group, the unit of
//! placement and of versions.

#![forbid(unsafe_code)]

use crc::{CRC_16_XMODEM, Crc, Table};
use memchr::memchr;

/// Hash slots of the keyspace.
pub const SLOTS: u16 = 16_384;

/// Number of groups.
pub const GROUPS: usize = (SLOTS / GROUP_SLOTS) as usize;

/// Adjacent slots in a group.
const GROUP_SLOTS: u16 = 4;

/// CRC by sixteen tables: sixteen bytes of the key per step.
static CRC: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

/// A group of adjacent slots, below [`GROUPS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(u16);

impl Group {
    /// The group that a key belongs to.
    #[inline]
    pub fn of(key: &[u8]) -> Self {
        Self(slot_of(key) / GROUP_SLOTS)
    }

    /// The group with this number.
    ///
    /// # Panics
    /// If `number` is not below [`GROUPS`].
    pub fn numbered(number: usize) -> Self {
        assert!(number < GROUPS, "group {number}");
        Self(number as u16)
    }

    /// The number of the group.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The slot of a key.
#[inline]
pub fn slot_of(key: &[u8]) -> u16 {
    CRC.checksum(tagged(key)) % SLOTS
}

/// The part of a key that determines its slot.
#[inline]
fn tagged(key: &[u8]) -> &[u8] {
    let Some(open) = memchr(b'{', key) else { return key };
    match memchr(b'}', &key[open + 1..]) {
        Some(length) if length > 0 => &key[open + 1..open + 1 + length],
        _ => key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors of the Redis Cluster specification and of Redis's own tests.
    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(CRC.checksum(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"{foo}bar"), 12182);
        assert_eq!(slot_of(b"a{foo}bar{baz}"), 12182);
        assert_eq!(slot_of(b"{}foo"), CRC.checksum(b"{}foo") % SLOTS);
        assert_eq!(slot_of(b"foo{"), CRC.checksum(b"foo{") % SLOTS);
        assert_eq!(Group::of(b"foo").index(), 12182 / 4);
    }
}
