//! The interface of replication to the store that holds the data: the shards' engine, or a map in simulations.

use super::entry::{Effect, Image, Position};
use crate::slots::Group;

/// The data of a node. Clients' commands are executed on it by its owner; these are the operations that replication
/// needs.
///
/// A store hides expired items but keeps them until they are removed. For want of memory it may evict items on its own.
pub trait Store {
    /// The version of a key's item, expired or not.
    fn version(&self, group: Group, key: &[u8]) -> Option<Position>;

    /// The full state of a key, unless it does not exist.
    fn image(&self, group: Group, key: &[u8]) -> Option<Image>;

    /// Images of a group from `cursor` on, about `bytes` bytes of them, and the next cursor; 0 is both the first cursor
    /// and the end. An item that exists throughout is returned by one of the calls from start to end.
    fn images(&self, group: Group, cursor: u64, bytes: usize) -> (Vec<Image>, u64);

    /// Stores an item, whatever the key had before.
    fn put(&mut self, group: Group, image: Image);

    /// Applies the effect of an entry. The caller has checked versions.
    fn apply(&mut self, group: Group, effect: &Effect, at: Position);

    /// Removes a key, if it exists.
    fn remove(&mut self, group: Group, key: &[u8]);

    /// Removes all items of a group.
    fn clear(&mut self, group: Group);
}
