//! One request on one engine: what each command means.
//!
//! An [`Executor`] owns a shard's engine. It has one way in for requests, [`Executor::run`], which appends the reply to
//! a buffer or hands out a reader of a long value. It knows no sockets, no connections and no other shard; the time and
//! the stopwatch that measures slow commands enter as parameters.

#![forbid(unsafe_code)]

mod executor;
pub mod introspect;
pub mod resp;
mod strings;

pub use executor::{COPIED_BYTES_MAX, Executor, LongReply, Outcome, UploadTarget};
