//! Keys that are held: a command works on them in several steps, with other work in between.
//!
//! The item of a held key is neither evicted nor expired in the background, and may still move. Whoever holds a key
//! keeps requests on it waiting, passes the same time in each step, and flushes nothing before it has released it.

use super::arena::place;
use super::eviction::{self, Entrant};
use super::index::Position;
use super::item::Header;
use super::{Engine, KeyHash, value};

/// How often eviction may choose a held item before it gives up.
pub(super) const HELD_CHOSEN_MAX: usize = 8;

/// A key that is held.
#[derive(Debug)]
pub(super) struct Hold {
    hash: KeyHash,
    /// The policy has chosen it for eviction, and may have forgotten it by that.
    was_chosen: bool,
}

impl Engine {
    /// Holds a key. Keys with the same hash are held with it.
    pub fn hold(&mut self, hash: KeyHash) {
        self.holds.push(Hold { hash, was_chosen: false });
    }

    /// Releases a key that is held.
    pub fn release_hold(&mut self, hash: KeyHash) {
        let Some(held) = self.holds.iter().position(|hold| hold.hash == hash) else { return };
        if self.holds.swap_remove(held).was_chosen && self.arena.free_pages() > 0 {
            self.admit_again(hash);
        }
    }

    /// True if a key is held.
    #[inline]
    pub(super) fn is_held(&self, hash: KeyHash) -> bool {
        !self.holds.is_empty() && self.holds.iter().any(|hold| hold.hash == hash)
    }

    /// Notes that the policy has chosen an entry for eviction. True if its key is held: then it must not be evicted.
    pub(super) fn is_spared(&mut self, at: Position) -> bool {
        if self.holds.is_empty() {
            return false;
        }
        let item = self.index.reference(self.arena.memory(), at);
        let hash = eviction::hash_of(self.arena.memory(), &self.hasher, item);
        let Some(hold) = self.holds.iter_mut().find(|hold| hold.hash == hash) else { return false };
        hold.was_chosen = true;
        self.hit(hash, at);
        true
    }

    /// Has the policy admit the entries of a hash again: queues may have lost them.
    fn admit_again(&mut self, hash: KeyHash) {
        let memory = self.arena.memory();
        let is_of_hash = |item| eviction::hash_of(memory, &self.hasher, item) == hash;
        let Some(at) = self.index.find(memory, hash, is_of_hash).filter(|_| self.is_adopted(hash)) else { return };
        let item = self.index.reference(memory, at);
        let may_expire = Header::read(memory, place(item)).may_expire();
        let bytes = value::footprint(&self.arena, item);
        self.policy.removed(self.index.policy(memory, at), bytes);
        let byte = self.policy.adopt(&mut self.arena, Entrant { hash, bytes, may_expire });
        self.index.set_policy(self.arena.memory_mut(), at, byte);
    }
}
