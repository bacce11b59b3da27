//! Runs one cell: a trace through one engine.
//!
//! A get that misses is followed at once by a fill with the size and TTL that the trace gives. A set stores, a delete
//! removes. The engine really stores the values; they are zeros, since their contents do not matter.

use super::cache::Cache;
use super::plan::{Cell, Plan};
use super::trace::{Op, Trace};
use crate::command::UnixMs;
use std::io;

/// Start time of replays: some time in November 2023. The engine only counts from its start, so any would do.
const START_MS: UnixMs = 1_700_000_000_000;

/// Requests per step of background work: as many as a server executes in a batch.
const TURN_REQUESTS: usize = 64;

/// Turns between reports of progress.
const PROGRESS_TURNS: usize = 256;

/// The outcome of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Number of gets.
    pub gets: u64,
    /// Number of hits.
    pub hits: u64,
    /// Bytes of the items requested by gets.
    pub get_bytes: u64,
    /// Bytes of the hits.
    pub hit_bytes: u64,
    /// Writes refused because the item is longer than the cell accepts.
    pub refused: u64,
    /// Live items evicted.
    pub evictions: u64,
    /// Expired items removed.
    pub expired: u64,
    /// Bytes copied by evacuation.
    pub moved_bytes: u64,
    /// Items at the end.
    pub items: u64,
    /// Bytes of their keys and values.
    pub user_bytes: u64,
    /// Bytes of keys and values, averaged over the second half of the trace.
    pub user_bytes_mean: f64,
}

/// Runs one cell of a trace's plan. `progress` receives the number of requests done since its last call.
///
/// # Errors
/// The engine's memory cannot be reserved.
pub fn run(trace: &Trace, plan: &Plan, cell: &Cell, progress: &mut dyn FnMut(u64)) -> io::Result<Outcome> {
    let mut cache = Cache::new(cell.limits, START_MS)?;
    let zeros = vec![0; cache.value_bytes_max()];
    let mut outcome = Outcome::default();
    let mut held = Mean::default();
    let mut told = 0;
    for (i, request) in trace.requests().enumerate() {
        let now = START_MS + request.at_ms;
        if i % TURN_REQUESTS == 0 {
            cache.advance(now);
            if i >= trace.len() / 2 {
                held.add(cache.stats().user_bytes);
            }
            if i % (TURN_REQUESTS * PROGRESS_TURNS) == 0 {
                progress((i - told) as u64);
                told = i;
            }
        }
        let mut number = [0; 8];
        let key = trace.key(request.key, &mut number);
        let bytes = trace.user_bytes(&request, plan.scale);
        let stores = match request.op {
            Op::Get => {
                let hit = cache.get(key, now);
                outcome.gets += 1;
                outcome.get_bytes += bytes;
                outcome.hits += u64::from(hit);
                outcome.hit_bytes += if hit { bytes } else { 0 };
                !hit
            }
            Op::Set => true,
            Op::Delete => {
                cache.remove(key, now);
                false
            }
        };
        if stores {
            let expires = (request.ttl_seconds != 0).then(|| now + u64::from(request.ttl_seconds) * 1000);
            let value = zeros.get(..bytes as usize - key.len());
            let stored = value.is_some_and(|value| cache.put(key, value, expires, now));
            if !stored {
                // The value stored before is stale now.
                cache.remove(key, now);
                outcome.refused += 1;
            }
        }
    }
    progress((trace.len() - told) as u64);
    let stats = cache.stats();
    held.add(stats.user_bytes);
    Ok(Outcome {
        evictions: stats.evictions,
        expired: stats.expired,
        moved_bytes: stats.moved_bytes,
        items: stats.items,
        user_bytes: stats.user_bytes,
        user_bytes_mean: held.mean(),
        ..outcome
    })
}

/// A mean of samples.
#[derive(Default)]
struct Mean {
    sum: u128,
    samples: u64,
}

impl Mean {
    fn add(&mut self, sample: u64) {
        self.sum += u128::from(sample);
        self.samples += 1;
    }

    fn mean(&self) -> f64 {
        self.sum as f64 / self.samples as f64
    }
}
