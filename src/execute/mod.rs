//! One request on one engine: what each command means.
//!
//! `execute(request, hash, engine, now, counters) → Reply`, with the reply borrowed from the engine. Parking and effects
//! beyond the reply (blocking commands, replication, publications) enter here when there are commands that have them.

#![forbid(unsafe_code)]

mod strings;

use crate::command::{Operation, Reply, Request, UnixMs};
use crate::engine::{Engine, KeyHash};
use crate::metrics::{Counter, Counters};
use strings::Target;

/// Executes a request of one key, or this shard's part of one for all shards, at time `now`. Statistics are of the node
/// and none of this function's business.
#[inline]
pub fn execute<'a>(
    request: &Request<&'a [u8]>,
    hash: KeyHash,
    engine: &'a mut Engine,
    now: UnixMs,
    counters: &'a mut Counters,
) -> Reply<'a> {
    let target = Target { engine, hash, key: request.key, now, counters };
    match request.operation {
        Operation::Get { versions, touch: None, last, .. } => target.get(versions, last),
        Operation::Get { versions, touch: Some(expiry), last, .. } => target.get_and_touch(versions, expiry, last),
        Operation::Store { condition, flags, expiry, value } => target.store(condition, flags, expiry, value),
        Operation::Extend { end, value } => target.extend(end, value),
        Operation::RefuseTooLarge { drop_old } => target.refuse(drop_old),
        Operation::Delete => target.delete(),
        Operation::Arithmetic { decrement, delta } => target.arithmetic(decrement, delta),
        Operation::Touch { expiry } => target.touch(expiry),
        Operation::FlushAll { delay } => {
            match delay.resolve(now) {
                Some(due) if due > now => target.engine.flush_at(due),
                _ => target.engine.flush(),
            }
            Reply::Ok
        }
        Operation::Version => Reply::Version,
        Operation::Verbosity => Reply::Ok,
        Operation::Invalid(failure) => {
            target.counters.add(Counter::InvalidCommands);
            Reply::Failed(failure)
        }
        Operation::Stats(_) => unreachable!("the shard answers statistics itself"),
    }
}
