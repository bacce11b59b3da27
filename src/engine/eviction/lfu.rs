//! LFU with decay: the policy byte holds a logarithmic access counter, the victim has the lowest of a sample.
//!
//! ```text
//! bit  7       5 4               0
//!     +---------+-----------------+
//!     |  epoch  |     counter     |
//!     +---------+-----------------+
//! ```
//!
//! The higher the counter, the less likely a hit increments it (Morris 1978, as in Redis). It is decremented once per
//! epoch; without that, items that were popular long ago would never be evicted. An epoch is ten accesses (hits or
//! admissions) per entry that fits into memory. A counter is brought up to the current epoch when the entry is hit or
//! the hand visits it. The three bits of the epoch wrap only if the hand does not visit an entry for eight epochs, in
//! which case hardly anything is being evicted.
//!
//! Replayed over the traces at 1, 5 and 10 % of the footprint (32 cells of at least 1,000 items), the hit ratio is 0.6
//! points from that of `lfu-decay-s5` in the simulator on average and 1.8 at most. Sampling from half a quad (a dozen
//! entries), it is 0.9 and 3.7. Taking the lowest of all visited entries, it is 0.6 and 2.5, with slightly lower hit
//! ratios on average.

use super::sample::{Draw, Hand, Random};
use super::{Arena, Entrant, Outlook, Position, Rules, View};

/// Counter of a new entry. Only entries not accessed for at least one epoch are below it.
const INITIAL: u8 = 1;
/// Up to this value, every hit increments the counter.
const LINEAR: u8 = 5;
/// Above it, one step takes this many hits more than the one before, on average.
const RISE: u32 = 10;
/// Accesses in an epoch, per entry that fits into memory.
const EPOCH_ACCESSES_PER_ENTRY: u64 = 10;
/// Half quads that the hand visits per victim: about 25 entries.
const VISITS: usize = 2;
/// Entries drawn from those, of which the victim is the lowest.
const SAMPLE: usize = 7;

const COUNTER_BITS: u32 = 5;
const COUNTER_MAX: u8 = (1 << COUNTER_BITS) - 1;
const EPOCH_MAX: u8 = u8::MAX >> COUNTER_BITS;

const _: () = assert!(INITIAL < LINEAR && LINEAR < COUNTER_MAX);

pub(in crate::engine) struct Lfu {
    clock: Clock,
    hand: Hand,
    random: Random,
}

impl Lfu {
    pub(super) fn new() -> Self {
        Self { clock: Clock::new(), hand: Hand::default(), random: Random::new() }
    }
}

impl Lfu {
    /// The current counter of an entry, with the decay since it was last updated.
    pub(super) fn frequency(&self, byte: u8) -> u8 {
        self.clock.counter(byte)
    }
}

impl Rules for Lfu {
    fn admit(&mut self, _: &mut Arena, _: Entrant, outlook: Outlook) -> u8 {
        self.clock.epoch_accesses = outlook.entries.saturating_mul(EPOCH_ACCESSES_PER_ENTRY);
        self.clock.tick();
        self.clock.byte(INITIAL)
    }

    fn adopt(&mut self, _: &mut Arena, _: Entrant) -> u8 {
        self.clock.byte(INITIAL)
    }

    #[inline]
    fn hit(&mut self, byte: u8) -> u8 {
        self.clock.tick();
        let counter = self.clock.counter(byte);
        let above = u32::from(counter.saturating_sub(LINEAR));
        let rises = counter < COUNTER_MAX && (above == 0 || self.random.below(above * RISE + 1) == 0);
        self.clock.byte(counter + u8::from(rises))
    }

    fn victim(&mut self, view: &mut View) -> Option<Position> {
        let (clock, random) = (&self.clock, &mut self.random);
        let mut sample = Draw::<SAMPLE>::new();
        for _ in 0..VISITS {
            self.hand.sample(view, |view, at| {
                let byte = view.policy(at);
                let current = clock.byte(clock.counter(byte));
                if current != byte {
                    view.set_policy(at, current);
                }
                sample.offer(random, at);
            });
        }
        // All counters are of the current epoch now, so the lowest byte has the lowest counter.
        sample.drawn().min_by_key(|&at| view.policy(at))
    }
}

