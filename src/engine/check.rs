//! A full check of the engine: every byte has exactly one owner, and every counter is right.

use super::arena::{NONE, place};
use super::item::{self, ChunkUse, Header};
use super::value::{self, List};
use super::{CHAINED_BUCKETS, DATABASES, Engine, Usage, WHEEL_BLOCKS, collection, eviction};
use std::collections::BTreeSet;

impl Engine {
    /// Checks the arena against the index and everything else that owns memory.
    ///
    /// # Panics
    /// If anything is inconsistent.
    pub(super) fn check(&self) {
        let in_use = self.arena.check();
        let (mut chunks, mut pages) = (in_use.chunks, in_use.pages);
        let memory = self.arena.memory();

        let mut items = Vec::new();
        self.index.check(&self.arena, |item| {
            let hash = eviction::hash_of(memory, &self.hasher, item);
            items.push(item);
            hash
        });
        assert_eq!(items.len() as u64, self.index.entries());
        let mut all = Usage::default();
        let mut databases = [Usage::default(); DATABASES];
        let (mut held_item_bytes, mut expiring) = (0, 0);
        for &item in &items {
            let header = Header::read(memory, place(item));
            assert!(!header.is_detached());
            let hash = eviction::hash_of(memory, &self.hasher, item);
            let bytes = value::footprint(&self.arena, item);
            held_item_bytes += bytes;
            expiring += u64::from(header.may_expire());
            if !self.is_flushed(hash, item, header) {
                for usage in [&mut all, &mut databases[usize::from(header.database())]] {
                    usage.items += 1;
                    usage.item_bytes += bytes;
                    usage.user_bytes += self.user_bytes(item, header);
                    usage.expiring += u64::from(header.may_expire());
                }
            }
        }
        assert_eq!((self.usage, self.databases), (all, databases), "items, their bytes, their users' bytes");
        assert_eq!((self.held_item_bytes, self.expiring), (held_item_bytes, expiring));

        items.extend(self.handles.detached(|item| Header::read(memory, place(item)).is_detached()));
        for &item in &items {
            assert_eq!(item::chunk_use(memory, place(item)), ChunkUse::Item);
            assert!(chunks.remove(&item).is_some(), "item {item} is in no chunk, or in one with another");
            let header = Header::read(memory, place(item));
            if header.is_large() {
                for node in collection::check(&self.arena, &self.hasher, item) {
                    assert!(chunks.remove(&node).is_some(), "node {node} of item {item}");
                }
            }
            if header.has_long_value() {
                let list = List::of(&self.arena, item);
                let mut page = list.first_page(&self.arena);
                for _ in 0..list.pages(&self.arena) {
                    assert!(pages.remove(&page), "page {page} of item {item}");
                    page = self.arena.linked(page);
                }
                let blocks = (0..list.parts(&self.arena).blocks).map(|b| (b, list.block(&self.arena, b)));
                for (number, block) in blocks.filter(|&(_, block)| block != NONE) {
                    assert_eq!(item::block(memory, place(block)), (number as u16, item), "a block's owner");
                    assert!(chunks.remove(&block).is_some(), "block {block} of item {item}");
                }
            }
        }
        for node in self.deferred.nodes(&self.arena) {
            assert!(chunks.remove(&node).is_some(), "node {node}, whose freeing is deferred,");
        }
        for page in self.index.pages() {
            assert!(pages.remove(&page), "page {page} of the index");
        }
        for page in self.policy.pages(&self.arena) {
            assert!(pages.remove(&page), "page {page} of the policy");
        }
        assert_eq!(pages, BTreeSet::new(), "pages that nobody owns");
        let of_class = |n| chunks.values().filter(|&&c| c == self.arena.other_class(n)).count();
        assert_eq!(of_class(CHAINED_BUCKETS), self.index.chained(&self.arena), "chained buckets");
        assert_eq!(of_class(WHEEL_BLOCKS), self.wheel.blocks(&self.arena) as usize, "blocks of the wheel");
        assert_eq!(chunks.len(), of_class(CHAINED_BUCKETS) + of_class(WHEEL_BLOCKS), "chunks that nobody owns");
    }
}
