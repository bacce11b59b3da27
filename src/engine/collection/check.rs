//! A full check of a large collection: order, counts, parents, byte counts.

use super::entry::{self, Shape, Text, entry_end, member_score, name, order_of, pair, user_bytes};
use super::node::{self, CHILDREN_MAX, Kind as NodeKind, child, leaf_bytes, parent, used};
use super::sorted::SHARING_MAX;
use super::view::{bytes_of, member_key, text_key};
use super::{Large, MAIN, MEMBERS, shape_of};
use crate::engine::KeyHasher;
use crate::engine::arena::{Arena, Reference, place};
use crate::engine::item::{Header, Kind};

struct Check<'a> {
    arena: &'a Arena,
    hasher: &'a KeyHasher,
    kind: Kind,
    tree: usize,
    depth: Option<usize>,
    entries: Vec<Vec<u8>>,
    user_bytes: u64,
}

/// Checks a collection; returns all its nodes.
pub(in crate::engine) fn check(arena: &Arena, hasher: &KeyHasher, item: Reference) -> Vec<Reference> {
    let kind = Header::read(arena.memory(), place(item)).kind();
    let large = Large::of(arena, item);
    let (mut nodes, mut ordered) = (Vec::new(), Vec::new());
    for tree in [MAIN, MEMBERS] {
        if tree == MEMBERS && kind != Kind::SortedSet {
            assert_eq!(large.roots[tree], 0);
            continue;
        }
        let root = large.roots[tree];
        assert!(node::is_root(arena, root) && parent(arena, root) == item, "a root knows its item");
        node::all_below(arena, root, &mut nodes);
        let mut check = Check { arena, hasher, kind, tree, depth: None, entries: Vec::new(), user_bytes: 0 };
        let elements = check.node(root, 0, (0, u64::MAX));
        assert_eq!(elements, large.elements, "elements");
        if tree == MAIN {
            assert_eq!(check.user_bytes, large.user_bytes, "bytes of users");
        }
        check.order();
        match tree {
            MAIN => ordered = check.entries,
            _ => check.members(&ordered),
        }
    }
    let bytes: usize = nodes.iter().map(|&node| arena.chunk_bytes(node)).sum();
    assert_eq!(bytes as u64, large.node_bytes, "bytes of nodes");
    nodes
}

impl Check<'_> {
    fn shape(&self) -> Shape {
        if self.tree == MEMBERS { Shape::Pair } else { shape_of(self.kind) }
    }

    fn node(&mut self, at: Reference, depth: usize, keys: (u64, u64)) -> u32 {
        if node::kind(self.arena, at) == NodeKind::Leaf {
            assert_eq!(*self.depth.get_or_insert(depth), depth, "all leaves are at the same depth");
            return self.leaf(at, depth, keys);
        }
        let count = used(self.arena, at);
        assert!((1 + usize::from(depth == 0)..=CHILDREN_MAX).contains(&count), "{count} children");
        let mut elements = 0;
        for number in 0..count {
            let below = child(self.arena, at, number);
            assert!(!node::is_root(self.arena, below.node));
            assert_eq!(parent(self.arena, below.node), at, "a child knows its parent");
            let from = if number == 0 { keys.0 } else { below.separator };
            let to = if number + 1 == count { keys.1 } else { child(self.arena, at, number + 1).separator };
            assert!(from <= to, "separators are in order");
            assert_eq!(node::height(self.arena, below.node) + 1, node::height(self.arena, at), "levels below a child");
            assert_eq!(self.node(below.node, depth + 1, (from, to)), below.elements, "elements of a child");
            elements += below.elements;
        }
        elements
    }

    fn leaf(&mut self, leaf: Reference, depth: usize, keys: (u64, u64)) -> u32 {
        let (bytes, shape) = (leaf_bytes(self.arena, leaf), self.shape());
        assert!(depth == 0 || !bytes.is_empty(), "an empty leaf");
        let (mut at, mut count) = (0, 0);
        while at < bytes.len() {
            let end = entry_end(shape, bytes, at);
            self.user_bytes += user_bytes(shape, bytes, at) as u64;
            let text = name(shape, bytes, at);
            let key = match (self.kind, self.tree) {
                (Kind::List, _) => 0,
                (Kind::SortedSet, MAIN) => order_of(entry::score(bytes, at)),
                _ => text_key(self.arena, self.hasher, text),
            };
            // Equal scores may lie on both sides of a separator.
            let below = key < keys.1 || self.kind == Kind::List || self.tree == MAIN && key == keys.1;
            assert!(keys.0 <= key && below, "an entry is where it belongs");
            let texts = if shape == Shape::Pair { vec![text, pair(bytes, at).2] } else { vec![text] };
            for text in texts {
                if let Text::Outside(length, first) = text {
                    assert_eq!(parent(self.arena, first), leaf, "blobs know their leaf");
                    assert_eq!(bytes_of(self.arena, text).len(), length as usize);
                }
            }
            self.entries.push(bytes[at..end].to_vec());
            at = end;
            count += 1;
        }
        assert_eq!(node::entries(self.arena, leaf), count as usize);
        count
    }

    /// Each member has its score, and one that is stored as a hash shares its score with few others.
    fn members(&self, ordered: &[Vec<u8>]) {
        for member in &self.entries {
            let score = member_score(member, 0);
            let from = ordered.partition_point(|entry| entry::score(entry, 0) < score);
            let equal = ordered[from..].iter().take_while(|entry| entry::score(entry, 0) == score);
            let names: Vec<_> = equal.map(|entry| bytes_of(self.arena, name(Shape::Scored, entry, 0))).collect();
            match name(Shape::Pair, member, 0) {
                Text::Hashed(key) => {
                    assert!(names.len() <= SHARING_MAX, "{} have its score", names.len());
                    assert!(names.iter().any(|name| member_key(self.hasher, name) == key), "nobody has its hash");
                }
                text => assert!(names.contains(&bytes_of(self.arena, text)), "it has another score"),
            }
        }
    }

    fn order(&self) {
        if self.kind == Kind::SortedSet && self.tree == MAIN {
            let key = |entry: &[u8]| {
                (order_of(entry::score(entry, 0)), bytes_of(self.arena, name(Shape::Scored, entry, 0)).into_owned())
            };
            assert!(self.entries.windows(2).all(|w| key(&w[0]) < key(&w[1])), "scores are in order");
        }
    }
}
