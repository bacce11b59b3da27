//! A sample of the items, from which statistics are estimated that nothing else needs to be counted for.

use super::arena::{Reference, place};
use super::eviction;
use super::item::Header;
use super::{Engine, KeyHash};
use crate::command::{DATABASES, UnixMs};

/// The number of positions in the order of hashes.
const HASHES: u64 = 1 << 32;
/// The most quads that are visited at once: some ten microseconds where they are empty, half a millisecond where not.
/// A new index has as many, or fewer.
const QUADS: u64 = 256;
/// The most items of an estimate: some 50 µs. What is said of fewer is exact.
const ITEMS: u64 = 1024;
/// Keys of a window in which a random key is looked for: on average, and at most, nearly always.
const KEYS_PER_WINDOW: u64 = 24;
const KEYS_PER_WINDOW_MAX: u64 = 64;
/// The most windows of a few quads in which one is looked for, and the least of many.
const WINDOWS: std::ops::RangeInclusive<u64> = 2..=64;

/// What a sample says of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// The average time to live of the items that expire, in milliseconds; 0 if none does.
    pub ttl_ms: u64,
    /// Hashes with fields that expire.
    pub hashes_with_expiring_fields: u64,
}

/// What a sample has seen of one database.
#[derive(Clone, Copy, Default)]
struct Seen {
    items: u64,
    expiring: u64,
    ttl_ms: u64,
    timed_hashes: u64,
}

impl Engine {
    /// Draws a key of a database, each with the same probability, and appends it to `out`. False if there is none.
    pub fn random_key(&mut self, database: u8, now: UnixMs, out: &mut Vec<u8>) -> bool {
        let (items, quads) = (self.databases[usize::from(database)].items, u64::from(self.index.quads()));
        let Some(share) = HASHES.checked_div(items) else { return false };
        // Windows of the order of hashes, all of one length and anywhere, have each key as often as any other. Of the
        // keys in a window, one is taken as often as there are keys, so that a window with few of them is as rarely
        // the last one as it should be.
        let window = (share * KEYS_PER_WINDOW).min(HASHES / quads * QUADS).clamp(1, HASHES);
        let keys_max = if window == HASHES { items } else { KEYS_PER_WINDOW_MAX };
        let quads_per_window = window * quads / HASHES + 1;
        for _ in 0..(2 * QUADS / quads_per_window).clamp(*WINDOWS.start(), *WINDOWS.end()) {
            let (from, pick) = (self.random() as u32, self.random() % keys_max);
            let mut found = 0;
            self.visit_window(from, window, now, |hash, item, header| {
                if hash.database() == database {
                    if found == pick {
                        out.extend_from_slice(header.key(self.arena.memory(), place(item)));
                    }
                    found += 1;
                }
                found <= pick
            });
            if found > pick {
                return true;
            }
        }
        // Nearly all keys are of other databases, or have expired: the first one from a random place on.
        let (from, mut found) = (self.random() as u32, false);
        self.visit_window(from, HASHES, now, |hash, item, header| {
            if hash.database() == database && !found {
                out.extend_from_slice(header.key(self.arena.memory(), place(item)));
                found = true;
            }
            !found
        });
        found
    }

    /// Visits the items in a part of the order of hashes: `window` positions from `from` on, the first of all following
    /// the last. Ends early, but not within a quad, once `visit` returns false; false if it did.
    fn visit_window(
        &self,
        from: u32,
        window: u64,
        now: UnixMs,
        mut visit: impl FnMut(KeyHash, Reference, Header) -> bool,
    ) -> bool {
        let memory = self.arena.memory();
        let (mut cursor, mut begun, mut goes_on) = (from, 0, true);
        while goes_on && begun < window {
            let (_, next) = self.index.quad(cursor);
            // Where the next quad begins, counted from the window's start: behind its end, once all are visited.
            let end = match u64::from(next.wrapping_sub(from)) {
                end if end > begun => end.min(window),
                _ => window,
            };
            self.index.scan(memory, cursor, |item| {
                let header = Header::read(memory, place(item));
                let hash = eviction::hash_of(memory, &self.hasher, item);
                let at = u64::from(hash.position().wrapping_sub(from));
                if (begun..end).contains(&at) && self.is_current(hash, item, header, now) {
                    goes_on &= visit(hash, item, header);
                }
            });
            (cursor, begun) = (next, end);
        }
        goes_on
    }

