//! The structure of every large collection: a B+tree of packed leaves whose inner nodes count the elements below them.
//!
//! ```text
//!                 inner: | node | elements | separator | ...
//!                 /              |
//!        inner ...              inner ...
//!        /     \
//!   leaf: packed entries    leaf ...            all at the same depth
//! ```
//!
//! One structure serves all types; they differ in the meaning of the separators.
//!
//! | tree | order | found by |
//! |---|---|---|
//! | of a list | as pushed; separators are 0 | rank |
//! | of a set, a hash, the members of a sorted set | by the hash of the member; within a leaf, none | hash |
//! | of a sorted set's scores | by score, then by member | score and member, rank |
//!
//! The tree grows and shrinks by one leaf at a time, so no step is large; the cursor of a scan is a position in hash
//! order; and the counts locate a rank, or a random element, in O(log n).

use super::entry::{ENTRY_BYTES_MAX, Entry, Shape, entry_end, name, order_of, score};
use super::node::{
    self, CHILD_BYTES, CHILDREN_MAX, Child, Kind, LEAF_BYTES_MAX, body, child, entries, leaf_bytes, make_child,
    make_root, new_inner, new_leaf, parent, separator, set_child, set_entries, set_parent, set_refers, set_used,
    tell_children, used,
};
use super::path::{Path, ROOMY_DEPTH};
use super::view::text_key;
use crate::engine::KeyHasher;
use crate::engine::arena::{Arena, Reference};

/// A leaf with fewer bytes than this is merged with a neighbour, provided that both together have at most
/// `MERGED_BYTES_MAX`.
const SPARSE_BYTES: usize = LEAF_BYTES_MAX / 4;
const MERGED_BYTES_MAX: usize = LEAF_BYTES_MAX / 4 * 3;
/// The thresholds for inner nodes.
const SPARSE_CHILDREN: usize = CHILDREN_MAX / 4;
const MERGED_CHILDREN_MAX: usize = CHILDREN_MAX / 4 * 3;

/// Free pages that a merge requires. Each level of the tree may take one; where memory is full, merging is not worth
/// it.
const PAGES_PER_MERGE: u32 = 2;

/// Most entries of a leaf plus one: in a tree in hash order, each entry has at least two bytes.
const SPLIT_ENTRIES_MAX: usize = LEAF_BYTES_MAX / 2 + 2;

/// Most slab classes that one change of a collection allocates from; each may need a new page. They are those of the
/// leaves and inner nodes that grow or are split, in up to two trees, in one of them at two places, of a new root, and
/// of the item.
pub(in crate::engine) const CLASSES_PER_CHANGE: u32 = 16;

/// A tree while it is changed.
pub(super) struct Tree {
    pub(super) root: Reference,
    pub(super) shape: Shape,
    /// Allocates each leaf at its largest size. While a collection is converted to a large one, its leaves then need
    /// one slab class only.
    pub(super) roomy: bool,
    /// Net growth of the tree's chunks, in bytes.
    pub(super) grown: i64,
}

/// The order of a tree's entries.
#[derive(Clone, Copy)]
pub(super) enum Order<'a> {
    /// The order of insertion, by position.
    Position,
    /// By score, then by member.
    Score,
    /// By the hash of the name; the entries within a leaf are unordered.
    Hash(&'a KeyHasher),
}

impl Order<'_> {
    /// True if most insertions are at the two ends.
    fn has_ends(self) -> bool {
        matches!(self, Self::Position)
    }

    /// The separator that would put an entry first in its leaf.
    fn key(self, arena: &Arena, shape: Shape, entry: &[u8]) -> u64 {
        match self {
            Self::Position => 0,
            Self::Score => order_of(score(entry, 0)),
            Self::Hash(hasher) => text_key(arena, hasher, name(shape, entry, 0)),
        }
    }
}

impl Tree {
    /// A tree with one empty leaf.
    pub(super) fn new(arena: &mut Arena, item: Reference, shape: Shape) -> Self {
        let root = new_leaf(arena, shape, LEAF_BYTES_MAX);
        make_root(arena, root, item);
        Self { root, shape, roomy: true, grown: arena.chunk_bytes(root) as i64 }
    }

    fn fit(&mut self, arena: &mut Arena, node: Reference, bytes: usize) -> Reference {
        let is_roomy = self.roomy && node::kind(arena, node) == Kind::Leaf;
        let bytes = if is_roomy { LEAF_BYTES_MAX.max(bytes) } else { bytes };
        let (to, grown) = node::fit(arena, node, bytes);
        self.grown += grown;
        if self.root == node {
            self.root = to;
        }
        to
    }

