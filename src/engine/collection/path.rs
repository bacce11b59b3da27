//! Paths from the root of a tree to a leaf, chosen by hash, by rank, or by a predicate; and from there to neighbouring
//! leaves.

use super::node::{
    CHILDREN_MAX, LEAF_BYTES_MAX, add_elements, child, children, height, parent, separator, separator_of, used,
};
use super::view::MEMBER_HASH_BITS;
use crate::engine::arena::{Arena, Reference};
use crate::engine::item::u32_at;

/// Most levels of inner nodes: even with eight children each, more leaves than a shard has memory for.
const DEPTH_MAX: usize = (u64::BITS / NUMBER_BITS) as usize;
const NUMBER_BITS: u32 = CHILDREN_MAX.ilog2();
const _: () = assert!(CHILDREN_MAX == 1 << NUMBER_BITS);

/// From this depth on, the first and the last leaf of a list are allocated at their largest size: less than a thirtieth
/// of the list.
pub(super) const ROOMY_DEPTH: usize = 2;

const _: () = assert!(MEMBER_HASH_BITS + (CHILDREN_MAX as u32).ilog2() < u64::BITS);

/// The path from the root to a leaf; valid until the tree changes. The inner nodes are the ancestors of the leaf, so
/// only the number of the child taken in each is stored, which makes a path small enough for registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// The number of the child of the root in the lowest bits, followed by those of the levels below.
    numbers: u64,
    depth: u32,
    pub(super) leaf: Reference,
}

impl Path {
    fn new(root: Reference) -> Self {
        Self { numbers: 0, depth: 0, leaf: root }
    }

    /// Inner nodes on the path.
    #[inline]
    pub(super) fn depth(&self) -> usize {
        self.depth as usize
    }

    /// The child taken in the inner node of a level; the root is level 0.
    #[inline]
    pub(super) fn number(&self, level: usize) -> usize {
        (self.numbers >> (level as u32 * NUMBER_BITS)) as usize % CHILDREN_MAX
    }

    /// The inner nodes and the child taken in each, from the leaf's parent up to the root.
    fn upwards(&self, arena: &Arena) -> impl Iterator<Item = (Reference, usize)> {
        let mut node = self.leaf;
        (0..self.depth()).rev().map(move |level| {
            node = parent(arena, node);
            (node, self.number(level))
        })
    }

    /// Descends to a child of the current node.
    #[inline]
    fn descend(&mut self, arena: &Arena, number: usize) {
        assert!(self.depth() < DEPTH_MAX, "a tree of more levels than there can be");
        self.numbers |= (number as u64) << (self.depth * NUMBER_BITS);
        self.depth += 1;
        self.leaf = child(arena, self.leaf, number).node;
    }

    /// Elements before the leaf.
    pub(super) fn rank(&self, arena: &Arena) -> u64 {
        let before = |(inner, number)| (0..number).map(|n| u64::from(child(arena, inner, n).elements)).sum::<u64>();
        self.upwards(arena).map(before).sum()
    }

    /// Advances to the next leaf. False at the end.
    pub(super) fn forward(&mut self, arena: &Arena) -> bool {
        self.turn(arena, |inner, number| (number + 1 < used(arena, inner)).then_some(number + 1), |_| 0)
    }

    /// Goes back to the previous leaf. False at the start.
    pub(super) fn back(&mut self, arena: &Arena) -> bool {
        self.turn(arena, |_, number| number.checked_sub(1), |children| children - 1)
    }

    /// Ascends to the nearest inner node where `other` names another child, and descends from there by `choose`.
    fn turn(
        &mut self,
        arena: &Arena,
        other: impl Fn(Reference, usize) -> Option<usize>,
        choose: impl Fn(usize) -> usize,
    ) -> bool {
        let (height, mut level) = (self.depth(), self.depth());
        let turn = self.upwards(arena).find_map(|(inner, number)| {
            level -= 1;
            other(inner, number).map(|number| (inner, number))
        });
        let Some((inner, number)) = turn else { return false };
        self.numbers &= (1 << (level as u32 * NUMBER_BITS)) - 1;
        (self.depth, self.leaf) = (level as u32, inner);
        self.descend(arena, number);
        while self.depth() < height {
            self.descend(arena, choose(used(arena, self.leaf)));
        }
        true
    }

