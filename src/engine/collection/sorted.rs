//! Sorted sets: entries in the order of scores, and, where they are large, each member's score in a second tree.
//!
//! A long member is not written a second time there while few have its score: its hash is, and those with that score say which it
//! is. Which makes finding it as long again, so short ones are written.

use super::edit::Edit;
use super::entry::{self, Entry, INLINE_BYTES_MAX, SCORE_BYTES, Shape, Text, member_score, member_score_at, name};
use super::view::{Bytes, Spot, View, compare};
use super::{HASHED, MEMBERS};
use crate::command::UnixMs;
use crate::engine::item::Kind;
use crate::engine::{Engine, KeyHash, PutError};

/// Members that are longer, and inside entries, are written as a hash. For shorter ones that would save little, and ZADD takes a
/// third longer.
const NAMED_BYTES_MAX: usize = 20;
/// While a score has no more members than this, they may be written as hashes: so many are looked at to find one of them.
pub(super) const SHARING_MAX: usize = 8;

/// How many members a score has with one more.
#[derive(Clone, Copy, PartialEq)]
enum Sharing {
    /// It may be written as a hash.
    Few,
    Many,
    /// Those that were few until now have been written in full: spots of the members' tree are void.
    OneTooMany,
}

/// A sorted set that is being read.
pub struct Sorted<'a>(View<'a>);

/// One end of a range, by score or by member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound<'b> {
    /// Before every element.
    Start,
    /// After every element.
    End,
    /// Before the elements of a score, or after them.
    Score {
        /// The score.
        score: f64,
        /// After them.
        after: bool,
    },
    /// Before a member, or after it, where all have the same score.
    Member {
        /// The member.
        member: &'b [u8],
        /// After it.
        after: bool,
    },
}

/// When ZADD changes what.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScoreChange {
    /// Only new members.
    pub only_new: bool,
    /// Only members that are there.
    pub only_known: bool,
    /// Scores only become greater.
    pub only_greater: bool,
    /// Scores only become less.
    pub only_less: bool,
    /// The score is added to the old one.
    pub increment: bool,
}

/// What came of one member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scored {
    /// It is new, with this score.
    Added(f64),
    /// Its score is this now.
    Changed(f64),
    /// Its score was this, and still is.
    Same(f64),
    /// The conditions did not hold.
    Refused,
    /// Infinity minus infinity.
    NotANumber,
}

impl<'a> Sorted<'a> {
    /// Members.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// False: an empty sorted set is no sorted set.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A member's score.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        score_of(&self.0, member)
    }

    /// A member's rank by score, the least first, and its score.
    pub fn rank(&self, member: &[u8]) -> Option<(u64, f64)> {
        let score = self.score(member)?;
        Some((self.0.rank(&self.0.score_spot(score, member)), score))
    }

    /// Elements before a bound.
    pub fn rank_of(&self, bound: Bound) -> u64 {
        let view = &self.0;
        let spot = match bound {
            Bound::Start => return 0,
            Bound::End => return self.len(),
            Bound::Score { score, after } => {
                view.lower_bound(entry::order_of(score), |own, _| own < score || after && own == score)
            }
            Bound::Member { member, after } => {
                let first = self.forward_from(0).next().map_or(0.0, |(_, score)| score);
                view.lower_bound(entry::order_of(first), |_, text| {
                    let order = compare(view.arena, text, member);
                    order.is_lt() || after && order.is_eq()
                })
            }
        };
        view.rank(&spot)
    }

    /// Members and scores from a rank on, upwards.
    pub fn forward_from(&self, rank: u64) -> impl Iterator<Item = (Bytes<'a>, f64)> {
        let view = self.0;
        view.forward_from(rank).map(move |entry| scored(&view, entry))
    }

    /// Members and scores from a rank on, downwards.
    pub fn backward_from(&self, rank: u64) -> impl Iterator<Item = (Bytes<'a>, f64)> {
        let view = self.0;
        view.backward_from(rank).map(move |entry| scored(&view, entry))
    }

    /// Visits members from a cursor on, about `count`; returns the next cursor, 0 at the end.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(Bytes<'a>, f64)) -> u64 {
        let view = &self.0;
        view.scan(cursor, count, |shape, entry| {
            let score = if shape == Shape::Pair { member_score(entry, 0) } else { entry::score(entry, 0) };
            match name(shape, entry, 0) {
                // Were there two with this hash, both would come twice: better than once too few.
                Text::Hashed(key) => view.hashed(score, key).for_each(|member| visit(Bytes::Borrowed(member), score)),
                text => visit(view.bytes(text), score),
            }
        })
    }
}

