//! Eviction policies: which item is evicted when memory is full.
//!
//! A policy keeps one byte per index entry, in the cache line that a lookup has loaded anyway. So a hit writes one byte
//! there and never touches the item. There is one file per policy, and [`Policy`] dispatches by a `match`. To add one:
//! a file that implements [`Rules`], a variant here and in [`Eviction`], and the arms that the compiler then demands.

mod fifo;
mod lfu;
mod lru;
mod none;
mod random;
mod s3fifo;
mod sample;
mod sieve;
mod ttl;

#[cfg(test)]
use super::arena::PageNumber;
use super::arena::{Arena, Reference};
use super::index::{Bucket, HashMark, Index, Position, entries};
use super::item::Header;
use super::queue::Queue;
use super::{KeyHash, KeyHasher, value};
use crate::command::UnixMs;
use crate::eviction::Eviction;
pub(super) use sample::Random;

/// The parts of the engine that a policy reads to choose a victim.
pub(super) struct View<'a> {
    pub(super) arena: &'a mut Arena,
    pub(super) index: &'a Index,
    pub(super) hasher: &'a KeyHasher,
    /// Bytes of all items, including flushed ones.
    pub(super) item_bytes: u64,
}

impl View<'_> {
    fn reference(&self, at: Position) -> Reference {
        self.index.reference(self.arena.memory(), at)
    }

    fn policy(&self, at: Position) -> u8 {
        self.index.policy(self.arena.memory(), at)
    }

    fn set_policy(&mut self, at: Position, byte: u8) {
        self.index.set_policy(self.arena.memory_mut(), at, byte);
    }

    /// Bytes that the item of an entry occupies.
    fn footprint(&self, at: Position) -> u64 {
        value::footprint(self.arena, self.reference(at))
    }

    /// The entry that a mark leads to, if there is one whose policy byte `wanted` accepts.
    fn marked(&self, mark: HashMark, wanted: impl Fn(u8) -> bool) -> Option<Position> {
        let memory = self.arena.memory();
        self.index.find_mark(memory, mark, |at| {
            let key_hash = || hash_of(memory, self.hasher, self.index.reference(memory, at));
            wanted(self.index.policy(memory, at)) && HashMark::of(key_hash()) == mark
        })
    }
}

/// The hash of an item's key.
#[inline]
pub(super) fn hash_of(memory: &[u8], hasher: &KeyHasher, item: Reference) -> KeyHash {
    let at = super::arena::place(item);
    let header = Header::read(memory, at);
    let hash = hasher.hash(header.key(memory, at));
    if header.database() == 0 { hash } else { hash.in_database(header.database()) }
}

/// Most marks popped from a queue in search of one victim.
const POPPED_MAX: usize = 128;
/// The quad of the mark this far ahead in the queue is prefetched.
const MARKS_AHEAD: usize = 8;

/// Pops at most `budget` marks until one leads to an entry whose byte `wanted` accepts for the mark's serial; returns
/// that mark and entry. Deducts the marks popped from `budget`.
fn pop_marked(
    queue: &mut Queue,
    view: &mut View,
    budget: &mut usize,
    wanted: impl Fn(u8, u32) -> bool,
) -> Option<(HashMark, Position)> {
    while *budget > 0 {
        *budget -= 1;
        if let Some(ahead) = queue.peek(view.arena, MARKS_AHEAD) {
            view.index.prefetch_mark(view.arena, ahead);
        }
        let (mark, serial) = queue.pop(view.arena)?;
        if let Some(at) = view.marked(mark, |byte| wanted(byte, serial)) {
            return Some((mark, at));
        }
    }
    None
}

/// Pops two marks of a queue in which most are stale, and pushes back those that lead to an entry, whose byte then gets
/// the new serial. It is called for each mark pushed, so the number of stale marks falls.
fn tidy(
    queue: &mut Queue,
    view: &mut View,
    wanted: impl Fn(u8, u32) -> bool,
    byte_with_serial: impl Fn(u8, u32) -> u8,
) {
    for _ in 0..2 {
        let Some((mark, serial)) = queue.pop(view.arena) else { return };
        if let Some(at) = view.marked(mark, |byte| wanted(byte, serial)) {
            let serial = queue.push(view.arena, mark);
            view.set_policy(at, byte_with_serial(view.policy(at), serial));
        }
    }
}

/// A new entry, or one that the policy adopts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entrant {
    pub(super) hash: KeyHash,
    /// Bytes that the item occupies.
    pub(super) bytes: u64,
    pub(super) may_expire: bool,
}

/// Forecast of the index when memory is full, extrapolated from the items held now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outlook {
    pub(super) entries: u64,
    /// Bytes that their items will occupy.
    pub(super) bytes: u64,
    /// Bytes that items occupy now.
    pub(super) held_bytes: u64,
}

/// The rules of an eviction policy. The defaults suit policies that keep no such state.
trait Rules {
    /// Admits a new entry; returns its policy byte.
    fn admit(&mut self, arena: &mut Arena, entrant: Entrant, outlook: Outlook) -> u8;

    /// Adopts an entry that another policy admitted; returns its policy byte.
    fn adopt(&mut self, arena: &mut Arena, entrant: Entrant) -> u8;

    /// True if [`Rules::adopt`] takes pages, because it pushes the entry to a queue.
    fn adoption_takes_pages(&self) -> bool {
        false
    }

    /// Records a hit; returns the new policy byte.
    fn hit(&mut self, byte: u8) -> u8;

    /// Chooses the entry to evict. None if there is none.
    fn victim(&mut self, view: &mut View) -> Option<Position>;

    /// The bytes that an item occupies have changed.
    fn resized(&mut self, _byte: u8, _from: u64, _to: u64) {}