    fn release(&mut self, arena: &mut Arena, node: Reference) {
        self.grown -= arena.chunk_bytes(node) as i64;
        arena.release(node);
    }

    /// Inserts an entry into a leaf, at an offset.
    pub(super) fn insert(&mut self, arena: &mut Arena, path: &Path, offset: usize, entry: &Entry, order: Order) {
        path.count(arena, 1);
        let (bytes, before) = (entry.bytes(), used(arena, path.leaf));
        if before + bytes > LEAF_BYTES_MAX && self.split(arena, path, offset, entry, order) {
            return;
        }
        // The first and last leaf of a long list have room for all their future entries; growing them step by step
        // would relocate them for every other element.
        let is_end =
            order.has_ends() && (offset == 0 && path.is_roomy_first() || offset == before && path.is_roomy_last(arena));
        let room = before + bytes;
        let leaf = self.fit(arena, path.leaf, if is_end { room.max(LEAF_BYTES_MAX) } else { room });
        let at = body(leaf);
        let memory = arena.memory_mut();
        memory.copy_within(at + offset..at + before, at + offset + bytes);
        entry.write(&mut memory[at + offset..at + offset + bytes]);
        set_used(arena, leaf, before + bytes);
        let count = entries(arena, leaf) + 1;
        set_entries(arena, leaf, count);
        if entry.refers() {
            set_refers(arena, leaf);
            tell_children(arena, leaf);
        }
    }

    /// Splits a leaf while inserting an entry into it. False if all entries have the same hash, so that no separator
    /// divides them.
    fn split(&mut self, arena: &mut Arena, path: &Path, offset: usize, entry: &Entry, order: Order) -> bool {
        let mut all = [0; 2 * LEAF_BYTES_MAX + ENTRY_BYTES_MAX];
        let old = leaf_bytes(arena, path.leaf);
        let length = old.len() + entry.bytes();
        if length > all.len() {
            return false;
        }
        all[..offset].copy_from_slice(&old[..offset]);
        entry.write(&mut all[offset..offset + entry.bytes()]);
        all[offset + entry.bytes()..length].copy_from_slice(&old[offset..]);
        let (cut, separator) = match order {
            // By position or score the entries are sorted already, so any boundary between two will do.
            Order::Position | Order::Score => {
                let is_last = path.is_last(arena);
                let cut = match offset {
                    // Appending or prepending leaves full leaves behind, as no entry will be inserted there later.
                    _ if is_last && offset == old.len() => offset,
                    0 if path.is_first() => entry.bytes(),
                    _ => middle(self.shape, &all[..length]),
                };
                (cut, order.key(arena, self.shape, &all[cut..entry_end(self.shape, &all, cut)]))
            }
            Order::Hash(_) => {
                // In hash order the leaf is unsorted: partition it around the best separator.
                let key = |entry: &[u8]| order.key(arena, self.shape, entry);
                match partition(self.shape, &mut all[..length], key) {
                    Some(found) => found,
                    None => return false,
                }
            }
        };
        let refers = entry.refers() || node::refers(arena, path.leaf);
        let is_roomy = path.depth() >= ROOMY_DEPTH && order.has_ends();
        let room = |bytes: usize, is_alone: bool| if is_roomy && is_alone { LEAF_BYTES_MAX } else { bytes };
        let bytes = if self.roomy { LEAF_BYTES_MAX } else { room(length - cut, cut == offset) };
        let right = new_leaf(arena, self.shape, bytes);
        self.grown += arena.chunk_bytes(right) as i64;
        write_leaf(arena, right, self.shape, &all[cut..length], refers);
        // While it is marked as empty, relocating it copies nothing: its contents are written anew below.
        set_used(arena, path.leaf, 0);
        let left = self.fit(arena, path.leaf, room(cut, cut == entry.bytes()));
        write_leaf(arena, left, self.shape, &all[..cut], refers);
        let elements = entries(arena, right) as u32;
        self.add_child(arena, path, path.depth(), left, Child { node: right, elements, separator });
        true
    }

