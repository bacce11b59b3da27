//! Background work in bounded steps: a delayed flush, expiry, and the passes over all entries.
//!
//! | pass | runs | effect |
//! |---|---|---|
//! | flush | after a flush | removes the items written before it |
//! | adoption | after a change of the policy | has the new policy adopt each entry |
//! | expiry | while any item expires | removes expired items; one pass takes 25 seconds |
//!
//! Free pages go back to the system if none of them was needed for ten seconds, after the limit of memory was lowered,
//! and by MEMORY PURGE.
//!
//! The state of a pass is a position in hash order, so resizing the index and moving entries do not disturb it.

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

/// The work of one call, in quads that a pass visits or that the index grows by. The worst quad is one whose 36 items
/// are all removed while none is in the CPU's caches: about 15 microseconds. A shard calls once per turn and once more
/// per batch of requests in it, so background work keeps pace with requests.
const QUADS_PER_CALL: u32 = 2;
/// Cost in quads of a block of due marks, with its 62 items.
const QUADS_PER_DUE_BLOCK: u32 = 2;
/// Nodes of deleted collections that are freed per quad of budget.
const NODES_PER_QUAD: u32 = 8;
/// Bytes that are evicted and moved per quad of budget while the memory limit is being lowered.
const EVICTED_BYTES_PER_QUAD: usize = 2048;
/// Pages that are given back to the system per quad of budget: madvise takes 1 to 2 microseconds for one.
const RELEASED_PER_QUAD: u32 = 8;
/// Free pages go back to the system if they were not needed for this time.
const IDLE_MS: u64 = 10_000;
/// That many stay, as a fraction of the limit: 1/64. A shard that is full has a few free pages at any time.
const KEPT_PART: u32 = 64;
/// Duration of one expiry pass.
pub(super) const EXPIRY_PASS_MS: u64 = 25_000;
/// Shortest interval between steps of the expiry pass when the shard is otherwise idle.
const EXPIRY_INTERVAL_MS: u64 = 20;

/// When to call [`Engine::work`] again, unless a request comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Next {
    /// At once: more work is pending.
    Now,
    /// After this many milliseconds.
    In(u64),
    /// Not until a request comes.
    Idle,
}

/// The position after the last one.
const END: u64 = 1 << 32;

/// A flush, and the progress of the pass that removes the items written before it.
struct Flush {
    /// The version counters at the time of the flush.
    versions: Versions,
    /// The flushed databases, one bit each.
    databases: u16,
    from: u64,
}

/// Progress of the passes over all entries.
pub(super) struct Sweep {
    /// Flushes whose passes are not complete.
    flushes: Vec<Flush>,
    /// Progress of the adoption by a new policy; None if there is none to do.
    adoption: Option<u64>,
    expiry: HashPosition,
    /// Time of the last step of the expiry pass, and the work due since then: quads times milliseconds.
    paced: UnixMs,
    owed: u64,
    /// Whether the index was sparse when the last expiry pass ended, and the one before.
    few_entries: [bool; 2],
}

impl Sweep {
    pub(super) fn new(now: UnixMs) -> Self {
        Self { flushes: Vec::new(), adoption: None, expiry: 0, paced: now, owed: 0, few_entries: [false; 2] }
    }

    /// True if flushed items may still be in the index.
    #[inline]
    pub(super) fn is_flushing(&self) -> bool {
        !self.flushes.is_empty()
    }

    /// True if a flush invalidated this version of a key and its pass has not reached the key.
    pub(super) fn has_flushed(&self, hash: KeyHash, group: Group, version: u64) -> bool {
        let of_it = |flush: &&Flush| flush.databases >> hash.database() & 1 == 1;
        let ahead = |flush: &&Flush| u64::from(hash.position()) >= flush.from;
        self.flushes.iter().filter(of_it).filter(ahead).any(|flush| flush.versions.includes(group, version))
    }

