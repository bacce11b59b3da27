//! Another holder of a group, as its primary sees it: a cursor in the log, and perhaps a snapshot under way.
//!
//! ```text
//!            agreed        next        last
//!   ───────────┬─────────────┬───────────┬──► seq
//!   it has them│ on their way│ to be sent│
//! ```
//!
//! What is lost is sent again: after [`RETRY_MS`] without an answer the cursor goes back to what is agreed. The log that is sent
//! is the log itself, so a peer that is slow costs nothing but its place in there; one whose place is not kept any more needs
//! a snapshot.
//!
//! A snapshot goes beside the live log: one chunk at a time, the next when the last has arrived. A chunk shows what the
//! primary's store has, committed or not, so it is held back until what it shows is committed.

use super::copy::Copy;
use super::entry::{Image, Position, Seq};
use super::message::Body;
use super::rules::{Rule, Rules};
use super::store::Store;
use super::{CHUNK_BYTES, ENTRIES_PER_FRAME_MAX, FRAME_ENTRY_BYTES, Ms, WINDOW_ENTRIES};
use crate::cluster::Identity;
use crate::slots::Group;

/// After how long without an answer something is sent again.
pub(super) const RETRY_MS: u64 = 60;

/// Another holder.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) identity: Identity,
    state: State,
    next: Seq,
    /// What it was told of what is committed, and what it has said that it knows.
    told: Seq,
    knows: Seq,
    sent_at: Option<Ms>,
    /// The last snapshot that it got whole.
    filled: Option<u64>,
    /// When it got further last, or was sent something while it had all.
    advanced_at: Ms,
}

#[derive(Debug)]
enum State {
    /// Whether it has the entry before the next is not known yet.
    Unknown,
    /// It cannot follow the log, and no snapshot is under way.
    Lost,
    /// Its log is the same up to here.
    Following { agreed: Seq },
    /// A snapshot is under way; the log is, too, once that has begun.
    Filling { fill: Fill, agreed: Option<Seq> },
}

/// A snapshot that is being sent.
#[derive(Debug)]
struct Fill {
    id: u64,
    base: Seq,
    cursor: u64,
    /// The chunk that the peer waits for; 0 until it has begun.
    number: u64,
    chunk: Option<Chunk>,
    sent_at: Option<Ms>,
}

#[derive(Debug)]
struct Chunk {
    images: Vec<Image>,
    next_cursor: u64,
    /// The last entry whose effect it may show.
    shows: Seq,
}

/// What sending needs to know.
pub(super) struct Sending<'a, S> {
    pub(super) group: Group,
    pub(super) copy: &'a Copy,
    pub(super) store: &'a S,
    pub(super) rules: Rules,
    pub(super) has_yielded: bool,
    pub(super) now: Ms,
}

impl Peer {
    /// A peer that is to be asked where its log agrees with one that ends with `last`.
    pub(super) fn new(identity: Identity, last: Seq, now: Ms) -> Self {
        Self {
            identity,
            state: State::Unknown,
            next: last + 1,
            told: 0,
            knows: 0,
            sent_at: None,
            filled: None,
            advanced_at: now,
        }
    }

    /// Begins to find out anew where its log agrees: the epoch is another one.
    pub(super) fn ask_again(&mut self, last: Seq, now: Ms) {
        if !self.is_filling() {
            (self.state, self.next) = (State::Unknown, last + 1);
        }
        (self.told, self.knows) = (0, 0);
        (self.sent_at, self.advanced_at) = (None, now);
    }

    /// Up to where it has the log.
    pub(super) fn agreed(&self) -> Option<Seq> {
        match self.state {
            State::Following { agreed } => Some(agreed),
            State::Filling { agreed, .. } => agreed,
            State::Unknown | State::Lost => None,
        }
    }

    /// True if it has all that the group had when its snapshot was made, and follows the log.
    pub(super) fn is_following(&self) -> bool {
        matches!(self.state, State::Following { .. })
    }

    /// True if it has the whole log, and knows what of it is committed.
    pub(super) fn has_all(&self, copy: &Copy) -> bool {
        let last = copy.last().seq;
        self.is_following() && self.agreed() == Some(last) && self.knows == last
    }