    /// An item has gained or lost its expiry time; returns the new policy byte.
    fn retimed(&mut self, byte: u8, _may_expire: bool) -> u8 {
        byte
    }

    /// An entry was removed, for whatever reason.
    fn removed(&mut self, _byte: u8, _bytes: u64) {}

    /// Bounded housekeeping, called for each admission.
    fn tidy(&mut self, _view: &mut View) {}

    /// An entry was removed because it was evicted.
    fn evicted(&mut self, _arena: &mut Arena, _hash: KeyHash, _byte: u8, _entries: u64) {}

    /// Frees all pages.
    fn clear(&mut self, _arena: &mut Arena) {}

    /// Pages in use, for the accounting.
    #[cfg(test)]
    fn pages(&self, _arena: &Arena) -> Vec<PageNumber> {
        Vec::new()
    }
}

/// The current policy and its state.
#[expect(clippy::large_enum_variant, reason = "there is one per engine, and its largest variant is the default")]
pub(super) enum Policy {
    S3Fifo(s3fifo::S3Fifo),
    Sieve(sieve::Sieve),
    Lru(lru::Lru),
    Lfu(lfu::Lfu),
    Fifo(fifo::Fifo),
    Ttl(ttl::Ttl),
    Random(random::Random),
    None(none::NoEviction),
}

/// `match self { each policy => body, with `policy` bound to it }`
macro_rules! dispatch {
    ($self:ident, $policy:ident => $body:expr) => {
        match $self {
            Policy::S3Fifo($policy) => $body,
            Policy::Sieve($policy) => $body,
            Policy::Lru($policy) => $body,
            Policy::Lfu($policy) => $body,
            Policy::Fifo($policy) => $body,
            Policy::Ttl($policy) => $body,
            Policy::Random($policy) => $body,
            Policy::None($policy) => $body,
        }
    };
}

impl Policy {
    pub(super) fn new(eviction: Eviction) -> Self {
        match eviction {
            Eviction::S3Fifo => Self::S3Fifo(s3fifo::S3Fifo::new()),
            Eviction::Sieve => Self::Sieve(sieve::Sieve::new()),
            Eviction::Lru => Self::Lru(lru::Lru::new()),
            Eviction::Lfu => Self::Lfu(lfu::Lfu::new()),
            Eviction::Fifo => Self::Fifo(fifo::Fifo::new()),
            Eviction::Ttl => Self::Ttl(ttl::Ttl::new()),
            Eviction::Random => Self::Random(random::Random::new()),
            Eviction::None => Self::None(none::NoEviction),
        }
    }

    pub(super) fn eviction(&self) -> Eviction {
        match self {
            Self::S3Fifo(_) => Eviction::S3Fifo,
            Self::Sieve(_) => Eviction::Sieve,
            Self::Lru(_) => Eviction::Lru,
            Self::Lfu(_) => Eviction::Lfu,
            Self::Fifo(_) => Eviction::Fifo,
            Self::Ttl(_) => Eviction::Ttl,
            Self::Random(_) => Eviction::Random,
            Self::None(_) => Eviction::None,
        }
    }

    /// Passes the time to policies that track it.
    #[inline]
    pub(super) fn note_time(&mut self, now: UnixMs) {
        if let Self::Lru(lru) = self {
            lru.note_time(now);
        }
    }

    /// Logarithmic access counter of an entry, if the policy keeps one.
    pub(super) fn frequency(&self, byte: u8) -> Option<u8> {
        if let Self::Lfu(lfu) = self { Some(lfu.frequency(byte)) } else { None }
    }

    /// Approximate time since the last access of an entry, if the policy tracks it.
    pub(super) fn idle_ms(&self, byte: u8, now: UnixMs) -> Option<u64> {
        if let Self::Lru(lru) = self { Some(lru.idle_ms(byte, now)) } else { None }
    }

    pub(super) fn admit(&mut self, arena: &mut Arena, entrant: Entrant, outlook: Outlook) -> u8 {
        dispatch!(self, policy => policy.admit(arena, entrant, outlook))
    }

    pub(super) fn adopt(&mut self, arena: &mut Arena, entrant: Entrant) -> u8 {
        dispatch!(self, policy => policy.adopt(arena, entrant))
    }

    pub(super) fn adoption_takes_pages(&self) -> bool {
        dispatch!(self, policy => policy.adoption_takes_pages())
    }

    #[inline]
    pub(super) fn hit(&mut self, byte: u8) -> u8 {
        dispatch!(self, policy => policy.hit(byte))
    }

    pub(super) fn victim(&mut self, view: &mut View) -> Option<Position> {
        dispatch!(self, policy => policy.victim(view))
    }

    pub(super) fn resized(&mut self, byte: u8, from: u64, to: u64) {
        dispatch!(self, policy => policy.resized(byte, from, to));
    }

    pub(super) fn retimed(&mut self, byte: u8, may_expire: bool) -> u8 {
        dispatch!(self, policy => policy.retimed(byte, may_expire))
    }

    pub(super) fn removed(&mut self, byte: u8, bytes: u64) {
        dispatch!(self, policy => policy.removed(byte, bytes));
    }

    pub(super) fn tidy(&mut self, view: &mut View) {
        dispatch!(self, policy => policy.tidy(view));
    }

    pub(super) fn evicted(&mut self, arena: &mut Arena, hash: KeyHash, byte: u8, entries: u64) {
        dispatch!(self, policy => policy.evicted(arena, hash, byte, entries));
    }

    pub(super) fn clear(&mut self, arena: &mut Arena) {
        dispatch!(self, policy => policy.clear(arena));
    }

    #[cfg(test)]
    pub(super) fn pages(&self, arena: &Arena) -> Vec<PageNumber> {
        dispatch!(self, policy => policy.pages(arena))
    }
}
