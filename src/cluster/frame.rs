//! The frame that every message between nodes travels in.
//!
//! ```text
//!  0        4            12        13     14         18
//! ┌────────┬────────────┬─────────┬──────┬──────────┬────────────────┐
//! │ magic  │ checksum   │ version │ kind │ length   │ body           │
//! │ "PNCN" │ u64        │ u8      │ u8   │ u32      │ length bytes   │
//! └────────┴────────────┴─────────┴──────┴──────────┴────────────────┘
//!                       └─────────── covered by the checksum ────────┘
//! ```
//!
//! Numbers are little-endian; the checksum is XXH3-64 with a fixed seed. It detects corruption, not forgery:
//! authenticating peers is up to the connection. Bodies are serde types in postcard's encoding.
//!
//! Decoding a body allocates at most a constant (the size of the largest element of its type) times the bytes received:
//! postcard checks a length against the bytes left, and serde preallocates at most a megabyte. That needs elements of
//! at least one byte each, so bodies have no sequences of empty elements.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use twox_hash::XxHash3_64;

/// The largest frame, in bytes, header included.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

const MAGIC: [u8; 4] = *b"PNCN";
const VERSION: u8 = 1;
const CHECKSUM_SEED: u64 = 0x7069_6e69_6f6e_0002;

/// Offsets of the header's fields.
const CHECKSUM_AT: usize = 4;
const VERSION_AT: usize = 12;
const KIND_AT: usize = 13;
const LENGTH_AT: usize = 14;
const HEADER_BYTES: usize = 18;

const _: () = assert!(FRAME_BYTES_MAX <= u32::MAX as usize);

/// The kind of a frame's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A message of Raft.
    Agreement = 1,
    /// A message of membership.
    Membership = 2,
    /// A message of the replication of groups.
    Replication = 3,
}

impl Kind {
    fn numbered(number: u8) -> Option<Self> {
        [Self::Agreement, Self::Membership, Self::Replication].into_iter().find(|&kind| kind as u8 == number)
    }
}

/// Why bytes are not a frame, or not the body expected. The stream they came from is out of sync: no later byte of it
/// can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The bytes do not begin with the magic number.
    #[error("not a frame")]
    Magic,
    /// A protocol version that this node does not support.
    #[error("frame version {0} is not supported")]
    Version(u8),
    /// A kind that this node does not know.
    #[error("frame kind {0} is unknown")]
    Kind(u8),
    /// The body is longer than allowed, or its length differs from the header's.
    #[error("the frame has a wrong length")]
    Length,
    /// The frame was corrupted in transit.
    #[error("the frame has a wrong checksum")]
    Checksum,
    /// The checksum is right, but the body does not decode as the type expected.
    #[error("the frame's body does not decode")]
    Body,
}

/// A complete frame with a valid checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'b> {
    /// The kind of its body.
    pub kind: Kind,
    /// The body, still encoded.
    pub body: &'b [u8],
}

impl<'b> Frame<'b> {
    /// Decodes the whole body.
    pub fn read<T: Deserialize<'b>>(&self) -> Result<T, FrameError> {
        match postcard::take_from_bytes(self.body) {
            Ok((body, [])) => Ok(body),
            _ => Err(FrameError::Body),
        }
    }
}

/// Appends a frame to `out`.
///
/// # Panics
/// If the frame would exceed [`FRAME_BYTES_MAX`]; the senders of bodies bound their size.
pub fn encode<T: Serialize>(kind: Kind, body: &T, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; HEADER_BYTES - MAGIC.len()]);
    *out = postcard::to_extend(body, std::mem::take(out)).expect("postcard encodes all derived types");
    let frame = &mut out[start..];
    assert!(frame.len() <= FRAME_BYTES_MAX, "a frame of {} bytes", frame.len());
    let length = (frame.len() - HEADER_BYTES) as u32;
    frame[VERSION_AT] = VERSION;
    frame[KIND_AT] = kind as u8;
    frame[LENGTH_AT..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
    let checksum = checksum(frame);
    frame[CHECKSUM_AT..VERSION_AT].copy_from_slice(&checksum.to_le_bytes());
}

/// Decodes `bytes`, which must be exactly one frame, without its body.
pub fn decode(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    if frame_bytes(bytes)? != Some(bytes.len()) {
        return Err(FrameError::Length);
    }
    if bytes[CHECKSUM_AT..VERSION_AT] != checksum(bytes).to_le_bytes() {
        return Err(FrameError::Checksum);
    }
    let kind = Kind::numbered(bytes[KIND_AT]).ok_or(FrameError::Kind(bytes[KIND_AT]))?;
    Ok(Frame { kind, body: &bytes[HEADER_BYTES..] })
}

