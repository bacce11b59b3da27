//! Formats and algorithms of Redis values that commands and the engine share; this module depends on neither.
//!
//! Everything here is a function of its arguments. Bytes from clients or other servers that are malformed yield `None`
//! or an error, never a panic.

#![forbid(unsafe_code)]

pub mod dump;
pub mod geohash;
pub mod glob;
pub mod hyperloglog;
pub mod numbers;
