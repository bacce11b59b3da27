//! What is done between requests, in bounded steps: a delayed flush, expiry, and the passes over all entries.
//!
//! | pass | goes on | and |
//! |---|---|---|
//! | flush | after a flush | removes what was written before it |
//! | adoption | after a change of the policy | gives each entry the byte that the new one wants |
//! | expiry | while there are items that expire | removes those that have; once every 25 seconds |
//!
//! A pass is a position in the order of hashes, so it survives whatever else happens to the index.

use super::arena::{Reference, place};
use super::eviction::{self, Entrant, Policy};
use super::expiry::{HORIZON_MS, Wheel};
use super::index::{Bucket, HashMark, HashPosition, Position, STEP_PAGES_MAX, entries};
use super::item::{self, Header};
use super::versions::Versions;
use super::{Engine, FREE_PAGES_AIMED_AT, KeyHash, RESERVE_PAGES, value};
use crate::command::{DATABASES, UnixMs};
use crate::eviction::Eviction;
use crate::slots::Group;

/// What may be done in one call: quads that a pass goes over, or that the index grows by. The worst quad is one of which
/// all 36 items are removed, each out of the cache: some 15 microseconds. A shard calls once per turn, and once more for
/// every batch of requests in it, so the pace follows the requests.
const QUADS_PER_CALL: u32 = 2;
/// What a block of due marks counts, with its 62 items.
const QUADS_PER_DUE_BLOCK: u32 = 2;
/// Nodes of a collection that are freed for what a quad counts.
const NODES_PER_QUAD: u32 = 8;
/// Bytes that are evicted and moved for what a quad counts, where memory is to become less.
const EVICTED_BYTES_PER_QUAD: usize = 2048;
/// How long the expiry pass takes.
pub(super) const EXPIRY_PASS_MS: u64 = 25_000;
/// How often the expiry pass goes on at most, where there is nothing else to do.
const EXPIRY_INTERVAL_MS: u64 = 20;

/// When [`Engine::work`] wants to be called again, if no request comes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Next {
    /// As soon as possible: there is more to do.
    Now,
    /// After so many milliseconds.
    In(u64),
    /// There is nothing to do.
    Idle,
}

/// The first position after the last.
const END: u64 = 1 << 32;

/// A flush, and how far the pass is that removes what was there before it.
struct Flush {
    /// What was written when it came.
    versions: Versions,
    /// A bit for each database that it is of.
    databases: u16,
    from: u64,
}

/// The passes over all entries.
pub(super) struct Sweep {
    /// Flushes whose passes go on.
    flushes: Vec<Flush>,
    /// How far the adoption by a new policy is.
    adoption: Option<u64>,
    expiry: HashPosition,
    /// When the expiry pass was called last, and what it owes since: quads times milliseconds.
    paced: UnixMs,
    owed: u64,
    /// The index had few entries when the expiry pass ended last, and when it had the time before.
    few_entries: [bool; 2],
}

impl Sweep {
    pub(super) fn new(now: UnixMs) -> Self {
        Self { flushes: Vec::new(), adoption: None, expiry: 0, paced: now, owed: 0, few_entries: [false; 2] }
    }

    /// True if there may be items that a flush has made void.
    #[inline]
    pub(super) fn is_flushing(&self) -> bool {
        !self.flushes.is_empty()
    }

    /// True if a flush has made a version of a key void, whose pass has not come to it yet.
    pub(super) fn has_flushed(&self, hash: KeyHash, group: Group, version: u64) -> bool {
        let of_it = |flush: &&Flush| flush.databases >> hash.database() & 1 == 1;
        let ahead = |flush: &&Flush| u64::from(hash.position()) >= flush.from;
        self.flushes.iter().filter(of_it).filter(ahead).any(|flush| flush.versions.includes(group, version))
    }

    /// True if the policy in charge knows the entries at a position.
    #[inline]
    pub(super) fn is_adopted(&self, position: HashPosition) -> bool {
        self.adoption.is_none_or(|from| u64::from(position) < from)
    }
}

/// How late the timing wheel removed items: counts by 16 milliseconds.
pub(super) struct Lag {
    counts: [u32; Self::STEPS],
    total: u32,
}

impl Default for Lag {
    fn default() -> Self {
        Self { counts: [0; Self::STEPS], total: 0 }
    }
}

