//! Trace replay: runs recorded requests through the engine and reports hit ratios by eviction policy and memory.
//!
//! [`parse`] reads a [`Trace`] from a file's bytes; [`Plan::new`] determines the cells (policy × memory) to run, and
//! the scale; [`run`] runs one cell on its own engine; a [`Report`] presents the results as a table or as JSON;
//! [`plot`] draws them. Files, threads and the terminal are up to the caller. Only `cache.rs` knows the engine.

#![forbid(unsafe_code)]

mod cache;
mod plan;
mod plot;
mod report;
mod run;
mod trace;

pub use crate::eviction::Eviction;
pub use cache::POLICIES;
pub use plan::{Amount, Cell, Count, Plan, Refusal};
pub use plot::{html, svg};
pub use report::{Report, TraceReport};
pub use run::{Outcome, run};
pub use trace::{Op, Request, TRACE_BYTES_MAX, Trace, TraceError, parse};

#[cfg(test)]
mod tests;