    /// True if the current policy has adopted the entries at a position.
    #[inline]
    pub(super) fn is_adopted(&self, position: HashPosition) -> bool {
        self.adoption.is_none_or(|from| u64::from(position) < from)
    }
}

/// Free pages on their way back to the system.
pub(super) struct Release {
    /// How many more are to go.
    pub(super) pages: u32,
    /// When those that are idle were last looked for.
    looked: UnixMs,
}

impl Release {
    pub(super) fn new(now: UnixMs) -> Self {
        Self { pages: 0, looked: now }
    }
}

/// Histogram of the timing wheel's lag, in steps of 16 milliseconds.
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
    /// At this total all counts are halved, so that old samples fade.
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

    /// The 99th percentile in milliseconds; 0 without samples.
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

/// Deducts `quads` from the budget `left`; false if it does not suffice.
fn spend(left: &mut u32, quads: u32) -> bool {
    let enough = *left >= quads;
    if enough {
        *left -= quads;
    }
    enough
}

/// An entry that a pass visits.
#[derive(Clone, Copy)]
struct Visited {
    hash: KeyHash,
    at: Position,
    item: Reference,
    header: Header,
}

impl Engine {
    /// Advances the engine's time: takes note of `now` and applies a delayed flush that is due. Call before a batch of
    /// requests.
    #[inline]
    pub fn advance(&mut self, now: UnixMs) {
        self.policy.note_time(now);
        if self.flush_due.is_some_and(|due| due <= now) && self.holds.is_empty() {
            self.flush();
        }
    }

    /// Flushes all databases: no item written before this call is found any more; a pass frees their memory.
    pub fn flush(&mut self) {
        self.flush_due = None;
        self.flush_databases(u16::MAX);
    }

    /// Flushes one database, as [`Engine::flush`] does all.
    pub fn flush_database(&mut self, number: u8) {
        self.flush_databases(1 << number);
    }

    fn flush_databases(&mut self, databases: u16) {
        // This flush covers what an earlier flush of the same databases was to remove.
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

    /// Schedules a flush of all databases, which also covers what is written until then. Replaces an earlier schedule.
    pub fn flush_at(&mut self, due: UnixMs) {
        self.flush_due = Some(due);
    }

    /// Changes the eviction policy. A pass has the new policy adopt the existing entries.
    pub fn set_eviction(&mut self, eviction: Eviction) {
        if eviction != self.policy.eviction() {
            self.policy.clear(&mut self.arena);
            self.policy = Policy::new(eviction);
            self.sweep.adoption = Some(0);
        }
    }

    /// Does a bounded amount of background work.
    pub fn work(&mut self, now: UnixMs) -> Next {
        let mut left = QUADS_PER_CALL;
        // In order of urgency. The growth of the index comes last because writes advance it, too.
        let next = [
            self.expire_due(now, &mut left),
            self.expire_fields(now, &mut left),
            self.free_gone(&mut left),
            self.lower_limit(now, &mut left),
            self.flush_some(&mut left),
            self.adopt_some(&mut left),
            self.expire_some(now, &mut left),
            self.resize_index(&mut left),
            self.release_some(now, &mut left),
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
                // Nothing to do, or no free pages for a step: the next write frees some.
                break;
            }
        }
        let goes_on = self.index.is_growing() && self.arena.free_pages() >= STEP_PAGES_MAX;
        let comes_next = !self.index.is_growing() && self.may_shrink() && self.index.has_few_entries();
        if goes_on || comes_next { Next::Now } else { Next::Idle }
    }

    /// A smaller table needs entries that are spread evenly over the hashes; otherwise some quads would get long
    /// chains. A flush or expiry pass under way may have removed most entries behind it and none ahead of it.
    fn may_shrink(&self) -> bool {
        !self.sweep.is_flushing() && (self.expiring == 0 || self.sweep.few_entries == [true; 2])
    }

    /// Removes the items whose marks in the timing wheel are due.
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

