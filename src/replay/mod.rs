//! Replays recorded requests through the engine: what it would have hit, by eviction policy and memory.
//!
//! [`parse`] makes a [`Trace`] of a file's bytes; [`Plan::new`] decides which cells (policy × memory) are run, and at
//! which scale; [`run`] runs one cell on an engine of its own; a [`Report`] says what came out, as a table or as JSON;
//! [`plot`] draws it. Files, threads and the terminal are the caller's. `cache.rs` is all that knows the engine.

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
