//! Layout of an item in its chunk.
//!
//! ```text
//!  0      2     3            6           12
//!  | bits | key | value  13  | version   | key    | expiry  | client | key bytes | value bytes |
//!  | 16   | len | ms     10  | 48 bits   | length | seconds | flags  |           | or parts    |
//!         |     | raw     1  |           | u16    | u32     | u32    |
//!                                        '- only for keys of 255 bytes and more, with EXPIRES, with FLAGS
//!
//!  bits:  type 0-2 | encoding 3-4 | EXPIRES 5 | FLAGS 6 | IN_WHEEL 7 | DETACHED 8 | database 9-12
//!         | stale 13 | win 14 | incomplete 15
//! ```
//!
//! All numbers are little-endian. `raw` is set on a string that was modified in place: Redis does not report such a
//! string as an integer. Expiry is Unix time, as seconds and the milliseconds within the second. A value that does not
//! fit into the chunk is stored in parts elsewhere, which are listed in place of the value (`value.rs`); the encoding
//! bits say so. The database number is in use; stale and win (memcached's meta commands) and incomplete (replication)
//! are reserved and 0. The body of a collection is the whole collection if it is small, or the record that leads to its
//! trees (`collection/`).
//!
//! Three more types mark chunks that are not items: a node of a collection, a block of a long value, and a free chunk.

use crate::command::{DATABASES, UnixMs};

/// Bytes of a header without its optional fields.
pub(super) const HEADER_BYTES: usize = 12;
/// Longest value that is stored in the chunk of its item, by the width of its length field.
const INLINE_BYTES_MAX: usize = (1 << 13) - 1;

const _: () = assert!(super::arena::CHUNK_BYTES_MAX <= INLINE_BYTES_MAX);
/// Longest key, in bytes: an item with such a key and the list of a long value's parts still fits into a chunk.
pub const KEY_BYTES_MAX: usize = 3900;

/// For keys of this length and more, the length follows the header.
const LONG_KEY: usize = 255;

const TYPE: u16 = 7;
/// Type of the chunks that make up a large collection.
pub(super) const NODE: u16 = 5;
const BLOCK: u16 = 6;
const FREE: u16 = 7;
const LONG_VALUE: u16 = 1 << 3;
const LARGE: u16 = 1 << 4;
const EXPIRES: u16 = 1 << 5;
const FLAGS: u16 = 1 << 6;
const IN_WHEEL: u16 = 1 << 7;
const DETACHED: u16 = 1 << 8;
const DATABASE_SHIFT: u32 = 9;

/// Four bits hold the number of a database.
const _: () = assert!(DATABASES == 16);

/// Masks of the 24 bits after the key length.
const INLINE: u32 = INLINE_BYTES_MAX as u32;
const MILLISECONDS: u32 = 0x3ff;
const MILLISECONDS_SHIFT: u32 = 13;
const RAW: u32 = 1 << 23;

/// The highest version.
pub(super) const VERSION_MAX: u64 = (1 << 48) - 1;

/// The type of a value, as clients see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Bytes.
    #[default]
    String,
    /// A list.
    List,
    /// A set.
    Set,
    /// A sorted set.
    SortedSet,
    /// A hash.
    Hash,
}

impl Kind {
    const ALL: [Self; 5] = [Self::String, Self::List, Self::Set, Self::SortedSet, Self::Hash];
}

/// Use of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChunkUse {
    Free,
    Block,
    Node,
    Item,
}

/// The use of the chunk at `at`.
#[inline]
pub(super) fn chunk_use(memory: &[u8], at: usize) -> ChunkUse {
    match u16_at(memory, at) & TYPE {
        FREE => ChunkUse::Free,
        BLOCK => ChunkUse::Block,
        NODE => ChunkUse::Node,
        _ => ChunkUse::Item,
    }
}

/// Marks the chunk at `at` as free and links it to `next`.
#[inline]
pub(super) fn write_free(memory: &mut [u8], at: usize, next: u16) {
    memory[at..at + 2].copy_from_slice(&FREE.to_le_bytes());
    memory[at + 2..at + 4].copy_from_slice(&next.to_le_bytes());
}

/// The chunk that the free chunk at `at` is linked to.
#[inline]
pub(super) fn next_free(memory: &[u8], at: usize) -> u16 {
    u16_at(memory, at + 2)
}

/// Header of a block: the number of the block in its value, and the reference of the item that owns it.
pub(super) const BLOCK_HEADER_BYTES: usize = 8;

pub(super) fn write_block(memory: &mut [u8], at: usize, part: u16, owner: u32) {
    memory[at..at + 2].copy_from_slice(&BLOCK.to_le_bytes());
    memory[at + 2..at + 4].copy_from_slice(&part.to_le_bytes());
    memory[at + 4..at + 8].copy_from_slice(&owner.to_le_bytes());
}

