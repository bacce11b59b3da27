//! Sorted sets: entries in score order and, if the set is large, a second tree from member to score.
//!
//! The second tree stores a long member as its hash only, while few members share its score: the entries with that
//! score resolve it. Looking one up then takes about twice as long, so short members are stored in full.

use super::edit::Edit;
use super::entry::{self, Entry, INLINE_BYTES_MAX, SCORE_BYTES, Shape, Text, member_score, member_score_at, name};
use super::view::{Bytes, Spot, View, compare};
use super::{HASHED, MEMBERS};
use crate::command::UnixMs;
use crate::engine::item::Kind;
use crate::engine::{Engine, KeyHash, PutError};

/// Members longer than this, and short enough to be stored inside entries, are stored as a hash. For shorter ones that
/// would save little memory and make ZADD take a third longer.
/// third longer.
const NAMED_BYTES_MAX: usize = 20;
/// Members may be stored as hashes while at most this many share their score: one lookup compares that many.
pub(super) const SHARING_MAX: usize = 8;

/// How many members share a score once another has been added.
#[derive(Clone, Copy, PartialEq)]
enum Sharing {
    /// Few enough for members to be stored as hashes.
    Few,
    Many,
    /// One more than few: those stored as hashes have now been rewritten in full, which invalidates spots in the
    /// members' tree.
    OneTooMany,
}

/// A sorted set, for reading.
pub struct Sorted<'a>(View<'a>);

/// One end of a range, by score or by member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound<'b> {
    /// Before every element.
    Start,
    /// After every element.
    End,
    /// Before or after all elements of a score.
    Score {
        /// The score.
        score: f64,
        /// After them instead of before them.
        after: bool,
    },
    /// Before or after a member, in a set whose members all have the same score.
    Member {
        /// The member.
        member: &'b [u8],
        /// After it instead of before it.
        after: bool,
    },
}

/// Conditions and options of ZADD.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScoreChange {
    /// NX: only add new members.
    pub only_new: bool,
    /// XX: only update existing members.
    pub only_known: bool,
    /// GT: only raise scores.
    pub only_greater: bool,
    /// LT: only lower scores.
    pub only_less: bool,
    /// INCR: add to the old score.
    pub increment: bool,
}

/// Outcome of ZADD for one member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scored {
    /// Added, with this score.
    Added(f64),
    /// Updated to this score.
    Changed(f64),
    /// Unchanged, at this score.
    Same(f64),
    /// A condition did not hold.
    Refused,
    /// The sum would be infinity minus infinity.
    NotANumber,
}

impl<'a> Sorted<'a> {
    /// Number of members.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Always false: an empty sorted set does not exist.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        score_of(&self.0, member)
    }

    /// The rank of a member in ascending order, and its score.
    pub fn rank(&self, member: &[u8]) -> Option<(u64, f64)> {
        let score = self.score(member)?;
        Some((self.0.rank(&self.0.score_spot(score, member)), score))
    }

    /// Number of elements before a bound.
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

    /// Members and scores in ascending order, from a rank on.
    pub fn forward_from(&self, rank: u64) -> impl Iterator<Item = (Bytes<'a>, f64)> {
        let view = self.0;
        view.forward_from(rank).map(move |entry| scored(&view, entry))
    }

    /// Members and scores in descending order, from a rank on.
    pub fn backward_from(&self, rank: u64) -> impl Iterator<Item = (Bytes<'a>, f64)> {
        let view = self.0;
        view.backward_from(rank).map(move |entry| scored(&view, entry))
    }

    /// Visits about `count` members from a cursor on; returns the next cursor, 0 at the end.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(Bytes<'a>, f64) -> usize) -> u64 {
        let view = &self.0;
        view.scan(cursor, count, |shape, entry| {
            let score = if shape == Shape::Pair { member_score(entry, 0) } else { entry::score(entry, 0) };
            match name(shape, entry, 0) {
                // If two members share this hash, both are visited twice, which a scan may do; it must not miss one.
                Text::Hashed(key) => view.hashed(score, key).map(|member| visit(Bytes::Borrowed(member), score)).sum(),
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

/// The score of the member found at a spot.
fn score_at(view: &View, spot: &Spot) -> f64 {
    let leaf = view.leaf(spot.path.as_ref());
    if view.is_large() { member_score(leaf, spot.offset) } else { entry::score(leaf, spot.offset) }
}

impl Engine {
    /// Opens a sorted set for reading. None if the key does not exist.
    ///
    /// # Errors
    /// The key has a value of another type.
    pub fn as_sorted(&mut self, hash: KeyHash, key: &[u8], now: UnixMs) -> Result<Option<Sorted<'_>>, PutError> {
        Ok(self.view(hash, key, Kind::SortedSet, now)?.map(Sorted))
    }

    /// Adds members or updates their scores. The sorted set is created if it does not exist, unless only existing
    /// members may be updated. `visit` receives the outcome of each.
    ///
    /// # Errors
    /// See [`PutError`]. Members before the one that did not fit stay added.
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

    /// Removes members. Returns how many existed.
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

    /// Removes the elements of a range of ranks, from the last on if `downwards`, passing each to `visit` first.
    /// Returns how many.
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

/// True if a member may be stored as a hash.
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

    /// Inserts a new member; in a large sorted set, at a spot of the members' tree.
    pub(super) fn insert_scored(&mut self, score: f64, member: &[u8], members: &Spot) {
        let spot = self.view().score_spot(score, member);
        if self.view().is_large() {
            let sharing = self.share(score, member, &spot);
            // Few members share the score: a hash suffices.
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

    /// Prepares for a member to be given a score, at a spot in score order. If this makes one too many for hashes, the
    /// members with that score are rewritten in full.
    fn share(&mut self, score: f64, member: &[u8], spot: &Spot) -> Sharing {
        // No member is stored as a hash and this one would not be either, so their number does not matter.
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

    /// Rewrites a member in full at its spot in the members' tree. False if it already is.
    fn name_in_full(&mut self, member: &[u8], score: f64, spot: &Spot) -> bool {
        let leaf = self.view().leaf(spot.path.as_ref());
        if !matches!(name(Shape::Pair, leaf, spot.offset), Text::Hashed(_)) {
            return false;
        }
        let score = score.to_le_bytes();
        self.replace_in(MEMBERS, spot, &Entry::pair(Text::Inside(member), None, Text::Inside(&score)));
        true
    }

    /// Removes a member of known score, found at a spot.
    fn remove_scored(&mut self, score: f64, member: &[u8], members: &Spot) {
        self.remove_ordered(score, member);
        if self.view().is_large() {
            self.remove_in(MEMBERS, members);
        }
    }

    /// Inserts a member in score order.
    fn insert_ordered(&mut self, score: f64, member: &[u8]) {
        let entry = Entry::scored(score, self.text(member));
        let spot = self.view().score_spot(score, member);
        self.insert(&spot, &entry);
    }

    /// Removes a member from the tree in score order.
    fn remove_ordered(&mut self, score: f64, member: &[u8]) {
        let spot = self.view().at_entry(self.view().score_spot(score, member));
        self.remove(&spot);
    }
}