    /// Removes the item of a mark if it has expired, or enters it again if its expiry was postponed.
    fn expire_marked(&mut self, mark: HashMark, now: UnixMs) {
        let memory = self.arena.memory();
        let mut later = None;
        let expired = self.index.find_mark(memory, mark, |at| {
            let item = self.index.reference(memory, at);
            let header = Header::read(memory, place(item));
            let Some(expires) = header.expires(memory, place(item)) else { return false };
            let hash = eviction::hash_of(memory, &self.hasher, item);
            // A held item is found by the expiry pass once it has been released.
            if HashMark::of(hash) != mark || self.is_held(hash) {
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

    /// Frees nodes of deleted collections.
    fn free_gone(&mut self, left: &mut u32) -> Next {
        while !self.deferred.is_empty() && spend(left, 1) {
            (0..NODES_PER_QUAD).for_each(|_| _ = self.deferred.free_one(&mut self.arena));
        }
        if self.deferred.is_empty() { Next::Idle } else { Next::Now }
    }

    /// Lowers the memory limit towards `pages_wanted`, as far as pages can be freed.
    fn lower_limit(&mut self, now: UnixMs, left: &mut u32) -> Next {
        while self.pages_wanted < self.arena.limit_pages() {
            let most = self.arena.held_pages() + FREE_PAGES_AIMED_AT;
            self.arena.set_limit_pages(self.pages_wanted.max(most).min(self.arena.limit_pages()));
            self.purge();
            if self.pages_wanted >= self.arena.limit_pages() {
                break;
            }
            if !spend(left, 1) {
                return Next::Now;
            }
            // An index for as many items as there were would take the place of those that may stay.
            if !self.sweep.is_flushing() {
                self.index.consider_shrinking();
            }
            if self.grow() {
                continue;
            }
            if !self.give_up_some(EVICTED_BYTES_PER_QUAD, now) {
                // Nothing can be evicted now; try again later.
                return Next::In(1000);
            }
        }
        Next::Idle
    }

    /// Gives free pages back to the system: those that were asked for, and those that have been idle.
    fn release_some(&mut self, now: UnixMs, left: &mut u32) -> Next {
        let kept = FREE_PAGES_AIMED_AT + self.arena.limit_pages() / KEPT_PART;
        if now.saturating_sub(self.release.looked) >= IDLE_MS {
            self.release.looked = now;
            self.release.pages = self.release.pages.max(self.arena.take_idle().saturating_sub(kept));
        }
        while self.release.pages > 0 && spend(left, 1) {
            for _ in 0..RELEASED_PER_QUAD.min(self.release.pages) {
                self.release.pages = if self.arena.release_page() { self.release.pages - 1 } else { 0 };
            }
        }
        match self.release.pages {
            0 if self.arena.resident_pages() <= kept => Next::Idle,
            0 => Next::In((self.release.looked + IDLE_MS).saturating_sub(now).max(1)),
            _ => Next::Now,
        }
    }

    fn flush_some(&mut self, left: &mut u32) -> Next {
        // The pass of one flush at a time; it removes the items that any flush invalidated.
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
                // The next writes free some pages.
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

    /// Advances the expiry pass at a pace at which it takes [`EXPIRY_PASS_MS`].
    fn expire_some(&mut self, now: UnixMs, left: &mut u32) -> Next {
        let passed = now.saturating_sub(std::mem::replace(&mut self.sweep.paced, now));
        if self.expiring == 0 && !self.field_sweep.is_expected(now) {
            self.sweep.owed = 0;
            return Next::Idle;
        }
        let quads = u64::from(self.index.quads());
        // At most one whole pass is ever due.
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
                if engine.is_held(entry.hash) {
                    return;
                }
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

    /// Calls `visit` for the entries of the quad at position `from` whose own position is not below `from`; returns
    /// where the next quad starts. `visit` may remove the entry.
    ///
    /// Buckets are visited from the end of the chain backwards: a removal moves an entry of the last bucket, already
    /// visited, into the gap, and frees no bucket that is still to be visited.
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