    /// True if it needs a snapshot.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost)
    }

    pub(super) fn is_filling(&self) -> bool {
        matches!(self.state, State::Filling { .. })
    }

    /// For how long it has not come further, while there was something to come to.
    pub(super) fn stalled_for(&self, last: Seq, now: Ms) -> u64 {
        if self.agreed().is_some_and(|agreed| agreed >= last) { 0 } else { now.saturating_sub(self.advanced_at) }
    }

    /// It has the log up to here; all that is before it, too, unless a snapshot is under way to it.
    pub(super) fn acknowledged(&mut self, seq: Seq, filling: Option<u64>, copy: &Copy, now: Ms) {
        match (&self.state, filling) {
            (_, None) => {}
            (State::Filling { fill, .. }, Some(id)) if fill.id == id => {}
            // It does not know yet that another one has begun.
            (State::Filling { fill, .. }, Some(_)) if fill.number == 0 => return,
            // It was said before that one came to its end.
            (State::Following { .. }, Some(id)) if self.filled == Some(id) => return,
            // What is under way to it is a snapshot that nobody here sends any more.
            (_, Some(_)) => return self.state = State::Lost,
        }
        let seq = seq.min(copy.last().seq);
        let before = self.agreed();
        match &mut self.state {
            State::Unknown | State::Lost => self.state = State::Following { agreed: seq },
            State::Following { agreed } => *agreed = seq.max(*agreed),
            State::Filling { agreed, fill } if seq >= fill.base => *agreed = Some(seq.max(agreed.unwrap_or(0))),
            State::Filling { .. } => return,
        }
        self.next = if before.is_none() { seq + 1 } else { self.next.max(seq + 1) };
        if self.agreed() > before || seq == copy.last().seq {
            self.advanced_at = now;
        }
    }

    /// It knows that all in-sync holders have the log up to here.
    pub(super) fn knows_committed(&mut self, seq: Seq) {
        self.knows = self.knows.max(seq);
    }

    /// It does not have the entry that what was sent follows. Each answer names an earlier one, so there is an end to it.
    pub(super) fn mismatched(&mut self, common: Option<Position>, copy: &Copy) {
        let has_begun = matches!(&self.state, State::Filling { fill, .. } if fill.number > 0);
        let is_lost = common.is_none() && (has_begun || !self.is_filling());
        if !is_lost && (self.is_filling() || self.is_following()) {
            // It has not begun to be filled, or what was sent before has not arrived: that is sent again.
            return;
        }
        let common = common.and_then(|common| copy.log().common_end(common));
        match common.filter(|&common| copy.log().entries_from(common + 1).is_some()) {
            Some(common) => (self.next, self.sent_at) = (common.min(self.next - 1) + 1, None),
            None => self.state = State::Lost,
        }
    }

    /// Begins to send a snapshot.
    pub(super) fn begin_filling(&mut self, id: u64, copy: &Copy, now: Ms) {
        let base = copy.last().seq;
        let fill = Fill { id, base, cursor: 0, number: 0, chunk: None, sent_at: None };
        self.state = State::Filling { fill, agreed: None };
        (self.next, self.advanced_at) = (base + 1, now);
    }

    /// It waits for that chunk of a snapshot.
    pub(super) fn filled(&mut self, id: u64, next_chunk: u64, now: Ms) {
        let State::Filling { fill, agreed } = &mut self.state else { return };
        if fill.id != id || next_chunk <= fill.number {
            return;
        }
        self.advanced_at = now;
        fill.sent_at = None;
        match fill.chunk.take() {
            // There are no more: the cursor has come round.
            Some(chunk) if chunk.next_cursor == 0 => {
                self.filled = Some(id);
                self.state = State::Following { agreed: agreed.unwrap_or(fill.base) };
            }
            Some(chunk) => (fill.cursor, fill.number) = (chunk.next_cursor, fill.number + 1),
            None => fill.number = 1,
        }
    }

    /// What to send to it now.
    pub(super) fn send<S: Store>(&mut self, sending: &Sending<S>, mut send: impl FnMut(Body)) {
        if let State::Filling { fill, .. } = &mut self.state {
            fill.send(sending, &mut send);
            if fill.number == 0 {
                return;
            }
        }
        match self.state {
            State::Lost => {}
            State::Unknown => self.ask(sending, &mut send),
            State::Following { .. } | State::Filling { .. } => self.send_log(sending, &mut send),
        }
    }

    /// Sends nothing, behind the entry before the next: the answer says whether the other has that.
    fn ask<S: Store>(&mut self, sending: &Sending<S>, send: &mut impl FnMut(Body)) {
        let is_early = self.sent_at.is_some_and(|sent_at| sending.now < sent_at + RETRY_MS);
        if !is_early && let Some(previous) = self.previous(sending.copy) {
            self.sent_at = Some(sending.now);
            send(sending.append(previous, Vec::new()));
        }
    }

    fn send_log<S: Store>(&mut self, sending: &Sending<S>, send: &mut impl FnMut(Body)) {
        let (copy, now) = (sending.copy, sending.now);
        let agreed = self.agreed().unwrap_or(self.next - 1);
        let awaits_nothing = self.next == agreed + 1;
        let is_late = self.sent_at.is_some_and(|sent_at| now >= sent_at + RETRY_MS);
        if is_late && self.next > agreed + 1 {
            self.next = agreed + 1;
        }
        let has_news = self.told < copy.committed();
        let has_all = self.agreed().is_some_and(|agreed| agreed >= copy.last().seq) && self.knows >= copy.committed();
        let is_unsure = is_late && !has_all;
        while self.next <= copy.last().seq && self.next <= agreed + WINDOW_ENTRIES {
            let Some(entries) = copy.log().entries_from(self.next) else {
                self.state = State::Lost;
                return;
            };
            let mut bytes = 0;
            let fits = |bytes: &usize| *bytes < FRAME_ENTRY_BYTES;
            let entries = entries.take(ENTRIES_PER_FRAME_MAX).take_while(|entry| {
                let fits = fits(&bytes);
                bytes += entry.effect.bytes();
                fits
            });
            let entries: Vec<_> = entries.cloned().collect();
            let Some(previous) = self.previous(copy) else { return };
            self.next += entries.len() as u64;
            (self.sent_at, self.told) = (Some(now), copy.committed());
            if awaits_nothing {
                self.advanced_at = now;
            }
            send(sending.append(previous, entries));
        }
        if (has_news && self.told < copy.committed() || is_unsure && self.sent_at != Some(now))
            && let Some(previous) = self.previous(copy)
        {
            (self.sent_at, self.told) = (Some(now), copy.committed());
            send(sending.append(previous, Vec::new()));
        }
    }

    /// The entry before the next. None, and it is lost, where its epoch is not known any more.
    fn previous(&mut self, copy: &Copy) -> Option<Position> {
        let seq = self.next - 1;
        let epoch = copy.log().epoch_at(seq);
        if epoch.is_none() {
            self.state = State::Lost;
        }
        Some(Position { epoch: epoch?, seq })
    }
}

