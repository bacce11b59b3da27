//! One request on one engine: what each command means.
//!
//! `execute(request, hash, engine, now, counters) → Outcome`, with a reply borrowed from the engine. Parking and effects
//! beyond the reply (blocking commands, replication, publications) enter here when there are commands that have them.

#![forbid(unsafe_code)]

pub mod introspect;
pub mod resp;
mod strings;

use crate::command::{Condition, Operation, Reply, Request, UnixMs, ValueHead};
use crate::engine::{Engine, KeyHash, PutError, Reader, Upload};
use crate::metrics::{Counter, Counters};
use strings::Target;

/// What came of a request.
#[derive(Debug)]
pub enum Outcome<'k, 'e> {
    /// A reply, with all its bytes; they are the request's and the engine's.
    Ready(Reply<'e>),
    /// A value that is to be read from the engine piece by piece.
    Long {
        /// What is said of it.
        head: ValueHead<'k>,
        /// Its length in bytes.
        length: usize,
        /// Where to read it; to be closed.
        reader: Reader,
    },
}

impl<'e> From<Reply<'e>> for Outcome<'_, 'e> {
    fn from(reply: Reply<'e>) -> Self {
        Self::Ready(reply)
    }
}

/// Stores a value that has come as an upload, as the request says: its operation is a store or an extension, without the
/// value. The upload is gone afterwards.
pub fn finish_upload(
    request: &Request<&[u8]>,
    hash: KeyHash,
    upload: Upload,
    engine: &mut Engine,
    now: UnixMs,
    counters: &mut Counters,
) -> Reply<'static> {
    let target = Target { engine, hash, key: request.key, now, counters };
    match request.operation {
        Operation::Store { condition, .. } => target.commit(condition, upload),
        Operation::Extend { end, bytes_max, .. } => target.extend_by(end, upload, bytes_max),
        _ => unreachable!("nothing else has a value"),
    }
}

/// Refuses a value for which there was no upload, or no memory to go on with it.
pub fn refuse_upload(
    request: &Request<&[u8]>,
    hash: KeyHash,
    error: PutError,
    engine: &mut Engine,
    now: UnixMs,
    counters: &mut Counters,
) -> Reply<'static> {
    let drop_old = matches!(request.operation, Operation::Store { condition: Condition::Always, .. });
    Target { engine, hash, key: request.key, now, counters }.refuse(drop_old, error)
}

/// Executes a request of one key, or this shard's part of one for all shards, at time `now`. Statistics are of the node
/// and none of this function's business.
#[inline]
pub fn execute<'k: 'e, 'e>(
    request: &Request<&'k [u8]>,
    hash: KeyHash,
    engine: &'e mut Engine,
    now: UnixMs,
    counters: &'e mut Counters,
) -> Outcome<'k, 'e> {
    let target = Target { engine, hash, key: request.key, now, counters };
    let reply = match request.operation {
        Operation::Get { versions, touch: None, first, last } => return target.get(versions, [first, last]),
        Operation::Get { versions, touch: Some(expiry), first, last } => {
            return target.get_and_touch(versions, expiry, [first, last]);
        }
        Operation::Store { condition, flags, expiry, value } => target.store(condition, flags, expiry, value),
        Operation::Extend { end, value, bytes_max } => target.extend(end, value, bytes_max),
        Operation::RefuseTooLarge { drop_old } => target.refuse(drop_old, PutError::TooLarge),
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
        Operation::SetEviction(eviction) => {
            target.engine.set_eviction(eviction);
            Reply::Ok
        }
        Operation::Version => Reply::Version,
        Operation::Verbosity => Reply::Ok,
        Operation::Invalid(failure) => {
            target.counters.add(Counter::InvalidCommands);
            Reply::Failed(failure)
        }
        Operation::SetMemory(bytes) => {
            target.engine.set_memory_bytes(bytes);
            Reply::Ok
        }
        Operation::SetEncodingLimits(encoding_limits) => {
            target.engine.set_encoding_limits(encoding_limits);
            Reply::Ok
        }
        Operation::Stats(_) => unreachable!("the shard answers statistics itself"),
        Operation::Call(_) | Operation::Split { .. } | Operation::Local { .. } | Operation::Clients { .. } => {
            unreachable!("commands of RESP have replies of their own")
        }
    };
    reply.into()
}