impl Lag {
    const STEPS: usize = 256;
    const STEP_MS: u64 = 16;
    /// Counts are halved at this total, so that what was long ago fades.
    const TOTAL_MAX: u32 = 1 << 20;

    fn record(&mut self, milliseconds: u64) {
        let step = ((milliseconds / Self::STEP_MS) as usize).min(Self::STEPS - 1);
        self.counts[step] += 1;
        self.total += 1;
        if self.total == Self::TOTAL_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// 99 % were no later; 0 where there were none.
    pub(super) fn p99(&self) -> u64 {
        let mut left = u64::from(self.total) * 99 / 100;
        for (step, &count) in self.counts.iter().enumerate() {
            if u64::from(count) > left {
                return (step as u64 + 1) * Self::STEP_MS;
            }
            left -= u64::from(count);
        }
        0
    }
}

/// Takes so much from what is left. False if there is not as much.
fn spend(left: &mut u32, quads: u32) -> bool {
    let enough = *left >= quads;
    if enough {
        *left -= quads;
    }
    enough
}

/// An entry that a pass has come to.
#[derive(Clone, Copy)]
struct Visited {
    hash: KeyHash,
    at: Position,
    item: Reference,
    header: Header,
}

impl Engine {
    /// Lets the time pass: a delayed flush takes effect when it is due. Call before a batch of requests.
    #[inline]
    pub fn advance(&mut self, now: UnixMs) {
        self.policy.note_time(now);
        if self.flush_due.is_some_and(|due| due <= now) {
            self.flush();
        }
    }

    /// Removes every item that was written before this call: none is found any more, and their memory comes back as a pass
    /// goes over them.
    pub fn flush(&mut self) {
        self.flush_due = None;
        self.flush_databases(u16::MAX);
    }

    /// The same for the items of one database.
    pub fn flush_database(&mut self, number: u8) {
        self.flush_databases(1 << number);
    }

    fn flush_databases(&mut self, databases: u16) {
        // What an earlier flush of the same databases is to remove, this one will.
        self.sweep.flushes.retain(|flush| flush.databases & !databases != 0);
        self.sweep.flushes.push(Flush { versions: self.versions.clone(), databases, from: 0 });
        let flushed = (0..DATABASES).filter(|number| databases >> number & 1 == 1);
        for usage in flushed.map(|number| std::mem::take(&mut self.databases[number])) {
            let all = &mut self.usage;
            all.items -= usage.items;
            all.item_bytes -= usage.item_bytes;
            all.user_bytes -= usage.user_bytes;
            all.expiring -= usage.expiring;
        }
    }

    /// Flushes at a later time, what is written until then included. Replaces an earlier delay.
    pub fn flush_at(&mut self, due: UnixMs) {
        self.flush_due = Some(due);
    }

    /// Puts another policy in charge. It gets to know the entries as a pass goes over them.
    pub fn set_eviction(&mut self, eviction: Eviction) {
        if eviction != self.policy.eviction() {
            self.policy.clear(&mut self.arena);
            self.policy = Policy::new(eviction);
            self.sweep.adoption = Some(0);
        }
    }

    /// Does a bounded part of what there is to do between requests.
    pub fn work(&mut self, now: UnixMs) -> Next {
        let mut left = QUADS_PER_CALL;
        // In the order of what cannot wait: a write makes the index grow, too.
        let next = [
            self.expire_due(now, &mut left),
            self.expire_fields(now, &mut left),
            self.free_gone(&mut left),
            self.lower_limit(now, &mut left),
            self.flush_some(&mut left),
            self.adopt_some(&mut left),
            self.expire_some(now, &mut left),
            self.resize_index(&mut left),
        ];
        next.into_iter().min().unwrap_or(Next::Idle)
    }

    fn resize_index(&mut self, left: &mut u32) -> Next {
        self.index.consider_growth(&self.arena);
        if self.may_shrink() {
            self.index.consider_shrinking();
        }
        while spend(left, 1) {
            if !self.grow() {
                // Nothing to do, or no pages to do it with: the next write brings some about.
                break;
            }
        }
        let goes_on = self.index.is_growing() && self.arena.free_pages() >= STEP_PAGES_MAX;
        let comes_next = !self.index.is_growing() && self.may_shrink() && self.index.has_few_entries();
        if goes_on || comes_next { Next::Now } else { Next::Idle }
    }