    /// Inserts `right`, split off from its left neighbour `left`, into their parent, the inner node of step `level - 1`
    /// of the path.
    fn add_child(&mut self, arena: &mut Arena, path: &Path, level: usize, left: Reference, right: Child) {
        if level == 0 {
            self.add_root(arena, left, right);
            return;
        }
        let (inner, number) = (parent(arena, left), path.number(level - 1));
        let record = child(arena, inner, number);
        let left = Child { node: left, elements: record.elements - right.elements, ..record };
        set_child(arena, inner, number, left);
        let count = used(arena, inner);
        if count < CHILDREN_MAX {
            self.put_child(arena, inner, number + 1, right);
            return;
        }
        // The inner node is full: split it. If the new child comes last, as when appending, the old node stays full.
        let cut = if number + 1 == count { count - 1 } else { count / 2 };
        let new = new_inner(arena, count - cut + 1, node::height(arena, inner));
        self.grown += arena.chunk_bytes(new) as i64;
        for n in cut..count {
            let moved = child(arena, inner, n);
            set_child(arena, new, n - cut, moved);
            set_parent(arena, moved.node, new);
        }
        set_used(arena, new, count - cut);
        set_used(arena, inner, cut);
        let (new, inner) = match number < cut {
            true => (new, self.put_child(arena, inner, number + 1, right)),
            false => (self.put_child(arena, new, number + 1 - cut, right), self.fit(arena, inner, cut * CHILD_BYTES)),
        };
        let elements = (0..used(arena, new)).map(|n| child(arena, new, n).elements).sum();
        let right = Child { node: new, elements, separator: separator(arena, new, 0) };
        self.add_child(arena, path, level - 1, inner, right);
    }

    /// Inserts a child into an inner node that has room for it; returns the node's possibly new reference.
    fn put_child(&mut self, arena: &mut Arena, inner: Reference, number: usize, new: Child) -> Reference {
        let count = used(arena, inner);
        let inner = self.fit(arena, inner, (count + 1) * CHILD_BYTES);
        let at = body(inner);
        arena
            .memory_mut()
            .copy_within(at + number * CHILD_BYTES..at + count * CHILD_BYTES, at + (number + 1) * CHILD_BYTES);
        set_child(arena, inner, number, new);
        set_parent(arena, new.node, inner);
        set_used(arena, inner, count + 1);
        inner
    }

    fn add_root(&mut self, arena: &mut Arena, left: Reference, right: Child) {
        let item = parent(arena, left);
        let root = new_inner(arena, 2, node::height(arena, left) + 1);
        self.grown += arena.chunk_bytes(root) as i64;
        let elements = match node::kind(arena, left) {
            Kind::Leaf => entries(arena, left) as u32,
            _ => (0..used(arena, left)).map(|n| child(arena, left, n).elements).sum(),
        };
        set_child(arena, root, 0, Child { node: left, elements, separator: 0 });
        set_child(arena, root, 1, right);
        set_used(arena, root, 2);
        make_root(arena, root, item);
        make_child(arena, left, root);
        make_child(arena, right.node, root);
        self.root = root;
    }

    /// Replaces an entry.
    pub(super) fn replace(&mut self, arena: &mut Arena, path: &Path, offset: usize, entry: &Entry, order: Order) {
        let (bytes, before) = (entry.bytes(), used(arena, path.leaf));
        let end = entry_end(self.shape, leaf_bytes(arena, path.leaf), offset);
        let after = before - (end - offset) + bytes;
        if after > LEAF_BYTES_MAX {
            // The leaf is too full for the new entry: remove the old one, then insert, which splits the leaf. The leaf
            // does not become empty.
            self.cut_out(arena, path.leaf, offset, end);
            path.count(arena, -1);
            self.insert(arena, path, offset, entry, order);
            return;
        }
        // The old entry is removed first: its blobs no longer belong to the leaf, and if the leaf is relocated it
        // updates the blobs of its entries.
        let rest = before - (end - offset);
        arena.memory_mut().copy_within(body(path.leaf) + end..body(path.leaf) + before, body(path.leaf) + offset);
        set_used(arena, path.leaf, rest);
        let leaf = if after > before { self.fit(arena, path.leaf, after) } else { path.leaf };
        let at = body(leaf);
        let memory = arena.memory_mut();
        memory.copy_within(at + offset..at + rest, at + offset + bytes);
        entry.write(&mut memory[at + offset..at + offset + bytes]);
        set_used(arena, leaf, after);
        if entry.refers() {
            set_refers(arena, leaf);
            tell_children(arena, leaf);
        }
    }

