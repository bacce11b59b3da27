//! The payload format of DUMP and RESTORE, as exchanged with Redis and Valkey servers.
//!
//! ```text
//! | type | value … | version: 2 bytes | CRC64: 8 bytes |      both little-endian; the CRC is of all that is before it
//! ```
//!
//! The value is encoded as in an RDB file of that version: lengths of one to nine bytes, strings preceded by their
//! length. [`Writer`] uses the plain types, which servers of any version read. [`read`] also accepts the compact types
//! that servers have written since Redis 7: listpacks (`listpack.rs`), sets of integers, and strings compressed with
//! LZF (`lzf.rs`). It rejects the ziplists of older servers, streams, modules, and hashes with field expiry.
//!
//! | type | value |
//! |---|---|
//! | 0 | a string |
//! | 1, 2 | list, set: a length, the elements |
//! | 4 | hash: a length, then field and value in turn |
//! | 5 | sorted set: a length, then member and score (`f64`, little-endian) in turn |
//! | 11 | set of integers, as a string |
//! | 16, 17, 20 | hash, sorted set, set: one listpack, as a string |
//! | 18 | list: a length, then for each node 1 and an element, or 2 and a listpack |

mod listpack;
mod lzf;
mod reader;

pub use reader::{BadDump, Bytes, Dumped, read};

use crate::values::numbers;
use crc::{CRC_64_REDIS, Crc, Table};

/// The version that is written, Redis 7.0's, so that Valkey and later Redis servers accept it.
const VERSION: u16 = 10;

/// Bytes of the version and the CRC, which [`Writer::finish`] adds.
pub const FOOTER_BYTES: usize = 10;

/// CRC by sixteen tables: sixteen bytes per step.
static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// The types that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One string.
    String = 0,
    /// The length, then the elements from head to tail.
    List = 1,
    /// The length, then the members.
    Set = 2,
    /// The length, then each member with its score; Redis writes them from the highest score down.
    SortedSet = 5,
    /// The length, then each field with its value.
    Hash = 4,
}

/// Writes a payload part by part, in the order that its [`Kind`] requires.
#[derive(Debug)]
pub struct Writer {
    payload: Vec<u8>,
    /// The CRC of what was taken before.
    crc: u64,
}

impl Writer {
    /// Begins a payload, if `is_first`, with the number of its elements, or bytes.
    pub fn head(&mut self, is_first: bool, kind: Kind, length: u64) {
        if is_first {
            self.kind(kind);
            self.length(length as usize);
        }
    }

    /// The type, with which a payload begins.
    pub fn kind(&mut self, kind: Kind) {
        self.payload.push(kind as u8);
    }

    /// The number of elements, members or fields that follow.
    pub fn length(&mut self, length: usize) {
        match length {
            0..0x40 => self.payload.push(length as u8),
            0x40..0x4000 => self.payload.extend_from_slice(&(length as u16 | 0x4000).to_be_bytes()),
            _ => match u32::try_from(length) {
                Ok(length) => {
                    self.payload.push(0x80);
                    self.payload.extend_from_slice(&length.to_be_bytes());
                }
                Err(_) => {
                    self.payload.push(0x81);
                    self.payload.extend_from_slice(&(length as u64).to_be_bytes());
                }
            },
        }
    }

    /// A string. Integers of up to 32 bits are encoded in one to four bytes.
    pub fn string(&mut self, string: &[u8]) {
        match numbers::integer(string).and_then(|integer| i32::try_from(integer).ok()) {
            Some(integer) => {
                let (marker, bytes) = match integer {
                    -0x80..0x80 => (0xc0, 1),
                    -0x8000..0x8000 => (0xc1, 2),
                    _ => (0xc2, 4),
                };
                self.payload.push(marker);
                self.payload.extend_from_slice(&integer.to_le_bytes()[..bytes]);
            }
            None => {
                self.length(string.len());
                self.payload.extend_from_slice(string);
            }
        }
    }

    /// The score of the preceding member.
    pub fn score(&mut self, score: f64) {
        self.payload.extend_from_slice(&score.to_le_bytes());
    }

    /// A payload whose beginning has been taken ([`Writer::take`]), if any; `crc` is the CRC of that, or 0.
    pub fn continued(crc: u64) -> Self {
        Self { payload: Vec::new(), crc }
    }

    /// The bytes written that have not been taken.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// True if all bytes written have been taken.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Bytes of a string whose length was written by [`Writer::length`].
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.payload.extend_from_slice(bytes);
    }

    /// Takes what has been written; returns the CRC up to here too.
    pub fn take(self) -> (Vec<u8>, u64) {
        // The CRC is reflected, without a final value, so it is the register's content; the initial one is not.
        let mut digest = CRC.digest_with_initial(self.crc.reverse_bits());
        digest.update(&self.payload);
        (self.payload, digest.finalize())
    }

    /// Completes the payload with version and CRC.
    pub fn finish(mut self) -> Vec<u8> {
        self.payload.extend_from_slice(&VERSION.to_le_bytes());
        let (mut payload, crc) = self.take();
        payload.extend_from_slice(&crc.to_le_bytes());
        payload
    }
}

#[cfg(test)]
mod tests;
