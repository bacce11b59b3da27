//! The index: from the hash of a key to its item and to the byte of the eviction policy.
//!
//! A bucket is one 64-byte line of 10 entries (`bucket.rs`). Four buckets form a quad, which covers one contiguous
//! range of hashes. An entry lives in its home bucket; if that is full, in any other bucket of the quad; if all are
//! full, in a bucket chained to the quad. Each bucket counts the entries displaced from it, so that a lookup usually
//! reads one line.
//!
//! ```text
//! hash, 64 bits:  | position 32          | ghost 16 | tag 8 | 0 | database 4 | home 2 |
//!                   quad = position x quads / 2^32
//! bucket, 64 B:   | tag x 10 | policy byte x 10 | reference x 10 | displaced 4, chained line 28 |
//! ```
//!
//! Quads are in hash order whatever their number. So growing is a sweep in that order (`growth.rs`), a lookup probes
//! one table even during the sweep, and the cursor of a scan is a hash position, which stays valid when the index is
//! resized. (Plain linear hashing is a trap: late in a round, the quads not yet split carry twice the load.)
//!
//! The tables lie in whole pages of the arena, found through a small directory; chained buckets lie in chunks of a
//! class of their own.

mod bucket;
#[cfg(test)]
mod check;
mod growth;

use super::KeyHash;
use super::arena::{Arena, Class, PageNumber, Reference, place, reference};
use crate::sys::prefetch;
pub(super) use bucket::{BUCKET_BYTES, Bucket};
use growth::Growth;
pub(super) use growth::STEP_PAGES_MAX;

/// Buckets in a quad.
const QUAD: u32 = 4;
/// Buckets that entries are added to in the chain of a quad: 200 entries fit. A quad has at most 36 on average, so keys
/// that do not collide on purpose never fill a chain; keys that a client has chosen to collide evict one another.
/// Without a bound, 10,000 of those made a SET 17 times as slow. (A smaller table takes longer chains over from a
/// larger one.)
const CHAINED_MAX: u32 = 16;
const QUAD_BYTES: usize = QUAD as usize * BUCKET_BYTES;

/// Position in hash order: the upper 32 bits of the hash.
pub(super) type HashPosition = u32;

/// The 32 bits of a hash that queues and the timing wheel keep: the upper bits of the position, the home, and the tag.
/// A mark leads back to one bucket and to the few entries in it, usually one, that share its tag. In a shard of more
/// than 2^22 quads (150 million items) it leads to that bucket in each of a few quads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HashMark(pub(super) u32);

/// Low bits of a mark: the tag. The home lies above it, in the place of low bits of the position.
const MARK_TAG_BITS: u32 = 8;
const MARK_LOW_BITS: u32 = MARK_TAG_BITS + QUAD.ilog2();

/// Line and number of an entry; valid until the index changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: u32,
    pub(super) entry: u8,
}

/// Why an entry cannot be added: the quad and its chain have none that is free.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum QuadFull {
    /// The arena has no chunk for another chained bucket.
    NoChunk,
    /// The chain has [`CHAINED_MAX`] buckets: one of its entries has to go first.
    LongChain,
}

/// Quads, in pages of the arena.
#[derive(Debug)]
struct Table {
    quads: u32,
    /// The page for each `quads_per_page` quads; `NONE` where the sweep has not yet arrived or has passed.
    pages: Vec<PageNumber>,
}

/// The index of one shard.
pub(super) struct Index {
    table: Table,
    growth: Option<Growth>,
    entries: u64,
    page_count: u64,
    chain: Class,
    /// Base-2 logarithm of the quads in a page.
    quads_per_page_shift: u32,
    /// Base-2 logarithm of the lines in a page.
    lines_per_page_shift: u32,
}

impl Index {
    /// An empty index of one page. Chained buckets are chunks of class `chain`.
    pub(super) fn new(arena: &mut Arena, chain: Class) -> Self {
        let quads_per_page = arena.page_bytes() / QUAD_BYTES;
        let page = arena.take_zeroed_page().expect("a new arena has pages");
        Self {
            table: Table { quads: quads_per_page as u32, pages: vec![page] },
            growth: None,
            entries: 0,
            page_count: 1,
            chain,
            quads_per_page_shift: quads_per_page.ilog2(),
            lines_per_page_shift: (arena.page_bytes() / BUCKET_BYTES).ilog2(),
        }
    }

