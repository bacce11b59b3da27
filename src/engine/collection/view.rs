//! Reading a collection, small or large: lookup, iteration, ranks.

use super::entry::{self, Shape, Text, entry_end, member_score, name, order_of};
use super::node::{LEAF_BYTES_MAX, leaf_bytes, read_blobs};
use super::path::{self, Path, leaf_for_key, leaf_for_rank};
use super::{Large, MAIN, MEMBERS, SMALL_HEADER_BYTES, shape_of};
use crate::engine::KeyHasher;
use crate::engine::arena::{Arena, Reference, place};
use crate::engine::item::{Header, Kind, u16_at};
use std::borrow::Cow;
use std::cmp::Ordering;

/// Bits of a member's hash that order sets and hashes. A cursor of 48 bits survives clients that store numbers as
/// doubles.
pub(in crate::engine) const MEMBER_HASH_BITS: u32 = 48;
/// Strings in blobs are hashed in pieces of this many bytes.
const HASHED_AT_ONCE: usize = 4096;

/// Bits of a small collection's first word that hold its number of elements; the others are flags.
const COUNT_BITS: u32 = 12;

/// Bytes of an element: borrowed, or assembled from blobs.
pub type Bytes<'a> = Cow<'a, [u8]>;

/// A collection, as it lies in memory.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) arena: &'a Arena,
    pub(super) hasher: &'a KeyHasher,
    pub(super) kind: Kind,
    pub(super) body: Body,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// Offset of the entries, their bytes and number, and flags.
    Small {
        at: usize,
        bytes: usize,
        count: usize,
        flags: u32,
    },
    Large(Large),
}

/// A position between two entries, before the first, or after the last; valid until the collection changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    /// The path to the leaf; None for a small collection.
    pub(super) path: Option<Path>,
    pub(super) offset: usize,
}

/// Encodes the first word of a small collection.
pub(super) fn small_word(count: usize, flags: u32) -> [u8; SMALL_HEADER_BYTES] {
    (count as u16 | (flags as u16) << COUNT_BITS).to_le_bytes()
}

/// Flags of a small collection.
pub(super) fn small_flags(arena: &Arena, item: Reference, header: Header) -> u32 {
    u32::from(u16_at(arena.memory(), place(item) + header.body_offset()) >> COUNT_BITS)
}

impl<'a> View<'a> {
    #[inline(always)]
    pub(super) fn new(arena: &'a Arena, hasher: &'a KeyHasher, item: Reference, header: Header) -> Self {
        let body = match header.is_large() {
            true => Body::Large(Large::of(arena, item)),
            false => {
                let at = place(item) + header.body_offset();
                let word = u16_at(arena.memory(), at);
                Body::Small {
                    at: at + SMALL_HEADER_BYTES,
                    bytes: header.inline_bytes() - SMALL_HEADER_BYTES,
                    count: usize::from(word & ((1 << COUNT_BITS) - 1)),
                    flags: u32::from(word >> COUNT_BITS),
                }
            }
        };
        Self { arena, hasher, kind: header.kind(), body }
    }

    pub(super) fn shape(&self) -> Shape {
        shape_of(self.kind)
    }

    pub(super) fn len(&self) -> u64 {
        match self.body {
            Body::Small { count, .. } => count as u64,
            Body::Large(large) => large.elements.into(),
        }
    }

    pub(super) fn flags(&self) -> u32 {
        match self.body {
            Body::Small { flags, .. } => flags,
            Body::Large(large) => large.flags,
        }
    }

    pub(super) fn is_large(&self) -> bool {
        matches!(self.body, Body::Large(_))
    }

