//! The way from the root of a tree to a leaf: by hash, by rank, by whatever chooses a child; and to the leaf's neighbours.

use super::node::{
    CHILDREN_MAX, LEAF_BYTES_MAX, add_elements, child, children, height, parent, separator, separator_of, used,
};
use super::view::MEMBER_HASH_BITS;
use crate::engine::arena::{Arena, Reference};
use crate::engine::item::u32_at;

/// Levels of inner nodes, at most: with eight children each, more leaves than a shard has memory for.
const DEPTH_MAX: usize = (u64::BITS / NUMBER_BITS) as usize;
const NUMBER_BITS: u32 = CHILDREN_MAX.ilog2();
const _: () = assert!(CHILDREN_MAX == 1 << NUMBER_BITS);

/// From this depth on, the first and the last leaf of a list have room for all that may come: less than a thirtieth of it.
pub(super) const ROOMY_DEPTH: usize = 2;

const _: () = assert!(MEMBER_HASH_BITS + (CHILDREN_MAX as u32).ilog2() < u64::BITS);

/// The way from the root to a leaf; valid until the tree changes. The inner nodes on it are the leaf's parents, so only which
/// child of each was taken is kept: it is small enough to be handed on in registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// The number of the root's child in the lowest bits, then that of its child's.
    numbers: u64,
    depth: u32,
    pub(super) leaf: Reference,
}

impl Path {
    fn new(root: Reference) -> Self {
        Self { numbers: 0, depth: 0, leaf: root }
    }

    /// Inner nodes on the way.
    #[inline]
    pub(super) fn depth(&self) -> usize {
        self.depth as usize
    }

    /// Which child was taken of the inner node of a level; the root's is 0.
    #[inline]
    pub(super) fn number(&self, level: usize) -> usize {
        (self.numbers >> (level as u32 * NUMBER_BITS)) as usize % CHILDREN_MAX
    }

    /// The inner nodes and which child of each was taken, from the leaf's parent up to the root.
    fn upwards(&self, arena: &Arena) -> impl Iterator<Item = (Reference, usize)> {
        let mut node = self.leaf;
        (0..self.depth()).rev().map(move |level| {
            node = parent(arena, node);
            (node, self.number(level))
        })
    }

    /// Goes down to a child of the node that it is at.
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

    /// Goes to the next leaf. False at the end.
    pub(super) fn forward(&mut self, arena: &Arena) -> bool {
        self.turn(arena, |inner, number| (number + 1 < used(arena, inner)).then_some(number + 1), |_| 0)
    }

    /// Goes to the leaf before. False at the start.
    pub(super) fn back(&mut self, arena: &Arena) -> bool {
        self.turn(arena, |_, number| number.checked_sub(1), |children| children - 1)
    }

    /// Goes up to where another child can be taken, and down from there.
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

    /// The separator of the next leaf. None if there is none.
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

    /// More or fewer elements below each inner node.
    pub(super) fn count(&self, arena: &mut Arena, by: i32) {
        let mut node = self.leaf;
        for level in (0..self.depth()).rev() {
            node = parent(arena, node);
            add_elements(arena, node, self.number(level), by);
        }
    }
}

/// The way to the leaf that `choose` leads to: of an inner node, the number of a child.
#[inline]
pub(super) fn descend(arena: &Arena, root: Reference, mut choose: impl FnMut(Reference) -> usize) -> Path {
    let (mut path, height) = (Path::new(root), height(arena, root));
    while path.depth() < height {
        let number = choose(path.leaf);
        path.descend(arena, number);
    }
    path
}

/// The last child, but for the first, that starts before a key; the first if none does. Of those that start at the key
/// itself, `starts_before` says whether they do: it holds for all up to some child.
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

/// The leaf for a place in the order of hashes. These are spread evenly, so of an inner node a child is guessed and few
/// others are looked at: a binary search of large nodes would wait for the memory of each step.
#[inline]
pub(super) fn leaf_for_key(arena: &Arena, root: Reference, key: u64) -> Path {
    let (mut path, height) = (Path::new(root), height(arena, root));
    // What is below the node that it is at: low <= key < high, but for cursors that clients made up.
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

/// The leaf that has the element of a rank, which there is, and how many come before it in there.
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
