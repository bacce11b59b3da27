//! Keys that are held while a command works on them in steps.

use super::*;

/// A held key outlives its time and any number of writes, under each policy; released, it is evicted as others are.
#[test]
fn a_held_key_is_neither_evicted_nor_expired() {
    for eviction in Eviction::ALL.into_iter().filter(|&e| e != Eviction::None) {
        let mut engine = engine(MEMORY_BYTES_MIN, eviction);
        let fill = |engine: &mut Engine, from: u64| {
            for n in 0..20_000 {
                let now = from + n / 10;
                engine.work(now);
                engine.set(&n.to_le_bytes(), &[1; 1000], None, now);
            }
        };
        let [expiring, lasting] = [b"expiring", &b"lasting"[..]].map(|key| engine.hasher.hash(key));
        engine.set(b"expiring", b"v", Some(NOW + 50), NOW);
        engine.set(b"lasting", b"v", None, NOW);
        engine.hold(expiring);
        engine.hold(lasting);
        fill(&mut engine, NOW);
        assert_eq!(engine.value(b"expiring", NOW).as_deref(), Some(&b"v"[..]), "{eviction}");
        assert_eq!(engine.value(b"lasting", NOW).as_deref(), Some(&b"v"[..]), "{eviction}");
        engine.release_hold(expiring);
        engine.release_hold(lasting);
        // S3-FIFO keeps what has been hit for as long as all others are seen once.
        if eviction == Eviction::S3Fifo {
            continue;
        }
        let mut rounds = 0;
        while engine.find(lasting, b"lasting").or(engine.find(expiring, b"expiring")).is_some() {
            rounds += 1;
            assert!(rounds < 50, "{eviction}: neither evicted nor expired");
            fill(&mut engine, NOW + 10_000 * rounds);
        }
        engine.check();
    }
}

/// If nothing but held keys could be evicted, a write fails instead.
#[test]
fn a_held_key_may_fill_the_memory() {
    let mut engine = engine(MEMORY_BYTES_MIN, Eviction::Lru);
    let hash = engine.hasher.hash(b"set");
    engine.hold(hash);
    let mut added = 0_u64;
    let refused = loop {
        let members: Vec<_> = (added..added + 100).map(u64::to_le_bytes).collect();
        let members = members.iter().map(|member| &member[..]);
        match engine.set_add(hash, b"set", members, |_| false, NOW) {
            Ok(count) => added += count,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, PutError::OutOfMemory);
    let held = engine.as_set(hash, b"set", NOW).expect("a set").map(|set| set.len());
    assert!(held.is_some_and(|length| length >= added && added > 50_000), "{held:?} of {added}");
    engine.release_hold(hash);
    engine.set(b"another", &[1; 1000], None, NOW);
    assert_eq!(engine.value(b"another", NOW).map(|value| value.len()), Some(1000));
    engine.check();
}