    /// The separator of the next leaf. None for the last leaf.
    pub(super) fn next_separator(&self, arena: &Arena) -> Option<u64> {
        let ahead = |(inner, number)| (number + 1 < used(arena, inner)).then(|| separator(arena, inner, number + 1));
        self.upwards(arena).find_map(ahead)
    }

    pub(super) fn is_first(&self) -> bool {
        self.numbers == 0
    }

    pub(super) fn is_last(&self, arena: &Arena) -> bool {
        self.next_separator(arena).is_none()
    }

    pub(super) fn is_roomy_first(&self) -> bool {
        self.depth() >= ROOMY_DEPTH && self.is_first()
    }

    pub(super) fn is_roomy_last(&self, arena: &Arena) -> bool {
        self.depth() >= ROOMY_DEPTH && self.is_last(arena)
    }

    /// Adds `by` to the element counts on the path.
    pub(super) fn count(&self, arena: &mut Arena, by: i32) {
        let mut node = self.leaf;
        for level in (0..self.depth()).rev() {
            node = parent(arena, node);
            add_elements(arena, node, self.number(level), by);
        }
    }
}

/// The path to the leaf that `choose` leads to by picking a child of each inner node.
#[inline]
pub(super) fn descend(arena: &Arena, root: Reference, mut choose: impl FnMut(Reference) -> usize) -> Path {
    let (mut path, height) = (Path::new(root), height(arena, root));
    while path.depth() < height {
        let number = choose(path.leaf);
        path.descend(arena, number);
    }
    path
}

/// The last child that starts before a key; the first child if none does. Children whose separator equals the key are
/// decided by `starts_before`, which must hold for a prefix of them.
#[inline]
pub(super) fn last_child(
    arena: &Arena,
    inner: Reference,
    key: u64,
    mut starts_before: impl FnMut(Reference) -> bool,
) -> usize {
    let others = &children(arena, inner)[1..];
    let below = others.partition_point(|child| separator_of(child) < key);
    let equal = others[below..].partition_point(|child| separator_of(child) == key && starts_before(u32_at(child, 0)));
    below + equal
}

/// The path to the leaf for a position in hash order. Hashes are spread evenly, so the child of each inner node is
/// found by interpolation and a short linear search; in a large node each step of a binary search would be a cache
/// miss.
#[inline]
pub(super) fn leaf_for_key(arena: &Arena, root: Reference, key: u64) -> Path {
    let (mut path, height) = (Path::new(root), height(arena, root));
    // The hashes below the current node are in low..high; so is `key`, unless a client made the cursor up.
    let (mut low, mut high) = (0, 1_u64 << MEMBER_HASH_BITS);
    while path.depth() < height {
        let children = children(arena, path.leaf);
        let starts = |number: usize| separator_of(&children[number]);
        let part = (key.min(high) - low) * children.len() as u64 / (high - low);
        let mut number = (part as usize).min(children.len() - 1);
        while number + 1 < children.len() && starts(number + 1) <= key {
            number += 1;
        }
        while number > 0 && starts(number) > key {
            number -= 1;
        }
        if number > 0 {
            low = starts(number);
        }
        if number + 1 < children.len() {
            high = starts(number + 1);
        }
        path.descend(arena, number);
    }
    arena.prefetch_all(path.leaf, LEAF_BYTES_MAX);
    path
}

/// The path to the leaf that holds the element of a rank, which must exist, and its number within the leaf.
pub(super) fn leaf_for_rank(arena: &Arena, root: Reference, rank: u64) -> (Path, usize) {
    let mut left = rank;
    let path = descend(arena, root, |inner| {
        let mut number = 0;
        loop {
            let elements = u64::from(child(arena, inner, number).elements);
            if left < elements || number + 1 == used(arena, inner) {
                return number;
            }
            left -= elements;
            number += 1;
        }
    });
    (path, left as usize)
}

pub(super) fn last_leaf(arena: &Arena, root: Reference) -> Path {
    descend(arena, root, |inner| used(arena, inner) - 1)
}

/// The leftmost leaf below a node.
pub(super) fn first_leaf_below(arena: &Arena, node: Reference) -> Reference {
    descend(arena, node, |_| 0).leaf
}