    /// False while a pass may have removed most entries of the first hashes, and none of the last: in a smaller table those
    /// would not find room, but for long chains.
    fn may_shrink(&self) -> bool {
        !self.sweep.is_flushing() && (self.expiring == 0 || self.sweep.few_entries == [true; 2])
    }

    /// Removes what the timing wheel says is due.
    fn expire_due(&mut self, now: UnixMs, left: &mut u32) -> Next {
        while *left >= QUADS_PER_DUE_BLOCK {
            let Some(due) = self.wheel.due(&mut self.arena, now) else {
                return if self.wheel.marks() > 0 { Next::In(Wheel::next_in_ms(now)) } else { Next::Idle };
            };
            *left -= QUADS_PER_DUE_BLOCK;
            due.marks().iter().for_each(|&mark| self.index.prefetch_mark(&self.arena, mark));
            for &mark in due.marks() {
                self.find_expired_fields(mark, now);
                if let Some(item) = self.index.likely_marked(&self.arena, mark) {
                    self.arena.prefetch(item);
                }
            }
            due.marks().iter().for_each(|&mark| self.expire_marked(mark, now));
        }
        Next::Now
    }

    /// Removes the item of a mark if it has expired; enters it again if its expiry was put off.
    fn expire_marked(&mut self, mark: HashMark, now: UnixMs) {
        let memory = self.arena.memory();
        let mut later = None;
        let expired = self.index.find_mark(memory, mark, |at| {
            let item = self.index.reference(memory, at);
            let header = Header::read(memory, place(item));
            let Some(expires) = header.expires(memory, place(item)) else { return false };
            if HashMark::of(eviction::hash_of(memory, &self.hasher, item)) != mark {
                return false;
            }
            if expires > now && header.is_in_wheel() {
                later = Some((item, expires));
            }
            expires <= now
        });
        if let Some(at) = expired {
            let visited = self.visited(at);
            self.lag.record(now - visited.header.expires(self.arena.memory(), place(visited.item)).unwrap_or(now));
            self.count_expired(visited.hash, visited.item, visited.header, now);
            self.remove_entry(visited.hash, at, visited.item, visited.header);
        } else if let Some((item, expires)) = later {
            let near = expires <= now + HORIZON_MS;
            let entered = near && self.wheel.insert(&mut self.arena, mark, expires, now);
            item::set_in_wheel(self.arena.memory_mut(), place(item), entered);
        }
    }

    /// Frees some of the collections that are gone.
    fn free_gone(&mut self, left: &mut u32) -> Next {
        while !self.deferred.is_empty() && spend(left, 1) {
            (0..NODES_PER_QUAD).for_each(|_| _ = self.deferred.free_one(&mut self.arena));
        }
        if self.deferred.is_empty() { Next::Idle } else { Next::Now }
    }

    /// Brings the limit of memory down to what it was set to, as far as pages can be freed.
    fn lower_limit(&mut self, now: UnixMs, left: &mut u32) -> Next {
        while self.pages_wanted < self.arena.limit_pages() {
            let most = self.arena.held_pages() + FREE_PAGES_AIMED_AT;
            self.arena.set_limit_pages(self.pages_wanted.max(most).min(self.arena.limit_pages()));
            if self.pages_wanted >= self.arena.limit_pages() {
                break;
            }
            if !spend(left, 1) {
                return Next::Now;
            }
            if !self.give_up_some(EVICTED_BYTES_PER_QUAD, now) {
                // There is nobody to evict: perhaps later.
                return Next::In(1000);
            }
        }
        Next::Idle
    }

    fn flush_some(&mut self, left: &mut u32) -> Next {
        // One pass at a time, which removes what any of them has made void.
        let Some(mut from) = self.sweep.flushes.first().map(|flush| flush.from) else { return Next::Idle };
        while spend(left, 1) {
            let end = self.visit_quad(from as HashPosition, |engine, entry| {
                if engine.is_flushed(entry.hash, entry.item, entry.header) {
                    engine.remove_entry(entry.hash, entry.at, entry.item, entry.header);
                }
            });
            from = end;
            if from == END {
                self.sweep.flushes.remove(0);
                return if self.sweep.is_flushing() { Next::Now } else { Next::Idle };
            }
            self.sweep.flushes[0].from = from;
        }
        Next::Now
    }

