//! Times of expiry when memory is full and nothing may be evicted.

use super::*;

/// When memory was full and nothing could be evicted, items could not be given an expiry time either, so that clients
/// had no way to let memory be freed.
#[test]
fn expiry_times_can_be_set_when_memory_is_full() {
    for bytes in [10, 100, 1000, 3000] {
        let mut engine = engine(MEMORY_BYTES_MIN, Eviction::None);
        let mut stored = 0_u32;
        while engine.try_set(&stored.to_le_bytes(), &vec![7; bytes], None, NOW).is_ok() {
            stored += 1;
        }
        let hash = |engine: &Engine, n: u32| engine.hasher.hash(&n.to_le_bytes());
        for n in 0..stored {
            assert_eq!(engine.touch(hash(&engine, n), &n.to_le_bytes(), Some(NOW + 1000), NOW), Ok(true), "{n}");
        }
        engine.check();
        // The limit stands for everything else.
        assert_eq!(engine.try_set(b"more", &vec![7; bytes], None, NOW), Err(PutError::OutOfMemory));
        let held = engine.stats().held_bytes;
        assert!(held < MEMORY_BYTES_MIN + MEMORY_BYTES_MIN / 4, "{held} bytes");
        let fetched = engine.fetch_and_touch(hash(&engine, 0), &0_u32.to_le_bytes(), None, NOW);
        assert!(fetched.is_ok_and(|found| found.is_some()));
        assert_eq!(engine.touch(hash(&engine, 0), &0_u32.to_le_bytes(), Some(NOW + 1000), NOW), Ok(true));

        // They do expire: where the timing wheel had no room, the pass of 25 seconds finds them.
        let mut now = NOW + 1000;
        while engine.stats().items > 0 {
            now += 20;
            engine.advance(now);
            engine.work(now);
            assert!(now < NOW + 120_000, "{} items are left", engine.stats().items);
        }
        engine.set(b"more", &vec![7; bytes], None, now);
        engine.check();
    }
}

/// The siblings of the fields of hashes: HEXPIRE, HPERSIST and HGETEX were refused.
#[test]
fn fields_expiry_times_can_be_set_when_memory_is_full() {
    let mut engine = engine(MEMORY_BYTES_MIN, Eviction::None);
    let names: Vec<[u8; 4]> = (0..2000_u32).map(u32::to_le_bytes).collect();
    let key = engine.hasher.hash(b"hash");
    // Every tenth value lies in a blob of its own.
    let values: Vec<Vec<u8>> = (0..2000).map(|n| vec![1; if n % 10 == 0 { 500 } else { 20 }]).collect();
    let pairs = names.iter().zip(&values).map(|(name, value)| (&name[..], &value[..]));
    assert_eq!(engine.hash_set(key, b"hash", pairs, FieldExpiry::Set(None), NOW), Ok(2000));
    let mut stored = 0_u32;
    while engine.try_set(&stored.to_le_bytes(), &[7; 30], None, NOW).is_ok() {
        stored += 1;
    }
    for expires in [Some(NOW + 1000), None, Some(NOW + 5000)] {
        let mut changed = 0;
        let count = |outcome| changed += u32::from(outcome == FieldOutcome::Changed);
        let fields = names.iter().map(|name| &name[..]);
        assert_eq!(engine.hash_expire(key, b"hash", fields, expires, |_| true, NOW, count), Ok(Some(())));
        assert_eq!(changed, 2000);
        engine.check();
    }
    assert_eq!(engine.try_set(b"more", &[7; 30], None, NOW), Err(PutError::OutOfMemory));
}
