//! Key → slot → shard.
//!
//! The slot is what Redis Cluster clients compute: CRC16 (XMODEM) of the key, or of the part between the first `{` and
//! the next `}` if that is not empty, modulo 16,384. Within a node, groups of 4 adjacent slots are spread over the shards
//! in equal runs.

use crc::{CRC_16_XMODEM, Crc, Table};
use memchr::memchr;

/// Hash slots of the keyspace.
pub const SLOTS: u16 = 16_384;

/// Adjacent slots that stay together.
const GROUP_SLOTS: u16 = 4;
const GROUPS: usize = (SLOTS / GROUP_SLOTS) as usize;

/// Sixteen tables: sixteen bytes of a key per step.
static CRC: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

/// The slot of a key.
#[inline]
pub fn slot_of(key: &[u8]) -> u16 {
    CRC.checksum(tagged(key)) % SLOTS
}

/// The part of a key that decides its slot.
#[inline]
fn tagged(key: &[u8]) -> &[u8] {
    let Some(open) = memchr(b'{', key) else { return key };
    match memchr(b'}', &key[open + 1..]) {
        Some(length) if length > 0 => &key[open + 1..open + 1 + length],
        _ => key,
    }
}

/// Which shard of the node owns a group.
#[derive(Clone, Debug)]
pub struct SlotMap {
    shards: usize,
    owners: Box<[u16]>,
}

impl SlotMap {
    /// Groups in equal runs over `shards`.
    pub fn new(shards: usize) -> Self {
        let owners = (0..GROUPS).map(|group| (group * shards / GROUPS) as u16).collect();
        Self { shards, owners }
    }

    /// The shard that owns a key. Where there is only one, nothing is computed.
    #[inline]
    pub fn owner(&self, key: &[u8]) -> u16 {
        if self.shards == 1 {
            return 0;
        }
        self.owners[usize::from(slot_of(key) / GROUP_SLOTS)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of the Redis Cluster specification and of Redis's own tests.
    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(CRC.checksum(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"{foo}bar"), 12182);
        assert_eq!(slot_of(b"a{foo}bar{baz}"), 12182);
        assert_eq!(slot_of(b"{}foo"), CRC.checksum(b"{}foo") % SLOTS);
        assert_eq!(slot_of(b"foo{"), CRC.checksum(b"foo{") % SLOTS);
    }

    #[test]
    fn every_shard_owns_an_equal_run_of_groups() {
        for shards in [1, 2, 3, 7, 64] {
            let map = SlotMap::new(shards);
            let count = |shard| map.owners.iter().filter(|&&o| usize::from(o) == shard).count();
            assert!((0..shards).all(|s| count(s).abs_diff(GROUPS / shards) <= 1));
            assert!(map.owners.is_sorted());
        }
    }
}