/// Block number and owning item of the block at `at`.
pub(super) fn block(memory: &[u8], at: usize) -> (u16, u32) {
    (u16_at(memory, at + 2), u32_at(memory, at + 4))
}

/// What is written into an item besides its key and value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields {
    pub(super) flags: u32,
    pub(super) expires: Option<UnixMs>,
    pub(super) version: u64,
    /// The value is stored in parts; their list follows the key.
    pub(super) long_value: bool,
    pub(super) kind: Kind,
    /// A collection in trees; the record that leads to them follows the key.
    pub(super) large: bool,
    /// A string that was modified in place.
    pub(super) raw: bool,
    pub(super) database: u8,
}

impl Fields {
    /// Bytes of an item with these fields, a key, and a body (the value, or the list of its parts).
    #[inline]
    pub(super) fn item_bytes(&self, key_bytes: usize, body_bytes: usize) -> usize {
        let optional = 2 * usize::from(key_bytes >= LONG_KEY)
            + 4 * usize::from(self.expires.is_some())
            + 4 * usize::from(self.flags != 0);
        HEADER_BYTES + optional + key_bytes + body_bytes
    }
}

/// The fixed fields of an item, in two words so that it is passed in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The first eight bytes of the item.
    low: u64,
    /// The upper 32 bits of the version, and the length of the key.
    high: u64,
}

impl Header {
    #[inline]
    pub(super) fn read(memory: &[u8], at: usize) -> Self {
        let bytes: &[u8; 16] = memory[at..at + 16].try_into().expect("of that length");
        let word = u128::from_le_bytes(*bytes);
        let low = word as u64;
        let short = low >> 16 & 0xff;
        let key_bytes = if short == LONG_KEY as u64 { (word >> 96) as u64 & 0xffff } else { short };
        Self { low, high: u64::from((word >> 64) as u32) | key_bytes << 32 }
    }

    #[inline]
    fn bits(self) -> u16 {
        self.low as u16
    }

    /// The 24 bits that hold the length of the value, the milliseconds and `raw`.
    #[inline]
    fn packed(self) -> u32 {
        (self.low >> 24) as u32 & 0xff_ffff
    }

    #[inline]
    pub(super) fn version(self) -> u64 {
        self.low >> 48 | u64::from(self.high as u32) << 16
    }

    #[inline]
    fn long_key(self) -> usize {
        2 * usize::from(self.key_bytes() >= LONG_KEY)
    }

    #[inline]
    fn flags_offset(self) -> usize {
        HEADER_BYTES + self.long_key() + if self.bits() & EXPIRES != 0 { 4 } else { 0 }
    }

    #[inline]
    fn key_offset(self) -> usize {
        self.flags_offset() + if self.bits() & FLAGS != 0 { 4 } else { 0 }
    }

    /// Offset of the body, which follows the key, from the start of the item.
    #[inline]
    pub(super) fn body_offset(self) -> usize {
        self.key_offset() + self.key_bytes()
    }

    #[inline]
    pub(super) fn key_bytes(self) -> usize {
        (self.high >> 32) as usize
    }

    /// Bytes of the value or list that are stored in the chunk.
    #[inline]
    pub(super) fn inline_bytes(self) -> usize {
        (self.packed() & INLINE) as usize
    }

    /// True if the value is stored in parts.
    #[inline]
    pub(super) fn has_long_value(self) -> bool {
        self.bits() & LONG_VALUE != 0
    }

    /// The type, as clients see it.
    #[inline]
    pub(super) fn kind(self) -> Kind {
        Kind::ALL[usize::from(self.bits() & TYPE)]
    }

    /// True for a collection in trees.
    #[inline]
    pub(super) fn is_large(self) -> bool {
        self.bits() & LARGE != 0
    }

    /// True if further chunks or pages belong to the item.
    #[inline]
    pub(super) fn has_parts(self) -> bool {
        self.bits() & (LONG_VALUE | LARGE) != 0
    }

    /// True for a string that was modified in place.
    pub(super) fn is_raw(self) -> bool {
        self.packed() & RAW != 0
    }

    /// Number of the database.
    #[inline]
    pub(super) fn database(self) -> u8 {
        (self.bits() >> DATABASE_SHIFT) as u8 & (DATABASES as u8 - 1)
    }

    #[inline]
    pub(super) fn key(self, memory: &[u8], at: usize) -> &[u8] {
        let from = at + self.key_offset();
        &memory[from..from + self.key_bytes()]
    }

    /// The value, if it is stored in the chunk.
    #[inline]
    pub(super) fn inline_value(self, memory: &[u8], at: usize) -> &[u8] {
        let from = at + self.body_offset();
        &memory[from..from + self.inline_bytes()]
    }