/// The length of the frame that begins with `prefix`; None while its header is incomplete. Errors are reported as early
/// as the prefix shows them, before a receiver buffers the rest of such a frame.
pub fn frame_bytes(prefix: &[u8]) -> Result<Option<usize>, FrameError> {
    let known = prefix.len().min(MAGIC.len());
    if prefix[..known] != MAGIC[..known] {
        return Err(FrameError::Magic);
    }
    if let Some(&version) = prefix.get(VERSION_AT).filter(|&&version| version != VERSION) {
        return Err(FrameError::Version(version));
    }
    if let Some(&kind) = prefix.get(KIND_AT).filter(|&&kind| Kind::numbered(kind).is_none()) {
        return Err(FrameError::Kind(kind));
    }
    let Some(length) = prefix.get(LENGTH_AT..HEADER_BYTES) else { return Ok(None) };
    let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
    match length <= FRAME_BYTES_MAX - HEADER_BYTES {
        true => Ok(Some(HEADER_BYTES + length)),
        false => Err(FrameError::Length),
    }
}

fn checksum(frame: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(CHECKSUM_SEED, &frame[VERSION_AT..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Body = (u64, Vec<(u16, String)>, BTreeMap<u8, Vec<u64>>);

    fn bodies() -> impl Strategy<Value = Body> {
        let names = prop::collection::vec((any::<u16>(), "[a-z]{0,9}"), 0..9);
        (any::<u64>(), names, prop::collection::btree_map(any::<u8>(), prop::collection::vec(any::<u64>(), 0..4), 0..4))
    }

    fn encoded(body: &Body) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(Kind::Agreement, body, &mut bytes);
        bytes
    }

    /// As the module documentation draws it. (Tests of the ring pin XXH3 itself.)
    #[test]
    fn the_format_is_pinned() {
        let mut bytes = b"before".to_vec();
        encode(Kind::Replication, &(300_u64, "ab"), &mut bytes);
        assert_eq!(&bytes[..10], b"beforePNCN");
        assert_eq!(&bytes[18..], [1, 3, 5, 0, 0, 0, 0xac, 2, 2, b'a', b'b']);
        let frame = decode(&bytes[6..]).expect("a frame");
        assert_eq!((frame.kind, frame.read()), (Kind::Replication, Ok((300_u64, "ab"))));
        assert_eq!(frame.read::<u64>(), Err(FrameError::Body), "bytes were left over");
        assert_eq!(frame.read::<(u64, u64, u64, u64, u64)>(), Err(FrameError::Body));
    }

    #[test]
    fn each_fault_has_its_name() {
        let good = encoded(&(1, Vec::new(), BTreeMap::new()));
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            decode(&bytes).unwrap_err()
        };
        assert_eq!(with(0, b'X'), FrameError::Magic);
        assert_eq!(with(VERSION_AT, 9), FrameError::Version(9));
        assert_eq!(with(KIND_AT, 0), FrameError::Kind(0));
        assert_eq!(with(LENGTH_AT, 200), FrameError::Length);
        assert_eq!(with(LENGTH_AT + 3, 200), FrameError::Length);
        assert_eq!(with(CHECKSUM_AT, !good[CHECKSUM_AT]), FrameError::Checksum);
        assert_eq!(with(HEADER_BYTES, !good[HEADER_BYTES]), FrameError::Checksum);
        assert_eq!(frame_bytes(b"GET /"), Err(FrameError::Magic));
        assert_eq!(frame_bytes(b"PN"), Ok(None));
    }

    /// A length without bytes to back it allocates next to nothing.
    #[test]
    fn lengths_without_bytes_are_refused() {
        for claimed in [1_u64 << 20, 1 << 40, u64::MAX] {
            let mut body = Vec::new();
            encode(Kind::Membership, &claimed, &mut body);
            let frame = decode(&body).expect("a frame");
            assert_eq!(frame.read::<Vec<u64>>(), Err(FrameError::Body));
            assert_eq!(frame.read::<String>(), Err(FrameError::Body));
            assert_eq!(frame.read::<BTreeMap<u64, u64>>(), Err(FrameError::Body));
        }
    }

    proptest! {
        #[test]
        fn encoded_bodies_are_decoded(body in bodies()) {
            let bytes = encoded(&body);
            prop_assert_eq!(frame_bytes(&bytes[..HEADER_BYTES]), Ok(Some(bytes.len())));
            prop_assert_eq!(decode(&bytes).expect("a frame").read::<Body>(), Ok(body));
        }

        #[test]
        fn damage_is_found(body in bodies(), at in any::<prop::sample::Index>(), bit in 0_u32..8) {
            let mut bytes = encoded(&body);
            let at = at.index(bytes.len());
            prop_assert!(decode(&bytes[..at]).is_err());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(decode(&bytes).is_err());
        }

        /// Random bytes, as a frame or as a body, cause errors at most.
        #[test]
        fn random_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(frame_bytes(&bytes).is_err() || bytes.len() < MAGIC.len());
            prop_assert!(decode(&bytes).is_err());
            let _ = Frame { kind: Kind::Membership, body: &bytes }.read::<Body>();
        }
    }
}
