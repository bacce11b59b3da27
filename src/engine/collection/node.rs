//! The chunks of a large collection: leaves, inner nodes and blobs.
//!
//! ```text
//!  0      2      4        8         12
//!  | bits | used | parent | entries |  leaf:  packed entries, `used` bytes of them
//!  | bits | used | parent | height  |  inner: `used` children, 16 bytes each: | node | elements | separator 8 |
//!  | bits | used | parent | next    |  blob:  `used` bytes of a string that is too long for an entry
//!
//!  bits:  type 0-2 | kind 3-4 | ROOT 5 | REFERS 6
//! ```
//!
//! The parent of a root is its item; that of a blob is the leaf whose entry refers to it, or the previous blob. So any
//! node can be relocated by updating one reference in its parent, and the parent of each of its children.

use super::entry::{Shape, entry_end, outside_places};
use crate::engine::arena::{Arena, CHUNK_BYTES_MAX, NONE, Reference, place};
use crate::engine::item::{NODE, u16_at, u32_at};

pub(super) const NODE_HEADER_BYTES: usize = 12;
/// Most bytes of entries in a leaf.
pub(super) const LEAF_BYTES_MAX: usize = 512;
/// Most children of an inner node.
pub(super) const CHILDREN_MAX: usize = 64;
pub(super) const CHILD_BYTES: usize = 16;
const BLOB_BYTES_MAX: usize = CHUNK_BYTES_MAX - NODE_HEADER_BYTES;
/// Granularity at which nodes grow and shrink.
const STEP_BYTES: usize = 48;

/// Most different sizes of nodes: inner nodes become the largest.
pub(super) const NODE_SIZES: u32 = (CHILDREN_MAX * CHILD_BYTES).div_ceil(STEP_BYTES) as u32;

const KIND: u16 = 3 << 3;
const LEAF: u16 = 0;
const INNER: u16 = 1 << 3;
const BLOB: u16 = 2 << 3;
const ROOT: u16 = 1 << 5;
const REFERS: u16 = 1 << 6;
const SHAPE_SHIFT: u32 = 7;

/// The kind of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Leaf,
    Inner,
    Blob,
}

/// A child, as recorded in its inner node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) node: Reference,
    /// Elements below it.
    pub(super) elements: u32,
    /// Lower bound, in the order of the tree, of the elements below it.
    pub(super) separator: u64,
}

fn bits(arena: &Arena, node: Reference) -> u16 {
    u16_at(arena.memory(), place(node))
}

pub(super) fn kind(arena: &Arena, node: Reference) -> Kind {
    match bits(arena, node) & KIND {
        LEAF => Kind::Leaf,
        INNER => Kind::Inner,
        _ => Kind::Blob,
    }
}

pub(super) fn is_root(arena: &Arena, node: Reference) -> bool {
    bits(arena, node) & ROOT != 0
}

/// True if entries of a leaf may refer to blobs.
pub(super) fn refers(arena: &Arena, leaf: Reference) -> bool {
    bits(arena, leaf) & REFERS != 0
}

/// The shape of a leaf's entries.
fn shape(arena: &Arena, leaf: Reference) -> Shape {
    match bits(arena, leaf) >> SHAPE_SHIFT & 3 {
        0 => Shape::One,
        1 => Shape::Pair,
        _ => Shape::Scored,
    }
}

/// Bytes in use of a leaf or blob; number of children of an inner node.
#[inline]
pub(super) fn used(arena: &Arena, node: Reference) -> usize {
    usize::from(u16_at(arena.memory(), place(node) + 2))
}

pub(super) fn parent(arena: &Arena, node: Reference) -> Reference {
    u32_at(arena.memory(), place(node) + 4)
}

/// Number of entries of a leaf.
#[inline]
pub(super) fn entries(arena: &Arena, leaf: Reference) -> usize {
    usize::from(u16_at(arena.memory(), place(leaf) + 8))
}

/// The next blob of a string.
fn next_blob(arena: &Arena, blob: Reference) -> Reference {
    u32_at(arena.memory(), place(blob) + 8)
}

/// Offset of a node's body in the arena.
#[inline]
pub(super) fn body(node: Reference) -> usize {
    place(node) + NODE_HEADER_BYTES
}

/// The entries of a leaf.
#[inline]
pub(super) fn leaf_bytes(arena: &Arena, leaf: Reference) -> &[u8] {
    let from = body(leaf);
    &arena.memory()[from..from + used(arena, leaf)]
}

