//! Formats and algorithms of Redis values: what the commands and the engine have in common, without either.
//!
//! Everything here is a function of its arguments. Bytes that a client sent, or that another server wrote, are answered
//! with `None` or an error if they are not of the format; they never panic.

#![forbid(unsafe_code)]

pub mod dump;
pub mod geohash;
pub mod glob;
pub mod hyperloglog;
pub mod numbers;