fn scored<'a>(view: &View<'a>, entry: &'a [u8]) -> (Bytes<'a>, f64) {
    (view.bytes(name(Shape::Scored, entry, 0)), entry::score(entry, 0))
}

fn score_of(view: &View, member: &[u8]) -> Option<f64> {
    view.find(member).map(|spot| score_at(view, &spot))
}

/// The score of a member that was found at a spot.
fn score_at(view: &View, spot: &Spot) -> f64 {
    let leaf = view.leaf(spot.path.as_ref());
    if view.is_large() { member_score(leaf, spot.offset) } else { entry::score(leaf, spot.offset) }
}

impl Engine {
    /// A sorted set, to read it. None if there is no such key.
    ///
    /// # Errors
    /// The key has a value of another type.
    pub fn as_sorted(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) -> Result<Option<Sorted<'_>>, PutError> {
        Ok(self.view(hash, key, Kind::SortedSet, now)?.map(Sorted))
    }

    /// Adds members with scores, or changes theirs; the sorted set is made if there is none, unless only members that are
    /// there may change. `visit` is told what came of each.
    ///
    /// # Errors
    /// See [`PutError`]. Members that came before the one that did not fit stay.
    pub fn sorted_add<'v>(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        members: impl Iterator<Item = (f64, &'v [u8])> + Clone,
        change: ScoreChange,
        now: UnixMs,
        mut visit: impl FnMut(Scored),
    ) -> Result<(), PutError> {
        let (mut bytes, mut longest) = (0, 0);
        for (_, member) in members.clone() {
            bytes += member.len() + 1 + SCORE_BYTES;
            longest = longest.max(member.len());
        }
        let room = [bytes, longest];
        let found = match change.only_known {
            false => self.find_or_create(hash, key, Kind::SortedSet, room, now)?,
            true => match self.find_to_edit(hash, key, Kind::SortedSet, room, now)? {
                Some(found) => found,
                None => {
                    members.for_each(|_| visit(Scored::Refused));
                    return Ok(());
                }
            },
        };
        let mut edit = Edit::new(self, hash, key, Kind::SortedSet, found);
        for (score, member) in members {
            if edit.is_short_of_room([member.len(); 2]) {
                edit = edit.reopened(key, [2 * member.len() + 16, member.len()], now)?;
            }
            visit(edit.set_score(score, member, change));
        }
        edit.finish();
        Ok(())
    }

    /// Removes members. Returns how many there were.
    ///
    /// # Errors
    /// The key has a value of another type.
    pub fn sorted_remove<'v>(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        members: impl Iterator<Item = &'v [u8]>,
        now: UnixMs,
    ) -> Result<u64, PutError> {
        self.remove_members(hash, key, Kind::SortedSet, members, now, |edit, member, spot| {
            edit.remove_scored(score_at(&edit.view(), spot), member, spot);
        })
    }

    /// Removes the elements of a range of ranks, the last first if `downwards`, after `visit` has seen each. Returns how many.
    ///
    /// # Errors
    /// The key has a value of another type.
    pub fn sorted_remove_range(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        [from, to]: [u64; 2],
        downwards: bool,
        now: UnixMs,
        mut visit: impl FnMut(&[u8], f64),
    ) -> Result<u64, PutError> {
        let Some(mut edit) = self.edit(hash, key, Kind::SortedSet, [0, 0], now)? else { return Ok(0) };
        let to = to.min(edit.view().len());
        for left in (from..to).rev() {
            let rank = if downwards { left } else { from };
            let (member, score) = Sorted(edit.view()).forward_from(rank).next().expect("it is within");
            let member = member.into_owned();
            visit(&member, score);
            let spot = edit.view().find(&member).expect("it is in both trees");
            edit.remove_scored(score, &member, &spot);
        }
        edit.finish();
        Ok(to.saturating_sub(from))
    }
}

/// True if a member may be written as a hash.
fn is_long(member: &[u8]) -> bool {
    (NAMED_BYTES_MAX + 1..=INLINE_BYTES_MAX).contains(&member.len())
}