fn put(arena: &mut Arena, at: usize, bytes: &[u8]) {
    arena.memory_mut()[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(super) fn set_used(arena: &mut Arena, node: Reference, used: usize) {
    put(arena, place(node) + 2, &(used as u16).to_le_bytes());
}

pub(super) fn set_parent(arena: &mut Arena, node: Reference, parent: Reference) {
    put(arena, place(node) + 4, &parent.to_le_bytes());
}

pub(super) fn set_entries(arena: &mut Arena, leaf: Reference, entries: usize) {
    put(arena, place(leaf) + 8, &(entries as u16).to_le_bytes());
}

fn set_next_blob(arena: &mut Arena, blob: Reference, next: Reference) {
    put(arena, place(blob) + 8, &next.to_le_bytes());
}

fn set_bit(arena: &mut Arena, node: Reference, bit: u16, on: bool) {
    let bits = if on { bits(arena, node) | bit } else { bits(arena, node) & !bit };
    put(arena, place(node), &bits.to_le_bytes());
}

/// Makes a node the root of an item's tree.
pub(super) fn make_root(arena: &mut Arena, node: Reference, item: Reference) {
    set_bit(arena, node, ROOT, true);
    set_parent(arena, node, item);
}

/// Makes a former root the child of a node.
pub(super) fn make_child(arena: &mut Arena, node: Reference, parent: Reference) {
    set_bit(arena, node, ROOT, false);
    set_parent(arena, node, parent);
}

/// Marks a leaf whose entries refer to blobs.
pub(super) fn set_refers(arena: &mut Arena, leaf: Reference) {
    set_bit(arena, leaf, REFERS, true);
}

#[inline]
pub(super) fn child(arena: &Arena, inner: Reference, number: usize) -> Child {
    let at = body(inner) + number * CHILD_BYTES;
    let memory = arena.memory();
    Child { node: u32_at(memory, at), elements: u32_at(memory, at + 4), separator: separator(arena, inner, number) }
}

/// The children of an inner node, as they lie in memory.
#[inline]
pub(super) fn children(arena: &Arena, inner: Reference) -> &[[u8; CHILD_BYTES]] {
    let from = body(inner);
    arena.memory()[from..from + used(arena, inner) * CHILD_BYTES].as_chunks().0
}

/// The separator of a child.
#[inline]
pub(super) fn separator_of(child: &[u8; CHILD_BYTES]) -> u64 {
    u64::from_le_bytes(*child.last_chunk().expect("8 bytes"))
}

#[inline]
pub(super) fn separator(arena: &Arena, inner: Reference, number: usize) -> u64 {
    let at = body(inner) + number * CHILD_BYTES + 8;
    u64::from_le_bytes(arena.memory()[at..at + 8].try_into().expect("8 bytes"))
}

pub(super) fn set_child(arena: &mut Arena, inner: Reference, number: usize, child: Child) {
    let at = body(inner) + number * CHILD_BYTES;
    put(arena, at, &child.node.to_le_bytes());
    put(arena, at + 4, &child.elements.to_le_bytes());
    put(arena, at + 8, &child.separator.to_le_bytes());
}

/// Adds to the number of elements below a child.
#[inline]
pub(super) fn add_elements(arena: &mut Arena, inner: Reference, number: usize, by: i32) {
    let at = body(inner) + number * CHILD_BYTES + 4;
    let elements = u32_at(arena.memory(), at).wrapping_add_signed(by);
    put(arena, at, &elements.to_le_bytes());
}

/// Allocates a node with room for `bytes`. The caller has made room for its chunk.
fn allocate(arena: &mut Arena, bits: u16, bytes: usize) -> Reference {
    let class = arena.class_for(chunk_bytes_for(bytes));
    let node = arena.allocate(class).expect("room was made for nodes");
    put(arena, place(node), &(NODE | bits).to_le_bytes());
    put(arena, place(node) + 2, &[0; NODE_HEADER_BYTES - 2]);
    node
}

fn chunk_bytes_for(bytes: usize) -> usize {
    NODE_HEADER_BYTES + bytes.next_multiple_of(STEP_BYTES)
}

/// Allocates an empty leaf with room for `bytes`.
pub(super) fn new_leaf(arena: &mut Arena, shape: Shape, bytes: usize) -> Reference {
    let shape = match shape {
        Shape::One => 0,
        Shape::Pair => 1,
        Shape::Scored => 2,
    };
    allocate(arena, LEAF | shape << SHAPE_SHIFT, bytes)
}

/// Allocates an inner node with room for `children`. `height` is its number of levels above the leaves.
pub(super) fn new_inner(arena: &mut Arena, children: usize, height: usize) -> Reference {
    let node = allocate(arena, INNER, children * CHILD_BYTES);
    put(arena, place(node) + 8, &(height as u16).to_le_bytes());
    node
}

/// Levels below a node: 0 for a leaf. A descent that knows the height of the root does not have to load each node to
/// learn whether it is a leaf.
#[inline]
pub(super) fn height(arena: &Arena, node: Reference) -> usize {
    match kind(arena, node) {
        Kind::Leaf => 0,
        _ => usize::from(u16_at(arena.memory(), place(node) + 8)),
    }
}

/// Gives a node a chunk that has room for a body of `bytes` and little more. If this relocates the node, its parent and
/// children are updated, except for the record of a root in its item. Returns its reference, and by how much its chunk
/// grew.
pub(super) fn fit(arena: &mut Arena, node: Reference, bytes: usize) -> (Reference, i64) {
    let (has, wanted) = (arena.chunk_bytes(node), chunk_bytes_for(bytes));
    if wanted <= has && has < wanted + 2 * STEP_BYTES {
        return (node, 0);
    }
    let class = arena.class_for(wanted);
    if arena.class_bytes(class) == has {
        return (node, 0);
    }
    let Some(to) = arena.allocate(class) else {
        assert!(wanted <= has, "room was made for nodes");
        return (node, 0);
    };
    let copied = has.min(arena.class_bytes(class));
    arena.memory_mut().copy_within(place(node)..place(node) + copied, place(to));
    tell_children(arena, to);
    if !is_root(arena, to) {
        replace_in_parent(arena, node, to);
    }
    arena.release(node);
    (to, arena.chunk_bytes(to) as i64 - has as i64)
}

/// Calls `visit` with the offset of each reference from a node to a child.
fn child_places(arena: &mut Arena, node: Reference, mut visit: impl FnMut(&mut Arena, usize)) {
    match kind(arena, node) {
        Kind::Inner => (0..used(arena, node)).for_each(|n| visit(arena, body(node) + n * CHILD_BYTES)),
        Kind::Blob if next_blob(arena, node) == NONE => {}
        Kind::Blob => visit(arena, place(node) + 8),
        Kind::Leaf if bits(arena, node) & REFERS == 0 => {}
        Kind::Leaf => {
            let shape = shape(arena, node);
            let (mut at, end) = (0, used(arena, node));
            while at < end {
                let mut places = [0; 2];
                let mut count = 0;
                let bytes = leaf_bytes(arena, node);
                let next = entry_end(shape, bytes, at);
                outside_places(shape, &bytes[..next], at, |place| {
                    places[count] = place;
                    count += 1;
                });
                places[..count].iter().for_each(|&place| visit(arena, body(node) + place));
                at = next;
            }
        }
    }
}

/// Updates the parent that is recorded in the children of a node.
pub(super) fn tell_children(arena: &mut Arena, node: Reference) {
    child_places(arena, node, |arena, at| {
        let child = u32_at(arena.memory(), at);
        set_parent(arena, child, node);
    });
}

/// Updates the reference to a node in its parent, which must be a node too.
fn replace_in_parent(arena: &mut Arena, from: Reference, to: Reference) {
    let mut found = false;
    let parent = parent(arena, to);
    child_places(arena, parent, |arena, at| {
        if u32_at(arena.memory(), at) == from {
            found = true;
            put(arena, at, &to.to_le_bytes());
        }
    });
    assert!(found, "a node that its parent does not know");
}

/// Updates the references to and from a node that was copied to another chunk. For a root, returns the item, whose
/// record the caller has to update.
pub(in crate::engine) fn node_moved(arena: &mut Arena, from: Reference, to: Reference) -> Option<Reference> {
    tell_children(arena, to);
    if is_root(arena, to) {
        return Some(parent(arena, to));
    }
    replace_in_parent(arena, from, to);
    None
}

/// Writes a string into blobs, for which there is room. Returns the first blob, and the bytes of their chunks.
pub(super) fn write_blobs(arena: &mut Arena, text: &[u8]) -> (Reference, u64) {
    let (mut first, mut last, mut bytes) = (NONE, NONE, 0);
    for piece in text.chunks(BLOB_BYTES_MAX) {
        let class = arena.class_for(NODE_HEADER_BYTES + piece.len());
        let blob = arena.allocate(class).expect("room was made for blobs");
        put(arena, place(blob), &(NODE | BLOB).to_le_bytes());
        set_used(arena, blob, piece.len());
        set_parent(arena, blob, last);
        set_next_blob(arena, blob, NONE);
        put(arena, body(blob), piece);
        bytes += arena.class_bytes(class) as u64;
        match last {
            NONE => first = blob,
            _ => set_next_blob(arena, last, blob),
        }
        last = blob;
    }
    (first, bytes)
}

/// Calls `visit` with the pieces of a string in blobs.
pub(super) fn read_blobs(arena: &Arena, first: Reference, mut visit: impl FnMut(&[u8])) {
    let mut blob = first;
    while blob != NONE {
        visit(leaf_bytes(arena, blob));
        blob = next_blob(arena, blob);
    }
}

/// Bytes of the chunks that a string in blobs occupies.
pub(super) fn blobs_footprint(arena: &Arena, length: usize) -> u64 {
    let full = length / BLOB_BYTES_MAX * CHUNK_BYTES_MAX;
    let rest = match length % BLOB_BYTES_MAX {
        0 => 0,
        rest => arena.class_bytes(arena.class_for(NODE_HEADER_BYTES + rest)),
    };
    (full + rest) as u64
}

/// Most pages that the blobs of a string may need.
pub(super) fn blob_pages(arena: &Arena, length: usize) -> u32 {
    (length.div_ceil(BLOB_BYTES_MAX) * CHUNK_BYTES_MAX / arena.page_bytes()) as u32 + 2
}

/// Lazy free: nodes of deleted collections, with everything below them, in a list linked through their parent fields.
/// They are freed one at a time, so that no step is proportional to the collection.
#[derive(Debug)]
pub(in crate::engine) struct DeferredFree(Reference);

impl DeferredFree {
    pub(in crate::engine) const fn new() -> Self {
        Self(NONE)
    }

    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.0 == NONE
    }

    /// Adds a node and everything below it.
    pub(in crate::engine) fn push(&mut self, arena: &mut Arena, node: Reference) {
        set_parent(arena, node, self.0);
        self.0 = node;
    }

    /// Frees one node, after adding its children to the list. Returns the bytes of its chunk, 0 if the list is empty.
    pub(in crate::engine) fn free_one(&mut self, arena: &mut Arena) -> usize {
        let node = self.0;
        if node == NONE {
            return 0;
        }
        self.0 = parent(arena, node);
        child_places(arena, node, |arena, at| {
            let child = u32_at(arena.memory(), at);
            set_parent(arena, child, self.0);
            self.0 = child;
        });
        let bytes = arena.chunk_bytes(node);
        arena.release(node);
        bytes
    }

    /// All nodes still to be freed, for the accounting.
    #[cfg(test)]
    pub(in crate::engine) fn nodes(&self, arena: &Arena) -> Vec<Reference> {
        let mut nodes = Vec::new();
        let mut node = self.0;
        while node != NONE {
            all_below(arena, node, &mut nodes);
            node = parent(arena, node);
        }
        nodes
    }
}

/// A node and everything below it.
#[cfg(test)]
pub(in crate::engine) fn all_below(arena: &Arena, node: Reference, nodes: &mut Vec<Reference>) {
    nodes.push(node);
    match kind(arena, node) {
        Kind::Inner => {
            for number in 0..used(arena, node) {
                all_below(arena, child(arena, node, number).node, nodes);
            }
        }
        Kind::Blob if next_blob(arena, node) == NONE => {}
        Kind::Blob => all_below(arena, next_blob(arena, node), nodes),
        Kind::Leaf => {
            let (shape, bytes) = (shape(arena, node), leaf_bytes(arena, node));
            let mut at = 0;
            while at < bytes.len() {
                let end = entry_end(shape, bytes, at);
                outside_places(shape, &bytes[..end], at, |at| all_below(arena, u32_at(bytes, at), nodes));
                at = end;
            }
        }
    }
}
