//! How an item lies in the arena.
//!
//! ```text
//!  0         4       5      6          12          16        20                              multiple of 8
//!  | value   | key   | bits | version  | expiry    | client  | key bytes | value bytes | pad |
//!  | length  | length|      | 48 bits  | 0.1 s     | flags   |           |             |     |
//!                                                  '- only with the FLAGS bit
//! ```
//!
//! All numbers are little-endian. Expiry counts tenths of a second since the engine's epoch; 0 means never. A record
//! without LIVE is dead space; one with PAD fills the arena's end, and its length field counts the whole record.

#![forbid(unsafe_code)]

/// Bytes of a header without client flags.
const HEADER_BYTES: usize = 16;
const FLAGS_BYTES: usize = 4;

/// Records start at multiples of this.
pub(super) const GRANULE_BYTES: usize = 8;

/// Longest key, in bytes (memcached's limit).
pub const KEY_BYTES_MAX: usize = 250;

const LIVE: u8 = 1;
const PAD: u8 = 2;
const FLAGS: u8 = 4;

const _: () = assert!(HEADER_BYTES.is_multiple_of(GRANULE_BYTES) && KEY_BYTES_MAX <= u8::MAX as usize);

/// The fixed part of a record, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) value_bytes: u32,
    pub(super) key_bytes: u8,
    bits: u8,
    pub(super) version: u64,
    pub(super) expiry: u32,
}

/// Bytes of the record of an item, padding included.
pub(super) fn record_bytes(key_bytes: usize, value_bytes: usize, client_flags: u32) -> usize {
    let flags_bytes = if client_flags == 0 { 0 } else { FLAGS_BYTES };
    (HEADER_BYTES + flags_bytes + key_bytes + value_bytes).next_multiple_of(GRANULE_BYTES)
}

impl Header {
    #[inline]
    pub(super) fn read(memory: &[u8], at: usize) -> Self {
        let bytes: &[u8; HEADER_BYTES] = memory[at..at + HEADER_BYTES].try_into().expect("of that length");
        let word = |i: usize| u64::from_le_bytes(bytes[i..i + 8].try_into().expect("8 bytes"));
        let (low, high) = (word(0), word(8));
        Self {
            value_bytes: low as u32,
            key_bytes: (low >> 32) as u8,
            bits: (low >> 40) as u8,
            version: low >> 48 | (high & 0xffff_ffff) << 16,
            expiry: (high >> 32) as u32,
        }
    }

    fn write(&self, memory: &mut [u8], at: usize) {
        let low = u64::from(self.value_bytes)
            | u64::from(self.key_bytes) << 32
            | u64::from(self.bits) << 40
            | (self.version & 0xffff) << 48;
        let high = self.version >> 16 | u64::from(self.expiry) << 32;
        memory[at..at + 8].copy_from_slice(&low.to_le_bytes());
        memory[at + 8..at + HEADER_BYTES].copy_from_slice(&high.to_le_bytes());
    }

    pub(super) fn is_live(self) -> bool {
        self.bits & LIVE != 0
    }

    pub(super) fn is_pad(self) -> bool {
        self.bits & PAD != 0
    }

    fn key_offset(self) -> usize {
        HEADER_BYTES + if self.bits & FLAGS != 0 { FLAGS_BYTES } else { 0 }
    }

    /// Bytes of the whole record.
    pub(super) fn record_bytes(self) -> usize {
        if self.is_pad() {
            return self.value_bytes as usize;
        }
        (self.key_offset() + usize::from(self.key_bytes) + self.value_bytes as usize).next_multiple_of(GRANULE_BYTES)
    }

    /// Bytes that the user stored: key and value.
    pub(super) fn user_bytes(self) -> u64 {
        u64::from(self.key_bytes) + u64::from(self.value_bytes)
    }

    #[inline]
    pub(super) fn key(self, memory: &[u8], at: usize) -> &[u8] {
        let from = at + self.key_offset();
        &memory[from..from + usize::from(self.key_bytes)]
    }

