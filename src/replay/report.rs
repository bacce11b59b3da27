//! The results of replays, as a table and as JSON.

use super::plan::{Count, Plan};
use super::run::Outcome;
use super::trace::Trace;
use serde::Serialize;

/// The results of all traces.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The bytes that amounts of memory limit.
    pub count: Count,
    /// In the order of the files.
    pub traces: Vec<TraceReport>,
}

/// The results of one trace. All bytes are at its scale.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceReport {
    /// Name of the trace.
    pub trace: String,
    /// Number of requests.
    pub requests: usize,
    /// Number of distinct keys.
    pub distinct_keys: u32,
    /// Bytes of all distinct items.
    pub footprint_bytes: u64,
    /// The divisor of all sizes, and of amounts of memory in bytes.
    pub scale: u32,
    /// Amounts of memory that are too small for an engine.
    pub left_out: Vec<String>,
    /// The results by policy and memory, one row of the table each.
    pub cells: Vec<CellReport>,
}

/// The result of one policy with one amount of memory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellReport {
    /// The policy's name.
    pub policy: &'static str,
    /// The amount, as given by the user.
    pub memory: String,
    /// The fraction of the footprint, if it was given as a percentage.
    pub fraction: Option<f64>,
    /// The amount in bytes.
    pub capacity_bytes: u64,
    /// Hits divided by gets; None without gets.
    pub object_hit_ratio: Option<f64>,
    /// Bytes of the hits divided by bytes of the gets.
    pub byte_hit_ratio: Option<f64>,
    /// Number of gets.
    pub gets: u64,
    /// Number of hits.
    pub hits: u64,
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
    /// Bytes of keys and values divided by the capacity, averaged over the second half of the trace.
    pub efficiency: Option<f64>,
}

impl TraceReport {
    /// Builds the results from the outcomes of a plan's cells, which are in the plan's order.
    pub fn new(name: String, trace: &Trace, plan: &Plan, outcomes: &[Outcome]) -> Self {
        assert_eq!(plan.cells.len(), outcomes.len(), "an outcome per cell");
        let cells = plan.cells.iter().zip(outcomes).map(|(cell, outcome)| CellReport {
            policy: cell.eviction().name(),
            memory: cell.amount.to_string(),
            fraction: cell.amount.fraction(),
            capacity_bytes: cell.capacity_bytes,
            object_hit_ratio: ratio(outcome.hits as f64, outcome.gets),
            byte_hit_ratio: ratio(outcome.hit_bytes as f64, outcome.get_bytes),
            gets: outcome.gets,
            hits: outcome.hits,
            refused: outcome.refused,
            evictions: outcome.evictions,
            expired: outcome.expired,
            moved_bytes: outcome.moved_bytes,
            items: outcome.items,
            user_bytes: outcome.user_bytes,
            efficiency: ratio(outcome.user_bytes_mean, cell.capacity_bytes),
        });
        Self {
            trace: name,
            requests: trace.len(),
            distinct_keys: trace.distinct(),
            footprint_bytes: plan.footprint_bytes,
            scale: plan.scale,
            left_out: plan.left_out.iter().map(|(amount, _)| amount.to_string()).collect(),
            cells: cells.collect(),
        }
    }
}

impl Report {
    /// One indented JSON object.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("names are strings, and nothing else can fail")
    }

    /// A heading, one row per cell, and a line for each trace whose sizes were divided.
    pub fn table(&self) -> String {
        let heading = [
            "trace",
            "policy",
            "memory",
            "capacity",
            "objects",
            "bytes",
            "evictions",
            "moved",
            "refused",
            "efficiency",
        ];
        let mut rows = vec![heading.map(String::from)];
        for trace in &self.traces {
            rows.extend(trace.cells.iter().map(|cell| {
                [
                    trace.trace.clone(),
                    cell.policy.into(),
                    cell.memory.clone(),
                    bytes(cell.capacity_bytes),
                    percent(cell.object_hit_ratio),
                    percent(cell.byte_hit_ratio),
                    cell.evictions.to_string(),
                    bytes(cell.moved_bytes),
                    cell.refused.to_string(),
                    percent(cell.efficiency),
                ]
            }));
        }
        let mut table = aligned(&rows);
        for trace in self.traces.iter().filter(|t| t.scale > 1) {
            table += &format!("{}: sizes are divided by {}\n", trace.trace, trace.scale);
        }
        table
    }
}

/// Aligns columns: the two names to the left, numbers to the right.
fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    const NAMES: usize = 2;
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if column < NAMES { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ") + "\n"
    };
    rows.iter().map(line).collect()
}

fn ratio(part: f64, whole: u64) -> Option<f64> {
    (whole != 0).then(|| part / whole as f64)
}

fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".into(), |ratio| format!("{:.2}%", ratio * 100.0))
}

/// Bytes with a unit; one decimal unless they are a whole number of it.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = UNITS.len().min(1 + bytes.checked_ilog2().unwrap_or(0) as usize / 10) - 1;
    let (whole, rest) = (bytes >> (10 * unit), bytes & ((1 << (10 * unit)) - 1));
    if rest == 0 {
        return format!("{whole}{}", UNITS[unit]);
    }
    format!("{:.1}{}", bytes as f64 / (1_u64 << (10 * unit)) as f64, UNITS[unit])
}