    /// Removes an entry from a leaf, which is not relocated.
    fn cut_out(&mut self, arena: &mut Arena, leaf: Reference, offset: usize, end: usize) {
        let (at, before) = (body(leaf), used(arena, leaf));
        arena.memory_mut().copy_within(at + end..at + before, at + offset);
        set_used(arena, leaf, before - (end - offset));
        let count = entries(arena, leaf) - 1;
        set_entries(arena, leaf, count);
    }

    /// Removes the entry at an offset. A tree that has lost its last entry has an empty root.
    pub(super) fn remove(&mut self, arena: &mut Arena, path: &Path, offset: usize) {
        let end = entry_end(self.shape, leaf_bytes(arena, path.leaf), offset);
        path.count(arena, -1);
        self.cut_out(arena, path.leaf, offset, end);
        self.thinned(arena, path);
    }

    /// Removes all entries of a leaf, none of which refers to blobs.
    pub(super) fn remove_leaf(&mut self, arena: &mut Arena, path: &Path) {
        let count = entries(arena, path.leaf);
        path.count(arena, -(count as i32));
        set_used(arena, path.leaf, 0);
        set_entries(arena, path.leaf, 0);
        self.thinned(arena, path);
    }

    /// Restores the invariants of a leaf that has lost entries: shrinks it, merges it with a neighbour, or frees it.
    fn thinned(&mut self, arena: &mut Arena, path: &Path) {
        let left = used(arena, path.leaf);
        // The only leaf, or still full enough: give back the bytes of its chunk that it no longer needs.
        if path.depth() == 0 || left >= SPARSE_BYTES {
            if !path.is_roomy_first() && !path.is_roomy_last(arena) {
                self.fit(arena, path.leaf, left);
            }
            return;
        }
        let level = path.depth() - 1;
        let (inner, number) = (parent(arena, path.leaf), path.number(level));
        if entries(arena, path.leaf) == 0 {
            // An empty leaf is removed from its parent.
            self.drop_child(arena, path, level, inner, number);
            return;
        }
        // A sparse leaf is merged with its right neighbour, or else with its left one, if both fit into one leaf
        // with some room left.
        for first in [Some(number), number.checked_sub(1)].into_iter().flatten() {
            if first + 1 < used(arena, inner) {
                let (a, b) = (child(arena, inner, first), child(arena, inner, first + 1));
                let bytes = used(arena, a.node) + used(arena, b.node);
                if bytes <= MERGED_BYTES_MAX && arena.free_pages() >= PAGES_PER_MERGE {
                    self.merge_leaves(arena, inner, first, bytes);
                    self.drop_child(arena, path, level, inner, first + 1);
                    return;
                }
            }
        }
        self.fit(arena, path.leaf, left);
    }

    /// Moves the entries of the leaf after child `first` into that child.
    fn merge_leaves(&mut self, arena: &mut Arena, inner: Reference, first: usize, bytes: usize) {
        let (a, b) = (child(arena, inner, first), child(arena, inner, first + 1));
        let into = self.fit(arena, a.node, bytes);
        let (end, moved) = (used(arena, into), used(arena, b.node));
        arena.memory_mut().copy_within(body(b.node)..body(b.node) + moved, body(into) + end);
        set_used(arena, into, bytes);
        let count = entries(arena, into) + entries(arena, b.node);
        set_entries(arena, into, count);
        if node::refers(arena, b.node) {
            set_refers(arena, into);
            tell_children(arena, into);
        }
        set_child(arena, inner, first, Child { node: into, elements: a.elements + b.elements, ..a });
        set_child(arena, inner, first + 1, Child { elements: 0, ..b });
    }

    /// Frees a child without elements, and removes it from the inner node of a level.
    fn drop_child(&mut self, arena: &mut Arena, path: &Path, level: usize, inner: Reference, number: usize) {
        let count = used(arena, inner);
        self.release(arena, child(arena, inner, number).node);
        let at = body(inner);
        arena
            .memory_mut()
            .copy_within(at + (number + 1) * CHILD_BYTES..at + count * CHILD_BYTES, at + number * CHILD_BYTES);
        set_used(arena, inner, count - 1);
        // Below the root, an inner node without children is removed as well, and a sparse one is merged.
        if level > 0 {
            match count - 1 {
                0 => self.drop_child(arena, path, level - 1, parent(arena, inner), path.number(level - 1)),
                left if left < SPARSE_CHILDREN => self.merge_inner(arena, path, level, inner),
                _ => {}
            }
            return;
        }
        self.lower(arena);
    }

