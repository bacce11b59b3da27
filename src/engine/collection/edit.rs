//! Changing a collection: conversion from small to large, and accounting.
//!
//! An [`Edit`] is the exclusive use of one key's collection between two calls that make room. Nothing is moved or
//! evicted during it, so spots stay valid until the edit itself changes something. [`Edit::finish`] accounts for the
//! changes.

use super::entry::{Entry, INLINE_BYTES_MAX, Shape, Text, entry_end, name, outside_places, pair, score, user_bytes};
use super::node::{NODE_SIZES, blob_pages, blobs_footprint, body, entries, leaf_bytes, refers, write_blobs};
use super::path::{Path, leaf_for_key};
use super::tree::{CLASSES_PER_CHANGE, Order, Tree};
use super::view::{Body, Spot, View, small_word};
use super::{LARGE_BYTES, Large, MAIN, MEMBERS, NOT_COMPACT, NOT_INTEGERS, SMALL_HEADER_BYTES, shape_of};
use crate::command::{EncodingLimits, UnixMs};
use crate::engine::arena::{Arena, CHUNK_BYTES_MAX, Reference, place};
use crate::engine::item::{self, Fields, Header, Kind, u32_at};
use crate::engine::write::EXPIRY_BYTES;
use crate::engine::{Engine, Found, KEY_BYTES_MAX, KeyHash, KeyHasher, PutError, value};
use crate::slots::Group;

/// Most bytes of the body of a small collection.
pub(super) const SMALL_BYTES_MAX: usize = 1024;
/// Most bytes of a list that is reported as compact because it has few elements.
const LIST_BYTES_MAX: u64 = 8192;
/// Beside the longest key, a chunk has room for the record of a large collection, and for a small body.
const _: () = assert!(KEY_BYTES_MAX + LARGE_BYTES + 32 <= CHUNK_BYTES_MAX);

/// True if a collection of these elements and bytes may still be reported as compact, after an element was added whose
/// longest string has `longest` bytes.
fn holds(limits: &EncodingLimits, kind: Kind, elements: u64, bytes: u64, longest: usize) -> bool {
    let longest = longest as u64;
    match kind {
        Kind::String => true,
        Kind::List if limits.list_size >= 0 => elements <= limits.list_size.max(1) as u64 && bytes <= LIST_BYTES_MAX,
        // The size limit counts the lengths of the entries as well: about two bytes per element.
        Kind::List => bytes + 2 * elements <= 2048 << limits.list_size.clamp(-5, -1).unsigned_abs(),
        Kind::Set => elements <= limits.set_entries && longest <= limits.set_value,
        Kind::SortedSet => elements <= limits.sorted_entries && longest <= limits.sorted_value,
        Kind::Hash => elements <= limits.hash_entries && longest <= limits.hash_value,
    }
}

/// Blobs that an entry refers to: the length of each string, and its first blob.
#[derive(Clone, Copy, Default)]
struct Blobs {
    texts: [(usize, Reference); 2],
    count: usize,
}

/// A collection while it is changed.
pub(super) struct Edit<'e> {
    engine: &'e mut Engine,
    hash: KeyHash,
    group: Group,
    found: Found,
    kind: Kind,
    body: Body,
    /// Bytes that the collection occupied, and its user bytes, when the edit began.
    before: (u64, u64),
    changed: bool,
    /// The collection is being converted to a large one: its leaves are allocated at their largest size.
    filling: bool,
}

/// The order of one of a collection's trees.
fn order(kind: Kind, tree: usize, hasher: &KeyHasher) -> Order<'_> {
    match kind {
        Kind::List | Kind::String => Order::Position,
        Kind::SortedSet if tree == MAIN => Order::Score,
        Kind::SortedSet | Kind::Set | Kind::Hash => Order::Hash(hasher),
    }
}

/// The shape of the entries of one of a collection's trees.
fn tree_shape(kind: Kind, tree: usize) -> Shape {
    if tree == MEMBERS { Shape::Pair } else { shape_of(kind) }
}

