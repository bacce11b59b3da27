//! Sets.

use super::MAIN;
use super::edit::Edit;
use super::entry::{Entry, Shape, name};
use super::view::{Bytes, View};
use crate::command::UnixMs;
use crate::engine::item::Kind;
use crate::engine::{Engine, KeyHash, PutError};

/// A set, for reading.
pub struct Set<'a>(View<'a>);

impl<'a> Set<'a> {
    /// Number of members.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Always false: an empty set does not exist.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if the set has the member.
    pub fn contains(&self, member: &[u8]) -> bool {
        self.0.find(member).is_some()
    }

    /// All members, in the set's own order.
    pub fn members(&self) -> impl Iterator<Item = Bytes<'a>> {
        self.from(0)
    }

    /// The members from a rank in that order on.
    pub fn from(&self, rank: u64) -> impl Iterator<Item = Bytes<'a>> {
        let view = self.0;
        view.forward_from(rank).map(move |entry| view.bytes(name(Shape::One, entry, 0)))
    }

    /// Visits about `count` members from a cursor on; returns the next cursor, 0 at the end.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(Bytes<'a>) -> usize) -> u64 {
        self.0.scan(cursor, count, |_, entry| visit(self.0.bytes(name(Shape::One, entry, 0))))
    }
}

impl Engine {
    /// Opens a set for reading. None if the key does not exist.
    ///
    /// # Errors
    /// The key has a value of another type.
    pub fn as_set(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) -> Result<Option<Set<'_>>, PutError> {
        Ok(self.view(hash, key, Kind::Set, now)?.map(Set))
    }

    /// Adds members to a set, which is created if it does not exist; `is_integer` tells which members are integers.
    /// Returns how many are new.
    ///
    /// # Errors
    /// See [`PutError`]. Members before the one that did not fit stay added.
    pub fn set_add<'v>(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        members: impl Iterator<Item = &'v [u8]> + Clone,
        is_integer: impl Fn(&[u8]) -> bool,
        now: UnixMs,
    ) -> Result<u64, PutError> {
        let (mut bytes, mut longest) = (0, 0);
        for member in members.clone() {
            bytes += member.len() + 1;
            longest = longest.max(member.len());
        }
        let found = self.find_or_create(hash, key, Kind::Set, [bytes, longest], now)?;
        let mut edit = Edit::new(self, hash, key, Kind::Set, found);
        let mut added = 0;
        for member in members {
            let (mut spot, is_there) = edit.view().seek(member);
            if is_there {
                continue;
            }
            let is_short = edit.is_short_of_room([member.len()]);
            if is_short {
                edit = edit.reopened(key, [member.len(), member.len()], now)?;
            }
            if edit.prepare(member.len() + 1, member.len()) || is_short {
                spot = edit.member_spot(MAIN, member);
            }
            let entry = Entry::one(edit.text(member));
            edit.insert(&spot, &entry);
            edit.note(member.len(), is_integer(member));
            added += 1;
        }
        edit.finish();
        Ok(added)
    }

    /// Removes members. Returns how many existed.
    ///
    /// # Errors
    /// The key has a value of another type.
    pub fn set_remove<'v>(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        members: impl Iterator<Item = &'v [u8]>,
        now: UnixMs,
    ) -> Result<u64, PutError> {
        self.remove_members(hash, key, Kind::Set, members, now, |edit, _, spot| edit.remove(spot))
    }

    /// Removes a random member, passing it to `visit` first. False if the key does not exist.
    ///
    /// # Errors
    /// The key has a value of another type.
    pub fn set_pop(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        now: UnixMs,
        visit: impl FnOnce(Bytes),
    ) -> Result<bool, PutError> {
        let random = self.random();
        let Some(mut edit) = self.edit(hash, key, Kind::Set, [0, 0], now)? else { return Ok(false) };
        let rank = random % edit.view().len();
        let set = Set(edit.view());
        visit(set.from(rank).next().expect("there are more members than its rank"));
        let spot = edit.view().at_rank(rank);
        edit.remove(&spot);
        edit.finish();
        Ok(true)
    }
}