    /// Entries in use.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// The first line of the quad that covers a position.
    #[inline]
    fn quad_line(&self, position: HashPosition) -> u32 {
        let (table, quad) = self.quad_at(position);
        self.line_of(table, quad)
    }

    #[inline]
    fn quad_at(&self, position: HashPosition) -> (&Table, u32) {
        if let Some(growth) = &self.growth {
            let quad = growth.old.quad(position);
            if quad >= growth.swept {
                return (&growth.old, quad);
            }
        }
        (&self.table, self.table.quad(position))
    }

    #[inline]
    fn line_of(&self, table: &Table, quad: u32) -> u32 {
        let page = table.pages[(quad >> self.quads_per_page_shift) as usize];
        let in_page = quad & ((1 << self.quads_per_page_shift) - 1);
        (page << self.lines_per_page_shift) + in_page * QUAD
    }

    #[inline]
    fn home_line(&self, hash: KeyHash) -> u32 {
        self.quad_line(hash.position()) + hash.home()
    }

    /// Prefetches the home bucket.
    #[inline]
    pub(super) fn prefetch(&self, arena: &Arena, hash: KeyHash) {
        self.prefetch_line(arena, self.home_line(hash));
    }

    /// Prefetches the quad that covers a position.
    pub(super) fn prefetch_quad(&self, arena: &Arena, position: HashPosition) {
        let line = self.quad_line(position);
        (line..line + QUAD).for_each(|line| self.prefetch_line(arena, line));
    }

    #[inline]
    fn prefetch_line(&self, arena: &Arena, line: u32) {
        prefetch(&arena.memory()[line as usize * BUCKET_BYTES]);
    }

    /// The reference of the first entry in the home bucket whose tag matches: what to prefetch next.
    #[inline]
    pub(super) fn likely_reference(&self, arena: &Arena, hash: KeyHash) -> Option<Reference> {
        let bucket = Bucket::at(arena.memory(), self.home_line(hash));
        let matches = bucket.matches(hash.tag());
        (matches != 0).then(|| bucket.reference(matches.trailing_zeros() as usize))
    }

    /// Finds the entry with the hash's tag whose reference satisfies `is_key`.
    #[inline]
    pub(super) fn find(
        &self,
        memory: &[u8],
        hash: KeyHash,
        mut is_key: impl FnMut(Reference) -> bool,
    ) -> Option<Position> {
        let quad = self.quad_line(hash.position());
        let home = quad + hash.home();
        if let Some(found) = find_in(memory, home, hash.tag(), &mut is_key) {
            return Some(found);
        }
        if !Bucket::at(memory, home).has_displaced() {
            return None;
        }
        let mut lines = QuadLines::of(quad);
        while let Some(line) = lines.next(memory) {
            if line != home
                && let Some(found) = find_in(memory, line, hash.tag(), &mut is_key)
            {
                return Some(found);
            }
        }
        None
    }

    /// The first entry that matches the mark and that `wanted` accepts.
    pub(super) fn find_mark(
        &self,
        memory: &[u8],
        mark: HashMark,
        mut wanted: impl FnMut(Position) -> bool,
    ) -> Option<Position> {
        let (first, last) = mark.positions();
        let mut search = |quad| find_marked_in(memory, quad, mark, &mut wanted);
        if self.quad_line(first) == self.quad_line(last) {
            return search(self.quad_line(first));
        }
        let mut at = first;
        loop {
            let (lines, next) = self.quad(at);
            let found = search(lines.quad);
            if found.is_some() || next == 0 || next > last {
                return found;
            }
            at = next;
        }
    }

    /// Prefetches the bucket that a mark leads to.
    #[inline]
    pub(super) fn prefetch_mark(&self, arena: &Arena, mark: HashMark) {
        self.prefetch_line(arena, self.quad_line(mark.positions().0) + mark.home());
    }