    #[inline]
    pub(super) fn client_flags(self, memory: &[u8], at: usize) -> u32 {
        if self.bits() & FLAGS == 0 { 0 } else { u32_at(memory, at + self.flags_offset()) }
    }

    #[inline]
    pub(super) fn expires(self, memory: &[u8], at: usize) -> Option<UnixMs> {
        if self.bits() & EXPIRES == 0 {
            return None;
        }
        let seconds = u32_at(memory, at + HEADER_BYTES + self.long_key());
        Some(UnixMs::from(seconds) * 1000 + UnixMs::from(self.packed() >> MILLISECONDS_SHIFT & MILLISECONDS))
    }

    /// True if the item has an expiry time.
    #[inline]
    pub(super) fn may_expire(self) -> bool {
        self.bits() & EXPIRES != 0
    }

    /// True if the timing wheel holds a mark for the item.
    pub(super) fn is_in_wheel(self) -> bool {
        self.bits() & IN_WHEEL != 0
    }

    /// True if no index entry leads to the item.
    pub(super) fn is_detached(self) -> bool {
        self.bits() & DETACHED != 0
    }

    /// The fields, to write the item elsewhere or with a change.
    pub(super) fn fields(self, memory: &[u8], at: usize) -> Fields {
        Fields {
            flags: self.client_flags(memory, at),
            expires: self.expires(memory, at),
            version: self.version(),
            long_value: self.has_long_value(),
            kind: self.kind(),
            large: self.is_large(),
            raw: self.is_raw(),
            database: self.database(),
        }
    }
}

/// Writes an item except for its body of `body_bytes`; returns the offset of the body.
#[inline]
pub(super) fn write_item(memory: &mut [u8], at: usize, fields: &Fields, key: &[u8], body_bytes: usize) -> usize {
    let mut bits = fields.kind as u16 | u16::from(fields.database) << DATABASE_SHIFT;
    bits |= if fields.large { LARGE } else { 0 };
    bits |= if fields.long_value { LONG_VALUE } else { 0 };
    bits |= if fields.expires.is_some() { EXPIRES } else { 0 };
    bits |= if fields.flags != 0 { FLAGS } else { 0 };
    let (seconds, milliseconds) = split(fields.expires.unwrap_or(0));
    let inline_bytes = if fields.long_value { 0 } else { body_bytes };
    let packed = inline_bytes as u64
        | u64::from(milliseconds) << MILLISECONDS_SHIFT
        | if fields.raw { u64::from(RAW) } else { 0 };
    let word = u64::from(bits) | (key.len().min(LONG_KEY) as u64) << 16 | packed << 24;
    memory[at..at + 8].copy_from_slice(&(word | fields.version << 48).to_le_bytes());
    memory[at + 8..at + HEADER_BYTES].copy_from_slice(&((fields.version >> 16) as u32).to_le_bytes());
    let mut end = at + HEADER_BYTES;
    let mut put = |bytes: &[u8]| {
        memory[end..end + bytes.len()].copy_from_slice(bytes);
        end += bytes.len();
    };
    if key.len() >= LONG_KEY {
        put(&(key.len() as u16).to_le_bytes());
    }
    if fields.expires.is_some() {
        put(&seconds.to_le_bytes());
    }
    if fields.flags != 0 {
        put(&fields.flags.to_le_bytes());
    }
    put(key);
    end
}

/// Sets the expiry time of the item at `at`, which already has one.
pub(super) fn set_expiry(memory: &mut [u8], at: usize, expires: UnixMs) {
    let header = Header::read(memory, at);
    debug_assert!(header.may_expire());
    let (seconds, milliseconds) = split(expires);
    let packed =
        header.packed() & !(MILLISECONDS << MILLISECONDS_SHIFT) | u32::from(milliseconds) << MILLISECONDS_SHIFT;
    memory[at + 3..at + 6].copy_from_slice(&packed.to_le_bytes()[..3]);
    let from = at + HEADER_BYTES + header.long_key();
    memory[from..from + 4].copy_from_slice(&seconds.to_le_bytes());
}

/// Sets how many bytes of the item at `at` its body has.
pub(super) fn set_inline_bytes(memory: &mut [u8], at: usize, bytes: usize) {
    let header = Header::read(memory, at);
    debug_assert!(!header.has_long_value() && bytes <= INLINE_BYTES_MAX);
    let packed = header.packed() & !INLINE | bytes as u32;
    memory[at + 3..at + 6].copy_from_slice(&packed.to_le_bytes()[..3]);
}

/// Sets the version of the item at `at`.
pub(super) fn set_version(memory: &mut [u8], at: usize, version: u64) {
    memory[at + 6..at + HEADER_BYTES].copy_from_slice(&version.to_le_bytes()[..6]);
}

