//! Eviction policies: who goes when there is no room.
//!
//! A policy keeps one byte per index entry, in the line that a lookup has loaded anyway, so a hit costs a byte written
//! there and never touches the item. One file per policy; [`Policy`] dispatches to them by a `match`.

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

/// What a policy sees of the engine when it looks for a victim.
pub(super) struct View<'a> {
    pub(super) arena: &'a mut Arena,
    pub(super) index: &'a Index,
    pub(super) hasher: &'a KeyHasher,
    /// Bytes of all items.
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

    /// Bytes that the item of an entry takes.
    fn footprint(&self, at: Position) -> u64 {
        value::footprint(self.arena, self.reference(at))
    }

    /// The entry that a mark was made for, if `wanted` accepts its policy byte.
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

/// Marks that are taken from a queue, at most, in search of a victim.
const POPPED_MAX: usize = 128;
/// Marks ahead of the queue's end whose quads are loaded beforehand.
const MARKS_AHEAD: usize = 8;

/// Takes marks from a queue, at most `budget`, until one leads to an entry whose byte is `wanted` for the mark's serial.
/// Returns that mark and the entry.
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

/// Looks at two marks of a queue that holds more stale ones than good ones, and puts back what leads somewhere, with the byte
/// that its new serial makes of the old byte. Called for each one that is added, so stale marks become fewer.
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

/// A new entry, or one that comes from another policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entrant {
    pub(super) hash: KeyHash,
    /// Bytes that the item takes.
    pub(super) bytes: u64,
    pub(super) may_expire: bool,
}

/// What will be there when memory is full, if items go on to be as they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outlook {
    pub(super) entries: u64,
    /// Bytes that their items take.
    pub(super) bytes: u64,
}

/// What an eviction policy does. Defaults are for those that have no state of that kind.
trait Rules {
    /// A new entry: returns its byte.
    fn admit(&mut self, arena: &mut Arena, entrant: Entrant, outlook: Outlook) -> u8;

    /// An entry that another policy was in charge of: returns its byte.
    fn adopt(&mut self, arena: &mut Arena, entrant: Entrant) -> u8;

    /// True if [`Rules::adopt`] takes pages, because it puts the entry into a queue.
    fn adoption_takes_pages(&self) -> bool {
        false
    }

    /// A hit: returns the entry's next byte.
    fn hit(&mut self, byte: u8) -> u8;

    /// The next to go. None if the policy has none to offer.
    fn victim(&mut self, view: &mut View) -> Option<Position>;

    /// The item of an entry takes more or fewer bytes now.
    fn resized(&mut self, _byte: u8, _from: u64, _to: u64) {}

    /// An item has got a time of expiry, or lost it: returns the next byte.
    fn retimed(&mut self, byte: u8, _may_expire: bool) -> u8 {
        byte
    }

    /// An entry goes, whatever the reason.
    fn removed(&mut self, _byte: u8, _bytes: u64) {}

    /// Bounded housekeeping, once per admission or so.
    fn tidy(&mut self, _view: &mut View) {}

    /// An entry was evicted.
    fn evicted(&mut self, _arena: &mut Arena, _hash: KeyHash, _byte: u8, _entries: u64) {}

    /// Gives all pages back.
    fn clear(&mut self, _arena: &mut Arena) {}

    /// Pages that it holds, for the accounting.
    #[cfg(test)]
    fn pages(&self, _arena: &Arena) -> Vec<PageNumber> {
        Vec::new()
    }
}

/// The policy in charge, with its state.
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

/// `match self { each policy => body with `policy` bound to it }`
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

    /// Takes note of the time, where the policy has use for it.
    #[inline]
    pub(super) fn note_time(&mut self, now: UnixMs) {
        if let Self::Lru(lru) = self {
            lru.note_time(now);
        }
    }

    /// How often an entry is used, on a logarithmic scale.
    pub(super) fn frequency(&self, byte: u8) -> Option<u8> {
        if let Self::Lfu(lfu) = self { Some(lfu.frequency(byte)) } else { None }
    }

    /// How long ago an entry was used, roughly.
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
