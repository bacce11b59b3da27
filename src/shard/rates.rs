//! Rates of late, which INFO calls instantaneous.

use crate::command::UnixMs;
use std::sync::{Mutex, PoisonError};

/// Counts at a time: commands, bytes received, bytes sent.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at: UnixMs,
    counts: [u64; 3],
}

/// The two latest samples of the counts. They are taken once per second.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<[Sample; 2]>);

impl Rates {
    /// Takes a sample: commands, bytes received, bytes sent since the start.
    pub(super) fn sample(&self, at: UnixMs, counts: [u64; 3]) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *samples = [samples[1], Sample { at, counts }];
    }

    /// Commands, bytes received and bytes sent per second, between the two latest samples.
    pub(super) fn per_second(&self) -> [f64; 3] {
        let [old, new] = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let milliseconds = new.at.saturating_sub(old.at);
        if old.at == 0 || milliseconds == 0 {
            return [0.0; 3];
        }
        std::array::from_fn(|n| (new.counts[n] - old.counts[n]) as f64 * 1000.0 / milliseconds as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_between_the_latest_samples() {
        let rates = Rates::default();
        assert_eq!(rates.per_second(), [0.0; 3]);
        rates.sample(5_000, [10, 20, 30]);
        assert_eq!(rates.per_second(), [0.0; 3], "one sample is no rate");
        rates.sample(7_000, [20, 20, 1030]);
        assert_eq!(rates.per_second(), [5.0, 0.0, 500.0]);
        rates.sample(8_000, [20, 20, 1030]);
        assert_eq!(rates.per_second(), [0.0; 3]);
    }
}