    /// The reference of the first entry in that bucket that matches the mark: what to prefetch next.
    #[inline]
    pub(super) fn likely_marked(&self, arena: &Arena, mark: HashMark) -> Option<Reference> {
        let bucket = Bucket::at(arena.memory(), self.quad_line(mark.positions().0) + mark.home());
        let matches = bucket.matches(mark.tag());
        (matches != 0).then(|| bucket.reference(matches.trailing_zeros() as usize))
    }

    /// Adds an entry. The caller has made sure that the key has none.
    pub(super) fn insert(
        &mut self,
        arena: &mut Arena,
        hash: KeyHash,
        reference: Reference,
        policy: u8,
    ) -> Result<Position, QuadFull> {
        let quad = self.quad_line(hash.position());
        let position = enter(arena, quad, hash, reference, policy, self.chain, CHAINED_MAX)?;
        self.entries += 1;
        Ok(position)
    }

    /// Any entry of the quad that a hash belongs to, of which none is free. `number` chooses it.
    pub(super) fn any_of_quad(&self, memory: &[u8], hash: KeyHash, number: u16) -> Option<Position> {
        let quad = self.quad_line(hash.position());
        let mut lines = QuadLines::of(quad);
        let count = std::iter::from_fn(|| lines.next(memory)).count();
        let mut lines = QuadLines::of(quad);
        let line = std::iter::from_fn(|| lines.next(memory)).nth(usize::from(number) % count)?;
        let used = Bucket::at(memory, line).used();
        let nth = usize::from(number) / count % (used.count_ones() as usize).max(1);
        entries(used).nth(nth).map(|entry| Position { line, entry: entry as u8 })
    }

    /// Removes an entry whose key has this hash. If buckets are chained to the quad, the last entry of the chain moves
    /// into its place, so that chains shrink again; `hash_of` hashes the key of that entry.
    pub(super) fn remove(
        &mut self,
        arena: &mut Arena,
        hash: KeyHash,
        at: Position,
        hash_of: impl Fn(&[u8], Reference) -> KeyHash,
    ) {
        let quad = self.quad_line(hash.position());
        let home = quad + hash.home();
        let memory = arena.memory_mut();
        Bucket::at_mut(memory, at.line).clear(usize::from(at.entry));
        self.entries -= 1;
        if at.line != home {
            Bucket::at_mut(memory, home).one_less_displaced();
        }
        let (mut lines, mut before, mut last) = (QuadLines::of(quad), 0, quad + QUAD - 1);
        while let Some(line) = lines.next_chained(memory) {
            (before, last) = (last, line);
        }
        if before == 0 {
            return;
        }
        if at.line != last
            && let Some(entry) = entries(Bucket::at(memory, last).used()).next()
        {
            let bucket = Bucket::at_mut(memory, last);
            let (reference, policy) = (bucket.reference(entry), bucket.policy(entry));
            bucket.clear(entry);
            let hash = hash_of(memory, reference);
            Bucket::at_mut(memory, at.line).set(usize::from(at.entry), hash.tag(), reference, policy);
            if at.line == quad + hash.home() {
                Bucket::at_mut(memory, at.line).one_less_displaced();
            }
        }
        if Bucket::at(memory, last).used() == 0 {
            Bucket::at_mut(memory, before).set_chained(0);
            arena.release(line_reference(last));
        }
    }

    #[inline]
    pub(super) fn reference(&self, memory: &[u8], at: Position) -> Reference {
        Bucket::at(memory, at.line).reference(usize::from(at.entry))
    }

    #[inline]
    pub(super) fn policy(&self, memory: &[u8], at: Position) -> u8 {
        Bucket::at(memory, at.line).policy(usize::from(at.entry))
    }

    #[inline]
    pub(super) fn set_policy(&self, memory: &mut [u8], at: Position, byte: u8) {
        Bucket::at_mut(memory, at.line).set_policy(usize::from(at.entry), byte);
    }

