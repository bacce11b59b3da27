//! Arbitrary bytes from another node: decoded as a frame, and as each type of body. Nothing panics, decoded values are
//! encoded to the same bytes again, and memory is bounded by a constant times the input.

#![no_main]

mod meter;

use libfuzzer_sys::fuzz_target;
use meter::peak_bytes;
use pinion::cluster::agreement::{Changes, LogEntry, SnapshotRecord};
use pinion::cluster::frame::{self, FRAME_BYTES_MAX, FrameError, Kind};
use pinion::cluster::map::{Change, Delta, Map, MemberState, Settings, State};
use pinion::cluster::{Identity, Member, NodeId, membership};
use pinion::replication;
use serde::ser::SerializeTuple;
use serde::{Deserialize, Serialize, Serializer};
use std::sync::OnceLock;

/// Memory that decoding may take per byte: the largest element of a body takes about 150 bytes, a length may claim as
/// many elements as there are bytes left, and a few such lengths can be open at once.
const BYTES_PER_BYTE_MAX: usize = 512;
const BYTES_MAX: usize = 64 << 10;

// The first byte selects the type to decode: one per input is fast.
fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    match kind % 13 {
        0 => look_at_prefixes(bytes),
        1 => _ = frame::decode(bytes),
        2 => _ = read::<Envelope<replication::Message>>(bytes),
        3 => _ = read::<Envelope<membership::Message>>(bytes),
        4 => _ = read::<membership::Contact>(bytes),
        5 => _ = read::<Raft>(bytes),
        6 => _ = read::<Map>(bytes),
        7 => _ = read::<Delta>(bytes),
        8 => _ = read::<Change>(bytes),
        9 => _ = read::<Changes>(bytes),
        10 => _ = read::<SnapshotRecord>(bytes),
        11 => _ = read::<Map>(&changed(encoded_maps().0, bytes)),
        _ => look_at_delta(&changed(encoded_maps().1, bytes)),
    }
});

/// The bodies of `node/mod.rs` and `cluster/agreement/wire.rs`: postcard encodes a struct as its fields.
type Envelope<M> = (Identity, Option<Identity>, M);
type Raft = (u64, u8, u64, u64, u64, u64, u64, Vec<LogEntry>, u64, u64, Option<SnapshotRecord>, bool, u64, Vec<u8>);

/// Decodes a delta and applies it.
fn look_at_delta(bytes: &[u8]) {
    let Some(delta) = read::<Delta>(bytes) else { return };
    let (older, _) = maps();
    let mut map = older.clone();
    match map.apply_delta(&delta) {
        Ok(()) => map.check().expect("a map is one after a delta"),
        Err(_) => assert_eq!(map, *older, "an error changes nothing"),
    }
}

/// The length found first stays, and so do errors, as more of a stream arrives.
fn look_at_prefixes(bytes: &[u8]) {
    let mut known = Ok(None);
    for end in 0..=bytes.len().min(32) {
        let found = frame::frame_bytes(&bytes[..end]);
        match known {
            Ok(None) => assert!(found.is_ok_and(|bytes| bytes.is_none_or(|b| b <= FRAME_BYTES_MAX)) || found.is_err()),
            Ok(Some(_)) => assert_eq!(found, known),
            Err(_) => assert!(found.is_err()),
        }
        known = found;
    }
}

/// Raw bytes as a body.
struct Raw<'b>(&'b [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|byte| bytes.serialize_element(byte))?;
        bytes.end()
    }
}

/// Frames a body and decodes it. If it decodes, it is encoded and decoded again.
fn read<T>(body: &[u8]) -> Option<T>
where
    T: Serialize + for<'b> Deserialize<'b>,
{
    let mut bytes = Vec::new();
    frame::encode(Kind::Replication, &Raw(body), &mut bytes);
    let frame = frame::decode(&bytes).expect("a frame was made of it");
    assert_eq!(frame.body, body);
    let (value, taken) = peak_bytes(|| frame.read::<T>());
    let most = BYTES_MAX + BYTES_PER_BYTE_MAX * body.len();
    assert!(taken <= most, "{} of {} bytes took {taken}", std::any::type_name::<T>(), body.len());
    match value {
        Ok(value) => {
            let written = encoded(&value);
            let again = postcard::from_bytes::<T>(&written).expect("what was written can be read");
            assert_eq!(encoded(&again), written);
            Some(value)
        }
        Err(error) => {
            assert_eq!(error, FrameError::Body);
            None
        }
    }
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("postcard encodes it")
}

/// Replaces bytes: each three bytes of `changes` give a position and a value.
fn changed(bytes: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
        bytes[at] = change[2];
    }
    bytes
}

/// Two consecutive maps of a cluster of three nodes.
fn maps() -> &'static (Map, Map) {
    static MAPS: OnceLock<(Map, Map)> = OnceLock::new();
    MAPS.get_or_init(|| {
        let mut map = Map::empty();
        let member = |id| Member { id: NodeId(id), zone: format!("z{id}"), memory_bytes: 1 << 30 };
        let settings = Settings { replicas: 3, min_in_sync: 2 };
        let address = |id| format!("node-{id}:11290");
        let first = MemberState { member: member(1), incarnation: 1, raft: 1, address: address(1), state: State::Up };
        map.apply(&Change::Bootstrap { cluster: 7, settings, first }).expect("it is empty");
        let older = map.clone();
        for id in [2, 3] {
            let join = Change::Join { member: member(id), incarnation: 1, raft: id, address: address(id) };
            map.apply(&join).expect("it is new");
        }
        map.apply(&Change::Down { identity: Identity { node: NodeId(1), incarnation: 1 } }).expect("it is known");
        (older, map)
    })
}

/// The encodings of the later map and of the delta between them.
fn encoded_maps() -> (&'static [u8], &'static [u8]) {
    static BYTES: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    let (map, delta) = BYTES.get_or_init(|| {
        let (older, newer) = maps();
        (encoded(newer), encoded(&newer.delta_since(older)))
    });
    (map, delta)
}