/// Pages that a change may need besides those of [`CLASSES_PER_CHANGE`]: in a sorted set, the members of one score may
/// have to be rewritten from hashes to full names.
pub(super) fn pages_besides(kind: Kind) -> u32 {
    if kind == Kind::SortedSet { NODE_SIZES } else { 0 }
}

/// Bytes that a collection occupies in the arena, and its user bytes, computed from its body.
fn sizes(arena: &Arena, found: Found, body: &Body) -> (u64, u64) {
    let (nodes, user) = match body {
        Body::Small { bytes, .. } => (0, (SMALL_HEADER_BYTES + bytes) as u64),
        Body::Large(large) => (large.node_bytes, large.user_bytes),
    };
    (arena.chunk_bytes(found.item) as u64 + nodes, found.header.key_bytes() as u64 + user)
}

impl<'e> Edit<'e> {
    /// Begins the edit of a collection that was found.
    #[inline(always)]
    pub(super) fn new(engine: &'e mut Engine, hash: KeyHash, key: &[u8], kind: Kind, found: Found) -> Self {
        let group = Group::of(key);
        let body = View::new(&engine.arena, &engine.hasher, found.item, found.header).body;
        let before = sizes(&engine.arena, found, &body);
        Self { engine, hash, group, found, kind, body, before, changed: false, filling: false }
    }