    /// While the root has a single child, makes that child the root. So an inner root always has at least two children.
    fn lower(&mut self, arena: &mut Arena) {
        while node::kind(arena, self.root) == Kind::Inner && used(arena, self.root) == 1 {
            let item = parent(arena, self.root);
            let old = self.root;
            self.root = child(arena, old, 0).node;
            make_root(arena, self.root, item);
            self.release(arena, old);
        }
    }

    /// Merges the inner node of a level with a neighbour, if both together have few enough children.
    fn merge_inner(&mut self, arena: &mut Arena, path: &Path, level: usize, inner: Reference) {
        let (above, number) = (parent(arena, inner), path.number(level - 1));
        for first in [Some(number), number.checked_sub(1)].into_iter().flatten() {
            if first + 1 >= used(arena, above) {
                continue;
            }
            let (a, b) = (child(arena, above, first), child(arena, above, first + 1));
            let (count, more) = (used(arena, a.node), used(arena, b.node));
            if count + more > MERGED_CHILDREN_MAX || arena.free_pages() < PAGES_PER_MERGE {
                continue;
            }
            let into = self.fit(arena, a.node, (count + more) * CHILD_BYTES);
            for n in 0..more {
                let moved = child(arena, b.node, n);
                // The separator of a first child is arbitrary: the separator of its parent takes its place.
                let separator = if n == 0 { b.separator } else { moved.separator };
                set_child(arena, into, count + n, Child { separator, ..moved });
                set_parent(arena, moved.node, into);
            }
            set_used(arena, into, count + more);
            set_used(arena, b.node, 0);
            set_child(arena, above, first, Child { node: into, elements: a.elements + b.elements, ..a });
            set_child(arena, above, first + 1, Child { elements: 0, ..b });
            self.drop_child(arena, path, level - 1, above, first + 1);
            return;
        }
    }
}

/// Writes entries into a leaf that has room for them.
fn write_leaf(arena: &mut Arena, leaf: Reference, shape: Shape, bytes: &[u8], refers: bool) {
    let (at, mut count, mut offset) = (body(leaf), 0, 0);
    while offset < bytes.len() {
        offset = entry_end(shape, bytes, offset);
        count += 1;
    }
    arena.memory_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    set_used(arena, leaf, bytes.len());
    set_entries(arena, leaf, count);
    if refers {
        set_refers(arena, leaf);
        tell_children(arena, leaf);
    }
}

/// The boundary between two entries that is closest to the middle.
fn middle(shape: Shape, bytes: &[u8]) -> usize {
    let (mut cut, mut at) = (0_usize, 0);
    while at < bytes.len() {
        at = entry_end(shape, bytes, at);
        if at < bytes.len() && (cut == 0 || at.abs_diff(bytes.len() / 2) < cut.abs_diff(bytes.len() / 2)) {
            cut = at;
        }
    }
    cut
}

/// Sorts the entries by key and cuts them near the middle, between two different keys. Returns the cut, and the lowest
/// key after it. None if all keys are equal.
fn partition(shape: Shape, bytes: &mut [u8], key: impl Fn(&[u8]) -> u64) -> Option<(usize, u64)> {
    let mut found = [(0, 0, 0); SPLIT_ENTRIES_MAX];
    let (mut count, mut at) = (0, 0);
    while at < bytes.len() {
        let end = entry_end(shape, bytes, at);
        *found.get_mut(count)? = (key(&bytes[at..end]), at as u16, end as u16);
        count += 1;
        at = end;
    }
    let found = &mut found[..count];
    found.sort_unstable();
    let (mut cut, mut cut_at, mut at) = (0, 0_usize, 0);
    for n in 1..count {
        at += usize::from(found[n - 1].2 - found[n - 1].1);
        let is_better = cut == 0 || at.abs_diff(bytes.len() / 2) < cut_at.abs_diff(bytes.len() / 2);
        if found[n].0 != found[n - 1].0 && is_better {
            (cut, cut_at) = (n, at);
        }
    }
    if cut == 0 {
        return None;
    }
    let mut sorted = [0; 2 * LEAF_BYTES_MAX + ENTRY_BYTES_MAX];
    let mut at = 0;
    for &(_, from, to) in found.iter() {
        let (from, to) = (usize::from(from), usize::from(to));
        sorted[at..at + to - from].copy_from_slice(&bytes[from..to]);
        at += to - from;
    }
    bytes.copy_from_slice(&sorted[..bytes.len()]);
    Some((cut_at, found[cut].0))
}
