//! Memory that goes back to the system.

use super::*;

/// Fills an engine one and a half times.
fn filled(memory_bytes: u64) -> Engine {
    let mut engine = engine(memory_bytes, Eviction::default());
    for n in 0..memory_bytes / 100 {
        engine.set(&n.to_le_bytes(), &[n as u8; 100], None, NOW);
    }
    engine
}

/// Regression: the index for all the items that there had been stayed while items were evicted, down to 56 % of the new
/// limit. And the memory of the pages that became free stayed with the process.
#[test]
fn a_lower_limit_keeps_what_fits_and_the_rest_goes_back_to_the_system() {
    let mut engine = filled(64 << 20);
    engine.set_memory_bytes(8 << 20);
    let mut calls = 0;
    while engine.work(NOW) == Next::Now {
        calls += 1;
    }
    engine.check();
    assert!(calls > 1000, "in steps, of which there were {calls}");
    assert!(engine.stats().held_bytes <= 8 << 20);
    assert_eq!(engine.arena.resident_pages(), 0);
    let fits = filled(8 << 20).stats().items;
    assert!(engine.stats().items * 10 > fits * 9, "{} of {fits} items", engine.stats().items);
    for n in 0..200_000_u64 {
        engine.set(&n.to_le_bytes(), &[n as u8; 100], None, NOW);
    }
    engine.check();
    assert!(engine.stats().items * 10 > fits * 9 && engine.stats().held_bytes <= 8 << 20);
}

/// Regression: after a flush, the process kept all of its memory, also after MEMORY PURGE.
#[test]
fn free_pages_go_back_to_the_system_when_asked_and_when_they_are_idle() {
    for purge in [true, false] {
        let mut engine = filled(16 << 20);
        engine.flush();
        engine.work_all(NOW);
        let free = engine.arena.resident_pages();
        assert!(free > 900, "{free}");
        let kept = if purge {
            engine.purge();
            0
        } else {
            // Looked at twice: the pages have been free for the time between.
            assert!(matches!(engine.work(NOW), Next::In(1..=10_000)));
            engine.work_all(NOW + 10_000);
            assert!(engine.arena.resident_pages() == free);
            27
        };
        engine.work(NOW + 20_000);
        assert!(engine.arena.resident_pages() > free - 40, "in steps");
        engine.work_all(NOW + 20_000);
        assert_eq!(engine.arena.resident_pages(), kept);
        assert_eq!(engine.work(NOW + 20_000), Next::Idle);
        engine.check();
        for n in 0..50_000_u64 {
            engine.set(&n.to_le_bytes(), &[n as u8; 100], None, NOW);
        }
        assert!((0..50_000_u64).all(|n| engine.value(&n.to_le_bytes(), NOW) == Some(vec![n as u8; 100])));
        engine.check();
    }
}
