//! Maps keys to the node's shards: the groups of slots are divided over the shards in equal runs.

use crate::slots::{GROUPS, Group};

/// Maps a group of slots to the shard that owns it.
#[derive(Clone, Debug)]
pub struct SlotMap {
    shards: usize,
    owners: Box<[u16]>,
}

impl SlotMap {
    /// Divides the groups over `shards` in equal runs.
    pub fn new(shards: usize) -> Self {
        let owners = (0..GROUPS).map(|group| (group * shards / GROUPS) as u16).collect();
        Self { shards, owners }
    }

    /// The shard that owns a key. With a single shard, nothing is computed.
    #[inline]
    pub fn owner(&self, key: &[u8]) -> u16 {
        if self.shards == 1 {
            return 0;
        }
        self.owners[Group::of(key).index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
