//! What came out of replays, as a table and as JSON.

use super::plan::{Count, Plan};
use super::run::Outcome;
use super::trace::Trace;
use serde::Serialize;

/// Everything that was run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What amounts of memory count.
    pub count: Count,
    /// In the order of the files.
    pub traces: Vec<TraceReport>,
}

/// What came out of one trace. All bytes are those of the trace at its scale.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceReport {
    /// Its name.
    pub trace: String,
    /// How many requests.
    pub requests: usize,
    /// Their different keys.
    pub distinct_keys: u32,
    /// Bytes of all distinct items.
    pub footprint_bytes: u64,
    /// What sizes, and amounts of memory in bytes, were divided by.
    pub scale: u32,
    /// Amounts of memory that are too little for an engine.
    pub left_out: Vec<String>,
    /// One row of the table each.
    pub cells: Vec<CellReport>,
}

/// What came out of one policy with one amount of memory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellReport {
    /// The policy's name.
    pub policy: &'static str,
    /// The amount, as it was asked for.
    pub memory: String,
    /// The part of the footprint, where that was asked for.
    pub fraction: Option<f64>,
    /// The amount in bytes.
    pub capacity_bytes: u64,
    /// Hits in gets; none where nothing was asked for.
    pub object_hit_ratio: Option<f64>,
    /// Their bytes.
    pub byte_hit_ratio: Option<f64>,
    /// Gets.
    pub gets: u64,
    /// Gets that found their key.
    pub hits: u64,
    /// Writes of an item that is longer than the cell takes.
    pub refused: u64,
    /// Live items removed to make room.
    pub evictions: u64,
    /// Expired items removed.
    pub expired: u64,
    /// Bytes that the engine moved to reclaim space.
    pub moved_bytes: u64,
    /// Items at the end.
    pub items: u64,
    /// Bytes of their keys and values.
    pub user_bytes: u64,
    /// Bytes of keys and values in the capacity, on average over the second half.
    pub efficiency: Option<f64>,
}

impl TraceReport {
    /// The outcomes of a plan's cells, in their order.
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
    /// One object, indented.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("names are strings, and nothing else can fail")
    }

    /// One row per cell under a heading, and a line per trace whose sizes were divided.
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

/// Rows with columns of one width: the two names from the left, numbers from the right.
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

/// Bytes with a unit, and a decimal where they are not whole.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = UNITS.len().min(1 + bytes.checked_ilog2().unwrap_or(0) as usize / 10) - 1;
    let (whole, rest) = (bytes >> (10 * unit), bytes & ((1 << (10 * unit)) - 1));
    if rest == 0 {
        return format!("{whole}{}", UNITS[unit]);
    }
    format!("{:.1}{}", bytes as f64 / (1_u64 << (10 * unit)) as f64, UNITS[unit])
}