    /// The entries of the leaf at a path.
    #[inline]
    pub(super) fn leaf(&self, path: Option<&Path>) -> &'a [u8] {
        match (self.body, path) {
            (_, Some(path)) => leaf_bytes(self.arena, path.leaf),
            (Body::Small { at, bytes, .. }, None) => &self.arena.memory()[at..at + bytes],
            (Body::Large(_), None) => &[],
        }
    }

    /// Position of a member in hash order.
    #[inline]
    pub(super) fn member_key(&self, member: &[u8]) -> u64 {
        member_key(self.hasher, member)
    }

    /// The spot before the first element.
    #[inline]
    pub(super) fn first(&self) -> Spot {
        let path = match self.body {
            Body::Small { .. } => None,
            Body::Large(large) => Some(path::descend(self.arena, large.roots[MAIN], |_| 0)),
        };
        Spot { path, offset: 0 }
    }

    /// The spot after the last element.
    #[inline]
    pub(super) fn last(&self) -> Spot {
        let path = match self.body {
            Body::Small { .. } => None,
            Body::Large(large) => Some(path::last_leaf(self.arena, large.roots[MAIN])),
        };
        Spot { path, offset: self.leaf(path.as_ref()).len() }
    }

    /// The spot of the element of a rank; the end if there is none.
    pub(super) fn at_rank(&self, rank: u64) -> Spot {
        if rank >= self.len() {
            return self.last();
        }
        let (path, mut left) = match self.body {
            Body::Small { .. } => (None, rank as usize),
            Body::Large(large) => {
                let (path, left) = leaf_for_rank(self.arena, large.roots[MAIN], rank);
                (Some(path), left)
            }
        };
        let leaf = self.leaf(path.as_ref());
        let mut offset = 0;
        while left > 0 {
            offset = entry_end(self.shape(), leaf, offset);
            left -= 1;
        }
        Spot { path, offset }
    }

    /// Number of elements before a spot.
    pub(super) fn rank(&self, spot: &Spot) -> u64 {
        let leaf = self.leaf(spot.path.as_ref());
        let (mut offset, mut count) = (0, 0);
        while offset < spot.offset {
            offset = entry_end(self.shape(), leaf, offset);
            count += 1;
        }
        count + spot.path.map_or(0, |path| path.rank(self.arena))
    }

    /// Finds a member of a set, a field of a hash, or a member of a sorted set.
    #[inline]
    pub(super) fn find(&self, member: &[u8]) -> Option<Spot> {
        let (spot, is_there) = self.seek(member);
        is_there.then_some(spot)
    }

    /// The spot of a name, and true; or the spot at which to insert it (the end of its leaf), and false.
    #[inline]
    pub(super) fn seek(&self, member: &[u8]) -> (Spot, bool) {
        let Body::Large(large) = self.body else {
            let leaf = self.leaf(None);
            let found = self.find_in(self.shape(), leaf, member, 0);
            return (Spot { path: None, offset: found.unwrap_or(leaf.len()) }, found.is_some());
        };
        let (tree, shape) = match self.kind {
            Kind::SortedSet => (MEMBERS, Shape::Pair),
            _ => (MAIN, self.shape()),
        };
        let key = self.member_key(member);
        let path = leaf_for_key(self.arena, large.roots[tree], key);
        let leaf = leaf_bytes(self.arena, path.leaf);
        let found = self.find_in(shape, leaf, member, key);
        (Spot { path: Some(path), offset: found.unwrap_or(leaf.len()) }, found.is_some())
    }

    #[inline]
    fn find_in(&self, shape: Shape, leaf: &[u8], member: &[u8], key: u64) -> Option<usize> {
        // Names of equal length usually differ in their last bytes, which are compared first, without a call to memcmp.
        let (mut offset, tail) = (0, member.last_chunk::<8>());
        while offset < leaf.len() {
            let is_equal = match name(shape, leaf, offset) {
                Text::Inside(own) => own.len() == member.len() && own.last_chunk() == tail && own == member,
                Text::Hashed(own) => own == key && self.has_scored(member_score(leaf, offset), member),
                text => self.is_equal(text, member),
            };
            if is_equal {
                return Some(offset);
            }
            offset = entry_end(shape, leaf, offset);
        }
        None
    }

    #[inline]
    pub(super) fn is_equal(&self, text: Text, bytes: &[u8]) -> bool {
        match text {
            Text::Inside(own) => own == bytes,
            Text::Outside(length, _) => length as usize == bytes.len() && compare(self.arena, text, bytes).is_eq(),
            Text::Hashed(_) => unreachable!("it is found by its score"),
        }
    }

    /// The bytes of a string.
    #[inline]
    pub(super) fn bytes(&self, text: Text<'a>) -> Bytes<'a> {
        bytes_of(self.arena, text)
    }

    /// Returns the entry at a spot and advances the spot. None at the end.
    #[inline]
    pub(super) fn next(&self, spot: &mut Spot) -> Option<&'a [u8]> {
        loop {
            let leaf = self.leaf(spot.path.as_ref());
            if spot.offset < leaf.len() {
                let from = spot.offset;
                spot.offset = entry_end(self.shape(), leaf, from);
                return Some(&leaf[from..spot.offset]);
            }
            if !spot.path.as_mut()?.forward(self.arena) {
                return None;
            }
            spot.offset = 0;
        }
    }

    /// Entries in ascending order, from a rank on.
    pub(super) fn forward_from(self, rank: u64) -> impl Iterator<Item = &'a [u8]> {
        let mut spot = self.at_rank(rank);
        std::iter::from_fn(move || self.next(&mut spot))
    }

    /// Entries in descending order, from a rank on. Each leaf is walked once, since entries can only be walked
    /// forwards.
    pub(super) fn backward_from(self, rank: u64) -> impl Iterator<Item = &'a [u8]> {
        let spot = self.at_rank(rank);
        let mut path = spot.path;
        let mut ends = Vec::new();
        let fill = move |view: &Self, path: Option<&Path>, up_to: usize, ends: &mut Vec<(usize, usize)>| {
            let leaf = view.leaf(path);
            let mut offset = 0;
            while offset < leaf.len() && offset <= up_to {
                let end = entry_end(view.shape(), leaf, offset);
                ends.push((offset, end));
                offset = end;
            }
        };
        fill(&self, path.as_ref(), spot.offset, &mut ends);
        std::iter::from_fn(move || {
            loop {
                if let Some((from, to)) = ends.pop() {
                    return Some(&self.leaf(path.as_ref())[from..to]);
                }
                if !path.as_mut()?.back(self.arena) {
                    return None;
                }
                fill(&self, path.as_ref(), usize::MAX, &mut ends);
            }
        })
    }

    /// Visits the elements of a set, a hash, or the members of a sorted set from a cursor on, in whole leaves until
    /// `count` were visited; returns the next cursor, 0 at the end. `visit` returns as how many elements its visit
    /// counts. An element that is present during the whole scan is visited at least once. The entries of a small sorted
    /// set are passed in their own shape.
    pub(super) fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(Shape, &'a [u8]) -> usize) -> u64 {
        let Body::Large(large) = self.body else {
            let mut spot = self.first();
            while let Some(entry) = self.next(&mut spot) {
                visit(self.shape(), entry);
            }
            return 0;
        };
        let (tree, shape) = match self.kind {
            Kind::SortedSet => (MEMBERS, Shape::Pair),
            _ => (MAIN, self.shape()),
        };
        let mut path = leaf_for_key(self.arena, large.roots[tree], cursor);
        let mut visited = 0;
        loop {
            let leaf = leaf_bytes(self.arena, path.leaf);
            let mut offset = 0;
            while offset < leaf.len() {
                let end = entry_end(shape, leaf, offset);
                visited += visit(shape, &leaf[offset..end]);
                offset = end;
            }
            match path.next_separator(self.arena) {
                None => return 0,
                Some(next) if visited >= count => return next,
                Some(_) => _ = path.forward(self.arena),
            }
        }
    }

    /// The first spot of a sorted set whose entry is not before a bound. `is_before` compares a score and a member with
    /// the bound, and must hold for a prefix of the entries; `order` is the bound's score as an integer.
    pub(super) fn lower_bound(&self, order: u64, is_before: impl Fn(f64, Text) -> bool) -> Spot {
        let path = match self.body {
            Body::Small { .. } => None,
            Body::Large(large) => Some(path::descend(self.arena, large.roots[MAIN], |inner| {
                path::last_child(self.arena, inner, order, |child| {
                    let leaf = leaf_bytes(self.arena, path::first_leaf_below(self.arena, child));
                    is_before(entry::score(leaf, 0), name(Shape::Scored, leaf, 0))
                })
            })),
        };
        path.iter().for_each(|path| self.arena.prefetch_all(path.leaf, LEAF_BYTES_MAX));
        let leaf = self.leaf(path.as_ref());
        let mut offset = 0;
        while offset < leaf.len() && is_before(entry::score(leaf, offset), name(Shape::Scored, leaf, offset)) {
            offset = entry_end(Shape::Scored, leaf, offset);
        }
        Spot { path, offset }
    }

    /// The spot of the next entry, if `spot` is at the end of a leaf.
    pub(super) fn at_entry(&self, spot: Spot) -> Spot {
        let Some(mut path) = spot.path else { return spot };
        if spot.offset == self.leaf(Some(&path)).len() && path.forward(self.arena) {
            return Spot { path: Some(path), offset: 0 };
        }
        spot
    }

    /// True if a member is present with a score.
    fn has_scored(&self, score: f64, member: &[u8]) -> bool {
        let entry = self.next(&mut self.score_spot(score, member));
        entry.is_some_and(|it| entry::score(it, 0) == score && self.is_equal(name(Shape::Scored, it, 0), member))
    }

    /// The members with a score that share a hash.
    pub(super) fn hashed(&self, score: f64, key: u64) -> impl Iterator<Item = &'a [u8]> {
        let mut spot = self.lower_bound(order_of(score), |own, _| own < score);
        let entries = std::iter::from_fn(move || self.next(&mut spot));
        let equal = entries.take_while(move |entry| entry::score(entry, 0) == score);
        equal.filter_map(move |entry| match name(Shape::Scored, entry, 0) {
            Text::Inside(member) if self.member_key(member) == key => Some(member),
            _ => None,
        })
    }

    /// The spot of the first entry with a score, looking both ways from `spot`, and the number of such entries. Stops
    /// at `most` of them.
    pub(super) fn equals(&self, score: f64, spot: &Spot, most: usize) -> (Spot, usize) {
        let is_equal = |entry: &&[u8]| entry::score(entry, 0) == score;
        let (mut first, mut ahead) = (*spot, *spot);
        let mut count = 0;
        while count < most && self.next(&mut ahead).as_ref().is_some_and(is_equal) {
            count += 1;
        }
        while count < most
            && let Some((entry, at)) = self.before(&first)
            && is_equal(&entry)
        {
            (first, count) = (at, count + 1);
        }
        (first, count)
    }

    /// The entry before a spot, and its spot.
    fn before(&self, spot: &Spot) -> Option<(&'a [u8], Spot)> {
        let Spot { mut path, offset: mut end } = *spot;
        if end == 0 {
            if !path.as_mut()?.back(self.arena) {
                return None;
            }
            end = self.leaf(path.as_ref()).len();
        }
        let (leaf, mut offset) = (self.leaf(path.as_ref()), 0);
        loop {
            let next = entry_end(self.shape(), leaf, offset);
            if next == end {
                return Some((&leaf[offset..end], Spot { path, offset }));
            }
            offset = next;
        }
    }

    /// The spot of a score and member in score order, or at which to insert them.
    pub(super) fn score_spot(&self, score: f64, member: &[u8]) -> Spot {
        self.lower_bound(order_of(score), |own, text| match own.total_cmp(&(score + 0.0)) {
            _ if own == score => compare(self.arena, text, member).is_lt(),
            order => order.is_lt(),
        })
    }
}

