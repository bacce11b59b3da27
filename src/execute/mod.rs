//! Executes one request on one engine: the semantics of each command.
//!
//! An [`Executor`] owns a shard's engine. Requests enter through [`Executor::run`], which appends the reply to a buffer
//! or returns a reader of a long value. It knows no sockets, no connections and no other shard; the time, and the
//! stopwatch that measures slow commands, enter as parameters.

#![forbid(unsafe_code)]

mod executor;
pub mod introspect;
pub mod resp;
mod strings;

pub use executor::{COPIED_BYTES_MAX, Effects, Executor, LongReply, Outcome, UploadTarget};
pub use resp::Slice;