/// Marks the string at `at` as modified in place.
pub(super) fn set_raw(memory: &mut [u8], at: usize) {
    memory[at + 5] |= (RAW >> 16) as u8;
}

/// Moves the item at `at` from database 0 to another.
pub(super) fn set_database(memory: &mut [u8], at: usize, database: u8) {
    let bits = u16_at(memory, at) | u16::from(database) << DATABASE_SHIFT;
    memory[at..at + 2].copy_from_slice(&bits.to_le_bytes());
}

/// Records whether the timing wheel holds a mark for the item at `at`.
pub(super) fn set_in_wheel(memory: &mut [u8], at: usize, on: bool) {
    set_bit(memory, at, IN_WHEEL, on);
}

/// Records whether the item at `at` has an index entry.
pub(super) fn set_detached(memory: &mut [u8], at: usize, on: bool) {
    set_bit(memory, at, DETACHED, on);
}

fn set_bit(memory: &mut [u8], at: usize, bit: u16, on: bool) {
    let bits = u16_at(memory, at);
    let bits = if on { bits | bit } else { bits & !bit };
    memory[at..at + 2].copy_from_slice(&bits.to_le_bytes());
}

/// Seconds and milliseconds of `time`, clamped to what 32 bits of seconds can express (the year 2106).
fn split(time: UnixMs) -> (u32, u16) {
    match u32::try_from(time / 1000) {
        Ok(seconds) => (seconds, (time % 1000) as u16),
        Err(_) => (u32::MAX, 999),
    }
}

#[inline]
pub(super) fn u16_at(memory: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(memory[at..at + 2].try_into().expect("2 bytes"))
}

#[inline]
pub(super) fn u32_at(memory: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(memory[at..at + 4].try_into().expect("4 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_reads_back_as_written() {
        let mut memory = vec![0xff; 8192];
        for flags in [0, 1, u32::MAX] {
            for expires in [None, Some(0), Some(1_700_000_000_999), Some(UnixMs::MAX)] {
                for key in [&b"some key"[..], &[b'k'; 254], &[b'k'; 255], &[b'k'; KEY_BYTES_MAX]] {
                    let fields = Fields { flags, expires, version: 0xffff_dead_beef, ..Fields::default() };
                    let body = write_item(&mut memory, 16, &fields, key, 10);
                    memory[body..body + 10].copy_from_slice(b"some value");
                    assert_eq!(body + 10, 16 + fields.item_bytes(key.len(), 10));
                    let header = Header::read(&memory, 16);
                    assert_eq!(chunk_use(&memory, 16), ChunkUse::Item);
                    assert_eq!((header.version(), header.key_bytes()), (0xffff_dead_beef, key.len()));
                    assert_eq!(header.key(&memory, 16), key);
                    assert_eq!(header.inline_value(&memory, 16), b"some value");
                    assert_eq!(header.client_flags(&memory, 16), flags);
                    let stored = expires.map(|e| e.min(u64::from(u32::MAX) * 1000 + 999));
                    assert_eq!(header.expires(&memory, 16), stored);
                    assert!(!header.has_long_value() && !header.is_in_wheel() && !header.is_detached());
                }
            }
        }
    }

    #[test]
    fn a_field_changes_alone() {
        let mut memory = vec![0xff; 256];
        let fields = Fields { flags: 7, expires: Some(5), version: 1, long_value: true, ..Fields::default() };
        let body = write_item(&mut memory, 0, &fields, b"key", 4);
        memory[body..body + 4].copy_from_slice(b"part");
        set_expiry(&mut memory, 0, 1_700_000_000_123);
        set_version(&mut memory, 0, VERSION_MAX);
        set_in_wheel(&mut memory, 0, true);
        set_detached(&mut memory, 0, true);
        set_in_wheel(&mut memory, 0, false);
        let header = Header::read(&memory, 0);
        assert_eq!(header.expires(&memory, 0), Some(1_700_000_000_123));
        assert_eq!(header.version(), VERSION_MAX);
        assert!(!header.is_in_wheel() && header.is_detached() && header.has_long_value());
        assert_eq!((header.key(&memory, 0), header.client_flags(&memory, 0)), (&b"key"[..], 7));
        assert_eq!(&memory[header.body_offset()..header.body_offset() + 4], b"part");
        assert_eq!(memory[body + 4], 0xff);
    }

    #[test]
    fn blocks_and_free_chunks_are_no_items() {
        let mut memory = vec![0; 32];
        write_block(&mut memory, 8, 17, 0xdead_beef);
        assert_eq!((chunk_use(&memory, 8), block(&memory, 8)), (ChunkUse::Block, (17, 0xdead_beef)));
        write_free(&mut memory, 8, 99);
        assert_eq!((chunk_use(&memory, 8), next_free(&memory, 8)), (ChunkUse::Free, 99));
    }
}