impl Fill {
    fn send<S: Store>(&mut self, sending: &Sending<S>, send: &mut impl FnMut(Body)) {
        let Sending { group, copy, store, rules, now, .. } = sending;
        if self.sent_at.is_some_and(|sent_at| *now < sent_at + RETRY_MS) {
            return;
        }
        if self.number == 0 {
            self.sent_at = Some(*now);
            let known = copy.log().history().iter().filter(|&&(_, first)| first <= self.base);
            return send(Body::Fill { id: self.id, history: known.copied().collect(), base: self.base });
        }
        let chunk = self.chunk.get_or_insert_with(|| {
            let (images, next_cursor) = store.images(*group, self.cursor, CHUNK_BYTES);
            Chunk { images, next_cursor, shows: copy.last().seq }
        });
        if chunk.shows > copy.committed() && rules.hold(Rule::FilledWhole) {
            return;
        }
        self.sent_at = Some(*now);
        let is_last = chunk.next_cursor == 0;
        send(Body::Chunk { id: self.id, number: self.number, images: chunk.images.clone(), is_last });
    }
}

impl<S> Sending<'_, S> {
    fn append(&self, previous: Position, entries: Vec<super::entry::Entry>) -> Body {
        Body::Append { previous, entries, committed: self.copy.committed(), has_yielded: self.has_yielded }
    }
}
