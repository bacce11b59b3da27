//! One request on one engine: what each command means.
//!
//! `execute(request, engine, now, counters) → Reply`, with the reply borrowed from the engine. Parking and effects
//! beyond the reply (blocking commands, replication, publications) enter here when there are commands that have them.

#![forbid(unsafe_code)]

mod strings;

use crate::command::{Operation, Reply, Request, UnixMs};
use crate::engine::{Engine, KeyHash};
use crate::metrics::{Counter, Counters};

/// Executes a request of one key, or this shard's part of one for all shards, at time `now`.
#[inline]
pub fn execute<'a>(
    request: &Request<&'a [u8]>,
    hash: KeyHash,
    engine: &'a mut Engine,
    now: UnixMs,
    counters: &mut Counters,
) -> Reply<'a> {
    let key = request.key;
    match request.operation {
        Operation::Get { versions, touch: None, last, .. } => {
            strings::get(engine, hash, key, versions, last, now, counters)
        }
        Operation::Get { versions, touch: Some(expiry), last, .. } => {
            strings::get_and_touch(engine, hash, key, versions, expiry, last, now, counters)
        }
        Operation::Store { condition, flags, expiry, value } => {
            strings::store(engine, hash, key, condition, flags, expiry, value, now, counters)
        }
        Operation::Extend { end, value } => strings::extend(engine, hash, key, end, value, now, counters),
        Operation::RefuseTooLarge { drop_old } => strings::refuse(engine, hash, key, drop_old, now, counters),
        Operation::Delete => strings::delete(engine, hash, key, now, counters),
        Operation::Arithmetic { decrement, delta } => {
            strings::arithmetic(engine, hash, key, decrement, delta, now, counters)
        }
        Operation::Touch { expiry } => strings::touch(engine, hash, key, expiry, now, counters),
        Operation::FlushAll { delay } => {
            match delay.resolve(now) {
                Some(due) => engine.flush_at(due),
                None => engine.flush(),
            }
            Reply::Ok
        }
        Operation::Version => Reply::Version,
        Operation::Verbosity => Reply::Ok,
        Operation::Invalid(failure) => {
            counters.add(Counter::InvalidCommands);
            Reply::Failed(failure)
        }
        Operation::Stats(_) => unreachable!("statistics are of the node: the shard answers them itself"),
    }
}