/// Position of a member in hash order.
#[inline]
pub(super) fn member_key(hasher: &KeyHasher, member: &[u8]) -> u64 {
    if member.len() <= HASHED_AT_ONCE {
        return hasher.hash(member).0 >> (u64::BITS - MEMBER_HASH_BITS);
    }
    let pieces = member.chunks(HASHED_AT_ONCE).map(|piece| hasher.hash(piece).0);
    let hash = pieces.fold(0_u64, |hash, piece| (hash.rotate_left(23) ^ piece).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    hash >> (u64::BITS - MEMBER_HASH_BITS)
}

/// Position in hash order of a member that is stored in an entry.
pub(super) fn text_key(arena: &Arena, hasher: &KeyHasher, text: Text) -> u64 {
    match text {
        Text::Hashed(key) => key,
        text => member_key(hasher, &bytes_of(arena, text)),
    }
}

/// Compares a string with bytes.
pub(super) fn compare(arena: &Arena, text: Text, bytes: &[u8]) -> Ordering {
    match text {
        Text::Inside(own) => own.cmp(bytes),
        Text::Outside(_, first) => {
            let (mut rest, mut order) = (bytes, Ordering::Equal);
            read_blobs(arena, first, |piece| {
                if order.is_eq() {
                    let length = piece.len().min(rest.len());
                    order = piece.cmp(&rest[..length]);
                    rest = &rest[length..];
                }
            });
            if order.is_eq() && !rest.is_empty() { Ordering::Less } else { order }
        }
        Text::Hashed(_) => unreachable!("among the scores members are written"),
    }
}

/// The bytes of a string.
#[inline]
pub(super) fn bytes_of<'a>(arena: &Arena, text: Text<'a>) -> Bytes<'a> {
    match text {
        Text::Inside(bytes) => Cow::Borrowed(bytes),
        Text::Outside(length, first) => {
            let mut bytes = Vec::with_capacity(length as usize);
            read_blobs(arena, first, |piece| bytes.extend_from_slice(piece));
            Cow::Owned(bytes)
        }
        Text::Hashed(_) => unreachable!("it is found by its score"),
    }
}
