//! A naive store of one group, whose keys end in different letters.

use super::super::{Effect, Image, Key, Position, Store};
use crate::slots::Group;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct NaiveStore(pub(super) BTreeMap<Key, Image>);

/// The cursor at which a snapshot reaches a key.
fn cursor_of(key: &[u8]) -> u64 {
    key.last().map_or(0, |&letter| u64::from(letter))
}

impl Store for NaiveStore {
    fn version(&self, _: Group, key: &[u8]) -> Option<Position> {
        self.0.get(key).map(|image| image.at)
    }

    fn image(&self, _: Group, key: &[u8]) -> Option<Image> {
        self.0.get(key).cloned()
    }

    /// One image per call, whatever `bytes` says.
    fn images(&self, _: Group, cursor: u64, _: usize) -> (Vec<Image>, u64) {
        let mut rest = self.0.values().skip_while(|image| cursor_of(&image.key) < cursor);
        let images = rest.next().cloned().into_iter().collect();
        (images, rest.next().map_or(0, |next| cursor_of(&next.key)))
    }

    fn put(&mut self, _: Group, image: Image) {
        self.0.insert(image.key.clone(), image);
    }

    fn apply(&mut self, _: Group, effect: &Effect, at: Position) {
        let key = Key::from(effect.key());
        match effect {
            Effect::Put { value, expires, .. } => {
                let image = Image { key: key.clone(), at, value: value.clone(), expires: *expires };
                self.0.insert(key, image);
            }
            Effect::Remove { .. } => _ = self.0.remove(&key),
            Effect::Change { change, .. } => {
                let nothing = Image { key: key.clone(), at, value: Box::default(), expires: None };
                let image = self.0.entry(key).or_insert(nothing);
                image.at = at;
                image.value = [&*image.value, &**change].concat().into();
            }
        }
    }

    fn remove(&mut self, _: Group, key: &[u8]) {
        self.0.remove(key);
    }

    fn clear(&mut self, _: Group) {
        self.0.clear();
    }
}