impl Edit<'_> {
    fn set_score(&mut self, score: f64, member: &[u8], change: ScoreChange) -> Scored {
        let (mut found, is_there) = self.view().seek(member);
        if !is_there {
            if change.only_known {
                return Scored::Refused;
            }
            if self.prepare(SCORE_BYTES + member.len() + 1, member.len()) {
                found = self.member_spot(MEMBERS, member);
            }
            self.insert_scored(score, member, &found);
            self.note(member.len(), false);
            return Scored::Added(score);
        }
        let old = score_at(&self.view(), &found);
        if change.only_new {
            return Scored::Refused;
        }
        let score = if change.increment { old + score } else { score };
        if score.is_nan() {
            return Scored::NotANumber;
        }
        if change.only_greater && score <= old || change.only_less && score >= old {
            return Scored::Refused;
        }
        if score == old {
            return Scored::Same(old);
        }
        if self.view().is_large() {
            let sharing = self.share(score, member, &self.view().score_spot(score, member));
            if sharing == Sharing::OneTooMany {
                found = self.view().seek(member).0;
            }
            if sharing != Sharing::Few && self.name_in_full(member, old, &found) {
                found = self.view().seek(member).0;
            }
            let at = member_score_at(self.view().leaf(found.path.as_ref()), found.offset);
            self.overwrite(&found, at, &score.to_le_bytes());
        }
        self.remove_ordered(old, member);
        self.insert_ordered(score, member);
        Scored::Changed(score)
    }

    /// Puts a member in that is not there; of a large sorted set, at a spot of the members' tree.
    pub(super) fn insert_scored(&mut self, score: f64, member: &[u8], members: &Spot) {
        let spot = self.view().score_spot(score, member);
        if self.view().is_large() {
            let sharing = self.share(score, member, &spot);
            let text = match sharing == Sharing::Few && is_long(member) {
                true => {
                    let flags = self.view().flags();
                    self.set_flags(flags | HASHED);
                    Text::Hashed(self.view().member_key(member))
                }
                false => self.text(member),
            };
            let bytes = score.to_le_bytes();
            let entry = Entry::pair(text, None, Text::Inside(&bytes));
            let members = if sharing == Sharing::OneTooMany { &self.member_spot(MEMBERS, member) } else { members };
            self.insert_in(MEMBERS, members, &entry);
        }
        let entry = Entry::scored(score, self.text(member));
        self.insert(&spot, &entry);
    }

    /// A member is about to have a score, at a spot among the scores: if it is one too many for hashes, those that have the score
    /// are written in full from now on.
    fn share(&mut self, score: f64, member: &[u8], spot: &Spot) -> Sharing {
        if self.view().flags() & HASHED == 0 && !is_long(member) {
            return Sharing::Many;
        }
        let (mut at, count) = self.view().equals(score, spot, SHARING_MAX + 1);
        if count != SHARING_MAX {
            return if count < SHARING_MAX { Sharing::Few } else { Sharing::Many };
        }
        for _ in 0..count {
            let (mut bytes, view) = ([0; INLINE_BYTES_MAX], self.view());
            let entry = view.next(&mut at).expect("there are so many");
            let Text::Inside(member) = name(Shape::Scored, entry, 0) else { continue };
            let own = &mut bytes[..member.len()];
            own.copy_from_slice(member);
            let spot = view.find(own).expect("it is in both trees");
            self.name_in_full(own, score, &spot);
        }
        Sharing::OneTooMany
    }

    /// Writes a member with a score in full, at its spot among the members. False if it is.
    fn name_in_full(&mut self, member: &[u8], score: f64, spot: &Spot) -> bool {
        let leaf = self.view().leaf(spot.path.as_ref());
        if !matches!(name(Shape::Pair, leaf, spot.offset), Text::Hashed(_)) {
            return false;
        }
        let score = score.to_le_bytes();
        self.replace_in(MEMBERS, spot, &Entry::pair(Text::Inside(member), None, Text::Inside(&score)));
        true
    }

    /// Removes a member whose score is known, and that was found at a spot.
    fn remove_scored(&mut self, score: f64, member: &[u8], members: &Spot) {
        self.remove_ordered(score, member);
        if self.view().is_large() {
            self.remove_in(MEMBERS, members);
        }
    }

    /// Puts a member in among the scores.
    fn insert_ordered(&mut self, score: f64, member: &[u8]) {
        let entry = Entry::scored(score, self.text(member));
        let spot = self.view().score_spot(score, member);
        self.insert(&spot, &entry);
    }

    /// Removes a member from among the scores.
    fn remove_ordered(&mut self, score: f64, member: &[u8]) {
        let spot = self.view().at_entry(self.view().score_spot(score, member));
        self.remove(&spot);
    }
}
