//! Times the steps of an engine by thread CPU time; shared by the benches of single steps.
//!
//! The time that reading the clock takes, the median of many pairs of readings, is subtracted from each step.

use hdrhistogram::Histogram;
use pinion::engine::{Engine, EngineStats};
use std::time::Instant;

/// CPU time of this thread.
pub fn thread_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec, which is all that clock_gettime(2) writes to.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(done, 0, "the clock of a thread is always there");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// xorshift64 (Marsaglia 2003).
pub struct Random(pub u64);

impl Random {
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * u128::from(n)) >> 64) as u64
    }
}

/// The steps of one kind in one storm.
struct Row {
    call: &'static str,
    cpu: Histogram<u64>,
    wall: Histogram<u64>,
    over_bar: u64,
    /// The longest step, and the engine's counters during it.
    longest: u64,
    did: String,
}

/// Times steps.
pub struct Meter {
    /// The time that reading the clock takes.
    pub overhead_ns: u64,
    /// The bar: longer steps are counted.
    bar_ns: u64,
    /// The current storm.
    pub storm: &'static str,
    rows: Vec<Row>,
    /// CPU time of all steps.
    pub spent_ns: u64,
}

impl Meter {
    /// A meter that counts steps longer than a bar.
    pub fn new(bar_ns: u64) -> Self {
        let mut pairs: Vec<u64> = (0..100_001)
            .map(|_| {
                let start = thread_ns();
                thread_ns() - start
            })
            .collect();
        pairs.sort_unstable();
        Self { overhead_ns: pairs[pairs.len() / 2], bar_ns, storm: "", rows: Vec::new(), spent_ns: 0 }
    }

    /// Times one step.
    pub fn time<R>(&mut self, call: &'static str, engine: &mut Engine, step: impl FnOnce(&mut Engine) -> R) -> R {
        let before = engine.stats();
        let instant = Instant::now();
        let start = thread_ns();
        let result = step(engine);
        let end = thread_ns();
        let wall_ns = instant.elapsed().as_nanos() as u64;
        let cpu_ns = (end - start).saturating_sub(self.overhead_ns);
        self.spent_ns += cpu_ns;
        let number = self.rows.iter().position(|row| row.call == call).unwrap_or_else(|| {
            let empty = || Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds");
            let (cpu, wall) = (empty(), empty());
            self.rows.push(Row { call, cpu, wall, over_bar: 0, longest: 0, did: String::new() });
            self.rows.len() - 1
        });
        let row = &mut self.rows[number];
        row.cpu.saturating_record(cpu_ns);
        row.wall.saturating_record(wall_ns);
        row.over_bar += u64::from(cpu_ns > self.bar_ns);
        if cpu_ns > row.longest {
            row.longest = cpu_ns;
            row.did = difference(before, engine.stats());
        }
        result
    }

    /// Prints the head of a table.
    pub fn print_head(&self) {
        let bar_us = self.bar_ns / 1000;
        println!(
            "| storm | step | count | p50 | p99 | p99.9 | p99.99 | max | > {bar_us} | max, wall | in the longest |"
        );
        println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|");
    }

    /// Prints the rows of a finished storm.
    pub fn end_storm(&mut self) {
        for row in self.rows.drain(..) {
            let us = |ns: u64| ns as f64 / 1000.0;
            let at = |quantile| us(row.cpu.value_at_quantile(quantile));
            println!(
                "| {} | {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {:.0} | {} |",
                self.storm,
                row.call,
                row.cpu.len(),
                at(0.5),
                at(0.99),
                at(0.999),
                at(0.9999),
                us(row.longest),
                row.over_bar,
                us(row.wall.max()),
                row.did,
            );
        }
    }
}

fn difference(before: EngineStats, after: EngineStats) -> String {
    let count = |name: &str, from: u64, to: u64| match to as i64 - from as i64 {
        0 => String::new(),
        n => format!("{name} {n:+} "),
    };
    [
        count("evicted", before.evictions, after.evictions),
        count("expired", before.expired, after.expired),
        count("moved B", before.moved_bytes, after.moved_bytes),
        count("held KiB", before.held_bytes >> 10, after.held_bytes >> 10),
        count("index KiB", before.index_bytes >> 10, after.index_bytes >> 10),
    ]
    .concat()
    .trim_end()
    .to_owned()
}
