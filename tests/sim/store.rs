//! A naive store, which stands for the engine.

use pinion::replication::{Effect, Image, Key, Position, Store};
use pinion::slots::Group;
use std::collections::BTreeMap;

/// Images per chunk, whatever `bytes` says, so that even a few keys take several chunks.
const IMAGES_PER_CHUNK: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub at: Position,
    pub value: Vec<u8>,
    pub expires: Option<u64>,
}

#[derive(Debug, Default)]
pub struct NaiveStore {
    groups: BTreeMap<Group, BTreeMap<(u64, Key), Item>>,
}

fn hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)) | 1
}

impl NaiveStore {
    pub fn item(&self, group: Group, key: &[u8]) -> Option<&Item> {
        self.groups.get(&group)?.get(&(hash(key), key.into()))
    }

    /// The items of a group that have not expired at `wall`.
    pub fn contents(&self, group: Group, wall: u64) -> BTreeMap<Key, Item> {
        let items = self.groups.get(&group).into_iter().flatten();
        let items = items.filter(|(_, item)| item.expires.is_none_or(|expires| expires > wall));
        items.map(|((_, key), item)| (key.clone(), item.clone())).collect()
    }

    /// A key that the store may evict.
    pub fn any_key(&self, group: Group, number: u64) -> Option<Key> {
        let items = self.groups.get(&group)?;
        let nth = (number % items.len().max(1) as u64) as usize;
        items.keys().nth(nth).map(|(_, key)| key.clone())
    }
}

impl Store for NaiveStore {
    fn version(&self, group: Group, key: &[u8]) -> Option<Position> {
        self.item(group, key).map(|item| item.at)
    }

    fn image(&self, group: Group, key: &[u8]) -> Option<Image> {
        let Item { at, value, expires } = self.item(group, key)?.clone();
        Some(Image { key: key.into(), at, value: value.into(), expires })
    }

    fn images(&self, group: Group, cursor: u64, _: usize) -> (Vec<Image>, u64) {
        let Some(items) = self.groups.get(&group) else { return (Vec::new(), 0) };
        let image = |((_, key), item): (&(u64, Key), &Item)| Image {
            key: key.clone(),
            at: item.at,
            value: item.value.clone().into(),
            expires: item.expires,
        };
        let mut rest = items.range((cursor, Key::default())..);
        let images = rest.by_ref().take(IMAGES_PER_CHUNK).map(image).collect();
        (images, rest.next().map_or(0, |((hash, _), _)| *hash))
    }

    fn put(&mut self, group: Group, image: Image) {
        let item = Item { at: image.at, value: image.value.into(), expires: image.expires };
        self.groups.entry(group).or_default().insert((hash(&image.key), image.key), item);
    }

    fn apply(&mut self, group: Group, effect: &Effect, at: Position) {
        let items = self.groups.entry(group).or_default();
        let place = (hash(effect.key()), Key::from(effect.key()));
        match effect {
            Effect::Put { value, expires, .. } => {
                items.insert(place, Item { at, value: value.to_vec(), expires: *expires });
            }
            Effect::Remove { .. } => _ = items.remove(&place),
            Effect::Change { change, .. } => {
                let item = items.entry(place).or_insert(Item { at, value: Vec::new(), expires: None });
                item.at = at;
                item.value.extend_from_slice(change);
            }
        }
    }

    fn remove(&mut self, group: Group, key: &[u8]) {
        if let Some(items) = self.groups.get_mut(&group) {
            items.remove(&(hash(key), key.into()));
        }
    }

    fn clear(&mut self, group: Group) {
        self.groups.remove(&group);
    }
}