    /// Estimates statistics of every database from a bounded sample of the items.
    pub fn estimates(&mut self, now: UnixMs) -> [Estimate; DATABASES] {
        // The order of hashes has nothing to do with the items, so neighbours are as good a sample as any.
        let (from, quads) = (self.random() as u32, u64::from(self.index.quads()));
        let window = (HASHES / quads * QUADS).min(HASHES);
        let (mut seen, mut total) = ([Seen::default(); DATABASES], 0);
        let goes_on = self.visit_window(from, window, now, |hash, item, header| {
            let seen = &mut seen[usize::from(hash.database())];
            seen.items += 1;
            seen.timed_hashes += u64::from(self.has_expiring_fields(item, header));
            if let Some(expires) = header.expires(self.arena.memory(), place(item)) {
                seen.expiring += 1;
                seen.ttl_ms += expires - now;
            }
            total += 1;
            total < ITEMS
        });
        let is_exact = goes_on && window == HASHES;
        std::array::from_fn(|number| {
            let (seen, items) = (seen[number], self.databases[number].items);
            let timed_hashes = match is_exact {
                true => seen.timed_hashes,
                false => (seen.timed_hashes * items).checked_div(seen.items).unwrap_or(0),
            };
            let ttl_ms = seen.ttl_ms.checked_div(seen.expiring).unwrap_or(0);
            Estimate { ttl_ms, hashes_with_expiring_fields: timed_hashes }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Attributes, EngineConfig, FieldExpiry, KeyHasher};
    use crate::slots::Group;

    const NOW: UnixMs = 1_700_000_000_000;

    fn filled(count: u64) -> Engine {
        let hasher = KeyHasher::with_seed(11);
        let eviction = crate::eviction::Eviction::default();
        let config = EngineConfig { memory_bytes: 64 << 20, value_bytes_max: 1 << 20, eviction, user_bytes_max: None };
        let mut engine = Engine::new(config, hasher.clone(), NOW).expect("memory");
        for n in 0..count {
            let key = format!("key-{n}");
            let (hash, key) = (hasher.hash(key.as_bytes()).in_database(3), key.as_bytes());
            // A quarter expires after 10 to 20 seconds, a quarter is hashes with a field that expires.
            let expires = (n % 4 == 0).then_some(NOW + 10_000 + n * 10_000 / count);
            match n % 4 {
                1 => {
                    let expiry = FieldExpiry::Set(Some(NOW + 60_000));
                    let fields = [(&b"field"[..], &b"value"[..])];
                    engine.hash_set(hash, key, fields.into_iter(), expiry, NOW).expect("memory");
                }
                _ => {
                    let attributes = Attributes { flags: 0, expires };
                    engine.put(hash, Group::of(key), key, b"value", attributes, NOW).expect("memory");
                }
            }
        }
        engine
    }

    /// RANDOMKEY took a random place and then one of the keys there: keys in places with few others came too often.
    #[test]
    fn every_key_is_drawn_as_often_as_any_other() {
        for count in [1, 7, 1000] {
            let (mut engine, draws) = (filled(count), 400 * count);
            let mut drawn = std::collections::HashMap::new();
            for _ in 0..draws {
                let mut key = Vec::new();
                assert!(engine.random_key(3, NOW, &mut key));
                *drawn.entry(key).or_insert(0_u64) += 1;
            }
            assert_eq!(drawn.len() as u64, count, "every key comes");
            // The sum of squares of the deviations follows a chi-squared distribution of `count` - 1 degrees.
            let chi: f64 = drawn.values().map(|&n| (n as f64 - 400.0).powi(2) / 400.0).sum();
            let (mean, deviation) = (count as f64 - 1.0, (2.0 * (count as f64 - 1.0)).sqrt());
            assert!((chi - mean).abs() <= 5.0 * deviation, "{count} keys: {chi}");
        }
        assert!(!filled(0).random_key(3, NOW, &mut Vec::new()));
    }

    #[test]
    fn a_key_among_those_of_other_databases_is_found() {
        let mut engine = filled(20_000);
        let key = &b"alone"[..];
        let hash = KeyHasher::with_seed(11).hash(key).in_database(5);
        engine.put(hash, Group::of(key), key, b"value", Attributes::default(), NOW).expect("memory");
        let mut found = b"before ".to_vec();
        assert!(engine.random_key(5, NOW, &mut found) && found == b"before alone");
    }

    #[test]
    fn few_items_are_all_visited() {
        let mut engine = filled(400);
        let estimates = engine.estimates(NOW);
        assert_eq!(estimates[3], Estimate { ttl_ms: 14_950, hashes_with_expiring_fields: 100 });
        assert_eq!(estimates[0], Estimate::default());
    }

    #[test]
    fn many_items_are_estimated() {
        let mut engine = filled(100_000);
        for _ in 0..10 {
            let Estimate { ttl_ms, hashes_with_expiring_fields } = engine.estimates(NOW)[3];
            assert!((13_500..16_500).contains(&ttl_ms), "{ttl_ms}");
            assert!((18_000..32_000).contains(&hashes_with_expiring_fields), "{hashes_with_expiring_fields}");
        }
    }
}
