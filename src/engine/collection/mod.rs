//! Lists, sets, sorted sets and hashes, in the same pages and the same accounting as everything else.
//!
//! A small one is an item whose body is its packed entries. A large one is an item that leads to trees of packed leaves
//! (`tree.rs`). Both are read through the same [`View`], for which a small one is a single leaf.
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
//! | `node.rs` | chunks of trees: leaves, inner nodes, blobs; moving and freeing them |
//! | `tree.rs`, `path.rs` | the tree; the way to a leaf |
//! | `view.rs` | reading: finding, walking, ranks |
//! | `open.rs` | finding a collection, or making it: room, types |
//! | `edit.rs` | changing: conversion from small to large, accounting |
//! | `list.rs`, `set.rs`, `hash.rs`, `sorted.rs` | what commands need of each type |
//!
//! Anything that costs more than one element's worth is done in steps: a collection that is gone is freed node by node
//! (`DeferredFree`), and one that becomes large has at most a kilobyte to convert.

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

use super::arena::{Arena, NONE, Reference, place};
use super::item::{Header, Kind};
use crate::command::UnixMs;
use entry::Shape;
use node::set_parent;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A list, a set, a sorted set's scores, a hash.
const MAIN: usize = 0;
/// A sorted set's members.
const MEMBERS: usize = 1;

/// Bytes of the record of a large collection.
const LARGE_BYTES: usize = size_of::<Large>();
/// Bytes before the entries of a small one.
const SMALL_HEADER_BYTES: usize = 2;

/// It was too large, or an element was, for what clients are told is the compact encoding.
const NOT_COMPACT: u32 = 1;
/// Of a set: it has or had members that are no integers, or too many.
const NOT_INTEGERS: u32 = 2;
/// Of a hash: fields of it may have a time of expiry.
const TIMED: u32 = 4;
/// Of a sorted set: members of it may be written as hashes.
const HASHED: u32 = 8;

/// The entries of the main tree, or of a small collection.
fn shape_of(kind: Kind) -> Shape {
    match kind {
        Kind::String | Kind::List | Kind::Set => Shape::One,
        Kind::Hash => Shape::Pair,
        Kind::SortedSet => Shape::Scored,
    }
}

/// The record of a large collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Large {
    roots: [Reference; 2],
    elements: u32,
    flags: u32,
    /// Bytes of all its chunks but the item's.
    pub(super) node_bytes: u64,
    /// Bytes of its strings and scores alone.
    pub(super) user_bytes: u64,
    /// Of a hash: no field expires before this, if it is not 0.
    expires: UnixMs,
}

impl Large {
    /// The record of an item.
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

    /// Tells the roots where their item is.
    pub(super) fn tell_roots(&self, arena: &mut Arena, item: Reference) {
        self.roots().for_each(|root| set_parent(arena, root, item));
    }

    /// Leaves the trees to be freed.
    pub(super) fn abandon(&self, arena: &mut Arena, deferred: &mut DeferredFree) {
        self.roots().for_each(|root| deferred.push(arena, root));
    }
}

fn record_at(arena: &Arena, item: Reference) -> usize {
    let header = Header::read(arena.memory(), place(item));
    debug_assert!(header.is_large());
    place(item) + header.body_offset()
}

/// Whether a collection may be called compact, and a set so because it has integers only.
pub(super) fn compactness(arena: &Arena, item: Reference, header: Header) -> (bool, bool) {
    let flags = match header.is_large() {
        true => Large::of(arena, item).flags,
        false => view::small_flags(arena, item, header),
    };
    let integers = header.kind() == Kind::Set && flags & NOT_INTEGERS == 0;
    (integers || flags & NOT_COMPACT == 0, integers)
}

/// A node was copied to another chunk: what leads to it is corrected.
pub(super) fn node_moved(arena: &mut Arena, from: Reference, to: Reference) {
    let Some(item) = node::node_moved(arena, from, to) else { return };
    let mut large = Large::of(arena, item);
    let root = large.roots.iter_mut().find(|root| **root == from).expect("a root that its item does not know");
    *root = to;
    large.write(arena, item);
}
