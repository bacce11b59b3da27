//! What replication asks of the store that holds the data: the engine of the shards, or a simulator's map.

use super::entry::{Effect, Image, Position};
use crate::slots::Group;

/// The data of a node. What a primary's clients do to it is done by whoever executes their commands; this is what replication
/// does to it.
///
/// A store hides what has expired, but keeps it until it is removed. It may drop items on its own where it has no more room.
pub trait Store {
    /// The version of a key's item, expired or not.
    fn version(&self, group: Group, key: &[u8]) -> Option<Position>;

    /// All there is of a key.
    fn image(&self, group: Group, key: &[u8]) -> Option<Image>;

    /// Images of a group from a cursor on, about as many bytes, and the next cursor: 0 at the start and at the end. An item that
    /// is there all the time comes up in one of the calls from start to end.
    fn images(&self, group: Group, cursor: u64, bytes: usize) -> (Vec<Image>, u64);

    /// Stores an item, whatever the key had before.
    fn put(&mut self, group: Group, image: Image);

    /// Carries out what an entry says. The caller has checked versions.
    fn apply(&mut self, group: Group, effect: &Effect, at: Position);

    /// Removes a key, if it is there.
    fn remove(&mut self, group: Group, key: &[u8]);

    /// Removes all that there is of a group.
    fn clear(&mut self, group: Group);
}