    pub(super) fn set_reference(&self, memory: &mut [u8], at: Position, reference: Reference) {
        Bucket::at_mut(memory, at.line).set_reference(usize::from(at.entry), reference);
    }

    /// The lines of the quad that covers a position, chained buckets included, and the position where the next quad
    /// starts (0 after the last quad).
    #[inline]
    pub(super) fn quad(&self, position: HashPosition) -> (QuadLines, HashPosition) {
        let (table, quad) = self.quad_at(position);
        let mut end = table.quad_end(quad);
        if let Some(growth) = &self.growth
            && growth.swept > 0
        {
            let boundary = growth.old.quad_end(growth.swept - 1);
            if u64::from(position) < boundary {
                end = end.min(boundary);
            }
        }
        (QuadLines::of(self.line_of(table, quad)), end as HashPosition)
    }

    /// Calls `visit` for all entries of at least one quad, from a cursor on; returns the next cursor, 0 at the end.
    /// Over a whole scan, an entry that is present all the time is visited at least once, however often the index is
    /// resized meanwhile.
    pub(super) fn scan(&self, memory: &[u8], cursor: HashPosition, mut visit: impl FnMut(Reference)) -> HashPosition {
        let (mut lines, next) = self.quad(cursor);
        while let Some(line) = lines.next(memory) {
            let bucket = Bucket::at(memory, line);
            entries(bucket.used()).for_each(|entry| visit(bucket.reference(entry)));
        }
        next
    }

    /// Pages of the tables.
    pub(super) fn page_count(&self) -> u64 {
        self.page_count
    }

    /// Quads of the table; during a sweep, of the larger table.
    pub(super) fn quads(&self) -> u32 {
        self.growth.as_ref().map_or(0, |g| g.old.quads).max(self.table.quads)
    }

    /// Pages of the tables, for the accounting.
    #[cfg(test)]
    pub(super) fn pages(&self) -> impl Iterator<Item = PageNumber> + '_ {
        let old = self.growth.iter().flat_map(|g| g.old.pages.iter());
        self.table.pages.iter().chain(old).copied().filter(|&page| page != super::arena::NONE)
    }
}

impl Table {
    #[inline]
    fn quad(&self, position: HashPosition) -> u32 {
        ((u64::from(position) * u64::from(self.quads)) >> 32) as u32
    }

    /// The first position after a quad.
    fn quad_end(&self, quad: u32) -> u64 {
        ((u64::from(quad) + 1) << 32).div_ceil(u64::from(self.quads))
    }
}

impl HashMark {
    /// The mark of a hash.
    #[inline]
    pub(super) fn of(hash: KeyHash) -> Self {
        let low = hash.home() << MARK_TAG_BITS | u32::from(hash.tag());
        Self(hash.position() & !((1 << MARK_LOW_BITS) - 1) | low)
    }

    /// The first and the last position that the hash of this mark may have.
    #[inline]
    pub(super) fn positions(self) -> (HashPosition, HashPosition) {
        let low = (1 << MARK_LOW_BITS) - 1;
        (self.0 & !low, self.0 | low)
    }

    /// Number of the home bucket within its quad.
    #[inline]
    fn home(self) -> u32 {
        self.0 >> MARK_TAG_BITS & (QUAD - 1)
    }

    #[inline]
    fn tag(self) -> u8 {
        self.0 as u8
    }
}

/// Iterates over the lines of a quad and its chain. It does not borrow the memory; the caller must not free buckets of
/// the chain meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct QuadLines {
    quad: u32,
    taken: u32,
    last: u32,
}

impl QuadLines {
    /// The lines of the quad that starts at line `quad`.
    #[inline]
    fn of(quad: u32) -> Self {
        Self { quad, taken: 0, last: 0 }
    }

    /// The next line.
    #[inline]
    pub(super) fn next(&mut self, memory: &[u8]) -> Option<u32> {
        if self.taken < QUAD {
            self.last = self.quad + self.taken;
            self.taken += 1;
            return Some(self.last);
        }
        // The chain hangs off the last bucket of the quad.
        match Bucket::at(memory, self.last).chained() {
            0 => None,
            next => {
                self.last = next;
                Some(next)
            }
        }
    }