    fn adopt_some(&mut self, left: &mut u32) -> Next {
        let Some(mut from) = self.sweep.adoption else { return Next::Idle };
        while spend(left, 1) {
            if self.policy.adoption_takes_pages() && self.arena.free_pages() <= RESERVE_PAGES {
                // The next writes make room for some.
                return Next::In(1);
            }
            from = self.visit_quad(from as HashPosition, |engine, entry| {
                let bytes = value::footprint(&engine.arena, entry.item);
                let entrant = Entrant { hash: entry.hash, bytes, may_expire: entry.header.may_expire() };
                let byte = engine.policy.adopt(&mut engine.arena, entrant);
                engine.index.set_policy(engine.arena.memory_mut(), entry.at, byte);
            });
            self.sweep.adoption = (from != END).then_some(from);
            if from == END {
                return Next::Idle;
            }
        }
        Next::Now
    }

    /// Keeps the pass at the pace at which it takes [`EXPIRY_PASS_MS`].
    fn expire_some(&mut self, now: UnixMs, left: &mut u32) -> Next {
        let passed = now.saturating_sub(std::mem::replace(&mut self.sweep.paced, now));
        if self.expiring == 0 && !self.field_sweep.is_expected(now) {
            self.sweep.owed = 0;
            return Next::Idle;
        }
        let quads = u64::from(self.index.quads());
        // Never more than one pass.
        self.sweep.owed = (self.sweep.owed + passed * quads).min(quads * EXPIRY_PASS_MS);
        let due = (self.sweep.owed / EXPIRY_PASS_MS) as u32;
        if due < QUADS_PER_CALL {
            return Next::In((u64::from(QUADS_PER_CALL) * EXPIRY_PASS_MS / quads).clamp(EXPIRY_INTERVAL_MS, 1000));
        }
        for _ in 0..due {
            if !spend(left, 1) {
                break;
            }
            self.sweep.owed -= EXPIRY_PASS_MS;
            let from = self.sweep.expiry;
            let end = self.visit_quad(from, |engine, entry| {
                if engine.is_expired(entry.item, entry.header, now) {
                    engine.count_expired(entry.hash, entry.item, entry.header, now);
                    engine.remove_entry(entry.hash, entry.at, entry.item, entry.header);
                } else if engine.has_expired_fields(entry.item, entry.header, now) {
                    engine.field_sweep.add(entry.hash);
                }
            });
            self.sweep.expiry = end as HashPosition;
            if end == END {
                self.sweep.few_entries = [self.index.has_few_entries(), self.sweep.few_entries[0]];
            }
        }
        Next::Now
    }

    /// Calls `visit`, which may remove the entry, for the entries of the quad at a position, from that position on; returns
    /// where the next quad starts.
    ///
    /// Line by line from the end of the chain: a removal fills the place with an entry of the last bucket, which has been
    /// visited then, and frees no bucket that is still to come.
    fn visit_quad(&mut self, from: HashPosition, mut visit: impl FnMut(&mut Self, Visited)) -> u64 {
        let (lines, next) = self.index.quad(from);
        let end = if next == 0 { END } else { u64::from(next) };
        let (mut ahead, mut count) = (lines, 0);
        while let Some(line) = ahead.next(self.arena.memory()) {
            let bucket = Bucket::at(self.arena.memory(), line);
            entries(bucket.used()).for_each(|entry| self.arena.prefetch(bucket.reference(entry)));
            count += 1;
        }
        if end < END {
            self.index.prefetch_quad(&self.arena, end as HashPosition);
        }
        for number in (0..count).rev() {
            let mut rest = lines;
            let line = std::iter::from_fn(|| rest.next(self.arena.memory())).nth(number);
            let line = line.expect("only buckets behind this one were freed");
            for entry in entries(Bucket::at(self.arena.memory(), line).used()) {
                let visited = self.visited(Position { line, entry: entry as u8 });
                if (u64::from(from)..end).contains(&u64::from(visited.hash.position())) {
                    visit(self, visited);
                }
            }
        }
        end
    }

    fn visited(&self, at: Position) -> Visited {
        let memory = self.arena.memory();
        let item = self.index.reference(memory, at);
        let hash = eviction::hash_of(memory, &self.hasher, item);
        Visited { hash, at, item, header: Header::read(memory, place(item)) }
    }
}