    pub(super) fn view(&self) -> View<'_> {
        View { arena: &self.engine.arena, hasher: &self.engine.hasher, kind: self.kind, body: self.body }
    }

    /// Converts the collection to a large one if an entry of `entry_bytes`, with strings of up to `longest`, requires
    /// that. True if it did: spots found before are then invalid.
    pub(super) fn prepare(&mut self, entry_bytes: usize, longest: usize) -> bool {
        if let Body::Small { bytes, .. } = self.body {
            let bytes = SMALL_HEADER_BYTES + bytes + entry_bytes;
            // With room for an expiry time that may be set later.
            let item_bytes = self.found.header.body_offset() + bytes + EXPIRY_BYTES;
            if bytes > SMALL_BYTES_MAX || item_bytes > CHUNK_BYTES_MAX || longest > INLINE_BYTES_MAX {
                self.make_large();
                return true;
            }
        }
        false
    }

    /// True if free pages might not suffice for one more change that writes strings of these lengths. The caller then
    /// finishes, makes room, and reopens the collection.
    pub(super) fn is_short_of_room<const N: usize>(&self, strings: [usize; N]) -> bool {
        let outside = strings.into_iter().filter(|&length| length > INLINE_BYTES_MAX);
        let blobs: u32 = outside.map(|length| blob_pages(&self.engine.arena, length)).sum();
        self.engine.arena.free_pages() < CLASSES_PER_CHANGE + pages_besides(self.kind) + blobs
    }

    /// The string of a new entry: a long one is written to blobs.
    pub(super) fn text<'t>(&mut self, bytes: &'t [u8]) -> Text<'t> {
        if bytes.len() <= INLINE_BYTES_MAX {
            return Text::Inside(bytes);
        }
        let Body::Large(large) = &mut self.body else { unreachable!("prepared for long strings") };
        let (first, taken) = write_blobs(&mut self.engine.arena, bytes);
        large.node_bytes += taken;
        Text::Outside(bytes.len() as u32, first)
    }

    /// Updates the encoding that is reported for the collection after an element was added whose longest string has
    /// `longest` bytes; for a set, also whether it holds integers only.
    pub(super) fn note(&mut self, longest: usize, is_integer: bool) {
        let (elements, limits) = (self.view().len(), self.engine.encoding_limits);
        let mut flags = self.view().flags();
        if self.kind == Kind::Set {
            if flags & NOT_INTEGERS == 0 && !(is_integer && elements <= limits.set_integers) {
                flags |= NOT_INTEGERS;
            }
            if flags & NOT_INTEGERS == 0 {
                return;
            }
        }
        if flags & NOT_COMPACT == 0 && !holds(&limits, self.kind, elements, self.entry_bytes(), longest) {
            flags |= NOT_COMPACT;
        }
        self.set_flags(flags);
    }

    /// Updates the reported encoding of a list that became shorter: at half of the limit it is compact again.
    pub(super) fn note_shorter(&mut self) {
        let (elements, bytes) = (self.view().len(), self.entry_bytes());
        let flags = self.view().flags();
        if flags & NOT_COMPACT != 0 && holds(&self.engine.encoding_limits, Kind::List, 2 * elements, 2 * bytes, 0) {
            self.set_flags(flags & !NOT_COMPACT);
        }
    }

    /// Bytes of a small collection's entries, or of a large one's strings and scores.
    fn entry_bytes(&self) -> u64 {
        match self.body {
            Body::Small { bytes, .. } => bytes as u64,
            Body::Large(large) => large.user_bytes,
        }
    }

    pub(super) fn set_flags(&mut self, flags: u32) {
        match &mut self.body {
            Body::Large(Large { flags: old, .. }) | Body::Small { flags: old, .. } if *old == flags => {}
            Body::Large(large) => {
                large.flags = flags;
                self.changed = true;
            }
            Body::Small { .. } => self.set_small(|_, old| *old = flags),
        }
    }

    /// Changes the count or the flags of a small collection.
    fn set_small(&mut self, change: impl FnOnce(&mut usize, &mut u32)) {
        let Body::Small { at, count, flags, .. } = &mut self.body else { unreachable!("it is small") };
        change(count, flags);
        let word = small_word(*count, *flags);
        self.engine.arena.memory_mut()[*at - SMALL_HEADER_BYTES..*at].copy_from_slice(&word);
        self.changed = true;
    }

    /// Inserts an entry into the main tree, or into a small collection.
    pub(super) fn insert(&mut self, spot: &Spot, entry: &Entry) {
        if let Body::Large(large) = &mut self.body {
            large.elements += 1;
            large.user_bytes += entry.user_bytes() as u64;
            self.insert_in(MAIN, spot, entry);
            return;
        }
        self.splice(spot.offset, 0, Some(entry));
        self.set_small(|count, _| *count += 1);
    }

    /// Inserts an entry into one tree of a large collection.
    pub(super) fn insert_in(&mut self, tree: usize, spot: &Spot, entry: &Entry) {
        self.change_tree(tree, spot, |arena, tree, path, order| tree.insert(arena, path, spot.offset, entry, order));
    }

    /// Replaces the entry at a spot.
    pub(super) fn replace(&mut self, spot: &Spot, entry: &Entry) {
        let shape = shape_of(self.kind);
        let leaf = self.view().leaf(spot.path.as_ref());
        let (old, length) = (user_bytes(shape, leaf, spot.offset), entry_end(shape, leaf, spot.offset) - spot.offset);
        let leaf = match (&mut self.body, &spot.path) {
            (Body::Large(large), Some(path)) => {
                large.user_bytes = large.user_bytes - old as u64 + entry.user_bytes() as u64;
                if length != entry.bytes() || entry.refers() || refers(&self.engine.arena, path.leaf) {
                    self.replace_in(MAIN, spot, entry);
                    return;
                }
                body(path.leaf)
            }
            (Body::Small { at, .. }, _) if length == entry.bytes() => *at,
            _ => return self.splice(spot.offset, length, Some(entry)),
        };
        // The length is unchanged, so the entry is overwritten in place.
        let at = leaf + spot.offset;
        entry.write(&mut self.engine.arena.memory_mut()[at..at + length]);
        self.changed = true;
    }

    /// Replaces the entry at a spot of one tree.
    pub(super) fn replace_in(&mut self, tree: usize, spot: &Spot, entry: &Entry) {
        let blobs = self.blobs(tree, spot);
        self.change_tree(tree, spot, |arena, tree, path, order| tree.replace(arena, path, spot.offset, entry, order));
        self.free_blobs(&blobs);
    }

    /// Removes the entry at a spot of the main tree, or of a small collection.
    pub(super) fn remove(&mut self, spot: &Spot) {
        let shape = shape_of(self.kind);
        let leaf = self.view().leaf(spot.path.as_ref());
        let (old, length) = (user_bytes(shape, leaf, spot.offset), entry_end(shape, leaf, spot.offset) - spot.offset);
        if let Body::Large(large) = &mut self.body {
            large.elements -= 1;
            large.user_bytes -= old as u64;
            self.remove_in(MAIN, spot);
            return;
        }
        self.splice(spot.offset, length, None);
        self.set_small(|count, _| *count -= 1);
    }

    /// Removes the entry at a spot of one tree.
    pub(super) fn remove_in(&mut self, tree: usize, spot: &Spot) {
        let blobs = self.blobs(tree, spot);
        self.change_tree(tree, spot, |arena, tree, path, _| tree.remove(arena, path, spot.offset));
        self.free_blobs(&blobs);
    }

    /// Removes `count` elements from `rank` on, whole leaves at once where possible. Not for sorted sets, whose members
    /// are in two trees.
    pub(super) fn remove_range(&mut self, rank: u64, count: u64) {
        let mut left = count;
        while left > 0 {
            let spot = self.view().at_rank(rank);
            let leaf_entries = spot.path.map_or(0, |path| entries(&self.engine.arena, path.leaf) as u64);
            let refers = spot.path.is_some_and(|path| refers(&self.engine.arena, path.leaf));
            // A leaf that is removed only in part, or whose entries refer to blobs, loses its entries one by one.
            if spot.offset > 0 || leaf_entries == 0 || leaf_entries > left || refers {
                self.remove(&spot);
                left -= 1;
                continue;
            }
            let (shape, mut at) = (shape_of(self.kind), spot);
            let length = self.view().leaf(spot.path.as_ref()).len();
            let mut bytes = 0;
            while at.offset < length {
                let leaf = self.view().leaf(spot.path.as_ref());
                bytes += user_bytes(shape, leaf, at.offset);
                at.offset = entry_end(shape, leaf, at.offset);
            }
            if let Body::Large(large) = &mut self.body {
                large.elements -= leaf_entries as u32;
                large.user_bytes -= bytes as u64;
            }
            self.change_tree(MAIN, &spot, |arena, tree, path, _| tree.remove_leaf(arena, path));
            left -= leaf_entries;
        }
    }

    fn change_tree(&mut self, tree: usize, spot: &Spot, change: impl FnOnce(&mut Arena, &mut Tree, &Path, Order)) {
        let (Body::Large(large), Some(path)) = (&mut self.body, &spot.path) else { unreachable!("it has trees") };
        let shape = tree_shape(self.kind, tree);
        let mut changed = Tree { root: large.roots[tree], shape, roomy: self.filling, grown: 0 };
        let Engine { arena, hasher, .. } = &mut *self.engine;
        change(arena, &mut changed, path, order(self.kind, tree, hasher));
        large.roots[tree] = changed.root;
        large.node_bytes = large.node_bytes.wrapping_add_signed(changed.grown);
        self.changed = true;
    }

    /// The blobs that the entry at a spot refers to.
    fn blobs(&self, tree: usize, spot: &Spot) -> Blobs {
        let mut blobs = Blobs::default();
        if let Some(path) = &spot.path {
            let shape = tree_shape(self.kind, tree);
            let leaf = leaf_bytes(&self.engine.arena, path.leaf);
            let entry = &leaf[..entry_end(shape, leaf, spot.offset)];
            outside_places(shape, entry, spot.offset, |at| {
                blobs.texts[blobs.count] = (u32_at(entry, at - 4) as usize, u32_at(entry, at));
                blobs.count += 1;
            });
        }
        blobs
    }

    /// Defers the freeing of blobs, after the entry that referred to them is gone: a leaf updates the parent of every
    /// blob that its entries refer to when it is relocated.
    fn free_blobs(&mut self, blobs: &Blobs) {
        let Body::Large(large) = &mut self.body else { return };
        let Engine { arena, deferred, .. } = &mut *self.engine;
        for &(length, first) in &blobs.texts[..blobs.count] {
            large.node_bytes -= blobs_footprint(arena, length);
            deferred.push(arena, first);
        }
    }

    /// Overwrites bytes in the leaf of a spot.
    pub(super) fn overwrite(&mut self, spot: &Spot, at: usize, bytes: &[u8]) {
        let Some(path) = &spot.path else { unreachable!("it has trees") };
        let at = body(path.leaf) + at;
        self.engine.arena.memory_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        self.changed = true;
    }

    pub(super) fn body(&self) -> &Body {
        &self.body
    }

    /// Sets the earliest expiry of the fields of a large hash; 0 if none expires.
    pub(super) fn set_field_expiry(&mut self, expires: UnixMs) {
        if let Body::Large(large) = &mut self.body {
            self.changed |= large.expires != expires;
            large.expires = expires;
        }
    }

    /// Lowers the earliest expiry of a large hash to that of a field.
    pub(super) fn field_expires(&mut self, expires: UnixMs) {
        if let Body::Large(large) = &mut self.body
            && (large.expires == 0 || expires < large.expires)
        {
            large.expires = expires;
            self.changed = true;
        }
    }

    /// Replaces `removed` bytes at `offset` of a small collection's entries by `entry`. The item is relocated if its
    /// chunk is too small, or much too large.
    fn splice(&mut self, offset: usize, removed: usize, entry: Option<&Entry>) {
        let inserted = entry.map_or(0, Entry::bytes);
        let Body::Small { at, bytes, count, flags } = self.body else { unreachable!("it is small") };
        let arena = &mut self.engine.arena;
        let (item, head) = (self.found.item, at - place(self.found.item));
        let (has, wanted) = (arena.chunk_bytes(item), head + bytes - removed + inserted);
        let is_loose = wanted + wanted / 4 + 32 < has;
        let mut to = item;
        if wanted > has || is_loose {
            let roomy = if wanted > has { (wanted + wanted / 16).next_multiple_of(8) } else { wanted };
            // The allocation can only fail when the item would shrink, which it need not.
            if let Some(chunk) = arena.allocate(arena.class_for(roomy.min(CHUNK_BYTES_MAX))) {
                to = chunk;
                arena.memory_mut().copy_within(place(item)..place(item) + head + offset, place(to));
            }
            assert!(to != item || wanted <= has, "room was made");
        }
        let (from_tail, to_tail) = (place(item) + head + offset + removed, place(to) + head + offset + inserted);
        let memory = arena.memory_mut();
        memory.copy_within(from_tail..place(item) + head + bytes, to_tail);
        if let Some(entry) = entry {
            entry.write(&mut memory[to_tail - inserted..to_tail]);
        }
        let bytes = bytes - removed + inserted;
        item::set_inline_bytes(memory, place(to), SMALL_HEADER_BYTES + bytes);
        if to != item {
            arena.release(item);
            self.engine.index.set_reference(self.engine.arena.memory_mut(), self.found.at, to);
        }
        self.found.item = to;
        self.found.header = Header::read(self.engine.arena.memory(), place(to));
        self.body = Body::Small { at: place(to) + head, bytes, count, flags };
        self.changed = true;
    }

    /// Converts a small collection into a large one.
    pub(super) fn make_large(&mut self) {
        let Body::Small { at, bytes, count: _, flags } = self.body else { return };
        let mut entries = [0; SMALL_BYTES_MAX];
        let entries = &mut entries[..bytes];
        let arena = &mut self.engine.arena;
        entries.copy_from_slice(&arena.memory()[at..at + bytes]);
        let old = self.found.item;
        let fields = Fields { large: true, ..self.found.header.fields(arena.memory(), place(old)) };
        let key = self.found.header.key(arena.memory(), place(old)).to_vec();
        let to = arena.allocate(arena.class_for(fields.item_bytes(key.len(), LARGE_BYTES))).expect("room was made");
        let is_in_wheel = self.found.header.is_in_wheel();
        let record = item::write_item(arena.memory_mut(), place(to), &fields, &key, LARGE_BYTES);
        arena.memory_mut()[record..record + LARGE_BYTES].fill(0);
        item::set_in_wheel(arena.memory_mut(), place(to), is_in_wheel);
        arena.release(old);
        self.engine.index.set_reference(self.engine.arena.memory_mut(), self.found.at, to);
        self.found.item = to;
        self.found.header = Header::read(self.engine.arena.memory(), place(to));
        let mut large = Large { flags, ..Large::default() };
        for tree in [MAIN, MEMBERS] {
            if tree == MAIN || self.kind == Kind::SortedSet {
                let new = Tree::new(&mut self.engine.arena, to, tree_shape(self.kind, tree));
                large.roots[tree] = new.root;
                large.node_bytes += new.grown as u64;
            }
        }
        self.body = Body::Large(large);
        self.changed = true;
        self.filling = true;
        self.fill(entries);
        self.filling = false;
    }

    /// Inserts packed entries into empty trees.
    fn fill(&mut self, entries: &[u8]) {
        let shape = shape_of(self.kind);
        let mut at = 0;
        while at < entries.len() {
            let end = entry_end(shape, entries, at);
            let packed = &entries[at..end];
            let Text::Inside(name) = name(shape, packed, 0) else { unreachable!("small collections have no blobs") };
            if shape == Shape::Pair
                && let (_, Some(expires), _) = pair(packed, 0)
            {
                self.field_expires(expires);
            }
            match self.kind {
                Kind::SortedSet => {
                    let spot = self.member_spot(MEMBERS, name);
                    self.insert_scored(score(packed, 0), name, &spot);
                }
                Kind::Set | Kind::Hash => {
                    let spot = self.member_spot(MAIN, name);
                    self.insert(&spot, &Entry::packed(shape, packed));
                }
                Kind::List | Kind::String => {
                    let spot = self.view().last();
                    self.insert(&spot, &Entry::packed(shape, packed));
                }
            }
            at = end;
        }
    }

    /// The spot for a new member in a tree in hash order: the end of its leaf.
    pub(super) fn member_spot(&self, tree: usize, member: &[u8]) -> Spot {
        let view = self.view();
        let Body::Large(large) = self.body else { return view.last() };
        let path = leaf_for_key(view.arena, large.roots[tree], view.member_key(member));
        Spot { path: Some(path), offset: view.leaf(Some(&path)).len() }
    }

    /// Accounts for the changes, and removes a collection that has become empty. Returns the number of elements.
    pub(super) fn finish(mut self) -> u64 {
        self.account()
    }

    /// Accounts for the changes, makes room, and edits the collection again; it is created again if it was removed.
    #[cold]
    pub(super) fn reopened(mut self, key: &[u8], room: [usize; 2], now: UnixMs) -> Result<Self, PutError> {
        self.account();
        let Edit { engine, hash, kind, .. } = self;
        let found = engine.find_or_create(hash, key, kind, room, now)?;
        Ok(Edit::new(engine, hash, key, kind, found))
    }

    fn account(&mut self) -> u64 {
        let elements = self.view().len();
        if !self.changed && elements > 0 {
            return elements;
        }
        let Edit { hash, group, found, body, before, .. } = *self;
        let engine = &mut *self.engine;
        let Found { at, item, header } = found;
        if let Body::Large(large) = body {
            large.write(&mut engine.arena, item);
        }
        let after = sizes(&engine.arena, found, &body);
        debug_assert_eq!(after, (value::footprint(&engine.arena, item), engine.user_bytes(item, header)));
        if after != before {
            engine.resized(hash, at, before.0, after.0);
            engine.user_bytes_changed(hash, before.1, after.1);
        }
        if elements == 0 {
            engine.remove_entry(hash, at, item, header);
            return 0;
        }
        let version = engine.versions.next(group);
        item::set_version(engine.arena.memory_mut(), place(item), version);
        engine.stats.items_written += 1;
        elements
    }
}