    #[inline]
    pub(super) fn value(self, memory: &[u8], at: usize) -> &[u8] {
        let from = at + self.key_offset() + usize::from(self.key_bytes);
        &memory[from..from + self.value_bytes as usize]
    }

    #[inline]
    pub(super) fn client_flags(self, memory: &[u8], at: usize) -> u32 {
        if self.bits & FLAGS == 0 {
            return 0;
        }
        let from = at + HEADER_BYTES;
        u32::from_le_bytes(memory[from..from + FLAGS_BYTES].try_into().expect("4 bytes"))
    }
}

/// Writes a live item at `at`.
pub(super) fn write_item(
    memory: &mut [u8],
    at: usize,
    key: &[u8],
    value: &[u8],
    flags: u32,
    version: u64,
    expiry: u32,
) {
    let bits = if flags == 0 { LIVE } else { LIVE | FLAGS };
    let header = Header { value_bytes: value.len() as u32, key_bytes: key.len() as u8, bits, version, expiry };
    header.write(memory, at);
    if flags != 0 {
        memory[at + HEADER_BYTES..at + HEADER_BYTES + FLAGS_BYTES].copy_from_slice(&flags.to_le_bytes());
    }
    let key_at = at + header.key_offset();
    memory[key_at..key_at + key.len()].copy_from_slice(key);
    let value_at = key_at + key.len();
    memory[value_at..value_at + value.len()].copy_from_slice(value);
}

/// Writes a record that only fills `bytes`, at least one granule.
pub(super) fn write_pad(memory: &mut [u8], at: usize, bytes: usize) {
    // A pad may be a single granule, so only the first word, which holds all that is read of it, is written.
    let low = bytes as u64 | u64::from(PAD) << 40;
    memory[at..at + GRANULE_BYTES].copy_from_slice(&low.to_le_bytes());
}

/// The length of the pad at `at`, if there is one.
pub(super) fn pad_bytes(memory: &[u8], at: usize) -> Option<usize> {
    let low = u64::from_le_bytes(memory[at..at + GRANULE_BYTES].try_into().expect("8 bytes"));
    ((low >> 40) as u8 & PAD != 0).then_some(low as u32 as usize)
}

/// Makes the record at `at` dead space.
pub(super) fn mark_dead(memory: &mut [u8], at: usize) {
    memory[at + 5] &= !LIVE;
}

/// Changes when the item at `at` expires.
pub(super) fn set_expiry(memory: &mut [u8], at: usize, expiry: u32) {
    memory[at + 12..at + 16].copy_from_slice(&expiry.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_reads_back_as_written() {
        let mut memory = vec![0xff; 256];
        for flags in [0, 1, u32::MAX] {
            write_item(&mut memory, 16, b"some key", b"some value", flags, 0xffff_dead_beef, 77);
            let header = Header::read(&memory, 16);
            assert!(header.is_live() && !header.is_pad());
            assert_eq!((header.version, header.expiry, header.user_bytes()), (0xffff_dead_beef, 77, 18));
            assert_eq!(header.key(&memory, 16), b"some key");
            assert_eq!(header.value(&memory, 16), b"some value");
            assert_eq!(header.client_flags(&memory, 16), flags);
            assert_eq!(header.record_bytes(), record_bytes(8, 10, flags));
            set_expiry(&mut memory, 16, 78);
            mark_dead(&mut memory, 16);
            let header = Header::read(&memory, 16);
            assert_eq!((header.is_live(), header.expiry, header.version), (false, 78, 0xffff_dead_beef));
        }
    }

    #[test]
    fn a_pad_of_one_granule_stays_in_its_bounds() {
        let mut memory = vec![0xaa; 24];
        write_pad(&mut memory, 8, 8);
        assert_eq!(pad_bytes(&memory, 8), Some(8));
        assert!(memory[..8].iter().chain(&memory[16..]).all(|&b| b == 0xaa));
    }
}