/// The current epoch, and how bytes are interpreted in it.
#[derive(Debug)]
struct Clock {
    epoch: u8,
    /// Accesses in this epoch so far, and how many end it.
    accesses: u64,
    epoch_accesses: u64,
}

impl Clock {
    /// The first epoch does not end before the first admission sets its length.
    fn new() -> Self {
        Self { epoch: 0, accesses: 0, epoch_accesses: u64::MAX }
    }

    /// Counts an access.
    #[inline]
    fn tick(&mut self) {
        self.accesses += 1;
        if self.accesses >= self.epoch_accesses {
            self.epoch = (self.epoch + 1) & EPOCH_MAX;
            self.accesses = 0;
        }
    }

    /// The counter of a byte, decayed by the epochs since the byte was written.
    #[inline]
    fn counter(&self, byte: u8) -> u8 {
        let epochs = self.epoch.wrapping_sub(byte >> COUNTER_BITS) & EPOCH_MAX;
        (byte & COUNTER_MAX).saturating_sub(epochs)
    }

    #[inline]
    fn byte(&self, counter: u8) -> u8 {
        self.epoch << COUNTER_BITS | counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clock(epoch_accesses: u64) -> Clock {
        Clock { epoch_accesses, ..Clock::new() }
    }

    #[test]
    fn an_epoch_ends_after_its_accesses() {
        let mut clock = clock(3);
        let epochs: Vec<u8> = (0..7).map(|_| (clock.tick(), clock.epoch).1).collect();
        assert_eq!(epochs, [0, 0, 1, 1, 1, 2, 2]);
    }

    #[test]
    fn adopted_entries_do_not_decay_before_the_first_admission() {
        let mut lfu = Lfu::new();
        let mut byte = lfu.clock.byte(INITIAL);
        for _ in INITIAL..LINEAR {
            byte = lfu.hit(byte);
        }
        assert_eq!(lfu.clock.counter(byte), LINEAR);
    }

    #[test]
    fn a_counter_rises_by_each_hit_at_first_then_seldom_and_never_overflows() {
        let mut lfu = Lfu::new();
        let mut byte = lfu.clock.byte(INITIAL);
        let mut hits_at = [0_u32; COUNTER_MAX as usize + 1];
        for _ in 0..100_000 {
            hits_at[lfu.clock.counter(byte) as usize] += 1;
            byte = lfu.hit(byte);
        }
        assert!(hits_at[INITIAL as usize..=LINEAR as usize].iter().all(|&hits| hits == 1), "{hits_at:?}");
        // 11, 21, ... 251 hits on average, between LINEAR and the maximum.
        let above: u32 = hits_at[LINEAR as usize + 1..COUNTER_MAX as usize].iter().sum();
        assert!((1_500..6_000).contains(&above), "{above} hits: {hits_at:?}");
        assert_eq!(lfu.clock.counter(byte), COUNTER_MAX);
    }

    proptest! {
        /// Against a counter that is decremented at each epoch.
        #[test]
        fn lazy_decay_is_decay(steps in prop::collection::vec(0_u8..EPOCH_MAX, 1..200), start in 0..=COUNTER_MAX) {
            let mut clock = clock(1);
            let mut byte = clock.byte(start);
            let mut naive = start;
            for epochs in steps {
                for _ in 0..epochs {
                    clock.tick();
                    naive = naive.saturating_sub(1);
                }
                prop_assert_eq!(clock.counter(byte), naive);
                // The effect of a hit in the linear range.
                naive = (naive + epochs % 3).min(COUNTER_MAX);
                byte = clock.byte(naive);
            }
        }
    }
}