    /// The next line of the chain, skipping the quad's own lines.
    fn next_chained(&mut self, memory: &[u8]) -> Option<u32> {
        if self.taken < QUAD {
            self.taken = QUAD;
            self.last = self.quad + QUAD - 1;
        }
        self.next(memory)
    }
}

/// The indices of the set bits.
#[inline]
pub(super) fn entries(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let entry = bits.trailing_zeros() as usize;
        (bits != 0).then(|| {
            bits &= bits - 1;
            entry
        })
    })
}

#[inline]
fn find_in(memory: &[u8], line: u32, tag: u8, is_key: &mut impl FnMut(Reference) -> bool) -> Option<Position> {
    let bucket = Bucket::at(memory, line);
    let mut matches = bucket.matches(tag);
    while matches != 0 {
        let entry = matches.trailing_zeros() as usize;
        if is_key(bucket.reference(entry)) {
            return Some(Position { line, entry: entry as u8 });
        }
        matches &= matches - 1;
    }
    None
}

/// The first entry in the quad at line `quad`, or its chain, that matches the mark and that `wanted` accepts.
#[inline]
fn find_marked_in(
    memory: &[u8],
    quad: u32,
    mark: HashMark,
    wanted: &mut impl FnMut(Position) -> bool,
) -> Option<Position> {
    let mut search = |line| {
        let matches = Bucket::at(memory, line).matches(mark.tag());
        entries(matches).map(|entry| Position { line, entry: entry as u8 }).find(|&at| wanted(at))
    };
    let home = quad + mark.home();
    if let Some(found) = search(home) {
        return Some(found);
    }
    if !Bucket::at(memory, home).has_displaced() {
        return None;
    }
    let mut lines = QuadLines::of(quad);
    while let Some(line) = lines.next(memory) {
        if line != home
            && let Some(found) = search(line)
        {
            return Some(found);
        }
    }
    None
}

/// Puts an entry into the quad at line `quad`: into its home bucket, into another of the quad, or into the chain, which
/// is lengthened to at most `chained_max` buckets if it is full.
fn enter(
    arena: &mut Arena,
    quad: u32,
    hash: KeyHash,
    reference: Reference,
    policy: u8,
    chain: Class,
    chained_max: u32,
) -> Result<Position, QuadFull> {
    let home = quad + hash.home();
    let near = [home, quad + (hash.home() ^ 1), quad + (hash.home() ^ 2), quad + (hash.home() ^ 3)];
    let memory = arena.memory();
    let free = |line: u32| Bucket::at(memory, line).free_entry().map(|entry| (line, entry));
    let mut found = near.into_iter().find_map(free);
    let (mut chained, mut count) = (QuadLines::of(quad), 0);
    while found.is_none()
        && let Some(line) = chained.next_chained(memory)
    {
        found = free(line);
        count += 1;
    }
    let (line, entry) = match found {
        Some(found) => found,
        None if count >= chained_max => return Err(QuadFull::LongChain),
        None => (lengthen_chain(arena, chained.last, chain)?, 0),
    };
    let memory = arena.memory_mut();
    Bucket::at_mut(memory, line).set(entry, hash.tag(), reference, policy);
    if line != home {
        Bucket::at_mut(memory, home).one_more_displaced();
    }
    Ok(Position { line, entry: entry as u8 })
}

/// Chains an empty bucket to `last`, the last bucket of a quad and its chain; returns its line.
fn lengthen_chain(arena: &mut Arena, last: u32, chain: Class) -> Result<u32, QuadFull> {
    let chunk = arena.allocate(chain).ok_or(QuadFull::NoChunk)?;
    let from = place(chunk);
    arena.memory_mut()[from..from + BUCKET_BYTES].fill(0);
    let line = (from / BUCKET_BYTES) as u32;
    Bucket::at_mut(arena.memory_mut(), last).set_chained(line);
    Ok(line)
}

fn line_reference(line: u32) -> Reference {
    reference(line as usize * BUCKET_BYTES)
}
