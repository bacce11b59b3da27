//! Lists, sets, sorted sets and hashes, in the pages and under the accounting of all other items.
//!
//! A small collection is an item whose body consists of its packed entries. A large one is an item with a record of one
//! or two trees of packed leaves (`tree.rs`). Both are read through [`View`], which treats a small one as a single
//! leaf.
//!
//! ```text
//! small:  | header | key | count 12, flags 4 | entry | entry | ...
//! large:  | header | key | root | root | elements | flags | bytes of nodes 8 | bytes of users 8 | expires 8 |
//!                            |      '- of a sorted set: member -> score, in the order of hashes
//!                            '-> entries
//! ```
//!
//! | file | concept |
//! |---|---|
//! | `entry.rs` | one element in memory |
//! | `node.rs` | chunks of trees: leaves, inner nodes, blobs; relocating and freeing them |
//! | `tree.rs`, `path.rs` | the tree; paths from its root to a leaf |
//! | `view.rs` | reading: lookup, iteration, ranks |
//! | `open.rs` | opening a collection or creating it: type checks, room |
//! | `edit.rs` | changes: conversion from small to large, accounting |
//! | `list.rs`, `set.rs`, `hash.rs`, `sorted.rs` | the operations that commands need, by type |
//!
//! Everything that costs more than one element's worth is done in steps: the nodes of a deleted collection are freed
//! one by one ([`DeferredFree`]), and converting a collection to a large one moves at most a kilobyte.

#[cfg(test)]
mod check;
mod edit;
mod entry;
mod hash;
mod list;
mod node;
mod open;
mod path;
mod set;
mod sorted;
#[cfg(test)]
mod tests;
mod tree;
mod view;

#[cfg(test)]
pub(super) use check::check;
pub use entry::FIELD_EXPIRES_MAX;
pub(super) use hash::FieldSweep;
pub use hash::{Field, FieldExpiry, FieldOutcome, Hash};
pub use list::List;
pub(super) use node::DeferredFree;
pub use set::Set;
pub use sorted::{Bound, ScoreChange, Scored, Sorted};
pub(super) use tree::CLASSES_PER_CHANGE;
pub use view::Bytes;
pub(super) use view::MEMBER_HASH_BITS;

use super::arena::{Arena, NONE, Reference, place};
use super::item::{Header, Kind};
use crate::command::UnixMs;
use entry::Shape;
use node::set_parent;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Number of the main tree: a list, a set, a hash, or the scores of a sorted set.
const MAIN: usize = 0;
/// Number of the second tree: the members of a sorted set.
const MEMBERS: usize = 1;

/// Bytes of the record of a large collection.
const LARGE_BYTES: usize = size_of::<Large>();
/// Bytes before the entries of a small collection.
const SMALL_HEADER_BYTES: usize = 2;

/// Flag: the collection or one of its elements has exceeded the limits of the compact encoding that is reported to
/// clients.
const NOT_COMPACT: u32 = 1;
/// Flag of a set: it is not reported as an `intset`, because it has or had other members or too many.
const NOT_INTEGERS: u32 = 2;
/// Flag of a hash: fields may have expiry times.
const TIMED: u32 = 4;
/// Flag of a sorted set: members may be stored as hashes.
const HASHED: u32 = 8;

/// The shape of the entries of the main tree, and of a small collection.
fn shape_of(kind: Kind) -> Shape {
    match kind {
        Kind::String | Kind::List | Kind::Set => Shape::One,
        Kind::Hash => Shape::Pair,
        Kind::SortedSet => Shape::Scored,
    }
}

/// The record of a large collection, in the body of its item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Large {
    roots: [Reference; 2],
    elements: u32,
    flags: u32,
    /// Bytes of all its chunks except the item's.
    pub(super) node_bytes: u64,
    /// Bytes of its strings and scores.
    pub(super) user_bytes: u64,
    /// For a hash: no field expires before this; 0 if none expires.
    expires: UnixMs,
}

impl Large {
    /// Reads the record of an item.
    #[inline]
    pub(super) fn of(arena: &Arena, item: Reference) -> Self {
        let at = record_at(arena, item);
        Self::read_from_bytes(&arena.memory()[at..at + LARGE_BYTES]).expect("of that size")
    }

    fn write(&self, arena: &mut Arena, item: Reference) {
        let at = record_at(arena, item);
        arena.memory_mut()[at..at + LARGE_BYTES].copy_from_slice(self.as_bytes());
    }

    fn roots(&self) -> impl Iterator<Item = Reference> {
        self.roots.into_iter().filter(|&root| root != NONE)
    }

    /// Updates the roots' references to the item after it was moved.
    pub(super) fn tell_roots(&self, arena: &mut Arena, item: Reference) {
        self.roots().for_each(|root| set_parent(arena, root, item));
    }

    /// Hands the trees over to be freed step by step.
    pub(super) fn abandon(&self, arena: &mut Arena, deferred: &mut DeferredFree) {
        self.roots().for_each(|root| deferred.push(arena, root));
    }
}

fn record_at(arena: &Arena, item: Reference) -> usize {
    let header = Header::read(arena.memory(), place(item));
    debug_assert!(header.is_large());
    place(item) + header.body_offset()
}

/// Whether a collection is reported as compact, and a set as a set of integers.
pub(super) fn compactness(arena: &Arena, item: Reference, header: Header) -> (bool, bool) {
    let flags = match header.is_large() {
        true => Large::of(arena, item).flags,
        false => view::small_flags(arena, item, header),
    };
    let integers = header.kind() == Kind::Set && flags & NOT_INTEGERS == 0;
    (integers || flags & NOT_COMPACT == 0, integers)
}

/// Updates the references to and from a node that was copied to another chunk.
pub(super) fn node_moved(arena: &mut Arena, from: Reference, to: Reference) {
    let Some(item) = node::node_moved(arena, from, to) else { return };
    let mut large = Large::of(arena, item);
    let root = large.roots.iter_mut().find(|root| **root == from).expect("a root that its item does not know");
    *root = to;
    large.write(arena, item);
}
